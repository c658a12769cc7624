"""The GPU runtime on a stand-in that checks every call; results equal the CPU's bit for bit."""

import gc

import numpy as np
import pytest

from m2f.bundle import Bundle
from m2f.errors import DeviceError, ImageError, ShapeError, UsageError
from m2f.runtime.backend_ort import OrtBackend
from m2f.runtime.backend_trt import SIZES_KEPT, TrtBackend
from tests.runtime import toy
from tests.runtime.stand_in import tensorrt
from tests.runtime.stand_in.device import Misuse, StandInDevice
from tests.runtime.stand_in.engine import write_engine


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    path = toy.write(tmp_path_factory.mktemp("gpu") / "toy", height=(1, 256), width=(1, 256))
    write_engine(path)
    return path


@pytest.fixture(scope="session")
def cpu(bundle):
    with OrtBackend(bundle / "model.onnx", threads=1) as backend:
        yield backend


@pytest.fixture
def device():
    return StandInDevice()


@pytest.fixture
def make(bundle, device):
    """Opens the engine; whatever happens, nothing may be held afterwards."""
    opened = []

    def open_engine(**options):
        (engine,) = (bundle / "engines").glob("*.engine")
        trt = tensorrt.module(device)
        backend = TrtBackend(engine, device, bundle=Bundle.open(bundle), trt=trt, **options)
        opened.append(backend)
        return backend

    yield open_engine
    for backend in opened:
        backend.close()
    assert device.held() == []


@pytest.fixture
def backend(make):
    return make()


def batch(*shape, seed=0):
    """A batch of noise whose images are smaller than it."""
    rng = np.random.default_rng([seed, *shape])
    image = rng.integers(0, 256, (*shape, 3), np.uint8)
    sizes = np.array(
        [(max(1, shape[1] - i), max(1, shape[2] - 2 * i)) for i in range(shape[0])]
    )
    return image, sizes.astype(np.int64)


def same(found, expected):
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_results_are_the_cpus(backend, cpu):
    assert backend.takes_image_size
    assert backend.name == "TensorRT 11.4.0, fp32, Test RTX 1"
    for seed in range(4):  # as it is, captured, and twice from the graph
        for shape in ((1, 64, 96), (4, 128, 192), (1, 33, 47), (3, 1, 1)):
            given = batch(*shape, seed=seed)
            assert same(backend.run(*given), cpu.run(*given)), (seed, shape)


def test_a_size_becomes_a_graph(backend, device):
    for _ in range(5):
        backend.run(*batch(1, 64, 96))
    # Two slots: each runs the size once, captures it the second time, and then launches.
    assert device.calls.count("begin_capture") == 2
    assert device.calls.count("launch") == 3


def test_without_graphs(make, cpu, device):
    backend = make(graphs=False)
    for seed in range(3):
        given = batch(2, 64, 96, seed=seed)
        assert same(backend.run(*given), cpu.run(*given))
    assert "launch" not in device.calls


def test_nothing_is_acquired_after_the_first_batch(backend, device, cpu):
    backend.warm_up()
    device.seal()
    for seed in range(6):
        for shape in ((1, 64, 96), (4, 128, 192), (2, 30, 40)):
            given = batch(*shape, seed=seed)
            assert same(backend.run(*given), cpu.run(*given))


def test_warm_up_makes_the_graphs(backend, device):
    backend.warm_up((1, 64, 96), (2, 32, 32))
    captured = device.calls.count("begin_capture")
    assert captured == 4  # two sizes in two slots
    backend.run(*batch(2, 32, 32))
    assert device.calls.count("begin_capture") == captured


def test_batches_overlap(make, cpu):
    backend = make(depth=3)
    given = [batch(1, 64, 96, seed=seed) for seed in range(3)]
    for _ in range(3):
        flying = [backend.submit(*g) for g in given]
        for flight, g in reversed(list(zip(flying, given, strict=True))):
            with flight:
                assert same(flight.logits(), cpu.run(*g))


