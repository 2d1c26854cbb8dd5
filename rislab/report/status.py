"""States of a table's trials and the time that they still need, from their files alone.

Nothing is written here, and nothing heavy is imported, because `status --watch` does this once a second.
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
from rislab.ablation.plan import Planned, expected_seconds, inspected

ENDED = ("done", "failed", "diverged", "cancelled", *SUSPECT)
"""States in which nothing more happens by itself; a state that this version does not know may still become something."""

NEED_ATTENTION = (*SUSPECT, "failed", "diverged", "lost", "interrupted", "cancelled")
"""States in which the user has to act; each comes with a reason."""

UNDIGESTED = "finished without digests: changed files would not be noticed"
"""Note on a result of an earlier release."""

DISPLAY_ORDER = (
    "running",
    *SUSPECT,
    "failed",
    "diverged",
    "lost",
    "interrupted",
    "cancelled",
    "queued",
    "pending",
    "done",
)


@dataclass(frozen=True)
class TrialStatus:
    """One trial now. The fields are the keys of `status --json`.

    Attributes:
        trial: name, `row s0` or `row stage s0`.
        row: name of its row.
        seed: its seed.
        stage: stage of the row that it trains; "" for a method with one stage.
        hash: hexadecimal digest of its identity.
        directory: path of its directory.
        shared_with: names of other rows that start from it, or "".
        state: one of `rislab.ablation.trial.State`, or what a later version wrote.
        phase: prepare, fit or test while it runs, else "".
        step: training steps taken.
        max_steps: training steps in all.
        epoch: training epochs completed.
        speed: training steps a second.
        metric: the table's first metric of this stage.
        value: that metric in percent: of the latest validation, or on the table's split once the trial is done.
        seconds_left: seconds of work that remain, from the trial's own speed while it trains, else from measured trials;
            None where there is no measurement.
        kind: kind of a failure, or "".
        note: one line: the cause of a failure; on other trials, a remark.
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
    def needs_attention(self) -> bool:
        return self.state in NEED_ATTENTION

    @property
    def steps(self) -> str:
        """`168/2793`, or `2793` when all steps are taken."""
        if self.step is None:
            return ""
        return str(self.step) if self.max_steps in (None, self.step) else f"{self.step}/{self.max_steps}"

    @property
    def time_left(self) -> str:
        """`12 min` or `unknown` for a running trial, else ""."""
        if self.state != "running":
            return ""
        return "unknown" if self.seconds_left is None else duration(self.seconds_left)

    @property
    def reason(self) -> str:
        """Kind and cause of a failure; on other trials, the remark."""
        return f"{self.kind}: {self.note}" if self.kind and self.note else self.kind or self.note

    def as_json(self) -> dict[str, Any]:
        return vars(self) | {"hash": self.hash[:8]}


def trial_status(
    planned: Planned,
    expected: float | None = None,
    state_and_finding: tuple[str, Finding] | None = None,
    now: float | None = None,
) -> TrialStatus:
    """Read a trial's status from its files.

    Args:
        planned: The trial.
        expected: Seconds that the whole trial should take; None where no trial like it was measured.
        state_and_finding: State and integrity of the directory, where they have been read already.
        now: Unix time in seconds; None for the clock's.

    Returns:
        The status; a file that cannot be read becomes a state with a reason.
    """
    state, finding = state_and_finding or planned.trial.inspect()
    status: Mapping[str, Any] = {}
    if state not in SUSPECT:
        try:
            status = planned.trial.status()
        except OSError as error:
            state, finding = "unreadable", Finding("unreadable", integrity.unreadable(error, planned.directory))
    done, running = state == "done", state == "running"
    step, max_steps, speed = (_number(status.get(name)) for name in ("step", "max_steps", "speed"))
    phase = str(status.get("stage") or "") if running else ""
    return TrialStatus(
        trial=planned.name,
        row=planned.row.name,
        seed=planned.seed,
        stage=planned.stage,
        hash=planned.hash,
        directory=str(planned.directory),
        shared_with=planned.shared_with,
        state=state,
        phase=phase,
        # The status is written once a second at most, so its last step is rarely the last one.
        step=_whole(max_steps if done else step),
        max_steps=_whole(max_steps),
        epoch=_whole(_number(status.get("epoch"))),
        speed=speed,
        metric=planned.metric,
        value=_score(planned, finding) if done else _number(_mapping(status.get("metrics")).get(planned.metric)),
        seconds_left=seconds_left(state, phase, step, max_steps, speed, expected, _elapsed(status, now)),
        kind=state if state in SUSPECT else str(status.get("kind") or "") if state in NEED_ATTENTION else "",
        note=_note(planned, state, status, finding),
    )


def _note(planned: Planned, state: str, status: Mapping[str, Any], finding: Finding) -> str:
    if state in SUSPECT:
        return finding.reason
    if state != "done":
        return " ".join(str(status.get("error") or "").split()) if state in NEED_ATTENTION else ""
    changed = planned.stale(finding.recorded)
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    notes = [f"code changed: {changed[0]}{more}"] if changed else []
    return "; ".join([*notes, *([] if finding.has_digests else [UNDIGESTED])])


