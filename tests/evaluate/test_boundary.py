import numpy as np
import pytest

from m2f.evaluate.boundary import boundary
from tests.evaluate.made import blob


def by_erosion(mask, ratio=0.02):
    """Erosions with a 3x3 square, one after the other, nothing beyond the image."""
    height, width = mask.shape
    core = np.pad(mask, 1)
    for _ in range(max(1, round(ratio * (height**2 + width**2) ** 0.5))):
        padded = np.pad(core[1:-1, 1:-1], 1)
        shifted = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
        core = np.pad(np.all(shifted, axis=0), 1)
    return mask & ~core[1:-1, 1:-1]


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (37, 53), (180, 90), (240, 320)])
def test_as_eroded_step_by_step(size):
    rng = np.random.default_rng(1)
    for _ in range(5):
        mask = (blob(rng, size) if min(size) > 4 else rng.random(size) < 0.7) ^ (
            rng.random(size) < 0.01
        )
        np.testing.assert_array_equal(boundary(mask), by_erosion(mask))


def test_the_border_of_the_image_is_contour():
    rim = boundary(np.ones((100, 100), bool))  # 2 % of the diagonal are three pixels
    assert rim[:3].all()
    assert rim[:, -3:].all()
    assert not rim[3:-3, 3:-3].any()


def test_nothing_has_no_boundary():
    assert not boundary(np.zeros((20, 30), bool)).any()
