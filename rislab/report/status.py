"""What a table's trials are doing right now, from their files alone: lines, and what is left.

Nothing is written here, and nothing heavy is imported: this is what `status --watch` does once a second.
"""

import heapq
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rislab.ablation import integrity, records
from rislab.ablation.integrity import SUSPECT, Finding
from rislab.ablation.plan import Planned, expected_seconds, looks

ENDED = ("done", "failed", "diverged", "cancelled", *SUSPECT)
"""States in which nothing more happens by itself; a state that this version does not know may still become something."""

BAD = (*SUSPECT, "failed", "diverged", "lost", "interrupted", "cancelled")
"""States that want to be looked at, and have a reason."""

UNDIGESTED = "finished without digests: changed files would not be noticed"
"""Said of results of an earlier release."""

ORDER = ("running", *SUSPECT, "failed", "diverged", "lost", "interrupted", "cancelled", "queued", "pending", "done")


@dataclass(frozen=True)
class Line:
    """One trial.

    phase: what it does while it runs: prepare, fit or test. stage: the row's, of a method that has several.
    speed: steps a second. metric, value: the table's first metric of this stage, in percent: the latest validation's, or
        the result on the table's split once it is done.
    seconds_left: of this trial, from its own speed while it trains, else from trials that were measured; None: unknown.
    kind, note: of a failure, its kind and one line; of others, what there is to say.
    """

    trial: str
    row: str
    seed: int
    stage: str
    hash: str
    directory: str
    shared_with: str
    state: str
    phase: str
    step: int | None
    max_steps: int | None
    epoch: int | None
    speed: float | None
    metric: str
    value: float | None
    seconds_left: float | None
    kind: str
    note: str

    @property
    def is_bad(self) -> bool:
        return self.state in BAD

    @property
    def steps(self) -> str:
        """`168/2793`, or `2793` where there is no more to come."""
        if self.step is None:
            return ""
        return str(self.step) if self.max_steps in (None, self.step) else f"{self.step}/{self.max_steps}"

    @property
    def left(self) -> str:
        """Of a running trial; empty for others, unless unknown."""
        if self.state != "running":
            return ""
        return "unknown" if self.seconds_left is None else duration(self.seconds_left)

    @property
    def reason(self) -> str:
        """A failure's kind and cause; of other trials, what there is to say."""
        return f"{self.kind}: {self.note}" if self.kind and self.note else self.kind or self.note

    def as_json(self) -> dict[str, Any]:
        return vars(self) | {"hash": self.hash[:8]}


def line(
    cell: Planned, expected: float | None = None, seen: tuple[str, Finding] | None = None, now: float | None = None
) -> Line:
    """A trial as its files show it. expected: seconds that it should take in all, if known; now: unix seconds.

    seen: state and what was found in the directory, where that is known already.
    """
    state, found = seen or cell.trial.look()
    status: Mapping[str, Any] = {}
    if state not in SUSPECT:
        try:
            status = cell.trial.status()
        except OSError as error:
            state, found = "unreadable", Finding("unreadable", integrity.unreadable(error, cell.place))
    done, running = state == "done", state == "running"
    step, max_steps, speed = (_number(status.get(name)) for name in ("step", "max_steps", "speed"))
    phase = str(status.get("stage") or "") if running else ""
    return Line(
        trial=cell.name,
        row=cell.row.name,
        seed=cell.seed,
        stage=cell.stage,
        hash=cell.hash,
        directory=str(cell.place),
        shared_with=cell.shared_with,
        state=state,
        phase=phase,
        # The status is written once a second at most, so its last step is rarely the last one.
        step=_whole(max_steps if done else step),
        max_steps=_whole(max_steps),
        epoch=_whole(_number(status.get("epoch"))),
        speed=speed,
        metric=cell.metric,
        value=_score(cell, found) if done else _number(_mapping(status.get("metrics")).get(cell.metric)),
        seconds_left=seconds_left(state, phase, step, max_steps, speed, expected, _elapsed(status, now)),
        kind=state if state in SUSPECT else str(status.get("kind") or "") if state in BAD else "",
        note=_note(cell, state, status, found),
    )


def _note(cell: Planned, state: str, status: Mapping[str, Any], found: Finding) -> str:
    if state in SUSPECT:
        return found.reason
    if state != "done":
        return " ".join(str(status.get("error") or "").split()) if state in BAD else ""
    changed = cell.stale(found.recorded)
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    notes = [f"code changed: {changed[0]}{more}"] if changed else []
    return "; ".join([*notes, *([] if found.has_digests else [UNDIGESTED])])


def _score(cell: Planned, found: Finding) -> float | None:
    return _number(_mapping(_mapping(found.result.get("splits")).get(cell.split)).get(cell.metric))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    return value if records.is_number(value) else None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _elapsed(status: Mapping[str, Any], now: float | None) -> float:
    started = _number(status.get("started"))
    return 0.0 if started is None else max(0.0, (time.time() if now is None else now) - started)


