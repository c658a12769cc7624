"""An independent look at a typed file: what ONNX's own inference says every tensor is."""

import onnx
import onnx.inliner
from onnx import TensorProto, helper


def inferred(path):
    """Element type of every tensor of a file, functions inlined, by full shape inference.

    Raises where an op was given types that it does not take.
    """
    model = onnx.load(path)
    for function in model.functions:
        assert function.name in {node.op_type for node in model.graph.node}
    inlined = onnx.inliner.inline_local_functions(model)
    onnx.checker.check_model(inlined, full_check=True)
    graph = onnx.shape_inference.infer_shapes(inlined, strict_mode=True).graph
    types = {t.name: t.data_type for t in graph.initializer}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        types[value.name] = value.type.tensor_type.elem_type
    return graph, types


def named(kind):
    """As people write it, e.g. "float16"."""
    if kind == TensorProto.BFLOAT16:
        return "bfloat16"
    return helper.tensor_dtype_to_np_dtype(kind).name
