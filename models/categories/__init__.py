"""The classes of the data sets that published Mask2Former models are trained on.

One text file per data set beside this module; a row is ``id colour kind name``, and the
rows stand in the order of the classes of the official checkpoints. Sources of the facts:

* coco: detectron2, ``data/datasets/builtin_meta.py`` (panopticapi's categories);
* cityscapes: the same file (labels.py of cityscapesScripts);
* ade20k: Mask2Former, ``data/datasets/register_ade20k_panoptic.py``;
* mapillary: Mask2Former, ``data/datasets/register_mapillary_vistas_panoptic.py``
  (Vistas v1.2 without its last class, "Unlabeled", which is not evaluated).
"""

from __future__ import annotations

import dataclasses
from importlib import resources

from m2f.config import Category


def _read(name: str) -> tuple[Category, ...]:
    text = resources.files(__name__).joinpath(f"{name}.txt").read_text("utf-8")
    return tuple(_parse(line) for line in text.splitlines() if not line.startswith("#"))


def _parse(line: str) -> Category:
    number, colour, kind, name = line.split(" ", 3)
    red, green, blue = bytes.fromhex(colour)
    return Category(
        id=int(number), name=name, colour=(red, green, blue), is_thing=kind == "thing"
    )


def _things(categories: tuple[Category, ...]) -> tuple[Category, ...]:
    return tuple(c for c in categories if c.is_thing)


COCO_PANOPTIC = _read("coco")
"""80 things, then 53 stuff classes; ids 1..200 with gaps."""

COCO_INSTANCE = _things(COCO_PANOPTIC)
"""The 80 things; ids 1..90 with gaps."""

ADE20K = _read("ade20k")
"""150 classes, things and stuff mixed; ids 0..149, one less than in the challenge's files.

Two of them, "road, route" and "skyscraper", share a colour, as published.
"""

ADE20K_INSTANCE = _things(ADE20K)
"""The 100 things, by the names and ids that they have among the 150."""

CITYSCAPES = _read("cityscapes")
"""19 classes in the order of trainId; ids are labelIds (7, 8, 11...), as in result files."""

CITYSCAPES_INSTANCE = _things(CITYSCAPES)
"""The 8 things."""

MAPILLARY_PANOPTIC = _read("mapillary")
"""65 classes; ids 1..65, as in Vistas' panoptic annotations."""

MAPILLARY_SEMANTIC = tuple(
    dataclasses.replace(c, id=i) for i, c in enumerate(MAPILLARY_PANOPTIC)
)
"""The same classes; ids 0..64, the pixel values of Vistas' label images."""


def categories_generic(count: int) -> tuple[Category, ...]:
    """Categories for a data set of which only the number of classes is known.

    Args:
        count: K, at most 2**24 - 1.

    Returns:
        "class 0", "class 1"..., all of them things (so that nothing gets merged), each with
        a colour of its own, always the same.
    """
    return tuple(
        Category(id=i, name=f"class {i}", colour=_colour(i + 1), is_thing=True)
        for i in range(count)
    )


def _colour(index: int) -> tuple[int, int, int]:
    """Deals the bits of ``index`` out to red, green, blue, each from its highest bit down.

    One to one, so no two colours are equal, and neighbours differ strongly; PASCAL VOC
    colours its classes the same way. Index 0 is black.
    """
    red = green = blue = 0
    for bit in range(7, -1, -1):
        red |= (index & 1) << bit
        green |= (index >> 1 & 1) << bit
        blue |= (index >> 2 & 1) << bit
        index >>= 3
    return red, green, blue
