"""Other programs with our weights give what our reference gives."""

import dataclasses

import numpy as np
import pytest

from m2f.bench.checks import LIMITS, checked
from m2f.bench.entries import reference_entry
from m2f.bench.peers import PEERS, peers_of
from m2f.bench.peers.hugging_face import onnx_from_checkpoint
from m2f.config import Metadata
from m2f.errors import UsageError
from m2f.models.categories import categories_generic
from tests.cli.conftest import TINY
from tests.export.models import small
from tests.weights import synthetic

METADATA = Metadata(
    task="panoptic", tasks=("panoptic",), categories=categories_generic(TINY.classes)
)
SIZE = (64, 96)
IMAGE = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def tiny():
    return dataclasses.replace(
        small("basic_blocks"), config=TINY, weights=synthetic(TINY), metadata=METADATA
    )


@pytest.fixture(scope="module")
def right(tiny):
    return reference_entry(tiny, threads=1).contestant.bind(IMAGE)()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("peers")


@pytest.mark.parametrize("key", [p.key for p in PEERS if p.runtime != "compiled"])
def test_peer(key, tiny, right, cache):
    (peer,) = peers_of((key,))
    if peer.missing:
        pytest.skip(f"{', '.join(peer.missing)} not installed")
    opened = peer.open(tiny, SIZE, threads=1, cache=cache)
    run = opened.bind(IMAGE)
    found = checked(run(), right, against="PyTorch", precision=peer.precision)
    assert found.passed, found
    assert found.limit == LIMITS[peer.precision]
    if peer.precision == "bf16":
        assert found.mask_error > LIMITS["fp32"]  # it did compute in BF16
    first = run()
    assert all(np.array_equal(a, b) for a, b in zip(first, run(), strict=True))
    opened.close()


def test_an_export_is_made_once(tiny, cache, monkeypatch):
    pytest.importorskip("onnxscript")
    path = onnx_from_checkpoint(tiny, SIZE, cache)
    made = path.stat().st_mtime_ns
    assert onnx_from_checkpoint(tiny, SIZE, cache).stat().st_mtime_ns == made

    def stop(*words):
        raise KeyboardInterrupt

    monkeypatch.setattr("m2f.bench.peers.hugging_face._export", stop)
    other = dict(tiny.weights)
    name = "transformer_decoder.norm.bias"
    other[name] = other[name] + 1
    with pytest.raises(KeyboardInterrupt):  # other weights need another export
        onnx_from_checkpoint(dataclasses.replace(tiny, weights=other), SIZE, cache)
    assert [p.name for p in cache.iterdir()] == [path.parent.name]  # nothing half-made


def test_unknown_peer():
    with pytest.raises(UsageError, match="no peer is named 'tensorrt'; there are eager"):
        peers_of(("tensorrt",))


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    (peer,) = peers_of(("openvino",))
    assert (peer.missing, peer.install) == (("openvino",), "pip install openvino")


def test_a_model_that_transformers_cannot_express_is_left_out():
    odd = small("bottlenecks_and_plain_pyramid")
    with pytest.raises(UsageError, match="always has a deformable pixel decoder"):
        peers_of(("eager",))[0].open(odd, SIZE, threads=1, cache=None)
