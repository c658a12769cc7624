"""Linear's native kernels against the definition, and the node against the kernels."""

import ctypes

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from scipy import special

from m2f.export.graph import IR_VERSION, OPSET
from m2f.plugins import FUSED
from tests import tolerance
from tests.ops.native import BACKENDS, FAST, MESSAGE_BYTES, PATH, needs_library

pytestmark = needs_library

(SPEC,) = (spec for spec in FUSED if spec.name == "Linear")
ACTIVATIONS = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * (1 + special.erf(x / np.sqrt(2))) / 2,
}

# name -> (rows, K, N). Each is here for a reason: vectors have 4, 8 or 16 lanes, panels 2 or 3
# vectors, tiles 6 or 8 rows, passes 384 of K, tasks up to 384 rows and 480 columns.
CASES = {
    "one_of_each": (1, 1, 1),
    "primes": (13, 17, 53),
    "whole_tiles": (48, 96, 96),
    "a_column_more": (8, 40, 97),
    "a_column_less": (6, 40, 47),
    "one_vector_left": (9, 24, 64),
    "a_row_less": (23, 8, 48),
    "two_passes": (7, 385, 50),
    "several_passes": (12, 1000, 33),
    "blocks_of_rows": (801, 5, 20),
    "blocks_of_columns": (3, 70, 1100),
}


class Case:
    def __init__(self, rows, inner, columns, *, seed=0, residual=True, scale=1.0):
        rng = np.random.default_rng(seed)
        shapes = [(rows, inner), (inner, columns), (columns,), (rows, columns)]
        self.arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
        self.arrays[0] *= scale / max(inner, 1) ** 0.5
        if not residual:
            self.arrays[3] = None

    def actual(self, kernels, activation="none", *, threads=1):
        return linear(kernels, *self.arrays, activation=activation, threads=threads)

    def expected(self, activation="none"):
        x, weight, bias, residual = (0 if a is None else a.astype("d") for a in self.arrays)
        return ACTIVATIONS[activation](x @ weight + bias) + residual

    def is_close(self, actual, activation="none"):
        bound = tolerance.linear(*self.arrays, is_gelu=activation == "gelu")
        return (abs(actual - self.expected(activation)) <= bound).all()


def linear(kernels, x, weight, bias, residual=None, *, activation="none", threads=1):
    """One call of the native library."""
    given = [
        None if a is None else np.ascontiguousarray(a) for a in (x, weight, bias, residual)
    ]
    output = np.full((x.shape[0], weight.shape[1]), 77, np.float32)  # all is written
    message = ctypes.create_string_buffer(MESSAGE_BYTES)
    arguments = (x for a in given for x in _tensor(a))
    failed = ctypes.CDLL(str(PATH)).m2f_linear(
        kernels.index,
        threads,
        *arguments,
        ctypes.c_int64(list(ACTIVATIONS).index(activation) if activation in ACTIVATIONS else 3),
        _address(output),
        message,
        ctypes.c_size_t(MESSAGE_BYTES),
    )
    if failed:
        raise ValueError(message.value.decode())
    return output


def _tensor(array):
    if array is None:
        return None, None
    return _address(array), (ctypes.c_int64 * array.ndim)(*array.shape)


def _address(array):
    return array.ctypes.data_as(ctypes.c_void_p)


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("sizes", CASES.values(), ids=CASES)
def test_matches_the_definition(sizes, activation, kernels):
    for residual in (True, False):
        case = Case(*sizes, residual=residual)
        assert case.is_close(case.actual(kernels, activation), activation)


@pytest.mark.parametrize("kernels", FAST, ids=str)
def test_random_shapes(kernels):
    rng = np.random.default_rng(1)
    for seed in range(60):
        sizes = (rng.integers(1, (12, 12, 13)) ** rng.integers(1, 4, 3)).tolist()
        activation = list(ACTIVATIONS)[seed % 3]
        case = Case(*sizes, seed=seed, residual=seed % 2 == 0)
        assert case.is_close(case.actual(kernels, activation), activation), sizes


@pytest.mark.parametrize("kernels", FAST, ids=str)
def test_thread_counts_change_nothing(kernels):
    for name in ("several_passes", "blocks_of_rows", "blocks_of_columns"):
        case = Case(*CASES[name])
        alone = case.actual(kernels, "gelu")
        for threads in (2, 3, 4):
            assert (case.actual(kernels, "gelu", threads=threads) == alone).all(), name


