"""`m2f inspect`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from m2f.cli import options
from m2f.cli.terminal import parity_in_words, reported, show, show_json, table, working
from m2f.errors import UsageError

if TYPE_CHECKING:
    from m2f.bench.cost import Cost
    from m2f.bundle import Manifest
    from m2f.config import Metadata, ModelConfig
    from m2f.inspect import BundleReport, CheckpointReport, CostInspection

SHOWN = 12
"""Kinds of ops printed."""


@reported
def inspect(
    target: Annotated[
        str, typer.Argument(help="A bundle or a checkpoint.", show_default=False)
    ],
    weights: Annotated[
        bool, typer.Option("--weights", help="List every weight of a checkpoint.")
    ] = False,
    cost: Annotated[
        bool,
        typer.Option(
            "--cost", help="Count products, bytes and nodes by part, and what rewrites save."
        ),
    ] = False,
    size: options.Size = None,
    preset: options.PresetName = None,
    task: options.TaskName = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    r"""Show what a checkpoint or a bundle holds.

    \b
    Examples:
      m2f inspect model_final_94dc52.pkl
      m2f inspect model_final_94dc52.pkl --weights
      m2f inspect coco.m2f --json
      m2f inspect coco.m2f --cost --size 512x512
    """
    given = None if size is None else options.size(size)
    if given and not cost:
        raise UsageError("--size says what --cost is counted for; add --cost")
    with working(f"reading {target}"):
        from m2f.inspect import BundleReport
        from m2f.inspect import cost as count
        from m2f.inspect import inspect as look_into

        if cost:
            counted = count(target, given, preset=preset, task=task)
            if json:
                show_json(counted.to_json())
            else:
                _print_cost(counted)
            return

        report = look_into(target, preset=preset, task=task)
    if json:
        show_json(report.to_json())
    elif isinstance(report, BundleReport):
        _print_bundle(report)
    else:
        _print_checkpoint(report, weights=weights)


def _print_checkpoint(report: CheckpointReport, *, weights: bool) -> None:
    facts = table("checkpoint", report.name)
    facts.add_row("format", report.format)
    facts.add_row("sha256", report.sha256)
    facts.add_row("published as", report.preset or "not recognised as a published model")
    for row in (*_model_rows(report.config), *_metadata_rows(report.metadata)):
        facts.add_row(*row)
    for note in report.notes:
        facts.add_row("note", note)
    show(facts)
    parts = table("part", "tensors", "parameters", numbers=(1, 2))
    for part in report.parts:
        parts.add_row(part.name, f"{part.tensors:,}", f"{part.parameters:,}")
    total = sum(part.parameters for part in report.parts)
    parts.add_section()
    parts.add_row("all", f"{len(report.weights):,}", f"{total:,}")
    show(parts)
    if weights:
        listed = table("weight", "shape", "type", "parameters", numbers=(3,))
        for w in report.weights:
            shape = "x".join(map(str, w.shape)) or "scalar"
            listed.add_row(w.name, shape, w.dtype, f"{w.parameters:,}")
        show(listed)


def _print_bundle(report: BundleReport) -> None:
    facts = table("bundle", str(report.bundle.path))
    for row in _manifest_rows(report.bundle.manifest):
        facts.add_row(*row)
    show(facts)
    files = table("file", "MiB", "sha256", numbers=(1,))
    for file in report.bundle.manifest.files:
        files.add_row(file.name, f"{file.bytes / 2**20:.1f}", file.sha256)
    show(files)
    if not report.ops:
        show("for inputs, outputs and ops, install onnx: pip install 'm2f-deploy[export]'")
        return
    ports = table("", "name", "type", "shape")
    for what, group in (("input", report.inputs), ("output", report.outputs)):
        for port in group:
            ports.add_row(what, port.name, port.dtype, "x".join(map(str, port.shape)))
    show(ports)
    ops = table("op", "nodes", numbers=(1,))
    for name, count in list(report.ops.items())[:SHOWN]:
        ops.add_row(name, f"{count:,}")
    rest = list(report.ops.values())[SHOWN:]
    if rest:
        ops.add_row(f"{len(rest)} others", f"{sum(rest):,}")
    show(ops)


def _print_cost(counted: CostInspection) -> None:
    batch, height, width = counted.report.size
    columns = ("GMAC", "weights MiB", "activations MiB", "nodes")
    title = (
        f"{counted.name}, {counted.form}, {counted.precision}, "
        f"{batch} image{'s' if batch > 1 else ''} of {height}x{width}"
    )
    for what, rows in (("part", counted.report.parts), ("work", counted.report.kinds)):
        costs = table(what, *columns, title=title, numbers=(1, 2, 3, 4))
        for name, cost in rows.items():
            costs.add_row(name, *_cost_cells(cost))
        costs.add_section()
        costs.add_row("all", *_cost_cells(counted.report.total))
        show(costs)
        title = ""
    title = "exact rewrites: what each saves where the others are made"
    saved = table("rewrite", "in this file", *columns, title=title, numbers=(2, 3, 4, 5))
    made = {*counted.made, *(["all"] if len(counted.made) + 1 == len(counted.savings) else [])}
    for saving in counted.savings:
        is_made = "yes" if saving.rewrite in made else "no"
        saved.add_row(saving.rewrite, is_made, *_cost_cells(saving.saved))
    show(saved)


def _cost_cells(cost: Cost) -> tuple[str, ...]:
    # Adding zero turns a rounded -0.0 into 0.0.
    mebibytes = (round(count / 2**20, 1) + 0.0 for count in (cost.weights, cost.activations))
    return (f"{cost.macs / 1e9:.2f}", *map(str, mebibytes), f"{cost.nodes:,}")


def _manifest_rows(manifest: Manifest) -> list[tuple[str, str]]:
    source = manifest.source
    ops = [f"{op.domain}::{op.name} version {op.version}" for op in manifest.ops]
    return [
        ("name", manifest.name),
        ("made", manifest.created),
        ("from", f"{source.name} ({source.format}, {source.preset or 'no preset'})"),
        ("form", f"{manifest.form}, {manifest.precision}, opset {manifest.opset}"),
        ("image", str(manifest.profile)),
        *_model_rows(manifest.model),
        *_metadata_rows(manifest.metadata),
        ("custom ops", ", ".join(ops) or "none"),
        ("against PyTorch", parity_in_words(manifest.parity)),
        ("made with", ", ".join(f"{tool.name} {tool.version}" for tool in manifest.tools)),
    ]


def _model_rows(model: ModelConfig) -> list[tuple[str, str]]:
    decoder = model.transformer_decoder
    pixel = model.pixel_decoder
    layers = f", {pixel.layers} layers" if pixel.kind == "msdeform" else ""
    return [
        ("backbone", model.backbone.name),
        ("pixel decoder", f"{pixel.kind}{layers}, {pixel.channels} channels"),
        ("decoder", f"{decoder.queries} queries, {decoder.layers} layers"),
    ]


def _metadata_rows(metadata: Metadata) -> list[tuple[str, str]]:
    from m2f.inspect import categories_in_short

    resize = metadata.preprocess
    rules = dataclasses.asdict(metadata.postprocess)
    kept = ("convention", "object_mask_threshold", "overlap_threshold", "top_k")
    return [
        ("task", f"{metadata.task}, of {', '.join(metadata.tasks)}"),
        ("categories", categories_in_short(metadata.categories)),
        ("resize", f"{resize.resize}, shortest {resize.min_size}, longest {resize.max_size}"),
        ("segments", ", ".join(f"{name} {rules[name]}" for name in kept)),
    ]
