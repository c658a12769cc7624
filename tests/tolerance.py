"""Every number a test allows, with where it comes from. Widening one needs its own commit."""

POSTPROCESS_PIXELS = 2e-4
"""Share of pixels that may differ after post-processing the same logits: 0.02 %, the advice
in golden/README.md for tests like > 0 at upsampled resolution."""

POSTPROCESS_SCORE = 1e-5
"""Scores after post-processing the same logits; golden/README.md."""

SEMANTIC_SCORE = 2e-4
"""Semantic scores, of sums over 100 queries: each term of both sides within 1e-6 (logits of up
to 25 resampled in float32: three roundings of 25 * 2^-24, a quarter after the sigmoid)."""

GRAY_LEVEL = 1
"""Two 8-bit resizes that use the same weights and round differently."""

HF_NORMALISED = 2.4e-7
"""transformers fuses its rescaling by 1/255 and its normalisation; golden/README.md."""

SAMPLE_POSITION = 2.0**-22
"""Relative error of a float32 sampling position or composed weight: four roundings."""

FLOAT64_SUMS = 1e-11
"""Losses in double precision, summed in two orders: values of up to 60, at most 2^10 of them,
60 * 2^10 * 2^-53 = 7e-12."""

MASK_LOGITS_MAX = 5e-4
MASK_LOGITS_MEAN = 2e-5
CLASS_LOGITS_MAX = 2e-4
"""FP32 network outputs against the official code's; the advice of golden/README.md, whose own
noise between equivalent runs is 8.1e-5, 9.7e-6 and 3.5e-5."""

MASK_SIGNS = 5
"""Mask logits of one fixture whose sign may differ; golden/README.md."""

FEATURES_MAX = 3e-5
"""Pixel decoder outputs, FP32: the fixtures' noise floor is 8.2e-6 for values of order one."""

COMPONENT_MAX = 1e-5
"""Backbone and attention alone: values of order one through up to 1e3 float32 sums (official
against Hugging Face on the same odd-sized Swin differs by 5e-6)."""

POSITION_MAX = 1e-6
"""Sine position encodings: sines of phases up to 2 pi, a few float32 roundings each."""

STATED_DIGITS = 1.01
"""stats.json states noise floors with three digits."""

IOU_SUM = 1e-12
"""Two float64 sums of n <= 90 IoUs, each at most 1, in different orders: the k-th addition
rounds by at most k 2^-53, so that the sums differ by at most n^2 2^-53 = 9e-13."""

MODULE_ERROR = 1e-4
"""Relative L2 of any module's output, FP32 against FP32: as for the network's outputs."""

ATTENTION = 8e-6
"""One small attention in float32: sums of at most 7 products of values below 4, and a softmax
with a relative error of 8 roundings: 4 * 4 * 8 * 2^-24."""

THRESHOLD_SEARCH = 1.02
"""Squared error at the threshold found over the best one's: candidates are 1/256 of the peak
apart, and near its least the error grows with the square of the distance; a histogram's bin is
at most half a step wide, so that it misjudges a step's rounding by (1/2)^2 / 12 of it."""

TIPPED_ROUNDINGS = 3e-3
"""Relative L2 of an 8-bit layer that sums in another order, behind few others. Steps are 0.03
of a tensor whose root mean square is 1: if all its numbers moved by one, that would be the
error; of those within float32's rounding of a step's middle some do, fewer than one in ten."""

INT8_OUTPUTS = 0.5
"""Relative L2 of a small network's logits in int8, deciding for itself: random weights have no
margin, so that this only tells an answer from none (of unrelated logits it is about 1.4)."""


def deformable(value, sampling, sizes):
    """Bounds the absolute error of one float32 deformable attention output.

    Summation of 4 * L * P products (Higham 2002, section 3.1), and the rounding of the
    pixel coordinate, which grows with its own magnitude and moves a sample by at most twice the
    peak per pixel and axis.
    """
    unit, peak = 2.0**-24, float(abs(value).max())
    offsets = sampling.shape[-1] * 2 // 3
    reach = float(abs(sampling[..., :offsets]).max()) + max(max(size) for size in sizes)
    terms = 4 * sampling.shape[-1] // 6
    return (terms + 8) * unit * peak + 2 * (4 * reach * unit) * (2 * peak)


def deformable_device(value, samples, storage):
    """What CUDA adds to `deformable`, by how value is stored.

    Weights come from ex2 and rcp, with relative errors of 2^-22 each, and from an exponent that
    was rounded once (|x| 2^-23 exp(x) < 2^-23). Halves: the weight of a pixel, its product and
    three sums round by 2^-11 of at most weight * peak each, or by 2^-25 where they are
    subnormal. bfloat16: weights are halves. int8: weights have 16 bits, four for each sample.
    """
    peak = float(abs(value).max())
    roundings = {"float32": 0, "float16": 5, "bfloat16": 1, "int8": 0}[storage]
    bound = (4 * 2.0**-22 + roundings * 2.0**-11) * peak
    if storage in ("float16", "bfloat16"):
        bound += samples * 4 * 2.0**-25 * (peak + 1)
    if storage == "int8":
        bound += samples * 4 * 0.5 / 65535 * peak
    return bound


def tensor_core(largest):
    """Bounds one mma.m16n8k16 of float sums, by the largest of the 17 terms of each sum.

    Eight products at a time are aligned with the largest term or the sum so far, which is below
    17 times that, and cut at 2^-23 of it: 9 terms and the result, twice.
    """
    return 2 * 10 * 2.0**-23 * 17 * largest


