"""What is publicly known of a referring data set: its files, its partitions, and how much each split holds.

One data set is one short file in `rislab/data/sets`. A folder that no such file describes is read all the same; nothing
is then known of its counts.
"""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from rislab.data import sets
from rislab.data.annotations import Reference

REFERENCE_FILES = ("refs({}).p", "Ref-ZOM({}).p", "grefs({}).json", "grefs({}).p")
"""Every name that a release has; `{}` stands for the partition."""


class Counts(NamedTuple):
    """None where no source could be read."""

    references: int | None = None
    images: int | None = None
    sentences: int | None = None


@dataclass(frozen=True)
class DataSet:
    """folder: below the data root, and the name that a config gives. title: as papers print it.

    Attributes:
        files: names under which the references of a partition are found; `{}` stands for the partition.
        partitions: published counts by partition and split. Every split is listed, those of unknown size with empty counts.
        no_validation: the release has no validation split, and says so: hold out images of train.
        annotations, pictures: where to get them.
        sources: of the counts.
    """

    folder: str
    title: str
    partitions: Mapping[str, Mapping[str, Counts]] = field(default_factory=dict)
    files: tuple[str, ...] = ("refs({}).p",)
    annotations: str = "the authors' release"
    pictures: str = "cocodataset.org, train2014"
    sources: str = ""
    no_validation: bool = False

    def file_names(self, split_by: str) -> tuple[str, ...]:
        return tuple(name.format(split_by) for name in self.files)


@cache
def known() -> dict[str, DataSet]:
    """Every described data set by folder."""
    modules = (importlib.import_module(f"{sets.__name__}.{m.name}") for m in pkgutil.iter_modules(sets.__path__))
    return {module.DATA_SET.folder: module.DATA_SET for module in modules}


def data_set(folder: str) -> DataSet:
    """What is known of a folder; for one without a description, only its name, and every usual file name."""
    return known().get(folder) or DataSet(folder, folder, files=REFERENCE_FILES)


def count(references: Sequence[Reference]) -> Counts:
    return Counts(
        len(references),
        len({reference.image_id for reference in references}),
        sum(len(reference.expressions) for reference in references),
    )


def deviation(folder: str, split_by: str, split: str, references: Sequence[Reference]) -> str:
    """What differs from the published counts, as ``"3810 references (published: 3811)"``; "" when nothing does."""
    published = data_set(folder).partitions.get(split_by, {}).get(split, Counts())
    return ", ".join(
        f"{have} {name} (published: {want})"
        for name, have, want in zip(Counts._fields, count(references), published, strict=True)
        if want is not None and have != want
    )
