"""`rislab.score`: given masks of a split, under every convention."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rislab.errors import ConfigError, DataError, brief, nearest
from rislab.paths import user_path

if TYPE_CHECKING:
    from rislab.data.masks import RLE
    from rislab.scoring.score import Scores


@dataclass(frozen=True)
class Scored:
    """Scores of given masks of a split.

    Attributes:
        title: The data set and its partition.
        split: As the annotation file calls it.
        protocol: The convention of `metrics` and `parts`.
        metrics: Percent, by metric.
        protocols: The same under every convention, by its name.
        parts: Where the points are lost: {by what: {part: {"expressions": n, metric: percent}}}.
        missing: Ids of the split that have no mask; they count as empty masks.
        unknown: Ids that the data set has not; they are left out.
        elsewhere: How many masks belong to other splits; they are left out.
    """

    title: str
    split: str
    protocol: str
    metrics: Mapping[str, float]
    protocols: Mapping[str, Mapping[str, float]]
    parts: Mapping[str, Mapping[str, Mapping[str, float]]]
    missing: tuple[int, ...]
    unknown: tuple[int, ...]
    elsewhere: int
    _scores: "Scores"

    def __repr__(self) -> str:
        shown = ", ".join(f"{name} {value:.2f}" for name, value in self.metrics.items())
        missing = f", {len(self.missing)} without a mask" if self.missing else ""
        return f"Scored({self.title}, {self.split}, {self.protocol}: {shown}{missing})"

    def expressions(self) -> dict[str, NDArray[Any]]:
        """One entry an expression, sorted by sent_id, as columns; `pandas.DataFrame` takes them.

        Returns:
            ids, areas in pixels, iou (0 to 1), sentence, words, share (of the image that is meant, 0 to 1), distractors,
            position (whether a position is named), objects (how many are meant).
        """
        from rislab.scoring.score import columns

        return {name: np.asarray(column) for name, column in columns(self._scores, self.protocol).items()}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write `expressions` as parquet. Returns the file."""
        from rislab.scoring.score import write_table

        target = user_path(path)
        write_table(target, self._scores, self.protocol)
        return target


def score(
    predictions: str | os.PathLike[str] | Mapping[int, Any],
    data: str | os.PathLike[str],
    split: str,
    *,
    dataset: str | None = None,
    split_by: str | None = None,
    protocol: str = "native",
    no_target_min_pixels: int = 1,
) -> Scored:
    """Score given masks of a split of a referring data set.

    Args:
        predictions: A JSON file or folder of PNGs as `rislab score` reads them, or masks by sent_id: bool [h, w] at the
            picture's size, or COCO's run lengths.
        data: Data root, or the data set's own folder.
        split: As the annotation file calls it: val, testA ...
        dataset: Its folder below the root. Default: refcoco, or the first there is.
        split_by: Partition: unc, umd, google, final. Default: the usual one.
        protocol: The convention; docs/conventions.md.
        no_target_min_pixels: A mask of fewer pixels says that there is no referent.

    Returns:
        The scores. A sentence without a mask counts as an empty mask, and is listed.

    Raises:
        ConfigError: No such protocol; a number that is none of pixels.
        DataError: Data or masks that are missing or damaged; masks of which none belongs to the data set.
    """
    from rislab.data.locate import locate
    from rislab.metrics.protocols import Protocol
    from rislab.scoring import foreign
    from rislab.scoring import score as scoring

    known = list(Protocol.__members__)
    if protocol not in known:
        raise ConfigError(f"no protocol {protocol!r}{nearest(str(protocol), known)}; protocols are {', '.join(known)}")
    if isinstance(no_target_min_pixels, bool) or not isinstance(no_target_min_pixels, int) or no_target_min_pixels < 1:
        raise ConfigError(f"no_target_min_pixels is {no_target_min_pixels!r}, expected 1 or more")
    answers = _readers(predictions) if isinstance(predictions, Mapping) else foreign.Predictions(user_path(predictions))
    folder = locate(user_path(data), dataset, split_by)
    scores = scoring.score(folder.read(), split, answers, known, no_target_min_pixels)
    if len(scores.unknown) == len(answers):
        some = ", ".join(map(str, scores.unknown[:4]))
        raise DataError(
            f"none of the {len(answers)} masks belongs to {folder.title}: unknown sentence ids ({some} ...)"
        )
    return Scored(
        folder.title,
        split,
        protocol,
        scores.averages(protocol),
        {name: scores.averages(name) for name in known},
        scoring.breakdown(scores, protocol),
        scores.missing,
        scores.unknown,
        scores.elsewhere,
        scores,
    )


def _readers(given: Mapping[int, Any]) -> "dict[int, Callable[[int, int], RLE]]":
    if not given:
        raise ConfigError("predictions is empty, expected masks by sent_id")
    for sent_id in given:
        if isinstance(sent_id, bool) or not isinstance(sent_id, (int, np.integer)):
            raise ConfigError(f"predictions: key {brief(sent_id)} is no sent_id, expected a whole number")
    for sent_id, mask in given.items():
        if not isinstance(mask, Mapping) and not (isinstance(mask, np.ndarray) and mask.dtype == np.bool_):
            kind = f"array of {mask.dtype}" if isinstance(mask, np.ndarray) else type(mask).__name__
            raise ConfigError(f"predictions[{sent_id}] is a {kind}, expected a bool array [h, w] or run lengths")
    return {int(sent_id): _reader(int(sent_id), mask) for sent_id, mask in given.items()}


def _reader(sent_id: int, given: Any) -> "Callable[[int, int], RLE]":
    """What `scoring.score` calls with the picture's (height, width)."""
    from rislab.data import masks

    where = f"predictions[{sent_id}]"

    def read(height: int, width: int) -> "RLE":
        if isinstance(given, Mapping):
            try:
                return masks.from_segmentation(dict(given), height, width)
            except DataError as error:
                raise DataError(f"{where}: {error}") from None
        if given.shape != (height, width):
            raise DataError(f"{where} has shape {list(given.shape)}, its picture has [{height}, {width}]")
        return masks.encode(given)

    return read
