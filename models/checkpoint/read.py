"""From a checkpoint of any of the three code bases to our weights and what they are."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2f.config import Convention, Metadata, ModelConfig, Task
from m2f.errors import CheckpointError, MissingFile
from m2f.models import presets
from m2f.models.checkpoint import fit, hugging_face, metadata, names, recognise
from m2f.models.checkpoint.container import Contents, open_file
from m2f.models.checkpoint.metadata import Clues
from m2f.models.checkpoint.stored import Array, StoredTensor, shown

_SUFFIXES = {".pkl", ".pth", ".pt", ".bin", ".safetensors", ".onnx", ".json"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """A trained model, read and checked.

    Attributes:
        path: What was read: a file, a folder, or the hub id as it was given.
        format: Whose names and conventions it followed.
        sha256: Of the weights' file, hexadecimal; of several shards, the SHA-256 of their
            hexadecimal digests in order.
        weights: By our names, in the model's order; float32, or float64 where the file is.
        preset: The published model that it was taken for; None if it is none.
        notes: What was assumed, what else it could be, what was ignored.
    """

    path: Path | str
    format: Convention
    sha256: str
    weights: dict[str, Array]
    config: ModelConfig
    metadata: Metadata
    preset: str | None
    notes: tuple[str, ...]


def read(
    source: str | Path,
    *,
    preset: str | None = None,
    task: Task | None = None,
    allow_nonfinite: bool = False,
) -> Checkpoint:
    """Reads a checkpoint; nothing in it is ever executed.

    Args:
        source: An official ``.pkl`` or ``.pth``, an mmdetection or mmsegmentation ``.pth``, a
            Hugging Face folder, or a hub id such as
            "facebook/mask2former-swin-tiny-coco-panoptic".
        preset: Which published model it is; by default recognised from the shapes.
        task: What to use it for; chooses between presets of equal shapes.
        allow_nonfinite: Accept weights that hold NaN or infinity.

    Raises:
        MissingFile: There is no such file, or the hub cannot be reached.
        CheckpointError: It is damaged, hostile, or no Mask2Former; or its weights do not fit,
            in which case all that is missing, unexpected or misshapen is listed.
        UsageError: There is no such preset, or it does not answer the task.
    """
    wanted = presets.preset(preset) if preset else None
    found = _locate(source)
    raw: dict[str, Any] = {}
    described = own = None
    if found.folder:
        file = found.folder / hugging_face.CONFIG
        raw = hugging_face.read_json(file)
        with _about(file):
            described = hugging_face.model_from_json(raw)
            own = hugging_face.metadata_from_json(raw, described.classes)
    contents = [open_file(file) for file in found.files]
    with _about(source):
        tensors, format, config = _recognised(contents, wanted, described)
        places = fit.check(tensors, config, format)
        ignored = [n for n in tensors if n not in places]
        narrow = sorted({tensors[n].type for n in places} & {"float16", "bfloat16"})
    clues = dataclasses.replace(_clues(found, raw, contents), own=None if wanted else own)
    notes: tuple[str, ...] = ()
    chosen = wanted
    if chosen is None:
        chosen, notes = metadata.choose(config, clues, task=task)
    if chosen is not None and described is None:
        config = chosen.model
    with _about(source):
        size = sum(c.size for c in contents)
        weights = fit.collect(tensors, places, file_bytes=size)
        if not allow_nonfinite:
            fit.check_finite(weights)
    return Checkpoint(
        path=source,
        format=format,
        sha256=_digest(contents),
        weights=weights,
        config=config,
        metadata=metadata.metadata(config, chosen, clues, format=format, task=task),
        preset=chosen.name if chosen else None,
        notes=(*notes, *_notes(config, chosen is None and described is None, ignored, narrow)),
    )


@dataclass(frozen=True, slots=True)
class _Source:
    """Files of weights; the folder whose config describes them, if one does."""

    text: str
    files: list[Path]
    folder: Path | None = None


def _locate(source: str | Path) -> _Source:
    path = Path(source)
    text = "/".join(path.parts[-4:])
    try:
        is_folder, is_there = path.is_dir(), path.exists()
    except (OSError, ValueError) as problem:  # endless names, null characters
        raise MissingFile(f"{str(source)[:80]!r}: no such file or folder") from problem
    if is_folder:
        if not (path / hugging_face.CONFIG).is_file():
            raise MissingFile(
                f"{path}: has no {hugging_face.CONFIG}, so it is no Hugging Face folder; give "
                "the checkpoint file itself, or a folder as transformers saves it"
            )
        return _Source(text, hugging_face.weight_files(path), path)
    if is_there:
        has_config = (path.parent / hugging_face.CONFIG).is_file()
        is_hf = path.name in (hugging_face.WEIGHTS, hugging_face.OLD_WEIGHTS)
        return _Source(text, [path], path.parent if is_hf and has_config else None)
    is_id = re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(source))
    if is_id and path.suffix not in _SUFFIXES and not path.parent.exists():
        folder = hugging_face.fetch(str(source))
        return _Source(str(source), hugging_face.weight_files(folder), folder)
    raise MissingFile(f"{source}: no such file or folder, and no id of a Hugging Face model")


def _recognised(
    contents: list[Contents], wanted: presets.Preset | None, described: ModelConfig | None
) -> tuple[dict[str, StoredTensor], Convention, ModelConfig]:
    """Tensors by today's names of their format, the format, and the model."""
    stored = {name: tensor for c in contents for name, tensor in c.weights.items()}
    format = recognise.format_of(stored)
    tensors: dict[str, StoredTensor] = {}
    for name, tensor in stored.items():
        modern = names.modern_name(name, format)
        # Two names for one weight: the second shows up as unexpected.
        tensors[name if modern in tensors else modern] = tensor
    if wanted:
        return tensors, format, wanted.model
    if described:
        return tensors, format, described
    kind = recognise.pixel_decoder_kind(tensors)
    return tensors, format, recognise.config_of(fit.our_shapes(tensors, format, kind))


