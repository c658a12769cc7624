"""TensorRT engines: what one was built from, and whether it still fits.

An engine lies in its bundle, with a record of the same name beside it:

    engines/sm89-tensorrt-rtx-1.7.1-fp16.engine
    engines/sm89-tensorrt-rtx-1.7.1-fp16.json

TensorRT itself accepts a plan that belongs to another network without a word, and ends the
process at some plans it does not like. So every engine is compared with its record first.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from m2f.bundle import MODEL, WEIGHTS, Bundle, InputProfile, Range, sha256_of
from m2f.config import config_from_json
from m2f.errors import EngineError, MissingFile, UsageError

RECORD_VERSION = 1
FOLDER = "engines"
"""Of a bundle, where its engines are."""

Target = Literal["tensorrt", "tensorrt-rtx"]
TARGETS: tuple[Target, ...] = ("tensorrt", "tensorrt-rtx")

Extent = tuple[int, int, int]
"""N, H, W of an input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The optimisation profile: sizes of `image` an engine takes, and those it is tuned for."""

    min: Extent
    opt: Extent
    max: Extent

    def __post_init__(self) -> None:
        for axis, low, best, high in zip("NHW", self.min, self.opt, self.max, strict=True):
            if not 1 <= low <= best <= high:
                raise UsageError(
                    f"the engine's sizes must rise from at least 1, got {axis} of {low} (min), "
                    f"{best} (opt), {high} (max)"
                )

    @property
    def is_fixed(self) -> bool:
        """Whether there is only one shape."""
        return self.min == self.max

    @property
    def profile(self) -> InputProfile:
        """The same as a bundle's manifest says it."""
        axes = (Range(min=a, max=b) for a, b in zip(self.min, self.max, strict=True))
        return InputProfile(**dict(zip(("batch", "height", "width"), axes, strict=True)))

    def __contains__(self, extent: Sequence[int]) -> bool:
        axes = zip(self.min, extent, self.max, strict=True)
        return all(low <= size <= high for low, size, high in axes)

    def __str__(self) -> str:
        low, best, high = ("x".join(map(str, e)) for e in (self.min, self.opt, self.max))
        return low if self.is_fixed else f"{low} to {high}, tuned for {best}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """How an engine is built, beside what it computes.

    Attributes:
        workspace_mib: Most scratch memory a layer may use; TensorRT's own choice if None.
        level: 0 to 5, how long to look for fast kernels; TensorRT's own choice if None.
        tf32: Let float32 products round their inputs to 10 bits.
        version_compatible: Runs with later TensorRT versions, too, through a lean runtime.
        hardware_compatible: Runs on every GPU from Ampere on, a little more slowly.
    """

    workspace_mib: int | None = None
    level: int | None = None
    tf32: bool = False
    version_compatible: bool = False
    hardware_compatible: bool = False

    def __post_init__(self) -> None:
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise UsageError(f"the workspace must be at least 1 MiB, got {self.workspace_mib}")
        if self.level is not None and not 0 <= self.level <= 5:
            raise UsageError(f"the optimisation level goes from 0 to 5, got {self.level}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKey:
    """All that decides what an engine is. Two builds with one key are the same engine.

    Attributes:
        target: Which TensorRT.
        tensorrt: Its version.
        system: Operating system and processor, e.g. "linux-x86_64".
        gpu: Name of the GPU it was tuned on; None where it was compiled without one.
        compute: Compute capabilities it runs on, e.g. (89,) or (75, 86).
        precision: Of the bundle.
        model: SHA-256 of the ONNX file and its weights.
        plugins: SHA-256 of the plugin library; None where the ops are standard layers.
        sizes: Input sizes.
        flags: How it is built.
    """

    target: Target
    tensorrt: str
    system: str
    gpu: str | None
    compute: tuple[int, ...]
    precision: str
    model: str
    plugins: str | None
    sizes: Sizes
    flags: Flags

    @property
    def name(self) -> str:
        """File name without its ending, e.g. "sm89-tensorrt-rtx-1.7.1-fp16"."""
        parts = [_slug(self.gpu)] if self.gpu else []
        parts += ["sm" + "-".join(map(str, self.compute)), self.target]
        parts += [".".join(self.tensorrt.split(".")[:3]), self.precision]
        return "-".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCount:
    """How many layers of one kind compute in one type."""

    kind: str
    precision: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRecord:
    """What stands beside an engine.

    Attributes:
        record_version: Meaning of these fields.
        key: What it was built from.
        bundle: Name of the model.
        created: UTC, ISO 8601.
        seconds: The build took.
        bytes: Of the engine.
        sha256: Of the engine.
        layers: What TensorRT was given to build, by kind and type.
        log: What TensorRT warned of.
    """

    record_version: int = RECORD_VERSION
    key: EngineKey
    bundle: str
    created: str
    seconds: float
    bytes: int
    sha256: str
    layers: tuple[LayerCount, ...] = ()
    log: tuple[str, ...] = ()


def model_hash(bundle: Bundle) -> str:
    """One hash of the ONNX file and its weights, from the manifest."""
    wanted = (MODEL, WEIGHTS)
    parts = [f"{f.name}:{f.sha256}" for f in bundle.manifest.files if f.name in wanted]
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()


def record_path(engine: Path) -> Path:
    """Where an engine's record is."""
    return engine.with_suffix(".json")


