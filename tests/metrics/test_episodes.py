"""Episode scores against the definition written out in plain Python; what a report computes again from rows."""

import numpy as np
import pytest

from rislab.evaluation.arithmetic import ClassArithmetic, arithmetic_of
from rislab.evaluation.episode_arithmetic import EpisodeArithmetic
from rislab.metrics.episodes import COLUMNS, averages, class_ious, episode_counts, parts
from rislab.metrics.unit_counts import UnitCounts
from rislab.report.results import mean_ratio

CLASSES = (4, 7, 9, 11)


def random_table(episodes: int = 40, seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Rows of random masks, and the averages of the same masks one pixel at a time. No episode has class 11."""
    rng = np.random.default_rng(seed)
    rows = []
    sums = {number: [[0, 0], [0, 0]] for number in CLASSES}  # [intersection, union] of the rest and of the class
    ious = []
    for number in range(episodes):
        mask = rng.integers(0, 2, (6, 5)).astype(np.uint8)
        mask[rng.random(mask.shape) < 0.2] = 255
        answer = rng.random(mask.shape) < 0.5
        label = int(rng.choice(CLASSES[:3]))
        rows.append((number, number % 13, label, *episode_counts(answer, mask)))
        own = [[0, 0], [0, 0]]
        for said, truth in zip(answer.ravel().tolist(), mask.ravel().tolist(), strict=True):
            if truth == 255:
                continue
            for which in (0, 1):
                own[which][0] += int(said) == which and truth == which
                own[which][1] += int(said) == which or truth == which
        for which in (0, 1):
            for what in (0, 1):
                sums[label][which][what] += own[which][what]
        ious.append(own[1][0] / max(own[1][1], 1))
    table = dict(zip(COLUMNS, np.array(rows, np.int64).T, strict=True))
    total = np.array(list(sums.values())).sum(0)
    expected = {
        "miou_fold": 100 * np.mean([one[1][0] / max(one[1][1], 1) for one in sums.values()]),
        "fb_iou": 100 * np.mean(total[:, 0] / total[:, 1]),
        "miou_episode": 100 * np.mean(ious),
    }
    return table, expected


def test_averages_are_those_of_single_pixels() -> None:
    table, expected = random_table()
    assert averages(table, CLASSES) == pytest.approx(expected)
    assert class_ious(table, CLASSES)[11] is None
    assert expected["miou_fold"] == pytest.approx(sum(v or 0 for v in class_ious(table, CLASSES).values()) / 4)


def test_a_report_gets_the_same_from_rows_and_without_any_picture() -> None:
    table, expected = random_table()
    for name, value in expected.items():
        top, bottom = parts(table, name, CLASSES)
        assert len(top) == 13
        assert mean_ratio(top.sum(0), bottom.sum(0)) == pytest.approx(value)
        without = {key: column[table["image_id"] != 5] for key, column in table.items()}
        assert mean_ratio(top.sum(0) - top[5], bottom.sum(0) - bottom[5]) == pytest.approx(
            averages(without, CLASSES)[name]
        )


def test_nothing_predicted_and_nothing_there_counts_zero() -> None:
    rows = [(0, 0, 4, *episode_counts(np.zeros((2, 2), bool), np.zeros((2, 2), np.uint8)))]
    table = dict(zip(COLUMNS, np.array(rows, np.int64).T, strict=True))
    assert averages(table, CLASSES) == {"miou_fold": 0.0, "fb_iou": 50.0, "miou_episode": 0.0}
    empty = {name: np.zeros(0, np.int64) for name in COLUMNS}
    assert set(averages(empty, CLASSES).values()) == {0.0}
    with pytest.raises(ValueError, match="prediction is"):
        episode_counts(np.zeros((2, 2), bool), np.zeros((2, 3), np.uint8))


def test_repeated_episodes_count_again_and_padded_ones_once() -> None:
    arithmetic = EpisodeArithmetic(CLASSES, ("a", "b", "c", "d"))
    counts = UnitCounts(arithmetic.columns, arithmetic.key)
    counts.update([(0, 3, 4, 1, 1, 1, 4), (1, 3, 4, 1, 1, 1, 4)])  # one picture, shown twice by the protocol
    counts.update([(0, 3, 4, 1, 1, 1, 4)])  # the first again, for a rank without one
    table = counts.compute()
    assert table["episode"].tolist() == [0, 1]
    summary = arithmetic.summary(table)
    assert (summary["episodes"], summary["images"]) == (2, 1)
    assert summary["classes"] == {"a": 100.0, "b": None, "c": None, "d": None}


def test_a_finished_trial_names_its_arithmetic() -> None:
    assert arithmetic_of({"episode_classes": [4, 7]}) == EpisodeArithmetic((4, 7))
    assert isinstance(arithmetic_of({"classes": 4}), ClassArithmetic)
    for strange in ([], ["a"], {"a": 1}, [True], None):
        assert arithmetic_of({"episode_classes": strange, "protocol": "x"}) is None
