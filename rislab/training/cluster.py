"""Which ranks a process is one of, and whether there are as many as its recipe says."""

import os

import lightning as L
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from rislab.errors import ConfigError

SPECIAL_STEPS = 0xFFFFFFF0
"""SLURM numbers the steps that were not started with srun (a job's batch script, its shell) from here on."""


class SlurmStep(SLURMEnvironment):
    """Ranks are the tasks of the step that `srun` has started; requeueing is the launcher's, which knows our checkpoints."""

    def __init__(self) -> None:
        super().__init__(auto_requeue=False)

    @staticmethod
    def _validate_srun_used() -> None:
        """It is."""

    @staticmethod
    def _validate_srun_variables() -> None:
        """Lightning wants --ntasks-per-node; `check` counts the tasks themselves."""

    def world_size(self) -> int:
        return tasks()

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """`check` has said it in one line, before anything was started."""


def tasks() -> int:
    """Tasks of this process's step."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get("SLURM_NTASKS") or 1)


def is_task_of_step() -> bool:
    """Whether `srun` has started this process as a task of a step.

    What a job's batch script or its shell runs has the job's variables, SLURM_NTASKS and SLURM_PROCID too, and is no rank of
    anything: it is one process, however many tasks the job may start.
    """
    step = os.environ.get("SLURM_STEP_ID", "")
    if not step.isdigit() or int(step) >= SPECIAL_STEPS or "SLURM_PROCID" not in os.environ:
        return False
    return os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")  # `srun --pty bash`, as Lightning has it


def environment() -> list[ClusterEnvironment]:
    """What tells the Trainer its ranks; none where Lightning's own choice is right."""
    if TorchElasticEnvironment.detect():
        return []
    if is_task_of_step():
        return [SlurmStep()]
    # Lightning would take the job's variables for those of a rank.
    return [LightningEnvironment()] if "SLURM_JOB_ID" in os.environ or "SLURM_NTASKS" in os.environ else []


def check(trainer: L.Trainer) -> None:
    """Compare how many processes there are with what the recipe says: the batch is so many times as large.

    Raises:
        ConfigError: Another launcher starts the processes, and starts another number of them.
    """
    found = trainer._accelerator_connector.cluster_environment
    if isinstance(found, LightningEnvironment):
        return  # starts what is missing itself
    started, wanted = found.world_size(), trainer.num_devices * trainer.num_nodes
    if started != wanted:
        who = "SLURM" if isinstance(found, SLURMEnvironment) else type(found).__name__.removesuffix("Environment")
        nodes = f" on each of {trainer.num_nodes} nodes" if trainer.num_nodes > 1 else ""
        start = f"with srun --ntasks={wanted}" if isinstance(found, SLURMEnvironment) else f"as {wanted} processes"
        raise ConfigError(
            f"{who} runs {_many(started, 'task')}, the recipe has {_many(trainer.num_devices, 'device')}{nodes}; "
            f"start it {start}, or as one process outside of a step, or set trainer.devices"
        )


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
