"""Sessions that post-process where the masks lie: as on the CPU, with little to bring down."""

from types import SimpleNamespace

import numpy as np
import pytest

import m2f
from m2f.errors import CheckFailed, DeviceError, M2FError
from m2f.plugins import library as files
from m2f.runtime import native, native_cuda
from m2f.runtime.buffers import Slot, TensorSpec
from m2f.runtime.device import DLPACK_CUDA
from m2f.runtime.native import Route
from m2f.runtime.native_cuda import DeviceLibrary, DeviceMasks, Kernels
from tests.cuda_on_cpu.build import needs_compiler
from tests.cuda_on_cpu.test_images import ROUTES, masks_of
from tests.runtime import toy
from tests.runtime.stand_in.engine import write_engine

pytestmark = [
    needs_compiler,
    pytest.mark.skipif(native.library(1) is None, reason="m2f has no native library here"),
]
QUERIES, CLASSES = 7, 19


class Bench:
    """One image's masks on a device, the second of a batch, and the library for them."""

    def __init__(self, device, functions, masks):
        self.masks = masks
        classes = TensorSpec(
            name="class_logits",
            dtype=np.dtype(np.float32),
            largest=(2, len(masks), CLASSES + 1),
        )
        logits = TensorSpec(
            name="mask_logits", dtype=np.dtype(np.float32), largest=(2, *masks.shape)
        )
        specs = (classes, logits, *native_cuda.room(classes, logits))
        self.slot = Slot(device, specs, scratch_bytes=0)
        device.seal()
        tensor = self.slot.tensors["mask_logits"]
        tensor.array((2, *masks.shape))[1] = masks
        whole = tensor.bytes((2, *masks.shape))
        device.upload(tensor.pointer, whole, self.slot.stream)
        device.synchronize(self.slot.stream)
        whole[:] = 0
        self.there = DeviceMasks(tensor.pointer + masks.nbytes, masks.shape)
        found = Kernels(files.find(), functions)
        self.library = DeviceLibrary(found, device, self.slot, tensor, threads=1)


@pytest.fixture
def make(device, functions):
    benches = []

    def make_bench(masks):
        benches.append(Bench(device, functions, masks))
        return benches[-1]

    yield make_bench
    for bench in benches:
        device.synchronize(bench.slot.stream)  # an error leaves things there
        bench.slot.close()


def answers(library, masks, route):
    """Of all three kernels, in arrays."""
    scores = np.float32([0.9, 0.3, 0.8, 0.7, 0.95])
    kept = np.array([6, 1, 0, 2, 4])
    rules = {"threshold": 0.5, "is_weighted": False, "as_probabilities": False}
    weights = np.random.default_rng(1).dirichlet(np.ones(CLASSES), QUERIES)
    return (
        *library.panoptic(masks, kept, scores, route, **rules),
        library.semantic(masks, weights.astype(np.float32), route, sums_first=False),
        *library.instance(masks, np.array([3, 1, 2, 5]), route),
    )


def check_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        if a.dtype == np.float64:  # the CPU's sums are of floats along a tile's columns
            assert a == pytest.approx(b, rel=16 * 2.0**-24)
        else:
            assert (a == b).all()


# A larger result than there is room for is not the kernels', and is looked at below.
@pytest.mark.parametrize("name", ["one_pixel", "whole_tiles", "part_of_a_mask"])
def test_answers_are_the_cpus(name, make, functions):
    size, route = ROUTES[name]
    bench = make(masks_of(size))
    expected = answers(native.library(1), bench.masks, route)
    check_same(answers(bench.library, bench.there, route), expected)
    assert functions.launched == ["panoptic", "semantic", "instance"]


def test_no_instances_at_all(make):
    size, route = ROUTES["whole_tiles"]
    bench = make(masks_of(size))
    found = bench.library.instance(bench.there, np.arange(0), route)
    check_same(found, native.library(1).instance(bench.masks, np.arange(0), route))


@pytest.mark.parametrize("status", [1, 209], ids=["larger than a grid", "no code for this GPU"])
def test_what_the_kernels_refuse_the_cpu_does(status, make, functions):
    size, route = ROUTES["one_resize"]
    bench = make(masks_of(size))
    functions.answers = dict.fromkeys(
        ("panoptic", "semantic", "instance", "count_not_finite"), status
    )
    expected = answers(native.library(1), bench.masks, route)
    check_same(answers(bench.library, bench.there, route), expected)
    assert bench.library.count_not_finite(bench.there) == 0
    assert functions.launched == []


def test_a_result_larger_than_its_room_is_the_cpus(make, functions):
    size, _ = ROUTES["one_resize"]  # 6x9: room for 24x36 labels
    bench = make(masks_of(size))
    for output, launched in (((24, 36), True), ((24, 37), False)):
        functions.launched.clear()
        route = Route((24, 36), (24, 36), output)
        expected = native.library(1).semantic(
            bench.masks, np.eye(QUERIES, dtype=np.float32), route, sums_first=False
        )
        found = bench.library.semantic(
            bench.there, np.eye(QUERIES, dtype=np.float32), route, sums_first=False
        )
        assert (found == expected).all()
        assert (functions.launched == ["semantic"]) == launched


