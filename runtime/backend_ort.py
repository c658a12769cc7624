"""ONNX Runtime, by default on the CPU."""

from __future__ import annotations

import mmap
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2f.errors import BundleError, M2FError, MissingDependency, MissingFile, UsageError
from m2f.plugins import OPS, library
from m2f.runtime.providers import CPU, Provider, check_available, check_used

SLOW_FUSIONS = ("SkipLayerNormFusion",)
"""What ONNX Runtime is not to do: the op it makes of an addition and a layer norm takes 2.5
times as long on the CPU as the two (1.32, 5376 tokens of 256 channels: 3.4 and 1.3 ms)."""

ROUNDED_BIASES = ("WeightBiasQuantization",)
"""Another: it rounds the biases of layers with Q/DQ nodes to integers, which adds to the error
of INT8, and is wrong beside 8-bit floats in half precision (1.32: the sample model's FP8 masks
are 57 % off with it, 7 % without). ONNX Runtime's own 8-bit kernels need it, though."""


def avoided(target: str | None) -> tuple[str, ...]:
    """Optimizers to disable on the CPU.

    Args:
        target: Whose kernels a quantised file is for; None for one that is not quantised.
    """
    return SLOW_FUSIONS if target == "onnxruntime" else SLOW_FUSIONS + ROUNDED_BIASES


_ERRORS_ONLY = 3  # ONNX Runtime's log levels: 0 verbose, 1 info, 2 warning, 3 error


class OrtBackend:
    """Runs a bundle's ONNX file with ONNX Runtime.

    Both forms of a bundle run. The plugin form carries the meaning of each custom op as a
    function in the file, which ONNX Runtime falls back to where our native library is not
    there; where it is, its kernels take precedence over the functions.
    """

    def __init__(
        self,
        model: Path,
        *,
        threads: int | None = None,
        providers: Sequence[Provider] = CPU,
        native: bool = True,
        target: str | None = None,
        fused: Path | None = None,
    ) -> None:
        """Loads the file.

        Args:
            model: The ONNX file.
            threads: Cores one operator may use; all physical ones unless given.
            providers: Execution providers with their options, the preferred first; see
                `m2f.runtime.providers`.
            native: Use our own kernels for the custom ops, where the library is installed.
                They run on the CPU, so only where no other provider is asked for.
            target: Whose kernels a quantised file is for.
            fused: The same network for our own kernels, run instead where they are used.

        Raises:
            MissingFile: There is no such file.
            BundleError: ONNX Runtime cannot load it, or it is not of the bundle's form.
            MissingDependency: ONNX Runtime, or one of the providers, is not installed.
            UsageError: ``threads`` is not positive.
        """
        try:
            import onnxruntime as ort  # type: ignore[import-untyped]
        except ImportError as problem:
            raise MissingDependency(
                f"onnxruntime cannot be imported ({problem}); run: pip install onnxruntime"
            ) from problem
        if not model.is_file():
            raise MissingFile(f"{model}: no such file")
        names = [name for name, _ in providers]
        check_available(names, ort.get_available_providers())
        options = ort.SessionOptions()
        # The default of `image_size` is an initializer that callers may override, on
        # purpose; ONNX Runtime warns about it on every load.
        options.log_severity_level = _ERRORS_ONLY
        # Its threads go on turning for a while after a run, waiting for the next; the cores are
        # wanted for what comes between two runs, post-processing and other networks.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if threads is not None:
            if threads < 1:
                raise UsageError(f"threads must be at least 1, got {threads}")
            options.intra_op_num_threads = threads
        on_cpu = names == ["CPUExecutionProvider"]
        is_native = native and on_cpu and _register(options, model)
        given = [(name, dict(settings)) for name, settings in providers]

        def opened(path: Path) -> Any:
            return ort.InferenceSession(
                *(str(path), options, given),
                disabled_optimizers=avoided(target) if on_cpu else (),
            )

        self.path, session = model, None
        if fused is not None and is_native:
            try:
                self.path, session = fused, opened(fused)
            except Exception as problem:  # its exceptions share no other base
                self.path = model
                warnings.warn(
                    f"{fused}: cannot be loaded: {_reason(problem)}; reinstall m2f, or export "
                    f"again. Running {model.name}, which is slower",
                    stacklevel=3,
                )
        try:
            self._session = opened(model) if session is None else session
        except Exception as problem:  # its exceptions share no other base
            raise BundleError(f"{model}: cannot be loaded: {_reason(problem)}") from problem
        check_used(names, self._session.get_providers())
        self.name = f"ONNX Runtime {ort.__version__}, {', '.join(names)}"
        self.takes_image_size = self._check_interface()

    def _check_interface(self) -> bool:
        """Whether `image_size` is there, as an input or as an initializer to override."""
        session = self._session
        inputs = {i.name for i in session.get_inputs()}
        optional = {i.name for i in session.get_overridable_initializers()}
        outputs = {o.name for o in session.get_outputs()}
        if "image" not in inputs or inputs - {"image", "image_size"}:
            raise BundleError(
                f"{self.path}: has the inputs {sorted(inputs)}, expected `image` and "
                "optionally `image_size`; export it with this program"
            )
        if not {"class_logits", "mask_logits"} <= outputs:
            raise BundleError(
                f"{self.path}: has the outputs {sorted(outputs)}, expected `class_logits` "
                "and `mask_logits`; export it with this program"
            )
        return "image_size" in inputs | optional

    def run(
        self, image: NDArray[np.uint8], image_size: NDArray[np.int64]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Runs a batch; see `m2f.runtime.backend.Backend.run`.

        Raises:
            M2FError: ONNX Runtime failed, e.g. for want of memory.
            UsageError: The backend was closed.
        """
        if self._session is None:
            raise UsageError("the backend was closed; load the bundle again")
        feed: dict[str, NDArray[Any]] = {"image": image}
        if self.takes_image_size:
            feed["image_size"] = image_size
        try:
            class_logits, mask_logits = self._session.run(["class_logits", "mask_logits"], feed)
        except Exception as problem:
            raise M2FError(
                f"{self.path.name} failed on an input of {list(image.shape)}: "
                f"{_reason(problem)}"
            ) from problem
        return class_logits, mask_logits

    def close(self) -> None:
        """Frees the network."""
        self._session = None

    def __enter__(self) -> OrtBackend:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _register(options: Any, model: Path) -> bool:
    """Gives a session the native kernels, or says once why not; whether it has them."""
    found = library.find()
    if found is not None:
        try:
            options.register_custom_ops_library(str(found))
            return True
        except Exception as problem:  # its exceptions share no other base
            why = f"{found} cannot be used: {_reason(problem)}"
    elif _has_custom_ops(model):
        why = f"m2f was installed without its native library; {library.HINT}"
    else:
        return False
    warnings.warn(f"{why}. Running the ops' portable form, which is slower", stacklevel=4)
    return False


def _has_custom_ops(model: Path) -> bool:
    """Whether the file names one of our ops. Reads it once; weights are mostly elsewhere."""
    if model.stat().st_size == 0:
        return False
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return any(data.find(op.name.encode()) >= 0 for op in OPS)


def _reason(problem: Exception) -> str:
    """The sentence in ONNX Runtime's message, without its source locations."""
    text = str(problem).strip().splitlines()
    first = text[0] if text else type(problem).__name__
    first = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", first)
    return first if len(first) <= 300 else first[:297] + "..."
