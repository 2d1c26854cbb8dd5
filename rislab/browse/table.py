"""From a table's trials to what a browser of results shows; a trial that cannot be shown is named with its reason."""

import importlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rislab.ablation import identity, signature
from rislab.ablation.integrity import ANSWERS
from rislab.browse.contents import Contents
from rislab.browse.expressions import Gathered, Progress, Trial, entry
from rislab.data.truth import Expressions
from rislab.errors import DataError
from rislab.evaluation.arithmetic import ExpressionArithmetic
from rislab.evaluation.kept_answers import UnreadableAnswersError, read
from rislab.report.conventions import title as metric_title
from rislab.report.results import Cell, Results

DECIDES = ("root", "dataset", "split_by", "layout", "generate", "shuffle_sentences")
"""Options of the data that decide what a sentence means."""


@dataclass(frozen=True)
class Candidate:
    """A finished trial.

    Attributes:
        row: as pages name it, with its stage before it where that is not the last one.
        label: as the report prints it.
        any_seed: whether it is the row's with every seed.
    """

    cell: Cell
    row: str
    label: str
    any_seed: bool


class NotShownError(Exception):
    """Why a trial is not shown, for the line that says so."""


def contents(results: Results, progress: Progress = lambda: None) -> Contents:
    """Everything that can be shown of a table.

    Args:
        results: the table's trials.
        progress: called once for each answer.

    Raises:
        DataError: Nothing can be shown, the data are not there, or they are not those that were scored.
    """
    notes: list[str] = []
    shown: list[tuple[Candidate, Trial, ExpressionArithmetic]] = []
    truths: list[tuple[str, Mapping[str, Any], dict[str, Any]]] = []
    for candidate in _candidates(results, notes):
        name = candidate.cell.planned.name
        try:
            trial, arithmetic = _trial(candidate, candidate.cell.planned.split or results.profile.split)
            function, options = truth_of(candidate.cell.planned.config)
            key = {each: options[each] for each in DECIDES} | {"seed": options["shuffle_sentences"] and options["seed"]}
            if shown and (arithmetic.convention != shown[0][2].convention or key != truths[0][2]):
                raise NotShownError(f"its data or its protocol are not those of {shown[0][1].name}")
        except NotShownError as reason:
            notes.append(f"{name} is not shown: {reason}")
            continue
        shown.append((candidate, trial, arithmetic))
        truths.append((function, options, key))
    if not shown:
        raise DataError("\n  ".join([f"{results.table.name}: no answers can be shown", *notes]))
    truth = _called(*truths[0][:2])
    gathered = Gathered(truth, shown[0][2].convention)
    for _, trial, _ in shown:
        for sent_id in trial.table["sent_id"].tolist():
            gathered.unit(sent_id)
    order = sorted(gathered.units)
    entries = tuple(entry(trial, gathered, order, progress) for _, trial, _ in shown)
    metric = shown[0][1].metric
    return Contents(
        title=results.table.title,
        subtitle=f"{results.profile.dataset}, split {results.profile.split}; {gathered.convention.title}",
        kind="expressions",
        metric=metric,
        meaning=f"{metric_title(metric)}: the share of each expression in {metric}, in percent.",
        pictures=tuple(gathered.pictures),
        units=tuple(gathered.units[sent_id] for sent_id in order),
        entries=entries,
        notes=tuple(notes),
    )


def _candidates(results: Results, notes: list[str]) -> Iterator[Candidate]:
    """Finished trials of each row, its last stage first; those of stages that rows share once."""
    seen: set[tuple[str, str]] = set()
    for row in results.rows:
        times = Counter(each.planned.hash for cell in row.cells for each in (cell, *cell.earlier.values()))
        for cell in row.cells:
            stages = {"": cell} | {f"{stage}:": earlier for stage, earlier in cell.earlier.items()}
            for prefix, each in stages.items():
                if each.state != "done":
                    notes.append(f"{each.planned.name} is not shown: {each.state}")
                    continue
                if prefix and not each.metrics.get("splits"):
                    continue  # a stage that makes files is not scored
                key = f"{prefix}{row.row.name}", each.planned.hash
                if key not in seen:
                    seen.add(key)
                    label = f"{row.row.label} ({prefix[:-1]})" if prefix else row.row.label
                    yield Candidate(each, key[0], label, times[each.planned.hash] > 1)


def _trial(candidate: Candidate, split: str) -> tuple[Trial, ExpressionArithmetic]:
    """Raises NotShownError."""
    cell = candidate.cell
    counts = cell.evidence(split)
    if counts is None or not len(counts.units):
        raise NotShownError(f"it has no scores of split {split!r}")
    if not isinstance(counts.arithmetic, ExpressionArithmetic):
        raise NotShownError(f"it is scored by {cell.metrics.get('protocol')}, and masks of sentences are shown alone")
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
    planned = cell.planned
    made = Trial(
        name=planned.name,
        row=candidate.row,
        label=candidate.label,
        seed=planned.seed,
        fold=planned.fold,
        any_seed=candidate.any_seed,
        table=counts.table,
        answers=answers.splits[split],
        metric=counts.arithmetic.metrics[0],
    )
    return made, counts.arithmetic


def truth_of(config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The function that reads what a config's data are scored on, and its options. Raises NotShownError."""
    data = identity.resolve(config)["data"]
    found = _declared(data.get("class_path"), data.get("init_args") or {})
    if found is None:
        raise NotShownError(f"{data.get('class_path')} declares no `truth` to read its data by")
    return found


def _declared(class_path: Any, options: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    if not signature.is_described(class_path):
        return None
    known = signature.read(class_path)
    if known.truth:
        defaults = {name: option.default for name, option in known.options.items()}
        return known.truth, defaults | dict(options)
    for name, value in options.items():
        if isinstance(value, dict):
            inner = value.get("class_path", known.options[name].of if name in known.options else None)
            found = _declared(inner, value.get("init_args", value))
            if found is not None:
                return found
    return None


def _called(function: str, options: Mapping[str, Any]) -> Expressions:
    module, _, name = function.rpartition(".")
    found = getattr(importlib.import_module(module), name)(options)
    assert isinstance(found, Expressions)
    return found
