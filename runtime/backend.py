"""What a session needs of whatever runs the network."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


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
