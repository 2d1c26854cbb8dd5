"""The text-driven evaluator (CLIMS section 3.2): a frozen CLIP that sees the picture inside and outside of each map."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rislab.encoders.clip.text import encode
from rislab.encoders.clip.tokens import Tokenizer
from rislab.encoders.clip.trunk import CLIPSpec, load

Statistics = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of the three colours."""
SAME: Statistics = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Cosines:
    """What CLIP says of n instances, a class of a picture each: pictures in order, then classes in order.

    Attributes:
        classes: int64 [n].
        s_oo: [n], of the picture inside the map with its class.
        s_bo: [n], of the picture outside the map with its class; None where it was not requested.
        s_ob: [n, L], of the picture inside the map with each background prompt; None where it was not requested.
    """

    classes: Tensor
    s_oo: Tensor
    s_bo: Tensor | None
    s_ob: Tensor | None

    def by_name(self) -> dict[str, Tensor]:
        """Those that were requested."""
        each = {"s_oo": self.s_oo, "s_bo": self.s_bo, "s_ob": self.s_ob}
        return {name: value for name, value in each.items() if value is not None}


class Judge(nn.Module):
    """CLIP's image tower with the embeddings of all prompts.

    Nothing of it is trained: its weights get no gradient, and the pixels do. Texts are encoded once; the text tower is not kept.

    Args:
        visual: The image tower: [n, 3, S, S] -> [n, D].
        classes: Embeddings of the class prompts, [K, D], of any length.
        background: Embeddings of the background prompts, [L, D], of any length.
        size: S, the side of the pictures that it takes.
        given: How the pictures that it gets are normalised.
        seen: How it is to see them.
    """

    classes: Tensor
    background: Tensor
    factor: Tensor
    shift: Tensor

    def __init__(
        self,
        visual: nn.Module,
        classes: Tensor,
        background: Tensor,
        size: int,
        given: Statistics = SAME,
        seen: Statistics = SAME,
    ) -> None:
        super().__init__()
        self.visual = visual.requires_grad_(False).eval()
        self.register_buffer("classes", F.normalize(classes.detach().float(), dim=-1))
        self.register_buffer("background", F.normalize(background.detach().float(), dim=-1))
        self.size = size
        mean, std, own_mean, own_std = (torch.tensor(each).view(1, 3, 1, 1) for each in (*given, *seen))
        self.register_buffer("factor", std / own_std)
        self.register_buffer("shift", (mean - own_mean) / own_std)

    def masked(self, pixels: Tensor, maps: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """The picture of each instance, and the part of it inside the map, both [n, 3, S, S]; see `forward`.

        0 is the mean colour. Corners lie on corners, as in the official code, unlike in the inference of maps.
        """
        rows, classes = present.nonzero(as_tuple=True)
        size = (self.size, self.size)
        masks = F.interpolate(maps[rows, classes][:, None].float(), size, mode="bilinear", align_corners=True)
        small = F.interpolate(pixels, size, mode="bilinear", align_corners=True) * self.factor + self.shift
        return small[rows], masks * small[rows]

    def embed(self, pictures: Tensor) -> Tensor:
        """Unit embeddings float32 [n, D] of pictures [n, 3, S, S]."""
        return F.normalize(self.visual(pictures).float(), dim=-1)

    def forward(self, pixels: Tensor, maps: Tensor, present: Tensor, outside: bool, background: bool) -> Cosines:
        """Cosines of all instances; pictures without a class have none.

        Args:
            pixels: [B, 3, H, W], normalised as `given` says.
            maps: P, [B, K, h, w].
            present: bool [B, K].
            outside: Whether s_bo is requested; without it half of the work is left out.
            background: Whether s_ob is requested.
        """
        classes = present.nonzero(as_tuple=True)[1]
        if not len(classes):
            none = maps.new_zeros(0)
            return Cosines(classes, none, none if outside else None, none[:, None] if background else None)
        whole, inside = self.masked(pixels, maps, present)
        seen = self.embed(torch.cat([inside, whole - inside]) if outside else inside)
        texts = self.classes[classes]
        fg, bg = seen[: len(classes)], seen[len(classes) :]
        with torch.autocast(maps.device.type, enabled=False):  # in half precision 0.9999 is 1
            return Cosines(
                classes,
                (fg * texts).sum(-1),
                (bg * texts).sum(-1) if outside else None,
                fg @ self.background.T if background else None,
            )


def judge_of(
    clip: CLIPSpec, prompts: Sequence[str], background: Sequence[str], given: Statistics, seen: Statistics
) -> Judge:
    """A judge from a CLIP and texts.

    Args:
        clip: Which CLIP.
        prompts: One a class.
        background: Any number.
        given: See `Judge`.
        seen: The same.

    Raises:
        ConfigError: See `rislab.encoders.clip.trunk.load`.
        DataError: The same.
    """
    towers = load(clip)
    tokenizer = Tokenizer(clip.name)
    own = towers.visual.image_size
    with torch.no_grad():
        states = encode(towers, tokenizer([*prompts, *background], len(towers.positional_embedding)))[1]
    size = int(own[0] if isinstance(own, (tuple, list)) else own)
    return Judge(towers.visual, states[: len(prompts)], states[len(prompts) :], size, given, seen)


def own_background(prompts: Mapping[str, Sequence[str]], names: Sequence[str]) -> tuple[list[str], Tensor]:
    """The background prompts of single classes as one list, and which of them belong to which class, bool [K, L]."""
    texts = [text for name in names for text in prompts.get(name, ())]
    owners = [name for name in names for _ in prompts.get(name, ())]
    own = torch.tensor([[owner == name for owner in owners] for name in names], dtype=torch.bool)
    return texts, own.view(len(names), len(texts))
