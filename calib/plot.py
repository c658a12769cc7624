"""The ranking as a picture, by matplotlib where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from m2f.calib.sensitivity import Part
from m2f.errors import MissingDependency, UsageError
from m2f.files import replacing

FORMATS = (".svg", ".png", ".pdf")


def save_ranking(path: Path, ranking: Sequence[Part], kept: Sequence[str]) -> None:
    """Draws what quantising each part alone leaves of the outputs' signal.

    Args:
        path: .svg, .png or .pdf.
        ranking: Noisiest first.
        kept: Layers that were not quantised; parts made of them are marked.

    Raises:
        UsageError: The format is none of these.
        MissingDependency: matplotlib is not installed.
        DiskError: The file cannot be written.
    """
    check(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.2 + 0.24 * len(ranking)), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(ranking))
    is_kept = [set(part.layers) <= set(kept) for part in ranking]
    axes.barh(
        places,
        [part.masks_db for part in ranking],
        0.4,
        align="edge",
        color=["#c44e52" if k else "#4c72b0" for k in is_kept],
    )
    axes.barh(
        places,
        [part.classes_db for part in ranking],
        -0.4,
        align="edge",
        color=["#e3a6a8" if k else "#a6b8d8" for k in is_kept],
    )
    names = [
        part.name + (" (kept)" if k else "") for part, k in zip(ranking, is_kept, strict=True)
    ]
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(
        "signal / noise of masks (dark) and classes (light) with this part alone quantised, dB"
    )
    axes.grid(axis="x", alpha=0.3)
    with replacing(path) as stream:
        figure.savefig(stream, format=path.suffix[1:], metadata=_undated(path))


def check(path: Path) -> None:
    """Says before hours are spent whether `save_ranking` can work.

    Raises:
        UsageError: The format is none of those known.
        MissingDependency: matplotlib is not installed.
    """
    if path.suffix not in FORMATS:
        raise UsageError(f"{path}: a plot is one of {', '.join(FORMATS)}, not {path.suffix!r}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as problem:
        raise MissingDependency(
            "the plot needs matplotlib; run: pip install matplotlib"
        ) from problem


def _undated(path: Path) -> dict[str, None] | None:
    """The same ranking is the same file."""
    return {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix)
