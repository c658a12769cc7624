"""The native library in ONNX Runtime: found, preferred to the functions, and equal to them."""

import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from m2f.bundle import MODEL
from m2f.errors import BundleError, M2FError, MissingFile
from m2f.export.exporter import Options
from m2f.export.graph import IR_VERSION, OPSET, Graph
from m2f.export.ops import Lowering
from m2f.export.parity import OnnxSide, compare
from m2f.plugins import MASKED_ATTENTION, MS_DEFORM_ATTN, library
from m2f.runtime.backend_ort import OrtBackend
from tests import tolerance
from tests.export.models import small
from tests.export.test_network import DYNAMIC, exported, image, reference
from tests.ops.native import FAST, PATH, loaded, needs_library

pytestmark = needs_library

LEVELS = ((4, 5), (8, 10), (16, 20))
ONNX_TYPE = {"float32": 1, "int8": 3, "float16": 10, "bfloat16": 16}


def _names(signature):
    return "-".join(signature.values())


def deformable(*, is_fixed, has_body=True, dtype=np.float32, **changes):
    """A model of one MSDeformAttn (M = 2, P = 3, D = 5), and inputs for it."""
    rng = np.random.default_rng(0)
    positions = sum(h * w for h, w in LEVELS)
    inputs = {
        "value": rng.standard_normal((2, positions, 10)).astype(dtype),
        "sampling": rng.standard_normal((2, positions, 54)).astype(dtype),
    }
    g, lowering = Graph(), Lowering("plugin")
    sizes = LEVELS
    names = [f"map{i}" for i in range(len(LEVELS))]
    if not is_fixed:
        inputs |= {n: np.zeros((2, 1, *s), dtype) for n, s in zip(names, LEVELS, strict=True)}
        sizes = [[g.op("Shape", n, start=i, end=i + 1) for i in (2, 3)] for n in names]
    attributes = {"heads": 2, "points": 3, "channels": 10} | changes
    output = lowering.ms_deform_attn(g, "value", "sampling", names, sizes, **attributes)
    g.prune([output])
    return model_of(g, inputs, output, lowering if has_body else None), inputs


def attention(*, has_body=True):
    """A model of one MaskedAttention, and inputs for it."""
    rng = np.random.default_rng(1)
    shapes = {"q": (2, 7, 12), "k": (2, 70, 12), "v": (2, 70, 12), "mask_logits": (2, 7, 70)}
    inputs = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    inputs["mask_logits"][0, 3] = -1.0  # attends everywhere
    g, lowering = Graph(), Lowering("plugin")
    output = lowering.masked_attention(g, list(inputs), heads=2, channels=12)
    g.prune([output])
    return model_of(g, inputs, output, lowering if has_body else None), inputs


def model_of(g, inputs, output, lowering):
    """All axes dynamic, so that shapes can be wrong at run time."""
    kind = helper.np_dtype_to_tensor_dtype(next(iter(inputs.values())).dtype)
    values = [
        helper.make_tensor_value_info(name, kind, [f"{name}_{i}" for i in range(array.ndim)])
        for name, array in inputs.items()
    ]
    constants = [numpy_helper.from_array(a, n) for n, a in g.initializers.items()]
    graph = helper.make_graph(
        g.nodes, "op", values, [onnx.ValueInfoProto(name=output)], constants
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("m2f", 1)]
    functions = lowering.functions.values() if lowering else ()
    return helper.make_model(
        graph, opset_imports=opsets, ir_version=IR_VERSION, functions=functions
    )


def session(model, *, native=True, threads=1, optimized=None):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    if optimized:
        options.optimized_model_filepath = str(optimized)
    if native:
        options.register_custom_ops_library(str(PATH))
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


