"""Cheap functions before a matrix product, computed again in the backward pass instead of being held for it."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

Function = Callable[[Tensor], Tensor]
Layout = tuple[torch.Size, tuple[int, ...], int]
"""Of a view: shape, strides, offset in its storage."""


def recomputed(cheap: Function, product: Function, x: Tensor) -> Tensor:
    """product(cheap(x)), where the backward pass of `product` makes its input again from x. Numbers are the same to the bit.

    Whatever computes the product, it is not computed again. Under autocast, which holds a copy of the input in half precision,
    nothing is saved.

    Args:
        cheap: Without random numbers and without statistics that a call changes; its own gradient does not need its output.
        product: Linear, so that its gradient needs its input.
        x: Held for the gradient, as `cheap` needs it.
    """
    y = cheap(x)
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return product(y)
    source, place = x.detach(), y.untyped_storage().data_ptr()

    def pack(held: Tensor) -> Tensor | Layout:
        if held.untyped_storage().data_ptr() != place:
            return held
        return held.shape, held.stride(), int(held.storage_offset())

    def unpack(held: Tensor | Layout) -> Tensor:
        if isinstance(held, Tensor):
            return held
        with torch.no_grad():
            return cheap(source).as_strided(*held)

    with saved_tensors_hooks(pack, unpack):
        return product(y)
