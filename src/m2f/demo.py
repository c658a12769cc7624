"""The whole way once, on a small model that comes with the package."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2f.bundle import Bundle
from m2f.config import json_from_config
from m2f.errors import MissingFile
from m2f.files import write_json
from m2f.run import RunReport, run
from m2f.runtime.images import find_images

OUT = "demo-output"
BUNDLE = "sample.m2f"
PICTURES = "pictures"
REPORT = "report.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """What the demo did.

    Attributes:
        out: The folder with everything it wrote.
    """

    out: Path
    bundle: Bundle
    run: RunReport

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dump``."""
        return {
            "out": str(self.out),
            "bundle": str(self.bundle.path),
            "parity": json_from_config(self.bundle.manifest.parity),
            **self.run.to_json(),
        }


def sample() -> Path:
    """The folder of the sample model that comes with the package.

    Raises:
        MissingFile: This installation has none.
    """
    import m2f.models

    folder = Path(m2f.models.__file__).parent / "sample"
    if not folder.is_dir():
        raise MissingFile(f"{folder}: the sample model is not there; install m2f again")
    return folder


def demo(
    out: str | os.PathLike[str] = OUT, *, progress: Callable[[str], None] = lambda _: None
) -> DemoReport:
    """Exports the sample model, runs it on the sample photographs, and writes a report.

    Args:
        out: Folder for the bundle, the pictures and the report; made if it does not exist.
            Results of an earlier demo in it are replaced.
        progress: Told what is being done.

    Raises:
        MissingDependency: PyTorch or onnx is not installed.
        DiskError: Something cannot be written.
    """
    from m2f.export import Options, export

    folder = Path(out)
    model = sample()
    options = Options(overwrite=True)
    bundle = export(model, folder / BUNDLE, options=options, progress=progress)
    progress("segmenting the photographs")
    images = find_images([model])
    report = run(bundle.path, images, folder / PICTURES, save=("overlay", "panoptic", "json"))
    done = DemoReport(out=folder, bundle=bundle, run=report)
    write_json(folder / REPORT, done.to_json())
    return done
