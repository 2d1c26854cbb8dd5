"""The mirror: every step once and whole through cuts and restarts, and no fault of wandb's is a trial's."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from rislab.ablation import plan, table
from rislab.files import write_json
from rislab.launch import wandb_mirror
from rislab.launch.wandb_mirror import Curve, Mirror, Mirrors, Record
from tests import wandbfile
from tests.worlds import ROOT, tiny_chain, tiny_table

HEADER = "step,epoch,name,value\r\n"


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """wandb looks at the environment and the folder once in a process, and again after its teardown."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.chdir(tmp_path)
    yield
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


def rows(*steps: int, name: str = "train/a") -> str:
    return "".join(f"{step},{step // 10},{name},{step / 8}\r\n" for step in steps)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def steps(curve: Curve, complete: bool = False) -> list[int]:
    return [step for step, _ in curve.fresh(complete)]


def test_the_newest_step_waits_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    curve = Curve(path)
    assert steps(curve) == []
    write(path, HEADER + rows(0, 9))
    assert steps(curve) == [0]
    write(path, HEADER + rows(0, 9) + "9,0,val/iou,5")  # a line that is still being written
    assert steps(curve) == []
    write(path, HEADER + rows(0, 9) + "9,0,val/iou,50.5\r\n" + rows(19))
    assert curve.fresh(False) == [(9, {"epoch": 0.0, "train/a": 9 / 8, "val/iou": 50.5})]
    assert steps(curve) == []
    assert steps(curve, complete=True) == [19]


def test_a_cut_back_file_is_followed_and_nothing_is_said_twice(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    write(path, HEADER + rows(0, 9, 19, 29))
    curve = Curve(path)
    assert steps(curve) == [0, 9, 19]
    path.unlink()
    write(path, HEADER + rows(0, 9))  # cut to a checkpoint
    assert steps(curve) == []
    write(path, HEADER + rows(0, 9, 19, 29, 39))
    assert steps(curve) == [29]
    assert steps(Curve(path, after=29), complete=True) == [39]


def test_a_line_that_a_kill_cut_short_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "m.csv", HEADER + "0,0,train/a,1.0\r\n9,0,tra0,0,train/a,1.5\r\n" + rows(9, 19))
    assert steps(Curve(tmp_path / "m.csv"), complete=True) == [0, 9, 19]


def cell_of(path: Path, row: str = "base") -> tuple[plan.Planned, table.Table, table.Profile]:
    loaded = table.load(tiny_table(path, f"{row}: {{decoder_layers: 0}}"))
    profile = loaded.profile("toy")
    (cell,) = plan.plan(loaded, profile, [0], path / "runs")
    cell.write()
    return cell, loaded, profile


def result(cell: plan.Planned, step: int, **scores: float) -> None:
    """The files of a finished trial."""
    folder = cell.trial.path / "predictions"
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / "1.jpg")
    square = np.zeros((16, 16), np.uint8, order="F")
    square[2:6, 3:9] = 1
    rle = coco_mask.encode(square)
    masks = {"size": rle["size"], "counts": rle["counts"].decode()}
    entry = {"text": "the circle", "image": "1.jpg", "target": masks, "prediction": masks, "sent_id": 1, "image_id": 1}
    write_json(folder / "predictions.json", [entry])
    write_json(
        cell.trial.provenance_file, {"seconds": {"fit": 7.5}, "code": {"commit": "abc"}, "steps_per_second": 2.0}
    )
    metrics = {"parameters": {"total": 5, "trainable": 3}, "splits": {"val": scores}, "step": step}
    write_json(cell.trial.metrics_file, metrics)


def runs(folder: Path) -> list[wandbfile.Run]:
    return [wandbfile.read(path) for path in sorted((folder / "wandb").glob("offline-run-*"))]


def record(cell: plan.Planned) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cell.trial.mirror_file.read_text())
    return found


