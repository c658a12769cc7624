"""Costs against counts by hand, and against PyTorch's own counter."""

import dataclasses
import re

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch.utils.flop_counter import FlopCounterMode

from m2f.bench.cost import Cost, cost, cost_of_bundle, cost_of_file
from m2f.bench.parts import PARTS, kind_of
from m2f.bench.savings import cost_of_model, savings
from m2f.bundle import MODEL, Bundle
from m2f.errors import BundleError, UsageError
from m2f.export.algebra import ALL, Algebra
from m2f.export.exporter import Options
from m2f.models.mask2former import Mask2Former
from m2f.models.presets import preset
from tests.export.models import SMALL, small
from tests.export.test_network import exported

PUBLISHED = ("coco-panoptic-r50", "coco-panoptic-swin-t")
MODELS = {**SMALL, **{name: preset(name).model for name in PUBLISHED}}
PREPROCESS = preset(PUBLISHED[0]).metadata.preprocess
FORMS = ("plugin", "portable")
SIZES = [(8, 8), (4, 4), (2, 2)]


def model_of(node, inputs, weights=(), type=TensorProto.FLOAT):
    """One node, with inputs of these shapes and weights of those."""
    tensors = [
        onnx.TensorProto(name=n, dims=s, data_type=type, data_location=TensorProto.EXTERNAL)
        for n, s in dict(weights).items()
    ]
    ports = [helper.make_tensor_value_info(n, type, s) for n, s in inputs.items()]
    graph = helper.make_graph([node], "g", ports, [onnx.ValueInfoProto(name="y")], tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("m2f", 1)]
    return helper.make_model(graph, opset_imports=opsets)


def total(model):
    return cost(model, (1, 4, 6)).total


