"""A disk that is full or refuses to be written: counted in memory, waited for, said once, and then left."""

import os
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from rislab.ablation.attempts import DISK_EXIT_CODE, Attempt
from rislab.ablation.trial import TrialDir
from rislab.launch import local_pool
from rislab.launch.local_pool import LocalPool
from rislab.launch.retry_policy import Memory, settle
from tests.faults.campaign import full, small_disk
from tests.launch.test_local_pool import JOBS, job, nothing

may_mount = pytest.mark.skipif(
    os.getuid() != 0 or subprocess.run(["unshare", "--mount", "true"], check=False).returncode != 0,
    reason="mounting a small disk needs root",
)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_pool, "DISK_PAUSES", (0.02, 0.04, 0.08, 0.16))
    monkeypatch.setattr("rislab.launch.retry_policy.PAUSES", (0.0, 0.0, 0.0))


@contextmanager
def disk(tmp_path: Path):  # type: ignore[no-untyped-def]
    try:
        with small_disk(tmp_path / "disk", "2m") as folder:
            yield folder
    except subprocess.CalledProcessError:
        pytest.skip("mounting is not permitted here")


@may_mount
def test_a_full_disk_costs_a_few_starts_and_is_said_once(tmp_path: Path) -> None:
    with disk(tmp_path) as folder:
        jobs = [job(folder / "runs", name, "writer") for name in "abc"]
        pool = LocalPool(2, 1, [JOBS])
        with full(folder):
            outcome = pool.run(jobs, nothing)
        assert outcome.stopped_by.startswith(
            f"{folder / 'runs'} cannot be written (0 MiB free), 5 times in a row; free some space"
        )
        assert set(outcome.states.values()) <= {"failed", "not started", "lost", "pending"}
        assert "done" not in outcome.states.values()
        # There is space again: the same command brings everything to its end.
        assert set(LocalPool(2, 1, [JOBS]).run(jobs, nothing).states.values()) == {"done"}


@may_mount
def test_each_trial_is_started_four_times_at_most_however_full_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be counted in its directory, not even that it was started; a log elsewhere counts."""
    monkeypatch.setattr(local_pool, "DISK_PAUSES", (0.02,) * 50)
    with disk(tmp_path) as folder:
        runs = folder / "table" / "runs"
        jobs = [job(runs, name, "writer") for name in "ab"]
        (folder / "table" / "starts.log").symlink_to(tmp_path / "starts.log")
        with full(folder):
            outcome = LocalPool(1, 1, [JOBS]).run(jobs, nothing)
        assert outcome.states == {"a": "failed", "b": "failed"}
        counted = Counter(line.split()[0] for line in (tmp_path / "starts.log").read_text().splitlines())
        assert counted == {"a": 4, "b": 4}
        assert not [each for one in jobs if one.trial for each in one.trial.attempts.all()]


def test_a_disk_error_that_can_be_written_down_is_of_kind_disk(tmp_path: Path) -> None:
    one = job(tmp_path, "a", "out_of_space")
    outcome = LocalPool(1, 1, [JOBS]).run([one], nothing)
    assert one.trial is not None
    assert outcome.states == {"a": "failed"}
    assert [each.kind for each in one.trial.attempts.all()] == ["disk"] * 4
    assert one.trial.status()["kind"] == "disk"
    assert one.trial.status()["error"].startswith("disk: 4 starts in a row got no further than step 0; the last one: ")
    assert "nothing can be written where results go" in one.trial.status()["error"]


def test_a_file_that_may_not_be_read_holds_no_other_trial_up(tmp_path: Path) -> None:
    """It comes with the same numbers as a directory that may not be written, and there is space."""
    jobs = [job(tmp_path, "a", "forbidden"), job(tmp_path, "b", "quick")]
    pool = LocalPool(1, 1, [JOBS])
    outcome = pool.run(jobs, nothing)
    assert (outcome.states, outcome.stopped_by, pool.notes) == ({"a": "failed", "b": "done"}, "", {})


FULL = """
import errno, os, sys
from rislab.training import trial
def train(_arguments, request):
    os.dup2(os.open("/dev/full", os.O_WRONLY), 2)  # the log lies on the full disk, too
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "last.ckpt")
trial.RislabCLI = train
trial.run_trial(sys.argv[1], 1)
"""


def test_a_trial_on_a_full_disk_says_so_by_its_exit_code(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path / "trial")], check=False, timeout=240)
    trial = TrialDir(tmp_path / "trial")
    assert done.returncode == DISK_EXIT_CODE
    assert (trial.status()["kind"], trial.attempts.all()[-1].kind) == ("disk", "disk")
    assert trial.holder() is None


def test_memory_counts_until_a_reset(tmp_path: Path) -> None:
    trial, memory = TrialDir(tmp_path / "a"), Memory()
    trial.path.mkdir()
    moves = []
    for _ in range(4):
        memory.add(trial, "disk")
        moves.append(settle(trial, False, memory)[0])
    assert moves == ["again", "again", "again", "end"]
    trial.clear_cancel()
    memory.add(trial, "disk")
    assert settle(trial, False, memory)[0] == "again"


def test_the_longer_history_counts(tmp_path: Path) -> None:
    """What the trial itself wrote down says more than what a launcher saw that came later."""
    trial, memory = TrialDir(tmp_path / "a"), Memory()
    trial.path.mkdir()
    for _ in range(4):
        trial.attempts.begin(3, 1)
        trial.attempts.end("lost", 3)
    memory.add(trial, None)
    assert [type(each) for each in memory.attempts] == [Attempt]
    assert settle(trial, False, memory)[0] == "end"
