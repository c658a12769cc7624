"""What each exact rewrite saves, by writing the network with it and without.

Costs depend on shapes only, so the networks are written with weights that are all zero and
take no memory.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from m2f.bench.cost import Cost, CostReport, cost
from m2f.bench.shapes import FEW
from m2f.bundle import Form
from m2f.config import ModelConfig, Preprocess
from m2f.export.algebra import ALL, Algebra
from m2f.export.exporter import Options
from m2f.export.network import onnx_from_weights
from m2f.models.checkpoint import weight_shapes


@dataclass(frozen=True, slots=True)
class Saving:
    """Of one rewrite, the others being made; or of all together.

    Attributes:
        rewrite: A field of `m2f.export.algebra.Algebra`, or "all".
        saved: The cost without it less the cost with it.
    """

    rewrite: str
    saved: Cost


def savings(
    config: ModelConfig,
    preprocess: Preprocess,
    size: tuple[int, int],
    *,
    form: Form = "plugin",
) -> list[Saving]:
    """What the rewrites save on one image of a fixed size, in FP32.

    Each as what leaving out it alone would cost; last all of them together, against the
    network as the paper writes it.

    Args:
        config: The model.
        preprocess: Its preprocessing.
        size: Height and width, pixels.
        form: Of the exported file.
    """
    without = {name: dataclasses.replace(ALL, **{name: False}) for name in ALL.names}
    without["all"] = Algebra.none()
    least = cost_of_model(config, preprocess, size, form=form).total
    totals = {
        name: cost_of_model(config, preprocess, size, form=form, algebra=algebra).total
        for name, algebra in without.items()
    }
    return [Saving(name, total - least) for name, total in totals.items()]


def cost_of_model(
    config: ModelConfig,
    preprocess: Preprocess,
    size: tuple[int, int],
    *,
    form: Form = "plugin",
    algebra: Algebra = ALL,
) -> CostReport:
    """Counts the network that an export for one size and one image would write, in FP32."""
    zero = np.float32(0)
    weights = {
        name: np.broadcast_to(zero, shape) for name, shape in weight_shapes(config).items()
    }
    model, arrays = onnx_from_weights(
        config,
        weights,
        preprocess=preprocess,
        profile=Options(size=size).profile(preprocess),
        form=form,
        algebra=algebra,
    )
    for name, array in arrays.items():
        if array.size <= FEW:
            tensor = numpy_helper.from_array(array, name)
        else:
            tensor = onnx.TensorProto(
                name=name,
                dims=array.shape,
                data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
                data_location=onnx.TensorProto.EXTERNAL,
            )
        model.graph.initializer.append(tensor)
    return cost(model, (1, *size))
