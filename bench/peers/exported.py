"""transformers' Mask2Former as PyTorch's exporter writes it, in other people's runtimes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from m2f.bench.checks import Array, Outputs
from m2f.bench.peers.hugging_face import OUTPUTS, PIXELS, pixels
from m2f.config import Preprocess


class OnnxRuntime:
    """ONNX Runtime's CPU provider with its defaults.

    Args:
        model: The export.
        name: For people.
        preprocess: Mean and standard deviation.
        threads: Cores to use.
    """

    precision = "fp32"

    def __init__(self, model: Path, name: str, preprocess: Preprocess, *, threads: int) -> None:
        import onnxruntime as ort  # type: ignore[import-untyped]

        self.name, self._preprocess = name, preprocess
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        self._session: Any = ort.InferenceSession(str(model), options, ["CPUExecutionProvider"])

    def bind(self, image: Array) -> Callable[[], Outputs]:
        """See `m2f.bench.contestants.Contestant`."""
        feed = {PIXELS: pixels(image, self._preprocess)}

        def run() -> Outputs:
            classes, masks = self._session.run(list(OUTPUTS), feed)
            return classes, masks

        return run

    def close(self) -> None:
        """See `m2f.bench.contestants.Contestant`."""
        self._session = None


class OpenVino:
    """OpenVINO's CPU plugin, tuned for latency as it advises.

    Args:
        model: The export.
        name: For people.
        precision: "fp32" or "bf16"; asked for, as its default depends on the machine.
        preprocess: Mean and standard deviation.
        threads: Cores to use.
    """

    def __init__(
        self, model: Path, name: str, precision: str, preprocess: Preprocess, *, threads: int
    ) -> None:
        import openvino  # type: ignore[import-untyped]

        self.name, self.precision, self._preprocess = name, precision, preprocess
        hints = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": {"fp32": "f32"}.get(precision, precision),
            "INFERENCE_NUM_THREADS": threads,
        }
        self._compiled: Any = openvino.Core().compile_model(str(model), "CPU", hints)

    def bind(self, image: Array) -> Callable[[], Outputs]:
        """See `m2f.bench.contestants.Contestant`."""
        request = self._compiled.create_infer_request()
        feed = {PIXELS: pixels(image, self._preprocess)}

        def run() -> Outputs:
            # Its own memory is written to again by the next run, so results are copied.
            results = request.infer(feed, share_inputs=True)
            classes, masks = (results[name].copy() for name in OUTPUTS)
            return classes, masks

        return run

    def close(self) -> None:
        """See `m2f.bench.contestants.Contestant`."""
        self._compiled = None
