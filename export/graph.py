"""A small ONNX graph builder: what a network is lowered onto.

The network is written down op by op (`export/network.py`) instead of being traced. So names
in the file are names in the model, nothing depends on a tracer's version, shapes may be
dynamic wherever the mathematics allows, and an R50 takes seconds. Whatever depends on
constants only is computed while building: a graph for a fixed size holds its position
encodings as constants, a dynamic one computes them, and both are written once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from m2f.errors import ExportError

OPSET = 17
"""The first with LayerNormalization, which must stay one op to survive FP16."""

IR_VERSION = 8
"""The one of opset 17's ONNX release; every runtime we target reads it."""

FOLD_LIMIT = 1 << 16
"""Elements up to which a computed constant is stored; larger maps stay a few nodes, which
every runtime folds when it loads the file."""

Array = NDArray[Any]
Value = str
"""A tensor of the graph, by name."""

Dim = int | Value
"""A size: known while building, or an int64 tensor of shape [1]."""


class Graph:
    """Nodes, constants and weights of a graph or function under construction.

    Args:
        weights: Arrays by checkpoint name; each is copied in when first used.
        is_function: Build a function's body: constants become nodes, as functions have no
            initializers.
    """

    def __init__(
        self, weights: Mapping[str, Array] | None = None, *, is_function: bool = False
    ) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, Array] = {}
        self._weights = weights or {}
        self._is_function = is_function
        self._known: dict[Value, Array] = {}
        self._by_content: dict[tuple[str, tuple[int, ...], bytes], Value] = {}
        self._taken: dict[str, int] = {}
        self._scope: list[str] = []

    @contextlib.contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefixes the names of all nodes and values made inside."""
        self._scope.append(name)
        try:
            yield
        finally:
            self._scope.pop()

    def prune(self, outputs: Sequence[Value]) -> None:
        """Drops nodes, constants and weights that no output depends on."""
        self.nodes, needed = pruned(self.nodes, outputs)
        self.initializers = {n: a for n, a in self.initializers.items() if n in needed}

    def path(self, name: str) -> str:
        """A name within the current scope."""
        return ".".join([*self._scope, name])

    def weight(self, name: str, *, transposed: bool = False) -> Value:
        """An array of the checkpoint, by its name within the current scope.

        Args:
            name: Relative to the scope.
            transposed: Swap its two axes (linear layers store [out, in]; MatMul takes
                [in, out]).
        """
        full = self.path(name)
        if full not in self.initializers:
            array = self.array(name)
            self.initializers[full] = np.ascontiguousarray(array.T if transposed else array)
        return full

    def array(self, name: str) -> Array:
        """A weight's value, by its name within the current scope, to compute with."""
        full = self.path(name)
        if full not in self._weights:
            raise ExportError(f"weight {full} is missing; the checkpoint has no such array")
        return self._weights[full]

    def stored(self, name: str, array: Array) -> Value:
        """Adds a weight computed here, under a name within the current scope."""
        full = self.path(name)
        self.initializers[full] = np.ascontiguousarray(array)
        return full

    def constant(self, value: Any, dtype: Any = np.float32) -> Value:
        """A small constant; equal ones are stored once."""
        array = np.asarray(value, dtype=dtype)
        key = (str(array.dtype), array.shape, array.tobytes())
        if key in self._by_content:
            return self._by_content[key]
        name = self._numbered("constant")
        if self._is_function:
            tensor = numpy_helper.from_array(array, name)
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor, name=name))
        else:
            self.initializers[name] = array
        self._by_content[key] = name
        self._known[name] = array
        return name

    def ints(self, *dims: Dim) -> Value:
        """An int64 vector of sizes, some of which may be known only at run time."""
        if all(isinstance(d, int) for d in dims):
            return self.constant(dims, np.int64)
        parts = [self.constant([d], np.int64) if isinstance(d, int) else d for d in dims]
        return self.op("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]

    def dim(self, value: Value) -> Dim:
        """The size that an int64 tensor of shape [1] holds: a number, if it is known."""
        known = self._known.get(value)
        return value if known is None else int(known[0])

    def arithmetic(self, op: str, a: Dim, b: Dim) -> Dim:
        """Add, Sub, Mul, Div or Mod of two sizes."""
        return self.dim(self.op(op, self.ints(a), self.ints(b)))

    def known(self, value: Value) -> Array | None:
        """The value of a tensor that does not depend on the input, else None."""
        return self._known.get(value)

    def op(
        self,
        kind: str,
        *inputs: Value,
        name: str | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> Value:
        """Adds a node with one output, or computes it now if all inputs are constants.

        Args:
            kind: The op's type.
            inputs: Tensor names; "" leaves an optional input out.
            name: Of the output, within the current scope: that of the module whose output
                it is; None makes one up.
            domain: Of the op.
            attributes: ONNX attributes; those that are None are left out.
        """
        return self.ops(kind, *inputs, outputs=1, name=name, domain=domain, **attributes)[0]

    def ops(
        self,
        kind: str,
        *inputs: Value,
        outputs: int,
        name: str | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> list[Value]:
        """Adds a node with several outputs; else as `op`."""
        attributes = {k: v for k, v in attributes.items() if v is not None}
        stem = self._claimed(name) if name else self._numbered(kind)
        results = [stem] if outputs == 1 else [f"{stem}.{i}" for i in range(outputs)]
        node = helper.make_node(kind, inputs, results, name=stem, domain=domain, **attributes)
        if not domain and all(i in self._known or not i for i in inputs):
            feeds = {i: self._known[i] for i in inputs if i}
            computed = evaluated(node, feeds)
            if sum(array.size for array in computed) <= FOLD_LIMIT:
                return [self.constant(array, array.dtype) for array in computed]
        self.nodes.append(node)
        return results

    def _claimed(self, name: str) -> str:
        """A name within the scope, which nothing else may have."""
        full = self.path(name)
        assert full not in self._taken, full
        self._taken[full] = 1
        return full

    def _numbered(self, kind: str) -> str:
        """A made-up name."""
        full = self.path(kind)
        count = self._taken.get(full, 0)
        self._taken[full] = count + 1
        return f"{full}.{count}"


def pruned(
    nodes: Sequence[onnx.NodeProto], outputs: Sequence[Value]
) -> tuple[list[onnx.NodeProto], set[Value]]:
    """The nodes that an output depends on, and all tensors that these take and give."""
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1], needed


def evaluated(node: onnx.NodeProto, feeds: Mapping[str, Array]) -> list[Array]:
    """What a node gives for these inputs, by ONNX's reference evaluator."""
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in feeds.items()
    ]
    outputs = [onnx.ValueInfoProto(name=n) for n in node.output]
    graph = helper.make_graph([node], "constant", inputs, outputs)
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    return [np.asarray(array) for array in ReferenceEvaluator(model).run(None, dict(feeds))]
