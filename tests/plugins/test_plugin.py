"""Every method of the TensorRT plugins, as the builder and the runtime call them."""

import numpy as np
import pytest

from m2f.plugins import MASKED_ATTENTION, MS_DEFORM_ATTN, OPS
from tests import tolerance
from tests.cuda_on_cpu.build import needs_compiler, output
from tests.cuda_on_cpu.test_ms_deform_attn import FORMATS, SCALE, SMALL, Case
from tests.ops import reference
from tests.ops.native import loaded, stored
from tests.plugins.driven import CHANNELS_LAST_8, RUNTIME, Tensor
from tests.plugins.headers import needs_headers

pytestmark = [needs_compiler, needs_headers]

ERROR = "1: "  # nvinfer1::ILogger::Severity::kERROR
LEVELS = ((3, 5), (6, 10))
POSITIONS = sum(h * w for h, w in LEVELS)
FLOATS = ("float32", "float16", "bfloat16")


def masked_attention(n=2, q=7, s=72, c=64, *, t="float32", least=1):
    """Inputs and output of a MaskedAttention; sizes from ``least`` of them on."""
    shapes = ((n, q, c), (n, s, c), (n, s, c), (n, q, s), (n, q, c))
    low = [tuple(int(x * least) for x in shape[:2]) + shape[2:] for shape in shapes]
    low[3] = tuple(int(x * least) for x in shapes[3])
    tensors = [Tensor(shape, t, lo) for shape, lo in zip(shapes, low, strict=True)]
    return tensors[:4], tensors[4:]


def ms_deform_attn(n=1, c=64, m=2, p=4, *, t="float32", value=None, levels=LEVELS):
    positions = sum(h * w for h, w in levels)
    inputs = [
        Tensor((n, positions, c), value or t),
        Tensor((n, positions, 3 * m * len(levels) * p), t),
        *(Tensor((n, c, h, w), t) for h, w in levels),
    ]
    return inputs, [Tensor((n, positions, c), t)]


@pytest.fixture
def attention(driven):
    driven.log()
    return driven.create("MaskedAttention", heads=2)


@pytest.fixture
def deformable(driven):
    driven.log()
    return driven.create("MSDeformAttn", heads=2, points=4)


def test_creators_are_what_the_descriptions_say(driven):
    codes = {"int": 5, "ints": 5, "float": 1}  # int32, int32, float32
    for spec, line in zip((MS_DEFORM_ATTN, MASKED_ATTENTION), driven.creators, strict=True):
        fields = [f"{a.name}:{codes[a.type]}" for a in spec.attributes]
        assert line.split() == [spec.name, str(spec.version), spec.domain, *fields]
    assert len(driven.creators) == len(OPS)


def test_attributes_survive_clones_and_engines(driven):
    plugin = driven.create(
        "MSDeformAttn", heads=2, points=4, level_shapes=[3, 5, 6, 10], value_scale=0.125
    )
    expected = (
        "MSDeformAttn 1 m2f | heads=2 points=4 level_shapes=3,5,6,10 value_scale=0.125 | "
        "heads=2 points=4 level_shapes=3,5,6,10 value_scale=0.125 | "
        "heads:10=2 points:10=4 level_shapes:10=3,5,6,10 value_scale:1=0.125000"
    )
    assert plugin.identity() == expected
    for how in ("clone", "attach", "saved"):
        plugin = plugin.made(how)  # the one it came from is gone
        assert plugin.identity() == expected, how


def test_attributes_left_out_are_not_saved(deformable):
    assert deformable.identity().endswith("| heads:10=2 points:10=4")


@pytest.mark.parametrize(
    ("name", "attributes", "sentence"),
    [
        ("MaskedAttention", {}, "MaskedAttention: needs the attribute heads"),
        ("MaskedAttention", {"heads": 8, "bias": 1}, "has no attribute bias"),
        ("MaskedAttention", {"heads": 0.5}, "heads is one int32 or int64, got 1 of field"),
        ("MaskedAttention", {"heads": [8, 8]}, "heads is one int32 or int64, got 2 of field"),
        ("MSDeformAttn", {"heads": 8, "points": 4, "value_scale": 1}, "value_scale is one flo"),
        ("MSDeformAttn", {"heads": 8, "points": 4, "level_shapes": [1, 2, 3]}, "got 3 numbers"),
    ],
)
@pytest.mark.parametrize("phase", [0, RUNTIME])
def test_wrong_attributes_make_no_plugin_and_a_sentence(
    name, attributes, sentence, phase, driven
):
    driven.log()
    assert driven.create(name, phase, **attributes) is None
    log = driven.log()
    assert log.startswith(ERROR)
    assert sentence in log
    assert log.count("\n") == 1


