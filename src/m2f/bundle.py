"""The bundle: a folder that holds an exported model and says how it was made.

    model.onnx          the network
    model.cpu.onnx      the same for our CPU kernels, which do several of its nodes at once
    model.onnx.data     the weights of both; a network alone may hold its own
    manifest.json       everything else a runtime needs, and a hash of every file

A bundle appears whole or not at all: it is written beside its place under a temporary name
and renamed. Opening one checks the manifest's version and every hash.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from m2f.config import Metadata, ModelConfig, config_from_json, json_from_config
from m2f.errors import BundleError, DiskError, M2FError, MissingFile, UsageError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
MODEL = "model.onnx"
CPU_MODEL = "model.cpu.onnx"
WEIGHTS = "model.onnx.data"

Form = Literal["plugin", "portable"]
Base = Literal["fp32", "fp16", "bf16"]
Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Sizes an axis may have, both ends included; fixed where they are equal."""

    min: int
    max: int

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.max:
            raise UsageError(f"a size range must rise from at least 1, got {self}")

    @property
    def is_fixed(self) -> bool:
        """Whether only one size is allowed."""
        return self.min == self.max

    def __contains__(self, size: int) -> bool:
        return self.min <= size <= self.max

    def __str__(self) -> str:
        return str(self.min) if self.is_fixed else f"{self.min}..{self.max}"


@dataclass(frozen=True, slots=True, kw_only=True)
class InputProfile:
    """The sizes of `image` [N, H, W, 3] that an exported network takes."""

    batch: Range
    height: Range
    width: Range

    @property
    def is_fixed(self) -> bool:
        """Whether there is only one height and width (the batch may still vary)."""
        return self.height.is_fixed and self.width.is_fixed

    def __str__(self) -> str:
        return f"[{self.batch}, {self.height}, {self.width}, 3]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the weights came from.

    Attributes:
        name: File or folder name, or hub id; never a path of the machine.
        format: "official", "hf" or "mmdet".
        sha256: Of the weight file.
        preset: The published model it is, where that was recognised.
    """

    name: str
    format: str
    sha256: str
    preset: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How far the exported file's outputs were from PyTorch's when it was made.

    Attributes:
        size: N, H, W of the image it was checked on.
        class_error: Relative L2 of the class logits.
        mask_error: Relative L2 of the mask logits.
        mask_pixels: Share of mask pixels whose sign differs.
        tipped: Attention-mask entries that rounding decided differently.
        limit: Largest relative L2 accepted.
    """

    size: tuple[int, int, int]
    class_error: float
    mask_error: float
    mask_pixels: float
    tipped: int
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """How a network's 8-bit numbers were chosen.

    Attributes:
        base: Type of what is not quantised.
        target: Whose fusions the file is made for: "tensorrt" or "onnxruntime".
        method: How ranges were chosen.
        images: How many they were taken from.
        calibration: SHA-256 of what the ranges were computed from.
        layers: How many layers are quantised.
        kept: Layers that could be and are not.
    """

    base: Base
    target: Literal["tensorrt", "onnxruntime"]
    method: str
    images: int
    calibration: str
    layers: int
    kept: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """A custom op the file uses: its domain, name and version."""

    domain: str
    name: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of the bundle."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A program that took part in making the bundle."""

    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything about a bundle that is not in its ONNX file.

    Attributes:
        format_version: Layout of the bundle and meaning of these fields.
        name: What to call the model.
        created: UTC, ISO 8601.
        form: "plugin" (nodes of the `m2f` domain) or "portable" (standard ONNX only).
        precision: Type of most of the network's arithmetic.
        wide: Layers that stay in float32 where precision is half: their values would overflow.
        quantization: How 8-bit numbers were chosen; None without them.
        opset: ONNX opset of the default domain.
        algebra: Exact rewrites made at export; see `m2f.export.algebra`.
        ops: Custom ops used, with versions; empty for the portable form.
        parity: The check made at export; None where it was skipped.
        files: Every other file, with its hash.
    """

    format_version: int = FORMAT_VERSION
    name: str
    created: str
    source: Source
    model: ModelConfig
    metadata: Metadata
    profile: InputProfile
    form: Form
    precision: Precision = "fp32"
    wide: tuple[str, ...] = ()
    quantization: Quantization | None = None
    opset: int
    algebra: tuple[str, ...] = ()
    ops: tuple[Op, ...] = ()
    parity: Parity | None = None
    tools: tuple[Tool, ...] = ()
    files: tuple[File, ...] = ()


KNOWN_OPS: Mapping[str, int] = {"MSDeformAttn": 1, "MaskedAttention": 1}
"""Newest version of each custom op that this program understands."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle."""

    path: Path
    manifest: Manifest

    @property
    def model_path(self) -> Path:
        """The ONNX file."""
        return self.path / MODEL

    @property
    def cpu_path(self) -> Path | None:
        """The ONNX file for our CPU kernels, where there is one."""
        has_one = any(file.name == CPU_MODEL for file in self.manifest.files)
        return self.path / CPU_MODEL if has_one else None

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> Bundle:
        """Reads and checks a bundle.

        Args:
            path: Its folder.
            verify: Compare every file's hash with the manifest.

        Raises:
            MissingFile: There is no such folder, or it holds no manifest.
            BundleError: The manifest is not one, is of another version, names ops that are
                not known, or does not agree with the files.
        """
        path = Path(path)
        if not path.exists():
            raise MissingFile(f"{path}: no such bundle; make one with `m2f export`")
        file = path / MANIFEST
        if not file.is_file():
            raise MissingFile(f"{path}: not a bundle, it has no {MANIFEST}; see `m2f export`")
        manifest = _read_manifest(file)
        for op in manifest.ops:
            known = KNOWN_OPS.get(op.name, 0) if op.domain == "m2f" else 0
            if not 1 <= op.version <= known:
                raise BundleError(
                    f"{path}: uses op {op.domain}::{op.name} version {op.version}, this "
                    f"program knows {known or 'none'}; update m2f or export again"
                )
        for entry in manifest.files:
            _check_file(path, entry, verify=verify)
        if MODEL not in {entry.name for entry in manifest.files}:
            raise BundleError(f"{path}: the manifest lists no {MODEL}; export again")
        return cls(path, manifest)


