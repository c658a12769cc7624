"""`finetune`: a trained model, or a fresh one, on a user's own data.

As in the official code: AdamW, the backbone at a tenth of the rate, the polynomial schedule,
gradients clipped to 0.01, batch normalisations frozen, large-scale jittering.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m2f import __version__
from m2f.config import (
    TASKS,
    Metadata,
    ModelConfig,
    Postprocess,
    Preprocess,
    Task,
    json_from_config,
)
from m2f.errors import UsageError
from m2f.evaluate.dataset import DataSet
from m2f.files import appearing, write_json
from m2f.models.checkpoint import write_hf
from m2f.models.checkpoint.hugging_face import json_from_model
from m2f.models.checkpoint.shapes import weight_shapes
from m2f.models.matcher import Objective
from m2f.train.examples import Examples
from m2f.train.jitter import Jitter
from m2f.train.recovery import RANGES, Recovery
from m2f.train.run import Losses, Progress, follow, held
from m2f.train.start import ClassChange, Start, with_classes
from m2f.train.trainer import Recipe, Trainer

RECORD = "training.json"
"""How the model was made; beside its weights."""

_TEST_SIZE = 800 / 1024, 1333 / 1024
"""Shortest and longest edge of test images, by the crop's: the official COCO configs'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to finetune; all that its result depends on beside model and data.

    Attributes:
        task: What to teach.
        steps: Of the whole run.
        batch: Images per step; the official code's is 16.
        rate: Learning rate at the start.
        backbone_rate: The backbone's, as a share of it; 0 freezes the backbone. None: 0.1,
            or 1 for a fresh model.
        trains_norm: Whether batch normalisations learn. None: only those of a fresh model.
        jitter: How images are varied.
        test_size: Shortest edge, and the most for the longest, of the images that the result
            expects, pixels. None: in proportion to the crop, as in the official code.
        seed: Of order, variation, sampled points and new weights.
    """

    task: Task
    steps: int = 1000
    batch: int = 2
    rate: float = 1e-4
    backbone_rate: float | None = None
    trains_norm: bool | None = None
    jitter: Jitter = field(default_factory=Jitter)
    test_size: tuple[int, int] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.backbone_rate is not None and self.backbone_rate < 0:
            raise UsageError(
                f"the backbone's share of the rate is from 0 on, got {self.backbone_rate:g}"
            )
        if self.test_size is not None and not 1 <= self.test_size[0] <= self.test_size[1]:
            raise UsageError(
                "the test size is a shortest edge and at least as much for the longest, got "
                f"{self.test_size[0]} and {self.test_size[1]}"
            )

    def recipe(self, *, is_fresh: bool) -> Recipe:
        """As the training loop takes it."""
        h, w = self.jitter.crop
        trains_norm = is_fresh if self.trains_norm is None else self.trains_norm
        share = (1.0 if is_fresh else 0.1) if self.backbone_rate is None else self.backbone_rate
        return Recipe(
            steps=self.steps,
            warmup=min(300, self.steps // 10) if is_fresh else min(10, self.steps // 10),
            rate=self.rate,
            backbone_rate=share,
            schedule="poly",
            average=0.0,
            lessons=2.0 if is_fresh else 0.0,
            frozen_norm=not trains_norm,
            # No more points than a mask has cells.
            objective=Objective(points=min(Objective().points, h * w // 16)),
            seed=self.seed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneReport:
    """What finetuning did.

    Attributes:
        out: The folder with the model.
        folder: That of the run.
        loss: At its start and end.
        notes: What was assumed about the model.
        ranges: The file of learnt ranges; None unless 8 bits were learnt around.
    """

    out: Path
    folder: Path
    task: Task
    steps: int
    images: int
    classes: ClassChange
    loss: Losses
    notes: tuple[str, ...]
    ranges: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dump``."""
        return {
            "out": str(self.out),
            "folder": str(self.folder),
            "task": self.task,
            "steps": self.steps,
            "images": self.images,
            "classes": self.classes._asdict(),
            "loss": self.loss._asdict(),
            "notes": list(self.notes),
            "ranges": None if self.ranges is None else str(self.ranges),
        }


