"""From a table's trials to what a browser of results shows; a trial that cannot be shown is named with its reason."""

from collections import Counter
from collections.abc import Callable, Iterator

from rislab.ablation.integrity import ANSWERS
from rislab.browse import episodes, expressions, label_maps
from rislab.browse.contents import Contents
from rislab.browse.trials import Candidate, NotShownError, Progress, Trial, truth_of
from rislab.errors import DataError
from rislab.evaluation.arithmetic import Arithmetic, ClassArithmetic, ExpressionArithmetic
from rislab.evaluation.episode_arithmetic import EpisodeArithmetic
from rislab.evaluation.kept_answers import UnreadableAnswersError, read
from rislab.report.results import Results


def contents(results: Results, progress: Progress = lambda: None) -> Contents:
    """Everything that can be shown of a table: the trials that answered what its first one did.

    Args:
        results: the table's trials.
        progress: called once for each answer.

    Raises:
        DataError: Nothing can be shown, the data are not there, or they are not those that were scored.
    """
    notes: list[str] = []
    shown: list[Trial] = []
    for candidate in _candidates(results, notes):
        name = candidate.cell.planned.name
        try:
            trial = _trial(candidate, candidate.cell.planned.split or results.profile.split)
            if shown and trial.answered != shown[0].answered:
                raise NotShownError(f"its data or its protocol are not those of {shown[0].name}")
            shown.append(trial)
        except NotShownError as reason:
            notes.append(f"{name} is not shown: {reason}")
    if not shown:
        raise DataError("\n  ".join([f"{results.table.name}: no answers can be shown", *notes]))
    make = _maker(shown[0].arithmetic)
    return make(results.table.title, results.profile.dataset, shown, notes, progress)


def _maker(arithmetic: Arithmetic) -> Callable[..., Contents]:
    """What reads the units of trials that are scored in one way."""
    if isinstance(arithmetic, ExpressionArithmetic):
        return expressions.contents
    return episodes.contents if isinstance(arithmetic, EpisodeArithmetic) else label_maps.contents


def _candidates(results: Results, notes: list[str]) -> Iterator[Candidate]:
    """Finished trials of each row, its last stage first; those of stages that rows share once a row."""
    seen: set[tuple[str, str]] = set()
    for row in results.rows:
        times = Counter(each.planned.hash for cell in row.cells for each in (cell, *cell.earlier.values()))
        for cell in row.cells:
            stages = {"": cell} | {f"{stage}:": earlier for stage, earlier in cell.earlier.items()}
            for prefix, each in stages.items():
                key = f"{prefix}{row.row.name}", each.planned.hash
                if key in seen or (each.state == "done" and not each.metrics.get("splits")):
                    continue  # a stage that makes files need not be scored
                seen.add(key)
                if each.state != "done":
                    notes.append(f"{each.planned.name} is not shown: {each.state}")
                    continue
                label = f"{row.row.label} ({prefix[:-1]})" if prefix else row.row.label
                yield Candidate(each, key[0], label, times[each.planned.hash] > 1)


def _trial(candidate: Candidate, split: str) -> Trial:
    """Raises NotShownError."""
    cell = candidate.cell
    counts = cell.evidence(split)
    if counts is None or not len(counts.units):
        raise NotShownError(f"it has no scores of split {split!r}")
    if not isinstance(counts.arithmetic, (ExpressionArithmetic, ClassArithmetic, EpisodeArithmetic)):
        raise NotShownError(
            f"it is scored by {cell.metrics.get('protocol')}; masks of sentences, label maps and episodes are shown alone"
        )
    if not cell.has_digests:
        raise NotShownError("its files have no digests")
    if ANSWERS in cell.changed:
        raise NotShownError(f"{ANSWERS} is not what the trial wrote")
    try:
        answers = read(cell.planned.trial.answers_file)
    except UnreadableAnswersError as reason:
        raise NotShownError(str(reason)) from None
    if split not in answers.splits:
        size = answers.left_out.get(split)
        beyond = f" ({size / 1e6:.1f} MB are more than its trial.answers_mb leaves)" if size else ""
        raise NotShownError(f"it kept no answers to split {split!r}{beyond}")
    return Trial(
        name=cell.planned.name,
        row=candidate.row,
        label=candidate.label,
        seed=cell.planned.seed,
        fold=cell.planned.fold,
        any_seed=candidate.any_seed,
        split=split,
        result=cell.metrics,
        table=counts.table,
        arithmetic=counts.arithmetic,
        answers=answers.splits[split],
        truth=truth_of(cell.planned.config),
    )
