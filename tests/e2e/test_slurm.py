"""A table on a real SLURM, started on this machine alone (`slurm-loopback.sh`), equal to the local pool's to the byte.

The script is no part of this repository: $RISLAB_TOOLS, or ../shared/tools beside it, holds it. It wants root and SLURM.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rislab.ablation.trial import TrialDir
from tests.worlds import ROOT, rislab, tiny_table

SCRIPT = Path(os.environ.get("RISLAB_TOOLS") or ROOT.parent / "shared" / "tools") / "slurm-loopback.sh"
ROWS = "base: {text_to_pixel: false, decoder_layers: 0}\nfull: {text_to_pixel: true, decoder_layers: 1, dropout: 0.1}"
RESULTS = ("metrics.json", "scores.parquet", "log/metrics.csv", "predictions/predictions.json")

pytestmark = [
    pytest.mark.skipif(not SCRIPT.exists(), reason=f"no {SCRIPT}: set RISLAB_TOOLS to the folder that has it"),
    pytest.mark.skipif(
        shutil.which("slurmctld") is None or shutil.which("munged") is None, reason="SLURM is not installed"
    ),
    pytest.mark.skipif(os.getuid() != 0, reason="SLURM's daemons want root"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """The environment of a cluster of two one-core nodes. Its folder has a short name: it holds unix sockets."""
    folder = tempfile.mkdtemp(prefix="sl")
    quick = {**os.environ, "SLURM_LOOPBACK_ACCOUNTS": "no"}
    up = subprocess.run(
        ["bash", str(SCRIPT), "up", folder, "2"], env=quick, capture_output=True, text=True, check=False
    )
    assert up.returncode == 0, up.stdout + up.stderr
    try:
        yield {"SLURM_CONF": (Path(folder) / "env").read_text().partition("SLURM_CONF=")[2].strip()}
    finally:
        subprocess.run(["bash", str(SCRIPT), "down", folder], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def results(runs: Path) -> dict[str, bytes]:
    trials = sorted(path for path in runs.glob("tiny/*--s*") if path.is_dir())
    return {f"{trial.name}/{name}": (trial / name).read_bytes() for trial in trials for name in RESULTS}


def test_slurm_gives_what_the_pool_gives_also_when_preempted(tmp_path: Path, cluster: dict[str, str]) -> None:
    table = tiny_table(tmp_path, ROWS, trainer__max_epochs=6)
    assert rislab("ablate", "run", str(table), "--runs", str(tmp_path / "local"), "--threads", "1").returncode == 0
    runs = tmp_path / "runs"
    options = [str(table), "--runs", str(runs), "--launcher", "slurm", "--threads", "1"]
    left = rislab("ablate", "run", *options, "--detach", **cluster)
    assert left.returncode == 0, left.stderr
    assert "2 jobs handed in" in left.stdout
    again = rislab("ablate", "run", *options, "--detach", **cluster)  # they have jobs, or run, already
    assert "0 jobs handed in" in again.stdout or "2 done" in again.stdout, again.stdout
    (full,) = runs.glob("tiny/full--*")
    trial = TrialDir(full)
    end = time.monotonic() + 120
    while not trial.status().get("step"):
        assert time.monotonic() < end, trial.status()
        time.sleep(0.05)
    job = trial.job()
    assert job is not None
    subprocess.run(["scancel", "--signal=USR2", job["id"]], env={**os.environ, **cluster}, check=True)  # a preemption
    done = rislab("ablate", "run", *options, **cluster)
    assert done.returncode == 0, done.stdout + done.stderr
    starts = trial.attempts.all()
    assert [start.kind for start in starts] == ["preempted", ""], starts
    assert starts[1].before > 0
    assert results(runs) == results(tmp_path / "local")
