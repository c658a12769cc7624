"""transformers' Mask2Former with our weights: eager, compiled, and written down as ONNX."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.metadata
import io
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from m2f.config import Preprocess, json_from_config
from m2f.errors import CheckFailed
from m2f.files import appearing
from m2f.models.checkpoint import Checkpoint, write_hf

if TYPE_CHECKING:
    import torch

Array = NDArray[Any]

OPSET = 18
MODEL = "model.onnx"
PIXELS = "pixel_values"
OUTPUTS = ("class_queries_logits", "masks_queries_logits")


def model_from_checkpoint(checkpoint: Checkpoint) -> torch.nn.Module:
    """Its model, in FP32 and in inference mode, as ``from_pretrained`` loads it."""
    import transformers

    with tempfile.TemporaryDirectory() as folder, quietly():
        place = Path(folder) / "checkpoint"
        write_hf(checkpoint.weights, checkpoint.config, checkpoint.metadata, place)
        kind = transformers.Mask2FormerForUniversalSegmentation
        model: torch.nn.Module = kind.from_pretrained(str(place), local_files_only=True)
    return model.eval()


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keeps transformers and PyTorch's exporter from talking while they work."""
    talk: Any = importlib.import_module("transformers.utils.logging")
    verbosity, bars = talk.get_verbosity(), talk.is_progress_bar_enabled()
    talk.set_verbosity_error()
    talk.disable_progress_bar()
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        talk.set_verbosity(verbosity)
        if bars:
            talk.enable_progress_bar()


def pixels(image: Array, preprocess: Preprocess) -> Array:
    """What its processor would give for images uint8 [N, H, W, 3]: float32 [N, 3, H, W]."""
    mean, std = (np.array(v, np.float32) for v in (preprocess.mean, preprocess.std))
    return np.ascontiguousarray(((image - mean) / std).transpose(0, 3, 1, 2))


def onnx_from_checkpoint(
    checkpoint: Checkpoint, size: tuple[int, int], cache: Path | None = None
) -> Path:
    """Its ONNX export for one image of a fixed size, by PyTorch's own exporter.

    That takes a minute, so it is kept.

    Args:
        checkpoint: The weights.
        size: Height and width, pixels.
        cache: Folder to keep exports in; the user's cache folder unless given.

    Raises:
        DiskError: It cannot be kept.
    """
    folder = (cache or default_cache()) / _key(checkpoint, size)
    if not (folder / MODEL).is_file():
        with appearing(folder) as work, quietly():
            work.mkdir()
            _export(model_from_checkpoint(checkpoint), size, work / MODEL)
    return folder / MODEL


def default_cache() -> Path:
    """Where exports of peers are kept."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "m2f" / "peers"


def _key(checkpoint: Checkpoint, size: tuple[int, int]) -> str:
    """A name that changes with whatever the export depends on."""
    digest = hashlib.sha256()
    tools = [importlib.metadata.version(name) for name in ("torch", "transformers")]
    described = [json_from_config(checkpoint.config), size, OPSET, tools]
    digest.update(json.dumps(described, sort_keys=True).encode())
    for name, weight in checkpoint.weights.items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weight).data)
    return digest.hexdigest()[:24]


def _export(model: torch.nn.Module, size: tuple[int, int], path: Path) -> None:
    import torch

    class Pair(torch.nn.Module):
        """The two outputs that matter; an exporter may drop the rest."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            out = self.model(pixel_values=pixel_values)
            return out.class_queries_logits, out.masks_queries_logits

    with torch.inference_mode():
        program = torch.onnx.export(
            Pair().eval(),
            (torch.zeros(1, 3, *size),),
            input_names=[PIXELS],
            output_names=list(OUTPUTS),
            opset_version=OPSET,
            dynamo=True,
            external_data=True,
            verbose=False,
        )
    if program is None:
        raise CheckFailed("PyTorch's ONNX exporter gave no program for transformers' model")
    program.save(str(path), external_data=True)
