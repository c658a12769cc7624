"""Is the exported network still PyTorch's? Two implementations, the same images, one answer.

Masked attention decides, per query and position, whether to look. Where a mask logit lies
within rounding of zero, two correct implementations may decide differently, and everything
after that differs by more than rounding. So they are compared in two steps that together
prove more than comparing the outputs could: the decisions must agree except at logits
within rounding of the threshold (`tipped`, counted); and given the same decisions, every
number must agree within rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from m2f.config import Preprocess
from m2f.errors import BundleError
from m2f.export.bounds import BOUNDS, Bounds
from m2f.export.emulate import emulated, half_of
from m2f.export.half import DTYPES
from m2f.export.network import CLASS_LOGITS, IMAGE, IMAGE_SIZE, MASK_LOGITS, attention_logits
from m2f.models.mask2former import Mask2Former, network_input
from m2f.models.transformer_decoder import is_masked

Array = NDArray[Any]

RETYPING = frozenset({"Cast", "DequantizeLinear", "QuantizeLinear"})
"""Ops that give what they read in another type."""


@dataclass(frozen=True)
class Trace:
    """What one run computed.

    Attributes:
        class_logits: [N, Q, K + 1].
        mask_logits: [N, Q, H/4, W/4].
        decisions: Each decoder layer's mask logits, [N, Q, S]; negative is masked.
        layers: Outputs of modules, by the module's name.
    """

    class_logits: Array
    mask_logits: Array
    decisions: list[Array]
    layers: Mapping[str, Array] = field(default_factory=dict)


class Side(Protocol):
    """One of the two implementations to compare."""

    @property
    def name(self) -> str:
        """For people."""

    def layer_names(self) -> list[str]:
        """Modules whose output can be traced, in the order they run."""

    def run(
        self,
        image: Array,
        image_size: Array,
        *,
        forced: Sequence[Array] | None = None,
        layers: Sequence[str] = (),
    ) -> Trace:
        """Runs the network.

        Args:
            image: uint8 [N, H, W, 3].
            image_size: int64 [N, 2].
            forced: Each decoder layer's decisions, to use instead of its own.
            layers: Modules to trace.
        """


class TorchSide:
    """The reference model.

    Args:
        model: With its weights; float32 or float64.
        preprocess: Mean and standard deviation.
    """

    def __init__(self, model: Mask2Former, preprocess: Preprocess) -> None:
        self.model, self.preprocess = model.eval(), preprocess
        self.dtype = next(model.parameters()).dtype
        self.name = f"PyTorch {torch.__version__}, {str(self.dtype).removeprefix('torch.')}"

    def layer_names(self) -> list[str]:
        """See `Side`."""
        return [name for name, _ in self.model.named_modules() if name]

    def run(
        self,
        image: Array,
        image_size: Array,
        *,
        forced: Sequence[Array] | None = None,
        layers: Sequence[str] = (),
    ) -> Trace:
        """See `Side`."""
        masks = None if forced is None else [torch.from_numpy(f < 0) for f in forced]
        with torch.inference_mode(), self._tapped(set(layers)) as taps:
            images = network_input(
                torch.from_numpy(image),
                self.preprocess,
                image_size=torch.from_numpy(image_size),
            )
            output = self.model(images.to(self.dtype), forced_masks=masks)
        return Trace(
            output.class_logits.numpy(),
            output.mask_logits.numpy(),
            [decisions(logits) for logits in output.attention_logits],
            taps,
        )

    @contextmanager
    def _tapped(self, names: set[str]) -> Iterator[dict[str, Array]]:
        """Keeps the modules' outputs; the k-th call of one is called "name:k"."""
        taps: dict[str, Array] = {}

        def keep(name: str) -> Callable[[object, object, object], None]:
            calls = 0

            def hook(_module: object, _inputs: object, output: object) -> None:
                nonlocal calls
                key = f"{name}:{calls}" if calls else name
                calls += 1
                if key in names and isinstance(output, torch.Tensor):
                    taps[key] = output.numpy()

            return hook

        stems = {name.split(":")[0] for name in names}
        modules = [(n, m) for n, m in self.model.named_modules() if n in stems]
        handles = [module.register_forward_hook(keep(name)) for name, module in modules]
        try:
            yield taps
        finally:
            for handle in handles:
                handle.remove()


