"""Hugging Face checkpoints: the files of a folder, the hub, and ``config.json`` both ways."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m2f.config import (
    BackboneConfig,
    Metadata,
    ModelConfig,
    PixelDecoderConfig,
    Preprocess,
    ResNetConfig,
    SwinConfig,
    TransformerDecoderConfig,
    config_from_json,
    json_from_config,
)
from m2f.errors import CheckpointError, MissingDependency, MissingFile, UsageError

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
WEIGHTS = "model.safetensors"
METADATA = "m2f_metadata"
"""Key of what `write_hf` adds to a config: colours, which classes are things, our rules."""

OLD_WEIGHTS = "pytorch_model.bin"

_LARGEST = 1 << 16
"""No number in a config that decides a shape is larger."""

_SWIN = {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7}
_RESNET = {"embedding_size": 64, "hidden_sizes": [256, 512, 1024, 2048], "depths": [3, 4, 6, 3]}
"""What transformers takes where a config says nothing."""

_FIXED = {
    "pre_norm": False,
    "enforce_input_projection": False,
    "common_stride": 4,
    "activation_function": "relu",
    "feature_strides": [4, 8, 16, 32],
}
_FIXED_SWIN = {
    "patch_size": 4,
    "num_channels": 3,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "use_absolute_embeddings": False,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
}
_FIXED_RESNET = {
    "num_channels": 3,
    "hidden_act": "relu",
    "downsample_in_first_stage": False,
    "downsample_in_bottleneck": False,
}
"""What Mask2Former always is; a config that says otherwise describes another model."""


def fetch(hub_id: str) -> Path:
    """Downloads a model from the Hugging Face hub, or finds it among those downloaded.

    Raises:
        MissingDependency: `huggingface_hub` is not installed.
        MissingFile: The hub cannot be reached, or has no such model.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as problem:
        raise MissingDependency(
            f"{hub_id}: loading from the hub needs huggingface_hub; install m2f-deploy[export]"
        ) from problem
    described = [CONFIG, PREPROCESSOR]
    try:
        folder = Path(
            snapshot_download(hub_id, allow_patterns=[*described, "model*.safetensors*"])
        )
        if not any(folder.glob("*.safetensors*")):
            folder = Path(
                snapshot_download(hub_id, allow_patterns=[*described, "pytorch_model*.bin*"])
            )
    except Exception as problem:  # whatever the HTTP library of the day raises
        reason = (str(problem).strip().splitlines() or [""])[0]
        raise MissingFile(
            f"{hub_id}: no such file, and not to be had from the Hugging Face hub "
            f"({type(problem).__name__}: {reason:.120}); check the name and the network, or "
            "download the folder elsewhere and give its path"
        ) from problem
    return folder


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights, shards in order of their names.

    Raises:
        MissingFile: There are none, or some of those that the index names are missing.
        CheckpointError: The index is not one.
    """
    for name in (WEIGHTS, OLD_WEIGHTS):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _shards(index)
    raise MissingFile(f"{folder}: holds neither {WEIGHTS} nor {OLD_WEIGHTS}; download one")


def read_json(path: Path) -> dict[str, Any]:
    """Reads an object.

    Raises:
        MissingFile: The file cannot be read.
        CheckpointError: It does not hold a JSON object.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise MissingFile(f"{path}: cannot be read: {problem.strerror}") from problem
    except (ValueError, RecursionError) as problem:
        raise CheckpointError(f"{path}: is not JSON ({problem!s:.100})") from problem
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path}: holds no JSON object")
    return raw


def model_from_json(raw: Mapping[str, Any]) -> ModelConfig:
    """Reads ``config.json`` of a Mask2FormerForUniversalSegmentation.

    Raises:
        CheckpointError: It describes another model; the caller adds the file's name.
    """
    kind = raw.get("model_type")
    if kind != "mask2former":
        raise CheckpointError(f"describes a {kind!r} model, not 'mask2former'")
    _require(raw, _FIXED, "")
    backbone = raw.get("backbone_config")
    if not isinstance(backbone, dict):
        raise CheckpointError("has no backbone_config; only Swin and ResNet are supported")
    heads = _number(raw, "num_attention_heads", 8)
    labels = raw.get("id2label")
    try:
        return ModelConfig(
            backbone=_backbone_from_json(backbone),
            pixel_decoder=PixelDecoderConfig(
                channels=_number(raw, "feature_size", 256),
                mask_channels=_number(raw, "mask_feature_size", 256),
                heads=heads,
                layers=_number(raw, "encoder_layers", 6),
                ffn=_number(raw, "encoder_feedforward_dim", 1024),
            ),
            transformer_decoder=TransformerDecoderConfig(
                queries=_number(raw, "num_queries", 100),
                # It counts the prediction from the learned queries as a layer.
                layers=_number(raw, "decoder_layers", 10) - 1,
                channels=_number(raw, "hidden_dim", 256),
                heads=heads,
                ffn=_number(raw, "dim_feedforward", 2048),
            ),
            classes=len(labels) if isinstance(labels, dict) else _number(raw, "num_labels", 2),
        )
    except UsageError as problem:
        raise CheckpointError(f"contradicts itself: {problem}") from problem