CASES = {
    "ms_deform_attn_fixed": lambda **options: deformable(is_fixed=True, **options),
    "ms_deform_attn_dynamic": lambda **options: deformable(is_fixed=False, **options),
    "masked_attention": attention,
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_kernels_equal_the_functions_in_the_file(case):
    model, inputs = case()
    expected = session(model, native=False).run(None, inputs)[0].astype(np.float64)
    actual = session(model).run(None, inputs)[0]
    if "value" in inputs:
        bound = tolerance.deformable(inputs["value"], inputs["sampling"], LEVELS)
    else:
        bound = tolerance.attention(inputs["q"], inputs["k"], inputs["v"], 2)
    assert abs(actual - expected).max() <= 2 * bound  # each may be off by one


@pytest.mark.parametrize("has_body", [True, False], ids=["body", "no_body"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_registered_op_comes_before_its_function(case, has_body, tmp_path):
    """What the runtime relies on: it does not strip the functions from the file."""
    model, inputs = case(has_body=has_body)
    optimized = tmp_path / "optimized.onnx"
    found = session(model, optimized=optimized)
    (node,) = (n for n in onnx.load(optimized).graph.node if n.domain == "m2f")
    assert node.op_type in ("MSDeformAttn", "MaskedAttention")
    first = next(iter(inputs))  # inference gives the output the first input's shape
    assert found.get_outputs()[0].shape == [f"{first}_{i}" for i in range(3)]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_thread_counts_change_nothing(case):
    model, inputs = case()
    alone = session(model, threads=1).run(None, inputs)[0]
    for threads in (2, 3, 4):
        assert (session(model, threads=threads).run(None, inputs)[0] == alone).all()


def typed(model, spec, signature):
    """The same model with every tensor of the op in the types of one of its signatures.

    Its inputs and its output stay float32: NumPy has no bfloat16.
    """
    (node,) = model.graph.node
    last = len(spec.inputs) - 1
    for i, name in enumerate(list(node.input)):
        kind = ONNX_TYPE[signature[spec.inputs[min(i, last)].type]]
        node.input[i] = f"{name}_as_{kind}"
        model.graph.node.insert(0, helper.make_node("Cast", [name], [node.input[i]], to=kind))
    (result,) = node.output
    node = model.graph.node[-1]
    node.output[0] = "op_output"
    model.graph.node.append(helper.make_node("Cast", ["op_output"], [result], to=1))
    model.graph.value_info.append(onnx.ValueInfoProto(name="op_output"))
    return model


@pytest.mark.parametrize("is_fixed", [True, False], ids=["fixed", "dynamic"])
@pytest.mark.parametrize("signature", MS_DEFORM_ATTN.signatures(), ids=_names)
def test_deformable_attention_in_every_choice_of_types(signature, is_fixed):
    """Bit for bit what the kernel gives for the same bits."""
    model, inputs = deformable(is_fixed=is_fixed, has_body=False)
    scale = None
    if signature["V"] == "int8":
        scale = 0.03
        inputs["value"] = np.rint(inputs["value"] * 32)
        model.graph.node[0].attribute.append(helper.make_attribute("value_scale", scale))
    actual = session(typed(model, MS_DEFORM_ATTN, signature)).run(None, inputs)[0]
    storage = {"storage": signature["T"], "value_scale": scale}
    arrays = (inputs["value"], inputs["sampling"], LEVELS)
    expected = FAST[0].ms_deform_attn(*arrays, heads=2, points=3, **storage)
    assert (actual == loaded(expected, signature["T"])).all()


@pytest.mark.parametrize("signature", MASKED_ATTENTION.signatures(), ids=_names)
def test_masked_attention_in_every_choice_of_types(signature):
    model, inputs = attention(has_body=False)
    actual = session(typed(model, MASKED_ATTENTION, signature)).run(None, inputs)[0]
    storage = {"storage": signature["T"]}
    expected = FAST[0].masked_attention(*inputs.values(), heads=2, **storage)
    assert (actual == loaded(expected, signature["T"])).all()


def test_half_tensors_go_in_and_out():
    model, inputs = deformable(is_fixed=True, has_body=False, dtype=np.float16)
    found = session(model)
    assert found.get_outputs()[0].type == "tensor(float16)"
    assert found.run(None, inputs)[0].dtype == np.float16


def test_int8_value_gives_what_the_function_gives():
    """The output's type is that of sampling; the scale is each node's own."""
    model, inputs = deformable(is_fixed=True, value_scale=0.03)
    inputs["value"] = np.clip(np.rint(inputs["value"] * 32), -128, 127).astype(np.int8)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT8
    native, plain = session(model), session(model, native=False)
    assert native.get_outputs()[0].type == "tensor(float)"
    expected = plain.run(None, inputs)[0].astype(np.float64)
    actual = native.run(None, inputs)[0]
    value = inputs["value"] * np.float32(0.03)
    bound = tolerance.deformable(value, inputs["sampling"], LEVELS)
    assert abs(actual - expected).max() <= 2 * bound


def test_a_scale_without_int8_is_refused():
    model, inputs = deformable(is_fixed=True, has_body=False, value_scale=0.5)
    with pytest.raises(Exception, match=r"value_scale is 0.5, but value is no int8"):
        session(model).run(None, inputs)


def test_sizes_that_disagree_are_named():
    model, inputs = deformable(is_fixed=True)
    inputs["value"] = inputs["value"][:, 1:].copy()
    with pytest.raises(Exception, match=r"value has .* \[2, 419\], but sampling \[2, 420\]"):
        session(model).run(None, inputs)
    model, inputs = attention()
    inputs["v"] = inputs["v"][:, 1:].copy()
    with pytest.raises(Exception, match="axis S is 69 in v, but 70 in k"):
        session(model).run(None, inputs)


def test_inputs_of_the_wrong_rank_or_type_are_named():
    model, inputs = attention(has_body=False)
    del model.graph.input[0].type.tensor_type.shape.dim[0]
    inputs["q"] = inputs["q"][0]
    with pytest.raises(Exception, match="input 0 has 2 axes, expected 3"):
        session(model).run(None, inputs)
    model, inputs = deformable(is_fixed=True, has_body=False, dtype=np.float64)
    with pytest.raises(Exception, match=r"tensor\(double\)' of input parameter \(value\)"):
        session(model).run(None, inputs)


@pytest.mark.parametrize("name", ["heads", "points"])
def test_a_missing_attribute_is_named(name):
    model, _ = deformable(is_fixed=True, has_body=False)
    (node,) = model.graph.node
    node.attribute.remove(next(a for a in node.attribute if a.name == name))
    with pytest.raises(Exception, match=f"needs the attribute {name}"):
        session(model)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A small model in plugin form, any size."""
    folder = tmp_path_factory.mktemp("native")
    exported(small("basic_blocks"), folder, DYNAMIC)
    return folder / MODEL


@pytest.mark.parametrize("name", ["basic_blocks", "odd_windows"])
def test_the_network_is_still_pytorchs(name, tmp_path):
    checkpoint = small(name)
    torch_side = reference(checkpoint)
    exported(checkpoint, tmp_path, DYNAMIC)
    layers = checkpoint.config.transformer_decoder.layers
    side = OnnxSide(tmp_path / MODEL, layers, library=PATH)
    for size, batch in (((32, 32), 1), ((100, 67), 3), ((1, 300), 2)):
        found = compare(torch_side, side, *image(*size, batch=batch), trace_layers=True)
        assert found.is_within(), (size, found)
        assert max(found.layers.values()) <= tolerance.MODULE_ERROR, found.layers


def test_the_runtime_finds_it(bundle, tmp_path):
    """A fixed size too, with external weights; no warning, and nearly the functions' answer."""
    fixed = Options(size=(64, 96), external_data=True)
    exported(small("basic_blocks"), tmp_path, fixed)
    pixels, valid = image(64, 96)
    for model in (bundle, tmp_path / MODEL):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with OrtBackend(model) as native, OrtBackend(model, native=False) as plain:
                (_, a), (_, b) = native.run(pixels, valid), plain.run(pixels, valid)
        assert (a != b).any(), "the same bits: the kernels did not run"
        assert np.linalg.norm(a - b) <= tolerance.MODULE_ERROR * np.linalg.norm(b)


def test_without_it_one_warning_and_the_same_answer(bundle, monkeypatch):
    pixels, valid = image(64, 96)
    with OrtBackend(bundle, native=False) as backend:
        expected = backend.run(pixels, valid)[1]
    monkeypatch.setenv(library.VARIABLE, "off")
    with pytest.warns(UserWarning, match="without its native library; install g") as found:
        backend = OrtBackend(bundle)
    assert len(found) == 1
    with backend:
        assert (backend.run(pixels, valid)[1] == expected).all()


def test_the_portable_form_does_not_miss_it(monkeypatch, tmp_path):
    exported(small("basic_blocks"), tmp_path, Options(form="portable"))
    monkeypatch.setenv(library.VARIABLE, "off")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OrtBackend(tmp_path / MODEL).close()


def test_a_damaged_library_is_reported_and_left_out(bundle, monkeypatch, tmp_path):
    damaged = tmp_path / "libm2f_ort.so"
    damaged.write_text("not a library")
    monkeypatch.setenv(library.VARIABLE, str(damaged))
    with pytest.warns(UserWarning, match="cannot be used"):
        OrtBackend(bundle).close()


def test_a_library_that_is_not_there(bundle, monkeypatch, tmp_path):
    monkeypatch.setenv(library.VARIABLE, str(tmp_path / "none.so"))
    with pytest.raises(MissingFile, match="is no file; unset it"):
        OrtBackend(bundle)


def test_an_empty_file_is_still_one_sentence(tmp_path, monkeypatch):
    (tmp_path / MODEL).touch()
    monkeypatch.setenv(library.VARIABLE, "off")
    with pytest.raises(BundleError, match="cannot be loaded") as found:
        OrtBackend(tmp_path / MODEL)
    assert isinstance(found.value, M2FError)
