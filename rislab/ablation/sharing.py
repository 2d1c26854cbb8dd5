"""Which directory a trial lies in: one for every hash below a `runs` folder, whichever table or row began it.

`runs/.shared/<hash>` names the directory of the first who wrote the trial. The file is created exclusively, so two tables
that begin one trial at the same moment agree on one directory, and the lock in it does the rest.
"""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rislab.ablation.trial import TrialBusyError, TrialDir
from rislab.errors import ConfigError
from rislab.files import create, read_json, write_text

CLAIMS = ".shared"
"""Folder of the claims, below `runs`."""

WRITTEN_WITHIN_SECONDS = 5.0
"""A claim that is still cut after this time was left so by a process that is dead."""


class SharedDirectories:
    """Where trials lie below `runs`. Folders are listed once, on first use."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self._names: dict[str, frozenset[str]] = {}
        self._claimed: frozenset[str] | None = None
        self._by_short_hash: dict[str, list[Path]] | None = None

    def find(self, digest: str, own: Path) -> Path:
        """The directory of the trial with this hash; `own`, where its table would put it, when it has not been begun.

        One that is there under its own name comes first, then the one that was claimed, then any other with the same
        hash, a finished one before others: earlier releases made no claims.
        """
        if own.name in self._listed(own.parent.name):
            return own
        if self._claimed is None:
            self._claimed = frozenset(listed(self.runs / CLAIMS))
        if digest in self._claimed:
            named = claimed(self.runs, digest)
            if named is not None and _may_be(named, digest):
                return named
        candidates = [path for path in self._known().get(digest[:8], ()) if _hash(path) == digest]
        return min(candidates, key=lambda path: (not _is_there(path / "metrics.json"), path), default=own)

    def _listed(self, folder: str) -> frozenset[str]:
        if folder not in self._names:
            self._names[folder] = frozenset(listed(self.runs / folder))
        return self._names[folder]

    def _known(self) -> dict[str, list[Path]]:
        """Directories by the eight digits of a hash with which their names end."""
        if self._by_short_hash is None:
            self._by_short_hash = {}
            for folder in listed(self.runs):
                try:
                    names = self._listed(folder) if not folder.startswith(".") else frozenset()
                except PermissionError:
                    continue  # another table's folder that is closed to us: nothing in it can be shared
                for name in names:
                    row, mark, short = name.rpartition("--")
                    if mark and row and len(short) == 8:
                        self._by_short_hash.setdefault(short, []).append(self.runs / folder / name)
        return self._by_short_hash


def claim(runs: Path, digest: str, own: Path) -> Path:
    """The directory in which the trial with this hash belongs from now on: `own`, or that of the first claim.

    Raises:
        OSError: When nothing can be written below `runs`, ConfigError when the claim names a directory of something else, which
            only hands can have done.
    """
    file = runs / CLAIMS / digest
    text = f"{own.parent.name}/{own.name}\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    if create(file, text.encode()) and _text(file) == text:
        return own
    if not _is_whole(runs, digest):
        _mend(runs, digest, text)
    named = claimed(runs, digest)
    if named is None or not _may_be(named, digest):
        raise ConfigError(f"{file} does not name the directory of trial {digest[:8]}; remove the file")
    return named


def _mend(runs: Path, digest: str, text: str) -> None:
    """Put `text` into a claim that a killed process has left cut, where the file system has no hard links.

    One that is young may still be written, and is waited for. Its writer reads it again in the end, so that also a very slow
    one finds out.
    """
    end = time.monotonic() + WRITTEN_WITHIN_SECONDS
    while time.monotonic() < end:
        if _is_whole(runs, digest):
            return
        time.sleep(0.05)
    mending = TrialDir(runs / CLAIMS / f".{digest[:16]}.mending")
    with (
        suppress(TrialBusyError),
        mending.locked(),
    ):  # another process is at it: then it is whole in a moment, or next time
        if not _is_whole(runs, digest):
            write_text(runs / CLAIMS / digest, text)
    with suppress(OSError):
        mending.path.rmdir()


def _is_whole(runs: Path, digest: str) -> bool:
    """Whether a claim is all there; one that is gone has been released, and was whole."""
    text = _text(runs / CLAIMS / digest)
    return text is None or text.endswith("\n") or claimed(runs, digest) is not None


def _text(file: Path) -> str | None:
    try:
        return file.read_text(errors="replace")
    except FileNotFoundError:
        return None


def claimed(runs: Path, digest: str) -> Path | None:
    """What the claim on a hash names, or None when there is none, or one that is not readable."""
    try:
        folder, slash, name = (runs / CLAIMS / digest).read_text().strip().partition("/")
    except (OSError, UnicodeDecodeError):
        return None
    is_sound = slash and folder and not folder.startswith(".") and "/" not in name and name.endswith(f"--{digest[:8]}")
    return runs / folder / name if is_sound else None


def release(runs: Path, digest: str, named: Path) -> None:
    """Take the claim away, if it names this directory."""
    if claimed(runs, digest) == named:
        (runs / CLAIMS / digest).unlink(missing_ok=True)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        return False


def _may_be(path: Path, digest: str) -> bool:
    """Whether a directory is this trial's, or will be: it is not there yet, or has no identity yet."""
    return _hash(path) in (digest, None)


def _hash(path: Path) -> str | None:
    try:
        recorded = read_json(path / "identity.json")
    except OSError:
        return None  # another user's, and closed to us: its state says so
    found = recorded.get("hash") if isinstance(recorded, dict) else None
    return found if isinstance(found, str) else None


def listed(folder: Path) -> Iterator[str]:
    """Names in a folder; none when there is no such folder, when it is closed to us, or is a link to itself."""
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return
    with entries:
        yield from (entry.name for entry in entries)
