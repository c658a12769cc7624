"""From a float32 bundle and images to a quantised bundle."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import m2f
from m2f.bundle import (
    Bundle,
    Manifest,
    Quantization,
    Tool,
    sha256_of,
    write_manifest,
    writing,
)
from m2f.calib.images import ADVISED, LEAST, Fed, Feeder, Picture, pictures
from m2f.calib.judge import AgreementJudge, Judge, TruthJudge
from m2f.calib.network import Form, Network
from m2f.calib.record import Progress, record
from m2f.calib.recording import Recording
from m2f.calib.search import Trial, fewest
from m2f.calib.sensitivity import Part, rank
from m2f.calib.thresholds import RangeRule
from m2f.config import Task, json_from_config
from m2f.errors import CheckFailed, UsageError
from m2f.evaluate.dataset import DataSet
from m2f.evaluate.predictor import check_task
from m2f.files import write_json

RANGES = "calibration.json"
"""In the bundle: the ranges, the ranking and what was judged."""

TOOLS = ("numpy", "onnx", "onnxruntime")
"""What takes part, beside us."""

AGREED_ON = 50
"""Most images that agreement is measured on."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """How much may be lost, and by what measure.

    Attributes:
        max_drop: Points of the task's metric, or of agreement with float32.
        data: Images with ground truth; without, agreement on the calibration images.
        task: What to judge; the model's own task unless given.
        images: Only the first so many images of the data.
        by_layer: Keep or quantise single layers, not blocks: finer, and slower to rank.
    """

    max_drop: float
    data: DataSet | None = None
    task: Task | None = None
    images: int | None = None
    by_layer: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop < 100:
            raise UsageError(
                f"a drop of {self.max_drop:g} points cannot be asked for; they go from 0 to 100"
            )


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to calibrate.

    Attributes:
        form: What the network is to become.
        rule: How ranges are chosen.
        limit: How much may be lost; None quantises all that can be.
        images: Use only so many of the images.
        overwrite: Replace an existing bundle.
    """

    form: Form = field(default_factory=Form)
    rule: RangeRule = field(default_factory=RangeRule)
    limit: Limit | None = None
    images: int | None = None
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class CalibrationReport:
    """What became of a bundle.

    Attributes:
        bundle: Where it is.
        precision: Of what is quantised.
        rule: How ranges were chosen.
        images: How many they come from.
        quantized: Layers with 8 bits.
        kept: Layers that could be quantised, and are not, to lose no more than allowed.
        dead: Layers that are not because a tensor of theirs was always zero.
        metric: What was judged; None without a limit.
        judged: Images it was judged on.
        reference: Points of float32.
        reached: Points of the bundle.
        ranking: Parts of the network, the noisiest first; none without a need to rank.
        trials: Choices that were judged.
        peaks: Largest magnitude of every tensor that may have grown, in float32.
    """

    bundle: Path
    precision: str
    rule: RangeRule | str
    images: int
    quantized: tuple[str, ...]
    kept: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()
    metric: str | None = None
    judged: int = 0
    reference: float | None = None
    reached: float | None = None
    ranking: tuple[Part, ...] = ()
    trials: tuple[Trial, ...] = ()
    peaks: dict[str, float] = field(default_factory=dict, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dump``."""
        raw = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            **raw,
            "bundle": str(self.bundle),
            "rule": json_from_config(self.rule),
            "ranking": [part.to_json() for part in self.ranking],
            "trials": [trial.to_json() for trial in self.trials],
        }

    def remarks(self) -> list[str]:
        """What a reader has to know beside the figures."""
        texts = []
        if 0 < self.images < ADVISED:
            texts.append(f"ranges come from {self.images} images; {ADVISED} or more are better")
        if self.dead:
            texts.append(
                f"{len(self.dead)} layers stay as they are, as what enters or leaves them was "
                f"zero in all images: {', '.join(self.dead[:3])}"
            )
        return texts


def calibrate(
    bundle: str | os.PathLike[str] | Bundle,
    images: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    options: Options = Options(),
    cache: Path | None = None,
    threads: int | None = None,
    progress: Progress = lambda *_: None,
) -> CalibrationReport:
    """Turns a float32 bundle into one with explicit Q/DQ nodes.

    Args:
        bundle: In float32.
        images: Files, folders and patterns: like those the model is to see.
        out: Folder to make; appears whole or not at all.
        options: How to calibrate.
        cache: Where to keep what was seen, so that neither an interruption nor another
            method costs the run over the images again; nowhere unless given.
        threads: CPU cores to use; all unless given.
        progress: Called before each step with its number, their count, and what it is.

    Raises:
        UsageError: The bundle is not float32, options contradict each other, something is at
            ``out`` already, or the cache is of something else.
        DataError: There are too few different images, or the data cannot judge the model.
        CheckFailed: An activation is not finite, or the allowed drop cannot be kept to.
        DiskError: The bundle or the cache cannot be written.
    """
    if not isinstance(bundle, Bundle):
        bundle = Bundle.open(os.fspath(bundle))
    check_float32(bundle)
    with writing(Path(out), overwrite=options.overwrite) as folder:
        found = pictures(images, limit=options.images)
        network = Network(bundle, options.form)
        recording = record(
            *(bundle, found, network.sampled), kept=cache, threads=threads, progress=progress
        )
        network.take(recording, options.rule)
        report = _chosen(network, found, options, threads, progress)
        report = dataclasses.replace(
            report, bundle=Path(out), images=len(recording.images), peaks=recording.peaks
        )
        opset = network.write(folder, report.quantized)
        ranges = folder / RANGES
        write_json(ranges, _ranges(network, recording, report))
        manifest = quantised_manifest(
            network, report, opset=opset, calibration=sha256_of(ranges)
        )
        write_manifest(folder, manifest)
    return report


def check_float32(bundle: Bundle) -> None:
    """Raises `UsageError` for a bundle that is something else already."""
    precision = bundle.manifest.precision
    if precision != "fp32":
        raise UsageError(
            f"{bundle.path}: is {precision} already, calibration starts from fp32; give it the "
            "bundle that this one was made from"
        )


def _chosen(
    network: Network,
    found: Sequence[Picture],
    options: Options,
    threads: int | None,
    progress: Progress,
) -> CalibrationReport:
    """Decides which layers to quantise."""
    limit, blocks = options.limit, network.blocks
    every = tuple(name for names in blocks.values() for name in names)
    if not every:
        raise CheckFailed(
            "every layer has a tensor that is zero in all images, so that nothing can be "
            "quantised; compare the bundle with its checkpoint (`m2f check`)"
        )
    plain = CalibrationReport(
        bundle=Path(),
        precision=options.form.kind,
        rule=options.rule,
        images=0,
        quantized=every,
        dead=network.dead,
    )
    if limit is None:
        return plain
    judge = _judge(network.bundle, limit, found, threads)
    reference = judge.points(network.bundle, progress)

    def points(kept: Sequence[Part]) -> float:
        without = {name for part in kept for name in part.layers}
        with network.quantised([name for name in every if name not in without]) as bundle:
            return judge.points(bundle, progress)

    def ranking() -> tuple[Part, ...]:
        parts: dict[str, tuple[str, ...]] = blocks
        if limit.by_layer:
            parts = {name: (name,) for name in every}
        shown = _shown(network.bundle, found)
        return rank(network, parts, shown, threads=threads, progress=progress)

    choice = fewest(
        ranking, points, reference=reference, max_drop=limit.max_drop, metric=judge.metric
    )
    kept = {name for part in choice.kept for name in part.layers}
    return dataclasses.replace(
        plain,
        quantized=tuple(name for name in every if name not in kept),
        kept=tuple(name for name in every if name in kept),
        metric=judge.metric,
        judged=judge.images,
        reference=reference,
        reached=choice.points,
        ranking=choice.ranking,
        trials=choice.trials,
    )


def _shown(bundle: Bundle, found: Sequence[Picture]) -> list[Fed]:
    """A few images to rank on, evenly spaced."""
    feed = Feeder(bundle.manifest.metadata.preprocess, bundle.manifest.profile)
    return [feed(picture.path) for picture in found[:: len(found) // LEAST][:LEAST]]


def _judge(
    bundle: Bundle, limit: Limit, found: Sequence[Picture], threads: int | None
) -> Judge:
    task = check_task(limit.task, bundle.manifest.metadata)
    if limit.data is not None:
        return TruthJudge(limit.data, task, limit=limit.images, threads=threads)
    paths = [picture.path for picture in found[: limit.images or AGREED_ON]]
    return AgreementJudge(bundle, paths, task, threads=threads)


def _ranges(
    network: Network, recording: Recording, report: CalibrationReport
) -> dict[str, Any]:
    """What the bundle tells of how it was made."""
    return {
        "subject": dataclasses.asdict(recording.subject),
        "images": recording.images,
        "rule": json_from_config(report.rule),
        "thresholds": network.thresholds,
        "peaks": report.peaks,
        "quantized": list(report.quantized),
        "kept": list(report.kept),
        "metric": report.metric,
        "reference": report.reference,
        "reached": report.reached,
        "ranking": [part.to_json() for part in report.ranking],
        "trials": [trial.to_json() for trial in report.trials],
    }


def quantised_manifest(
    network: Network, report: CalibrationReport, *, opset: int, calibration: str
) -> Manifest:
    """The float32 bundle's, but for what has changed."""
    form = network.form
    tools = [Tool(name="m2f", version=m2f.__version__)]
    versions = ((tool, importlib.metadata.version(tool)) for tool in TOOLS)
    tools += [Tool(name=name, version=version) for name, version in versions]
    return dataclasses.replace(
        network.bundle.manifest,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        precision=form.kind,
        quantization=Quantization(
            base=form.base,
            target=form.target,
            method=str(report.rule),
            images=report.images,
            calibration=calibration,
            layers=len(report.quantized),
            kept=report.kept,
        ),
        opset=opset,
        parity=None,  # which was float32's
        tools=tuple(tools),
        files=(),
    )