def decisions(logits: torch.Tensor) -> Array:
    """Mask logits [N, Q, S] whose signs are PyTorch's decisions.

    It asks whether the sigmoid is below one half, which float32 rounds to one half for
    logits down to -6e-8: those are negative, and not masked.
    """
    size = logits.abs()
    return torch.where(is_masked(logits), -size, size).numpy()


class OnnxSide:
    """An exported file in ONNX Runtime on the CPU.

    Args:
        path: The ONNX file.
        layers: Decoder layers of the model.
        threads: Cores to use; all unless given.
        library: Of the ops' native kernels; without it their bodies in the file run.
    """

    def __init__(
        self,
        path: Path,
        layers: int,
        *,
        threads: int | None = None,
        library: Path | None = None,
    ) -> None:
        import onnxruntime as ort  # type: ignore[import-untyped]

        self.path, self.threads, self.library = path, threads, library
        self.model = onnx.load(str(path), load_external_data=False)
        self._layers = [n.output[0] for n in self.model.graph.node if _is_module(n)]
        half = half_of(self.model)
        if half is not None:
            self.model = emulated(self.model, half)
        self.decisions = [attention_logits(i) for i in range(layers)]
        form = "plugin" if self.model.functions else "portable"
        kernels = ", native kernels" if library and self.model.functions else ""
        self.name = f"ONNX Runtime {ort.__version__}, {form}{kernels}"
        self.name += f", {DTYPES[half].name} emulated" if half is not None else ""
        missing = set(self.decisions) - {o for n in self.model.graph.node for o in n.output}
        if missing:
            raise BundleError(
                f"{path}: has no tensor {sorted(missing)[0]}, so its decisions cannot be "
                "compared; export it again"
            )
        self._made: tuple[tuple[tuple[str, ...], bool], Any] | None = None

    def layer_names(self) -> list[str]:
        """See `Side`."""
        return list(self._layers)

    def run(
        self,
        image: Array,
        image_size: Array,
        *,
        forced: Sequence[Array] | None = None,
        layers: Sequence[str] = (),
    ) -> Trace:
        """See `Side`."""
        feeds = {IMAGE: image, IMAGE_SIZE: image_size}
        if forced is not None:
            # Only the sign decides; one float type serves whatever the other side computed.
            sides = (np.where(f < 0, -1, 1).astype(np.float32) for f in forced)
            feeds |= dict(zip(map(_forced_name, self.decisions), sides, strict=True))
        wanted = [CLASS_LOGITS, MASK_LOGITS, *self.decisions, *layers]
        key = (tuple(wanted), forced is not None)
        if self._made is None or self._made[0] != key:
            self._made = None  # the old one's memory, before the new one takes its own
            self._made = (key, self._session(wanted, is_forced=forced is not None))
        session = self._made[1]
        results = session.run(wanted, feeds)
        count = 2 + len(self.decisions)
        traced = dict(zip(layers, results[count:], strict=True))
        return Trace(results[0], results[1], results[2:count], traced)

    def _session(self, outputs: Sequence[str], *, is_forced: bool) -> Any:
        """A session that also returns inner tensors and may take decisions as inputs."""
        import onnxruntime as ort

        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        graph = model.graph
        if is_forced:
            names = set(self.decisions)
            for node in graph.node:
                node.input[:] = [_forced_name(i) if i in names else i for i in node.input]
            for name in self.decisions:
                graph.input.append(
                    onnx.helper.make_tensor_value_info(
                        _forced_name(name), onnx.TensorProto.FLOAT, [None, None, None]
                    )
                )
        known = {output.name for output in graph.output}
        graph.output.extend(onnx.ValueInfoProto(name=o) for o in outputs if o not in known)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if self.threads is not None:
            options.intra_op_num_threads = self.threads
        if self.library is not None:
            options.register_custom_ops_library(str(self.library))
        folder = str(self.path.parent.resolve())
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", folder
        )
        return ort.InferenceSession(
            model.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            # It rounds biases beyond what the file says, and wrongly beside 8-bit floats.
            disabled_optimizers=["WeightBiasQuantization"],
        )


