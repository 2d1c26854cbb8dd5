"""Files that a stage makes for a later one: `outputs/` of its trial directory, complete once they have a manifest."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from rislab.errors import DataError
from rislab.files import json_bytes, write_bytes
from rislab.paths import unsafe_name

FILE = "manifest.json"


class Outputs:
    """The files of one stage.

    Each is written under a temporary name and renamed: a name that is there is a whole file. The manifest, with the size and the
    sha256 of every file, is written last; without it the outputs are incomplete.

    Args:
        folder: `outputs/` of a trial directory; it need not be there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = folder / FILE

    def path(self, name: str) -> Path:
        """Where a file lies. Raises DataError for a name that leaves the folder, or is the manifest's."""
        if unsafe_name(name) or name == FILE:
            raise DataError(f"{name!r} is no name for a file of a stage's outputs")
        return self.folder / name

    def has(self, name: str) -> bool:
        """Whether the file was written by this or an earlier start of the stage."""
        return self.path(name).is_file()

    def write(self, name: str, data: bytes) -> None:
        """Write one file whole."""
        write_bytes(self.path(name), data)

    def names(self) -> Iterator[str]:
        """Files that are there, sorted; the manifest and temporary files are none."""
        for path in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            if path.is_file() and path.name != FILE and not path.name.startswith("."):
                yield path.name

    def seal(self) -> None:
        """Write the manifest of all files that are there: the stage has made everything that it makes.

        Raises:
            DataError: There is none.
        """
        files = {
            name: {"sha256": _sha256(self.folder / name), "size": (self.folder / name).stat().st_size}
            for name in self.names()
        }
        if not files:
            raise DataError(f"{self.folder}: the stage has made no file")
        write_bytes(self.manifest, json_bytes({"files": files}))

    def fault(self) -> str:
        """What is wrong: no manifest, or the first file that is gone or is not what the stage wrote; "" for sound outputs."""
        try:
            if not self.manifest.is_file():
                return f"{self.folder}: incomplete: no {FILE}"
            content = json.loads(self.manifest.read_bytes())
            for name, entry in content["files"].items():
                path = self.folder / name
                if unsafe_name(name):
                    return f"{self.manifest}: {name!r} is no file of this folder"
                if not path.is_file():
                    return f"{path} is gone"
                if path.stat().st_size != entry["size"] or _sha256(path) != entry["sha256"]:
                    return f"{path} is not what the stage wrote"
            unknown = sorted(set(self.names()) - set(content["files"]))
            if unknown:
                return f"{self.folder / unknown[0]} was not made by the stage"
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{self.manifest}: not a manifest of a stage"
        except OSError as error:
            return f"{error.filename or self.folder}: {error.strerror or error}"
        return ""

    def require(self) -> "Outputs":
        """These outputs, if they are sound.

        Raises:
            DataError: They are not; says what is wrong.
        """
        fault = self.fault()
        if fault:
            raise DataError(f"outputs of the stage before: {fault}; `rislab ablate run` makes them again")
        return self

    def remove(self) -> None:
        """Remove the folder with everything in it; the manifest first, so that a kill leaves incomplete outputs."""
        self.manifest.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
