"""Every tensor of an ONNX graph at one input size: its shape, its type, whether it is constant.

ONNX's own inference, node by node, with the values of small integer tensors carried along:
so a file for any size gets the same concrete shapes as a file for one. Ops of the `m2f` domain
are inferred from their op.toml.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper, shape_inference

from m2f.errors import BundleError
from m2f.export.graph import Array, evaluated
from m2f.plugins import FUSED, OPS, OpSpec

Shape = tuple[int, ...]

FEW = 64
"""Elements up to which a tensor's value is followed: sizes, not features."""

_BITS = {
    **dict.fromkeys(("DOUBLE", "INT64", "UINT64"), 64),
    **dict.fromkeys(("FLOAT", "INT32", "UINT32"), 32),
    **dict.fromkeys(("FLOAT16", "BFLOAT16", "INT16", "UINT16"), 16),
    **dict.fromkeys(("INT4", "UINT4", "FLOAT4E2M1"), 4),
}
"""Of one element, by ONNX's name of the type; 8 for all others."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """What is known of one tensor.

    Attributes:
        shape: Concrete.
        type: ONNX's number of the element type.
        is_constant: It depends on no input, so that a runtime computes it once.
        is_stored: It is a weight or constant of the file.
        value: Of small tensors that depend on sizes and constants only.
    """

    shape: Shape
    type: int
    is_constant: bool = False
    is_stored: bool = False
    value: Array | None = None

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Of memory."""
        name = onnx.TensorProto.DataType.Name(self.type)
        return -(-self.size * _BITS.get(name, 8) // 8)


def tensors(model: onnx.ModelProto, inputs: Mapping[str, Shape]) -> dict[str, Tensor]:
    """Follows shapes and types through a graph.

    Args:
        model: Its large weights need not be loaded.
        inputs: Shapes of the graph's inputs; one that is left out has its default's, or the
            one that the graph states.

    Raises:
        BundleError: An op is unknown, or its shape does not follow from the inputs.
    """
    graph = model.graph
    found = {tensor.name: _stored(tensor) for tensor in graph.initializer}
    for port in graph.input:
        shape = inputs.get(port.name)
        if shape is None and port.name in found:  # an input with a default may still be given
            shape = found[port.name].shape
        shape = _shape(port.type) if shape is None else shape
        if shape is None:
            raise BundleError(f"the graph has an input {port.name!r} whose size is not known")
        found[port.name] = Tensor(shape, port.type.tensor_type.elem_type)
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    for node in graph.node:
        given = [found[name] for name in node.input if name]
        is_constant = all(tensor.is_constant for tensor in given)
        for name, tensor in _outputs(node, found, opsets, is_constant).items():
            found[name] = tensor
    return found


def _stored(tensor: onnx.TensorProto) -> Tensor:
    shape = tuple(tensor.dims)
    is_here = tensor.data_location != onnx.TensorProto.EXTERNAL
    value = numpy_helper.to_array(tensor) if is_here and math.prod(shape) <= FEW else None
    return Tensor(shape, tensor.data_type, is_constant=True, is_stored=True, value=value)


def _outputs(
    node: onnx.NodeProto,
    found: Mapping[str, Tensor],
    opsets: Mapping[str, int],
    is_constant: bool,
) -> dict[str, Tensor]:
    """A node's outputs by name."""
    spec = next(
        (op for op in OPS + FUSED if (op.domain, op.name) == (node.domain, node.op_type)), None
    )
    if spec is not None:
        return _of_contract(spec, node, [found[name] for name in node.input])
    if node.op_type == "Shape" and not node.domain:
        return {node.output[0]: _shape_of(node, found[node.input[0]])}
    if node.op_type == "MatMulIntegerToFloat":  # ONNX Runtime's, of which ONNX has no schema
        a, b = (found[name].shape for name in node.input[:2])
        return {node.output[0]: Tensor((*a[:-1], b[-1]), onnx.TensorProto.FLOAT)}
    known = {name: found[name].value for name in node.input if name}
    feeds = {name: value for name, value in known.items() if value is not None}
    types = _inferred(node, found, feeds, opsets)
    result = {}
    values: Sequence[Array | None] = [None] * len(node.output)
    if len(feeds) == len(known) and not any(_is_large(types.get(o)) for o in node.output):
        values = evaluated(node, feeds)
    for name, value in zip(node.output, values, strict=False):
        shape = _shape(types.get(name)) if value is None else value.shape
        if shape is None:
            raise BundleError(
                f"the size of {name} (from {node.op_type} {node.name}) does not follow from "
                "the image's; give a bundle that this program exported"
            )
        kind = (
            types[name].tensor_type.elem_type
            if value is None
            else helper.np_dtype_to_tensor_dtype(value.dtype)
        )
        result[name] = Tensor(shape, kind, is_constant=is_constant, value=value)
    return result


def _inferred(
    node: onnx.NodeProto,
    found: Mapping[str, Tensor],
    feeds: Mapping[str, Array],
    opsets: Mapping[str, int],
) -> dict[str, onnx.TypeProto]:
    """What ONNX says of a node's outputs."""
    try:
        version = opsets[node.domain]
        schema = defs.get_schema(node.op_type, version, node.domain)
        types = {
            name: helper.make_tensor_type_proto(found[name].type, found[name].shape)
            for name in node.input
            if name
        }
        data = {name: numpy_helper.from_array(value, name) for name, value in feeds.items()}
        return shape_inference.infer_node_outputs(schema, node, types, data)
    except (KeyError, defs.SchemaError, shape_inference.InferenceError) as problem:
        kind = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        raise BundleError(
            f"the cost of op {kind} cannot be counted ({str(problem).splitlines()[0]}); give a "
            "bundle that this program exported"
        ) from problem


def _of_contract(
    spec: OpSpec, node: onnx.NodeProto, inputs: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Outputs of one of our ops, from its op.toml."""
    names = {attribute.name for attribute in spec.attributes}
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name in names}
    sizes = spec.bind(*inputs, attributes=given)
    types = {known.type: x.type for known, x in zip(spec.inputs, inputs, strict=False)}
    found = {}
    for name, output in zip(node.output, spec.outputs, strict=True):
        shape = tuple(sizes[axis] for axis in output.dims if axis != "*")
        if output.dims[0] == "*":  # as in the first input
            shape = inputs[0].shape[: 1 - len(spec.inputs[0].dims)] + shape
        found[name] = Tensor(shape, types[output.type])
    return found


def _shape_of(node: onnx.NodeProto, tensor: Tensor) -> Tensor:
    ends = {a.name: a.i for a in node.attribute}
    sizes = np.array(tensor.shape[ends.get("start", 0) : ends.get("end")], np.int64)
    return Tensor(
        sizes.shape, onnx.TensorProto.INT64, is_constant=tensor.is_constant, value=sizes
    )


def _shape(kind: onnx.TypeProto | None) -> Shape | None:
    """A concrete shape, or None."""
    if kind is None or not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    if not all(dim.HasField("dim_value") for dim in dims):
        return None
    return tuple(dim.dim_value for dim in dims)


def _is_large(kind: onnx.TypeProto | None) -> bool:
    """Whether a tensor's value is not worth following."""
    shape = _shape(kind)
    return shape is not None and math.prod(shape) > FEW
