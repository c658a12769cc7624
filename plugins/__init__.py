"""The custom ops of the `m2f` domain: their descriptions, and all that compiles."""

from m2f.plugins.spec import MASKED_ATTENTION, MS_DEFORM_ATTN, OPS, OpSpec

__all__ = ["MASKED_ATTENTION", "MS_DEFORM_ATTN", "OPS", "OpSpec"]