def test_a_trial_interrupted_and_finished_is_one_run_in_two_parts(tmp_path: Path) -> None:
    cell, loaded, profile = cell_of(tmp_path)
    with cell.trial.locked():
        cell.trial.update_status(state="running")
        write(cell.trial.curves, HEADER + rows(0, 9, 19))
        first = Mirror([cell], loaded, profile, "offline")
        first.follow()
        write(cell.trial.curves, HEADER + rows(0, 9, 19, 29))
        first.follow()
    cell.trial.update_status(state="interrupted")
    first.close()
    own = record(cell)["id"]
    assert record(cell)["runs"] == {own: {"place": "offline /rislab", "state": "interrupted", "step": 19}}

    Mirror([cell], loaded, profile, "offline").follow()  # nothing has happened since: no run is opened
    assert len(runs(tmp_path)) == 1

    write(cell.trial.curves, HEADER + rows(0, 9, 19, 29, 39))
    result(cell, 40, miou_expr=51.25, oiou=50.0)
    time.sleep(1.1)  # wandb names folders by the second
    Mirror([cell], loaded, profile, "offline").follow()
    one, two = runs(tmp_path)
    assert {one.id, two.id} == {own}
    assert (one.exit_code, two.exit_code) == (1, 0)
    assert [row["_step"] for row in one.history] == [0, 9, 19]
    assert [row["_step"] for row in two.history] == [29, 39, 40]
    assert two.history[0]["train/a"] == 29 / 8
    assert one.summary["state"] == "interrupted"
    assert two.summary["state"] == "done"
    assert two.summary["miou_expr"] == two.summary["test/val/miou_expr"] == 51.25
    assert two.summary["seconds/fit"] == 7.5
    assert two.summary["commit"] == "abc"
    assert two.summary["parameters/total"] == 5
    assert two.summary["step"] == 40
    assert two.summary["predictions.captions"] == ["the circle"]
    assert (two.summary["predictions.width"], two.summary["predictions.height"]) == (16, 16)
    assert (two.name, two.group, two.job_type) == ("base s0", "tiny", "train")
    assert two.tags == ["tiny", "base", "seed 0", "toy"]
    assert two.config["model"] == cell.identity["model"]
    wanted = {"table": "tiny", "profile": "toy", "row": "base", "seed": 0, "hash": cell.hash}
    assert wanted.items() <= two.config.items()

    Mirror([cell], loaded, profile, "offline").follow()
    assert len(runs(tmp_path)) == 2, "all has been said"
    cell.trial.reset()
    assert not cell.trial.mirror_file.exists(), "a trial made anew is a new run"


def test_a_failed_trial_tells_its_error(tmp_path: Path) -> None:
    cell, loaded, profile = cell_of(tmp_path)
    write(cell.trial.curves, HEADER + rows(0, 9))
    cell.trial.update_status(state="diverged", error="loss term mask is not finite")
    mirrors = Mirrors([cell], loaded, profile, "offline")
    mirrors.finish()
    (run,) = runs(tmp_path)
    assert run.summary["state"] == "diverged"
    assert run.summary["error"] == "loss term mask is not finite"
    assert run.exit_code == 1
    assert [row["_step"] for row in run.history] == [0, 9], "nothing more is coming, so the newest step is whole"
    assert mirrors.where == [str(next((tmp_path / "wandb").glob("offline-run-*")))]


def test_a_sweeps_run_holds_the_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = table.load(tiny_chain(tmp_path, "full: {ske_layers: 1}"))
    profile = loaded.profile("toy")
    cells = plan.plan(loaded, profile, [2], tmp_path / "runs")
    for cell, score in zip(cells, (40.0, 60.0), strict=True):
        cell.write()
        write(cell.trial.curves, HEADER + rows(4, 9))
        result(cell, 10, miou_expr=score)
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "agents")
    Mirrors(cells, loaded, profile, "offline").finish()
    (run,) = runs(tmp_path)
    assert (run.id, run.sweep, run.name) == ("agents", "s1", "full s2")
    assert [row["_step"] for row in run.history] == [4, 9, 10, 15, 20, 21]
    assert [row.get("patch/train/a") for row in run.history] == [0.5, 9 / 8, None, None, None, None]
    assert [row.get("train/a") for row in run.history] == [None, None, None, 0.5, 9 / 8, None]
    assert (run.summary["patch/miou_expr"], run.summary["miou_expr"]) == (40.0, 60.0)
    assert run.summary["patch/test/val/miou_expr"] == 40.0
    assert run.config["stages"]["patch"] == cells[0].identity
    assert record(cells[0])["runs"]["agents"]["state"] == "done"
    assert "id" not in record(cells[0]), "a sweep's run is not the trial's own"


