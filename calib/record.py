"""Streaming a user's images through a network, one at a time, and keeping what was seen."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import onnx

from m2f.bundle import MODEL, WEIGHTS, Bundle
from m2f.calib import cache
from m2f.calib.histogram import BINS
from m2f.calib.images import LEAST, Feeder, Picture, fingerprint
from m2f.calib.probe import SAMPLES, STRIDE, Probe
from m2f.calib.recording import Recording, Subject
from m2f.config import json_from_config
from m2f.errors import DataError, DiskError, M2FError

Progress = Callable[[int, int, object], None]

SAVE_EVERY_S = 5.0
"""Seconds of work that a crash may cost. An ordinary interruption costs none."""


def record(
    bundle: Bundle,
    pictures: Sequence[Picture],
    sampled: Mapping[str, int],
    *,
    kept: Path | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Recording:
    """Records what passes through a bundle's network.

    Only one image's numbers are in memory at any time, beside a histogram for each tensor.

    Args:
        bundle: In float32.
        pictures: The images.
        sampled: Tensors to be known in detail, with their axis of channels.
        kept: A file that holds what was seen so far. What it holds already is not computed
            again, in whatever order the images are given.
        threads: Cores to use; all unless given.
        progress: Called before each image with its number, their count, and its name.

    Raises:
        UsageError: The file is of another model, preprocessing or of other images.
        DataError: The file is damaged; or the images look alike to the network.
        CheckFailed: A tensor is not finite; the message names it and the image.
        ImageError: An image cannot be used.
        DiskError: The file cannot be written.
        KeyboardInterrupt: As it was; the message says how far it came.
    """
    subject = subject_of(bundle, sampled)
    recording = cache.load(kept, subject, pictures) if kept else Recording(subject)
    done = set(recording.images)
    waiting = [picture for picture in pictures if picture.sha256 not in done]
    if waiting:
        with _keeping(recording, kept, len(pictures)) as keep:
            probe = Probe(
                onnx.load(str(bundle.model_path), load_external_data=False),
                *(bundle.path, sampled),
                is_fused=True,
                threads=threads,
            )
            feed = Feeder(bundle.manifest.metadata.preprocess, bundle.manifest.profile)
            for picture in waiting:
                if picture.sha256 in recording.images:
                    continue  # a copy of another file
                if progress is not None:
                    progress(len(recording.images) + 1, len(pictures), picture.path.name)
                fed = feed(picture.path)
                try:
                    seen = probe.run(*fed)
                except M2FError as problem:
                    raise type(problem)(f"{picture.path}: {problem}") from problem
                recording.add(picture, fingerprint(fed), seen)
                keep()
    if len(recording.inputs) < LEAST:
        raise DataError(
            f"the network was shown only {len(recording.inputs)} different images in "
            f"{len(recording.images)}, where ranges need {LEAST}; give images that differ"
        )
    return recording


def subject_of(bundle: Bundle, sampled: Mapping[str, int]) -> Subject:
    """What a recording of these tensors of this bundle is of."""
    manifest = bundle.manifest
    network = [f.sha256 for f in manifest.files if f.name in (MODEL, WEIGHTS)]
    rules = {"profile": str(manifest.profile), **json_from_config(manifest.metadata.preprocess)}
    return Subject(
        model=network[0] if len(network) == 1 else _sha256("".join(network)),
        preprocess={name: str(value) for name, value in rules.items()},
        watched=_sha256(json.dumps([sorted(sampled.items()), SAMPLES, STRIDE, BINS])),
    )


@contextlib.contextmanager
def _keeping(
    recording: Recording, kept: Path | None, count: int
) -> Iterator[Callable[[], None]]:
    """Saves when it is time, and at the end, be it good or bad.

    Yields:
        To be called after each image.
    """
    saved_at = time.monotonic()

    def keep() -> None:
        nonlocal saved_at
        if kept is not None and time.monotonic() - saved_at >= SAVE_EVERY_S:
            cache.save(recording, kept)
            saved_at = time.monotonic()

    try:
        yield keep
    except BaseException as problem:
        # A disk that has just refused will not take it now.
        if kept is None or not recording.is_whole or isinstance(problem, DiskError):
            raise
        cache.save(recording, kept)
        if isinstance(problem, KeyboardInterrupt):
            raise KeyboardInterrupt(
                f"interrupted after {len(recording.images)} of {count} images; the same "
                "command goes on from there"
            ) from None
        raise
    if kept is not None:
        cache.save(recording, kept)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
