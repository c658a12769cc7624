"""The stand-in notices what it is there for: each bug is put into the runtime and found."""

import numpy as np
import pytest

from m2f.bundle import Bundle
from m2f.runtime.backend_ort import OrtBackend
from m2f.runtime.backend_trt import TrtBackend
from m2f.runtime.buffers import Slot
from m2f.runtime.trt_engine import TrtEngine
from tests.runtime import toy
from tests.runtime.stand_in import tensorrt
from tests.runtime.stand_in.device import Misuse, StandInDevice
from tests.runtime.stand_in.engine import write_engine
from tests.runtime.test_backend_trt import batch, same


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = toy.write(tmp_path_factory.mktemp("bugs") / "toy", height=(1, 256), width=(1, 256))
    write_engine(path)
    return path


class Wrong(AssertionError):
    """A result that is not the CPU's, or something that was never freed."""


@pytest.fixture
def use(bundle):
    """Uses the runtime as a session would: sizes and batches in turn, two in flight."""

    def run():
        device = StandInDevice()
        (engine,) = (bundle / "engines").glob("*.engine")
        trt = tensorrt.module(device)
        backend = TrtBackend(engine, device, bundle=Bundle.open(bundle), trt=trt)
        cpu = OrtBackend(bundle / "model.onnx", threads=1)
        backend.warm_up((1, 64, 96), (2, 32, 32))
        device.seal()
        before = None
        for seed in range(6):
            given = batch(*((1, 64, 96) if seed % 3 else (2, 32, 32)), seed=seed)
            flight = backend.submit(*given)
            if before is not None:
                with before[0]:
                    if not same(before[0].logits(), cpu.run(*before[1])):
                        raise Wrong("another result")
            before = flight, given
        before[0].release()
        for seed in range(4):  # given up before they are done, as when somebody interrupts
            backend.submit(*batch(1, 64, 96, seed=seed)).release()
        backend.close()
        if device.held():
            raise Wrong(f"never freed: {device.held()}")

    return run


def test_without_a_bug(use):
    use()


def replaced(monkeypatch, owner, name, make):
    """Puts ``make(original)`` in a function's place."""
    monkeypatch.setattr(owner, name, make(getattr(owner, name)))


def does_not_wait(patch):
    replaced(patch, StandInDevice, "wait_for", lambda f: lambda self, event: None)


def does_not_wait_before_memory_is_used_again(patch):
    def returned(f):
        def give(self, lane):
            lane.leases = 0
            self._free.appendleft(lane)

        return give

    replaced(patch, TrtBackend, "_return", returned)


def frees_twice(patch):
    def closed(f):
        def close(self):
            pointer = self.tensors["image"].pointer
            self._held.callback(lambda: patch.device.free(pointer))
            f(self)

        return close

    def remember(f):
        def allocate(self, nbytes):
            patch.device = self
            return f(self, nbytes)

        return allocate

    replaced(patch, StandInDevice, "allocate", remember)
    replaced(patch, Slot, "close", closed)


def never_frees(patch):
    replaced(patch, Slot, "close", lambda f: lambda self: None)


def frees_while_it_runs(patch):
    replaced(patch, StandInDevice, "synchronize", lambda f: lambda self, stream: None)


def allocates_for_every_batch(patch):
    def submitted(f):
        def submit(self, *given):
            self.device.free_pinned(self.device.allocate_pinned(16))
            return f(self, *given)

        return submit

    replaced(patch, TrtBackend, "submit", submitted)


def makes_a_stream_for_every_batch(patch):
    def submitted(f):
        def submit(self, *given):
            self.device.destroy_stream(self.device.create_stream())
            return f(self, *given)

        return submit

    replaced(patch, TrtBackend, "submit", submitted)


def copies_too_much(patch):
    def uploaded(f):
        def upload(self, pointer, memory, stream):
            block = self.find(memory.ctypes.data, memory.nbytes)
            return f(self, pointer + 256, block.view(block.pointer, block.nbytes), stream)

        return upload

    replaced(patch, StandInDevice, "upload", uploaded)


def copies_from_memory_that_is_not_pinned(patch):
    def uploaded(f):
        def upload(self, pointer, memory, stream):
            return f(self, pointer, memory.copy(), stream)

        return upload

    replaced(patch, StandInDevice, "upload", uploaded)


