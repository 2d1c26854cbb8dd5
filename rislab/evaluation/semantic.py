"""Label maps of a vocabulary: every class over the whole split together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rislab.data.batch import LabelledPictures
from rislab.errors import ConfigError
from rislab.evaluation.arithmetic import ClassArithmetic
from rislab.evaluation.base import Evaluation, Outputs, Scored
from rislab.evaluation.kept_answers import Answer, Form, map_to_bytes, small_map
from rislab.evaluation.label_examples import LabelExamples
from rislab.metrics.classes import confusion


@dataclass(frozen=True)
class Grouping:
    """Names of the queries, and the class that the answer with each of them counts as, by number.

    Source: ReCo, eval.py: the largest score over the names first, then the group of that name.
    """

    names: tuple[str, ...]
    classes: tuple[int, ...]


class SemanticEvaluation(Evaluation):
    """Scores label maps of class names.

    Args:
        protocol: name of the protocol that shows pictures.
        name_set: name of the set of class names that the protocol uses.
        names: classes by label, background first where there is one.
        has_scales: whether pictures are shown at several scales.
        grouping: where the queries have other names than `names`; None where they are the same.
    """

    form: ClassVar[Form] = "label maps"

    def __init__(
        self,
        protocol: str,
        name_set: str,
        names: Sequence[str],
        has_scales: bool = False,
        grouping: Grouping | None = None,
    ) -> None:
        self._protocol, self.name_set, self.has_scales = protocol, name_set, has_scales
        self.grouping = grouping
        self.names = tuple(names)
        self.arithmetic = ClassArithmetic(self.names)

    @property
    def protocol(self) -> str:
        return self._protocol

    def facts(self) -> dict[str, Any]:
        return {"names": self.name_set, "classes": len(self.names)}

    def refuse(self, method: Scored) -> str | None:
        if self.has_scales and not method.multi_scale:
            return f"its protocol {self._protocol} shows pictures at several scales, and the method fuses windows by itself"
        queries = self.names if self.grouping is None else self.grouping.names
        missing = [] if method.vocabulary is None else [name for name in queries if name not in method.vocabulary]
        return f"it answers its own class names only, and not {missing[0]!r}" if missing else None

    def predict(self, method: Scored, batch: LabelledPictures) -> Outputs:
        return {"labels": method.label(batch)}

    def answers(self, method: Scored, batch: LabelledPictures, outputs: Outputs) -> list[NDArray[Any]]:
        labels = [label.cpu().numpy() for label in outputs["labels"]]
        if self.grouping is None:
            return labels
        classes = np.asarray(self.grouping.classes)
        return [classes[label] for label in labels]

    def rows(self, batch: LabelledPictures, answers: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
        found = [
            class_counts(answer, label, len(self.names), number)
            for number, answer, label in zip(batch.ids, answers, batch.labels, strict=True)
        ]
        return np.concatenate(found) if found else np.zeros((0, len(self.arithmetic.columns)), np.int64)

    def compact(self, batch: LabelledPictures, answers: Sequence[NDArray[Any]]) -> list[Answer]:
        return compact_maps(batch.ids, answers)

    def examples(self, count: int) -> LabelExamples:
        return LabelExamples(count, self.names)

    def export(self, method: Scored, batch: LabelledPictures, outputs: Outputs) -> list[dict[str, Any]]:
        raise ConfigError("predict writes masks of sentences; label maps of a vocabulary: rislab segment --classes")


def compact_maps(ids: Sequence[int], answers: Sequence[NDArray[Any]]) -> list[Answer]:
    """Label maps [H, W] by the number of their picture, made small."""
    small = [small_map(answer.astype(np.uint8)) for answer in answers]
    return [
        Answer(number, each.shape[0], each.shape[1], map_to_bytes(each))
        for number, each in zip(ids, small, strict=True)
    ]


def class_counts(prediction: NDArray[Any], label: NDArray[Any], classes: int, image: int) -> NDArray[np.int64]:
    """One row a class that is in a picture, int64 [K, 5], in the order of `ClassArithmetic.columns`."""
    matrix = confusion(prediction, label, classes)
    predicted, labelled = matrix.sum(0), matrix.sum(1)
    there = np.flatnonzero(predicted + labelled)
    columns = (np.full(len(there), image), there, matrix.diagonal()[there], predicted[there], labelled[there])
    return np.stack(columns, axis=1).astype(np.int64)
