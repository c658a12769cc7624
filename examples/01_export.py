"""A checkpoint becomes a bundle: `python 01_export.py CHECKPOINT BUNDLE`.

The checkpoint may be an official .pkl or .pth, a Hugging Face folder or hub id, or an
mmdetection .pth. Needs `pip install 'm2f-deploy[export]'`.
"""

import sys

from m2f.export import Options, export

source, target = sys.argv[1:]
options = Options(form="plugin", min_size=(64, 64), max_size=(1344, 1344), overwrite=True)
bundle = export(source, target, options=options, progress=print)

parity = bundle.manifest.parity
assert parity is not None
print(f"{bundle.path}: input {bundle.manifest.profile}")
print(f"relative error against PyTorch: {parity.mask_error:.1e} (at most {parity.limit:.0e})")
