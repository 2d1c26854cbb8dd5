"""Every convention against a plain numpy reading of its official code, in one process and in two."""

import math
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.queues import SimpleQueue
from random import Random
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rislab.evaluation.arithmetic import ExpressionArithmetic
from rislab.metrics.protocols import NATIVE, PRECISION_AT, Protocol
from rislab.metrics.referring import COLUMNS, averages, pixel_counts
from rislab.metrics.unit_counts import UnitCounts
from tests.forks import forking

Mask = NDArray[np.bool_]
Sample = tuple[Mask, Mask, bool]
"""Prediction, target, and whether nothing is meant."""
SHARES = (0.5, 0.6, 0.7, 0.8, 0.9)


def percent(values: list[float] | list[bool]) -> float:
    return 100 * float(np.mean(values)) if values else 0.0


def areas(prediction: Mask, target: Mask) -> tuple[int, int]:
    return int(np.logical_and(prediction, target).sum()), int(np.logical_or(prediction, target).sum())


def cris(samples: list[Sample]) -> dict[str, float]:
    """engine.inference: every sentence, I / (U + 1e-6), strictly above; "IoU" is the mean. oiou is ours."""
    ious = [i / (u + 1e-6) for i, u in (areas(p, t) for p, t, _ in samples)]
    found = {"miou_expr": percent(ious), **overall(samples)}
    return found | {f"pr@{round(100 * x)}": percent([np.float32(v) > np.float32(x) for v in ious]) for x in SHARES}


def overall(samples: list[Sample]) -> dict[str, float]:
    both = [areas(p, t) for p, t, _ in samples]
    union = sum(u for _, u in both)
    return {"oiou": 100 * sum(i for i, _ in both) / union if union else 0.0}


def lavt(samples: list[Sample]) -> dict[str, float]:
    """test.py: IoU 0 without intersection or union, at least, mean and overall."""
    ious = [i / u if u else 0.0 for i, u in (areas(p, t) for p, t, _ in samples)]
    found = {"miou_expr": percent(ious), **overall(samples)}
    return found | {f"pr@{round(100 * x)}": percent([np.float32(v) >= np.float32(x) for v in ious]) for x in SHARES}


def dmmi(samples: list[Sample]) -> dict[str, float]:
    """test.py for Ref-ZOM: zero-target sentences leave the IoUs; right when not one pixel is foreground."""
    found = lavt([sample for sample in samples if not sample[2]])
    nothing = [not p.any() for p, _, none in samples if none]
    return found | ({"acc": percent(nothing)} if nothing else {})


def rela(samples: list[Sample]) -> dict[str, float]:
    """ReferEvaluator, sample by sample; a method without a no-target head says "none" with an empty mask."""
    total_i = total_u = tp = tn = fp = fn = 0
    scores, hits = [], {0.7: 0, 0.8: 0, 0.9: 0}
    for prediction, target, none in samples:
        says_none = not prediction.any()
        i, u = areas(prediction, target)
        if none:
            if says_none:
                tp += 1
                scores.append(1.0)
            else:
                fn += 1
                scores.append(0.0)
                total_u += int(prediction.sum())
            continue
        if says_none:
            fp += 1
            i = 0
        else:
            tn += 1
        iou = i / u if u else 0.0
        scores.append(iou)
        total_i, total_u = total_i + i, total_u + u
        for x in hits:
            hits[x] += np.float32(iou) >= np.float32(x)
    targeted = tn + fp
    return {
        "giou": percent(scores),
        "ciou": 100 * total_i / total_u if total_u else 0.0,
        "n_acc": 100 * tp / (tp + fn) if tp + fn else 0.0,
        "t_acc": 100 * tn / targeted if targeted else 0.0,
        **{f"pr@{round(100 * x)}": 100 * n / targeted if targeted else 0.0 for x, n in hits.items()},
    }