def test_submitting_does_not_wait(backend, device):
    with backend.submit(*batch(1, 64, 96)):
        assert "wait_for" not in device.calls
        assert any(device.streams.values())  # all of it still to be done


def test_the_image_may_change_once_submitted(backend, cpu):
    image, sizes = batch(1, 64, 96)
    expected = cpu.run(image, sizes)
    with backend.submit(image, sizes) as flight:
        image[:] = 0
        assert same(flight.logits(), expected)


def test_more_than_there_is_room_for(backend):
    flying = [backend.submit(*batch(1, 64, 96)) for _ in range(2)]
    with pytest.raises(UsageError, match="2 batches are in flight"):
        backend.submit(*batch(1, 64, 96))
    flying[0].release()
    flying[0].release()  # harmless
    backend.submit(*batch(1, 64, 96)).release()
    with pytest.raises(UsageError, match="was released"):
        flying[0].logits()


def test_closing_with_batches_in_flight(make, device):
    backend = make()
    flight = backend.submit(*batch(1, 64, 96))
    backend.close()
    assert device.held() == []
    flight.release()
    backend.close()
    with pytest.raises(UsageError, match="the backend was closed"):
        backend.run(*batch(1, 64, 96))


def test_many_sizes_do_not_pile_up(backend, device, cpu):
    for width in range(32, 32 + 2 * SIZES_KEPT):
        for _ in range(4):
            given = batch(1, 32, width)
            assert same(backend.run(*given), cpu.run(*given))
    assert len(device.graphs) == 2 * SIZES_KEPT
    given = batch(1, 32, 32)  # gone, and made again
    assert same(backend.run(*given), cpu.run(*given))


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((5, 64, 96, 3), r"5x64x96 \(N, H, W\), .* takes 1x1x1 to 4x128x192"),
        ((1, 129, 96, 3), "1x129x96"),
        ((1, 64, 193, 3), "1x64x193"),
        ((1, 64, 96, 4), r"a batch is \[N, H, W, 3\]"),
        ((64, 96, 3), r"a batch is \[N, H, W, 3\]"),
    ],
)
def test_shapes_outside_the_profile(backend, shape, text):
    with pytest.raises(ShapeError, match=text):
        backend.run(np.zeros(shape, np.uint8), np.array([[64, 96]]))
    backend.run(*batch(1, 64, 96))  # and it goes on


def test_too_little_memory(make, device):
    device.memory = 1 << 19
    with pytest.raises(DeviceError, match=r"Test RTX 1 has not enough memory: .* MiB are free"):
        make()
    assert device.held() == []


@pytest.mark.parametrize("call", ["allocate", "allocate_pinned", "create_stream"])
def test_what_was_acquired_is_freed_when_the_rest_fails(make, device, call):
    device.fail(call)
    with pytest.raises(DeviceError, match=f"{call} failed"):
        make()
    assert device.held() == []


@pytest.mark.parametrize("call", ["upload", "download", "wait_for", "launch", "synchronize"])
def test_a_gpu_that_fails(backend, device, cpu, call):
    given = batch(1, 64, 96)
    backend.warm_up()
    backend.run(*batch(1, 32, 32))  # a size without a graph, for up- and downloads
    device.fail(call)
    with pytest.raises(DeviceError, match=f"{call} failed: injected"):
        backend.run(*(batch(1, 32, 40) if "load" in call else given))
    assert same(backend.run(*given), cpu.run(*given))  # the next one may work again


def test_an_engine_that_cannot_be_captured(backend, device, cpu):
    given = batch(1, 64, 96)
    for _ in range(2):
        backend.run(*given)
    device.fail("end_capture", "operation not permitted when stream is capturing")
    with pytest.warns(UserWarning, match="cannot be captured as a CUDA graph"):
        found = backend.run(*given)
    assert same(found, cpu.run(*given))
    assert same(backend.run(*given), cpu.run(*given))


