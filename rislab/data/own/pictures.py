"""The user's pictures: found beside the file that names them, looked at once, and kept upright."""

import hashlib
import io
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from PIL import Image

from rislab.data import decoding
from rislab.errors import DataError, nearest
from rislab.paths import contents, is_file, user_path

Orientation = Literal["exif", "stored"]
SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "GIF": ".gif", "PPM": ".ppm"}
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")


@dataclass(frozen=True)
class Places:
    """Where the pictures of a file lie.

    Attributes:
        folders: searched in order.
    """

    folders: tuple[Path, ...]

    def find(self, name: str) -> Path:
        """The file that a name means. Raises DataError with the nearest name in the folders."""
        for form in dict.fromkeys((name.strip(), name.strip().replace("\\", "/"))):
            given = user_path(form)
            for path in [given] if given.is_absolute() else [folder / given for folder in self.folders]:
                if is_file(path):
                    return path
        there = [name for folder in self.folders for name in _names(folder)]
        where = ", ".join(map(str, self.folders))
        raise DataError(f"no picture {name!r} in {where}{nearest(Path(name).name, there)} (--pictures DIR)")


@cache
def _names(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(path.name for path in folder.iterdir())
    except OSError:
        return ()


@dataclass(frozen=True)
class Picture:
    """One of the user's pictures.

    Attributes:
        digest: sha256 of its bytes: two files of the same bytes are one picture.
        height, width: of the upright picture, in pixels.
        stored: (height, width) of the pixels as the file holds them.
        converted: the copy is a PNG: the picture is turned, or a TIFF, whose orientation decoders treat differently.
        suffix: of the copy.
    """

    path: Path
    digest: str
    height: int
    width: int
    stored: tuple[int, int]
    converted: bool
    suffix: str

    def copied_name(self, number: int) -> str:
        """Name of the copy: a number, and what of the user's name is safe everywhere."""
        stem = _UNSAFE.sub("-", self.path.stem).strip("-.")[:60]
        return f"{number:06d}{'-' if stem else ''}{stem}{self.suffix}"

    def copy(self) -> bytes:
        """Bytes of the copy: the file's own, or a PNG of the upright picture. Raises DataError."""
        data = contents(self.path)
        if hashlib.sha256(data).hexdigest() != self.digest:
            raise DataError(f"{self.path}: changed while it was imported")
        if not self.converted:
            return data
        written = io.BytesIO()
        Image.fromarray(decoding.picture(data, str(self.path), upright=True)).save(written, format="PNG")
        return written.getvalue()


def look_at(path: Path, orientation: Orientation) -> Picture:
    """Read and decode a picture.

    Args:
        path: of the file.
        orientation: `exif`: upright as viewers show it, as annotations of photos are drawn; `stored`: as the file holds it.

    Raises:
        DataError: Not there, no picture that is read, damaged.
    """
    data = contents(path)
    header = decoding.header(data, str(path))
    pixels = decoding.picture(data, str(path), upright=orientation == "exif")
    is_turned = orientation == "exif" and decoding.orientation(data) != 1
    converted = is_turned or header.format == "TIFF"
    suffix = ".png" if converted else SUFFIXES[header.format]
    height, width = pixels.shape[:2]
    stored = (header.height, header.width)
    return Picture(path, hashlib.sha256(data).hexdigest(), height, width, stored, converted, suffix)
