"""The goldens' weights: each value a pure function of parameter name, flat index and shape.

Integer hashing, one double multiply and one double add, so the same bits come out anywhere.
The rule is described in golden/README.md; the arithmetic here must not change.
"""

import re
import zlib

import numpy as np

U = np.uint64

IH_STD = 37837.227231403254
"""Standard deviation of the sum of four 16-bit uniforms: sqrt(4 * (65536**2 - 1) / 12)."""

HF_RESNET = r"pixel_level_module\.encoder\."
BATCH_NORM = re.compile(
    r"backbone\.(stem|res\d)\..*norm\.|" + HF_RESNET + r".*normalization\.|"
    r"backbone\.(bn1|layer\d\..*(bn\d|downsample\.1))\."
)
QUERY = re.compile(r"(query_feat|query_embed|queries_features|queries_embedder)\.weight$")
LEVEL = re.compile(r"(level_embed|level_encoding)(\.weight)?$")
NOT_WEIGHTS = re.compile(r"(relative_position_index|num_batches_tracked|empty_weight)$")
GAINS = [  # the first that matches counts
    (re.compile(r"(class_embed|class_predictor|cls_embed)\.weight$"), 5.0),
    (
        re.compile(r"in_proj_weight$|decoder\.layers\.\d+\.self_attn\.[qkv]_proj\.weight$"),
        1.5,
    ),
    (re.compile(r"attn\.(attn\.)?out_proj\.weight$"), 0.1875),
    (
        re.compile(
            r"(transformer.*\.linear2|decoder\..*\.fc2|coder\.layers\.\d+\.ffn\.layers\.1)"
            r"\.weight$"
        ),
        0.5,
    ),
    (
        re.compile(
            r"backbone\.res\d\..*\.conv3\.weight$|\.layer\.2\.convolution\.weight$|"
            r"backbone\.layer\d\..*\.conv3\.weight$"
        ),
        0.5,
    ),
    (
        re.compile(
            r"backbone\.(stem|res\d)\.|" + HF_RESNET + r"(embedder\.|encoder\.stages)|"
            r"backbone\.(conv1|layer\d)\.?"
        ),
        1.4142135623730951,
    ),
]


def lattice(name, count):
    """Sums of four hashed 16-bit uniforms, centred: about normal, int64 [count]."""
    with np.errstate(over="ignore"):
        x = U(zlib.crc32(name.encode())) * U(0xD1342543DE82EF95)
        x = x + (np.arange(count, dtype=U) + U(1)) * U(0x9E3779B97F4A7C15)
        x = (x ^ (x >> U(30))) * U(0xBF58476D1CE4E5B9)  # splitmix64's finaliser
        x = (x ^ (x >> U(27))) * U(0x94D049BB133111EB)
        x = x ^ (x >> U(31))
    s = (x & U(65535)) + ((x >> U(16)) & U(65535)) + ((x >> U(32)) & U(65535)) + (x >> U(48))
    return s.astype(np.int64) - 131070


def rule(name, shape):
    """Offset, scale and mode: value = offset + scale * z ("var": scale * abs(z))."""
    if name.endswith("running_mean"):
        return 0.0, 0.1, ""
    if name.endswith("running_var"):
        return 1.0, 0.1, "var"
    if name.endswith("relative_position_bias_table"):
        return 0.0, 0.5, ""
    if QUERY.search(name):
        return 0.0, 1.0, ""
    if LEVEL.search(name):
        return 0.0, 0.25, ""
    if name.endswith("sampling_offsets.bias"):
        return 0.0, 2.0, ""
    if len(shape) == 1:
        if name.endswith("bias"):
            return 0.0, 0.05, ""
        return 1.0, 0.1, "bn" if BATCH_NORM.search(name) else ""
    gain = next((gain for pattern, gain in GAINS if pattern.search(name)), 1.0)
    fan_in = int(np.prod(shape[1:]))
    return 0.0, gain / np.sqrt(np.float64(fan_in)), "centre"


def synth(name, shape):
    """One parameter, float32; None for buffers that are not weights."""
    if NOT_WEIGHTS.search(name):
        return None
    offset, scale, mode = rule(name, shape)
    s = lattice(name, int(np.prod(shape)))
    if mode == "centre":  # takes 7/8 of each row's mean out: keeps spatial contrast alive
        s = s.reshape(shape[0], -1)
        mean = s.sum(1, keepdims=True) / s.shape[1]
        z = (s - 0.875 * mean).reshape(-1) * (1.0 / IH_STD)
    else:
        z = s * (1.0 / IH_STD)
    value = offset + scale * (np.abs(z) if mode == "var" else z)
    if mode == "var":  # every 16th channel: tiny variance and gain pin batch norm's epsilon
        value[::16] *= 2.0e-5
    elif mode == "bn":
        value[::16] *= 5.0e-3
    return value.astype(np.float32).reshape(shape)
