"""CRIS's table by the local pool, by a real SLURM and by real wandb agents: one and the same. `make three-ways`.

The table is the shipped one, cut to its first rows and the claims about them; its toy profile is replaced by the world of a few
scenes that other tests use. What is compared depends neither on how long a trial trains nor on how many there are: the hashes,
every result to the byte, the reports.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.agents import export, wants_agents, work_through
from tests.cluster import Cluster, loopback, wants_slurm
from tests.worlds import ROOT, results, rislab, tiny_config

TABLE = "cris"
WAYS = ("pool", "slurm", "agents")
LAUNCHER = {"pool": "LAUNCHER=local", "slurm": "LAUNCHER=slurm"}
ROWS = 4

pytestmark = [
    *wants_slurm,
    wants_agents,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with loopback() as made:
        yield made


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder in which the commands of README work: ablations/cris.yaml with a small toy profile, and an environment."""
    folder = tmp_path / "checkout"
    (folder / "ablations").mkdir(parents=True)
    (folder / "experiments").mkdir()
    (folder / "experiments" / "small.yaml").write_text(yaml.safe_dump(tiny_config()))
    table = yaml.safe_load((ROOT / "ablations" / f"{TABLE}.yaml").read_text())
    names = [row["name"] for row in table["rows"]]
    assert len(names) > ROWS
    dropped = [f"[{name}]" for name in names[ROWS:]]
    table["rows"] = table["rows"][:ROWS]
    table["claims"] = [claim for claim in table["claims"] if not any(name in claim["holds"] for name in dropped)]
    assert table["claims"]
    toy = table["profiles"]["toy"] | {"config": ["experiments/small.yaml"], "split": "val"}
    table["profiles"] = {"toy": toy}
    # Two packed trials a job, as one does with short ones, so that packing is among what is compared.
    toy["cluster"] = {"trials_per_job": 2}
    table["rows"] = [
        row | {"paper": {k: v for k, v in row.get("paper", {}).items() if k == toy["column"]}} for row in table["rows"]
    ]
    (folder / "ablations" / f"{TABLE}.yaml").write_text(yaml.safe_dump(table, sort_keys=False))
    (folder / "venv").mkdir()
    (folder / "venv" / "bin").symlink_to(Path(sys.prefix) / "bin")
    (folder / "pyproject.toml").touch()
    (folder / "venv" / ".ready").touch()
    return folder


def environment(cluster: Cluster) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, **cluster.environment, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def make(checkout: Path, *options: str, cluster: Cluster) -> None:
    """`make ablation-cris` as it is typed."""
    done = subprocess.run(
        ["make", "-f", str(ROOT / "Makefile"), f"ablation-{TABLE}", "VENV=venv", *options],
        cwd=checkout,
        env=environment(cluster),
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def report(checkout: Path, runs: Path, out: Path) -> dict[str, str]:
    """The forms of a report, without what the trials were made with."""
    done = rislab("ablate", "report", TABLE, "--runs", str(runs), "--out", str(out), cwd=checkout)
    assert done.returncode == 0, done.stderr
    texts = {path.name: path.read_text() for path in sorted(out.glob("*/report.*"))}
    assert set(texts) == {"report.md", "report.csv", "report.tex", "report.html"}
    texts["report.md"] = re.sub(r"(?ms)^## Provenance$.*?(?=^## |\Z)", "", texts["report.md"])
    texts["report.html"] = re.sub(r"(?s)<h2>Provenance</h2>.*?</body>", "", texts["report.html"])
    return texts


def test_three_ways_give_one_table(
    tmp_path: Path, checkout: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = {way: tmp_path / way / "runs" for way in WAYS}
    seconds = {}
    for way in WAYS:
        (tmp_path / way).mkdir()
        then = time.monotonic()
        if way == "agents":
            sweep = export(Path(TABLE), tmp_path / way, runs=runs[way], cwd=checkout)
            work_through(sweep, [tmp_path / way / "1", tmp_path / way / "2"], patience=1200, cwd=checkout)
        else:
            make(checkout, f"RUNS={runs[way]}", f"REPORTS={tmp_path / way / 'reports'}", LAUNCHER[way], cluster=cluster)
        seconds[way] = time.monotonic() - then
        with capsys.disabled():
            print(f"\n {way}: {seconds[way]:.0f} s", flush=True)
    found = {way: results(runs[way]) for way in WAYS}
    assert len({name.partition("/")[0] for name in found["pool"]}) == ROWS
    reports = {way: report(checkout, runs[way], tmp_path / way / "reports") for way in WAYS}
    for way in WAYS[1:]:
        assert sorted(found[way]) == sorted(found["pool"]), "the same hashes"
        assert found[way] == found["pool"]
        for name, text in reports["pool"].items():
            assert reports[way][name] == text, f"{name} of {way} differs"
    with capsys.disabled():
        took = ", ".join(f"{way} {each:.0f} s" for way, each in seconds.items())
        print(f"\n {ROWS} trials three ways ({took}): equal hashes, results equal to the byte, equal reports")
