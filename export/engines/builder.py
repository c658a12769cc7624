"""From a bundle to a TensorRT engine: ``build(bundle, target="tensorrt-rtx")``."""

from __future__ import annotations

import contextlib
import glob
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from m2f import gpu
from m2f.bundle import Bundle, Range, disk_errors, sha256_of
from m2f.config import json_from_config
from m2f.engine import (
    FOLDER,
    EngineKey,
    EngineRecord,
    Flags,
    Sizes,
    Target,
    check_file,
    default_sizes,
    difference,
    model_hash,
    read_record,
    record_path,
)
from m2f.errors import DeviceError, M2FError, MissingFile, UsageError
from m2f.export.engines.layers import counts
from m2f.export.engines.network_file import write_network
from m2f.export.engines.process import Progress, Worker
from m2f.export.engines.worker import INSPECTED, Request
from m2f.files import write_json
from m2f.plugins.trt import system

Size = tuple[int, int]

RTX_COMPUTE = (75, 80, 86, 89, 120, 121)
"""Capabilities TensorRT for RTX 1.7 compiles for."""

PLAIN = Flags()
"""How TensorRT builds unless told otherwise."""

_TURING = 75
_ADA = 89

_STALE_SECONDS = 24 * 3600
"""Age at which a work folder is what a killed process left: no build takes as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What engine to build.

    Attributes:
        target: "tensorrt", on the GPU it is to run on; or "tensorrt-rtx", on any machine.
        compute: Compute capabilities to compile for, e.g. (86, 89); "tensorrt-rtx" only. The
            GPU that is there unless given, or else all that the precision allows.
        precision: What the bundle must be in; to be sure.
        batch: Images at once.
        min_size: Least height and width.
        opt_size: Height and width to tune for.
        max_size: Largest height and width. The bundle's, all unless given.
        flags: How to build.
        timing_cache: File with measured kernel times, read and written; "tensorrt" only.
        rebuild: Even if the same engine is there already.
    """

    target: Target = "tensorrt"
    compute: tuple[int, ...] = ()
    precision: str | None = None
    batch: Range | None = None
    min_size: Size | None = None
    opt_size: Size | None = None
    max_size: Size | None = None
    flags: Flags = PLAIN
    timing_cache: Path | None = None
    rebuild: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """An engine, and how it came to be there.

    Attributes:
        engine: Its file.
        record: What it was built from.
        is_new: Whether it was built now.
        why: Why an engine that was there had to be built again.
    """

    engine: Path
    record: EngineRecord
    is_new: bool
    why: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dump``."""
        record = json_from_config(self.record)
        return {
            "engine": str(self.engine),
            "is_new": self.is_new,
            "why": self.why,
            "record": record,
        }


def build(
    bundle: str | Path | Bundle,
    out: str | Path | None = None,
    *,
    options: BuildOptions = BuildOptions(),
    progress: Progress = lambda *_: None,
) -> BuildReport:
    """Builds a bundle's engine, or finds the same one built before.

    Precision is what the bundle is in. Engine and record appear whole or not at all.

    Args:
        bundle: As `m2f export` or `m2f convert` made it.
        out: The engine's file; its place within the bundle unless given.
        options: What to build.
        progress: Called as the builder goes on.

    Raises:
        UsageError: The options contradict each other or the bundle.
        MissingDependency: This TensorRT is not installed.
        DeviceError: "tensorrt" without a GPU.
        BuildError: TensorRT refuses the network.
        DiskError: The engine cannot be written.
    """
    if not isinstance(bundle, Bundle):
        bundle = Bundle.open(bundle)
    sizes = sizes_from(bundle, options)
    name, compute = _device(bundle, options)
    with Worker(options.target) as worker:
        key = EngineKey(
            target=options.target,
            tensorrt=worker.version,
            system=system(),
            gpu=name,
            compute=compute,
            precision=bundle.manifest.precision,
            model=model_hash(bundle),
            plugins=_plugins(bundle, worker.plugins),
            sizes=sizes,
            flags=options.flags,
        )
        engine = Path(out) if out is not None else _place(bundle, key)
        record, why = _present(engine, key)
        if record is not None and not options.rebuild:
            return BuildReport(engine=engine, record=record, is_new=False)
        with _work(engine) as folder:
            progress("preparing the network", 0, 0)
            network = write_network(bundle, folder, with_plugins=key.plugins is not None)
            request = Request(
                network=str(network),
                out=str(folder / "engine"),
                compute=() if options.target == "tensorrt" else compute,
                sizes=sizes,
                flags=options.flags,
                timing_cache=str(options.timing_cache) if options.timing_cache else None,
            )
            start = time.monotonic()
            said = worker.build(request, progress)
            seconds = time.monotonic() - start
            plan = folder / "engine"
            record = EngineRecord(
                key=key,
                bundle=bundle.manifest.name,
                created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
                seconds=round(seconds, 1),
                bytes=plan.stat().st_size,
                sha256=sha256_of(plan),
                layers=counts(said["layers"]),
                log=tuple(said["log"]),
            )
            _publish(plan, engine, record, said["layers"])
    return BuildReport(engine=engine, record=record, is_new=True, why=why)


def sizes_from(bundle: Bundle, options: BuildOptions) -> Sizes:
    """The optimisation profile: the bundle's sizes, narrowed by the options.

    Raises:
        UsageError: The bundle does not take such sizes.
    """
    profile = bundle.manifest.profile
    base = default_sizes(profile)
    n = options.batch
    low = (n.min if n else base.min[0], *(options.min_size or base.min[1:]))
    high = (n.max if n else base.max[0], *(options.max_size or base.max[1:]))
    best = options.opt_size or (high[1], high[2])
    sizes = Sizes(min=low, opt=(low[0], *best), max=high)
    for axis, least, most in zip(("batch", "height", "width"), low, high, strict=True):
        allowed: Range = getattr(profile, axis)
        if least not in allowed or most not in allowed:
            raise UsageError(
                f"the engine's {axis} of {Range(min=least, max=most)} is not within the "
                f"bundle's {allowed}; choose sizes within it, or export again"
            )
    return sizes


def _device(bundle: Bundle, options: BuildOptions) -> tuple[str | None, tuple[int, ...]]:
    """Name of the GPU to tune on, and compute capabilities to build for."""
    precision = bundle.manifest.precision
    if options.precision not in (None, precision):
        raise UsageError(
            f"{bundle.path} is {precision}, asked for is {options.precision}: an engine "
            f"computes in what its bundle is in; make that bundle first: {_made_by(options)}"
        )
    if options.target == "tensorrt":
        here = gpu.gpu()
        if options.compute not in ((), (here.compute,)):
            raise UsageError(
                f"TensorRT builds for the GPU that is there, SM{here.compute}, not for "
                f"{_listed(options.compute)}; build on that GPU, or use --target tensorrt-rtx"
            )
        return here.name, (here.compute,)
    if options.flags.hardware_compatible:
        raise UsageError(
            "TensorRT for RTX has no --hardware-compatible: pass several --compute"
        )
    compute = options.compute or _rtx_compute(bundle)
    unknown = [c for c in compute if c not in RTX_COMPUTE]
    if unknown:
        raise UsageError(
            f"TensorRT for RTX compiles for {_listed(RTX_COMPUTE)}, not for {_listed(unknown)}"
        )
    if too_old := [c for c in compute if precision == "fp8" and c < _ADA]:
        raise UsageError(
            f"8-bit floats begin with SM{_ADA}, and {bundle.path} is fp8, to be built for "
            f"{_listed(too_old)}; leave these out, or calibrate for int8"
        )
    if _TURING in compute and not _runs_on(_TURING, bundle):
        raise UsageError(
            f"on SM75 TensorRT for RTX has no matrix products but float16's, and {bundle.path} "
            f"is {_types(bundle)}; leave 75 out, or make an fp16 bundle (`m2f convert`, "
            "`m2f calibrate --rest fp16`)"
        )
    return None, tuple(sorted(set(compute)))


def _made_by(options: BuildOptions) -> str:
    """The command that makes a bundle of the precision that is asked for."""
    if options.precision in ("fp16", "bf16"):
        return f"`m2f convert BUNDLE -o OUT --precision {options.precision}`"
    if options.precision in ("int8", "fp8"):
        fp8 = " --fp8" if options.precision == "fp8" else ""
        return f"`m2f calibrate BUNDLE -o OUT --images PHOTOS --rest fp16{fp8}`"
    return "`m2f export`"


def _rtx_compute(bundle: Bundle) -> tuple[int, ...]:
    try:
        here = gpu.gpu().compute
    except DeviceError:
        here = 0
    if here in RTX_COMPUTE:
        return (here,)
    return tuple(c for c in RTX_COMPUTE if _runs_on(c, bundle))


def _runs_on(compute: int, bundle: Bundle) -> bool:
    """Whether a GPU has the products of a bundle: of its 8-bit layers, and of the others."""
    if bundle.manifest.precision == "fp8" and compute < _ADA:
        return False
    return compute > _TURING or _base(bundle) == "fp16"


def _base(bundle: Bundle) -> str:
    """Type of what is not quantised."""
    quantization = bundle.manifest.quantization
    return quantization.base if quantization else bundle.manifest.precision


def _types(bundle: Bundle) -> str:
    precision, base = bundle.manifest.precision, _base(bundle)
    return precision if precision == base else f"{precision} among {base}"


def _listed(compute: Any) -> str:
    return ", ".join(f"SM{c}" for c in compute)


def _plugins(bundle: Bundle, library: str | None) -> str | None:
    """Hash of the plugin library, where this bundle uses it."""
    if library is None or not bundle.manifest.ops:
        return None
    return sha256_of(Path(library))


def _place(bundle: Bundle, key: EngineKey) -> Path:
    """Within the bundle; sizes other than the bundle's are part of the name."""
    name = key.name
    if key.sizes != default_sizes(bundle.manifest.profile):
        ends = [key.sizes.max] if key.sizes.is_fixed else [key.sizes.min, key.sizes.max]
        name += "-" + "-to-".join("x".join(map(str, end)) for end in ends)
    return bundle.path / FOLDER / f"{name}.engine"


