"""Other programs that run Mask2Former on a CPU, all with our weights in transformers' model.

hugging_face: the model and its ONNX export; pytorch: eager and compiled; exported: ONNX
Runtime and OpenVINO on that export. A peer's libraries are imported when it is opened.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from m2f.bench.contestants import Contestant
from m2f.errors import UsageError
from m2f.models.checkpoint import Checkpoint

Runtime = Literal["eager", "compiled", "onnxruntime", "openvino"]


@dataclass(frozen=True, slots=True)
class Peer:
    """One of them.

    Attributes:
        key: What it is asked for by.
        name: For people.
        runtime: What runs it.
        precision: "fp32" or "bf16".
        needs: Distributions it is imported from, by the modules they bring.
    """

    key: str
    name: str
    runtime: Runtime
    precision: str
    needs: tuple[str, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Libraries that are not installed."""
        return tuple(name for name in self.needs if importlib.util.find_spec(name) is None)

    @property
    def install(self) -> str:
        """The command that brings what is missing."""
        return f"pip install {' '.join(self.missing)}"

    def open(
        self, checkpoint: Checkpoint, size: tuple[int, int], *, threads: int, cache: Path | None
    ) -> Contestant:
        """Loads it.

        Args:
            checkpoint: The weights.
            size: Of the image, height and width, pixels.
            threads: Cores to use.
            cache: Where exports are kept; see `hugging_face.onnx_from_checkpoint`.
        """
        if self.runtime in ("eager", "compiled"):
            from m2f.bench.peers.pytorch import PyTorch

            is_compiled = self.runtime == "compiled"
            return PyTorch(
                checkpoint, self.name, self.precision, is_compiled=is_compiled, threads=threads
            )
        from m2f.bench.peers.exported import OnnxRuntime, OpenVino
        from m2f.bench.peers.hugging_face import onnx_from_checkpoint

        model = onnx_from_checkpoint(checkpoint, size, cache)
        preprocess = checkpoint.metadata.preprocess
        if self.runtime == "onnxruntime":
            return OnnxRuntime(model, self.name, preprocess, threads=threads)
        return OpenVino(model, self.name, self.precision, preprocess, threads=threads)


_MODEL = ("torch", "transformers")
_EXPORT = (*_MODEL, "onnxscript")
PEERS = (
    Peer("eager", "transformers, eager", "eager", "fp32", _MODEL),
    Peer("eager-bf16", "transformers, eager", "eager", "bf16", _MODEL),
    Peer("compiled", "transformers, torch.compile", "compiled", "fp32", _MODEL),
    Peer("compiled-bf16", "transformers, torch.compile", "compiled", "bf16", _MODEL),
    Peer("onnxruntime", "transformers' export, ONNX Runtime", "onnxruntime", "fp32", _EXPORT),
    Peer(
        "openvino", "transformers' export, OpenVINO", "openvino", "fp32", (*_EXPORT, "openvino")
    ),
    Peer(
        "openvino-bf16",
        "transformers' export, OpenVINO",
        "openvino",
        "bf16",
        (*_EXPORT, "openvino"),
    ),
)
"""ONNX Runtime has no BF16 kernels for x86, so it is here only once."""


def peers_of(keys: tuple[str, ...]) -> tuple[Peer, ...]:
    """Peers by what they are asked for by.

    Raises:
        UsageError: One is not known.
    """
    known = {peer.key: peer for peer in PEERS}
    if unknown := [key for key in keys if key not in known]:
        raise UsageError(f"no peer is named {unknown[0]!r}; there are {', '.join(known)}")
    return tuple(known[key] for key in dict.fromkeys(keys))
