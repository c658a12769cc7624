"""transformers' Mask2Former in PyTorch, eager or compiled."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch

from m2f.bench.checks import Array, Outputs
from m2f.bench.peers.hugging_face import model_from_checkpoint, pixels, quietly
from m2f.models.checkpoint import Checkpoint


class PyTorch:
    """Runs the model on the CPU.

    Args:
        checkpoint: Its weights.
        name: For people.
        precision: "fp32", or "bf16" by autocast: the model cast as a whole overflows.
        is_compiled: By ``torch.compile`` with its defaults, for the size it first sees.
        threads: Cores for all of PyTorch in this process.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        name: str,
        precision: str,
        *,
        is_compiled: bool,
        threads: int,
    ) -> None:
        torch.set_num_threads(threads)
        self.name, self.precision = name, precision
        self._preprocess = checkpoint.metadata.preprocess
        self._is_compiled = is_compiled
        self._model: Any = model_from_checkpoint(checkpoint)
        if is_compiled:
            self._model = torch.compile(self._model, dynamic=False)

    def bind(self, image: Array) -> Callable[[], Outputs]:
        """See `m2f.bench.contestants.Contestant`; compiles, where it does."""
        values = torch.from_numpy(pixels(image, self._preprocess))

        def run() -> Outputs:
            with torch.inference_mode(), self._precision():
                out = self._model(pixel_values=values)
                pair = (out.class_queries_logits, out.masks_queries_logits)
                return pair[0].float().numpy(), pair[1].float().numpy()

        if self._is_compiled:
            with quietly():
                run()
        return run

    def close(self) -> None:
        """See `m2f.bench.contestants.Contestant`."""
        self._model = None

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision == "bf16":
            return torch.autocast("cpu", dtype=torch.bfloat16)
        return contextlib.nullcontext()
