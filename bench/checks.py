"""No time without a proof: is a result the reference's?

Two implementations of masked attention may decide differently where a mask logit lies within
rounding of zero, and are compared here as they run, each deciding for itself. So the limits
are wider than those of `m2f.export.parity`, which gives both the same decisions; they tell a
fast network from a wrong one. How good a reduced precision is, `m2f eval` and `m2f compare`
say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2f.errors import CheckFailed

Array = NDArray[Any]
Outputs = tuple[Array, Array]
"""Class logits [N, Q, K + 1] and mask logits [N, Q, H/4, W/4]."""

LIMITS: Mapping[str, float] = {"fp32": 1e-3, "fp16": 0.05, "bf16": 0.1, "int8": 0.5, "fp8": 0.5}
"""Largest relative L2 of either output.

FP32: ten times what is allowed where decisions agree. FP16 and BF16: some 150 roundings in a
row, of 2^-11 and 2^-8 at most, add up to their root's multiple, 0.006 and 0.05; then decisions
tip. 8 bits: half of the signal; two unrelated results have 1.4.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """How far a result was from the reference.

    Attributes:
        against: What the reference was.
        class_error: Relative L2 of the class logits.
        mask_error: Relative L2 of the mask logits.
        limit: Largest of either that is accepted.
    """

    against: str
    class_error: float
    mask_error: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the result is the reference's; NaN is not."""
        return self.class_error <= self.limit and self.mask_error <= self.limit

    def require(self, name: str) -> Check:
        """Itself, if it passed.

        Raises:
            CheckFailed: It did not.
        """
        if not self.passed:
            raise CheckFailed(
                f"{name} is not timed, its result is wrong: against {self.against} the classes "
                f"differ by {self.class_error:.1e} and the masks by {self.mask_error:.1e}, "
                f"where {self.limit:.0e} is allowed"
            )
        return self


Judge = Callable[[Outputs], Check]
"""Compares a result with what is right."""


def checked(outputs: Outputs, reference: Outputs, *, against: str, precision: str) -> Check:
    """Compares two results.

    Args:
        outputs: What is to be timed gave.
        reference: What is right.
        against: The reference's name.
        precision: Of what is to be timed.
    """
    errors = []
    for actual, expected in zip(outputs, reference, strict=True):
        if actual.shape != expected.shape:
            errors.append(float("inf"))
            continue
        errors.append(relative_error(np.asarray(actual, np.float32), expected))
    return Check(
        against=against,
        class_error=errors[0],
        mask_error=errors[1],
        limit=LIMITS[precision],
    )


def relative_error(actual: Array, expected: Array) -> float:
    """Relative L2 distance; infinite where the result is not finite."""
    if not np.isfinite(actual).all():
        return float("inf")
    norm = float(np.linalg.norm(expected.astype(np.float64).ravel()))
    distance = float(np.linalg.norm((actual.astype(np.float64) - expected).ravel()))
    return distance / norm if norm else distance
