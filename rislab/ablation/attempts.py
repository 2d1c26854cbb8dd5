"""Every start of a trial and how it ended, and what follows from that: go on, go on in smaller parts, or leave it.

`attempts.jsonl` lies in the trial's directory and only ever grows, a line a start and a line an end, so that it survives what
`status.json` does not. An end that no process could write down (a kill, a power cut) is a line that is missing.
"""

import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

Kind = Literal["oom", "nan", "data", "config", "preempted", "lost", "timeout", "disk", "cancelled", "bug"]
Move = Literal["again", "smaller", "stop"]

RESUMED: tuple[Kind, ...] = ("preempted", "lost", "timeout", "disk")
"""What the machine did to a trial: it goes on from its checkpoint as often as that takes, as long as it gets further."""

STALLED_AFTER = 3
"""Starts in a row that get no further than what had been reached before; the next would most likely not, either."""

NAN_STARTS = 2
"""A loss that is not finite may be the fault of one bad step on one machine: once more from the last checkpoint."""

DISK_EXIT_CODE = 74
"""Exit code of a trial's process that could not write where results go (EX_IOERR of sysexits.h): when the disk is full, this
is all that its launcher hears of it."""

MOST_PARTS = 16
"""A batch is split no further: what then still does not fit is not the batch."""


@dataclass(frozen=True)
class Attempt:
    """One start of a trial.

    while it runs or after a result, "lost" when it ended without a word. parts: into how many each batch was split.

    Attributes:
        before: steps done by all starts before it.
        reached: by its end, as far as is known.
        kind: why it ended without a result; ""
        job: the scheduler's job, "" outside of one.
    """

    started: float
    host: str
    pid: int
    job: str
    before: int
    parts: int = 1
    kind: str = ""
    ended: bool = False
    reached: int = 0


class Attempts:
    """The history of one trial.

    Args:
        path: of `attempts.jsonl`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, before: int, parts: int) -> None:
        self._add(
            {
                "begin": time.time(),
                "host": platform.node(),
                "pid": os.getpid(),
                "job": slurm_job(),
                "before": before,
                "parts": parts,
            }
        )

    def end(self, kind: Kind | Literal[""], reached: int) -> None:
        """kind: "" after a result."""
        self._add({"end": time.time(), "kind": kind, "reached": reached})

    def reset_counts(self) -> None:
        """The cause has been mended: what was before does not count any more."""
        self._add({"forgiven": time.time()})

    def start_small(self, parts: int) -> None:
        """From the next start on, every batch is split into so many parts."""
        self._add({"parts": parts})

    @property
    def parts(self) -> int:
        """Parts of a batch at the next start."""
        return next((line["parts"] for line in reversed(self._lines()) if set(line) == {"parts"}), 1)

    @property
    def forgiven(self) -> int:
        """How often the starts before were reset, so that they do not count."""
        return sum("forgiven" in line for line in self._lines())

    def all(self) -> list[Attempt]:
        """Every start there ever was, oldest first."""
        return list(_attempts(self._lines()))

    def counted(self) -> list[Attempt]:
        """Those since the counts were last reset."""
        lines = self._lines()
        forgiven = [number for number, line in enumerate(lines) if "forgiven" in line]
        return list(_attempts(lines[forgiven[-1] + 1 :] if forgiven else lines))

    def _add(self, line: dict[str, Any]) -> None:
        with self.path.open("ab") as file:
            # One write, in append mode; a line that a full disk cut short before is ended first.
            text = json.dumps(line, sort_keys=True) + "\n"
            file.write((text if self._is_whole() else "\n" + text).encode())

    def _is_whole(self) -> bool:
        try:
            with self.path.open("rb") as file:
                if not file.seek(0, os.SEEK_END):
                    return True
                file.seek(-1, os.SEEK_END)
                return file.read(1) == b"\n"
        except FileNotFoundError:
            return True

    def _lines(self) -> list[dict[str, Any]]:
        try:
            text = self.path.read_text(errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return []
        found = []
        for line in text.splitlines():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue  # cut short by a kill or a full disk
            if isinstance(value, dict) and _is_sound(value):
                found.append(value)
        return found


def _is_sound(line: dict[str, Any]) -> bool:
    """Whether a line holds what one of its kind must; damage may have left other JSON."""
    if "begin" in line:
        form: dict[str, tuple[type, ...]] = {"begin": (int, float), "host": (str,), "pid": (int,), "job": (str,)}
        form |= {"before": (int,), "parts": (int,)}
    elif "end" in line:
        form = {"end": (int, float), "kind": (str,), "reached": (int,)}
    elif "parts" in line:
        form = {"parts": (int,)}
    else:
        form = {"forgiven": (int, float)}
    return all(type(line.get(name)) in types for name, types in form.items()) and line.get("parts", 1) > 0


def _attempts(lines: Sequence[dict[str, Any]]) -> Iterator[Attempt]:
    running: Attempt | None = None
    for line in lines:
        if "begin" in line:
            if running is not None:
                yield replace(running, kind="lost", reached=max(running.reached, line["before"]))
            names = ("host", "pid", "job", "before", "parts")
            running = Attempt(line["begin"], **{name: line[name] for name in names}, reached=line["before"])
        elif "end" in line and running is not None:
            yield replace(running, kind=line["kind"], reached=line["reached"], ended=True)
            running = None
    if running is not None:
        yield running


def slurm_job(environment: Any = os.environ) -> str:
    """This process's SLURM job with its number of restarts, as `1234_5.1`; "" outside of one."""
    job = environment.get("SLURM_JOB_ID")
    if not job:
        return ""
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    name = f"{array}_{task}" if array and task else str(job)
    return f"{name}.{environment.get('SLURM_RESTART_COUNT') or 0}"


def stalled(attempts: Sequence[Attempt]) -> int:
    """How many starts, the last ones in a row, got no further than those before them.

    A start whose checkpoints were lost begins further back: from there on, what lies beyond its beginning is progress. After
    `STALLED_AFTER` of such losses without a step that no start had reached before, it no longer is.
    """
    further, farthest, count, losses, began = -1, -1, 0, 0, 0
    for attempt in attempts:
        if attempt.before < began and losses < STALLED_AFTER:
            further, losses = attempt.before, losses + 1
        if attempt.reached > farthest:
            farthest, losses = attempt.reached, 0
        count = 0 if attempt.reached > further else count + 1
        further, began = max(further, attempt.reached), attempt.before
    return count


def next_move(attempts: Sequence[Attempt], can_split: bool) -> tuple[Move, str]:
    """What to do with a trial that is not running and has no result, and why not when it is left.

    computed in parts, with the same gradient.

    Args:
        attempts: those that count; the last one has ended, with or without a word.
        can_split: whether a batch of its method may be
    """
    if not attempts:
        return "again", ""
    last = attempts[-1]
    kind = last.kind or "lost"
    if kind in RESUMED:
        if (count := stalled(attempts)) >= STALLED_AFTER:
            further = max(attempt.reached for attempt in attempts[-count - 1 :])
            return "stop", f"{kind}: {count + 1} starts in a row got no further than step {further}"
        return "again", ""
    if kind == "nan":
        starts = sum(attempt.kind == "nan" for attempt in attempts)
        return ("again", "") if starts < NAN_STARTS else ("stop", "")
    if kind == "oom" and can_split and last.parts < MOST_PARTS:
        return "smaller", ""
    return "stop", ""
