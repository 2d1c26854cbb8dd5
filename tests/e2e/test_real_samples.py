"""Real photographs, annotations and sentences through the commands that users type: small sets that lie beside the repository.

They are no part of it: `RISLAB_DATA_SAMPLES` names the folder that holds coco-open-mini and coco-refer-mini. What is scored are
networks without training, so what is checked is that files are read as they are and that every way to a number gives the same.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.worlds import ROOT, rislab_here, tiny_config

SAMPLES = Path(os.environ.get("RISLAB_DATA_SAMPLES") or ROOT.parent / "shared" / "data")
OPEN, REFER = SAMPLES / "coco-open-mini", SAMPLES / "coco-refer-mini"
CLIP = {"clip": {"name": "rislab-tiny-ViT"}, "templates": "photo", "image_size": 96}

pytestmark = pytest.mark.skipif(
    not (OPEN.is_dir() and REFER.is_dir()),
    reason=f"no real pictures in {SAMPLES}; RISLAB_DATA_SAMPLES names a folder with coco-open-mini and coco-refer-mini",
)


def said(*arguments: object) -> str:
    done = rislab_here(*map(str, arguments))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def config(folder: Path, method: str, data: dict[str, Any]) -> Path:
    path = folder / f"{method.split('.')[2]}.yaml"
    trainer = {"accelerator": "cpu", "devices": 1, "logger": False, "default_root_dir": str(folder / path.stem)}
    content = {
        "seed_everything": 0, "trainer": trainer, "model": {"class_path": method, "init_args": CLIP}, "data": data,
    }  # fmt: skip
    path.write_text(json.dumps(content))
    return path


def test_label_maps_of_real_photographs(tmp_path: Path) -> None:
    found = " ".join(said("data", "check", OPEN).split())
    assert "27 pictures" in found
    assert "all 27 pictures are there and whole" in found
    options = {"root": str(OPEN), "name": "coco_object", "protocol": "toy", "test_splits": ["val"]}
    data = {"class_path": "rislab.datamodules.semantic.SemanticData", "init_args": options}
    said("test", "--config", config(tmp_path, "rislab.methods.maskclip.task.MaskCLIPTask", data))
    result = json.loads((tmp_path / "maskclip" / "metrics.json").read_text())["splits"]["val"]
    assert result["images"] == 27
    labels = [np.asarray(Image.open(path)) for path in sorted((OPEN / "coco/annotations/val2017").glob("*.png"))]
    occurring = {int(value) for label in labels for value in np.unique(label)} - {255}
    assert len(occurring) == 1 + 45, "background and the classes that the set's own page counts"
    assert 0 <= result["miou_class"] <= result["aacc"] <= 100


def test_sentences_about_real_photographs(tmp_path: Path) -> None:
    found = " ".join(said("data", "check", REFER).split())
    assert "split images references expressions no target" in found
    assert re.search(r"\bval 5\D* 5\D* 5\D* 2\b", found), found
    options = {"root": str(REFER), "dataset": "grefcoco", "split_by": "unc", "protocol": "native", "eval_images": 2}
    data = {"class_path": "rislab.datamodules.referring.ReferringData", "init_args": options}
    file = config(tmp_path, "rislab.methods.clip.task.CLIPTask", data)
    said("test", "--config", file)
    tested = json.loads((tmp_path / "clip" / "metrics.json").read_text())["splits"]["val"]
    masks = tmp_path / "masks.json"
    said("predict", "--config", file, "--export", masks, "--trainer.default_root_dir", tmp_path / "again")
    entries = json.loads(masks.read_text())
    assert len(entries) == 5
    sizes = {Image.open(path).size[::-1] for path in (REFER / "images/val2014").glob("*.jpg")}
    assert {tuple(entry["segmentation"]["size"]) for entry in entries} <= sizes
    which = ("--data", REFER, "--dataset", "grefcoco", "--split", "val", "--protocol", "native", "--json")
    scored = json.loads(said("score", masks, *which))
    flat = json.dumps(scored)
    assert tested["miou_expr"] > 0
    for name in ("miou_expr", "oiou"):
        assert f'"{name}": {tested[name]}' in flat, (name, tested, scored)


def test_a_real_photograph_is_segmented_by_a_trained_checkpoint(tmp_path: Path) -> None:
    recipe = tiny_config()
    recipe["trainer"] |= {"max_epochs": 1, "limit_train_batches": 1, "default_root_dir": str(tmp_path / "fit")}
    recipe["data"]["init_args"]["root"] = str(tmp_path / "world")
    (tmp_path / "fit.yaml").write_text(json.dumps(recipe))
    said("fit", "--config", tmp_path / "fit.yaml")
    photo = min((REFER / "images/val2014").glob("*.jpg"))
    out = tmp_path / "drawn.png"
    best = tmp_path / "fit" / "checkpoints" / "best.ckpt"
    found = json.loads(
        said("segment", photo, "the person on the left", "sky", "--checkpoint", best, "--out", out, "--json", "-")
    )
    width, height = Image.open(photo).size
    assert [one["text"] for one in found] == ["the person on the left", "sky"]
    assert all(one["segmentation"]["size"] == [height, width] for one in found)
    assert Image.open(out).size[0] == width, "drawn over the photograph, with a legend"
