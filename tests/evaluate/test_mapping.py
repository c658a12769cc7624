import dataclasses

import pytest

from m2f.config import Category
from m2f.errors import DataError
from m2f.evaluate.mapping import Matching, match
from tests.evaluate.made import CATEGORIES


def category(key, name, is_thing=True):
    return Category(id=key, name=name, colour=(0, 0, 0), is_thing=is_thing)


MODEL = (category(1, "cat"), category(2, "dog"), category(3, "sky", False))


def test_by_id_where_names_agree_else_by_name():
    found = match(
        [category(1, "Cat "), category(9, "DOG"), category(2, "sky")], MODEL, Matching()
    )
    assert found.model_index == (0, 1, 2)
    assert found.by_id == 1
    assert found.by_name == ("DOG (9) = 2", "sky (2) = 3")
    assert found.other_kind == ("sky",)
    assert found.data_index.tolist() == [0, 1, 2, -1]


def test_what_the_model_lacks_is_listed():
    data = [category(1, "cat"), category(4, "cow"), category(5, "hen")]
    with pytest.raises(DataError, match=r"lacks 2 .* 3 categories: cow \(4\), hen \(5\);"):
        match(data, MODEL, Matching())
    found = match(data, MODEL, Matching(allow_missing=True))
    assert found.missing == ("cow", "hen")
    assert found.model_index == (0, None, None)
    assert found.ignored == ("dog", "sky")
    assert found.data_index.tolist() == [0, -1, -1, -1]


def test_without_any_common_category_nothing_can_be_allowed():
    with pytest.raises(DataError, match="lacks 1 of the data set's 1"):
        match([category(4, "cow")], MODEL, Matching(allow_missing=True))


def test_by_ids_whatever_the_names():
    data = [category(1, "class 0"), category(3, "class 1")]
    with pytest.raises(DataError):
        match(data, MODEL, Matching())
    found = match(data, MODEL, Matching(by="ids"))
    assert found.model_index == (0, 2)
    assert found.by_id == 0
    assert found.by_id_alone == ("class 0 (1) = cat", "class 1 (3) = sky")


def test_two_names_alike():
    with pytest.raises(DataError, match=r"\[?8, 9\]? are all named 'cat'"):
        match([category(8, "cat"), category(9, "cat")], MODEL, Matching())
    twins = (*MODEL, category(7, "cat"))
    with pytest.raises(DataError, match="could be any of the model's 1, 7"):
        match([category(9, "cat")], twins, Matching())
    assert match([category(7, "cat")], twins, Matching()).model_index == (3,)


def test_the_same_categories_need_no_remark():
    found = match(CATEGORIES, CATEGORIES, Matching())
    assert found.by_id == len(CATEGORIES)
    assert not any(
        getattr(found, f.name)
        for f in dataclasses.fields(found)
        if f.name in ("by_name", "by_id_alone", "missing", "ignored", "other_kind")
    )
