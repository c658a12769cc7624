"""Files that are no checkpoint, or not a whole one: one sentence, and the right one."""

import gzip
import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest

from m2f.errors import CheckpointError, MissingFile
from m2f.models.checkpoint import fit, read, write_hf, write_official
from m2f.models.checkpoint.safetensors_file import write
from tests.models.checkpoint import tiny


def zip_of(**records):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return stream.getvalue()


def tar_of(name):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return stream.getvalue()


FOREIGN = {
    "empty": (b"", "is empty"),
    "zeros": (bytes(5000), "nothing but zeros"),
    "noise": (np.random.default_rng(0).bytes(5000), "no known checkpoint format"),
    "text": (b"Not a checkpoint.\n", "is a text file"),
    "bracket": (b"(just a remark)\n", "is a text file"),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 176\n",
        "git lfs pull",
    ),
    "html": (b"\n<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
    "gzip": (gzip.compress(b"weights"), "is compressed"),
    "tar": (tar_of("storages"), "is a tar archive"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    "zip": (zip_of(readme="hello"), "not one that torch.save wrote"),
    "torchscript": (
        zip_of(**{"m/data.pkl": b"\x80\x02N.", "m/constants.pkl": b"", "m/code/x.py": b""}),
        "TorchScript",
    ),
    "number": (pickle.dumps(7), "holds no dict of weights"),
    "list": (pickle.dumps([np.ones(2)]), "holds no dict of weights"),
    "settings": (pickle.dumps({"lr": 0.1, "epochs": 50}), "its keys: lr, epochs"),
    "version": (
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02K\x07.\x80\x02}.\x80\x02}.\x80\x02].",
        "unknown version",
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_foreign_files(tmp_path, kind, suffix):
    content, message = FOREIGN[kind]
    path = tmp_path / f"model_final{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


OTHER_MODELS = {
    "MaskFormer (version 1)": "sem_seg_head.predictor.transformer.decoder.layers.0.norm1.bias",
    "MaskFormer": "model.pixel_level_module.decoder.fpn.stem.0.weight",
    "MaskDINO": "sem_seg_head.predictor.label_enc.weight",
    "OneFormer": "model.task_encoder.task_mlp.layers.0.0.weight",
    "Mask2FormerModel": "transformer_module.queries_features.weight",
    "R-CNN": "roi_heads.box_predictor.cls_score.weight",
    "mmdet detector": "rpn_head.rpn_conv.weight",
    "DETR": "transformer.encoder.layers.0.self_attn.in_proj_weight",
    "backbone": "layer1.0.conv1.weight",
    "Segment Anything": "image_encoder.pos_embed",
    "SegFormer": "decode_head.linear_c4.proj.weight",
    "foreign names": "net.0.weight",
}


@pytest.mark.parametrize("what", OTHER_MODELS)
def test_other_models_are_called_by_their_name(tmp_path, what):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"model": {OTHER_MODELS[what]: np.ones(3, np.float32)}}))
    with pytest.raises(CheckpointError) as caught:
        read(path)
    assert "not a Mask2Former" in str(caught.value)
    assert what in str(caught.value)


def test_mmdet_maskformer_is_not_mask2former(tmp_path):
    names = (
        "panoptic_head.query_embed.weight",
        "panoptic_head.pixel_decoder.mask_feature.bias",
    )
    path = tmp_path / "a.pth"
    path.write_bytes(pickle.dumps({"state_dict": {n: np.ones(3, np.float32) for n in names}}))
    with pytest.raises(CheckpointError, match="looks like MaskFormer"):
        read(path)


