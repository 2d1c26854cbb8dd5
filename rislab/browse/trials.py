"""Trials that have kept their answers, and what they were to answer."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rislab.ablation import identity, signature
from rislab.data.truth import DECIDES
from rislab.evaluation.arithmetic import Arithmetic, Table
from rislab.evaluation.kept_answers import Answer
from rislab.report.results import Cell

Progress = Callable[[], None]


class NotShownError(Exception):
    """Why a trial is not shown, for the line that says so."""


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


@dataclass(frozen=True)
class Truth:
    """What the data of a config say was to be answered.

    Attributes:
        function: of `rislab.data.truth`, by its dotted path.
        options: of the data class that names it, defaults filled in.
    """

    function: str
    options: Mapping[str, Any]

    @property
    def _called(self) -> Callable[[Mapping[str, Any]], Any]:
        module, _, name = self.function.rpartition(".")
        found: Callable[[Mapping[str, Any]], Any] = getattr(importlib.import_module(module), name)
        return found

    def read(self) -> Any:
        """What the function gives. Raises DataError."""
        return self._called(self.options)


@dataclass(frozen=True)
class Answered:
    """Answers with their counts.

    Attributes:
        name: for messages.
        row: see `Entry`, as are label, seed, fold and any_seed.
        table: counts, sorted by the key of their units.
        answers: by unit.
    """

    name: str
    row: str
    label: str
    seed: int
    fold: str
    any_seed: bool
    table: Table
    answers: Mapping[int, Answer]


@dataclass(frozen=True)
class Trial(Answered):
    """A trial that has kept its answers.

    Attributes:
        split: that is shown.
        result: its metrics.json.
        arithmetic: that makes scores of the table.
        truth: what was to be answered.
    """

    split: str
    result: Mapping[str, Any]
    arithmetic: Arithmetic
    truth: Truth

    @cached_property
    def answered(self) -> Any:
        """What decides whether two trials answered the same."""
        options = self.truth.options
        decides = {name: options.get(name) for name in DECIDES.get(self.truth.function, tuple(options))}
        if options.get("shuffle_sentences"):
            decides["seed"] = options["seed"]
        facts = ("protocol", "names", "classes", "no_target_min_pixels")
        # The protocol of episodes names the fold, and folds are shown together.
        said = {} if "episode" in self.table else {name: self.result.get(name) for name in facts}
        # A sentence has its number in the whole data set, a picture of a label map or an episode in its split.
        return self.truth.function, decides, said, "" if "sent_id" in self.table else self.split


def truth_of(config: Mapping[str, Any]) -> Truth:
    """What a config's data are scored on. Raises NotShownError where they do not say how to read it."""
    data = identity.resolve(config)["data"]
    found = _declared(data.get("class_path"), data.get("init_args") or {})
    if found is None:
        raise NotShownError(f"{data.get('class_path')} declares no `truth` to read its data by")
    return found


def _declared(class_path: Any, options: Mapping[str, Any]) -> Truth | None:
    """Of a class, or of one that is given to it: data that train on their own are scored on others."""
    if not signature.is_described(class_path):
        return None
    known = signature.read(class_path)
    if known.truth:
        return Truth(known.truth, {name: option.default for name, option in known.options.items()} | dict(options))
    for name, value in options.items():
        if isinstance(value, dict):
            inner = value.get("class_path", known.options[name].of if name in known.options else None)
            found = _declared(inner, value.get("init_args", value))
            if found is not None:
                return found
    return None
