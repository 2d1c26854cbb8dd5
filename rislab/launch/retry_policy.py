"""What becomes of a trial whose process has ended: nothing more, or another start. One rule for every launcher."""

import platform
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from rislab.ablation.attempts import Attempt, Kind, next_move, stalled
from rislab.ablation.trial import CLOSED, State, TrialBusyError, TrialDir

Next = Literal["end", "again"]

PAUSES = (0.0, 1.0, 4.0)
"""Seconds before the start that follows the first, second, third ... one in a row that got no further: what was in the way
may be gone by then."""

STATES: dict[str, State] = {"nan": "diverged"}
STATES_OF_AN_END = ("failed", "diverged")
"""What a trial calls itself when it ends by its own fault; whether it stays so is decided here."""


def is_over(trial: TrialDir, can_split: bool) -> bool:
    """Whether no launcher is going to start the trial again."""
    state = trial.state()
    if state in CLOSED:
        return True
    attempts = trial.attempts.counted()
    return state in STATES_OF_AN_END and (not attempts or next_move(attempts, can_split)[0] == "stop")


@dataclass
class Memory:
    """The ends of one trial that a launcher has seen itself.

    A trial's history lies on the disk that may be full; counted there alone, a trial would be started without end.
    """

    attempts: list[Attempt] = field(default_factory=list)
    forgiven: int = -1

    def add(self, trial: TrialDir, unwritten: Kind | None) -> None:
        """Take a note of an end. unwritten: its kind, where the trial's history does not have it."""
        if trial.attempts.forgiven != self.forgiven:  # the counts were reset: what was before does not count
            self.attempts, self.forgiven = [], trial.attempts.forgiven
        written = trial.attempts.counted()
        if unwritten is None and written:
            self.attempts.append(written[-1])
        else:
            parts = trial.attempts.parts
            kind = unwritten or "lost"
            self.attempts.append(Attempt(time.time(), platform.node(), 0, "", 0, parts, kind, True, trial.step))


def settle(trial: TrialDir, can_split: bool, memory: Memory | None = None) -> tuple[Next, float]:
    """("end", 0) or ("again", seconds to wait first) for a trial that no process holds; its files are brought in line with that.

    An end that was not written down is written down by the next start, or here when there is none.

    Args:
        trial: It has no process.
        can_split: Whether its batch may be computed in parts.
        memory: What the launcher has seen of it; where the files say less than that, it counts.
    """
    state = trial.state()
    if state in CLOSED:
        return "end", 0.0
    attempts = _history(trial.attempts.counted(), memory)
    if not attempts:
        return ("end" if is_over(trial, can_split) else "again"), 0.0
    move, why = next_move(attempts, can_split)
    if move == "stop":
        last = attempts[-1]
        kind = last.kind or "lost"
        with suppress(OSError, TrialBusyError), trial.locked():
            said = trial.status().get("error") or "ended without a result"
            trial.update_status(
                state=STATES.get(kind, "failed"),
                kind=kind,
                error=f"{why}; the last one: {said}" if why and why not in said else said,
                ended=time.time(),
            )
        return "end", 0.0
    if move == "smaller":
        with trial.locked():
            # A checkpoint lies between batches of the old size, which the new ones have no place for.
            for path in trial.checkpoints.glob("*.ckpt"):
                path.unlink(missing_ok=True)
            trial.attempts.start_small(2 * attempts[-1].parts)
    if state in STATES_OF_AN_END:
        with suppress(OSError, TrialBusyError), trial.locked():
            trial.update_status(state="interrupted")  # what it wrote at its end sounds final, and is not
    return "again", PAUSES[min(stalled(attempts), len(PAUSES) - 1)]


def _history(written: list[Attempt], memory: Memory | None) -> list[Attempt]:
    """The trial's own history, or the launcher's when more starts in a row got nowhere by that."""
    seen = memory.attempts if memory is not None else []
    return seen if seen and (not written or stalled(seen) > stalled(written)) else written
