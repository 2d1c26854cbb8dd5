"""The grouping block: tokens are assigned to groups, and the members of each group become one segment (section 3.1)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rislab.methods.groupvit.blocks import MLP, PostNormBlock, TokenMixer


@dataclass(frozen=True)
class Grouping:
    """How a grouping block is built; the defaults are the official ones.

    Attributes:
        hard: a token belongs to one group (equation 4), else to all by their shares.
        gumbel: noise on the logits of hard assignment in training (equation 3).
        tau: temperature of the softmax over groups in training.
        eps: added to the number of a group's members before its sum is divided by it; 1.0 in the official code.
        sum_members: the sum of the members is not divided (`sum_assign` of the official code).
        pre_assign_attn: group tokens attend to the tokens before they are assigned; not in the paper.
        start_gain: of the weights of the assignment's four maps at the start, over the official deviation; ours.
    """

    hard: bool = True
    gumbel: bool = True
    tau: float = 1.0
    eps: float = 1.0
    sum_members: bool = False
    pre_assign_attn: bool = True
    start_gain: float = 1.0


@dataclass(frozen=True)
class Assignment:
    """Which of S tokens belongs to which of G groups.

    Attributes:
        used: [B, G, S], what segments are made of: one group a token where assignment is hard, in training with noise.
        soft: [B, G, S], softmax over groups of the logits without noise.
    """

    used: Tensor
    soft: Tensor


def gumbel_noise(logits: Tensor) -> Tensor:
    """A draw of the Gumbel(0, 1) distribution like `logits`, in float32."""
    return -torch.empty_like(logits, dtype=torch.float32).exponential_().log()


def assign(logits: Tensor, kind: Grouping, training: bool, noise: Tensor | None = None) -> Assignment:
    """Assignment of tokens to groups: the one place where noise comes in.

    Source: section 3.1, equations 3 and 4; official code, `AssignAttention`.

    Args:
        logits: float [B, G, S], scaled.
        kind: hard or soft, with or without noise.
        training: hard assignment has the gradient of its softmax (straight through), and noise.
        noise: [B, G, S], in the place of a draw; only read where one would be made.

    Returns:
        In float32.
    """
    logits = logits.float()
    soft = logits.softmax(1)
    if not kind.hard:
        return Assignment(soft, soft)
    if training and kind.gumbel:
        logits = logits + (gumbel_noise(logits) if noise is None else noise)
    if not training:
        return Assignment(torch.zeros_like(soft).scatter_(1, logits.argmax(1, keepdim=True), 1.0), soft)
    shares = (logits / kind.tau).softmax(1)
    hard = torch.zeros_like(shares).scatter_(1, shares.argmax(1, keepdim=True), 1.0)
    return Assignment(hard - shares.detach() + shares, soft)


class AssignAttention(nn.Module):
    """Merges tokens into groups: one head, softmax over the groups instead of the tokens.

    Args:
        width: of groups and tokens.
        kind: of the assignment.
    """

    def __init__(self, width: int, kind: Grouping) -> None:
        super().__init__()
        self.kind = kind
        self.scale = width**-0.5
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.proj = nn.Linear(width, width)

    def forward(self, groups: Tensor, tokens: Tensor, noise: Tensor | None) -> tuple[Tensor, Assignment]:
        """Groups [B, G, C], tokens [B, S, C] -> the members of each group together, [B, G, C], and who they are."""
        logits = self.q_proj(groups) @ self.k_proj(tokens).transpose(1, 2) * self.scale  # [B, G, S]
        found = assign(logits, self.kind, self.training, noise)
        weight = found.used
        if not self.kind.sum_members:
            weight = weight / (weight.sum(2, keepdim=True) + self.kind.eps)
        values = self.v_proj(tokens)
        return self.proj(weight.to(values.dtype) @ values), found


class GroupingBlock(nn.Module):
    """Section 3.1: S segments and M group tokens -> G segments.

    Args:
        width: C of segments and group tokens.
        out_width: of the new segments.
        heads: of the cross-attention before the assignment.
        group_tokens: M.
        output_groups: G.
        kind: of the assignment.
    """

    def __init__(
        self, width: int, out_width: int, heads: int, group_tokens: int, output_groups: int, kind: Grouping
    ) -> None:
        super().__init__()
        self.norm_tokens = nn.LayerNorm(width)
        self.mixer = TokenMixer(group_tokens, width // 2, output_groups)
        self.norm_post_tokens = nn.LayerNorm(width)
        self.norm_x = nn.LayerNorm(width)
        self.pre_assign = PostNormBlock(width, heads) if kind.pre_assign_attn else None
        self.assign = AssignAttention(width, kind)
        self.norm_new = nn.LayerNorm(width)
        self.mlp = MLP(width, 4 * width, out_width)
        self.reduction = (
            nn.Identity()
            if out_width == width
            else nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out_width, bias=False))
        )

    @torch.no_grad()
    def start(self, gain: float) -> None:
        """Multiply the weights of the assignment's four maps, which have their official start."""
        for linear in (self.assign.q_proj, self.assign.k_proj, self.assign.v_proj, self.assign.proj):
            linear.weight.mul_(gain)

    def forward(self, segments: Tensor, group_tokens: Tensor, noise: Tensor | None) -> tuple[Tensor, Assignment]:
        """Segments [B, S, C], group tokens [B, M, C] -> new segments [B, G, C'], and the assignment."""
        segments = self.norm_x(segments)
        groups = self.norm_post_tokens(self.mixer(self.norm_tokens(group_tokens)))  # [B, G, C], no residual
        if self.pre_assign is not None:
            groups = self.pre_assign(groups, segments)
        members, found = self.assign(groups, segments, noise)
        merged = members + groups
        return self.reduction(merged) + self.mlp(self.norm_new(merged)), found
