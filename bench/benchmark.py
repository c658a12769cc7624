"""One run of it all: opened, checked, timed in turns, checked again."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import m2f.models
from m2f.bench import machine, profiling
from m2f.bench.checks import Array, checked
from m2f.bench.cost import cost_of_file
from m2f.bench.entries import (
    Entry,
    bundle_entries,
    checkpoint_of,
    exported_entries,
    proof_at_export,
    reference_entry,
)
from m2f.bench.machine import Machine
from m2f.bench.peers import peers_of
from m2f.bench.race import Race, first_line
from m2f.bench.report import Report, Staged, Timed
from m2f.bench.stages import stages
from m2f.bundle import Bundle
from m2f.errors import CheckFailed, UsageError
from m2f.models.checkpoint import Checkpoint
from m2f.runtime.backends import cpu_file, target_of
from m2f.runtime.images import decode, find_images
from m2f.runtime.preprocess import prepare

TOOLS = ("numpy", "onnxruntime", "torch", "transformers", "openvino")
DEFAULT_SIDE = 512
PROFILED = 3
"""Runs of a network under the profiler."""

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to measure.

    Attributes:
        size: Height and width of what networks are given, pixels. Unless given: a bundle's
            only size, or the one it gives the first image, or 512x512.
        threads: Cores to use; all unless given.
        backend: What runs bundles: a name of `m2f.runtime.backends.BACKENDS`.
        device: What they run on; the CPU unless given.
        runs: How often each is timed.
        peers: Keys of `m2f.bench.peers.PEERS`.
        steps: Also time an export without native kernels, and without the exact rewrites.
        parts: Also time the parts of bundles' networks.
        cache: Where exports of peers are kept.
    """

    size: tuple[int, int] | None = None
    threads: int | None = None
    backend: str | None = None
    device: str | None = None
    runs: int = 10
    peers: tuple[str, ...] = ()
    steps: bool = False
    parts: bool = True
    cache: Path | None = None


def bench(
    bundles: Sequence[str | Path] = (),
    images: Iterable[str | Path] = (),
    *,
    checkpoint: str | Path | None = None,
    preset: str | None = None,
    options: Options = Options(),
    progress: Progress = lambda _: None,
) -> Report:
    """Times networks beside each other, and bundles from files to segments.

    No time is given whose result was not compared with PyTorch's: with a checkpoint, here and
    now; for a bundle alone, when it was exported (and here with its own ONNX bodies).

    Args:
        bundles: Of one model, to compare; or none, and a checkpoint or a preset.
        images: Files, folders, patterns; a photograph that comes with m2f unless given.
        checkpoint: Whose bundles they are; without bundles it is exported for one size.
        preset: The published model a checkpoint is; alone, that model with random weights.
        options: How to measure.
        progress: Called with what is being done.

    Raises:
        UsageError: There is nothing to time, or options contradict each other.
        M2FError: A bundle, a checkpoint or an image cannot be used.
    """
    _check_request(bundles, checkpoint or preset, options)
    opened = [Bundle.open(bundle) for bundle in bundles]
    named = list(images)
    files = find_images(named) if named else []
    progress("reading the checkpoint" if checkpoint or preset else "reading the image")
    source, called = checkpoint_of(checkpoint, preset)
    photo = files[0] if files else Path(m2f.models.__file__).parent / "sample" / "cat.jpg"
    image = _network_image(photo, opened, source, options.size)
    threads = options.threads or machine.usable_cores()
    options = dataclasses.replace(options, threads=threads, size=image.shape[1:3])
    progress("measuring what the machine can do")
    measured = machine.measure(threads)
    race = Race(image)
    with ExitStack() as stack:
        if source is None:
            _admit_proved(race, opened, options, stack, progress)
        else:
            _admit_compared(race, opened, source, options, stack, progress)
        turns = race.run(
            options.runs, lambda turn, of: progress(f"timing, turn {turn} of {of}")
        )
        progress("timing parts and stages")
        measured = measured.best_with(machine.measure(threads))
        networks = [_with_parts(*one, image, measured, options) for one in turns]
        sessions = [entry for entry, _ in turns if entry.session is not None]
        has_stages = bool(files or bundles)
        staged = tuple(_staged(sessions, files or [photo], options)) if has_stages else ()
    return Report(
        model=called or ", ".join(bundle.path.name for bundle in opened),
        image=photo.name,
        size=image.shape[1:3],
        images=tuple(file.name for file in files or [photo]) if has_stages else (),
        runs=options.runs,
        machine=measured,
        tools=dict(_versions()),
        networks=tuple(networks),
        untimed=tuple(race.untimed),
        stages=staged,
    )


def _check_request(
    bundles: Sequence[str | Path], weights: str | Path | None, options: Options
) -> None:
    if not bundles and weights is None:
        raise UsageError("there is nothing to time; name a bundle, --checkpoint or --preset")
    if options.peers and weights is None:
        raise UsageError(
            "peers need the model's weights, which a bundle does not hold as they do; add "
            "--checkpoint or --preset"
        )
    if (options.backend or options.device) and not bundles:
        raise UsageError("--backend and --device say what runs a bundle; name one")
    if options.steps and bundles:
        raise UsageError(
            "steps are exported from weights; name no bundle, only --checkpoint or --preset"
        )
    peers_of(options.peers)
    if options.runs < 1:
        raise UsageError(f"each must be timed at least once, not {options.runs} times")


