"""`rislab.score` and `rislab.results`: the numbers of the command line and of the report."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rislab
from rislab.data import masks
from rislab.data.refer import Refer
from rislab.errors import ConfigError, DataError
from tests.api.checkpoints import write
from tests.data.small import SmallSet
from tests.methods.every import factories
from tests.report.trials import finish, planned_table
from tests.worlds import rislab_here, tiny_table


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SmallSet({"train": 2, "val": 4}).write(tmp_path_factory.mktemp("small"))


def answers(data: Path) -> dict[int, np.ndarray[Any, Any]]:
    """For each expression of val the true mask, its upper half left out."""
    refer = Refer(data, "refcoco", "unc")
    found = {}
    for reference in refer.split("val"):
        mask = masks.decode(refer.target(reference)).astype(bool)
        mask[: mask.shape[0] // 3] = False
        found |= {expression.sent_id: mask for expression in reference.expressions}
    return found


def test_score_is_the_command_lines(data: Path, tmp_path: Path) -> None:
    given = answers(data)
    lost = max(given)
    del given[lost]
    runs = {sent_id: masks.to_json(masks.encode(mask)) for sent_id, mask in given.items()}
    entries = [{"sent_id": sent_id, "segmentation": rle} for sent_id, rle in runs.items()]
    (tmp_path / "masks.json").write_text(json.dumps(entries))
    said = rislab_here(
        "score", str(tmp_path / "masks.json"), "--data", str(data), "--split", "val", "--protocol", "cris", "--json"
    )
    shown = json.loads(said.stdout)
    for predictions in (given, runs, tmp_path / "masks.json", str(tmp_path / "masks.json")):
        scored = rislab.score(predictions, data, "val", protocol="cris")
        assert scored.metrics == {name: shown[name] for name in scored.metrics}
        assert scored.protocols == shown["protocols"]
        assert scored.parts == shown["breakdown"]
        assert scored.missing == (lost,)
        rows = scored.expressions()
        assert float(100 * rows["iou"].mean()) == pytest.approx(scored.metrics["miou_expr"])
        assert {len(column) for column in rows.values()} == {len(given) + 1}
    assert "1 without a mask" in repr(scored)


@pytest.mark.parametrize(
    ("change", "options", "error", "said"),
    [
        (lambda given: {}, {}, ConfigError, "predictions is empty"),
        (lambda given: {"a": 1}, {}, ConfigError, "key 'a' is no sent_id"),
        (lambda given: {**given, 2: "x"}, {}, ConfigError, r"predictions\[2\] is a str, expected a bool array"),
        (lambda given: {k: v.astype(float) for k, v in given.items()}, {}, ConfigError, "array of float64"),
        (lambda given: {k: v[1:] for k, v in given.items()}, {}, DataError, r"has shape .* its picture has"),
        (lambda given: {k + 1000: v for k, v in given.items()}, {}, DataError, "none of the .* masks belongs"),
        (lambda given: given, {"protocol": "crsi"}, ConfigError, "did you mean 'cris'"),
        (lambda given: given, {"no_target_min_pixels": 0}, ConfigError, "expected 1 or more"),
        (lambda given: given, {"split": "vall"}, DataError, "vall"),
        (lambda given: given, {"dataset": "refcoc"}, DataError, "did you mean 'refcoco'"),
    ],
)
def test_mistakes_of_score(change: Any, options: dict[str, Any], error: type[Exception], said: str, data: Path) -> None:
    with pytest.raises(error, match=said) as found:
        rislab.score(change(answers(data)), data, **({"split": "val"} | options))
    assert "\n" not in str(found.value)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a table of which one row is finished with two seeds, and one without any."""
    (tmp_path / "ablations").mkdir()
    rows = "base: {decoder_layers: 0}\nfull: {decoder_layers: 1}"
    path = tiny_table(tmp_path, rows).rename(tmp_path / "ablations" / "tiny.yaml")
    for cell in planned_table(path, tmp_path / "runs", [0, 2])[1]:
        if cell.row.name == "base":
            finish(cell, 0.1, pictures=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_results_are_the_reports(study: Path) -> None:
    found = rislab.results("tiny")
    base, full = found.rows()
    rows = [found.expressions("base", seed) for seed in (0, 2)]
    means = [100 * float(each["iou"].mean()) for each in rows]
    assert (base["row"], base["seeds"], base["states"]) == ("base", 2, ["done", "done"])
    assert base["miou_expr"] == pytest.approx(np.mean(means))
    assert base["miou_expr_sd"] == pytest.approx(np.std(means, ddof=1))
    assert (full["seeds"], full["miou_expr"], full["miou_expr_paper"]) == (0, None, None)
    assert found.expressions("base").keys() >= {"sent_id", "image_id", "iou"}
    assert found.expressions("base")["iou"].tolist() == rows[0]["iou"].tolist()
    assert f"base  2      {base['miou_expr']:.2f} ± " in str(found)
    assert repr(found) == "TableResults(tiny, toy: 2 of 4 trials done)"
    assert rislab.results("tiny", seeds=[2]).rows()[0]["miou_expr"] == pytest.approx(means[1])
    assert rislab.results(study / "ablations" / "tiny.yaml", seeds=1).rows()[0]["miou_expr"] == pytest.approx(means[0])
    for call, said in (
        (lambda: rislab.results("tin"), "did you mean 'tiny'"),
        (lambda: rislab.results("tiny", "tooy"), "did you mean 'toy'"),
        (lambda: rislab.results("tiny", seeds=0), "seeds is 0, expected"),
        (lambda: rislab.results("tiny", seeds=[1, 1]), "expected how many"),
        (lambda: found.expressions("bas"), "did you mean 'base'"),
        (lambda: found.expressions("full"), r"row 'full' has no result \(pending\)"),
        (lambda: found.expressions("base", 1), "seed 1 has no result"),
    ):
        with pytest.raises(ConfigError, match=said) as error:
            call()
        assert "\n" not in str(error.value)


def test_a_row_is_loaded_by_its_name(study: Path) -> None:
    cells = {cell.name: cell for cell in planned_table(study / "ablations" / "tiny.yaml", study / "runs", [0, 2])[1]}
    method = write(factories()["cris"], cells["base s2"].trial.checkpoints / "best.ckpt")
    model = rislab.load("tiny:base", seed=2)
    assert all(value.equal(method.state_dict()[name]) for name, value in model.network.state_dict().items())
    assert rislab.load(cells["base s2"].directory).method == "cris"
    with pytest.raises(DataError, match=r"no trial with weights; expected checkpoints/best.ckpt"):
        rislab.load("tiny:base")
    wrong: dict[str, dict[str, Any]] = {
        r"seed 7\) is pending": {"seed": 7}, "has no folds": {"fold": "a"}, "no profile": {"profile": "x"},
    }  # fmt: skip
    for said, options in wrong.items():
        with pytest.raises(ConfigError, match=said):
            rislab.load("tiny:base", **options)
    (cells["base s2"].directory / "scores.parquet").write_bytes(b"damaged")
    with pytest.raises(ConfigError, match=r"is damaged: scores\.parquet"):
        rislab.load("tiny:base", seed=2)
