"""Paths and files that users name: one function for each way in which they reach us.

Command lines, configs, tables and file lists go through `user_path`; names that a data file holds go through `unsafe_name`
before anything is opened; what lies in a folder is looked at without hidden files.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from rislab.errors import ConfigError, DataError, brief

LONGEST_NAME = 255
"""Bytes of one part of a path: the limit of every common file system."""
LONGEST_PATH = 1024


def user_path(given: str | os.PathLike[str]) -> Path:
    """A path as a person wrote it: `~` and `~name` are expanded, links are kept.

    Raises:
        ConfigError: Of another type, empty, a NUL in it, or a `~name` that is no user's.
    """
    text = path_text(given)
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{text}: {error}") from None


def path_text(given: str | os.PathLike[str]) -> str:
    """A path, or the name of something that may be one, as it was given.

    Raises:
        ConfigError: Of another type, empty, or a NUL in it.
    """
    text = os.fspath(given) if isinstance(given, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise ConfigError(f"{brief(given)} is no path")
    return text


def absolute(given: str | os.PathLike[str]) -> Path:
    """The same place from any working directory, with the names and links that were given.

    A `..` behind a link leads to the parent of what the link points to, as the system reads it: such a path is resolved.
    """
    path = user_path(given)
    if ".." in path.parts:
        return path.resolve()
    return path if path.is_absolute() else _working_directory() / path


def _working_directory() -> Path:
    """The working directory by the name under which the shell entered it; the system's own where that is another one."""
    entered = Path(os.environ.get("PWD", ""))
    try:
        if entered.is_absolute() and entered.samefile("."):
            return entered
    except OSError:
        pass
    return Path.cwd()


def is_hidden(path: Path) -> bool:
    """Whether a file or folder holds no data: `._x.png` and `.DS_Store` of a Mac, `__MACOSX` of its archives."""
    return path.name.startswith(".") or path.name == "__MACOSX"


def visible(paths: Iterable[Path], root: Path) -> list[Path]:
    """Sorted, without what is hidden or lies in a hidden folder below `root`."""
    return sorted(p for p in paths if not any(is_hidden(Path(part)) for part in p.relative_to(root).parts))


def is_file(path: Path) -> bool:
    """Whether there is a file; False, too, for a name that no file can have and in a folder that may not be read."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def unsafe_name(name: str) -> str:
    """Why a name from a data file cannot be a file below its folder; "" when it can.

    Refused: empty, absolute (also as Windows writes it), with a part `..`, with control characters, too long for a file system.
    """
    if not name.strip():
        return "is empty"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        return "holds control characters"
    parts = name.replace("\\", "/").split("/")
    if not parts[0] or ".." in parts or parts[0][1:2] == ":":
        return "leaves the folder"
    lengths = [len(part.encode("utf-8", "replace")) for part in parts]
    if max(lengths) > LONGEST_NAME or sum(lengths) + len(parts) > LONGEST_PATH:
        return "is longer than a file name can be"
    return ""


def contents(path: Path) -> bytes:
    """The bytes of a file. Raises DataError: not there, a folder, no right to read it, a name that no file can have."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # a NUL in the name is a ValueError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"{path}: cannot be read ({reason})") from None


def lines(path: Path) -> list[str]:
    """The lines of a list that are not blank, stripped; a byte order mark and CR LF are no part of them. Raises DataError."""
    try:
        text = contents(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text in UTF-8 ({error.reason} at byte {error.start})") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
