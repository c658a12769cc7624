"""Ranges chosen before: by training around 8 bits, or for another file of a network."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from m2f.bundle import Bundle, sha256_of, write_manifest, writing
from m2f.calib.calibration import (
    RANGES,
    CalibrationReport,
    check_float32,
    quantised_manifest,
)
from m2f.calib.network import Form, Network
from m2f.errors import BundleError, MissingFile, UsageError
from m2f.files import write_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """What a file says of how to quantise a network.

    Attributes:
        rule: How they came about.
        quantized: Names of the layers with 8 bits.
        thresholds: Largest magnitude that each tensor's 8-bit numbers stand for.
    """

    rule: str
    quantized: tuple[str, ...]
    thresholds: dict[str, float]


def read_ranges(file: Path) -> Ranges:
    """Reads a bundle's calibration.json, or the ranges.json of `m2f finetune --qat`.

    Raises:
        MissingFile: It does not exist.
        BundleError: It holds no ranges.
    """
    if not file.is_file():
        raise MissingFile(f"{file}: no such file of ranges")
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        rule = raw.get("rule", "unknown")
        ranges = Ranges(
            rule=rule if isinstance(rule, str) else str(rule["method"]),
            quantized=tuple(str(name) for name in raw["quantized"]),
            thresholds={str(name): float(value) for name, value in raw["thresholds"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise BundleError(f"{file}: holds no ranges ({problem}); calibrate again") from problem
    wrong = [name for name, value in ranges.thresholds.items() if not 0 <= value < float("inf")]
    if wrong:
        raise BundleError(
            f"{file}: the range of {wrong[0]} is {ranges.thresholds[wrong[0]]}, not a "
            "magnitude; calibrate again"
        )
    return ranges


def quantise(
    bundle: str | os.PathLike[str] | Bundle,
    file: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    form: Form | None = None,
    overwrite: bool = False,
) -> CalibrationReport:
    """Turns a float32 bundle into one with explicit Q/DQ nodes, by ranges from a file.

    Args:
        bundle: In float32; its network must have the layers that the file names.
        file: See `read_ranges`.
        out: Folder to make; appears whole or not at all.
        form: What the network is to become; int8 in float32 unless given.
        overwrite: Replace an existing bundle.

    Raises:
        UsageError: The bundle is not float32, or has other layers, or something is at ``out``.
        MissingFile: The file or the bundle does not exist.
        BundleError: The file holds no ranges.
        DiskError: The bundle cannot be written.
    """
    if not isinstance(bundle, Bundle):
        bundle = Bundle.open(os.fspath(bundle))
    check_float32(bundle)
    ranges = read_ranges(Path(file))
    network = Network(bundle, form or Form())
    _check(network, ranges, Path(file))
    network.thresholds = ranges.thresholds
    with writing(Path(out), overwrite=overwrite) as folder:
        report = CalibrationReport(
            bundle=Path(out),
            precision=network.form.kind,
            rule=ranges.rule,
            images=0,
            quantized=ranges.quantized,
            kept=tuple(name for name in network.layers if name not in ranges.quantized),
        )
        opset = network.write(folder, report.quantized)
        kept = folder / RANGES
        content = {
            "rule": ranges.rule,
            "thresholds": ranges.thresholds,
            "quantized": list(report.quantized),
            "kept": list(report.kept),
        }
        write_json(kept, content)
        manifest = quantised_manifest(network, report, opset=opset, calibration=sha256_of(kept))
        write_manifest(folder, manifest)
    return report


def _check(network: Network, ranges: Ranges, file: Path) -> None:
    """Whether the file's names are the network's."""
    place = network.bundle.path
    unknown = [name for name in ranges.quantized if name not in network.layers]
    if unknown:
        raise UsageError(
            f"{file}: quantises {unknown[0]}, which {place} does not have; export it in the "
            "same form and with the same sizes as the bundle that was calibrated"
        )
    needed = {t for name in ranges.quantized for t in network.tensors(network.layers[name])}
    missing = sorted(needed - set(ranges.thresholds))
    if missing:
        raise UsageError(
            f"{file}: has no range for {missing[0]}, which {place} needs; export it in the "
            "same form and with the same sizes as the bundle that was calibrated"
        )
