"""Pickles read without running them: an interpreter of the opcodes that knows tensors and plain values only.

Python's unpickler imports and calls what a file names. Here a global is only a name. The few names that make tensors and
containers have an equivalent in `pickled_values`; everything else becomes a `Placeholder`, and calls on it are skipped.
"""

import pickletools
from collections.abc import Callable
from typing import IO, Any, Protocol

import torch
from torch import Tensor

from rislab.nn.pickled_values import (
    STORAGES,
    Maker,
    PendingArray,
    PendingDtype,
    PickleError,
    Placeholder,
    ScriptClass,
    ScriptObject,
    Storage,
    found_global,
    is_plain_key,
    placeholder,
)

OPCODES = 10_000_000
"""Most opcodes of one pickle, some ten seconds. A checkpoint of a large model has ten or a hundred thousand."""
MARK = object()


class Storages(Protocol):
    """Source of the numbers of tensors."""

    def __call__(self, key: str, dtype: torch.dtype, count: int) -> Tensor:
        """A 1-d tensor of `count` elements.

        Raises:
            PickleError: There is no such storage, or it has another size.
        """


class _Bounded:
    """A file that reads at most its own size: the memory for a damaged length would be allocated before the read fails."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.size = file, size
        self.tell, self.readline = file.tell, file.readline

    def read(self, count: int) -> bytes:
        return self.file.read(min(count, self.size))


def interpret(file: IO[bytes], size: int, storages: Storages) -> Any:
    """The value that a pickle describes.

    Args:
        file: Positioned at the pickle; afterwards behind its end.
        size: Bytes of the file.
        storages: Source of the numbers of tensors.

    Returns:
        Tensors, numpy arrays and scalars, dict (also for its subclasses), list (also for sets), tuple, str, bytes, int,
        float, bool, None; `ScriptObject` for objects of TorchScript, `Placeholder` for all else. Values may be shared, and a
        container may hold itself.

    Raises:
        PickleError: The pickle is damaged or exceeds a bound.
    """
    try:
        return _Machine(storages).run(_Bounded(file, size))
    except (PickleError, MemoryError):
        raise
    except RecursionError:
        raise PickleError("nested too deeply") from None
    except Exception as error:  # whatever a damaged pickle makes of the stack
        raise PickleError(f"damaged pickle: {type(error).__name__}") from error


class _Machine:
    def __init__(self, storages: Storages) -> None:
        self.storages = storages
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.position = self.copied = 0

    def run(self, file: Any) -> Any:
        for step, (opcode, argument, position) in enumerate(pickletools.genops(file)):
            self.position = position or 0
            if step > OPCODES:
                raise PickleError(f"more than {OPCODES} steps")
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _VALUES:
                self.stack.append(argument)
            elif name not in _IGNORED:
                action = _ACTIONS.get(name)
                if action is None:
                    raise PickleError(f"opcode {name} is not known")
                action(self, argument)
        raise PickleError("it has no end")

    def charge(self, *values: Any) -> None:
        """Count what is about to be copied, so that the work stays linear: sound pickles use each of their bytes about once.

        Raises:
            PickleError: Far more is copied than has been read.
        """
        self.copied += sum(len(v) for v in values if isinstance(v, (str, bytes, bytearray, list, tuple, dict)))
        if self.copied > 4 * self.position + 1_000_000:
            raise PickleError("it uses the same values again and again")

    def marked(self) -> list[Any]:
        """The values above the last mark, taken off the stack."""
        at = len(self.stack) - 1
        while self.stack[at] is not MARK:
            at -= 1
            if at < 0:
                raise PickleError("a mark is missing")
        found = self.stack[at + 1 :]
        del self.stack[at:]
        return found

    def get(self, key: Any) -> None:
        self.stack.append(self.memo[int(key)])

    def put(self, key: Any) -> None:
        value = self.memo[int(key)] = self.stack[-1]
        if isinstance(value, PendingArray):
            value.kept.append(int(key))

    def memoize(self, _: Any) -> None:
        self.put(len(self.memo))

    def pop(self, _: Any) -> None:
        self.stack.pop()

    def pop_mark(self, _: Any) -> None:
        self.marked()

    def dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def mark(self, _: Any) -> None:
        self.stack.append(MARK)

    def empty_list(self, _: Any) -> None:
        self.stack.append([])

    def empty_dict(self, _: Any) -> None:
        self.stack.append({})

    def list_(self, _: Any) -> None:
        self.stack.append(self.marked())

    def tuple_(self, _: Any) -> None:
        self.stack.append(tuple(self.marked()))

    def dict_(self, _: Any) -> None:
        items = self.marked()
        self.stack.append({})
        self._set(items)

    def short_tuple(self, length: int) -> None:
        if length > len(self.stack):
            raise PickleError("a value is missing")
        found = tuple(self.stack[-length:])
        del self.stack[-length:]
        self.stack.append(found)

    def append(self, _: Any) -> None:
        self._extend([self.stack.pop()])

    def appends(self, _: Any) -> None:
        self._extend(self.marked())

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def set_items(self, _: Any) -> None:
        self._set(self.marked())

    def _extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[key if is_plain_key(key) else Placeholder(type(key).__name__)] = value

    def global_(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(found_global(module, name))

    def stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.charge(name, module)
        self.stack.append(
            found_global(str(module) if isinstance(module, str) else "?", name if isinstance(name, str) else "?")
        )

    def extension(self, argument: int) -> None:
        self.stack.append(Placeholder(f"extension {argument}"))

    def instance(self, argument: str) -> None:
        self.marked()
        self.stack.append(Placeholder(argument.replace(" ", ".")))

    def object_(self, _: Any) -> None:
        found = self.marked()
        self.stack.append(placeholder(found[0] if found else None))

    def persistent_text(self, argument: str) -> None:
        self.stack.append(Placeholder(f"persistent {argument[:40]}"))

    def reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        made = None
        if isinstance(function, Maker) and isinstance(arguments, tuple):
            self.charge(arguments)
            self.charge(*arguments)
            made = function.make(*arguments)
        self.stack.append(placeholder(function, arguments) if made is None else made)

    def new_object(self, _: Any) -> None:
        if isinstance(self.stack[-2], ScriptClass):
            self.stack[-2:] = [ScriptObject(self.stack[-2].name)]
        else:
            self.reduce(None)

    def new_object_with_names(self, _: Any) -> None:
        self.stack.pop()
        self.reduce(None)

    def build(self, _: Any) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, (PendingDtype, PendingArray)) and isinstance(state, tuple):
            target.build(state)
        if isinstance(target, ScriptObject) and isinstance(state, dict):
            target.attributes = state
        if isinstance(target, PendingArray):
            self.stack[-1] = target.value
            self.memo |= dict.fromkeys(target.kept, target.value)

    def persistent(self, _: Any) -> None:
        """A storage: `("storage", type, key, location, count)`, in old files with a view `(key, offset, count)` behind."""
        found = self.stack.pop()
        if not isinstance(found, tuple) or len(found) < 5 or found[0] != "storage":
            self.stack.append(Placeholder("a persistent object"))
            return
        kind, key, count = found[1], found[2], found[4]
        name = kind.name.rpartition(".")[2] if isinstance(kind, Placeholder) else ""
        if name not in STORAGES:
            self.stack.append(placeholder(kind))
            return
        if not isinstance(key, str) or type(count) is not int or count < 0:
            raise PickleError("a storage without a key or size")
        values = self.storages(key, STORAGES[name], count)
        view = found[5] if len(found) > 5 else None
        if view is not None:
            _, offset, part = view
            if type(offset) is not int or type(part) is not int or not 0 <= offset <= offset + part <= count:
                raise PickleError("a view reaches beyond its storage")
            values = values[offset : offset + part]
        self.stack.append(Storage(values, name == "UntypedStorage"))


_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_IGNORED = {"PROTO", "FRAME"}
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "EMPTY_LIST": _Machine.empty_list,
    "EMPTY_SET": _Machine.empty_list,
    "EMPTY_DICT": _Machine.empty_dict,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.appends,
    "LIST": _Machine.list_,
    "FROZENSET": _Machine.list_,
    "TUPLE": _Machine.tuple_,
    "TUPLE1": lambda machine, _: machine.short_tuple(1),
    "TUPLE2": lambda machine, _: machine.short_tuple(2),
    "TUPLE3": lambda machine, _: machine.short_tuple(3),
    "DICT": _Machine.dict_,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "POP": _Machine.pop,
    "DUP": _Machine.dup,
    "MARK": _Machine.mark,
    "POP_MARK": _Machine.pop_mark,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "EXT1": _Machine.extension,
    "EXT2": _Machine.extension,
    "EXT4": _Machine.extension,
    "GLOBAL": _Machine.global_,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.new_object,
    "NEWOBJ_EX": _Machine.new_object_with_names,
    "BUILD": _Machine.build,
    "INST": _Machine.instance,
    "OBJ": _Machine.object_,
    "PERSID": _Machine.persistent_text,
    "BINPERSID": _Machine.persistent,
}