def seconds_left(
    state: str,
    phase: str,
    step: float | None,
    max_steps: float | None,
    speed: float | None,
    expected: float | None,
    elapsed: float,
) -> float | None:
    """Seconds of work that a trial still has; 0 when it has ended, None when there is nothing to reckon from.

    speed: steps a second. expected: what it should take in all. elapsed: since it was started, this time.
    """
    if state in ENDED:
        return 0.0
    if state == "running":
        if phase == "fit" and speed and max_steps and step is not None:
            return max(0.0, max_steps - step) / speed
        return None if expected is None else max(0.0, expected - elapsed)
    if expected is None:
        return None
    return expected * (1 - min(1.0, step / max_steps)) if step and max_steps else expected


@dataclass(frozen=True)
class Left:
    """What is left of a table.

    seconds: until the last trial ends, with as many at once as run now; of the trials that can be reckoned only.
    at_once: trials that run now. waiting: trials that have not ended. guessed: how many of those were never measured and
        count as long as the stage's other trials train, on average. unknown: how many cannot be reckoned even so.
    """

    seconds: float
    at_once: int
    waiting: int
    guessed: int
    unknown: int

    @property
    def text(self) -> str:
        if not self.waiting:
            return "nothing is left to run"
        several = f", {self.at_once} at once" if self.at_once > 1 else ""
        how = several if self.at_once else " of trials, one after the other"
        idle = "" if self.at_once else "nothing runs now; "
        if not self.unknown:
            these = "1 trial was" if self.guessed == 1 else f"{self.guessed} trials were"
            guess = f"; {these} never measured, and taken as the others" if self.guessed else ""
            return f"{idle}about {duration(self.seconds)} left{how}{guess}"
        rest = f"; the others: about {duration(self.seconds)}{how}" if self.unknown < self.waiting else ""
        which = f"{self.unknown} of the {self.waiting} trials left were" if self.waiting > 1 else "the trial left was"
        return f"{idle}time left unknown: {which} never measured{rest}"


def left(lines: Sequence[Line]) -> Left:
    """When the table will be done: trials that wait go, longest first, to the one of those that run now that is free first."""
    waiting = [each for each in lines if each.state not in ENDED]
    training = _training_seconds(lines)
    reckoned = [(each.state == "running", _or_guess(each, training)) for each in waiting]
    slots = [seconds or 0.0 for runs, seconds in reckoned if runs]
    at_once, slots = len(slots), slots or [0.0]
    heapq.heapify(slots)
    for seconds in sorted((each for runs, each in reckoned if not runs and each is not None), reverse=True):
        heapq.heappush(slots, heapq.heappop(slots) + seconds)
    unknown = sum(1 for _, seconds in reckoned if seconds is None)
    unmeasured = sum(1 for each in waiting if each.seconds_left is None)
    return Left(max(slots), at_once, len(waiting), unmeasured - unknown, unknown)


def _training_seconds(lines: Sequence[Line]) -> dict[str, float]:
    """What the trials of a stage take to train, on average, by the speed of those that have trained or do."""
    found: dict[str, list[float]] = {}
    for each in lines:
        if each.speed and each.max_steps:
            found.setdefault(each.stage, []).append(each.max_steps / each.speed)
    return {stage: sum(seconds) / len(seconds) for stage, seconds in found.items()}


def _or_guess(line: Line, training: Mapping[str, float]) -> float | None:
    """What a trial still has; where that was never measured, what its stage's others train, or nothing once it is scored."""
    if line.seconds_left is not None:
        return line.seconds_left
    return None if line.stage not in training else 0.0 if line.phase == "test" else training[line.stage]


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h`, `2.1 days`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36 * 3600 else f"{seconds / 86400:.1f} days"


@dataclass(frozen=True)
class Live:
    """A table as it stands: its lines in the table's order."""

    lines: tuple[Line, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Trials by state, in the order in which states are looked at; unknown ones come last."""
        found = Counter(each.state for each in self.lines)
        return {state: found[state] for state in sorted(found, key=_rank)}

    @property
    def left(self) -> Left:
        return left(self.lines)

    @property
    def has_ended(self) -> bool:
        """Nothing runs, and nothing waits to be started."""
        return all(each.state in (*ENDED, "lost", "interrupted") for each in self.lines)

    @property
    def failures(self) -> list[Line]:
        return [each for each in self.lines if each.is_bad]

    @property
    def by_urgency(self) -> list[Line]:
        """What runs, what went wrong, what waits, what is done."""
        return sorted(self.lines, key=lambda each: _rank(each.state))

    @cached_property
    def metric(self) -> str:
        """The metric of every line, or "" when they differ."""
        names = {each.metric for each in self.lines}
        return next(iter(names)) if len(names) == 1 else ""


def _rank(state: str) -> int:
    return ORDER.index(state) if state in ORDER else len(ORDER)


def watch(cells: Sequence[Planned], before: Live | None = None) -> Live:
    """The table now. before: what was seen last; trials that were done then are not read again."""
    known = {each.directory: each for each in before.lines if each.state == "done"} if before is not None else {}
    open_cells = [cell for cell in cells if str(cell.place) not in known]
    found = looks(open_cells)
    # Only what has not ended needs an estimate, and looking for one reads the files of other seeds.
    ahead = [cell for cell, (state, _) in zip(open_cells, found, strict=True) if state not in ENDED]
    expected = expected_seconds(ahead, among=cells)
    fresh = {cell.name: line(cell, expected.get(cell.name), seen) for cell, seen in zip(open_cells, found, strict=True)}
    return Live(tuple(fresh.get(cell.name) or known[str(cell.place)] for cell in cells))
