"""The network as our CPU kernels take it: groups of nodes that one kernel does in one pass.

A pass over the finished graph, like precision. What it writes stands in `model.cpu.onnx`,
beside the standard file and over the same weights; its ops, of the domain `m2f.cpu`, are in our
native library only. Each fusion is a module here: it proposes what to replace, and `replace`
sees to it that nothing else needed it.
"""

from m2f.export.fused.match import DOMAIN
from m2f.export.fused.network import FUSIONS, fuse

__all__ = ["DOMAIN", "FUSIONS", "fuse"]
