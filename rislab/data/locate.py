"""Which data set a folder holds, when a person names only the folder."""

from dataclasses import dataclass
from pathlib import Path

from rislab.data.published import data_set
from rislab.data.refer import Refer, partitions
from rislab.data.toy.world import RECIPE
from rislab.errors import DataError, nearest
from rislab.paths import absolute, is_file, visible

FIRST = "refcoco"
"""Taken when a root holds several data sets and none is named."""


@dataclass(frozen=True)
class DataFolder:
    """One partition of one data set on disk."""

    root: Path
    dataset: str
    split_by: str

    @property
    def title(self) -> str:
        """What a report calls it; a generated world is never passed off as the real set."""
        name = f"{data_set(self.dataset).title} ({self.split_by})"
        return f"toy world, {name}-like" if (self.root / RECIPE).exists() else name

    def read(self) -> Refer:
        return Refer(self.root, self.dataset, self.split_by)


def data_folders(folder: Path) -> list[DataFolder]:
    """Every partition of every data set in `folder`, a data root or one data set's own folder. Raises DataError for none."""
    found = search(folder)
    if not found:
        raise DataError(
            f"{folder}: holds no referring data set; expected refcoco/instances.json and refcoco/refs(unc).p in it, or alike"
        )
    return found


def search(folder: Path) -> list[DataFolder]:
    """The same, or none. Raises DataError when there is no such folder."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    homes = [absolute(folder)] if is_file(folder / "instances.json") else _inside(folder)
    found = [
        DataFolder(home.parent, home.name, split_by) for home in homes if home.is_dir() for split_by in partitions(home)
    ]
    return sorted(
        found, key=lambda data_folder: (data_folder.dataset != FIRST, data_folder.dataset, _rank(data_folder))
    )


def _inside(folder: Path) -> list[Path]:
    try:
        return visible(folder.iterdir(), folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from None


def _rank(data_folder: DataFolder) -> int:
    known = list(data_set(data_folder.dataset).partitions)
    return known.index(data_folder.split_by) if data_folder.split_by in known else len(known)


def locate(folder: Path, dataset: str | None = None, split_by: str | None = None) -> DataFolder:
    """The one that is meant: as named, else RefCOCO or the first there is. Raises DataError with what there is."""
    there = data_folders(folder)
    if dataset is not None:
        names = [data_folder.dataset for data_folder in there]
        there = [data_folder for data_folder in there if data_folder.dataset == dataset]
        if not there:
            raise DataError(
                f"{folder}: no data set {dataset!r}, found {list(dict.fromkeys(names))}{nearest(dataset, names)}"
            )
    first = [data_folder for data_folder in there if data_folder.dataset == there[0].dataset]
    if split_by is None:
        return first[0]
    chosen = [data_folder for data_folder in first if data_folder.split_by == split_by]
    if not chosen:
        names = [data_folder.split_by for data_folder in first]
        raise DataError(
            f"{folder}: {first[0].dataset} has no partition {split_by!r}, found {names}{nearest(split_by, names)}"
        )
    return chosen[0]
