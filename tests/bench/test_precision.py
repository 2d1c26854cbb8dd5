"""`rislab bench precision`, and `precision` of an evaluation: what autocast is told, and that reports say it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rislab.ablation import records
from rislab.bench import page_text, precision, training_step
from rislab.data.batch import LabelledPictures
from rislab.datamodules.semantic import SemanticData, SemanticProtocol
from rislab.evaluation.arithmetic import protocol_of
from rislab.files import read_json, write_json
from rislab.methods.clip.task import CLIPTask
from tests.worlds import rislab_here


@pytest.mark.parametrize(("chosen", "expected"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_network_is_scored_in_the_precision_of_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: Any, expected: torch.dtype
) -> None:
    data = SemanticData(str(tmp_path), "toy_voc", SemanticProtocol.toy, precision=chosen)
    seen: list[torch.dtype] = []

    class Method(torch.nn.Linear):
        validation_step = CLIPTask.validation_step
        device = torch.device("cpu")
        evaluation = data.evaluation

        def label(self, batch: LabelledPictures) -> list[Tensor]:
            seen.append(self(torch.ones(2, 3)).dtype)
            return []

    with torch.autocast("cpu", torch.bfloat16):  # of training; an evaluation does not depend on it
        Method(3, 4).validation_step(LabelledPictures([], [], (), False, SemanticProtocol.toy.value, []), 0)
    assert seen == [expected]
    result = {"protocol": data.evaluation.protocol, **data.facts(), "splits": {}}
    assert protocol_of(result) == ("toy" if chosen == "float32" else "toy, computed in bfloat16")
    assert ("precision" in result) == (chosen != "float32")
    write_json(tmp_path / "metrics.json", result)
    assert records.load(tmp_path / "metrics.json", records.RESULT) == result


def test_the_change_of_each_score_is_kept_and_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def here(_: str, trial: str, precision: str, data: Any) -> Any:
        given.append(data)
        value = 50.0 if precision == "float32" else 50.1
        result = {"benchmark": "toy world", "protocol": "cris"}
        return {"scores": {"test": {"miou_expr": value}}, "cpu_seconds": 2.0, **result}

    monkeypatch.setattr(training_step, "in_a_process_of_its_own", here)
    trial = tmp_path / "cris" / "full--s0--0"
    trial.mkdir(parents=True)
    write_json(trial / "metrics.json", {"benchmark": "toy world", "protocol": "cris", "splits": {}})
    done = rislab_here("bench", "precision", str(trial), "--results", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert precision.largest(found) == pytest.approx(0.1)
    kept = read_json(tmp_path / "precision-cris-full--s0--0.json")
    assert "| cris/full--s0--0 | toy world, test | miou_expr 50.00 +0.100 | 2.0 | 2.0 |" in page_text.written(
        {}, [kept]
    )
    config = tmp_path / "photos.yaml"
    config.write_text(
        "data: {class_path: rislab.datamodules.semantic.SemanticData, init_args: {root: a, num_workers: 4}}"
    )
    for name in ("coco_object", str(config)):
        options = ("--results", str(tmp_path), "--benchmark", name, "--data", str(tmp_path))
        there = rislab_here("bench", "precision", str(trial), *options)
        assert there.returncode == 0, there.stderr
        assert (given[-1]["init_args"]["root"], given[-1]["init_args"]["num_workers"]) == (str(tmp_path), 0)
        assert (tmp_path / f"precision-cris-full--s0--0-{Path(name).stem}.json").is_file()
    for arguments, said in (
        (["--data", "data"], "--benchmark NAME is missing"),
        (["--benchmark", "coco_objekt"], "did you mean"),
        (["--benchmark", str(trial / "none.yaml")], "none.yaml"),
    ):
        refused = rislab_here("bench", "precision", str(trial), *arguments)
        assert refused.returncode == 2
        assert said in refused.stderr
    wrong = rislab_here("bench", "precision", str(tmp_path))
    assert wrong.returncode == 2
    assert "is no finished trial" in wrong.stderr
