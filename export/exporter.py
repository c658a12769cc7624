"""From a checkpoint to a bundle, checked against PyTorch on the spot."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import m2f
from m2f.bundle import (
    CPU_MODEL,
    MODEL,
    Bundle,
    Form,
    InputProfile,
    Manifest,
    Op,
    Parity,
    Range,
    Source,
    Tool,
    write_manifest,
    writing,
)
from m2f.config import Preprocess, Task
from m2f.errors import CheckFailed, UsageError
from m2f.export.algebra import ALL, Algebra
from m2f.export.fused import fuse
from m2f.export.graph import OPSET, Array
from m2f.export.network import onnx_from_weights
from m2f.export.onnx_file import save
from m2f.plugins import OPS, library

if TYPE_CHECKING:
    from m2f.models.checkpoint import Checkpoint

Size = tuple[int, int]
Progress = Callable[[str], None]

CHECK_SIZE = (256, 320)
"""Height and width, pixels, at which a network of any size is compared with PyTorch."""


ONE = Range(min=1, max=1)
"""A batch of one image."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to export.

    Attributes:
        form: "plugin": nodes of the `m2f` domain, for our kernels; "portable": standard ONNX
            only.
        size: Fixed height and width, pixels.
        min_size: Least height and width; with ``max_size``, instead of ``size``.
        max_size: Largest height and width. None of the three: whatever the model's own
            preprocessing can ask for.
        batch: Images per run.
        check: Compare the file with PyTorch before keeping it.
        algebra: Which exact rewrites to make.
        fused: Also write the network for our CPU kernels. Only with all rewrites, and in the
            plugin form.
        external_data: Keep the weights in a file of their own whatever their size.
        overwrite: Replace an existing bundle.
    """

    form: Form = "plugin"
    size: Size | None = None
    min_size: Size | None = None
    max_size: Size | None = None
    batch: Range = ONE
    check: bool = True
    algebra: Algebra = ALL
    fused: bool = True
    external_data: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.size is not None and (self.min_size or self.max_size):
            raise UsageError(
                "a size is either fixed (--size) or a range (--min, --max), not both"
            )

    @property
    def is_fused(self) -> bool:
        """Whether there is to be a network for our CPU kernels."""
        return self.fused and self.form == "plugin" and self.algebra == ALL

    def profile(self, preprocess: Preprocess) -> InputProfile:
        """The sizes the exported network is to take."""
        low, high = self.min_size or (1, 1), self.max_size or largest_size(preprocess)
        if self.size is not None:
            low = high = self.size
        elif preprocess.resize == "stretch" and not (self.min_size or self.max_size):
            low = high
        height, width = (Range(min=a, max=b) for a, b in zip(low, high, strict=True))
        return InputProfile(batch=self.batch, height=height, width=width)


def largest_size(preprocess: Preprocess) -> Size:
    """The largest image that the preprocessing gives the network, pixels."""
    if preprocess.resize == "stretch" and preprocess.size is not None:
        return preprocess.size
    side = -(-max(preprocess.max_size, preprocess.min_size) // 32) * 32
    return (side, side)


def export(
    source: str | Path | Checkpoint,
    bundle: str | Path,
    *,
    task: Task | None = None,
    preset: str | None = None,
    options: Options = Options(),
    progress: Progress = lambda _: None,
) -> Bundle:
    """Turns a checkpoint into a bundle.

    Args:
        source: A checkpoint file or folder, a hub id, or a checkpoint already read.
        bundle: Folder to make; appears whole or not at all.
        task: What the model was trained for, where the file does not say.
        preset: The published model it is, where shapes do not tell.
        options: How to export.
        progress: Called with what is being done, and with "note: ..." for what was assumed.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        CheckFailed: The exported network does not agree with PyTorch; nothing is kept.
        UsageError: Something is at ``bundle`` already, or options contradict each other.
        DiskError: The bundle cannot be written.
    """
    from m2f.models.checkpoint import Checkpoint, read

    with writing(bundle, overwrite=options.overwrite) as folder:
        if not isinstance(source, Checkpoint):
            progress(f"reading {source}")
            source = read(source, preset=preset, task=task)
            for note in source.notes:
                progress(f"note: {note}")
        preprocess = source.metadata.preprocess
        profile = options.profile(preprocess)
        progress("writing the network")
        model, arrays = onnx_from_weights(
            source.config,
            source.weights,
            preprocess=preprocess,
            profile=profile,
            form=options.form,
            algebra=options.algebra,
        )
        fused = fuse(model, arrays) if options.is_fused else None
        save(model, arrays, folder, external_data=options.external_data, fused=fused)
        del model, arrays, fused
        parity = None
        if options.check:
            progress("comparing it with PyTorch")
            parity = _parity(source, folder, profile)
        progress("hashing the files")
        write_manifest(folder, _manifest(source, Path(bundle).name, profile, options, parity))
    return Bundle.open(bundle, verify=False)


def check_image(profile: InputProfile) -> tuple[Array, Array]:
    """An image within the profile that uses all of a network: smooth and rough, and padded.

    Returns:
        uint8 [N, H, W, 3] and int64 [N, 2]; the valid part is a little smaller than the
        whole, so that padding counts.
    """
    sides = (profile.height, profile.width)
    h, w = (min(max(s, r.min), r.max) for s, r in zip(CHECK_SIZE, sides, strict=True))
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:h, :w]
    waves = [
        np.sin(x * fx + y * fy + phase)
        for fx, fy, phase in rng.uniform((0, 0, 0), (0.08, 0.08, 6.3), (12, 3))
    ]
    image = np.stack([sum(waves[c::3]) for c in range(3)], -1) * 25 + 128
    batch = np.stack([image + rng.normal(0, 12, image.shape) for _ in range(profile.batch.min)])
    valid = np.tile(np.maximum((h - h // 20, w - w // 20), 1), (profile.batch.min, 1))
    return batch.clip(0, 255).astype(np.uint8), valid.astype(np.int64)


def _parity(checkpoint: Checkpoint, folder: Path, profile: InputProfile) -> Parity:
    """Compares what was written with PyTorch: the file that is the furthest from it."""
    from m2f.export.bounds import LIMIT
    from m2f.export.parity import OnnxSide, TorchSide, compare
    from m2f.models.mask2former import model_from_weights

    image, image_size = check_image(profile)
    model = model_from_weights(checkpoint.config, checkpoint.weights)
    reference = TorchSide(model, checkpoint.metadata.preprocess)
    layers = checkpoint.config.transformer_decoder.layers
    native = library.find()
    names = [MODEL, CPU_MODEL] if native and (folder / CPU_MODEL).is_file() else [MODEL]
    differences = []
    for name in names:
        exported = OnnxSide(folder / name, layers, library=native)  # as a session would run it
        found = compare(reference, exported, image, image_size)
        if not found.is_within():
            raise CheckFailed(
                f"{name} differs from PyTorch: relative error of the classes "
                f"{found.class_error:.1e}, of the masks {found.mask_error:.1e}, where rounding "
                f"is below {LIMIT:.0e}; nothing was kept, please report this checkpoint"
            )
        differences.append(found)
    found = max(differences, key=lambda d: max(d.class_error, d.mask_error))
    return Parity(
        size=(image.shape[0], image.shape[1], image.shape[2]),
        class_error=found.class_error,
        mask_error=found.mask_error,
        mask_pixels=found.mask_pixels,
        tipped=sum(found.tipped),
        limit=LIMIT,
    )


def _manifest(
    checkpoint: Checkpoint,
    name: str,
    profile: InputProfile,
    options: Options,
    parity: Parity | None,
) -> Manifest:
    used = OPS if options.form == "plugin" else ()
    tools = ["onnx", "numpy"] + (["torch", "onnxruntime"] if parity else [])
    versions = [Tool(name="m2f", version=m2f.__version__)]
    versions += [Tool(name=tool, version=importlib.metadata.version(tool)) for tool in tools]
    return Manifest(
        name=checkpoint.preset or name,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        source=Source(
            name=Path(checkpoint.path).name,
            format=checkpoint.format,
            sha256=checkpoint.sha256,
            preset=checkpoint.preset,
        ),
        model=checkpoint.config,
        metadata=checkpoint.metadata,
        profile=profile,
        form=options.form,
        opset=OPSET,
        algebra=options.algebra.names,
        ops=tuple(Op(domain=op.domain, name=op.name, version=op.version) for op in used),
        parity=parity,
        tools=tuple(versions),
    )