def _score(planned: Planned, finding: Finding) -> float | None:
    return _number(_mapping(_mapping(finding.result.get("splits")).get(planned.split)).get(planned.metric))


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
    """Estimate the work of a trial that remains.

    Args:
        state: State of the trial.
        phase: prepare, fit or test while it runs, else "".
        step: Training steps taken.
        max_steps: Training steps in all.
        speed: Training steps a second.
        expected: Seconds that the whole trial should take.
        elapsed: Seconds since its latest start.

    Returns:
        Seconds; 0 when the trial has ended, None without a measurement.
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
class TimeLeft:
    """Time until the last trial of a table ends.

    Attributes:
        seconds: Seconds with as many trials at once as run now; of the trials with a measurement or an estimate only.
        at_once: Number of trials that run now.
        waiting: Number of trials that have not ended.
        estimated: Number of those without a measurement, which count with the mean training time of their stage.
        unknown: Number of those without any estimate.
    """

    seconds: float
    at_once: int
    waiting: int
    estimated: int
    unknown: int

    @property
    def text(self) -> str:
        if not self.waiting:
            return "nothing is left to run"
        several = f", {self.at_once} at once" if self.at_once > 1 else ""
        schedule = several if self.at_once else " of trials, one after the other"
        idle = "" if self.at_once else "nothing runs now; "
        if not self.unknown:
            trials = "1 trial was" if self.estimated == 1 else f"{self.estimated} trials were"
            note = f"; {trials} never measured, and taken as the others" if self.estimated else ""
            return f"{idle}about {duration(self.seconds)} left{schedule}{note}"
        others = f"; the others: about {duration(self.seconds)}{schedule}" if self.unknown < self.waiting else ""
        trials = f"{self.unknown} of the {self.waiting} trials left were" if self.waiting > 1 else "the trial left was"
        return f"{idle}time left unknown: {trials} never measured{others}"


def time_left(trials: Sequence[TrialStatus]) -> TimeLeft:
    """Estimate when a table will be done: the longest waiting trial starts first, where a running one ends first."""
    waiting = [trial for trial in trials if trial.state not in ENDED]
    training = _training_seconds(trials)
    estimates = [(trial.state == "running", _estimate(trial, training)) for trial in waiting]
    slots = [seconds or 0.0 for runs, seconds in estimates if runs]
    at_once, slots = len(slots), slots or [0.0]
    heapq.heapify(slots)
    for seconds in sorted((each for runs, each in estimates if not runs and each is not None), reverse=True):
        heapq.heappush(slots, heapq.heappop(slots) + seconds)
    unknown = sum(1 for _, seconds in estimates if seconds is None)
    unmeasured = sum(1 for trial in waiting if trial.seconds_left is None)
    return TimeLeft(max(slots), at_once, len(waiting), unmeasured - unknown, unknown)


def _training_seconds(trials: Sequence[TrialStatus]) -> dict[str, float]:
    """Mean training time of a stage's trials in seconds, from the speed of those that train or have trained."""
    by_stage: dict[str, list[float]] = {}
    for trial in trials:
        if trial.speed and trial.max_steps:
            by_stage.setdefault(trial.stage, []).append(trial.max_steps / trial.speed)
    return {stage: sum(seconds) / len(seconds) for stage, seconds in by_stage.items()}


def _estimate(trial: TrialStatus, training: Mapping[str, float]) -> float | None:
    """Seconds left; without a measurement the stage's mean training time, or 0 for a trial that is being scored."""
    if trial.seconds_left is not None:
        return trial.seconds_left
    return None if trial.stage not in training else 0.0 if trial.phase == "test" else training[trial.stage]


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h`, `2.1 days`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36 * 3600 else f"{seconds / 86400:.1f} days"


@dataclass(frozen=True)
class TableStatus:
    """All trials of a table now, in the table's order."""

    trials: tuple[TrialStatus, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Number of trials by state, in display order; states of later versions come last."""
        counts = Counter(trial.state for trial in self.trials)
        return {state: counts[state] for state in sorted(counts, key=_display_rank)}

    @property
    def time_left(self) -> TimeLeft:
        return time_left(self.trials)

    @property
    def has_ended(self) -> bool:
        """Whether no trial runs and none waits to be started."""
        return all(trial.state in (*ENDED, "lost", "interrupted") for trial in self.trials)

    @property
    def failures(self) -> list[TrialStatus]:
        return [trial for trial in self.trials if trial.needs_attention]

    @property
    def by_urgency(self) -> list[TrialStatus]:
        """Running trials, those that need attention, waiting ones, done ones."""
        return sorted(self.trials, key=lambda trial: _display_rank(trial.state))

    @cached_property
    def metric(self) -> str:
        """The metric of all trials, or "" when they differ."""
        names = {trial.metric for trial in self.trials}
        return next(iter(names)) if len(names) == 1 else ""


def _display_rank(state: str) -> int:
    return DISPLAY_ORDER.index(state) if state in DISPLAY_ORDER else len(DISPLAY_ORDER)


def read_status(planned: Sequence[Planned], previous: TableStatus | None = None) -> TableStatus:
    """Read the status of a table's trials from their files.

    Args:
        planned: The trials, each once.
        previous: An earlier result; trials that were done then are not read again.

    Returns:
        The status now, in the order of `planned`.
    """
    done = {trial.directory: trial for trial in previous.trials if trial.state == "done"} if previous else {}
    unread = [trial for trial in planned if str(trial.directory) not in done]
    findings = inspected(unread)
    # Only a trial that has not ended needs an estimate, which reads the files of other seeds.
    unfinished = [trial for trial, (state, _) in zip(unread, findings, strict=True) if state not in ENDED]
    expected = expected_seconds(unfinished, among=planned)
    read = {
        trial.name: trial_status(trial, expected.get(trial.name), finding)
        for trial, finding in zip(unread, findings, strict=True)
    }
    return TableStatus(tuple(read.get(trial.name) or done[str(trial.directory)] for trial in planned))