@pytest.fixture(params=["pkl", "pth", "legacy", "safetensors"])
def whole(request, tmp_path):
    """A complete small checkpoint."""
    weights = tiny.weights_of(tiny.RESNET)
    path = tmp_path / f"whole.{request.param}"
    if request.param == "pkl":
        write_official(weights, path)
        return path
    if request.param == "safetensors":
        with path.open("wb") as stream:
            write(tiny.as_format(weights, tiny.RESNET, "hf"), stream)
        return path
    torch = pytest.importorskip("torch")
    theirs = tiny.as_format(weights, tiny.RESNET, "official")
    tensors = {n: torch.from_numpy(w.copy()) for n, w in theirs.items()}
    is_zip = request.param == "pth"
    torch.save({"model": tensors}, path, _use_new_zipfile_serialization=is_zip)
    return path


def test_truncated_files(whole):
    content = whole.read_bytes()
    assert read(whole).config == tiny.RESNET
    for share in (0.002, 0.03, 0.3, 0.6, 0.99, 0.99999):
        whole.write_bytes(content[: max(1, int(len(content) * share))])
        with pytest.raises(CheckpointError, match=r"truncated|corrupt|known|incomplete|text"):
            read(whole)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_altered_files_fail_in_one_sentence_or_not_at_all(whole):
    content = whole.read_bytes()
    random = np.random.default_rng(1)
    sentences = set()
    for _ in range(60):
        altered = bytearray(content)
        for position in random.integers(0, min(len(content), 4000), 3):
            altered[position] = random.integers(256)
        for position in random.integers(len(content) - 4000, len(content), 2):
            altered[position] = random.integers(256)
        whole.write_bytes(altered)
        try:
            read(whole)
        except CheckpointError as problem:
            sentences.add(str(problem))
    assert sentences
    assert all(sentence.startswith(f"{whole}: ") for sentence in sentences)


def test_a_damaged_record_is_found_by_its_crc(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "a.pth"
    weights = tiny.as_format(tiny.weights_of(tiny.RESNET), tiny.RESNET, "official")
    torch.save({"model": {n: torch.from_numpy(w.copy()) for n, w in weights.items()}}, path)
    content = bytearray(path.read_bytes())
    stem = weights["backbone.stem.conv1.weight"].tobytes()
    content[content.index(stem) + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="altered or cut"):
        read(path)


def changed(tmp_path, **changes):
    """A checkpoint with some official tensors replaced, or taken out where None."""
    weights = tiny.as_format(tiny.weights_of(tiny.RESNET), tiny.RESNET, "official")
    weights |= changes
    weights = {name: w for name, w in weights.items() if w is not None}
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"model": weights}))
    return path


PREDICTOR = "sem_seg_head.predictor."


def test_every_difference_is_listed_at_once(tmp_path):
    path = changed(
        tmp_path,
        **{
            "backbone.res3.0.conv2.weight": None,
            "backbone.res3.0.conv2.norm.bias": None,
            PREDICTOR + "decoder_norm.bias": np.ones(63, np.float32),
            PREDICTOR + "other.weight": np.ones((2, 3), np.float32),
            PREDICTOR + "class_embed.bias": np.arange(8),
        },
    )
    with pytest.raises(CheckpointError) as caught:
        read(path)
    message = str(caught.value)
    assert "2 weights missing, 1 unexpected, 1 of another shape, 1 not floating" in message
    assert "missing: backbone.res3.0.conv2.weight [16, 16, 3, 3]" in message
    assert f"unexpected: {PREDICTOR}other.weight [2, 3]" in message
    assert f"of another shape: {PREDICTOR}decoder_norm.bias [63] instead of [64]" in message
    assert f"not floating point: {PREDICTOR}class_embed.bias of int64" in message


def test_long_lists_are_cut_but_counted(tmp_path):
    extra = {f"{PREDICTOR}extra.{i}": np.ones(1, np.float32) for i in range(50)}
    with pytest.raises(CheckpointError, match="50 unexpected") as caught:
        read(changed(tmp_path, **extra))
    assert str(caught.value).count("unexpected: ") == 21
    assert "... and 30 more" in str(caught.value)


