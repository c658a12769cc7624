"""What is to be timed, opened: bundles, or a checkpoint's export beside its reference."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from m2f.bench.checks import Array, Check, Judge, Outputs, checked
from m2f.bench.contestants import Backed, Contestant
from m2f.bench.report import Role
from m2f.bundle import Bundle
from m2f.errors import UsageError
from m2f.export.algebra import ALL, Algebra
from m2f.export.exporter import Options, export
from m2f.models.checkpoint import Checkpoint, read
from m2f.models.presets import preset as preset_of
from m2f.plugins import library
from m2f.runtime.backend_ort import OrtBackend
from m2f.runtime.backends import target_of
from m2f.runtime.session import Session, load

SEED = 0
"""Of weights that no training has seen."""


@dataclass(frozen=True)
class Entry:
    """A contestant and what the report says of it.

    Attributes:
        bundle: Whose network it runs, if it is one of ours.
        session: That runs it, from files to segments.
        native: The library of its native kernels, if it uses one.
    """

    role: Role
    contestant: Contestant
    bundle: Bundle | None = None
    session: Session | None = None
    native: Path | None = None

    @property
    def name(self) -> str:
        """For people."""
        return self.contestant.name


def checkpoint_of(
    source: str | Path | None, preset: str | None
) -> tuple[Checkpoint | None, str | None]:
    """The checkpoint whose networks are compared, and what to call it.

    Args:
        source: See `m2f.models.checkpoint.read`.
        preset: The published model that it is; alone, that model with random weights.
    """
    if source is not None:
        return read(source, preset=preset), Path(source).name
    if preset is None:
        return None, None
    return _untrained(preset), f"{preset}, random weights"


def _untrained(name: str) -> Checkpoint:
    """A published model's shape, with the weights that PyTorch initialises it with."""
    import torch

    from m2f.models.mask2former import Mask2Former

    known = preset_of(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        state = Mask2Former(known.model).state_dict()
    return Checkpoint(
        path=name,
        format="official",
        sha256="",
        weights={key: value.numpy() for key, value in state.items()},
        config=known.model,
        metadata=known.metadata,
        preset=name,
        notes=(),
    )


def bundle_entries(
    bundles: Sequence[Bundle],
    *,
    threads: int,
    stack: ExitStack,
    backend: str | None = None,
    device: str | None = None,
) -> list[Entry]:
    """Sessions of bundles.

    Args:
        bundles: All of one model.
        threads: Cores to use.
        stack: Closes them.
        backend: See `m2f.runtime.session.load`, as of ``device``.
        device: What the networks run on.
    """
    found = []
    for bundle in bundles:
        session = load(bundle, threads=threads, verify=False, backend=backend, device=device)
        found.append(_entry(bundle, stack.enter_context(session), bundle.path.name))
    return found


def exported_entries(
    checkpoint: Checkpoint,
    size: tuple[int, int],
    *,
    threads: int,
    steps: bool,
    stack: ExitStack,
) -> list[Entry]:
    """A checkpoint's network as `m2f export` writes it for one size.

    Args:
        checkpoint: The weights.
        size: Height and width, pixels.
        threads: Cores to use.
        steps: Also without fused nodes, without native kernels, and without the exact
            rewrites.
        stack: Closes the sessions and removes the files.
    """
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="m2f-bench-")))
    plugin = Options(size=size, check=False)
    variants = {"m2f": plugin}
    if steps:
        unfused = dataclasses.replace(plugin, fused=False)
        portable = dataclasses.replace(plugin, form="portable")
        paper = dataclasses.replace(portable, algebra=Algebra.none())
        rewritten = dataclasses.replace(portable, algebra=ALL)
        variants |= {
            "m2f, unfused": unfused,
            "m2f, portable": rewritten,
            "m2f, as the paper writes it": paper,
        }
    entries = []
    for number, (name, options) in enumerate(variants.items()):
        bundle = export(checkpoint, folder / f"{number}.m2f", options=options)
        session = stack.enter_context(load(bundle, threads=threads, verify=False))
        entries.append(_entry(bundle, session, name))
    return entries


def reference_entry(checkpoint: Checkpoint, *, threads: int) -> Entry:
    """Our model in PyTorch."""
    from m2f.runtime.backend_torch import TorchBackend

    backend = TorchBackend.from_checkpoint(checkpoint, threads=threads)
    return Entry("reference", Backed(backend, "PyTorch, our reference", "fp32"))


def proof_at_export(entry: Entry, image: Array, *, threads: int) -> Judge:
    """Judges a bundle without its checkpoint.

    Its manifest says how far the file was from PyTorch when it was made; what remains is to
    show that the native kernels do here what the file's own ONNX bodies say. The larger of
    both errors counts.
    """
    bundle = entry.bundle
    assert bundle is not None
    parity = bundle.manifest.parity
    assert parity is not None
    target = target_of(bundle)
    with OrtBackend(bundle.model_path, threads=threads, native=False, target=target) as bodies:
        plain = bodies.run(image, np.array([image.shape[1:3]], np.int64))

    def judge(outputs: Outputs) -> Check:
        here = checked(outputs, plain, against="", precision=bundle.manifest.precision)
        return dataclasses.replace(
            here,
            against="PyTorch at export, its ONNX bodies here",
            class_error=max(here.class_error, parity.class_error),
            mask_error=max(here.mask_error, parity.mask_error),
        )

    return judge


def _entry(bundle: Bundle, session: Session, name: str) -> Entry:
    manifest = bundle.manifest
    if session.profile.batch.min > 1:
        raise UsageError(
            f"{bundle.path}: takes at least {session.profile.batch.min} images at once, and "
            "one is timed; export it with --batch 1"
        )
    contestant = Backed(session.backend, name, manifest.precision)
    native = library.find() if manifest.form == "plugin" else None
    return Entry("bundle", contestant, bundle, session, native)
