"""A bundle, ready to segment images."""

from __future__ import annotations

import dataclasses
import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from m2f.bundle import Bundle, InputProfile
from m2f.config import TASKS, Metadata, Postprocess, Task
from m2f.errors import BundleError, UsageError
from m2f.runtime.backend import Backend, Flight, Pipelined
from m2f.runtime.backends import open_backend
from m2f.runtime.images import Source, decode
from m2f.runtime.logits import Frame
from m2f.runtime.native import Library, Masks
from m2f.runtime.postprocess import segment
from m2f.runtime.preprocess import Prepared, Size, assemble, padded_size, prepare
from m2f.runtime.results import Prediction

MASK_STRIDE = 4
"""Pixels of the padded input per mask pixel, each way."""


def load(
    bundle: str | os.PathLike[str] | Bundle,
    *,
    backend: str | Backend | None = None,
    device: str | None = None,
    threads: int | None = None,
    task: Task | None = None,
    verify: bool = True,
    **postprocess: Any,
) -> Session:
    """Opens a bundle for inference.

    Args:
        bundle: Its folder, as `m2f export` made it.
        backend: A name of `m2f.runtime.backends.BACKENDS`, or a `Backend` that runs this
            bundle's network. Unless given, an engine of the bundle where there is one and
            ``device`` is a GPU, else ONNX Runtime.
        device: "cpu", "cuda" or e.g. "cuda:1"; the CPU unless given or needed.
        threads: CPU cores to use; all unless given.
        task: What to answer; the bundle's own task unless given.
        verify: Check the files' hashes first.
        **postprocess: Fields of `m2f.config.Postprocess` to change, e.g.
            ``convention="hf"`` or ``object_mask_threshold=0.5``.

    Raises:
        MissingFile: There is no such bundle.
        BundleError: It is damaged or cannot be loaded.
        UsageError: An unknown backend, device or post-processing field, or a task that the
            model cannot answer.
        EngineError: The bundle's engine is damaged, stale, or for another machine.
        DeviceError: There is no such GPU, or it has not enough memory.
        MissingDependency: What the backend needs is not installed.
    """
    if not isinstance(bundle, Bundle):
        bundle = Bundle.open(os.fspath(bundle), verify=verify)
    manifest = bundle.manifest
    rules = _changed(manifest.metadata.postprocess, postprocess)
    metadata = dataclasses.replace(manifest.metadata, postprocess=rules)
    task = _known_task(metadata.task if task is None else task, metadata)
    if backend is None or isinstance(backend, str):
        backend = open_backend(bundle, backend, device=device, threads=threads)
    # An engine may have been built for fewer sizes than the bundle takes.
    profile = getattr(backend, "profile", manifest.profile)
    return Session(backend, metadata, profile, task=task, threads=threads)


