"""Ranges from a user's images, and what of a network 8 bits are good enough for.

``calibrate(bundle, images, out)`` turns a float32 bundle into a quantised one. Reading order:
histogram, thresholds (from values to a range); probe, recording, record, cache (what passes
through a network); network (one bundle, quantised this way or that); sensitivity, judge, search
(what is better left alone); calibration (all of it); learnt (ranges from elsewhere).
"""

from m2f.calib.calibration import CalibrationReport, Limit, Options, calibrate
from m2f.calib.learnt import quantise
from m2f.calib.network import Form
from m2f.calib.thresholds import METHODS, Method, RangeRule

__all__ = [
    "METHODS",
    "CalibrationReport",
    "Form",
    "Limit",
    "Method",
    "Options",
    "RangeRule",
    "calibrate",
    "quantise",
]
