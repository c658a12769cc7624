import warnings

import numpy as np
import pytest
from PIL import Image

from m2f.errors import ImageError, MissingFile
from m2f.runtime import images
from m2f.runtime.images import MAX_PIXELS, decode, find_images


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)


@pytest.fixture
def photograph(tmp_path, rgb):
    path = tmp_path / "photograph.png"
    Image.fromarray(rgb).save(path)
    return path


def test_the_same_pixels_from_path_image_and_array(photograph, rgb):
    for source in (photograph, str(photograph), Image.open(photograph), rgb):
        pixels = decode(source)
        assert np.array_equal(pixels, rgb)
        assert pixels.flags.c_contiguous


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = np.zeros((8, 16, 3), np.uint8)
    upright[:4, :4] = 255  # top left
    turned = Image.fromarray(upright)
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    if orientation in inverse:
        turned = turned.transpose(inverse[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(decode(tmp_path / "turned.png"), upright)


def test_damaged_exif_is_ignored(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\0\0\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(decode(tmp_path / "a.png"), rgb)


def test_gray_becomes_three_equal_channels(tmp_path, rgb):
    gray = rgb[:, :, 0]
    Image.fromarray(gray).save(tmp_path / "gray.png")
    for source in (tmp_path / "gray.png", gray, gray[:, :, None]):
        assert np.array_equal(decode(source), np.repeat(gray[:, :, None], 3, axis=2))


def test_transparency_is_dropped_not_blended(tmp_path, rgb):
    rgba = np.dstack([rgb, np.full(rgb.shape[:2], 7, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    assert np.array_equal(decode(tmp_path / "rgba.png"), rgb)
    assert np.array_equal(decode(rgba), rgb)


def test_palette_with_transparency_gives_its_colours_and_no_warning(tmp_path, rgb):
    image = Image.fromarray(rgb).quantize(16)
    expected = np.asarray(image.convert("RGB"))
    image.save(tmp_path / "palette.png", transparency=bytes(range(16)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(decode(tmp_path / "palette.png"), expected)


def test_one_bit_images(tmp_path):
    bits = np.array([[True, False], [False, True]])
    Image.fromarray(bits).save(tmp_path / "bits.png")
    assert decode(tmp_path / "bits.png")[:, :, 0].tolist() == [[255, 0], [0, 255]]


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    gray = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    Image.fromarray(gray).save(tmp_path / "deep.png")
    expected = [0, 0, 1, 1, 128, 255]  # round(v / 257)
    assert decode(tmp_path / "deep.png")[0, :, 1].tolist() == expected
    assert decode(gray)[0, :, 1].tolist() == expected
    assert decode(Image.fromarray(gray.astype(np.int32)))[0, :, 1].tolist() == expected


def test_cmyk(tmp_path):
    Image.new("CMYK", (4, 3), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=100)
    r, g, b = decode(tmp_path / "red.jpg")[1, 1]
    assert r > 250
    assert max(g, b) < 5


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert decode(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]


def test_one_pixel(tmp_path):
    Image.new("RGB", (1, 1), "white").save(tmp_path / "dot.png")
    assert decode(tmp_path / "dot.png").tolist() == [[[255, 255, 255]]]


def test_a_file_that_is_no_image(tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("not an image")
    with pytest.raises(ImageError, match=r"notes\.png is not an image of a known format"):
        decode(path)


def test_an_empty_file(tmp_path):
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ImageError, match=r"empty\.jpg is empty"):
        decode(tmp_path / "empty.jpg")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "gif", "bmp"])
def test_a_truncated_file(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=r"cut\."):
        decode(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(MissingFile, match="no such file"):
        decode(tmp_path / "absent.png")


def test_a_folder_is_not_an_image(tmp_path):
    with pytest.raises(ImageError, match="is a folder"):
        decode(tmp_path)


def test_float_arrays_are_refused(rgb):
    with pytest.raises(ImageError, match=r"must be uint8.*float32 6x9x3"):
        decode(rgb.astype(np.float32) / 255)


def test_float_images_are_refused(tmp_path):
    Image.fromarray(np.zeros((3, 3), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ImageError, match="floating-point"):
        decode(tmp_path / "float.tif")


def test_integers_beyond_sixteen_bits_are_refused():
    with pytest.raises(ImageError, match=r"from 0 to 70000"):
        decode(Image.fromarray(np.array([[0, 70000]], np.int32)))


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4, 3), (3, 8, 8), (8, 8, 2), ()])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ImageError, match="must be HxW"):
        decode(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (0, 0)])
def test_arrays_without_pixels_are_refused(shape):
    with pytest.raises(ImageError, match="has no pixels"):
        decode(np.zeros(shape, np.uint8))


def test_other_types_are_refused():
    with pytest.raises(ImageError, match="got list"):
        decode([[0, 0], [0, 0]])


def test_a_huge_file_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "huge.png"
    Image.new("1", (20000, 20000)).save(path)
    with pytest.raises(ImageError, match=f"too large.*{MAX_PIXELS} pixels; cut it"):
        decode(path)


def test_a_huge_array_is_refused():
    huge = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (20000, 20000, 3))
    with pytest.raises(ImageError, match="too large: 20000x20000"):
        decode(huge)


def test_large_but_allowed_files_give_no_warning(tmp_path, monkeypatch, photograph):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # 54 pixels: between it and twice
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(photograph)


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt", "sub/c.png", "sub/deep/d.webp"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def names(found, folder):
    return [str(path.relative_to(folder)) for path in found]


def test_find_in_a_folder(folder):
    assert names(find_images([folder]), folder) == ["a.JPG", "b.png"]


def test_find_by_pattern(folder):
    found = find_images([f"{folder}/**/*"])
    assert names(found, folder) == ["a.JPG", "b.png", "sub/c.png", "sub/deep/d.webp"]


def test_find_keeps_the_order_given_and_drops_repeats(folder):
    found = find_images([folder / "sub/c.png", folder, f"{folder}/*.png"])
    assert names(found, folder) == ["sub/c.png", "a.JPG", "b.png"]


def test_a_named_file_needs_no_known_suffix(folder):
    assert names(find_images([folder / "notes.txt"]), folder) == ["notes.txt"]


def test_a_file_whose_name_looks_like_a_pattern(folder):
    (folder / "x[1].png").touch()
    assert names(find_images([folder / "x[1].png"]), folder) == ["x[1].png"]


def test_nothing_found(folder):
    with pytest.raises(MissingFile, match="none of its 0 entries is an image"):
        find_images([folder / "empty"])
    with pytest.raises(MissingFile, match="1 paths match this pattern, none"):
        find_images([f"{folder}/*.txt"])
    with pytest.raises(MissingFile, match="no such file or folder"):
        find_images([folder / "absent"])
    with pytest.raises(MissingFile, match="no image was named"):
        find_images([])


def test_the_limit_is_pillows():
    assert 2 * Image.MAX_IMAGE_PIXELS == images.MAX_PIXELS
