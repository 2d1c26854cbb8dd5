"""DMMI's fusion of one stage, MBA: pixels look for words by regions, words look for pixels by windows of tokens (section 3.2).

Officially `SpatialImageInteraction` inside `PWAM`. Numbers are the same; three things are computed in another way:
- A region of k x k pixels, unfolded and then projected, is a k x k convolution: the unfolded map is never made.
- Words look at pixels that are projected to the width of the words, D = 768, and normalised over positions. Logits are linear in
  the pixels and count up to a constant, and a weighted sum is linear, too: the projection is applied to 20 words instead of all
  pixels, and of the projected map only the variances are needed (`PixelProjection`).
- What does not depend on the sentence runs once a picture.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rislab.nn.pixels_and_words import InstanceNorm, attention_over_words

Directions = Literal["both", "visual_only", "text_only"]


class MBA(nn.Module):
    """Residuals of the pixels and of the words of one stage.

    Args:
        channels: C, of the pixels.
        width: D, of the words.
        regions: Odd sides k of the regions in which a pixel looks for words.
        token_windows: Numbers of tokens with which a word looks for pixels.
        learned_mixing: Whether the maps of the regions, and of the windows, are weighed by learned numbers or alike.
        directions: Which residuals there are.
        drop: Dropout rate of the pixels' residual.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        regions: Sequence[int],
        token_windows: Sequence[int],
        learned_mixing: bool,
        directions: Directions,
        drop: float,
    ) -> None:
        super().__init__()
        self.pixels = None
        self.words = None
        if directions != "text_only":
            self.pixels = PixelResidual(channels, width, regions, learned_mixing, drop)
        if directions != "visual_only":
            self.words = WordResidual(channels, width, token_windows, learned_mixing)

    def forward(
        self, x: Tensor, words: Tensor, present: Tensor, rows: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Residuals of pixels and words.

        Args:
            x: [I, h, w, C], or [N, h, w, C] where `rows` is None.
            words: [N, L, D].
            present: float [N, L], 0 for padding.
            rows: int64 [N], the row of x that a query belongs to.

        Returns:
            [N, h, w, C] and [N, L, D], each None where `directions` leaves it out.
        """
        return (
            None if self.pixels is None else self.pixels(x, words, present, rows),
            None if self.words is None else self.words(x.flatten(1, 2), words, present, rows),
        )


class Mixing(nn.Module):
    """A weighted sum of attention maps; the weights are a softmax of learned numbers, which start alike."""

    def __init__(self, count: int, learned: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(count)) if learned and count > 1 else None

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps of one shape -> their weighted sum."""
        if self.weight is None:
            return torch.stack(list(maps)).mean(0) if len(maps) > 1 else maps[0]
        shares = self.weight.softmax(0)
        found = shares[0] * maps[0]
        for share, each in zip(shares[1:], maps[1:], strict=True):
            found = torch.addcmul(found, share, each)
        return found


class PixelResidual(nn.Module):
    """Each pixel, with its regions, gathers words; what it finds is multiplied with it. Arguments as in `MBA`."""

    def __init__(self, channels: int, width: int, regions: Sequence[int], learned_mixing: bool, drop: float) -> None:
        super().__init__()
        self.regions = nn.ModuleList(RegionAttention(channels, width, k) for k in regions)
        self.mixing = Mixing(len(regions), learned_mixing)
        self.value = nn.Linear(width, channels)
        self.out = nn.Linear(channels, channels)
        self.norm = InstanceNorm()
        self.visual = nn.Linear(channels, channels)
        self.project = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(drop)

    def forward(self, x: Tensor, words: Tensor, present: Tensor, rows: Tensor | None) -> Tensor:
        """See `MBA.forward`: [N, h, w, C]."""
        A = self.mixing([region(x, words, present, rows) for region in self.regions])  # [N, P, L]
        # `out` on L words instead of P pixels: the rows of A sum to 1, so that its bias, too, passes through the sum.
        attended = self.norm(A @ self.out(self.value(words) * present[..., None]))  # [N, P, C]
        v = self.dropout(F.gelu(self.visual(x.flatten(1, 2))))
        v = v if rows is None else v[rows]
        return self.dropout(F.gelu(self.project(v * attended))).unflatten(1, x.shape[1:3])


class RegionAttention(nn.Module):
    """Attention of pixels to words, where a query is made of the region around the pixel; larger regions have fewer channels.

    Args:
        channels: C.
        width: D.
        region: Odd side k. Channels before the region is gathered: C, C // 2, C // 4 ... for 1, 3, 5 ...
    """

    def __init__(self, channels: int, width: int, region: int) -> None:
        super().__init__()
        reduced = max(1, channels // 2 ** (region // 2))
        self.reduce = nn.Linear(channels, reduced)
        self.gather = nn.Conv2d(reduced, channels, region, padding=region // 2)
        self.key = nn.Linear(width, channels)
        self.norm = InstanceNorm()
        self.scale = channels**-0.5

    def forward(self, x: Tensor, words: Tensor, present: Tensor, rows: Tensor | None) -> Tensor:
        """See `MBA.forward`: weights [N, P, L], which sum to 1 over words."""
        q = self.norm(self.reduce(x).flatten(1, 2)).unflatten(1, x.shape[1:3])
        q = self.norm(self.gather(q.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).flatten(1, 2))  # [I, P, C]
        k = self.scale * self.key(words) * present[..., None]  # [N, L, C]
        return attention_over_words((q if rows is None else q[rows]) @ k.transpose(1, 2), present)


class WordResidual(nn.Module):
    """Each word, with its windows of tokens, gathers pixels. Arguments as in `MBA`."""

    def __init__(self, channels: int, width: int, token_windows: Sequence[int], learned_mixing: bool) -> None:
        super().__init__()
        self.windows = nn.ModuleList(WindowAttention(channels, width, n) for n in token_windows)
        self.mixing = Mixing(len(token_windows), learned_mixing)
        self.value = PixelProjection(channels, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, words: Tensor, present: Tensor, rows: Tensor | None) -> Tensor:
        """See `MBA.forward`: [N, L, D]; x: [I or N, P, C]."""
        pixels = CentredPixels(x, rows)
        B = self.mixing([window(pixels, words, present) for window in self.windows])  # [N, L, P]
        return self.out(self.value.weighted_sum(B, pixels))


class WindowAttention(nn.Module):
    """Attention of words to pixels, where a query is made of the token and its neighbours.

    Args:
        channels: C.
        width: D.
        tokens: n; the window of token i holds i - n // 2 to i + (n - 1) // 2, beyond the ends the first or last token.
            Channels before it is gathered: C // n, of the pixels' channels and not of the words', as officially.
    """

    def __init__(self, channels: int, width: int, tokens: int) -> None:
        super().__init__()
        reduced = max(1, channels // tokens)
        self.reduce = nn.Linear(width, reduced)
        self.gather = nn.Conv1d(reduced, width, tokens)
        self.key = PixelProjection(channels, width)
        self.ends = (tokens // 2, (tokens - 1) // 2)
        self.scale = channels**-0.5  # although the product has D terms, as officially

    def forward(self, pixels: "CentredPixels", words: Tensor, present: Tensor) -> Tensor:
        """Weights [N, L, P], which sum to 1 over pixels; a padded word, whose query is 0, looks at all of them alike."""
        reduced = F.pad(self.reduce(words).transpose(1, 2), self.ends, mode="replicate")
        q = self.scale * self.gather(reduced).transpose(1, 2) * present[..., None]  # [N, L, D]
        return self.key.logits(q, pixels).softmax(-1)


class CentredPixels:
    """A map without its mean over positions, and its covariance, made once for all that look at it.

    Args:
        x: [I or N, P, C].
        rows: int64 [N], the row of x that a query belongs to; None where x has a row for each.
    """

    def __init__(self, x: Tensor, rows: Tensor | None) -> None:
        self.rows = rows
        P, C = x.shape[1:]
        with torch.autocast(x.device.type, enabled=False):
            self.x = x.float() - x.float().mean(1, keepdim=True)
            # Variances by the covariance where that is cheaper than by the projected map, which few pixels can afford.
            self.covariance = self.x.transpose(1, 2) @ self.x / P if P > C else None
        self.of_queries = self.x if rows is None else self.x[rows]  # [N, P, C]

    def deviations(self, weight: Tensor, eps: float) -> Tensor:
        """Standard deviations [N, 1, D] over positions of the projected map, x weight^T with weight [D, C]."""
        if self.covariance is not None:
            variance = ((weight @ self.covariance) * weight).sum(-1)
        else:
            variance = (self.x @ weight.T).square().mean(1)
        found = (variance + eps).sqrt()[:, None]
        return found if self.rows is None else found[self.rows]


class PixelProjection(nn.Linear):
    """InstanceNorm(linear(x)) over positions, C -> D channels, by what it does to words. The map itself is never made.

    The bias cancels in InstanceNorm; official files hold it. It is loaded and written, and not trained.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, width)
        self.bias.requires_grad_(False)

    def logits(self, q: Tensor, pixels: CentredPixels) -> Tensor:
        """Products of queries [N, L, D] with the map, [N, L, P]."""
        with torch.autocast(q.device.type, enabled=False):
            q = q.float() / pixels.deviations(self.weight, InstanceNorm.eps)
            return (q @ self.weight) @ pixels.of_queries.transpose(1, 2)

    def weighted_sum(self, B: Tensor, pixels: CentredPixels) -> Tensor:
        """Sums of the map with weights [N, L, P] that sum to 1, [N, L, D]."""
        with torch.autocast(B.device.type, enabled=False):
            found = (B.float() @ pixels.of_queries) @ self.weight.T
            return found / pixels.deviations(self.weight, InstanceNorm.eps)
