"""What fusions of pixels and words share: InstanceNorm over positions, the gate on a residual, words that count.

Maps are channels last, [N, P, C] with P positions, so that a 1x1 convolution is a linear layer.
"""

from typing import Literal

import torch
from torch import Tensor, nn

GateActivation = Literal["tanh", "sigmoid", "none"]

HIDDEN = -1e4
"""Added to the logit of a word that is padding, as in LAVT and DMMI; its weight is 0 in float32."""


class InstanceNorm(nn.Module):
    """Each channel gets mean 0 and variance 1 over the positions of a map; no parameters, no running statistics."""

    eps = 1e-5

    def forward(self, x: Tensor) -> Tensor:
        """[N, P, C] -> the same shape, computed in float32."""
        # Several times as fast on a CPU as F.instance_norm, which wants positions last.
        centred = x.float()
        centred = centred - centred.mean(1, keepdim=True)
        return (centred * torch.rsqrt(centred.square().mean(1, keepdim=True) + self.eps)).to(x.dtype)


class Gate(nn.Sequential):
    """A factor for each channel and position, made from the map itself: linear layers without bias, then tanh or a sigmoid.

    Args:
        channels: C.
        activation: The last function.
        layers: 2 with ReLU between, or 1.
    """

    def __init__(self, channels: int, activation: GateActivation = "tanh", layers: int = 2) -> None:
        first = [nn.Linear(channels, channels, bias=False), nn.ReLU()] if layers == 2 else []
        last = nn.Sigmoid() if activation == "sigmoid" else nn.Tanh()
        super().__init__(*first, nn.Linear(channels, channels, bias=False), last)
        for module in self:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)  # officially by Swin's own walk over linear layers


def attention_over_words(logits: Tensor, is_word: Tensor) -> Tensor:
    """Softmax over words, those of padding left out.

    Args:
        logits: [N, P, L], already scaled.
        is_word: float [N, L], 1 for words and 0 for padding.
    """
    return (logits + (HIDDEN * (1 - is_word))[:, None].to(logits.dtype)).softmax(-1)
