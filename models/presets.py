"""Every image model of the official Mask2Former model zoo, with its settings and results.

Facts from facebookresearch/Mask2Former at 9b0651c: ``MODEL_ZOO.md`` (results, files) and
the configs it links to, with detectron2's defaults where a config says nothing (COCO's test
size, the number of instances). The weights are Meta's, under CC BY-NC 4.0.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from m2f.config import (
    TASKS,
    BackboneConfig,
    Category,
    Metadata,
    ModelConfig,
    Postprocess,
    Preprocess,
    ResNetConfig,
    SwinConfig,
    Task,
    TransformerDecoderConfig,
)
from m2f.errors import UsageError
from m2f.models.categories import (
    ADE20K,
    ADE20K_INSTANCE,
    CITYSCAPES,
    CITYSCAPES_INSTANCE,
    COCO_INSTANCE,
    COCO_PANOPTIC,
    MAPILLARY_PANOPTIC,
    MAPILLARY_SEMANTIC,
)

Dataset = Literal["coco", "ade20k", "cityscapes", "mapillary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One published model.

    Attributes:
        name: dataset-task-backbone, e.g. "coco-panoptic-r50".
        metadata: ``tasks`` are those that the official code evaluates with this config.
        metrics: Published results in percent, on the data set's validation images, at the
            preset's test size; "(ms+flip)" is with several sizes and mirrored images.
        config: Path of the official config, below the repository's ``configs/``.
        url: The official checkpoint; the six digits in its file name begin its MD5.
        hub_id: The same weights on the Hugging Face hub; only Swin models are there.
    """

    name: str
    dataset: Dataset
    model: ModelConfig
    metadata: Metadata
    metrics: Mapping[str, float]
    config: str
    url: str
    hub_id: str | None


@dataclass(frozen=True, slots=True)
class _Backbone:
    """Its shape, and what the official files and the hub call it."""

    config: BackboneConfig
    official: str
    hub: str | None = None


