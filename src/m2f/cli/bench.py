"""`m2f bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m2f.cli import options
from m2f.cli.terminal import reported, say, show, show_json, table, working
from m2f.errors import CheckFailed, UsageError
from m2f.gpu import parse_device

if TYPE_CHECKING:
    from m2f.bench import Report
    from m2f.bench.machine import Machine
    from m2f.bench.profiling import Row
    from m2f.bench.report import Timed

SHOWN = 12
"""Types of ops printed."""

DISTURBED = 1.25
"""How much longer than outside the profiler a network may take without a word."""


@reported
def bench(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[BUNDLES] [IMAGES]",
            help="Bundles of one model, and images: files, folders or patterns.",
            show_default=False,
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="The model's checkpoint, to compare with here and now."),
    ] = None,
    preset: options.PresetName = None,
    size: options.Size = None,
    threads: options.Threads = None,
    backend: options.BackendName = None,
    device: options.DeviceName = None,
    runs: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 10,
    peers: Annotated[
        bool, typer.Option("--peers", help="Also time all other programs that are installed.")
    ] = False,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Also time this one: eager, compiled, onnxruntime, openvino, or with -bf16; "
            "repeat it for several.",
        ),
    ] = None,
    steps: Annotated[
        bool,
        typer.Option(
            "--steps", help="Also without native kernels, and without the exact rewrites."
        ),
    ] = False,
    parts: Annotated[
        bool, typer.Option(help="Time the parts of the network, beside the roofline.")
    ] = True,
    cache: Annotated[
        Path | None, typer.Option(help="Where exports of peers are kept.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the report to this JSON file.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw it: a .png, .svg or .pdf; needs matplotlib.")
    ] = None,
    gpu: Annotated[
        bool,
        typer.Option("--gpu", help="Time one bundle's engine on the GPU, and nothing else."),
    ] = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    r"""Time bundles, their stages and parts, and other programs on the same weights.

    All take turns in one run. Nothing is timed whose result is not PyTorch's: with a
    checkpoint or preset compared here and now, a bundle alone when it was exported. A preset
    without a checkpoint stands for random weights of that shape. Nothing else should run
    meanwhile.

    \b
    Examples:
      m2f bench coco.m2f street.jpg
      m2f bench fast.m2f exact.m2f --checkpoint model_final_94dc52.pkl --size 800x1344
      m2f bench coco.m2f --gpu -o gpu.json
      m2f bench --preset coco-panoptic-r50 --peers --size 512x512 --threads 2 -o r50.json
    """
    if gpu:
        _gpu(
            targets or [],
            size=size,
            backend=backend,
            device=device,
            runs=runs,
            out=out,
            json=json,
        )
        return
    with working("starting") as progress:
        from m2f.bench import Options, bench, plotting
        from m2f.bench.peers import PEERS
        from m2f.bundle import MANIFEST
        from m2f.files import write_json

        if plot is not None:
            plotting.check(plot)
        is_bundle = {target: (Path(target) / MANIFEST).is_file() for target in targets or ()}
        every = tuple(one.key for one in PEERS) if peers else ()
        report = bench(
            [target for target, is_one in is_bundle.items() if is_one],
            [target for target, is_one in is_bundle.items() if not is_one],
            checkpoint=checkpoint,
            preset=preset,
            options=Options(
                size=None if size is None else options.size(size),
                threads=threads,
                backend=backend,
                device=device,
                runs=runs,
                peers=(*every, *(peer or ())),
                steps=steps,
                parts=parts,
                cache=cache,
            ),
            progress=progress,
        )
        if out is not None:
            write_json(out, report.to_json())
        if plot is not None:
            plotting.draw(report, plot)
    if json:
        show_json(report.to_json())
    else:
        _print(report)
    for network in report.networks:
        if network.slowdown > DISTURBED:
            say(
                f"note: {network.name} took {network.slowdown:.1f} times as long under the "
                "profiler; something else ran meanwhile, so trust only the shares of its parts"
            )
    for one in report.untimed:
        say(f"note: {one.name} ({one.precision}): {one.why}")
    if report.wrong:
        names = ", ".join(f"{one.name} ({one.precision})" for one in report.wrong)
        raise CheckFailed(f"not timed, because the result is wrong: {names}")


def _gpu(
    targets: list[str],
    *,
    size: str | None,
    backend: str | None,
    device: str | None,
    runs: int,
    out: Path | None,
    json: bool,
) -> None:
    """An engine alone; the report also says what machine it was."""
    if len(targets) != 1:
        raise UsageError(f"--gpu times one bundle, got {len(targets)}; name one")
    with working("opening the engine"):
        from m2f.bench.gpu import bench_gpu
        from m2f.doctor import doctor
        from m2f.files import write_json

        report = bench_gpu(
            targets[0],
            size=None if size is None else options.size(size),
            index=parse_device(device or "cuda") or 0,
            target=backend,
            runs=runs,
        )
        raw = {**report.to_json(), "machine": doctor().to_json()}
        if out is not None:
            write_json(out, raw)
    if json:
        show_json(raw)
        return
    shape = "x".join(map(str, report.extent))
    show(
        f"{report.backend}, input {shape}: loaded in {report.load_seconds:.1f} s, warm in "
        f"{report.warm_up_seconds:.1f} s, {report.device_bytes / 2**20:.0f} MiB on the GPU"
    )
    rows = table("a batch, copies included", "ms", "quartiles", "per second", numbers=(1, 2, 3))
    for way in report.ways:
        low, high = way.times.quartiles
        rate = 1e3 / way.times.median
        rows.add_row(
            way.name, f"{way.times.median:.2f}", f"{low:.2f} to {high:.2f}", f"{rate:.1f}"
        )
    show(rows)


def _print(report: Report) -> None:
    height, width = report.size
    show(f"{report.model}, {_machine(report.machine)}")
    title = f"networks on {height}x{width}, {report.runs} runs in turns"
    rows = table(
        *("network", "precision", "ms", "quartiles", "x", "error"),
        title=title,
        numbers=(2, 3, 4, 5),
    )
    ours = report.ours
    for one in report.networks:
        low, high = one.times.quartiles
        ratio = one.times.median / ours.times.median if ours else 1.0
        rows.add_row(
            one.name,
            one.precision,
            f"{one.times.median:.1f}",
            f"{low:.1f} to {high:.1f}",
            f"{ratio:.2f}",
            _error(one),
        )
    for left_out in report.untimed:
        why = "wrong" if left_out.is_wrong else "not timed"
        rows.add_row(left_out.name, left_out.precision, why, "", "", "")
    show(rows)
    _print_parts(report)
    _print_stages(report)


def _error(one: Timed) -> str:
    if one.role == "reference":
        return "the reference"
    return f"{max(one.check.class_error, one.check.mask_error):.1e}"


def _machine(machine: Machine) -> str:
    peaks = ", ".join(
        f"{peak.gflops:,.0f} GFLOP/s {peak.precision} ({peak.library})"
        for peak in machine.peaks
    )
    return (
        f"{machine.threads} threads of {machine.cpu}; at most {peaks or 'unknown'}, "
        f"{machine.bandwidth:.1f} GB/s"
    )


def _print_parts(report: Report) -> None:
    columns = ("ms", "share", "GMAC", "of peak", "MiB", "of bandwidth")
    for one in report.networks:
        if one.parts is None:
            continue
        for what, rows in (("part", one.parts.parts), ("work", one.parts.kinds)):
            title = f"{one.name}, where the time goes" if what == "part" else None
            costs = table(what, *columns, title=title, numbers=tuple(range(1, 7)))
            for row in rows:
                costs.add_row(*_cells(row, one.parts.total.ms))
            costs.add_section()
            costs.add_row(*_cells(one.parts.total, one.parts.total.ms))
            show(costs)
        ops = table("op", "nodes", "ms", "share", numbers=(1, 2, 3))
        for op in one.parts.ops[:SHOWN]:
            share = op.ms / one.parts.total.ms
            ops.add_row(op.name, str(op.nodes), f"{op.ms:.1f}", f"{share:.0%}")
        show(ops)


def _cells(row: Row, total: float) -> tuple[str, ...]:
    return (
        row.name,
        f"{row.ms:.1f}",
        f"{row.ms / total:.0%}",
        f"{row.cost.macs / 1e9:.2f}" if row.cost.macs else "",
        f"{row.peak:.0%}" if row.peak is not None else "",
        f"{row.cost.bytes / 2**20:.0f}",
        f"{row.bandwidth:.0%}",
    )


def _print_stages(report: Report) -> None:
    if not report.stages:
        return
    names = tuple(report.stages[0].stages)
    title = f"from file to segments, {', '.join(report.images)}; ms, median (quartiles)"
    rows = table("bundle", *names, title=title, numbers=tuple(range(1, len(names) + 1)))
    for one in report.stages:
        cells = []
        for times in one.stages.values():
            low, high = times.quartiles
            cells.append(f"{times.median:.1f} ({low:.1f} to {high:.1f})")
        rows.add_row(f"{one.name}, {one.task}", *cells)
    show(rows)
