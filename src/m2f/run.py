"""A bundle over many image files: pictures and the files other tools read."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from m2f.config import Task
from m2f.errors import ImageError, M2FError, MissingFile, ShapeError, UsageError
from m2f.files import replacing, write_json
from m2f.runtime.images import decode, find_images
from m2f.runtime.results import Prediction
from m2f.runtime.session import Session, load

Save = Literal["overlay", "panoptic", "semantic", "coco", "json"]
SAVES: tuple[Save, ...] = ("overlay", "panoptic", "semantic", "coco", "json")
OVERLAY: tuple[Save, ...] = ("overlay",)

PANOPTIC = "panoptic.json"
COCO = "coco.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReport:
    """What became of one image.

    Attributes:
        outputs: Files written for this image alone.
        prediction: None where it failed.
        error: Why it failed.
    """

    image: Path
    outputs: tuple[Path, ...] = ()
    prediction: Prediction | None = None
    error: M2FError | None = None

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dump``."""
        result: dict[str, Any] = {"image": str(self.image)}
        if self.error is not None:
            return {**result, "error": str(self.error)}
        assert self.prediction is not None
        outputs = [str(p) for p in self.outputs]
        return {**result, "outputs": outputs, **self.prediction.to_json()}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What became of every image.

    Attributes:
        outputs: Files that hold results of all images together.
    """

    images: tuple[ImageReport, ...]
    outputs: tuple[Path, ...]

    @property
    def failed(self) -> int:
        """Images without a result."""
        return sum(report.error is not None for report in self.images)

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dump``."""
        return {
            "images": [report.to_json() for report in self.images],
            "outputs": [str(p) for p in self.outputs],
            "failed": self.failed,
        }


def run(
    bundle: str | os.PathLike[str],
    images: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    save: Collection[Save] = OVERLAY,
    task: Task | None = None,
    threads: int | None = None,
    backend: str | None = None,
    device: str | None = None,
    min_score: float = 0.5,
    progress: Callable[[int, int, Path], None] | None = None,
) -> RunReport:
    """Segments image files and writes what ``save`` names into a folder.

    "overlay" gives NAME_overlay.png, "semantic" NAME_semantic.png with category ids,
    "json" NAME_segments.json, "panoptic" panoptic/NAME.png and one panoptic.json as COCO's,
    "coco" one coco.json of run-length encoded results. NAME is the image's name, with as
    much of its path as is needed to tell two images apart.

    Args:
        bundle: As `m2f.export.export` made it.
        images: Files, folders and glob patterns.
        out: The folder; made if it does not exist. Results of an earlier run are replaced.
        save: What to write.
        task: What to answer; the bundle's own task unless given.
        threads: CPU cores to use; all unless given.
        backend: What runs the network; see `m2f.load`.
        device: "cpu", "cuda" or e.g. "cuda:1"; see `m2f.load`.
        min_score: Instances below it are left out of overlays.
        progress: Called before each image with its number, their count, and its path.

    Returns:
        A report in the images' order. An image that cannot be used is in it with its
        error, and does not stop the others.

    Raises:
        UsageError: An output would replace an input, or the task has no such output.
        ImageError: There is only one image, and it cannot be used.
        MissingFile: The bundle or an image does not exist.
        DiskError: A result cannot be written.
    """
    names = _names(find_images(images))
    folder = Path(out)
    with load(bundle, backend=backend, device=device, threads=threads, task=task) as session:
        _check(names, folder, save, session.task)
        writer = _Writer(session, folder, save, min_score)
        ids = _image_ids(names.values())
        reports = []
        for number, (image, name) in enumerate(names.items(), 1):
            if progress is not None:
                progress(number, len(names), image)
            try:
                reports.append(writer.write(image, name, ids[name]))
            except (ImageError, ShapeError, MissingFile) as problem:
                if len(names) == 1:
                    raise
                reports.append(ImageReport(image=image, error=problem))
        return RunReport(images=tuple(reports), outputs=writer.finish())


