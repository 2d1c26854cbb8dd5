"""Methods by benchmarks, as typed: cells are kept, checked, and not run twice."""

import csv
import json
from pathlib import Path

import pytest
import yaml

from tests.worlds import ROOT, rislab, rislab_here, tiny_config


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with experiments of a tiny world, and a checkpoint of CRIS trained on it."""
    folder = tmp_path_factory.mktemp("matrix")
    config = tiny_config(trainer__max_epochs=1)
    data = config["data"]
    data["init_args"] |= {"test_splits": ["val"], "protocol": "native"}
    toy = yaml.safe_load((ROOT / "experiments" / "benchmarks" / "toy-voc.yaml").read_text())["data"]
    toy["init_args"]["root"] = "tiny-vocabulary-matrix"
    toy["init_args"]["generate"]["init_args"] = {"scenes": 5, "pairs": 3, "size": 64}
    for name, content in (("refs", data), ("voc", toy)):
        path = folder / "experiments" / "benchmarks" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump({"data": content}))
    for method in ("maskclip", "cris"):
        (folder / "experiments" / method).mkdir()
        recipe = yaml.safe_load((ROOT / "experiments" / method / "toy.yaml").read_text())
        recipe["model"]["init_args"]["clip"]["pretrained"] = None
        (folder / "experiments" / method / "toy.yaml").write_text(yaml.safe_dump(recipe))
    config["trainer"]["default_root_dir"] = str(folder / "trained")
    (folder / "cris.yaml").write_text(yaml.safe_dump(config))
    done = rislab("fit", "--config", str(folder / "cris.yaml"), "--trainer.enable_progress_bar=false")
    assert done.returncode == 0, done.stderr
    (folder / "ckpts.yaml").write_text("cris: trained/checkpoints/best.ckpt\n")
    return folder


def test_every_method_on_every_benchmark(place: Path) -> None:
    command = ["matrix", "--methods", "cris", "maskclip", "--benchmarks", "refs", "voc", "--checkpoints", "ckpts.yaml"]
    done = rislab_here(*command, cwd=place)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {(r["method"], r["benchmark"]): r for r in csv.DictReader((place / "reports/matrix/matrix.csv").open())}
    assert {key: (row["metric"], row["protocol"]) for key, row in rows.items()} == {
        ("cris", "refs"): ("miou_expr", "native"),
        ("maskclip", "refs"): ("miou_expr", "native"),
        ("cris", "voc"): ("miou_class", "toy"),
        ("maskclip", "voc"): ("miou_class", "toy"),
    }
    trained = json.loads((place / "trained" / "metrics.json").read_text())
    assert float(rows["cris", "refs"]["value"]) == trained["splits"]["val"]["miou_expr"], (
        "the checkpoint as it was scored"
    )
    stamps = {path: path.stat().st_mtime_ns for path in (place / "runs/matrix").glob("*/metrics.json")}
    assert len(stamps) == 4
    assert rislab_here(*command, cwd=place).returncode == 0
    assert stamps == {path: path.stat().st_mtime_ns for path in (place / "runs/matrix").glob("*/metrics.json")}
    for form in ("md", "tex", "html"):
        text = (place / f"reports/matrix/matrix.{form}").read_text()
        assert f"{float(rows['cris', 'refs']['value']):.2f}" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--methods", "cris", "--benchmarks", "refs"], "cris is trained: give its checkpoint in --checkpoints FILE"),
        (["--methods", "maskclip", "--benchmarks", "vok"], "no benchmark 'vok'; there are "),
        (["--methods", "maskclp", "--benchmarks", "voc"], "no method 'maskclp'; there are cli"),
        (
            ["--methods", "maskclip", "--benchmarks", "voc", "--checkpoints", "ckpts.yaml"],
            "'cris' is none of --methods",
        ),
        (
            ["--methods", "cris", "--benchmarks", "voc", "--checkpoints", "cris.yaml"],
            "expected `method: path` on each line",
        ),
    ],
)
def test_what_is_wrong_is_said(place: Path, arguments: list[str], said: str) -> None:
    done = rislab_here("matrix", *arguments, cwd=place)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
