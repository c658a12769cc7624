"""The training loop: one step after another, resumable to the bit.

What a step sees is a function of its number alone, so a run that was cut short goes on as if
nothing had happened: the checkpoint holds the weights, the optimizer and torch's generator.
"""

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from m2f.config import ModelConfig
from m2f.errors import CheckpointError
from m2f.models.criterion import criterion
from m2f.models.mask2former import Mask2Former
from m2f.models.matcher import Objective, Target
from m2f.models.transformer_decoder import Heads
from m2f.train.attention import matrix_attention
from m2f.train.auxiliary import PixelLessons


class Batch(NamedTuple):
    """What one step learns from.

    Attributes:
        images: [N, 3, H, W], float32, normalised; H and W multiples of 32.
        targets: The truth, one per image.
    """

    images: Tensor
    targets: list[Target]


Batches = Callable[[int], Batch]
"""From a step's number to its batch. Must always give the same for the same number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to train.

    Attributes:
        steps: Of the whole run; the learning rate ends at 0 there.
        warmup: Steps in which the learning rate rises.
        rate: Highest learning rate of AdamW.
        falls_from: Share of the steps after which the rate falls; constant until then, so that
            a run can be made longer before.
        decay: Weight decay, of matrices and kernels only.
        clip: Largest norm of the gradient. The paper's 0.01 makes every step count alike.
        average: Decay of the running average of the weights that is kept as the result.
        lessons: Weight of the extra losses on the mask features; falls to 0 until the end.
        objective: The paper's, as a rule with fewer points for small images.
        bfloat16: Compute in bfloat16 where torch deems it safe.
        seed: Of the initial weights and the sampled points.
    """

    steps: int
    warmup: int = 300
    rate: float = 8e-4
    falls_from: float = 0.6
    decay: float = 0.05
    clip: float = 0.01
    average: float = 0.999
    lessons: float = 2.0
    objective: Objective = field(default_factory=lambda: Objective(points=1024))
    bfloat16: bool = False
    seed: int = 0

    def rate_at(self, step: int) -> float:
        """Learning rate of a step: a linear rise, a plateau, half a cosine."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        start = self.falls_from * self.steps
        fallen = max(step - start, 0) / max(self.steps - start, 1)
        return self.rate * 0.5 * (1 + math.cos(math.pi * fallen))


class Trainer:
    """A model in training.

    Args:
        config: What to train.
        recipe: How.
        batches: On what.
        folder: Where the checkpoint and the loss curve are kept; resumes what is there.
    """

    def __init__(
        self, config: ModelConfig, recipe: Recipe, batches: Batches, folder: Path
    ) -> None:
        self.recipe, self.batches, self.folder = recipe, batches, folder
        torch.manual_seed(recipe.seed)
        self.model = Mask2Former(config).train()
        self.lessons = PixelLessons(config.pixel_decoder.mask_channels, config.classes)
        self.average = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.optimizer = torch.optim.AdamW(self._groups(), lr=recipe.rate, fused=True)
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)
        if self._checkpoint.exists():
            self._resume()

    def run(
        self, *, until: int | None = None, save_every: int = 200
    ) -> Iterator[dict[str, float]]:
        """Trains, and saves now and then and at the end.

        Args:
            until: Stop before this step; default: the recipe's last.
            save_every: Steps between checkpoints.

        Yields:
            Each step's record, as in the loss curve.
        """
        last = self.recipe.steps if until is None else min(until, self.recipe.steps)
        while self.step < last:
            record = self._learn()
            self.step += 1
            with self._curve.open("a", encoding="utf-8") as curve:
                curve.write(json.dumps(record) + "\n")
            if self.step % save_every == 0 or self.step == last:
                self.save()
            yield record

    def save(self) -> None:
        """Writes the checkpoint; an old one stays until the new one is whole."""
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "lessons": self.lessons.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
        }
        draft = self._checkpoint.with_suffix(".draft")
        torch.save(state, draft)
        os.replace(draft, self._checkpoint)

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def _curve(self) -> Path:
        return self.folder / "curve.jsonl"

    def _learn(self) -> dict[str, float]:
        started = time.perf_counter()
        recipe, batch = self.recipe, self.batches(self.step)
        rate = recipe.rate_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses, lessons = self._losses(batch)
        weight = recipe.lessons * (1 - self.step / recipe.steps)
        self.optimizer.zero_grad(set_to_none=True)
        (losses.total + weight * lessons).backward()
        norm = nn.utils.clip_grad_norm_(list(self._parameters()), recipe.clip)
        self.optimizer.step()
        self._update_average()
        return {
            "step": self.step,
            "loss": round(losses.total.item(), 4),
            "classes": round(losses.classes.item(), 4),
            "mask": round(losses.mask.item(), 4),
            "dice": round(losses.dice.item(), 4),
            "lessons": round(lessons.item(), 4),
            "norm": round(float(norm), 3),
            "rate": rate,
            "seconds": round(time.perf_counter() - started, 3),
        }

    def _losses(self, batch: Batch) -> tuple[Any, Tensor]:
        images = batch.images.contiguous(memory_format=torch.channels_last)
        lower = (
            torch.autocast("cpu", torch.bfloat16)
            if self.recipe.bfloat16
            else contextlib.nullcontext()
        )
        with matrix_attention(), lower:
            output = self.model(images)
        heads = [Heads(h.class_logits.float(), h.mask_logits.float()) for h in output.heads]
        lessons = self.lessons(output.features.mask_features.float(), batch.targets)
        return criterion(heads, batch.targets, self.recipe.objective), lessons

    def _parameters(self) -> Iterator[nn.Parameter]:
        yield from self.model.parameters()
        yield from self.lessons.parameters()

    def _groups(self) -> list[dict[str, Any]]:
        """Matrices and kernels decay; biases, norms and embeddings (official rule) do not."""
        decaying: list[nn.Parameter] = []
        free: list[nn.Parameter] = []
        for module in (*self.model.modules(), *self.lessons.modules()):
            for name, parameter in module.named_parameters(recurse=False):
                keeps = parameter.ndim < 2 or name == "level_embed"
                keeps = keeps or isinstance(module, nn.Embedding)
                (free if keeps else decaying).append(parameter)
        return [
            {"params": decaying, "weight_decay": self.recipe.decay},
            {"params": free, "weight_decay": 0.0},
        ]

    @torch.no_grad()
    def _update_average(self) -> None:
        # The average is short at first, so that it does not remember the initial weights.
        share = 1 - min(self.recipe.average, (self.step + 1) / (self.step + 10))
        now = self.model.state_dict()
        torch._foreach_lerp_(list(self.average.values()), [now[k] for k in self.average], share)

    def _resume(self) -> None:
        try:
            state = torch.load(self._checkpoint, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.lessons.load_state_dict(state["lessons"])
        except (RuntimeError, KeyError) as problem:
            raise CheckpointError(
                f"{self._checkpoint} does not fit the model that is to be trained on; "
                "train in an empty folder"
            ) from problem
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        self.step = state["step"]
        lines = self._curve.read_text(encoding="utf-8").splitlines(keepends=True)
        self._curve.write_text("".join(lines[: self.step]), encoding="utf-8")
