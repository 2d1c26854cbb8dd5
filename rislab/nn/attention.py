"""Attention whose memory does not grow with queries times keys."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK = 512
"""Queries that are computed together where the kernel would keep all their weights."""


def attention(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, hidden: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v.

    torch's kernels keep no weights on a GPU, and none on a CPU without dropout. On a CPU with dropout torch would keep several
    copies of all weights, 415 MB each of a picture with 3,600 pixels and 8 heads; there, queries go through in chunks that are
    computed again for their gradient.

    Args:
        q: [N, heads, P, d].
        k: [N, heads, L, d].
        v: [N, heads, L, d].
        dropout: Rate at which weights are dropped; 0 in evaluation.
        hidden: bool [N, L], keys that no query may look at.

    Returns:
        [N, heads, P, d].
    """
    mask = None if hidden is None else ~hidden[:, None, None]
    if not dropout or q.device.type != "cpu" or q.shape[2] <= CHUNK or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)

    def some(rows: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(rows, k, v, attn_mask=mask, dropout_p=dropout)

    return torch.cat([checkpoint(some, rows, use_reentrant=False) for rows in q.split(CHUNK, 2)], dim=2)
