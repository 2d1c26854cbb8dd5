"""TCL: Learning to Generate Text-grounded Mask for Open-world Semantic Segmentation from Only Image-Text Pairs.
Cha, Mun, Roh, CVPR 2023, arXiv 2212.00785.

Official code: github.com/kakaobrain/tcl. Parity: tests/parity, every case of `tcl`. Tables it can run: ablations/tcl*.yaml.
A frozen CLIP, read densely; a grounder on top, the only thing that is trained, turns (picture, text) into a soft mask.

The body of the paper could not be read, so we follow the code throughout. Where we do not:
- text side of TCL_f over several processes: a switch, see `rislab.losses.contrastive.region_text`;
- in the second stage of training, the official code does not average the gradients of the blocks that it unfreezes; ours are
  averaged (see task.py).
"""

import copy
from collections.abc import Callable
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rislab.encoders.clip.dense import DenseViT, LastAttention, attended, fed, projected
from rislab.nn.doubled_convolution import doubled_convolution

Norm = Literal["layer", "batch", "group", "none"]
Activation = Literal["gelu", "relu", "leaky"]
Binarise = Literal["gumbel", "deterministic", "soft"]
COSINE_EPS = 1e-6


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel of [B, C, h, w]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


NORMS: dict[Norm, Callable[[int], nn.Module]] = {
    "layer": ChannelNorm,
    "batch": nn.BatchNorm2d,
    "group": lambda width: nn.GroupNorm(32, width),
    "none": lambda width: nn.Identity(),
}
ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "leaky": lambda: nn.LeakyReLU(0.2),
}


