"""How good a model is on data with ground truth: data sets, metrics, reports.

``evaluate(bundle, open_data(path, task="panoptic"))`` gives a `Report`.
"""

from m2f.evaluate.data import open_data
from m2f.evaluate.evaluation import evaluate
from m2f.evaluate.mapping import Matching
from m2f.evaluate.page import write_page
from m2f.evaluate.report import Report
from m2f.evaluate.store import Keep

__all__ = ["Keep", "Matching", "Report", "evaluate", "open_data", "write_page"]
