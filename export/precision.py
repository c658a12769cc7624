"""Precision written into a finished network: TensorRT builds what the file says."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import helper

from m2f.errors import ExportError
from m2f.export.graph import OPSET, Array
from m2f.export.half import half_from_float
from m2f.export.plan import Plan
from m2f.export.qdq import Quantizer, with_scaled_values
from m2f.export.quantizable import layers
from m2f.export.rewrite import Rewrite, with_opset
from m2f.plugins import MS_DEFORM_ATTN


def apply(
    model: onnx.ModelProto, arrays: Mapping[str, Array], plan: Plan
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Gives a float32 network the precision of a plan.

    Args:
        model: As `onnx_from_weights` makes it or `onnx_file.load` reads it, either form.
        arrays: Its weights by name.
        plan: What is to be half, and what 8 bits wide.

    Returns:
        The typed model without its initializers' data, and that data by name.

    Raises:
        ExportError: The plan names what the network does not have, lacks a step, or a weight
            does not fit into its type.
    """
    model, known = with_opset(model, arrays, _opset(plan))
    if plan.layers:
        model, known = _quantized(model, known, plan)
    if plan.base == "fp32":
        return model, known
    return half_from_float(model, known, base=plan.base, wide=plan.wide)


def _opset(plan: Plan) -> int:
    """The opset with bfloat16 convolutions, FP8 without zeros, or half steps, if needed."""
    if plan.base == "bf16" or (plan.layers and plan.kind == "fp8"):
        return 22
    return 19 if plan.layers and plan.base == "fp16" else OPSET


def _quantized(
    model: onnx.ModelProto, arrays: Mapping[str, Array], plan: Plan
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    known = layers(model, arrays, plan.kind)
    strangers = sorted(plan.layers - {layer.name for layer in known})
    if strangers:
        raise ExportError(
            f"the plan quantises {strangers[0]}, which this network does not have to quantise "
            f"in {plan.kind}; calibrate this bundle itself"
        )
    graph = Rewrite(model.graph.node, arrays)
    nodes = Quantizer(graph, plan, known).run()
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    samplers = [node for node in nodes if node.op_type == MS_DEFORM_ATTN.name]
    scaled = [node for node in samplers if "value_scale" in {a.name for a in node.attribute}]
    if scaled:
        for node in samplers:
            if node not in scaled:
                node.attribute.append(helper.make_attribute("value_scale", 1.0))
        for function in result.functions:
            if function.name == MS_DEFORM_ATTN.name:
                with_scaled_values(function)
    return result, graph.arrays
