"""One rule for every launcher: what ended without a result is started again, in smaller parts, or left."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rislab.ablation.trial import TrialDir
from rislab.launch.local_pool import LocalPool
from rislab.launch.retry_policy import is_over, settle
from tests.launch.test_local_pool import JOBS, job, nothing


@pytest.mark.parametrize("can_split", [True, False])
def test_a_pool_goes_on_as_the_kind_of_failure_says(can_split: bool, tmp_path: Path) -> None:
    one = replace(job(tmp_path, "a", "unlucky"), can_split=can_split)
    (tmp_path / "a" / "checkpoints").mkdir()
    (tmp_path / "a" / "checkpoints" / "last.ckpt").touch()
    outcome = LocalPool(1, 1, [JOBS]).run([one], nothing)
    trial = TrialDir(tmp_path / "a")
    if can_split:
        assert outcome.states == {"a": "done"}
        assert json.loads(trial.metrics_file.read_text()) == {"splits": {}, "parts": 2, "starts": 4}
        assert not list(trial.checkpoints.iterdir())  # none lies between batches of the new size
    else:
        assert outcome.states == {"a": "failed"}
        assert trial.status()["error"] == "oom on purpose"
        assert len(trial.attempts.all()) == 2
        assert list(trial.checkpoints.iterdir())


def test_what_never_gets_further_is_given_up_with_the_reason(tmp_path: Path) -> None:
    outcome = LocalPool(2, 1, [JOBS]).run([job(tmp_path, "a", "crash"), job(tmp_path, "b", "quick")], nothing)
    trial = TrialDir(tmp_path / "a")
    assert outcome.states == {"a": "failed", "b": "done"}
    assert trial.status()["kind"] == "lost"
    error = trial.status()["error"]
    assert error.startswith("lost: 4 starts in a row got no further than step 0; the last one: the process ended")
    assert error.endswith("killed by SIGKILL")
    trial.clear_cancel()
    assert not is_over(trial, False)
    assert settle(trial, False) == ("again", 0.0)


def test_a_cancelled_trial_is_not_started(tmp_path: Path) -> None:
    one = job(tmp_path, "a", "quick")
    assert one.trial is not None
    one.trial.cancel()
    assert LocalPool(1, 1, [JOBS]).run([one], nothing).states == {"a": "cancelled"}
    assert not (tmp_path / "a" / "runs.log").exists()
    one.trial.clear_cancel()
    assert LocalPool(1, 1, [JOBS]).run([one], nothing).states == {"a": "done"}


def test_times_are_the_file_systems_not_a_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher whose clock is an hour ahead takes no trial away."""
    trial = TrialDir(tmp_path)
    with trial.locked():
        trial.update_status(state="running")
        lock = json.loads(trial.lock_file.read_text())
        trial.lock_file.write_text(json.dumps(lock | {"host": "another"}))
        monkeypatch.setattr("time.time", lambda: 4e9)
        assert trial.state() == "running"


def test_an_earlier_life_of_the_same_job_is_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = TrialDir(tmp_path)
    with trial.locked():
        lock = json.loads(trial.lock_file.read_text())
        trial.lock_file.write_text(json.dumps(lock | {"host": "a node that died", "job": "12.0"}))
        assert trial.holder() is not None
        for restarts, lives in (("0", True), ("1", False)):
            monkeypatch.setenv("SLURM_JOB_ID", "12")
            monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
            assert (trial.holder() is not None) is lives
