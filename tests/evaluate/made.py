"""Small data sets in the official formats, and a predictor that knows the answers."""

import json

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from m2f.config import Category, Metadata
from m2f.runtime.masks import PackedMasks, box_of
from m2f.runtime.results import Prediction, Segment

CATEGORIES = (
    Category(id=3, name="cat", colour=(200, 0, 0), is_thing=True),
    Category(id=7, name="dog", colour=(0, 200, 0), is_thing=True),
    Category(id=20, name="grass", colour=(0, 0, 200), is_thing=False),
    Category(id=21, name="sky", colour=(99, 99, 0), is_thing=False),
)
METADATA = Metadata(
    task="panoptic", tasks=("panoptic", "instance", "semantic"), categories=CATEGORIES
)
IDS = [c.id for c in CATEGORIES]


def segment(number, label, mask, score=None, categories=CATEGORIES):
    return Segment(
        id=number,
        label=label,
        name=categories[label].name,
        is_thing=categories[label].is_thing,
        score=score,
        area=int(mask.sum()),
        box=box_of(mask),
    )


def panoptic_prediction(ids, labels, categories=CATEGORIES):
    """From a map and the class index of each segment id."""
    segments = [
        segment(i, label, ids == i, 0.9, categories)
        for i, label in sorted(labels.items())
        if (ids == i).any()
    ]
    return Prediction(
        task="panoptic",
        size=ids.shape,
        categories=categories,
        segments=tuple(segments),
        map_=ids.astype(np.int32),
    )


def semantic_prediction(labels, categories=CATEGORIES):
    present = np.unique(labels[labels >= 0]).tolist()
    return Prediction(
        task="semantic",
        size=labels.shape,
        categories=categories,
        segments=tuple(segment(i, i, labels == i, None, categories) for i in present),
        map_=labels.astype(np.int32),
    )


def instance_prediction(size, found, categories=CATEGORIES):
    """From (class index, score, mask) triples."""
    found = sorted(found, key=lambda one: -one[1])
    masks = np.array([mask for _, _, mask in found], bool).reshape(-1, *size)
    return Prediction(
        task="instance",
        size=size,
        categories=categories,
        segments=tuple(
            segment(i, label, mask, score, categories)
            for i, (label, score, mask) in enumerate(found, 1)
        ),
        packed=PackedMasks(np.packbits(masks, axis=2), np.arange(len(masks)), size[1]),
    )


def blob(rng, size):
    """An ellipse somewhere in the image."""
    h, w = size
    y, x = np.mgrid[:h, :w]
    ry, rx = rng.uniform(2, h / 2), rng.uniform(2, w / 2)
    return ((y - rng.uniform(0, h)) / ry) ** 2 + ((x - rng.uniform(0, w)) / rx) ** 2 < 1


class Scene:
    """Blobs over each other with void between them, and a prediction that is half right."""

    def __init__(self, seed, size=(40, 56)):
        rng = np.random.default_rng(seed)
        self.size = size
        self.image = rng.integers(0, 256, (*size, 3), np.uint8)
        self.image[0, 0] = seed & 255, seed >> 8, 77  # by which the predictor knows it
        self.ids = np.zeros(size, np.int32)
        self.labels = {}
        for _ in range(6):
            # Ids use all three bytes of a PNG's pixel.
            key = int(rng.integers(1, 1 << 24))
            self.ids[blob(rng, size)] = key
            self.labels[key] = int(rng.integers(0, len(CATEGORIES)))
        self.labels = {k: v for k, v in self.labels.items() if (self.ids == k).any()}
        self.crowds = {k for k, v in self.labels.items() if v < 2 and rng.random() < 0.15}
        self.found = [
            (label, float(rng.uniform(0.05, 1)), self._moved(rng, self.ids == key))
            for key, label in self.labels.items()
            for _ in range(2)
            if rng.random() < 0.85
        ]
        self.guess = np.zeros(size, np.int32)
        self.guess_labels = {}
        for number, (label, _, mask) in enumerate(self.found, 1):
            self.guess[mask] = number
            self.guess_labels[number] = label if rng.random() < 0.8 else 0

    @staticmethod
    def _moved(rng, mask):
        return np.roll(mask, rng.integers(-3, 4, 2), (0, 1))

    @property
    def semantic(self):
        """Class indices, -1 for void."""
        return lookup(self.ids, self.labels)

    def predict(self, task):
        if task == "panoptic":
            return panoptic_prediction(self.guess, self.guess_labels)
        if task == "semantic":
            return semantic_prediction(np.maximum(lookup(self.guess, self.guess_labels), 0))
        return instance_prediction(self.size, [f for f in self.found if f[0] < 2])


