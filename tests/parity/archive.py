"""Parity cases as one versioned archive: made from a folder, fetched by path or URL, unpacked into the cache.

    python -m tests.parity.archive make CASES parity-1.tar      the same content gives the same bytes; prints the sha256
    python -m tests.parity.archive fetch                        prints the folder with the cases

`fetch` reads RISLAB_PARITY_ARCHIVE (a path or a URL) and RISLAB_PARITY_SHA256. The archive is a plain tar, since what a
compressor writes depends on its version; it holds `parity.json` (version, and the sha256 of each file) and METHOD/CASE/FILE.
"""

import hashlib
import io
import json
import os
import re
import shutil
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rislab.errors import DataError, RislabError, from_system
from rislab.files import cache_dir, replacing

VERSION = 1
INDEX = "parity.json"
ARCHIVE, SHA256 = "RISLAB_PARITY_ARCHIVE", "RISLAB_PARITY_SHA256"
LARGEST = 4 << 30
"""Bytes of an archive, and of what it holds."""
_PART = r"[A-Za-z0-9][A-Za-z0-9_.+-]*"
_NAME = re.compile(rf"{_PART}/{_PART}/{_PART}")
_BLOCK = 1 << 20


def make(folder: Path, target: Path) -> str:
    """Write the archive of a folder METHOD/CASE/FILE. Returns its sha256. Raises DataError."""
    files = sorted(_files(folder))
    if not files:
        raise DataError(f"{folder}: no case, expected METHOD/CASE/case.json")
    index = {"version": VERSION, "files": {name: _digest(folder / name) for name in files}}
    with replacing(target) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive:
        data = (json.dumps(index, indent=1, sort_keys=True) + "\n").encode()
        archive.addfile(_entry(INDEX, len(data)), io.BytesIO(data))
        for name in files:
            with (folder / name).open("rb") as file:
                archive.addfile(_entry(name, os.fstat(file.fileno()).st_size), file)
    return _digest(target)


def fetch(source: str, sha256: str, cache: Path) -> Path:
    """The folder with the cases of an archive, fetched and unpacked once.

    Args:
        source: path or http(s) URL.
        sha256: 64 hexadecimal digits that the archive must have.
        cache: folder below which it is unpacked.

    Raises:
        DataError: Another digest, an archive that cannot be read or would write outside, or one of another version.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise DataError(f"{SHA256} is {sha256[:80]!r}, expected the 64 hexadecimal digits of the archive's sha256")
    target = cache / sha256[:16]
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        archive = Path(folder) / "archive.tar"
        _copy(source, archive)
        found = _digest(archive)
        if found != sha256:
            raise DataError(f"{source}: its sha256 is {found}, {SHA256} says {sha256}")
        unpacked = Path(folder) / "cases"
        unpack(archive, unpacked, source)
        try:
            unpacked.rename(target)
        except OSError:
            if not target.is_dir():  # another process was first
                raise
    return target


def unpack(archive: Path, target: Path, shown: str) -> None:
    """Write the files of an archive below a new folder, and compare them with its index.

    Only regular files METHOD/CASE/FILE are written: no links, no devices, nothing outside. Raises DataError.
    """
    target.mkdir()
    try:
        with tarfile.open(archive, "r:") as content:
            members = content.getmembers()
            for member in members:
                if not member.isreg() or not (member.name == INDEX or _is_safe(member.name)):
                    raise DataError(
                        f"{shown}: {member.name!r} is no regular file METHOD/CASE/FILE; nothing was unpacked"
                    )
            if sum(member.size for member in members) > LARGEST or len({m.name for m in members}) < len(members):
                raise DataError(f"{shown}: more than {LARGEST >> 30} GiB, or a file twice; nothing was unpacked")
            for member in members:
                source = content.extractfile(member)
                assert source is not None, "a regular file"
                path = target / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as file:
                    shutil.copyfileobj(source, file, _BLOCK)
    except tarfile.TarError as error:
        raise DataError(f"{shown}: no archive that can be read ({error})") from None
    _compare(target, shown)


def _compare(folder: Path, shown: str) -> None:
    """Raises DataError where the files are not those of the index."""
    try:
        index: Any = json.loads((folder / INDEX).read_text())
    except (OSError, ValueError):
        raise DataError(f"{shown}: no readable {INDEX}; make archives by `make parity-archive`") from None
    if not isinstance(index, dict) or index.get("version") != VERSION or not isinstance(index.get("files"), dict):
        version = index.get("version") if isinstance(index, dict) else None
        raise DataError(f"{shown}: version {version!r}, expected {VERSION}")
    there = set(_files(folder))
    for name, digest in index["files"].items():
        if name not in there or _digest(folder / name) != digest:
            raise DataError(f"{shown}: {name} is missing or not what {INDEX} says")
    if extra := sorted(there - index["files"].keys()):
        raise DataError(f"{shown}: {extra[0]} is not in {INDEX}")


def _is_safe(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and ".." not in name


def _files(folder: Path) -> Iterator[str]:
    """Names METHOD/CASE/FILE of the files of cases. Raises DataError for a link, and for a name that no archive may hold."""
    for case in sorted(folder.glob("*/*/case.json")):
        for path in sorted(case.parent.iterdir()):
            name = path.relative_to(folder).as_posix()
            if path.is_symlink() or not path.is_file() or not _is_safe(name):
                raise DataError(f"{path}: expected a regular file with letters, digits and . _ + - in its name")
            yield name


def _entry(name: str, size: int) -> tarfile.TarInfo:
    """No owner, no time: what differs between two machines."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(source: str, target: Path) -> None:
    """Download, or copy a file. Raises DataError."""
    try:
        with _opened(source) as stream, target.open("wb") as file:
            while block := stream.read(_BLOCK):
                file.write(block)
                if file.tell() > LARGEST:
                    raise DataError(f"{source}: larger than {LARGEST >> 30} GiB")
    except urllib.error.URLError as error:
        raise DataError(f"{source}: {error}") from None
    except OSError as error:
        raise DataError(f"{source}: {error.strerror or error}") from None


def _opened(source: str) -> Any:
    if "://" not in source:
        return Path(source).expanduser().open("rb")
    if not source.startswith(("https://", "http://")):
        raise DataError(f"{source}: expected a path, or a URL with http or https")
    return urllib.request.urlopen(source, timeout=60)


def main(arguments: list[str]) -> int:
    match arguments:
        case ["make", folder, target]:
            print(f"{make(Path(folder), Path(target))}  {target}")
        case ["fetch"]:
            source = os.environ.get(ARCHIVE)
            if not source:
                raise DataError(f"{ARCHIVE} is not set: the path or URL of an archive, and {SHA256} its sha256")
            print(fetch(source, os.environ.get(SHA256, ""), cache_dir() / "parity"))
        case _:
            raise DataError("expected: make CASES ARCHIVE, or fetch")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except RislabError as error:
        sys.exit(f"parity: {error}")
    except OSError as error:
        sys.exit(f"parity: {from_system(error)}")
