"""Files that are either whole or absent: written under a temporary name in the same folder, then renamed."""

import json
import os
import threading
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


def write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def json_bytes(value: Any) -> bytes:
    """Sorted keys and a final newline, so that equal values are equal bytes."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


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
    return Path(os.environ.get("RISLAB_CACHE") or platformdirs.user_cache_dir("rislab", appauthor=False))
