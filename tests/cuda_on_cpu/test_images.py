"""Post-processing's CUDA kernels, run on the CPU, against the native ones of the CPU."""

import ctypes

import numpy as np
import pytest

from m2f.config import Postprocess
from m2f.runtime import native
from m2f.runtime.panoptic import panoptic
from tests import tolerance
from tests.cuda_on_cpu.build import ROOT, Order, needs_compiler, output
from tests.runtime.cases import differing, official_cases

pytestmark = [
    needs_compiler,
    pytest.mark.skipif(native.library(1) is None, reason="m2f has no native library here"),
]

SOURCES = ("plugins/images/cuda.cu", "plugins/images/cuda_c_api.cc")
RESIZE = ROOT / "plugins/images/cuda_resize.cuh"  # before the network: test_resize.py
# name -> (masks, route): sizes of 1, primes, tiles cut at both sides, padding, one resize only.
ROUTES = {
    "one_pixel": ((1, 1), native.Route((1, 1), (1, 1), (1, 1))),
    "primes": ((5, 7), native.Route((19, 29), (17, 23), (13, 41))),
    "whole_tiles": ((8, 16), native.Route((32, 64), (32, 64), (16, 64))),
    "one_resize": ((6, 9), native.Route((25, 37), (25, 37), (25, 37))),
    "part_of_a_mask": ((7, 12), native.Route((20, 40), (18, 33), (30, 35), (6.5, 11.25))),
    "rows_only": ((4, 6), native.Route((16, 24), (15, 24), (31, 24))),
}


class Device(native.Library):
    """The native library with the kernels of a device in place of three functions."""

    def __init__(self, kernels, order=Order.FORWARD):
        base = native.library(1)
        self._library, self.threads, self.isa = base._library, base.threads, base.isa
        self.kernels, self.order = kernels, order

    def panoptic(self, masks, kept, scores, route, *, threshold, is_weighted, as_probabilities):
        codes, counts = output(route.output, np.uint16), output((3, len(kept)), np.int64)
        rules = native._Rules(threshold, is_weighted, as_probabilities)
        scores = np.ascontiguousarray(scores, np.float32)
        self._call("panoptic", masks, kept, route, scores, ctypes.byref(rules), codes, counts)
        return np.asarray(codes), np.asarray(counts)

    def semantic(self, masks, probabilities, route, *, sums_first):
        labels = output(route.output, np.int32)
        classes = ctypes.c_int64(probabilities.shape[1])
        weights = np.ascontiguousarray(probabilities, np.float32)
        everyone = np.arange(len(masks))
        self._call(
            "semantic", masks, everyone, route, weights, classes, int(sums_first), labels
        )
        return np.asarray(labels)

    def instance(self, masks, chosen, route):
        n, (height, width) = len(chosen), route.output
        bits = output((n, height, -(-width // 8)), np.uint8)
        total, inside = output(n, np.int64), output(n, np.int64)
        self._call("instance", masks, chosen, route, bits, total, inside)
        return np.asarray(bits), total / 2.0**24, np.asarray(inside)

    def _call(self, name, masks, index, route, *arguments):
        masks = np.ascontiguousarray(masks, np.float32)
        geometry = route.geometry(masks.shape[1:])
        index = np.ascontiguousarray(index, np.int64)
        count = ctypes.c_int64(len(index))
        planes = (masks, index, count)
        found = self.kernels.call(
            f"m2f_cuda_{name}",
            ctypes.byref(geometry),
            *planes,
            *arguments,
            None,  # the stream
            order=self.order,
        )
        assert found == "", found


@pytest.fixture(scope="module", params=["plain", "checked"])
def device(kernels, request):
    return Device(kernels(*SOURCES, checked=request.param == "checked"), Order.SHUFFLED)


def barriers():
    """(file, line) of each barrier in post-processing's sources."""
    for source in sorted({*(ROOT / "plugins/images").glob("cuda*.cuh")} - {RESIZE}):
        for number, text in enumerate(source.read_text().splitlines(), 1):
            if "__sync" in text:
                yield source.name, number


def masks_of(size, queries=7, seed=0):
    """Logits with edges, and a query that covers all, one that covers nothing."""
    rng = np.random.default_rng(seed)
    masks = 4 * rng.standard_normal((queries, *size)).astype(np.float32)
    masks[1], masks[2] = 9, -9
    return masks


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("as_probabilities", [False, True])
@pytest.mark.parametrize("name", ROUTES)
def test_queries_compete_as_on_the_cpu(name, as_probabilities, is_weighted, device):
    size, route = ROUTES[name]
    kept = np.array([6, 1, 0, 2, 4])
    scores = np.float32([0.9, 0.3, 0.8, 0.7, 0.95])
    rules = {
        "threshold": 0.25 if is_weighted else 0.5,
        "is_weighted": is_weighted,
        "as_probabilities": as_probabilities,
    }
    arguments = (masks_of(size), kept, scores, route)
    expected = native.library(1).panoptic(*arguments, **rules)
    codes, counts = device.panoptic(*arguments, **rules)
    assert (codes == expected[0]).all()
    assert (counts == expected[1]).all()


@pytest.mark.parametrize("name", ROUTES)
def test_instances_are_as_on_the_cpu(name, device):
    size, route = ROUTES[name]
    arguments = (masks_of(size), np.array([3, 1, 2, 5]), route)
    expected = native.library(1).instance(*arguments)
    bits, total, inside = device.instance(*arguments)
    assert (bits == expected[0]).all()
    assert (inside == expected[2]).all()
    # The CPU's sums are of floats along a tile's columns.
    assert total == pytest.approx(expected[1], rel=16 * 2.0**-24)


@pytest.mark.parametrize("sums_first", [False, True])
@pytest.mark.parametrize("name", ROUTES)
def test_classes_are_as_on_the_cpu(name, sums_first, device):
    size, route = ROUTES[name]
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet(np.ones(19), 7).astype(np.float32)
    arguments = (masks_of(size), probabilities, route)
    expected = native.library(1).semantic(*arguments, sums_first=sums_first)
    labels = device.semantic(*arguments, sums_first=sums_first)
    assert (labels == expected).all()  # drawn so that no two classes lie within rounding


def test_a_block_of_many_classes_takes_the_first_of_equals(device):
    weights = np.full((7, 133), 0.5, np.float32)
    labels = device.semantic(masks_of((5, 7)), weights, ROUTES["primes"][1], sums_first=False)
    assert not labels.any()


@pytest.mark.parametrize("site", [*barriers()], ids=str)
def test_every_barrier_is_needed(site, kernels):
    library = kernels(*SOURCES, checked=True)
    device = Device(library, Order.SHUFFLED)
    masks, route = masks_of((5, 7)), ROUTES["primes"][1]
    rules = {"threshold": 0.5, "is_weighted": False, "as_probabilities": True}
    weights = np.ones((7, 19), np.float32)

    def run():
        device.panoptic(masks, np.arange(7), np.ones(7), route, **rules)
        device.semantic(masks, weights, route, sums_first=False)

    run()
    library.leave_out(*site)
    try:
        with pytest.raises(AssertionError, match=r"race|nobody has written"):
            run()
    finally:
        library.leave_out("", 0)


def test_the_official_panoptic_result(kernels):
    case = next(c for c in official_cases() if c.has("panoptic_seg"))
    device = Device(kernels(*SOURCES, checked=False))
    inputs = case.class_logits, case.mask_logits, case.frame
    found = panoptic(*inputs, Postprocess(), case.is_thing, device)
    golden = case.get("panoptic_seg")
    assert differing(found.segment_ids, golden) <= tolerance.POSTPROCESS_PIXELS
