"""Training that knows of 8 bits: a model computes as its INT8 file will, and learns around it.

Activations and weights are rounded to the steps of 8-bit numbers on the way forward; on the way
back the rounding is taken for the identity (Bengio et al., 2013), and the steps of the
activations are learnt (LSQ: Esser et al., ICLR 2020, section 2.1). A weight's step follows from
its channel's largest magnitude, as in the file; a batch normalisation folded into the weight
scales channel and step alike, so that it can be left out here.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2f.errors import UsageError
from m2f.models.mask2former import Mask2Former

LARGEST = 127
"""Ranges are symmetric: -128 is not used."""

PACE = 30.0
"""How much faster the logarithm of a step learns than a weight. Weights are about 0.03 and move
by the learning rate; a step should move by about the same share of itself."""

STEPS = "steps"
"""The module that holds what is learnt of the steps, beside the model's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """What is rounded, and by how much at first.

    Attributes:
        inputs: Tensor that each module multiplies with its weight, by the module's name;
            tensors of one name share their step.
        outputs: The same for modules whose result is rounded.
        steps: Of each tensor's 8-bit numbers.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    steps: Mapping[str, float]


def rounded(x: Tensor, step: Tensor) -> Tensor:
    """Rounds to the nearest of the 255 multiples of ``step``; ties to even.

    Its gradient: of x, 1 within the range and 0 outside; of the step, the rounding error
    within, the end of the range outside (Esser et al., equation 3).

    Args:
        x: Any shape.
        step: Positive; broadcasts against x.
    """
    scaled = (x / step).clamp(-LARGEST, LARGEST)
    return (scaled + (scaled.round() - scaled).detach()) * step


def weight_steps(weight: Tensor) -> Tensor:
    """A step for each output channel, the first axis, as the file will have it."""
    largest = weight.detach().abs().amax(tuple(range(1, weight.ndim)), keepdim=True)
    return largest.clamp_min(torch.finfo(weight.dtype).tiny) / LARGEST


class Steps(nn.Module):
    """Steps of all tensors, as the logarithm of what they became over what they were."""

    def __init__(self, steps: Mapping[str, float]) -> None:
        super().__init__()
        self.first = dict(steps)
        self.names = {name: str(number) for number, name in enumerate(steps)}
        self.growth = nn.ParameterDict(
            {key: nn.Parameter(torch.zeros(())) for key in self.names.values()}
        )

    def step(self, tensor: str, count: int) -> Tensor:
        """The step of a tensor of so many numbers.

        All of them pull at it, so its gradient is made smaller by their root (section 2.2).
        """
        growth = self.growth[self.names[tensor]]
        share = PACE / math.sqrt(count * LARGEST)
        slow = growth * share + (growth * (PACE - share)).detach()
        return torch.exp(slow) * self.first[tensor]

    def forward(self, x: Tensor, tensor: str) -> Tensor:
        """Rounds a tensor of that name."""
        return rounded(x, self.step(tensor, x.numel()).to(x.dtype))

    def learnt(self) -> dict[str, float]:
        """Each tensor's step by now."""
        with torch.no_grad():
            return {name: float(self.step(name, 1)) for name in self.names}


def prepare(rounding: Rounding) -> Callable[[Mask2Former], None]:
    """What makes a model compute as if quantised; see `m2f.train.trainer.Prepare`.

    Raises:
        UsageError: The model has no module of a name, or one without a weight to round.
    """

    def change(model: Mask2Former) -> None:
        modules = dict(model.named_modules())
        steps = Steps(rounding.steps)
        for name in (*rounding.inputs, *rounding.outputs):
            if name not in modules:
                raise UsageError(
                    f"{name} is quantised, but the model to be trained has no such layer; "
                    "calibrate the same model"
                )
        for name, tensor in rounding.inputs.items():
            _round_inside(modules[name], name, steps, tensor)
        for name, tensor in rounding.outputs.items():
            modules[name].register_forward_hook(_rounding_hook(steps, tensor))
        model.add_module(STEPS, steps)

    return change


def learnt_steps(model: Mask2Former) -> dict[str, float]:
    """The steps that a model made by `prepare` has learnt, by tensor."""
    steps = model.get_submodule(STEPS)
    assert isinstance(steps, Steps)
    return steps.learnt()


def _round_inside(module: nn.Module, name: str, steps: Steps, tensor: str) -> None:
    """Rounds input and weight where the module multiplies them; its weight keeps its name."""
    if isinstance(module, nn.Conv2d):
        multiply = module._conv_forward

        def convolve(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            weight = rounded(weight, weight_steps(weight))
            result: Tensor = multiply(steps(input, tensor), weight, bias)
            return result

        setattr(module, "_conv_forward", convolve)  # noqa: B010  (mypy forbids assigning it)
    elif isinstance(module, nn.Linear):

        def linear(input: Tensor) -> Tensor:
            weight = rounded(module.weight, weight_steps(module.weight))
            return F.linear(steps(input, tensor), weight, module.bias)

        setattr(module, "forward", linear)  # noqa: B010
    else:
        raise UsageError(
            f"{name} is a {type(module).__name__}; only convolutions and linear layers can be "
            "trained as if quantised"
        )


def _rounding_hook(
    steps: Steps, tensor: str
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        result: Tensor = steps(output, tensor)
        return result

    return hook
