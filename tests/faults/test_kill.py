"""Kill -9 a whole table at random moments: the same command completes it, equal to the undisturbed one to the last bit."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.worlds import ROOT, rislab, tiny_chain, tiny_table

ROWS = "base: {text_to_pixel: false, decoder_layers: 0}\nfull: {text_to_pixel: true, decoder_layers: 1, dropout: 0.1}"
RESULTS = ("metrics.json", "scores.parquet", "log/metrics.csv", "predictions/predictions.json")


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


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], float]:
    folder = tmp_path_factory.mktemp("undisturbed")
    table = tiny_table(folder, ROWS, trainer__max_epochs=3)
    rislab("ablate", "run", str(table), "--runs", str(folder / "warm"), "--rows", "base")  # world and imports
    began = time.monotonic()
    done = rislab(*command(table, folder / "runs"))
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stdout + done.stderr
    return table, fingerprint(folder / "runs"), seconds


def disturb(table: Path, runs: Path, moments: list[float]) -> list[str]:
    tally = []
    for moment in moments:
        process = subprocess.Popen(
            [sys.executable, "-m", "rislab.cli.main", *command(table, runs)],
            cwd=ROOT,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(moment)
        kill_session(process)
        states = [(p.parent.name, p.read_text().count('"done"')) for p in runs.glob("*/*/status.json")]
        tally.append(f"killed after {moment:.1f} s: {len(states)} trials begun")
    done = rislab(*command(table, runs))
    assert done.returncode == 0, done.stdout + done.stderr
    return tally


def test_killed_twice_equals_undisturbed(undisturbed: tuple[Path, dict[str, str], float], tmp_path: Path) -> None:
    table, expected, seconds = undisturbed
    disturb(table, tmp_path / "runs", [seconds * 0.6, seconds * 0.45])
    assert fingerprint(tmp_path / "runs") == expected


def test_killed_between_stages_equals_undisturbed(tmp_path: Path) -> None:
    table = tiny_chain(tmp_path, "full: {ske_layers: 1}\nlevels: {ske_layers: 1, decoder_levels: [2, 3, 4]}")
    assert rislab(*command(table, tmp_path / "undisturbed")).returncode == 0
    runs = tmp_path / "runs"
    process = subprocess.Popen(
        [sys.executable, "-m", "rislab.cli.main", *command(table, runs)],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 120
    while not list(runs.glob("*/*--patch--*/metrics.json")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.01)
    kill_session(process)
    assert not list(runs.glob("*/*--pixel--*/metrics.json")), "the second stage is not done"
    first = {path: path.stat().st_mtime_ns for path in runs.glob("*/*--patch--*/checkpoints/best.ckpt")}
    assert rislab(*command(table, runs)).returncode == 0
    assert fingerprint(runs) == fingerprint(tmp_path / "undisturbed")
    assert all(path.stat().st_mtime_ns == then for path, then in first.items()), "the first stage is not trained again"


@pytest.mark.slow
def test_killed_five_times_equals_undisturbed(
    undisturbed: tuple[Path, dict[str, str], float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, expected, seconds = undisturbed
    moments = [random.Random(time.time_ns()).uniform(0.1, 1.0) * seconds for _ in range(5)]
    tally = disturb(table, tmp_path / "runs", moments)
    with capsys.disabled():
        print("", *tally, f"undisturbed {seconds:.1f} s", sep="\n  ")
    assert fingerprint(tmp_path / "runs") == expected
