"""From a training run to the folder that is shipped: models/sample/."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from m2f.models.checkpoint import write_hf
from m2f.models.mask2former import Mask2Former
from m2f.train import photographs, sample, scenes
from m2f.train.evaluate_sample import SCENES, SIZE, evaluate, model_from_training
from m2f.train.run import read_curve
from m2f.train.trainer import CURVE

DRAWN = (1015, 1018, 1019)
"""Held-out scenes shipped as pictures, beyond those that quality is measured on."""
DRAWN_SIZE = (240, 320)

_README = """\
# The sample model

A Mask2Former of {millions:.1f} million parameters, so that the demo, the tests and you have a
trained model at hand. It knows the {scene_classes} classes of the drawn scenes of
`m2f.train.scenes`, and what is to be seen on six photographs: {classes} classes together.

**It has seen the photographs in this folder in training**; on them it shows that the program
works, not how well Mask2Former segments. The drawn scenes (scene-*.jpg, and those measured
below) it has not seen. On photographs of your own it is of no use.

Panoptic quality on {count} held-out scenes of {size[0]} x {size[1]} pixels, class threshold
{threshold}, weights in half precision as shipped:

| | PQ | SQ | RQ |
|---|---|---|---|
{quality}

PQ per class: {per_class}.

Surfaces are nearly always right. Of the things it finds about half: 88 % of those above 1,024
pixels, 62 % down to 256, 44 % down to 100, and 19 % of the smaller ones. Crowds, what is hidden
or cut off, and now and then something large are missed.

Made from nothing (no pretrained weights) with `m2f.train`, {steps} steps of {batch} images on
one CPU core; see train/README.md. Authors and terms of the photographs, all in the public
domain: train/photographs/README.md. Format: Hugging Face,
`Mask2FormerForUniversalSegmentation`.
"""


def publish(training: Path, folder: Path, *, count: int = SCENES) -> dict[str, Any]:
    """Writes the sample model with its pictures and a README that says how good it is.

    Args:
        training: Folder of a training run.
        folder: Must not exist yet, or be empty.
        count: How many held-out scenes to measure on.

    Returns:
        What `evaluate` measured, of the weights as written.
    """
    model = in_half_precision(model_from_training(training))
    steps = len(read_curve(training / CURVE))
    report = evaluate(model, count=count)
    weights = {k: v.numpy().astype(np.float16) for k, v in model.state_dict().items()}
    write_hf(weights, sample.CONFIG, sample.METADATA, folder)
    for path in sorted((photographs.FOLDER / "images").iterdir()):
        shutil.copyfile(path, folder / path.name)
    for number, index in enumerate(DRAWN, start=1):
        drawn = scenes.scene(sample.held_out_seed(index), DRAWN_SIZE)
        Image.fromarray(drawn.image).save(folder / f"scene-{number}.jpg", quality=92)
    (folder / "README.md").write_text(_readme(model, report, steps, count), encoding="utf-8")
    return report


def in_half_precision(model: Mask2Former) -> Mask2Former:
    """Rounds all weights to float16, in place; they stay float32 tensors."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(tensor.half().float())
    return model


def _readme(model: Mask2Former, report: dict[str, Any], steps: int, count: int) -> str:
    rows = [
        f"| {kind} | {values['PQ']} | {values['SQ']} | {values['RQ']} |"
        for kind, values in report.items()
        if kind != "per_class"
    ]
    return _README.format(
        millions=sum(p.numel() for p in model.parameters()) / 1e6,
        scene_classes=len(scenes.CATEGORIES),
        classes=len(sample.CATEGORIES),
        count=count,
        size=SIZE,
        threshold=sample.METADATA.postprocess.object_mask_threshold,
        quality="\n".join(rows),
        per_class=", ".join(f"{k} {v}" for k, v in report["per_class"].items()),
        steps=steps,
        batch=sample.BATCH,
    )
