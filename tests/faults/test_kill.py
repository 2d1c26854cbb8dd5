"""Kill -9 a whole table in the middle: the same command completes it, equal to the undisturbed one to the last bit."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.worlds import RESULTS, ROOT, ROWS, rislab_here, tiny_chain, tiny_table, wait_until


def command(table: Path, runs: Path) -> list[str]:
    return ["ablate", "run", str(table), "--runs", str(runs), "--jobs", "2", "--threads", "1"]


def fingerprint(runs: Path) -> dict[str, str]:
    """A digest of every result file and every weight, by trial."""
    found = {}
    for trial in sorted(path for path in runs.glob("*/*--s*") if path.is_dir()):
        for name in RESULTS:
            found[f"{trial.name}/{name}"] = hashlib.sha256((trial / name).read_bytes()).hexdigest()
        state = torch.load(trial / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
        weights = b"".join(value.contiguous().numpy().tobytes() for value in state.values())
        found[f"{trial.name}/weights"] = hashlib.sha256(weights).hexdigest()
    return found


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kill -9 everything that the command started, at once."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def started(table: Path, runs: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "rislab.cli.main", *command(table, runs)],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def cris(folder: Path) -> Path:
    return tiny_table(folder, ROWS, trainer__max_epochs=3)


def risclip(folder: Path) -> Path:
    """Its schedule needs the number of steps when the optimiser is configured."""
    return tiny_chain(folder, "all: {stage: patch}\nplain: {stage: patch, ske: false}", trainer__max_epochs=3)


@pytest.mark.parametrize("table_of", [cris, risclip])
def test_killed_twice_equals_undisturbed(table_of: Callable[[Path], Path], tmp_path: Path) -> None:
    """At the first checkpoint of all, which is within an epoch, and once one trial is done."""
    table = table_of(tmp_path)
    assert rislab_here(*command(table, tmp_path / "undisturbed")).returncode == 0
    runs = tmp_path / "runs"
    for moment in ("checkpoints/last.ckpt", "metrics.json"):
        process = started(table, runs)
        wait_until(lambda moment=moment: bool(list(runs.glob(f"*/*--s*/{moment}"))))
        assert process.poll() is None, "it ended before it could be killed"
        kill_session(process)
    done = rislab_here(*command(table, runs))
    assert done.returncode == 0, done.stdout + done.stderr
    assert fingerprint(runs) == fingerprint(tmp_path / "undisturbed")


def test_killed_between_stages_equals_undisturbed(tmp_path: Path) -> None:
    table = tiny_chain(tmp_path, "full: {ske_layers: 1}\nlevels: {ske_layers: 1, decoder_levels: [2, 3, 4]}")
    assert rislab_here(*command(table, tmp_path / "undisturbed")).returncode == 0
    runs = tmp_path / "runs"
    process = started(table, runs)
    wait_until(lambda: bool(list(runs.glob("*/*--patch--*/metrics.json"))))
    kill_session(process)
    assert not list(runs.glob("*/*--pixel--*/metrics.json")), "the second stage is not done"
    first = {path: path.stat().st_mtime_ns for path in runs.glob("*/*--patch--*/checkpoints/best.ckpt")}
    assert rislab_here(*command(table, runs)).returncode == 0
    assert fingerprint(runs) == fingerprint(tmp_path / "undisturbed")
    assert all(path.stat().st_mtime_ns == then for path, then in first.items()), "the first stage is not trained again"
