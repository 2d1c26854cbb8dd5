"""`rislab compare --run` from nothing: trained by the table, scored as a matrix, measured, reported; then only what is new."""

import csv
from pathlib import Path

import pytest
import torch
import yaml

from rislab.methods.cris.official import to_official
from tests.worlds import ROOT, rislab, tiny_config, tiny_table

PROTOCOLS = {"cris": {"title": "CRIS's", "text": "own size", "ours": "cris"}}
CRIS = {
    "method": "cris",
    "title": "CRIS",
    "paper": "Wang et al.",
    "full": {"table": "tiny", "row": "full", "profile": "toy", "measured": {}},
    "results": [],
}
MASKCLIP = {"method": "maskclip", "title": "MaskCLIP", "paper": "Zhou et al.", "results": []}


def world(folder: Path) -> None:
    """A table of one small row, two small benchmarks, and a method without training."""
    for name in ("ablations/papers", "experiments/benchmarks", "experiments/maskclip"):
        (folder / name).mkdir(parents=True)
    tiny_table(folder, "full: {decoder_layers: 1}", trainer__max_epochs=1, trainer__limit_train_batches=2).rename(
        folder / "ablations" / "tiny.yaml"
    )
    table = yaml.safe_load((folder / "ablations" / "tiny.yaml").read_text())
    (folder / "ablations" / "tiny.yaml").write_text(yaml.safe_dump(table | {"baseline": "full"}, sort_keys=False))
    for content, name in ((PROTOCOLS, "protocols"), (CRIS, "cris"), (MASKCLIP, "maskclip")):
        (folder / "ablations" / "papers" / f"{name}.yaml").write_text(yaml.safe_dump(content))
    data = tiny_config()["data"]
    data["init_args"] |= {"test_splits": ["val"], "protocol": "native"}
    voc = yaml.safe_load((ROOT / "experiments" / "benchmarks" / "toy-voc.yaml").read_text())["data"]
    voc["init_args"]["root"] = "tiny-vocabulary-compare"
    voc["init_args"]["generate"]["init_args"] = {"scenes": 5, "pairs": 3, "size": 64}
    for name, content in (("refs", data), ("voc", voc)):
        (folder / "experiments" / "benchmarks" / f"{name}.yaml").write_text(yaml.safe_dump({"data": content}))
    recipe = yaml.safe_load((ROOT / "experiments" / "maskclip" / "toy.yaml").read_text())
    recipe["model"]["init_args"]["clip"]["pretrained"] = None
    (folder / "experiments" / "maskclip" / "toy.yaml").write_text(yaml.safe_dump(recipe))


def lines(folder: Path, table: str) -> dict[tuple[str, str], str]:
    """Text or reason of each cell of a table of the report, by row and column."""
    found = csv.DictReader((folder / "reports" / "compare" / "compare.csv").open())
    return {(line["row"], line["column"]): line["text"] or line["reason"] for line in found if line["table"] == table}


@pytest.mark.timeout(1500)
def test_compare_from_nothing_and_again_with_official_weights(tmp_path: Path) -> None:
    world(tmp_path)
    done = rislab("compare", "--run", cwd=tmp_path, patience=600)
    assert done.returncode == 0, done.stdout + done.stderr
    first = lines(tmp_path, "generated")
    ours = "CRIS / ours: full (tiny, toy)"
    assert {(row, column.split(" / ")[0]) for row, column in first} == {
        (row, benchmark)
        for row in (ours, "MaskCLIP / ours: no training, rislab-tiny-ViT without pretrained weights")
        for benchmark in ("refs", "voc")
    }
    assert all(float(text) >= 0 for text in first.values()), first
    cost = lines(tmp_path, "cost")
    assert float(cost["CRIS / toy / 96 x 96, full of tiny, toy", "parameters / M"]) > 1
    assert float(cost["CRIS / toy / 96 x 96, full of tiny, toy", "work / GFLOP a picture"]) > 0

    (best,) = (tmp_path / "runs" / "tiny").glob("*/checkpoints/best.ckpt")
    held = torch.load(best, weights_only=True)
    torch.save({"state_dict": to_official(held["state_dict"])}, tmp_path / "cris_best.pth")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"model": held["rislab_model"]}))
    (tmp_path / "further.yaml").write_text("cris: {official: cris_best.pth, config: recipe.yaml}\n")
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/*/metrics.json")}
    assert len(stamps) == 5
    costs = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "costs").iterdir()}
    done = rislab("compare", "--run", "--checkpoints", "further.yaml", cwd=tmp_path, patience=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    assert costs == {path: path.stat().st_mtime_ns for path in costs}
    second = lines(tmp_path, "generated")
    official = "CRIS / official weights, our evaluation: cris_best"
    for (row, column), text in first.items():
        assert second[row, column] == text
        if row == ours:
            assert second[official, column] == text, "the same weights, by way of the authors' names"
