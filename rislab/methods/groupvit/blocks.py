"""Parts of both transformers of GroupViT: attention, feed-forward, token mixing, pre-norm blocks."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from timm.layers.drop import DropPath
from torch import Tensor, nn

from rislab.nn.synced_batch_norm import SyncedBatchNorm


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), as in CLIP's text transformer."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class MLP(nn.Module):
    """Linear, activation, linear over the last dimension.

    Args:
        width: of the input.
        hidden: units between the two maps.
        out: of the output; None for `width`.
        act: makes the activation.
    """

    def __init__(self, width: int, hidden: int, out: int | None = None, act: Callable[[], nn.Module] = nn.GELU) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = act()
        self.fc2 = nn.Linear(hidden, width if out is None else out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class TokenMixer(MLP):
    """An MLP over the tokens of each channel: [B, M, C] -> [B, G, C]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused map for queries, keys and values.

    Args:
        width: of the tokens.
        heads: their number divides `width`.
        causal: a token attends to itself and to those before it.
    """

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [B, heads, N, C / heads]
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.proj(y.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Multi-head attention of queries [B, G, C] to tokens [B, S, C].

    Args:
        width: of queries and tokens.
        heads: their number divides `width`.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.proj = nn.Linear(width, width)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        parts = self.q_proj(queries), self.k_proj(tokens), self.v_proj(tokens)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """x + Attention(LN(x)), then x + MLP(LN(x)).

    Args:
        width: of the tokens.
        heads: of the attention.
        drop_path: probability that a sample skips a branch in training, 0 to 1.
        causal: see `SelfAttention`.
        act: of the MLP, whose hidden width is 4 times `width`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        drop_path: float = 0.0,
        causal: bool = False,
        act: Callable[[], nn.Module] = nn.GELU,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = SelfAttention(width, heads, causal)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, 4 * width, act=act)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PostNormBlock(nn.Module):
    """Cross-attention of queries to tokens, post-norm: no norm before queries, keys and values (`pre_assign_attn`)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = CrossAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, 4 * width)
        self.norm_post = nn.LayerNorm(width)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        x = queries + self.attn(queries, tokens)
        return self.norm_post(x + self.mlp(self.norm2(x)))


class Projector(nn.Module):
    """Linear, batch norm, ReLU, linear: features [N, C] into the common space of pictures and texts, [N, D].

    Args:
        width: of the features.
        hidden: 4096 in the official code.
        out: of the common space.
    """

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.norm = SyncedBatchNorm(hidden)
        self.out = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.norm(self.hidden(x))))
