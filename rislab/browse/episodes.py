"""Units and answers of few-shot episodes: a class in a picture, at the protocol's square, checked against the trials' scores."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rislab.browse.contents import ABSENT, Contents, Entry, Picture, Unit
from rislab.browse.trials import Progress, Trial
from rislab.data import masks
from rislab.data.episodes import Pair
from rislab.data.truth import Episodes
from rislab.errors import DataError
from rislab.metrics.episodes import IGNORED, episode_counts
from rislab.metrics.error_classes import CLASSES, error_class


class Said(NamedTuple):
    """What a trial answered to one episode: its score, the index of its error class, its mask."""

    score: float
    error: int
    mask: str


@dataclass
class Gathered:
    """Units of all folds in their order, with the answers of each trial by unit."""

    trials: Sequence[Trial]
    units: list[Unit] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    answers: list[dict[int, Said]] = field(default_factory=list)
    _at: dict[str, int] = field(default_factory=dict)

    def add(self, truth: Episodes, number: int, mask: NDArray[np.uint8]) -> int:
        """The place of a new unit. Raises DataError."""
        pair = truth.pairs[number]
        if pair.picture not in self._at:
            file = truth.file(pair)
            self._at[pair.picture] = len(self.pictures)
            self.pictures.append(Picture(f"{len(self.pictures)}{file.suffix}", *truth.size(pair), file))
        target = mask == 1
        self.units.append(
            Unit(
                number=len(self.units),  # folds number their episodes alike
                picture=self._at[pair.picture],
                text=truth.files.names[pair.class_id],
                share=float(target.mean()),
                size=(mask.shape[0], mask.shape[1]),
                target=_runs(target),
                no_target=not target.any(),
            )
        )
        return len(self.units) - 1


def contents(title: str, dataset: str, trials: Sequence[Trial], notes: Sequence[str], progress: Progress) -> Contents:
    """What is shown of trials that answered the same episodes, each of one fold.

    Raises:
        DataError: The data are not there, or are not those that were scored.
    """
    gathered = Gathered(trials, answers=[{} for _ in trials])
    for fold in dict.fromkeys(_fold(trial) for trial in trials):
        _add_fold(gathered, [n for n, trial in enumerate(trials) if _fold(trial) == fold], progress)
    side = gathered.units[0].size[0]
    return Contents(
        title=title,
        subtitle=f"{dataset}, split {trials[0].split}; episodes, pictures and masks stretched to {side} x {side}",
        kind="classes",
        metric="miou_episode",
        meaning="A score is the IoU of an episode, in percent; the table's mIoU sums over the episodes of a class first",
        pictures=tuple(gathered.pictures),
        units=tuple(gathered.units),
        entries=tuple(
            _entry(trial, of, len(gathered.units)) for trial, of in zip(trials, gathered.answers, strict=True)
        ),
        notes=tuple(notes),
    )


def _fold(trial: Trial) -> int:
    return int(trial.truth.options["fold"])


def _add_fold(gathered: Gathered, of_fold: Sequence[int], progress: Progress) -> None:
    """Take what the trials of one fold answered. Raises DataError."""
    truth = gathered.trials[of_fold[0]].truth.read()
    assert isinstance(truth, Episodes), "data of episodes give episodes"
    rows = {n: {number: at for at, number in enumerate(gathered.trials[n].table["episode"].tolist())} for n in of_fold}
    for number in sorted({number for of in rows.values() for number in of}):
        if not 0 <= number < len(truth.pairs):
            name = gathered.trials[of_fold[0]].name
            raise DataError(f"{name}: the data have no episode {number}, which was scored: they are others")
        mask = truth.mask(truth.pairs[number])
        place = gathered.add(truth, number, mask)
        for n in of_fold:
            if number in rows[n]:
                at = rows[n][number]
                gathered.answers[n][place] = _said(gathered.trials[n], at, truth, truth.pairs[number], mask)
                progress()


def _said(trial: Trial, at: int, truth: Episodes, pair: Pair, mask: NDArray[np.uint8]) -> Said:
    """Raises DataError for an answer that is missing, or that does not give the counts that were scored."""
    row = {name: int(column[at]) for name, column in trial.table.items()}
    where = f"{trial.name}: episode {row['episode']}"
    if (row["image_id"], row["class"]) != (truth.image_ids[pair.picture], pair.class_id):
        raise DataError(f"{where}: the data show another picture or class than was scored; --data says where data lie")
    answer = trial.answers.get(row["episode"])
    if answer is None:
        raise DataError(f"{where}: it kept no answer to it, which it was scored on")
    if (answer.height, answer.width) != mask.shape:
        raise DataError(f"{where}: its kept mask is {[answer.height, answer.width]}, the target {list(mask.shape)}")
    said = masks.decode({"size": [answer.height, answer.width], "counts": answer.data}).view(np.bool_)
    counted, scored = episode_counts(said, mask), tuple(row[name] for name in _COUNTED)
    if counted != scored:
        raise DataError(
            f"{where}: its kept mask and the target of the data give {counted} pixels, scores.parquet says {scored} "
            f"({', '.join(_COUNTED)}): the data are not those that were scored; --data says where those lie"
        )
    both, of_answer, of_target, _ = counted
    shown, target = said & (mask != IGNORED), mask == 1
    score = 100 * both / max(of_answer + of_target - both, 1)
    return Said(score, CLASSES.index(error_class(shown, target)), _runs(shown))


_COUNTED = ("intersection", "prediction", "target", "pixels")


def _entry(trial: Trial, answers: dict[int, Said], units: int) -> Entry:
    found = [answers.get(place) for place in range(units)]
    return Entry(
        trial.row,
        trial.label,
        trial.seed,
        trial.fold,
        trial.any_seed,
        np.array([np.nan if said is None else said.score for said in found], np.float64),
        np.array([ABSENT if said is None else said.error for said in found], np.uint8),
        [None if said is None else said.mask for said in found],
    )


def _runs(mask: NDArray[np.bool_]) -> str:
    counts: str = masks.to_json(masks.encode(mask))["counts"]
    return counts
