"""Checkpoints of every kind through `read`, `write_hf` and `write_official`."""

import gzip
import json
import os
import pickle
import subprocess
import sys
import zlib

import numpy as np
import pytest

from m2f.errors import CheckpointError, UsageError
from m2f.models import presets
from m2f.models.checkpoint import read, weight_shapes, write_hf, write_official
from m2f.models.checkpoint.names import is_ignored, reordered_for_mmdet
from m2f.models.checkpoint.recognise import config_of
from tests import golden
from tests.models.checkpoint import tiny
from tests.weights import synthetic

MADE_BY_RULE = {
    "coco-panoptic-r50": ("official_r50_coco_panoptic", "r50"),
    "ade20k-semantic-swin-t": ("official_swin_t_ade20k_semantic", "swin_t"),
}


def dump(path, weights, **extra):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({"model": weights, **extra}, 4))
    return path


def official(config, weights=None):
    return tiny.as_format(weights or tiny.weights_of(config), config, "official")


@pytest.mark.parametrize("name", MADE_BY_RULE)
def test_conversion_loses_nothing(tmp_path, name):
    preset = presets.preset(name)
    write_official(synthetic(preset.model), tmp_path / "first.pkl")
    first = read(tmp_path / "first.pkl", preset=name)
    write_hf(first.weights, first.config, first.metadata, tmp_path / "folder")
    folder = read(tmp_path / "folder", task=preset.metadata.task)
    write_official(folder.weights, tmp_path / "second.pkl")
    assert (tmp_path / "second.pkl").read_bytes() == (tmp_path / "first.pkl").read_bytes()
    assert (first.preset, folder.preset) == (name, name)
    assert folder.config == first.config == preset.model
    assert folder.metadata.categories == preset.metadata.categories

    fixture, _ = MADE_BY_RULE[name]
    crcs = {e["name"]: e["crc32"] for e in golden.load(fixture, "params.json")}
    for theirs, value in pickle.loads((tmp_path / "second.pkl").read_bytes())["model"].items():
        assert zlib.crc32(value.tobytes()) == crcs[theirs]


@pytest.mark.parametrize("name", MADE_BY_RULE)
def test_an_mmdet_file_derived_by_the_complete_list(tmp_path, name):
    weights = synthetic(presets.preset(name).model)
    theirs = official(presets.preset(name).model, weights)
    derived = {}
    keymap = golden.ROOT / "keymap" / f"{MADE_BY_RULE[name][1]}.json.gz"
    for key, _, mmdet, is_reordered in json.loads(gzip.decompress(keymap.read_bytes())):
        if not is_ignored(key):
            value = theirs[key]
            derived[mmdet[0]] = reordered_for_mmdet(value) if is_reordered else value
    path = tmp_path / "mmdet.pth"
    path.write_bytes(pickle.dumps({"meta": {}, "state_dict": derived}, 4))
    found = read(path, preset=name)
    assert found.format == "mmdet"
    assert tiny.same(found.weights, weights)


@pytest.mark.parametrize("model", tiny.MODELS)
def test_the_model_shows_in_the_shapes(tmp_path, model):
    config = tiny.MODELS[model]
    write_official(tiny.weights_of(config), tmp_path / "a.pkl")
    found = read(tmp_path / "a.pkl")
    assert found.config == config
    assert found.preset is None
    assert tiny.same(found.weights, tiny.weights_of(config))
    assert [c.name for c in found.metadata.categories] == [f"class {i}" for i in range(7)]
    assert any("attention heads" in note for note in found.notes)


@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_published_model_is_recognised_by_its_shapes(name):
    model = presets.preset(name).model
    config = config_of(weight_shapes(model))
    assert config == model
    assert name in [p.name for p in presets.matching(config)]


def test_the_released_name_of_the_query_features(tmp_path):
    weights = official(tiny.RESNET)
    prefix = "sem_seg_head.predictor."
    weights[prefix + "static_query.weight"] = weights.pop(prefix + "query_feat.weight")
    found = read(dump(tmp_path / "a.pkl", weights))
    assert tiny.same(found.weights, tiny.weights_of(tiny.RESNET))


