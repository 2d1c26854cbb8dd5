"""Faults of every kind in one table that pools, a SLURM cluster and wandb agents work on; then nothing is missing.

Each fault looks whether it has really happened and whether the trial goes on after it. `make faults` prints the tally.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rislab.ablation.attempts import RESUMED
from tests.agents import agent, export, server, wants_agents
from tests.cluster import Cluster, loopback, wants_slurm
from tests.faults.campaign import (
    ELSEWHERE,
    Campaign,
    clock_apart,
    cut,
    cut_last_line,
    died,
    full,
    goes_on,
    handed_in_again,
    parent,
    pid,
    pool_of,
    read_only,
    small_disk,
    starts,
)
from tests.worlds import ROWS, descendants, is_alive, results, tiny_table, wait_until

SEEDS = 10
EPOCHS = 40

pytestmark = [
    *wants_slurm,
    wants_agents,
    pytest.mark.slow,
    pytest.mark.timeout(5400),
]


def trial_killed(c: Campaign) -> None:
    """SIGKILL of a trial"""
    with c.locally() as (_, trial):
        before = starts(trial)
        os.kill(pid(trial), signal.SIGKILL)
        goes_on(trial, before)


def trial_killed_while_it_resumes(c: Campaign) -> None:
    """SIGKILL of a trial, and again as soon as it has been started anew"""
    with c.locally() as (_, trial):
        before = starts(trial)
        os.kill(pid(trial), signal.SIGKILL)
        wait_until(lambda: starts(trial) == before + 1)
        os.kill(pid(trial), signal.SIGKILL)
        goes_on(trial, before + 1)


def fork_server_killed(c: Campaign) -> None:
    """SIGKILL of the pool's fork server"""
    with c.locally() as (_, trial):
        before = starts(trial)
        os.kill(parent(pid(trial)), signal.SIGKILL)
        goes_on(trial, before)


def pool_killed(c: Campaign) -> None:
    """SIGKILL of the pool: its trials end themselves"""
    with c.locally() as (launcher, trial):
        child = pid(trial)
        launcher.process.kill()
        launcher.process.wait()
        died(child, 20)


def power_cut(c: Campaign) -> None:
    """SIGKILL of pool, fork server and trials at once"""
    with c.locally() as (launcher, _):
        launcher.kill()


def pool_asked_to_stop(c: Campaign) -> None:
    """SIGTERM to the pool, mid-epoch"""
    with c.locally() as (launcher, trial):
        launcher.process.terminate()
        assert launcher.process.wait(90) == 130
        assert trial.attempts.all()[-1].kind == "preempted"


def pool_asked_twice(c: Campaign) -> None:
    """Ctrl-C twice at once: the trials are killed"""
    with c.locally() as (launcher, _):
        launcher.process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        launcher.process.send_signal(signal.SIGINT)
        assert launcher.process.wait(30) == 130


def trial_preempted(c: Campaign) -> None:
    """SIGUSR2 to a trial, mid-epoch"""
    _ask_to_stop(c, signal.SIGUSR2)


def trial_terminated(c: Campaign) -> None:
    """SIGTERM to a trial, mid-epoch"""
    _ask_to_stop(c, signal.SIGTERM)


def _ask_to_stop(c: Campaign, number: signal.Signals) -> None:
    with c.locally() as (_, trial):
        before = starts(trial)
        os.kill(pid(trial), number)
        goes_on(trial, before)
        assert trial.attempts.all()[before - 1].kind == "preempted"


def checkpoint_truncated(c: Campaign) -> None:
    """power cut that leaves half of last.ckpt"""
    with c.locally() as (launcher, trial):
        launcher.kill()
        cut(trial.checkpoints / "last.ckpt")


def every_checkpoint_truncated(c: Campaign) -> None:
    """power cut that leaves half of every checkpoint"""
    with c.locally() as (launcher, trial):
        launcher.kill()
        for path in trial.checkpoints.glob("*.ckpt"):
            cut(path)


def status_deleted(c: Campaign) -> None:
    """status.json deleted under a running trial"""
    with c.locally() as (_, trial):
        trial.status_file.unlink()
        wait_until(trial.status_file.exists, 30)


def books_damaged(c: Campaign) -> None:
    """power cut, status.json gone, last line of attempts.jsonl cut short"""
    with c.locally() as (launcher, trial):
        launcher.kill()
        trial.status_file.unlink()
        cut_last_line(trial.attempts.path)


def two_launchers(c: Campaign) -> None:
    """two launchers started at once"""
    other = c.start("--jobs", "1")
    with c.locally() as (_, trial):
        before, child = starts(trial), pid(trial)
        time.sleep(10)
        assert trial.state() == "done" or (starts(trial), pid(trial)) == (before, child)
        other.end()


