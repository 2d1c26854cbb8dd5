"""What trials inherit: not the ranks of the job in which their pool runs, and no GPU but those that were allowed."""

import json
import os
import signal
import stat
from pathlib import Path

import pytest

from rislab.errors import ConfigError
from rislab.launch.environment import is_handed_on, outside_of_job
from rislab.launch.local_pool import Job, LocalPool
from rislab.launch.resources import Device, Requirement, chosen, gpus
from rislab.launch.slurm_job import Work
from tests.launch.test_local_pool import JOBS, job, nothing
from tests.worlds import rislab, tiny_table

OF_A_JOB = {
    "SLURM_JOB_ID": "770", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0", "SLURM_NNODES": "1", "SLURM_NODELIST": "localhost", "SLURM_STEP_NUM_TASKS": "4",
    "RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "none", "GROUP_RANK": "0", "PMI_RANK": "1", "PMIX_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4",
    "SUBMITIT_EXECUTOR": "slurm", "JSM_NAMESPACE_RANK": "1",
}  # fmt: skip
KEPT = ("SLURM_JOB_ID",)
WORLD = {"data__init_args__generate__init_args__scenes": 80, "data__init_args__root": "tiny-80"}
"""Large enough for two processes."""


def said(tmp_path: Path, need: Requirement, devices: list[Device]) -> dict[str, str]:
    """The environment of a real process that a pool has started."""
    file = tmp_path / "environment.json"
    outcome = LocalPool(1, 3, [JOBS], devices).run([Job("a", f"{JOBS}:environment", str(file), need=need)], nothing)
    assert outcome.states == {"a": "done"}
    found: dict[str, str] = json.loads(file.read_text())
    return found


def test_a_pools_trials_are_no_ranks_of_the_job_around_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in OF_A_JOB.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    found = said(tmp_path, Requirement(), [])
    assert [name for name in OF_A_JOB if name in found] == list(KEPT)
    assert (found["HTTPS_PROXY"], found["OMP_NUM_THREADS"], found["PATH"]) == ("http://proxy", "3", os.environ["PATH"])
    assert {"RANKING", "SLURMISH", "CUDA_VISIBLE_DEVICES", "WANDB_MODE"} == {
        name for name in ("RANKING", "SLURMISH", "CUDA_VISIBLE_DEVICES", "WANDB_MODE", *OF_A_JOB)
        if is_handed_on(name) and name not in KEPT
    }  # fmt: skip


def test_a_job_handed_in_from_a_job_inherits_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**OF_A_JOB, "SLURM_MEM_PER_CPU": "4", "SLURM_CONF": "/c", "SBATCH_ACCOUNT": "a"}.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with outside_of_job():
        left = [name for name in os.environ if name.startswith(("SLURM", "SBATCH")) or name in OF_A_JOB]
        assert sorted(left) == ["SBATCH_ACCOUNT", "SLURM_CONF"]
    assert dict(os.environ) == before


@pytest.mark.parametrize(("devices", "steps"), [(2, 10), (1, 21)])
def test_a_table_in_a_job_of_four_tasks_trains_as_its_recipe_says(devices: int, steps: int, tmp_path: Path) -> None:
    """As many processes as devices, whatever the job has; and the curves are logged, whatever rank the launcher has in it."""
    config = {"trainer__devices": devices, "trainer__strategy": "ddp" if devices > 1 else "auto"}
    table = tiny_table(tmp_path, **config, trainer__max_epochs=1, **WORLD)
    given = ["ablate", "run", str(table), "--threads", "1", "--jobs", "1"]
    done = rislab(
        *given, "--runs", str(tmp_path / "runs"), fresh=True, **OF_A_JOB
    )  # ranks start by the program that runs
    assert done.returncode == 0, done.stdout + done.stderr
    (metrics,) = (tmp_path / "runs").glob("tiny/*/metrics.json")
    assert json.loads(metrics.read_text())["step"] == steps, "the batches of an epoch, shared by the processes"
    assert "train/" in (metrics.parent / "log" / "metrics.csv").read_text()


