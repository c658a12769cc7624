"""Explicit quantisation: QuantizeLinear and DequantizeLinear where runtimes fuse them.

A pair of the two rounds a tensor to 8-bit numbers and gives it back as floats. What a runtime
finds between pairs it computes with 8-bit instructions, so that where the pairs stand decides
what is fast:

* TensorRT wants them before each product and before the residual side of an addition, int8,
  centred on zero. Bias, addition, ReLU and the next rounding then are one kernel.
* ONNX Runtime's CPU kernels want them also behind each convolution and each addition, and
  unsigned: a ReLU vanishes into a rounding whose least value is zero. A product and its bias
  are one kernel if the bias is stored in whole steps too.

Weights are stored as 8-bit numbers, with one step per output channel.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
from onnx import helper

from m2f.errors import ExportError
from m2f.export.graph import Array, Value
from m2f.export.plan import LARGEST, Plan
from m2f.export.quantizable import Layer
from m2f.export.rewrite import Rewrite
from m2f.plugins import MS_DEFORM_ATTN

INT8, UINT8, FP8 = np.dtype(np.int8), np.dtype(np.uint8), np.dtype(ml_dtypes.float8_e4m3fn)
MIDDLE = 128
"""Zero of a tensor with both signs, among unsigned numbers."""

BASES = {"fp32": np.float32, "fp16": np.float16, "bf16": ml_dtypes.bfloat16}


class Quantizer:
    """Puts Q/DQ nodes into one float32 graph.

    Args:
        graph: To change; its arrays change with it.
        plan: What to quantise.
        layers: What the graph has to quantise.
    """

    def __init__(self, graph: Rewrite, plan: Plan, layers: tuple[Layer, ...]) -> None:
        self.graph, self.plan = graph, plan
        self.layers = [layer for layer in layers if layer.name in plan.layers]
        self.is_cpu = plan.target == "onnxruntime"
        self._inputs = {layer.input for layer in self.layers}
        self.by_name = {node.name: node for node in graph.nodes}
        self._after: dict[Value, list[onnx.NodeProto]] = {}
        self._pairs: dict[Value, Value] = {}

    def run(self) -> list[onnx.NodeProto]:
        """Quantises every layer of the plan; gives the nodes in order."""
        for layer in self.layers:
            node = self.by_name[layer.node]
            if layer.kind == "MSDeformAttn":
                self._sampled(node)
                continue
            readers = [node]
            rounded = self._rounded(layer.input)
            _replace(readers, layer.input, rounded)
            if layer.weight is not None:
                node.input[1] = self._weight(layer)
            if self.is_cpu and layer.kind == "Conv":
                self._results(layer)
            if self.is_cpu and layer.kind == "MatMul":
                self._bias(layer)
        nodes: list[onnx.NodeProto] = []
        for name in [n for n in self._after if n not in self.graph.made_by]:
            nodes += self._after[name]
        for node in self.graph.nodes:
            nodes.append(node)
            for name in node.output:
                nodes += self._after.get(name, [])
        return nodes

    def _results(self, layer: Layer) -> None:
        """Rounds what a convolution gives, for whoever reads it."""
        for name in (layer.sum, layer.output):
            if name is not None:
                readers = list(self.graph.read_by.get(name, ()))
                _replace(readers, name, self._rounded(name))

    def _rounded(self, name: Value) -> Value:
        """A tensor through its pair, which is made once."""
        if name not in self._pairs:
            scale, zero = self._step(name)
            result = f"{name}.dequantized"
            quantized = self._quantized(name, scale, zero)
            pair = helper.make_node(
                "DequantizeLinear", [quantized, scale, zero], [result], name=result
            )
            self._after[name].append(pair)
            self._pairs[name] = result
        return self._pairs[name]

    def _quantized(self, name: Value, scale: Value, zero: Value) -> Value:
        """A tensor's 8-bit numbers."""
        result, inputs, kind = f"{name}.quantized", [name, scale, zero], None
        if self.plan.kind == "fp8":
            # With an FP8 zero, ONNX Runtime 1.32 drops a ReLU before, as if it were unsigned.
            inputs, kind = [name, scale], int(onnx.TensorProto.FLOAT8E4M3FN)
        node = helper.make_node(
            "QuantizeLinear", inputs, [result], name=result, output_dtype=kind
        )
        self._after.setdefault(name, []).append(node)
        return result

    def _step(self, name: Value) -> tuple[Value, Value]:
        """Scale and zero point of a tensor's pair."""
        scale = self._scale(name)
        kind, zero = INT8 if self.plan.kind == "int8" else FP8, 0
        if self.is_cpu:
            # The same largest magnitude, and twice as many steps where there is one sign.
            is_positive = self._is_positive(name)
            kind, zero = UINT8, 0 if is_positive else MIDDLE
            scale *= 127 / 255 if is_positive else 1
        arrays = self.graph.arrays
        arrays[f"{name}.scale"] = _storable(np.array(scale, np.float32), self.plan)
        arrays[f"{name}.zero"] = np.array(zero, kind)
        return f"{name}.scale", f"{name}.zero"

    def _scale(self, name: Value) -> float:
        """The step that the plan gives a tensor."""
        made_by = self.graph.made_by.get(name)
        if self.is_cpu and made_by is not None and made_by.op_type == "MaxPool":
            # The largest of some numbers is one of them: with the same step nothing is lost.
            name = made_by.input[0].removesuffix(".dequantized")
        scale = self.plan.scales.get(name)
        if scale is None or not 0 < scale < np.inf:
            raise ExportError(
                f"the step of {name} is {scale}, expected a positive number; calibrate on "
                "images in which it is not always zero, or leave its layer out"
            )
        return scale

    def _is_positive(self, name: Value) -> bool:
        """Whether a tensor has no negative values, whatever the image."""
        node = self.graph.made_by.get(name)
        if node is None or node.op_type not in ("Relu", "MaxPool"):
            return False
        source = node.input[0].removesuffix(".dequantized")
        return node.op_type == "Relu" or self._is_positive(source)

    def _weight(self, layer: Layer) -> Value:
        """A weight in 8 bits, with a step per output channel; gives it as floats."""
        assert layer.weight is not None
        assert layer.axis is not None
        arrays, name = self.graph.arrays, layer.weight
        weight = arrays.pop(name)
        given = self.plan.weights.get(layer.name)
        step = channel_scales(weight, layer.axis, self.plan) if given is None else given
        step = _storable(np.asarray(step, np.float32), self.plan)
        shape = [1] * weight.ndim
        shape[layer.axis] = -1
        arrays[f"{name}.scale"] = step
        kind = INT8 if self.plan.kind == "int8" else FP8
        arrays[f"{name}.zero"] = np.zeros(step.shape, kind)
        arrays[f"{name}.quantized"] = rounded(weight / step.reshape(shape), kind)
        self._dequantized(name, layer.axis)
        return name

    def _sampled(self, node: onnx.NodeProto) -> None:
        """Gives MSDeformAttn 8-bit values, and their step as an attribute."""
        value = node.input[0]
        scale = _storable(np.array(self._scale(value), np.float32), self.plan)
        arrays = self.graph.arrays
        arrays[f"{value}.scale"], arrays[f"{value}.zero"] = scale, np.array(0, INT8)
        node.input[0] = self._quantized(value, f"{value}.scale", f"{value}.zero")
        node.attribute.append(helper.make_attribute("value_scale", float(scale)))

    def _bias(self, layer: Layer) -> None:
        """Gives the bias after a product the form that ONNX Runtime fuses best."""
        name = self.by_name[layer.node].output[0]
        after = self.graph.only_reader(name)
        bias = self.graph.constant_input(after) if after and after.op_type == "Add" else None
        if after is None or bias is None or self.graph.only_reader(bias) is not after:
            return
        arrays = self.graph.arrays
        rectified = self.graph.only_reader(after.output[0])
        is_rounded = rectified is not None and rectified.op_type == "Relu"
        if not (is_rounded and rectified and rectified.output[0] in self._inputs):
            # Float results: a bias that is no vector keeps the product from becoming a Gemm,
            # whose 8-bit kernel with float results is slower than the product's.
            arrays[bias] = arrays[bias].reshape(1, 1, -1)
            return
        # 8-bit results: bias, ReLU and rounding join the product, if the bias counts its sums.
        step = arrays[f"{layer.input}.scale"] * arrays[f"{layer.weight}.scale"]
        steps = np.rint(arrays.pop(bias).astype(np.float64) / step)
        arrays[f"{bias}.quantized"] = np.clip(steps, -(2**31), 2**31 - 1).astype(np.int32)
        arrays[f"{bias}.scale"] = step
        arrays[f"{bias}.zero"] = np.zeros(step.shape, np.int32)
        self._dequantized(bias, axis=0)

    def _dequantized(self, name: Value, axis: int) -> None:
        """Gives stored numbers back as floats, under the name they had as such."""
        parts = [f"{name}.{part}" for part in ("quantized", "scale", "zero")]
        node = helper.make_node("DequantizeLinear", parts, [name], name=name, axis=axis)
        self._after.setdefault(parts[0], []).append(node)


