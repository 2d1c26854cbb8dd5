"""What RISCLIP puts into CLIP's towers and behind them: adapters, exchange between the towers (CFE), conditioning (SKE)."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Adapter(nn.Module):
    """up(relu(down(x))), which its user adds to x: nothing at the start (`up` is zero)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, hidden)
        self.up = nn.Linear(hidden, width)
        nn.init.kaiming_normal_(self.down.weight, nonlinearity="relu")
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(F.relu(self.down(x)))


class BlockAdapters(nn.Module):
    """One after a block's attention, one after its MLP."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        hidden = max(1, round(width * ratio))
        self.attn, self.mlp = Adapter(width, hidden), Adapter(width, hidden)


class Exchange(nn.Module):
    """Cross-modal Feature Extraction between two blocks (equations 1 to 3): both ways through a shared space.

    Args:
        widths: of image and text tokens.
        shared: of the space.
        norms: 1, or 3 with one more before and after the attention.
        to_text, to_image: which tokens are changed.
    """

    def __init__(
        self, widths: tuple[int, int], shared: int, heads: int, norms: Literal[1, 3], to_text: bool, to_image: bool
    ) -> None:
        super().__init__()
        self.norm_v, self.norm_t = nn.LayerNorm(widths[0]), nn.LayerNorm(widths[1])
        self.v2s, self.t2s = nn.Linear(widths[0], shared), nn.Linear(widths[1], shared)
        self.inner = nn.ModuleList(nn.LayerNorm(shared) for _ in range(2)) if norms == 3 else None
        self.to_text = _Way(shared, heads, widths[1], norms) if to_text else None
        self.to_image = _Way(shared, heads, widths[0], norms) if to_image else None

    def forward(self, v: Tensor, t: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        """v [N, 1 + h w, C_v], t [N, L, C_t], padding bool [N, L] -> both, changed; each sees the other as it was."""
        vs, ts = self.v2s(self.norm_v(v)), self.t2s(self.norm_t(t))
        if self.inner is not None:
            vs, ts = self.inner[0](vs), self.inner[1](ts)
        return (
            v if self.to_image is None else v + self.to_image(vs, ts, padding),
            t if self.to_text is None else t + self.to_text(ts, vs, None),
        )


class _Way(nn.Module):
    """Attention in the shared space and the projection back, which starts at zero."""

    def __init__(self, shared: int, heads: int, width: int, norms: Literal[1, 3]) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(shared, heads, batch_first=True)
        self.norm = nn.LayerNorm(shared) if norms == 3 else nn.Identity()
        self.back = nn.Linear(shared, width)
        nn.init.zeros_(self.back.weight)
        nn.init.zeros_(self.back.bias)

    def forward(self, own: Tensor, other: Tensor, padding: Tensor | None) -> Tensor:
        return self.back(self.norm(self.attn(own, other, other, key_padding_mask=padding, need_weights=False)[0]))


class Conditioning(nn.Module):
    """One layer of Shared-space Knowledge Exploitation: across modalities, within each, and an MLP; the identity at the start.

    Args:
        inter, intra: whether there is attention across and within.
        hidden: of the MLP.
    """

    def __init__(self, width: int, heads: int, hidden: int, inter: bool, intra: bool) -> None:
        super().__init__()
        self.image = _Modality(width, heads, hidden, inter, intra)
        self.text = _Modality(width, heads, hidden, inter, intra)

    def forward(self, v: Tensor, t: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        """v [N, h w, D], t [N, L, D], padding bool [N, L]."""
        if self.image.across is not None and self.text.across is not None:
            nv, nt = self.image.across.norm(v), self.text.across.norm(t)
            v, t = v + self.image.across(nv, nt, padding), t + self.text.across(nt, nv, None)
        return self.image(v, None), self.text(t, padding)


class _Modality(nn.Module):
    """One modality's own parameters of a layer."""

    def __init__(self, width: int, heads: int, hidden: int, inter: bool, intra: bool) -> None:
        super().__init__()
        self.across = _SilentAttention(width, heads) if inter else None
        self.within = _SilentAttention(width, heads) if intra else None
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        for zero in self.mlp[2].parameters():
            nn.init.zeros_(zero)

    def forward(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Within the modality, then the MLP."""
        if self.within is not None:
            y = self.within.norm(x)
            x = x + self.within(y, y, padding)
        return x + self.mlp(self.norm(x))


class _SilentAttention(nn.Module):
    """Attention whose values are zero at the start: it returns zero, and gradients reach the values. `norm` is for its inputs."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        with torch.no_grad():
            self.attn.in_proj_weight[2 * width :].zero_()
            self.attn.in_proj_bias.zero_()
            self.attn.out_proj.bias.zero_()

    def forward(self, x: Tensor, other: Tensor, padding: Tensor | None) -> Tensor:
        return self.attn(x, other, other, key_padding_mask=padding, need_weights=False)[0]


def adapters_of_towers(
    widths: Sequence[int], depths: Sequence[int], ratio: float, towers: Literal["both", "image", "text", "none"]
) -> list[nn.ModuleList | None]:
    """Adapters of the blocks of the image tower and of the text tower; None for a tower without.

    Args:
        widths: Of the image tower and the text tower.
        depths: Their blocks.
        ratio: Hidden width of an adapter as a share of the tower's.
        towers: Which have them.
    """
    return [
        nn.ModuleList(BlockAdapters(width, ratio) for _ in range(depth)) if towers in ("both", tower) else None
        for tower, width, depth in zip(("image", "text"), widths, depths, strict=True)
    ]