def test_engines_of_int64_fields_load(driven):
    plugin = driven.create_from("MaskedAttention", [("heads", np.array([4], np.int64))])
    assert "heads=4" in plugin.identity()


@pytest.mark.parametrize("t", FLOATS)
def test_all_tensors_of_masked_attention_have_one_type(t, attention):
    inputs, outputs = masked_attention(t=t)
    tensors = [*inputs, *outputs]
    assert all(attention.supports(tensors, i, 4) for i in range(5))
    assert attention.output_type(inputs) == t
    for i in range(5):
        for other in {*FLOATS, "int8", "int32"} - {t}:
            wrong = [*tensors[:i], Tensor(tensors[i].sizes, other), *tensors[i + 1 :]]
            first = i == 0 and other in FLOATS  # nothing chosen yet
            assert attention.supports(wrong, i, 4) == first


@pytest.mark.parametrize("t", FLOATS)
@pytest.mark.parametrize("value", ["", "int8"])
def test_value_may_be_int8(t, value, deformable):
    inputs, outputs = ms_deform_attn(t=t, value=value or t)
    tensors = [*inputs, *outputs]
    assert all(deformable.supports(tensors, i, 4) for i in range(5))
    assert deformable.output_type(inputs) == t
    tensors[1] = Tensor(tensors[1].sizes, "int8")
    assert not deformable.supports(tensors, 1, 4)


def test_only_linear_tensors(attention):
    inputs, outputs = masked_attention(t="float16")
    sizes = inputs[1].sizes
    inputs[1] = Tensor(sizes, "float16", format=CHANNELS_LAST_8)
    assert attention.supports([*inputs, *outputs], 0, 4)
    assert not attention.supports([*inputs, *outputs], 1, 4)


def test_types_of_no_signature_have_no_output_type(attention, driven):
    inputs, _ = masked_attention()
    inputs[2] = Tensor(inputs[2].sizes, "float16")
    assert attention.output_type(inputs) is None
    assert "takes no inputs of data types" in driven.log()


def test_output_shape_follows_inputs_known_or_not(attention, deformable):
    assert attention.output_shape(masked_attention(2, 7, 72, 64)[0]) == (2, 7, 64)
    assert attention.output_shape(masked_attention(4, 8, 72, 64, least=0.5)[0]) == (-1, -1, 64)
    assert deformable.output_shape(ms_deform_attn()[0]) == (1, POSITIONS, 64)


def test_sizes_that_disagree_are_named_when_built_and_when_run(attention, driven):
    inputs, outputs = masked_attention(s=72)
    inputs[2] = Tensor((2, 71, 64))
    for method in (attention.configure, attention.shape_change):
        driven.log()
        assert not method(inputs, outputs)
        assert driven.log() == ERROR + "MaskedAttention: axis S is 71 in v, but 72 in k\n"


def test_sizes_still_open_are_left_for_later(attention, driven):
    inputs, outputs = masked_attention(4, 8, 72, 64, least=0.5)
    assert attention.configure(inputs, outputs)
    inputs[0] = Tensor((4, 8, 32), least=(2, 4, 32))  # C is known, and wrong, already
    assert not attention.configure(inputs, outputs)
    assert "axis C is 64 in k, but 32 in q" in driven.log()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda i, o: (i[:3], o), "takes 4 to 4 inputs, got 3"),
        (lambda i, o: (i, [*o, *o]), "has 1 outputs, got 2"),
        (lambda i, o: ([Tensor((7, 64)), *i[1:]], o), "q has 2 axes, expected 3"),
        (lambda i, o: ([Tensor(i[0].sizes, "int32"), *i[1:]], o), "q has data type 3"),
    ],
)
def test_wrong_tensors_are_refused_in_a_sentence(change, sentence, attention, driven):
    tensors = change(*masked_attention())
    for method in (attention.configure, attention.shape_change):
        driven.log()
        assert not method(*tensors)
        assert sentence in driven.log()


