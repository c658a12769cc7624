"""Every exact rewrite alone, and all together, changes nothing but rounding."""

import dataclasses

import numpy as np
import onnx
import pytest

from m2f.bundle import MODEL
from m2f.export import algebra
from m2f.export.algebra import ALL, Algebra
from m2f.export.exporter import Options
from m2f.export.parity import compare
from tests.export.models import SMALL, small
from tests.export.test_network import DYNAMIC, exported, image

NONE = Algebra.none()
REWRITES = [field.name for field in dataclasses.fields(Algebra)]


def export(name, folder, rewrites, options=DYNAMIC):
    folder.mkdir()
    return exported(small(name), folder, dataclasses.replace(options, algebra=rewrites))


@pytest.mark.parametrize("fixed", [False, True], ids=["dynamic", "fixed"])
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("rewrite", [*REWRITES, "all"])
def test_changes_nothing_but_rounding(rewrite, name, fixed, tmp_path):
    one = ALL if rewrite == "all" else dataclasses.replace(NONE, **{rewrite: True})
    options = Options(size=(70, 96)) if fixed else DYNAMIC
    plain = export(name, tmp_path / "plain", NONE, options)
    rewritten = export(name, tmp_path / "rewritten", one, options)
    found = compare(plain, rewritten, *image(70, 96))
    assert found.is_within(), found


@pytest.mark.parametrize(
    ("rewrite", "name", "kind"),
    [
        ("batch_norm", "basic_blocks", "BatchNormalization"),
        ("small_masks", "basic_blocks", "Reshape"),
        ("mask_features", "basic_blocks", "Conv"),
        ("first_layer", "basic_blocks", "MatMul"),
        ("joint_kv", "basic_blocks", "MatMul"),
        ("pixel_scale", "odd_windows", "Div"),
    ],
)
def test_saves_the_nodes_it_claims_to(rewrite, name, kind, tmp_path):
    counts = []
    for folder, rewrites in (("a", NONE), ("b", dataclasses.replace(NONE, **{rewrite: True}))):
        export(name, tmp_path / folder, rewrites)
        model = onnx.load(tmp_path / folder / MODEL)
        counts.append(sum(node.op_type == kind for node in model.graph.node))
    assert counts[1] < counts[0]


def test_a_pyramid_that_ends_in_a_3x3_convolution_is_left_alone(tmp_path):
    """Only a 1x1 convolution folds into the embedding."""
    rewrites = dataclasses.replace(NONE, mask_features=True)
    for folder, chosen in (("a", NONE), ("b", rewrites)):
        export("bottlenecks_and_plain_pyramid", tmp_path / folder, chosen)
    a, b = (onnx.load(tmp_path / folder / MODEL).graph for folder in "ab")
    assert [n.op_type for n in a.node] == [n.op_type for n in b.node]


def test_the_names_are_those_of_the_rewrites():
    assert list(ALL.names) == REWRITES
    assert NONE.names == ()


def test_batch_norm_folds_by_its_definition():
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((4, 3, 1, 1))
    weight, bias, mean = rng.standard_normal((3, 4))
    variance = rng.random(4)
    folded, shift = algebra.conv_from_conv_and_batch_norm(kernel, weight, bias, mean, variance)
    x = rng.standard_normal(3)
    plain = (kernel[..., 0, 0] @ x - mean) / np.sqrt(variance + 1e-5) * weight + bias
    assert np.allclose(folded[..., 0, 0] @ x + shift, plain, rtol=1e-5)
