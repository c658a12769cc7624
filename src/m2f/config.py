"""What a Mask2Former is made of, as plain frozen values.

Shared by every folder, so it needs nothing but the standard library: the model is built
from a `ModelConfig`, the exporter lowers one, and a bundle's manifest carries one, beside
how images go in (`Preprocess`) and how segments come out (`Postprocess`).
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from m2f.errors import UsageError

Task = Literal["panoptic", "instance", "semantic"]
TASKS: tuple[Task, ...] = ("panoptic", "instance", "semantic")

Convention = Literal["official", "hf", "mmdet"]

LEVELS = 3
"""Feature scales that attention sees (1/32, 1/16, 1/8). Section 3.2.2 of the paper: L = 3."""

SIZE_DIVISOR = 32
"""The coarsest stride; the network sees images padded to multiples of it."""


def _check_heads(what: str, channels: int, heads: int) -> None:
    if channels % heads:
        raise UsageError(f"{what}: {channels} channels do not divide into {heads} heads")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNetConfig:
    """A ResNet (He et al. 2016) with the stride in the 3x3 convolution and a 7x7 stem.

    Attributes:
        blocks: Residual blocks in res2..res5.
        width: Channels of the stem; res2's inner width; doubles with each stage.
        block: "bottleneck" (outputs 4x the inner width) or "basic" (1x).
    """

    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    width: int = 64
    block: Literal["bottleneck", "basic"] = "bottleneck"

    @property
    def channels(self) -> tuple[int, int, int, int]:
        """Output channels of res2..res5."""
        w = self.width * (4 if self.block == "bottleneck" else 1)
        return (w, 2 * w, 4 * w, 8 * w)

    @property
    def name(self) -> str:
        """The usual short name, e.g. "R50"."""
        depth = sum(self.blocks) * (3 if self.block == "bottleneck" else 2) + 2
        return f"R{depth}" + ("" if self.width == 64 else f"-w{self.width}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SwinConfig:
    """A Swin transformer (Liu et al. 2021), MLP ratio 4, patches of 4x4 pixels.

    Attributes:
        embed_dim: Channels of the first stage; doubles with each stage.
        depths: Blocks per stage.
        heads: Attention heads per stage.
        window: Side of an attention window, in tokens.
        pretrain_size: Side of the pre-training images, pixels; tells 224 from 384 models.
    """

    embed_dim: int = 96
    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    heads: tuple[int, int, int, int] = (3, 6, 12, 24)
    window: int = 7
    pretrain_size: int = 224

    def __post_init__(self) -> None:
        for stage, heads in enumerate(self.heads):
            if (self.embed_dim << stage) % heads:
                raise UsageError(
                    f"Swin stage {stage}: {self.embed_dim << stage} channels do not divide "
                    f"into {heads} heads"
                )

    @property
    def channels(self) -> tuple[int, int, int, int]:
        """Output channels of res2..res5."""
        c = self.embed_dim
        return (c, 2 * c, 4 * c, 8 * c)

    @property
    def name(self) -> str:
        """The usual short name, e.g. "Swin-T"."""
        known = {
            (96, 6): "Swin-T",
            (96, 18): "Swin-S",
            (128, 18): "Swin-B",
            (192, 18): "Swin-L",
        }
        return known.get((self.embed_dim, self.depths[2]), f"Swin-{self.embed_dim}")


BackboneConfig = ResNetConfig | SwinConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelDecoderConfig:
    """Backbone features to three attention scales and the 1/4 mask features.

    Attributes:
        kind: "msdeform" (multi-scale deformable attention, the paper's choice) or "fpn".
        channels: C of every output scale.
        mask_channels: Channels of the mask features.
        heads: Attention heads, M. Deformable kind only, as all that follow.
        points: Sampling points per head and level, P.
        layers: Encoder layers.
        ffn: Hidden channels of the encoder's feed-forward networks.
    """

    kind: Literal["msdeform", "fpn"] = "msdeform"
    channels: int = 256
    mask_channels: int = 256
    heads: int = 8
    points: int = 4
    layers: int = 6
    ffn: int = 1024

    def __post_init__(self) -> None:
        _check_heads("pixel decoder", self.channels, self.heads)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerDecoderConfig:
    """Learnable queries, refined by masked attention.

    Attributes:
        queries: Q, segments proposed per image.
        layers: Decoder layers; the official configs' DEC_LAYERS is one more.
        channels: C of a query.
        heads: Attention heads, M.
        ffn: Hidden channels of the feed-forward networks.
    """

    queries: int = 100
    layers: int = 9
    channels: int = 256
    heads: int = 8
    ffn: int = 2048

    def __post_init__(self) -> None:
        _check_heads("transformer decoder", self.channels, self.heads)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """One Mask2Former: everything that decides the shapes of its weights.

    Attributes:
        classes: K, without "no object" (which is always the last of K + 1 logits).
    """

    backbone: BackboneConfig
    pixel_decoder: PixelDecoderConfig = PixelDecoderConfig()
    transformer_decoder: TransformerDecoderConfig = TransformerDecoderConfig()
    classes: int

    def __post_init__(self) -> None:
        c, d = self.pixel_decoder.channels, self.transformer_decoder.channels
        if c != d:
            raise UsageError(
                f"the pixel decoder gives {c} channels, the transformer decoder takes {d}; "
                "give both the same"
            )
        if self.classes < 1:
            raise UsageError(f"a model needs at least one class, got {self.classes}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """One class of a data set.

    Attributes:
        id: The data set's own id (COCO's run from 1 to 200 with gaps), used in its files.
        colour: RGB, 0..255.
        is_thing: Countable objects are things; amorphous regions are stuff.
    """

    id: int
    name: str
    colour: tuple[int, int, int]
    is_thing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """From a decoded image to the network's input.

    Attributes:
        resize: Which rule gives the network's resolution.
            "shortest_edge": detectron2: shortest side to ``min_size``, longest at most
            ``max_size``, aspect kept, Pillow's bilinear with antialias; padded right and
            bottom to a multiple of 32 after normalisation.
            "hf_aspect": Hugging Face: like it, but sizes are truncated, then stretched up
            to multiples of 32.
            "mmdet": like the first, sizes rounded half up, bilinear without antialias.
            "stretch": to ``size`` whatever the aspect.
            "none": as it is.
        min_size: Pixels.
        max_size: Pixels.
        size: Height and width in pixels, for "stretch".
        mean: Per RGB channel, 0..255.
        std: Per RGB channel, 0..255.
    """

    resize: Literal["shortest_edge", "hf_aspect", "mmdet", "stretch", "none"] = "shortest_edge"
    min_size: int = 800
    max_size: int = 1333
    size: tuple[int, int] | None = None
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)


@dataclass(frozen=True, slots=True, kw_only=True)
class Postprocess:
    """From class and mask logits to segments.

    Attributes:
        convention: Whose rules. "official": detectron2's Mask2Former; "hf": transformers
            (masks go through 384x384); "mmdet": mmdetection's fusion head.
        object_mask_threshold: Least class probability of a query in a panoptic map.
        overlap_threshold: Least share of a query's own mask that it must win.
        top_k: Most instances per image (detectron2's DETECTIONS_PER_IMAGE).
        mask_threshold: Mask probability from which a pixel counts; "hf" only.
        semantic_after_resize: The order of semantic inference: the official panoptic and
            instance configs resize the mask logits to the output first; its semantic
            configs (SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE False) resize the result.
        things_only: Instance results keep only thing classes (official: PANOPTIC_ON).
        fuse_stuff: Merge same-class stuff queries into one segment.
    """

    convention: Convention = "official"
    object_mask_threshold: float = 0.8
    overlap_threshold: float = 0.8
    top_k: int = 100
    mask_threshold: float = 0.5
    semantic_after_resize: bool = True
    things_only: bool = True
    fuse_stuff: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """All that a runtime needs beside the network itself; travels in the manifest.

    Attributes:
        task: What the model was trained for, and what a session answers unless asked.
        tasks: Every task this model can answer.
    """

    task: Task
    tasks: tuple[Task, ...]
    categories: tuple[Category, ...]
    preprocess: Preprocess = Preprocess()
    postprocess: Postprocess = Postprocess()


T = TypeVar("T")


def json_from_config(value: Any) -> Any:
    """Turns a config (a dataclass, or tuples of them) into what ``json.dump`` takes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: json_from_config(getattr(value, f.name)) for f in dataclasses.fields(value)
        }
    if isinstance(value, (tuple, list)):
        return [json_from_config(v) for v in value]
    return value


