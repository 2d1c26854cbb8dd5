"""The pool: isolation, takeover, one run a trial whoever asks, and death of the whole at any moment."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rislab.ablation.trial import TrialBusyError, TrialDir
from rislab.files import write_json
from rislab.launch.local import Job, LocalPool, longest_first
from tests.worlds import ROOT

JOBS = "tests.launch.jobs"


def job(folder: Path, name: str, kind: str) -> Job:
    trial = TrialDir(folder / name)
    trial.path.mkdir(parents=True, exist_ok=True)
    return Job(name, f"{JOBS}:{kind}", str(trial.path), trial)


def nothing() -> None:
    pass


def test_a_crash_is_its_own(tmp_path: Path) -> None:
    jobs = [job(tmp_path, "a", "quick"), job(tmp_path, "b", "crash"), job(tmp_path, "c", "quick")]
    outcome = LocalPool(2, 3, [JOBS]).run(jobs, nothing)
    assert outcome.states == {"a": "done", "b": "failed", "c": "done"}
    status = TrialDir(tmp_path / "b").status()
    assert status["kind"] == "lost"
    assert "SIGKILL" in status["error"]
    assert (tmp_path / "a" / "runs.log").read_text().split()[1] == "3"


def test_equal_first_failures_stop_the_table(tmp_path: Path) -> None:
    jobs = [job(tmp_path, str(n), "fail") for n in range(6)]
    outcome = LocalPool(1, 1, [JOBS]).run(jobs, nothing)
    assert "always the same" in outcome.stopped_by
    assert list(outcome.states.values()).count("not started") == 3


def test_longest_first() -> None:
    jobs = [Job(name, "x:y", "") for name in "abc"]
    assert [j.name for j in longest_first([(jobs[0], 1.0), (jobs[1], None), (jobs[2], 9.0)])] == ["b", "c", "a"]


def test_a_dead_lock_is_taken_over_and_a_live_one_is_not(tmp_path: Path) -> None:
    trial = TrialDir(tmp_path)
    with trial.locked():
        holder = json.loads(trial.lock_file.read_text())
        with pytest.raises(TrialBusyError, match=str(os.getpid())), trial.locked():
            pass
    write_json(trial.lock_file, holder | {"pid": 2**22 - 1})  # no such process
    with trial.locked():
        pass
    write_json(trial.lock_file, holder | {"process_started": 1})  # the number was given to another process
    with trial.locked():
        pass
    write_json(trial.lock_file, holder | {"boot_id": "before the restart"})
    trial.update_status(state="running")
    assert trial.state() == "running"  # on a machine that cannot be asked, a sign of life is believed for a minute
    with pytest.raises(TrialBusyError), trial.locked():
        pass
    write_json(trial.status_file, trial.status() | {"heartbeat": time.time() - 1000})
    os.utime(trial.lock_file, (time.time() - 1000,) * 2)
    assert trial.state() == "lost"
    with trial.locked():
        pass


def test_state_needs_nothing_but_the_files(tmp_path: Path) -> None:
    trial = TrialDir(tmp_path)
    assert trial.state() == "pending"
    trial.status_file.write_text('{"state": "runn')  # a disk that lost the end of a file
    assert trial.state() == "pending"
    trial.update_status(state="done")
    assert trial.state() == "lost"  # it says so, but there is no result
    write_json(trial.metrics_file, {})
    trial.status_file.unlink()
    assert trial.state() == "done"


LAUNCHER = """
import sys
from pathlib import Path
from rislab.launch.local import Job, LocalPool
from rislab.ablation.trial import TrialDir
folder, kind, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
jobs = [Job(str(n), f"tests.launch.jobs:{kind}", str(folder / str(n)), TrialDir(folder / str(n))) for n in range(count)]
if __name__ == "__main__":
    print(LocalPool(2, 1, ["tests.launch.jobs"]).run(jobs, lambda: None).states)
"""


def launcher(folder: Path, kind: str, count: int) -> "subprocess.Popen[bytes]":
    script = folder / "launcher.py"
    script.write_text(LAUNCHER)
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), kind, str(count)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )


def test_four_launchers_never_run_a_trial_twice(tmp_path: Path) -> None:
    launchers = [launcher(tmp_path, "quick", 30) for _ in range(4)]
    assert all(process.wait(120) == 0 for process in launchers)
    assert [len((tmp_path / str(n) / "runs.log").read_text().splitlines()) for n in range(30)] == [1] * 30


def test_kill_9_of_everything_loses_nothing_and_leaves_no_process(tmp_path: Path) -> None:
    rng = random.Random(0)
    for _ in range(3):
        process = launcher(tmp_path, "slow", 4)
        time.sleep(0.6 + rng.random())
        os.kill(process.pid, signal.SIGKILL)  # the launcher alone: its children must notice
        process.wait()
        time.sleep(0.3)
        counters = {p: p.read_text() for p in tmp_path.glob("*/counter.json")}
        time.sleep(0.3)
        assert {p: p.read_text() for p in tmp_path.glob("*/counter.json")} == counters, (
            "a child went on without its pool"
        )
    assert launcher(tmp_path, "slow", 4).wait(60) == 0
    assert [json.loads((tmp_path / str(n) / "metrics.json").read_text())["steps"] for n in range(4)] == [20] * 4