def labels_from_json(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """Class names in the model's order; empty if the config's keys are not 0, 1, 2..."""
    labels = raw.get("id2label")
    if not isinstance(labels, dict):
        return ()
    names = [labels.get(str(i)) for i in range(len(labels))]
    return tuple(n for n in names if isinstance(n, str)) if None not in names else ()


def metadata_from_json(raw: Mapping[str, Any], classes: int) -> Metadata | None:
    """What `write_hf` put into a config that transformers has no words for.

    Returns:
        None if there is nothing, or if the classes have changed since: transformers carries
        the key along when somebody trains further on another data set.

    Raises:
        CheckpointError: It is malformed, or is about another number of classes.
    """
    if METADATA not in raw:
        return None
    try:
        metadata = config_from_json(Metadata, raw[METADATA], where=METADATA)
    except UsageError as problem:
        raise CheckpointError(str(problem)) from problem
    labels = labels_from_json(raw)
    if labels and labels != tuple(category.name for category in metadata.categories):
        return None
    if len(metadata.categories) != classes:
        raise CheckpointError(
            f"has {classes} classes, but {METADATA} describes {len(metadata.categories)}"
        )
    return metadata


def preprocess_from_json(raw: Mapping[str, Any]) -> Preprocess:
    """Reads ``preprocessor_config.json``.

    Its images are multiplied with ``rescale_factor`` before mean and standard deviation are
    applied; ours are not.

    Raises:
        CheckpointError: Its size is none that is known; the caller adds the file's name.
    """
    factor = raw.get("rescale_factor", 1 / 255) if raw.get("do_rescale", True) else 1.0
    if not isinstance(factor, (int, float)) or not factor > 0:
        raise CheckpointError(f"has rescale_factor = {factor!r:.40}, which is not positive")
    normalises = raw.get("do_normalize", True)
    mean = raw.get("image_mean", (0.485, 0.456, 0.406)) if normalises else (0.0, 0.0, 0.0)
    std = raw.get("image_std", (0.229, 0.224, 0.225)) if normalises else (1.0, 1.0, 1.0)
    scale = _scaled(mean, factor), _scaled(std, factor)
    if min(scale[1]) <= 0:
        raise CheckpointError(f"has image_std = {std!r:.60}, which is not positive")
    if not raw.get("do_resize", True):
        return Preprocess(resize="none", mean=scale[0], std=scale[1])
    size = raw.get("size", {})
    if isinstance(size, int):
        size = {"shortest_edge": size}  # before transformers 4.27
    if not isinstance(size, dict):
        raise CheckpointError(f"has size = {size!r:.40}, which is no size")
    if {"height", "width"} <= set(size):
        fixed = (_number(size, "height", 384), _number(size, "width", 384))
        return Preprocess(resize="stretch", size=fixed, mean=scale[0], std=scale[1])
    return Preprocess(
        resize="hf_aspect",
        min_size=_number(size, "shortest_edge", 800),
        max_size=_number(size, "longest_edge", _number(raw, "max_size", 1333)),
        mean=scale[0],
        std=scale[1],
    )


def json_from_model(config: ModelConfig, metadata: Metadata) -> dict[str, Any]:
    """The content of ``config.json``.

    Raises:
        UsageError: transformers cannot express this model.
    """
    pixel, decoder = config.pixel_decoder, config.transformer_decoder
    if pixel.kind != "msdeform" or pixel.points != 4 or pixel.heads != decoder.heads:
        raise UsageError(
            "Hugging Face's Mask2Former always has a deformable pixel decoder with 4 points "
            f"and as many heads as the transformer decoder, this one is {pixel.kind} with "
            f"{pixel.points} points and {pixel.heads} heads of {decoder.heads}; write the "
            "official format"
        )
    names = {str(i): category.name for i, category in enumerate(metadata.categories)}
    return {
        "architectures": ["Mask2FormerForUniversalSegmentation"],
        "model_type": "mask2former",
        "backbone_config": _json_from_backbone(config.backbone),
        "feature_size": pixel.channels,
        "mask_feature_size": pixel.mask_channels,
        "hidden_dim": decoder.channels,
        "encoder_feedforward_dim": pixel.ffn,
        "encoder_layers": pixel.layers,
        "decoder_layers": decoder.layers + 1,
        "num_attention_heads": decoder.heads,
        "dim_feedforward": decoder.ffn,
        "num_queries": decoder.queries,
        "dropout": 0.0,
        **_FIXED,
        "id2label": names,
        "label2id": {name: int(i) for i, name in names.items()},
        "torch_dtype": "float32",
        METADATA: json_from_config(metadata),
    }


def json_from_preprocess(preprocess: Preprocess) -> dict[str, Any]:
    """The content of ``preprocessor_config.json``."""
    size = {"shortest_edge": preprocess.min_size, "longest_edge": preprocess.max_size}
    if preprocess.resize == "stretch" and preprocess.size:
        size = {"height": preprocess.size[0], "width": preprocess.size[1]}
    return {
        "image_processor_type": "Mask2FormerImageProcessor",
        "do_resize": preprocess.resize != "none",
        "size": size,
        "size_divisor": 32,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [round(m / 255, 8) for m in preprocess.mean],
        "image_std": [round(s / 255, 8) for s in preprocess.std],
        "ignore_index": 255,
        "do_reduce_labels": False,
    }


def _shards(index: Path) -> list[Path]:
    named = read_json(index).get("weight_map")
    values = set(named.values()) if isinstance(named, dict) else set()
    if not values or any(not isinstance(v, str) or Path(v).name != v for v in values):
        raise CheckpointError(f"{index}: names no shards, or some outside its folder")
    files = [index.parent / name for name in sorted(values)]
    missing = [f.name for f in files if not f.is_file()]
    if missing:
        raise MissingFile(
            f"{index.parent}: {len(missing)} of {len(files)} shards are missing "
            f"({', '.join(missing[:3])}); download them"
        )
    return files


def _backbone_from_json(raw: Mapping[str, Any]) -> BackboneConfig:
    kind = raw.get("model_type")
    if kind == "swin":
        _require(raw, _FIXED_SWIN, "backbone_config.")
        size = raw.get("image_size", 224)
        return SwinConfig(
            embed_dim=_number(raw, "embed_dim", 96),
            depths=_four(raw, "depths", _SWIN["depths"]),
            heads=_four(raw, "num_heads", _SWIN["num_heads"]),
            window=_number(raw, "window_size", 7),
            pretrain_size=size if type(size) is int else 224,
        )
    if kind == "resnet":
        _require(raw, _FIXED_RESNET, "backbone_config.")
        config = ResNetConfig(
            blocks=_four(raw, "depths", _RESNET["depths"]),
            width=_number(raw, "embedding_size", 64),
            block="basic" if raw.get("layer_type") == "basic" else "bottleneck",
        )
        sizes = _four(raw, "hidden_sizes", _RESNET["hidden_sizes"])
        if sizes != config.channels:
            raise CheckpointError(
                f"has backbone_config.hidden_sizes {list(sizes)}, a {config.name} has "
                f"{list(config.channels)}; only these are supported"
            )
        return config
    raise CheckpointError(f"has a {kind!r} backbone; only 'swin' and 'resnet' are supported")


def _json_from_backbone(config: BackboneConfig) -> dict[str, Any]:
    stages = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
    if isinstance(config, SwinConfig):
        return {
            "model_type": "swin",
            "image_size": config.pretrain_size,
            "embed_dim": config.embed_dim,
            "depths": list(config.depths),
            "num_heads": list(config.heads),
            "window_size": config.window,
            **_FIXED_SWIN,
            **stages,
        }
    return {
        "model_type": "resnet",
        "embedding_size": config.width,
        "hidden_sizes": list(config.channels),
        "depths": list(config.blocks),
        "layer_type": config.block,
        **_FIXED_RESNET,
        **stages,
    }


def _require(raw: Mapping[str, Any], fixed: Mapping[str, Any], where: str) -> None:
    for key, value in fixed.items():
        if raw.get(key, value) != value:
            raise CheckpointError(
                f"has {where}{key} = {raw[key]!r:.40}, Mask2Former as published has {value!r}"
            )


def _number(raw: Mapping[str, Any], key: str, default: int) -> int:
    value = raw.get(key)
    value = default if value is None else value
    if type(value) is not int or not 0 < value <= _LARGEST:
        raise CheckpointError(f"has {key} = {value!r:.40}, which is no size")
    return value


def _four(raw: Mapping[str, Any], key: str, default: Any) -> tuple[int, int, int, int]:
    values = raw.get(key, default)
    if not isinstance(values, list) or len(values) != 4:
        raise CheckpointError(f"has {key} = {values!r:.40}, which is no list of four sizes")
    one, two, three, four = (_number({key: v}, key, 1) for v in values)
    return one, two, three, four


def _scaled(values: Any, factor: float) -> tuple[float, float, float]:
    """Per-channel numbers for pixels 0..255; rounded, as files often hold float32 digits."""
    is_list = isinstance(values, (list, tuple)) and len(values) == 3
    if not is_list or not all(isinstance(v, (int, float)) for v in values):
        raise CheckpointError(f"has mean or deviation {values!r:.60}, not three numbers")
    red, green, blue = (round(v / factor, 4) for v in values)
    if not all(math.isfinite(v) for v in (red, green, blue)):
        raise CheckpointError(f"has mean or deviation {values!r:.60}, which is not finite")
    return red, green, blue
