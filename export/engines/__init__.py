"""From a bundle to TensorRT engines: ``build(bundle)``.

Reading order: builder (what is asked for, what is there already, where it goes), worker (the
process that runs TensorRT), network_file (what TensorRT is given to read), layers.
"""

from m2f.export.engines.builder import BuildOptions, BuildReport, build

__all__ = ["BuildOptions", "BuildReport", "build"]
