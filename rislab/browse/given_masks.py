"""Given masks in a browser of results: one file, or two side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rislab.browse.contents import Contents
from rislab.browse.expressions import of_answered
from rislab.browse.trials import Answered, Progress
from rislab.data import masks
from rislab.data.annotations import Reference
from rislab.data.refer import Refer
from rislab.data.truth import Expressions
from rislab.evaluation.kept_answers import Answer
from rislab.metrics.protocols import Convention
from rislab.metrics.scored_size import at_scored_size
from rislab.scoring.foreign import Reader
from rislab.scoring.score import Scores


@dataclass(frozen=True)
class Given:
    """One file or folder of masks. label: its name on the page."""

    label: str
    masks: Mapping[int, Reader]
    scores: Scores


def contents(
    title: str, refer: Refer, split: str, given: Sequence[Given], protocol: str, progress: Progress
) -> Contents:
    """What is shown of given masks of a split, as a protocol compares them.

    Args:
        title: of the page.
        refer: the data set.
        split: that was scored.
        given: with their scores.
        protocol: one that they were scored by.
        progress: called once for each mask.

    Raises:
        DataError: A picture is missing, or a mask that cannot be read.
    """
    references = refer.split(split)
    convention = given[0].scores.conventions[protocol]
    labels = _apart([each.label for each in given])
    answered = [
        Answered(
            label,
            label,
            label,
            0,
            "",
            True,
            each.scores.tables[protocol],
            _answers(each, refer, references, convention),
        )
        for label, each in zip(labels, given, strict=True)
    ]
    notes = [
        f"{label}: {len(each.scores.missing)} sentences have no mask, and count as empty masks"
        for label, each in zip(labels, given, strict=True)
        if each.scores.missing
    ]
    truth = Expressions.over(refer, references)
    return of_answered(title, f"split {split}", answered, truth, convention, notes, progress)


def _apart(labels: Sequence[str]) -> list[str]:
    """Names of files that may be the same, told apart."""
    return [label if labels.index(label) == n else f"{label} ({n + 1})" for n, label in enumerate(labels)]


def _answers(given: Given, refer: Refer, references: Sequence[Reference], convention: Convention) -> dict[int, Answer]:
    found = {}
    for reference in references:
        image = refer.images[reference.image_id]
        for expression in reference.expressions:
            reader = given.masks.get(expression.sent_id)
            rle = masks.union([], image.height, image.width) if reader is None else reader(image.height, image.width)
            if convention.side is not None:
                rle = masks.encode(at_scored_size(masks.decode(rle).view(np.bool_), convention))
            height, width = rle["size"]
            found[expression.sent_id] = Answer(expression.sent_id, height, width, rle["counts"])
    return found
