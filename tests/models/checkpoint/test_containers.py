"""Files as training programs write them, read without PyTorch, against what was written."""

import collections
import io
import pickle
import types

import numpy as np
import pytest

from m2f.models.checkpoint import pickles, read, torch_file, write_official
from m2f.models.checkpoint.container import open_file
from m2f.models.checkpoint.safetensors_file import write
from tests.models.checkpoint import tiny

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 7


def arrays(path):
    return {name: tensor.array() for name, tensor in open_file(path).weights.items()}


def save(torch, value, path, *, is_legacy=False):
    torch.save(value, path, _use_new_zipfile_serialization=not is_legacy)


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_in_pickles(tmp_path, protocol):
    values = {
        "plain": X,
        "transposed": X.T,
        "sliced": X[:, ::2],
        "big_endian": X.astype(">f4"),
        "half": X.astype(np.float16),
        "double": X.astype(np.float64),
        "number": np.array(2.5, np.float32),
        "count": np.array([3, -1]),
    }
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"model": values, "__author__": "x"}, protocol))
    found = arrays(path)
    assert list(found) == list(values)
    for name, value in values.items():
        wide = np.float32 if name == "half" else value.dtype.newbyteorder("=")
        assert found[name].dtype == wide
        assert found[name].flags.c_contiguous
        assert found[name].flags.writeable
        np.testing.assert_array_equal(found[name], value)


def test_a_pickle_of_python_2():
    # ndarray.__reduce__ as Python 2 wrote it: raw bytes as a byte string, old module names.
    raw = np.array([1.5, -2.0], "<f4").tobytes()
    written = (
        b"\x80\x02}U\x01wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b"
        b"\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff"
        b"\xffJ\xff\xff\xff\xffK\x00tb\x89U" + bytes([len(raw)]) + raw + b"tbs."
    )
    expected = pickle.loads(written, encoding="latin1")["w"]
    found = pickles.load(io.BytesIO(written), len(written), calls=torch_file.CALLS)["w"]
    np.testing.assert_array_equal(found.array(), expected)


def training_state(torch):
    """Weights in all the ways in which tensors come to lie in a file."""
    base = torch.from_numpy(X.copy())
    state = collections.OrderedDict(
        plain=base,
        shared=base[1, :, 1:],
        transposed=base.permute(2, 0, 1),
        half=base.half(),
        bfloat16=base.bfloat16(),
        double=base.double(),
        parameter=torch.nn.Parameter(base * 2),
        number=torch.tensor(2.5),
        count=torch.tensor(7),
        flags=torch.tensor([True, False]),
    )
    state._metadata = {"": {"version": 2}}
    return state


@pytest.mark.parametrize("is_legacy", [False, True], ids=["zip", "legacy"])
def test_tensors_in_torch_files(tmp_path, torch, is_legacy):
    state = training_state(torch)
    optimizer = torch.optim.AdamW([state["parameter"]])
    state["parameter"].sum().backward()
    optimizer.step()
    saved = {"epoch": 3, "state_dict": state, "optimizer": optimizer.state_dict()}
    save(torch, saved, tmp_path / "a.pth", is_legacy=is_legacy)
    found = arrays(tmp_path / "a.pth")
    assert list(found) == list(state)
    for name, tensor in state.items():
        wide = tensor.float() if name in ("half", "bfloat16") else tensor
        expected = wide.detach().numpy()
        assert found[name].dtype == expected.dtype
        np.testing.assert_array_equal(found[name], expected)


def test_tensors_that_share_storage_in_a_legacy_view(tmp_path, torch):
    flat = torch.arange(10.0)
    save(torch, {"head": flat[:4], "tail": flat[6:]}, tmp_path / "a.pth", is_legacy=True)
    found = arrays(tmp_path / "a.pth")
    assert found["head"].tolist() == [0, 1, 2, 3]
    assert found["tail"].tolist() == [6, 7, 8, 9]


def test_tensors_in_a_plain_pickle(tmp_path, torch):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"model": {"w": torch.from_numpy(X.copy())}}))
    np.testing.assert_array_equal(arrays(path)["w"], X)


def test_a_tensor_with_attributes(tmp_path, torch):
    tensor = torch.from_numpy(X.copy())
    tensor.note = "kept by a training program"
    save(torch, {"model": {"w": tensor}}, tmp_path / "a.pth")
    np.testing.assert_array_equal(arrays(tmp_path / "a.pth")["w"], X)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_prefixes_of_wrapped_models(tmp_path, prefix):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"model": {prefix + "a": X, prefix + "b": X}}))
    assert list(arrays(path)) == ["a", "b"]


