"""Units and answers of referring segmentation, checked against the scores of the trials."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rislab.browse.contents import ABSENT, Contents, Entry, Picture, Unit
from rislab.browse.trials import Answered, Progress, Trial
from rislab.data import masks
from rislab.data.truth import Expressions
from rislab.errors import DataError
from rislab.evaluation.arithmetic import ExpressionArithmetic
from rislab.metrics.definitions import METRICS
from rislab.metrics.error_classes import CLASSES, RIGHT, ErrorClass, error_class
from rislab.metrics.protocols import Convention
from rislab.metrics.referring import PARTS
from rislab.scoring.score import POSITION


@dataclass
class Gathered:
    """Units of all trials, by sentence; a picture once.

    Attributes:
        truth: what was to be answered.
        convention: by which the trials compare.
        units: by sentence id.
        pictures: in the order in which units named them.
    """

    truth: Expressions
    convention: Convention
    units: dict[int, Unit] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)
    _targets: dict[int, masks.RLE] = field(default_factory=dict)
    _index: dict[int, int] = field(default_factory=dict)

    def unit(self, sent_id: int) -> Unit:
        """Raises DataError: no such sentence, or its picture is missing."""
        found = self.units.get(sent_id)
        return found if found is not None else self._made(sent_id)

    def target(self, sent_id: int) -> masks.RLE:
        """The mask that the convention compares with."""
        _, reference = self.truth.of(sent_id)
        if reference.ref_id not in self._targets:
            self._targets[reference.ref_id] = self.truth.target(reference, self.convention)
        return self._targets[reference.ref_id]

    def _made(self, sent_id: int) -> Unit:
        expression, reference = self.truth.of(sent_id)
        target = masks.to_json(self.target(sent_id))
        height, width = target["size"]
        unit = Unit(
            number=sent_id,
            picture=self._picture(reference.image_id),
            text=str(getattr(expression, self.convention.text_field)).strip(),
            share=masks.area(self.target(sent_id)) / (height * width),
            size=(height, width),
            target=target["counts"],
            words=len(expression.sent.split()),
            distractors=self.truth.distractors(reference),
            has_position=POSITION.search(expression.sent) is not None,
            no_target=not reference.ann_ids,
        )
        self.units[sent_id] = unit
        return unit

    def _picture(self, image_id: int) -> int:
        if image_id not in self._index:
            height, width = self.truth.size(image_id)
            file = self.truth.file(image_id)
            suffix, data = (file.suffix, None) if file is not None else self.truth.picture(image_id)
            self._index[image_id] = len(self.pictures)
            self.pictures.append(Picture(f"{image_id}{suffix}", height, width, file, data))
        return self._index[image_id]


def contents(title: str, dataset: str, trials: Sequence[Trial], notes: Sequence[str], progress: Progress) -> Contents:
    """What is shown of trials that answered the same sentences.

    Raises:
        DataError: The data are not there, or are not those that were scored.
    """
    arithmetic = trials[0].arithmetic
    assert isinstance(arithmetic, ExpressionArithmetic), "trials of one kind are shown together"
    convention = arithmetic.convention
    truth = trials[0].truth.read()
    assert isinstance(truth, Expressions), "data of sentences give sentences"
    splits = ", ".join(dict.fromkeys(trial.split for trial in trials))
    return of_answered(title, f"{dataset}, split {splits}", trials, truth, convention, notes, progress)


def of_answered(
    title: str,
    subtitle: str,
    answered: Sequence[Answered],
    truth: Expressions,
    convention: Convention,
    notes: Sequence[str],
    progress: Progress,
) -> Contents:
    """What is shown of answers to sentences; all were compared by one convention. Raises DataError, see `contents`."""
    gathered = Gathered(truth, convention)
    for each in answered:
        for sent_id in each.table["sent_id"].tolist():
            gathered.unit(sent_id)
    order = sorted(gathered.units)
    metric = convention.averages[0]
    return Contents(
        title=title,
        subtitle=f"{subtitle}; {convention.title}",
        kind="expressions",
        metric=metric,
        meaning=f"A score is what an expression counts in {METRICS[metric].title}, in percent",
        pictures=tuple(gathered.pictures),
        units=tuple(gathered.units[sent_id] for sent_id in order),
        entries=tuple(entry(each, gathered, order, progress) for each in answered),
        notes=tuple(notes),
    )


def entry(trial: Answered, gathered: Gathered, order: Sequence[int], progress: Progress) -> Entry:
    """What a trial answered to the units, in their order.

    Raises:
        DataError: An answer is missing, or answer and truth do not give the counts that were scored.
    """
    at = {sent_id: n for n, sent_id in enumerate(order)}
    scores = np.full(len(order), np.nan)
    errors = np.full(len(order), ABSENT, np.uint8)
    found: list[str | None] = [None] * len(order)
    top, bottom = PARTS[gathered.convention.averages[0]](trial.table, gathered.convention)
    for n, sent_id in enumerate(trial.table["sent_id"].tolist()):
        answer = trial.answers.get(sent_id)
        if answer is None:
            raise DataError(f"{trial.name}: it kept no answer to sentence {sent_id}, which it was scored on")
        rle: masks.RLE = {"size": [answer.height, answer.width], "counts": answer.data}
        target = gathered.target(sent_id)
        counted = _checked(trial, n, rle, target)
        position = at[sent_id]
        scores[position] = 100 * top[n] / bottom[n] if bottom[n] else np.nan
        errors[position] = CLASSES.index(_error_class(rle, target, counted))
        found[position] = answer.data.decode("ascii")
        progress()
    return Entry(trial.row, trial.label, trial.seed, trial.fold, trial.any_seed, scores, errors, found)


Counted = tuple[int, int, int, int]


def _checked(trial: Answered, n: int, rle: masks.RLE, target: masks.RLE) -> Counted:
    """(intersection, union, target, prediction) in pixels. Raises DataError where they are not those that were scored."""
    intersection, union, area, predicted = (
        int(trial.table[name][n]) for name in ("intersection", "union", "target", "prediction")
    )
    expected: Counted = intersection, union, area, predicted
    sent_id = int(trial.table["sent_id"][n])
    kept, meant = list(rle["size"]), list(target["size"])
    if kept != meant:
        raise DataError(
            f"{trial.name}: sentence {sent_id}: its kept mask is {kept}, the target {meant} (height, width)"
        )
    both, of_target, of_answer = masks.intersection_area(rle, target), masks.area(target), masks.area(rle)
    counted = both, of_target + of_answer - both, of_target, of_answer
    if counted != expected:
        raise DataError(
            f"{trial.name}: sentence {sent_id}: its kept mask and the target of the data give {both} / {counted[1]} pixels, "
            f"scores.parquet says {expected[0]} / {expected[1]}: the data are not those that were scored; --data says where "
            "those lie"
        )
    return counted


def _error_class(rle: masks.RLE, target: masks.RLE, counted: Counted) -> ErrorClass:
    both, union, *_ = counted
    if both and both >= RIGHT * union:
        return "right"  # of most masks, which need not be decoded for it
    return error_class(_decoded(rle), _decoded(target))


def _decoded(rle: masks.RLE) -> NDArray[np.bool_]:
    return masks.decode(rle).view(np.bool_)
