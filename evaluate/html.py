"""Pages that need no server and no other file: the parts that the reports share."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH = 560
"""Pixels; larger pictures are shrunk before they are put into the page."""

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { max-width: 1200px; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0 2rem; }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
td { white-space: nowrap; }
.wide { overflow-x: auto; } tr.reference { background: #8881; }
.row { display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; gap: .6rem;
  margin-bottom: 2rem; }
figure { margin: 0; } img { width: 100%; height: auto; border-radius: 4px; }
.plot { margin: 1rem 0 2rem; } .plot svg { width: 100%; height: auto;
  background: #fff; border-radius: 4px; }
figcaption { opacity: .7; }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """A whole document; ``title`` is plain text, ``parts`` are HTML."""
    title = escape(title)
    head = (
        "<!doctype html>\n"
        f'<html lang="en"><meta charset="utf-8"><title>{title}</title>\n'
        f"<style>{_STYLE}</style><h1>{title}</h1>"
    )
    return "\n".join([head, *parts, "</html>"])


def table(
    headings: Sequence[str],
    rows: Iterable[tuple[str, Sequence[str]]],
    *,
    reference: str | None = None,
) -> str:
    """A table whose first column names the rows; all is plain text.

    Args:
        headings: Of all columns.
        rows: Name and cells.
        reference: The row to set apart.
    """
    head = "".join(f"<th>{escape(text)}</th>" for text in headings)
    body = []
    for name, cells in rows:
        mark = ' class="reference"' if name == reference else ""
        rest = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        body.append(f"<tr{mark}><td>{escape(name)}</td>{rest}</tr>")
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(body)}</table></div>'


def pictures(images: Iterable[tuple[str, NDArray[np.uint8]]]) -> str:
    """Pictures side by side, each uint8 [H, W, 3] under its caption."""
    figures = "".join(
        f'<figure><img alt="{escape(text)}" src="{_embedded(pixels)}">'
        f"<figcaption>{escape(text)}</figcaption></figure>"
        for text, pixels in images
    )
    return f'<div class="row">{figures}</div>'


def _embedded(pixels: NDArray[np.uint8]) -> str:
    picture = Image.fromarray(pixels)
    picture.thumbnail((WIDTH, 2 * WIDTH))
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
