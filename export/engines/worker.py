"""The process that runs TensorRT's builder; see `builder` for the one that starts it.

TensorRT ends its process where it would better complain, and cannot be interrupted while it
tries kernels. So it builds here, and whoever waits stays alive and may end this at any time.

Speaks JSON, one object a line: says {"hello": ...}, reads a `Request`, says {"phase": ...}
while it works, and at last {"done": ...} or {"error": ...}.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from m2f.config import config_from_json
from m2f.engine import Flags, Sizes
from m2f.errors import BuildError, M2FError
from m2f.export.engines.layers import layers_of
from m2f.export.network import IMAGE, IMAGE_SIZE
from m2f.plugins.trt import find_plugins, load, load_plugins, make_logger

Say = Callable[[dict[str, Any]], None]

INSPECTED = "inspected.json"
"""What TensorRT's inspector says of an engine, beside it while it is being built."""

_DEPTH = 2
"""Of phases within phases that are worth telling; below that they last milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to build.

    Attributes:
        network: ONNX file.
        out: File to write the engine to.
        compute: Capabilities to compile for; empty means the GPU that is there.
        sizes: Of the input, where the network leaves them open.
        flags: How to build.
        timing_cache: File to read measurements from and to write them to.
    """

    network: str
    out: str
    compute: tuple[int, ...]
    sizes: Sizes
    flags: Flags
    timing_cache: str | None = None


def build(trt: Any, request: Request, say: Say) -> None:
    """Builds one engine.

    Args:
        trt: TensorRT's module, of either kind.
        request: What to build.
        say: Takes progress, and at the end the result.

    Raises:
        BuildError: TensorRT refuses; its own words are in the message.
        OSError: The engine cannot be written.
    """
    logger = make_logger(trt, echo=True)
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(request.network):
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise BuildError(f"TensorRT cannot read the network: {_sentence(reasons[0])}")
    say({"layers": layers_of(trt, network)})
    config = _config(trt, builder, network, request)
    config.progress_monitor = _monitor(trt, say)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        reasons = logger.errors or ["it gives no reason"]
        raise BuildError(f"TensorRT cannot build the engine: {_sentence(reasons[0])}")
    with open(request.out, "wb") as stream:
        stream.write(plan)
    if not request.compute:
        inspect(trt, plan, logger, Path(request.out).with_name(INSPECTED))
    if request.timing_cache is not None and (cache := config.get_timing_cache()) is not None:
        Path(request.timing_cache).write_bytes(memoryview(cache.serialize()))
    say({"done": True, "log": logger.warnings})


def _sentence(text: str) -> str:
    """TensorRT's words in one line."""
    return " ".join(text.split())


def inspect(trt: Any, plan: Any, logger: Any, file: Path) -> None:
    """Writes down what the builder made of the layers, which only the GPU it built for tells.

    Nothing is written where the engine cannot be read back: running it will say why.
    """
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    if engine is not None:
        as_json = trt.LayerInformationFormat.JSON
        text = engine.create_engine_inspector().get_engine_information(as_json)
        file.write_text(text, encoding="utf-8")


def _network_flags(trt: Any) -> int:
    """Strongly typed, which TensorRT 10 must be asked for and 11 always is."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _config(trt: Any, builder: Any, network: Any, request: Request) -> Any:
    config = builder.create_builder_config()
    _set_sizes(builder, network, config, request.sizes)
    _set_flags(trt, config, request.flags)
    # So that the inspector can name each layer's types, where there is a GPU to ask it on.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if request.compute:
        config.num_compute_capabilities = len(request.compute)
        for i, number in enumerate(request.compute):
            config.set_compute_capability(_capability(trt, number), i)
    if request.timing_cache is not None:
        file = Path(request.timing_cache)
        cache = config.create_timing_cache(file.read_bytes() if file.is_file() else b"")
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            raise BuildError(
                f"{file}: is no timing cache of this GPU and TensorRT {trt.__version__}; "
                "delete it or name another"
            )
    return config


def _set_sizes(builder: Any, network: Any, config: Any, sizes: Sizes) -> None:
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    if any(-1 in tensor.shape for tensor in inputs):
        profile = builder.create_optimization_profile()
        extents = (sizes.min, sizes.opt, sizes.max)
        profile.set_shape(IMAGE, *((*e, 3) for e in extents))
        if any(tensor.name == IMAGE_SIZE for tensor in inputs):
            profile.set_shape(IMAGE_SIZE, *((e[0], 2) for e in extents))
        config.add_optimization_profile(profile)


def _set_flags(trt: Any, config: Any, flags: Flags) -> None:
    if flags.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, flags.workspace_mib << 20)
    if flags.level is not None:
        config.builder_optimization_level = flags.level
    (config.set_flag if flags.tf32 else config.clear_flag)(trt.BuilderFlag.TF32)
    if flags.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if flags.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS


def _capability(trt: Any, number: int) -> Any:
    known = trt.ComputeCapability.__members__
    name = f"SM{number}"
    if name not in known:
        offered = sorted((n for n in known if n.startswith("SM")), key=lambda n: int(n[2:]))
        raise BuildError(
            f"this TensorRT builds for {', '.join(offered)}, not for {name}; "
            "choose among them with --compute"
        )
    return known[name]


def _monitor(trt: Any, say: Say) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Tells what the builder is at; phases lie within phases."""

        def __init__(self) -> None:
            super().__init__()
            self.steps: dict[str, int] = {}
            self.depth: dict[str | None, int] = {}

        def phase_start(
            self, phase_name: str, parent_phase: str | None, num_steps: int
        ) -> None:
            self.steps[phase_name] = num_steps
            self.depth[phase_name] = self.depth.get(parent_phase, -1) + 1
            self.tell(phase_name, 0)

        def phase_finish(self, phase_name: str) -> None:
            pass

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.tell(phase_name, step + 1)
            return True

        def tell(self, phase: str, step: int) -> None:
            if self.depth[phase] <= _DEPTH:
                say({"phase": phase, "step": step, "steps": self.steps[phase]})

    return Monitor()


def main(target: str) -> None:
    """Serves one request from standard input."""
    # What libraries print must not come between our lines.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(target, sys.stdin, answers)


def serve(target: str, requests: TextIO, answers: TextIO) -> None:
    """Says hello, reads one request, builds."""

    def say(message: dict[str, Any]) -> None:
        try:
            answers.write(json.dumps(message) + "\n")
            answers.flush()
        except BrokenPipeError:
            os._exit(1)  # nobody waits any more; TensorRT would go on for minutes

    try:
        trt = load(target)
        library = find_plugins() if target == "tensorrt" else None
        if library is not None:
            load_plugins(trt, library)
        say({"hello": trt.__version__, "plugins": str(library) if library else None})
        line = requests.readline()
        if line:
            request = config_from_json(Request, json.loads(line), where="request")
            build(trt, request, say)
    except M2FError as problem:
        say({"error": str(problem), "kind": type(problem).__name__})
    except OSError as problem:
        say({"error": str(problem), "kind": "OSError", "errno": problem.errno})
    except MemoryError:
        say({"error": "out of memory", "kind": "MemoryError"})


if __name__ == "__main__":
    main(sys.argv[1])
