"""A GPU that is not there: `m2f.runtime.device.Device` in host memory, checking every call.

Nothing on a stream happens when it is asked for. It happens as late as CUDA allows: when
somebody waits for it. So a result that is read too early is the memory's old content, and
what is overwritten or freed too early is noticed. What CUDA leaves undefined is a `Misuse`.
"""

import zlib
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from m2f.errors import DeviceError
from m2f.runtime.device import no_memory

GUARD = 256
"""Known bytes before and behind every piece of memory."""

GUARD_BYTE, FRESH_BYTE = 0xA5, 0xFF  # fresh floats are NaN
ALIGNMENT = 256


class Misuse(AssertionError):
    """Something that would crash, or worse, would not, on a GPU."""


@dataclass(eq=False)
class Block:
    """A piece of memory."""

    kind: str  # "device" or "pinned"
    nbytes: int
    buffer: np.ndarray
    pointer: int
    pending: int = 0  # entries of streams that will touch it

    def view(self, pointer, nbytes):
        start = pointer - self.buffer.ctypes.data
        return self.buffer[start : start + nbytes]

    def check_guards(self):
        start = self.pointer - self.buffer.ctypes.data
        guards = (self.buffer[start - GUARD : start], self.buffer[start + self.nbytes :])
        if any((guard != GUARD_BYTE).any() for guard in guards):
            raise Misuse(f"something was written outside {self.nbytes} bytes of {self.kind}")


@dataclass(eq=False)
class Entry:
    """One thing on a stream.

    Attributes:
        what: For messages.
        touches: (pointer, bytes) of all memory it reads or writes.
        do: Does it.
        renew: A fresh entry for the same thing, when a graph is launched again.
    """

    what: str
    touches: tuple
    do: object
    renew: object = None
    blocks: list = field(default_factory=list)