def finetune(
    start: Start,
    data: DataSet,
    out: Path,
    *,
    settings: Settings,
    folder: Path | None = None,
    resume: bool = False,
    recovery: Recovery | None = None,
    progress: Progress | None = None,
) -> FinetuneReport:
    """Trains a model on a data set, whose categories become its classes.

    A run that was interrupted goes on where it stopped, and its result is the same to the bit
    (on the same machine with the same number of threads).

    Args:
        start: See `m2f.train.start`.
        data: See `m2f.evaluate.open_data`.
        out: A Hugging Face folder, which `m2f export` takes; must not exist yet, or be empty.
        settings: What to teach, and how.
        folder: Of the run's checkpoint and loss curve; default: ``out`` with "-training".
        resume: Go on with the run in the folder, if there is one.
        recovery: What 8 bits take, for the model to learn around it; its ranges then lie in
            ``out``, too.
        progress: Told how it goes before each step.

    Raises:
        UsageError: Settings contradict each other, the data, or the run in the folder; or the
            model cannot be written.
        DataError: The data is wrong.
        MissingFile: Files of it do not exist.
        CheckFailed: The loss is not a number any more.
        DiskError: The model or the run cannot be written.
        KeyboardInterrupt: After Ctrl-C; the step at work was ended and kept.
    """
    if recovery is not None and settings.trains_norm:
        raise UsageError(
            "batch normalisations are part of the weights that are quantised, so they cannot "
            "learn beside them; leave out --train-norm or --qat"
        )
    folder = out.with_name(f"{out.name}-training") if folder is None else folder
    data = data.of_model(start.metadata.categories)
    config, weights, classes = with_classes(start, data.categories, seed=settings.seed)
    metadata = _metadata(start, data, settings)
    json_from_model(config, metadata)  # fails now, not after hours, for one it cannot express
    batches = Examples(
        data,
        settings.task,
        batch=settings.batch,
        jitter=settings.jitter,
        preprocess=metadata.preprocess,
        seed=settings.seed,
    )
    about = {
        "model_sha256": start.identity,
        "data_sha256": data.fingerprint,
        **({} if recovery is None else {"qat_sha256": recovery.identity}),
        **json_from_config(settings),
    }
    prepare = None if recovery is None else recovery.prepare
    recipe = settings.recipe(is_fresh=weights is None)
    with held(folder, out, resume=resume):
        trainer = Trainer(
            config, recipe, batches, folder, weights=weights, prepare=prepare, about=about
        )
        loss = follow(trainer, progress=progress)
        report = FinetuneReport(
            out=out,
            folder=folder,
            task=settings.task,
            steps=settings.steps,
            images=len(data.items),
            classes=classes,
            loss=loss,
            notes=start.notes + ((recovery.note,) if recovery else ()),
            ranges=out / RANGES if recovery else None,
        )
        record = {"m2f": __version__, "model": start.name, "data": data.name, **about}
        files = {RECORD: {**record, **report.to_json()}}
        if recovery is not None:
            files[RANGES] = recovery.ranges(trainer.model)
        _write(out, trainer, config, metadata, files)
    return report


def _write(
    out: Path,
    trainer: Trainer,
    config: ModelConfig,
    metadata: Metadata,
    files: Mapping[str, Mapping[str, Any]],
) -> None:
    weights = trainer.result
    weights = {name: weights[name] for name in weight_shapes(config)}  # not what was prepared
    with appearing(out) as work:
        write_hf(weights, config, metadata, work)
        for name, content in files.items():
            write_json(work / name, content)


def _metadata(start: Start, data: DataSet, settings: Settings) -> Metadata:
    """What the result is for: official rules, whatever the model came from."""
    known, task = start.metadata.postprocess, settings.task
    rules = Postprocess(
        things_only=task == "panoptic", semantic_after_resize=task != "semantic"
    )
    if known.convention == "official":
        rules = dataclasses.replace(
            rules,
            object_mask_threshold=known.object_mask_threshold,
            overlap_threshold=known.overlap_threshold,
            top_k=known.top_k,
        )
    return Metadata(
        task=task,
        tasks=TASKS if task == "panoptic" else (task,),
        categories=data.categories,
        preprocess=_preprocess(start.metadata.preprocess, settings),
        postprocess=rules,
    )


def _preprocess(known: Preprocess, settings: Settings) -> Preprocess:
    crop, shares = settings.jitter.crop, _TEST_SIZE
    size = settings.test_size or (round(min(crop) * shares[0]), round(max(crop) * shares[1]))
    return Preprocess(min_size=size[0], max_size=size[1], mean=known.mean, std=known.std)