def clock_set_apart(c: Campaign) -> None:
    """a launcher on "another host", its clock two hours ahead, beside ours; then it is killed with its trials"""
    with c.locally() as (launcher, trial):
        before, child = starts(trial), pid(trial)
        other = c.start("--jobs", "1", prefix=ELSEWHERE, **clock_apart(c.folder / "clock", 7200))
        theirs = c.training(lambda one: (one.holder() or {}).get("host") == "elsewhere")
        assert theirs.status()["heartbeat"] > time.time() + 7000
        assert trial.state() == "done" or (starts(trial), pid(trial)) == (before, child), "a live trial is left alone"
        begun = starts(theirs)
        other.kill()
        launcher.end()
        with c.locally():
            goes_on(theirs, begun)  # after a minute without a sign of life


def directory_read_only(c: Campaign) -> None:
    """a trial's directory turns read-only until its process has given up"""
    with c.locally() as (_, trial):
        child = pid(trial)
        with read_only(trial.path):
            died(child)
        wait_until(lambda: (trial.state() in ("done", "running")) and trial.holder() is not None, 60)


def disk_full(c: Campaign) -> None:
    """the file system is full to the last byte until a trial's process has given up"""
    with c.locally() as (_, trial):
        child = pid(trial)
        with full(c.runs):
            died(child)
        assert trial.state() != "done"


def job_cancelled(c: Campaign) -> None:
    """SLURM: scancel of a job"""
    with c.on_slurm() as (_, trial):
        job = c.job(trial)
        c.cluster.command("scancel", job)
        handed_in_again(trial, job)


def job_requeued(c: Campaign) -> None:
    """SLURM: scontrol requeue"""
    with c.on_slurm() as (_, trial):
        before = starts(trial)
        c.cluster.command("scontrol", "requeue", c.job(trial))
        goes_on(trial, before)


def job_preempted(c: Campaign) -> None:
    """SLURM: SIGUSR2 to a job, mid-epoch"""
    with c.on_slurm() as (_, trial):
        before, job = starts(trial), c.job(trial)
        c.cluster.command("scancel", "--signal=USR2", job)
        goes_on(trial, before)
        assert trial.attempts.all()[before - 1].kind == "preempted"
        assert trial.attempts.all()[before].job == f"{job}.1", "it goes on in the same job"


def jobs_preempted_by_others(c: Campaign) -> None:
    """SLURM: a job of higher priority takes all nodes"""
    with c.on_slurm() as (_, trial):
        before = starts(trial)
        c.cluster.command("sbatch", "--partition=urgent", "--nodes=2", "--output=/dev/null", "--wrap=sleep 3")
        goes_on(trial, before)
        assert trial.attempts.all()[before - 1].kind in RESUMED


def job_out_of_time(c: Campaign) -> None:
    """SLURM: a job's time is over"""
    with c.on_slurm() as (_, trial):
        before, job = starts(trial), c.job(trial)
        c.cluster.command("scontrol", "update", f"JobId={job}", "TimeLimit=2")  # as long as the warning before the end
        wait_until(lambda: trial.attempts.all()[before - 1].ended, 90)
        c.cluster.command("scontrol", "update", f"JobId={job}", "TimeLimit=60")
        goes_on(trial, before)
        assert trial.attempts.all()[before - 1].kind in RESUMED


def trial_of_a_job_killed(c: Campaign) -> None:
    """SLURM: SIGKILL of a trial in its job"""
    with c.on_slurm() as (_, trial):
        before = starts(trial)
        os.kill(pid(trial), signal.SIGKILL)
        goes_on(trial, before)


def pool_of_a_job_killed(c: Campaign) -> None:
    """SLURM: SIGKILL of the pool in a job"""
    with c.on_slurm() as (_, trial):
        job = c.job(trial)
        os.kill(pool_of(trial), signal.SIGKILL)
        handed_in_again(trial, job)


def node_dies(c: Campaign) -> None:
    """SLURM: slurmd and everything on its node gets SIGKILL"""
    with c.on_slurm() as (_, trial):
        before, node = starts(trial), c.node(c.job(trial))
        c.cluster.script("kill-node", node)
        time.sleep(3)
        c.cluster.script("start-node", node)
        goes_on(trial, before)


def controller_hangs(c: Campaign) -> None:
    """SLURM: the controller does not answer for 15 seconds"""
    with c.on_slurm() as (launcher, trial):
        before, child = starts(trial), pid(trial)
        os.kill(c.cluster.controller, signal.SIGSTOP)
        time.sleep(15)
        os.kill(c.cluster.controller, signal.SIGCONT)
        time.sleep(5)
        assert launcher.process.poll() is None
        assert trial.state() == "done" or (starts(trial), pid(trial)) == (before, child)


def second_launcher_on_slurm(c: Campaign) -> None:
    """SLURM: a second launcher, for the whole table, beside the first; then all its jobs cancelled"""
    with c.on_slurm() as (_, trial):
        before, child = starts(trial), pid(trial)
        other = c.start("--launcher", "slurm")
        time.sleep(15)
        assert trial.state() == "done" or (starts(trial), pid(trial)) == (before, child)
        other.end()
    c.cancel_jobs()


