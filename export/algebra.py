"""Exact rewrites: the same function with fewer operations.

Each is a change of order that real arithmetic does not notice and floating point only by
rounding; `tests/export/test_algebra.py` shows that of every one alone. `m2f export
--no-algebra` leaves all of them out, to compare.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from m2f.export.graph import Array

BATCH_NORM_EPSILON = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Algebra:
    """Which rewrites to make.

    In brackets what each saves where the others are made, for R50 at 800x1344, counted as
    `m2f inspect --cost` does; all of them together: [18.2 GMAC, 2586 MB, 87 nodes].

    Attributes:
        batch_norm: A frozen batch norm scales and shifts each channel: so can the convolution
            before it. Saves a node and, where a runtime does not do it itself, a pass over the
            map, per convolution of a ResNet. [0.0 GMAC, 1906 MB, 53 nodes]
        pixel_scale: The first convolution's weights divide by the pixels' standard deviation.
            Not their mean, too: the convolution pads with zeros, which stand for the mean.
            [0.0 GMAC, 26 MB, 1 nodes]
        small_masks: Resizing is linear, so a mask at 1/8, 1/16 or 1/32 is the query's
            product with resized features. Nine of ten products with the 1/4 map, and their
            resizes, become ones of a quarter to a 64th of it. [13.8 GMAC, 1237 MB, 21 nodes]
        mask_features: The 1x1 convolution that makes mask features (without a norm after it)
            folds into the last linear layer of the mask embedding; its bias becomes a shift
            per query and mask, hence the nodes. Only for pixel decoders that end in such a one.
            [4.4 GMAC, 29 MB, -18 nodes]
        first_layer: The learnt queries do not depend on the image; nor does what they say
            before the first layer: their mask embedding and first projection are constants,
            which some runtimes would find themselves. [0.0 GMAC, 0 MB, 13 nodes]
        joint_kv: The three layers that look at one scale take their keys in one product, and
            their values: 6 products over the scales instead of 18, which read the scale once;
            cutting the results apart is a copy. [0.0 GMAC, -181 MB, 18 nodes]
    """

    batch_norm: bool = True
    pixel_scale: bool = True
    small_masks: bool = True
    mask_features: bool = True
    first_layer: bool = True
    joint_kv: bool = True

    @classmethod
    def none(cls) -> Algebra:
        """The network as it is written in the paper."""
        return cls(**{field.name: False for field in dataclasses.fields(cls)})

    @classmethod
    def of(cls, names: Collection[str]) -> Algebra:
        """The rewrites of these names, as a manifest lists them."""
        return cls(**{f.name: f.name in names for f in dataclasses.fields(cls)})

    @property
    def names(self) -> tuple[str, ...]:
        """The rewrites that are made."""
        fields = dataclasses.fields(self)
        return tuple(field.name for field in fields if getattr(self, field.name))


ALL = Algebra()
"""Every rewrite."""


def conv_from_conv_and_batch_norm(
    kernel: Array, weight: Array, bias: Array, mean: Array, variance: Array
) -> tuple[Array, Array]:
    """Kernel [O, I, h, w] and bias [O] of a convolution that also does its batch norm."""
    scale = weight.astype(np.float64) / np.sqrt(
        variance.astype(np.float64) + BATCH_NORM_EPSILON
    )
    folded = kernel * scale[:, None, None, None]
    return folded.astype(np.float32), (bias - mean * scale).astype(np.float32)


def linear_from_linear_and_conv(
    weight: Array, bias: Array, kernel: Array, kernel_bias: Array
) -> tuple[Array, Array]:
    """Folds features' 1x1 convolution into the linear layer whose output multiplies them.

    e . (K y + b) = (e K) . y + e . b for e = W h + c: a linear layer of h again.

    Args:
        weight: W, [E, C].
        bias: c, [E].
        kernel: K, [E, F, 1, 1].
        kernel_bias: b, [E].

    Returns:
        [F + 1, C] and [F + 1]: F channels to multiply y with, and one to add.
    """
    k = np.concatenate([kernel[:, :, 0, 0], kernel_bias[:, None]], 1).astype(np.float64)
    return (k.T @ weight).astype(np.float32), (k.T @ bias).astype(np.float32)


def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
    """Layer normalisation of constants, float64."""
    x = x.astype(np.float64)
    centred = x - x.mean(-1, keepdims=True)
    normed = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + epsilon)
    return np.asarray(normed * weight + bias)
