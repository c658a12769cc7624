"""Hugging Face folders: config.json both ways, shards, the hub, and transformers itself."""

import json
import sys
import types

import numpy as np
import pytest

from m2f.config import Preprocess, ResNetConfig, SwinConfig
from m2f.errors import CheckpointError, MissingDependency, MissingFile, UsageError
from m2f.models import presets
from m2f.models.checkpoint import hugging_face, read, write_hf, write_official
from m2f.models.checkpoint.metadata import Clues, choose, metadata
from m2f.models.checkpoint.safetensors_file import write
from m2f.models.presets import PRESETS
from tests import golden
from tests.models.checkpoint import tiny
from tests.weights import synthetic

CONFIG = golden.load("hf_swin_t_coco_panoptic", "hf_config.json")
MODELS = {p.model: p for p in PRESETS.values()}


@pytest.fixture
def folder(tmp_path):
    write_hf(tiny.weights_of(tiny.SWIN), tiny.SWIN, tiny.METADATA, tmp_path / "folder")
    return tmp_path / "folder"


def edit(file, **changes):
    raw = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in raw.items() if v is not None}))


def test_a_folder_holds_what_transformers_saves(folder):
    assert tiny.leftovers(folder) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    found = read(folder)
    assert found.format == "hf"
    assert found.config == tiny.SWIN
    assert tiny.same(found.weights, tiny.weights_of(tiny.SWIN))


def test_the_config_that_transformers_wrote():
    model = hugging_face.model_from_json(CONFIG)
    assert model == presets.preset("coco-panoptic-swin-t").model


@pytest.mark.parametrize("model", MODELS, ids=lambda m: MODELS[m].name)
def test_configs_of_every_published_model_go_both_ways(model):
    raw = hugging_face.json_from_model(model, MODELS[model].metadata)
    again = json.loads(json.dumps(raw))
    assert hugging_face.model_from_json(again) == model
    names = [category.name for category in MODELS[model].metadata.categories]
    assert list(hugging_face.labels_from_json(again)) == names


def test_sparse_configs_mean_transformers_defaults():
    raw = {"model_type": "mask2former", "num_labels": 80, "backbone_config": {}}
    raw["backbone_config"] = {"model_type": "swin"}
    assert hugging_face.model_from_json(raw).backbone == SwinConfig()
    raw["backbone_config"] = {"model_type": "resnet"}
    assert hugging_face.model_from_json(raw).backbone == ResNetConfig()
    assert hugging_face.model_from_json(raw).transformer_decoder.layers == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "maskformer"}, "describes a 'maskformer' model"),
        ({"model_type": None}, "describes a None model"),
        ({"pre_norm": True}, "pre_norm = True"),
        ({"common_stride": 8}, "common_stride = 8"),
        ({"num_queries": -1}, "num_queries = -1"),
        ({"num_queries": 1 << 40}, "no size"),
        ({"encoder_layers": "6"}, "encoder_layers = '6'"),
        ({"feature_size": 128}, "gives 128 channels"),
        ({"num_attention_heads": 7}, "do not divide"),
        ({"backbone_config": None}, "no backbone_config"),
        ({"backbone_config": {"model_type": "convnext"}}, "'convnext' backbone"),
        ({"backbone_config": {"model_type": "swin", "mlp_ratio": 2.0}}, "mlp_ratio = 2.0"),
        ({"backbone_config": {"model_type": "swin", "depths": [2, 2]}}, "list of four"),
        ({"backbone_config": {"model_type": "swin", "depths": [2, 2, 6, 1 << 30]}}, "no size"),
        ({"backbone_config": {"model_type": "resnet", "embedding_size": 32}}, "hidden_sizes"),
    ],
)
def test_configs_of_other_models(folder, change, message):
    edit(folder / "config.json", **change)
    with pytest.raises(CheckpointError) as caught:
        read(folder)
    assert str(caught.value).startswith(f"{folder / 'config.json'}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1]", "{", "\xff", "[" * 100_000])
def test_configs_that_are_no_json_object(folder, text):
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match="JSON"):
        read(folder)


def test_a_config_for_other_weights(folder):
    edit(folder / "config.json", num_queries=6)
    with pytest.raises(CheckpointError, match=r"queries_features\.weight \[5, 64\] instead"):
        read(folder)