def lookup(ids, labels):
    out = np.full(ids.shape, -1, np.int32)
    for key, label in labels.items():
        out[ids == key] = label
    return out


class Oracle:
    """Gives prepared answers and counts how often it was asked."""

    def __init__(self, scenes, tired_after=None):
        self.metadata = METADATA
        self.tired_after = tired_after
        self.asked = 0
        self._scenes = {scene.image[0, 0].tobytes(): scene for scene in scenes}

    def __call__(self, image, *, task):
        if self.asked == self.tired_after:
            raise KeyboardInterrupt
        self.asked += 1
        return self._scenes[image[0, 0].tobytes()].predict(task)


def write_png(path, ids):
    rgb = np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=2)
    Image.fromarray(rgb.astype(np.uint8)).save(path)


def listed(categories=CATEGORIES):
    return [
        {"id": c.id, "name": c.name, "isthing": int(c.is_thing), "color": list(c.colour)}
        for c in categories
    ]


def write_scenes(folder, scenes):
    """panoptic.json, panoptic/, instances.json, semantic/ (class index, 255 void), images/."""
    for name in ("images", "panoptic", "semantic"):
        (folder / name).mkdir(parents=True)
    images, panoptic, instances = [], [], []
    for number, scene in enumerate(scenes, 1):
        stem = f"{number:04d}"
        height, width = scene.size
        file = {"id": number, "file_name": f"{stem}.png", "height": height, "width": width}
        images.append(file)
        Image.fromarray(scene.image).save(folder / "images" / f"{stem}.png")
        write_png(folder / "panoptic" / f"{stem}.png", scene.ids)
        labels = scene.semantic
        semantic = np.where(labels < 0, 255, labels).astype(np.uint8)
        Image.fromarray(semantic).save(folder / "semantic" / f"{stem}.png")
        infos = []
        for key, label in scene.labels.items():
            mask = scene.ids == key
            info = {"id": key, "category_id": IDS[label], "area": int(mask.sum())}
            info["iscrowd"] = int(key in scene.crowds)
            infos.append(info)
            if label < 2:
                entry = {**info, "id": len(instances) + 1, "image_id": number}
                instances.append({**entry, "segmentation": rle(mask), "bbox": box_of(mask)})
        name = f"{stem}.png"
        panoptic.append({"image_id": number, "file_name": name, "segments_info": infos})
    write(folder / "panoptic.json", images, panoptic, listed())
    write(folder / "instances.json", images, instances, listed(CATEGORIES[:2]))


def rle(mask):
    code = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(code["size"]), "counts": code["counts"].decode()}


def write(path, images, annotations, categories):
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))


def edit(path, change):
    """Changes a JSON file by a function of its content."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def write_scenes_of(folder, scenes, classes):
    """Scenes whose categories are the first three, under other names and ids."""
    for scene in scenes:
        scene.labels = {k: v % 3 for k, v in scene.labels.items()}
    write_scenes(folder, scenes)
    new = dict(zip(IDS, classes, strict=False))

    def rename(content, key):
        content["categories"] = listed(classes)
        for entry in content["annotations"]:
            for one in entry[key] if key else [entry]:
                one["category_id"] = new[one["category_id"]].id

    edit(folder / "panoptic.json", lambda content: rename(content, "segments_info"))
    edit(folder / "instances.json", lambda content: rename(content, None))
