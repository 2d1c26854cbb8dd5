"""A real SLURM on this machine alone: a controller and one-core nodes, by `slurm-loopback.sh`.

The script is no part of this repository: $RISLAB_TOOLS, or ../shared/tools beside it, holds it. It wants root and SLURM.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.worlds import TOOLS, wait_until

SCRIPT = TOOLS / "slurm-loopback.sh"

wants_slurm = [
    pytest.mark.skipif(not SCRIPT.exists(), reason=f"no {SCRIPT}: set RISLAB_TOOLS to the folder that has it"),
    pytest.mark.skipif(
        shutil.which("slurmctld") is None or shutil.which("munged") is None, reason="SLURM is not installed"
    ),
    pytest.mark.skipif(os.getuid() != 0, reason="SLURM's daemons want root"),
]


@dataclass(frozen=True)
class Cluster:
    """folder: of its daemons' files. environment: what its commands need."""

    folder: Path
    environment: dict[str, str]

    def script(self, verb: str, *arguments: str) -> None:
        done = _script(verb, str(self.folder), *arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    def command(self, *command: str) -> str:
        """What one of SLURM's own commands prints."""
        given = {**os.environ, **self.environment}
        return subprocess.run(command, env=given, check=True, capture_output=True, text=True).stdout

    def preempt(self, job: str) -> None:
        """Tell a job that its end is near.

        scancel sends the signal again while the job is being requeued, into its next start; so it gets no time for that.
        """
        given = {**os.environ, **self.environment}
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(("scancel", "--signal=USR2", job), env=given, check=False, capture_output=True, timeout=2)

    def hurry(self, job: str) -> None:
        """A requeued job starts now: SLURM holds it back for two minutes.

        A job that runs again by itself needs no help; whether its trial goes on is for the test to see.
        """

        def released() -> bool:
            with suppress(subprocess.CalledProcessError):  # the job is gone, or starts at this moment
                said = self.command("squeue", "--noheader", "--array", f"--jobs={job}", "--format=%T").strip()
                if said == "PENDING":
                    self.command("scontrol", "update", f"JobId={job}", "StartTime=now", "Priority=4294967200")
                    return True
            return False

        with suppress(AssertionError):
            wait_until(released, 60)

    @property
    def controller(self) -> int:
        """Process number of slurmctld."""
        return int((self.folder / "run" / "slurmctld.pid").read_text())


@contextmanager
def loopback(nodes: int = 2) -> Iterator[Cluster]:
    """Its folder has a short name: it holds unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="sl"))
    up = _script("up", str(folder), str(nodes))
    assert up.returncode == 0, up.stdout + up.stderr
    try:
        yield Cluster(folder, {"SLURM_CONF": (folder / "env").read_text().partition("SLURM_CONF=")[2].strip()})
    finally:
        _script("down", str(folder))
        shutil.rmtree(folder, ignore_errors=True)


def _script(*arguments: str) -> "subprocess.CompletedProcess[str]":
    quick = {**os.environ, "SLURM_LOOPBACK_ACCOUNTS": "no"}
    return subprocess.run(["bash", str(SCRIPT), *arguments], env=quick, capture_output=True, text=True, check=False)
