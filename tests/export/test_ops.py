"""The portable bodies of the custom ops, in ONNX Runtime, against float64 definitions."""

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from m2f.errors import BundleError, ShapeError
from m2f.export.graph import IR_VERSION, OPSET, Graph
from m2f.export.ops import Lowering, masked_attention_body
from m2f.models.msdeform import deformable_attention, reference_points
from m2f.plugins import MASKED_ATTENTION, MS_DEFORM_ATTN, OPS, OpSpec
from tests import tolerance

SIZES = {
    "mask2former": ((4, 5), (8, 10), (16, 20)),
    "one_pixel_each": ((1, 1), (1, 1), (1, 1)),
    "flat": ((1, 7), (9, 1), (2, 3)),
}


def run(g, inputs, output, functions=()):
    """Runs a graph whose inputs are float32."""
    graph = helper.make_graph(
        g.nodes,
        "op",
        [helper.make_tensor_value_info(n, 1, a.shape) for n, a in inputs.items()],
        [onnx.ValueInfoProto(name=output)],
        [numpy_helper.from_array(a, n) for n, a in g.initializers.items()],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("m2f", 1)]
    model = helper.make_model(
        graph, opset_imports=opsets, ir_version=IR_VERSION, functions=functions
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, inputs)[0]


@dataclasses.dataclass(frozen=True)
class Deformable:
    """Inputs of MSDeformAttn; M = 2, P = 3, D = 5."""

    sizes: tuple
    value: np.ndarray
    sampling: np.ndarray

    @classmethod
    def draw(cls, sizes, *, reach):
        rng = np.random.default_rng(0)
        positions = sum(h * w for h, w in sizes)
        value = rng.standard_normal((2, positions, 10)).astype(np.float32)
        sampling = rng.standard_normal((2, positions, 2 * 3 * 3 * 3)).astype(np.float32)
        sampling[..., :36] *= reach
        return cls(sizes, value, sampling)

    def expected(self):
        """In float64, through locations normalised to the levels and grid_sample."""
        n, s, _ = self.value.shape
        value = torch.from_numpy(self.value).double().view(n, s, 2, 5)
        sampling = torch.from_numpy(self.sampling).double()
        offsets = sampling[..., :36].view(n, s, 2, 3, 3, 2)
        weights = sampling[..., 36:].view(n, s, 2, 9).softmax(-1).view(n, s, 2, 3, 3)
        extent = torch.tensor([(w, h) for h, w in self.sizes]).double()
        centres = reference_points(list(self.sizes), like=value)[:, None, None, None]
        locations = centres + offsets / extent[:, None]
        return deformable_attention(value, list(self.sizes), locations, weights).numpy()

    def actual(self, form, *, fixed=True):
        g, lowering = Graph(), Lowering(form)
        levels = [f"map{i}" for i in range(3)]
        inputs = {"value": self.value, "sampling": self.sampling}
        sizes = self.sizes
        if not fixed:
            maps = {
                name: np.zeros((2, 1, h, w), np.float32)
                for name, (h, w) in zip(levels, sizes, strict=True)
            }
            inputs |= maps
            sizes = [_size_of(g, name) for name in maps]
        output = lowering.ms_deform_attn(
            g, "value", "sampling", levels, sizes, heads=2, points=3, channels=10
        )
        g.prune([output])
        used = {i for node in g.nodes for i in node.input}
        inputs = {n: a for n, a in inputs.items() if n in used}
        return run(g, inputs, output, lowering.functions.values())


def _size_of(g, feature_map):
    shape = g.op("Shape", feature_map)
    ends = [[g.constant([e], np.int64) for e in (i, i + 1, 0)] for i in (2, 3)]
    return tuple(g.op("Slice", shape, *axis) for axis in ends)


