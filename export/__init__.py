"""From a checkpoint to an ONNX bundle: ``export(source, bundle)``.

Reading order: graph (the builder), layers, ops (the two custom ops and their portable
bodies), backbones, pixel_decoder, transformer_decoder with mask_head, network (all of it);
algebra (the exact rewrites); exporter (to a bundle), parity (the proof).
"""

from m2f.export.algebra import Algebra
from m2f.export.exporter import Options, export

__all__ = ["Algebra", "Options", "export"]
