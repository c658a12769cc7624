"""Masks for supervision's annotators: `python 03_supervision.py BUNDLE IMAGE PICTURE`.

Trackers, zones and the rest of supervision take the same `Detections`. Needs
`pip install 'm2f-deploy[supervision]'`.
"""

import sys

import supervision
from PIL import Image

import m2f

bundle, image, picture = sys.argv[1:]
with m2f.load(bundle, task="instance") as session:
    detections = session(image).above(0.5).to_supervision()

scene = Image.open(image).convert("RGB")
scene = supervision.MaskAnnotator().annotate(scene, detections)
scene = supervision.LabelAnnotator().annotate(scene, detections)
scene.save(picture)
print(f"{len(detections)} instances")
