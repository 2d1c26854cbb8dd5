"""Trials without a model, for tests of what runs them: they count, checkpoint, and finish."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from rislab.ablation.trial import TrialDir
from rislab.files import write_json


def quick(directory: str, threads: int) -> None:
    """A trial of no length. Every time it is run to its end a line is added to `runs.log`."""
    trial = TrialDir(Path(directory))
    with trial.locked():
        if trial.state() == "done":
            return
        trial.update_status(state="running")
        with (trial.path / "runs.log").open("a") as log:
            log.write(f"{os.getpid()} {threads}\n")
        write_json(trial.metrics_file, {"splits": {}})
        trial.update_status(state="done")


def slow(directory: str, threads: int) -> None:
    """Twenty steps of 50 ms that go on where they were."""
    trial = TrialDir(Path(directory))
    with trial.locked():
        if trial.state() == "done":
            return
        trial.update_status(state="running")
        counter = trial.path / "counter.json"
        done = json.loads(counter.read_text()) if counter.exists() else 0
        while done < 20:
            time.sleep(0.05)
            done += 1
            write_json(counter, done)
        write_json(trial.metrics_file, {"splits": {}, "steps": done})
        trial.update_status(state="done")


def crash(directory: str, threads: int) -> None:
    """Dies like a process that the system ran out of memory for."""
    trial = TrialDir(Path(directory))
    trial.update_status(state="running")
    os.kill(os.getpid(), signal.SIGKILL)


def fail(directory: str, threads: int) -> None:
    """Says what is wrong and ends."""
    trial = TrialDir(Path(directory))
    trial.attempts.begin(0, 1)
    trial.attempts.end("bug", 0)
    trial.update_status(state="failed", kind="bug", error="always the same")
    raise SystemExit(1)


def family(directory: str, threads: int) -> None:
    """Starts a process of its own, as loaders and further GPUs do, says what it was called with, and is killed."""
    child = subprocess.Popen(["sleep", "1000"])
    write_json(Path(directory) / "family.json", {"child": child.pid, "argv": sys.argv[1:]})
    TrialDir(Path(directory)).update_status(state="running")
    os.kill(os.getpid(), signal.SIGKILL)


def polite(directory: str, threads: int) -> None:
    """Ends on a stop request, after writing down where it was."""
    trial = TrialDir(Path(directory))
    requests = []
    signal.signal(signal.SIGTERM, lambda *_: requests.append(1))
    with trial.locked():
        trial.update_status(state="running")
        while not requests:
            time.sleep(0.02)
        trial.update_status(state="interrupted")
        raise SystemExit(1)


def stubborn(directory: str, threads: int) -> None:
    """Does not care."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    trial = TrialDir(Path(directory))
    with trial.locked():
        trial.update_status(state="running")
        time.sleep(1000)


def nothing(directory: str, threads: int) -> None:
    """Ends well and has done nothing."""


prepare = nothing
"""What launchers call before the first trial."""


def unlucky(directory: str, threads: int) -> None:
    """Diverges the first time, runs out of memory the second, gets a stop request the third, and is done when its batch is split.

    What `run_trial` writes down, without a model.
    """
    trial = TrialDir(Path(directory))
    with trial.locked():
        start, parts = len(trial.attempts.all()), trial.attempts.parts
        trial.attempts.begin(start, parts)
        trial.update_status(state="running", step=start)
        endings = [("diverged", "nan"), ("failed", "oom"), ("interrupted", "preempted")]
        if start < len(endings):
            state, kind = endings[start]
            trial.attempts.end(kind, start + 1)  # type: ignore[arg-type]  # one of the kinds
            trial.update_status(state=state, kind=kind, error=f"{kind} on purpose")
            raise SystemExit(1)
        trial.attempts.end("", start)
        write_json(trial.metrics_file, {"splits": {}, "parts": parts, "starts": start + 1})
        trial.update_status(state="done")


def environment(argument: str, threads: int) -> None:
    """Writes down its environment."""
    write_json(Path(argument), dict(os.environ))


def out_of_space(directory: str, threads: int) -> None:
    """Meets a full disk in the middle, and can still write down that it ended."""
    trial = TrialDir(Path(directory))
    with trial.locked():
        trial.attempts.begin(trial.step, 1)
        trial.update_status(state="running")
        with Path("/dev/full").open("w") as file:
            file.write("x")


def forbidden(directory: str, threads: int) -> None:
    """Meets a file of its data that it may not read."""
    raise PermissionError(13, "Permission denied", "picture.jpg")


def writer(directory: str, threads: int) -> None:
    """Writes a line for every start where a link leads, beside the disk; then needs space on it, as `run_trial` does."""
    trial = TrialDir(Path(directory))
    log = trial.path.parents[1] / "starts.log"
    if log.is_symlink():
        with log.open("a") as file:
            file.write(f"{trial.path.name} {time.monotonic()}\n")
    with trial.locked():
        trial.attempts.begin(trial.step, 1)
        write_json(trial.metrics_file, {"splits": {}})
        trial.attempts.end("", 0)
        trial.update_status(state="done")
