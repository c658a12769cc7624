"""Every node's time lands in its part, and shares are what they say."""

import numpy as np
import pytest

from m2f.bench import machine
from m2f.bench.cost import Cost, CostReport, cost_of_file
from m2f.bench.machine import Machine, Peak
from m2f.bench.parts import PARTS, kind_of
from m2f.bench.profiling import Node, Op, profile, times_of_nodes
from m2f.bundle import MODEL
from m2f.export.exporter import Options
from m2f.plugins import library
from tests.export.models import small
from tests.export.test_network import exported

HALF = Machine(
    cpu="made up",
    threads=1,
    peaks=(Peak(precision="fp32", gflops=100.0, library="made up"),),
    bandwidth=10.0,
)


@pytest.mark.parametrize("native", [True, False], ids=["kernels", "bodies"])
@pytest.mark.parametrize("name", ["basic_blocks", "odd_windows"])
def test_parts_of_what_a_runtime_made_of_a_file(name, native, tmp_path):
    if native and library.find() is None:
        pytest.skip(library.HINT)
    side = exported(small(name), tmp_path, Options(size=(64, 96)))
    image = {"image": np.zeros((1, 64, 96, 3), np.uint8)}
    nodes = times_of_nodes(
        side.path, image, threads=1, runs=1, library=library.find() if native else None
    )
    costs = cost_of_file(tmp_path / MODEL, (1, 64, 96))
    # Whatever has products in the file takes time where the file has them.
    busy = {cell for cell, cost in costs.cells.items() if cost.macs}
    if native:
        assert busy <= {(node.part, kind_of(node.op)) for node in nodes}
    else:
        assert {part for part, _ in busy} <= {node.part for node in nodes}
    found = profile(nodes, costs, HALF, "fp32")
    assert [row.name for row in found.parts] == [p for p in PARTS if p in costs.parts]
    assert sum(op.nodes for op in found.ops) == len(nodes)
    for rows in (found.parts, found.kinds, found.ops):
        assert sum(row.ms for row in rows) == pytest.approx(found.total.ms)


def test_shares_by_hand():
    """0.05 GMAC in 2 ms are 50 GFLOP/s of 100; 4 MB in 2 ms are 2 GB/s of 10."""
    costs = CostReport(
        size=(1, 8, 8),
        cells={
            ("backbone", "convolution"): Cost(50_000_000, 1_000_000, 3_000_000, 5),
            ("heads", "other"): Cost(0, 0, 20_000_000, 1),
        },
    )
    nodes = [Node("FusedConv", "backbone", 0.5), Node("FusedConv", "backbone", 1.5)]
    nodes += [Node("Relu", "heads", 2.0)]
    found = profile(nodes, costs, HALF, "fp32")
    assert (found.kinds[0].peak, found.kinds[0].bandwidth) == pytest.approx((0.5, 0.2))
    assert found.kinds[0].roofline == pytest.approx(0.5)
    assert (found.kinds[1].peak, found.kinds[1].bandwidth) == (None, pytest.approx(1.0))
    assert set(found.ops) == {Op("FusedConv", 2, 2.0), Op("Relu", 1, 2.0)}
    assert (found.total.ms, found.total.peak) == (4.0, pytest.approx(0.25))


def test_peaks_are_of_this_machine(monkeypatch):
    monkeypatch.setattr(machine, "SIDE", 64)
    monkeypatch.setattr(machine, "COPIED", 1 << 16)
    found = machine.measure(1)
    assert {"fp32", "int8", "bf16"} == {peak.precision for peak in found.peaks}
    assert all(peak.gflops > 0 for peak in found.peaks)
    assert found.bandwidth > 0
    assert found.gflops("fp16") == found.gflops("fp32")  # none of its own
    assert found.gflops("int8") != found.gflops("fp32")


def test_a_disturbed_measurement_does_not_count():
    low = Peak(precision="fp32", gflops=60.0, library="disturbed")
    other = Peak(precision="int8", gflops=70.0, library="made up")
    again = Machine(cpu="made up", threads=1, peaks=(low, other), bandwidth=12.0)
    for best in (HALF.best_with(again), again.best_with(HALF)):
        assert best.bandwidth == 12.0
        assert set(best.peaks) == {HALF.peaks[0], other}
