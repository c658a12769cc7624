"""Several bundles of one model side by side: accuracy, agreement, size, speed, memory.

``compare(["coco.m2f", "coco-int8.m2f"], data="annotations.json")`` gives a `Comparison`;
`write_comparison` makes the page of it.
"""

from m2f.evaluate.comparison.compare import compare
from m2f.evaluate.comparison.page import write_comparison
from m2f.evaluate.comparison.result import Comparison, Row

__all__ = ["Comparison", "Row", "compare", "write_comparison"]
