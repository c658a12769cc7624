"""Plots of a comparison, as SVG inside the page, by matplotlib where it is installed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from m2f.evaluate import html
from m2f.evaluate.comparison.result import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST_PART = 50
"""Parts of fewer than one in so many layers are not named along the axis."""


def layers_plot(rows: Sequence[Row]) -> str:
    """Signal over noise of every layer, a line per row; a table without matplotlib."""
    figure = _figure()
    if figure is None:
        return _worst_layers(rows)
    axes = figure.add_subplot()
    order = max((row.layers for row in rows), key=len)
    place = {layer.name: i for i, layer in enumerate(order)}
    for row in rows:
        known = [layer for layer in row.layers if layer.name in place]
        axes.plot(
            [place[layer.name] for layer in known],
            [layer.decibel for layer in known],
            marker=".",
            markersize=4,
            linewidth=0.9,
            label=row.name,
        )
    for start, part in _parts([layer.name for layer in order]):
        axes.axvline(start, color="0.85", linewidth=0.8, zorder=0)
        axes.text(start, 1.01, f" {part}", transform=axes.get_xaxis_transform(), fontsize=8)
    axes.set_xlabel("layer, in the order they run")
    axes.set_ylabel("signal / difference, dB")
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    return _svg(figure)


def flips_plot(rows: Sequence[Row]) -> str:
    """Share of mask decisions that change, by decoder layer; a table without matplotlib."""
    figure = _figure(height=2.8)
    known = [row for row in rows if row.flips]
    if figure is None:
        numbers = [str(i) for i in range(len(known[0].flips))]
        return html.table(
            ["decoder layer", *numbers],
            [(row.name, [f"{flip:.2f}" for flip in row.flips]) for row in known],
        )
    axes = figure.add_subplot()
    width = 0.8 / len(known)
    for number, row in enumerate(known):
        places = [i + (number - (len(known) - 1) / 2) * width for i in range(len(row.flips))]
        axes.bar(places, row.flips, width, label=row.name)
    axes.set_xticks(range(len(known[0].flips)))
    axes.set_xlabel("decoder layer")
    axes.set_ylabel("decisions changed, %")
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    return _svg(figure)


def _worst_layers(rows: Sequence[Row]) -> str:
    worst = [
        (layer.name, [row.name, f"{layer.decibel:.1f}"])
        for row in rows
        for layer in sorted(row.layers, key=lambda layer: layer.decibel)[:10]
    ]
    note = "<p>The noisiest layers; with matplotlib installed this is a plot of all.</p>"
    return note + html.table(["layer", "version", "dB"], worst)


def _parts(names: Sequence[str]) -> list[tuple[int, str]]:
    """Where each large part of the network begins."""
    found: list[tuple[int, str]] = []
    for number, name in enumerate(names):
        part = name.split(".")[0]
        if not found or found[-1][1] != part:
            found.append((number, part))
    ends = [start for start, _ in found[1:]] + [len(names)]
    large = len(names) / LEAST_PART
    return [(s, part) for (s, part), end in zip(found, ends, strict=True) if end - s > large]


def _figure(height: float = 3.8) -> Figure | None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    return Figure(figsize=(11, height), layout="constrained")


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return f'<div class="plot">{text[text.index("<svg") :]}</div>'
