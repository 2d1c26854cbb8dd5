"""Trials as jobs of a SLURM cluster: what to ask for, how they are submitted, and what is known of them afterwards.

submitit writes the batch script and hands it in. Everything else rests on the trial directories: a job carries their paths and no
state, so it can be requeued, killed or submitted again at any moment, and the process that started it may end.
"""

import getpass
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rislab.ablation.trial import TrialBusyError, TrialDir
from rislab.errors import ConfigError, RislabError
from rislab.launch.environment import outside_of_job
from rislab.launch.local_pool import Job
from rislab.launch.slurm_job import Work

if TYPE_CHECKING:
    from submitit import SlurmExecutor

LARGEST_ARRAY = 900
"""Elements of one array: clusters allow 1001 by default, some 999."""

ASK_SECONDS = 60


@dataclass(frozen=True)
class Cluster:
    """What is requested of the cluster; the `cluster:` block of a profile, and options of the command line.

    trial that needs longer goes on in the same job, requeued.

    Attributes:
        partition, account, qos, constraint, mem: as sbatch takes them.
        time: limit of a job, as D-HH:MM:SS, HH:MM:SS or minutes; a
        gpus_per_trial: of each node; by default as many as the config's trainer.devices.
        cpus_per_trial: on each node.
        array_parallelism: jobs at once.
        trials_per_job: short trials packed into one job, at_once of them side by side.
        signal_seconds: how long before the limit, and before preemption where the cluster allows it, trials write a checkpoint.
        setup: shell lines before the start (`module load cuda`).
        sbatch: further options by name.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time: str = "24:00:00"
    mem: str | None = None
    gpus_per_trial: int | None = None
    cpus_per_trial: int = 1
    array_parallelism: int = 16
    trials_per_job: int = 1
    at_once: int = 1
    signal_seconds: int = 120
    setup: tuple[str, ...] = ()
    sbatch: Mapping[str, Any] | None = None

    @property
    def minutes(self) -> int:
        return minutes(self.time)


def cluster(block: Mapping[str, Any], given: Mapping[str, Any]) -> Cluster:
    """A profile's block with what the command line says over it. Raises ConfigError for values that cannot be."""
    merged = {**block, **{name: value for name, value in given.items() if value is not None}}
    if "setup" in merged:
        merged["setup"] = tuple(merged["setup"])
    made = Cluster(**merged)
    made.minutes  # noqa: B018  # raises
    for name, least, most in COUNTS:
        value = getattr(made, name)
        if value is not None and not least <= value <= most:
            raise ConfigError(f"cluster.{name} is {value}, expected {least} to {most}")
    for name in ("partition", "account", "qos", "constraint", "mem", "sbatch"):
        _refuse_control(f"cluster.{name}", getattr(made, name))
    for line in made.setup:
        _refuse_control("cluster.setup", line.translate(LINES))
    return made


COUNTS = (
    ("cpus_per_trial", 1, 1_000_000),
    ("array_parallelism", 1, 1_000_000),
    ("trials_per_job", 1, 1_000_000),
    ("at_once", 1, 1_000_000),
    ("gpus_per_trial", 0, 1_000_000),
    ("signal_seconds", 0, 65535),
)
"""Options that count, with the least and the most that makes sense; sbatch takes at most 65535 seconds of warning."""

LINES = {ord("\n"): " ", ord("\t"): " "}
"""What `setup` alone may hold of control characters: it is a piece of the script."""


def _refuse_control(name: str, value: Any) -> None:
    """Raises ConfigError for a value with a line break or another control character.

    Every value becomes a line of the batch script; a line break in it would begin a line of its own, which the shell runs.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not (isinstance(key, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", key)):
                raise ConfigError(f"{name} has the key {key!r}, expected the name of an sbatch option")
            if isinstance(item, (Mapping, list, tuple)):
                raise ConfigError(f"{name}.{key} is {item!r}, expected one value")
            _refuse_control(f"{name}.{key}", item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _refuse_control(name, item)
    elif not str(value).isprintable():
        raise ConfigError(
            f"{name} is {str(value)!r}: control characters and line breaks cannot stand in a batch script"
        )


def minutes(text: str) -> int:
    """`90`, `12:00:00`, `1-06:00:00` -> minutes, rounded up. Raises ConfigError."""
    found = re.fullmatch(r"(?:([0-9]{1,9})-)?([0-9]{1,9})(?::([0-9]{1,9}))?(?::([0-9]{1,9}))?", text.strip(" "))
    if not found:
        raise ConfigError(f"cluster.time {text!r}: expected minutes, HH:MM:SS or D-HH:MM:SS")
    days, first, second, third = (int(part) if part else 0 for part in found.groups())
    colons = text.count(":")
    # MM and MM:SS, as sbatch reads them; with days or two colons the first number is hours.
    in_hours = found.group(1) is not None or colons == 2
    seconds = ((days * 24 + first) * 60 + second) * 60 + third if in_hours else first * 60 + second
    if not seconds:
        raise ConfigError(f"cluster.time {text!r}: no time at all")
    return -(-seconds // 60)


@dataclass(frozen=True)
class Shape:
    """Of the jobs that one kind of trial gets."""

    nodes: int
    gpus: int


def shape(trainer: Mapping[str, Any], request: Cluster) -> Shape:
    """From a trial's `trainer:` block. Raises ConfigError where block and cluster contradict each other."""
    nodes, devices = int(trainer.get("num_nodes", 1)), trainer.get("devices", 1)
    on_gpu = trainer.get("accelerator") in ("gpu", "cuda")
    gpus = request.gpus_per_trial if request.gpus_per_trial is not None else int(devices) if on_gpu else 0
    if on_gpu and isinstance(devices, int) and devices > 0 and gpus != devices:
        raise ConfigError(
            f"--gpus-per-trial {gpus}, but trainer.devices is {devices}: the number of devices multiplies the batch, so it is a "
            "part of the recipe; change it in the profile's config"
        )
    if nodes > 1 and (request.trials_per_job > 1 or request.at_once > 1):
        raise ConfigError(f"trials on {nodes} nodes cannot be packed: trials_per_job and at_once must be 1")
    return Shape(nodes, gpus)