def driver(folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """A stand-in for nvidia-smi that prints these lines."""
    script = folder / "bin" / "nvidia-smi"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    script.chmod(script.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)


FOUR = tuple(f"{n}, GPU-{n}{n}aa-bb, 80000" for n in range(4))


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["0", "1", "2", "3"]),
        ("3", ["3"]),
        ("3,1", ["3", "1"]),
        (" 2 , 0 ", ["2", "0"]),
        ("GPU-22aa-bb", ["GPU-22aa-bb"]),
        ("GPU-2", ["GPU-2"]),
        ("MIG-77,MIG-88", ["MIG-77", "MIG-88"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1,-1,2", ["1"]),  # as CUDA reads it
        ("1,9,2", ["1"]),
        ("1,1", ["1"]),
    ],
)
def test_only_allowed_gpus_are_given_out(
    visible: str | None, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(tmp_path, monkeypatch, *FOUR)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = gpus()
    assert [device.name for device in found] == names
    assert [device.memory_mb for device in found] == [None if "MIG" in name else 80000.0 for name in names]


@pytest.mark.parametrize(("visible", "given"), [("3", "3"), ("MIG-77", "MIG-77"), (None, "0")])
def test_a_trial_gets_what_its_launcher_may_use(
    visible: str | None, given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(tmp_path, monkeypatch, *FOUR)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = said(tmp_path, Requirement(1), chosen(None, gpus()))
    assert found["CUDA_VISIBLE_DEVICES"] == given
    assert found.get("CUDA_DEVICE_ORDER") == (None if "MIG" in given else "PCI_BUS_ID")


def test_in_a_slurm_job_without_cgroups_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(tmp_path, monkeypatch, *FOUR)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    for name, value in OF_A_JOB.items():
        monkeypatch.setenv(name, value)
    files = [tmp_path / "0.json", tmp_path / "1.json"]
    jobs = tuple(Job(file.name, f"{JOBS}:environment", str(file), need=Requirement(1)) for file in files)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGCONT, signal.SIGTERM)}
    try:
        assert Work(jobs, 1, 1, (JOBS,))() == ["done", "done"]
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    found = [json.loads(file.read_text()) for file in files]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in found] == ["2", "2"]  # one slot: one after the other
    assert not any("SLURM_NTASKS" in each for each in found)


@pytest.mark.parametrize("memory", ["[N/A]", "[Insufficient Permissions]", "", "0", "nan", "inf"])
def test_a_gpu_of_unknown_memory_has_one_trial_at_a_time(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rislab.launch.resources import Allocation, ResourcePool

    driver(tmp_path, monkeypatch, f"0, {memory}", "No devices were found", "")
    assert gpus() == [Device("0", None)]
    places = ResourcePool(4, gpus())
    assert places.take(Requirement(1, 10.0)) == Allocation(("0",))
    assert places.take(Requirement(1, 10.0)) is None
    assert places.take(Requirement(1)) is None


def test_an_order_of_cudas_own_says_memory_only_where_all_are_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(tmp_path, monkeypatch, "0, GPU-a, 8000", "1, GPU-b, 80000")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert gpus() == [Device("0", 8000.0)]
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    assert gpus() == [Device("0", None)]
    assert said(tmp_path, Requirement(1), gpus())["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"


def test_a_driver_that_fails_lists_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(tmp_path, monkeypatch, "NVIDIA-SMI has failed")
    assert gpus() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")  # set by the user
    assert gpus() == [Device("1", None)]
    with pytest.raises(ConfigError, match="no GPU '0'"):
        chosen("0,", gpus())


def test_a_trial_that_needs_more_gpus_than_there_are_is_refused(tmp_path: Path) -> None:
    """It would wait for ever."""
    from dataclasses import replace

    one = replace(job(tmp_path, "a", "quick"), need=Requirement(2))
    outcome = LocalPool(1, 1, [JOBS], [Device("3", 80000.0)]).run([one, job(tmp_path, "b", "quick")], nothing)
    assert outcome.states == {"a": "failed", "b": "done"}
    assert one.trial is not None
    assert one.trial.status()["kind"] == "config"
    assert one.trial.status()["error"] == "the recipe needs 2 GPUs, and those that may be used are 3"


@pytest.mark.parametrize("visible", ["2", ""])
def test_an_agents_trial_gets_the_gpu_that_its_agent_may_use(
    visible: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`CUDA_VISIBLE_DEVICES=2 wandb agent ...`: one agent a GPU. Without one it is left to the trial to say what it lacks."""
    from rislab.ablation import plan, table
    from rislab.ablation.plan import Planned
    from rislab.launch import table_run, trial_jobs

    driver(tmp_path, monkeypatch, *FOUR)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    loaded = table.load(tiny_table(tmp_path, trainer__accelerator="gpu"))
    cells = plan.plan(loaded, loaded.profile("toy"), [0], tmp_path / "runs")
    file = tmp_path / "said.json"

    def stand_in(cell: Planned) -> Job:
        return Job(cell.name, f"{JOBS}:environment", str(file), need=Requirement(1))

    monkeypatch.setattr(trial_jobs, "of_cell", stand_in)
    monkeypatch.setattr(trial_jobs, "TARGET", JOBS)
    monkeypatch.setattr(trial_jobs, "shared_modules", lambda _: [JOBS])
    assert table_run.run_chain(cells, 1, lambda: None) is False
    assert json.loads(file.read_text())["CUDA_VISIBLE_DEVICES"] == visible
