import numpy as np
import pytest

from m2f.errors import CheckFailed, ShapeError
from m2f.runtime.logits import Frame, argmax_planes, check, largest, sigmoid_, softmax


def test_sigmoid_of_extremes_has_no_warning_and_is_exact():
    with np.errstate(divide="raise", invalid="raise"):
        y = sigmoid_(np.array([-1e4, -100, 0, 100, 1e4], np.float32))
    assert y.tolist() == [0.0, pytest.approx(0.0, abs=1e-43), 0.5, 1.0, 1.0]


def test_softmax_of_extremes():
    assert softmax(np.array([[1e4, -1e4, 1e4]], np.float32)).tolist() == [[0.5, 0.0, 0.5]]


def test_argmax_takes_the_first_of_equals():
    planes = np.array([[[1, 2]], [[3, 2]], [[3, 1]]], np.float32)
    assert argmax_planes(planes).tolist() == [[1, 0]]


def test_largest_takes_the_lower_index_of_equals():
    assert largest(np.array([[1, 3], [3, 2]], np.float32), 3).tolist() == [1, 2, 3]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(bad):
    masks = np.zeros((2, 4, 4), np.float32)
    masks[1, 2, 3] = bad
    with pytest.raises(CheckFailed, match="1 of 32 mask logits are NaN or infinite"):
        check(np.zeros((2, 3), np.float32), masks)


def test_outputs_that_disagree_on_the_queries_are_refused():
    with pytest.raises(ShapeError, match=r"\(2, 3\) and \(3, 4, 4\)"):
        check(np.zeros((2, 3), np.float32), np.zeros((3, 4, 4), np.float32))


def test_a_valid_part_outside_the_input_is_refused():
    with pytest.raises(ShapeError, match="must lie within"):
        Frame(padded=(32, 32), valid=(33, 32), output=(8, 8))