class Session:
    """Segments images: ``session(image)`` or ``session([image, ...])``.

    Usable as a context manager; not by several threads at once.
    """

    def __init__(
        self,
        backend: Backend,
        metadata: Metadata,
        profile: InputProfile,
        *,
        task: Task | None = None,
        threads: int | None = None,
    ) -> None:
        """Puts the parts together; `load` does this for a bundle.

        Args:
            backend: Runs the network; closed with the session.
            metadata: Categories, preprocessing, postprocessing.
            profile: Sizes the network takes.
            task: What to answer; the metadata's task unless given.
            threads: CPU cores for what is done before and after the network; all unless given.
        """
        self.backend = backend
        self.metadata = metadata
        self.profile = profile
        self.threads = threads
        self.task: Task = _known_task(metadata.task if task is None else task, metadata)

    @overload  # a str is a sequence of str, too
    def __call__(  # type: ignore[overload-overlap]
        self, images: Source, *, task: Task | None = None
    ) -> Prediction: ...

    @overload
    def __call__(
        self, images: Sequence[Source], *, task: Task | None = None
    ) -> list[Prediction]: ...

    def __call__(
        self, images: Source | Sequence[Source], *, task: Task | None = None
    ) -> Prediction | list[Prediction]:
        """Segments one image, or each of a list.

        A list is run in batches as large as the bundle allows; images of different sizes
        are padded to the largest of their batch, which can change results slightly, as in
        the official code. An array is one image.

        Args:
            images: See `m2f.runtime.images.decode`.
            task: What to answer; the session's task unless given.

        Raises:
            ImageError: An image cannot be used.
            MissingFile: An image does not exist.
            UsageError: The model cannot answer this task.
        """
        task = self.task if task is None else _known_task(task, self.metadata)
        if isinstance(images, (list, tuple)):
            return list(self._predictions(self._batches(images), task))
        alone = [self.prepare(images)]  # type: ignore[arg-type]
        (only,) = self._predictions(iter([alone]), task)
        return only

    def prepare(self, image: Source) -> Prepared:
        """Decodes one image for this bundle; `logits` resizes it."""
        return prepare(decode(image), self.metadata.preprocess, self.profile)

    def logits(self, images: Sequence[Prepared]) -> tuple[NDArray[Any], NDArray[Any]]:
        """The network's outputs for one batch of prepared images.

        Args:
            images: As many as fit the bundle's largest batch. Missing ones of its least
                batch are made up by repeating the last image, and dropped again.

        Returns:
            Class logits [N, Q, K + 1] and mask logits [N, Q, H'/4, W'/4].

        Raises:
            BundleError: An image is smaller than the batch, and the network cannot be told.
        """
        batch, sizes = self.assembled(images)
        class_logits, mask_logits = self.backend.run(batch, sizes)
        return class_logits[: len(images)], mask_logits[: len(images)]

    def assembled(
        self, images: Sequence[Prepared]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The network's inputs for one batch of prepared images, resized by now.

        Returns:
            uint8 [N, H, W, 3], and the valid height and width of each image, int64 [N, 2].
        """
        filled, _ = self.batch(images)
        return assemble(filled, self.profile, threads=self.threads)

    def batch(self, images: Sequence[Prepared]) -> tuple[list[Prepared], Size]:
        """What makes a batch of prepared images, nothing resized yet.

        Returns:
            As many as the network's least batch at least, and the batch's height and width.

        Raises:
            BundleError: See `logits`.
        """
        least = self.profile.batch.min
        filled = [*images, *[images[-1]] * (least - len(images))]
        padded = padded_size(filled, self.profile)
        other = next((image.size for image in filled if image.size != padded), None)
        if other is not None and not self.backend.takes_image_size:
            raise BundleError(
                f"the network takes no image_size, so that an image of {other[0]}x{other[1]} "
                f"cannot be padded to {padded[0]}x{padded[1]}; export it again"
            )
        return filled, padded

    def segments(
        self,
        class_logits: NDArray[Any],
        mask_logits: Masks,
        image: Prepared,
        *,
        task: Task | None = None,
        native: Library | None = None,
    ) -> Prediction:
        """One image's segments from the network's outputs.

        Args:
            class_logits: [Q, K + 1].
            mask_logits: [Q, H'/4, W'/4].
            image: What `logits` was given.
            task: What to answer; the session's task unless given.
            native: Does the work where the mask logits are; the CPU's unless given.
        """
        padded = (mask_logits.shape[1] * MASK_STRIDE, mask_logits.shape[2] * MASK_STRIDE)
        return segment(
            class_logits,
            mask_logits,
            Frame(padded=padded, valid=image.size, output=image.original),
            task=self.task if task is None else _known_task(task, self.metadata),
            rules=self.metadata.postprocess,
            categories=self.metadata.categories,
            threads=self.threads,
            native=native,
        )

    def close(self) -> None:
        """Frees the network."""
        self.backend.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _batches(self, images: Sequence[Source]) -> Iterator[list[Prepared]]:
        step = self.profile.batch.max
        for start in range(0, len(images), step):
            yield [self.prepare(image) for image in images[start : start + step]]

    def _predictions(
        self, batches: Iterator[list[Prepared]], task: Task
    ) -> Iterator[Prediction]:
        if isinstance(self.backend, Pipelined):
            yield from self._pipelined(batches, self.backend, task)
            return
        for batch in batches:
            yield from self._predict(batch, task)

    def _pipelined(
        self, batches: Iterator[list[Prepared]], backend: Pipelined, task: Task
    ) -> Iterator[Prediction]:
        """Prepares and finishes batches on the host while others are on the device."""
        flying: deque[tuple[list[Prepared], Flight]] = deque()
        try:
            for images in batches:
                if len(flying) == backend.depth:
                    yield from self._finished(*flying[0], task)
                    flying.popleft()
                batch = self.batch(images)
                flying.append((images, backend.submit_images(*batch, threads=self.threads)))
            while flying:
                yield from self._finished(*flying[0], task)
                flying.popleft()
        finally:
            for _, flight in flying:
                flight.release()

    def _finished(self, images: list[Prepared], flight: Flight, task: Task) -> list[Prediction]:
        with flight:
            class_logits, masks, native = flight.outputs(self.threads)
            return [
                self.segments(class_logits[i], masks[i], image, task=task, native=native)
                for i, image in enumerate(images)
            ]

    def _predict(self, images: Sequence[Prepared], task: Task) -> list[Prediction]:
        class_logits, mask_logits = self.logits(images)
        return [
            self.segments(class_logits[i], mask_logits[i], image, task=task)
            for i, image in enumerate(images)
        ]


def _known_task(task: Task, metadata: Metadata) -> Task:
    if task not in metadata.tasks:
        known = "no such task" if task not in TASKS else "this model was not trained for it"
        raise UsageError(
            f"task {task!r}: {known}; it answers {', '.join(map(repr, metadata.tasks))}"
        )
    return task


def _changed(rules: Postprocess, changes: dict[str, Any]) -> Postprocess:
    from m2f.config import config_from_json, json_from_config

    # Through JSON, for its checks of names and types.
    merged = {**json_from_config(rules), **changes}
    return config_from_json(Postprocess, merged, where="postprocess")
