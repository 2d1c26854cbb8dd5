"""Few-shot episodes: one picture, one class, a mask of it and of the rest.

`miou_fold`: mean over the classes of a fold of I / U, each summed over all episodes of the class; U is at least 1, so a class
that no episode has counts 0. `fb_iou`: mean of the IoU of the class and of the rest, both summed over all episodes.
`miou_episode`: mean over episodes of the IoU of the class; 0 where neither mask has a pixel. Ignored pixels count nowhere. All in
percent. Source: juhongm999/hsnet, common/{evaluation,logger}.py, as isl-org/lang-seg uses it; the last one is ours.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

IGNORED = 255
COLUMNS = ("episode", "image_id", "class", "intersection", "prediction", "target", "pixels")
"""Of one episode: its number, its picture, its class, pixels of the class, and all pixels that are scored."""
AVERAGES = ("miou_fold", "fb_iou", "miou_episode")

Table = Mapping[str, NDArray[np.int64]]
Parts = tuple[NDArray[np.float64], NDArray[np.float64]]


def episode_counts(prediction: NDArray[np.bool_], mask: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """(intersection, prediction, target, pixels) of masks [h, w] of one size; `mask` is 1, 0, or 255 where ignored.

    Raises:
        ValueError: The sizes differ.
    """
    if prediction.shape != mask.shape:
        raise ValueError(f"prediction is {prediction.shape}, mask is {mask.shape}")
    scored, target = mask != IGNORED, mask == 1
    counts = (prediction & target, prediction & scored, target, scored)
    return tuple(int(each.sum()) for each in counts)  # type: ignore[return-value]  # four of them


def areas(table: Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Intersections and unions of each episode, int64 [2, N]: of the rest, and of the class."""
    union = table["prediction"] + table["target"] - table["intersection"]
    pixels = table["pixels"]
    return np.stack([pixels - union, table["intersection"]]), np.stack([pixels - table["intersection"], union])


def parts(table: Table, metric: str, classes: Sequence[int]) -> Parts:
    """Numerators and denominators of an average, float64 [pictures, K], pictures in order of their id.

    The average is the mean over columns of sum / sum.

    Args:
        table: Columns as in `COLUMNS`.
        metric: One of `AVERAGES`.
        classes: Of the fold.

    Raises:
        KeyError: There is no such average.
    """
    pictures, row = np.unique(table["image_id"], return_inverse=True)
    hits, unions = areas(table)

    def spread(values: NDArray[np.float64], column: NDArray[np.intp], count: int) -> NDArray[np.float64]:
        out = np.zeros((len(pictures), count))
        np.add.at(out, (row, column), values)
        return out

    episodes = np.arange(len(row))
    if metric == "miou_fold":
        column_of = {number: at for at, number in enumerate(classes)}
        column = np.array([column_of[number] for number in table["class"].tolist()], np.intp)
        top, bottom = (spread(each[1].astype(np.float64), column, len(classes)) for each in (hits, unions))
    elif metric == "fb_iou":
        both = np.repeat([[0, 1]], len(episodes), 0)
        flat = row[:, None].repeat(2, 1)
        top, bottom = np.zeros((len(pictures), 2)), np.zeros((len(pictures), 2))
        np.add.at(top, (flat, both), hits.T)
        np.add.at(bottom, (flat, both), unions.T)
    elif metric == "miou_episode":
        one = np.zeros(len(episodes), np.intp)
        top = spread(hits[1] / np.maximum(unions[1], 1), one, 1)
        bottom = spread(np.ones(len(episodes)), one, 1)
    else:
        raise KeyError(metric)
    # A union of nothing is 1: such a column counts 0 instead of being left out, also without any one picture.
    bottom[:, bottom.sum(0) == 0] = 1.0
    return top, bottom


def averages(table: Table, classes: Sequence[int]) -> dict[str, float]:
    """The averages by name, in percent; 0 where there is no episode."""
    found = {}
    for name in AVERAGES:
        top, bottom = (each.sum(0) for each in parts(table, name, classes))
        found[name] = 100.0 * float((top / np.maximum(bottom, 1.0)).mean()) if len(top) else 0.0
    return found


def class_ious(table: Table, classes: Sequence[int]) -> dict[int, float | None]:
    """The IoU of each class of a fold over all its episodes, in percent; None for a class without one."""
    top, bottom = (each.sum(0) for each in parts(table, "miou_fold", classes))
    drawn = set(table["class"].tolist())
    ious = 100.0 * top / np.maximum(bottom, 1.0)
    return {number: float(iou) if number in drawn else None for number, iou in zip(classes, ious, strict=True)}