def test_levels_must_add_up(deformable, driven):
    inputs, outputs = ms_deform_attn()
    inputs[3] = Tensor((1, 64, 6, 11))
    assert not deformable.shape_change(inputs, outputs)
    assert f"levels have 81 pixels, but value has S = {POSITIONS}" in driven.log()


def test_tactics_are_counted_from_one(attention, deformable, driven):
    for plugin in (attention, deformable):
        tactics = plugin.tactics()
        assert tactics == list(range(1, len(tactics) + 1))
        assert all(plugin.set_tactic(t) for t in (0, *tactics))
        assert not plugin.set_tactic(len(tactics) + 1)
        assert f"has tactics 0 to {len(tactics)}, got {len(tactics) + 1}" in driven.log()


def test_workspace_of_the_largest_shape_serves_all_smaller_ones(attention):
    large = attention.workspace(*masked_attention(2, 300, 4096, 64, least=0.25))
    for sizes in ((2, 300, 4096, 64), (1, 300, 4096, 64), (2, 10, 4096, 64), (2, 300, 64, 64)):
        assert 0 < attention.workspace(*masked_attention(*sizes)) <= large


def test_no_workspace_for_tensors_it_refuses(attention):
    assert attention.workspace(masked_attention()[0][:3], masked_attention()[1]) == 0


@pytest.mark.parametrize("tactic", [0, 1, 2, 3])
@pytest.mark.parametrize("storage", FLOATS)
def test_masked_attention_computes(storage, tactic, attention):
    inputs, outputs = masked_attention(t=storage)
    rng = np.random.default_rng(0)
    arrays = [stored(rng.standard_normal(t.sizes), storage) for t in inputs]
    assert attention.set_tactic(tactic)
    assert attention.shape_change(inputs, outputs)
    result = output(outputs[0].sizes, arrays[0].dtype)
    actual = attention.enqueue(arrays, result, attention.workspace(inputs, outputs))
    values = [loaded(x, storage) for x in arrays]
    expected = reference.masked_attention(*values, heads=2)
    bound = tolerance.attention(*values[:3], 2)
    if storage != "float32":
        bound += tolerance.rounded_weights(*values[1:3], storage)
    error = abs(loaded(actual, storage) - expected).max()
    assert error <= tolerance.stored(bound, expected, storage)


@pytest.mark.parametrize("is_static", [True, False], ids=["attribute", "inputs"])
@pytest.mark.parametrize("form", FORMATS, ids="-".join)
def test_ms_deform_attn_computes(form, is_static, driven):
    """With the levels' sizes from an attribute, and from the shapes of inputs."""
    case = Case(SMALL, form)
    attributes = {"heads": case.heads, "points": case.points}
    if form[0] == "int8":
        attributes["value_scale"] = SCALE
    if is_static:
        attributes["level_shapes"] = [side for level in SMALL for side in level]
    plugin = driven.create("MSDeformAttn", **attributes)
    sizes = {"c": case.heads * case.depth, "m": case.heads, "levels": SMALL}
    inputs, outputs = ms_deform_attn(**sizes, t=form[1], value=form[0])
    if is_static:
        del inputs[2:]
    assert plugin.configure(inputs, outputs), driven.log()
    assert plugin.shape_change(inputs, outputs)
    result = output(case.value.shape, case.sampling.dtype)
    actual = plugin.enqueue([case.value, case.sampling], result, 0)
    assert abs(loaded(actual, form[1]) - case.expected()).max() <= case.bound()


def test_a_plugin_of_a_context_keeps_its_own_shapes(attention):
    """Contexts run side by side, each with the plugin it was given."""
    arrays = [np.ones(t.sizes, np.float32) for t in masked_attention()[0]]
    first = attention.made("attach")
    second = first.made("attach")
    assert first.shape_change(*masked_attention())
    assert second.shape_change(*masked_attention(1, 1, 1, 64))
    result = output(arrays[0].shape, np.float32)
    workspace = first.workspace(*masked_attention())
    assert (first.enqueue(arrays, result, workspace) == 1).all()