def mixes_up_host_and_device(patch):
    def uploaded(f):
        def upload(self, pointer, memory, stream):
            return f(self, memory.ctypes.data, memory, stream)

        return upload

    replaced(patch, StandInDevice, "upload", uploaded)


def forgets_the_image_size(patch):
    replaced(patch, TrtBackend, "_stage_size", lambda f: lambda self, *a: None)


def runs_on_another_stream(patch):
    replaced(patch, TrtEngine, "enqueue", lambda f: lambda self, c, stream: f(self, c, 0))


def marks_the_end_too_early(patch):
    def recorded(f):
        def start(self, lane, plan, extent):
            self.device.record(lane.slot.done, lane.slot.stream)
            patch.setattr(StandInDevice, "record", lambda *a: None)
            f(self, lane, plan, extent)

        return start

    replaced(patch, TrtBackend, "_start", recorded)


def captures_before_the_first_run(patch):
    def started(f):
        def start(self, lane, plan, extent):
            plan.runs = max(plan.runs, 1)
            f(self, lane, plan, extent)

        return start

    replaced(patch, TrtBackend, "_start", started)


def changes_a_context_it_captured(patch):
    def planned(f):
        def plan(self, lane, extent, source):
            found = f(self, lane, extent, source)
            self._engine.set_address(found.context, "image", lane.slot.tensors["image"].pointer)
            return found

        return plan

    replaced(patch, TrtBackend, "_plan", planned)


def uses_one_context_for_all_sizes(patch):
    def made(f):
        def context(self, slot, extent):
            if not hasattr(slot, "only"):
                slot.only = f(self, slot, extent)
            self._set_shapes(slot.only, extent)
            return slot.only

        return context

    replaced(patch, TrtEngine, "context", made)


def replays_the_graph_of_another_size(patch):
    def planned(f):
        def plan(self, lane, extent, source):
            found = f(self, lane, extent, source)
            graphs = [p.graph for p in lane.plans.values() if p.graph is not None]
            found.graph = graphs[0] if graphs else None
            return found

        return plan

    replaced(patch, TrtBackend, "_plan", planned)


def shares_scratch_memory(patch):
    shared = []

    def made(f):
        def context(self, slot, extent):
            shared.append(slot)
            found = f(self, slot, extent)
            found.set_device_memory(shared[0].scratch, slot.scratch_bytes)
            return found

        return context

    replaced(patch, TrtEngine, "context", made)


def gives_too_little_scratch_memory(patch):
    replaced(patch, TrtEngine, "_scratch_bytes", lambda f: lambda self: 16)


def keeps_graphs(patch):
    replaced(patch, TrtBackend, "_drop", lambda f: lambda self, plan: None)


BUGS = [
    does_not_wait,
    does_not_wait_before_memory_is_used_again,
    frees_twice,
    never_frees,
    frees_while_it_runs,
    allocates_for_every_batch,
    makes_a_stream_for_every_batch,
    copies_too_much,
    copies_from_memory_that_is_not_pinned,
    mixes_up_host_and_device,
    forgets_the_image_size,
    runs_on_another_stream,
    marks_the_end_too_early,
    captures_before_the_first_run,
    changes_a_context_it_captured,
    uses_one_context_for_all_sizes,
    replays_the_graph_of_another_size,
    shares_scratch_memory,
    gives_too_little_scratch_memory,
    keeps_graphs,
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_bug_is_found(use, monkeypatch, bug):
    bug(monkeypatch)
    with pytest.raises((Misuse, Wrong)):
        use()


def test_writing_outside_is_found():
    device = StandInDevice()
    pointer = device.allocate(100)
    block = device.find(pointer, 100)
    start = block.pointer - block.buffer.ctypes.data
    block.buffer[start + 100] = 0
    with pytest.raises(Misuse, match="outside 100 bytes"):
        device.free(pointer)


def test_fresh_memory_is_not_zero():
    device = StandInDevice()
    pinned = device.allocate_pinned(16)
    assert np.isnan(pinned.view(np.float32)).all()
    device.free_pinned(pinned)
