"""Operations of a piece of work, and what this machine can do of them in matrix products."""

import time
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from rislab.nn.matrix_products import is_available, product

Shape = tuple[int, ...]
SIDE, SECONDS = 1024, 0.5
"""Of the matrix product that is timed, and for how long."""


def attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Of q k^T and of the weights times v: queries [B, H, S, D], keys [B, H, T, D], values [B, H, T, E]."""
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def attention_backward(_: Shape, query: Shape, key: Shape, value: Shape, *__: Any, **___: Any) -> int:
    """The weights once more, and the gradients of weights, queries, keys and values."""
    return 2 * prod(query[:-1]) * key[-2] * (3 * query[-1] + 2 * value[-1])


def whole_attention(query: Shape, key: Shape, value: Shape, width: int, *_: Any, **__: Any) -> int:
    """Attention with its projections, as torch computes it in one operator without gradients: [B, S, C], [B, T, C]."""
    batch, length, other = query[0], query[-2], key[-2]
    projections = 2 * batch * width * width * (2 * length + 2 * other)
    return projections + 4 * batch * length * other * width


def linear(x: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    """Of [..., C] with [D, C]."""
    return 2 * prod(x) * weight[0]


LEFT_OUT: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
    torch.ops.aten._native_multi_head_attention: whole_attention,
}
"""Operators that torch's counter takes for nothing."""

if is_available():
    LEFT_OUT[torch.ops.mkldnn._linear_pointwise] = linear


def counted(work: Callable[[], object]) -> float:
    """GFLOP of a piece of work, which is done once: products of matrices and convolutions, two operations a product."""
    counter = FlopCounterMode(display=False, custom_mapping=LEFT_OUT)
    with counter:
        work()
    return counter.get_total_flops() / 1e9


def matrix_rate() -> float:
    """GFLOP a CPU second of this machine, in float32, in square matrix products: the best of several, by MKL and by oneDNN."""
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    ways: list[Callable[[Tensor, Tensor], Tensor]] = [torch.matmul, *([product] if is_available() else [])]
    best, began = float("inf"), time.perf_counter()
    while best == float("inf") or time.perf_counter() - began < SECONDS:
        for way in ways:
            worked = time.process_time()
            for _ in range(4):
                way(a, b)
            best = min(best, (time.process_time() - worked) / 4)
    return 2 * SIDE**3 / best / 1e9
