"""What a pickle of tensors may be made of: each function that it names, and the inert equivalent of it here."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

EXPANDED = 1 << 24
"""Most elements of a tensor that has more elements than its storage (strides of 0)."""


SCRIPTED = "__torch__."
"""Start of the names of classes whose code lies in a TorchScript archive."""


class PickleError(ValueError):
    """A pickle is damaged, or exceeds a bound."""


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A value that was not made.

    Attributes:
        name: Of its class or function, `argparse.Namespace`.
    """

    name: str


@dataclass(frozen=True, slots=True)
class ScriptClass:
    """A class of a TorchScript archive: a name without code.

    Attributes:
        name: `__torch__.package.module.Class`.
    """

    name: str


@dataclass(eq=False, slots=True)
class ScriptObject:
    """An instance of a `ScriptClass`: its pickled attributes.

    Attributes:
        name: Of its class.
        attributes: Tensors, plain values and other script objects by name.
    """

    name: str
    attributes: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Storage:
    """The numbers of one or more tensors in a file.

    Attributes:
        values: 1-d tensor; uint8 for a storage without a type.
        is_untyped: Whether the type of the numbers is still to come.
    """

    values: Tensor
    is_untyped: bool


STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "UntypedStorage": torch.uint8,
}
DTYPES = {str(t).removeprefix("torch."): t for t in vars(torch).values() if isinstance(t, torch.dtype)}


@dataclass(frozen=True, slots=True)
class Maker:
    """A function that has an equivalent here.

    Attributes:
        name: The function's dotted path.
        make: The equivalent; returns None for arguments that it does not support.
    """

    name: str
    make: Callable[..., Any]


def placeholder(function: Any, arguments: Any = ()) -> Placeholder:
    """The stand-in for the result of a call."""
    if isinstance(function, Maker) and function.name == "copyreg._reconstructor" and isinstance(arguments, tuple):
        function = arguments[0] if arguments else function
    return Placeholder(
        function.name if isinstance(function, (Placeholder, Maker, ScriptClass)) else type(function).__name__
    )


def found_global(module: str, name: str) -> Any:
    """The inert equivalent of a global: a dtype, a `ScriptClass`, a `Maker`, or a `Placeholder`."""
    full = f"{module}.{name}"
    if full.startswith(SCRIPTED):
        return ScriptClass(full[:1000])
    if module == "torch" and name in DTYPES:
        return DTYPES[name]
    make = MAKERS.get(full)
    return Placeholder(full[:120]) if make is None else Maker(full, make)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor | None:
    """A tensor over its storage.

    Raises:
        PickleError: The tensor reaches beyond its storage.
    """
    if not isinstance(storage, Storage) or storage.is_untyped:
        return None  # quantised, or of an unknown type: already a placeholder
    return _strided(storage.values, offset, size, stride)


def _tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any
) -> Tensor | None:
    if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype):
        return None
    values = storage.values if not storage.is_untyped else _viewed(storage.values, dtype)
    return _strided(values, offset, size, stride)


def _viewed(values: Tensor, dtype: torch.dtype) -> Tensor:
    if len(values) % dtype.itemsize:
        raise PickleError("a storage is no multiple of its type")
    return values.view(dtype)


def _strided(values: Tensor, offset: Any, size: Any, stride: Any) -> Tensor:
    if not isinstance(size, tuple) or not isinstance(stride, tuple) or len(size) != len(stride) or len(size) > 64:
        raise PickleError("a tensor without size or stride")
    if any(type(n) is not int or not 0 <= n < 1 << 62 for n in (offset, *size, *stride)):
        raise PickleError("a tensor's size, stride or offset is no number")
    elements = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if elements else offset - 1
    if last >= len(values) or offset > len(values):
        raise PickleError(f"a tensor of {size} reaches beyond its storage of {len(values)}")
    if elements > max(len(values), EXPANDED):
        raise PickleError(f"a tensor of {size} repeats a storage of {len(values)}")
    return values.as_strided(size, stride, offset)


def _first_tensor(*arguments: Any) -> Tensor | None:
    """The data of a parameter."""
    return arguments[0] if arguments and isinstance(arguments[0], Tensor) else None


def _of_subclass(function: Any = None, kind: Any = None, arguments: Any = (), *rest: Any) -> Any:
    """A tensor of a subclass of Tensor, as a plain tensor."""
    is_tensor = (
        isinstance(function, Maker) and function.name.startswith("torch._utils.") and isinstance(arguments, tuple)
    )
    return function.make(*arguments) if is_tensor else None


def _dict(*arguments: Any) -> dict[Any, Any] | None:
    """OrderedDict, Counter, dict, also from a list of pairs, as Python 2 wrote them."""
    if not arguments:
        return {}
    given = arguments[-1]
    if isinstance(given, dict):
        return given
    if isinstance(given, list) and all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in given):
        return {key: value for key, value in given if is_plain_key(key)}
    return None


