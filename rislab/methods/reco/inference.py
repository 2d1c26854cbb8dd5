"""From pictures, references and names to label maps. Pictures are looked at once; classes come a few at a time."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rislab.methods.reco.model import EncodedImages, resized, scores
from rislab.nn.dense_crf import mean_field
from rislab.nn.sliding import Box, mean_of_windows

CLASSES_AT_ONCE = 8
SHARPNESS = 100.0
"""Of scores where a background is told from names: MaskCLIP's rule, which the paper does not have."""


def label_map(
    windows: Sequence[EncodedImages],
    where: Sequence[Box],
    size: tuple[int, int],
    original_size: tuple[int, int],
    references: Tensor,
    texts: Tensor,
    crf_picture: Tensor | None,
    background: float | None,
) -> Tensor:
    """The class of each pixel, int64 [h0, w0]; ties go to the first class.

    Args:
        windows: Encodings of a picture, window by window, each of one picture.
        where: The windows.
        size: Of the picture as it was shown, (H, W).
        original_size: (h0, w0).
        references: Unit vectors [C, D].
        texts: Of the names in dense CLIP, unit vectors [C, D'].
        crf_picture: See `picture_of`: what the CRF sees, at the size shown; None without CRF.
        background: None without. Else label 0 is where softmax(100 score) of no name exceeds it, and names count from 1.
    """

    def class_maps() -> Iterator[Tensor]:
        for first in range(0, len(references), CLASSES_AT_ONCE):
            some = slice(first, first + CLASSES_AT_ONCE)
            yield mean_of_windows([scores(one, references[some], texts[some])[0] for one in windows], where, size)

    parts: Iterator[Tensor] = class_maps()
    if crf_picture is not None:
        marginals = mean_field(torch.cat(list(parts)).softmax(0), crf_picture)
        label, _ = _largest(iter(marginals.split(CLASSES_AT_ONCE)), original_size)
        if background is None:
            return label
        parts = class_maps()
    best, probability = _largest(parts, original_size)
    if crf_picture is None:
        label = best
    return label if background is None else torch.where(probability > background, label + 1, 0)


def _largest(parts: Iterator[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The first class with the largest value, int64 [h, w], and its softmax(100 value).

    Args:
        parts: Maps [c, H, W] of a few classes each, in order.
        size: That they are brought to, (h, w).
    """
    label, best, total = None, None, None
    first = 0
    for part in parts:
        large = part if part.shape[1:] == size else resized(part[None], size)[0]
        value, index = large.max(0)
        mass = (SHARPNESS * large).logsumexp(0)
        if label is None or best is None or total is None:
            label, best, total = index, value, mass
        else:
            better = value > best
            label = torch.where(better, index + first, label)
            best = torch.where(better, value, best)
            total = torch.logaddexp(total, mass)
        first += len(part)
    assert label is not None, "a vocabulary has a name"
    assert best is not None
    assert total is not None
    return label, (SHARPNESS * best - total).exp()


def picture_of(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """A normalised picture as the CRF gets it: uint8 [H, W, 3], channels reversed, cut off and not rounded.

    Rounding errors of the normalisation cost many pixels one grey level, in the official code as here.

    Args:
        pixels: [3, H, W].
        mean: Of the normalisation, three values.
        std: The same.
    """
    grey = (pixels * std.view(3, 1, 1) + mean.view(3, 1, 1)).clamp(0, 1) * 255
    return grey.to(torch.uint8).flip(0).permute(1, 2, 0)
