"""A float32 network that can be quantised in many ways: its layers, and their ranges."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from m2f.bundle import Base, Bundle, disk_errors, write_manifest
from m2f.calib.recording import Recording
from m2f.calib.thresholds import RangeRule
from m2f.export import onnx_file, precision
from m2f.export.fused import fuse
from m2f.export.graph import Value
from m2f.export.plan import LARGEST, Kind, Plan, Target
from m2f.export.quantizable import Layer, layers


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a quantised network is made of.

    Attributes:
        kind: Of 8-bit numbers.
        base: Type of what is not quantised.
        target: Whose kernels the file is for.
    """

    kind: Kind = "int8"
    base: Base = "fp32"
    target: Target = "tensorrt"


class Network:
    """One bundle's network, to be quantised this way or that.

    Args:
        bundle: In float32.
        form: What it is to become.
    """

    def __init__(self, bundle: Bundle, form: Form) -> None:
        self.bundle, self.form = bundle, form
        self.model, self.arrays = onnx_file.load(bundle.model_path)
        self.layers = {
            layer.name: layer for layer in layers(self.model, self.arrays, form.kind)
        }
        self.thresholds: dict[Value, float] = {}

    @property
    def sampled(self) -> dict[Value, int]:
        """Tensors whose range some layer needs, and their axis of channels."""
        return {
            tensor: 1 if layer.kind in ("Conv", "Add") else -1
            for layer in self.layers.values()
            for tensor in self.tensors(layer)
        }

    def tensors(self, layer: Layer) -> tuple[Value, ...]:
        """Tensors whose range quantising a layer needs: for TensorRT only what enters it."""
        return layer.tensors if self.form.target == "onnxruntime" else (layer.input,)

    @property
    def dead(self) -> tuple[str, ...]:
        """Layers with a tensor that was always zero: 8 bits of no range mean nothing."""
        return tuple(
            name
            for name, layer in self.layers.items()
            if not all(self.thresholds[tensor] > 0 for tensor in self.tensors(layer))
        )

    @property
    def blocks(self) -> dict[str, tuple[str, ...]]:
        """The layers that can be quantised, by the block of the network they are in."""
        dead, found = set(self.dead), dict[str, list[str]]()
        for name in self.layers:
            if name not in dead:
                found.setdefault(block_of(name), []).append(name)
        return {block: tuple(names) for block, names in found.items()}

    def take(self, recording: Recording, rule: RangeRule) -> None:
        """Chooses the range of every tensor from what was recorded."""
        for name in self.sampled:
            record = recording.tensors[name]
            assert record.histogram is not None
            self.thresholds[name] = rule.threshold(record.histogram, record.peak)

    def plan(self, names: Collection[str]) -> Plan:
        """How to quantise these layers and no others."""
        needed = {tensor for name in names for tensor in self.tensors(self.layers[name])}
        largest = LARGEST[self.form.kind]
        return Plan(
            base=self.form.base,
            kind=self.form.kind,
            target=self.form.target,
            layers=frozenset(names),
            scales={name: self.thresholds[name] / largest for name in sorted(needed)},
        )

    @contextlib.contextmanager
    def quantised(self, names: Collection[str]) -> Iterator[Bundle]:
        """A bundle with these layers quantised, gone again afterwards."""
        with tempfile.TemporaryDirectory(prefix="m2f-calibrate-") as place:
            folder = Path(place)
            with disk_errors(folder):
                self.write(folder, names)
                manifest = dataclasses.replace(self.bundle.manifest, files=())
                write_manifest(folder, manifest)
            yield Bundle.open(folder, verify=False)

    def write(self, folder: Path, names: Collection[str]) -> int:
        """Writes the network with these layers quantised; ``folder`` must hold none.

        Returns:
            Its opset.
        """
        model, arrays = precision.apply(self.model, self.arrays, self.plan(names))
        # Where ONNX Runtime's kernels run it, ours do the rest.
        is_for_cpu = self.form.target == "onnxruntime" and self.form.base == "fp32"
        fused = fuse(model, arrays) if is_for_cpu else None
        onnx_file.save(model, arrays, folder, fused=fused)
        return int(next(opset.version for opset in model.opset_import if not opset.domain))


def block_of(layer: str) -> str:
    """The part of a network that a layer belongs to: its name up to the last number."""
    parts = layer.split(".")
    numbers = [i for i, part in enumerate(parts) if part.isdecimal()]
    return ".".join(parts[: numbers[-1] + 1] if numbers else parts[:2])
