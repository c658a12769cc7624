"""The extra losses on the mask features."""

import pytest
import torch

from m2f.models.matcher import Target
from m2f.train.auxiliary import PixelLessons, segment_map

MASKS = torch.zeros(2, 8, 8, dtype=torch.bool)
MASKS[0, :, :4] = True
MASKS[1, :4, 4:] = True  # the last quarter is void
TARGET = Target(torch.tensor([2, 0]), MASKS)


def test_each_cell_belongs_to_the_segment_at_its_centre():
    assert segment_map([TARGET], (2, 2)).tolist() == [[[1, 2], [1, 0]]]


def test_features_that_tell_segments_apart_cost_less():
    torch.manual_seed(0)
    lessons = PixelLessons(4, 3)
    owners = segment_map([TARGET], (2, 2))[0]
    apart = torch.nn.functional.one_hot(owners, 4).permute(2, 0, 1)[None].float()
    same = torch.ones(1, 4, 2, 2)
    with torch.no_grad():
        lessons.classify.weight.zero_()
        lessons.classify.bias.zero_()
        blank = torch.log(torch.tensor(3.0))  # cross entropy of three equal classes
        assert float(lessons(same, [TARGET]) - blank) == pytest.approx(0.6931, abs=1e-4)
        assert float(lessons(apart, [TARGET]) - blank) < 0.1


def test_void_and_the_absent_teach_nothing():
    lessons = PixelLessons(4, 3)
    empty = Target(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 8, 8, dtype=torch.bool))
    features = torch.randn(2, 4, 2, 2, requires_grad=True)
    lessons(features, [TARGET, empty]).backward()
    assert features.grad[0].abs().sum() > 0
    assert features.grad[1].abs().sum() == 0
    assert features.grad[0, :, 1, 1].abs().sum() == 0


def test_images_without_any_segment():
    lessons = PixelLessons(4, 3)
    empty = Target(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 8, 8, dtype=torch.bool))
    assert lessons(torch.randn(1, 4, 2, 2), [empty]).item() == 0