def _present(engine: Path, key: EngineKey) -> tuple[EngineRecord | None, str | None]:
    """The record of the same engine if it is there; else why what is there is not it."""
    if not engine.exists():
        return None, None
    try:
        record = read_record(engine)
        check_file(engine, record)
    except MissingFile:
        raise UsageError(f"{engine}: is no file; choose another name") from None
    except M2FError as problem:
        return None, str(problem)
    why = difference(record.key, key)
    return (record, None) if why is None else (None, why)


@contextlib.contextmanager
def _work(engine: Path) -> Iterator[Path]:
    """A folder beside an engine-to-be, gone afterwards whatever happens."""
    folder = engine.parent / f".{engine.stem}.{secrets.token_hex(4)}"
    try:
        with disk_errors(engine):
            engine.parent.mkdir(parents=True, exist_ok=True)
            _remove_stale(engine)
            folder.mkdir()
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_stale(engine: Path) -> None:
    """Removes work folders of the same engine that a killed process could not."""
    for folder in engine.parent.glob(f".{glob.escape(engine.stem)}.*"):
        token = folder.name.rpartition(".")[2]
        if re.fullmatch("[0-9a-f]{8}", token) is None or not folder.is_dir():
            continue
        with contextlib.suppress(FileNotFoundError):  # another build removed it
            if time.time() - folder.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _publish(plan: Path, engine: Path, record: EngineRecord, layers: list[Any]) -> None:
    """Puts engine and record in place so that at no moment one vouches for another's."""
    record_path(engine).unlink(missing_ok=True)
    plan.replace(engine)
    rows = [{"name": n, "kind": k, "precision": p} for n, k, p in layers]
    write_json(engine.with_suffix(".layers.json"), rows)
    inspected = plan.with_name(INSPECTED)
    if inspected.is_file():
        inspected.replace(engine.with_suffix(".inspected.json"))
    write_json(record_path(engine), json_from_config(record))
