"""A run that is resumed within an epoch sees the batches that are left, also where its schedule needs the number of steps."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from rislab.data.loader import ResumableLoader
from rislab.training.callbacks import LoaderPosition

LENGTH, EPOCHS = 7, 3


class Numbers(torch.utils.data.Dataset[Any]):
    def __getitem__(self, rows: Any) -> Tensor:
        return torch.tensor(rows, dtype=torch.float32)


class Scheduled(L.LightningModule):
    """Its schedule needs the number of steps when the optimiser is configured, or does not."""

    def __init__(self, needs_steps: bool, folder: Path, stops: int | None) -> None:
        super().__init__()
        self.folder, self.stops = folder, stops
        self.weight, self.needs_steps, self.seen = nn.Parameter(torch.zeros(1)), needs_steps, []

    def on_train_batch_end(self, *_: Any) -> None:
        if self.trainer.global_step == self.stops:
            self.trainer.save_checkpoint(self.folder / "last.ckpt")
            self.trainer.should_stop = True

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        self.seen.append(int(batch[0]))
        return (self.weight - batch).square().sum()

    def configure_optimizers(self) -> Any:
        assert not self.needs_steps or self.trainer.estimated_stepping_batches == LENGTH * EPOCHS
        return torch.optim.SGD(self.parameters(), lr=0.1)


def run(folder: Path, needs_steps: bool, stops: int | None = None, resume: Path | None = None) -> list[int]:
    """What a run sees, until it stops with a checkpoint after so many steps: batch b of epoch e is 100 e + b."""
    loader = ResumableLoader(Numbers(), lambda epoch: [[100 * epoch + b] for b in range(LENGTH)])  # type: ignore[misc]
    module = Scheduled(needs_steps, folder, stops)
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[LoaderPosition()],
        max_epochs=EPOCHS,
    )
    trainer.fit(module, loader, ckpt_path=resume)
    return module.seen


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("needs_steps", [False, True])
def test_a_resumed_run_sees_what_is_left(tmp_path: Path, needs_steps: bool) -> None:
    whole = run(tmp_path, needs_steps)
    assert whole == [100 * epoch + b for epoch in range(EPOCHS) for b in range(LENGTH)]
    first = run(tmp_path, False, stops=LENGTH + 3)
    assert first == whole[: LENGTH + 3]
    assert run(tmp_path, needs_steps, resume=tmp_path / "last.ckpt") == whole[LENGTH + 3 :]
