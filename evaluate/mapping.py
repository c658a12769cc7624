"""Which category of the model is which category of the data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from m2f.config import Category
from m2f.errors import DataError
from m2f.evaluate.dataset import some


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """How to match categories.

    Attributes:
        by: "names": by id where the names agree, else by name. "ids": by id whatever the
            names, for models whose classes have none.
        allow_missing: Evaluate although the model lacks categories of the data set. Their
            regions stay in the ground truth and count as missed.
    """

    by: Literal["names", "ids"] = "names"
    allow_missing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryMap:
    """The match found; all but the first three fields are for the report.

    Attributes:
        categories: The data set's.
        model_index: Per category of the data set: the model's class index, None if it has
            no such class.
        model_categories: The model's.
        by_id: How many were matched by id, names agreeing.
        by_name: "data set's name (id) = model's id" of those matched by name alone.
        by_id_alone: "data set's name (id) = model's name" of those whose names differ.
        missing: Names of categories that the model lacks.
        ignored: Names of the model's categories that the data set lacks; what is predicted
            as one of them counts as nothing.
        other_kind: Names of things here that are stuff there, or the other way round.
    """

    categories: tuple[Category, ...]
    model_index: tuple[int | None, ...]
    model_categories: tuple[Category, ...]
    by_id: int
    by_name: tuple[str, ...]
    by_id_alone: tuple[str, ...]
    missing: tuple[str, ...]
    ignored: tuple[str, ...]
    other_kind: tuple[str, ...]

    @property
    def data_index(self) -> NDArray[np.int32]:
        """Index among the data set's categories of each class of the model, -1 for none.

        int32 [K + 1]; the last entry, which -1 finds, is for "no class" and -1.
        """
        table = np.full(len(self.model_categories) + 1, -1, np.int32)
        for index, model in enumerate(self.model_index):
            if model is not None:
                table[model] = index
        return table

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dump``."""
        return {
            "matched_by_id": self.by_id,
            "matched_by_name": list(self.by_name),
            "matched_by_id_alone": list(self.by_id_alone),
            "missing_in_model": list(self.missing),
            "missing_in_data": list(self.ignored),
            "thing_or_stuff_differs": list(self.other_kind),
        }


def match(
    data: Sequence[Category], model: Sequence[Category], matching: Matching
) -> CategoryMap:
    """Finds the model's class for every category of the data set.

    Raises:
        DataError: The model lacks categories (all are listed) and that was not allowed, or a
            name does not say which category is meant.
    """
    found = [_find(category, model, matching) for category in data]
    _check_unique(data, model, found)
    missing = [c for c, index in zip(data, found, strict=True) if index is None]
    if len(missing) == len(data) or (missing and not matching.allow_missing):
        names = ", ".join(f"{c.name} ({c.id})" for c in missing)
        known = some([f"{c.name} ({c.id})" for c in model])
        raise DataError(
            f"the model lacks {len(missing)} of the data set's {len(data)} categories: "
            f"{names}; it knows {known}; match by ids if only the names differ, or allow "
            "missing ones"
        )
    pairs = [
        (c, model[index]) for c, index in zip(data, found, strict=True) if index is not None
    ]
    used = {index for index in found if index is not None}
    return CategoryMap(
        categories=tuple(data),
        model_index=tuple(found),
        model_categories=tuple(model),
        by_id=sum(a.id == b.id and _plain(a.name) == _plain(b.name) for a, b in pairs),
        by_name=tuple(f"{a.name} ({a.id}) = {b.id}" for a, b in pairs if a.id != b.id),
        by_id_alone=tuple(
            f"{a.name} ({a.id}) = {b.name}"
            for a, b in pairs
            if _plain(a.name) != _plain(b.name)
        ),
        missing=tuple(c.name for c in missing),
        ignored=tuple(c.name for i, c in enumerate(model) if i not in used),
        other_kind=tuple(a.name for a, b in pairs if a.is_thing != b.is_thing),
    )


def _find(category: Category, model: Sequence[Category], matching: Matching) -> int | None:
    same_id = [i for i, c in enumerate(model) if c.id == category.id]
    if matching.by == "ids":
        return same_id[0] if same_id else None
    name = _plain(category.name)
    agreeing = [i for i in same_id if _plain(model[i].name) == name]
    named = agreeing or [i for i, c in enumerate(model) if _plain(c.name) == name]
    if len(named) > 1:
        ids = ", ".join(str(model[i].id) for i in named)
        raise DataError(
            f"category {category.name!r} ({category.id}) could be any of the model's {ids}, "
            "which share its name; match by ids"
        )
    return named[0] if named else None


def _check_unique(
    data: Sequence[Category], model: Sequence[Category], found: Sequence[int | None]
) -> None:
    count = Counter(index for index in found if index is not None)
    for index, times in count.items():
        if times > 1:
            ids = [c.id for c, i in zip(data, found, strict=True) if i == index]
            raise DataError(
                f"the data set's categories {some(ids)} are all named {model[index].name!r}; "
                "give each a name of its own, or match by ids"
            )


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())
