"""Scenes as COCO files, and back: what the official evaluators and other tools read.

A folder holds `images/`, `panoptic/` (PNG; red + 256 green + 65536 blue is the segment's id)
with `panoptic.json`, `instances.json` (things only, run-length encoded), and `semantic/`
(PNG; class index, 255 is void, as detectron2's).
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco_mask  # type: ignore[import-untyped, unused-ignore]

from m2f.config import Category
from m2f.errors import MissingFile, UsageError
from m2f.train.scenes import Scene

SEMANTIC_VOID = 255


def write_coco(
    scenes: Iterable[Scene],
    folder: Path,
    categories: Sequence[Category],
    *,
    names: Sequence[str] | None = None,
) -> None:
    """Writes images and their annotations.

    Args:
        scenes: What to write; consumed one by one.
        folder: Created if need be; files of the same name are replaced.
        categories: Classes; their order gives the class indices of the semantic maps.
        names: File names without suffix; default: twelve-digit numbers, as COCO's.

    Raises:
        UsageError: A scene shows something that is not in ``categories``.
    """
    index = {category.name: i for i, category in enumerate(categories)}
    for part in ("images", "panoptic", "semantic"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    images: list[Any] = []
    panoptic: list[Any] = []
    instances: list[Any] = []
    for number, scene in enumerate(scenes, start=1):
        unknown = sorted(set(scene.names) - set(index))
        if unknown:
            raise UsageError(f"scene {number} shows {unknown}, not among the categories")
        stem = names[number - 1] if names else f"{number:012d}"
        Image.fromarray(scene.image).save(folder / "images" / f"{stem}.png")
        h, w = scene.segments.shape
        images.append({"id": number, "file_name": f"{stem}.png", "height": h, "width": w})
        kinds = [categories[index[name]] for name in scene.names]
        info = [
            _segment(i, *pair) for i, pair in enumerate(zip(kinds, scene.masks, strict=True))
        ]
        panoptic.append({"image_id": number, "file_name": f"{stem}.png", "segments_info": info})
        for segment, kind, mask in zip(info, kinds, scene.masks, strict=True):
            if kind.is_thing:
                instances.append(_instance(len(instances) + 1, number, segment, mask))
        colours = np.zeros((h, w, 3), np.uint8)
        colours[..., 0] = scene.segments
        Image.fromarray(colours).save(folder / "panoptic" / f"{stem}.png")
        lookup = [SEMANTIC_VOID, *(index[name] for name in scene.names)]
        semantic = np.array(lookup, np.uint8)[scene.segments]
        Image.fromarray(semantic).save(folder / "semantic" / f"{stem}.png")
    listed = [_category(category) for category in categories]
    _write(folder / "panoptic.json", images, panoptic, listed)
    things = [entry for entry in listed if entry["isthing"]]
    _write(folder / "instances.json", images, instances, things)


def read_panoptic(folder: Path) -> dict[str, Scene]:
    """Reads what `write_coco` wrote, by file name without suffix.

    Raises:
        MissingFile: There is no panoptic.json.
    """
    index = folder / "panoptic.json"
    if not index.is_file():
        raise MissingFile(f"{index} does not exist; name a folder in COCO's panoptic format")
    record = json.loads(index.read_text(encoding="utf-8"))
    names = {entry["id"]: entry["name"] for entry in record["categories"]}
    files = {entry["id"]: entry["file_name"] for entry in record["images"]}
    scenes = {}
    for annotation in record["annotations"]:
        file = files[annotation["image_id"]]
        with Image.open(folder / "images" / file) as picture:
            image = np.asarray(picture.convert("RGB"))
        with Image.open(folder / "panoptic" / annotation["file_name"]) as picture:
            ids = np.asarray(picture.convert("RGB")).astype(np.int64) @ [1, 256, 65536]
        segments = np.zeros(ids.shape, np.uint8)
        for number, info in enumerate(annotation["segments_info"], start=1):
            segments[ids == info["id"]] = number
        kinds = [names[info["category_id"]] for info in annotation["segments_info"]]
        scenes[Path(file).stem] = Scene(image, segments, kinds)
    return scenes


def _segment(index: int, kind: Category, mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = int(rows[0]), int(columns[0])
    return {
        "id": index + 1,
        "category_id": kind.id,
        "area": int(mask.sum()),
        "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
        "iscrowd": 0,
    }


def _instance(
    number: int, image: int, segment: dict[str, Any], mask: npt.NDArray[np.bool_]
) -> dict[str, Any]:
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    shape = {"size": list(code["size"]), "counts": code["counts"].decode("ascii")}
    return {**segment, "id": number, "image_id": image, "segmentation": shape}


def _category(category: Category) -> dict[str, Any]:
    return {
        "id": category.id,
        "name": category.name,
        "isthing": int(category.is_thing),
        "color": list(category.colour),
        "supercategory": "thing" if category.is_thing else "stuff",
    }


def _write(
    path: Path, images: list[Any], annotations: list[Any], categories: list[Any]
) -> None:
    record = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(record, indent=1), encoding="utf-8")
