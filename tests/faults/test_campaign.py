"""Faults of every kind in tables that pools, a SLURM cluster and wandb agents work on; then nothing is missing.

Each fault looks whether it has really happened and whether the trial goes on after it. `make faults` prints the tally. There are
two tables, which are disturbed side by side: SLURM's faults are mostly waiting.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rislab.ablation.attempts import RESUMED
from tests.agents import agent, export, server, wants_agents
from tests.cluster import Cluster, loopback, wants_slurm
from tests.faults.campaign import (
    ELSEWHERE,
    SMALL,
    Campaign,
    cut,
    cut_last_line,
    died,
    full,
    goes_on,
    goes_on_undisturbed,
    handed_in_again,
    parent,
    pid,
    pool_of,
    read_only,
    small_disk,
    starts,
)
from tests.worlds import ROWS, descendants, is_alive, results, tiny_table, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


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


def pool_stopped(c: Campaign) -> None:
    """SIGTERM to the pool, mid-epoch"""
    with c.locally() as (launcher, trial):
        launcher.process.terminate()
        assert launcher.process.wait(90) == 130
        assert trial.attempts.all()[-1].kind == "preempted"


def pool_stopped_twice(c: Campaign) -> None:
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
    """two launchers at once: each has trials of its own"""
    with c.locally() as (launcher, trial):
        before, child = starts(trial), pid(trial)
        other = c.start("--jobs", "1")
        c.training(lambda one: pool_of(one) == other.process.pid)
        assert goes_on_undisturbed(trial, before, child)
        assert trial.state() == "done" or pool_of(trial) == launcher.process.pid
        other.end()


def clock_set_apart(c: Campaign) -> None:
    """a launcher on "another host", its clock two hours ahead, beside ours; then it is killed with its trials"""
    with c.locally() as (_, trial):
        before, child = starts(trial), pid(trial)
        other = c.start("--jobs", "1", prefix=ELSEWHERE, CLOCK_AHEAD="7200")
        theirs = c.training(lambda one: (one.holder() or {}).get("host") == "elsewhere")
        assert theirs.status()["heartbeat"] > time.time() + 7000
        assert goes_on_undisturbed(trial, before, child), "a live trial is left alone"
        begun = starts(theirs)
        other.kill()
        goes_on(theirs, begun)  # by ours, after a while without a sign of life


def directory_read_only(c: Campaign) -> None:
    """a trial's directory turns read-only until its process has given up"""
    with c.locally() as (_, trial):
        child = pid(trial)
        with read_only(trial.path):
            died(child)
        wait_until(lambda: trial.state() in ("done", "running") and trial.holder() is not None, 60)


def disk_full(c: Campaign) -> None:
    """the file system is full to the last byte until a trial's process has given up"""
    with c.locally() as (_, trial):
        before, child = starts(trial), pid(trial)
        with full(c.runs):
            died(child)
        assert trial.state() != "done"
        goes_on(trial, before)


def disk_stays_full(c: Campaign) -> None:
    """the file system stays full until the pool has given up: it says so once, after a few starts"""
    last = "times in a row; free some space, and the same command goes on"
    with c.locally() as (launcher, trial):
        said = c.log.read_text().count(last)
        with full(c.runs):
            assert launcher.process.wait(240) == 1
        assert c.log.read_text().count(last) == said + 1
    with c.locally():
        wait_until(lambda: trial.state() in ("done", "running"))


