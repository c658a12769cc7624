"""A small bundle, and one of the same model that answers a little differently."""

import shutil

import numpy as np
import onnx
from onnx import numpy_helper

from m2f.bundle import CPU_MODEL, MANIFEST, WEIGHTS, Bundle, write_manifest


def coarse(bundle, path, *, steps):
    """A copy whose large weights are rounded to so many steps each side of zero."""
    shutil.copytree(bundle, path)
    manifest = Bundle.open(path).manifest
    file = path / "model.onnx"
    model = onnx.load(file)
    for name in (CPU_MODEL, WEIGHTS):  # of the weights as they were
        (path / name).unlink(missing_ok=True)
    for tensor in model.graph.initializer:
        weight = numpy_helper.to_array(tensor)
        if weight.dtype == np.float32 and weight.size > 500:
            step = np.abs(weight).max() / steps
            rounded = (np.round(weight / step) * step).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    onnx.save(model, file)
    (path / MANIFEST).unlink()
    write_manifest(path, manifest)
    return path