@pytest.mark.parametrize(
    "route",
    [
        Route((24, 36), (25, 36), (24, 36)),
        Route((24, 36), (24, 36), (24, 36), (0.0, 9.0)),
        Route((24, 1 << 25), (24, 36), (24, 36)),
        Route((24, 36), (24, 0), (24, 36)),
    ],
)
def test_sizes_that_do_not_fit(route, make, functions):
    bench = make(masks_of((6, 9)))
    with pytest.raises(M2FError) as expected:
        native.library(1).instance(bench.masks, np.arange(2), route)
    with pytest.raises(M2FError) as found:
        bench.library.instance(bench.there, np.arange(2), route)
    assert str(found.value) == str(expected.value)
    assert functions.launched == []


def test_a_gpu_that_fails(make, functions):
    size, route = ROUTES["one_resize"]
    bench = make(masks_of(size))
    functions.answers = {"instance": 700}
    with pytest.raises(DeviceError, match="m2f_cuda_instance failed: CUDA error 700"):
        bench.library.instance(bench.there, np.arange(2), route)


@pytest.mark.parametrize("bad", [0, 1, 3])
def test_values_that_are_not_finite_are_counted(bad, make, functions):
    masks = masks_of((6, 9))
    masks.ravel()[[0, 200, masks.size - 1][:bad]] = [np.nan, np.inf, -np.inf][:bad]
    bench = make(masks)
    assert bench.library.count_not_finite(bench.there) == bad
    assert functions.launched == ["count_not_finite"]
    assert bench.library.count_not_finite(masks) == bad  # of the host's, on the host


@pytest.fixture
def bundle(tmp_path, machine):
    path = toy.write(tmp_path / "toy", batch=(1, 2), height=(1, 64), width=(1, 96))
    write_engine(path)
    return path


def pictures():
    return [toy.picture(*size)[0] for size in ((64, 96), (40, 60), (33, 47))]


def shown(prediction):
    """All that two predictions could differ in; scores are of sums in another order."""
    pixels = getattr(prediction, "map_", None)
    masks = getattr(prediction, "packed", None)
    segments = [(s.id, s.label, s.area, s.box) for s in prediction.segments]
    return segments, None if pixels is None else pixels.tolist(), masks and masks.bits.tolist()


@pytest.mark.parametrize("convention", ["official", "hf"])
@pytest.mark.parametrize("task", ["panoptic", "semantic", "instance"])
def test_a_session(task, convention, bundle, functions, device):
    options = {"task": task, "convention": convention}
    with (
        m2f.load(bundle, threads=1, **options) as cpu,
        m2f.load(bundle, device="cuda", **options) as session,
    ):
        session.backend.warm_up((2, 64, 96), (1, 33, 47))
        device.seal()
        expected = list(map(shown, cpu(pictures())))
        for _ in range(2):
            assert list(map(shown, session(pictures()))) == expected
        assert shown(session(pictures()[0])) == expected[0]
        assert functions.launched.count(task) == 7
        device.is_sealed = False


def test_masks_stay_where_they_are_until_somebody_asks(bundle, device):
    with m2f.load(bundle, device="cuda", task="semantic") as session:
        session(pictures()[0])
        device.calls.clear()
        sizes = []
        download = device.download

        def downloaded(memory, pointer, stream):
            sizes.append(memory.nbytes)
            download(memory, pointer, stream)

        device.download = downloaded
        session(pictures()[0])
        # Class logits, how many masks are not finite, the labels, no counts.
        assert sizes == [3 * 4 * 4, 8, 64 * 96 * 4, 0]
        image = session.prepare(pictures()[0])
        sizes.clear()
        class_logits, mask_logits = session.logits([image])
        assert sizes[-1] == mask_logits.nbytes
    with m2f.load(bundle, threads=1) as cpu:
        expected = cpu.logits([image])
    assert all(map(np.array_equal, (class_logits, mask_logits), expected))


def test_masks_that_are_not_finite(bundle, device, monkeypatch):
    with m2f.load(bundle, device="cuda") as session:
        session(pictures()[0])
        monkeypatch.setattr(DeviceLibrary, "count_not_finite", lambda self, values: 5)
        with pytest.raises(CheckFailed, match="5 of "):
            session(pictures()[0])


@pytest.mark.parametrize(("version", "fits"), [(None, False), (-1, False), (0, True)])
def test_which_library_has_the_kernels(version, fits, device, monkeypatch):
    """One built without CUDA, one of another interface, and one that fits."""
    assert native.library() is not None  # opened before
    loaded = SimpleNamespace()
    if version is not None:
        loaded.m2f_cuda_images_version = lambda: native_cuda.VERSION + version
    monkeypatch.setattr(native_cuda.ctypes, "CDLL", lambda path: loaded)
    assert native_cuda.kernels(device) is None  # which is no GPU of CUDA's
    device.dlpack = (DLPACK_CUDA, 0)
    assert native_cuda.kernels(device) == (Kernels(files.find(), loaded) if fits else None)


def test_a_session_without_the_kernels(bundle, device, functions, monkeypatch):
    monkeypatch.setattr("m2f.runtime.backend_trt.kernels", lambda device: None)
    with m2f.load(bundle, device="cuda") as session, m2f.load(bundle, threads=1) as cpu:
        expected = list(map(shown, cpu(pictures())))
        assert list(map(shown, session(pictures()))) == expected
    assert functions.launched == []
