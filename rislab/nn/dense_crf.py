"""A fully connected CRF: every pair of pixels that are near, or near and of one colour, would rather have one label.

Source: Krähenbühl and Koltun, NeurIPS 2011 (mean field, section 3; contrast-sensitive Potts model, equation 3), with filtering
on the permutohedral lattice (Adams, Baek, Davis, Eurographics 2010). Follows the authors' code, which pydensecrf wraps, where it
adds to the paper: each kernel is normalised symmetrically, and a pixel takes part in its own sum.
That package is built from C++ when it is installed and has no wheels, so the same algorithm stands here in torch.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 1e-5
"""Probabilities below it count as this much: a unary energy is finite."""


@dataclass(frozen=True)
class Kernels:
    """The pairwise terms. Defaults are those of DeepLab's, STEGO's and ReCo's code.

    Attributes:
        near_sxy: Standard deviation of the smoothness kernel, in pixels.
        near_weight: Its weight.
        alike_sxy: Standard deviation of the appearance kernel in pixels.
        alike_srgb: The same in grey levels of a colour, 0 to 255.
        alike_weight: Its weight.
    """

    near_sxy: float = 1.0
    near_weight: float = 3.0
    alike_sxy: float = 67.0
    alike_srgb: float = 3.0
    alike_weight: float = 4.0


def mean_field(
    probability: Tensor, image: Tensor, kernels: Kernels | None = None, iterations: int = 10
) -> Tensor:  # fmt: skip
    """Marginals of the CRF after some mean-field updates.

    Args:
        probability: Of each label at each pixel, float [C, H, W].
        image: uint8 [H, W, 3]; the order of its channels does not matter.
        kernels: None for the defaults.
        iterations: Updates.

    Returns:
        float32 [C, H, W], summing to 1 over C.
    """
    kernels = kernels or Kernels()
    labels, height, width = probability.shape
    energy = -probability.float().clamp(LEAST, 1.0).log().flatten(1).T.contiguous()  # [N, C]
    rows, columns = torch.meshgrid(
        torch.arange(height, device=energy.device), torch.arange(width, device=energy.device), indexing="ij"
    )
    places = torch.stack([columns, rows], -1).view(-1, 2).double()
    colours = image.reshape(-1, 3).to(energy.device).double()
    near = _Kernel(places / kernels.near_sxy)
    alike = _Kernel(torch.cat([places / kernels.alike_sxy, colours / kernels.alike_srgb], 1))
    q = (-energy).softmax(1)
    for _ in range(iterations):
        q = (kernels.near_weight * near(q) + kernels.alike_weight * alike(q) - energy).softmax(1)
    return q.T.reshape(labels, height, width)


class _Kernel:
    """A Gaussian kernel between all pixels, divided by the roots of its row sums on both sides."""

    def __init__(self, features: Tensor) -> None:
        self.filter = Lattice(features)
        self.scale = (self.filter(torch.ones_like(features[:, :1], dtype=torch.float32)) + 1e-20).rsqrt()  # [N, 1]

    def __call__(self, values: Tensor) -> Tensor:
        return self.scale * self.filter(self.scale * values)


class Lattice:
    """Sums over all points, weighted by exp(-|f - f'|^2 / 2), in time linear in their number.

    Each point spreads its values over the d + 1 corners of its simplex, the lattice is blurred along its d + 1 directions, and
    each point reads its corners. Approximate: the blur is a binomial one, and values without a neighbour see zero.

    Args:
        features: float64 [N, d], in units of the standard deviation.
    """

    def __init__(self, features: Tensor) -> None:
        d = features.shape[1]
        corners, weights = _simplices(features)  # int64 [N, d + 1, d], float64 [N, d + 1]
        low = corners.amin((0, 1)) - d - 1  # neighbours lie at most d away
        extent = corners.amax((0, 1)) - low + d + 2
        if math.prod(extent.tolist()) >= 2**62:
            raise ValueError("features spread too far for the lattice")
        stride = torch.cat([extent[1:].flip(0).cumprod(0).flip(0), extent.new_ones(1)])
        codes, index = torch.unique(((corners - low) * stride).sum(-1), return_inverse=True)
        self.size = len(codes)
        self.weights = weights.float()
        self.index = index  # [N, d + 1]
        # Points by the corner that they belong to: spreading is a sum over bags, as reading is.
        order = index.flatten().argsort(dim=0, stable=True)
        self.sources = order // (d + 1)
        self.source_weights = self.weights.flatten()[order]
        counts = torch.bincount(index.flatten(), minlength=self.size)
        self.offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)[:-1]])
        steps = torch.cat([torch.eye(d, dtype=torch.int64, device=codes.device) * (d + 1) - 1, -codes.new_ones(1, d)])
        self.neighbours = [_neighbours(codes, int((step * stride).sum())) for step in steps]
        self.alpha = 1 / (1 + 2.0**-d)

    def __call__(self, values: Tensor) -> Tensor:
        """Values float32 [N, C] -> their weighted sums [N, C]."""
        spread = F.embedding_bag(self.sources, values, self.offsets, mode="sum", per_sample_weights=self.source_weights)
        x = F.pad(spread, (0, 0, 0, 1))  # the last row stands for what is not there
        for forward, backward in self.neighbours:
            x[:-1].add_(x.index_select(0, forward).add_(x.index_select(0, backward)), alpha=0.5)
        return self.alpha * F.embedding_bag(self.index, x, mode="sum", per_sample_weights=self.weights)


def _neighbours(codes: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Where the codes that are larger, and smaller, by a step stand in a sorted list; its length for those that are not there."""
    count = len(codes)
    at = torch.searchsorted(codes, codes + step).clamp(max=count - 1)
    there = codes[at] == codes + step
    forward, backward = torch.where(there, at, count), torch.full_like(at, count)
    backward[at[there]] = torch.arange(count, device=codes.device)[there]
    return forward, backward


def _simplices(features: Tensor) -> tuple[Tensor, Tensor]:
    """The corners of the simplex around each point, and how much of the point each has.

    Points are put onto the hyperplane of d + 1 coordinates that sum to 0, where the lattice's points have coordinates that
    are equal modulo d + 1 (section 3 of the lattice paper).

    Args:
        features: float64 [N, d].

    Returns:
        Corners int64 [N, d + 1, d], of whose coordinates the last follows from the others, and weights float64 [N, d + 1].
    """
    d = features.shape[1]
    axis = torch.arange(d, device=features.device, dtype=torch.float64)
    # The blur of the whole pipeline has a standard deviation of (d + 1) sqrt(2 / 3).
    scaled = features * (math.sqrt(2 / 3) * (d + 1) / ((axis + 1) * (axis + 2)).sqrt())
    behind = F.pad(scaled.flip(1).cumsum(1).flip(1), (0, 1))  # sums over axes from each on
    elevated = behind - F.pad(scaled * (axis + 1), (1, 0))  # [N, d + 1]
    nearest = (elevated / (d + 1)).round() * (d + 1)
    excess = (nearest.sum(1, keepdim=True) / (d + 1)).round().long()
    rest = elevated - nearest
    rank = rest.argsort(dim=1, descending=True, stable=True).argsort(dim=1) + excess
    over, under = rank > d, rank < 0
    nearest = nearest - (d + 1) * over.double() + (d + 1) * under.double()
    rank = rank - (d + 1) * over.long() + (d + 1) * under.long()
    rest = (elevated - nearest) / (d + 1)
    ordered = torch.empty_like(rest).scatter_(1, rank, rest)  # from the largest to the smallest
    weights = torch.cat([1 + ordered[:, -1:] - ordered[:, :1], ordered[:, :-1] - ordered[:, 1:]], 1)
    # Corner 0 is the nearest point of remainder 0; corner k has remainder k and is reached by the d + 1 - k largest.
    remainder = torch.arange(d + 1, device=features.device).view(1, -1, 1)
    shift = remainder - (d + 1) * (rank[:, None, :] > d - remainder).long()
    corners = nearest.long()[:, None, :] + shift
    # Corner k weighs with the step between ranks d - k and d + 1 - k.
    weights = torch.cat([weights[:, :1], weights[:, 1:].flip(1)], 1)
    return corners[..., :d], weights