@contextlib.contextmanager
def writing(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Gives a folder to fill, which becomes ``path`` if nothing goes wrong.

    Args:
        path: Where the bundle is to be.
        overwrite: Replace an existing bundle; anything else there is never touched.

    Yields:
        An empty folder beside ``path``, removed again on any error or interruption.

    Raises:
        UsageError: Something is at ``path`` that may not be replaced.
        DiskError: The place cannot be written to, or the disk is full.
    """
    path = Path(path)
    check_place(path, overwrite=overwrite)
    # Named before it is made, so that no interruption can come between making and minding it.
    work = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            work.mkdir()
            yield work
            _move(work, path)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def check_place(path: Path, *, overwrite: bool) -> None:
    """Refuses a place for a bundle where something is that may not be replaced.

    Raises:
        UsageError: There is.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        if not (path / MANIFEST).is_file():
            raise UsageError(f"{path}: exists and is not a bundle; choose another name")
        if not overwrite:
            raise UsageError(f"{path}: exists; pass --overwrite to replace this bundle")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Hashes every file of ``folder`` into the manifest and writes it there, last."""
    files = tuple(
        File(name=p.name, bytes=p.stat().st_size, sha256=sha256_of(p))
        for p in sorted(folder.iterdir())
        if p.name != MANIFEST
    )
    raw = json_from_config(manifest)
    raw["files"] = json_from_config(files)
    text = json.dumps(raw, indent=2, ensure_ascii=False) + "\n"
    temporary = folder / f".{MANIFEST}"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(folder / MANIFEST)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns the operating system's refusals while writing ``path`` into one sentence."""
    try:
        yield
    except M2FError:
        raise
    except OSError as problem:
        if problem.errno == errno.ENOSPC:
            free = shutil.disk_usage(_existing(path)).free >> 20
            raise DiskError(
                f"{path}: the disk is full ({free} MiB left); free some"
            ) from problem
        reason = os.strerror(problem.errno) if problem.errno else str(problem)
        raise DiskError(f"{path}: cannot be written: {reason}") from problem


def _move(work: Path, path: Path) -> None:
    """Puts a finished folder in its place; what was there goes only once it is safe."""
    if not path.exists():
        work.rename(path)
        return
    aside = work.with_name(f"{work.name}.old")
    path.rename(aside)
    try:
        work.rename(path)
    except BaseException:
        aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _read_manifest(file: Path) -> Manifest:
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as problem:
        raise BundleError(
            f"{file}: is not readable JSON ({problem}); export again"
        ) from problem
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{file}: bundle format {version}, this program reads {FORMAT_VERSION}; "
            "update m2f or export again"
        )
    try:
        return config_from_json(Manifest, raw, where="manifest")
    except UsageError as problem:
        raise BundleError(f"{file}: {problem}; export again") from problem


def _check_file(path: Path, entry: File, *, verify: bool) -> None:
    file = path / entry.name
    if Path(entry.name).name != entry.name:
        raise BundleError(f"{path}: the manifest names {entry.name!r}, outside the bundle")
    if not file.is_file():
        raise BundleError(f"{path}: {entry.name} is missing; copy it again or export again")
    size = file.stat().st_size
    if size != entry.bytes:
        raise BundleError(
            f"{path}: {entry.name} has {size} bytes, the manifest says {entry.bytes}; "
            "copy it again or export again"
        )
    if verify and (actual := sha256_of(file)) != entry.sha256:
        raise BundleError(
            f"{path}: {entry.name} was altered: its SHA-256 is {actual[:12]}..., the "
            f"manifest says {entry.sha256[:12]}...; copy it again or export again"
        )