@pytest.mark.parametrize("kernels", FAST, ids=str)
def test_a_row_does_not_depend_on_the_others(kernels):
    """Which tile a row falls into does not show: batches give what images alone give."""
    case = Case(*CASES["primes"])
    together = case.actual(kernels)
    x, weight, bias, residual = case.arrays
    for row in range(len(x)):
        alone = linear(kernels, x[row:], weight, bias, residual[row:])
        assert (alone == together[row:]).all(), row


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_stays_in_its_row(bad, activation, kernels):
    case = Case(*CASES["a_row_less"])
    clean = case.actual(kernels, activation)
    case.arrays[0][11, 3] = bad
    spoilt = case.actual(kernels, activation)
    with np.errstate(invalid="ignore"):
        expected = case.expected(activation)[11]
    lost = ~np.isfinite(expected)
    assert lost.any()
    assert (spoilt[11][lost].astype(str) == expected[lost].astype(str)).all()
    spoilt[11] = clean[11]
    assert (spoilt == clean).all()


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
@pytest.mark.parametrize("sizes", [(0, 3, 5), (4, 3, 0), (4, 0, 5), (0, 0, 0)])
def test_empty_axes(sizes, kernels):
    """No rows or columns are no work; a sum of nothing is zero."""
    case = Case(*sizes)
    assert case.is_close(case.actual(kernels, "gelu"), "gelu")


@pytest.mark.parametrize("kernels", BACKENDS, ids=str)
def test_the_error_function(kernels):
    """Against float64, in units of the last place."""
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [
            rng.uniform(-4.2, 4.2, 200_000),
            10.0 ** rng.uniform(-37, 0, 20_000),
            [0.0, -0.0, 3.79, -3.79, 50.0, -50.0, np.inf, -np.inf],
        ]
    ).astype(np.float32)
    actual = erf(kernels, x)
    expected = special.erf(x.astype(np.float64))
    unit = np.spacing(abs(expected).astype(np.float32)).astype(np.float64)
    assert (abs(actual - expected) <= tolerance.ERF_ULPS * unit).all()
    assert abs(actual).max() == 1
    assert np.isnan(erf(kernels, np.array([np.nan, 1], np.float32))).tolist() == [True, False]


def erf(kernels, x):
    y = np.full_like(x, 77)
    call = ctypes.CDLL(str(PATH)).m2f_erf
    call(kernels.index, _address(x), ctypes.c_int64(x.size), _address(y))
    return y


@pytest.mark.parametrize("kernels", FAST[:1], ids=str)
@pytest.mark.parametrize(
    ("index", "shape", "sentence"),
    [
        (1, (6, 7), "axis K is 6 in weight, but 5 in x"),
        (2, (6,), "axis N is 6 in bias, but 7 in weight"),
        (3, (3, 7), r"axis \* is 3 in residual, but 4 in x"),
        (3, (4, 6), "axis N is 6 in residual, but 7 in weight"),
    ],
)
def test_wrong_shapes_name_both_sizes(kernels, index, shape, sentence):
    arrays = [np.zeros(s, "f") for s in ((4, 5), (5, 7), (7,), (4, 7))]
    arrays[index] = np.zeros(shape, "f")
    with pytest.raises(ValueError, match=sentence):
        linear(kernels, *arrays)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="activation is 0, 1 or 2, got 3"):
        Case(2, 3, 4).actual(FAST[0], "softplus")


def model_of(arrays, *, activation, constant, lead):
    """One Linear whose x has the leading axes `lead`, and inputs for it."""
    names = [t.name for t, a in zip(SPEC.inputs, arrays, strict=True) if a is not None]
    arrays = dict(zip(names, arrays, strict=False))
    chosen = list(ACTIVATIONS).index(activation)
    node = helper.make_node("Linear", names, ["y"], domain=SPEC.domain, activation=chosen)
    kept = {n: a for n, a in arrays.items() if constant and n in ("weight", "bias")}
    fed = {
        n: a.reshape(*lead, -1) if n in ("x", "residual") else a
        for n, a in arrays.items()
        if n not in kept
    }
    graph = helper.make_graph(
        [node],
        "linear",
        [helper.make_tensor_value_info(n, 1, a.shape) for n, a in fed.items()],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(a, n) for n, a in kept.items()],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(SPEC.domain, SPEC.version)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION), fed


def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.register_custom_ops_library(str(PATH))
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "computed"])
@pytest.mark.parametrize("residual", [True, False], ids=["residual", "no_residual"])
@pytest.mark.parametrize("lead", [(2, 3, 4), (24,), (1, 24)])
def test_the_node_equals_the_kernel(lead, residual, constant):
    case = Case(24, 40, 70, residual=residual)
    model, fed = model_of(case.arrays, activation="gelu", constant=constant, lead=lead)
    made = session(model)
    expected = case.actual(FAST[0], "gelu", threads=2)
    assert made.get_outputs()[0].shape == [*lead, 70]
    for _ in range(2):
        assert (made.run(None, fed)[0] == expected.reshape(*lead, 70)).all()


def test_computed_weights_are_not_kept():
    """Two weights in turn through one node."""
    case, other = Case(24, 40, 70), Case(24, 40, 70, seed=1)
    model, fed = model_of(case.arrays, activation="none", constant=False, lead=(24,))
    made = session(model)
    first = made.run(None, fed)[0]
    fed["weight"] = other.arrays[1]
    changed = made.run(None, fed)[0]
    case.arrays[1] = other.arrays[1]
    assert (changed == case.actual(FAST[0])).all()
    assert (changed != first).any()