class GatedConv(nn.Module):
    """x + tanh(gate) conv(act(norm(x))); the gate starts at 0, so that a new decoder only enlarges."""

    def __init__(self, width: int, kernel_size: int, norm: Norm, act: Activation, gated: bool) -> None:
        super().__init__()
        self.norm = NORMS[norm](width)
        self.act = ACTIVATIONS[act]()
        self.conv = nn.Conv2d(width, width, kernel_size, padding=kernel_size // 2)
        self.gate = nn.Parameter(torch.zeros(())) if gated else None

    def forward(self, x: Tensor) -> Tensor:
        return self._added(x, self.conv(self.act(self.norm(x))))

    def after_doubling(self, x: Tensor) -> Tensor:
        """`forward` of x at twice its size by the nearest pixel, [B, C, h, w] -> [B, C, 2h, 2w], without a convolution there.

        Norm and activation of a doubled map are those of the map, doubled. A batch norm in training is left out: its running
        variance counts pixels.
        """
        large = F.interpolate(x, scale_factor=2, mode="nearest")
        if isinstance(self.norm, nn.BatchNorm2d) and self.norm.training:
            return self(large)
        y = doubled_convolution(self.act(self.norm(x)), self.conv.weight, self.conv.bias)
        return self._added(large, y)

    def _added(self, x: Tensor, y: Tensor) -> Tensor:
        return x + (y if self.gate is None else self.gate.tanh() * y)


class GroundingDecoder(nn.Module):
    """Stages of: twice the size by the nearest pixel, then one or two convolutions: [B, C, h, w] -> [B, C, 2^n h, 2^n w]."""

    def __init__(
        self, width: int, n_layers: int, double: bool, kernel_size: int, norm: Norm, act: Activation, gated: bool
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.ModuleList(GatedConv(width, kernel_size, norm, act, gated) for _ in range(1 + double))
            for _ in range(n_layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            assert isinstance(stage, nn.ModuleList)
            first, *others = cast(list[GatedConv], list(stage))
            x = first.after_doubling(x)
            for conv in others:
                x = conv(x)
        return x


class ToMask(nn.Module):
    """Cosines into masks: sigmoid(w s + b)."""

    def __init__(self, w: float, b: float, learnable: bool) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w), requires_grad=learnable)
        self.b = nn.Parameter(torch.tensor(b), requires_grad=learnable)

    def logits(self, cosines: Tensor) -> Tensor:
        return self.w * cosines + self.b


def binarise(logits: Tensor, how: Binarise, uniform: Tensor | None = None, tau: float = 1.0) -> Tensor:
    """Mask logits -> the mask that cuts a picture, 0 or 1 but for `soft`.

    gumbel: 1 where sigmoid((logits + log(u / (1 - u))) / tau) > 0.5, with the gradient of the sigmoid (straight through).
    deterministic: 1 where the logit is positive, without a gradient. soft: the probabilities.

    Args:
        uniform: u in (0, 1), like `logits`; drawn in float32 when None.
    """
    if how == "soft":
        return logits.sigmoid()
    if how == "deterministic":
        return (logits > 0).to(logits.dtype)
    u = torch.rand(logits.shape, dtype=torch.float32, device=logits.device) if uniform is None else uniform
    soft = ((logits + torch.logit(u, eps=1e-12)) / tau).sigmoid()
    return (soft > 0.5).to(soft.dtype) - soft.detach() + soft


class Grounder(nn.Module):
    """What is trained: copies of CLIP's last blocks, the decoder, a copy of CLIP's projection, and the mask's scale and shift.

    Starts as MaskCLIP: exact copies, a decoder that does nothing but enlarge.

    Args:
        after: CLIP blocks before it, from 1 to the tower's depth; so many stay frozen, those behind it are copied.
    """

    def __init__(
        self, tower: DenseViT, after: int, attention: LastAttention, decoder: GroundingDecoder | None, to_mask: ToMask
    ) -> None:
        super().__init__()
        depth = len(tower.blocks)
        self.blocks = nn.ModuleDict({str(i): copy.deepcopy(tower.blocks[i]) for i in range(after, depth)})
        self.attention: LastAttention = attention
        self.decoder = decoder
        self.ln = copy.deepcopy(tower.visual.ln_post)
        self.proj = nn.Parameter(tower.visual.proj.detach().clone())
        self.to_mask = to_mask

    def features(self, tokens: Tensor) -> Tensor:
        """Tokens behind the last frozen block, [B, 1 + h w, C], through the copies, [B, h w, C]: the last one read densely."""
        blocks = list(self.blocks.values())
        for block in blocks[:-1]:
            tokens = tokens + attended(block, tokens)
            tokens = tokens + fed(block, tokens)
        for block in blocks[-1:]:
            tokens = tokens + (attended(block, tokens) if self.attention == "full" else projected(block, tokens, 2))
            tokens = tokens + fed(block, tokens)
        return tokens[:, 1:]

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens [B, 1 + h w, C] -> pixel embeddings V^s [B, D, H', W'], not normalised. The decoder comes before ln_post."""
        x = self.features(tokens).transpose(1, 2).unflatten(2, grid)
        if self.decoder is not None:
            x = self.decoder(x)
        return (self.ln(x.movedim(1, -1)) @ self.proj).movedim(-1, 1)


class TCL(nn.Module):
    """The frozen tower and the grounder.

    Args:
        tower: CLIP's ViT.
        grounder: see there.
        after: how many of the tower's blocks the grounder stands on.
    """

    def __init__(self, tower: DenseViT, grounder: Grounder, after: int) -> None:
        super().__init__()
        self.tower = tower
        self.grounder = grounder
        self.after = after

    @torch.no_grad()
    def frozen(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Normalised pixels, sides multiples of the patch -> tokens behind block `after`, and their grid."""
        tokens, grid = self.tower.embed(pixels)
        depth = len(self.tower.blocks)
        tokens = self.tower.through(tokens, slice(0, min(self.after, depth - 1)))
        if self.after == depth:
            tokens = self.tower.last(tokens, self.grounder.attention, True, True)
        return tokens, grid

    @torch.no_grad()
    def clip_features(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """The same tokens through the frozen tower, read densely: [B, D, h, w] in the space of the texts (MaskCLIP)."""
        if self.after < len(self.tower.blocks):
            tokens = self.tower.through(tokens, slice(self.after, -1))
            tokens = self.tower.last(tokens, self.grounder.attention, True, True)
        return self.tower.project(tokens[:, 1:]).transpose(1, 2).unflatten(2, grid)

    def embed(self, pixels: Tensor) -> Tensor:
        """CLIP's class-token embedding [B, D]; attention as usual. Gradient reaches the pixels."""
        tokens, _ = self.tower.embed(pixels)
        return self.tower.project(self.tower.through(tokens, slice(None))[:, 0])


def cosines(embeddings: Tensor, texts: Tensor) -> Tensor:
    """Pixels [B, D, h, w], texts [N, D] -> [B, N, h, w]."""
    return likeness(unit(embeddings), texts)


def unit(embeddings: Tensor) -> Tensor:
    """Pixels [B, D, h, w] at length 1."""
    return F.normalize(embeddings, dim=1, eps=COSINE_EPS)


def likeness(units: Tensor, texts: Tensor) -> Tensor:
    """The cosines of pixels that have length 1 already."""
    return torch.einsum("bdhw,nd->bnhw", units, F.normalize(texts, dim=-1, eps=COSINE_EPS))


def pooled(embeddings: Tensor, masks: Tensor) -> Tensor:
    """Mean of pixels [B, D, h, w] under masks [B, N, h, w]: [B, N, D]."""
    weight = masks.flatten(2)
    total = torch.einsum("bdp,bnp->bnd", embeddings.flatten(2), weight)
    return total / (weight.sum(2, keepdim=True) + 1e-6)
