"""`train_sample`: the sample model from nothing to a folder, with its quality."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2f.errors import UsageError
from m2f.files import appearing
from m2f.train import sample
from m2f.train.evaluate_sample import SCENES
from m2f.train.publish import publish
from m2f.train.run import Losses, Progress, follow, held
from m2f.train.trainer import Batch, Trainer

FOLDER = "sample-training"
OUT = "sample"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleReport:
    """What training the sample model did.

    Attributes:
        out: The folder with the model.
        folder: That of the run.
        loss: At its start and end.
        scenes: Held-out scenes that the quality was measured on.
        quality: Per cent; see `m2f.train.evaluate_sample.evaluate`.
    """

    out: Path
    folder: Path
    steps: int
    loss: Losses
    scenes: int
    quality: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dump``."""
        return {
            "out": str(self.out),
            "folder": str(self.folder),
            "steps": self.steps,
            "loss": self.loss._asdict(),
            "scenes": self.scenes,
            "quality": self.quality,
        }


def train_sample(
    out: Path = Path(OUT),
    *,
    folder: Path = Path(FOLDER),
    steps: int | None = None,
    seed: int = 0,
    scenes: int = SCENES,
    resume: bool = False,
    progress: Progress | None = None,
) -> SampleReport:
    """Trains the sample model, writes it as it is shipped, and measures it.

    A run that was interrupted goes on where it stopped, and its result is the same to the bit
    (on the same machine with the same number of threads).

    Args:
        out: A Hugging Face folder; must not exist yet, or be empty.
        folder: Of the run's checkpoint and loss curve.
        steps: Default: the recipe's. A shorter run sees an even choice of the batches of the
            whole one.
        seed: Of the initial weights and the sampled points; not of the scenes.
        scenes: How many held-out scenes to measure on.
        resume: Go on with the run in the folder, if there is one.
        progress: Told how it goes before each step.

    Raises:
        UsageError: The numbers make no sense, the run in the folder is another one, or the
            model cannot be written to ``out``.
        CheckFailed: The loss is not a number any more.
        DiskError: The model or the run cannot be written.
        KeyboardInterrupt: After Ctrl-C; the step at work was ended and kept.
    """
    if scenes < 1:
        raise UsageError(f"quality needs at least one scene to be measured on, got {scenes}")
    steps = sample.RECIPE.steps if steps is None else steps
    recipe = dataclasses.replace(sample.RECIPE, steps=steps, seed=seed)
    recipe = dataclasses.replace(recipe, warmup=min(recipe.warmup, steps // 10))

    def batch(step: int) -> Batch:
        whole = sample.RECIPE.steps
        return sample.batch(step * whole // steps if steps < whole else step)

    about = {"model": "sample", "steps": steps, "seed": seed}
    with held(folder, out, resume=resume):
        trainer = Trainer(sample.CONFIG, recipe, batch, folder, about=about)
        loss = follow(trainer, progress=progress)
        if progress is not None:
            progress(steps, steps, f"measuring on {scenes} held-out scenes")
        with appearing(out) as work:
            quality = publish(folder, work, count=scenes)
    return SampleReport(
        out=out, folder=folder, steps=steps, loss=loss, scenes=scenes, quality=quality
    )
