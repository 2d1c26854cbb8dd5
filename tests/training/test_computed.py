"""How training is computed by options of `trial`, and what a run may go on from; through the real command line."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rislab.training.checkpoints import read_checkpoint
from tests.worlds import rislab_here, tiny_config


def fit(folder: Path, *options: str, **changes: Any) -> Any:
    """A short training in `folder`, of the world beside it."""
    small = {"trainer__max_epochs": 1, "trainer__limit_train_batches": 3, "trainer__limit_val_batches": 1}
    config = tiny_config(data__init_args__root=str(folder.parent / "tiny"), trial__test=False, **(small | changes))
    (folder.parent / "config.yaml").write_text(yaml.safe_dump(config))
    place = f"--trainer.default_root_dir={folder}"
    return rislab_here("-q", "fit", "--config", str(folder.parent / "config.yaml"), place, *options)


def losses(folder: Path) -> list[float]:
    with (folder / "log" / "metrics.csv").open() as file:
        return [float(row["value"]) for row in csv.DictReader(file) if row["name"].startswith("train/")]


@pytest.mark.filterwarnings("ignore")
def test_compiled_and_with_channels_last_it_is_the_same_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same losses up to rounding, and weights under the same names, which a run without these options goes on from."""
    compiled: list[Any] = []

    def traced(function: Any, **options: Any) -> Any:
        compiled.append(function)
        return compile_(function, backend="aot_eager", **options)  # all but the compiler of machine code

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", traced)
    assert fit(tmp_path / "plain").returncode == 0
    assert not compiled
    done = fit(tmp_path / "compiled", "--trial.compile=true", "--trial.channels_last=true")
    assert done.returncode == 0, done.stderr
    assert [each.__name__ for each in compiled] == ["losses"]
    plain = losses(tmp_path / "plain")
    assert len(plain) >= 3
    assert losses(tmp_path / "compiled") == pytest.approx(plain, rel=1e-3)
    weights = [
        read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"] for name in ("plain", "compiled")
    ]
    assert weights[0].keys() == weights[1].keys()
    assert any(each.ndim == 4 and not each.is_contiguous() for each in weights[1].values())
    on = fit(tmp_path / "compiled", trainer__max_epochs=2)
    assert on.returncode == 0, on.stderr
    assert len(losses(tmp_path / "compiled")) == 2 * len(plain)


def test_training_does_not_go_on_from_a_checkpoint_of_other_options(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert fit(folder).returncode == 0
    for option, value, was in (
        ("base_lr", "0.5", "0.0018"),
        ("freeze_token_embedding", "false", "True"),
        ("decoder_layers", "0", "3"),
    ):
        refused = fit(folder, f"--model.init_args.{option}={value}", trainer__max_epochs=2)
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1
        assert f"model.init_args.{option} {was}" in refused.stderr
    named = fit(
        *(tmp_path / "other", f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}"),
        "--model.init_args.freeze_token_embedding=false",
    )
    assert named.returncode == 2
    assert "the checkpoint's optimiser is not this model's" in named.stderr
