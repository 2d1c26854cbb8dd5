"""CRIS's toy table by the local pool, by a real SLURM and by real wandb agents: one and the same. Long: `make three-ways`."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agents import export, wants_agents, work_through
from tests.cluster import Cluster, loopback, wants_slurm
from tests.worlds import ROOT, results, rislab

TABLE = "cris"
WAYS = ("pool", "slurm", "agents")
LAUNCHER = {"pool": "LAUNCHER=local", "slurm": "LAUNCHER=slurm"}

pytestmark = [
    *wants_slurm,
    wants_agents,
    pytest.mark.slow,
    pytest.mark.timeout(7200),
]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with loopback() as made:
        yield made


def make(*options: str, cluster: Cluster) -> None:
    """`make ablation-cris` as it is typed, in the environment that runs the tests."""
    done = subprocess.run(
        ["make", f"ablation-{TABLE}", f"VENV={sys.prefix}", *options],
        cwd=ROOT,
        env={**os.environ, **cluster.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def report(runs: Path, out: Path) -> dict[str, str]:
    """The forms of a report, without what the trials were made with."""
    done = rislab("ablate", "report", TABLE, "--runs", str(runs), "--out", str(out))
    assert done.returncode == 0, done.stderr
    texts = {path.name: path.read_text() for path in sorted(out.glob("*/report.*"))}
    assert set(texts) == {"report.md", "report.csv", "report.tex", "report.html"}
    texts["report.md"] = re.sub(r"(?ms)^## Provenance$.*?(?=^## |\Z)", "", texts["report.md"])
    texts["report.html"] = re.sub(r"(?s)<h2>Provenance</h2>.*?</body>", "", texts["report.html"])
    return texts


def test_three_ways_give_one_table(tmp_path: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    runs = {way: tmp_path / way / "runs" for way in WAYS}
    seconds = {}
    for way in WAYS:
        (tmp_path / way).mkdir()
        then = time.monotonic()
        if way == "agents":
            sweep = export(Path(TABLE), tmp_path / way, runs=runs[way])
            work_through(sweep, [tmp_path / way / "1", tmp_path / way / "2"], patience=3600)
        else:
            make(f"RUNS={runs[way]}", f"REPORTS={tmp_path / way / 'reports'}", LAUNCHER[way], cluster=cluster)
        seconds[way] = time.monotonic() - then
    found = {way: results(runs[way]) for way in WAYS}
    assert found["pool"]
    reports = {way: report(runs[way], tmp_path / way / "reports") for way in WAYS}
    for way in WAYS[1:]:
        assert sorted(found[way]) == sorted(found["pool"]), "the same hashes"
        assert found[way] == found["pool"]
        for name, text in reports["pool"].items():
            assert reports[way][name] == text, f"{name} of {way} differs"
    trials = len({name.partition("/")[0] for name in found["pool"]})
    with capsys.disabled():
        took = ", ".join(f"{way} {each:.0f} s" for way, each in seconds.items())
        print(f"\n {trials} trials three ways ({took}): equal hashes, results equal to the byte, equal reports")
