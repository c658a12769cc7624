"""Contestants that do what a test needs."""

import numpy as np

from m2f.bench.entries import Entry

OUTPUTS = (np.ones((1, 2, 3), np.float32), np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2))


class Fake:
    """Gives ``outputs``, and from its ``until``-th run on twice as much."""

    def __init__(self, name="fake", precision="fp32", *, until=None, fails=False):
        self.name, self.precision = name, precision
        self.until, self.fails, self.runs = until, fails, 0

    def bind(self, image):
        def run():
            self.runs += 1
            if self.fails:
                raise RuntimeError("no such kernel\nat somewhere.cpp:7")
            factor = 2 if self.until is not None and self.runs >= self.until else 1
            return OUTPUTS[0], factor * OUTPUTS[1]

        return run

    def close(self):
        pass


def entry(*words, role="peer", **options):
    return Entry(role, Fake(*words, **options))
