"""Every set of kernels against NumPy: odd sizes, special values, any number of threads."""

import numpy as np
import pytest

from m2f.config import Category, Postprocess
from m2f.errors import CheckFailed, M2FError
from m2f.plugins import library as files
from m2f.runtime import native
from m2f.runtime.instance import instance
from m2f.runtime.logits import Frame
from m2f.runtime.native import Route
from m2f.runtime.panoptic import panoptic
from m2f.runtime.postprocess import segment
from m2f.runtime.semantic import semantic
from tests import tolerance
from tests.images.kernels import FRAMES, KERNELS, KINDS, THINGS, blobs, needs_library, opened
from tests.runtime.cases import differing, random_logits

pytestmark = needs_library
CONVENTIONS = {
    "official": Postprocess(object_mask_threshold=0.4, overlap_threshold=0.3),
    "official, resized last": Postprocess(semantic_after_resize=False, fuse_stuff=False),
    "hf": Postprocess(convention="hf", object_mask_threshold=0.4, overlap_threshold=0.3),
    "mmdet": Postprocess(convention="mmdet", object_mask_threshold=0.4),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("rules", CONVENTIONS.values(), ids=CONVENTIONS)
@pytest.mark.parametrize("name", KERNELS)
def test_equal_to_numpy(name, rules, frame, kind):
    logits, masks = KINDS[kind](7)
    library = opened(name)
    expected, found = (
        panoptic(logits, masks, frame, rules, THINGS, x) for x in (None, library)
    )
    assert expected.accepted == found.accepted
    assert differing(expected.segment_ids, found.segment_ids) <= tolerance.POSTPROCESS_PIXELS
    expected, found = (semantic(logits, masks, frame, rules, x) for x in (None, library))
    assert differing(expected, found) <= tolerance.POSTPROCESS_PIXELS
    expected, found = (
        instance(logits, masks, frame, rules, THINGS, x) for x in (None, library)
    )
    assert np.array_equal(expected.labels, found.labels)
    if len(expected.scores):
        assert np.abs(expected.scores - found.scores).max() <= tolerance.POSTPROCESS_SCORE
        masks = expected.masks.unpack(), found.masks.unpack()
        assert differing(*masks) <= tolerance.POSTPROCESS_PIXELS


@pytest.mark.parametrize("seed", range(12))
def test_sizes_drawn_at_random_equal_numpy(seed):
    rng = np.random.default_rng(seed)
    h, w = rng.integers(1, 20, 2)
    queries, classes = int(rng.integers(1, 40)), int(rng.integers(1, 30))
    logits, masks = blobs(seed, queries, classes, (h, w))
    padded = int(4 * h), int(4 * w)
    valid = tuple(int(rng.integers(1, side + 1)) for side in padded)
    output = tuple(int(side) for side in rng.integers(1, 150, 2))
    frame = Frame(padded=padded, valid=valid, output=output)
    library = opened(list(KERNELS)[seed % len(KERNELS)], threads=1 + seed % 3)
    for rules in CONVENTIONS.values():
        expected, found = (semantic(logits, masks, frame, rules, x) for x in (None, library))
        # Of a few pixels one may be a tie.
        assert differing(expected, found) <= tolerance.POSTPROCESS_PIXELS + 1 / expected.size
        is_thing = [k % 2 == 0 for k in range(classes)]
        expected, found = (
            panoptic(logits, masks, frame, rules, is_thing, x) for x in (None, library)
        )
        assert [a.query for a in expected.accepted] == [a.query for a in found.accepted]
        share = differing(expected.segment_ids, found.segment_ids)
        assert share <= tolerance.POSTPROCESS_PIXELS + 1 / expected.segment_ids.size


def answers(library, logits, masks, route):
    """All that the library computes from logits, as bytes."""
    n = np.arange(len(masks))
    scores = np.linspace(0.5, 1, len(n)).astype(np.float32)
    weights = np.abs(logits[:, :-1]).astype(np.float32) / 10
    yield from library.instance(masks, n, route)
    for flag in (False, True):
        yield library.semantic(masks, weights, route, sums_first=flag)
        yield from library.panoptic(
            masks, n, scores, route, threshold=0.5, is_weighted=flag, as_probabilities=flag
        )


@pytest.mark.parametrize("name", KERNELS)
def test_results_do_not_depend_on_the_threads(name):
    logits, masks = random_logits(3, size=(40, 50))
    route = Route((160, 200), (150, 190), (130, 333))
    first, *others = (
        [a.tobytes() for a in answers(opened(name, threads), logits, masks, route)]
        for threads in (1, 2, 3, 4)
    )
    assert others == [first] * 3


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, 1e-40, 100.0, -100.0])
@pytest.mark.parametrize("output", [(160, 200), (77, 99)])
def test_no_value_is_too_strange(name, value, output):
    logits, masks = random_logits(3, size=(40, 50))
    route = Route((160, 200), (160, 200), output)
    masks[2:6, 10:30, 5:20] = value
    masks[7] = value
    codes_most, labels_most = 2 * len(masks), logits.shape[1] - 1
    found = list(answers(opened(name), logits, masks, route))
    for labels in (found[3], found[6]):
        assert labels.min() >= 0
        assert labels.max() < labels_most
    for codes in (found[4], found[7]):
        assert codes.max() < codes_most
    for counts in (found[5], found[8]):
        assert counts.min() >= 0
        assert counts.max() <= output[0] * output[1]
    assert (found[2] >= 0).all()
    masks[:] = value
    list(answers(opened(name), logits, masks, route))


