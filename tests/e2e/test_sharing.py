"""Two tables that share a row, run at the same time by two processes: it is trained once, and both report it."""

import json
import subprocess
import sys
from pathlib import Path

from tests.ablation.test_sharing import table_named
from tests.worlds import ROOT, rislab

ROWS = {
    "one": "base: {decoder_layers: 0}\nmine: {decoder_layers: 1}",
    "two": "same: {decoder_layers: 0}\nbase: {text_to_pixel: false, decoder_layers: 0}",
}


def test_two_tables_at_once_train_nothing_twice(tmp_path: Path) -> None:
    runs = str(tmp_path / "runs")
    options = {name: [str(table_named(tmp_path, name, rows)), "--runs", runs] for name, rows in ROWS.items()}
    command = [sys.executable, "-m", "rislab.cli.main", "ablate", "run"]
    at_work = [
        subprocess.Popen(
            [*command, *each, "--jobs", "1", "--threads", "1"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for each in options.values()
    ]
    said = [process.communicate(timeout=280)[0].decode() for process in at_work]
    assert [process.returncode for process in at_work] == [0, 0], "\n".join(said)

    trials = sorted((tmp_path / "runs").glob("[!.]*/*--s0--*"))
    assert len(trials) == 3, "four cells, one of them shared"
    assert {path.name.split("--")[0] for path in trials} in ({"base", "mine"}, {"base", "mine", "same"})
    for path in trials:
        logged = [line.split(",")[::2] for line in (path / "log" / "metrics.csv").read_text().splitlines()[1:]]
        steps = [tuple(each) for each in logged if len(each) > 1]
        assert steps
        assert len(steps) == len(set(steps)), "no step was logged twice"
    directories = {}
    for name, each in options.items():
        shown = json.loads(rislab("ablate", "status", *each, "--json").stdout)
        assert {trial["state"] for trial in shown} == {"done"}
        directories[name] = {trial["row"]: trial["directory"] for trial in shown}
        done = rislab("ablate", "report", *each, "--out", str(tmp_path / "reports"))
        assert done.returncode == 0, done.stderr
        assert "2 of 2 trials done" in (tmp_path / "reports" / name / "report.md").read_text()
    assert directories["one"]["base"] == directories["two"]["same"]
    assert directories["one"]["base"] != directories["two"]["base"]
