"""Rounding forward and its gradients, against the formulas written out in NumPy."""

import numpy as np
import pytest
import torch

from m2f.errors import UsageError
from m2f.models.mask2former import model_from_weights
from m2f.train.quantized import Rounding, Steps, learnt_steps, prepare, rounded, weight_steps
from tests.cli.conftest import TINY
from tests.weights import synthetic


def test_rounding_and_its_gradients():
    x = torch.tensor([-99.0, -0.26, 0.1, 0.5, 0.74, 70.0], requires_grad=True)
    step = torch.tensor(0.5, requires_grad=True)
    y = rounded(x, step)
    y.backward(torch.tensor([1.0, 10.0, 100.0, 1e3, 1e4, 1e5]))
    raw = x.detach().numpy() / 0.5
    levels = np.clip(np.round(raw), -127, 127)
    np.testing.assert_allclose(y.detach().numpy(), levels * 0.5)
    inside = np.abs(raw) < 127
    weights = np.array([1.0, 10.0, 100.0, 1e3, 1e4, 1e5])
    np.testing.assert_allclose(x.grad.numpy(), weights * inside)
    slope = np.where(inside, levels - raw, np.sign(raw) * 127)
    assert step.grad.item() == pytest.approx((weights * slope).sum(), rel=1e-5)


def test_weights_keep_their_largest_value_in_each_channel():
    weight = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    weight[2] = 0
    coarse = rounded(weight, weight_steps(weight))
    flat = weight.flatten(1)
    for channel, original in zip(coarse.flatten(1), flat, strict=True):
        assert channel.abs().max() == pytest.approx(original.abs().max().item(), rel=1e-6)
        assert (channel - original).abs().max() <= original.abs().max() / 127 / 2 * (1 + 1e-5)


def test_a_folded_batch_norm_changes_no_level():
    """Scaling a channel scales its step: the levels are those of the folded weight."""
    weight = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))
    scale = torch.tensor([0.1, 3.0, 1e-3, 7.0, 1.0])[:, None]
    levels = [torch.round(w / weight_steps(w)) for w in (weight, weight * scale)]
    assert torch.equal(*levels)


def test_steps_learn_at_the_pace_of_their_logarithm():
    steps = Steps({"a.b": 0.25, "c": 2.0})
    assert steps.learnt() == {"a.b": 0.25, "c": 2.0}
    optimizer = torch.optim.SGD(steps.parameters(), lr=1e-5)
    x = torch.full((3,), 100.0)  # outside of the range of "a.b", so that it wants to grow
    (-steps(x, "a.b").sum()).backward()
    optimizer.step()
    learnt = steps.learnt()
    # d(y)/d(growth) = 127 step * PACE / sqrt(3 * 127) for each of three; then growth * PACE.
    growth = 1e-5 * 3 * 127 * 0.25 * 30 / np.sqrt(3 * 127)
    assert np.log(learnt["a.b"] / 0.25) == pytest.approx(growth * 30, rel=1e-4)
    assert learnt["c"] == 2.0


NAMES = ("backbone.res2.0.conv2", "pixel_decoder.layers.0.linear1")
ROUNDING = Rounding(
    inputs={NAMES[0]: "x", NAMES[1]: "y"},
    outputs={"pixel_decoder.layers.0.attn.value_proj": "v"},
    steps={"x": 0.05, "y": 0.05, "v": 0.02},
)


def test_a_prepared_model_rounds_where_it_should():
    model = model_from_weights(TINY, synthetic(TINY)).eval()
    plain = model_from_weights(TINY, synthetic(TINY)).eval()
    prepare(ROUNDING)(model)
    seen = {}

    def keep(name):
        def hook(_module, inputs, output):
            seen[name] = inputs[0], output

        return hook

    for name in NAMES:
        model.get_submodule(name).register_forward_hook(keep(name))
    value = []
    attn = model.get_submodule("pixel_decoder.layers.0.attn.value_proj")
    attn.register_forward_hook(lambda m, i, output: value.append(output))
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        model(image)
        for name, tensor in zip(NAMES, ("x", "y"), strict=True):
            module = plain.get_submodule(name)
            weight = module.weight
            module.weight.copy_(rounded(weight, weight_steps(weight)))
            x, output = seen[name]
            step = torch.tensor(ROUNDING.steps[tensor])
            torch.testing.assert_close(module(rounded(x, step)), output)
    levels = value[0] / 0.02
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    assert learnt_steps(model) == pytest.approx(ROUNDING.steps)
    assert set(plain.state_dict()) < set(model.state_dict())


@pytest.mark.parametrize(
    ("name", "message"), [("backbone.res9", "has no such layer"), ("backbone", "only convol")]
)
def test_what_cannot_be_rounded(name, message):
    model = model_from_weights(TINY, synthetic(TINY))
    with pytest.raises(UsageError, match=message):
        prepare(Rounding(inputs={name: "x"}, outputs={}, steps={"x": 1.0}))(model)