def native(samples: list[Sample]) -> dict[str, float]:
    """As DMMI, and where something has no referent, generalised RES beside it."""
    generalised = {k: v for k, v in rela(samples).items() if not k.startswith("pr@")}
    return dmmi(samples) | (generalised if any(none for _, _, none in samples) else {})


OFFICIAL: dict[str, Callable[[list[Sample]], dict[str, float]]] = {
    "native": native,
    "cris": cris,
    "lavt": lavt,
    "dmmi": dmmi,
    "rela": rela,
}
EACH = pytest.mark.parametrize("name", list(Protocol.__members__))


def table(samples: list[Sample]) -> dict[str, NDArray[np.int64]]:
    rows = [(n, n, n // 2, *pixel_counts(p, t), int(none)) for n, (p, t, none) in enumerate(samples)]
    return dict(zip(COLUMNS, np.array(rows, np.int64).T, strict=True))


def assert_agrees(name: str, samples: list[Sample]) -> None:
    ours = averages(table(samples), Protocol[name].convention)
    theirs = OFFICIAL[name](samples)
    assert ours.keys() == theirs.keys()
    for metric, value in theirs.items():
        assert math.isclose(ours[metric], value, abs_tol=1e-9), metric


FULL, NONE, TINY = np.ones((20, 20), bool), np.zeros((20, 20), bool), np.zeros((20, 20), bool)
TINY[7, 9] = True
TWO_PARTS = np.zeros((20, 20), bool)
TWO_PARTS[:5] = TWO_PARTS[12:] = True
HAND_MADE: dict[str, list[Sample]] = {
    "perfect": [(FULL, FULL, False)],
    "empty for nothing": [(NONE, NONE, True)],
    "empty for an object": [(NONE, FULL, False)],
    "full for nothing": [(FULL, NONE, True)],
    "a fault of the file": [(NONE, NONE, False), (FULL, NONE, False)],
    "tiny object found": [(TINY, TINY, False)],
    "tiny object drowned": [(FULL, TINY, False)],
    "several parts": [(TWO_PARTS, TWO_PARTS, False), (TWO_PARTS & (np.arange(20) < 10), TWO_PARTS, False)],
    "exactly a half, as pr@50 sees it": [(FULL & (np.arange(20) < 10), FULL, False)],
    "exactly 7/10": [(FULL & (np.arange(20) < 14), FULL, False)],
    "everything": [
        (FULL, FULL, False),
        (NONE, NONE, True),
        (FULL, NONE, True),
        (TINY, FULL, False),
        (NONE, TINY, False),
    ],
}


@EACH
@pytest.mark.parametrize("case", HAND_MADE)
def test_hand_made_cases(name: str, case: str) -> None:
    assert_agrees(name, HAND_MADE[case])


def test_what_the_conventions_disagree_on() -> None:
    """One answer, five numbers: the reason for this module."""
    half = averages(table(HAND_MADE["exactly a half, as pr@50 sees it"]), Protocol.cris.convention)
    assert (half["pr@50"], averages(table(HAND_MADE["exactly a half, as pr@50 sees it"]), NATIVE)["pr@50"]) == (0, 100)
    nothing = table(HAND_MADE["empty for nothing"])
    assert averages(nothing, Protocol.lavt.convention)["miou_expr"] == 0
    assert averages(nothing, Protocol.dmmi.convention)["acc"] == 100
    assert averages(nothing, Protocol.rela.convention)["giou"] == 100


samples = st.tuples(st.integers(0, 2**30), st.integers(1, 12)).map(
    lambda drawn: _random(np.random.default_rng(drawn[0]), drawn[1])
)


def _random(rng: np.random.Generator, count: int) -> list[Sample]:
    made = []
    for _ in range(count):
        shape, density, none = rng.integers(1, 12, 2), rng.random(2), bool(rng.random() < 0.3)
        prediction = rng.random(shape) < density[0] * (rng.random() < 0.8)
        made.append((prediction, np.zeros(shape, bool) if none else rng.random(shape) < density[1], none))
    return made


@EACH
@settings(max_examples=50, deadline=None)
@given(samples)
def test_averages_agree_with_the_official_reading(name: str, samples: list[Sample]) -> None:
    assert_agrees(name, samples)


@EACH
@settings(max_examples=25, deadline=None)
@given(samples, st.randoms())
def test_identities(name: str, samples: list[Sample], random: Random) -> None:
    convention = Protocol[name].convention
    given_order = averages(table(samples), convention)
    shuffled = random.sample(samples, len(samples))
    for metric, value in averages(table(shuffled), convention).items():
        assert math.isclose(value, given_order[metric], abs_tol=1e-9), "the order of expressions matters"
    real = [(t, t, False) for _, t, _ in samples if t.any()]
    if real:
        perfect = averages(table(real), convention)
        perfect.pop("n_acc", None)  # of no zero targets: 0, as ReLA prints it
        assert all(value > 99.99 for value in perfect.values()), "a perfect answer is not perfect"
    swapped = [(t, p, False) for p, t, none in samples if not none]
    straight = [(p, t, False) for p, t, none in samples if not none]
    if straight and "oiou" in convention.averages:
        for metric in ("oiou", "miou_expr"):
            one, other = (averages(table(way), convention)[metric] for way in (straight, swapped))
            assert math.isclose(one, other, abs_tol=1e-9), "IoU is not symmetric"


def test_few_pixels_may_say_none() -> None:
    convention = replace(Protocol.rela.convention, no_target_min_pixels=2)
    assert averages(table([(TINY, NONE, True)]), convention)["n_acc"] == 100
    wrong = averages(table([(TINY, TINY, False), (FULL, FULL, False)]), convention)
    assert (wrong["giou"], wrong["t_acc"]) == (50, 50)
    assert wrong["ciou"] == pytest.approx(100 * 400 / 401)


def test_masks_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="prediction is"):
        pixel_counts(np.ones((2, 3), bool), np.ones((3, 2), bool))


def rows(count: int) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(count)
    table = []
    for sent_id in range(count):
        none = int(sent_id % 5 == 0)
        target, prediction = int(rng.integers(1, 500)) * (1 - none), int(rng.integers(0, 500) * (rng.random() < 0.7))
        intersection = int(rng.integers(0, min(target, prediction) + 1))
        union = target + prediction - intersection
        table.append((sent_id, sent_id // 3, sent_id // 6, intersection, union, target, prediction, none))
    return table


def scored(arithmetic: ExpressionArithmetic, counts: UnitCounts) -> dict[str, Any]:
    table = counts.compute()
    return arithmetic.scores(table) | arithmetic.summary(table)


def collect(rank: int, world: int, port: int, results: "SimpleQueue[tuple[int, dict[str, dict[str, float]]]]") -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    found = {}
    for name, protocol in Protocol.__members__.items():
        arithmetic = ExpressionArithmetic(protocol.convention)
        metric = UnitCounts(arithmetic.columns, arithmetic.key)
        for row in rows(37)[rank::world]:  # 19 and 18
            metric.update([row])
        metric.update(rows(37)[:2])  # seen by both processes: must not count again
        found[name] = scored(arithmetic, metric)
    results.put((rank, found))
    dist.destroy_process_group()


def test_two_processes_give_the_same_digits(free_port: int) -> None:
    results = forking().SimpleQueue()
    processes = [forking().Process(target=collect, args=(rank, 2, free_port, results)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    alone = {}
    for name, protocol in Protocol.__members__.items():
        arithmetic = ExpressionArithmetic(protocol.convention)
        metric = UnitCounts(arithmetic.columns, arithmetic.key)
        metric.update(rows(37))
        alone[name] = scored(arithmetic, metric)
    assert all(scores["expressions"] == 37 and scores["zero_target"] == 8 for scores in alone.values())
    assert dict([results.get(), results.get()]) == {0: alone, 1: alone}


def test_every_metric_has_a_threshold_that_is_checked() -> None:
    assert {f"pr@{round(100 * x)}" for x in SHARES} == {f"pr@{x}" for x in PRECISION_AT}
