"""The worker's process, seen from the one that waits for it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import m2f
from m2f import errors
from m2f.config import json_from_config
from m2f.engine import Target
from m2f.errors import BuildError
from m2f.export.engines.worker import Request

Progress = Callable[[str, int, int], None]
"""Takes what is being done, how many steps of it are done, and how many there are."""

_LAST_WORDS = 300
"""Characters kept of what a process said before it ended."""

_IMPORTED_FROM = (str(Path(m2f.__file__).parents[1]), *filter(None, sys.path))
"""For the other process: it is to run the same m2f, installed or not."""


class Worker:
    """The process that builds; ended with the block, however far it is."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.version = ""
        self.plugins: str | None = None
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115

    def __enter__(self) -> Worker:
        command = [sys.executable, "-m", "m2f.export.engines.worker", self.target]
        # A session of its own: Ctrl-C reaches only us, and we end it.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(_IMPORTED_FROM)},
        )
        try:
            hello = self._next()
            self.version, self.plugins = hello["hello"], hello["plugins"]
        except BaseException:
            self.__exit__()
            raise
        return self

    def build(self, request: Request, progress: Progress) -> dict[str, Any]:
        """Has one engine built; gives its layers and what TensorRT said."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(json_from_config(request)) + "\n")
        self._process.stdin.flush()
        layers: list[Any] = []
        while True:
            said = self._next()
            if "phase" in said:
                progress(said["phase"], said["step"], said["steps"])
            elif "layers" in said:
                layers = said["layers"]
            elif "done" in said:
                return {"layers": layers, "log": said["log"]}

    def _next(self) -> dict[str, Any]:
        """Its next message; what went wrong there is raised here."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BuildError(f"TensorRT ended its process{self._last_words()}")
        said: dict[str, Any] = json.loads(line)
        if "error" not in said:
            return said
        if said["kind"] == "OSError":
            raise OSError(said["errno"], said["error"])
        if said["kind"] == "MemoryError":
            raise MemoryError(said["error"])
        raise getattr(errors, said["kind"])(said["error"])

    def _last_words(self) -> str:
        code = self._process.wait()
        self._stderr.seek(0)
        lines = [line.strip() for line in self._stderr.read().splitlines() if line.strip()]
        how = f" by signal {-code}" if code < 0 else f" with status {code}"
        return how + (f", saying: {lines[-1][:_LAST_WORDS]}" if lines else " without a word")

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._process.wait()
        self._stderr.close()