@dataclass(frozen=True)
class Difference:
    """How far apart two runs are that made the same decisions.

    Attributes:
        class_error: Relative L2 of the class logits.
        mask_error: Relative L2 of the mask logits.
        mask_pixels: Share of mask pixels whose sign differs.
        tipped: Decisions that each side's own numbers would have made differently, per layer.
        decisions: How many decisions there are.
        worst_tipped: Largest distance from the threshold of a decision that differs, in
            units of its layer's root mean square.
        layers: Relative L2 of each traced module's output, in the order they run.
    """

    class_error: float
    mask_error: float
    mask_pixels: float
    tipped: tuple[int, ...]
    decisions: int
    worst_tipped: float
    layers: Mapping[str, float] = field(default_factory=dict)

    def is_within(self, bounds: Bounds = BOUNDS["fp32"]) -> bool:
        """Whether only rounding separates the two."""
        return (
            max(self.class_error, self.mask_error) <= bounds.error
            and self.mask_pixels <= bounds.pixels
            and self.worst_tipped <= bounds.reach
        )


def compare(
    a: Side, b: Side, image: Array, image_size: Array, *, trace_layers: bool = False
) -> Difference:
    """Runs both sides and measures how far apart they are.

    Side a runs freely, b with a's decisions; what b itself would have decided from the same
    inputs is compared layer by layer.

    Args:
        a: The reference.
        b: What is to be proved equal to it.
        image: uint8 [N, H, W, 3].
        image_size: int64 [N, 2].
        trace_layers: Also compare every module that both sides know by the same name.
    """
    names = shared_layers(a, b) if trace_layers else []
    first = a.run(image, image_size, layers=names)
    second = b.run(image, image_size, forced=first.decisions, layers=names)
    return difference(first, second)


def shared_layers(a: Side, b: Side) -> list[str]:
    """Modules that both sides know by the same name, in the order that b runs them."""
    known = {name.split(":")[0] for name in a.layer_names()}
    return [name for name in b.layer_names() if name.split(":")[0] in known]


def difference(first: Trace, second: Trace) -> Difference:
    """Measures two runs, the second of which was given the first's decisions."""
    tipped, worst = [], 0.0
    for x, y in zip(first.decisions, second.decisions, strict=True):
        differs = (x < 0) != (y < 0)
        tipped.append(int(differs.sum()))
        if tipped[-1]:
            scale = float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))
            distance = float(np.maximum(np.abs(x), np.abs(y))[differs].max())
            worst = max(worst, distance / scale)
    pixels = (first.mask_logits > 0) != (second.mask_logits > 0)
    shared = [
        name
        for name, array in second.layers.items()
        if name in first.layers and first.layers[name].shape == array.shape
    ]
    return Difference(
        class_error=relative_error(second.class_logits, first.class_logits),
        mask_error=relative_error(second.mask_logits, first.mask_logits),
        mask_pixels=float(pixels.mean()),
        tipped=tuple(tipped),
        decisions=sum(d.size for d in first.decisions),
        worst_tipped=worst,
        layers={n: relative_error(second.layers[n], first.layers[n]) for n in shared},
    )


def relative_error(actual: Array, expected: Array) -> float:
    """Relative L2 distance; infinite where the result is not finite."""
    if not np.isfinite(actual).all():
        return float("inf")
    expected = expected.astype(np.float64)
    norm = float(np.linalg.norm(expected.ravel()))
    distance = float(np.linalg.norm((actual - expected).ravel()))
    return distance / norm if norm else distance


def _is_module(node: onnx.NodeProto) -> bool:
    """Whether a node gives a module's result.

    Not where the exporter made its name up, which means nothing in another file; nor where it
    only gives a result in another type.
    """
    *_, kind, number = f".{node.output[0]}".rsplit(".", 2)
    is_numbered = kind == node.op_type and number.isdecimal()
    return not is_numbered and node.op_type not in RETYPING


def _forced_name(decision: str) -> str:
    return f"{decision}.forced"