def launcher_on_slurm_killed(c: Campaign) -> None:
    """SLURM: SIGKILL of the launcher: the jobs go on"""
    with c.on_slurm() as (launcher, trial):
        before = starts(trial)
        launcher.kill()
        time.sleep(5)
        assert trial.state() == "done" or (starts(trial) == before and is_alive(pid(trial)))


def local_pool_beside_slurm(c: Campaign) -> None:
    """a local pool beside the cluster's jobs, then all jobs cancelled"""
    with c.on_slurm() as (launcher, trial):
        before, seed = starts(trial), trial.path.name.split("--")[1].removeprefix("s")
        ours = c.start("--jobs", "2", "--seeds", f"{seed},")
        launcher.end()
        c.cancel_jobs()
        goes_on(trial, before)
        ours.end()


def agent_killed(c: Campaign) -> None:
    """SIGKILL of a wandb agent"""
    _agent(c, "agent-1", whole=False)


def agent_killed_with_its_trial(c: Campaign) -> None:
    """SIGKILL of a wandb agent with everything that it started"""
    _agent(c, "agent-2", whole=True)


def _agent(c: Campaign, name: str, whole: bool) -> None:
    with server(export(c.table, c.folder, "--seeds", str(SEEDS), runs=c.runs)) as given:
        process = agent(c.folder / name, given)
        trial = c.training()
        before, child = starts(trial), pid(trial)
        tree = descendants(process.pid) if whole else []
        for number in [process.pid, *tree]:
            os.kill(number, signal.SIGKILL)
        process.wait()
        if whole:
            died(child)
        with c.locally():
            if whole:
                goes_on(trial, before)
            else:
                # What the agent has started goes on to the trial's end without it, and is waited for.
                assert trial.state() == "done" or (starts(trial), pid(trial)) == (before, child)
                wait_until(lambda: trial.state() == "done", 240)
    c.check()


FAULTS: list[Callable[[Campaign], None]] = [
    job_cancelled,
    job_requeued,
    job_preempted,
    jobs_preempted_by_others,
    job_out_of_time,
    trial_of_a_job_killed,
    pool_of_a_job_killed,
    node_dies,
    controller_hangs,
    second_launcher_on_slurm,
    launcher_on_slurm_killed,
    local_pool_beside_slurm,
    trial_killed,
    trial_killed_while_it_resumes,
    fork_server_killed,
    pool_killed,
    power_cut,
    pool_asked_to_stop,
    pool_asked_twice,
    trial_preempted,
    trial_terminated,
    checkpoint_truncated,
    every_checkpoint_truncated,
    status_deleted,
    books_damaged,
    two_launchers,
    clock_set_apart,
    directory_read_only,
    disk_full,
    agent_killed,
    agent_killed_with_its_trial,
]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with loopback() as made:
        yield made


def test_every_fault_leaves_a_table_that_completes(
    tmp_path: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tiny_table(tmp_path, ROWS, trainer__max_epochs=EPOCHS)
    with small_disk(tmp_path / "disk", "2g") as runs:
        c = Campaign(table, SEEDS, tmp_path, runs, cluster)
        began = time.monotonic()
        for fault in FAULTS:
            then = time.monotonic()
            fault(c)
            line = f"{len(c.tally) + 1:>2}  {fault.__doc__}  ({time.monotonic() - then:.0f} s; {len(c.finished)} trials done)"
            c.tally.append(line)
            with capsys.disabled():
                print("\n " + line if len(c.tally) == 1 else " " + line, flush=True)
        c.completes()
        disturbed = time.monotonic() - began
        trials = c.trials()
        assert len(trials) == 2 * SEEDS, "none is lost"
        ends = [[attempt.kind for attempt in trial.attempts.all()] for trial in trials]
        for trial, kinds in zip(trials, ends, strict=True):
            assert "" not in kinds[:-1], f"{trial.path} was trained again after its end: {kinds}"
        shutil.copytree(runs, tmp_path / "disturbed", ignore=shutil.ignore_patterns("*.ckpt"))
    then = time.monotonic()
    done = subprocess.run(c.command("--jobs", "2", runs=tmp_path / "undisturbed"), capture_output=True, check=False)
    assert done.returncode == 0, done.stdout
    assert results(tmp_path / "disturbed") == results(tmp_path / "undisturbed")
    all_starts = sum(len(kinds) for kinds in ends)
    with capsys.disabled():
        print(
            f" {len(FAULTS)} faults in {disturbed:.0f} s (undisturbed {time.monotonic() - then:.0f} s): {len(trials)} trials "
            f"done in {all_starts} starts, none twice, none lost; metrics, scores, curves and predictions equal to the byte"
        )
