"""Every name and shape, against complete lists made from the three code bases themselves."""

import gzip
import json

import numpy as np
import pytest

from m2f.models import presets
from m2f.models.checkpoint import fit, names, weight_shapes
from m2f.models.presets import PRESETS
from tests import golden
from tests.models.checkpoint.tiny import MODELS, as_format, distinct, same, stored

KEYMAPS = {"r50": "coco-panoptic-r50", "swin_t": "coco-panoptic-swin-t"}
FORMATS = ("official", "hf", "mmdet")
MODELS_OF_PRESETS = {p.model: p.name for p in PRESETS.values()}


def keymap(name):
    """Rows of official name, Hugging Face names, mmdet names, and whether reordered."""
    path = golden.ROOT / "keymap" / f"{name}.json.gz"
    return json.loads(gzip.decompress(path.read_bytes()))


def is_weight(row):
    return not names.is_ignored(row[0])


@pytest.mark.parametrize("model", KEYMAPS)
def test_tables_agree_with_the_complete_lists(model):
    config = presets.preset(KEYMAPS[model]).model
    shapes = weight_shapes(config)
    official, hf, mmdet = (names.layout(config, format) for format in FORMATS)
    for theirs, hf_names, mmdet_names, is_reordered in filter(is_weight, keymap(model)):
        ours = official[theirs].name
        rows, *rest = shapes[ours]
        assert official[theirs].shape == shapes[ours]
        assert [n for n, place in hf.items() if place.name == ours] == hf_names
        assert [n for n, place in mmdet.items() if place.name == ours] == mmdet_names
        assert {hf[n].shape for n in hf_names} == {(rows // len(hf_names), *rest)}
        assert mmdet[mmdet_names[0]].shape == shapes[ours]
        assert mmdet[mmdet_names[0]].is_reordered == is_reordered


@pytest.mark.parametrize("model", KEYMAPS)
def test_nothing_is_named_that_the_lists_do_not_have(model):
    config = presets.preset(KEYMAPS[model]).model
    listed = list(filter(is_weight, keymap(model)))
    assert set(names.layout(config, "official")) == {row[0] for row in listed}
    assert set(names.layout(config, "hf")) == {n for row in listed for n in row[1]}
    assert set(names.layout(config, "mmdet")) == {n for row in listed for n in row[2]}


@pytest.mark.parametrize(
    ("fixture", "preset", "format"),
    [
        ("official_r50_coco_panoptic", "coco-panoptic-r50", "official"),
        ("official_r50_coco_instance_batch2_pad", "coco-instance-r50", "official"),
        ("official_r101_cityscapes_panoptic", "cityscapes-panoptic-r101", "official"),
        ("official_swin_t_ade20k_semantic", "ade20k-semantic-swin-t", "official"),
        ("hf_swin_t_coco_panoptic", "coco-panoptic-swin-t", "hf"),
    ],
)
def test_names_and_shapes_are_those_of_the_original_programs(fixture, preset, format):
    originals = {
        entry["name"]: tuple(entry["shape"])
        for entry in golden.load(fixture, "params.json")
        if not names.is_ignored(entry["name"])
    }
    places = names.layout(presets.preset(preset).model, format)
    assert {name: place.shape for name, place in places.items()} == originals


@pytest.mark.parametrize("name", MODELS)
def test_shapes_are_those_of_the_reference_model(name):
    torch = pytest.importorskip("torch")
    from m2f.models.mask2former import Mask2Former

    with torch.device("meta"):
        state = Mask2Former(MODELS[name]).state_dict()
    assert {k: tuple(v.shape) for k, v in state.items()} == weight_shapes(MODELS[name])


@pytest.mark.parametrize("config", MODELS_OF_PRESETS, ids=MODELS_OF_PRESETS.get)
def test_every_published_model_survives_every_format(config):
    weights = distinct(weight_shapes(config))
    for format in FORMATS:
        tensors = stored(as_format(weights, config, format))
        size = sum(tensor.nbytes for tensor in tensors.values())
        places = fit.check(tensors, config, format)
        assert same(fit.collect(tensors, places, file_bytes=size), weights)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("model", ["resnet", "basic", "swin"])
def test_names_translate_back(model, format):
    for theirs, place in names.layout(MODELS[model], format).items():
        assert names.our_name(theirs, format, "msdeform") == (place.name, place.parts)


def test_patch_merging_order():
    # Two channels; official: all channels of pixel (0, 0), then (1, 0), (0, 1), (1, 1).
    official = np.array(["00a", "00b", "10a", "10b", "01a", "01b", "11a", "11b"])
    mmdet = ["00a", "01a", "10a", "11a", "00b", "01b", "10b", "11b"]
    assert names.reordered_for_mmdet(official).tolist() == mmdet
    assert names.reordered_from_mmdet(np.array(mmdet)).tolist() == official.tolist()


@pytest.mark.parametrize(
    ("format", "old", "new"),
    [
        (
            "official",
            "sem_seg_head.predictor.static_query.weight",
            "sem_seg_head.predictor.query_feat.weight",
        ),
        (
            "official",
            "sem_seg_head.adapter_1.norm.bias",
            "sem_seg_head.pixel_decoder.adapter_1.norm.bias",
        ),
        (
            "mmdet",
            "panoptic_head.pixel_decoder.encoder.layers.4.attentions.0.value_proj.bias",
            "panoptic_head.pixel_decoder.encoder.layers.4.self_attn.value_proj.bias",
        ),
        (
            "mmdet",
            "panoptic_head.transformer_decoder.layers.8.attentions.0.attn.in_proj_bias",
            "panoptic_head.transformer_decoder.layers.8.cross_attn.attn.in_proj_bias",
        ),
        (
            "mmdet",
            "decode_head.transformer_decoder.layers.0.attentions.1.attn.out_proj.weight",
            "panoptic_head.transformer_decoder.layers.0.self_attn.attn.out_proj.weight",
        ),
        (
            "mmdet",
            "panoptic_head.transformer_decoder.layers.0.ffns.0.layers.0.0.weight",
            "panoptic_head.transformer_decoder.layers.0.ffn.layers.0.0.weight",
        ),
    ],
)
def test_older_names(format, old, new):
    assert names.modern_name(old, format) == new
    assert names.modern_name(new, format) == new
