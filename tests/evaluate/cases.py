"""Panoptic images at the edges of the rules: the cases for which official PQ is recorded.

A case is (true ids, {id: (category, is crowd)}, predicted ids, {id: category}). Ids are
written in rows of eight pixels, so that shares can be read off.
"""

import hashlib

import numpy as np

CAT, DOG, GRASS, SKY = 3, 7, 20, 21
BIG = (1 << 24) - 1


def case(true, truth, predicted, segments):
    truth = {key: one if isinstance(one, tuple) else (one, False) for key, one in truth.items()}
    return np.array([true], np.int32), truth, np.array([predicted], np.int32), segments


def row(*runs):
    """Runs of (id, pixels)."""
    return [key for key, count in runs for _ in range(count)]


CASES = {
    "the same": case(
        row((1, 5), (2, 3)), {1: CAT, 2: SKY}, row((4, 5), (9, 3)), {4: CAT, 9: SKY}
    ),
    "IoU exactly a half": case(row((1, 4), (0, 4)), {1: CAT}, row((1, 2), (0, 6)), {1: CAT}),
    "IoU just above a half": case(
        row((1, 7), (2, 1)), {1: CAT, 2: SKY}, row((1, 4), (0, 4)), {1: CAT}
    ),
    "nothing predicted": case(row((1, 5), (2, 3)), {1: CAT, 2: SKY}, row((0, 8)), {}),
    "nothing labelled": case(row((0, 8)), {}, row((1, 5), (2, 3)), {1: CAT, 2: SKY}),
    "neither": case(row((0, 8)), {}, row((0, 8)), {}),
    "exactly half void": case(
        row((0, 4), (1, 4)), {1: SKY}, row((1, 2), (2, 4), (0, 2)), {1: CAT, 2: CAT}
    ),
    "more than half void": case(row((0, 4), (1, 4)), {1: SKY}, row((1, 5), (0, 3)), {1: CAT}),
    "void shrinks the union": case(
        row((0, 4), (1, 4)), {1: CAT}, row((0, 1), (1, 6), (0, 1)), {1: CAT}
    ),
    "void in the union counts for other void": case(
        row((0, 3), (1, 3), (2, 2)), {1: CAT, 2: SKY}, row((1, 7), (0, 1)), {1: CAT}
    ),
    "a crowd is no match": case(row((1, 8)), {1: (CAT, True)}, row((1, 8)), {1: CAT}),
    "a crowd forgives its category": case(
        row((1, 5), (2, 3)),
        {1: (CAT, True), 2: SKY},
        row((1, 3), (2, 3), (3, 2)),
        {1: CAT, 2: CAT, 3: SKY},
    ),
    "a crowd forgives no other": case(
        row((1, 5), (2, 3)), {1: (CAT, True), 2: SKY}, row((1, 6), (0, 2)), {1: DOG}
    ),
    "a crowd forgives more than a half": case(
        row((1, 4), (2, 4)),
        {1: (CAT, True), 2: SKY},
        row((1, 2), (2, 4), (0, 2)),
        {1: CAT, 2: CAT},
    ),
    "of two crowds the last forgives": case(
        row((1, 4), (2, 2), (3, 2)),
        {1: (CAT, True), 2: (CAT, True), 3: SKY},
        row((1, 2), (2, 2), (3, 2), (4, 2)),
        {1: CAT, 2: CAT, 3: CAT, 4: SKY},
    ),
    "the last is by order, not by id": case(
        row((1, 4), (2, 2), (3, 2)),
        {2: (CAT, True), 1: (CAT, True), 3: SKY},
        row((1, 2), (2, 2), (3, 2), (4, 2)),
        {1: CAT, 2: CAT, 3: CAT, 4: SKY},
    ),
    "crowd and void together": case(
        row((1, 2), (0, 2), (2, 4)), {1: (CAT, True), 2: SKY}, row((1, 7), (0, 1)), {1: CAT}
    ),
    "another class": case(
        row((1, 5), (2, 3)), {1: CAT, 2: SKY}, row((1, 5), (2, 3)), {1: DOG, 2: GRASS}
    ),
    "largest id": case(
        row((BIG, 5), (1, 3)), {BIG: CAT, 1: SKY}, row((BIG, 4), (7, 4)), {BIG: CAT, 7: SKY}
    ),
    "id beyond one byte": case(
        row((256, 5), (1, 3)), {256: CAT, 1: SKY}, row((65536, 4), (1, 4)), {65536: CAT, 1: SKY}
    ),
    "stuff in two pieces": case(row((1, 8)), {1: SKY}, row((1, 5), (2, 3)), {1: SKY, 2: SKY}),
    "two things as one": case(row((1, 4), (2, 4)), {1: CAT, 2: CAT}, row((1, 8)), {1: CAT}),
    "two things as one, uneven": case(
        row((1, 6), (2, 2)), {1: CAT, 2: CAT}, row((1, 8)), {1: CAT}
    ),
    "category only predicted": case(
        row((1, 8)), {1: SKY}, row((1, 6), (2, 2)), {1: SKY, 2: DOG}
    ),
    "touching duplicates": case(
        row((1, 4), (2, 4)), {1: CAT, 2: CAT}, row((1, 3), (2, 5)), {1: CAT, 2: CAT}
    ),
    "one pixel": case([1], {1: CAT}, [1], {1: CAT}),
}


def drawn(seed):
    """Rectangles over each other; crowds, void and unlabelled predictions among them."""
    rng = np.random.default_rng(seed)
    true, predicted = np.zeros((2, 24, 32), np.int32)
    truth, segments = {}, {}
    for _ in range(8):
        y, x = rng.integers(0, 20, 2)
        h, w = rng.integers(2, 14, 2)
        key = int(rng.integers(1, 1 << 24))
        category = (CAT, DOG, GRASS, SKY)[rng.integers(4)]
        true[y : y + h, x : x + w] = key
        truth[key] = category, bool(category in (CAT, DOG) and rng.random() < 0.3)
        dy, dx = rng.integers(0, 3, 2)
        guess = category if rng.random() < 0.8 else DOG
        if rng.random() < 0.9:
            key = int(rng.integers(1, 1 << 24))
            predicted[y + dy : y + h, x + dx : x + w + dx] = key
            segments[key] = guess
    truth = {k: v for k, v in truth.items() if (true == k).any()}
    segments = {k: v for k, v in segments.items() if (predicted == k).any()}
    return true, truth, predicted, segments


CASES |= {f"drawn {seed}": drawn(seed) for seed in range(30)}


def digest(one):
    """Tells whether a case is still the one for which a result was recorded."""
    true, truth, predicted, segments = one
    text = repr(
        (true.tolist(), list(truth.items()), predicted.tolist(), list(segments.items()))
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]
