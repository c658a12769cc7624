"""From a checkpoint to an ONNX bundle: ``export(source, bundle)``.

Reading order: graph (the builder), layers, ops (the two custom ops and their portable
bodies), backbones, heads, network (all of it), exporter (to a bundle), parity (the proof).
"""

from m2f.export.exporter import Options, export

__all__ = ["Options", "export"]
