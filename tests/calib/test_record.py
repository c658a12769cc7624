"""Recordings: the same however they were interrupted, and of one thing only."""

import dataclasses
import errno
import shutil

import numpy as np
import onnx
import pytest
from PIL import Image

from m2f.bundle import Bundle
from m2f.calib import cache
from m2f.calib import record as record_module
from m2f.calib.images import LEAST
from m2f.calib.images import pictures as find
from m2f.calib.record import record, subject_of
from m2f.errors import CheckFailed, DataError, DiskError, UsageError
from tests.calib.test_probe import tensors_of


@pytest.fixture(scope="module")
def sampled(bundle):
    return tensors_of(onnx.load(str(bundle.model_path)))


@pytest.fixture(scope="module")
def whole(bundle, pictures, sampled):
    return record(bundle, find([pictures]), sampled, threads=1)


def assert_same(a, b):
    assert a.images == b.images
    assert list(a.tensors) == list(b.tensors)
    for name, one in a.tensors.items():
        other = b.tensors[name]
        for part in ("low", "high", "total"):
            assert np.array_equal(getattr(one, part), getattr(other, part)), (name, part)
        assert (one.histogram is None) == (other.histogram is None)
        if one.histogram is not None:
            assert np.array_equal(one.histogram.counts, other.histogram.counts)
            assert one.histogram.exponent == other.histogram.exponent


def test_saved_and_loaded(whole, pictures, tmp_path):
    cache.save(whole, tmp_path / "cache.npz")
    assert_same(whole, cache.load(tmp_path / "cache.npz", whole.subject, find([pictures])))


@pytest.mark.parametrize("after", [1, 5, 12])
@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_run_goes_on(bundle, pictures, sampled, whole, tmp_path, after, stop):
    kept, images = tmp_path / "cache.npz", find([pictures])
    seen = []

    def interrupt(number, count, name):
        seen.append(number)
        if number == after:
            raise stop

    with pytest.raises(stop) as caught:
        record(bundle, images, sampled, kept=kept, threads=1, progress=interrupt)
    if stop is KeyboardInterrupt:
        assert f"after {after - 1} of 12 images" in str(caught.value)
    again = []
    done = record(
        *(bundle, images, sampled), kept=kept, threads=1, progress=lambda n, *_: again.append(n)
    )
    assert again == list(range(after, 13))
    assert_same(done, whole)


def test_more_images_go_on_from_fewer(bundle, pictures, sampled, whole, tmp_path):
    kept, images = tmp_path / "cache.npz", find([pictures])
    record(bundle, images[:9], sampled, kept=kept, threads=1)
    assert_same(record(bundle, images, sampled, kept=kept, threads=1), whole)


def test_limits_nest(pictures):
    chosen = [{p.path for p in find([pictures], limit=n)} for n in (8, 10, 12, 99)]
    assert [len(c) for c in chosen] == [8, 10, 12, 12]
    assert chosen[0] < chosen[1] < chosen[2] == chosen[3]


def of_another_model(subject):
    return dataclasses.replace(subject, model="f" * 64), "ffffffffffff"


def of_another_size(subject):
    rules = {**subject.preprocess, "min_size": "640"}
    return dataclasses.replace(subject, preprocess=rules), "min_size is 800, here 640"


def of_other_tensors(subject):
    return dataclasses.replace(subject, watched="e" * 64), "eeeeeeeeeeee"


@pytest.mark.parametrize("change", [of_another_model, of_another_size, of_other_tensors])
def test_a_cache_of_something_else_is_refused(whole, pictures, tmp_path, change):
    kept = tmp_path / "cache.npz"
    cache.save(whole, kept)
    subject, text = change(whole.subject)
    with pytest.raises(UsageError, match=text) as caught:
        cache.load(kept, subject, find([pictures]))
    assert "cache.npz" in str(caught.value)


def test_a_cache_of_other_images_is_refused(whole, pictures, tmp_path):
    cache.save(whole, tmp_path / "cache.npz")
    with pytest.raises(UsageError, match=r"2 of the cache's 12 images are not among the 10"):
        cache.load(tmp_path / "cache.npz", whole.subject, find([pictures])[2:])


def test_a_damaged_cache_is_refused(whole, pictures, tmp_path):
    kept = tmp_path / "cache.npz"
    cache.save(whole, kept)
    content = kept.read_bytes()
    for bad in (b"", b"nothing", content[:-200], content[: len(content) // 2]):
        kept.write_bytes(bad)
        with pytest.raises(DataError, match=r"cache\.npz"):
            cache.load(kept, whole.subject, find([pictures]))


def test_the_subject_tells_bundles_apart(bundle, sampled, tmp_path):
    subject = subject_of(bundle, sampled)
    assert subject == subject_of(
        Bundle.open(shutil.copytree(bundle.path, tmp_path / "b")), sampled
    )
    assert subject != subject_of(bundle, dict(list(sampled.items())[1:]))


def test_too_few_images(pictures, tmp_path):
    files = sorted(pictures.iterdir())
    with pytest.raises(DataError, match=rf"7 images, where calibration needs {LEAST}"):
        find(files[:7])
    for i in range(20):
        shutil.copy(files[0], tmp_path / f"{i}.png")
    with pytest.raises(DataError, match=r"20 images, of which 1 are different"):
        find([tmp_path])
    with pytest.raises(UsageError, match="limit of 3"):
        find([pictures], limit=3)


def test_images_that_only_their_files_tell_apart(bundle, sampled, tmp_path):
    """Of different sizes, and one gray all over."""
    for i in range(10):
        Image.new("RGB", (300 + i, 200), "gray").save(tmp_path / f"{i}.png")
    images = find([tmp_path])
    with pytest.raises(DataError, match=r"only \d different images in 10"):
        record(bundle, images, sampled, threads=1)


def test_a_broken_weight_is_found_and_named(bundle, pictures, sampled, tmp_path):
    broken = Bundle.open(shutil.copytree(bundle.path, tmp_path / "broken.m2f"))
    model = onnx.load(str(broken.model_path))
    name = "pixel_decoder.layers.0.linear1.weight"
    (weight,) = (i for i in model.graph.initializer if i.name == name)
    array = onnx.numpy_helper.to_array(weight).copy()
    array[3, 5] = np.nan
    weight.CopyFrom(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, str(broken.model_path))
    with pytest.raises(CheckFailed, match=r"00\.png: tensor pixel_decoder\.layers\.0\.Relu"):
        record(broken, find([pictures]), sampled, threads=1)


def test_a_full_disk(bundle, pictures, sampled, tmp_path, monkeypatch):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(record_module, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(DiskError, match="the disk is full"):
        record(bundle, find([pictures]), sampled, kept=tmp_path / "cache.npz", threads=1)
    assert not any(tmp_path.iterdir())
