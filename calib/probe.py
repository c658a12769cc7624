"""A float32 network that also tells what passes through it.

Statistics are computed in the graph, by nodes added to it, and only they come out: never a
whole activation. So memory does not grow with the number of tensors watched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from m2f.errors import BundleError, CheckFailed
from m2f.export.network import IMAGE, IMAGE_SIZE
from m2f.plugins import library

SAMPLES = 1 << 16
"""Values of a tensor that go into its histogram, per image: about so many at least, where
there are as many, and at most six times as many."""

STRIDE = 6
"""Samples are every (6 k + 1)-th value: never a multiple of 2 or 3, which numbers of channels
are made of, so that every channel is met."""

MOVES = frozenset(
    (
        *(
            "Cast",
            "Concat",
            "Expand",
            "Gather",
            "Identity",
            "MaxPool",
            "Pad",
            "Relu",
            "Reshape",
        ),
        *("Resize", "Slice", "Softmax", "Split", "Squeeze", "Transpose", "Unsqueeze", "Where"),
    )
)
"""Ops whose results are no larger than their inputs, or than 1."""

Array = NDArray[Any]


class Seen(NamedTuple):
    """What one image showed of a tensor.

    Attributes:
        low: Smallest value; of each channel, [C], where the tensor is sampled.
        high: Largest value, likewise.
        mean: Likewise.
        samples: Evenly spaced values, [n]; None unless it is sampled.
    """

    low: Array
    high: Array
    mean: Array
    samples: Array | None


class Probe:
    """Runs a network image by image and gives statistics of its tensors."""

    def __init__(
        self,
        model: onnx.ModelProto,
        folder: Path,
        sampled: Mapping[str, int],
        *,
        is_fused: bool = False,
        threads: int | None = None,
    ) -> None:
        """Adds the nodes and loads the result.

        Args:
            model: The network; its large weights may lie in files of ``folder``.
            folder: The bundle's.
            sampled: Tensors to be known in detail, with their axis of channels. Of every
                other float32 result that an op may have made larger, extremes and mean are
                told of the whole.
            is_fused: Tell a product, its bias, a residual addition and a ReLU by what comes
                out of them together, which needs less memory.
            threads: Cores to use; all unless given.

        Raises:
            BundleError: A tensor is not in the graph, or ONNX Runtime refuses it.
        """
        ranks = dict(_float_results(model))
        unknown = [name for name in sampled if name not in ranks]
        if unknown:
            raise BundleError(f"the network has no float32 result {unknown[0]}; export again")
        growing = set(_growing(model.graph, is_fused=is_fused))
        self.tensors = tuple(name for name in ranks if name in sampled or name in growing)
        """Every watched tensor, in the order they are computed."""
        stats = _Statistics()
        for name in self.tensors:
            if name in sampled:
                stats.add_sampled(name, ranks[name], sampled[name])
            else:
                stats.add(name)
        self._sampled = frozenset(sampled)
        self._session = _session(stats.onto(model), folder, threads)
        self._outputs = stats.outputs

    def run(self, image: NDArray[np.uint8], image_size: NDArray[np.int64]) -> dict[str, Seen]:
        """Statistics of every watched tensor for one batch.

        Raises:
            CheckFailed: A tensor holds NaN or infinity; the message names the first.
        """
        results = self._session.run(self._outputs, {IMAGE: image, IMAGE_SIZE: image_size})
        found = iter(results)
        seen = {}
        for name in self.tensors:
            low, high, mean = next(found), next(found), next(found)
            samples = next(found) if name in self._sampled else None
            # ONNX Runtime's extremes pass over NaN; a mean does not.
            if not np.isfinite(mean).all() or not np.isfinite(high - low).all():
                raise CheckFailed(
                    f"tensor {name} holds NaN or infinity in float32, where ranges must be "
                    "finite; compare the bundle with its checkpoint (`m2f check`)"
                )
            seen[name] = Seen(low, high, mean, samples)
        return seen


class _Statistics:
    """Nodes that compute statistics, and the names of what they give."""

    def __init__(self) -> None:
        self.nodes: dict[str, list[onnx.NodeProto]] = {}
        self.outputs: list[str] = []
        self.constants: dict[str, Array] = {
            "m2f.flat": np.array([-1]),
            "m2f.zero": np.array([0]),
            "m2f.one": np.array([1]),
            "m2f.end": np.array([np.iinfo(np.int64).max]),
            "m2f.block": np.array([SAMPLES * STRIDE]),
            "m2f.stride": np.array([STRIDE]),
        }

    def add(self, name: str, axes: Sequence[int] | None = None) -> None:
        """Smallest and largest value and mean, over some axes or all."""
        for kind, op in (("low", "ReduceMin"), ("high", "ReduceMax"), ("mean", "ReduceMean")):
            self._node(name, op, [name], self._output(name, kind), axes=axes, keepdims=0)

    def add_sampled(self, name: str, rank: int, axis: int) -> None:
        """The same of each channel, and every (6 k + 1)-th value."""
        self.add(name, [i for i in range(rank) if i != axis % rank])
        flat, size, blocks, times, step = (
            f"{name}.m2f.{part}" for part in ("flat", "size", "blocks", "times", "step")
        )
        self._node(name, "Reshape", [name, "m2f.flat"], flat)
        self._node(name, "Shape", [flat], size)
        self._node(name, "Div", [size, "m2f.block"], blocks)
        self._node(name, "Mul", [blocks, "m2f.stride"], times)
        self._node(name, "Add", [times, "m2f.one"], step)
        inputs = [flat, "m2f.zero", "m2f.end", "m2f.zero", step]
        self._node(name, "Slice", inputs, self._output(name, "samples"))

    def onto(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A copy of the model that gives the statistics too."""
        larger = onnx.ModelProto()
        larger.CopyFrom(model)
        del larger.graph.node[:]
        # Where a tensor is made, or else all of them wait for the end, and fill the memory.
        for node in model.graph.node:
            larger.graph.node.append(node)
            for name in node.output:
                larger.graph.node.extend(self.nodes.get(name, ()))
        larger.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self.outputs)
        larger.graph.initializer.extend(
            onnx.numpy_helper.from_array(array.astype(np.int64), name)
            for name, array in self.constants.items()
        )
        return larger

    def _output(self, name: str, kind: str) -> str:
        self.outputs.append(f"{name}.m2f.{kind}")
        return self.outputs[-1]

    def _node(
        self, of: str, op: str, inputs: Sequence[str], output: str, **attributes: Any
    ) -> None:
        attributes = {key: value for key, value in attributes.items() if value is not None}
        node = helper.make_node(op, inputs, [output], name=output, **attributes)
        self.nodes.setdefault(of, []).append(node)


