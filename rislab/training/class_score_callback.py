"""Which callback scores which data, and the scoring of label maps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lightning.pytorch.utilities.types import STEP_OUTPUT
from numpy.typing import NDArray

from rislab.data.batch import LabelledPictures
from rislab.datamodules.base import EvaluatedData
from rislab.datamodules.semantic import SemanticData
from rislab.errors import ConfigError
from rislab.files import replacing
from rislab.metrics.class_scores import ClassScores
from rislab.metrics.classes import confusion
from rislab.training.label_pictures import LabelPictures
from rislab.training.score_callback import Scorer, write_metrics

Part = TypeVar("Part")

COLUMNS = ("image_id", "class", "intersection", "prediction", "target")
"""Of scores.parquet: pixels of one class in one picture, for classes that are in its label or its prediction."""


def scorer(data: EvaluatedData, folder: Path, predictions: int, export: Path | None) -> L.Callback:
    """The callback that writes a run's results."""
    return (
        ClassScorer(folder, predictions)
        if isinstance(data.evaluated, SemanticData)
        else Scorer(folder, predictions, export)
    )


class ClassScorer(L.Callback):
    """Keeps one confusion matrix a split; logs validation scores, writes test scores.

    folder: where `scores.parquet`, `predictions/` and, last of all, `metrics.json` go after a test.
    predictions: how many pictures to keep label maps of.
    """

    def __init__(self, folder: Path, predictions: int) -> None:
        self.folder = folder
        self.pictures = LabelPictures(predictions)
        self.scores: list[ClassScores] = []
        self.rows: list[list[NDArray[np.int64]]] = []
        self.splits: dict[str, dict[str, Any]] = {}

    @staticmethod
    def _data(trainer: L.Trainer) -> SemanticData:
        data = trainer.datamodule.evaluated  # type: ignore[attr-defined]  # set by Trainer, unknown to its annotations
        assert isinstance(data, SemanticData), f"cannot score {type(data).__name__} by classes"
        return data

    def _start(self, trainer: L.Trainer, splits: int) -> None:
        classes = len(self._data(trainer).classes)
        self.scores = [ClassScores(classes).to(trainer.strategy.root_device) for _ in range(splits)]
        self.rows = [[] for _ in range(splits)]

    def _update(self, outputs: STEP_OUTPUT, batch: LabelledPictures, split: int, keep: bool) -> None:
        assert isinstance(outputs, dict)
        for number, image, found, label in zip(batch.ids, batch.images, outputs["labels"], batch.labels, strict=True):
            prediction = found.cpu().numpy()
            self.scores[split].update(prediction, label)
            if keep:
                self.rows[split].append(counts(prediction, label, self.scores[split].classes, number))
            if keep and split == 0:
                self.pictures.offer(number, image.permute(1, 2, 0).cpu().numpy(), prediction, label)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start(trainer, 1)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: STEP_OUTPUT,
        batch: LabelledPictures,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._update(outputs, batch, 0, keep=False)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.log_dict({f"val/{name}": value for name, value in self.scores[0].compute().items()})

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start(trainer, len(self._data(trainer).test_splits))
        self.pictures = LabelPictures(self.pictures.count)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: STEP_OUTPUT,
        batch: LabelledPictures,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._update(outputs, batch, dataloader_idx, keep=True)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data = self._data(trainer)
        self.splits = {}
        tables = []
        for split, metric, rows in zip(data.test_splits, self.scores, self.rows, strict=True):
            averages = metric.compute()
            everything = gathered_rows(trainer, rows)
            pictures = len(np.unique(everything[:, 0]))
            self.splits[split] = averages | {"images": pictures, "classes": named_iou(everything, data.classes)}
            tables.append(table(everything, split))
            pl_module.log_dict(
                {f"test/{split}/{name}": value for name, value in averages.items()}, add_dataloader_idx=False
            )
        self.pictures.gather(gathered(trainer, self.pictures.kept))
        if not trainer.is_global_zero:
            return
        self.pictures.write(self.folder / "predictions", data.classes)
        with replacing(self.folder / "scores.parquet") as temporary:
            pq.write_table(pa.concat_tables(tables), temporary, compression="zstd")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:  # after the last line of the curves, whose digest is taken
            write_metrics(self.folder, trainer.datamodule, self.splits, pl_module)  # type: ignore[attr-defined]  # as above

    def on_predict_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        raise ConfigError("predict writes masks of sentences; label maps of a vocabulary: rislab segment --classes")


def counts(prediction: NDArray[Any], label: NDArray[Any], classes: int, image: int) -> NDArray[np.int64]:
    """One row a class that is there, in the order of `COLUMNS`: [K, 5]."""
    matrix = confusion(prediction, label, classes)
    predicted, labelled = matrix.sum(0), matrix.sum(1)
    there = np.flatnonzero(predicted + labelled)
    columns = (np.full(len(there), image), there, matrix.diagonal()[there], predicted[there], labelled[there])
    return np.stack(columns, axis=1).astype(np.int64)


def named_iou(rows: NDArray[np.int64], classes: Sequence[str]) -> dict[str, float | None]:
    """IoU of each class over all pictures, in percent; None for one that occurs nowhere."""
    hits, predicted, labelled = (
        np.bincount(rows[:, 1], weights=rows[:, i], minlength=len(classes)).tolist() for i in (2, 3, 4)
    )
    unions = [p + t - i for i, p, t in zip(hits, predicted, labelled, strict=True)]
    return {name: 100 * i / u if u else None for name, i, u in zip(classes, hits, unions, strict=True)}


def gathered_rows(trainer: L.Trainer, rows: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Rows of all processes, in the order of pictures."""
    own = np.concatenate(rows) if rows else np.zeros((0, len(COLUMNS)), np.int64)
    everything = np.concatenate(gathered(trainer, own))
    return everything[np.lexsort((everything[:, 1], everything[:, 0]))]


def gathered(trainer: L.Trainer, own: Part) -> list[Part]:
    """What each process has."""
    if trainer.world_size == 1:
        return [own]
    import torch.distributed

    parts = [own] * trainer.world_size
    torch.distributed.all_gather_object(parts, own)
    return parts


def table(rows: NDArray[np.int64], split: str) -> pa.Table:
    return pa.table({"split": [split] * len(rows), **{name: rows[:, i] for i, name in enumerate(COLUMNS)}})
