"""wandb's real agents, driven by a stand-in for the sweep server (no network, no account).

The stand-in is no part of this repository: $RISLAB_TOOLS, or ../shared/tools beside it, holds wandb_stub.py.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.worlds import ROOT, TOOLS, rislab

STUB = TOOLS / "wandb_stub.py"

wants_agents = pytest.mark.skipif(not STUB.exists(), reason=f"no {STUB}: set RISLAB_TOOLS to the folder that has it")


def environment(**more: str) -> dict[str, str]:
    """Of an agent: `python` is the one that runs the tests, and nothing of wandb's comes from outside."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    bin_folder = str(Path(sys.executable).parent)
    return kept | {"PATH": f"{bin_folder}{os.pathsep}{kept['PATH']}", "PYTHONPATH": str(ROOT)} | more


@contextmanager
def server(sweep: Path) -> Iterator[dict[str, str]]:
    """The stand-in with a sweep; yields the environment of its agents."""
    stub = subprocess.Popen([sys.executable, str(STUB), str(sweep)], stdout=subprocess.PIPE, text=True)
    assert stub.stdout is not None
    try:
        yield environment(**dict(pair.split("=", 1) for pair in stub.stdout.readline().split()))
    finally:
        stub.terminate()
        stub.wait()


def agent(folder: Path, given: dict[str, str], cwd: Path = ROOT) -> "subprocess.Popen[bytes]":
    """One `wandb agent` in the checkout, as tables are called by name there; what wandb writes is in a folder of its own.

    cwd: another folder with tables in it.
    """
    folder.mkdir()
    sweep = f"{given['WANDB_ENTITY']}/{given['WANDB_PROJECT']}/{given['SWEEP']}"
    command = [sys.executable, "-m", "wandb", "agent", sweep]
    with (folder / "agent.log").open("wb") as log:
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=given | {"WANDB_MODE": "offline", "WANDB_DIR": str(folder), "WANDB_AGENT_DISABLE_FLAPPING": "true"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def export(table: Path, folder: Path, *options: str, runs: Path | None = None, cwd: Path = ROOT) -> Path:
    """The sweep of a table, as the command prints it; its trials lie in `runs`, or in the folder."""
    where = str(runs or folder / "runs")
    done = rislab("ablate", "export-sweep", str(table), "--runs", where, "--threads", "1", *options, cwd=cwd)
    assert done.returncode == 0, done.stderr
    sweep = folder / "sweep.yaml"
    sweep.write_text(done.stdout)
    return sweep


def work_through(sweep: Path, folders: list[Path], patience: float = 240, cwd: Path = ROOT, **more: str) -> None:
    """One agent in each folder, all at once, until the sweep is done."""
    with server(sweep) as given:
        agents = [agent(folder, given | more, cwd) for folder in folders]
        for process, folder in zip(agents, folders, strict=True):
            assert process.wait(patience) == 0, (folder / "agent.log").read_text()
