"""What a checkpoint or a bundle holds, as values that print well."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m2f.bundle import MANIFEST, MODEL, Bundle
from m2f.config import Category, Metadata, ModelConfig, Task, json_from_config
from m2f.errors import UsageError

if TYPE_CHECKING:
    from m2f.bench.cost import CostReport
    from m2f.bench.savings import Saving


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """One weight, by our name for it."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def parameters(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The weights of one part of the network."""

    name: str
    tensors: int
    parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointReport:
    """What a checkpoint holds.

    Attributes:
        notes: What was noticed on reading, e.g. weights that are not part of the model.
    """

    name: str
    format: str
    sha256: str
    preset: str | None
    config: ModelConfig
    metadata: Metadata
    weights: tuple[Weight, ...]
    notes: tuple[str, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """Tensors and parameters by part, in the order of the network."""
        groups: dict[str, list[Weight]] = {}
        for weight in self.weights:
            groups.setdefault(".".join(weight.name.split(".")[:2]), []).append(weight)
        return tuple(
            Part(name=name, tensors=len(group), parameters=sum(w.parameters for w in group))
            for name, group in groups.items()
        )

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dump``."""
        return {
            "kind": "checkpoint",
            **json_from_config(self),
            "parts": json_from_config(self.parts),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """An input or output of the ONNX file; sizes that vary are names."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleReport:
    """What a bundle holds.

    Attributes:
        inputs: Empty, as ``outputs``, where the onnx library is not installed.
        ops: How many nodes of each kind, the most frequent first; custom ops with domain.
    """

    bundle: Bundle
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    ops: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dump``."""
        return {
            "kind": "bundle",
            "path": str(self.bundle.path),
            "manifest": json_from_config(self.bundle.manifest),
            "inputs": json_from_config(self.inputs),
            "outputs": json_from_config(self.outputs),
            "ops": dict(self.ops),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CostInspection:
    """What a network costs, and what the exact rewrites do about it.

    Attributes:
        name: Of the bundle or checkpoint.
        form: "plugin" or "portable".
        precision: Of the file that was counted.
        made: Rewrites that the file has.
        report: The counts.
        savings: Of each rewrite alone and of all, in FP32, whether made or not.
    """

    name: str
    form: str
    precision: str
    made: tuple[str, ...]
    report: CostReport
    savings: tuple[Saving, ...]

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dump``; units are in the names, MACs are plain numbers."""
        report = self.report
        return {
            "kind": "cost",
            "name": self.name,
            "form": self.form,
            "precision": self.precision,
            "size": list(report.size),
            "parts": {part: c.to_json() for part, c in report.parts.items()},
            "kinds": {kind: c.to_json() for kind, c in report.kinds.items()},
            "total": report.total.to_json(),
            "made": list(self.made),
            "rewrites": {s.rewrite: s.saved.to_json() for s in self.savings},
        }


def inspect(
    target: str | os.PathLike[str], *, preset: str | None = None, task: Task | None = None
) -> CheckpointReport | BundleReport:
    """Describes a checkpoint or a bundle.

    Args:
        target: A bundle's folder, or whatever `m2f.models.checkpoint.read` takes.
        preset: The published model a checkpoint is, unless its file says so.
        task: What a checkpoint was trained for, unless its file says so.

    Raises:
        M2FError: It is neither, or damaged.
    """
    path = Path(target)
    if _is_bundle(path):
        return _of_bundle(Bundle.open(path))
    return _of_checkpoint(os.fspath(target), preset, task)


def cost(
    target: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    *,
    preset: str | None = None,
    task: Task | None = None,
) -> CostInspection:
    """Counts what a network costs for one image.

    Args:
        target: A bundle; or a checkpoint, which is counted as it would be exported.
        size: Height and width, pixels; may be left out for a bundle of one size.
        preset: As for `inspect`.
        task: As for `inspect`.

    Raises:
        UsageError: No size is given and several are possible, or the bundle refuses it.
        M2FError: The target is neither, or damaged.
    """
    from m2f.bench.cost import cost_of_bundle
    from m2f.bench.savings import cost_of_model, savings
    from m2f.export.algebra import ALL

    if _is_bundle(Path(target)):
        bundle = Bundle.open(Path(target))
        manifest = bundle.manifest
        report = cost_of_bundle(bundle, size)
        model, preprocess = manifest.model, manifest.metadata.preprocess
        form, precision, made = manifest.form, manifest.precision, manifest.algebra
    else:
        found = _of_checkpoint(os.fspath(target), preset, task)
        if size is None:
            raise UsageError(f"{target}: a checkpoint takes any size; say which with --size")
        model, preprocess = found.config, found.metadata.preprocess
        report = cost_of_model(model, preprocess, size)
        form, precision, made = "plugin", "fp32", ALL.names
    return CostInspection(
        name=Path(target).name,
        form=form,
        precision=precision,
        made=made,
        report=report,
        savings=tuple(savings(model, preprocess, report.size[1:], form=form)),
    )


def _is_bundle(path: Path) -> bool:
    return (path / MANIFEST).is_file() or (path / MODEL).is_file()


def categories_in_short(categories: tuple[Category, ...], most: int = 8) -> str:
    """The number of categories, and the names of the first."""
    names = [category.name for category in categories[:most]]
    more = ["..."] if len(categories) > most else []
    things = sum(category.is_thing for category in categories)
    return f"{len(categories)} ({things} things): {', '.join(names + more)}"


def _of_checkpoint(source: str, preset: str | None, task: Task | None) -> CheckpointReport:
    from m2f.models import checkpoint

    read = checkpoint.read(source, preset=preset, task=task)
    weights = tuple(
        Weight(name=name, shape=tuple(array.shape), dtype=str(array.dtype))
        for name, array in read.weights.items()
    )
    return CheckpointReport(
        name=Path(source).name,
        format=read.format,
        sha256=read.sha256,
        preset=read.preset,
        config=read.config,
        metadata=read.metadata,
        weights=weights,
        notes=tuple(read.notes),
    )


def _of_bundle(bundle: Bundle) -> BundleReport:
    try:
        import onnx
    except ModuleNotFoundError:  # a runtime does not need it
        return BundleReport(bundle=bundle, inputs=(), outputs=(), ops={})
    graph = onnx.load(str(bundle.model_path), load_external_data=False).graph
    # The default of an optional input is an initializer of the same name.
    inputs = tuple(_port(value) for value in graph.input)
    ops = Counter(
        f"{node.domain}::{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        for node in graph.node
    )
    outputs = tuple(_port(value) for value in graph.output)
    return BundleReport(
        bundle=bundle, inputs=inputs, outputs=outputs, ops=dict(ops.most_common())
    )


def _port(value: Any) -> Port:
    import onnx

    tensor = value.type.tensor_type
    shape = tuple(
        d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim
    )
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return Port(name=value.name, dtype=dtype, shape=shape)
