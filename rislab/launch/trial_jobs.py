"""What a launcher starts for a trial of a table, and what has to be in place first."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from rislab.ablation.attempts import RESUMED
from rislab.ablation.integrity import SUSPECT
from rislab.ablation.plan import Planned
from rislab.ablation.switches import PARTS
from rislab.ablation.trial import TrialBusyError, TrialDir
from rislab.errors import ConfigError, RislabError
from rislab.launch import local_pool
from rislab.launch.local_pool import Job, LocalPool
from rislab.launch.resources import Device, Requirement

TARGET = "rislab.training.trial"
"""Module of the functions that jobs call; launchers do not import it themselves, since it imports torch."""

FREE_BYTES = 512 << 20
"""What a table needs at least on the disk of its trials."""


class Say(Protocol):
    def __call__(self, text: str, style: str = "") -> None:
        """Show a line. style: a colour or an emphasis, as rich names them."""


def of_directory(name: str, trial: TrialDir, need: Requirement | None = None) -> Job:
    """The job that runs a trial directory from whatever state it is in to its result."""
    command = ("fit", "--config", str(trial.config))
    return Job(name, f"{TARGET}:run_trial", str(trial.path), trial, command, need=need or Requirement())


def of_cell(cell: Planned) -> Job:
    """The job of a planned trial: after its parent's, with as many GPUs as its recipe names."""
    devices = cell.config.get("trainer", {}).get("devices", 1)
    number = 0 if on_cpu([cell]) else devices if isinstance(devices, int) and devices > 0 else 1
    return replace(
        of_directory(cell.name, cell.trial, Requirement(number)),
        secondary=f"{TARGET}:run_secondary_rank",
        after=cell.parent.trial if cell.parent is not None else None,
        can_split=cell.can_split,
    )


def on_devices(job: Job, devices: Sequence[Device]) -> Job:
    """The job on a machine with these GPUs: where there is none, it runs on the CPU, whatever its config names."""
    return job if devices else replace(job, need=Requirement())


def on_cpu(cells: Sequence[Planned]) -> bool:
    """Whether all trials run on the CPU. Only those may run side by side by default: on a GPU they would compete for memory."""
    return all(cell.config.get("trainer", {}).get("accelerator") == "cpu" for cell in cells)


def shared_modules(cells: Sequence[Planned]) -> list[str]:
    """Modules that all trials import: the pool imports them once, before it forks."""
    return [TARGET, *sorted({cell.config[part]["class_path"].rpartition(".")[0] for cell in cells for part in PARTS})]


def is_to_run(cell: Planned, stale: bool, retry: bool) -> bool:
    """Whether a launcher starts the trial.

    Args:
        cell: With its state on disk.
        stale: Also what is done, with code that has changed since.
        retry: Also what failed, diverged or was cancelled.
    """
    state = cell.state
    if state in SUSPECT:
        return False  # a person has to look: it may be the evidence of a number somewhere
    if state == "done":
        return stale and bool(cell.stale())
    if state in ("diverged", "cancelled"):
        return retry
    if state == "failed":
        # What the machine did to a trial is no fault of its row: the next run comes after a repair, or with more space.
        return retry or cell.trial.status().get("kind") in (*RESUMED, "oom")
    return True


def missing(cells: Sequence[Planned], stale: bool, retry: bool) -> list[Planned]:
    """The trials that a launcher starts, in the order of `cells`.

    Beside those of `is_to_run` these are finished stages whose files a trial to run would read, and which are not as they were
    made: they are made again.
    """
    chosen = {cell.hash for cell in cells if is_to_run(cell, stale, retry)}
    for cell in cells:
        reads = cell.parent if cell.hash in chosen and cell.takes == "outputs" else None
        if reads is not None and reads.state == "done" and reads.trial.outputs.fault():
            chosen.add(reads.hash)
    return [cell for cell in cells if cell.hash in chosen]


def make_ready(cell: Planned) -> None:
    """Write the directory from which the trial starts or goes on. One that another launcher is running stays as it is.

    Raises:
        RislabError: It cannot be written, or is another trial's.
    """
    try:
        if cell.state == "done":  # made with other code, or its outputs are damaged
            cell.trial.reset()
        elif cell.state in ("failed", "diverged", "cancelled"):
            cell.trial.clear_cancel()
        cell.write()
    except TrialBusyError:
        return
    except OSError as error:
        raise unwritable(error, cell.trial.path) from None


def all_ready(cells: Sequence[Planned], say: Say) -> list[Planned]:
    """The trials that can be run, their directories written; why others cannot is shown.

    Raises:
        RislabError: None can: the fault is not one trial's.
    """
    ready: list[Planned] = []
    first = ""
    for cell in cells:
        try:
            make_ready(cell)
        except RislabError as error:
            first = first or str(error)
            say(f"{cell.name}: left out: {error}", "red")
        else:
            ready.append(cell)
    if not ready:
        raise RislabError(first)
    return ready


def unwritable(error: OSError, path: Path) -> RislabError:
    """The error for something below `path` that cannot be written."""
    return RislabError(f"{error.filename or path}: cannot be written: {error.strerror}")


def require_space(folder: Path) -> None:
    """Raises ConfigError where a disk has too little space for a table."""
    free = local_pool.free_space(folder)
    if free < FREE_BYTES:
        raise ConfigError(f"{folder}: {free >> 20} MiB free, a table needs at least {FREE_BYTES >> 20} MiB")


def prepare_inputs(cells: Sequence[Planned], modules: Sequence[str], follow: Callable[[], None]) -> bool:
    """Make generated data and pretrained trunks once, with all cores, before several trials would wait for them.

    Args:
        cells: Trials, their directories written.
        modules: What `shared_modules` names.
        follow: Called about twice a second.

    Returns:
        Whether the user stopped it.

    Raises:
        RislabError: It failed; the message has been shown.
    """
    inputs = {repr(_inputs(cell.config)): cell for cell in cells}
    pool = LocalPool(1, local_pool.cores(), list(modules))
    jobs = [Job(f"prepare {cell.name}", f"{TARGET}:prepare", str(cell.trial.config)) for cell in inputs.values()]
    ready = pool.run(jobs, follow)
    if not pool.stop_requests and set(ready.states.values()) != {"done"}:
        raise RislabError("preparing failed; see the message above")
    return bool(pool.stop_requests)


def _inputs(config: dict[str, Any]) -> Any:
    """The parts of a config that say what has to be made before its trial starts."""
    data = config["data"]["init_args"]
    data = data.get("benchmark_data", {}).get("init_args", data)
    return data.get("generate"), {key: value for key, value in config["model"]["init_args"].items() if _is_spec(value)}


def _is_spec(value: Any) -> bool:
    """Whether an option's value names pretrained weights."""
    return isinstance(value, dict) and "pretrained" in value
