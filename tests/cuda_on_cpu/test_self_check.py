"""The emulator judges seeded bugs: what passes in it passes for a reason."""

import re
from pathlib import Path

import numpy as np
import pytest

from tests.cuda_on_cpu.build import Order, needs_compiler, output

pytestmark = needs_compiler

SOURCE = "tests/cuda_on_cpu/seeded_bugs.cu"
TEXT = (Path(__file__).parent / "seeded_bugs.cu").read_text()
NAMES = re.findall(r"^CASE\((\w+), \d\)$", TEXT, re.MULTILINE)

UNORDERED = "race|nobody has written"  # by the order of turns
TOO_EARLY = "before its cp.async was waited for"

SAYS = {
    "no_barrier": UNORDERED,
    "no_syncwarp": UNORDERED,
    "shuffle_is_no_fence": "race",
    "syncwarp_of_the_wrong_half": UNORDERED,
    "read_past_the_end": "out of bounds: read",
    "write_past_the_end": "out of bounds: write",
    "past_dynamic_shared": "out of bounds: write",
    "unwritten_shared": "read of shared byte .* nobody has written",
    "unwritten_dynamic_shared": "read of shared byte 0 is of what nobody has written",
    "unwritten_global": "read of global byte .* nobody has written",
    "barrier_in_a_branch": "passed by 16 of 64 threads",
    "two_barriers": "divergent barrier",
    "shuffle_in_a_branch": "deadlock",
    "shuffle_from_outside": "which takes no part",
    "misaligned": "misaligned: wants a multiple of 8",
    "two_threads_write": "race: write of global",
    "two_blocks_write": "race: write of global",
    "a_block_reads_what_another_writes": "race: (read|write) of global|nobody has written",
    "atomics_beside_a_write": "race",
    "overwrites_what_others_read": "race",
    "copy_without_wait": TOO_EARLY,
    "copy_waits_for_too_little": TOO_EARLY,
    "copy_without_barrier": f"{UNORDERED}|{TOO_EARLY}",
}


@pytest.fixture(scope="module")
def checked(kernels):
    return kernels(SOURCE, checked=True)


@pytest.mark.parametrize("order", Order, ids=lambda order: order.name.lower())
@pytest.mark.parametrize("name", NAMES)
def test_wrong_kernels_are_reported_and_right_ones_are_not(name, order, checked):
    found = checked.call(f"{name}_launch", output(64, "f"), np.ones(64, "f"), order=order)
    if name.startswith("right"):
        assert found == ""
    else:
        assert re.search(SAYS[name], found), found
        assert name in found  # it says where


def test_a_plain_build_still_finds_what_wrote_past_the_end(kernels):
    found = kernels(SOURCE, checked=False).call(
        "write_past_the_end_launch", output(64, "f"), np.ones(64, "f")
    )
    assert "past the end of a buffer of 256 bytes" in found


def test_leaving_out_a_barrier_is_a_bug(checked):
    line = TEXT[: TEXT.index("__syncthreads()")].count("\n") + 1
    arrays = output(64, "f"), np.ones(64, "f")
    checked.leave_out("seeded_bugs.cu", line)
    assert re.search(UNORDERED, checked.call("right_barrier_launch", *arrays))
    checked.leave_out("", 0)
    assert checked.call("right_barrier_launch", *arrays) == ""
