"""What a browser of results shows: units with their truth, and what each trial answered to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rislab.metrics.error_classes import CLASSES, ErrorClass

Kind = Literal["expressions", "classes"]
"""Of units: a sentence with its mask; a class in a picture."""


@dataclass(frozen=True)
class Picture:
    """One picture, as it is shown.

    Attributes:
        name: of the file that it is copied to.
        height, width: in pixels.
        file: where it lies; None where it lies inside of another file, or is kept in a trial.
        data: its encoded bytes where there is no file.
    """

    name: str
    height: int
    width: int
    file: Path | None
    data: bytes | None = None


@dataclass(frozen=True)
class Unit:
    """What is answered.

    Attributes:
        number: id of the sentence; of a class in a picture, a running number.
        picture: index of its picture.
        text: the sentence, or the class's name.
        share: of the picture's area that is meant, 0 to 1.
        size: (height, width) of the masks.
        target: COCO's compressed run lengths.
        words: of the sentence.
        distractors: other objects of the same category; -1 where nothing is meant, None where it is not known.
        has_position: whether the sentence names a position.
        no_target: whether nothing is meant.
    """

    number: int
    picture: int
    text: str
    share: float
    size: tuple[int, int]
    target: str
    words: int = 0
    distractors: int | None = None
    has_position: bool = False
    no_target: bool = False


@dataclass(frozen=True)
class Entry:
    """What one trial answered.

    Attributes:
        row: name of the row, with its stage before it where that is not the last: `patch:full`.
        label: as the report prints it.
        seed: of the trial.
        fold: of the trial; "" without folds.
        any_seed: whether it is the row's with every seed, since it trains nothing.
        scores: of each unit in percent, float64 [N]; NaN where the unit is not scored or not the trial's.
        errors: index of each unit's error class, uint8 [N]; `ABSENT` where the unit is not the trial's.
        masks: COCO's compressed run lengths of each unit, N; None where the unit is not the trial's.
    """

    row: str
    label: str
    seed: int
    fold: str
    any_seed: bool
    scores: NDArray[np.float64]
    errors: NDArray[np.uint8]
    masks: Sequence[str | None]


ABSENT = len(CLASSES)


@dataclass(frozen=True)
class Contents:
    """All of a browser of results.

    Attributes:
        title: of the page.
        subtitle: data set, split, convention.
        kind: of the units.
        metric: what a unit's score is called.
        meaning: what a unit's score is, in one sentence.
        pictures: that units lie in.
        units: in order of their numbers.
        entries: of rows, in the table's order.
        notes: what is not shown, and why; one line each.
        classes: of errors, by index.
        report: relative URL of the report beside the folder; "" for none.
    """

    title: str
    subtitle: str
    kind: Kind
    metric: str
    meaning: str
    pictures: Sequence[Picture]
    units: Sequence[Unit]
    entries: Sequence[Entry]
    notes: Sequence[str] = ()
    classes: Sequence[ErrorClass] = CLASSES
    report: str = ""