def config_from_json(kind: type[T], raw: Any, *, where: str = "config") -> T:
    """Rebuilds a config dataclass from parsed JSON.

    Args:
        kind: The dataclass to build.
        raw: What ``json.load`` gave.
        where: How to call the place in error messages.

    Raises:
        UsageError: A field is missing, unknown, or of the wrong type; names the field.
    """
    value = _parse(kind, raw, where)
    assert isinstance(value, kind)
    return value


def _parse(hint: Any, raw: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _parse_dataclass(typing.cast("type[Any]", hint), raw, where)
    if origin is Literal:
        if raw not in args:
            raise UsageError(f"{where}: {raw!r} is none of {', '.join(map(repr, args))}")
        return raw
    if origin is tuple:
        if not isinstance(raw, (list, tuple)):
            raise UsageError(f"{where}: expected a list, got {raw!r}")
        kinds = [args[0]] * len(raw) if args[-1] is Ellipsis else list(args)
        if len(kinds) != len(raw):
            raise UsageError(f"{where}: expected {len(kinds)} values, got {len(raw)}")
        return tuple(
            _parse(k, v, f"{where}[{i}]")
            for i, (k, v) in enumerate(zip(kinds, raw, strict=True))
        )
    if origin in (typing.Union, types.UnionType):
        return _parse_union(args, raw, where)
    if hint is float and isinstance(raw, int) and not isinstance(raw, bool):
        return float(raw)
    if not isinstance(raw, hint) or (hint is int and isinstance(raw, bool)):
        raise UsageError(f"{where}: expected {hint.__name__}, got {raw!r}")
    return raw


def _parse_dataclass(kind: type[Any], raw: Any, where: str) -> Any:
    if not isinstance(raw, Mapping):
        raise UsageError(f"{where}: expected an object, got {raw!r}")
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    unknown = sorted(set(raw) - set(fields))
    required = {name for name, f in fields.items() if f.default is dataclasses.MISSING}
    missing = sorted(required - set(raw))
    if unknown or missing:
        raise UsageError(f"{where}: unknown fields {unknown}, missing fields {missing}")
    return kind(**{n: _parse(hints[n], raw[n], f"{where}.{n}") for n in fields if n in raw})


def _parse_union(args: tuple[Any, ...], raw: Any, where: str) -> Any:
    """Takes the alternative that fits; configs of one union differ in their fields."""
    problems = []
    for alternative in args:
        try:
            return _parse(alternative, raw, where)
        except UsageError as problem:
            problems.append(str(problem))
    raise UsageError("; or ".join(problems))
