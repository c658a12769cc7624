import numpy as np
import pytest

from m2f.errors import UsageError
from m2f.train.jitter import Jitter, View, draw_view

RNG = np.random.default_rng(7)


@pytest.mark.parametrize("size", [(64, 64), (500, 20), (3, 999), (1, 1)])
@pytest.mark.parametrize("scale", [(0.1, 2.0), (0.01, 0.01), (4.0, 4.0)])
def test_views_fit_the_crop_and_the_image(size, scale):
    jitter = Jitter(crop=(64, 96), scale=scale)
    image = RNG.integers(0, 256, (*size, 3), np.uint8)
    for _ in range(20):
        view = draw_view(RNG, jitter, size)
        left, top, right, bottom = view.box
        assert 0 <= left < right <= view.size[1]
        assert 0 <= top < bottom <= view.size[0]
        assert view.shape[0] <= 64
        assert view.shape[1] <= 96
        assert view.image(image).shape == (*view.shape, 3)
        assert view.plane(image[..., 0]).shape == view.shape


def test_sizes_are_shares_of_what_fits():
    jitter = Jitter(crop=(64, 64), scale=(0.5, 1.5))
    sides = [draw_view(RNG, jitter, (128, 32)).size for _ in range(400)]
    assert min(h for h, _ in sides) in range(32, 36)
    assert max(h for h, _ in sides) in range(93, 97)
    assert all(w == round(h / 4) or abs(w - h / 4) <= 0.5 for h, w in sides)


def test_views_vary_in_place_and_mirroring():
    views = [draw_view(RNG, Jitter(crop=(64, 64)), (64, 64)) for _ in range(100)]
    assert 20 < sum(view.is_flipped for view in views) < 80
    assert len({view.box for view in views}) > 50
    still = Jitter(crop=(64, 64), flip=False)
    assert not any(draw_view(RNG, still, (64, 64)).is_flipped for _ in range(50))


def test_image_and_plane_are_seen_alike():
    """A plane that is an image's only channel stays so, where nothing is blended."""
    plane = np.repeat(np.repeat(RNG.integers(0, 256, (8, 8), np.uint8), 8, 0), 8, 1)
    view = View(size=(64, 64), box=(5, 9, 40, 60), is_flipped=True)
    image = view.image(np.stack([plane] * 3, -1))
    assert np.array_equal(image[..., 1], view.plane(plane))
    assert np.array_equal(view.plane(plane), plane[9:60, 5:40][:, ::-1])


def test_no_number_is_made_up():
    ids = RNG.choice(np.array([0, 5, 70000], np.int32), (33, 41))
    seen = View(size=(70, 90), box=(0, 0, 90, 70), is_flipped=False).plane(ids)
    assert set(np.unique(seen)) == {0, 5, 70000}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": (100, 64)}, "multiples of 32 pixels, got 100x64"),
        ({"crop": (0, 64)}, "got 0x64"),
        ({"scale": (0.0, 1.0)}, "got 0:1"),
        ({"scale": (2.0, 1.0)}, "got 2:1"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(UsageError, match=message):
        Jitter(**options)