def pool_inside_a_job(c: Campaign) -> None:
    """a pool typed inside a SLURM job of four tasks, with torchrun's variables around it; SIGKILL of a trial"""
    ranks = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1"}
    job = {"SLURM_JOB_ID": "770", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_NODELIST": "n1", **ranks}
    with c.locally(**job) as (_, trial):
        before = starts(trial)
        os.kill(pid(trial), signal.SIGKILL)
        goes_on(trial, before)


def no_hard_links(c: Campaign) -> None:
    """a file system without hard links; SIGKILL of a trial, then of everything at once"""
    with c.locally(NO_HARD_LINKS="1") as (launcher, trial):
        before = starts(trial)
        os.kill(pid(trial), signal.SIGKILL)
        goes_on(trial, before)
        launcher.kill()
    with c.locally(NO_HARD_LINKS="1") as (_, trial):
        wait_until(lambda: (trial.checkpoints / "previous.ckpt").exists() or trial.state() == "done")


def job_cancelled(c: Campaign) -> None:
    """SLURM: scancel of a job"""
    with c.on_slurm() as (_, trial):
        job = c.job(trial)
        c.slurm.command("scancel", job)
        handed_in_again(trial, job)


def job_requeued(c: Campaign) -> None:
    """SLURM: scontrol requeue"""
    with c.on_slurm() as (_, trial):
        before, job = starts(trial), c.job(trial)
        c.slurm.command("scontrol", "requeue", job)
        c.hurry(job)
        goes_on(trial, before)


def job_preempted(c: Campaign) -> None:
    """SLURM: SIGUSR2 to a job, mid-epoch"""
    with c.on_slurm() as (_, trial):
        before, job = starts(trial), c.job(trial)
        c.slurm.preempt(job)
        c.hurry(job)
        goes_on(trial, before)
        assert trial.attempts.all()[before - 1].kind == "preempted"
        names, counts = zip(
            *(each.job.rsplit(".", 1) for each in trial.attempts.all()[before - 1 : before + 1]), strict=True
        )
        assert names == (job, job), "it goes on in the same job"
        assert int(counts[1]) == int(counts[0]) + 1


def jobs_preempted_by_others(c: Campaign) -> None:
    """SLURM: a job of higher priority takes all nodes"""
    with c.on_slurm() as (_, trial):
        before, job = starts(trial), c.job(trial)
        c.slurm.command("sbatch", "--partition=urgent", "--nodes=2", "--output=/dev/null", "--wrap=sleep 3")
        c.hurry(job)
        goes_on(trial, before)
        assert trial.attempts.all()[before - 1].kind in RESUMED


def job_out_of_time(c: Campaign) -> None:
    """SLURM: a job's time is over"""
    with c.on_slurm() as (_, trial):
        before, job = starts(trial), c.job(trial)
        with c.slower():
            c.slurm.command(
                "scontrol", "update", f"JobId={job}", "TimeLimit=2"
            )  # as long as the warning before the end
            wait_until(lambda: trial.attempts.all()[before - 1].ended, 120)
        c.slurm.command("scontrol", "update", f"JobId={job}", "TimeLimit=60")
        c.hurry(job)
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
        c.slurm.script("kill-node", node)
        time.sleep(3)
        c.slurm.script("start-node", node)
        goes_on(trial, before)


def controller_hangs(c: Campaign) -> None:
    """SLURM: the controller does not answer for eight seconds, in which it is queried again and again"""
    with c.on_slurm() as (launcher, trial):
        before, child = starts(trial), pid(trial)
        os.kill(c.slurm.controller, signal.SIGSTOP)
        time.sleep(8)
        os.kill(c.slurm.controller, signal.SIGCONT)
        c.slurm.command("squeue", "--noheader")  # it answers again
        assert launcher.process.poll() is None
        assert goes_on_undisturbed(trial, before, child)


def second_launcher_on_slurm(c: Campaign) -> None:
    """SLURM: a second launcher beside the first submits nothing; then all jobs cancelled"""
    with c.on_slurm() as (_, trial):
        before, child = starts(trial), pid(trial)
        said = c.log.read_text().count(" 0 jobs submitted")
        other = c.start("--launcher", "slurm")
        wait_until(lambda: c.log.read_text().count(" 0 jobs submitted") > said)
        time.sleep(5)  # two looks at the queue
        assert goes_on_undisturbed(trial, before, child)
        other.end()
        job = c.job(trial)
        children = c.processes()
        c.slurm.command("scancel", "--user", "root")
        handed_in_again(trial, job)
        for child in children:  # the next fault is not to meet a trial that this one has yet to end
            died(child)


def launcher_on_slurm_killed(c: Campaign) -> None:
    """SLURM: SIGKILL of the launcher: the jobs go on"""
    with c.on_slurm() as (launcher, trial):
        before, child = starts(trial), pid(trial)
        launcher.kill()
        time.sleep(2)
        assert trial.state() == "done" or (starts(trial) == before and is_alive(child))


def local_pool_beside_slurm(c: Campaign) -> None:
    """a local pool beside the cluster's jobs, then all jobs cancelled: the pool takes their trials"""
    with c.on_slurm() as (_, trial):
        before = starts(trial)
        ours = c.start("--jobs", "2")
        c.stop()
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
    c.stop()
    with server(export(c.table, c.folder, "--seeds", str(c.seeds), runs=c.runs)) as given:
        process = agent(c.folder / name, given | {"PYTHONPATH": c.environment["PYTHONPATH"]})
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
                assert goes_on_undisturbed(trial, before, child)
                wait_until(lambda: trial.state() == "done", 240)
    c.check()


Fault = Callable[[Campaign], None]

ON_SLURM: list[Fault] = [
    job_cancelled,
    job_requeued,
    job_preempted,
    jobs_preempted_by_others,
    trial_of_a_job_killed,
    pool_of_a_job_killed,
    controller_hangs,
    second_launcher_on_slurm,
    launcher_on_slurm_killed,
    job_out_of_time,
    local_pool_beside_slurm,
    node_dies,  # last: SLURM takes minutes to requeue its job, in which the others end
]

ON_THIS_MACHINE: list[Fault] = [
    trial_killed,
    trial_killed_while_it_resumes,
    fork_server_killed,
    trial_preempted,
    trial_terminated,
    status_deleted,
    directory_read_only,
    disk_full,
    two_launchers,
    clock_set_apart,
    pool_killed,
    pool_stopped,
    power_cut,
    pool_stopped_twice,
    checkpoint_truncated,
    every_checkpoint_truncated,
    books_damaged,
    disk_stays_full,
    pool_inside_a_job,
    no_hard_links,
    agent_killed,
    agent_killed_with_its_trial,
]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with loopback() as made:
        yield made


@wants_slurm[0]
@wants_slurm[1]
@wants_slurm[2]
def test_every_fault_on_a_cluster_leaves_a_table_that_completes(
    tmp_path: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    _disturb(tmp_path, ON_SLURM, 12, cluster, capsys)


@wants_agents
@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small disk needs root")
def test_every_fault_on_this_machine_leaves_a_table_that_completes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _disturb(tmp_path, ON_THIS_MACHINE, 8, None, capsys)


def _disturb(
    tmp_path: Path, faults: list[Fault], seeds: int, cluster: Cluster | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """All the faults in one table; then its results are those of an undisturbed one, to the byte."""

    def say(line: str) -> None:
        with capsys.disabled():
            print(" " + line, file=sys.__stderr__, flush=True)

    table = tiny_table(tmp_path, ROWS, **SMALL)
    with small_disk(tmp_path / "disk", "2g") as runs:
        c = Campaign(table, seeds, tmp_path, runs, cluster)
        began = time.monotonic()
        try:
            for fault in faults:
                then = time.monotonic()
                fault(c)
                seconds = time.monotonic() - then
                c.tally.append(
                    f"{len(c.tally) + 1:>2}  {fault.__doc__}  ({seconds:.0f} s; {len(c.finished)} trials done)"
                )
                say(c.tally[-1])
            if cluster is not None:
                c.stop()
                c.cancel_jobs()
            c.completes()
        finally:
            c.stop()
        disturbed = time.monotonic() - began
        trials = c.trials()
        assert len(trials) == 2 * seeds, "none is lost"
        ends = [[attempt.kind for attempt in trial.attempts.all()] for trial in trials]
        for trial, kinds in zip(trials, ends, strict=True):
            assert "" not in kinds[:-1], f"{trial.path} was trained again after its end: {kinds}"
        shutil.copytree(runs, tmp_path / "disturbed", ignore=shutil.ignore_patterns("*.ckpt"))
    then = time.monotonic()
    done = subprocess.run(c.command("--jobs", "2", runs=tmp_path / "undisturbed"), capture_output=True, check=False)
    assert done.returncode == 0, done.stdout
    assert results(tmp_path / "disturbed") == results(tmp_path / "undisturbed")
    all_starts = sum(len(kinds) for kinds in ends)
    say(
        f"{len(faults)} faults in {disturbed:.0f} s (undisturbed {time.monotonic() - then:.0f} s): {len(trials)} trials "
        f"done in {all_starts} starts, none twice, none lost; metrics, scores, curves and predictions equal to the byte"
    )