BY_HAND = {
    # 5 outputs of 3x3x2 products at 7x8 places; kernel 5*2*3*3; map 2*7*8 in, 5*7*8 out.
    "convolution": (
        ("Conv", {"x": (1, 2, 7, 8)}, {"w": (5, 2, 3, 3)}),
        {"pads": [1, 1, 1, 1]},
        Cost(5 * 18 * 56, 4 * 90, 4 * (112 + 280), 1),
    ),
    "grouped, strided convolution": (
        ("Conv", {"x": (1, 4, 8, 8)}, {"w": (6, 2, 2, 2)}),
        {"group": 2, "strides": [2, 2]},
        Cost(6 * 16 * 8, 4 * 48, 4 * (256 + 96), 1),
    ),
    "product with a weight": (
        ("MatMul", {"x": (2, 5, 3)}, {"w": (3, 7)}),
        {},
        Cost(2 * 5 * 7 * 3, 4 * 21, 4 * (30 + 70), 1),
    ),
    "product of two maps": (
        ("MatMul", {"x": (2, 5, 3), "z": (2, 3, 4)}),
        {},
        Cost(2 * 5 * 4 * 3, 0, 4 * (30 + 24 + 40), 1),
    ),
    "transposed Gemm": (
        ("Gemm", {"x": (3, 5)}, {"w": (7, 3), "b": (7,)}),
        {"transA": 1, "transB": 1},
        Cost(5 * 7 * 3, 4 * 28, 4 * (15 + 35), 1),
    ),
    # 84 queries, 2 heads, 3 levels, 4 points, 4 corners of 8 channels.
    "MSDeformAttn": (
        ("MSDeformAttn", {"v": (1, 84, 16), "s": (1, 84, 72)}),
        {"domain": "m2f", "heads": 2, "points": 4, "level_shapes": [8, 8, 4, 4, 2, 2]},
        Cost(84 * 2 * 3 * 4 * 4 * 8, 0, 4 * 84 * (16 + 72 + 16), 1),
    ),
    "MSDeformAttn of any size, which reads no maps": (
        (
            "MSDeformAttn",
            {"v": (1, 84, 16), "s": (1, 84, 72)} | {f"m{h}": (1, 16, h, w) for h, w in SIZES},
        ),
        {"domain": "m2f", "heads": 2, "points": 4},
        Cost(84 * 2 * 3 * 4 * 4 * 8, 0, 4 * 84 * (16 + 72 + 16), 1),
    ),
    "MaskedAttention": (
        (
            "MaskedAttention",
            {"q": (1, 5, 16), "k": (1, 20, 16), "v": (1, 20, 16), "m": (1, 5, 20)},
        ),
        {"domain": "m2f", "heads": 2},
        Cost(2 * 5 * 20 * 16, 0, 4 * (5 * 16 + 2 * 20 * 16 + 100 + 5 * 16), 1),
    ),
    "addition of a weight": (
        ("Add", {"x": (3, 5)}, {"b": (5,)}),
        {},
        Cost(0, 20, 4 * 30, 1),
    ),
    "views move nothing": (("Identity", {"x": (3, 5)}), {}, Cost(nodes=1)),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_one_node_by_hand(name):
    (kind, inputs, *weights), attributes, expected = BY_HAND[name]
    names = [*inputs, *(weights[0] if weights else ())]
    node = helper.make_node(kind, names, ["y"], **attributes)
    assert total(model_of(node, inputs, *weights)) == expected


def test_half_precision_moves_half():
    node = helper.make_node("Relu", ["x"], ["y"])
    assert total(model_of(node, {"x": (3, 5)}, type=TensorProto.FLOAT16)) == Cost(0, 0, 60, 1)


def test_8_bit_numbers_are_made_and_multiplied():
    """5 x 3 numbers, of four bytes and then of one, by 3 x 7 of a weight."""
    model = model_of(
        helper.make_node("Quantize", ["x", "s", "z"], ["q"], domain="m2f.cpu", activation=0),
        {"x": (5, 3)},
        {"s": (), "t": ()},
    )
    product = ["q", "w", "s", "t", "z", "z"]
    model.graph.node.append(
        helper.make_node("MatMulIntegerToFloat", product, ["y"], domain="com.microsoft")
    )
    for name, dims in (("w", (3, 7)), ("z", ())):
        model.graph.initializer.append(
            onnx.TensorProto(name=name, dims=dims, data_type=TensorProto.UINT8, data_location=1)
        )
    assert total(model) == Cost(5 * 3 * 7, 5 + 21 + 10, 4 * 15 + 15 + 15 + 4 * 35, 2)


def test_a_slice_reads_what_it_writes():
    model = model_of(helper.make_node("Slice", ["x", "from", "to"], ["y"]), {"x": (100, 5)})
    for name, value in (("from", [7]), ("to", [9])):
        model.graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [1], value))
    assert total(model) == Cost(0, 16, 4 * (10 + 10), 1)


@pytest.mark.parametrize("name", MODELS)
def test_products_are_those_that_pytorch_counts(name):
    """PyTorch counts no samples, and what we do not do: unused classes, constant queries."""
    config = MODELS[name]
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        Mask2Former(config).eval()(torch.empty(1, 3, 96, 128))
    decoder = config.transformer_decoder
    q, c, e = decoder.queries, decoder.channels, config.pixel_decoder.mask_channels
    unused = decoder.layers * q * c * (config.classes + 1)
    constant = q * c * (c + c + e) + q * c * c  # first mask embedding, first query
    report = cost_of_model(config, PREPROCESS, (96, 128), algebra=Algebra.none())
    ours = report.total.macs - report.kind("MSDeformAttn").macs
    assert counter.get_total_flops() == 2 * (ours + unused + constant)
    per_module = counter.get_flop_counts()
    backbone = sum(per_module["Mask2Former.backbone"].values())
    assert 2 * report.part("backbone").macs == backbone


