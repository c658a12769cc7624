"""What each CUDA kernel takes of a multiprocessor, and how full it can be, for every GPU.

    python bench/occupancy.py
    python bench/occupancy.py --architectures 89 120 --kernels tiled

Needs nvcc and no GPU: registers, spills and shared memory are what ptxas says of each kernel,
the rest are the limits of each architecture. A kernel that waits for memory wants many warps;
one that keeps tensor cores busy wants registers.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from m2f.errors import CheckFailed, MissingDependency

PLUGINS = Path(__file__).resolve().parents[1] / "plugins"
SOURCES = (
    "ops/ms_deform_attn/cuda.cu",
    "ops/masked_attention/cuda.cu",
    "images/cuda.cu",
)


@dataclass(frozen=True)
class Multiprocessor:
    """Limits of one architecture: the toolkit's cuda_occupancy.h, and NVIDIA's guide."""

    warps: int
    blocks: int
    shared_bytes: int
    shared_reserved: int = 1024  # of every block, bytes
    shared_step: int = 128  # bytes


ARCHITECTURES = {
    75: Multiprocessor(32, 16, 64 << 10, shared_reserved=0, shared_step=256),
    80: Multiprocessor(64, 32, 164 << 10),
    86: Multiprocessor(48, 16, 100 << 10),
    87: Multiprocessor(48, 16, 164 << 10),
    89: Multiprocessor(48, 24, 100 << 10),
    90: Multiprocessor(64, 32, 228 << 10),
    100: Multiprocessor(64, 32, 228 << 10),
    110: Multiprocessor(48, 24, 228 << 10),
    120: Multiprocessor(48, 24, 100 << 10),
}
REGISTERS = 65536  # of a multiprocessor, in four quarters of their own
REGISTER_STEP = 256  # of a warp


@dataclass(frozen=True)
class Kernel:
    """One kernel as compiled for one architecture; memory in bytes."""

    name: str
    architecture: int
    registers: int
    stack: int
    spills: int
    shared: int
    threads: int

    @property
    def resident(self) -> tuple[int, str]:
        """Blocks on a multiprocessor at once, and what there are not more of."""
        limits = ARCHITECTURES[self.architecture]
        warps = -(-self.threads // 32)
        step = limits.shared_step
        shared = -(-(self.shared + limits.shared_reserved) // step) * step
        registers = -(-self.registers * 32 // REGISTER_STEP) * REGISTER_STEP
        blocks = {
            "warps": limits.warps // warps,
            "blocks": limits.blocks,
            "registers": REGISTERS // 4 // registers * 4 // warps,
            "shared memory": limits.shared_bytes // shared if shared else limits.blocks,
        }
        scarce = min(blocks, key=blocks.__getitem__)
        return blocks[scarce], scarce

    @property
    def occupancy(self) -> float:
        """Share of the warps a multiprocessor can hold, 0..1."""
        warps = self.resident[0] * -(-self.threads // 32)
        return warps / ARCHITECTURES[self.architecture].warps


def compile_kernels(source: Path, architectures: Sequence[int]) -> list[Kernel]:
    """Compiles a CUDA source, and reads what its kernels take.

    Raises:
        MissingDependency: There is no nvcc.
        CheckFailed: The source does not compile, or with warnings.
    """
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if nvcc is None:
        raise MissingDependency(
            "nvcc is not found: install the CUDA toolkit, or add it to PATH"
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [nvcc, "-std=c++17", "-O3", f"-I{PLUGINS}", "-Werror", "all-warnings"]
        for sm in architectures:
            command += ["-gencode", f"arch=compute_{sm},code=sm_{sm}"]
        command += ["-Xptxas", "-v", "--keep", "--keep-dir", folder, "-c", str(source)]
        command += ["-o", str(Path(folder) / "object.o")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CheckFailed(f"{source} does not compile:\n{done.stderr}")
        kept = sorted(Path(folder).glob("*.ptx"))
        threads = dict(pair for path in kept for pair in _threads(path.read_text()))
    return sorted(_kernels(done.stderr, threads), key=lambda k: (k.name, k.architecture))


def _threads(ptx: str) -> Iterator[tuple[str, int]]:
    """The largest block of each kernel, by its mangled name."""
    entry = re.compile(r"\.entry (\w+)\(.*?\)\s*\.maxntid (\d+)", re.DOTALL)
    yield from ((found[1], int(found[2])) for found in entry.finditer(ptx))


def _kernels(said: str, threads: dict[str, int]) -> Iterator[Kernel]:
    pattern = re.compile(
        r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<architecture>\d+)'.*?"
        r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
        r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
        re.DOTALL,
    )
    for found in pattern.finditer(said):
        shared = re.search(r"(\d+) bytes smem", found["rest"])
        yield Kernel(
            name=_readable(found["name"]),
            architecture=int(found["architecture"]),
            registers=int(found["registers"]),
            stack=int(found["stack"]),
            spills=int(found["stores"]) + int(found["loads"]),
            shared=int(shared[1]) if shared else 0,
            threads=threads[found["name"]],
        )


def _readable(mangled: str) -> str:
    """`tiled_kernel<Half, Half, 8>`, without namespaces and arguments."""
    if shutil.which("c++filt") is None:
        return mangled
    name = subprocess.run(["c++filt", mangled], capture_output=True, text=True, check=True)
    plain = re.sub(r"^void |\(.*$|\b[a-z]\w*::", "", name.stdout)
    return plain.strip().replace("signed char", "int8_t").replace("__nv_bfloat16", "BFloat16")


def main() -> None:
    """Parses the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--architectures", type=int, nargs="+", choices=ARCHITECTURES, default=[*ARCHITECTURES]
    )
    parser.add_argument("--kernels", default="", help="only those whose names contain this")
    given = parser.parse_args()
    head = ("kernel", "sm", "threads", "registers", "spills", "shared", "blocks", "occupancy")
    print("{:44} {:>4} {:>8} {:>10} {:>7} {:>7} {:>7} {:>10}  limited by".format(*head))
    for source in SOURCES:
        for kernel in compile_kernels(PLUGINS / source, given.architectures):
            if given.kernels not in kernel.name:
                continue
            blocks, scarce = kernel.resident
            print(
                f"{kernel.name:44} {kernel.architecture:4} {kernel.threads:8} "
                f"{kernel.registers:10} {kernel.spills:7} {kernel.shared:7} {blocks:7} "
                f"{kernel.occupancy:10.0%}  {scarce}",
                flush=True,
            )


if __name__ == "__main__":
    main()