class StandInDevice:
    """One GPU with so much memory."""

    name, compute, dlpack = "Test RTX 1", 89, (1, 0)  # kDLCPU, so that NumPy takes it

    def __init__(self, memory=1 << 30):
        self.memory, self.is_sealed = memory, False
        self.blocks, self.streams, self.events, self.graphs = {}, {0: deque()}, {}, {}
        self.capturing = {}
        self.calls = []
        self.failures = {}
        self._handles = iter(range(101, 1 << 30, 2))

    # What tests ask.

    def seal(self):
        """From here on nothing may be acquired."""
        self.is_sealed = True

    def fail(self, call, text="injected"):
        """Makes the next call of this name fail, as a driver may."""
        self.failures[call] = text

    def held(self):
        """Everything acquired and not freed."""
        kinds = [block.kind for block in self.blocks.values()]
        kinds += ["stream"] * (len(self.streams) - 1)
        kinds += ["event"] * len(self.events) + ["graph"] * len(self.graphs)
        return sorted(kinds)

    def find(self, pointer, nbytes, kind=None):
        """The live memory that holds all of a range."""
        for block in self.blocks.values():
            if block.pointer <= pointer and pointer + nbytes <= block.pointer + block.nbytes:
                if kind in (None, block.kind):
                    return block
                raise Misuse(f"{kind} memory is needed, this is {block.kind}")
        raise Misuse(f"{nbytes} bytes at {pointer:#x} are not within live memory")

    def enqueue(self, stream, entry):
        """Puts something on a stream, or into the graph being captured there."""
        self._live("stream", self.streams, stream)
        if stream in self.capturing:
            self.capturing[stream].append(entry)
            return
        entry.blocks = [self.find(*touched) for touched in entry.touches]
        for block in entry.blocks:
            block.pending += 1
        self.streams[stream].append(entry)

    # `Device`.

    def free_bytes(self):
        used = sum(b.nbytes for b in self.blocks.values() if b.kind == "device")
        return self.memory - used

    def allocate(self, nbytes):
        self._acquire("allocate")
        if nbytes > self.free_bytes():
            raise no_memory(nbytes, self.free_bytes(), self.name)
        return self._block("device", nbytes).pointer

    def free(self, pointer):
        self._release("device", pointer)

    def allocate_pinned(self, nbytes):
        self._acquire("allocate_pinned")
        block = self._block("pinned", nbytes)
        return block.view(block.pointer, nbytes)

    def free_pinned(self, memory):
        self._release("pinned", memory.ctypes.data)

    def create_stream(self):
        self._acquire("create_stream")
        handle = next(self._handles)
        self.streams[handle] = deque()
        return handle

    def destroy_stream(self, stream):
        if self._live("stream", self.streams, stream):
            raise Misuse("a stream is destroyed with work on it")
        del self.streams[stream]

    def synchronize(self, stream):
        self._call("synchronize")
        queue = self._live("stream", self.streams, stream)
        if stream in self.capturing:
            raise Misuse("waiting for a stream that is being captured")
        while queue:
            self._step(queue)

    def create_event(self):
        self._acquire("create_event")
        handle = next(self._handles)
        self.events[handle] = None
        return handle

    def destroy_event(self, event):
        self._live("event", self.events, event)
        del self.events[event]

    def record(self, event, stream):
        self._live("event", self.events, event)
        mark = object()
        self.events[event] = (stream, mark)
        self.enqueue(stream, Entry("record", (), lambda: None))
        if stream not in self.capturing:
            self.streams[stream][-1].mark = mark

    def wait(self, stream, event):
        target = self._live("event", self.events, event)
        self.enqueue(stream, Entry("wait", (), lambda: self._until(target)))

    def wait_for(self, event):
        self._call("wait_for")
        target = self._live("event", self.events, event)
        if target is None:
            raise Misuse("waiting for an event that was never recorded")
        self._until(target)

    def milliseconds(self, start, end):
        for event in (start, end):
            stream, mark = self._live("event", self.events, event)
            if any(getattr(e, "mark", None) is mark for e in self.streams.get(stream, ())):
                raise Misuse("timing an event that has not passed")
        return 1.0

    def upload(self, pointer, memory, stream):
        self._call("upload")
        self._copy(
            "upload", (pointer, "device"), (memory.ctypes.data, "pinned"), memory, stream
        )

    def download(self, memory, pointer, stream):
        self._call("download")
        self._copy(
            "download", (memory.ctypes.data, "pinned"), (pointer, "device"), memory, stream
        )

    def begin_capture(self, stream):
        self._call("begin_capture")
        self._live("stream", self.streams, stream)
        if stream in self.capturing:
            raise Misuse("the stream is being captured already")
        self.capturing[stream] = []

    def end_capture(self, stream):
        if stream not in self.capturing:
            raise DeviceError("the stream is not being captured")
        entries = self.capturing.pop(stream)
        self._call("end_capture")
        handle = next(self._handles)
        self.graphs[handle] = entries
        return handle

    def launch(self, graph, stream):
        self._call("launch")
        for entry in self._live("graph", self.graphs, graph):
            self.enqueue(stream, entry.renew() if entry.renew else entry)

    def destroy_graph(self, graph):
        self._live("graph", self.graphs, graph)
        del self.graphs[graph]

    # How.

    def _copy(self, what, target, source, memory, stream):
        nbytes = memory.nbytes

        def entry():
            to, origin = (
                self.find(target[0], nbytes, target[1]),
                self.find(source[0], nbytes, source[1]),
            )
            # The host must leave what it sends alone until it has been sent.
            before = None
            if source[1] == "pinned":
                before = zlib.crc32(origin.view(source[0], nbytes))

            def do():
                data = origin.view(source[0], nbytes)
                if before is not None and zlib.crc32(data) != before:
                    raise Misuse("memory was changed before it was uploaded")
                to.view(target[0], nbytes)[:] = data

            touches = ((target[0], nbytes), (source[0], nbytes))
            return Entry(what, touches, do, entry)

        self.enqueue(stream, entry())

    def _block(self, kind, nbytes):
        if nbytes < 1:
            raise Misuse(f"{nbytes} bytes are allocated")
        buffer = np.full(nbytes + 2 * GUARD + ALIGNMENT, GUARD_BYTE, np.uint8)
        pointer = buffer.ctypes.data + GUARD
        pointer += -pointer % ALIGNMENT
        block = Block(kind, nbytes, buffer, pointer)
        block.view(pointer, nbytes)[:] = FRESH_BYTE
        self.blocks[pointer] = block
        return block

    def _release(self, kind, pointer):
        block = self.blocks.get(pointer)
        if block is None or block.kind != kind:
            raise Misuse(f"{pointer:#x} is freed, which is no {kind} memory, or not any more")
        if block.pending:
            raise Misuse(f"{kind} memory is freed while something on a stream needs it")
        block.check_guards()
        del self.blocks[pointer]

    def _acquire(self, call):
        if self.is_sealed:
            raise Misuse(f"{call} after warm-up")
        self._call(call)

    def _call(self, call):
        self.calls.append(call)
        if call in self.failures:
            raise DeviceError(f"{self.name}: {call} failed: {self.failures.pop(call)}")

    def _live(self, kind, table, handle):
        if handle not in table:
            raise Misuse(f"{kind} {handle} does not exist, or not any more")
        return table[handle]

    def _until(self, target):
        if target is None:
            return
        stream, mark = target
        queue = self.streams.get(stream, ())
        while any(getattr(entry, "mark", None) is mark for entry in queue):
            self._step(queue)

    def _step(self, queue):
        entry = queue.popleft()
        for block in entry.blocks:
            block.pending -= 1
        entry.do()
        for block in entry.blocks:
            block.check_guards()