@pytest.mark.parametrize("name", MODELS)
def test_both_forms_need_the_same_products(name):
    """The portable bodies are products, too: the same number."""
    forms = [cost_of_model(MODELS[name], PREPROCESS, (96, 128), form=f) for f in FORMS]
    assert forms[0].total.macs == forms[1].total.macs
    for part in forms[0].parts:
        assert forms[0].part(part).macs == forms[1].part(part).macs
    assert forms[0].total.nodes < forms[1].total.nodes


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SMALL)
def test_a_file_for_any_size_costs_what_one_for_this_size_does(name, form, tmp_path):
    counts = []
    for options in (Options(form=form), Options(form=form, size=(75, 96))):
        folder = tmp_path / str(len(counts))
        folder.mkdir()
        exported(small(name), folder, options)
        counts.append(cost_of_file(folder / MODEL, (1, 75, 96)))
    assert counts[0].total.macs == counts[1].total.macs
    assert list(counts[0].parts) == list(counts[1].parts)
    for part in counts[0].parts:
        assert counts[0].part(part).macs == counts[1].part(part).macs


def test_parts_are_the_network_s():
    report = cost_of_model(MODELS[PUBLISHED[0]], PREPROCESS, (96, 128), algebra=Algebra.none())
    assert list(report.parts) == list(PARTS)
    # Their number times: values, offsets and logits, output, and a feed-forward network.
    s, c, ffn, sampling = 12 * 16 + 6 * 8 + 3 * 4, 256, 1024, 8 * 3 * 4 * 3
    layer = s * c * (c + sampling + c + 2 * ffn) + s * sampling // 3 * 4 * 32
    assert report.part("encoder layers").macs == 6 * layer
    fpn = (32 * 24) * (256 * 256 + 9 * 256 * 256)
    assert report.part("FPN").macs == fpn
    assert report.part("mask features").macs == 32 * 24 * 256 * 256
    assert report.total == sum(report.kinds.values(), Cost())


def test_fused_nodes_of_a_runtime_keep_their_kind():
    kinds = ("FusedConv", "FusedGemm", "FusedMatMul", "MatMul", "Gelu", "MSDeformAttn")
    expected = ("convolution", *["matrix product"] * 3, "other", "MSDeformAttn")
    assert tuple(map(kind_of, kinds)) == expected


def test_an_unknown_op_is_refused():
    model = model_of(helper.make_node("Unheard", ["x"], ["y"], domain="other"), {"x": (1,)})
    with pytest.raises(BundleError, match="other::Unheard cannot be counted"):
        total(model)


@pytest.fixture(scope="module")
def r50_savings():
    found = preset("coco-panoptic-r50")
    rows = savings(found.model, found.metadata.preprocess, (800, 1344))
    return {row.rewrite: row.saved for row in rows}


@pytest.mark.parametrize("name", [*ALL.names, "all"])
def test_texts_say_what_each_rewrite_saves(name, r50_savings):
    saved, heading = r50_savings[name], "together" if name == "all" else name
    text = re.sub(r"\s+", " ", Algebra.__doc__)
    stated = re.search(rf"\b{heading}: [^\[]*\[([^\]]*)\]", text)[1]
    assert stated == (
        f"{saved.macs / 1e9:.1f} GMAC, {saved.bytes / 1e6:.0f} MB, {saved.nodes} nodes"
    )


def test_savings_by_hand(r50_savings):
    """Nine masks at 1/8, 1/16 and 1/32 instead of 1/4; one 1x1 convolution less."""
    quarter = 200 * 336
    scales = 3 * (quarter // 4 + quarter // 16 + quarter // 64)
    assert r50_savings["small_masks"].macs == 100 * 256 * (9 * quarter - scales)
    # Of the ten embeddings' last layers, nine grow by the shift; the first is a constant.
    shift = 9 * 100 * 256
    assert r50_savings["mask_features"].macs == quarter * 256 * 256 - shift


def test_sizes_that_a_bundle_does_not_take(tmp_path):
    from m2f.export import export

    options = dataclasses.replace(Options(check=False), size=(64, 96))
    bundle = export(small("basic_blocks"), tmp_path / "a.m2f", options=options)
    assert cost_of_bundle(bundle).size == (1, 64, 96)
    with pytest.raises(UsageError, match="64 by 96 pixels, not 96 by 64"):
        cost_of_bundle(bundle, (96, 64))
    options = dataclasses.replace(options, size=None)
    export(small("basic_blocks"), tmp_path / "b.m2f", options=options)
    with pytest.raises(UsageError, match="--size"):
        cost_of_bundle(Bundle.open(tmp_path / "b.m2f"))
