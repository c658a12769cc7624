"""Average precision of instances, of masks and of their boundaries, by COCO's evaluation.

pycocotools does all matching and averaging. It is only driven image by image, so that a run
can stop and go on: what it found in an image is kept in a few numbers per detection, and put
together again at the end.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco  # type: ignore[import-untyped, unused-ignore]
from pycocotools.cocoeval import COCOeval  # type: ignore[import-untyped, unused-ignore]

from m2f.evaluate.boundary import boundary
from m2f.evaluate.mapping import CategoryMap
from m2f.evaluate.metric import ClassScore, Record, Scores, Value, percent
from m2f.evaluate.truth import InstanceTruth, Truth
from m2f.runtime.masks import Mask
from m2f.runtime.results import Prediction

_NAMES: tuple[str, ...] = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_NAMES += ("AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""COCOeval.stats, in its order; s, m and l are areas below 32^2, below 96^2, and above."""


class AveragePrecision:
    """COCO's twelve figures, of masks and of boundaries."""

    def __init__(self, categories: CategoryMap, *, boundaries: bool = True) -> None:
        """For predictions of a model whose categories are matched so.

        Args:
            categories: The match.
            boundaries: Form boundary AP, too.
        """
        self._categories = categories.categories
        self._data_index = categories.data_index
        self._kinds = ("segm", "boundary") if boundaries else ("segm",)

    def measure(self, truth: Truth, prediction: Prediction) -> Record:
        """Compares one image; its score is its own AP of masks."""
        assert isinstance(truth, InstanceTruth)
        # COCOeval takes an id of 0 for "unmatched"; annotation ids of data sets may be 0.
        objects = [
            _entry(i, o.category_id, o.rle, o.area, iscrowd=int(o.is_crowd), ignore=o.is_crowd)
            for i, o in enumerate(truth.objects, 1)
        ]
        found, rims = self._detections(prediction)
        record: Record = {"segm": _matches(objects, found)}
        if "boundary" in self._kinds:
            outlined = [
                {**o, "segmentation": encode(boundary(coco.decode(o["segmentation"]) > 0))}
                for o in objects
            ]
            record["boundary"] = _matches(objects, found, rims=(outlined, rims))
        record["score"] = self._image_score(record)
        return record

    def summarise(self, records: Iterable[Record]) -> Scores:
        """Puts the images' matches together and averages."""
        records = list(records)
        ids = [c.id for c in self._categories]
        metrics: dict[str, Value] = {}
        classes: list[dict[str, Value]] = [{} for _ in ids]
        for kind in self._kinds:
            prefix = "" if kind == "segm" else f"{kind}_"
            evaluation = _accumulated([r[kind] for r in records], ids)
            with _silent():
                evaluation.summarize()
            for name, value in zip(_NAMES, evaluation.stats, strict=True):
                metrics[prefix + name] = _known(value)
            # precision: [threshold, recall, category, area range, detections]
            precision = evaluation.eval["precision"][:, :, :, 0, -1]
            for values, curves in zip(classes, np.moveaxis(precision, 2, 0), strict=True):
                values[f"{prefix}AP"] = _average(curves)
                values[f"{prefix}AP50"] = _average(curves[0])
        metrics["categories"] = sum(values["AP"] is not None for values in classes)
        return Scores(
            metrics=metrics,
            classes=tuple(
                ClassScore(category=c, values=values)
                for c, values in zip(self._categories, classes, strict=True)
            ),
        )

    def _detections(
        self, prediction: Prediction
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Detections of categories that the data set has, and the same as boundaries."""
        found, rims = [], []
        for i, segment in enumerate(prediction.segments):
            index = int(self._data_index[segment.label])
            if index < 0:
                continue
            mask = prediction.mask(i)
            score = 0.0 if segment.score is None else segment.score
            category = self._categories[index].id
            entry = _entry(i + 1, category, encode(mask), segment.area, score=score)
            found.append(entry)
            if "boundary" in self._kinds:
                rims.append({**entry, "segmentation": encode(boundary(mask))})
        return found, rims

    def _image_score(self, record: Record) -> float | None:
        """AP over all sizes; None without any object that counts."""
        ids = [int(c) for c in record["segm"]]
        if not ids:
            return None
        evaluation = _accumulated([record["segm"]], ids, whole=False)
        return _average(evaluation.eval["precision"])


def encode(mask: Mask) -> dict[str, Any]:
    """COCO's compressed run lengths of a mask, bool [H, W]."""
    rle: dict[str, Any] = coco.encode(np.asfortranarray(mask, np.uint8))
    return rle


def _entry(
    number: int, category: int, rle: dict[str, Any], area: float, **more: Any
) -> dict[str, Any]:
    common = {"id": number, "category_id": category, "segmentation": rle, "area": area}
    return {**common, **more}


def _matches(
    objects: Sequence[dict[str, Any]],
    found: Sequence[dict[str, Any]],
    *,
    rims: tuple[Sequence[dict[str, Any]], Sequence[dict[str, Any]]] | None = None,
) -> dict[str, Any]:
    """What COCOeval finds in one image, by category.

    Args:
        objects: Ground truth.
        found: Detections.
        rims: Both again as boundaries, in the same order.

    Returns:
        By category id, "scores" of the detections by descending score, and for each area range
        [objects that count, a number per detection whose bit t says that it matches at
        threshold t, another that says that it is ignored there].
    """
    evaluation = _prepared(objects, found)
    outlines = None if rims is None else _prepared(*rims)
    limit = evaluation.params.maxDets[-1]
    result: dict[str, Any] = {}
    for category in sorted({e["category_id"] for e in (*objects, *found)}):
        ious = evaluation.computeIoU(0, category)
        if outlines is not None and len(ious):
            solid = [not o["iscrowd"] for o in objects if o["category_id"] == category]
            lower = np.minimum(ious, outlines.computeIoU(0, category))
            ious = np.where(solid, lower, ious)
        evaluation.ious = {(0, category): ious}
        ranges = [
            evaluation.evaluateImg(0, category, area, limit)
            for area in evaluation.params.areaRng
        ]
        result[str(category)] = {
            "scores": [float(score) for score in ranges[0]["dtScores"]],
            "areas": [
                [
                    int(np.count_nonzero(np.asarray(one["gtIgnore"]) == 0)),
                    _bits(one["dtMatches"] != 0),
                    _bits(one["dtIgnore"] != 0),
                ]
                for one in ranges
            ],
        }
    return result


def _prepared(objects: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> Any:
    """A COCOeval of one image, number 0, that has read its entries."""
    evaluation = COCOeval(iouType="segm")
    for entry in objects:
        evaluation._gts[0, entry["category_id"]].append(dict(entry))
    for entry in found:
        evaluation._dts[0, entry["category_id"]].append(dict(entry))
    return evaluation


def _accumulated(
    images: Sequence[dict[str, Any]], ids: Sequence[int], *, whole: bool = True
) -> Any:
    """A COCOeval that has averaged over images.

    Args:
        images: What `_matches` gave for each.
        ids: Categories.
        whole: All area ranges and numbers of detections; else only the widest.
    """
    evaluation = COCOeval(iouType="segm")
    params = evaluation.params
    params.catIds, params.imgIds = list(ids), list(range(len(images)))
    if not whole:
        params.areaRng, params.maxDets = params.areaRng[:1], params.maxDets[-1:]
    evaluation._paramsEval = copy.deepcopy(params)
    thresholds = len(params.iouThrs)
    evaluation.evalImgs = [
        _unpacked(image.get(str(category)), area, thresholds)
        for category in ids
        for area in range(len(params.areaRng))
        for image in images
    ]
    with _silent():
        evaluation.accumulate()
    return evaluation


def _unpacked(entry: Any, area: int, thresholds: int) -> dict[str, Any] | None:
    if entry is None:
        return None
    counted, matches, ignored = entry["areas"][area]
    return {
        "dtScores": np.asarray(entry["scores"], float),
        "dtMatches": _from_bits(matches, thresholds),
        "dtIgnore": _from_bits(ignored, thresholds),
        "gtIgnore": np.zeros(counted, int),
    }


def _bits(flags: NDArray[np.bool_]) -> list[int]:
    """[T, D] flags as one number per detection."""
    weights = 1 << np.arange(len(flags), dtype=np.int64)
    numbers: list[int] = (weights @ flags).tolist()
    return numbers


def _from_bits(numbers: list[int], thresholds: int) -> NDArray[np.bool_]:
    bits = np.asarray(numbers, np.int64)[None] >> np.arange(thresholds)[:, None] & 1
    return bits.astype(np.bool_)


def _average(precision: NDArray[np.float64]) -> float | None:
    """Of what is not -1, which stands for "no object"."""
    known = precision[precision > -1]
    return percent(known.mean()) if known.size else None


def _known(value: float) -> float | None:
    return None if value < 0 else percent(value)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """COCOeval prints as it goes."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
