"""Engines that run: built here, and their results against the CPU's."""

import gc

import numpy as np
import pytest

import m2f
from m2f.bundle import Bundle
from m2f.errors import DeviceError, MissingDependency, ShapeError
from m2f.export.engines import BuildOptions, build
from m2f.export.parity import relative_error
from m2f.runtime.backend_trt import TrtBackend
from m2f.runtime.backends import open_backend
from m2f.runtime.preprocess import Prepared, assemble
from tests import tolerance
from tests.gpu.conftest import missing

SHAPES = ((1, 96, 128), (2, 64, 64), (1, 33, 47))


@pytest.fixture(scope="module")
def engine(bundle, target):
    return build(bundle, options=BuildOptions(target=target)).engine


@pytest.fixture
def backend(engine, device, bundle):
    with TrtBackend(engine, device, bundle=Bundle.open(bundle)) as backend:
        yield backend


def agree(found, expected):
    """Float32 on both sides; a decision that rounding tips would exceed it by far."""
    return all(
        relative_error(x, y) <= tolerance.MODULE_ERROR
        for x, y in zip(found, expected, strict=True)
    )


def test_results_are_the_cpus(backend, cpu, pictures):
    for seed in range(4):  # as it is, captured, and twice from the graph
        for shape in SHAPES:
            given = pictures(*shape, seed=seed)
            assert agree(backend.run(*given), cpu.run(*given)), (seed, shape)


def test_a_graph_gives_what_running_gives(engine, device, bundle, pictures):
    given = pictures(1, 96, 128)
    opened = Bundle.open(bundle)
    with TrtBackend(engine, device, bundle=opened, graphs=False) as plain:
        expected = plain.run(*given)
    with TrtBackend(engine, device, bundle=opened) as graphs:
        graphs.warm_up((1, 96, 128))
        for found, right in zip(graphs.run(*given), expected, strict=True):
            assert np.array_equal(found, right)


def test_memory_does_not_grow(backend, device, pictures):
    for shape in SHAPES:
        backend.warm_up(shape)
    before = device.free_bytes()
    for seed in range(50):
        backend.run(*pictures(*SHAPES[seed % len(SHAPES)], seed=seed))
    assert device.free_bytes() == before


def test_all_of_it_is_freed(engine, device, bundle):
    opened = Bundle.open(bundle)
    TrtBackend(engine, device, bundle=opened).close()  # what the driver keeps for itself
    gc.collect()
    before = device.free_bytes()
    TrtBackend(engine, device, bundle=opened).close()
    gc.collect()
    assert device.free_bytes() >= before - (1 << 20)


def test_batches_in_flight(backend, cpu, pictures):
    given = [pictures(1, 96, 128, seed=seed) for seed in range(2)]
    flying = [backend.submit(*g) for g in given]
    for flight, g in zip(flying, given, strict=True):
        with flight:
            assert agree(flight.logits(), cpu.run(*g))


@pytest.mark.parametrize("antialias", [True, False])
def test_images_are_resized_there(backend, device, pictures, antialias):
    """Byte for byte as by the host; tall ones rows first, where Pillow does that."""
    if not backend.resizes:
        missing("kernels", "the native library was built without CUDA; docs/gpu.md, step 4")
    sizes = (((301, 407), (67, 93)), ((256, 34), (96, 20)))
    images = [
        Prepared(pictures(1, *source)[0][0], size, antialias=antialias)
        for source, size in sizes
    ]
    expected, _ = assemble(images)
    for _ in range(3):  # as it is, captured, from the graph
        with backend.submit_images(images, expected.shape[1:3]) as flight:
            flight.logits()
            slot = flight._lane.slot
            image = slot.tensors["image"]
            device.download(image.bytes(expected.shape), image.pointer, slot.stream)
            device.synchronize(slot.stream)
            assert np.array_equal(image.array(expected.shape), expected)


def test_arrays_of_pytorch(backend, cpu, pictures):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    image, sizes = pictures(1, 96, 128)
    with backend.submit_array(torch.from_numpy(image).cuda(), sizes) as flight:
        masks = torch.from_dlpack(flight.arrays()[1]).cpu().numpy()
    assert relative_error(masks, cpu.run(image, sizes)[1]) <= tolerance.MODULE_ERROR


def test_arrays_of_cupy(backend, cpu, pictures):
    cupy = pytest.importorskip("cupy")
    image, sizes = pictures(1, 96, 128)
    with backend.submit_array(cupy.asarray(image), sizes) as flight:
        masks = cupy.asnumpy(cupy.asarray(flight.arrays()[1]))
    assert relative_error(masks, cpu.run(image, sizes)[1]) <= tolerance.MODULE_ERROR


def test_a_shape_outside_the_profile(backend, pictures):
    with pytest.raises(ShapeError, match="3x96x128"):
        backend.run(*pictures(3, 96, 128))


def test_more_memory_than_there_is(device):
    with pytest.raises(DeviceError, match="has not enough memory"):
        device.allocate(1 << 46)
    device.free(device.allocate(1 << 20))  # and it goes on


def test_a_session(engine, bundle, target, pictures):
    images = [pictures(1, h, w)[0][0] for h, w in ((96, 128), (64, 64), (90, 120))]
    with m2f.load(bundle, backend=target) as session, m2f.load(bundle) as cpu:
        for found, expected in zip(session(images), cpu(images), strict=True):
            same = found.segment_ids == expected.segment_ids
            assert same.mean() >= 1 - tolerance.POSTPROCESS_PIXELS


@pytest.mark.parametrize(
    ("name", "place"), [("onnxruntime", "cuda"), ("onnxruntime-tensorrt", None)]
)
def test_onnx_runtime(bundle, device, cpu, pictures, name, place):
    try:
        backend = open_backend(Bundle.open(bundle), name, device=place)
    except (MissingDependency, DeviceError) as problem:
        missing("ort", problem)
    with backend:
        given = pictures(1, 96, 128)
        assert agree(backend.run(*given), cpu.run(*given))
