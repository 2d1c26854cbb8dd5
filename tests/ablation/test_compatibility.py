"""Data that give other batches than a method trains on are refused before anything is built."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from rislab.ablation.compatibility import check_batches
from rislab.cli.main import main
from rislab.errors import ConfigError
from tests.worlds import ROOT, tiny_config


def config(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "experiments" / name).read_text())
    return loaded


def test_recipes_of_ours_fit() -> None:
    """Every whole recipe; a file that is laid over another one names no class of model or data."""
    checked = 0
    for path in sorted((ROOT / "experiments").glob("*/*.yaml")):
        loaded = yaml.safe_load(path.read_text())
        if all("class_path" in (loaded.get(part) or {}) for part in ("model", "data")) and loaded.get("trainer"):
            check_batches(loaded)
            checked += 1
    assert checked > 30


def test_a_mismatch_names_both_and_what_would_fit() -> None:
    crossed = config("cris/toy.yaml") | {"data": config("tcl/toy.yaml")["data"]}
    with pytest.raises(ConfigError) as caught:
        check_batches(crossed)
    said, _, others = str(caught.value).partition("; methods that train on Captions: ")
    assert said == "CRISTask trains on MaskQueries, PairsData gives Captions; data that give MaskQueries: ReferringData"
    assert "tcl" in others.split(", ")
    scored = config("cris/toy.yaml") | {"data": config("tcl/toy.yaml")["data"]["init_args"]["benchmark_data"]}
    with pytest.raises(
        ConfigError, match=r"SemanticData gives no training batches; data that give MaskQueries: ReferringData$"
    ):
        check_batches(scored)


def test_what_trains_nothing_takes_any_data() -> None:
    scored = config("tcl/toy.yaml")
    scored["data"] = scored["data"]["init_args"]["benchmark_data"]
    scored["model"]["init_args"]["trained"] = False
    check_batches(scored)


def test_fit_and_plan_say_so_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    crossed = copy.deepcopy(tiny_config()) | {"data": config("tcl/toy.yaml")["data"]}
    file = tmp_path / "crossed.yaml"
    file.write_text(yaml.safe_dump(crossed))
    assert main(["fit", "--config", str(file), f"--trainer.default_root_dir={tmp_path / 'run'}"]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("rislab: CRISTask trains on MaskQueries, PairsData gives Captions")
    assert "\n" not in said
    assert not (tmp_path / "run").exists()
    table = yaml.safe_load((ROOT / "ablations" / "cris.yaml").read_text())
    for profile in table["profiles"].values():
        profile["config"] = [str(ROOT / path) for path in profile["config"]]
    table["profiles"]["toy"]["config"] = [str(file)]
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(table))
    assert main(["ablate", "plan", str(tmp_path / "t.yaml"), "--profile", "toy", "--runs", str(tmp_path / "runs")]) == 2
    assert "CRISTask trains on MaskQueries, PairsData gives Captions" in capsys.readouterr().err
