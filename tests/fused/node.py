"""One node of a fused op in ONNX Runtime."""

import onnxruntime
from onnx import helper

from m2f.export.graph import IR_VERSION, OPSET
from m2f.plugins import FUSED
from tests.ops.native import PATH

SPECS = {op.name: op for op in FUSED}


def run(op, inputs, attributes, *, rank, threads=1):
    """Its output for `inputs` by name, which has `rank` axes; sizes are known when it runs.

    It is of the type of the last input.
    """
    spec = SPECS[op]
    node = helper.make_node(spec.name, list(inputs), ["output"], domain=spec.domain)
    node.attribute.extend(helper.make_attribute(*item) for item in attributes.items())
    ports = {
        name: (helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)
        for name, array in inputs.items()
    }
    kind = list(ports.values())[-1][0]
    graph = helper.make_graph(
        [node],
        "node",
        [helper.make_tensor_value_info(name, *port) for name, port in ports.items()],
        [helper.make_tensor_value_info("output", kind, [None] * rank)],
    )
    versions = [helper.make_opsetid("", OPSET), helper.make_opsetid(spec.domain, spec.version)]
    model = helper.make_model(graph, opset_imports=versions, ir_version=IR_VERSION)
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(PATH))
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, inputs)[0]
