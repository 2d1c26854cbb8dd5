"""Which environment variables a trial gets from its launcher.

A launcher may itself run inside a SLURM job, an MPI program or `torchrun`. Their variables tell a process which rank it is.
A trial that inherits them believes to be a rank of the launcher's job: it trains with the job's world size instead of its
recipe's, or waits for ranks that do not exist.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

RANK_PREFIXES = (
    *("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_"),
    *("PMI_", "PMIX_", "PMI2_", "HYDI_", "I_MPI_", "MPI_LOCAL", "MPIEXEC_", "OMPI_", "PRTE_", "MV2_"),
    *("TORCHELASTIC_", "PET_"),
    *("LSB_", "JSM_", "ALPS_", "PALS_", "FLUX_"),
)
"""Variables of SLURM, of MPI, of torchrun and of other schedulers that start ranks."""

RANK_NAMES = frozenset(
    {
        *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"),
        *("GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_NAME", "ROLE_RANK", "ROLE_WORLD_SIZE", "STANDALONE_PORT"),
    }
)
KEPT = frozenset(
    {
        *("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT"),  # in a trial's history
        "SLURM_JOB_END_TIME",  # tells a stop at the time limit from a preemption
    }
)
"""What a trial reads of its job. None of it says how many ranks there are."""

OF_SLURM_ITSELF = frozenset({"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT"})
"""Where the cluster is; not about the job in which a command is typed."""


def is_handed_on(name: str) -> bool:
    """Whether a trial may inherit the variable. Everything may, except what names the rank or the peers of a process.

    A list of what is allowed would lose what a user's shell needs (proxies, library paths, caches); so this is a list of what
    is withheld. `KEPT` is the exception to it.
    """
    return name in KEPT or not (name in RANK_NAMES or name.startswith(RANK_PREFIXES))


def of_trial(environment: Mapping[str, str], threads: int, devices: Sequence[str]) -> dict[str, str]:
    """The environment of a trial's process.

    Args:
        environment: The launcher's.
        threads: Of OpenMP.
        devices: The trial's GPUs, by names that CUDA_VISIBLE_DEVICES takes; empty: what the launcher may use.

    Returns:
        `environment` without what `is_handed_on` withholds, with threads and devices set. Numbers of GPUs are those of
        nvidia-smi, which counts by bus; CUDA does so only when CUDA_DEVICE_ORDER says so.
    """
    made = {name: value for name, value in environment.items() if is_handed_on(name)}
    made["OMP_NUM_THREADS"] = str(threads)
    if devices:
        made["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
        if any(name.isdecimal() for name in devices):
            made.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    return made


def become(made: Mapping[str, str]) -> None:
    """Give this process the environment of a trial. What imports have set here stays, as far as a trial may have it."""
    for name in [name for name in os.environ if name not in made and not is_handed_on(name)]:
        del os.environ[name]
    os.environ.update(made)


@contextmanager
def outside_of_job() -> Iterator[None]:
    """Without the variables of the job that this process runs in.

    sbatch hands its caller's environment on: SLURM_MEM_PER_CPU of the job in which a table is launched would contradict
    what the new job asks for. SBATCH_ variables are the user's own wishes and stay.
    """
    names = [name for name in os.environ if name in KEPT or not is_handed_on(name)]
    taken = {name: os.environ.pop(name) for name in names if name not in OF_SLURM_ITSELF}
    try:
        yield
    finally:
        os.environ.update(taken)
