"""What segmenting one image costs in memory, measured in a process of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

from m2f.evaluate.comparison.candidates import Candidate

_PROGRAM = """
import json, sys
from pathlib import Path
from m2f.runtime.session import load
bundle, image, backend, threads = json.loads(sys.argv[1])
with load(bundle, backend=backend, threads=threads, verify=False) as session:
    session(image)
status = Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in status if line.startswith("VmHWM:")))
"""
# Not getrusage: its figure begins with what the parent held when it forked.


def peak_memory(row: Candidate, image: Path, threads: int | None) -> int | None:
    """Largest resident memory of a fresh process that does nothing but segment one image.

    Returns:
        Bytes; None where there is no /proc, or the process failed.
    """
    what = json.dumps([str(row.bundle.path), str(image), row.backend, threads])
    command = [sys.executable, "-c", _PROGRAM, what]
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(found.stdout.split()[-1]) * 1024
    return None
