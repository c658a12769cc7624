"""Reads pickles as data: nothing in a file can make this module run, import or set anything.

A pickle is a program for a small stack machine. The standard `pickle` looks names up in
modules and calls what it finds, which is how a file runs code. The machine here has no such
step: a name stays a name (`Global`), and "calling" one picks a constructor from a table of
a few (arrays, dicts, tensors). Classes that checkpoints carry beside their weights (configs,
training histories) become `Opaque`, which remember nothing but their name. Every other name
is refused, whether or not the file would have called it.

The bytes are cut into instructions by the standard `pickletools`, which never executes them.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable, Iterable
from typing import IO, Any, Protocol, cast

from m2f.models.checkpoint.constructors import (
    KEYS,
    Calls,
    DType,
    Global,
    Opaque,
    PickledArray,
    Refused,
)
from m2f.models.checkpoint.stored import Malformed, shown


class Stream(Protocol):
    """A file, a memory-mapped file, or bytes in memory."""

    def read(self, n: int, /) -> bytes: ...
    def readline(self) -> bytes: ...
    def tell(self) -> int: ...


_INERT = re.compile(
    r"(addict|argparse|datetime|detectron2|fvcore|iopath|lightning|lightning_fabric|mmcv|mmdet|"
    r"mmengine|mmseg|omegaconf|pathlib|pytorch_lightning|yacs)\..+"
    r"|builtins\.(bool|complex|float|frozenset|int|list|object|range|set|slice|str|tuple)"
    r"|copyreg\.(_reconstructor|__newobj__)|collections\.deque|torch\.(Size|device|Tensor)"
    r"|torch\.nn\.parameter\.(Parameter|Buffer)"
    r"|numpy\.(bool_|float16|float32|float64|int32|int64|str_|uint8)"
    r"|types\.SimpleNamespace|typing\.Any"
)
"""What checkpoints carry beside weights; becomes `Opaque`."""

_RENAMED = (
    (re.compile(r"^__builtin__$"), "builtins"),  # Python 2
    (re.compile(r"^copy_reg$"), "copyreg"),  # Python 2
    (re.compile(r"^numpy\._core\b"), "numpy.core"),  # NumPy 2
)
_LITERALS = frozenset(
    opcode.name
    for opcode in pickletools.opcodes
    if re.fullmatch(
        r"INT|BININT[12]?|LONG[14]?|(BIN)?FLOAT|STRING|(SHORT_)?BINSTRING|UNICODE|"
        r"(SHORT_)?BINUNICODE8?|(SHORT_)?BINBYTES8?|BYTEARRAY8",
        opcode.name,
    )
)
"""Instructions that put their own argument on the stack."""

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LONGEST_NAME = 500
_COPIES = 4
"""What is built from a file may take this many times its size: a few bytes of pickle can ask
for the same large string to be converted again and again."""


def load(
    stream: Stream,
    size: int,
    *,
    calls: Calls,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Reads one pickle.

    Args:
        stream: Stands at its first byte; is left just behind it.
        size: Bytes of the whole stream; bounds what the pickle can make of them.
        calls: All that the pickle can have constructed, by the name that stands for it.
        persistent: Gives the object that a persistent id stands for.

    Returns:
        Numbers, strings, bytes, lists, tuples and dicts as such; arrays and tensors as
        `StoredTensor`; all else as `Opaque`.

    Raises:
        Refused: It names something that could run code.
        Malformed: It is truncated or no pickle.
    """
    machine = _Machine(calls, persistent, (size + (1 << 20)) * _COPIES)
    try:
        return machine.run(stream)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as problem:
        raise Malformed(f"is a truncated or corrupt pickle ({shown(problem)})") from problem
    except (MemoryError, RecursionError) as problem:
        raise Malformed("is a corrupt pickle that asks for more than it holds") from problem


