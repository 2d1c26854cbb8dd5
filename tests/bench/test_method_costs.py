"""`rislab bench method`: both ways give one answer, attention is counted, and a page says what was not measured."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rislab.bench import method_costs, training_step
from rislab.bench.operations import counted, matrix_rate
from tests.worlds import rislab_here, untrained


@pytest.fixture
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_step, "in_a_process_of_its_own", lambda _, **options: method_costs.measure(**options))


def test_attention_is_counted_however_it_is_computed() -> None:
    q, k, v = (torch.randn(2, 4, length, 16, requires_grad=True) for length in (10, 12, 12))
    products = 2 * (2 * 4 * 10 * 12 * 16) / 1e9  # of one product, in GFLOP

    def fused() -> None:
        F.scaled_dot_product_attention(q, k, v).sum().backward()

    def plain() -> torch.Tensor:
        return (q @ k.mT / 4).softmax(-1) @ v

    assert counted(plain) == pytest.approx(2 * products)
    with torch.no_grad():
        assert counted(lambda: F.scaled_dot_product_attention(q, k, v)) == pytest.approx(2 * products)
    assert counted(fused) == pytest.approx((2 + 5) * products)
    block = nn.MultiheadAttention(32, 4, batch_first=True).eval()
    x = torch.randn(3, 11, 32)
    with torch.inference_mode():
        found = counted(lambda: block(x, x, x, need_weights=False))
    assert found == pytest.approx((2 * 3 * 11 * 32 * 32 * 4 + 4 * 3 * 11 * 11 * 32) / 1e9)
    assert matrix_rate() > 1


@pytest.mark.usefixtures("_in_this_process")
@pytest.mark.parametrize(
    ("method", "config", "count"),
    [("lseg", "lseg/toy", ["--classes", "3"]), ("cris", "cris/toy", ["--sentences", "3"])],
)
def test_both_ways_give_one_answer(tmp_path: Path, method: str, config: str, count: list[str]) -> None:
    command = ["bench", "method", method, "--config", untrained(tmp_path, config), "--size", "64", *count]
    done = rislab_here(*command, "--work", "evaluate", "train", "--json")
    assert done.returncode == 0, done.stderr
    evaluated, trained = json.loads(done.stdout)
    assert (evaluated["work"], trained["work"]) == ({"lseg": "classes", "cris": "sentences"}[method], "train")
    assert evaluated["count"] == 3
    assert evaluated["difference"] < 1e-3
    assert trained["difference"] < 2e-2
    assert 1 < evaluated["bound"] < 3.01
    assert trained["bound"] > 1
    for entry in (evaluated, trained):
        assert entry["ratio"]["cpu_seconds"] == entry["plain"]["cpu_seconds"] / entry["rislab"]["cpu_seconds"]
        assert entry["share_of_rate"] == pytest.approx(
            entry["rislab"]["gflop"] / entry["rislab"]["cpu_seconds"] / entry["matrix_rate"]
        )


@pytest.mark.usefixtures("_in_this_process")
def test_what_cannot_be_measured_is_one_line(tmp_path: Path) -> None:
    for arguments, said in (
        (["lseq"], "no method 'lseq' (did you mean 'lseg'?); methods are clims"),
        (
            ["deeplab", "--classes", "99", "--size", "64"],
            "answers its own class names only; expected --classes of at most 28",
        ),
        (["lseg", "--classes", "0"], "--classes is 0, expected 1 or more"),
        (["lseg", "clip", "--config", "experiments/lseg/toy.yaml"], "--config is of one method"),
        (["clip", "--config", "experiments/lseg/toy.yaml"], "is a recipe of rislab.methods.lseg.task.LSegTask"),
    ):
        wrong = rislab_here("bench", "method", *arguments)
        assert wrong.returncode == 2, arguments
        assert said in wrong.stderr
        assert wrong.stderr.count("\n") == 1


def test_the_page_names_what_was_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def here(_: str, **options: Any) -> Any:
        recipe = options["recipe"]
        small = {"image_size": 64, "clip": {"name": "rislab-tiny-ViT"}}
        return method_costs.measure(**options | {"recipe": recipe | {"init_args": recipe["init_args"] | small}})

    monkeypatch.setattr(training_step, "in_a_process_of_its_own", here)
    page = tmp_path / "pages" / "bench.md"
    done = rislab_here("bench", "method", "clip", "maskclip", "--work", "evaluate", "train", "--out", str(page))
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert "2 of 4 measured" in text
    assert "| clip | 20 classes |" in text
    assert "| maskclip | train | not measured: MaskCLIPTask has nothing to train |" in text
    assert "maskclip, train: not measured: MaskCLIPTask has nothing to train" in done.stdout
