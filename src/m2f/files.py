"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from m2f.bundle import disk_errors


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Gives a stream whose content becomes ``path`` if nothing goes wrong.

    Written beside its place and renamed, so that nobody meets half a file; the folder is
    made if it does not exist.

    Raises:
        DiskError: The place cannot be written to, or the disk is full.
    """
    # Named before it is made, so that no interruption can come between making and minding it.
    work = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with work.open("xb") as stream:
                yield stream
            work.replace(path)
    finally:
        with contextlib.suppress(OSError):
            work.unlink()


def write_json(path: Path, value: Any) -> None:
    """Writes ``value`` as indented JSON.

    Raises:
        DiskError: The place cannot be written to, or the disk is full.
    """
    with replacing(path) as stream:
        stream.write((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Gives the name of a folder to be made, which becomes ``path`` if nothing goes wrong.

    Args:
        path: Must not exist yet, or be an empty folder.

    Raises:
        DiskError: The place cannot be written to.
    """
    path = path.resolve()
    work = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        yield work
        with disk_errors(path):
            work.rename(path)  # replaces an empty folder
    finally:
        shutil.rmtree(work, ignore_errors=True)
