"""A recording on disk, so that neither an interruption nor a second thought costs it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2f.calib.histogram import BINS, Histogram
from m2f.calib.images import Picture
from m2f.calib.recording import Recording, Subject, TensorRecord
from m2f.errors import DataError, UsageError
from m2f.files import replacing

FORMAT = 1
"""Of the file: what it holds and what that means."""


_DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, IndexError, zipfile.BadZipFile)
"""What reading a file raises that is something else, or only half."""


def save(recording: Recording, path: Path) -> None:
    """Writes a recording, whole.

    Raises:
        DiskError: The place cannot be written to, or the disk is full.
    """
    assert recording.is_whole
    records = list(recording.tensors.values())
    histograms = [record.histogram for record in records if record.histogram is not None]
    subject = recording.subject
    about = {
        "format": FORMAT,
        "subject": {name: getattr(subject, name) for name in Subject.__slots__},
        "images": recording.images,
        "inputs": sorted(recording.inputs),
        # Channels of a sampled tensor; 0 of another.
        "tensors": {n: r.low.size if r.low.ndim else 0 for n, r in recording.tensors.items()},
    }
    with replacing(path) as stream:
        np.savez(
            stream,
            about=np.frombuffer(json.dumps(about).encode(), np.uint8),
            low=_joined([record.low for record in records]),
            high=_joined([record.high for record in records]),
            total=_joined([record.total for record in records]),
            exponents=np.array([h.exponent for h in histograms], np.int64),
            counts=np.array([h.counts for h in histograms]).reshape(-1, BINS),
        )


def load(path: Path, subject: Subject, pictures: Sequence[Picture]) -> Recording:
    """Reads a recording to go on with.

    Args:
        path: Where `save` put it; an empty recording, if nothing is there.
        subject: What it must be of.
        pictures: The images it may be of.

    Raises:
        UsageError: It is of another model, preprocessing or other images.
        DataError: The file is damaged or is something else.
    """
    if not path.exists():
        return Recording(subject)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        about = json.loads(arrays.pop("about").tobytes())
        version = about["format"]
        recording = _rebuilt(about, arrays) if version == FORMAT else Recording(subject)
    except _DAMAGE as problem:
        raise DataError(
            f"{path}: is no calibration cache, or damaged ({problem}); delete it, or name "
            "another with --cache"
        ) from problem
    if version != FORMAT:
        raise UsageError(
            f"{path}: calibration cache of format {version}, this program reads {FORMAT}; "
            "delete it"
        )
    _check(path, recording, subject, pictures)
    return recording


def _check(
    path: Path, recording: Recording, subject: Subject, pictures: Sequence[Picture]
) -> None:
    """Refuses what may not be put together."""
    mend = "name another with --cache, or delete this one"
    if different := recording.subject.differences(subject):
        raise UsageError(
            f"{path}: the cache is of something else: {'; '.join(different)}; {mend}"
        )
    foreign = len(set(recording.images) - {picture.sha256 for picture in pictures})
    if foreign:
        raise UsageError(
            f"{path}: {foreign} of the cache's {len(recording.images)} images are not among "
            f"the {len(pictures)} given; give the same images or more, or {mend}"
        )


def _rebuilt(about: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Recording:
    recording = Recording(
        Subject(**about["subject"]), list(about["images"]), set(about["inputs"])
    )
    histograms = (
        Histogram(counts.astype(np.int64), int(exponent))
        for counts, exponent in zip(arrays["counts"], arrays["exponents"], strict=True)
    )
    start = 0
    for name, channels in about["tensors"].items():
        shape = (channels,) if channels else ()
        part = slice(start, start + max(channels, 1))
        low, high, total = (arrays[k][part].reshape(shape) for k in ("low", "high", "total"))
        histogram = next(histograms) if channels else None
        recording.tensors[name] = TensorRecord(low, high, total, histogram)
        start = part.stop
    return recording


def _joined(arrays: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate([np.zeros(0), *(array.ravel() for array in arrays)])