def test_a_file_inside_a_folder_is_read_with_its_config(folder):
    assert read(folder / "model.safetensors").config == tiny.SWIN


def test_weights_without_a_config_are_recognised_by_shape(folder, tmp_path):
    alone = tmp_path / "alone.safetensors"
    (folder / "model.safetensors").rename(alone)
    assert read(alone).config == tiny.SWIN


def test_a_folder_without_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(MissingFile, match=r"neither model\.safetensors nor"):
        read(folder)


def shard(folder, count=3):
    """Splits a folder's weights over several files, as transformers does with large ones."""
    theirs = tiny.as_format(tiny.weights_of(tiny.SWIN), tiny.SWIN, "hf")
    places = {}
    for i in range(count):
        name = f"model-{i + 1:05}-of-{count:05}.safetensors"
        part = dict(list(theirs.items())[i::count])
        places |= dict.fromkeys(part, name)
        with (folder / name).open("wb") as stream:
            write(part, stream)
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index


def test_shards(folder):
    shard(folder)
    found = read(folder)
    assert tiny.same(found.weights, tiny.weights_of(tiny.SWIN))
    assert len(found.sha256) == 64


def test_missing_shards(folder):
    shard(folder)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(MissingFile, match="1 of 3 shards are missing"):
        read(folder)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", 7])
def test_shards_outside_the_folder(folder, name):
    index = shard(folder)
    edit(index, weight_map={"w": name})
    with pytest.raises(CheckpointError, match="outside its folder"):
        read(folder)


def test_pytorch_model_bin(folder):
    torch = pytest.importorskip("torch")
    (folder / "model.safetensors").unlink()
    theirs = tiny.as_format(tiny.weights_of(tiny.SWIN), tiny.SWIN, "hf")
    tensors = {name: torch.from_numpy(w.copy()) for name, w in theirs.items()}
    torch.save(tensors, folder / "pytorch_model.bin")
    assert tiny.same(read(folder).weights, tiny.weights_of(tiny.SWIN))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({}, Preprocess(resize="hf_aspect")),
        (
            {"size": {"height": 384, "width": 512}, "image_mean": [0.48500001430511475] * 3},
            Preprocess(resize="stretch", size=(384, 512), mean=(123.675,) * 3),
        ),
        (
            {"size": {"shortest_edge": 640, "longest_edge": 2560}},
            Preprocess(resize="hf_aspect", min_size=640, max_size=2560),
        ),
        (
            {"size": 512, "max_size": 2048},
            Preprocess(resize="hf_aspect", min_size=512, max_size=2048),
        ),
        ({"do_resize": False}, Preprocess(resize="none")),
        (
            {"do_resize": False, "do_normalize": False},
            Preprocess(resize="none", mean=(0.0,) * 3, std=(255.0,) * 3),
        ),
        (
            {
                "do_resize": False,
                "do_rescale": False,
                "image_mean": [1] * 3,
                "image_std": [4] * 3,
            },
            Preprocess(resize="none", mean=(1.0,) * 3, std=(4.0,) * 3),
        ),
    ],
)
def test_preprocessors(raw, expected):
    assert hugging_face.preprocess_from_json(raw) == expected


@pytest.mark.parametrize(
    "raw",
    [
        {"size": "large"},
        {"size": {"height": 0, "width": 3}},
        {"image_mean": [0.5]},
        {"image_std": ["a", "b", "c"]},
        {"image_std": [1.0, 0.0, 1.0]},
        {"rescale_factor": 0},
    ],
)
def test_preprocessors_that_make_no_sense(folder, raw):
    edit(folder / "preprocessor_config.json", **raw)
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: has "):
        read(folder)


def test_what_transformers_has_no_words_for_comes_back(folder):
    assert read(folder).metadata == tiny.METADATA


def test_classes_that_changed_since(folder):
    names = {str(i): f"part {i}" for i in range(7)}
    edit(folder / "config.json", id2label=names)
    assert [c.name for c in read(folder).metadata.categories] == list(names.values())


@pytest.mark.parametrize("own", [7, {"task": "panoptic"}])
def test_metadata_that_is_none(folder, own):
    edit(folder / "config.json", m2f_metadata=own)
    with pytest.raises(CheckpointError, match=r"config\.json: m2f_metadata: "):
        read(folder)


