"""Errors written for the person who made them.

A `RislabError` is printed without a traceback, and its exit code is the command's. Anything else is a bug of ours and
keeps its traceback.
"""

import difflib
import errno
from collections.abc import Iterable


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


def nearest(given: str, known: Iterable[str]) -> str:
    """The hint for a misspelt name: ``" (did you mean 'decoder_layers'?)"``, or "" when nothing is near."""
    match = difflib.get_close_matches(given, list(known), n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""
