"""PQ of the cases by the official panopticapi, and the record of what it said.

Made with panopticapi-lite 0.2.0 (evaluation.py of cocodataset/panopticapi, unchanged; its pin
of NumPy is out of date, hence --no-deps):

    pip install --no-deps panopticapi-lite
    python -m tests.evaluate.official_pq
"""

import json
import tempfile
from pathlib import Path

from tests.evaluate.cases import CASES, digest
from tests.evaluate.made import CATEGORIES, listed, write_png

RECORD = Path(__file__).with_name("official_pq.json")


def run(cases, folder):
    """Tallies per case and category, [IoU, TP, FP, FN], and averages over all cases."""
    from panopticapi.evaluation import PQStat, pq_compute_single_core

    categories = {entry["id"]: entry for entry in listed()}
    whole, single = PQStat(), {}
    for number, (name, (true, truth, predicted, segments)) in enumerate(cases.items()):
        stat = pq_compute_single_core(
            0,
            [_files(folder, number, true, truth, predicted, segments)],
            str(folder),
            str(folder),
            categories,
        )
        single[name] = {
            str(c.id): [float(one.iou), int(one.tp), int(one.fp), int(one.fn)]
            for c in CATEGORIES
            if (one := stat[c.id]).tp + one.fp + one.fn
        }
        whole += stat
    averages = {
        suffix: whole.pq_average(categories, isthing=kind)[0]
        for suffix, kind in (("", None), ("_things", True), ("_stuff", False))
    }
    return single, averages


def _files(folder, number, true, truth, predicted, segments):
    write_png(folder / f"{number}_true.png", true)
    write_png(folder / f"{number}_predicted.png", predicted)
    infos = [
        {"id": k, "category_id": c, "iscrowd": int(crowd), "area": int((true == k).sum())}
        for k, (c, crowd) in truth.items()
    ]
    found = [{"id": k, "category_id": c} for k, c in segments.items()]
    return (
        {"image_id": number, "file_name": f"{number}_true.png", "segments_info": infos},
        {"image_id": number, "file_name": f"{number}_predicted.png", "segments_info": found},
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        single, averages = run(CASES, Path(place))
    record = {
        "averages": averages,
        "cases": {n: {"digest": digest(CASES[n]), "classes": t} for n, t in single.items()},
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
