import pytest

from m2f.models import categories
from m2f.models.categories import (
    ADE20K,
    ADE20K_INSTANCE,
    CITYSCAPES,
    CITYSCAPES_INSTANCE,
    COCO_INSTANCE,
    COCO_PANOPTIC,
    MAPILLARY_PANOPTIC,
    MAPILLARY_SEMANTIC,
    categories_generic,
)

TABLES = {name: table for name, table in vars(categories).items() if isinstance(table, tuple)}


@pytest.mark.parametrize(
    ("table", "things", "stuff"),
    [
        (COCO_PANOPTIC, 80, 53),
        (COCO_INSTANCE, 80, 0),
        (ADE20K, 100, 50),
        (ADE20K_INSTANCE, 100, 0),
        (CITYSCAPES, 8, 11),
        (CITYSCAPES_INSTANCE, 8, 0),
        (MAPILLARY_PANOPTIC, 37, 28),
        (MAPILLARY_SEMANTIC, 37, 28),
    ],
)
def test_counts_of_things_and_stuff(table, things, stuff):
    assert sum(c.is_thing for c in table) == things
    assert sum(not c.is_thing for c in table) == stuff


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_ids_and_names_are_unique_and_ids_ascend(table):
    ids = [c.id for c in table]
    assert ids == sorted(set(ids))
    names = [c.name for c in table]
    assert len(set(names)) == len(names)
    assert all(name == name.strip() and name for name in names)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_colours_are_unique_but_for_the_published_pair(table):
    twins = {c.name for c in table for d in table if c.id != d.id and c.colour == d.colour}
    assert twins == ({"road, route", "skyscraper"} if table is ADE20K else set())


@pytest.mark.parametrize(
    ("table", "index", "expected"),
    [
        (COCO_PANOPTIC, 0, (1, "person", (220, 20, 60), True)),
        (COCO_PANOPTIC, 11, (13, "stop sign", (220, 220, 0), True)),
        (COCO_PANOPTIC, 79, (90, "toothbrush", (191, 162, 208), True)),
        (COCO_PANOPTIC, 80, (92, "banner", (255, 255, 128), False)),
        (COCO_PANOPTIC, 132, (200, "rug-merged", (250, 141, 255), False)),
        (ADE20K, 2, (2, "sky", (6, 230, 230), False)),
        (ADE20K, 12, (12, "person", (150, 5, 61), True)),
        (ADE20K, 149, (149, "flag", (92, 0, 255), True)),
        (ADE20K_INSTANCE, 0, (7, "bed", (204, 5, 255), True)),
        (CITYSCAPES, 0, (7, "road", (128, 64, 128), False)),
        (CITYSCAPES, 18, (33, "bicycle", (119, 11, 32), True)),
        (CITYSCAPES_INSTANCE, 2, (26, "car", (0, 0, 142), True)),
        (MAPILLARY_PANOPTIC, 0, (1, "Bird", (165, 42, 42), True)),
        (MAPILLARY_PANOPTIC, 13, (14, "Road", (128, 64, 128), False)),
        (MAPILLARY_SEMANTIC, 19, (19, "Person", (220, 20, 60), True)),
        (MAPILLARY_SEMANTIC, 64, (64, "Ego Vehicle", (120, 10, 10), False)),
    ],
)
def test_spot_values(table, index, expected):
    c = table[index]
    assert (c.id, c.name, c.colour, c.is_thing) == expected


def test_coco_things_come_first():
    flags = [c.is_thing for c in COCO_PANOPTIC]
    assert flags == sorted(flags, reverse=True)


def test_generic_categories_have_distinct_fixed_colours():
    many = categories_generic(5000)
    assert len({c.colour for c in many}) == 5000
    assert (0, 0, 0) not in {c.colour for c in many}
    assert many[:3] == categories_generic(3)
    assert [c.name for c in many[:3]] == ["class 0", "class 1", "class 2"]
    assert [c.id for c in many[:3]] == [0, 1, 2]
    assert many[0].colour == (128, 0, 0)