def channel_scales(weight: Array, axis: int, plan: Plan) -> Array:
    """The step of each output channel by its largest magnitude, float32; 1 if all are zero."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).max(axis=others)
    return np.where(largest > 0, largest / LARGEST[plan.kind], 1).astype(np.float32)


def rounded(steps: Array, kind: np.dtype[np.generic]) -> Array:
    """Numbers of steps as 8-bit numbers: to the nearest, ties to even, saturating."""
    limit = LARGEST["int8" if kind == INT8 else "fp8"]
    clipped = np.clip(steps, -limit, limit)
    return (np.rint(clipped) if kind == INT8 else clipped).astype(kind)


def _storable(step: Array, plan: Plan) -> Array:
    """The least step of the plan's base type that is not below the one asked for, float32.

    What is dequantised has its step's type; a step rounded down would cut the range.
    """
    kind = np.dtype(BASES[plan.base])
    if kind == np.float32:
        return step
    stored = step.astype(kind)
    bits = stored.view(np.uint16) + (stored.astype(np.float32) < step)
    return np.asarray(bits.astype(np.uint16).view(kind).astype(np.float32))


def _replace(nodes: list[onnx.NodeProto], old: Value, new: Value) -> None:
    for node in nodes:
        node.input[:] = [new if name == old else name for name in node.input]


def with_scaled_values(function: onnx.FunctionProto) -> None:
    """Lets the body of MSDeformAttn take 8-bit values and their step."""
    assert function.name == MS_DEFORM_ATTN.name
    for node in function.node:
        node.input[:] = ["value.scaled" if name == "value" else name for name in node.input]
    step = onnx.AttributeProto(
        name="value_float", ref_attr_name="value_scale", type=onnx.AttributeProto.FLOAT
    )
    constant = helper.make_node("Constant", [], ["value.scale"], name="value.scale")
    constant.attribute.append(step)
    cast = helper.make_node("Cast", ["value"], ["value.float"], name="value.float", to=1)
    scaled = helper.make_node(
        "Mul", ["value.float", "value.scale"], ["value.scaled"], name="value.scaled"
    )
    nodes = [constant, cast, scaled, *function.node]
    del function.node[:]
    function.node.extend(nodes)
    function.attribute.append("value_scale")
