"""What `fit` and `test` print at their end."""

from pathlib import Path

from rislab.ablation.trial import TrialDir
from rislab.files import write_json
from rislab.training.summary import summary


def test_splits_by_metrics_in_two_digits_and_the_folder(tmp_path: Path) -> None:
    trial = TrialDir(tmp_path / "run")
    assert summary(trial) == str(tmp_path / "run"), "nothing was scored"
    splits = {
        "test": {"oiou": 51.238, "miou_expr": 4.0, "expressions": 9},
        "val": {"oiou": 100.0, "miou_expr": 99.99, "acc": 7.5, "expressions": 12},
    }
    write_json(trial.metrics_file, {"benchmark": "mine (own)", "protocol": "native", "splits": splits})
    assert summary(trial).splitlines() == [
        "mine (own), protocol native",
        "percent  miou_expr    oiou   acc",
        "val          99.99  100.00  7.50",
        "test          4.00   51.24",
        str(tmp_path / "run"),
    ]
