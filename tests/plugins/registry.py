"""The plugin library in a real TensorRT: `python registry.py LIBRARY [ONNX FILE]`.

Run as a process of its own: TensorRT for RTX, which needs no GPU, has TensorRT's plugin
registry and ONNX parser but no plugin layers, and ends the process where the parser would add
one. Prints a line of JSON of what the registry has; then the parser's log tells what it
created.
"""

import json
import sys

import numpy as np

from m2f.plugins.trt import load, load_plugins

TYPES = {"float32": "FLOAT32", "int32": "INT32"}


def creators(registry, domain):
    """Of each of our creators: name, version, and the fields it reads."""
    return [
        [c.name, c.plugin_version, [[f.name, f.type.name] for f in c.field_names]]
        for c in registry.all_creators
        if c.plugin_namespace == domain
    ]


def create(trt, registry, name, **attributes):
    """What a plugin of these attributes says of itself: name, version, namespace."""
    fields = []
    for key, value in attributes.items():
        array = np.atleast_1d(np.asarray(value))
        array = array.astype(np.float32 if array.dtype.kind == "f" else np.int32)
        kind = getattr(trt.PluginFieldType, TYPES[str(array.dtype)])
        fields.append(trt.PluginField(key, array, kind))
    creator = registry.get_creator(name, "1", "m2f")
    collection = trt.PluginFieldCollection(fields)
    plugin = creator.create_plugin("layer", collection, trt.TensorRTPhase.BUILD)
    if plugin is None:
        return None
    core = plugin.get_capability_interface(trt.PluginCapabilityType.CORE)
    return [core.plugin_name, core.plugin_version, core.plugin_namespace]


def main(library, path=None):
    trt = load("tensorrt-rtx")
    logger = trt.Logger(trt.Logger.VERBOSE if path else trt.Logger.WARNING)
    builder = trt.Builder(logger)
    registry = trt.get_plugin_registry()
    load_plugins(trt, library)
    found = {
        "version": trt.__version__,
        "creators": creators(registry, "m2f"),
        "attention": create(trt, registry, "MaskedAttention", heads=8),
        "deformable": create(
            trt,
            registry,
            "MSDeformAttn",
            heads=8,
            points=4,
            level_shapes=[2, 3],
            value_scale=0.5,
        ),
        "refused": create(trt, registry, "MaskedAttention"),
    }
    print(json.dumps(found), flush=True)
    if path:
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, logger)
        parser.parse_from_file(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
