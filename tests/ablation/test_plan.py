"""Plans: cells, directories, what is missing, what it will cost; and the commands that need no trial to be run."""

import json
import shutil
import time
from pathlib import Path

import pytest
import yaml

from rislab.ablation import plan, table
from rislab.ablation.plan import Planned
from rislab.cli.main import main
from rislab.errors import ConfigError
from rislab.files import read_json, write_json
from tests.worlds import ROOT, tiny_table

ROWS = "base: {decoder_layers: 0}\nsame: {decoder_layers: 0}\nfull: {decoder_layers: 1}"


def planned(folder: Path, seeds: tuple[int, ...] = (0, 1), data: str | None = None) -> list[Planned]:
    loaded = table.load(tiny_table(folder, ROWS))
    return plan.plan(loaded, loaded.profile("toy"), seeds, folder / "runs", data=data)


def finish(cell: Planned, seconds: float = 60.0) -> None:
    cell.write()
    write_json(cell.trial.metrics_file, {"splits": {}})
    write_json(cell.trial.provenance_file, {"seconds": {"fit": seconds}})


def test_rows_that_are_one_config_are_one_trial(tmp_path: Path) -> None:
    cells = planned(tmp_path)
    assert [cell.name for cell in plan.distinct(cells)] == ["base s0", "base s1", "full s0", "full s1"]
    assert plan.answered_by(cells)["same s1"].name == "base s1"


def test_the_seed_reaches_everything_that_draws(tmp_path: Path) -> None:
    cell = planned(tmp_path)[1]
    assert (cell.config["seed_everything"], cell.config["data"]["init_args"]["seed"]) == (1, 1)
    cell.write()
    written = yaml.safe_load(cell.trial.config.read_text())
    assert written == cell.config
    assert written["trainer"]["default_root_dir"] == str(cell.trial.path)


def test_data_may_move_and_the_trial_stays_the_same(tmp_path: Path) -> None:
    before, after = planned(tmp_path)[0], planned(tmp_path, data=str(tmp_path / "disk"))[0]
    assert before.hash == after.hash
    before.write()
    identity = before.trial.identity.read_bytes()
    after.write()
    assert str(tmp_path / "disk") in after.trial.config.read_text()
    assert after.trial.identity.read_bytes() == identity


def test_a_directory_of_another_trial_is_not_touched(tmp_path: Path) -> None:
    cell = planned(tmp_path)[0]
    write_json(cell.trial.identity, {"hash": cell.hash[:8] + "0" * 56})
    with pytest.raises(ConfigError, match="belongs to a trial with hash"):
        cell.write()
    assert not cell.trial.config.exists()


def test_cost_is_known_once_a_seed_has_been_run(tmp_path: Path) -> None:
    cells = planned(tmp_path)
    finish(cells[0], 30.0)
    expected = plan.expected_seconds(cells)
    assert (expected["base s1"], expected["same s0"], expected["full s0"]) == (30.0, 30.0, None)


def test_other_code_makes_a_result_stale(tmp_path: Path) -> None:
    cell = planned(tmp_path)[0]
    finish(cell)
    assert cell.stale() == []
    recorded = read_json(cell.trial.identity)
    recorded["sources"]["rislab/methods/cris/model.py"] = "of yesterday"
    write_json(cell.trial.identity, recorded)
    assert cell.stale() == ["rislab/methods/cris/model.py"]


def test_rows_that_are_gone_are_shown_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish(planned(tmp_path)[0])
    path = tiny_table(tmp_path, "full: {decoder_layers: 1}")
    path.write_text(path.read_text().replace("baseline: base", "baseline: full"))
    assert main(["ablate", "plan", str(path), "--runs", str(tmp_path / "runs")]) == 0
    assert "no longer in the table (kept): " in capsys.readouterr().out.replace("\n", "")
    assert len(list((tmp_path / "runs" / "tiny").iterdir())) == 1