class _Writer:
    """Writes results, image by image, and at the end those of all together."""

    def __init__(
        self, session: Session, folder: Path, save: Collection[Save], min_score: float
    ) -> None:
        self.session, self.folder, self.save = session, folder, save
        self.min_score = min_score
        self.coco: list[dict[str, Any]] = []
        self.panoptic: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def write(self, image: Path, name: str, image_id: int | str) -> ImageReport:
        pixels = decode(image)
        prediction = self.session(pixels)
        outputs = []
        if "overlay" in self.save:
            outputs.append(self.folder / f"{name}_overlay.png")
            picture = prediction.overlay(pixels, min_score=self.min_score)
            with replacing(outputs[-1]) as stream:
                picture.save(stream, format="PNG")
        if "semantic" in self.save:
            outputs.append(self.folder / f"{name}_semantic.png")
            prediction.save_semantic(outputs[-1])
        if "json" in self.save:
            outputs.append(self.folder / f"{name}_segments.json")
            write_json(outputs[-1], {"image": str(image), **prediction.to_json()})
        if "panoptic" in self.save:
            pictures = self.folder / "panoptic"
            outputs.append(pictures / f"{name}.png")
            annotation = prediction.save_panoptic(pictures, image_id, stem=name)
            height, width = prediction.size
            file = {"id": image_id, "file_name": str(image), "height": height, "width": width}
            self.panoptic.append((file, annotation))
        if "coco" in self.save:
            self.coco.extend(prediction.to_coco_rle(image_id))
        return ImageReport(image=image, outputs=tuple(outputs), prediction=prediction)

    def finish(self) -> tuple[Path, ...]:
        outputs = []
        if "panoptic" in self.save:
            outputs.append(self.folder / PANOPTIC)
            categories = [
                {"id": c.id, "name": c.name, "color": c.colour, "isthing": int(c.is_thing)}
                for c in self.session.metadata.categories
            ]
            files, annotations = zip(*self.panoptic, strict=True) if self.panoptic else ((), ())
            document = {"images": files, "annotations": annotations, "categories": categories}
            write_json(outputs[-1], document)
        if "coco" in self.save:
            outputs.append(self.folder / COCO)
            write_json(outputs[-1], self.coco)
        return tuple(outputs)


def saves(names: Iterable[str]) -> tuple[Save, ...]:
    """Checks names of what to write; each may hold several, separated by commas.

    Raises:
        UsageError: One of them is not known.
    """
    given = [part.strip() for name in names for part in name.split(",")]
    unknown = sorted(set(given) - set(SAVES))
    if unknown:
        raise UsageError(f"cannot save {', '.join(unknown)}; there are {', '.join(SAVES)}")
    return tuple(save for save in SAVES if save in given)


def _names(images: Iterable[Path]) -> dict[Path, str]:
    """A name for each image, from the shortest rule that tells all of them apart."""
    files = {os.path.abspath(image): image for image in images}
    parent = os.path.commonpath([os.path.dirname(file) for file in files])
    rules: tuple[Callable[[str], str], ...] = (
        lambda file: Path(file).stem,
        lambda file: os.path.splitext(os.path.relpath(file, parent))[0],
        lambda file: os.path.relpath(file, parent),
    )
    for rule in rules:
        names = [rule(file) for file in files]
        if len(set(names)) == len(names):
            break
    return dict(zip(files.values(), names, strict=True))


def _image_ids(names: Collection[str]) -> dict[str, int | str]:
    """COCO names images by their numbers, and its tools expect those as ids."""
    ids = {name: int(name) if name.isdecimal() else name for name in names}
    return ids if len(set(ids.values())) == len(names) else {name: name for name in names}


def _check(names: Mapping[Path, str], folder: Path, save: Collection[Save], task: Task) -> None:
    if "panoptic" in save and task != "panoptic":
        raise UsageError(f"a {task} result has no panoptic file; pass --task panoptic")
    if "semantic" in save and task == "instance":
        raise UsageError("an instance result has no semantic file; pass --task semantic")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; name a folder to write to")
    inputs = {os.path.realpath(image) for image in names}
    for name in names.values():
        for output in (f"{name}_overlay.png", f"{name}_semantic.png", f"panoptic/{name}.png"):
            if os.path.realpath(folder / output) in inputs:
                raise UsageError(
                    f"{folder / output}: is one of the images, and a result would replace "
                    "it; choose another folder"
                )
