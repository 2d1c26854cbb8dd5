"""The pool: isolation, takeover, one run a trial for any number of launchers, and death of the whole at any moment."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rislab.ablation.trial import TrialBusyError, TrialDir
from rislab.files import write_json
from rislab.launch.local_pool import Job, LocalPool, longest_first
from tests.worlds import ROOT, is_alive, wait_until

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
    assert trial.state() == "running"  # on another machine, a sign of life is believed for a minute
    with pytest.raises(TrialBusyError), trial.locked():
        pass
    for file in (trial.status_file, trial.lock_file):
        os.utime(file, (time.time() - 1000,) * 2)
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
    write_json(trial.metrics_file, {"splits": {}})
    trial.status_file.unlink()
    assert trial.state() == "done"


LAUNCHER = """
import signal
import sys
from pathlib import Path
from rislab.launch.local_pool import Job, LocalPool
from rislab.ablation.trial import TrialDir
folder, kind, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
jobs = [Job(str(n), f"tests.launch.jobs:{kind}", str(folder / str(n)), TrialDir(folder / str(n))) for n in range(count)]
if __name__ == "__main__":
    # Tests that a script started with `&` inherit that Ctrl-C is ignored, and a pool respects that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
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


def steps(folder: Path) -> list[int]:
    return [json.loads(path.read_text())["steps"] for path in sorted(folder.glob("*/metrics.json"))]


@pytest.mark.parametrize("count", [50, pytest.param(200, marks=pytest.mark.slow)])
def test_eight_launchers_never_run_a_trial_twice(tmp_path: Path, count: int) -> None:
    launchers = [launcher(tmp_path, "quick", count) for _ in range(8)]
    assert all(process.wait(240) == 0 for process in launchers)
    runs = [len((tmp_path / str(n) / "runs.log").read_text().splitlines()) for n in range(count)]
    assert runs == [1] * count


@pytest.mark.slow
def test_a_trial_costs_the_pool_less_than_a_third_of_a_second(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With all that real trials import in the fork server, and one slot: nothing is hidden by a neighbour."""
    pool = LocalPool(1, 1, [JOBS, "rislab.training.trial", "rislab.methods.cris.task", "rislab.datamodules.referring"])
    pool.run([job(tmp_path, "warm-up", "quick")], nothing)
    jobs = [job(tmp_path, str(n), "quick") for n in range(40)]
    assert set(pool.run(jobs, nothing).states.values()) == {"done"}
    ended = sorted((tmp_path / str(n) / "metrics.json").stat().st_mtime for n in range(40))
    each = min(later - earlier for earlier, later in zip(ended, ended[10:], strict=False)) / 10  # others may be at work
    with capsys.disabled():
        print(f"\n {each:.3f} s a no-op trial")
    assert each < 0.3


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
        for number, status in enumerate(sorted(tmp_path.glob("*/status.json"))):  # what a failing disk may leave
            if number % 2:
                status.unlink()
            else:
                status.write_text(status.read_text()[:20])
    assert launcher(tmp_path, "slow", 4).wait(60) == 0
    assert steps(tmp_path) == [20] * 4


def test_a_launcher_takes_over_from_one_that_dies(tmp_path: Path) -> None:
    first = launcher(tmp_path, "slow", 2)
    wait_until(lambda: len(list(tmp_path.glob("*/counter.json"))) == 2)
    second = launcher(tmp_path, "slow", 2)
    time.sleep(0.3)
    first.kill()
    first.wait()
    assert second.wait(30) == 0
    assert steps(tmp_path) == [20, 20]  # went on, did not begin again


def test_after_one_request_trials_end_properly(tmp_path: Path) -> None:
    process = launcher(tmp_path, "polite", 3)
    wait_until(lambda: [TrialDir(tmp_path / n).state() for n in "01"] == ["running"] * 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert [TrialDir(tmp_path / n).state() for n in "012"] == ["interrupted", "interrupted", "pending"]


def test_after_two_requests_trials_are_killed(tmp_path: Path) -> None:
    process = launcher(tmp_path, "stubborn", 1)
    wait_until(lambda: TrialDir(tmp_path / "0").state() == "running")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.7)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert TrialDir(tmp_path / "0").state() == "interrupted"


def test_a_killed_trial_takes_its_own_processes_along(tmp_path: Path) -> None:
    one = replace(job(tmp_path, "a", "family"), argv=("fit", "--config", "x.yaml"))
    LocalPool(1, 1, [JOBS]).run([one], nothing)
    found = json.loads((tmp_path / "a" / "family.json").read_text())
    assert found["argv"] == ["fit", "--config", "x.yaml"]
    wait_until(lambda: not is_alive(found["child"]))


def test_an_end_without_a_result_is_a_failure(tmp_path: Path) -> None:
    outcome = LocalPool(1, 1, [JOBS]).run([job(tmp_path, "a", "nothing")], nothing)
    assert outcome.states == {"a": "failed"}
    assert "without a result: exit code 0" in TrialDir(tmp_path / "a").status()["error"]


STAMPEDE = """
import os, sys, time
from pathlib import Path
from rislab.ablation.trial import TrialBusyError, TrialDir
time.sleep(max(0, float(sys.argv[2]) - time.time()))
for folder in sorted(Path(sys.argv[1]).glob("trial-*")):
    try:
        with TrialDir(folder).locked():
            os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))
            time.sleep(0.002)
            os.unlink(folder / "inside")
    except TrialBusyError:
        pass
"""


def test_a_dead_lock_has_one_successor(tmp_path: Path) -> None:
    """Six processes fall upon forty locks of a dead process at once: never two inside."""
    with TrialDir(tmp_path).locked():
        holder = json.loads((tmp_path / "lock").read_text())
    for number in range(40):
        write_json(tmp_path / f"trial-{number:02}" / "lock", holder | {"pid": 2**22 - 1})
    command = [sys.executable, "-c", STAMPEDE, str(tmp_path), str(time.time() + 1.0)]
    crowd = [subprocess.Popen(command, cwd=ROOT) for _ in range(6)]
    assert [process.wait(60) for process in crowd] == [0] * 6
    assert not list(tmp_path.glob("trial-*/*lock*"))  # nothing is left behind


def test_heartbeat_and_trial_do_not_overwrite_each_other(tmp_path: Path) -> None:
    trial = TrialDir(tmp_path)
    stop = threading.Event()

    def beat() -> None:
        while not stop.is_set():
            trial.update_status()

    threads = [threading.Thread(target=beat) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for step in range(30):
            TrialDir(tmp_path).update_status(step=step)
            assert trial.status()["step"] == step
    finally:
        stop.set()
        for thread in threads:
            thread.join()
