"""The transformer decoder layer of both of DMMI's decoders: post-norm, with torch's names, as its checkpoints have them."""

import torch.nn.functional as F
from torch import Tensor, nn

from rislab.nn.attention import attention


class MultiheadAttention(nn.Module):
    """torch's multi-head attention by its parameters; the weights of pixels among themselves are never held as a whole.

    Args:
        width: D.
        heads: Divides the width.
        dropout: Of attention weights, in training.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        torchs = nn.MultiheadAttention(width, heads)  # its start: Xavier for all three at once, zeros as biases
        self.in_proj_weight, self.in_proj_bias = torchs.in_proj_weight, torchs.in_proj_bias
        self.out_proj = nn.Linear(width, width)
        nn.init.zeros_(self.out_proj.bias)
        self.heads, self.dropout = heads, dropout

    def forward(self, x: Tensor, memory: Tensor, hidden: Tensor | None = None) -> Tensor:
        """What x [N, P, D] finds in memory [N, L, D]. hidden: bool [N, L], rows of memory that are not looked at."""
        D = x.shape[-1]
        if x is memory:
            q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).split(D, -1)
        else:
            weights, biases = self.in_proj_weight, self.in_proj_bias
            q = F.linear(x, weights[:D], biases[:D])
            k, v = F.linear(memory, weights[D:], biases[D:]).split(D, -1)
        q, k, v = (each.unflatten(2, (self.heads, -1)).transpose(1, 2) for each in (q, k, v))
        found = attention(q, k, v, self.dropout if self.training else 0.0, hidden)
        return self.out_proj(found.transpose(1, 2).flatten(2))


class DecoderLayer(nn.Module):
    """Self attention, attention to a memory, feed-forward part, each followed by its residual and LayerNorm.

    Args:
        width: D.
        heads: Of both attentions.
        hidden: Width of the feed-forward part.
        dropout: In training, on attention weights, on the output of every part, and within the feed-forward part.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(width, heads, dropout)
        self.multihead_attn = MultiheadAttention(width, heads, dropout)
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, hidden: Tensor | None = None) -> Tensor:
        """x [N, P, D] -> the same shape, with what it finds in memory [N, L, D]; hidden: bool [N, L] of memory."""
        x = self.norm1(x + self.dropout(self.self_attn(x, x)))
        x = self.norm2(x + self.dropout(self.multihead_attn(x, memory, hidden)))
        return self.norm3(x + self.dropout(self.linear2(self.dropout(F.relu(self.linear1(x))))))
