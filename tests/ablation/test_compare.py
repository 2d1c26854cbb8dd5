"""What `rislab ablate verify` says of two directories that should be equal."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rislab.ablation.compare import differences
from rislab.files import write_json


def folder(
    path: Path, score: float = 50.0, pixels: int = 7, curve: str = "1,0,val/x,0.5\n", picture: bytes = b"p"
) -> Path:
    (path / "log").mkdir(parents=True)
    (path / "predictions").mkdir()
    write_json(path / "metrics.json", {"splits": {"val": {"miou_expr": score, "pr": [1, 2]}}})
    table = {"split": ["val", "val"], "sent_id": [3, 4], "image_id": [1, 1], "intersection": [5, pixels]}
    pq.write_table(pa.table(table), path / "scores.parquet")
    (path / "log" / "metrics.csv").write_text("step,epoch,name,value\n" + curve)
    (path / "predictions" / "1.jpg").write_bytes(picture)
    (path / "predictions" / "masks.json").write_bytes(path.name.encode())  # what `predict` exported
    return path


def test_equal_directories_have_no_difference(tmp_path: Path) -> None:
    assert differences(folder(tmp_path / "a"), folder(tmp_path / "b")) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"score": 50.25}, "metrics.json: splits.val.miou_expr was 50.0, is 50.25"),
        ({"pixels": 8}, "scores.parquet: intersection of split val, sent_id 4, image_id 1 was 7, is 8"),
        ({"curve": "1,0,val/x,0.6\n"}, "log/metrics.csv: line 2 was '1,0,val/x,0.5', is '1,0,val/x,0.6'"),
        ({"curve": ""}, "log/metrics.csv: line 2 was '1,0,val/x,0.5', is not there"),
        ({"picture": b"other"}, "predictions/1.jpg was 1 bytes, is 5 other bytes"),
    ],
)
def test_the_first_value_that_differs_is_named(change: dict[str, object], said: str, tmp_path: Path) -> None:
    found = differences(folder(tmp_path / "a"), folder(tmp_path / "b", **change))  # type: ignore[arg-type]
    assert [str(each) for each in found] == [said]


def test_files_and_values_that_are_missing_are_named(tmp_path: Path) -> None:
    before, again = folder(tmp_path / "a"), folder(tmp_path / "b")
    (again / "predictions" / "1.jpg").unlink()
    value = json.loads((again / "metrics.json").read_text())
    del value["splits"]["val"]["miou_expr"]
    write_json(again / "metrics.json", value)
    assert [str(each) for each in differences(before, again)] == [
        "metrics.json: splits.val.miou_expr was 50.0, is not there",
        "predictions/1.jpg was there, is not there",
    ]