def _growing(graph: onnx.GraphProto, *, is_fused: bool) -> Iterator[str]:
    """Results that an op may have made larger than what it was given.

    If fused: of a product, its bias, a residual addition and a ReLU, only what comes out at the
    end, as 8-bit kernels compute them as one, and add in 32 bits whatever they store.
    """
    readers: dict[str, list[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    for node in graph.node:
        goes_on = any(readers.get(name) in (["Add"], ["Relu"]) for name in node.output)
        grows = node.op_type not in MOVES or (is_fused and node.op_type == "Relu")
        if grows and not (is_fused and goes_on):
            yield from node.output


def _float_results(model: onnx.ModelProto) -> Iterator[tuple[str, int]]:
    """Float32 results of the nodes that have an axis at least, with their rank."""
    inferred = onnx.shape_inference.infer_shapes(model)
    types = {value.name: value.type.tensor_type for value in inferred.graph.value_info}
    for node in model.graph.node:
        for name in node.output:
            if name in types and types[name].elem_type == onnx.TensorProto.FLOAT:
                rank = len(types[name].shape.dim)
                if rank:
                    yield name, rank


def _session(model: onnx.ModelProto, folder: Path, threads: int | None) -> Any:
    """A CPU session with our own kernels, where they are installed."""
    import onnxruntime as ort  # type: ignore[import-untyped]

    options = ort.SessionOptions()
    options.log_severity_level = 3
    # What is to be looked at is looked at as soon as it is there, and then freed.
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    if threads is not None:
        options.intra_op_num_threads = threads
    found = library.find()
    if found is not None:
        options.register_custom_ops_library(str(found))
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(folder.resolve())
    )
    try:
        return ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as problem:  # its exceptions share no other base
        raise BundleError(f"{folder}: cannot be loaded with probes: {problem}") from problem