def _network_image(
    photo: Path,
    bundles: Sequence[Bundle],
    source: Checkpoint | None,
    size: tuple[int, int] | None,
) -> Array:
    """What every network is given: the photograph, stretched to one size, [1, H, W, 3]."""
    pixels = decode(photo)
    if size is None and bundles:
        first = bundles[0].manifest
        prepared = prepare(pixels, first.metadata.preprocess, first.profile)
        profile = first.profile
        size = (
            max(prepared.size[0], profile.height.min),
            max(prepared.size[1], profile.width.min),
        )
    height, width = size or (DEFAULT_SIDE, DEFAULT_SIDE)
    for bundle in bundles:
        profile = bundle.manifest.profile
        if height not in profile.height or width not in profile.width:
            raise UsageError(
                f"{bundle.path}: takes images of {profile.height} by {profile.width} pixels, "
                f"not {height} by {width}; choose another --size"
            )
        if source is not None and bundle.manifest.model != source.config:
            raise UsageError(
                f"{bundle.path}: is not the model of {source.path}; name the checkpoint that "
                "it was exported from"
            )
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized)[None].copy()


def _admit_proved(
    race: Race,
    bundles: Sequence[Bundle],
    options: Options,
    stack: ExitStack,
    progress: Progress,
) -> None:
    """Bundles without their checkpoint: compared with PyTorch when they were exported."""
    threads = options.threads or 1
    for entry in _opened(bundles, options, stack):
        progress(f"checking {entry.name}")
        assert entry.bundle is not None
        if entry.bundle.manifest.parity is None:
            raise CheckFailed(
                f"{entry.bundle.path}: was never compared with PyTorch, so that its time would "
                "prove nothing; add --checkpoint, or export it again without --no-check"
            )
        proof = proof_at_export(entry, race.image, threads=threads)
        race.admit(entry, proof)


def _admit_compared(
    race: Race,
    bundles: Sequence[Bundle],
    source: Checkpoint,
    options: Options,
    stack: ExitStack,
    progress: Progress,
) -> None:
    """The reference, what it judges of ours, and peers."""
    threads, size = options.threads or 1, options.size or (DEFAULT_SIDE, DEFAULT_SIDE)
    reference = reference_entry(source, threads=threads)
    progress("running the reference")
    right = reference.contestant.bind(race.image)()

    def admit(entry: Entry) -> None:
        progress(f"checking {entry.name}")
        precision = entry.contestant.precision
        race.admit(
            entry, lambda got: checked(got, right, against="PyTorch", precision=precision)
        )

    ours = _opened(bundles, options, stack) or exported_entries(
        source, size, threads=threads, steps=options.steps, stack=stack
    )
    for entry in (*ours, reference):
        admit(entry)
    for peer in peers_of(options.peers):
        if peer.missing:
            race.leave_out(peer, "peer", f"not installed; run: {peer.install}")
            continue
        progress(f"opening {peer.name} ({peer.precision})")
        try:
            opened = peer.open(source, size, threads=threads, cache=options.cache)
        except Exception as problem:  # another program's may be any
            race.leave_out(peer, "peer", f"does not load: {first_line(problem)}")
            continue
        stack.callback(opened.close)
        admit(Entry("peer", opened))


def _opened(bundles: Sequence[Bundle], options: Options, stack: ExitStack) -> list[Entry]:
    return bundle_entries(
        bundles,
        threads=options.threads or 1,
        stack=stack,
        backend=options.backend,
        device=options.device,
    )


def _with_parts(
    entry: Entry, timed: Timed, image: Array, measured: Machine, options: Options
) -> Timed:
    """Adds where the time goes, for what runs in ONNX Runtime on the CPU."""
    runs_there = options.backend in (None, "onnxruntime") and options.device in (None, "cpu")
    if entry.bundle is None or not options.parts or not runs_there:
        return timed
    path = cpu_file(entry.bundle)
    nodes = profiling.times_of_nodes(
        path,
        {"image": image},
        threads=measured.threads,
        runs=PROFILED,
        library=entry.native,
        target=target_of(entry.bundle),
    )
    costs = cost_of_file(path, (1, *image.shape[1:3]))
    found = profiling.profile(nodes, costs, measured, timed.precision)
    return dataclasses.replace(timed, parts=found)


def _staged(
    entries: Sequence[Entry], files: Sequence[Path], options: Options
) -> Iterator[Staged]:
    sessions = [entry.session for entry in entries if entry.session is not None]
    taken = stages(sessions, files, runs=options.runs)
    for entry, session, times in zip(entries, sessions, taken, strict=True):
        yield Staged(name=entry.name, task=session.task, stages=times)


def _versions() -> Iterator[tuple[str, str]]:
    yield "m2f", m2f.__version__
    for name in TOOLS:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