def test_the_first_release_had_no_pixel_decoder_prefix(tmp_path):
    weights = {
        name.replace("sem_seg_head.pixel_decoder.", "sem_seg_head."): value
        for name, value in official(tiny.SWIN).items()
    }
    found = read(dump(tmp_path / "a.pkl", weights))
    assert tiny.same(found.weights, tiny.weights_of(tiny.SWIN))


def older_mmdet(name):
    for new, old in (
        ("encoder.layers.0.self_attn.", "encoder.layers.0.attentions.0."),
        ("encoder.layers.1.self_attn.", "encoder.layers.1.attentions.0."),
        (".cross_attn.", ".attentions.0."),
        (".self_attn.", ".attentions.1."),
        (".ffn.", ".ffns.0."),
    ):
        if not name.startswith("backbone."):
            name = name.replace(new, old)
    return name


@pytest.mark.parametrize("head", ["panoptic_head.", "decode_head."])
def test_files_of_mmdet_2_and_mmseg(tmp_path, head):
    weights = tiny.weights_of(tiny.SWIN)
    theirs = {
        older_mmdet(name).replace("panoptic_head.", head): value
        for name, value in tiny.as_format(weights, tiny.SWIN, "mmdet").items()
    }
    assert any(".attentions.1.attn.in_proj_weight" in name for name in theirs)
    path = tmp_path / "a.pth"
    meta = {"CLASSES": tuple("abcdefg"), "PALETTE": [[i, 2 * i, 3 * i] for i in range(7)]}
    path.write_bytes(pickle.dumps({"meta": meta, "state_dict": theirs}))
    found = read(path)
    assert tiny.same(found.weights, weights)
    assert [c.name for c in found.metadata.categories] == list("abcdefg")
    assert found.metadata.categories[3].colour == (3, 6, 9)
    assert found.metadata.postprocess.convention == "mmdet"
    assert found.metadata.preprocess.resize == "mmdet"
    assert found.metadata.task == ("semantic" if head == "decode_head." else "panoptic")


def test_buffers_that_are_no_weights_are_ignored_and_noted(tmp_path):
    weights = official(tiny.SWIN)
    weights["criterion.empty_weight"] = np.ones(8, np.float32)
    weights["backbone.layers.0.blocks.0.attn.relative_position_index"] = np.zeros((9, 9), int)
    found = read(dump(tmp_path / "a.pkl", weights))
    assert tiny.same(found.weights, tiny.weights_of(tiny.SWIN))
    assert any(note.startswith("2 tensors that are no weights") for note in found.notes)


def test_half_precision_is_widened_and_noted(tmp_path):
    weights = {n: w.astype(np.float16) for n, w in official(tiny.RESNET).items()}
    found = read(dump(tmp_path / "a.pkl", weights))
    expected = {
        n: w.astype(np.float16).astype(np.float32)
        for n, w in tiny.weights_of(tiny.RESNET).items()
    }
    assert tiny.same(found.weights, expected)
    assert any("float16" in note for note in found.notes)


def test_the_digest_is_the_files(tmp_path):
    import hashlib

    path = dump(tmp_path / "a.pkl", official(tiny.RESNET))
    assert read(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory):
    """A file that could be the panoptic model or the semantic one."""
    path = tmp_path_factory.mktemp("files") / "model_final.pkl"
    weights = tiny.distinct(weight_shapes(presets.preset("cityscapes-panoptic-r50").model))
    write_official(weights, path)
    return path


def test_between_equal_shapes_panoptic_is_assumed_and_noted(cityscapes):
    found = read(cityscapes)
    assert found.preset == "cityscapes-panoptic-r50"
    assert "cityscapes-semantic-r50" in found.notes[0]


def test_the_task_chooses_between_equal_shapes(cityscapes):
    found = read(cityscapes, task="semantic")
    assert found.preset == "cityscapes-semantic-r50"
    assert not found.metadata.postprocess.semantic_after_resize


