"""Translates weights' names, and the few weights that are laid out differently."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from m2f.config import Convention, ModelConfig
from m2f.errors import UsageError
from m2f.models.checkpoint.name_tables import IGNORED, OLDER, RULES, Rule
from m2f.models.checkpoint.shapes import Shape, weight_shapes
from m2f.models.checkpoint.stored import Array


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor of a file belongs.

    Attributes:
        name: Our name.
        part: Which of ``parts`` equal blocks of our rows it is.
        shape: Of the file's tensor.
        is_reordered: See `Rule`.
    """

    name: str
    part: int
    parts: int
    shape: Shape
    is_reordered: bool


def layout(config: ModelConfig, format: Convention) -> dict[str, Place]:
    """Everything that a complete file of this format holds, by the file's names.

    Raises:
        UsageError: The format has no names for this kind of pixel decoder.
    """
    kind = config.pixel_decoder.kind
    if (format, kind) not in RULES:
        raise UsageError(f"{format} files have no {kind} pixel decoder; use the official form")
    places = {}
    for name, (rows, *rest) in weight_shapes(config).items():
        rule, values = _find(name, RULES[format, kind])
        parts = len(rule.theirs)
        for part, template in enumerate(rule.theirs):
            shape = (rows // parts, *rest)
            places[_fill(template, values)] = Place(name, part, parts, shape, rule.is_reordered)
    return places


def our_name(theirs: str, format: Convention, kind: str) -> tuple[str, int] | None:
    """Our name of a file's tensor, and how many such tensors make it; None if unknown."""
    for rule in RULES.get((format, kind), ()):
        for template in rule.theirs:
            if (values := _match(template, theirs)) is not None:
                return _fill(rule.ours, values), len(rule.theirs)
    return None


def modern_name(theirs: str, format: Convention) -> str:
    """The name that today's code of the same format uses."""
    for pattern, replacement in OLDER[format]:
        theirs = re.sub(pattern, replacement, theirs)
    return theirs


def is_ignored(theirs: str) -> bool:
    """Whether a tensor is in files but no weight."""
    return any(re.search(pattern, theirs) for pattern in IGNORED)


def reordered_for_mmdet(x: Array) -> Array:
    """Patch merging from the official order of its 4C inputs to mmdet's.

    Official: pixel k, channel c at k * C + c, where k runs over (row, column) offsets (0, 0),
    (1, 0), (0, 1), (1, 1). mmdet uses ``nn.Unfold``: c * 4 + k, k over (0, 0), (0, 1),
    (1, 0), (1, 1).

    Args:
        x: [..., 4C].
    """
    *rows, c = x.shape
    pixels = x.reshape(*rows, 4, c // 4)[..., [0, 2, 1, 3], :]
    return pixels.swapaxes(-1, -2).reshape(x.shape)


def reordered_from_mmdet(x: Array) -> Array:
    """The inverse of `reordered_for_mmdet`."""
    *rows, c = x.shape
    pixels = x.reshape(*rows, c // 4, 4).swapaxes(-1, -2)
    return pixels[..., [0, 2, 1, 3], :].reshape(x.shape)


def _find(ours: str, rules: tuple[Rule, ...]) -> tuple[Rule, tuple[str, ...]]:
    for rule in rules:
        if (values := _match(rule.ours, ours)) is not None:
            return rule, values
    raise AssertionError(f"no rule names {ours}")


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    escaped = re.escape(template).replace(r"\#", r"(\d+)").replace(r"\*", "(.+)")
    return re.compile(escaped)


def _match(template: str, name: str) -> tuple[str, ...] | None:
    found = _pattern(template).fullmatch(name)
    return found.groups() if found else None


def _fill(template: str, values: tuple[str, ...]) -> str:
    parts = re.split(r"[#*]", template)
    return parts[0] + "".join(v + p for v, p in zip(values, parts[1:], strict=True))
