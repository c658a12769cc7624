"""Which published model a checkpoint is, and what that says beside its weights.

Weights alone do not tell classes' names, test sizes or thresholds. They come from the preset
of the same shapes; where several fit, from the one that the file's name, its class names and
the wanted task speak for.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

from m2f.config import (
    TASKS,
    Category,
    Convention,
    Metadata,
    ModelConfig,
    Postprocess,
    Preprocess,
    Task,
)
from m2f.errors import UsageError
from m2f.models.categories import categories_generic
from m2f.models.presets import Preset, matching

_AGREEING = 0.5
"""Share of class names that must agree for a data set to be taken for a known one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clues:
    """What a file says about itself beside its weights.

    Attributes:
        text: Its name and those of the folders around it, or its hub id; on a line of its
            own each, if it has several.
        labels: Class names in the model's order; empty if it names none.
        colours: RGB of each class; empty if it has none.
        preprocess: None if it does not say.
        is_semantic_head: It comes from mmsegmentation.
        own: All of it, if this program wrote the file.
    """

    text: str
    labels: tuple[str, ...] = ()
    colours: tuple[tuple[int, int, int], ...] = ()
    preprocess: Preprocess | None = None
    is_semantic_head: bool = False
    own: Metadata | None = None


def choose(
    config: ModelConfig, clues: Clues, *, task: Task | None
) -> tuple[Preset | None, tuple[str, ...]]:
    """Finds the preset that a model is most likely to be, and notes what else it could be."""
    presets = _possible(config, task, clues)
    if not presets and clues.own:
        return None, ()
    if not presets:
        known = "named in the file" if _has_names(clues.labels) else '"class 0", "class 1"...'
        return None, (
            "no published model has these shapes and classes: the classes are "
            f"{known}, all taken for things",
        )
    best = max(presets, key=lambda p: _likelihood(p, clues))
    equal = [p.name for p in presets if p is not best and not _is_certain(best, clues)]
    if not equal:
        return best, (f"taken for the published model {best.name}",)
    return best, (
        f"taken for the published model {best.name}; by its shapes it could also be "
        f"{', '.join(equal)}: choose with a preset or a task",
    )


def metadata(
    config: ModelConfig,
    preset: Preset | None,
    clues: Clues,
    *,
    format: Convention,
    task: Task | None,
) -> Metadata:
    """All that a runtime needs beside the weights.

    Raises:
        UsageError: The model does not answer the task.
    """
    if clues.own:
        if task and task not in clues.own.tasks:
            raise UsageError(
                f"the model answers {', '.join(clues.own.tasks)}, not {task}; choose one of "
                "those"
            )
        return dataclasses.replace(clues.own, task=task or clues.own.task)
    if preset is None:
        base = Metadata(
            task=task or _task_in(clues) or "panoptic",
            tasks=TASKS,
            categories=categories_generic(config.classes),
        )
    else:
        base = preset.metadata
        if task and task not in base.tasks:
            raise UsageError(
                f"{preset.name} answers {', '.join(base.tasks)}, not {task}; choose another "
                "task or preset"
            )
        base = dataclasses.replace(base, task=task or base.task)
    preprocess, postprocess = _rules(base, config, clues, format)
    return dataclasses.replace(
        base,
        categories=_categories(base.categories, clues, is_known=preset is not None),
        preprocess=preprocess,
        postprocess=postprocess,
    )


def _possible(config: ModelConfig, task: Task | None, clues: Clues) -> list[Preset]:
    presets = matching(config)
    trained = [p for p in presets if p.metadata.task == task]
    presets = trained or [p for p in presets if task is None or task in p.metadata.tasks]
    if not _has_names(clues.labels):
        return presets
    return [p for p in presets if _agreement(p, clues.labels) >= _AGREEING]


def _likelihood(preset: Preset, clues: Clues) -> tuple[float, ...]:
    """Larger is likelier; between equals, one that answers more tasks, then the zoo's order."""
    text = clues.text.lower()
    order: tuple[Task, ...] = ("instance", "semantic", "panoptic")
    return (
        _is_certain(preset, clues),
        preset.dataset.removesuffix("20k") in text,
        preset.metadata.task == _task_in(clues),
        preset.name.endswith("in21k") and "in21k" in text,
        order.index(preset.metadata.task),
    )


def _is_certain(preset: Preset, clues: Clues) -> bool:
    """Whether the file has the very name under which this model was published."""
    return any(
        line == preset.hub_id or preset.url.endswith("/" + line.rpartition("/")[2])
        for line in clues.text.splitlines()
    )


def _task_in(clues: Clues) -> Task | None:
    if clues.is_semantic_head:
        return "semantic"
    found = [task for task in TASKS if task in clues.text.lower()]
    return found[0] if len(found) == 1 else None


def _rules(
    base: Metadata, config: ModelConfig, clues: Clues, format: Convention
) -> tuple[Preprocess, Postprocess]:
    """Resizing and post-processing as the code base does them that the file comes from."""
    if format == "hf":
        # transformers' defaults: no stuff is fused unless the caller names the classes.
        post = Postprocess(
            convention="hf",
            object_mask_threshold=0.5,
            top_k=config.transformer_decoder.queries,
            semantic_after_resize=False,
            things_only=False,
            fuse_stuff=False,
        )
        pre = dataclasses.replace(base.preprocess, resize="hf_aspect")
        return clues.preprocess or pre, post
    if format == "mmdet":
        return (
            dataclasses.replace(base.preprocess, resize="mmdet"),
            dataclasses.replace(
                base.postprocess,
                convention="mmdet",
                semantic_after_resize=not clues.is_semantic_head,
            ),
        )
    return base.preprocess, base.postprocess


def _categories(
    categories: Sequence[Category], clues: Clues, *, is_known: bool
) -> tuple[Category, ...]:
    """A known data set's categories under the file's names, where those differ."""
    out = list(categories)
    if _has_names(clues.labels) and len(clues.labels) == len(out):
        out = [
            c if _plain(c.name) == _plain(label) else dataclasses.replace(c, name=label)
            for c, label in zip(out, clues.labels, strict=True)
        ]
    if not is_known and len(clues.colours) == len(out):
        out = [
            dataclasses.replace(c, colour=colour)
            for c, colour in zip(out, clues.colours, strict=True)
        ]
    return tuple(out)


def _has_names(labels: Sequence[str]) -> bool:
    """Whether these are names; transformers fills in LABEL_0, LABEL_1 where it knows none."""
    return any(not re.fullmatch(r"LABEL_\d+|class \d+|\d+", label) for label in labels)


def _agreement(preset: Preset, labels: Sequence[str]) -> float:
    pairs = zip(preset.metadata.categories, labels, strict=False)
    return sum(_plain(c.name) == _plain(label) for c, label in pairs) / max(1, len(labels))


def _plain(name: str) -> str:
    """A class name as data sets agree on it: "road, route" is "road" to others."""
    first = re.split(r"[,;]", name.lower())[0]
    return re.sub(
        r"[^a-z]|(merged|stuff|other)$", "", re.sub(r"-(merged|stuff|other)", "", first)
    )