@pytest.mark.parametrize("profile", ["refcoco", "refcoco+", "gref"])
def test_real_data_that_is_missing_is_listed_by_path(
    profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    arguments = ["cris", "--profile", profile, "--runs", str(tmp_path / "runs"), "--data", str(tmp_path / "data")]
    assert main(["ablate", "run", *arguments]) == 2
    said = capsys.readouterr().err
    folder = {"refcoco": "refcoco", "refcoco+": "refcoco+", "gref": "refcocog"}[profile]
    refs = "refs(umd).p" if profile == "gref" else "refs(unc).p"
    assert f"{tmp_path}/data/{folder}/{refs}" in said
    assert "train2014/COCO_train2014_*.jpg" in said
    assert "DATA=DIR" in said
    assert not (tmp_path / "runs").exists()
    for name in (f"{folder}/instances.json", f"{folder}/{refs}", "train2014/COCO_train2014_000000000009.jpg"):
        file = tmp_path / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert main(["ablate", "plan", *arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["missing_data"] == []


def test_a_finished_table_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = planned(tmp_path, (0,))
    for cell in plan.distinct(cells):
        finish(cell)
    began = time.monotonic()
    path = str(tmp_path / "table.yaml")
    assert main(["ablate", "run", path, "--runs", str(tmp_path / "runs")]) == 0
    assert time.monotonic() - began < 2
    assert "2 done" in capsys.readouterr().out


def test_what_failed_waits_for_a_retry_unless_it_was_the_machine(tmp_path: Path) -> None:
    from rislab.launch.trial_jobs import is_to_run, make_ready

    cell = planned(tmp_path)[0]
    cell.write()
    for state, kind, again in [("failed", "bug", False), ("diverged", "nan", False), ("failed", "lost", True)]:
        cell.trial.update_status(state=state, kind=kind, error="x")
        assert is_to_run(cell, stale=False, retry=False) is again
        assert is_to_run(cell, stale=False, retry=True)
    cell.trial.checkpoints.mkdir()
    (cell.trial.checkpoints / "last.ckpt").touch()
    make_ready(cell)
    assert cell.state == "pending"
    assert (cell.trial.checkpoints / "last.ckpt").exists()  # it goes on from there


def test_a_running_trial_is_not_touched(tmp_path: Path) -> None:
    from rislab.launch.trial_jobs import make_ready

    cell = planned(tmp_path)[0]
    cell.write()
    with cell.trial.locked():
        cell.trial.update_status(state="running", step=7)
        before = cell.trial.status_file.read_bytes()
        make_ready(cell)
        assert cell.trial.status_file.read_bytes() == before


def test_a_runs_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_table(tmp_path, ROWS)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "tiny").write_text("a file where a folder is wanted")
    assert main(["ablate", "run", str(tmp_path / "table.yaml"), "--runs", str(tmp_path / "runs")]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seeds", "x"], "--seeds 'x': expected how many"),
        (["--seeds", "0"], "at least one seed"),
        (["--seeds", "1,1"], "none twice"),
        (["--rows", "bse"], "did you mean 'base'"),
        (["--profile", "toi"], "did you mean 'toy'"),
    ],
    ids=str,
)
def test_usage_is_explained(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_table(tmp_path, ROWS)
    assert main(["ablate", "plan", str(tmp_path / "table.yaml"), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_thousand_rows_are_planned_at_once(tmp_path: Path) -> None:
    rows = "\n".join(f"r{n}: {{dropout: {n / 2000}}}" for n in range(1000))
    path = tiny_table(tmp_path, rows.replace("r0:", "base:"))
    loaded = table.load(path)
    began = time.monotonic()
    cells = plan.plan(loaded, loaded.profile("toy"), [0], tmp_path / "runs")
    assert len({cell.hash for cell in cells}) == 1000
    assert time.monotonic() - began < 5  # about half a second on an idle core
    shutil.rmtree(tmp_path)
