"""The ops of our own: their descriptions, and all that compiles."""

from m2f.plugins.spec import FUSED, MASKED_ATTENTION, MS_DEFORM_ATTN, OPS, OpSpec

__all__ = ["FUSED", "MASKED_ATTENTION", "MS_DEFORM_ATTN", "OPS", "OpSpec"]
