"""The training loop: one step after another, resumable to the bit.

What a step sees is a function of its number alone, so a run that was cut short goes on as if
nothing had happened: the checkpoint holds the weights, the optimizer and torch's generator.
"""

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from m2f.bundle import disk_errors
from m2f.config import ModelConfig
from m2f.errors import CheckFailed, CheckpointError, UsageError
from m2f.files import replacing
from m2f.models.criterion import Losses, criterion
from m2f.models.mask2former import Mask2Former, model_from_weights
from m2f.models.matcher import Objective, Target
from m2f.models.resnet import BatchNorm2d
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

Prepare = Callable[[Mask2Former], None]
"""Changes a model before it is trained, e.g. makes it compute as if quantised. The weights
must keep their names; parameters that it adds are trained and kept in the checkpoint."""

CHECKPOINT = "checkpoint.pt"
CURVE = "curve.jsonl"

_MATRIX_TOKENS = 1500
"""Most tokens per image (256 x 256 pixels have 1,344) for which deformable attention blends by
matrix: beyond, its memory, the square of them for each head, outweighs its speed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to train.

    Attributes:
        steps: Of the whole run; the learning rate ends at 0 there.
        warmup: Steps in which the learning rate rises.
        rate: Highest learning rate of AdamW.
        backbone_rate: The backbone's, as a share of it; 0 freezes the backbone.
        schedule: "plateau": constant, then half a cosine; a run can be made longer before it
            falls. "poly": (1 - step / steps)^0.9, the official code's.
        falls_from: Share of the steps after which a plateau ends.
        decay: Weight decay, of matrices and kernels only.
        clip: Largest norm of the gradient. The paper's 0.01 makes every step count alike.
        average: Decay of the running average of the weights that is kept as the result; 0
            keeps the weights themselves.
        lessons: Weight of the extra losses on the mask features; falls to 0 until the end.
        frozen_norm: Batch normalisations keep their statistics, weights and biases, as the
            official code's do; small batches would only spoil them.
        objective: The paper's, as a rule with fewer points for small images.
        bfloat16: Compute in bfloat16 where torch deems it safe.
        seed: Of the initial weights and the sampled points.
    """

    steps: int
    warmup: int = 300
    rate: float = 8e-4
    backbone_rate: float = 1.0
    schedule: Literal["plateau", "poly"] = "plateau"
    falls_from: float = 0.6
    decay: float = 0.05
    clip: float = 0.01
    average: float = 0.999
    lessons: float = 2.0
    frozen_norm: bool = False
    objective: Objective = field(default_factory=lambda: Objective(points=1024))
    bfloat16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.rate > 0:
            raise UsageError(
                "training needs at least one step and a learning rate above 0, got "
                f"{self.steps} and {self.rate}"
            )

    def rate_at(self, step: int) -> float:
        """Learning rate of a step: a linear rise, then the schedule."""
        rise = min((step + 1) / self.warmup, 1.0) if self.warmup else 1.0
        if self.schedule == "poly":
            return float(self.rate * rise * (1 - step / self.steps) ** 0.9)
        if step < self.warmup:
            return self.rate * rise
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
        weights: To start from, by our names; default: fresh ones.
        prepare: Changes the model before its optimizer is made.
        about: JSON values; all that the result depends on. A checkpoint with others is not
            resumed.

    Raises:
        CheckpointError: The folder's checkpoint is damaged, or of another model.
        UsageError: It is of a run with other settings.
        DiskError: The folder cannot be written to.
    """

    def __init__(
        self,
        config: ModelConfig,
        recipe: Recipe,
        batches: Batches,
        folder: Path,
        *,
        weights: Mapping[str, NDArray[Any]] | None = None,
        prepare: Prepare | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.recipe, self.batches, self.folder = recipe, batches, folder
        self.about = json.loads(json.dumps(about))
        torch.manual_seed(recipe.seed)
        self.model = model_from_weights(config, weights) if weights else Mask2Former(config)
        if prepare is not None:
            prepare(self.model)
        self._freeze()
        channels = config.pixel_decoder.mask_channels
        self.lessons = PixelLessons(channels, config.classes) if recipe.lessons else None
        kept = self.model.state_dict() if recipe.average else {}
        self.average = {k: v.clone() for k, v in kept.items()}
        self.optimizer = torch.optim.AdamW(self._groups(), lr=recipe.rate, fused=True)
        self.step = 0
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if not self._checkpoint.exists():  # the curve is of a run that had no time to save
                self._curve.unlink(missing_ok=True)
        if self._checkpoint.exists():
            self._resume()

    @property
    def result(self) -> dict[str, NDArray[np.float32]]:
        """The weights that training is for, by our names."""
        state = self.average or self.model.state_dict()
        return {name: tensor.float().numpy().copy() for name, tensor in state.items()}

    def run(
        self, *, until: int | None = None, save_every: int = 200
    ) -> Iterator[dict[str, float]]:
        """Trains, and saves now and then, at the end, and if a batch cannot be had.

        Args:
            until: Stop before this step; default: the recipe's last.
            save_every: Steps between checkpoints.

        Yields:
            Each step's record, as in the loss curve. Between two of them the run may be
            saved, or left for good.

        Raises:
            CheckFailed: The loss is not a number any more.
            M2FError: Whatever is wrong with a batch.
        """
        last = self.recipe.steps if until is None else min(until, self.recipe.steps)
        while self.step < last:
            try:
                batch = self.batches(self.step)
            except Exception:
                if self.step:
                    self.save()
                raise
            record = self._learn(batch)
            self.step += 1
            with disk_errors(self._curve), self._curve.open("a", encoding="utf-8") as curve:
                curve.write(json.dumps(record) + "\n")
            if self.step % save_every == 0 or self.step == last:
                self.save()
            yield record

    def save(self) -> None:
        """Writes the checkpoint; an old one stays until the new one is whole."""
        state = {
            "step": self.step,
            "about": self.about,
            "model": self.model.state_dict(),
            "lessons": self.lessons.state_dict() if self.lessons else {},
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
        }
        with replacing(self._checkpoint) as stream:
            torch.save(state, stream)

    @property
    def _checkpoint(self) -> Path:
        return self.folder / CHECKPOINT

    @property
    def _curve(self) -> Path:
        return self.folder / CURVE

    def _learn(self, batch: Batch) -> dict[str, float]:
        started = time.perf_counter()
        recipe = self.recipe
        rate = recipe.rate_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)
        losses, lessons = self._losses(batch)
        weight = recipe.lessons * (1 - self.step / recipe.steps)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(losses.total + weight * lessons)
        norm = float(nn.utils.clip_grad_norm_(list(self._parameters()), recipe.clip))
        if not math.isfinite(norm):
            raise CheckFailed(
                f"step {self.step}: the loss is {losses.total.item():g} and its gradient "
                f"{norm:g}, so nothing can be learnt from them; go on from the last checkpoint "
                f"or start again with a learning rate below {recipe.rate:g}"
            )
        self.optimizer.step()
        if self.average:
            self._update_average()
        return {
            "step": self.step,
            "loss": round(losses.total.item(), 4),
            "classes": round(losses.classes.item(), 4),
            "mask": round(losses.mask.item(), 4),
            "dice": round(losses.dice.item(), 4),
            "lessons": round(lessons.item(), 4),
            "norm": round(norm, 3),
            "rate": rate,
            "seconds": round(time.perf_counter() - started, 3),
        }

    def _losses(self, batch: Batch) -> tuple[Losses, Tensor]:
        images = batch.images.contiguous(memory_format=torch.channels_last)
        with contextlib.ExitStack() as stack:
            tokens = sum(images[0, 0].numel() >> 2 * shift for shift in (3, 4, 5))
            if tokens <= _MATRIX_TOKENS:
                stack.enter_context(matrix_attention())
            if self.recipe.bfloat16:
                stack.enter_context(torch.autocast("cpu", torch.bfloat16))
            output = self.model(images)
        heads = [Heads(h.class_logits.float(), h.mask_logits.float()) for h in output.heads]
        losses = criterion(heads, batch.targets, self.recipe.objective)
        if self.lessons is None:
            return losses, losses.total.new_zeros(())
        return losses, self.lessons(output.features.mask_features.float(), batch.targets)

    def _freeze(self) -> None:
        self.model.train()
        frozen: list[nn.Module] = []
        if self.recipe.frozen_norm:
            frozen += [m for m in self.model.modules() if isinstance(m, BatchNorm2d)]
        if not self.recipe.backbone_rate:
            frozen.append(self.model.backbone)
        for module in frozen:
            module.eval().requires_grad_(False)

    def _modules(self) -> Iterator[tuple[str, nn.Module]]:
        yield from self.model.named_modules()
        if self.lessons is not None:
            yield from self.lessons.named_modules()

    def _parameters(self) -> Iterator[nn.Parameter]:
        for _, module in self._modules():
            yield from module.parameters(recurse=False)

    def _groups(self) -> list[dict[str, Any]]:
        """What decays and what does not; the backbone's apart if it has a rate of its own.

        Matrices and kernels decay; biases, norms and embeddings do not.
        """
        share = self.recipe.backbone_rate
        shares = (1.0,) if share in (0.0, 1.0) else (1.0, share)
        groups: list[dict[str, Any]] = [
            {"params": [], "weight_decay": decay, "share": share}
            for share in shares
            for decay in (self.recipe.decay, 0.0)
        ]
        for path, module in self._modules():
            own = 2 * (len(shares) - 1) * path.startswith("backbone.")
            for name, parameter in module.named_parameters(recurse=False):
                free = parameter.ndim < 2 or isinstance(module, nn.Embedding)
                free = free or name in ("level_embed", "relative_position_bias_table")
                if parameter.requires_grad:
                    groups[own + free]["params"].append(parameter)
        return [group for group in groups if group["params"]]

    @torch.no_grad()
    def _update_average(self) -> None:
        # The average is short at first, so that it does not remember the initial weights.
        share = 1 - min(self.recipe.average, (self.step + 1) / (self.step + 10))
        now = self.model.state_dict()
        torch._foreach_lerp_(list(self.average.values()), [now[k] for k in self.average], share)

    def _resume(self) -> None:
        try:
            state = torch.load(self._checkpoint, weights_only=True)
            self._check_settings(state.get("about"))
            self.model.load_state_dict(state["model"])
            if self.lessons is not None:
                self.lessons.load_state_dict(state["lessons"])
            self.average = state["average"]
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, KeyError, ValueError, EOFError, UnpicklingError) as problem:
            raise CheckpointError(
                f"{self._checkpoint} is damaged, or does not fit the model that is to be "
                "trained on; train in an empty folder"
            ) from problem
        torch.set_rng_state(state["random"])
        self.step = state["step"]
        lines = []
        if self._curve.exists():
            lines = self._curve.read_text(encoding="utf-8").splitlines(keepends=True)
        self._curve.write_text("".join(lines[: self.step]), encoding="utf-8")

    def _check_settings(self, about: Mapping[str, Any] | None) -> None:
        if about is None or self.about is None:
            return
        differences = [
            f"{name} was {about.get(name)!r} and is {self.about.get(name)!r}"
            for name in sorted({*about, *self.about})
            if about.get(name) != self.about.get(name)
        ]
        if differences:
            raise UsageError(
                f"{self.folder} holds a run with other settings: {', '.join(differences)}; "
                "pass the same ones to go on, or name another folder"
            )
