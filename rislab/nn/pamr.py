"""Pixel-adaptive mask refinement: masks pulled towards the edges of their picture.

Source: Araslanov and Roth, CVPR 2020, section 4 (visinf/1-stage-wseg), in the form that TCL's release carries.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

DILATIONS = (1, 2, 4, 8, 12, 24)
EPS = 1e-8
CLASSES_AT_ONCE = 64


def neighbours(x: Tensor, dilations: Sequence[int], centre: bool = False) -> Iterator[Tensor]:
    """Views of [..., h, w], shifted: for each dilation its 8 neighbours row by row; beyond the border lies the border.

    Args:
        centre: with the pixel itself among them, 9 a dilation.
    """
    height, width = x.shape[-2:]
    flat = x.reshape(-1, 1, height, width)
    for d in dilations:
        padded = F.pad(flat, (d, d, d, d), mode="replicate").view(*x.shape[:-2], height + 2 * d, width + 2 * d)
        for dy in (0, d, 2 * d):
            for dx in (0, d, 2 * d):
                if centre or (dy, dx) != (d, d):
                    yield padded[..., dy : dy + height, dx : dx + width]


def deviation(image: Tensor, dilations: Sequence[int] = DILATIONS) -> Tensor:
    """Unbiased standard deviation over the 9 pixels of all dilations together, the centre in each: [B, K, h, w] as given."""
    count = 9 * len(dilations)
    mean = torch.stack([sample / count for sample in neighbours(image, dilations, centre=True)]).sum(0)
    squares = torch.zeros_like(image)
    for sample in neighbours(image, dilations, centre=True):
        squares += (sample - mean) ** 2
    return (squares / (count - 1)).sqrt()


def affinity(image: Tensor, dilations: Sequence[int] = DILATIONS) -> Tensor:
    """How much a pixel takes from each neighbour: [B, K, h, w] -> [B, 8 len(dilations), h, w], summing up to 1.

    softmax over the neighbours of mean over channels of -|I - I'| / (1e-8 + 0.1 sigma).
    """
    width = EPS + 0.1 * deviation(image, dilations)
    return torch.stack([(-(image - other).abs() / width).mean(1) for other in neighbours(image, dilations)], 1).softmax(
        1
    )


@torch.no_grad()
def pamr(image: Tensor, masks: Tensor, iterations: int = 10, dilations: Sequence[int] = DILATIONS) -> Tensor:
    """Masks [B, C, h, w], refined towards the edges of a picture [B, K, h, w] of the same size."""
    return refined(affinity(image, dilations), masks, iterations, dilations)


@torch.no_grad()
def refined(weights: Tensor, masks: Tensor, iterations: int = 10, dilations: Sequence[int] = DILATIONS) -> Tensor:
    """Masks [B, C, h, w] by the affinity [B, 8 len(dilations), h, w] of their picture, in float32.

    Classes do not see one another. A pixel's new values are a weighted sum of rows of the table of pixels, as words are summed
    up in a bag of embeddings: memory is that of a few masks, not of 48, and that of `CLASSES_AT_ONCE` classes stays in the
    processor's cache through all iterations.
    """
    height, width = masks.shape[-2:]
    index = _neighbours_of_pixels(height, width, tuple(dilations), masks.device)
    found = []
    for affinities, own in zip(weights, masks.float(), strict=True):
        shares = affinities.float().flatten(1).T.contiguous()  # [h w, 48]
        parts = [_refined(index, shares, part, iterations) for part in own.flatten(1).split(CLASSES_AT_ONCE)]
        found.append(torch.cat(parts).unflatten(1, (height, width)))
    return torch.stack(found)


def _refined(index: Tensor, shares: Tensor, masks: Tensor, iterations: int) -> Tensor:
    """Masks [C, h w] of one picture."""
    # Two columns at least: torch adds up a single one in another order.
    table = (masks.T.expand(-1, 2) if len(masks) == 1 else masks.T).contiguous()
    for _ in range(iterations):
        table = F.embedding_bag(index, table, mode="sum", per_sample_weights=shares)
    return table.T[: len(masks)]


@lru_cache(maxsize=4)
def _neighbours_of_pixels(height: int, width: int, dilations: tuple[int, ...], device: torch.device) -> Tensor:
    """int32 [h w, 8 len(dilations)], the neighbours of each pixel in the order of `neighbours`."""
    with torch.inference_mode(False):
        pixels = torch.arange(height * width, dtype=torch.float64).view(1, height, width)
        return torch.stack([other.flatten() for other in neighbours(pixels, dilations)], dim=1).to(device, torch.int32)
