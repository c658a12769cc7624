"""Checkpoints in and out: official, Hugging Face and mmdetection, read as data only.

container   a file's bytes to named tensors (pickles, torch_file, safetensors_file)
recognise   whose names they are, and which model their shapes make
names       every weight's name in every format (name_tables)
fit         what is missing, unexpected or misshapen, all at once
metadata    classes, sizes and thresholds, from the file or the matching preset
"""

from m2f.models.checkpoint.read import Checkpoint, read
from m2f.models.checkpoint.shapes import weight_shapes
from m2f.models.checkpoint.write import write_hf, write_official

__all__ = ["Checkpoint", "read", "weight_shapes", "write_hf", "write_official"]
