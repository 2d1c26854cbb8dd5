"""Errors written for the person who made them.

A `RislabError` is printed without a traceback, and its exit code is the command's. Anything else is a bug of ours and
keeps its traceback.
"""

import difflib
import errno
import itertools
import reprlib
from collections.abc import Iterable
from typing import Any


class RislabError(Exception):
    """Something the user can mend: the message says where, what was given, what was expected."""

    exit_code = 2


class DataError(RislabError):
    """A file of a data set is missing, unreadable or contradicts itself."""


DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE}
"""What a file system says when it is full, read-only, or gone for the moment."""


class DiskError(RislabError):
    """Nothing can be written where results go: full, read-only or gone for the moment."""


class ConfigError(RislabError):
    """A config, table or command line asks for something that does not exist."""


class DivergedError(RislabError):
    """A loss term is NaN or infinite; the trial is marked `diverged`, the others go on."""

    exit_code = 3


class _Brief(reprlib.Repr):
    """Values of files in messages: a few levels and a few entries of each, however deep or shared the rest is."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 3, 60, 60, 40
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 4

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        if level <= 0 or not x:
            return "{...}" if x else "{}"
        inside = [f"{self.repr1(k, level - 1)}: {self.repr1(x[k], level - 1)}" for k in itertools.islice(x, 4)]
        return "{" + ", ".join(inside + ["..."] * (len(x) > 4)) + "}"

    def repr_int(self, x: int, level: int) -> str:
        return super().repr_int(x, level) if x.bit_length() < 1024 else f"<a number of {x.bit_length()} bits>"

    def repr_bytes(self, x: bytes, level: int) -> str:
        return repr(x) if len(x) <= self.maxstring else f"{x[: self.maxstring]!r}..."


_BRIEF = _Brief()


def brief(value: Any, longest: int = 60) -> str:
    """A value as a message shows it: at most `longest` characters and three dots, in a time that does not depend on its size."""
    text = _BRIEF.repr(value)
    return text if len(text) <= longest else f"{text[:longest]}..."


def nearest(given: str, known: Iterable[str]) -> str:
    """The hint for a misspelt name: ``" (did you mean 'decoder_layers'?)"``, or "" when nothing is near."""
    match = difflib.get_close_matches(given, list(known), n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""
