"""The PyTorch reference model as a backend, to compare others with; not for deployment.

The one file of the runtime that may import PyTorch and `m2f.models`, and only when used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from m2f.bundle import InputProfile, Range
from m2f.config import Preprocess, Task
from m2f.errors import MissingDependency, UsageError

if TYPE_CHECKING:
    from m2f.models.checkpoint import Checkpoint
    from m2f.models.mask2former import Mask2Former
    from m2f.runtime.session import Session


class TorchBackend:
    """Runs the reference model on the CPU, in the model's own precision."""

    takes_image_size = True

    def __init__(
        self, model: Mask2Former, preprocess: Preprocess, *, threads: int | None = None
    ) -> None:
        """Takes a model with its weights.

        Args:
            model: In inference mode from here on.
            preprocess: Its mean and standard deviation.
            threads: Cores for all of PyTorch in this process; as they are unless given.

        Raises:
            MissingDependency: PyTorch is not installed.
        """
        try:
            import torch
        except ImportError as problem:
            raise MissingDependency(
                "PyTorch is not installed; run: pip install 'm2f-deploy[export]'"
            ) from problem
        if threads is not None:
            torch.set_num_threads(threads)
        self.name = f"PyTorch {torch.__version__}, CPU"
        self._preprocess = preprocess
        self._model: Mask2Former | None = model.eval()

    def run(
        self, image: NDArray[np.uint8], image_size: NDArray[np.int64]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Runs a batch; see `m2f.runtime.backend.Backend.run`.

        Raises:
            UsageError: The backend was closed.
        """
        import torch

        from m2f.models.mask2former import network_input

        if self._model is None:
            raise UsageError("the backend was closed; make a new one")
        kind = next(self._model.parameters()).dtype
        with torch.inference_mode():
            images = network_input(
                torch.from_numpy(image),
                self._preprocess,
                image_size=torch.from_numpy(image_size),
            )
            output = self._model(images.to(kind))
        return output.class_logits.float().numpy(), output.mask_logits.float().numpy()

    def close(self) -> None:
        """Lets go of the model."""
        self._model = None

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Checkpoint, *, threads: int | None = None
    ) -> TorchBackend:
        """The model of a checkpoint that `m2f.models.checkpoint.read` gave."""
        from m2f.models.mask2former import model_from_weights

        model = model_from_weights(checkpoint.config, checkpoint.weights)
        return cls(model, checkpoint.metadata.preprocess, threads=threads)

    def __enter__(self) -> TorchBackend:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def session_from_checkpoint(
    checkpoint: Checkpoint, *, threads: int | None = None, task: Task | None = None
) -> Session:
    """A session like that of an exported bundle of any size, run by PyTorch."""
    from m2f.runtime.session import Session

    sides = Range(min=1, max=1 << 15)
    profile = InputProfile(batch=Range(min=1, max=8), height=sides, width=sides)
    backend = TorchBackend.from_checkpoint(checkpoint, threads=threads)
    return Session(backend, checkpoint.metadata, profile, task=task)
