"""Image processing on a `StandInDevice`: kernels compiled for the CPU, run on its streams.

So a kernel runs as late as CUDA allows, on what is in memory by then; what it points to on
the host is read when it is launched. Its memory is the emulator's while it runs, which notices
what is read before it is written, and what lies outside.
"""

import copy
import ctypes

import numpy as np

from tests.cuda_on_cpu.build import Order, Unwritten
from tests.runtime.stand_in.device import Entry


class StandInKernels:
    """What `m2f.runtime.native_cuda.Kernels.library` is.

    Attributes:
        launched: Names of what was.
        answers: Status by name, returned instead of launching.
    """

    def __init__(self, device, emulated):
        self.device, self.emulated = device, emulated
        self.launched, self.answers = [], {}

    def m2f_cuda_panoptic(self, size, masks, index, n, scores, rules, codes, counts, stream):
        reads = {0: size, **self._planes(masks, index, n), 4: (scores, 4 * n.value), 5: rules}
        writes = {6: (codes, 2 * pixels(size)), 7: (counts, 24 * n.value)}
        return self._launch("panoptic", reads, writes, stream)

    def m2f_cuda_semantic(self, size, masks, index, n, weights, k, first, labels, stream):
        weights = (weights, 4 * n.value * k.value)
        reads = {0: size, **self._planes(masks, index, n), 4: weights, 5: k, 6: first}
        return self._launch("semantic", reads, {7: (labels, 4 * pixels(size))}, stream)

    def m2f_cuda_instance(self, size, masks, index, n, bits, total, inside, stream):
        height, width = size._obj.output
        each = 8 * n.value
        writes = {4: (bits, n.value * height * -(-width // 8)), 5: (total, each)}
        reads = {0: size, **self._planes(masks, index, n)}
        return self._launch("instance", reads, {**writes, 6: (inside, each)}, stream)

    def m2f_cuda_count_not_finite(self, values, count, found, stream):
        reads = {0: (values, 4 * count.value), 1: count}
        return self._launch("count_not_finite", reads, {2: (found, 8)}, stream)

    def m2f_cuda_resize(self, size, image, rows, columns, rows_first, slot, stream):
        tables = zip(size._obj.resized, size._obj.stride, (rows, columns), strict=True)
        rows, columns = ((table, 4 * n * (2 + stride)) for n, stride, table in tables)
        reads = {0: size, 1: decoded(image, size), 2: rows, 3: columns, 4: rows_first}
        return self._launch("resize", reads, {5: padded(slot, size)}, stream)

    def m2f_cuda_resize_nearest(self, size, image, slot, stream):
        reads = {0: size, 1: decoded(image, size)}
        return self._launch("resize_nearest", reads, {2: padded(slot, size)}, stream)

    def _planes(self, masks, index, n):
        block = self.device.find(masks.value, 1, "device")
        rest = block.pointer + block.nbytes - masks.value  # of its batch
        return {1: (masks, rest), 2: (index, 8 * n.value), 3: n}

    def _launch(self, name, reads, writes, stream):
        """Arguments by position; memory is (pointer, bytes)."""
        if name in self.answers:
            return self.answers[name]
        arguments = {**reads, **writes}
        memory = {i: (a[0].value, a[1]) for i, a in arguments.items() if isinstance(a, tuple)}
        values = {i: taken(a) for i, a in arguments.items() if i not in memory}

        def run():
            given = dict(values)
            for i, (pointer, nbytes) in memory.items():
                array = self.device.find(pointer, nbytes, "device").view(pointer, nbytes)
                given[i] = array.view(Unwritten) if i in writes else array
            ordered = [given[i] for i in sorted(given)]
            found = self.emulated.call(f"m2f_cuda_{name}", *ordered, None, order=Order.SHUFFLED)
            assert found == "", found

        self.launched.append(name)
        self.device.enqueue(stream.value or 0, Entry(name, tuple(memory.values()), run))
        return 0


def pixels(size):
    return int(np.prod(size._obj.output))


def decoded(image, size):
    return image, 3 * int(np.prod(size._obj.image))


def padded(slot, size):
    return slot, 3 * int(np.prod(size._obj.padded))


def taken(argument):
    """A launch copies what its references point to."""
    if hasattr(argument, "_obj"):
        return ctypes.byref(copy.copy(argument._obj))
    return argument