ROUNDED_UP = 1 + 2.0**-7
"""A weighted mean may exceed its largest term by float32's rounding of 130 terms (2^-16) and
by that of what it is stored as (bfloat16: 2^-8)."""

UNIT_ROUNDOFF = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def stored(bound, expected, storage):
    """Adds the rounding of a result to what it is stored as (2^-24: half's subnormals)."""
    if storage == "float32":
        return bound
    return bound + UNIT_ROUNDOFF[storage] * float(abs(expected).max() + bound) + 2.0**-24


def attention(q, k, v, heads):
    """Bounds the absolute error of one float32 masked attention output.

    A score is a sum of D products (Higham 2002, section 3.1); an error e of scores changes
    weights by a factor of at most exp(2 e); and the weights and the blend are sums over S
    positions of terms that are at most the peak of v. 16 roundings for exp (its argument's
    own rounding weighs at most |x| exp(x) < 1) and the division, 2 for each block of 64 whose
    statistics are rescaled.
    """
    unit, depth, positions = 2.0**-24, q.shape[-1] // heads, k.shape[1]
    rows = [abs(x).reshape(*x.shape[:2], heads, depth).max(axis=(0, 1)) for x in (q, k)]
    score = float((rows[0] * rows[1]).sum(-1).max()) / depth**0.5
    blocks = -(-positions // 64)
    relative = 2 * (depth + 3) * unit * score + (positions + 2 * blocks + 16) * unit
    return relative * float(abs(v).max())


def window_attention(qkv, padding, position_bias):
    """Bounds the absolute error of one float32 window attention output.

    As `attention`, with the position bias as one more term of each score, over the T pixels of
    a window at once, and one more rounding for the inverse of the weights' sum. A hidden
    pixel's weight is 0 on both sides: 1e4 is more than scores differ by.
    """
    heads, pixels, _ = position_bias.shape
    depth = padding.shape[1] // heads
    peaks = abs(qkv).max(axis=(0, 1, 2)).clip(min=abs(padding).reshape(-1))
    q, k, v = peaks.reshape(3, heads, depth)
    score = float((q * k).sum(-1).max()) / depth**0.5 + float(abs(position_bias).max())
    relative = (2 * (depth + 4) * score + pixels + 17) * 2.0**-24
    return relative * float(v.max())


def linear(x, weight, bias, residual, *, is_gelu):
    """Bounds the absolute error of each output of a fully connected layer in float32.

    A sum of K products and a bias (Higham 2002, section 3.1), and adding the residual. GELU
    stretches an error by at most 1.13 and adds its own: ERF_ULPS of half its factor, a rounding
    of erf's argument, which weighs at most x exp(-x^2 / 2) < 0.61, and two of products.
    """
    unit = 2.0**-24
    size = abs(x.astype("d")) @ abs(weight.astype("d")) + abs(bias.astype("d"))
    error = (x.shape[-1] + 3) * unit * size
    if is_gelu:
        error = 1.13 * error + (ERF_ULPS / 2 + 3) * unit * size
    added = 0.0 if residual is None else abs(residual.astype("d"))
    return error + unit * (size + added)


def quantised(x, scale, *, is_gelu):
    """Bounds by how many steps each activation of x in float32 is off.

    GELU's own error is as in `linear`; the quotient is rounded once.
    """
    size = abs(x.astype("d")) / float(scale)
    return 2.0**-24 * ((ERF_ULPS / 2 + 3) * size * is_gelu + size)


ERF_ULPS = 5
"""Of common/erf.h, as it states; measured: 4.6 on a grid of 8 million arguments."""


def rounded_weights(k, v, storage):
    """What tensor cores add to `attention`: softmax weights rounded to 16 bits.

    Their sum is taken before, so that each weight is off by its unit roundoff, half's
    subnormals (of a weight relative to the largest) by 2^-25, and weighs a value.
    """
    subnormal = 2.0**-25 if storage == "float16" else 0.0
    return (UNIT_ROUNDOFF[storage] + k.shape[1] * subnormal) * float(abs(v).max())


CLAIM = 10 * 2.0**-24
"""Relative, of one panoptic claim against another: exp to two roundings, a sum, a quotient and
a product, on both sides."""


def class_sum(queries):
    """Relative, of one semantic score against another: a sum of products, none negative.

    Each is exp, a sum, a quotient and a product, five roundings; adding it to the others rounds
    once per query; resizing scores rounds eight times; and the native code leaves out what adds
    less than one rounding.
    """
    return 2 * (queries + 14) * 2.0**-24


def normalised(x, deviation, weight, bias, count):
    """Bounds the absolute error of each normalised value, for means of `count` values.

    Sums have 16 parts or more: count / 16 additions in a row, and 24 that put parts and rest
    together. The first mean is off by that times the values' size, `shift` in deviations. What
    counts is only that deviations, and their squares, are added up with the same relative
    error, and a few roundings of z = (x - mean) / deviation; of the shift, of weight and bias.
    """
    unit, depth = 2.0**-24, count / 16 + 24
    shift = depth * unit * abs(x).mean(-1, keepdims=True) / deviation
    z = abs(x - x.mean(-1, keepdims=True)) / deviation
    relative = (depth + 5) / 2 * (1 + 2 * shift**2) + 8
    size = (depth + 8) * (1 + shift) + z * relative + 8 * shift
    return unit * (abs(weight) * size + 2 * abs(bias))


def blended(values, output):
    """Adding values resampled along two axes: two products and a sum each, and the addition."""
    unit = 2.0**-24
    return unit * (6 * float(abs(values).max(initial=0)) + abs(output))
