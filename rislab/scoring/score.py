"""Scores of given masks: every convention at once, per expression, and broken down by what makes an expression hard."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rislab.data import masks
from rislab.data.annotations import Expression, Reference
from rislab.data.masks import RLE
from rislab.data.refer import Refer
from rislab.files import replacing
from rislab.metrics.protocols import Convention, Protocol
from rislab.metrics.referring import COLUMNS, Table, averages, iou_per_expression, pixel_counts
from rislab.metrics.scored_size import at_scored_size
from rislab.scoring.foreign import Reader

Progress = Callable[[int, int], None]
Bools = NDArray[np.bool_]

POSITION = re.compile(
    r"\b(left|right|top|bottom|upper|lower|middle|center|centre|front|back|behind|above|below|under|over|beside|between|next|near"
    r"|nearest|closest|farthest|furthest|far|corner|side|edge|(left|right|top|bottom)most|lowest|highest|first|second|third|last)\b"
)


@dataclass(frozen=True)
class Scores:
    """tables: pixel counts by protocol name, all sorted by sent_id. features: what the breakdown asks of each expression.

    Attributes:
        missing: ids of the split that were not answered, and are scored as empty masks.
        unknown: ids that the data set has not.
        elsewhere: answers to other splits, which are left alone.
    """

    tables: dict[str, Table]
    conventions: dict[str, Convention]
    features: "Features"
    missing: tuple[int, ...]
    unknown: tuple[int, ...]
    elsewhere: int

    def averages(self, protocol: str) -> dict[str, float]:
        return averages(self.tables[protocol], self.conventions[protocol])


@dataclass(frozen=True)
class Features:
    """Of each expression, sorted by sent_id: texts, words (how many), share of the image that is meant, distractors of the
    same category (-1 for zero targets), whether it names a position, and how many objects are meant."""

    sentence: tuple[str, ...]
    words: NDArray[np.int64]
    share: NDArray[np.float64]
    distractors: NDArray[np.int64]
    position: Bools
    objects: NDArray[np.int64]


def score(
    refer: Refer,
    split: str,
    answers: Mapping[int, Reader],
    protocols: Sequence[str],
    no_target_min_pixels: int = 1,
    progress: Progress | None = None,
) -> Scores:
    """Compare given masks with a split under each of `protocols` (names of `Protocol`).

    Args:
        progress: called with (references done, references in all).

    Raises:
        DataError: For an unknown split and for a mask that cannot be read or has another size than its image.
    """
    references = refer.split(split)
    conventions = {
        name: replace(Protocol[name].convention, no_target_min_pixels=no_target_min_pixels) for name in protocols
    }
    rows: dict[str, list[tuple[int, ...]]] = {name: [] for name in protocols}
    missing: list[int] = []
    for number, reference in enumerate(references):
        image = refer.images[reference.image_id]
        targets = {name: refer.target(reference, convention) for name, convention in conventions.items()}
        decoded = {
            name: masks.decode(t).astype(bool) for name, t in targets.items() if conventions[name].side is not None
        }
        for expression in reference.expressions:
            reader = answers.get(expression.sent_id)
            if reader is None:
                missing.append(expression.sent_id)
            given = masks.union([], image.height, image.width) if reader is None else reader(image.height, image.width)
            ids = (expression.sent_id, reference.ref_id, reference.image_id)
            for name, counts in _counts(given, targets, decoded, conventions).items():
                rows[name].append((*ids, *counts, int(not reference.ann_ids)))
        if progress is not None:
            progress(number + 1, len(references))
    queries = {e.sent_id for reference in references for e in reference.expressions}
    everywhere = {e.sent_id for reference in refer.references for e in reference.expressions}
    other = answers.keys() - queries
    return Scores(
        tables={name: _table(found) for name, found in rows.items()},
        conventions=conventions,
        features=_features(refer, references),
        missing=tuple(sorted(missing)),
        unknown=tuple(sorted(other - everywhere)),
        elsewhere=len(other & everywhere),
    )


def _counts(
    given: RLE, targets: dict[str, RLE], decoded: dict[str, Bools], conventions: dict[str, Convention]
) -> dict[str, tuple[int, int, int, int]]:
    """(intersection, union, target, prediction) under each convention; at the original size on run lengths, undecoded."""
    found = {}
    squares: dict[int, Bools] = {}
    for name, convention in conventions.items():
        if convention.side is None:
            both = masks.intersection_area(given, targets[name])
            of_target, of_given = masks.area(targets[name]), masks.area(given)
            found[name] = both, of_target + of_given - both, of_target, of_given
            continue
        if convention.side not in squares:
            squares[convention.side] = at_scored_size(masks.decode(given).view(np.bool_), convention)
        found[name] = pixel_counts(squares[convention.side], decoded[name])
    return found


def _table(rows: list[tuple[int, ...]]) -> Table:
    array = np.array(rows, np.int64).reshape(-1, len(COLUMNS))
    return dict(zip(COLUMNS, np.ascontiguousarray(array[np.argsort(array[:, 0], kind="stable")].T), strict=True))


def _features(refer: Refer, references: Sequence[Reference]) -> Features:
    queries: list[tuple[Expression, Reference]] = sorted(
        ((e, r) for r in references for e in r.expressions), key=lambda pair: pair[0].sent_id
    )
    shares: dict[int, float] = {}
    for reference in references:
        image = refer.images[reference.image_id]
        shares[reference.ref_id] = masks.area(refer.target(reference)) / (image.height * image.width)
    return Features(
        sentence=tuple(e.sent for e, _ in queries),
        words=np.array([len(e.sent.split()) for e, _ in queries], np.int64),
        share=np.array([shares[r.ref_id] for _, r in queries]),
        distractors=np.array([refer.distractors(r) for _, r in queries], np.int64),
        position=np.array([POSITION.search(e.sent) is not None for e, _ in queries], np.bool_),
        objects=np.array([len(r.ann_ids) for _, r in queries], np.int64),
    )


def breakdown(scores: Scores, protocol: str) -> dict[str, dict[str, dict[str, float]]]:
    """Averages of the parts of the split: {by what: {part: {"expressions": n, metric: percent}}}; empty parts are absent."""
    of, table = scores.features, scores.tables[protocol]
    targeted = of.objects > 0
    parts: dict[str, dict[str, Bools]] = {
        "sentence length": {
            "1-2 words": of.words <= 2,
            "3-4 words": (of.words >= 3) & (of.words <= 4),
            "5-7 words": (of.words >= 5) & (of.words <= 7),
            "8 words or more": of.words >= 8,
        },
        "object size": {
            "below 1 % of the image": targeted & (of.share < 0.01),
            "1 to 5 %": targeted & (of.share >= 0.01) & (of.share < 0.05),
            "5 to 20 %": targeted & (of.share >= 0.05) & (of.share < 0.2),
            "above 20 %": targeted & (of.share >= 0.2),
        },
        "distractors of the same class": {
            "none": of.distractors == 0,
            "1": of.distractors == 1,
            "2": of.distractors == 2,
            "3 or more": of.distractors >= 3,
        },
        "position words": {"with": of.position, "without": ~of.position},
        "objects meant": {"none": of.objects == 0, "one": of.objects == 1, "several": of.objects > 1},
    }
    convention = scores.conventions[protocol]
    found: dict[str, dict[str, dict[str, float]]] = {}
    for by, named in parts.items():
        for part, chosen in named.items():
            if chosen.any():
                some = {name: column[chosen] for name, column in table.items()}
                found.setdefault(by, {})[part] = {"expressions": int(chosen.sum()), **averages(some, convention)}
    return found


def columns(scores: Scores, protocol: str) -> dict[str, Any]:
    """Of each expression, sorted by sent_id: ids, areas, IoU as a fraction, the sentence and what the breakdown needs of it."""
    table = scores.tables[protocol]
    of = scores.features
    return {
        **table,
        "iou": iou_per_expression(table, scores.conventions[protocol]),
        "sentence": list(of.sentence),
        "words": of.words,
        "share": of.share,
        "distractors": of.distractors,
        "position": of.position,
        "objects": of.objects,
    }


def write_table(path: Path, scores: Scores, protocol: str) -> None:
    """One row an expression: see `columns`."""
    with replacing(path) as temporary:
        pq.write_table(pa.table(columns(scores, protocol)), temporary, compression="zstd")
