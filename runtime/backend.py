"""What a session needs of whatever runs the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from m2f.runtime.native import Library, Masks
from m2f.runtime.preprocess import Prepared, Size


class Backend(Protocol):
    """Runs one network; one file per implementation."""

    @property
    def name(self) -> str:
        """For people, e.g. "ONNX Runtime 1.18, CPU"."""

    @property
    def takes_image_size(self) -> bool:
        """Whether images smaller than the batch can be told from their padding."""

    def run(
        self, image: NDArray[np.uint8], image_size: NDArray[np.int64]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Runs a batch.

        Args:
            image: [N, H, W, 3], RGB.
            image_size: Valid height and width of each image, [N, 2].

        Returns:
            Class logits [N, Q, K + 1] and mask logits [N, Q, H'/4, W'/4], float32, H' and W'
            being H and W rounded up to multiples of 32.
        """

    def close(self) -> None:
        """Frees the network; `run` may not be called again."""


class Flight(Protocol):
    """A batch that was started; a context manager that releases it."""

    def logits(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Waits; the outputs as `Backend.run` gives them, valid until the release."""

    def outputs(
        self, threads: int | None
    ) -> tuple[NDArray[Any], Sequence[Masks], Library | None]:
        """Waits; the outputs where post-processing wants them, valid until the release.

        Args:
            threads: CPU cores to use; all unless given.

        Returns:
            Class logits [N, Q, K + 1]; mask logits of each image; what works on these, None
            for the CPU.
        """

    def release(self) -> None:
        """Makes room for another batch."""

    def __enter__(self) -> Flight:
        """Itself."""

    def __exit__(self, *exception: object) -> None:
        """Releases it."""


@runtime_checkable
class Pipelined(Protocol):
    """A backend that works while its caller goes on."""

    @property
    def depth(self) -> int:
        """Batches that may be in flight."""

    def submit_images(
        self, images: Sequence[Prepared], padded: Size, *, threads: int | None = None
    ) -> Flight:
        """Starts a batch of images as they were decoded, and returns at once.

        Args:
            images: Resized, each to its size, wherever the backend does that.
            padded: Height and width of the batch; what an image does not fill is zero.
            threads: CPU cores to use; all unless given.
        """
