"""Quantisation-aware finetuning: from an INT8 bundle to what training has to round, and back.

Training starts from the ranges that calibration chose for the same network, learns weights that
do well with them, and moves the ranges. What it ends with is a checkpoint, and beside it
`RANGES`, which `m2f calibrate --ranges` takes instead of images.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from m2f.bundle import Bundle, Manifest, sha256_of
from m2f.calib.calibration import RANGES as CALIBRATION
from m2f.calib.learnt import read_ranges
from m2f.errors import BundleError, UsageError
from m2f.export.algebra import Algebra
from m2f.export.network import onnx_from_weights
from m2f.export.quantizable import Layer, layers
from m2f.models.mask2former import Mask2Former
from m2f.train.quantized import LARGEST, Rounding, learnt_steps, prepare
from m2f.train.start import Start

RANGES = "ranges.json"
"""Beside a checkpoint: the ranges that were learnt with it, in the same terms."""

PIXELS = ("backbone.stem.conv1", "backbone.patch_embed.proj")
"""Layers that read the image, which has 8 bits already; the file scales it differently, too."""


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """What training is to make up for.

    Attributes:
        name: Of the bundle.
        identity: SHA-256 of its calibration.
        quantized: Names of the layers that the bundle quantises.
        thresholds: Largest magnitude that every tensor's 8-bit numbers stand for.
        rounding: The part of it that has a module in the reference model.
    """

    name: str
    identity: str
    quantized: tuple[str, ...]
    thresholds: Mapping[str, float]
    rounding: Rounding

    def prepare(self, model: Mask2Former) -> None:
        """Makes a model compute as if quantised."""
        prepare(self.rounding)(model)

    def ranges(self, model: Mask2Former) -> dict[str, Any]:
        """What a prepared and trained model has learnt, ready for ``json.dump``."""
        learnt = {name: step * LARGEST for name, step in learnt_steps(model).items()}
        return {
            "rule": f"learnt, from {self.name}",
            "calibration": self.identity,
            "quantized": list(self.quantized),
            "thresholds": {**self.thresholds, **learnt},
        }

    @property
    def note(self) -> str:
        """How much of the file's rounding training knows of."""
        trained = len(self.rounding.inputs) + len(self.rounding.outputs)
        return (
            f"training rounds in {trained} places what {self.name} rounds in "
            f"{len(self.quantized)} layers; the others have no module of their own"
        )


def recovery(bundle: str | Path, start: Start) -> Recovery:
    """Reads how a bundle was quantised.

    Args:
        bundle: An INT8 bundle of the model that training starts from.
        start: That model.

    Raises:
        MissingFile: There is no such bundle.
        BundleError: It is damaged.
        UsageError: It is not quantised to INT8, or not of this model.
    """
    opened = Bundle.open(bundle)
    manifest = opened.manifest
    if manifest.precision != "int8":
        raise UsageError(
            f"{bundle}: is {manifest.precision}; training makes up for int8: quantise it with "
            "`m2f calibrate` first"
        )
    if start.weights is None:
        raise UsageError(f"{start.name} has no weights yet, so that nothing can be recovered")
    if manifest.source.sha256 != start.identity:
        raise UsageError(
            f"{bundle} was made from {manifest.source.name} ({manifest.source.sha256[:12]}), "
            f"training starts from {start.name} ({start.identity[:12]}); calibrate the model "
            "that is to be trained"
        )
    file = opened.path / CALIBRATION
    ranges = read_ranges(file)
    graph = _layers_of(start, manifest)
    unknown = sorted(set(ranges.quantized) - set(graph))
    if unknown:
        raise BundleError(
            f"{file}: names {unknown[0]}, which the network does not have; calibrate again"
        )
    return Recovery(
        name=opened.path.name,
        identity=sha256_of(file),
        quantized=ranges.quantized,
        thresholds=ranges.thresholds,
        rounding=rounding([graph[name] for name in ranges.quantized], start, ranges.thresholds),
    )


def rounding(quantized: list[Layer], start: Start, thresholds: Mapping[str, float]) -> Rounding:
    """What of a file's quantised layers the reference model can round.

    Layers with a weight are modules of the same name. Those without one, such as the residual
    side of an addition, round a tensor where a module gives it.
    """
    with torch.device("meta"):
        modules = dict(Mask2Former(start.config).named_modules())
    inputs, outputs = {}, {}
    for layer in quantized:
        if layer.name in PIXELS:
            continue
        if layer.weight is not None and layer.name in modules:
            inputs[layer.name] = layer.input
        elif layer.weight is None and layer.input in modules:
            outputs[layer.input] = layer.input
    tensors = {*inputs.values(), *outputs.values()}
    steps = {name: thresholds[name] / LARGEST for name in sorted(tensors)}
    return Rounding(inputs=inputs, outputs=outputs, steps=steps)


def _layers_of(start: Start, manifest: Manifest) -> dict[str, Layer]:
    """Everything that can be quantised in the model's file, as the bundle's was written.

    Tensors that are no module's have numbers in their names, which depend on how it was.
    """
    assert start.weights is not None
    model, arrays = onnx_from_weights(
        start.config,
        start.weights,
        preprocess=start.metadata.preprocess,
        profile=manifest.profile,
        form=manifest.form,
        algebra=Algebra.of(manifest.algebra),
    )
    return {layer.name: layer for layer in layers(model, arrays)}
