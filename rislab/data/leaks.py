"""What a training mixture shares with evaluation splits: images, objects, sentences.

All sets of the RefCOCO family lie in COCO train2014 and were split independently, so one set's train holds another's test
images, and the google partitions divide objects, not images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rislab.data.annotations import Reference
from rislab.data.locate import DataFolder, locate
from rislab.data.refer import Refer
from rislab.errors import ConfigError


@dataclass(frozen=True)
class Part:
    """One split of one partition, as ``refcoco:unc:train`` names it."""

    data_folder: DataFolder
    split: str

    @property
    def name(self) -> str:
        return f"{self.data_folder.dataset}:{self.data_folder.split_by}:{self.split}"


@dataclass(frozen=True)
class Leak:
    """What one training part shares with one evaluation part.

    Attributes:
        images: by COCO id.
        objects: by annotation id.
        sentences: the same cleaned text about the same image.
        evaluated: how many (images, objects, sentences) the evaluation part has.
    """

    train: str
    evaluation: str
    images: frozenset[int]
    objects: frozenset[int]
    sentences: frozenset[tuple[int, str]]
    evaluated: tuple[int, int, int]

    def as_json(self) -> dict[str, Any]:
        return {
            "train": self.train,
            "eval": self.evaluation,
            "images": len(self.images),
            "objects": len(self.objects),
            "sentences": len(self.sentences),
            "evaluated": dict(zip(("images", "objects", "sentences"), self.evaluated, strict=True)),
            "example_images": sorted(self.images)[:5],
        }


def part(folder: Path, name: str) -> Part:
    """``DATASET:PARTITION:SPLIT`` or ``DATASET:SPLIT``. Raises ConfigError for another form, DataError for what is not there."""
    fields = name.split(":")
    if len(fields) == 2:
        fields.insert(1, "")
    if len(fields) != 3 or not fields[0] or not fields[2]:
        raise ConfigError(f"{name!r}: expected DATASET:PARTITION:SPLIT, as in refcoco:unc:train")
    return Part(locate(folder, fields[0], fields[1] or None), fields[2])


def leaks(train: Sequence[Part], evaluation: Sequence[Part], notes: list[str] | None = None) -> list[Leak]:
    """Every pair, in the order given, also those that share nothing. Raises DataError.

    Args:
        notes: takes what is in no split that is compared, in words.
    """
    sets: dict[DataFolder, Refer] = {}

    def references(each: Part) -> list[Reference]:
        if each.data_folder not in sets:
            sets[each.data_folder] = each.data_folder.read()
        return sets[each.data_folder].split(each.split)

    seen = {each.name: _contents(references(each)) for each in (*train, *evaluation)}
    if notes is not None:
        parts = {each.name: each for each in (*train, *evaluation)}
        notes += [f"{n}: {said}" for n, each in parts.items() if (said := sets[each.data_folder].left_out(each.split))]
    found = []
    for one in train:
        for other in evaluation:
            ours, theirs = seen[one.name], seen[other.name]
            images, objects, sentences = (
                frozenset(ours[0] & theirs[0]),
                frozenset(ours[1] & theirs[1]),
                frozenset(ours[2] & theirs[2]),
            )
            sizes = (len(theirs[0]), len(theirs[1]), len(theirs[2]))
            found.append(Leak(one.name, other.name, images, objects, sentences, sizes))
    return found


def _contents(references: Sequence[Reference]) -> tuple[set[int], set[int], set[tuple[int, str]]]:
    return (
        {reference.image_id for reference in references},
        {ann_id for reference in references for ann_id in reference.ann_ids},
        {(reference.image_id, expression.sent) for reference in references for expression in reference.expressions},
    )
