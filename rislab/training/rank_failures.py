"""How the ranks of one run hear of each other's failures, and end together.

A collective hangs when one rank fails: the others wait for it, with NCCL for ten minutes, and what they say then is not
the cause. So a rank that fails says so in a file of the run's directory, which all of them share, before its connections close.
"""

import os
import re
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch.distributed as dist

from rislab.ablation.attempts import Kind
from rislab.ablation.trial import State
from rislab.errors import RislabError
from rislab.files import read_json, write_json

FOLDER = ".ranks"
VARIABLE = "RISLAB_RANKS"
"""Set for the ranks that Lightning starts: the pid of rank 0 and the folder of this start, as `pid:folder`."""

PEER_WAIT_SECONDS = 3.0
"""For so long a rank whose collective has failed looks for the word of the rank that made it fail."""


@dataclass(frozen=True)
class Failure:
    """What ended a rank.

    Attributes:
        rank: whose it is.
        state, kind, error, traceback: as in `status.json`.
        code: exit code.
        at: unix seconds.
    """

    rank: int
    state: State
    kind: Kind
    error: str
    traceback: str | None
    code: int
    at: float


class PeerFailedError(RislabError):
    """Another rank of this run has failed; its failure is the run's."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"rank {failure.rank}: {failure.error}")
        self.failure = failure
        self.exit_code = failure.code


class LostRankError(RislabError):
    """Another rank of this run is gone without a word: killed, or its machine is."""

    exit_code = 1


class Peers:
    """The failures of one start of a run.

    Args:
        folder: Where they are written; its name is that of this start, so that those of earlier starts are not heard.
        rank: Of this process.
        parent: Process id of rank 0 where it has started this process, else None.
    """

    def __init__(self, folder: Path, rank: int, parent: int | None = None) -> None:
        self.folder, self.rank, self.parent = folder, rank, parent

    @property
    def is_orphan(self) -> bool:
        """Whether rank 0, which has started this process, is gone."""
        return self.parent is not None and os.getppid() != self.parent

    def report(self, failure: Failure) -> bool:
        """Write this rank's failure down; False where that is not possible."""
        try:
            write_json(self.folder / f"{self.rank}.json", asdict(failure))
        except OSError:
            return False
        return True

    def failure_of_others(self) -> Failure | None:
        """The first failure that another rank has told."""
        with suppress(OSError):
            found = [read_json(path) for path in self.folder.glob("*.json") if path.stem != str(self.rank)]
            told = [Failure(**content) for content in found if isinstance(content, dict)]
            return min(told, key=lambda failure: (failure.at, failure.rank), default=None)
        return None

    def wait_for_others(self, seconds: float) -> Failure | None:
        """The same, waiting for it."""
        end = time.monotonic() + seconds
        while (found := self.failure_of_others()) is None and time.monotonic() < end:
            time.sleep(0.1)
        return found


def inherited() -> Peers | None:
    """Those of a rank that Lightning has started, before it knows anything else."""
    parent, _, folder = os.environ.get(VARIABLE, "").partition(":")
    if not folder or not parent.isdigit() or int(parent) != os.getppid():
        return None
    return Peers(Path(folder), int(os.environ.get("LOCAL_RANK", "1")), int(parent))


def joined(root: Path, rank: int) -> Peers | None:
    """Those of a rank that has its Trainer; None where ranks share no name for their start.

    Args:
        root: Directory of the run, which all ranks see.
        rank: Of this process among all.
    """
    given = inherited()
    if given is not None:
        return Peers(given.folder, rank, given.parent)
    folder = (root / FOLDER).absolute()
    name = _external_start()
    if name is not None:
        return Peers(folder / name, rank)
    if "LOCAL_RANK" in os.environ:
        return None  # started one by one, by hand
    own = folder / f"{os.getpid()}-{time.time_ns()}"
    os.environ[VARIABLE] = f"{os.getpid()}:{own}"
    return Peers(own, rank)


def left() -> None:
    """Undo what `joined` has done here, once the ranks that this process has started are gone."""
    pid, _, folder = os.environ.get(VARIABLE, "").partition(":")
    if pid == str(os.getpid()):
        del os.environ[VARIABLE]
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            Path(folder).parent.rmdir()


def _external_start() -> str | None:
    """A name of a start by srun or torchrun that is the same for all ranks and for no other start."""
    given = os.environ
    if "SLURM_STEP_ID" in given and "SLURM_JOB_ID" in given:
        return "slurm-" + "-".join(given.get(f"SLURM_{name}", "0") for name in ("JOB_ID", "STEP_ID", "RESTART_COUNT"))
    if "TORCHELASTIC_RUN_ID" in given:
        run, count = given["TORCHELASTIC_RUN_ID"], given.get("TORCHELASTIC_RESTART_COUNT", "0")
        return "elastic-" + re.sub(r"[^A-Za-z0-9.]", "_", f"{run}-{os.getppid()}-{count}")
    return None


def is_fallout(error: BaseException) -> bool:
    """Whether a collective has failed, which is what the other ranks see of a rank that has ended."""
    if isinstance(error, dist.DistError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("gloo/" in text or "NCCL" in text or "ProcessGroup" in text)


def descendants(pid: int) -> list[int]:
    """Processes that a process has started, and theirs; none where the system does not say."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in children.read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def kill_descendants() -> None:
    """End what this process has started: further ranks, loader processes."""
    for pid in descendants(os.getpid()):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
