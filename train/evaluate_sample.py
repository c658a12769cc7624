"""How good the sample model is on drawn scenes it has never seen."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from m2f.config import Metadata, Postprocess
from m2f.models.mask2former import Mask2Former
from m2f.runtime.backend_torch import TorchBackend
from m2f.runtime.logits import Frame
from m2f.runtime.postprocess import segment
from m2f.runtime.preprocess import assemble, prepare
from m2f.runtime.results import Prediction
from m2f.train import sample, scenes
from m2f.train.quality import PanopticQuality
from m2f.train.scenes import Scene

SIZE = (160, 160)
SCENES = 200


def held_out(count: int = SCENES) -> Iterator[Scene]:
    """The scenes that results are quoted for."""
    return (scenes.scene(sample.held_out_seed(i), SIZE) for i in range(count))


def model_from_training(folder: Path) -> Mask2Former:
    """The averaged weights of a training run."""
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    model = Mask2Former(sample.CONFIG)
    model.load_state_dict(state["average"])
    return model


def predict(model: Mask2Former, image: np.ndarray[Any, Any], metadata: Metadata) -> Prediction:
    """Segments one image, uint8 [H, W, 3], as a session would."""
    prepared = prepare(image, metadata.preprocess)
    pixels, sizes = assemble([prepared])
    with TorchBackend(model, metadata.preprocess) as backend:
        class_logits, mask_logits = backend.run(pixels, sizes)
    h, w = mask_logits.shape[2:]
    frame = Frame(padded=(4 * h, 4 * w), valid=prepared.size, output=prepared.original)
    return segment(
        class_logits[0],
        mask_logits[0],
        frame,
        task="panoptic",
        rules=metadata.postprocess,
        categories=metadata.categories,
    )


def evaluate(
    model: Mask2Former,
    *,
    count: int = SCENES,
    threshold: float = sample.METADATA.postprocess.object_mask_threshold,
) -> dict[str, Any]:
    """Measures panoptic quality on held-out scenes.

    Args:
        model: With the sample model's classes.
        count: How many scenes.
        threshold: Least class probability of a segment.

    Returns:
        Per cent: "PQ", "SQ", "RQ" over all classes of the scenes, the same over "things" and
        "stuff", and PQ "per_class".
    """
    rules: Postprocess = dataclasses.replace(
        sample.METADATA.postprocess, object_mask_threshold=threshold
    )
    metadata = dataclasses.replace(sample.METADATA, postprocess=rules)
    index = {category.name: i for i, category in enumerate(sample.CATEGORIES)}
    quality = PanopticQuality(len(sample.CATEGORIES))
    for truth in held_out(count):
        found = predict(model, truth.image, metadata)
        labels = {s.id: s.label for s in found.segments}
        known = {i: index[name] for i, name in enumerate(truth.names, start=1)}
        quality.add(found.segment_ids, labels, truth.segments, known)
    return _report(quality)


def _report(quality: PanopticQuality) -> dict[str, Any]:
    kinds = {
        "all": [i for i, _ in enumerate(scenes.CATEGORIES)],
        "things": [i for i, c in enumerate(scenes.CATEGORIES) if c.is_thing],
        "stuff": [i for i, c in enumerate(scenes.CATEGORIES) if not c.is_thing],
    }
    report: dict[str, Any] = {}
    for name, classes in kinds.items():
        mean = quality.mean(classes)
        report[name] = {
            "PQ": round(100 * mean.pq, 1),
            "SQ": round(100 * mean.sq, 1),
            "RQ": round(100 * mean.rq, 1),
        }
    report["per_class"] = {
        category.name: round(100 * one.pq, 1)
        for i, category in enumerate(sample.CATEGORIES)
        if (one := quality.of_class(i)) is not None
    }
    return report
