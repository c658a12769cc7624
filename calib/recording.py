"""What passed through a network on many images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2f.calib.histogram import Histogram
from m2f.calib.images import Picture
from m2f.calib.probe import Seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a recording is of; only recordings of one subject can be put together.

    Attributes:
        model: SHA-256 of the network's files.
        preprocess: How images become its input, and the sizes it takes: values by name.
        watched: SHA-256 of the list of watched tensors, and of how they are watched.
    """

    model: str
    preprocess: Mapping[str, str]
    watched: str

    def differences(self, other: Subject) -> list[str]:
        """In words, with both values; of this subject first."""
        found = []
        if self.model != other.model:
            found.append(f"the model's SHA-256 is {self.model[:12]}, here {other.model[:12]}")
        for name in self.preprocess.keys() | other.preprocess.keys():
            theirs, ours = self.preprocess.get(name), other.preprocess.get(name)
            if theirs != ours:
                found.append(f"its {name} is {theirs}, here {ours}")
        if self.watched != other.watched and not found:
            found.append(
                f"it is of other tensors ({self.watched[:12]}, here {other.watched[:12]})"
            )
        return sorted(found)


@dataclass
class TensorRecord:
    """One tensor over all images.

    Attributes:
        low: Smallest value, float64; of each channel [C] of a sampled tensor, else [].
        high: Largest value, likewise.
        total: Sum over images of the image's mean, likewise.
        histogram: Of a sampled tensor's magnitudes.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    total: NDArray[np.float64]
    histogram: Histogram | None

    @classmethod
    def empty(cls, seen: Seen) -> TensorRecord:
        """Of no image yet, for a tensor like this."""
        shape = seen.low.shape
        histogram = None if seen.samples is None else Histogram()
        return cls(np.full(shape, np.inf), np.full(shape, -np.inf), np.zeros(shape), histogram)

    def add(self, seen: Seen) -> None:
        """Takes in one image."""
        self.low = np.minimum(self.low, seen.low)
        self.high = np.maximum(self.high, seen.high)
        self.total = self.total + seen.mean
        if self.histogram is not None and seen.samples is not None:
            self.histogram.add(seen.samples)

    @property
    def channel_peaks(self) -> NDArray[np.float64]:
        """Largest magnitude of each channel, [C] or []."""
        return np.asarray(np.maximum(-self.low, self.high))

    @property
    def peak(self) -> float:
        """Largest magnitude of all."""
        return float(self.channel_peaks.max())


@dataclass
class Recording:
    """Statistics of every watched tensor, and which images they are of.

    Attributes:
        subject: What it is of.
        images: SHA-256 of the files taken in.
        inputs: Fingerprints of what the network was shown.
        tensors: In the order they are computed.
        is_whole: Whether no image is taken in by half.
    """

    subject: Subject
    images: list[str] = field(default_factory=list)
    inputs: set[str] = field(default_factory=set)
    tensors: dict[str, TensorRecord] = field(default_factory=dict)
    is_whole: bool = True

    @property
    def peaks(self) -> dict[str, float]:
        """Largest magnitude of every watched tensor: whether it fits float16, for one."""
        return {name: record.peak for name, record in self.tensors.items()}

    def mean(self, name: str) -> NDArray[Any]:
        """Mean of each channel of a sampled tensor, [C]."""
        return np.asarray(self.tensors[name].total / len(self.images))

    def add(self, picture: Picture, shown: str, seen: Mapping[str, Seen]) -> None:
        """Takes in one image.

        Args:
            picture: The image.
            shown: Fingerprint of what the network was shown.
            seen: What the probe saw.
        """
        self.is_whole = False
        for name, one in seen.items():
            if name not in self.tensors:
                self.tensors[name] = TensorRecord.empty(one)
            self.tensors[name].add(one)
        self.images.append(picture.sha256)
        self.inputs.add(shown)
        self.is_whole = True
