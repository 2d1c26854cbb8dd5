"""Plain values from a pickle, without running what it asks for.

The released pickles hold nothing but builtins; anything else in one is refused, because unpickling would execute it. Numbers that
a tool left as numpy scalars become Python's: their constructors are stood in for by inert functions below.
"""

import io
import pickle
import struct
from typing import Any

from rislab.errors import DataError, brief

_DAMAGED = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    OverflowError,
    MemoryError,
    RecursionError,
    struct.error,
)
"""What a damaged opcode stream makes of the unpickler."""
_FORMATS = {
    **{"b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q"},
    **{"f2": "e", "f4": "f", "f8": "d"},
}
"""What struct calls numpy's types."""


class _Dtype:
    """Name and byte order of a scalar's type."""

    __slots__ = ("name", "order")

    def __init__(self, name: Any) -> None:
        self.name, self.order = name, "<"

    def __setstate__(self, state: Any) -> None:
        self.order = ">" if isinstance(state, tuple) and state[1:2] == (">",) else "<"


class _MakeDtype:
    """Stands in for numpy.dtype. An object without attributes: a pickle can call it, and change nothing about it."""

    __slots__ = ()

    def __call__(self, name: Any = None, *_: Any) -> _Dtype:
        return _Dtype(name)


class _MakeScalar:
    """Stands in for numpy's scalar constructor: bool, int, float or text from its bytes."""

    __slots__ = ()

    def __call__(self, dtype: Any = None, data: Any = None) -> Any:
        if not isinstance(dtype, _Dtype) or not isinstance(dtype.name, str) or not isinstance(data, bytes):
            raise DataError("holds a numpy scalar of an unknown form")
        if dtype.name in _FORMATS:
            return struct.unpack(dtype.order + _FORMATS[dtype.name], data)[0]
        if dtype.name[:1] == "U":
            return data.decode("utf-32-be" if dtype.order == ">" else "utf-32-le").rstrip("\0")
        raise DataError(
            f"holds a numpy scalar of type {brief(dtype.name)}; write plain values: int(x), float(x), str(x)"
        )


class _Encode:
    """Stands in for _codecs.encode, by which old protocols write bytes."""

    __slots__ = ()

    def __call__(self, text: Any = None, encoding: Any = None) -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise DataError("holds bytes of an unknown form")
        return text.encode("latin-1")


_INERT: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _MakeDtype(),
    ("numpy.core.multiarray", "scalar"): _MakeScalar(),
    ("numpy._core.multiarray", "scalar"): _MakeScalar(),
    ("_codecs", "encode"): _Encode(),
}


class _PlainValues(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        inert = _INERT.get((module, name))
        if inert is not None:
            return inert
        hint = "; write arrays as lists: x.tolist()" if module.partition(".")[0] == "numpy" else ""
        raise DataError(
            f"asks for {brief(module)[1:-1]}.{brief(name)[1:-1]}; such a file holds plain values only, refused{hint}"
        )


def unpickled(data: bytes) -> Any:
    """Plain values from a pickle. Raises DataError: damaged, or asking to run code."""
    try:
        # Python 2 wrote the releases: its byte strings are ASCII, or UTF-8 at worst.
        return _PlainValues(io.BytesIO(data), encoding="utf-8").load()
    except _DAMAGED as error:
        raise DataError(f"not a readable pickle ({type(error).__name__}: {brief(str(error), 200)[1:-1]})") from None
