"""TCL on a few captioned pictures through the real command line: trained, scored, and what was skipped written down."""

import json
import tarfile
from pathlib import Path

import yaml

from rislab.data.toy.vocabulary import ToyVocabulary, add
from tests.worlds import ROOT, rislab


def test_trained_on_pairs_scored_on_labels(tmp_path: Path) -> None:
    ToyVocabulary(scenes=5, pairs=20, size=64).write(tmp_path / "toy")
    broken = tmp_path / "toy" / "shards" / "toy-train-000001.tar"
    with tarfile.open(broken, "w") as tar:
        add(tar, "a.jpg", b"not a picture")
        add(tar, "a.txt", b"a text")
        add(tar, "b.txt", b"no picture")
    config = yaml.safe_load((ROOT / "experiments" / "tcl" / "toy.yaml").read_text())
    config["trainer"] |= {"max_epochs": 2, "default_root_dir": str(tmp_path / "run"), "enable_progress_bar": False}
    config["model"]["init_args"] |= {
        "clip": {"name": "rislab-tiny-ViT", "pretrained": None},
        "image_size": 48,
        "ust_steps": 2,
    }
    data = config["data"]["init_args"]
    data |= {"shards": [str(tmp_path / "toy/shards/toy-train-{000000..000001}.tar")], "batch_size": 5}
    benchmark = data["benchmark_data"]["init_args"]
    benchmark |= {"root": str(tmp_path / "toy"), "limit_val_images": 1}
    del benchmark["generate"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    done = rislab("fit", "--config", str(tmp_path / "config.yaml"))
    assert done.returncode == 0, done.stderr
    assert "shards hold members that are no pair: {'no picture': 1}" in done.stderr
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert found["pairs"] == 21
    assert found["skipped"]["no picture"] == 1
    assert found["skipped"].get("unreadable picture", 0) >= 1
    assert {split: one["images"] for split, one in found["splits"].items()} == {"test": 3}
    assert len(found["splits"]["test"]["classes"]) == 17
    curves = (tmp_path / "run" / "log" / "metrics.csv").read_text()
    assert "val/miou_class" in curves
