"""The ops of our own, as their ``op.toml`` files describe them.

One file per op is the only place where its name, axes, types and attributes are written.
The exporter builds ONNX nodes from it, the tests draw inputs from it, and native adapters
get it as a generated header (`plugins/header.py`).
"""

import itertools
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from m2f.errors import BundleError, ShapeError

if sys.version_info >= (3, 11):
    import tomllib
else:  # JetPack 6 has Python 3.10
    import tomli as tomllib


class Array(Protocol):
    """Anything with a shape: a NumPy array, a PyTorch tensor."""

    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output.

    Attributes:
        dims: Axis names; a first "*" stands for any number of axes, flattened to one.
        variadic: Stands for any number of tensors, none included; always the last input.
        optional: May be left out; always the last input.
    """

    name: str
    type: str
    dims: tuple[str, ...]
    doc: str
    variadic: bool = False
    optional: bool = False

    def __str__(self) -> str:
        return f"{self.name}[{', '.join(self.dims)}]"

    def flattened(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A shape with what "*" stands for as one axis."""
        if self.dims[:1] != ("*",) or len(shape) + 1 < len(self.dims):
            return shape
        leading = len(shape) + 1 - len(self.dims)
        return (math.prod(shape[:leading]), *shape[leading:])


@dataclass(frozen=True, slots=True)
class AttributeSpec:
    """One attribute: "int", "ints" or "float".

    Attributes:
        optional: May be absent, and then means what `doc` says.
        default: Its value where it is absent, if that is a number.
    """

    name: str
    type: str
    doc: str
    optional: bool = False
    default: float | None = None

    @property
    def is_required(self) -> bool:
        """Whether each node must have it."""
        return not self.optional and self.default is None


@dataclass(frozen=True, slots=True)
class OpSpec:
    """One op, exactly as its ``op.toml`` states it.

    Attributes:
        types: For each type variable what it may be: types, or variables above it.
        path: The file itself.
    """

    name: str
    domain: str
    version: int
    doc: str
    source: str
    axes: Mapping[str, str]
    types: Mapping[str, tuple[str, ...]]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    attributes: tuple[AttributeSpec, ...]
    path: Path

    @classmethod
    def load(cls, path: Path) -> "OpSpec":
        """Reads one ``op.toml``.

        Raises:
            BundleError: The file is not TOML or lacks a field; it belongs to the package,
                so the installation is damaged.
        """
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
            return cls(
                name=raw["name"],
                domain=raw["domain"],
                version=raw["version"],
                doc=raw["doc"].strip(),
                source=raw["source"],
                axes=raw["axes"],
                types={name: tuple(dtypes) for name, dtypes in raw["types"].items()},
                inputs=tuple(_tensor(t) for t in raw["inputs"]),
                outputs=tuple(_tensor(t) for t in raw["outputs"]),
                attributes=tuple(AttributeSpec(**a) for a in raw["attributes"]),
                path=path,
            )
        except (KeyError, TypeError, ValueError, OSError) as problem:
            raise BundleError(
                f"{path}: not an op description ({problem}); reinstall"
            ) from problem

    def signatures(self) -> list[dict[str, str]]:
        """Each choice of types the op can be called with, by variable; plain ones first."""
        found = []
        for choice in itertools.product(*reversed(list(self.types.values()))):
            chosen: dict[str, str] = {}
            for variable, name in zip(self.types, reversed(choice), strict=True):
                chosen[variable] = chosen.get(name, name)
            found.append(chosen)
        return found

    def bind(self, *arrays: Array, attributes: Mapping[str, Any]) -> dict[str, int]:
        """Checks inputs and attributes and returns the size of every axis.

        Args:
            *arrays: One array per input, in order; any number for a variadic one, none or one
                for an optional one. Axes of a variadic input differ from array to array and
                are not reported.
            attributes: Attribute values by name.

        Raises:
            ShapeError: An input or attribute is missing or unknown, has the wrong rank, or
                two inputs disagree about an axis. Names the inputs, the axis, both sizes.
        """
        self._check_attributes(attributes)
        fixed = [spec for spec in self.inputs if not spec.variadic]
        needed = sum(not spec.optional for spec in fixed)
        if len(arrays) < needed or (len(arrays) > len(fixed) == len(self.inputs)):
            takes = f"{needed} or {len(fixed)}" if needed < len(fixed) else f"{needed}"
            raise ShapeError(f"{self.name}: takes {takes} inputs, got {len(arrays)}")
        sizes: dict[str, int] = {}
        first_seen: dict[str, TensorSpec] = {}
        for spec, array in zip(fixed, arrays, strict=False):
            shape = spec.flattened(tuple(array.shape))
            if len(shape) != len(spec.dims):
                raise ShapeError(f"{self.name}: {spec} has {len(spec.dims)} axes, got {shape}")
            for axis, size in zip(spec.dims, shape, strict=True):
                if size != sizes.setdefault(axis, size):
                    raise ShapeError(
                        f"{self.name}: axis {axis} ({self.axes[axis]}) is {size} in {spec}, "
                        f"but {sizes[axis]} in {first_seen[axis]}"
                    )
                first_seen.setdefault(axis, spec)
        return sizes

    def _check_attributes(self, attributes: Mapping[str, Any]) -> None:
        known = {a.name for a in self.attributes}
        required = {a.name for a in self.attributes if a.is_required}
        if unknown := sorted(set(attributes) - known):
            raise ShapeError(f"{self.name}: has no attribute {', '.join(unknown)}")
        if missing := sorted(required - set(attributes)):
            raise ShapeError(f"{self.name}: needs the attribute {', '.join(missing)}")


def _tensor(raw: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(
        raw["name"],
        raw["type"],
        tuple(raw["dims"]),
        raw["doc"].strip(),
        bool(raw.get("variadic")),
        bool(raw.get("optional")),
    )


def _load_all(folder: str) -> tuple[OpSpec, ...]:
    """Those of a folder, by name of their own folders."""
    paths = (Path(__file__).parent / folder).glob("*/op.toml")
    return tuple(OpSpec.load(path) for path in sorted(paths))


MASKED_ATTENTION, MS_DEFORM_ATTN = OPS = _load_all("ops")
"""The custom ops that exported files use on every device."""

FUSED = _load_all("fused")
"""What our CPU kernels do in one step, for `model.cpu.onnx` only."""