def executor(folder: Path, name: str, request: Cluster, of: Shape, after: Sequence[str] = ()) -> "SlurmExecutor":
    """submitit's executor for these jobs. after: ids of jobs that must have ended, well or not. Raises ConfigError."""
    try:
        from submitit import SlurmExecutor
    except ImportError:
        raise ConfigError("--launcher slurm needs submitit: pip install 'rislab[slurm]'") from None

    class Anywhere(SlurmExecutor):
        """Batch scripts can be looked at where there is no SLURM, too."""

        @classmethod
        def affinity(cls) -> int:
            return 2

    made = Anywhere(folder=folder, max_num_timeout=0)
    ranks = max(1, of.gpus) if of.nodes > 1 else 1
    side_by_side = min(request.at_once, request.trials_per_job)
    parameters: dict[str, Any] = {
        "job_name": f"rislab-{name}",
        "time": request.minutes,
        "nodes": of.nodes,
        "ntasks_per_node": ranks,
        "cpus_per_task": max(1, request.cpus_per_trial // ranks)
        if of.nodes > 1
        else request.cpus_per_trial * side_by_side,
        "gpus_per_node": of.gpus * side_by_side or None,
        "array_parallelism": request.array_parallelism,
        "signal_delay_s": request.signal_seconds,
        "setup": list(request.setup) or None,
        "stderr_to_stdout": True,
        "additional_parameters": {"requeue": True, **(request.sbatch or {})},
        "dependency": f"afterany:{':'.join(after)}" if after else None,
    }
    for option in ("partition", "account", "qos", "constraint", "mem"):
        parameters[option] = getattr(request, option)
    given = {key: value for key, value in parameters.items() if value is not None}
    for key, value in (("the folder of trials", str(folder)), *given.items()):
        if key != "setup":  # the one place that grants a shell
            _refuse_control(key, value)
    made.update_parameters(**given)
    return made


def script(folder: Path, name: str, request: Cluster, of: Shape, jobs: int) -> str:
    """The batch script of an array of so many jobs."""
    made = executor(folder, name, request, of)
    if jobs > 1:
        made.parameters["map_count"] = min(jobs, LARGEST_ARRAY)
    return made._make_submission_file_text(made._submitit_command_str, "")


def packed(jobs: Sequence[Job], request: Cluster) -> list[list[Job]]:
    """Trials dealt out to jobs, at most `trials_per_job` each: the first, which are the longest, to different ones."""
    count = -(-len(jobs) // request.trials_per_job)
    return [list(jobs[number::count]) for number in range(count)]


class Queue:
    """The cluster's queue, as seen from here."""

    def __init__(self) -> None:
        if shutil.which("sbatch") is None:
            raise ConfigError("--launcher slurm: no sbatch on this machine; run it on a login node of the cluster")

    def alive(self) -> set[str] | None:
        """Ids of the user's jobs that wait, run or end; elements of arrays as `12_3`. None when SLURM does not answer."""
        command = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=ASK_SECONDS)
        except (OSError, subprocess.SubprocessError):
            return None
        return set(done.stdout.split())

    def cancel(self, ids: Sequence[str]) -> None:
        """End jobs. Raises RislabError when SLURM refuses."""
        done = subprocess.run(["scancel", *ids], capture_output=True, text=True, check=False, timeout=ASK_SECONDS)
        if done.returncode:
            raise RislabError(f"scancel {' '.join(ids)}: {done.stderr.strip()}")


@contextmanager
def alone(folder: Path, seconds: float = 120.0) -> Iterator[None]:
    """One launcher submits at a time, whichever node it is on. Raises RislabError after so many seconds in vain."""
    end = time.monotonic() + seconds
    while True:
        try:
            with TrialDir(folder).locked():
                yield
                return
        except TrialBusyError as error:
            if time.monotonic() > end:
                raise RislabError(f"another launcher is handing in jobs: {error}") from None
            time.sleep(0.5)


def submit(
    folder: Path,
    name: str,
    request: Cluster,
    of: Shape,
    jobs: Sequence[Job],
    threads: int,
    preload: Sequence[str],
    after: Sequence[str] = (),
) -> dict[str, str]:
    """Hand in the jobs of one shape as arrays, note each in its trials' directories, and return their ids by trial.

    Raises:
        RislabError: With SLURM's own words when it refuses.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    groups = packed(jobs, request)
    ids: dict[str, str] = {}
    for first in range(0, len(groups), LARGEST_ARRAY):
        part = groups[first : first + LARGEST_ARRAY]
        made = executor(folder, name, request, of, after)
        try:
            with outside_of_job(), made.batch():
                handed_in = [
                    made.submit(
                        Work(
                            tuple(group),
                            slots=min(request.at_once, len(group)),
                            threads=threads,
                            preload=tuple(preload),
                            nodes=of.nodes,
                        )
                    )
                    for group in part
                ]
        except (FailedJobError, FailedSubmissionError) as error:
            raise RislabError(f"sbatch refused: {' '.join(str(error).split())}") from None
        for group, job in zip(part, handed_in, strict=True):
            for each in group:
                assert each.trial is not None
                ids[each.name] = str(job.job_id)
                with suppress(OSError):  # a full disk: who handed it in remembers it
                    each.trial.set_job("slurm", str(job.job_id))
    return ids


OPTIONS = tuple(each.name for each in fields(Cluster))
