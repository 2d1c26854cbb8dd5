"""One matrix for a data set: against a reading class by class, over processes, and in constant memory."""

import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rislab.metrics.class_scores import ClassScores
from rislab.metrics.classes import class_averages, confusion, iou_per_class


def maps(seed: int, classes: int, size: tuple[int, int] = (7, 9)) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, size).astype(np.uint8)
    label[rng.random(size) < 0.2] = 255
    return rng.integers(0, classes, size), label


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
    metric = ClassScores(classes + 1)  # one class occurs nowhere
    for prediction, label in pairs:
        metric.update(prediction, label)
    assert metric.compute() == pytest.approx(independent(pairs, classes + 1))


def test_worked_out_by_hand() -> None:
    prediction = np.array([[0, 0, 1, 1]])
    label = np.array([[0, 1, 1, 255]], np.uint8)
    matrix = confusion(prediction, label, 3)
    assert matrix.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert iou_per_class(matrix)[:2].tolist() == [0.5, 0.5]
    assert np.isnan(iou_per_class(matrix)[2])
    assert class_averages(matrix) == pytest.approx({"miou_class": 50.0, "macc_class": 75.0, "aacc": 200 / 3})
    with pytest.raises(ValueError, match="prediction is"):
        confusion(prediction, label.T, 3)
    with pytest.raises(ValueError, match="label 7 is none of 3 classes"):
        confusion(prediction, np.where(label == 1, 7, label), 3)


def one_rank(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    metric = ClassScores(5)
    for seed in range(rank, 7, 2):  # four and three maps
        metric.update(*maps(seed, 5))
    (folder / f"{rank}.txt").write_text(repr(metric.compute()))
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_give_the_digits_of_one(tmp_path: Path) -> None:
    mp.spawn(one_rank, (tmp_path,), nprocs=2)
    one = ClassScores(5)
    for seed in range(7):
        one.update(*maps(seed, 5))
    assert {(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)} == {repr(one.compute())}


def test_171_classes_in_constant_memory_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 171, (480, 640)).astype(np.uint8)
    prediction = rng.integers(0, 171, (480, 640))
    metric, count = ClassScores(171), 200
    metric.update(prediction, label)
    tracemalloc.start()
    before, began = tracemalloc.get_traced_memory()[0], time.process_time()
    for _ in range(count):
        metric.update(prediction, label)
    seconds, grown = time.process_time() - began, tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 4096
    assert int(metric.matrix.sum()) == (count + 1) * label.size, "no count is lost above 2**24"
    assert seconds / count * 5000 < 30, f"5,000 maps would take {seconds / count * 5000:.0f} s"


def test_matrix_is_of_integers() -> None:
    assert ClassScores(3).matrix.dtype == torch.int64
