"""Label maps of a whole data set: against a reading class by class, over processes, and in time and memory."""

import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rislab.evaluation.arithmetic import ClassArithmetic
from rislab.evaluation.semantic import class_counts
from rislab.metrics.classes import averages, confusion, iou_per_class
from rislab.metrics.unit_counts import UnitCounts
from tests.forks import on_ranks


def maps(seed: int, classes: int, size: tuple[int, int] = (7, 9)) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, size).astype(np.uint8)
    label[rng.random(size) < 0.2] = 255
    return rng.integers(0, classes, size), label


class Scores:
    """What the callback does with label maps: counts of each picture, gathered, and their averages."""

    def __init__(self, classes: int) -> None:
        self.classes, self.arithmetic, self.number = classes, ClassArithmetic([str(c) for c in range(classes)]), 0
        self.counts = UnitCounts(self.arithmetic.columns, self.arithmetic.key)

    def update(self, prediction: NDArray[np.int64], label: NDArray[np.uint8], number: int | None = None) -> None:
        number, self.number = self.number if number is None else number, self.number + 1
        self.counts.update(class_counts(prediction, label, self.classes, number))

    def compute(self) -> dict[str, float]:
        return self.arithmetic.scores(self.counts.compute())


def independent(pairs: list[tuple[NDArray[np.int64], NDArray[np.uint8]]], classes: int) -> dict[str, float]:
    """mIoU as the words say it: sets of pixels, class by class."""
    ious, recalls, right, total = [], [], 0, 0
    for c in range(classes):
        i = u = t = 0
        for prediction, label in pairs:
            for p, t_ in zip(prediction.ravel().tolist(), label.ravel().tolist(), strict=True):
                if t_ == 255:
                    continue
                i += p == c and t_ == c
                u += p == c or t_ == c
                t += t_ == c
        right, total = right + i, total + t
        ious += [i / u] if u else []
        recalls += [i / t] if t else []
    mean = {"miou_class": ious, "macc_class": recalls}
    return {name: 100 * sum(v) / len(v) if v else 0.0 for name, v in mean.items()} | {
        "aacc": 100 * right / total if total else 0.0
    }


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 6), st.integers(1, 4))
def test_agrees_with_an_independent_reading(seed: int, classes: int, count: int) -> None:
    pairs = [maps(seed + i, classes) for i in range(count)]
    metric = Scores(classes + 1)  # one class occurs nowhere
    for prediction, label in pairs:
        metric.update(prediction, label)
    assert metric.compute() == pytest.approx(independent(pairs, classes + 1))


def test_worked_out_by_hand() -> None:
    prediction = np.array([[0, 0, 1, 1]])
    label = np.array([[0, 1, 1, 255]], np.uint8)
    matrix = confusion(prediction, label, 3)
    assert matrix.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    sums = matrix.diagonal(), matrix.sum(0), matrix.sum(1)
    assert iou_per_class(*sums)[:2].tolist() == [0.5, 0.5]
    assert np.isnan(iou_per_class(*sums)[2])
    assert averages(*sums) == pytest.approx({"miou_class": 50.0, "macc_class": 75.0, "aacc": 200 / 3})
    with pytest.raises(ValueError, match="prediction is"):
        confusion(prediction, label.T, 3)
    with pytest.raises(ValueError, match="label 7 is none of 3 classes"):
        confusion(prediction, np.where(label == 1, 7, label), 3)


def one_rank(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    metric = Scores(5)
    for seed in range(rank, 7, 2):  # four and three maps
        metric.update(*maps(seed, 5), seed)
    (folder / f"{rank}.txt").write_text(repr(metric.compute()))
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_give_the_digits_of_one(tmp_path: Path) -> None:
    on_ranks(2, one_rank, tmp_path)
    one = Scores(5)
    for seed in range(7):
        one.update(*maps(seed, 5))
    assert {(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)} == {repr(one.compute())}


def test_171_classes_in_seconds_and_a_row_for_each_class_of_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 171, (480, 640)).astype(np.uint8)
    prediction = rng.integers(0, 171, (480, 640))
    metric, count = Scores(171), 200
    metric.update(prediction, label)
    tracemalloc.start()
    before, began = tracemalloc.get_traced_memory()[0], time.process_time()
    for _ in range(count):
        metric.update(prediction, label)
    seconds, grown = time.process_time() - began, tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < count * 171 * 5 * 8 * 1.2, "what is kept of a picture are its rows"
    assert int(metric.counts.compute()["target"].sum()) == (count + 1) * label.size, "no count is lost above 2**24"
    assert seconds / count * 5000 < 30, f"5,000 maps would take {seconds / count * 5000:.0f} s"


def test_counts_are_integers_and_a_repeated_key_counts_once() -> None:
    counts = UnitCounts(("episode", "hits"), ("episode",))
    counts.update([[1, 5], [0, 7]])
    counts.update([[1, 5], [2, 5]])
    counts.update(np.zeros((0, 2), np.int64))
    table = counts.compute()
    assert table["episode"].tolist() == [0, 1, 2]
    assert table["hits"].tolist() == [7, 5, 5], "episodes with equal counts are two"
    assert table["hits"].dtype == np.int64
