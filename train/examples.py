"""A user's data set as training batches, the same for the same step and seed.

What is a segment, as in the official code's mappers: a panoptic segment, an object, or all
pixels of one class. Crowds of objects are no segment, and neither is what nobody labelled:
those pixels belong to no mask.
"""

import functools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from pycocotools import mask as coco  # type: ignore[import-untyped, unused-ignore]

from m2f.config import Preprocess, Task
from m2f.errors import DataError, UsageError
from m2f.evaluate.dataset import DataSet, Item, check_files
from m2f.evaluate.miou import semantic_truth
from m2f.evaluate.truth import InstanceTruth, PanopticTruth, Truth
from m2f.models.mask2former import network_input
from m2f.models.matcher import Target
from m2f.runtime.images import decode
from m2f.train.jitter import Jitter, Plane, View, draw_view
from m2f.train.trainer import Batch


class Examples:
    """Gives the batch of every step; each image comes once before any comes again.

    Args:
        data: With categories of its own.
        task: What its truth is to be: one of the data set's tasks.
        batch: Images per step.
        jitter: How they are varied.
        preprocess: Mean and standard deviation.
        seed: Of their order and variation.

    Raises:
        UsageError: The data cannot teach the task, or the batch is empty.
        DataError: It holds no image.
        MissingFile: Files of it do not exist.
    """

    def __init__(
        self,
        data: DataSet,
        task: Task,
        *,
        batch: int,
        jitter: Jitter,
        preprocess: Preprocess,
        seed: int,
    ) -> None:
        if task not in data.tasks:
            raise UsageError(f"{data.name}: cannot teach {task}, only {', '.join(data.tasks)}")
        if batch < 1:
            raise UsageError(f"a batch of {batch} images leaves nothing to learn from")
        if not data.items:
            raise DataError(f"{data.name}: holds no image")
        check_files(data.items)
        self._data, self._task, self._size = data, task, batch
        self._jitter, self._preprocess, self._seed = jitter, preprocess, seed
        self._index = {category.id: i for i, category in enumerate(data.categories)}
        self._order = functools.lru_cache(maxsize=2)(self._shuffled)

    def __call__(self, step: int) -> Batch:
        """The batch of a step.

        Raises:
            DataError: An annotation is wrong or does not fit its image.
            ImageError: An image cannot be used.
            MissingFile: A file is gone.
        """
        h, w = self._jitter.crop
        images = np.zeros((self._size, h, w, 3), np.uint8)
        valid, targets = [], []
        for i in range(self._size):
            number = step * self._size + i
            epoch, place = divmod(number, len(self._data.items))
            item = self._data.items[int(self._order(epoch)[place])]
            image, target = self._example(item, np.random.default_rng([self._seed, 1, number]))
            images[i, : image.shape[0], : image.shape[1]] = image
            valid.append(image.shape[:2])
            targets.append(target)
        pixels = network_input(
            torch.from_numpy(images), self._preprocess, image_size=torch.tensor(valid)
        )
        return Batch(pixels, targets)

    def _example(
        self, item: Item, rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.uint8], Target]:
        truth = self._data.truth(item)
        image = decode(item.image)
        if truth.size != image.shape[:2]:
            raise DataError(
                f"{item.image}: is {image.shape[0]}x{image.shape[1]}, its ground truth "
                f"({item.label or self._data.name}) {truth.size[0]}x{truth.size[1]}; the two "
                "must be of one size"
            )
        view = draw_view(rng, self._jitter, truth.size)
        classes, masks = [], []
        for kind, mask in self._segments(truth, view):
            if mask.any():
                classes.append(kind)
                masks.append(mask)
        full = np.zeros((len(masks), *self._jitter.crop), np.bool_)
        for place, mask in zip(full, masks, strict=True):
            place[: mask.shape[0], : mask.shape[1]] = mask
        target = Target(torch.tensor(classes, dtype=torch.int64), torch.from_numpy(full))
        return view.image(image), target

    def _segments(self, truth: Truth, view: View) -> Iterator[tuple[int, Plane]]:
        """Class index and mask of each segment, as seen."""
        if isinstance(truth, InstanceTruth):
            for one in truth.objects:
                if not one.is_crowd:
                    mask = view.plane(coco.decode(one.rle))
                    yield self._index[one.category_id], mask.astype(np.bool_)
        elif self._task == "panoptic" and isinstance(truth, PanopticTruth):
            ids = view.plane(truth.ids)
            for segment in truth.segments:
                if not segment.is_crowd:
                    yield self._index[segment.category_id], ids == segment.id
        else:
            labels = view.plane(semantic_truth(truth, self._index).labels)
            for label in np.unique(labels[labels >= 0]).tolist():
                yield label, labels == label

    def _shuffled(self, epoch: int) -> npt.NDArray[np.int64]:
        rng = np.random.default_rng([self._seed, 0, epoch])
        return rng.permutation(len(self._data.items))
