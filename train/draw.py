"""Drawn scenes as a data set on disk, in the formats of real ones."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2f.bundle import disk_errors
from m2f.errors import UsageError
from m2f.train import scenes
from m2f.train.coco import write_coco
from m2f.train.scenes import Scene

HELD_OUT = 200
"""Scenes that the sample model is judged on: seeds 0 to 199, which it never trained on."""

SIZE = (160, 160)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawReport:
    """What was drawn."""

    folder: Path
    count: int
    first: int
    size: tuple[int, int]

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dump``."""
        seeds = [self.first, self.first + self.count - 1]
        return {"folder": str(self.folder), "count": self.count, "seeds": seeds}


def draw(
    folder: str | Path,
    *,
    count: int = HELD_OUT,
    first: int = 0,
    size: tuple[int, int] = SIZE,
    progress: Callable[[int, int, object], None] | None = None,
) -> DrawReport:
    """Draws scenes and writes them with COCO panoptic, instance and semantic annotations.

    Args:
        folder: What to make; must not exist, or be empty. Appears whole or not at all.
        count: Scenes.
        first: Seed of the first; the others follow. The same seed is always the same scene.
        size: Height and width, pixels.
        progress: Called before each scene with its number, their count, and its seed.

    Raises:
        UsageError: Something is in the folder, or there is nothing to draw.
        DiskError: The place cannot be written to.
    """
    folder = Path(folder)
    if count < 1 or first < 0 or min(size) < 32:
        raise UsageError(
            f"cannot draw {count} scenes of {size[0]}x{size[1]} from seed {first}; ask for at "
            "least one, of at least 32x32, from seed 0 on"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: exists and is not an empty folder; choose another name")

    def drawn() -> Iterator[Scene]:
        for i in range(count):
            if progress is not None:
                progress(i + 1, count, f"scene {first + i}")
            yield scenes.scene(first + i, size)

    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            write_coco(drawn(), work, scenes.CATEGORIES)
            work.chmod(0o755)
            work.replace(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return DrawReport(folder=folder, count=count, first=first, size=size)
