"""LSeg computed in the order of the official code (isl-org/lang-seg, read and not copied): the same numbers, at its cost."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rislab.methods.lseg import model, task
from rislab.nn.enlarging import enlarged


def embedded(self: model.LSeg, pixels: Tensor) -> Tensor:
    """`LSeg.embed`: channels first, vectors at half the size of the picture."""
    return self.head(self.decoder(self.trunk(pixels)))


def decoded(self: model.Decoder, levels: Sequence[Tensor]) -> Tensor:
    """`Decoder.forward`: each fusion block enlarges, and its 1x1 convolution comes after that."""
    laterals = [conv(level) for conv, level in zip(self.lateral, levels, strict=True)]
    blocks = [block for block in self.fusion if isinstance(block, model.Fusion)]
    x: Tensor | None = None
    for fusion, lateral in zip(blocks[::-1], laterals[::-1], strict=True):
        x = lateral if x is None else x + fusion.of_level(lateral)
        x = fusion.out(enlarged(fusion.of_sum(x)))
    assert x is not None
    return x


def cosines(self: model.LSeg, vectors: Tensor, texts: Tensor) -> Tensor:
    """`LSeg.logits`: every vector gets unit length before the product."""
    pixels = vectors.permute(0, 2, 3, 1)
    logits = model.LOGIT_SCALE * (pixels / pixels.norm(dim=-1, keepdim=True)) @ texts.mT
    return logits.permute(0, 3, 1, 2)


def projected(self: model.Project, tokens: Tensor) -> Tensor:
    """`Project.forward`: the class token stands beside every patch."""
    patches = tokens[:, 1:]
    return F.gelu(self.linear(torch.cat([patches, tokens[:, :1].expand_as(patches)], dim=-1)))


def cross_entropy(logits: Tensor, labels: Tensor, ignored: int | None) -> Tensor:
    """`enlarged_cross_entropy`: with logits of all names at full size."""
    return F.cross_entropy(enlarged(logits), labels.long(), ignore_index=-100 if ignored is None else ignored)


def through(block: nn.Module, tokens: Tensor) -> Tensor:
    """`through`: the backward pass holds what timm's block does."""
    found: Tensor = block(tokens)
    return found


REPLACED: tuple[tuple[Any, str, Callable[..., Tensor]], ...] = (
    (model.LSeg, "embed", embedded),
    (model.LSeg, "logits", cosines),
    (model.Decoder, "forward", decoded),
    (model.Project, "forward", projected),
    (model.Pointwise, "forward", nn.Conv2d.forward),
    (model, "through", through),
    (task, "enlarged_cross_entropy", cross_entropy),
)
"""Owner, name, and what stands there in the official code."""


@contextmanager
def official_order() -> Iterator[None]:
    """Inside, every LSeg is computed in the order of the official code."""
    with ExitStack() as stack:
        for owner, name, plain in REPLACED:
            stack.enter_context(patch.object(owner, name, plain))
        yield
