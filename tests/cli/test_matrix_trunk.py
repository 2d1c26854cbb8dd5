"""A cell of the matrix says what it was scored with, and is none where that would mean nothing."""

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from rislab.ablation.integrity import seal
from rislab.cli.matrix import cell_of, model_of, trunk_of
from rislab.files import read_json, write_json
from rislab.report.matrix import Cell, cell_result
from rislab.training.checkpoints import RECIPE
from tests.worlds import ROOT, rislab_here


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("maskclip/toy.yaml", "maskclip/refcocog.yaml", "benchmarks/voc21.yaml", "benchmarks/toy-voc.yaml"):
        (tmp_path / "experiments" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / "experiments" / name, tmp_path / "experiments" / name)
    return tmp_path


def test_the_toy_clip_is_not_scored_on_real_pictures(place: Path) -> None:
    done = rislab_here("matrix", "--methods", "maskclip", "--benchmarks", "toy-voc", "voc21", cwd=place)
    assert done.returncode == 2
    assert "maskclip on voc21: experiments/maskclip/toy.yaml has the trunk rislab-tiny-ViT toy" in done.stderr
    assert "Give a recipe with a real trunk in --checkpoints FILE as `maskclip: RECIPE.yaml`" in done.stderr
    assert not (place / "runs").exists()
    random = yaml.safe_load((place / "experiments/maskclip/toy.yaml").read_text())
    random["model"]["init_args"]["clip"] = {"name": "ViT-B-16", "pretrained": None}
    (place / "random.yaml").write_text(yaml.safe_dump(random))
    (place / "ckpts.yaml").write_text("maskclip: random.yaml\n")
    options = ["--methods", "maskclip", "--benchmarks", "voc21", "--checkpoints", "ckpts.yaml"]
    done = rislab_here("matrix", *options, cwd=place)
    assert "random.yaml has the trunk ViT-B-16 without pretrained weights" in done.stderr


def cell(place: Path, monkeypatch: pytest.MonkeyPatch) -> Cell:
    """MaskCLIP by a recipe with a real trunk, as it stands in a matrix."""
    monkeypatch.chdir(place)
    recipe = Path("experiments/maskclip/refcocog.yaml")
    data = yaml.safe_load(Path("experiments/benchmarks/voc21.yaml").read_text())["data"]
    model = model_of("maskclip", recipe)
    return cell_of(place / "runs", "maskclip", model, "voc21", data, recipe, trunk_of(model))


def test_the_trunk_stands_in_the_cell_and_the_cell_is_bound_to_its_hash(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = cell(place, monkeypatch)
    assert one.trunk == "ViT-B-16 openai"
    one.write()
    scores = {"miou_class": 25.0, "images": 4}
    result = {"benchmark": "PASCAL VOC (21)", "protocol": "tcl", "splits": {"val": scores}, "step": 0}
    seal(one.trial.path, result)
    found = cell_result(one)
    assert (found.value, found.state) == (25.0, "done")
    assert "4 pictures, trunk ViT-B-16 openai, no training" in found.detail
    write_json(one.trial.metrics_file, result | {"step": 1})
    assert cell_result(one).value is None
    assert cell_result(one).state == "damaged: metrics.json is not what the trial wrote"
    seal(one.trial.path, result)
    recorded = read_json(one.trial.identity)
    write_json(one.trial.identity, recorded | {"hash": "0" * 64})
    assert cell_result(one).state.startswith("foreign: belongs to a trial with hash 0000")


def test_weights_from_a_file_are_named_by_their_sha256(place: Path) -> None:
    weights = place / "vit.pt"
    weights.write_bytes(b"weights")
    model = yaml.safe_load((place / "experiments/maskclip/refcocog.yaml").read_text())["model"]
    model["init_args"]["clip"] = {"name": "ViT-B-16", "pretrained": str(weights)}
    assert trunk_of(model) == f"ViT-B-16 vit.pt {hashlib.sha256(b'weights').hexdigest()[:8]}"


def test_a_checkpoint_of_a_stranger_names_no_file(place: Path, tmp_path: Path) -> None:
    """What it says of its method is checked as `segment` does, before anything is opened or built."""
    recipe = {"class_path": "rislab.methods.cris.task.CRISTask", "init_args": {"clip": str(tmp_path / "any.yaml")}}
    torch.save({"state_dict": {}, RECIPE: recipe}, place / "text.ckpt")
    spec = {"name": "rislab-tiny-RN", "pretrained": str(tmp_path / "any.pt")}
    torch.save({"state_dict": {}, RECIPE: recipe | {"init_args": {"clip": spec}}}, place / "file.ckpt")
    (place / "ckpts.yaml").write_text("cris: text.ckpt\n")
    options = ["--methods", "cris", "--benchmarks", "toy-voc", "--checkpoints", "ckpts.yaml"]
    done = rislab_here("matrix", *options, cwd=place)
    assert done.returncode == 2
    assert "text.ckpt: option 'clip' of its recipe is a str, expected a mapping of name and pretrained" in done.stderr
    # The checkpoint holds all weights, so that the file it names is of no use.
    assert model_of("cris", place / "file.ckpt")["init_args"]["clip"]["pretrained"] is None
