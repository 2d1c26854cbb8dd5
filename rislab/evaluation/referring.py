"""Referring segmentation: a mask for each expression, compared as the protocol's convention says."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rislab.data import masks
from rislab.data.batch import MaskQueries
from rislab.evaluation.arithmetic import ExpressionArithmetic
from rislab.evaluation.base import Evaluation, Examples, Outputs, Pictures, Scored
from rislab.evaluation.kept_answers import Answer, Form, compact_masks
from rislab.files import write_bytes, write_json
from rislab.metrics.predictions import predictions
from rislab.metrics.protocols import Convention, Protocol
from rislab.metrics.referring import pixel_counts


class ReferringEvaluation(Evaluation):
    """Scores expressions by a named convention.

    Args:
        protocol: the convention's name.
        no_target_min_pixels: a mask of fewer pixels says "nothing there", where sentences may have no referent.
    """

    form: ClassVar[Form] = "run lengths"

    def __init__(self, protocol: Protocol, no_target_min_pixels: int = 1) -> None:
        self.convention = replace(protocol.convention, no_target_min_pixels=no_target_min_pixels)
        self.arithmetic = ExpressionArithmetic(self.convention)
        self._protocol = protocol.name

    @property
    def protocol(self) -> str:
        return self._protocol

    def facts(self) -> dict[str, Any]:
        return {"no_target_min_pixels": self.convention.no_target_min_pixels}

    def refuse(self, method: Scored) -> str | None:
        return None if method.vocabulary is None else "it answers its own class names only, and no sentences"

    def predict(self, method: Scored, batch: MaskQueries) -> Outputs:
        return {"logits": method.segment(batch.images, batch.texts, batch.image_index).float()}

    def answers(self, method: Scored, batch: MaskQueries, outputs: Outputs) -> list[NDArray[Any]]:
        return list(_masks(method, batch, outputs, self.convention))

    def rows(self, batch: MaskQueries, answers: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
        assert batch.targets is not None
        index = batch.image_index.tolist()
        found = []
        for n, (mask, target) in enumerate(zip(answers, batch.targets, strict=True)):
            counts = pixel_counts(mask, masks.decode(target).astype(bool))
            ids = (batch.sent_ids[n], batch.ref_ids[n], batch.image_ids[index[n]])
            found.append((*ids, *counts, int(batch.no_target[n])))
        return np.array(found, np.int64).reshape(-1, len(self.arithmetic.columns))

    def compact(self, batch: MaskQueries, answers: Sequence[NDArray[Any]]) -> list[Answer]:
        return compact_masks(batch.sent_ids, answers)

    def examples(self, count: int) -> "ExpressionExamples":
        return ExpressionExamples(count)

    def export(self, method: Scored, batch: MaskQueries, outputs: Outputs) -> list[dict[str, Any]]:
        """Masks at the original size, whatever the protocol compares at: this is what others will score."""
        found = _masks(method, batch, outputs, replace(self.convention, side=None))
        return [
            {"sent_id": sent_id, "segmentation": masks.to_json(masks.encode(mask))}
            for sent_id, mask in zip(batch.sent_ids, found, strict=True)
        ]


def _masks(method: Scored, batch: MaskQueries, outputs: Outputs, convention: Convention) -> list[NDArray[np.bool_]]:
    """One mask a query, at the size at which the convention compares."""
    where = [batch.placements[i] for i in batch.image_index.tolist()]
    return predictions(outputs["logits"], where, convention, method.mask_threshold)


@dataclass(frozen=True)
class ExpressionExample:
    """One expression of the qualitative figure."""

    sent_id: int
    image_id: int
    text: str
    target: dict[str, Any]
    prediction: dict[str, Any]


class ExpressionExamples(Examples):
    """Up to `count` expressions. Which ones depends on their ids only: a hash of the id, lowest first."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._kept: dict[int, ExpressionExample] = {}

    @property
    def kept(self) -> Mapping[int, ExpressionExample]:
        return self._kept

    def offer(self, batch: MaskQueries, answers: Sequence[NDArray[Any]]) -> None:
        assert batch.targets is not None
        index = batch.image_index.tolist()
        for n, mask in enumerate(answers):
            rank = zlib.crc32(b"%d" % batch.sent_ids[n])
            if len(self._kept) >= self.count and rank > max(self._kept, default=-1):
                continue
            target, prediction = masks.to_json(batch.targets[n]), masks.to_json(masks.encode(mask))
            image_id = batch.image_ids[index[n]]
            self._kept[rank] = ExpressionExample(batch.sent_ids[n], image_id, batch.texts[n], target, prediction)
            if len(self._kept) > self.count:
                del self._kept[max(self._kept)]

    def gather(self, parts: Sequence[Mapping[int, ExpressionExample]]) -> None:
        everything = {rank: one for part in parts for rank, one in part.items()}
        self._kept = {rank: everything[rank] for rank in sorted(everything)[: self.count]}

    def write(self, folder: Path, data: Pictures) -> None:
        """`predictions.json`, and the pictures."""
        entries = []
        for rank in sorted(self._kept):
            one = asdict(self._kept[rank])
            suffix, picture = data.picture(one["image_id"])
            name = f"{one['image_id']}{suffix}"
            write_bytes(folder / name, picture)
            ids = {key: one.pop(key) for key in ("sent_id", "image_id", "text")}
            entries.append({**ids, "image": name, **one})
        write_json(folder / "predictions.json", entries)
