"""COCO's pictures on disk: found wherever the code bases of the field keep them, and never half-decoded."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rislab.data import decoding
from rislab.errors import DataError
from rislab.paths import contents, is_file

IMAGE_FOLDERS = (
    "images/train2014",
    "images/mscoco/images/train2014",
    "train2014",
    "trainval2014",
    "images/trainval2014",
    "images/val2014",
    "val2014",
    "images",
)
"""Below the data root. Sources: lichengunc/refer and LAVT (mscoco), ReLA, gRefCOCO and CRIS (images), DMMI (trainval)."""


@dataclass(frozen=True)
class ImageRecord:
    """What `instances.json` says of a picture; height and width in pixels."""

    image_id: int
    file_name: str
    height: int
    width: int


class ImageStore:
    """The pictures below a data root.

    Args:
        root: the folder that IMAGE_FOLDERS are relative to.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        # The folder that the last picture was found in is tried first: a data set keeps all of them in one or two.
        self._folders = [root / folder for folder in IMAGE_FOLDERS]

    def find(self, record: ImageRecord) -> Path | None:
        for at, folder in enumerate(self._folders):
            path = folder / record.file_name
            if is_file(path):
                if at:
                    self._folders.insert(0, self._folders.pop(at))
                return path
        return None

    def path(self, record: ImageRecord) -> Path:
        """Raises DataError that lists what was searched."""
        self.check([record])
        path = self.find(record)
        assert path is not None
        return path

    def check(self, records: Iterable[ImageRecord]) -> None:
        """Raises DataError when any of the pictures is missing: better now than in the middle of an epoch."""
        records = list(records)
        missing = [record.file_name for record in records if self.find(record) is None]
        if missing:
            some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            searched = "\n  ".join(str(self.root / folder) for folder in IMAGE_FOLDERS)
            raise DataError(f"{len(missing)} of {len(records)} images not found ({some}); searched\n  {searched}")

    def read(self, record: ImageRecord) -> NDArray[np.uint8]:
        """uint8 RGB [h, w, 3]; grey pictures become RGB; EXIF rotation is not applied (masks are not rotated either).

        Raises:
            DataError: For a missing or damaged file and for one whose size is not what `instances.json` says.
        """
        path = self.path(record)
        return decode(contents(path), record, str(path))


def decode(data: bytes, record: ImageRecord, where: str) -> NDArray[np.uint8]:
    """Encoded bytes -> uint8 RGB [h, w, 3]; see `ImageStore.read`. Raises DataError that begins with `where`."""
    expected = decoding.Expected(record.height, record.width, "instances.json says")
    return decoding.picture(data, where, expected, noun="image")
