"""The plain ways give the numbers of what they stand beside, in value and gradient; and the command that measures them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from rislab.bench import savings
from rislab.bench.plain_ways import PLAIN_WAYS, computing_plainly
from rislab.cli.bench.savings import PLAIN
from rislab.cli.main import main
from rislab.encoders.bert.load import BERTSpec
from rislab.encoders.swin.load import SwinSpec
from rislab.errors import ConfigError
from rislab.methods.dmmi.task import DMMITask
from rislab.methods.dmmi.trunk import TrunkSpec
from rislab.methods.lavt.task import LAVTTask
from rislab.testing.contract import training_batch

SMALL: dict[str, Any] = {"image_size": (80, 72), "max_tokens": 12, "drop_path": 0.0, "bert_train_layers": 2}


def dmmi() -> DMMITask:
    small = SMALL | {"decoder_heads": 4, "decoder_hidden": 32, "decoder_dropout": 0.0}
    return DMMITask(TrunkSpec("rislab-tiny-Swin", window=4), BERTSpec("rislab-tiny-BERT"), **small)


def lavt() -> LAVTTask:
    return LAVTTask(SwinSpec("rislab-tiny-Swin", window=4), BERTSpec("rislab-tiny-BERT"), **SMALL)


def step(method: DMMITask | LAVTTask, plain: tuple[str, ...]) -> dict[str, Tensor]:
    """Loss and gradients, by name."""
    method.zero_grad()
    torch.manual_seed(1)
    batch = training_batch(method)
    with computing_plainly(plain, method):
        total = torch.stack(list(method.losses(batch).values())).sum()  # type: ignore[arg-type]
        total.backward()
    return {"loss": total.detach()} | {
        name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_way_is_the_same_computation(name: str) -> None:
    torch.manual_seed(0)
    method = dmmi().train()
    for module in method.modules():  # batch statistics of the very same batch; running ones move, and are not read
        assert "Dropout" not in type(module).__name__ or module.p == 0 or not module.training
    ours, plain = step(method, ()), step(method, (name,))
    assert ours.keys() >= plain.keys() - {k for k in plain if k.endswith(".bias")}
    for key in ours.keys() & plain.keys():
        scale = max(1e-3, float(ours[key].abs().max()))
        assert (ours[key] - plain[key]).abs().max() < 2e-2 * scale, key
    assert abs(ours["loss"] - plain["loss"]) < 1e-5
    again = step(method, ())
    assert torch.equal(again["loss"], ours["loss"]), "the plain way ends with its context"


def test_every_plain_way_is_offered_and_a_method_without_the_saving_is_refused() -> None:
    assert tuple(PLAIN_WAYS) == PLAIN
    method = lavt()
    with computing_plainly(("windows",), method):
        pass
    with pytest.raises(ConfigError, match="--plain regions: LAVTTask has no RegionAttention to undo"):
        step(method, ("regions",))


def test_the_command_measures_a_step_and_the_sentences_of_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[str], bool]] = []

    def here(module: str, **options: Any) -> dict[str, float]:
        assert module == savings.__name__
        seen.append((options["plain"], options["one_by_one"]))
        return savings.measure(**options)

    monkeypatch.setattr("rislab.bench.training_step.in_a_process_of_its_own", here)
    recipe = {
        "class_path": "rislab.methods.dmmi.task.DMMITask",
        "init_args": {
            "trunk": {"name": "rislab-tiny-Swin", "window": 6},
            "bert": {"name": "rislab-tiny-BERT"},
            "bert_train_layers": 2,
            "decoder_heads": 4,
        },
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({"model": recipe}))
    config = ["bench", "savings", "--config", str(tmp_path / "small.yaml"), "--size", "96", "--json"]
    assert main([*config, "--plain", "regions", "attention", "--images", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["undone"] == ["regions", "attention"]
    assert found["as it is"].keys() == {"seconds", "cpu_seconds", "grown_mb"} == found["ratio"].keys()
    assert main([*config, "--work", "sentences", "--sentences", "3"]) == 0
    assert seen == [([], False), (["regions", "attention"], True), ([], False), ([], True)]
    capsys.readouterr()
    assert main(config) == 2
    assert "--work step without --plain compares nothing" in capsys.readouterr().err
