"""Scores against a plain numpy reading of the definitions, in one process and in two."""

import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st

from rislab.metrics.protocols import Protocol
from rislab.metrics.referring import ReferringScores, iou_per_expression, pixel_counts, precision_at, summarise

CRIS = Protocol.cris.convention


def reference(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """CRIS's evaluation as its paper's code words it, mask by mask."""
    ious, intersections, unions = [], 0, 0
    for prediction, target in pairs:
        both = np.logical_and(prediction, target).sum()
        either = np.logical_or(prediction, target).sum()
        ious.append(both / (either + 1e-6))
        intersections += both
        unions += either
    result = {"miou_expr": 100 * float(np.mean(ious)), "oiou": 100 * float(intersections / unions) if unions else 0.0}
    for x in (0.5, 0.6, 0.7, 0.8, 0.9):
        result[f"pr@{round(100 * x)}"] = 100 * float(np.mean([np.float32(iou) > np.float32(x) for iou in ious]))
    return result


masks = st.integers(0, 2**30).map(np.random.default_rng)


@settings(max_examples=50, deadline=None)
@given(masks, st.integers(1, 6))
def test_summary_agrees_with_the_definition(rng: np.random.Generator, count: int) -> None:
    pairs = []
    for _ in range(count):
        shape = rng.integers(1, 12, 2)
        density = rng.random(2)
        pairs.append((rng.random(shape) < density[0], rng.random(shape) < density[1]))
    counts = np.array([pixel_counts(p, t) for p, t in pairs])
    ours = summarise(counts[:, 0], counts[:, 1], CRIS.iou_eps, CRIS.strict_precision)
    for name, value in reference(pairs).items():
        assert math.isclose(ours[name], value, abs_tol=1e-9), name


@pytest.mark.parametrize(
    ("prediction", "target", "expected"),
    [
        (np.ones((4, 4)), np.ones((4, 4)), 1.0),
        (np.zeros((4, 4)), np.zeros((4, 4)), 0.0),
        (np.zeros((4, 4)), np.ones((4, 4)), 0.0),
        (np.eye(4), np.ones((4, 4)), 0.25),
    ],
    ids=["perfect", "empty-empty", "empty-full", "quarter"],
)
def test_hand_made_cases(prediction: np.ndarray, target: np.ndarray, expected: float) -> None:
    counts = np.array([pixel_counts(prediction > 0, target > 0)])
    assert iou_per_expression(counts[:, 0], counts[:, 1], 1e-6)[0] == pytest.approx(expected, abs=1e-6)


def test_precision_compares_as_the_convention_says() -> None:
    half = np.array([0.5, 0.5000001, 0.4])
    assert precision_at(half, 50, strict=True) == pytest.approx(100 / 3)
    assert precision_at(half, 50, strict=False) == pytest.approx(200 / 3)


def test_masks_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="prediction is"):
        pixel_counts(np.ones((2, 3), bool), np.ones((3, 2), bool))


def rows(count: int) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(count)
    table = []
    for sent_id in range(count):
        target, prediction = (int(v) for v in rng.integers(1, 500, 2))
        intersection = int(rng.integers(0, min(target, prediction) + 1))
        union = target + prediction - intersection
        table.append((sent_id, sent_id // 3, sent_id // 6, intersection, union, target, prediction))
    return table


def collect(rank: int, world: int, port: int, results: "mp.SimpleQueue[tuple[int, dict[str, float]]]") -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    metric = ReferringScores(CRIS.iou_eps, CRIS.strict_precision)
    for row in rows(37)[rank::world]:
        metric.update([row])
    metric.update(rows(37)[:2])  # seen by both processes: must not count again
    scores = metric.compute()
    results.put((rank, {k: v for k, v in scores.items() if k != "table"}))
    dist.destroy_process_group()


def test_two_processes_give_the_same_digits(free_port: int) -> None:
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    processes = [context.Process(target=collect, args=(rank, 2, free_port, results)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    metric = ReferringScores(CRIS.iou_eps, CRIS.strict_precision)
    metric.update(rows(37))
    alone = {k: v for k, v in metric.compute().items() if k != "table"}
    assert alone["expressions"] == 37
    assert dict([results.get(), results.get()]) == {0: alone, 1: alone}


def test_path_of_a_prediction_is_sigmoid_then_bicubic() -> None:
    """The order matters: interpolated logits give other probabilities near an edge."""
    logits = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(0)) * 8
    ours = CRIS.input_probabilities(logits, (24, 24))
    wanted = torch.nn.functional.interpolate(logits.sigmoid()[:, None], (24, 24), mode="bicubic", align_corners=True)
    other = torch.nn.functional.interpolate(logits[:, None], (24, 24), mode="bicubic", align_corners=True).sigmoid()
    torch.testing.assert_close(ours, wanted[:, 0])
    assert (ours - other[:, 0]).abs().max() > 0.1