def test_the_preset_chooses_and_the_task_is_what_it_is_used_for(cityscapes):
    found = read(cityscapes, preset="cityscapes-panoptic-r50", task="instance")
    assert found.preset == "cityscapes-panoptic-r50"
    assert found.metadata.task == "instance"
    assert found.metadata.tasks == ("panoptic", "instance", "semantic")


def test_a_task_that_the_preset_does_not_answer(cityscapes):
    with pytest.raises(UsageError, match="answers semantic, not panoptic"):
        read(cityscapes, preset="cityscapes-semantic-r50", task="panoptic")


@pytest.mark.parametrize("name", ["published", "cityscapes/semantic/model_final.pkl"])
def test_the_name_of_a_file_speaks_for_a_preset(cityscapes, tmp_path, name):
    if name == "published":
        name = presets.preset("cityscapes-semantic-r50").url.rpartition("/")[2]
    link = tmp_path / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(cityscapes)
    found = read(link)
    assert found.preset == "cityscapes-semantic-r50"


def test_a_preset_that_does_not_fit(tmp_path):
    path = dump(tmp_path / "a.pkl", official(tiny.RESNET))
    with pytest.raises(CheckpointError, match=r"does not fit Mask2Former R50, 133 classes"):
        read(path, preset="coco-panoptic-r50")


def test_an_unknown_preset(tmp_path):
    with pytest.raises(UsageError, match="coco-panoptic-r50"):
        read(tmp_path / "a.pkl", preset="coco-panoptic-r5")


def test_official_files_must_end_in_pkl_or_pth(tmp_path):
    with pytest.raises(UsageError, match="pkl or"):
        write_official(tiny.weights_of(tiny.RESNET), tmp_path / "a.bin")


def test_nothing_is_overwritten_unasked(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_text("precious")
    with pytest.raises(UsageError, match="exists"):
        write_official(tiny.weights_of(tiny.RESNET), path)
    with pytest.raises(UsageError, match="not empty"):
        write_hf(tiny.weights_of(tiny.RESNET), tiny.RESNET, tiny.METADATA, tmp_path)
    assert path.read_text() == "precious"
    write_official(tiny.weights_of(tiny.RESNET), path, overwrite=True)
    assert tiny.leftovers(tmp_path) == ["a.pkl"]


@pytest.mark.parametrize("change", ["missing", "misshapen", "unexpected"])
def test_incomplete_weights_are_not_written(tmp_path, change):
    weights = tiny.weights_of(tiny.RESNET)
    name = "transformer_decoder.class_embed.bias"
    value = weights.pop(name)
    if change != "missing":
        weights[name if change == "misshapen" else "other"] = value[1:]
    with pytest.raises(CheckpointError, match=name if change != "unexpected" else "other"):
        write_hf(weights, tiny.RESNET, tiny.METADATA, tmp_path / "folder")
    with pytest.raises(CheckpointError):
        write_official(weights, tmp_path / "a.pkl")
    assert tiny.leftovers(tmp_path) == []


@pytest.mark.parametrize("write", ["hf", "official"])
def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch, write):
    from m2f.models.checkpoint import safetensors_file
    from m2f.models.checkpoint import write as module

    def interrupted(_, stream):
        stream.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors_file, "write", interrupted)
    monkeypatch.setattr(module, "_save_pickle", interrupted)
    weights = tiny.weights_of(tiny.RESNET)
    run = {
        "hf": lambda: write_hf(weights, tiny.RESNET, tiny.METADATA, tmp_path / "folder"),
        "official": lambda: write_official(weights, tmp_path / "a.pkl"),
    }
    with pytest.raises(KeyboardInterrupt):
        run[write]()
    assert tiny.leftovers(tmp_path) == []


def test_reading_needs_numpy_alone(tmp_path):
    """The heavy libraries are imported where they are used, or not at all."""
    write_official(tiny.weights_of(tiny.SWIN), tmp_path / "a.pkl")
    program = (
        "import sys; from m2f.models.checkpoint import read; read(sys.argv[1]);"
        "print(sorted({'torch', 'safetensors', 'transformers', 'huggingface_hub'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "a.pkl"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
