"""Parts whose inside is computed again in the backward pass instead of being held for it."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def recomputed(part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """part(x), of which x alone is held for the gradient.

    Made for a cheap function followed by a matrix product: the backward pass stops computing where the product has its input, so
    the product is not computed again. Numbers are the same to the bit.

    Args:
        part: Without random numbers and without statistics that a call changes.
        x: Its input.
    """
    if not torch.is_grad_enabled():
        return part(x)
    found: Tensor = checkpoint(part, x, use_reentrant=False, preserve_rng_state=False)
    return found
