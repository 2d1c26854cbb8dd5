"""Matrix products of large networks on a CPU through oneDNN.

torch computes linear layers in float32 with MKL, which reaches less than half of an AMD processor's rate, and 1 x 1 convolutions
on one thread likewise; its oneDNN, which computes its other convolutions, has no such gap (240 instead of 105 GFLOP a CPU second
on an EPYC with AVX-512). Numbers are the same up to rounding, and the same in every run.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

LARGE = 20_000_000
"""Parameters of a network from which on it is worth it. Toy networks, which have fewer, compute as before to the bit."""
LEAST = 1 << 16
"""Products in a matrix product below which oneDNN's own costs are more than it saves."""


def fast_products(module: nn.Module) -> AbstractContextManager[object]:
    """Within it, linear layers of a large network on a CPU go through oneDNN: those of its forward pass, and their gradients."""
    if module not in _sizes:
        _sizes[module] = sum(each.numel() for each in module.parameters())
    is_on_cpu = next((each.device.type == "cpu" for each in module.parameters()), False)
    return _ThroughOneDNN() if _sizes[module] >= LARGE and is_on_cpu and is_available() else nullcontext()


_sizes: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
"""Parameters of a network: to count them in every step takes as long as some of its layers."""


def checkpointed(function: Callable[..., Any], *arguments: Any) -> Any:
    """`torch.utils.checkpoint`, without re-entrance, whose second pass meets the operators of the first one.

    A mode of torch functions, which `fast_products` is, does not hold in the backward pass.
    """

    def contexts() -> tuple[AbstractContextManager[object], AbstractContextManager[object]]:
        return nullcontext(), _ThroughOneDNN() if _is_active.get() else nullcontext()

    return checkpoint(function, *arguments, use_reentrant=False, context_fn=contexts)


def is_available() -> bool:
    """Whether this torch has the operator."""
    return bool(torch.backends.mkldnn.is_available()) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias by oneDNN, for float32 on a CPU: [..., C], [D, C], [D] -> [..., D]. No gradient.

    A weight with gaps, such as some columns of a larger one, is copied: oneDNN takes a thousand times as long for it.
    """
    if not weight.is_contiguous() and not weight.T.is_contiguous():
        weight = weight.contiguous()
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return found


class _Linear(torch.autograd.Function):
    """`product` of a matrix [R, C]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        return (
            product(grad, weight.T) if ctx.needs_input_grad[0] else None,
            product(grad.T, x.T) if ctx.needs_input_grad[1] else None,
            grad.sum(0) if ctx.has_bias and ctx.needs_input_grad[2] else None,
        )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`, through oneDNN where that is worth it."""
    given = [each for each in (x, weight, bias) if each is not None]
    if (
        x.numel() * weight.shape[0] < LEAST
        or any(each.dtype != torch.float32 or each.device.type != "cpu" for each in given)
        or torch.is_autocast_enabled("cpu")
    ):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and any(each.requires_grad for each in given):
        # Of a matrix, so that its result is no view: one that is made inside a function must not be changed in place.
        found: Tensor = _Linear.apply(x.reshape(-1, x.shape[-1]), weight, bias)
        return found.view(*x.shape[:-1], -1)
    return product(x, weight, bias)


def matmul(x: Tensor, other: Tensor) -> Tensor:
    """`torch.matmul`; a product with one matrix is a linear layer."""
    is_linear = isinstance(x, Tensor) and isinstance(other, Tensor) and other.ndim == 2 and x.ndim > 1
    return linear(x, other.T) if is_linear else torch.matmul(x, other)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """`F.conv2d`; one of 1 x 1 is a linear layer of the channels, where they come last."""
    is_linear = (
        weight.shape[2:] == (1, 1)
        and _all(stride, 1)
        and _all(padding, 0)
        and groups == 1
        and x.ndim == 4
        and x.is_contiguous(memory_format=torch.channels_last)
    )
    if not is_linear:
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    return linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


def _all(values: Any, number: int) -> bool:
    return values == number or (
        isinstance(values, Iterable) and not isinstance(values, str) and set(values) == {number}
    )


def attended(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    *others: Any,
    **options: Any,
) -> Any:
    """`F.multi_head_attention_forward`, the function behind `nn.MultiheadAttention`, by the products of this module.

    Forms of it that no method has, and that nothing here knows, go to torch.
    """
    names = ("bias_k", "bias_v", "add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias")
    at = dict(zip(names, others, strict=False)) | options
    mask, hidden = at.get("attn_mask"), at.get("key_padding_mask")
    is_known = (
        len(others) <= len(names)
        and in_proj_weight is not None
        and query.ndim == 3
        and at["bias_k"] is None
        and at["bias_v"] is None
        and not at["add_zero_attn"]
        and not at.get("need_weights", True)
        and not at.get("use_separate_proj_weight", False)
        and at.get("static_k") is None
        and at.get("static_v") is None
        and (mask is None or (mask.ndim == 2 and hidden is None))
        and (hidden is None or hidden.ndim == 2)
    )
    if not is_known or in_proj_weight is None:
        return F.multi_head_attention_forward(
            query, key, value, embed_dim_to_check, num_heads, in_proj_weight, in_proj_bias, *others, **options
        )
    weights = in_proj_weight.chunk(3)
    biases = (None, None, None) if in_proj_bias is None else in_proj_bias.chunk(3)
    if query is key and key is value:
        parts: Iterable[Tensor] = linear(query, in_proj_weight, in_proj_bias).chunk(3, -1)
    else:
        parts = [linear(x, weight, bias) for x, weight, bias in zip((query, key, value), weights, biases, strict=True)]
    q, k, v = (part.unflatten(2, (num_heads, -1)).permute(1, 2, 0, 3) for part in parts)  # [B, heads, T, d]
    if mask is None and hidden is not None:
        mask = ~hidden[:, None, None] if hidden.dtype == torch.bool else hidden[:, None, None]
    elif mask is not None and mask.dtype == torch.bool:
        mask = ~mask
    dropout = at["dropout_p"] if at.get("training", True) else 0.0
    found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
    return linear(found.permute(2, 0, 1, 3).flatten(2), at["out_proj_weight"], at["out_proj_bias"]), None


_is_active: ContextVar[bool] = ContextVar("_is_active", default=False)


class _ThroughOneDNN(TorchFunctionMode):
    def __enter__(self) -> "_ThroughOneDNN":
        self.before = _is_active.set(True)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        _is_active.reset(self.before)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _OURS.get(func, func)(*args, **(kwargs or {}))


_OURS: dict[Callable[..., Any], Callable[..., Any]] = {
    F.linear: linear,
    torch.matmul: matmul,
    Tensor.matmul: matmul,
    Tensor.__matmul__: matmul,
    F.conv2d: conv2d,
    F.multi_head_attention_forward: attended,
}