def test_the_conventions_are_transformers(folder):
    edit(folder / "config.json", m2f_metadata=None)
    metadata = read(folder, task="instance").metadata
    assert metadata.task == "instance"
    assert metadata.preprocess == Preprocess(resize="hf_aspect")
    assert metadata.postprocess.convention == "hf"
    assert metadata.postprocess.object_mask_threshold == 0.5
    assert metadata.postprocess.top_k == 5
    assert not metadata.postprocess.fuse_stuff


def test_class_names_are_the_files_and_data_sets_are_recognised_by_them():
    preset = presets.preset("coco-instance-r50")
    names = tuple(c.name for c in preset.metadata.categories)
    for labels, expected in (
        (names, preset.name),
        (("human", *names[1:]), preset.name),
        (tuple(f"LABEL_{i}" for i in range(80)), preset.name),
        (tuple(f"part {i}" for i in range(80)), None),
    ):
        clues = Clues(text="somewhere", labels=labels)
        chosen, notes = choose(preset.model, clues, task=None)
        assert (chosen and chosen.name) == expected
        assert notes
        found = metadata(preset.model, chosen, clues, format="hf", task=None)
        generic = labels[0] == "LABEL_0"
        assert [c.name for c in found.categories] == list(names if generic else labels)
        assert (found.categories[0].colour == preset.metadata.categories[0].colour) == bool(
            expected
        )


def hub(monkeypatch, download):
    module = types.ModuleType("huggingface_hub")
    module.snapshot_download = download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)


def test_a_hub_id(folder, monkeypatch):
    asked = []

    def download(hub_id, *, allow_patterns):
        asked.append((hub_id, tuple(allow_patterns)))
        return str(folder)

    hub(monkeypatch, download)
    found = read("someone/tiny-panoptic")
    assert found.path == "someone/tiny-panoptic"
    assert tiny.same(found.weights, tiny.weights_of(tiny.SWIN))
    assert asked[0][0] == "someone/tiny-panoptic"
    assert "*" not in asked[0][1]  # nothing but weights and descriptions is downloaded


def test_the_hub_offline(monkeypatch):
    def download(*_, **__):
        raise ConnectionError("Cannot reach\nthe hub")

    hub(monkeypatch, download)
    with pytest.raises(MissingFile, match=r"ConnectionError: Cannot reach\); check the name"):
        read("facebook/mask2former-swin-tiny-coco-panoptic")


def test_the_hub_without_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependency, match="install m2f-deploy"):
        read("facebook/mask2former-swin-tiny-coco-panoptic")


def test_models_that_transformers_cannot_express(tmp_path):
    with pytest.raises(UsageError, match="fpn"):
        write_hf(tiny.weights_of(tiny.FPN), tiny.FPN, tiny.METADATA, tmp_path / "folder")
    assert tiny.leftovers(tmp_path) == []


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


@pytest.mark.parametrize("name", ["coco-panoptic-r50", "coco-panoptic-swin-t"])
def test_transformers_loads_our_folder_completely(tmp_path, transformers, name):
    torch = pytest.importorskip("torch")
    preset = presets.preset(name)
    weights = synthetic(preset.model)
    write_hf(weights, preset.model, preset.metadata, tmp_path / "folder")
    kind = transformers.Mask2FormerForUniversalSegmentation
    model, report = kind.from_pretrained(tmp_path / "folder", output_loading_info=True)
    assert not any(report.values())
    assert model.config.id2label[0] == "person"

    model.save_pretrained(tmp_path / "again")
    again = read(tmp_path / "again")
    assert tiny.same(again.weights, weights)
    assert again.config == preset.model
    torch.save(model.state_dict(), tmp_path / "memory.pth")  # other names than in files
    assert tiny.same(read(tmp_path / "memory.pth").weights, weights)
    del model
    write_official(again.weights, tmp_path / "a.pkl")
    assert tiny.same(read(tmp_path / "a.pkl").weights, weights)


def test_transformers_reads_our_preprocessor(folder, transformers):
    raw = json.loads((folder / "preprocessor_config.json").read_text())
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    np.testing.assert_allclose(processor.image_mean, raw["image_mean"])
    assert processor.size["shortest_edge"] == 800
