"""Segments of one image: `python 02_segment.py BUNDLE IMAGE PICTURE`. Needs no PyTorch."""

import sys

import m2f

bundle, image, picture = sys.argv[1:]
with m2f.load(bundle) as session:
    prediction = session(image)
    for segment in prediction.segments:
        print(f"{segment.name:16} {segment.area:8} pixels, score {segment.score}")
    prediction.overlay(image).save(picture)

    # The same network answers every task it was trained for.
    for task in session.metadata.tasks:
        print(f"{task}: {len(session(image, task=task).segments)} segments")
