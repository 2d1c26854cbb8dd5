"""Which ranks a process is one of, by what SLURM and torchrun put into its environment."""

from pathlib import Path

import lightning as L
import pytest
import yaml
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from rislab.errors import ConfigError
from rislab.training import cluster
from tests.data.small import SmallSet
from tests.worlds import rislab_here, tiny_config

JOB = {"SLURM_JOB_ID": "770", "SLURM_JOB_NAME": "train", "SLURM_NNODES": "1", "SLURM_NODELIST": "localhost"}
RANK = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}


def job(monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
    for name, value in (JOB | RANK | more | {"MASTER_ADDR": "127.0.0.1"}).items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("more", "is_task"),
    [
        ({"SLURM_NTASKS": "1"}, False),  # the batch script of a job
        ({"SLURM_NTASKS": "4"}, False),
        ({"SLURM_NTASKS": "4", "SLURM_STEP_ID": "4294967291"}, False),  # the same, where SLURM numbers it
        ({"SLURM_NTASKS": "4", "SLURM_STEP_ID": "4294967290"}, False),  # salloc's shell
        ({"SLURM_NTASKS": "1", "SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "bash"}, False),  # srun --pty bash
        ({"SLURM_NTASKS": "2", "SLURM_STEP_ID": "0"}, True),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_ID": "3"}, True),
    ],
)
def test_only_a_task_of_a_step_is_a_rank(monkeypatch: pytest.MonkeyPatch, more: dict[str, str], is_task: bool) -> None:
    job(monkeypatch, **more)
    (found,) = cluster.environment()
    assert isinstance(found, cluster.SlurmStep if is_task else LightningEnvironment)
    trainer = L.Trainer(accelerator="cpu", devices=2, strategy="ddp", plugins=[found], logger=False)
    cluster.check(trainer)
    assert trainer.world_size == 2


def test_torchrun_has_its_own_ranks_inside_of_a_step_too(monkeypatch: pytest.MonkeyPatch) -> None:
    job(
        monkeypatch,
        SLURM_NTASKS="1",
        SLURM_STEP_ID="0",
        TORCHELASTIC_RUN_ID="7",
        WORLD_SIZE="4",
        RANK="0",
        LOCAL_RANK="0",
    )
    assert cluster.environment() == []
    trainer = L.Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False)
    with pytest.raises(
        ConfigError, match="TorchElastic runs 4 tasks, the recipe has 2 devices; start it as 2 processes"
    ):
        cluster.check(trainer)


def test_nothing_is_said_outside_of_a_job() -> None:
    assert cluster.environment() == []


@pytest.mark.parametrize(
    ("tasks", "devices", "said"),
    [
        ("1", 2, "SLURM runs 1 task, the recipe has 2 devices; start it with srun --ntasks=2"),
        ("4", 1, "SLURM runs 4 tasks, the recipe has 1 device; start it with srun --ntasks=1"),
    ],
)
def test_another_number_of_tasks_than_devices_is_refused_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: str, devices: int, said: str
) -> None:
    """One process would train half the batch under the hash of two; four of one device would write one directory."""
    job(monkeypatch, SLURM_NTASKS=tasks, SLURM_STEP_ID="0")
    config = tiny_config(trainer__devices=devices, trainer__default_root_dir=str(tmp_path / "run"))
    config["trainer"]["strategy"] = "ddp" if devices > 1 else "auto"
    del config["data"]["init_args"]["generate"]
    config["data"]["init_args"]["root"] = str(SmallSet({"train": 12, "val": 3}).write(tmp_path / "data"))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    done = rislab_here("fit", "--config", str(tmp_path / "config.yaml"))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"rislab: {said}")
    status = yaml.safe_load((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["kind"]) == ("failed", "config")
    assert not (tmp_path / "run" / "checkpoints").exists()
