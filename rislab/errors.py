"""Errors written for the person who made them.

A `RislabError` is printed without a traceback, and its exit code is the command's. Anything else is a bug of ours and
keeps its traceback.
"""

import difflib
import errno
import itertools
import os
import re
import reprlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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


def nearest(given: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """The hint for a misspelt name: ``" (did you mean 'decoder_layers'?)"``, or "" when nothing is near.

    Args:
        given: the misspelt name.
        known: names that exist.
        cutoff: 0 (anything) to 1 (equal), the likeness that counts as near.
    """
    match = difflib.get_close_matches(str(given), list(known), n=1, cutoff=cutoff)
    return f" (did you mean {match[0]!r}?)" if match else ""


@contextmanager
def about(subject: Any) -> Iterator[None]:
    """Put what a message is about, say a file, before it, unless it names that already."""
    try:
        yield
    except RislabError as error:
        if str(subject) in str(error):
            raise
        raise type(error)(f"{subject}: {error}") from error


def underlying(error: BaseException) -> RislabError | OSError | None:
    """What a library's error hides: the first `RislabError` among its causes, or else the first `OSError` about a file.

    jsonargparse turns whatever a constructor raises into a ValueError; newer versions of it may use other classes or groups.
    """
    hidden = list(chain(error))
    ours = next((one for one in hidden if isinstance(one, RislabError)), None)
    return ours or next((one for one in hidden if isinstance(one, OSError) and is_about_a_file(one)), None)


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error, then its causes; contexts only where no cause was given, as in a traceback."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        group = getattr(one, "exceptions", ()) if isinstance(one, BaseExceptionGroup) else ()
        waiting += [*group, one.__cause__ or (None if one.__suppress_context__ else one.__context__)]


def is_about_a_file(error: OSError) -> bool:
    """Whether it names a file, or is what a full or read-only disk says; a broken network connection is neither."""
    return error.filename is not None or error.errno in DISK_ERRORS


_UNFINISHED = re.compile(r"(?<![^/])\.([^/]+)\.(?:\d+-\d+\.tmp|unfinished)(?=/|$)")
"""Of `rislab.files.replacing`, and of folders that are put in their place when all is written."""


def from_system(error: OSError) -> RislabError:
    """The file system's error as ours: one line that names the file, not the temporary file beside it."""
    name = "" if error.filename is None else os.fsdecode(error.filename) if _is_name(error.filename) else "a file"
    path_shown = _UNFINISHED.sub(r"\1", name)
    kind = DiskError if error.errno in DISK_ERRORS else DataError
    return kind(": ".join(part for part in (path_shown, error.strerror or str(error)) if part))


def _is_name(value: object) -> bool:
    return isinstance(value, (str, bytes, os.PathLike))


def one_line(error: BaseException) -> str:
    """A message on one line; of an error that came out of a loader process, what stood in its last line."""
    text = str(error).strip()
    if text.startswith("Caught ") and "Traceback (most recent call last)" in text:
        text = text.splitlines()[-1].partition(": ")[2] or text.splitlines()[-1]
    return " ".join(text.split()) or type(error).__name__
