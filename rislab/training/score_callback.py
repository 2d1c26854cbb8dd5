"""Scores what a method answered, by the data's evaluation, and writes the result files of a trial."""

import warnings
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import pyarrow as pa
import pyarrow.parquet as pq
import torch.distributed
from lightning.pytorch.utilities.types import STEP_OUTPUT
from numpy.typing import NDArray

from rislab.ablation.integrity import seal
from rislab.datamodules.base import EvaluatedData
from rislab.errors import ConfigError
from rislab.evaluation.base import Evaluation
from rislab.evaluation.kept_answers import KeptAnswers
from rislab.files import replacing, write_json
from rislab.methods.base import FileMaker
from rislab.metrics.unit_counts import UnitCounts

Part = TypeVar("Part")


class ScoreCallback(L.Callback):
    """Keeps the counts of each split; logs validation scores, writes test scores.

    Args:
        data: whose evaluation scores.
        folder: where `scores.parquet`, `predictions/` and, last of all, `metrics.json` go after a test.
        examples: how many answers to keep for the report, of the first test split.
        export: where `predict` writes every answer; predictions/masks.json below the folder by default.
        answers_bytes: limit of the answers that a test keeps, of all test splits together.
    """

    def __init__(
        self, data: EvaluatedData, folder: Path, examples: int, export: Path | None = None, answers_bytes: int = 0
    ) -> None:
        self.data, self.folder, self.count = data, folder, examples
        self.export_file = export or folder / "predictions" / "masks.json"
        self.counts: list[UnitCounts] = []
        self.kept = self.evaluation.examples(examples)
        self.all_answers = KeptAnswers(answers_bytes)
        self.exported: list[dict[str, Any]] = []
        self.splits: dict[str, dict[str, Any]] = {}

    @property
    def evaluation(self) -> Evaluation:
        return self.data.evaluated.evaluation

    def _start(self, trainer: L.Trainer, module: L.LightningModule, splits: int) -> None:
        reason = self.evaluation.refuse(module)  # type: ignore[arg-type]  # a TextSegmenter, which CLI and tests see to
        if reason is not None:
            raise ConfigError(f"{type(module).__name__} cannot be scored on {self.data.benchmark}: {reason}")
        arithmetic = self.evaluation.arithmetic
        made = (UnitCounts(arithmetic.columns, arithmetic.key) for _ in range(splits))
        self.counts = [counts.to(trainer.strategy.root_device) for counts in made]

    def _update(self, module: L.LightningModule, outputs: STEP_OUTPUT, batch: Any, split: int) -> list[NDArray[Any]]:
        assert isinstance(outputs, dict)
        answers = self.evaluation.answers(module, batch, dict(outputs))  # type: ignore[arg-type]  # as above
        self.counts[split].update(self.evaluation.rows(batch, answers))
        return answers

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start(trainer, pl_module, 1)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._update(pl_module, outputs, batch, 0)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        scores = self.data.evaluated.validation.arithmetic.scores(self.counts[0].compute())
        pl_module.log_dict({f"val/{name}": value for name, value in scores.items()})

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start(trainer, pl_module, len(self.data.test_splits))
        self.kept = self.evaluation.examples(self.count)
        self.all_answers = KeptAnswers(self.all_answers.limit)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        answers = self._update(pl_module, outputs, batch, dataloader_idx)
        if self.all_answers.limit:
            split = self.data.test_splits[dataloader_idx]
            self.all_answers.offer(split, self.evaluation.compact(batch, answers))
        if dataloader_idx == 0:
            self.kept.offer(batch, answers)
            self.kept.inspect(pl_module, batch)  # type: ignore[arg-type]  # as above

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        arithmetic = self.evaluation.arithmetic
        self.splits, tables = {}, []
        for split, counts in zip(self.data.test_splits, self.counts, strict=True):
            table = counts.compute()
            scores = arithmetic.scores(table)
            self.splits[split] = scores | arithmetic.summary(table)
            shown = {f"test/{split}/{name}": value for name, value in scores.items()}
            pl_module.log_dict(shown, add_dataloader_idx=False)
            rows = len(table[arithmetic.columns[0]])
            tables.append(pa.table({"split": [split] * rows, **table, **arithmetic.derived(table)}))
        self.kept.gather(gathered(trainer, dict(self.kept.kept)))
        self.all_answers.gather(gathered(trainer, self.all_answers.parts))
        if not trainer.is_global_zero:
            return
        for split, size in self.all_answers.left_out.items():
            limit = self.all_answers.limit / 1e6
            text = (
                f"answers to {split} are {size / 1e6:.1f} MB, more than trial.answers_mb ({limit:g}) leaves: not kept"
            )
            warnings.warn(text, stacklevel=2)
        with replacing(self.folder / "scores.parquet") as temporary:
            pq.write_table(pa.concat_tables(tables), temporary, compression="zstd")
        self.kept.write(self.folder / "predictions", self.data.evaluated)
        self.all_answers.write(self.folder, self.evaluation.form)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:  # after the last line of the curves, whose digest is taken
            write_metrics(self.folder, self.data, self.splits, pl_module)

    def on_predict_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if _makes_files(pl_module):
            return
        self._start(trainer, pl_module, 0)
        self.exported = []

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if _makes_files(pl_module):
            return
        assert isinstance(outputs, dict)
        self.exported += self.evaluation.export(pl_module, batch, dict(outputs))  # type: ignore[arg-type]  # as above

    def on_predict_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write every answer to the file of exports, each once."""
        if _makes_files(pl_module):
            return
        everything = {answer["sent_id"]: answer for part in gathered(trainer, self.exported) for answer in part}
        if trainer.is_global_zero:
            write_json(self.export_file, [everything[sent_id] for sent_id in sorted(everything)])


def _makes_files(module: L.LightningModule) -> bool:
    """Whether a run over `predict_dataloader` makes the files of a stage, and not masks to be exported."""
    return isinstance(module, FileMaker) and module.outputs is not None


def gathered(trainer: L.Trainer, own: Part) -> list[Part]:
    """What each process has."""
    if trainer.world_size == 1:
        return [own]
    parts = [own] * trainer.world_size
    torch.distributed.all_gather_object(parts, own)
    return parts


def write_metrics(
    folder: Path, data: EvaluatedData, splits: dict[str, dict[str, Any]], module: L.LightningModule
) -> None:
    """The digests of the trial's files, and metrics.json, its last one; nothing in it differs between two runs of one config."""
    seal(
        folder,
        {
            "benchmark": data.benchmark,
            "protocol": data.evaluated.evaluation.protocol,
            **data.facts(),
            "splits": splits,
            "parameters": {
                "total": sum(p.numel() for p in module.parameters()),
                "trainable": sum(p.numel() for p in module.parameters() if p.requires_grad),
            },
            "step": module.global_step,
        },
    )
