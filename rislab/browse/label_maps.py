"""Units and answers of label maps: a class in a picture, checked against the scores of the trials."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rislab.browse.contents import ABSENT, Contents, Entry, Picture, Unit
from rislab.browse.trials import Progress, Trial
from rislab.data import masks
from rislab.data.truth import LabelMaps
from rislab.errors import DataError
from rislab.evaluation.arithmetic import SweptArithmetic, Table
from rislab.evaluation.kept_answers import UnreadableAnswersError, map_from_bytes, small_map
from rislab.metrics.classes import IGNORE, confusion
from rislab.metrics.error_classes import CLASSES, error_class

Map = NDArray[np.uint8]
Key = tuple[int, int]
"""(number of the picture, class)."""


@dataclass
class Shown:
    """What one trial answered, by unit."""

    scores: dict[Key, float] = field(default_factory=dict)
    errors: dict[Key, int] = field(default_factory=dict)
    masks: dict[Key, str] = field(default_factory=dict)


def contents(title: str, dataset: str, trials: Sequence[Trial], notes: Sequence[str], progress: Progress) -> Contents:
    """What is shown of trials that labelled the same pictures.

    Raises:
        DataError: The data are not there, or are not those that were scored.
    """
    first = trials[0]
    truth = first.truth.read()
    assert isinstance(truth, LabelMaps), "data of label maps give label maps"
    names = truth.names(str(first.result.get("names", "mmseg")))
    counts = [_by_picture(trial) for trial in trials]
    shown = [Shown() for _ in trials]
    units: dict[Key, Unit] = {}
    pictures: list[Picture] = []
    for number, item in enumerate(truth.items(first.split)):
        label = truth.label(item, len(names))
        small = small_map(label)
        there = {int(c) for of in counts for c in of.get(number, {})}
        for each, of in zip(trials, counts, strict=True):
            _check_label(each, number, label, of.get(number, {}))
        if there:
            pictures.append(Picture(f"{number}{item.image.suffix}", label.shape[0], label.shape[1], item.image))
        for c in sorted(there):
            units[number, c] = _unit(len(units), len(pictures) - 1, names[c], small, label, c)
        for each, of, into in zip(trials, counts, shown, strict=True):
            _take(each, number, small, label, of.get(number, {}), sorted(there), into)
            progress()
    order = list(units)
    return Contents(
        title=title,
        subtitle=f"{dataset}, split {first.split}; protocol {first.result.get('protocol')}",
        kind="classes",
        metric="iou",
        meaning="A score is the IoU of a class in a picture that shows it, in percent; the table's mIoU sums over all pictures",
        pictures=tuple(pictures),
        units=tuple(units.values()),
        entries=tuple(_entry(trial, of, order) for trial, of in zip(trials, shown, strict=True)),
        notes=tuple(notes),
    )


Counted = tuple[int, int, int]
"""(intersection, prediction, target) in pixels of the whole picture."""


def _by_picture(trial: Trial) -> dict[int, dict[int, Counted]]:
    """Counts of each class of each picture; of a swept threshold, at the fixed one."""
    table: Table = trial.table
    if isinstance(trial.arithmetic, SweptArithmetic):
        chosen = table["threshold"] == trial.arithmetic.fixed
        table = {name: column[chosen] for name, column in table.items()}
    found: dict[int, dict[int, Counted]] = {}
    columns = (table[name].tolist() for name in ("image_id", "class", "intersection", "prediction", "target"))
    for number, c, *counted in zip(*columns, strict=True):
        found.setdefault(number, {})[c] = (counted[0], counted[1], counted[2])
    return found


def _check_label(trial: Trial, number: int, label: Map, counted: Mapping[int, Counted]) -> None:
    """Raises DataError where a picture's label map has not the pixels that were scored."""
    if not counted and number not in trial.answers:
        return
    areas = np.bincount(label.ravel(), minlength=IGNORE + 1)[:IGNORE]
    expected = {c: int(area) for c, area in enumerate(areas.tolist()) if area}
    scored = {c: target for c, (_, _, target) in counted.items() if target}
    if expected != scored:
        raise DataError(
            f"{trial.name}: picture {number}: its label map has pixels of classes {sorted(expected)}, and not those that were "
            "scored: the data are others, or the protocol shows another part of the picture; --data says where data lie"
        )


def _unit(number: int, picture: int, name: str, small: Map, label: Map, c: int) -> Unit:
    target = small == c
    return Unit(
        number=number,
        picture=picture,
        text=name,
        share=float((label == c).mean()),
        size=(small.shape[0], small.shape[1]),
        target=_runs(target),
        no_target=not (label == c).any(),
    )


def _take(
    trial: Trial, number: int, small: Map, label: Map, counted: Mapping[int, Counted], there: Sequence[int], into: Shown
) -> None:
    """What a trial answered to one picture. Raises DataError for an answer that is missing or not the one that was scored."""
    answer = trial.answers.get(number)
    if answer is None:
        if counted:
            raise DataError(f"{trial.name}: it kept no answer to picture {number}, which it was scored on")
        return
    try:
        said = map_from_bytes(answer.data)
    except UnreadableAnswersError as reason:
        raise DataError(f"{trial.name}: picture {number}: {reason}") from None
    if said.shape != small.shape:
        raise DataError(
            f"{trial.name}: picture {number}: its kept label map is {list(said.shape)}, expected {list(small.shape)}"
        )
    if small.shape == label.shape:
        _check_answer(trial, number, said, label, counted)
    scored = small != IGNORE
    for c in there:
        mask, target = (said == c) & scored, small == c
        both, of_answer, of_target = counted.get(c, (0, 0, 0))
        # A class that a picture does not show has no IoU to compare rows by; its error class says what was made of it.
        into.scores[number, c] = 100 * both / (of_answer + of_target - both) if of_target else np.nan
        into.errors[number, c] = CLASSES.index(error_class(mask, target))
        into.masks[number, c] = _runs(mask)


def _check_answer(trial: Trial, number: int, said: Map, label: Map, counted: Mapping[int, Counted]) -> None:
    """Raises DataError where a label map that was kept as it is does not give the counts."""
    matrix = confusion(said, label, IGNORE)
    hits, of_answer, of_label = matrix.diagonal(), matrix.sum(0), matrix.sum(1)
    found = {int(c): (int(hits[c]), int(of_answer[c]), int(of_label[c])) for c in np.flatnonzero(of_answer + of_label)}
    if found != dict(counted):
        raise DataError(
            f"{trial.name}: picture {number}: its kept label map does not give the counts of scores.parquet"
        )


def _entry(trial: Trial, shown: Shown, order: Sequence[Key]) -> Entry:
    return Entry(
        trial.row,
        trial.label,
        trial.seed,
        trial.fold,
        trial.any_seed,
        np.array([shown.scores.get(key, np.nan) for key in order], np.float64),
        np.array([shown.errors.get(key, ABSENT) for key in order], np.uint8),
        [shown.masks.get(key) for key in order],
    )


def _runs(mask: NDArray[np.bool_]) -> str:
    counts: str = masks.to_json(masks.encode(mask))["counts"]
    return counts
