"""A method of an installed package behaves like one of ours: three files, no edit here."""

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import yaml

from tests.plugin.installed import PACKAGE, Installed
from tests.worlds import ROOT, tiny_config


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("plugin"))


def test_it_is_listed_and_a_broken_entry_breaks_nothing(installed: Installed) -> None:
    shown, errors = installed.rislab("methods", "--json")
    methods = {entry["name"]: entry for entry in json.loads(shown)}
    assert methods["probe"]["class_path"] == "rislab_probe.ProbeTask"
    assert methods["probe"]["about"].startswith("A linear probe on pooled colours")
    assert methods["cris"]["class_path"] == "rislab.methods.cris.task.CRISTask", "a name of ours wins"
    assert "gone" not in methods
    assert "rislab.methods gone of rislab-probe==1.2.3 is not used: there is no module rislab_probe.nowhere" in errors
    details, _ = installed.rislab("methods", "probe", "--json")
    assert [option["name"] for option in json.loads(details)["options"]] == ["image_size", "buckets", "base_lr", "bias"]


def test_its_table_is_planned_run_reported_and_an_edit_shows(installed: Installed) -> None:
    plan, _ = installed.rislab("ablate", "plan", "probe")
    assert "2 trials, 2 to run" in plan
    installed.rislab("ablate", "run", "probe", "--jobs", "1")
    report, _ = installed.rislab("ablate", "report", "probe")
    assert "report.html" in report
    trials = installed.trials()
    identity = json.loads((trials["plain"] / "identity.json").read_text())
    assert "rislab_probe/__init__.py" in identity["sources"]
    assert identity["config"]["model"] == {
        "class_path": "rislab_probe.ProbeTask",
        "init_args": {"image_size": 64, "buckets": 64, "base_lr": 0.05, "bias": False},
    }
    provenance = json.loads((trials["plain"] / "provenance.json").read_text())
    assert provenance["packages"]["rislab-probe"] == "1.2.3"
    source = installed.site / "rislab_probe" / "__init__.py"
    source.write_text(source.read_text() + "\n# edited\n")
    installed.rislab("ablate", "report", "probe")
    assert (installed.work / "reports" / "probe" / "report.md").read_text().count("done (code changed since)") == 2


def test_its_checkpoint_answers_segment_and_matrix(installed: Installed) -> None:
    if not (installed.work / "runs").exists():
        installed.rislab("ablate", "run", "probe", "--jobs", "1")
    checkpoint = installed.trials()["shifted"] / "checkpoints" / "best.ckpt"
    picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    assert cv2.imwrite(str(installed.work / "photo.png"), picture)
    shown, _ = installed.rislab("segment", "photo.png", "red circle", "--checkpoint", str(checkpoint), "--json", "-")
    assert json.loads(shown)[0]["segmentation"]["size"] == [40, 60]
    benchmarks = installed.work / "experiments" / "benchmarks"
    benchmarks.mkdir(parents=True)
    (benchmarks / "small.yaml").write_text(yaml.safe_dump({"data": tiny_config()["data"]}))
    (installed.work / "checkpoints.yaml").write_text(f"probe: {checkpoint}\n")
    scored = ["--methods", "probe", "--benchmarks", "small", "--checkpoints", "checkpoints.yaml", "--jobs", "1"]
    installed.rislab("matrix", *scored, "--runs", "matrix", "--out", "reports/matrix")
    assert "probe" in next((installed.work / "reports").rglob("matrix*.md")).read_text()


def test_mistakes_get_the_hint_that_ours_get(installed: Installed) -> None:
    table = yaml.safe_load((PACKAGE / "rislab_probe" / "probe.yaml").read_text())
    table["rows"][0]["switches"] = {"model.biass": False}
    table["profiles"]["toy"]["config"] = [str(installed.site / "rislab_probe" / "probe-config.yaml")]
    (installed.work / "wrong.yaml").write_text(yaml.safe_dump(table, sort_keys=False))
    _, errors = installed.rislab("ablate", "plan", "wrong.yaml", code=2)
    assert "model.biass is no option of ProbeTask (did you mean 'bias'?)" in errors
    _, errors = installed.rislab("ablate", "plan", "prob", code=2)
    assert "did you mean 'probe'?" in errors


def test_the_contract_suite_is_three_lines(installed: Installed) -> None:
    code = (
        "from rislab.testing import check_method\n"
        "from rislab_probe import ProbeTask\n"
        "check_method(lambda: ProbeTask(image_size=48))"
    )
    path = os.pathsep.join([str(installed.site), str(ROOT)])
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, check=True)
