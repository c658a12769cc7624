"""Results of single images on disk, so that an interrupted run can go on.

A folder holds settings.json (what was compared with what), images.jsonl (a line per image,
appended as it is done) and at the end report.json. A line is written by one call and ends
with a newline; one that was cut off by a crash is dropped when the run goes on.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from m2f.bundle import disk_errors
from m2f.errors import DataError, UsageError
from m2f.evaluate.metric import Record
from m2f.files import write_json

SETTINGS = "settings.json"
LINES = "images.jsonl"
REPORT = "report.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Where to keep results.

    Attributes:
        folder: Made if it does not exist.
        mode: What to do if it holds results. "new": refuse. "resume": go on if they are of
            the same model, data and settings, else refuse. "replace": start again.
        identity: Stands for a predictor that is not a bundle: whatever changes when its
            answers change.
    """

    folder: Path
    mode: Literal["new", "resume", "replace"] = "new"
    identity: str | None = None


class Store:
    """The lines of one folder, held by one process; usable as a context manager."""

    def __init__(self, keep: Keep, settings: Mapping[str, Any]) -> None:
        """Opens the folder and reads what is there.

        Args:
            keep: Which folder, and what to do with results in it.
            settings: JSON values; two runs with equal settings may be put together.

        Raises:
            UsageError: There are results that may not be touched, or are of other settings,
                or another process is at work on them.
            DataError: A line that is not the last one is damaged.
            DiskError: The folder cannot be written to.
        """
        self._folder, self._lines = keep.folder, keep.folder / LINES
        self.records: dict[str, Record] = {}
        with disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self._lines, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            self._lock()
            self._begin(keep.mode, settings)
        except BaseException:
            self.close()
            raise

    def append(self, key: str, record: Record) -> None:
        """Adds an image's record.

        Raises:
            DiskError: It cannot be written; nothing of it stays.
        """
        line = (json.dumps({"image": key, **record}, ensure_ascii=False) + "\n").encode()
        with disk_errors(self._lines):
            end = os.lseek(self._handle, 0, os.SEEK_END)
            try:
                written = os.write(self._handle, line)
                if written < len(line):  # a disk that has just become full
                    os.write(self._handle, line[written:])
            except OSError:
                os.ftruncate(self._handle, end)
                raise
        self.records[key] = record

    def finish(self, report: Mapping[str, Any]) -> None:
        """Writes the report beside the lines.

        Raises:
            DiskError: It cannot be written.
        """
        write_json(self._folder / REPORT, report)

    def close(self) -> None:
        """Lets go of the folder."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            raise UsageError(
                f"{self._folder}: another evaluation is writing its results there; wait for "
                "it or name another folder"
            ) from problem

    def _begin(self, mode: str, settings: Mapping[str, Any]) -> None:
        if os.fstat(self._handle).st_size and mode == "new":
            raise UsageError(
                f"{self._folder}: holds results already; pass --resume to go on with them, "
                "--overwrite to replace them, or name another folder"
            )
        plain = json.loads(json.dumps(settings))
        if mode == "resume" and os.fstat(self._handle).st_size:
            self._check(plain)
            self._read()
            return
        with disk_errors(self._lines):
            os.ftruncate(self._handle, 0)
            (self._folder / REPORT).unlink(missing_ok=True)
        write_json(self._folder / SETTINGS, plain)

    def _check(self, settings: dict[str, Any]) -> None:
        file = self._folder / SETTINGS
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as problem:
            raise UsageError(
                f"{file}: cannot be read ({problem}), so nobody knows what its results are "
                "of; pass --overwrite to start again"
            ) from problem
        if before == settings:
            return
        known = before if isinstance(before, dict) else {}
        names = sorted(known.keys() | settings.keys())
        different = [
            f"{name} was {_short(known.get(name))}, is {_short(settings.get(name))}"
            for name in names
            if known.get(name) != settings.get(name)
        ]
        raise UsageError(
            f"{self._folder}: its results cannot be gone on with: {'; '.join(different)}; "
            "pass --overwrite to start again, or name another folder"
        )

    def _read(self) -> None:
        content = self._lines.read_bytes()
        whole = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:whole].splitlines(), 1):
            try:
                record = json.loads(line)
                self.records[record.pop("image")] = record
            except (ValueError, KeyError, AttributeError, TypeError) as problem:
                raise DataError(
                    f"{self._lines}: line {number} is damaged; delete it to have its image "
                    "done again"
                ) from problem
        with disk_errors(self._lines):
            os.ftruncate(self._handle, whole)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
