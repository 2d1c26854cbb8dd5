"""Few-shot episodes: how a method segments one class in a picture, at the protocol's square."""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from rislab.data import masks
from rislab.data.batch import Episodes
from rislab.errors import ConfigError
from rislab.evaluation.base import Evaluation, Outputs, Scored
from rislab.evaluation.episode_arithmetic import EpisodeArithmetic
from rislab.evaluation.kept_answers import Answer, Form, compact_masks
from rislab.evaluation.referring import ExpressionExample, ExpressionExamples
from rislab.metrics.episodes import episode_counts
from rislab.metrics.predictions import predictions
from rislab.metrics.protocols import LAVT, Convention

SQUARE = replace(
    LAVT,
    title="HSNet: picture and mask stretched to a square, class against rest",
    threshold=None,
    source="juhongm999/hsnet and isl-org/lang-seg, test_lseg_zs.py",
)
"""Logits are enlarged bilinearly with aligned corners; a pixel belongs to the class above the method's own threshold, which for a
pair of names is the larger of the two."""


class EpisodeEvaluation(Evaluation):
    """Scores masks of one class each.

    Args:
        name: Of the set, with its fold.
        size: Side of the square at which masks are compared.
        classes: Numbers of the fold's classes.
        names: Of all classes of the set, by number.
    """

    form: ClassVar[Form] = "run lengths"

    def __init__(self, name: str, size: int, classes: Sequence[int], names: Sequence[str]) -> None:
        self._name, self.classes = name, tuple(classes)
        self.convention: Convention = replace(SQUARE, side=size)
        self.names = tuple(names[number] for number in classes)
        self.arithmetic = EpisodeArithmetic(self.classes, self.names)

    @property
    def protocol(self) -> str:
        return f"{self._name}, 0 shots, {self.convention.side} x {self.convention.side}"

    def facts(self) -> dict[str, Any]:
        return {"episode_classes": list(self.classes)}

    def refuse(self, method: Scored) -> str | None:
        missing = [] if method.vocabulary is None else [name for name in self.names if name not in method.vocabulary]
        return f"it answers its own class names only, and not {missing[0]!r}" if missing else None

    def predict(self, method: Scored, batch: Episodes) -> Outputs:
        texts = [batch.names[number] for number in batch.class_index.tolist()]
        return {"logits": method.segment(batch.images, texts, torch.arange(len(texts), device=batch.images.device))}

    def answers(self, method: Scored, batch: Episodes, outputs: Outputs) -> list[NDArray[Any]]:
        return list(predictions(outputs["logits"], batch.placements, self.convention, method.mask_threshold))

    def rows(self, batch: Episodes, answers: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
        ids = zip(batch.numbers, batch.image_ids, batch.class_index.tolist(), strict=True)
        found = [
            (*each, *episode_counts(answer, mask))
            for each, answer, mask in zip(ids, answers, batch.masks.cpu().numpy(), strict=True)
        ]
        return np.array(found, np.int64).reshape(-1, len(self.arithmetic.columns))

    def compact(self, batch: Episodes, answers: Sequence[NDArray[Any]]) -> list[Answer]:
        return compact_masks(batch.numbers, answers)

    def examples(self, count: int) -> "EpisodeExamples":
        return EpisodeExamples(count)

    def export(self, method: Scored, batch: Episodes, outputs: Outputs) -> list[dict[str, Any]]:
        raise ConfigError("predict writes masks of sentences; episodes are scored by `rislab test`")


class EpisodeExamples(ExpressionExamples):
    """Up to `count` episodes, as expressions are kept: the class's name is the text, the episode's number the id."""

    def offer(self, batch: Episodes, answers: Sequence[NDArray[Any]]) -> None:  # type: ignore[override]  # other batches
        texts = [batch.names[number] for number in batch.class_index.tolist()]
        targets = (batch.masks == 1).cpu().numpy()
        for number, image_id, text, target, answer in zip(
            batch.numbers, batch.image_ids, texts, targets, answers, strict=True
        ):
            rank = zlib.crc32(b"%d" % number)
            if len(self._kept) >= self.count and rank > max(self._kept, default=-1):
                continue
            both = (masks.to_json(masks.encode(each)) for each in (target, answer))
            self._kept[rank] = ExpressionExample(number, image_id, text, *both)
            if len(self._kept) > self.count:
                del self._kept[max(self._kept)]
