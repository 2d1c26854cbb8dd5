"""Every row of every shipped table, as its toy profile builds it, takes a training step, or says that it has none to take."""

from pathlib import Path

import pytest
import torch

from rislab.ablation import identity
from rislab.ablation.plan import distinct, plan
from rislab.ablation.table import load
from rislab.testing.contract import training_batch
from rislab.training.inference import build, without_pretraining
from tests.worlds import ROOT

STEPPED: set[str] = set()
"""Models that have taken their step, as canonical JSON."""

TABLES = sorted((ROOT / "ablations").glob("*.yaml"))


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_every_row_takes_a_step(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    table = load(path)
    for cell in distinct(plan(table, table.profiles["toy"], [0], tmp_path)):
        model = identity.canonical(cell.config["model"])
        if model in STEPPED:
            continue  # rows and folds that differ in their data alone, and rows of several tables
        STEPPED.add(model)
        # Random weights may lie where a clamped cosine has no slope: one of a few draws must move.
        for seed in range(6):
            torch.manual_seed(seed)
            method = build(without_pretraining(cell.config["model"])).train()
            if not method.is_trained:
                break
            terms = method.losses(training_batch(method))
            torch.stack(list(terms.values())).sum().backward()
            assert all(torch.isfinite(value) for value in terms.values()), cell.name
            if any(p.grad is not None and p.grad.any() for p in method.parameters()):
                break
        else:
            pytest.fail(f"{cell.name}: no gradient in six draws")