_SWIN_B = SwinConfig(
    embed_dim=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32), window=12, pretrain_size=384
)
_SWIN_L = SwinConfig(
    embed_dim=192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48), window=12, pretrain_size=384
)
_BACKBONES = {
    "r50": _Backbone(ResNetConfig(blocks=(3, 4, 6, 3)), "R50"),
    "r101": _Backbone(ResNetConfig(blocks=(3, 4, 23, 3)), "R101"),
    "swin-t": _Backbone(SwinConfig(depths=(2, 2, 6, 2)), "swin_tiny", "tiny"),
    "swin-s": _Backbone(SwinConfig(depths=(2, 2, 18, 2)), "swin_small", "small"),
    "swin-b": _Backbone(_SWIN_B, "swin_base_384", "base"),
    "swin-b-in21k": _Backbone(_SWIN_B, "swin_base_IN21k_384", "base-IN21k"),
    "swin-l-in21k": _Backbone(_SWIN_L, "swin_large_IN21k_384", "large"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """The models of one table in the zoo.

    Attributes:
        size: Test size: shortest edge, and the most for the longest, pixels.
        metrics: What the numbers in the rows are.
        rows: Backbone, training schedule, start of the checkpoint's MD5, results.
    """

    dataset: Dataset
    task: Task
    categories: tuple[Category, ...]
    size: tuple[int, int]
    metrics: tuple[str, ...]
    rows: tuple[tuple[str, str, str, tuple[float, ...]], ...]


_ZOO = (
    _Family(
        dataset="coco",
        task="panoptic",
        categories=COCO_PANOPTIC,
        size=(800, 1333),
        metrics=("PQ", "AP", "mIoU"),
        rows=(
            ("r50", "50ep", "94dc52", (51.9, 41.7, 61.7)),
            ("r101", "50ep", "b807bd", (52.6, 42.6, 62.4)),
            ("swin-t", "50ep", "9fd0ae", (53.2, 43.3, 63.2)),
            ("swin-s", "50ep", "a407fd", (54.6, 44.7, 64.2)),
            ("swin-b", "50ep", "9d7f02", (55.1, 45.2, 65.1)),
            ("swin-b-in21k", "50ep", "54b88a", (56.4, 46.3, 67.1)),
            ("swin-l-in21k", "100ep", "f07440", (57.8, 48.6, 67.4)),
        ),
    ),
    _Family(
        dataset="coco",
        task="instance",
        categories=COCO_INSTANCE,
        size=(800, 1333),
        metrics=("AP", "Boundary AP"),
        rows=(
            ("r50", "50ep", "3c8ec9", (43.7, 30.6)),
            ("r101", "50ep", "eba159", (44.2, 31.1)),
            ("swin-t", "50ep", "86143f", (45.0, 31.8)),
            ("swin-s", "50ep", "1e7f22", (46.3, 32.9)),
            ("swin-b", "50ep", "f6e0f6", (46.7, 33.2)),
            ("swin-b-in21k", "50ep", "83d103", (48.1, 34.4)),
            ("swin-l-in21k", "100ep", "e5f453", (50.1, 36.2)),
        ),
    ),
    _Family(
        dataset="ade20k",
        task="panoptic",
        categories=ADE20K,
        size=(640, 2560),
        metrics=("PQ", "AP", "mIoU"),
        rows=(
            ("r50", "160k", "5c90d4", (39.7, 26.5, 46.1)),
            ("swin-l-in21k", "160k", "e0c58e", (48.1, 34.2, 54.5)),
        ),
    ),
    _Family(
        # MODEL_ZOO.md calls the second backbone R50; its config says Swin-L.
        dataset="ade20k",
        task="instance",
        categories=ADE20K_INSTANCE,
        size=(640, 2560),
        metrics=("AP",),
        rows=(
            ("r50", "160k", "67e945", (26.4,)),
            ("swin-l-in21k", "160k", "92dae9", (34.9,)),
        ),
    ),
    _Family(
        dataset="ade20k",
        task="semantic",
        categories=ADE20K,
        size=(512, 2048),  # except where the schedule says res640
        metrics=("mIoU", "mIoU (ms+flip)"),
        rows=(
            ("r50", "160k", "500878", (47.2, 49.2)),
            ("r101", "90k", "0d68be", (47.8, 50.1)),
            ("swin-t", "160k", "5274a6", (47.7, 49.6)),
            ("swin-s", "160k", "011c6d", (51.3, 52.4)),
            ("swin-b", "160k_res640", "503e96", (52.4, 53.7)),
            ("swin-b-in21k", "160k_res640", "7e47bf", (53.9, 55.1)),
            ("swin-l-in21k", "160k_res640", "6b4a3a", (56.1, 57.3)),
        ),
    ),
    _Family(
        dataset="cityscapes",
        task="panoptic",
        categories=CITYSCAPES,
        size=(1024, 2048),
        metrics=("PQ", "AP", "mIoU"),
        rows=(
            ("r50", "90k", "4ab90c", (62.1, 37.3, 77.5)),
            ("r101", "90k", "04d286", (62.4, 37.7, 78.6)),
            ("swin-t", "90k", "ceba0f", (63.9, 39.1, 80.5)),
            ("swin-s", "90k", "23efb7", (64.8, 40.7, 81.8)),
            ("swin-b-in21k", "90k", "fa840f", (66.1, 42.8, 82.7)),
            ("swin-l-in21k", "90k", "064788", (66.6, 43.6, 82.9)),
        ),
    ),
    _Family(
        dataset="cityscapes",
        task="instance",
        categories=CITYSCAPES_INSTANCE,
        size=(1024, 2048),
        metrics=("AP", "AP50"),
        rows=(
            ("r50", "90k", "01a8ed", (37.4, 61.9)),
            ("r101", "90k", "c2b8c8", (38.5, 63.9)),
            ("swin-t", "90k", "6a63f8", (39.7, 66.9)),
            ("swin-s", "90k", "974824", (41.8, 70.4)),
            ("swin-b-in21k", "90k", "7a3b6d", (42.0, 68.8)),
            ("swin-l-in21k", "90k", "dfa862", (43.7, 71.4)),
        ),
    ),
    _Family(
        dataset="cityscapes",
        task="semantic",
        categories=CITYSCAPES,
        size=(1024, 2048),
        metrics=("mIoU", "mIoU (ms+flip)"),
        rows=(
            ("r50", "90k", "cc1b1f", (79.4, 82.2)),
            ("r101", "90k", "257ce8", (80.1, 81.9)),
            ("swin-t", "90k", "2d58d4", (82.1, 83.0)),
            ("swin-s", "90k", "fa26ae", (82.6, 83.6)),
            ("swin-b-in21k", "90k", "1c6b65", (83.3, 84.5)),
            ("swin-l-in21k", "90k", "17c1ee", (83.3, 84.3)),
        ),
    ),
    _Family(
        dataset="mapillary",
        task="panoptic",
        categories=MAPILLARY_PANOPTIC,
        size=(2048, 2048),
        metrics=("PQ", "mIoU"),
        rows=(
            ("r50", "300k", "4e9874", (36.3, 50.7)),
            ("swin-l-in21k", "300k", "132c71", (45.5, 60.8)),
        ),
    ),
    _Family(
        dataset="mapillary",
        task="semantic",
        categories=MAPILLARY_SEMANTIC,
        size=(2048, 2048),
        metrics=("mIoU", "mIoU (ms+flip)"),
        rows=(
            ("r50", "300k", "6c66d0", (57.4, 59.0)),
            ("swin-l-in21k", "300k", "90ee2d", (63.2, 64.7)),
        ),
    ),
)

_HUB_DATASETS = {"ade20k": "ade", "mapillary": "mapillary-vistas"}
# No trace of these two was found; the other Swin models are all there.
_NOT_ON_HUB = {"coco-panoptic-swin-b-in21k", "ade20k-instance-swin-l-in21k"}

# Two R50 models were trained under the name of the predecessor: the checkpoints' folders
# keep it, and so does one of the configs.
_OLD_FOLDERS = {"mapillary-panoptic-r50", "mapillary-semantic-r50"}
_OLD_CONFIGS = {"mapillary-panoptic-r50"}


def _presets(family: _Family) -> Iterator[Preset]:
    for backbone, schedule, digest, results in family.rows:
        name = f"{family.dataset}-{family.task}-{backbone}"
        yield Preset(
            name=name,
            dataset=family.dataset,
            model=_model(family, backbone),
            metadata=_metadata(family, schedule),
            metrics=MappingProxyType(dict(zip(family.metrics, results, strict=True))),
            config=_config(family, name, backbone, schedule),
            url=_url(family, name, backbone, schedule, digest),
            hub_id=_hub_id(family, name, backbone),
        )


def _model(family: _Family, backbone: str) -> ModelConfig:
    many = backbone == "swin-l-in21k" and family.task != "semantic"
    return ModelConfig(
        backbone=_BACKBONES[backbone].config,
        transformer_decoder=TransformerDecoderConfig(queries=200 if many else 100),
        classes=len(family.categories),
    )


def _metadata(family: _Family, schedule: str) -> Metadata:
    """Test settings; names follow the official keys MODEL.MASK_FORMER.TEST.*."""
    # ADE20K instance configs leave all three on, but only instances are evaluated.
    tasks: tuple[Task, ...] = (family.task,)
    if family.task == "panoptic":
        # INSTANCE_ON is off for Mapillary Vistas.
        tasks = ("panoptic", "semantic") if family.dataset == "mapillary" else TASKS
    min_size, max_size = (640, 2560) if schedule.endswith("res640") else family.size
    return Metadata(
        task=family.task,
        tasks=tasks,
        categories=family.categories,
        preprocess=Preprocess(min_size=min_size, max_size=max_size),
        postprocess=Postprocess(
            object_mask_threshold=0.0 if family.dataset == "mapillary" else 0.8,
            # SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE, PANOPTIC_ON or INSTANCE_ON.
            semantic_after_resize=family.task != "semantic",
            # PANOPTIC_ON; also on for ADE20K instance, which has nothing but things.
            things_only=family.task == "panoptic",
        ),
    )


def _recipe(backbone: str, schedule: str, *, old: bool) -> str:
    prefix = "maskformer" if old else "maskformer2"
    return f"{prefix}_{_BACKBONES[backbone].official}_bs16_{schedule}"


def _config(family: _Family, name: str, backbone: str, schedule: str) -> str:
    dataset = "mapillary-vistas" if family.dataset == "mapillary" else family.dataset
    swin = "swin/" if backbone.startswith("swin") else ""
    recipe = _recipe(backbone, schedule, old=name in _OLD_CONFIGS)
    return f"{dataset}/{family.task}-segmentation/{swin}{recipe}.yaml"


def _url(family: _Family, name: str, backbone: str, schedule: str, digest: str) -> str:
    dataset = "mapillary_vistas" if family.dataset == "mapillary" else family.dataset
    recipe = _recipe(backbone, schedule, old=name in _OLD_FOLDERS)
    return (
        "https://dl.fbaipublicfiles.com/maskformer/mask2former/"
        f"{dataset}/{family.task}/{recipe}/model_final_{digest}.pkl"
    )


def _hub_id(family: _Family, name: str, backbone: str) -> str | None:
    hub = _BACKBONES[backbone].hub
    if hub is None or name in _NOT_ON_HUB:
        return None
    dataset = _HUB_DATASETS.get(family.dataset, family.dataset)
    return f"facebook/mask2former-swin-{hub}-{dataset}-{family.task}"


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {p.name: p for family in _ZOO for p in _presets(family)}
)
"""By name, in the zoo's order."""


def preset(name: str) -> Preset:
    """Looks a published model up.

    Args:
        name: dataset-task-backbone, e.g. "ade20k-semantic-swin-l-in21k".

    Raises:
        UsageError: There is none of this name; lists the closest.
    """
    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.0)
        raise UsageError(f"no preset is named {name!r}; the closest are {', '.join(close)}")
    return PRESETS[name]


def matching(model: ModelConfig, task: Task | None = None) -> list[Preset]:
    """Finds the presets that a model may be.

    Several may match: panoptic and semantic models of one data set can have equal shapes,
    and so have Swin-B models from two pre-trainings.

    Args:
        model: As recognised from a checkpoint. ``SwinConfig.pretrain_size`` is ignored,
            because no weight's shape shows it.
        task: Only presets trained for it.

    Returns:
        Presets in the zoo's order; empty if the model is none of them.
    """
    wanted = _visible(model)
    return [
        p
        for p in PRESETS.values()
        if _visible(p.model) == wanted and task in (None, p.metadata.task)
    ]


def _visible(model: ModelConfig) -> ModelConfig:
    """The same model without what its weights do not show."""
    if not isinstance(model.backbone, SwinConfig):
        return model
    backbone = dataclasses.replace(model.backbone, pretrain_size=SwinConfig().pretrain_size)
    return dataclasses.replace(model, backbone=backbone)
