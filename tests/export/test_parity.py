"""The proof itself: it must see a wrong number anywhere, and excuse only rounding."""

import dataclasses

import numpy as np
import pytest
import torch

from m2f.export.bounds import LIMIT
from m2f.export.parity import Trace, compare, decisions, difference
from m2f.models.transformer_decoder import is_masked
from tests.export.models import small
from tests.export.test_network import DYNAMIC, exported, image, reference


def changed(checkpoint, name, scale):
    """The same checkpoint with one weight a little different."""
    weights = {**checkpoint.weights, name: checkpoint.weights[name] * np.float32(scale)}
    return dataclasses.replace(checkpoint, weights=weights)


@pytest.mark.parametrize(
    "name",
    [
        "backbone.res3.0.conv1.norm.running_var",
        "pixel_decoder.layers.1.attn.sampling_offsets.bias",
        "pixel_decoder.level_embed",
        "transformer_decoder.layers.2.self_attn.out_proj.weight",
        "transformer_decoder.class_embed.weight",
        "transformer_decoder.mask_embed.1.weight",
    ],
)
def test_a_weight_that_is_off_by_a_thousandth_is_seen(name, tmp_path):
    checkpoint = small("basic_blocks")
    side = exported(changed(checkpoint, name, 1.001), tmp_path, DYNAMIC)
    found = compare(reference(checkpoint), side, *image(96, 128))
    assert not found.is_within(), found


def test_the_first_wrong_module_is_the_changed_one(tmp_path):
    checkpoint = small("basic_blocks")
    name = "pixel_decoder.layers.1.linear1"
    side = exported(changed(checkpoint, f"{name}.weight", 1.01), tmp_path, DYNAMIC)
    found = compare(reference(checkpoint), side, *image(96, 128), trace_layers=True)
    assert next(n for n, error in found.layers.items() if error > LIMIT) == name


def trace(*decisions):
    decisions = [np.array(d, np.float32) for d in decisions]
    return Trace(np.ones((1, 1, 2), np.float32), np.ones((1, 1, 1, 1), np.float32), decisions)


def test_a_decision_tipped_by_rounding_is_counted_and_excused():
    found = difference(trace([1e-7, -1.0, 2.0]), trace([-1e-7, -1.0, 2.0]))
    assert found.tipped == (1,)
    assert found.is_within()


def test_a_decision_that_rounding_cannot_tip_is_an_error():
    found = difference(trace([1e-2, -1.0, 2.0]), trace([-1e-2, -1.0, 2.0]))
    assert found.tipped == (1,)
    assert not found.is_within()


def test_a_result_that_is_not_finite_is_an_error():
    broken = dataclasses.replace(trace([1.0]), mask_logits=np.full((1, 1, 1, 1), np.nan))
    assert not difference(trace([1.0]), broken).is_within()


def test_a_sigmoid_that_rounds_to_one_half_is_not_masked():
    """PyTorch's decision, not the logit's sign, is what the other side is given."""
    logits = torch.tensor([-1.0, -2e-8, 0.0, 2e-8, 1.0])
    assert is_masked(logits).tolist() == [True, False, False, False, False]
    assert (decisions(logits) < 0).tolist() == [True, False, False, False, False]
    assert (np.abs(decisions(logits)) == np.abs(logits.numpy())).all()


def test_forced_decisions_lead_both_sides_to_the_same_answer(tmp_path):
    """Decisions that neither side would make itself: all hidden, all seen, and a mixture."""
    checkpoint = small("basic_blocks")
    side, torch_side = exported(checkpoint, tmp_path, DYNAMIC), reference(checkpoint)
    pixels, valid = image(64, 64)
    free = torch_side.run(pixels, valid)
    rng = np.random.default_rng(1)
    for draw in (lambda s: -np.ones(s), np.ones, lambda s: rng.choice([-1, 1], s)):
        forced = [draw(d.shape).astype(np.float32) for d in free.decisions]
        a = torch_side.run(pixels, valid, forced=forced)
        found = difference(a, side.run(pixels, valid, forced=forced))
        assert found.is_within(), found
        assert np.abs(a.mask_logits - free.mask_logits).max() > 0, "forcing changed nothing"