def test_logits_that_are_no_numbers_are_refused():
    logits, masks = random_logits(3)
    masks[3, 2, 1], masks[4, 5, 6] = np.nan, np.inf
    categories = tuple(
        Category(id=k, name=str(k), colour=(0, 0, 0), is_thing=True) for k in range(7)
    )
    with pytest.raises(CheckFailed, match="2 of 4608 mask logits are NaN or infinite"):
        segment(
            logits,
            masks,
            FRAMES["larger"],
            task="panoptic",
            rules=Postprocess(),
            categories=categories,
        )


def test_of_equals_the_first_wins():
    library, route = opened(), Route((64, 96), (64, 96), (64, 96))
    masks = np.repeat(random_logits(5)[1][:1], 4, axis=0)
    same = np.full(4, 0.75, np.float32)
    codes, (_, won, _) = library.panoptic(
        masks,
        np.arange(4),
        same,
        route,
        threshold=0.5,
        is_weighted=False,
        as_probabilities=False,
    )
    assert (codes // 2 == 0).all()
    assert won.tolist() == [64 * 96, 0, 0, 0]
    weights = np.full((4, 50), 0.01, np.float32)
    for flag in (False, True):
        assert not library.semantic(masks, weights, route, sums_first=flag).any()


def test_logits_far_below_zero_are_ties_too():
    """There exp overflows, all claims are 0, and the first query has every pixel."""
    masks = np.array([-95, -90, -200], np.float32)[:, None, None] * np.ones(
        (3, 8, 8), np.float32
    )
    route = Route((32, 32), (32, 32), (32, 32))
    scores = np.array([0.5, 0.9, 0.7], np.float32)
    codes, (own, won, _) = opened().panoptic(
        masks,
        np.arange(3),
        scores,
        route,
        threshold=0.5,
        is_weighted=False,
        as_probabilities=False,
    )
    assert not codes.any()
    assert own.tolist() == [0, 0, 0]
    assert won.tolist() == [1024, 0, 0]


def test_half_precision_logits_and_slices_are_taken():
    masks = random_logits(3)[1].astype(np.float16)
    route = Route((64, 96), (51, 83), (60, 70))
    whole = opened().instance(masks.astype(np.float32), np.array([1, 3]), route)
    for given in (masks, np.ascontiguousarray(masks.transpose(0, 2, 1)).transpose(0, 2, 1)):
        for a, b in zip(whole, opened().instance(given, np.array([1, 3]), route), strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize(
    ("route", "says"),
    [
        (Route((64, 96), (65, 96), (5, 5)), "of them 65"),
        (Route((64, 96), (64, 96), (0, 5)), "to 0"),
        (Route((64, 96), (64, 96), (5, 1 << 25)), "33554432 elements"),
        (Route((64, 96), (64, 96), (5, 5), extent=(0, 3)), "of them 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(route, says):
    masks, weights = random_logits(1)[1], np.ones((12, 3), np.float32)
    with pytest.raises(M2FError, match=says):
        opened().semantic(masks, weights, route, sums_first=False)


def test_wrong_calls_are_refused():
    with pytest.raises(M2FError, match="no kernels 9"):
        native.Library(files.find(), isa=9).count_not_finite(np.zeros(3, np.float32))
    with pytest.raises(M2FError, match="threads is at least 1"):
        native.Library(files.find(), threads=-1).count_not_finite(np.zeros(3, np.float32))


def test_a_library_of_another_version_is_not_called(monkeypatch):
    native._opened.cache_clear()
    monkeypatch.setattr(native, "VERSION", native.VERSION + 1)
    assert native.library() is None
    native._opened.cache_clear()


@pytest.mark.parametrize("task", ["panoptic", "semantic", "instance"])
@pytest.mark.parametrize("convention", ["official", "hf", "mmdet"])
def test_without_the_library_predictions_are_the_same(task, convention, monkeypatch):
    logits, masks = blobs(2)
    rules = Postprocess(
        convention=convention, object_mask_threshold=0.3, overlap_threshold=0.1, top_k=20
    )
    categories = tuple(
        Category(id=k, name=str(k), colour=(0, 0, 0), is_thing=k < 4) for k in range(7)
    )

    def predicted():
        return segment(
            logits, masks, FRAMES["larger"], task=task, rules=rules, categories=categories
        )

    found = predicted()
    assert native.library() is not None
    monkeypatch.setenv(files.VARIABLE, "off")
    assert native.library() is None
    expected = predicted()
    assert [(s.id, s.label) for s in found.segments] == [
        (s.id, s.label) for s in expected.segments
    ]
    for a, b in zip(found.segments, expected.segments, strict=True):
        assert a.area == pytest.approx(b.area, abs=2)
        assert a.box == b.box
        assert a.score == pytest.approx(b.score, abs=tolerance.POSTPROCESS_SCORE)
    assert found.segments
    assert differing(found.masks, expected.masks) <= tolerance.POSTPROCESS_PIXELS