@pytest.mark.parametrize("is_legacy", [False, True], ids=["zip", "legacy"])
def test_objects_of_training_programs_are_looked_past(tmp_path, torch, monkeypatch, is_legacy):
    import sys

    module = types.ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def __init__(self, log):
            self.log = log

        def __setstate__(self, state):
            raise AssertionError("was rebuilt")

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module.__name__, "HistoryBuffer"
    module.HistoryBuffer = HistoryBuffer
    for name in ("mmengine", "mmengine.logging", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    meta = {
        "history": HistoryBuffer(np.arange(3.0)),
        "loss": np.float64(0.25),
        "seen": {1, 2},
        "palette": np.array(["a", "b"], dtype=object),
        "dataset_meta": {"classes": ("cat", "dog")},
        ("a", "tuple"): 1,
    }
    path = tmp_path / "a.pth"
    save(torch, {"meta": meta, "state_dict": {"w": torch.ones(2)}}, path, is_legacy=is_legacy)
    monkeypatch.undo()
    contents = open_file(path)
    assert contents.weights["w"].array().tolist() == [1, 1]
    assert contents.meta["meta"]["loss"] == 0.25
    assert contents.meta["meta"]["dataset_meta"] == {"classes": ("cat", "dog")}


def test_safetensors_agree_with_the_official_package(tmp_path):
    official = pytest.importorskip("safetensors.numpy")
    values = {"a": X, "half": X.astype(np.float16), "n": np.array([1, -2]), "s": np.array(1.0)}
    with (tmp_path / "ours.safetensors").open("wb") as stream:
        write({**values, "a": X.T.copy().T}, stream)
    official.save_file(values, tmp_path / "theirs.safetensors")
    theirs = official.load_file(tmp_path / "ours.safetensors")
    ours = arrays(tmp_path / "theirs.safetensors")
    for name, value in values.items():
        np.testing.assert_array_equal(theirs[name], value)
        np.testing.assert_array_equal(ours[name], value)
        assert theirs[name].dtype == value.dtype


def test_bfloat16_in_safetensors(tmp_path, torch):
    official = pytest.importorskip("safetensors.torch")
    tensor = torch.from_numpy(X.copy()).bfloat16()
    official.save_file({"w": tensor}, tmp_path / "a.safetensors")
    np.testing.assert_array_equal(
        arrays(tmp_path / "a.safetensors")["w"], tensor.float().numpy()
    )


def test_torch_loads_our_pth_without_trust(tmp_path, torch):
    weights = tiny.weights_of(tiny.SWIN)
    write_official(weights, tmp_path / "a.pth")
    model = torch.load(tmp_path / "a.pth", weights_only=True)["model"]
    assert model._metadata["sem_seg_head"]["version"] == 2
    expected = tiny.as_format(weights, tiny.SWIN, "official")
    assert tiny.same({k: v.numpy() for k, v in model.items()}, expected)


def test_pickle_loads_our_pkl(tmp_path):
    weights = tiny.weights_of(tiny.RESNET)
    write_official(weights, tmp_path / "a.pkl")
    loaded = pickle.loads((tmp_path / "a.pkl").read_bytes(), encoding="latin1")
    assert loaded["__author__"]  # else detectron2 takes the file for one of Caffe2's
    assert type(loaded["model"]) is collections.OrderedDict
    assert loaded["model"]._metadata == {"sem_seg_head": {"version": 2}}
    assert tiny.same(loaded["model"], tiny.as_format(weights, tiny.RESNET, "official"))
    assert b"numpy._core" not in (tmp_path / "a.pkl").read_bytes()  # unknown to NumPy 1


@pytest.mark.parametrize("is_legacy", [False, True], ids=["zip", "legacy"])
def test_a_whole_checkpoint_in_both_torch_formats(tmp_path, torch, is_legacy):
    weights = tiny.weights_of(tiny.SWIN)
    state = {
        name: torch.from_numpy(w.copy())
        for name, w in tiny.as_format(weights, tiny.SWIN, "mmdet").items()
    }
    save(torch, {"state_dict": state}, tmp_path / "a.pth", is_legacy=is_legacy)
    found = read(tmp_path / "a.pth")
    assert found.format == "mmdet"
    assert tiny.same(found.weights, weights)