def is_plain_key(key: Any) -> bool:
    """Whether the hash of a key is computed at once, and whether few other keys share it.

    The hash of a tuple that is shared level by level takes exponential time. Integers of more than 61 bits can be chosen
    to have one and the same hash: filling a dict with them takes quadratic time.
    """
    if isinstance(key, int):
        return key.bit_length() < 61
    return isinstance(key, (str, bytes, float, type(None)))


def _default_dict(*arguments: Any) -> dict[Any, Any] | None:
    return _dict(*arguments[1:])


def _sequence(*arguments: Any) -> Any:
    """Lists, sets and sizes, as the sequence they are made from."""
    return arguments[0] if arguments and isinstance(arguments[0], (list, tuple)) else []


def _name(*arguments: Any) -> str | None:
    """A device, as text."""
    return arguments[0] if arguments and isinstance(arguments[0], str) else None


def _encoded(text: Any = "", encoding: Any = "") -> bytes | None:
    """Bytes, as protocol 2 writes them."""
    return text.encode("latin1") if isinstance(text, str) and encoding in ("latin1", "latin-1") else None


def _bytes(*arguments: Any) -> bytes | None:
    return b"" if not arguments else None


class PendingDtype:
    """A numpy number type whose byte order is still to come.

    Attributes:
        name: Of the class, for messages.
        kind: The type, or None for one that is no number.
    """

    name = "numpy.dtype"

    def __init__(self, code: str) -> None:
        self.kind: np.dtype[Any] | None = np.dtype(code) if code in _NUMBERS else None

    def build(self, state: tuple[Any, ...]) -> None:
        if self.kind is not None and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.kind = self.kind.newbyteorder("<" if state[1] == "|" else state[1])


_NUMBERS = {f"{k}{n}" for k, sizes in {"f": "248", "i": "1248", "u": "1248", "b": "1"}.items() for n in sizes} | {
    "c8",
    "c16",
}


class PendingArray:
    """A numpy array while its content is still to come."""

    def __init__(self) -> None:
        self.value: Any = Placeholder("numpy.ndarray")
        self.kept: list[int] = []  # places in the memo

    def build(self, state: tuple[Any, ...]) -> None:
        """Fill the array from its state `(version, shape, dtype, is Fortran order, bytes)`; one of objects becomes their list."""
        if len(state) != 5:
            return
        _, shape, dtype, fortran, content = state
        if isinstance(content, list):
            self.value = content
            return
        found = _filled(content, dtype, shape, "F" if fortran is True else "C")
        if found is not None:
            self.value = found


def _filled(content: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any] | None:
    """A numpy array of numbers.

    Raises:
        PickleError: The shape does not match the number of bytes.
    """
    if isinstance(content, str):  # bytes, as Python 2 wrote them
        content = content.encode("latin1")
    if not isinstance(dtype, PendingDtype) or dtype.kind is None or not isinstance(content, (bytes, bytearray)):
        return None
    if not isinstance(shape, tuple) or len(shape) > 64 or any(type(n) is not int or n < 0 for n in shape):
        raise PickleError("an array without a shape")
    if math.prod(shape) * dtype.kind.itemsize != len(content):
        raise PickleError("an array is not as large as its bytes")
    return np.frombuffer(content, dtype.kind).reshape(shape, order="F" if order == "F" else "C")


def _dtype(code: Any = "", *rest: Any) -> PendingDtype | None:
    return PendingDtype(code) if isinstance(code, str) else None


def _array(*rest: Any) -> PendingArray:
    return PendingArray()


def _from_buffer(content: Any = b"", dtype: Any = None, shape: Any = None, order: Any = "C", *rest: Any) -> Any:
    """An array, as protocol 5 writes it."""
    return _filled(content, dtype, shape, order)


def _scalar(dtype: Any = None, content: Any = b"", *rest: Any) -> Any:
    if not isinstance(dtype, PendingDtype) or dtype.kind is None or not isinstance(content, bytes):
        return None
    return np.frombuffer(content, dtype.kind, 1)[0].item()


_BUILTINS = ("builtins", "__builtin__")
MAKERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _first_tensor,
    "torch._utils._rebuild_parameter_with_state": _first_tensor,
    "torch._tensor._rebuild_from_type_v2": _of_subclass,
    "torch._tensor._rebuild_from_type": _of_subclass,
    "torch.nn.parameter.Parameter": _first_tensor,
    "torch.Size": _sequence,
    "torch.device": _name,
    "collections.OrderedDict": _dict,
    "collections.Counter": _dict,
    "collections.defaultdict": _default_dict,
    "_codecs.encode": _encoded,
    "copyreg._reconstructor": lambda *_: None,
    "copy_reg._reconstructor": lambda *_: None,
    "numpy.dtype": _dtype,
    **{f"{module}.{name}": _sequence for module in _BUILTINS for name in ("set", "frozenset", "list")},
    **{f"{module}.dict": _dict for module in _BUILTINS},
    **{f"{module}.bytes": _bytes for module in _BUILTINS},
    **{f"numpy.{core}.multiarray._reconstruct": _array for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
}
