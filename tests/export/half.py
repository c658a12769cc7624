"""A float16 copy of a float32 graph: enough to see whether a builder takes its structure.

Not how precision is chosen in the product: every tensor is halved, whatever that costs.
"""

import numpy as np
import onnx
from onnx import numpy_helper

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def halved(model):
    """Types every float32 tensor of a portable graph as float16, in place."""
    scales = {node.input[2] for node in model.graph.node if node.op_type == "Resize"}
    for tensor in model.graph.initializer:
        if tensor.data_type == FLOAT and tensor.name not in scales:
            array = numpy_helper.to_array(tensor).clip(-65504, 65504).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == FLOAT:
                attribute.i = HALF
    for output in model.graph.output:
        output.type.tensor_type.elem_type = HALF
    return model
