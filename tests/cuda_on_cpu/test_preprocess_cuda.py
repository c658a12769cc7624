"""Sessions that resize where the network runs: images go up whole, and nothing else differs."""

import dataclasses

import numpy as np
import pytest

import m2f
from m2f.config import Preprocess
from m2f.engine import Sizes
from m2f.errors import DeviceError
from m2f.plugins import library as files
from m2f.runtime import native, preprocess_cuda
from m2f.runtime.backend_trt import TrtBackend
from m2f.runtime.buffers import Slot, TensorSpec
from m2f.runtime.native_cuda import Kernels
from m2f.runtime.preprocess import Prepared, assemble
from m2f.runtime.preprocess_cuda import LARGEST_SIDE, Resizer
from tests.cuda_on_cpu.build import needs_compiler
from tests.images.test_resize import image_of
from tests.runtime import toy
from tests.runtime.stand_in.engine import write_engine

pytestmark = [
    needs_compiler,
    pytest.mark.skipif(native.library(1) is None, reason="m2f has no native library here"),
]
LARGEST = (4, 64, 96, 3)
INPUT = TensorSpec(name="image", dtype=np.dtype(np.uint8), largest=LARGEST)


@pytest.fixture
def bench(device, functions):
    """A resizer, and a slot with room for it and the network's input."""
    resizer = Resizer(Kernels(files.find(), functions), device, INPUT)
    slot = Slot(device, (INPUT, resizer.room), scratch_bytes=0)
    device.seal()
    yield resizer, slot
    device.synchronize(slot.stream)
    slot.close()


def sizes_up(device, monkeypatch):
    """Bytes of each upload from now on."""
    sizes, upload = [], device.upload

    def uploaded(pointer, memory, stream):
        sizes.append(memory.nbytes)
        upload(pointer, memory, stream)

    monkeypatch.setattr(device, "upload", uploaded)
    return sizes


def brought_down(device, slot, shape):
    tensor = slot.tensors["image"]
    device.download(tensor.bytes(shape), tensor.pointer, slot.stream)
    device.synchronize(slot.stream)
    return tensor.array(shape).copy()


def prepared(*sizes, antialias=True):
    """Images of the first of two sizes each, to be resized to the second."""
    return [
        Prepared(image_of(a, seed), b, antialias=antialias) for seed, (a, b) in enumerate(sizes)
    ]


@pytest.mark.parametrize("antialias", [True, False])
def test_a_batch_is_the_hosts(antialias, bench, device, functions, monkeypatch):
    resizer, slot = bench
    sizes = (((37, 53), (40, 61)), ((128, 17), (80, 10)), ((5, 7), (5, 7)))
    images = prepared(*sizes, antialias=antialias)
    images.append(images[-1])  # a batch that had to be filled up
    went_up = sizes_up(device, monkeypatch)
    assert resizer.enqueue(slot, images, (83, 61)) is True
    found = brought_down(device, slot, (4, 83, 61, 3))
    expected, _ = assemble(images, out=np.full_like(found, 7))
    assert np.array_equal(found, expected)
    pixels = 3 * (37 * 53 + 128 * 17 + 5 * 7)  # once each, in one copy
    tables = 4 * (40 * 5 + 61 * 5 + 80 * 7 + 10 * 7 + 5 * 5 + 7 * 5) * antialias
    assert len(went_up) == 1
    assert pixels + tables <= went_up[0] < pixels + tables + 4 * len(images)
    assert functions.launched == ["resize" if antialias else "resize_nearest"] * 4


def test_slices_of_images(bench, device):
    resizer, slot = bench
    image = Prepared(image_of((40, 90))[::2, ::-3], (11, 33))
    assert resizer.enqueue(slot, [image], (11, 33))
    assert np.array_equal(brought_down(device, slot, (1, 11, 33, 3))[0], image.pixels)


MOST = INPUT.nbytes // 3  # pixels there is room for, where nothing guarantees more


