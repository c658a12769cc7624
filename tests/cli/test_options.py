import pytest
import typer

from m2f.bundle import Range
from m2f.cli import options


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("512x1024", (512, 1024)),
        ("512X1024", (512, 1024)),
        ("640", (640, 640)),
        ("1x1", (1, 1)),
    ],
)
def test_size(text, expected):
    assert options.size(text) == expected


@pytest.mark.parametrize(
    "text", ["", "x", "512x", "-1x5", "0x5", "1.5x2", "9999999x1", "1x2x3", "512x1024px", "٣x٣"]
)
def test_size_refuses(text):
    with pytest.raises(typer.BadParameter):
        options.size(text)


@pytest.mark.parametrize(
    ("text", "expected"), [("1", (1, 1)), ("4", (4, 4)), ("1:8", (1, 8)), ("2..3", (2, 3))]
)
def test_batch(text, expected):
    assert options.batch(text) == Range(min=expected[0], max=expected[1])


@pytest.mark.parametrize("text", ["", "0", "8:1", "1:", "a", "1-8", "-1"])
def test_batch_refuses(text):
    with pytest.raises(typer.BadParameter):
        options.batch(text)