@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "dynamic"])
@pytest.mark.parametrize("form", ["portable", "plugin"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_ms_deform_attn(sizes, form, fixed):
    case = Deformable.draw(sizes, reach=3.0)
    actual = case.actual(form, fixed=fixed)
    bound = tolerance.deformable(case.value, case.sampling, sizes)
    assert np.abs(actual - case.expected()).max() <= bound


def test_points_far_outside_read_zero():
    case = Deformable.draw(SIZES["mask2former"], reach=1.0)
    for far in (-1e30, -50.0, 50.0, 1e30, np.inf, -np.inf):
        case.sampling[..., :36] = far
        assert not case.actual("portable").any(), far


def test_a_point_on_the_rim_reads_half():
    """Half a pixel outside, half the sample is padding."""
    value = np.ones((1, 3, 2), np.float32)
    sampling = np.zeros((1, 3, 2 * 3 * 1 * 3), np.float32)
    sampling[..., 0:12:2] = -0.5  # x, half a pixel left of the only column's centre
    g, lowering = Graph(), Lowering("portable")
    output = lowering.ms_deform_attn(
        g, "value", "sampling", (), SIZES["one_pixel_each"], heads=2, points=1, channels=2
    )
    g.prune([output])
    out = run(g, {"value": value, "sampling": sampling}, output)
    assert np.allclose(out, 0.5)


def attention(mask_logits, *, heads=2):
    """MaskedAttention in ONNX Runtime and in float64, from the same inputs."""
    rng = np.random.default_rng(1)
    n, q, s = mask_logits.shape
    inputs = {
        name: rng.standard_normal((n, rows, 12)).astype(np.float32)
        for name, rows in (("q", q), ("k", s), ("v", s))
    }
    inputs["mask_logits"] = mask_logits.astype(np.float32)
    g = Graph()
    output = masked_attention_body(g, *inputs, heads=heads, channels=12)
    g.prune([output])
    actual = run(g, inputs, output)

    x = {k: v.astype(np.float64) for k, v in inputs.items()}
    parts = {k: x[k].reshape(n, -1, heads, 12 // heads) for k in "qkv"}
    scores = np.einsum("nqmd,nsmd->nmqs", parts["q"], parts["k"]) / np.sqrt(12 // heads)
    hidden = x["mask_logits"] < 0
    hidden &= ~hidden.all(-1, keepdims=True)
    scores = np.where(hidden[:, None], -np.inf, scores)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    expected = np.einsum("nmqs,nsmd->nqmd", weights, parts["v"]).reshape(n, q, 12)
    return actual, expected


MASKS = {
    "mixed": np.random.default_rng(2).standard_normal((2, 5, 7)),
    "all_hidden_attends_everywhere": -np.ones((1, 3, 4)),
    "nothing_hidden": np.ones((1, 3, 4)),
    "exactly_zero_is_seen": np.array([[[0.0, -1.0, -0.0, -1e-38]]]),
    "one_position": np.array([[[-3.0]], [[3.0]]]),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_masked_attention(mask):
    actual, expected = attention(mask)
    assert np.abs(actual - expected).max() <= tolerance.ATTENTION


def test_every_op_is_described():
    for op in OPS:
        assert op.domain == "m2f"
        assert op.version == 1
        for tensor in (*op.inputs, *op.outputs):
            assert set(tensor.dims) <= set(op.axes), f"{op.name}: {tensor}"
            assert tensor.type in op.types


def test_bind_names_what_disagrees():
    q, k = np.zeros((1, 5, 8)), np.zeros((1, 7, 8))
    attributes = {"heads": 2}
    assert MASKED_ATTENTION.bind(q, k, k, np.zeros((1, 5, 7)), attributes=attributes) == {
        "N": 1,
        "Q": 5,
        "C": 8,
        "S": 7,
    }
    with pytest.raises(ShapeError, match=r"axis S .* is 6 in mask_logits.*, but 7 in k\["):
        MASKED_ATTENTION.bind(q, k, k, np.zeros((1, 5, 6)), attributes=attributes)
    with pytest.raises(ShapeError, match="needs the attribute points"):
        MS_DEFORM_ATTN.bind(q, q, attributes=attributes)
    with pytest.raises(ShapeError, match="has no attribute tails"):
        MASKED_ATTENTION.bind(q, k, k, q, attributes={"heads": 2, "tails": 1})
    with pytest.raises(ShapeError, match="takes 4 inputs, got 3"):
        MASKED_ATTENTION.bind(q, k, k, attributes=attributes)


def test_a_damaged_description_is_one_sentence(tmp_path):
    (tmp_path / "op.toml").write_text("name = ")
    with pytest.raises(BundleError, match="not an op description"):
        OpSpec.load(tmp_path / "op.toml")