class _Machine:
    """The stack machine; one method or table entry per instruction."""

    def __init__(
        self, calls: Calls, persistent: Callable[[Any], Any] | None, budget: int
    ) -> None:
        self.calls = calls
        self.persistent = persistent
        self.budget = budget
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: Stream) -> Any:
        for opcode, argument, _ in pickletools.genops(cast(IO[bytes], stream)):
            name = opcode.name
            if name in _LITERALS:
                self.push(argument)
            elif name in _CONSTANTS:
                self.push(_CONSTANTS[name])
            elif name == "STOP":
                return self.stack.pop()
            elif name in _INSTRUCTIONS:
                _INSTRUCTIONS[name](self, argument)
            else:
                raise Refused(f"uses the pickle instruction {name}, which no checkpoint needs")
        raise Malformed("is a truncated pickle")

    def spend(self, values: Iterable[Any]) -> None:
        sized = (str, bytes, bytearray, list, dict)
        self.budget -= sum(len(value) for value in values if isinstance(value, sized))
        if self.budget < 0:
            raise Malformed("is a pickle that asks for much more memory than its own size")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def to_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def take(self, count: int) -> tuple[Any, ...]:
        if count > len(self.stack):
            raise Malformed("is a corrupt pickle (stack underflow)")
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        return items

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.to_mark()

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[key if isinstance(key, KEYS) else Opaque("key")] = value

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)

    def new_dict(self, _: Any) -> None:
        items = self.to_mark()
        self.push({})
        self.set_items(items)

    def new_set(self, _: Any) -> None:
        self.to_mark()
        self.push(Opaque("set"))

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def global_(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.push(self.named(module, name))

    def stack_global(self, _: Any) -> None:
        self.push(self.named(*self.take(2)))

    def instance(self, argument: str) -> None:
        arguments = self.to_mark()
        module, _, name = argument.partition(" ")
        self.push(self.call(self.named(module, name), tuple(arguments)))

    def object_(self, _: Any) -> None:
        callee, *arguments = self.to_mark()
        self.push(self.call(callee, tuple(arguments)))

    def reduce(self, _: Any) -> None:
        self.push(self.call(*self.take(2)))

    def new_object_keywords(self, _: Any) -> None:
        callee, arguments, keywords = self.take(3)
        self.push(Opaque(callee) if keywords else self.call(callee, arguments))

    def build(self, _: Any) -> None:
        (state,) = self.take(1)
        target = self.stack[-1]
        if isinstance(target, (DType, PickledArray)):
            self.spend(state)
            target.set_state(state)

    def persistent_id(self, _: Any) -> None:
        (key,) = self.take(1)
        if self.persistent is None:
            raise Malformed("refers to data outside of it, which only torch files hold")
        self.push(self.persistent(key))

    def named(self, module: Any, name: Any) -> Global:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Malformed("is a corrupt pickle (a name that is no text)")
        if len(module) + len(name) > _LONGEST_NAME:
            raise Refused(f"contains the endless name {shown(module, 50)}...; refused")
        for old, new in _RENAMED:
            module = old.sub(new, module)
        found = Global(module, name)
        if found in self.calls or _INERT.fullmatch(str(found)):
            return found
        raise Refused(f"contains {shown(found)}, which could run code; refused")

    def call(self, callee: Any, arguments: Any) -> Any:
        if not isinstance(arguments, tuple):
            raise Malformed("is a corrupt pickle (arguments that are no tuple)")
        self.spend(arguments)
        if isinstance(callee, Global) and callee in self.calls:
            return self.calls[callee](*arguments)
        return Opaque(callee)


def _in_order(count: int) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.push(machine.take(count))


_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": lambda machine, _: machine.to_mark(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.to_mark())),
    "TUPLE1": _in_order(1),
    "TUPLE2": _in_order(2),
    "TUPLE3": _in_order(3),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "LIST": lambda machine, _: machine.push(machine.to_mark()),
    "APPEND": lambda machine, _: machine.append(list(machine.take(1))),
    "APPENDS": lambda machine, _: machine.append(machine.to_mark()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "DICT": _Machine.new_dict,
    "SETITEM": lambda machine, _: machine.set_items(list(machine.take(2))),
    "SETITEMS": lambda machine, _: machine.set_items(machine.to_mark()),
    "EMPTY_SET": lambda machine, _: machine.push(Opaque("set")),
    "ADDITEMS": lambda machine, _: machine.to_mark(),
    "FROZENSET": _Machine.new_set,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    "GET": lambda machine, index: machine.push(machine.memo[index]),
    "BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "GLOBAL": _Machine.global_,
    "STACK_GLOBAL": _Machine.stack_global,
    "INST": _Machine.instance,
    "OBJ": _Machine.object_,
    "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": _Machine.new_object_keywords,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent_id,
}
