"""Files that are either whole or absent: written under a temporary name in the same folder, then renamed."""

import json
import os
import re
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path` in one rename, on failure it is removed.

    Readers see the old file or the new one, never a part of either, also after a power cut (the data is synced first).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


_TEMPORARY = re.compile(r"\..+\.(?P<pid>\d+)-\d+\.tmp$")


def leftovers(folder: Path) -> dict[Path, int]:
    """Temporary files of `replacing` in a folder, with the process that made each."""
    try:
        found = {path: _TEMPORARY.match(path.name) for path in folder.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {path: int(match["pid"]) for path, match in found.items() if match is not None}


def create(path: Path, data: bytes) -> bool:
    """Make a file that is not there yet. False when there is one, of whatever content.

    The file appears with its whole content where the file system has hard links. Where it has none (exFAT, many FUSE and SMB
    mounts), it is created exclusively and then written: a reader may see it empty or cut for a moment, and after a kill for
    ever. While that lasts, a file beside it holds the whole content (`being_created`).
    """
    if path.exists():
        return False
    beside = path.with_name(f".{path.name.lstrip('.')}-{uuid.uuid4().hex}.new")
    try:
        beside.write_bytes(data)
        try:
            os.link(beside, path)
        except FileExistsError:
            return False
        except OSError:  # no hard links; if it is anything else, the next line meets it, too
            try:
                with path.open("xb") as file:
                    file.write(data)
            except FileExistsError:
                return False
        return True
    finally:
        beside.unlink(missing_ok=True)


def being_created(path: Path) -> list[Path]:
    """The files that hold what `create` is writing to `path`, or was when it was killed."""
    form = re.compile(rf"\.{re.escape(path.name.lstrip('.'))}-[0-9a-f]{{32}}\.new")
    try:
        return sorted(each for each in path.parent.iterdir() if form.fullmatch(each.name))
    except OSError:
        return []


def keep_as(path: Path, kept: Path) -> None:
    """Make `kept` a second name of the file `path`, or a copy of it where the file system has no hard links.

    `path` itself is there at every moment.
    """
    with replacing(kept) as temporary:
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)


def write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, encodable(text).encode())


def json_bytes(value: Any) -> bytes:
    """Sorted keys and a final newline, so that equal values are equal bytes."""
    return json_text(value, sort_keys=True).encode()


def json_text(value: Any, sort_keys: bool = False) -> str:
    """JSON over several lines, letters as they are. A file name that is no UTF-8 comes back from it as it was."""
    return encodable(json.dumps(value, indent=1, sort_keys=sort_keys, ensure_ascii=False)) + "\n"


def encodable(text: str) -> str:
    r"""The text with lone surrogates, of a file name that is no UTF-8, written out as JSON does: `\udcfc`."""
    return text.encode("utf-8", "backslashreplace").decode()


def write_json(path: Path, value: Any) -> None:
    """See `json_bytes`."""
    write_bytes(path, json_bytes(value))


def read_json(path: Path) -> Any:
    """The parsed file, or None when it does not exist or was damaged by something other than us."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None  # ValueError: no JSON, no text, or a number of thousands of digits


def cache_dir() -> Path:
    """Where generated worlds and pretrained tiny models live: ``$RISLAB_CACHE`` or the platform's cache folder."""
    return Path(os.environ.get("RISLAB_CACHE") or platformdirs.user_cache_dir("rislab", appauthor=False)).expanduser()
