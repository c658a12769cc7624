"""What kernels may take of a multiprocessor, as nvcc compiles them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from m2f.bench import occupancy

NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="needs nvcc")

ARCHITECTURES = (75, 80, 90, 120)
"""The oldest, two of data centres and the newest; `bench/occupancy.py` prints all nine."""

BUDGETS = {
    # name -> registers of a thread, shared memory of a block (bytes), least occupancy.
    # Gathers wait for memory and want many warps; tensor cores want registers.
    r"tiled_kernel<int8_t": (72, 0, 0.4),
    r"tiled_kernel": (72, 0, 0.5),
    r"attend_mma_kernel": (128, 38000, 0.25),
    r"plain_kernel": (64, 0, 0.5),
    r"combine_kernel": (64, 0, 0.5),
    r"compete_kernel|classify_kernel|binarise_kernel": (64, 2100, 0.5),
    r"see_kernel|count_kernel": (40, 0, 1.0),
    r"columns_first_kernel|rows_first_kernel": (64, 1024, 0.5),
    r"nearest_four_kernel": (40, 0, 1.0),
}


@pytest.fixture(scope="module")
def kernels():
    return [
        kernel
        for source in occupancy.SOURCES
        for kernel in occupancy.compile_kernels(occupancy.PLUGINS / source, ARCHITECTURES)
    ]


@needs_nvcc
@pytest.mark.slow
def test_kernels_spill_nothing_and_stay_in_their_budgets(kernels):
    assert {kernel.architecture for kernel in kernels} == set(ARCHITECTURES)
    for kernel in kernels:
        assert (kernel.stack, kernel.spills) == (0, 0), kernel
        budget = next(b for name, b in BUDGETS.items() if re.search(name, kernel.name))
        registers, shared, least = budget
        assert kernel.registers <= registers, kernel
        assert kernel.shared <= shared, kernel
        assert kernel.occupancy >= least, (kernel, kernel.resident)


@needs_nvcc
def test_occupancy_is_what_the_toolkit_says(tmp_path):
    toolkit = Path(NVCC).resolve().parents[1] / "include"
    if not (toolkit / "cuda_occupancy.h").exists():
        toolkit = Path("/usr/local/cuda/include")
    if not (toolkit / "cuda_occupancy.h").exists():
        pytest.skip("needs the toolkit's cuda_occupancy.h")
    program = tmp_path / "occupancy"
    source = Path(__file__).parent / "occupancy.cc"
    subprocess.run(["g++", f"-I{toolkit}", str(source), "-o", str(program)], check=True)
    for architecture, limits in occupancy.ARCHITECTURES.items():
        for threads, registers, shared in (
            *((32, 16, 0), (64, 70, 0), (128, 40, 0), (256, 56, 0), (256, 128, 37920)),
            *((512, 44, 0), (1024, 64, 1000), (96, 33, 5000), (128, 255, 20000)),
        ):
            kernel = occupancy.Kernel("k", architecture, registers, 0, 0, shared, threads)
            facts = (*divmod(architecture, 10), limits.warps * 32, limits.shared_bytes)
            command = [program, *facts, threads, registers, shared]
            said = subprocess.run(
                [str(word) for word in command], capture_output=True, text=True, check=True
            )
            assert kernel.resident[0] == int(said.stdout), (kernel, kernel.resident)
