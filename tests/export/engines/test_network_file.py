"""The file a parser is given, for every precision: held to ONNX's own type inference."""

import shutil

import pytest

from m2f.bundle import MODEL, Bundle
from m2f.export import Options, export, onnx_file
from m2f.export.engines.network_file import write_network
from m2f.export.plan import Plan
from m2f.export.precision import apply
from m2f.export.quantizable import layers
from tests.export.engines.conftest import SMALLEST
from tests.export.models import checkpoint_of
from tests.export.typing import inferred, named


@pytest.fixture(scope="module")
def fixed_bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("fixed") / "fixed.m2f"
    options = Options(size=(64, 96), check=False)
    export(checkpoint_of(SMALLEST, "smallest"), path, options=options)
    return path


def precise(source, path, base, kind):
    """A copy of a float32 bundle in a precision; ranges made up, types do not ask for them."""
    bundle = Bundle.open(shutil.copytree(source, path))
    model, arrays = onnx_file.load(path / MODEL)
    found = layers(model, arrays, kind) if kind else ()
    assert not kind or (kind == "int8") == ("MSDeformAttn" in {x.kind for x in found})
    plan = Plan(
        base=base,
        kind=kind or "int8",
        layers=frozenset(layer.name for layer in found),
        scales={name: 0.02 for layer in found for name in layer.tensors},
    )
    (path / MODEL).unlink()
    onnx_file.save(*apply(model, arrays, plan), path)
    return bundle


@pytest.mark.parametrize("size", ["any", "fixed"])
@pytest.mark.parametrize("kind", [None, "int8", "fp8"])
@pytest.mark.parametrize("base", ["fp16", "bf16"])
def test_inlined_functions_agree_with_the_types_around_them(
    small_bundle, fixed_bundle, base, kind, size, tmp_path
):
    """8-bit values of MSDeformAttn included, which its body turns into numbers first."""
    source = fixed_bundle if size == "fixed" else small_bundle
    bundle = precise(source, tmp_path / "precise.m2f", base, kind)
    path = write_network(bundle, tmp_path, with_plugins=False)
    graph, types = inferred(path)
    assert not {node.domain for node in graph.node} - {""}
    half = {"fp16": "float16", "bf16": "bfloat16"}[base]
    products = [node for node in graph.node if node.op_type in ("Conv", "MatMul")]
    assert {named(types[name]) for node in products for name in node.input} == {half}
