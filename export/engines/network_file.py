"""A bundle's ONNX file as TensorRT is to read it."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.inliner
from onnx import helper

from m2f.bundle import MODEL, WEIGHTS, Bundle
from m2f.export.network import IMAGE, IMAGE_SIZE
from m2f.plugins import OPS


def write_network(bundle: Bundle, folder: Path, *, with_plugins: bool) -> Path:
    """Writes the file a parser is given.

    `image_size` becomes an input like any other: TensorRT takes what has a default for a
    constant, and an engine could then not tell an image from its padding. The bodies of our
    ops are put in their places, or, where TensorRT has the plugins, taken away: parsers
    before 10.7 prefer a body to a plugin.

    Args:
        bundle: Of either form.
        folder: Where to; large weights are not copied there but linked.
        with_plugins: The parser finds our ops in its registry.
    """
    model = onnx.load(str(bundle.model_path), load_external_data=False)
    _require_image_size(model.graph)
    if with_plugins:
        _name_plugins(model)
    elif model.functions:
        model = onnx.inliner.inline_local_functions(model)
    if (bundle.path / WEIGHTS).is_file():
        (folder / WEIGHTS).symlink_to((bundle.path / WEIGHTS).resolve())
    path = folder / MODEL
    path.write_bytes(model.SerializeToString())
    return path


def _require_image_size(graph: onnx.GraphProto) -> None:
    inputs = {i.name: i for i in graph.input}
    if IMAGE_SIZE not in inputs:
        return
    for i, tensor in enumerate(graph.initializer):
        if tensor.name == IMAGE_SIZE:
            del graph.initializer[i]
            break
    # One row for each image; the default's single row for all of them is gone.
    rows = inputs[IMAGE_SIZE].type.tensor_type.shape.dim[0]
    rows.CopyFrom(inputs[IMAGE].type.tensor_type.shape.dim[0])


def _name_plugins(model: onnx.ModelProto) -> None:
    """Says in attributes what parsers before 10.10 do not read from a node's domain."""
    domain = OPS[0].domain
    del model.functions[:]
    for node in model.graph.node:
        if node.domain == domain:
            version = next(op.version for op in OPS if op.name == node.op_type)
            node.attribute.append(helper.make_attribute("plugin_namespace", domain))
            node.attribute.append(helper.make_attribute("plugin_version", str(version)))
