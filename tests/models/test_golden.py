"""The reference model computes what the official implementations compute."""

import numpy as np
import pytest
import torch

from tests import golden, tolerance
from tests.fixtures import FIXTURES, R50_PANOPTIC, reference_run


@pytest.fixture(scope="module", params=FIXTURES, ids=lambda f: f.name)
def fixture(request):
    return request.param


def error(actual, expected):
    return np.abs(actual.numpy() - expected)


def test_the_network_sees_the_same_input(fixture):
    images, _ = reference_run(fixture)
    exact = fixture.format == "official"
    allowed = 0.0 if exact else tolerance.HF_NORMALISED
    assert error(images[:, :, ::4, ::4], fixture.golden["input_s4"]).max() <= allowed


def test_masks(fixture):
    _, output = reference_run(fixture)
    expected = fixture.golden["pred_masks"]
    difference = error(output.mask_logits, expected)
    assert difference.max() <= tolerance.MASK_LOGITS_MAX
    assert difference.mean() <= tolerance.MASK_LOGITS_MEAN
    signs = (output.mask_logits.numpy() > 0) != (expected > 0)
    assert signs.sum() <= tolerance.MASK_SIGNS


def test_classes(fixture):
    _, output = reference_run(fixture)
    assert error(output.class_logits, fixture.golden["pred_logits"]).max() <= (
        tolerance.CLASS_LOGITS_MAX
    )


def test_every_head_on_the_way(fixture):
    _, output = reference_run(fixture)
    for i, head in enumerate(output.heads[:-1]):
        classes = error(head.class_logits, fixture.golden["aux_logits"][i])
        masks = error(head.mask_logits[:, :, ::8, ::8], fixture.golden["aux_masks_s8"][i])
        assert classes.max() <= tolerance.CLASS_LOGITS_MAX, f"head {i}"
        assert masks.max() <= tolerance.MASK_LOGITS_MAX, f"head {i}"


def test_every_decision_of_masked_attention(fixture):
    _, output = reference_run(fixture)
    fully_masked = 0
    for i, logits in enumerate(output.attention_logits):
        masked = logits.numpy() < 0
        expected = golden.unpack_mask(fixture.golden, i, masked.shape)
        assert (masked != expected).sum() == 0, f"layer {i}"
        assert np.allclose(masked.mean(-1), fixture.golden["masked_fraction"][i], atol=1e-6)
        fully_masked += int(masked.all(-1).sum())
    assert fully_masked > 0, "a fixture without fully masked rows does not test their rule"


def test_pixel_decoder_features(fixture):
    _, output = reference_run(fixture)
    for name, step, actual in (
        ("ms0_c2", 2, output.features.scales[0]),
        ("ms1_c4", 4, output.features.scales[1]),
        ("ms2_c8", 8, output.features.scales[2]),
        ("mask_features_c16", 16, output.features.mask_features),
    ):
        difference = error(actual[:, ::step], fixture.golden[name])
        assert difference.max() <= tolerance.FEATURES_MAX, name


def test_float64_is_as_far_from_float32_as_it_officially_is():
    """The exact answer lies where the official code's own float64 run found it."""
    _, output = reference_run(R50_PANOPTIC, torch.float64)
    masks = error(output.mask_logits, R50_PANOPTIC.golden["pred_masks"])
    classes = error(output.class_logits, R50_PANOPTIC.golden["pred_logits"])
    floor = R50_PANOPTIC.floor
    assert masks.max() <= floor["pred_masks_max"] * tolerance.STATED_DIGITS
    assert masks.mean() <= floor["pred_masks_mean"] * tolerance.STATED_DIGITS
    assert classes.max() <= floor["pred_logits_max"] * tolerance.STATED_DIGITS
