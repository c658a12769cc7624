"""Where a network's time goes, part by part, and how near that is to what the machine can do.

ONNX Runtime's profiler times every node of the graph that it made of the file; the nodes are
told apart by the names of the file that survive its fusions (`m2f.bench.parts`).
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from m2f.bench.checks import Array
from m2f.bench.cost import Cost, CostReport
from m2f.bench.machine import Machine
from m2f.bench.parts import INPUT, KINDS, PARTS, kind_of, parts_of
from m2f.errors import BundleError
from m2f.runtime.backend_ort import avoided

WARM_UP = 1


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the graph that ONNX Runtime made of a file.

    Attributes:
        op: Its type, as ONNX Runtime calls it.
        part: Of the network.
        ms: Median of the runs.
    """

    op: str
    part: str
    ms: float


@dataclass(frozen=True, slots=True)
class Op:
    """All nodes of one type."""

    name: str
    nodes: int
    ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One part, or one kind of work.

    Attributes:
        name: Of the part or kind.
        ms: Time, median of the runs.
        cost: What the file asks for there.
        peak: Share of the machine's matrix-product peak, 0 to 1; None without products.
        bandwidth: Share of its memory bandwidth. Bytes are counted node by node, so what is
            fused or stays in caches may exceed 1.
    """

    name: str
    ms: float
    cost: Cost
    peak: float | None
    bandwidth: float

    @property
    def roofline(self) -> float:
        """The nearer of the two."""
        return max(self.peak or 0.0, self.bandwidth)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One network, three times: by part, by kind of work, and by op.

    Attributes:
        ops: The slowest first.
    """

    parts: tuple[Row, ...]
    kinds: tuple[Row, ...]
    ops: tuple[Op, ...]
    total: Row


def profile(
    nodes: Sequence[Node], costs: CostReport, machine: Machine, precision: str
) -> Profile:
    """Puts times, costs and peaks together.

    Args:
        nodes: All that were timed.
        costs: The same file's, at the same size.
        machine: Its peaks.
        precision: Whose peak products are measured by.
    """
    peak = machine.gflops(precision)

    def row(name: str, ms: float, cost: Cost) -> Row:
        seconds = max(ms, 1e-6) / 1e3
        products = 2 * cost.macs / 1e9 / seconds
        return Row(
            name=name,
            ms=ms,
            cost=cost,
            peak=products / peak if peak and cost.macs else None,
            bandwidth=cost.bytes / 1e9 / seconds / machine.bandwidth,
        )

    parts = {p: sum(n.ms for n in nodes if n.part == p) for p in PARTS}
    kinds = {k: sum(n.ms for n in nodes if kind_of(n.op) == k) for k in KINDS}
    ops = {name: [n.ms for n in nodes if n.op == name] for name in {n.op for n in nodes}}
    by_time = sorted(ops.items(), key=lambda item: -sum(item[1]))
    return Profile(
        parts=tuple(row(p, ms, costs.part(p)) for p, ms in parts.items() if ms),
        kinds=tuple(row(k, ms, costs.kind(k)) for k, ms in kinds.items() if ms),
        ops=tuple(Op(name, len(times), sum(times)) for name, times in by_time),
        total=row("all", sum(n.ms for n in nodes), costs.total),
    )


def times_of_nodes(
    model: Path,
    feeds: Mapping[str, Array],
    *,
    threads: int,
    runs: int,
    library: Path | None,
    target: str | None = None,
) -> list[Node]:
    """Times every node in ONNX Runtime on the CPU.

    Args:
        model: The ONNX file.
        feeds: Its inputs.
        threads: Cores to use.
        runs: How many are counted; one more comes before them.
        library: Of the custom ops' native kernels.
        target: Whose kernels a quantised file is for.

    Returns:
        Every node that ran.
    """
    import onnx
    import onnxruntime as ort  # type: ignore[import-untyped]

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        options.optimized_model_filepath = str(folder / "optimized.onnx")
        # Weights beside the graph, which has to stay below protobuf's 2 GiB.
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", "weights"
        )
        if library is not None:
            options.register_custom_ops_library(str(library))
        try:
            session = ort.InferenceSession(
                str(model),
                options,
                ["CPUExecutionProvider"],
                disabled_optimizers=avoided(target),  # as the runtime's own session
            )
            for _ in range(WARM_UP + runs):
                session.run(None, dict(feeds))
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        except Exception as problem:  # its exceptions share no other base
            raise BundleError(f"{model}: cannot be profiled: {problem}") from problem
        graph = onnx.load(str(folder / "optimized.onnx"), load_external_data=False).graph
    part_of = dict(zip((n.name for n in graph.node), parts_of(graph.node), strict=True))
    taken: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            key = (event["name"].removesuffix("_kernel_time"), event["args"]["op_name"])
            taken.setdefault(key, []).append(event["dur"] / 1e3)
    return [
        Node(op, part_of.get(node, INPUT), statistics.median(times[WARM_UP:]))
        for (node, op), times in taken.items()
    ]