def test_the_head_alone_is_missing(tmp_path):
    gone = {f"{PREDICTOR}class_embed.{x}": None for x in ("weight", "bias")}
    with pytest.raises(CheckpointError, match=r"2 weights missing") as caught:
        read(changed(tmp_path, **gone))
    assert "class_embed.weight" in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(tmp_path, value):
    bias = np.ones(64, np.float32)
    bias[3:5] = value
    path = changed(tmp_path, **{PREDICTOR + "decoder_norm.bias": bias})
    with pytest.raises(CheckpointError, match="NaN or infinity") as caught:
        read(path)
    assert "transformer_decoder.norm.bias (2 of 64)" in str(caught.value)
    found = read(path, allow_nonfinite=True)
    np.testing.assert_array_equal(found.weights["transformer_decoder.norm.bias"], bias)


def test_arrays_of_python_objects(tmp_path):
    objects = np.array(["a", None], dtype=object)
    path = changed(tmp_path, **{PREDICTOR + "decoder_norm.bias": objects})
    with pytest.raises(CheckpointError, match="of Python objects"):
        read(path)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("backbone.res2.5000.conv1.weight", (1,), "res2.5000"),
        (PREDICTOR + "class_embed.weight", (1, 64), "at least one class"),
        (PREDICTOR + "class_embed.weight", (), "contradicts itself"),
        (PREDICTOR + "class_embed.weight", (8, 60), "contradicts itself"),
        ("sem_seg_head.pixel_decoder.mask_features.weight", (32, 1, 1, 1), "contradicts"),
    ],
)
def test_shapes_that_contradict_each_other(tmp_path, name, shape, message):
    with pytest.raises(CheckpointError, match=message):
        read(changed(tmp_path, **{name: np.ones(shape, np.float32)}))


def test_a_backbone_that_is_neither(tmp_path):
    weights = tiny.as_format(tiny.weights_of(tiny.RESNET), tiny.RESNET, "official")
    weights = {name.replace("backbone.", "backbone.focal."): w for name, w in weights.items()}
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"model": weights}))
    with pytest.raises(CheckpointError, match="neither ResNet nor Swin"):
        read(path)


def test_weights_that_share_too_much():
    """Tensors may look into one another's bytes, but not fill the memory that way."""
    tensors = tiny.stored(tiny.as_format(tiny.weights_of(tiny.RESNET), tiny.RESNET, "hf"))
    places = fit.check(tensors, tiny.RESNET, "hf")
    with pytest.raises(CheckpointError, match=r"claims \d+ bytes of weights in a file of 1024"):
        fit.collect(tensors, places, file_bytes=1024)


@pytest.mark.parametrize(
    "name", ["absent.pkl", "absent", "no/such/folder/model.pth", "a/b.pkl"]
)
def test_missing_files(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingFile, match=name):
        read(name)


def test_a_folder_without_a_config(tmp_path):
    with pytest.raises(MissingFile, match=r"no config\.json"):
        read(tmp_path)


def test_names_that_no_file_can_have(tmp_path):
    with pytest.raises(MissingFile):
        read("x" * 10_000)
    with pytest.raises(MissingFile):
        read("null\0character.pkl")


def test_unreadable_files(tmp_path, monkeypatch):
    import mmap

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    write_official(tiny.weights_of(tiny.RESNET), tmp_path / "a.pkl")
    monkeypatch.setattr(mmap, "mmap", denied)
    with pytest.raises(MissingFile, match="Permission denied"):
        read(tmp_path / "a.pkl")


def test_a_full_disk(tmp_path, monkeypatch):
    import errno

    from m2f.errors import DiskError
    from m2f.models.checkpoint import safetensors_file

    def full(_, stream):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(safetensors_file, "write", full)
    with pytest.raises(DiskError, match="full"):
        write_hf(tiny.weights_of(tiny.RESNET), tiny.RESNET, tiny.METADATA, tmp_path / "folder")
    assert tiny.leftovers(tmp_path) == []