@pytest.mark.parametrize(
    ("sizes", "fits"),
    [
        ([(64, MOST // 64)], True),
        ([(64, MOST // 64), (1, 1)], False),
        ([(1, LARGEST_SIDE)], True),
        ([(LARGEST_SIDE + 1, 1)], False),
    ],
)
def test_images_that_are_too_large_are_the_hosts(sizes, fits, monkeypatch, request):
    monkeypatch.setattr(preprocess_cuda, "ROOM_BYTES", 1)
    resizer, slot = request.getfixturevalue("bench")
    functions = request.getfixturevalue("functions")
    images = prepared(*((size, (64, 96)) for size in sizes))
    assert resizer.enqueue(slot, images, (64, 96)) is fits
    assert functions.launched == ["resize"] * fits


def test_tables_of_any_size_have_room(bench):
    resizer, _ = bench
    library, pixels = native.library(1), preprocess_cuda.ROOM_BYTES
    rng = np.random.default_rng(0)
    sources = [1, 2, LARGEST_SIDE - 1, LARGEST_SIDE, *rng.integers(1, LARGEST_SIDE, 200)]
    for source in map(int, sources):
        rows, columns = (
            max(t * (2 + library.resize_stride(source, t)) for t in range(1, side + 1))
            for side in LARGEST[1:3]
        )
        assert pixels + LARGEST[0] * 4 * (rows + columns + 1) <= resizer.room.nbytes


RULES = {
    "shortest_edge": Preprocess(resize="shortest_edge", min_size=40, max_size=90),
    "stretch": Preprocess(resize="stretch", size=(64, 96)),
    "hf_aspect": Preprocess(resize="hf_aspect", min_size=32, max_size=96),
    "mmdet": Preprocess(resize="mmdet", min_size=50, max_size=90),
    "none": Preprocess(resize="none"),
}
CAMERA = (54, 96)  # of a picture that is the first of a session


def pictures(rules):
    sizes = [CAMERA, (40, 60), (33, 47), (61, 20)]
    if rules.resize != "none":
        sizes += [(201, 307), (300, 70)]
    return [toy.picture(*size)[0] for size in sizes]


@pytest.fixture
def bundle(tmp_path, machine):
    """``bundle(rules)`` writes one, with an engine."""

    def write(rules):
        path = tmp_path / "toy"
        toy.write(path, batch=(1, 2), height=(1, 64), width=(1, 96), preprocess=rules)
        write_engine(path, sizes=Sizes(min=(1, 1, 1), opt=(1, 64, 96), max=(2, 64, 96)))
        return path

    return write


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_labels_are_the_hosts(rules, bundle, device, functions):
    path = bundle(rules)
    with m2f.load(path, threads=1) as cpu, m2f.load(path, device="cuda") as session:
        first, *rest = pictures(rules)
        session([first, first])
        for _ in range(2):
            found, expected = session([first, *rest]), cpu([first, *rest])
            for one, other in zip(found, expected, strict=True):
                assert np.array_equal(one.segment_ids, other.segment_ids)
        kernel = "resize_nearest" if rules.resize == "mmdet" else "resize"
        assert functions.launched.count(kernel) == 2 + 2 * (1 + len(rest))


def test_an_image_goes_up_and_a_label_map_comes_down(bundle, device, monkeypatch):
    with m2f.load(bundle(RULES["shortest_edge"]), device="cuda", task="semantic") as session:
        image = toy.picture(*CAMERA)[0]
        extent = (1, *session.prepare(image).size)
        session.backend.warm_up(extent)
        captured = device.calls.count("begin_capture")
        device.seal()
        went_up, came_down, download = sizes_up(device, monkeypatch), [], device.download
        device.download = lambda memory, *where: (
            came_down.append(memory.nbytes),
            download(memory, *where),
        )
        expected = session(image).label_map
        tables = 4 * (2 + 5) * (40 + 71)
        # Then class probabilities and which masks; its size is in the graph.
        assert went_up == [image.nbytes + tables, 4 * 3 * 3, 8 * 3]
        assert came_down == [8, expected.nbytes, 0]  # how many are not finite, and no counts
        assert device.calls.count("begin_capture") == captured
        device.is_sealed = False


@pytest.mark.parametrize("status", [1, 209], ids=["larger than a grid", "no code for this GPU"])
def test_what_the_kernels_refuse_the_host_does(status, bundle, functions):
    functions.answers = {"resize": status}
    path, images = bundle(RULES["stretch"]), pictures(RULES["stretch"])
    with m2f.load(path, threads=1) as cpu, m2f.load(path, device="cuda") as session:
        for found, expected in zip(session(images), cpu(images), strict=True):
            assert np.array_equal(found.segment_ids, expected.segment_ids)
    assert "resize" not in functions.launched


def test_a_gpu_that_fails(bundle, functions):
    with m2f.load(bundle(RULES["stretch"]), device="cuda") as session:
        image = toy.picture(*CAMERA)[0]
        expected = session(image).segment_ids
        functions.answers = {"resize": 700}
        with pytest.raises(DeviceError, match="m2f_cuda_resize failed: CUDA error 700"):
            session(image)
        functions.answers = {}
        assert np.array_equal(session(image).segment_ids, expected)  # and it goes on


# Bugs in the code under test, each found by what the stand-in checks.


def runs_on_another_stream(patch):
    launch = Kernels.launch

    def launched(self, device, name, *given, stream):
        return launch(self, device, name, *given, stream=0 if name == "resize" else stream)

    patch.setattr(Kernels, "launch", launched)


def brings_up_half(patch):
    def uploaded(self, device, stream):
        half = self._tensor.staging[: self._end // 2]
        device.upload(self._tensor.pointer, half, stream)

    patch.setattr(preprocess_cuda._Stack, "upload", uploaded)


def stages_while_it_goes_up(patch):
    patch.setattr(TrtBackend, "_return", lambda self, lane: self._free.appendleft(lane))


def takes_the_pixels_of_the_first(patch):
    staged = Resizer._staged

    def mixed_up(self, image, stack):
        first = stack._tensor.pointer
        return dataclasses.replace(staged(self, image, stack), pixels=first)

    patch.setattr(Resizer, "_staged", mixed_up)


def writes_beyond_the_input(patch):
    of = preprocess_cuda.DeviceSize.of

    def larger(image, resized, padded, stride):
        return of(image, resized, (padded[0] + 1, padded[1]), stride)

    patch.setattr(preprocess_cuda.DeviceSize, "of", larger)


BUGS = [
    runs_on_another_stream,
    brings_up_half,
    stages_while_it_goes_up,
    takes_the_pixels_of_the_first,
    writes_beyond_the_input,
]


def use(path, expected):
    rules = RULES["stretch"]
    with m2f.load(path, device="cuda", threads=1) as session:
        for _ in range(2):
            found = session(pictures(rules))
            for one, other in zip(found, expected, strict=True):
                assert np.array_equal(one.segment_ids, other.segment_ids), "another result"
        for picture in pictures(rules):  # given up before it is done
            batch = session.batch([session.prepare(picture)])
            session.backend.submit_images(*batch, threads=1).release()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_bug_is_found(bug, bundle, device, monkeypatch):
    path = bundle(RULES["stretch"])
    with m2f.load(path, threads=1) as cpu:
        expected = cpu(pictures(RULES["stretch"]))
    use(path, expected)
    with monkeypatch.context() as patch:
        bug(patch)
        with pytest.raises(AssertionError, match=r"another|before it was|freed while|within"):
            use(path, expected)
    device.held = list  # what a bug leaves behind is not looked at