def engines(bundle: Bundle) -> list[Path]:
    """Every engine in a bundle, newest first."""
    found = (bundle.path / FOLDER).glob("*.engine")
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def read_record(engine: Path) -> EngineRecord:
    """Reads what an engine was built from.

    Raises:
        MissingFile: There is no such engine.
        EngineError: It has no record, or none that this program reads.
    """
    if not engine.is_file():
        raise MissingFile(f"{engine}: no such engine; make one with `m2f build`")
    path = record_path(engine)
    if not path.is_file():
        raise EngineError(
            f"{engine}: has no {path.name} beside it, so nothing says what it was built from; "
            "build it with `m2f build`"
        )
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        version = raw.get("record_version") if isinstance(raw, dict) else None
        if version != RECORD_VERSION:
            raise UsageError(f"record version {version}, this program reads {RECORD_VERSION}")
        return config_from_json(EngineRecord, raw, where="record")
    except (ValueError, OSError, UsageError) as problem:
        raise EngineError(f"{path}: is unusable ({problem}); build the engine again") from None


def check_file(engine: Path, record: EngineRecord) -> None:
    """Compares an engine's bytes with its record.

    Raises:
        EngineError: It was cut short or altered.
    """
    size = engine.stat().st_size
    if size != record.bytes:
        raise EngineError(
            f"{engine}: has {size} bytes, its record says {record.bytes}; build it again"
        )
    if (actual := sha256_of(engine)) != record.sha256:
        raise EngineError(
            f"{engine}: was altered: its SHA-256 is {actual[:12]}..., its record says "
            f"{record.sha256[:12]}...; build it again"
        )


def difference(built: EngineKey, wanted: EngineKey) -> str | None:
    """The first thing in which two keys differ, with both values; None if they agree."""
    for name, phrase in _PHRASES.items():
        old, new = getattr(built, name), getattr(wanted, name)
        if old != new:
            return phrase.format(old=_shown(old), new=_shown(new))
    return None


def check_fits(
    engine: Path, key: EngineKey, *, tensorrt: str, system: str, gpu: str, compute: int
) -> None:
    """Compares what an engine was built for with the machine that is to run it.

    Raises:
        EngineError: It is for another TensorRT, system or GPU; says which, and both values.
    """

    def refuse(built: str, here: str) -> None:
        raise EngineError(
            f"{engine}: was built for {built}, here is {here}; run `m2f build` on this machine"
        )

    same_major = key.tensorrt.split(".")[0] == tensorrt.split(".")[0]
    if key.system != system:
        refuse(key.system, system)
    if key.tensorrt != tensorrt and not (key.flags.version_compatible and same_major):
        refuse(f"{key.target} {key.tensorrt}", tensorrt)
    if key.flags.hardware_compatible:
        if compute < _AMPERE:
            refuse(f"SM{_AMPERE} and newer", f"SM{compute} ({gpu})")
    elif compute not in key.compute:
        refuse(_shown(key.compute), f"SM{compute} ({gpu})")


def check_model(engine: Path, key: EngineKey, bundle: Bundle) -> None:
    """Compares the network an engine was built from with a bundle's.

    Raises:
        EngineError: The bundle was made anew since.
    """
    now = model_hash(bundle)
    if key.model != now:
        raise EngineError(
            f"{engine}: is stale: it was built from an ONNX file of SHA-256 {key.model[:12]}"
            f"..., {bundle.path.name} holds {now[:12]}...; run `m2f build` again"
        )


def default_sizes(profile: InputProfile) -> Sizes:
    """The sizes a bundle's engine takes unless others are asked for: all of the bundle's.

    Tuned for one image of the largest height and width, which is what a fixed-size camera and
    the models' own rules (800 by up to 1333 pixels) give.
    """
    axes = (profile.batch, profile.height, profile.width)
    low, high = ((a.min for a in axes), (a.max for a in axes))
    n, h, w = tuple(high)
    return Sizes(min=_extent(low), opt=(profile.batch.min, h, w), max=(n, h, w))


def _extent(values: Iterator[int]) -> Extent:
    n, h, w = values
    return n, h, w


_AMPERE = 80
_PHRASES = {
    "target": "it is for {old}, asked for is {new}",
    "system": "it was built on {old}, this is {new}",
    "tensorrt": "it was built by TensorRT {old}, here is {new}",
    "gpu": "it was built on a {old}, here is a {new}",
    "compute": "it is for {old}, asked for is {new}",
    "model": "it was built from an ONNX file of SHA-256 {old}, the bundle holds {new}",
    "plugins": "it was built with a plugin library of SHA-256 {old}, here is {new}",
    "precision": "it computes in {old}, the bundle in {new}",
    "sizes": "it takes {old}, asked for is {new}",
    "flags": "it was built with {old}, asked for is {new}",
}


def _shown(value: object) -> str:
    if isinstance(value, Flags):
        default = dataclasses.asdict(Flags())
        given = {k: v for k, v in dataclasses.asdict(value).items() if v != default[k]}
        return ", ".join(f"{k}={v}" for k, v in given.items()) or "no flags"
    if isinstance(value, tuple):
        return ", ".join(f"SM{c}" for c in value)
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return f"{value[:12]}..."
    return "none" if value is None else str(value)


def _slug(name: str) -> str:
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
