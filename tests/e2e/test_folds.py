"""LSeg on a toy fold through the real command line: trained on episodes, scored by name, and the scores again from their rows."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from rislab.data import masks
from rislab.evaluation.arithmetic import arithmetic_of
from rislab.evaluation.kept_answers import read as read_answers
from rislab.report.results import mean_ratio
from tests.worlds import ROOT, rislab


def test_trained_on_episodes_scored_on_a_fold(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "experiments" / "lseg" / "toy_fold.yaml").read_text())
    config["trainer"] |= {
        "max_epochs": 1,
        "limit_train_batches": 2,
        "default_root_dir": str(tmp_path / "run"),
        "enable_progress_bar": False,
    }
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    model |= {"clip": {"name": "rislab-tiny-ViT", "pretrained": None}, "image_size": 64, "features": 8}
    data |= {"root": str(tmp_path / "world"), "name": "coco20i", "fold": 2, "episodes": 20, "size": 48, "batch_size": 4}
    data |= {"limit_val_episodes": 4}
    data["generate"]["init_args"] |= {"scenes": 90, "size": 48}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    done = rislab("fit", "--config", str(tmp_path / "config.yaml"))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert found["benchmark"] == "toy world, COCO-20i, fold 2"
    assert found["episode_classes"] == [2, 6, 10, 14]
    (split,) = found["splits"]
    scores = found["splits"][split]
    assert scores["episodes"] == 20
    arithmetic = arithmetic_of(found)
    assert arithmetic is not None
    read = pq.read_table(tmp_path / "run" / "scores.parquet")
    table = {name: read.column(name).to_numpy() for name in arithmetic.columns}
    assert set(table["class"].tolist()) <= {2, 6, 10, 14}
    assert np.array_equal(table["episode"], np.arange(20))
    for name in ("miou_fold", "fb_iou", "miou_episode"):
        top, bottom = (part.sum(0) for part in arithmetic.parts(table, name))
        assert mean_ratio(top, bottom) == pytest.approx(scores[name])
    answers = read_answers(tmp_path / "run" / "answers.parquet")
    assert (answers.form, answers.left_out, list(answers.splits)) == ("run lengths", {}, [split])
    areas = {
        number: masks.area({"size": [48, 48], "counts": each.data}) for number, each in answers.splits[split].items()
    }
    assert list(areas) == list(range(20))
    assert all(area >= counted for area, counted in zip(areas.values(), table["prediction"].tolist(), strict=True))
    kept = json.loads((tmp_path / "run" / "predictions" / "predictions.json").read_text())
    assert len(kept) == 8
    assert all((tmp_path / "run" / "predictions" / one["image"]).is_file() for one in kept)
    assert all(one["target"]["size"] == [48, 48] for one in kept)
