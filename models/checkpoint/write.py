"""From our weights to files that the other code bases load: the inverse of `read`."""

from __future__ import annotations

import collections
import pickle
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from m2f.bundle import disk_errors
from m2f.config import Convention, Metadata, ModelConfig, SwinConfig
from m2f.errors import CheckpointError, MissingDependency, UsageError
from m2f.files import replacing, write_json
from m2f.models.checkpoint import fit, hugging_face, names, safetensors_file
from m2f.models.checkpoint.recognise import config_of
from m2f.models.checkpoint.shapes import weight_shapes
from m2f.models.checkpoint.stored import Array

_NO_OBJECT_WEIGHT = 0.1
"""Of "no object" in the training loss (the paper, section 4.1); files carry it along."""


def write_hf(
    weights: Mapping[str, Array], config: ModelConfig, metadata: Metadata, folder: str | Path
) -> None:
    """Writes a folder that ``Mask2FormerForUniversalSegmentation.from_pretrained`` loads.

    Args:
        weights: By our names.
        config: The model that they make.
        metadata: Its classes' names and its preprocessing are written too.
        folder: Must not exist yet, or be empty; appears complete or not at all.

    Raises:
        CheckpointError: The weights do not fit the configuration.
        UsageError: transformers cannot express the model, or the folder is not empty.
        DiskError: It cannot be written.
    """
    folder = Path(folder)
    described = hugging_face.json_from_model(config, metadata)
    tensors = _renamed(weights, config, "hf")
    tensors |= _unused(tensors, config)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: exists and is not empty; choose another name")
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            write_json(work / hugging_face.CONFIG, described)
            preprocess = hugging_face.json_from_preprocess(metadata.preprocess)
            write_json(work / hugging_face.PREPROCESSOR, preprocess)
            with (work / hugging_face.WEIGHTS).open("wb") as stream:
                safetensors_file.write(tensors, stream)
            work.chmod(0o755)
            work.rename(folder)  # replaces an empty folder
        finally:
            shutil.rmtree(work, ignore_errors=True)


def write_official(
    weights: Mapping[str, Array], path: str | Path, *, overwrite: bool = False
) -> None:
    """Writes a file that the official code's ``DetectionCheckpointer`` loads.

    Args:
        weights: By our names; their shapes tell the model.
        path: Ends in ``.pkl`` (needs nothing) or ``.pth`` (needs PyTorch).
        overwrite: Replace an existing file.

    Raises:
        CheckpointError: The weights are not a complete model.
        UsageError: The name has another ending, or the file exists.
        MissingDependency: A ``.pth`` is asked for without PyTorch.
        DiskError: It cannot be written.
    """
    path = Path(path)
    if path.suffix not in (".pkl", ".pth"):
        raise UsageError(f"{path}: official checkpoints end in .pkl or .pth; choose one")
    if path.exists() and not overwrite:
        raise UsageError(f"{path}: exists; choose another name, or allow to overwrite it")
    config = config_of({name: w.shape for name, w in weights.items()})
    state = _StateDict(_renamed(weights, config, "official"))
    # Without this version, upstream's loader takes the names for those of its first release,
    # changes them, and leaves the pixel decoder untrained.
    state._metadata = {"sem_seg_head": {"version": 2}}
    with replacing(path) as stream:
        if path.suffix == ".pth":
            _save_torch(state, stream)
        else:
            _save_pickle({"model": state, "__author__": "m2f"}, stream)


class _StateDict(collections.OrderedDict[str, Any]):
    """An ordered dict that can carry a version; pickled as the plain one."""

    _metadata: dict[str, dict[str, int]]

    def __reduce__(self) -> Any:
        state = {"_metadata": self._metadata}
        return collections.OrderedDict, (), state, None, iter(self.items())


class _Pickler(pickle.Pickler):
    """Writes arrays by a route that every NumPy reads.

    NumPy 2 names modules in its pickles that NumPy 1 does not have, and detectron2 is often
    installed with NumPy 1. ``numpy.ndarray(shape, dtype, buffer)`` exists in all.
    """

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.ndarray):
            little = np.ascontiguousarray(obj, obj.dtype.newbyteorder("<"))
            return np.ndarray, (obj.shape, little.dtype.str, bytearray(little.data))
        return NotImplemented


def _save_pickle(value: Any, stream: IO[bytes]) -> None:
    pickler = _Pickler(stream, protocol=4)
    pickler.fast = True  # else it keeps a copy of every array until the end
    pickler.dump(value)


def _save_torch(state: _StateDict, stream: IO[bytes]) -> None:
    try:
        import torch
    except ImportError as problem:
        raise MissingDependency(
            "writing a .pth needs PyTorch; install m2f-deploy[export], or write a .pkl"
        ) from problem
    tensors = _StateDict((n, torch.from_numpy(np.array(w))) for n, w in state.items())
    tensors._metadata = state._metadata
    torch.save({"model": tensors}, stream)


def _renamed(
    weights: Mapping[str, Array], config: ModelConfig, format: Convention
) -> dict[str, Array]:
    """Weights by the names of a format, after checking that they are all there."""
    expected = weight_shapes(config)
    wrong = [
        name
        for name in {**expected, **weights}
        if name not in weights or weights[name].shape != expected.get(name)
    ]
    if wrong:
        raise CheckpointError(
            f"the weights do not fit {fit.describe(config)}: {len(wrong)} are missing, "
            f"unexpected or misshapen, e.g. {', '.join(sorted(wrong)[:5])}"
        )
    out = {}
    for theirs, place in names.layout(config, format).items():
        value = weights[place.name]
        rows = place.shape[0]
        value = value[place.part * rows : (place.part + 1) * rows]
        out[theirs] = names.reordered_for_mmdet(value) if place.is_reordered else value
    return out


def _unused(tensors: Mapping[str, Array], config: ModelConfig) -> dict[str, Array]:
    """What transformers expects in a file although inference needs none of it."""
    loss = np.ones(config.classes + 1, np.float32)
    loss[-1] = _NO_OBJECT_WEIGHT
    out: dict[str, Array] = {"criterion.empty_weight": loss}
    if isinstance(config.backbone, SwinConfig):
        # Since version 5, which keeps the classification model's last normalisation.
        channels = config.backbone.channels[-1]
        name = "model.pixel_level_module.encoder.swin.layernorm"
        out[f"{name}.weight"] = np.ones(channels, np.float32)
        out[f"{name}.bias"] = np.zeros(channels, np.float32)
    for name in tensors:
        if name.endswith(".running_mean"):
            steps = name.removesuffix("running_mean") + "num_batches_tracked"
            out[steps] = np.zeros((), np.int64)
    return out
