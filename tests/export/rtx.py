"""Builds an ONNX file with TensorRT for RTX, which needs no GPU: `python rtx.py FILE SM...`.

Run as a process of its own: the libraries end the process where they would better complain.
Prints a line of JSON: the engine's size in bytes, 0 where the builder refused, and for each
kind of layer how often the builder was given which type of input.
"""

import collections
import ctypes
import importlib.util
import json
import sys
from pathlib import Path

LIBRARIES = ("libtensorrt_rtx.so.*", "libtensorrt_onnxparser_rtx.so.*")


def libraries():
    """The shared libraries of the wheel that carries them; none where it is absent."""
    package = importlib.util.find_spec("onnxruntime_ep_nv_tensorrt_rtx")
    bindings = importlib.util.find_spec("tensorrt_rtx_bindings")
    if package is None or bindings is None:
        return []
    folder = Path(package.submodule_search_locations[0])
    return [next(folder.rglob(pattern), None) for pattern in LIBRARIES]


def needs_rtx():
    """Skips a test, visibly, where TensorRT for RTX is not installed."""
    import pytest

    if not libraries() or not all(libraries()):
        pytest.skip(
            "TensorRT for RTX is not installed (tensorrt-rtx-cu13-bindings, "
            "onnxruntime-ep-nv-tensorrt-rtx-cu13)"
        )


def build(path, capabilities):
    """Size of the engine for these compute capabilities, bytes, 0 if there is none; types."""
    for library in libraries():
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    import tensorrt_rtx_bindings as trt

    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, builder.logger)
    if not parser.parse_from_file(path):
        sys.exit("; ".join(parser.get_error(i).desc() for i in range(parser.num_errors)))
    config = builder.create_builder_config()
    if -1 in network.get_input(0).shape:
        profile = builder.create_optimization_profile()
        profile.set_shape("image", (1, 256, 256, 3), (1, 512, 512, 3), (2, 1024, 1024, 3))
        config.add_optimization_profile(profile)
    config.num_compute_capabilities = len(capabilities)
    for i, name in enumerate(capabilities):
        config.set_compute_capability(getattr(trt.ComputeCapability, name), i)
    engine = builder.build_serialized_network(network, config)
    return engine.nbytes if engine is not None else 0, types(network)


def types(network):
    """Of the first inputs: {"CONVOLUTION": {"HALF": 53}, ...}."""
    found = collections.defaultdict(collections.Counter)
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        if layer.num_inputs:
            found[layer.type.name][layer.get_input(0).dtype.name] += 1
    return found


if __name__ == "__main__":
    size, given = build(sys.argv[1], sys.argv[2:])
    print(json.dumps({"bytes": size, "types": given}))