def _clues(found: _Source, raw: Mapping[str, Any], contents: list[Contents]) -> Clues:
    preprocess = None
    if found.folder and (file := found.folder / hugging_face.PREPROCESSOR).is_file():
        with _about(file):
            preprocess = hugging_face.preprocess_from_json(hugging_face.read_json(file))
    labels, colours = _mm_classes(contents[0].meta.get("meta"))
    return Clues(
        text="\n".join(filter(None, (str(raw.get("_name_or_path") or ""), found.text))),
        labels=labels or hugging_face.labels_from_json(raw),
        colours=colours,
        preprocess=preprocess,
        is_semantic_head=any(n.startswith("decode_head.") for n in contents[0].weights),
    )


def _mm_classes(meta: Any) -> tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]]:
    """Class names and colours that mmdetection notes in its files."""
    if not isinstance(meta, dict):
        return (), ()
    about = meta.get("dataset_meta", meta)  # mmdet 3, mmdet 2
    if not isinstance(about, dict):
        return (), ()
    about = {str(key).lower(): value for key, value in about.items()}
    names_, palette = about.get("classes"), about.get("palette")
    labels = tuple(names_) if isinstance(names_, (list, tuple)) else ()
    colours = palette if isinstance(palette, (list, tuple)) else ()
    good = [
        (c[0], c[1], c[2])
        for c in colours
        if isinstance(c, (list, tuple))
        and len(c) == 3
        and all(type(v) is int and 0 <= v < 256 for v in c)
    ]
    is_text = all(isinstance(label, str) for label in labels)
    return labels if is_text else (), tuple(good) if len(good) == len(colours) else ()


def _notes(
    config: ModelConfig, is_guessed: bool, ignored: list[str], narrow: list[str]
) -> Iterator[str]:
    if is_guessed:
        heads = config.transformer_decoder.heads
        yield f"the number of attention heads, {heads}, is assumed: no weight shows it"
    if ignored:
        example = shown(ignored[0])
        yield f"{len(ignored)} tensors that are no weights were ignored, e.g. {example}"
    if narrow:
        yield f"{' and '.join(narrow)} weights were widened to float32, which loses nothing"


def _digest(contents: list[Contents]) -> str:
    if len(contents) == 1:
        return contents[0].sha256
    return hashlib.sha256("".join(c.sha256 for c in contents).encode()).hexdigest()


@contextlib.contextmanager
def _about(path: Path | str) -> Iterator[None]:
    """Puts the file's name before a message that lacks it."""
    try:
        yield
    except CheckpointError as problem:
        raise CheckpointError(f"{path}: {problem}") from problem
