"""A few nodes alone in ONNX Runtime: what the scripts that time one op have in common."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import onnx
import onnxruntime  # type: ignore[import-untyped]
from onnx import helper, numpy_helper

from m2f.export.fused import DOMAIN
from m2f.export.graph import IR_VERSION, OPSET, Array, Graph, Value
from m2f.plugins import OPS, library

TURN_MS = 15.0
"""Milliseconds that one turn of a form lasts, at least."""


def session_of(
    g: Graph,
    inputs: Mapping[Value, Sequence[int]],
    output: Value,
    *,
    threads: int,
    native: bool = True,
) -> Any:
    """A session of what one output of a graph needs.

    Args:
        g: The graph; its other nodes are dropped.
        inputs: Their shapes, by name; all float32.
        output: What it gives.
        threads: Cores to use.
        native: With our own kernels.
    """
    return opened(model_of(g, inputs, output), threads=threads, native=native)


def model_of(g: Graph, inputs: Mapping[Value, Sequence[int]], output: Value) -> onnx.ModelProto:
    """The model that `session_of` opens."""
    g.prune([output])
    graph = helper.make_graph(
        g.nodes,
        "alone",
        [helper.make_tensor_value_info(n, 1, list(shape)) for n, shape in inputs.items()],
        [onnx.ValueInfoProto(name=output)],
        [numpy_helper.from_array(array, name) for name, array in g.initializers.items()],
    )
    domains = ("", OPS[0].domain, DOMAIN)
    opsets = [helper.make_opsetid(d, 1 if d else OPSET) for d in domains]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def opened(model: onnx.ModelProto, *, threads: int, native: bool = True) -> Any:
    """A session whose threads do not turn while others run."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if native:
        options.register_custom_ops_library(str(library.find()))
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


class Row(Protocol):
    """What a script times; prints as one line."""

    def measure(self, threads: int, runs: int) -> str: ...


def print_table(doc: str, rows: Callable[[int], Sequence[Row]], statistic: str) -> None:
    """A script's whole command line.

    Args:
        doc: The script's; its first line is the help.
        rows: What to time, for a side of the image in pixels.
        statistic: Of the runs, for the heading.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=9)
    given = parser.parse_args()
    found = library.find()
    if found is None:
        parser.exit(1, f"{library.HINT}\n")
    print(
        f"ONNX Runtime {onnxruntime.__version__}, {given.threads} threads, "
        f"{library.instruction_set(found)}; milliseconds, {statistic} of {given.runs}"
    )
    for row in rows(given.size):
        print(row.measure(given.threads, given.runs), flush=True)


def bound(session: Any, inputs: Mapping[str, Array]) -> Callable[[], Any]:
    """One run whose inputs and output stay in ONNX Runtime's memory, as inside a network."""
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_cpu_input(name, array)
    binding.bind_output(session.get_outputs()[0].name)
    return functools.partial(session.run_with_iobinding, binding)


def turn(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Milliseconds of one call, the mean of as many as a turn has time for.

    The first is not counted: it pays for what another form left in the caches.
    """
    call()
    count, start = 0, clock()
    while (elapsed := 1e3 * (clock() - start)) < TURN_MS:
        call()
        count += 1
    return elapsed / count