def test_a_run_has_one_writer(tmp_path: Path) -> None:
    cell, loaded, profile = cell_of(tmp_path)
    write(cell.trial.curves, HEADER + rows(0, 9))
    with cell.trial.locked():
        cell.trial.update_status(state="running")
        one, other = (Mirror([cell], loaded, profile, "offline") for _ in range(2))
        one.follow()
        other.follow()
        assert one.run is not None
        assert other.run is None
    one.close()
    assert len(runs(tmp_path)) == 1


def test_disabled_does_nothing_at_all(tmp_path: Path) -> None:
    cell, loaded, profile = cell_of(tmp_path)
    before = threading.active_count()
    mirrors = Mirrors([cell], loaded, profile, "disabled")
    mirrors.follow()
    mirrors.finish()
    assert threading.active_count() == before
    assert not cell.trial.mirror_file.exists()
    assert not (tmp_path / "wandb").exists()


class _NoWandb:
    def find_spec(self, name: str, *_: Any) -> None:
        if name == "wandb":
            raise ModuleNotFoundError("No module named 'wandb'")


@pytest.fixture
def no_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "meta_path", [_NoWandb(), *sys.meta_path])


@pytest.mark.usefixtures("no_wandb")
def test_without_wandb_one_warning(tmp_path: Path) -> None:
    cell, loaded, profile = cell_of(tmp_path)
    result(cell, 10, miou_expr=1.0)
    said: list[str] = []
    mirrors = Mirrors([cell], loaded, profile, "online", said.append)
    mirrors.follow()
    mirrors.finish()
    assert said == [
        "wandb: RuntimeError: not installed: pip install 'rislab[wandb]'. The trials go on; the same command logs from their "
        "directories what is missing"
    ]


def test_faults_are_told_once_and_the_other_trials_are_mirrored(tmp_path: Path) -> None:
    loaded = table.load(
        tiny_table(tmp_path, "base: {decoder_layers: 0}\nb: {decoder_layers: 1}\nc: {decoder_layers: 2}")
    )
    profile = loaded.profile("toy")
    cells = plan.plan(loaded, profile, [0], tmp_path / "runs")
    for cell in cells:
        cell.write()
        result(cell, 10, miou_expr=1.0)
    for cell in cells[:2]:
        write_json(cell.trial.metrics_file, {"splits": {}, "what": "is this?"})
    said: list[str] = []
    Mirrors(cells, loaded, profile, "offline", said.append).finish()
    assert len(said) == 1
    assert "KeyError" in said[0]
    assert [run.name for run in runs(tmp_path) if run.summary.get("state") == "done"] == ["c s0"]


def test_online_without_a_key_asks_no_user(tmp_path: Path) -> None:
    """In a process of its own, with no key anywhere: wandb remembers what it found first."""
    cell, _, _ = cell_of(tmp_path)
    result(cell, 10, miou_expr=1.0)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")} | {"HOME": str(tmp_path)}
    began = time.monotonic()
    options = ["--runs", str(tmp_path / "runs"), "--wandb", "online"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "rislab.cli.main",
            "ablate",
            "trial",
            str(tmp_path / "table.yaml"),
            "row=base",
            *options,
        ],
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("wandb") == 3
    assert "no key: `wandb login`, or WANDB_API_KEY; or --wandb offline" in done.stderr
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("given", "variable", "sweep", "mode"),
    [
        ("offline", "online", "", "offline"),
        (None, "dryrun", "", "offline"),
        (None, "disabled", "s", "disabled"),
        (None, "shared", "", "online"),
        (None, None, "s", "online"),
        (None, None, "", "disabled"),
    ],
)
def test_modes(given: str | None, variable: str | None, sweep: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if variable is None:
        monkeypatch.delenv("WANDB_MODE")
    else:
        monkeypatch.setenv("WANDB_MODE", variable)
    monkeypatch.setenv("WANDB_SWEEP_ID", sweep)
    assert wandb_mirror.mode(given) == mode


def test_the_record_outlives_damage(tmp_path: Path) -> None:
    cell, _, _ = cell_of(tmp_path)
    kept = Record(cell.trial)
    own = kept.id()
    kept.mark_sent(own, "online /p", 7, None)
    assert Record(cell.trial).id() == own
    assert kept.sent(own, "online /p")["step"] == 7
    assert kept.sent(own, "online /q") == {}
    cell.trial.mirror_file.write_text('{"id": "x')
    assert kept.sent(own, "online /p") == {}
    assert kept.id() != own
