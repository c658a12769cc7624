"""A report as a picture."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from m2f.bench.parts import KINDS, PARTS
from m2f.bench.profiling import Profile
from m2f.bench.report import Report
from m2f.errors import MissingDependency, UsageError
from m2f.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".png", ".svg", ".pdf")
_ROLES = {"bundle": "#2f6db3", "reference": "#8a8f98", "peer": "#c9803a"}


LABELLED = 0.06
"""Share of the time from which a part has its name written on it."""


def check(path: Path) -> None:
    """Sees to it that a picture can be drawn, before hours of measuring.

    Raises:
        UsageError: The name has another ending.
        MissingDependency: matplotlib is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path}: a plot ends in {', '.join(SUFFIXES)}, not {path.suffix!r}")
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingDependency(
            "matplotlib is not installed; run: pip install 'm2f-deploy[bench]'"
        )


def draw(report: Report, path: Path) -> None:
    """Draws times of networks, and of the parts of ours.

    Args:
        report: At least one network was timed.
        path: See `check`; appears whole or not at all.

    Raises:
        DiskError: It cannot be written.
    """
    from matplotlib.figure import Figure

    ours = report.ours
    parts = ours.parts if ours else None
    figure = Figure(figsize=(8, 1.5 + 0.4 * len(report.networks) + 2.5 * bool(parts)))
    axes = figure.subplots(1 + bool(parts), 1, squeeze=False)[:, 0]
    _draw_networks(axes[0], report)
    if ours and parts:
        _draw_parts(axes[1], ours.name, parts)
    figure.suptitle(f"{report.model}, {report.machine.threads} threads of {report.machine.cpu}")
    figure.tight_layout()
    with replacing(path) as stream:
        figure.savefig(stream, format=path.suffix[1:], dpi=150)


def _draw_networks(axes: Axes, report: Report) -> None:
    """Medians, with quartiles as whiskers."""
    timed = report.networks[::-1]
    names = [f"{one.name}, {one.precision}" for one in timed]
    medians = [one.times.median for one in timed]
    below = [one.times.median - one.times.quartiles[0] for one in timed]
    above = [one.times.quartiles[1] - one.times.median for one in timed]
    colours = [_ROLES[one.role] for one in timed]
    axes.barh(names, medians, xerr=[below, above], color=colours, capsize=3)
    height, width = report.size
    axes.set_xlabel(f"ms per image of {height}x{width}")


def _draw_parts(axes: Axes, name: str, parts: Profile) -> None:
    """Time by part, and by kind of work, one bar each."""
    for place, rows, order in ((1, parts.parts, PARTS), (0, parts.kinds, KINDS)):
        start = 0.0
        for row in rows:
            shade = 0.25 + 0.6 * order.index(row.name) / len(order)
            colour = (shade, shade, 0.7)
            axes.barh(place, row.ms, left=start, color=colour, edgecolor="white")
            if row.ms > LABELLED * parts.total.ms:
                axes.text(start + row.ms / 2, place, row.name, ha="center", va="center", size=7)
            start += row.ms
    axes.set_yticks((1, 0), ("by part", "by work"))
    axes.set_xlabel(f"{name}: ms under the profiler")
