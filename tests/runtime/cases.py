"""The goldens of post-processing, as cases: logits, sizes, and what upstream made of them."""

from dataclasses import dataclass, field

import numpy as np

from m2f.runtime.logits import Frame
from tests.golden import load


@dataclass
class Case:
    name: str
    class_logits: np.ndarray
    mask_logits: np.ndarray
    frame: Frame
    is_thing: list
    golden: dict
    record: dict
    suffix: str
    config: dict = field(default_factory=dict)

    def get(self, name):
        return self.golden[f"{name}_{self.suffix}"]

    def masks(self, name, n):
        h, w = self.frame.output
        return np.unpackbits(self.get(name))[: n * h * w].reshape(n, h, w).astype(bool)

    def has(self, name):
        return f"{name}_{self.suffix}" in self.golden


OFFICIAL = (
    "official_r50_coco_panoptic",
    "official_swin_t_ade20k_semantic",
    "official_r50_coco_instance_batch2_pad",
    "official_r101_cityscapes_panoptic",
)
HF = (
    "official_r50_coco_panoptic",
    "official_swin_t_ade20k_semantic",
    "official_r50_coco_instance_batch2_pad",
    "hf_swin_t_coco_panoptic",
)


def official_cases():
    cases = [_handmade(load("postproc_handmade", "official.npz"), "official")]
    for name in OFFICIAL:
        config, arrays = load(name, "config.json"), load(name, "golden.npz")
        things = config["thing_ids"]
        for i, record in enumerate(config["postproc"]):
            frame = Frame(
                padded=tuple(config["padded_size"]),
                valid=tuple(config["image_sizes"][i]),
                output=tuple(config["output_sizes"][i]),
            )
            is_thing = [things is None or k in things for k in range(config["num_classes"])]
            logits = arrays["pred_logits"][i], arrays["pred_masks"][i]
            golden = load(name, "postproc.npz")
            cases.append(
                Case(f"{name}[{i}]", *logits, frame, is_thing, golden, record, str(i), config)
            )
    return cases


def hf_cases():
    record = load("postproc_handmade", "hf_postproc.json")["images"][0]
    handmade = _handmade(load("postproc_handmade", "hf_postproc.npz"), record)
    # transformers does not crop the padding
    frame = Frame(padded=(256, 320), valid=(256, 320), output=handmade.frame.output)
    handmade.frame = frame
    cases = [handmade]
    for name in HF:
        own = name.startswith("hf_")
        config, arrays = load(name, "config.json"), load(name, "golden.npz")
        golden = load(name, "postproc.npz" if own else "hf_postproc.npz")
        records = config["postproc"] if own else load(name, "hf_postproc.json")["images"]
        for i, record in enumerate(records):
            fused = record["hf_panoptic"]["label_ids_to_fuse"]
            first, last = fused or (1, 0)
            classes = arrays["pred_logits"].shape[2] - 1
            is_thing = [not first <= k <= last for k in range(classes)]
            size = tuple(config["padded_size"])
            frame = Frame(padded=size, valid=size, output=tuple(record["target_size"]))
            logits = arrays["pred_logits"][i], arrays["pred_masks"][i]
            cases.append(Case(f"{name}[{i}]", *logits, frame, is_thing, golden, record, str(i)))
    return cases


def mmdet_case():
    return _handmade(load("postproc_handmade", "mmdet_postproc.npz"), {})


def exact_case():
    """9 queries, 20x20 pixels, no resizing; ties and thresholds met exactly."""
    arrays = load("postproc_handmade", "input.npz")
    frame = Frame(padded=(20, 20), valid=(20, 20), output=(20, 20))
    is_thing = [k < 80 for k in range(133)]
    return Case(
        "exact", arrays["exact_logits"], arrays["exact_masks"], frame, is_thing, {}, {}, "0"
    )


def _handmade(golden, record):
    config, arrays = (
        load("postproc_handmade", "config.json"),
        load("postproc_handmade", "input.npz"),
    )
    if record == "official":
        record = config["official"][0]
    frame = Frame(
        padded=tuple(config["padded_size"]),
        valid=tuple(config["image_size"]),
        output=tuple(config["output_size"]),
    )
    first, last = config["thing_ids"]
    is_thing = [first <= k <= last for k in range(config["num_classes"])]
    logits = arrays["pred_logits"][0], arrays["pred_masks"][0]
    settings = {"panoptic_on": True, "sem_seg_postprocess_before_inference": True}
    return Case(
        "handmade", *logits, frame, is_thing, golden, record, "0", {**config, **settings}
    )


def differing(a, b):
    """Share of elements that differ."""
    assert a.shape == b.shape
    return float(np.mean(a != b))


def random_logits(seed, queries=12, classes=7, size=(16, 24)):
    """Smooth random masks, confident classes, several queries of one class."""
    rng = np.random.default_rng(seed)
    h, w = size
    coarse = rng.normal(0, 6, (queries, h // 4 + 1, w // 4 + 1))
    masks = coarse.repeat(4, 1).repeat(4, 2)[:, :h, :w] + rng.normal(0, 1, (queries, h, w))
    logits = rng.normal(0, 1, (queries, classes + 1))
    logits[np.arange(queries), rng.integers(0, classes + 1, queries)] += rng.uniform(
        3, 9, queries
    )
    return logits.astype(np.float32), masks.astype(np.float32)