class OnDevice:
    """An array of another library, known by its address only."""

    def __init__(self, device, array, **interface):
        self.pointer = device.allocate(array.nbytes)
        device.find(self.pointer, array.nbytes).view(self.pointer, array.nbytes)[:] = (
            np.ascontiguousarray(array).view(np.uint8).ravel()
        )
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (self.pointer, False),
            "version": 3,
            **interface,
        }


def test_arrays_that_are_on_the_device(backend, device, cpu):
    for seed in range(3):  # a new address each time, never a graph with an old one
        image, sizes = batch(2, 64, 96, seed=seed)
        array = OnDevice(device, image)
        uploads = device.calls.count("upload")
        with backend.submit_array(array, sizes) as flight:
            assert same(flight.logits(), cpu.run(image, sizes))
        assert device.calls.count("upload") == uploads + 1  # the sizes, not the image
        device.free(array.pointer)


def test_arrays_that_another_stream_still_writes(backend, device, cpu):
    image, sizes = batch(1, 64, 96)
    theirs, event = device.create_stream(), device.create_event()
    pinned = device.allocate_pinned(image.nbytes)
    pinned[:] = image.ravel()
    array = OnDevice(device, np.zeros_like(image), stream=theirs)
    device.upload(array.pointer, pinned, theirs)  # not done yet
    with backend.submit_array(array, sizes) as flight:
        assert same(flight.logits(), cpu.run(image, sizes))
    device.free(array.pointer)
    device.free_pinned(pinned)
    device.destroy_event(event)
    device.destroy_stream(theirs)


@pytest.mark.parametrize(
    ("interface", "text"),
    [
        ({"typestr": "<f4"}, "must be uint8, got float32"),
        ({"strides": (1, 1, 1, 1)}, "not C order"),
    ],
)
def test_arrays_that_cannot_be_used(backend, device, interface, text):
    array = OnDevice(device, np.zeros((1, 64, 96, 3), np.uint8), **interface)
    with pytest.raises(ImageError, match=text):
        backend.submit_array(array)
    device.free(array.pointer)
    backend.run(*batch(1, 64, 96))


def test_results_stay_on_the_device(backend, device, cpu):
    given = batch(1, 64, 96)
    expected = cpu.run(*given)
    flight = backend.submit(*given)
    taken = [np.from_dlpack(array) for array in flight.arrays()]
    device.synchronize(0)  # the consumer's stream, which was made to wait for ours
    assert same(taken, expected)
    place = flight.arrays()[1].__cuda_array_interface__
    assert place["data"] == (taken[1].__array_interface__["data"][0], False)
    assert place["shape"] == expected[1].shape
    assert place["stream"] is not None
    # Held for as long as somebody has one of them, not a moment longer.
    flight.release()
    backend.submit(*given).release()
    assert len(backend._free) == 1
    del taken[:]
    gc.collect()
    assert len(backend._free) == 2


def test_other_libraries_take_results(backend, device, cpu):
    torch = pytest.importorskip("torch")
    given = batch(1, 64, 96)
    with backend.submit(*given) as flight:
        masks = torch.from_dlpack(flight.arrays()[1])
        device.synchronize(0)
        assert np.array_equal(masks.numpy(), cpu.run(*given)[1])
        del masks
    image = torch.from_numpy(given[0])  # DLPack in
    place = device._block("device", image.nbytes)
    held = place.view(place.pointer, image.nbytes)
    held[:] = given[0].ravel()
    with backend.submit_array(torch.from_numpy(held).reshape(image.shape), given[1]) as flight:
        assert same(flight.logits(), cpu.run(*given))
    device.free(place.pointer)


def test_at_least_one_in_flight(make):
    with pytest.raises(UsageError, match="at least 1 batch"):
        make(depth=0)


def test_the_stand_in_refuses_what_is_not_its_memory(backend, device):
    """What would be a crash, or worse, on a GPU."""
    elsewhere = np.zeros((1, 64, 96, 3), np.uint8)
    array = OnDevice(device, elsewhere, data=(elsewhere.ctypes.data, False))
    with pytest.raises(Misuse, match="not within live memory"):
        backend.submit_array(array)
    device.free(array.pointer)
