"""Scores what a method segmented, by the benchmark's convention, and writes the result files of a trial."""

import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch.distributed
from lightning.pytorch.utilities.types import STEP_OUTPUT

from rislab.ablation.integrity import seal
from rislab.data import masks
from rislab.data.batch import MaskQueries
from rislab.datamodules.base import EvaluatedData
from rislab.datamodules.referring import ReferringData
from rislab.files import replacing, write_bytes, write_json
from rislab.metrics.expression_scores import ReferringScores
from rislab.metrics.predictions import predictions
from rislab.metrics.protocols import Convention
from rislab.metrics.referring import iou_per_expression, pixel_counts


@dataclass(frozen=True)
class Pick:
    """One expression of the qualitative figure. `rank` decides who is in it: a hash of the id, lowest first."""

    rank: int
    sent_id: int
    image_id: int
    text: str
    target: dict[str, Any]
    prediction: dict[str, Any]


class Scorer(L.Callback):
    """Keeps one `ReferringScores` a split; logs validation scores, writes test scores.

    folder: where `scores.parquet`, `predictions/` and, last of all, `metrics.json` go after a test.
    predictions: how many expressions to keep masks of. Which ones depends on their ids only, so that all trials of a
        table show the same.
    export: where `predict` writes every mask, as `rislab score` reads it.
    """

    def __init__(self, folder: Path, predictions: int, export: Path | None = None) -> None:
        self.folder = folder
        self.export = export or folder / "predictions" / "masks.json"
        self.predictions = predictions
        self.scores: list[ReferringScores] = []
        self.picks: dict[int, Pick] = {}
        self.answers: list[dict[str, Any]] = []
        self.splits: dict[str, dict[str, Any]] = {}

    def _start(self, trainer: L.Trainer, splits: int) -> None:
        convention = self._data(trainer).convention
        self.scores = [ReferringScores(convention).to(trainer.strategy.root_device) for _ in range(splits)]
        self.picks = {}

    @staticmethod
    def _data(trainer: L.Trainer) -> ReferringData:
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by Trainer, unknown to its annotations
        assert isinstance(data, ReferringData), f"cannot score {type(data).__name__}"
        return data

    def _update(self, trainer: L.Trainer, outputs: STEP_OUTPUT, batch: MaskQueries, split: int, keep: bool) -> None:
        assert isinstance(outputs, dict)
        assert batch.targets is not None
        index = batch.image_index.tolist()
        found = self._masks(trainer, outputs, batch, self._data(trainer).convention)
        rows = []
        for n, (mask, target) in enumerate(zip(found, batch.targets, strict=True)):
            truth = masks.decode(target).astype(bool)
            counts = pixel_counts(mask, truth)
            rows.append(
                (batch.sent_ids[n], batch.ref_ids[n], batch.image_ids[index[n]], *counts, int(batch.no_target[n]))
            )
            if keep:
                self._keep(batch, n, batch.image_ids[index[n]], mask)
        self.scores[split].update(rows)

    @staticmethod
    def _masks(
        trainer: L.Trainer, outputs: dict[str, Any], batch: MaskQueries, convention: Convention
    ) -> list[np.ndarray[Any, Any]]:
        """What the method says to each query, at the size at which the convention compares."""
        where = [batch.placements[i] for i in batch.image_index.tolist()]
        threshold = trainer.lightning_module.mask_threshold
        assert isinstance(threshold, float), "a method has a mask threshold"
        return predictions(outputs["logits"], where, convention, threshold)

    def _keep(self, batch: MaskQueries, n: int, image_id: int, mask: np.ndarray[Any, Any]) -> None:
        rank = zlib.crc32(b"%d" % batch.sent_ids[n])
        if len(self.picks) >= self.predictions and rank > max(self.picks, default=-1):
            return
        assert batch.targets is not None
        target, prediction = masks.to_json(batch.targets[n]), masks.to_json(masks.encode(mask))
        self.picks[rank] = Pick(rank, batch.sent_ids[n], image_id, batch.texts[n], target, prediction)
        if len(self.picks) > self.predictions:
            del self.picks[max(self.picks)]

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start(trainer, 1)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: STEP_OUTPUT,
        batch: MaskQueries,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._update(trainer, outputs, batch, 0, keep=False)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        scores = self.scores[0].compute()
        pl_module.log_dict(
            {f"val/{name}": scores[name] for name in self._data(trainer).convention.averages if name in scores}
        )

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start(trainer, len(self._data(trainer).test_splits))

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: STEP_OUTPUT,
        batch: MaskQueries,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._update(trainer, outputs, batch, dataloader_idx, keep=dataloader_idx == 0)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data = self._data(trainer)
        scores = {split: metric.compute() for split, metric in zip(data.test_splits, self.scores, strict=True)}
        picks = self.picks
        if trainer.world_size > 1:
            gathered: list[dict[int, Pick]] = [{} for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(gathered, picks)
            picks = {rank: pick for part in gathered for rank, pick in part.items()}
        for split, values in scores.items():
            shown = {f"test/{split}/{name}": values[name] for name in data.convention.averages if name in values}
            pl_module.log_dict(shown, add_dataloader_idx=False)
        if trainer.is_global_zero:
            write_scores(self.folder / "scores.parquet", scores, data.convention)
            self._write_predictions(data, [picks[rank] for rank in sorted(picks)[: self.predictions]])
        self.splits = {s: {k: v for k, v in row.items() if k != "table"} for s, row in scores.items()}

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:  # after the last line of the curves, whose digest is taken
            write_metrics(self.folder, self._data(trainer), self.splits, pl_module)

    def on_predict_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.answers = []

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: STEP_OUTPUT,
        batch: MaskQueries,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        assert isinstance(outputs, dict)
        # At the original size, whatever the protocol compares at: this is what others will score.
        convention = replace(self._data(trainer).convention, side=None)
        for sent_id, mask in zip(batch.sent_ids, self._masks(trainer, outputs, batch, convention), strict=True):
            self.answers.append({"sent_id": sent_id, "segmentation": masks.to_json(masks.encode(mask))})

    def on_predict_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write every mask, at the original size, to `export`."""
        everything = self.answers
        if trainer.world_size > 1:
            parts: list[list[dict[str, Any]]] = [[] for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(parts, everything)
            everything = list({answer["sent_id"]: answer for part in parts for answer in part}.values())
        if trainer.is_global_zero:
            everything = sorted(everything, key=lambda answer: int(answer["sent_id"]))
            write_json(self.export, everything)

    def _write_predictions(self, data: ReferringData, picks: list[Pick]) -> None:
        folder = self.folder / "predictions"
        entries = []
        for pick in picks:
            suffix, picture = data.picture(pick.image_id)
            name = f"{pick.image_id}{suffix}"
            write_bytes(folder / name, picture)
            entries.append(
                {
                    "sent_id": pick.sent_id,
                    "image_id": pick.image_id,
                    "text": pick.text,
                    "image": name,
                    "target": pick.target,
                    "prediction": pick.prediction,
                }
            )
        write_json(folder / "predictions.json", entries)


def write_metrics(
    folder: Path, data: EvaluatedData, splits: dict[str, dict[str, Any]], module: L.LightningModule
) -> None:
    """The digests of the trial's files, and metrics.json, its last one; nothing in it differs between two runs of one config."""
    seal(
        folder,
        {
            "benchmark": data.benchmark,
            "protocol": data.protocol_name,
            **data.facts(),
            "splits": splits,
            "parameters": {
                "total": sum(p.numel() for p in module.parameters()),
                "trainable": sum(p.numel() for p in module.parameters() if p.requires_grad),
            },
            "step": module.global_step,
        },
    )


def write_scores(path: Path, scores: dict[str, dict[str, Any]], convention: Convention) -> None:
    """One row an expression and split; the `iou` column is a fraction, all areas are pixels of the scored size."""
    parts = []
    for split, row in scores.items():
        columns: dict[str, Any] = {"split": [split] * len(row["table"]["sent_id"]), **row["table"]}
        columns["iou"] = iou_per_expression(row["table"], convention)
        parts.append(pa.table(columns))
    with replacing(path) as temporary:
        pq.write_table(pa.concat_tables(parts), temporary, compression="zstd")
