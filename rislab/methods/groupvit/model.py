"""GroupViT: Semantic Segmentation Emerges from Text Supervision.
Xu, De Mello, Liu, Byeon, Breuel, Kautz, Wang, CVPR 2022, arXiv 2202.11094.

Official code: github.com/NVlabs/GroupViT. Parity: tests/parity, every case of `groupvit`. Table: ablations/groupvit.yaml.
A ViT whose patches are merged into groups by learned tokens, and a text transformer, both trained from nothing by the contrast of
pictures with their texts.

Where paper and code differ we follow the code: a segment is the sum of its members by their number plus one (equation 5: by
their number); assignment logits are scaled by C^-0.5; group tokens look at the patches before assignment (`pre_assign_attn`);
there is an MLP behind the assignment; soft assignment has no Gumbel noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rislab.errors import ConfigError
from rislab.methods.groupvit.blocks import Block, Projector, QuickGELU, TokenMixer
from rislab.methods.groupvit.grouping import Assignment, Grouping, GroupingBlock

HEAD_WIDTH = 64
"""Channels of a head of the text encoder."""


def expect_multiple(name: str, value: int, unit: int) -> None:
    """Raise ConfigError where option `name` is no positive multiple of `unit`."""
    if value % unit or value < unit:
        raise ConfigError(f"model.{name} is {value}, expected a multiple of {unit}")


@dataclass(frozen=True)
class Segments:
    """What the image encoder finds.

    Attributes:
        tokens: [B, G, C] behind the last norm; of a plain ViT its patches.
        assignments: one a grouping block, from patches upwards.
        grid: height and width in patches.
    """

    tokens: Tensor
    assignments: tuple[Assignment, ...]
    grid: tuple[int, int]


class Stage(nn.Module):
    """Transformer blocks over segments and group tokens, then maybe a grouping block.

    Args:
        blocks: of the transformer.
        group_tokens: M of C channels, [1, M, C]; None for a stage without grouping.
        token_projector: makes M tokens of those of the stage before; None for the first stage.
        grouping: None for a stage without.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        group_tokens: Tensor | None,
        token_projector: nn.Module | None,
        grouping: GroupingBlock | None,
    ) -> None:
        super().__init__()
        self.group_tokens = None if group_tokens is None else nn.Parameter(group_tokens)
        self.token_projector = token_projector
        self.blocks = nn.ModuleList(blocks)
        self.grouping = grouping

    def forward(
        self, x: Tensor, before: Tensor | None, noise: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Assignment | None]:
        """Segments [B, S, C] and the group tokens of the stage before -> new ones, own group tokens, assignment."""
        if self.group_tokens is None or self.grouping is None:
            for block in self.blocks:
                x = block(x)
            return x, None, None
        tokens = self.group_tokens.expand(len(x), -1, -1)
        if self.token_projector is not None:
            tokens = tokens + self.token_projector(before)
        count = x.shape[1]
        x = torch.cat([x, tokens.to(x.dtype)], dim=1)  # group tokens last
        for block in self.blocks:
            x = block(x)
        segments, tokens = x[:, :count], x[:, count:]
        segments, found = self.grouping(segments, tokens, noise)
        return segments, tokens, found


@dataclass(frozen=True)
class Stages:
    """Sizes of the stages of an image encoder, one entry a stage.

    Attributes:
        depths: transformer blocks.
        heads: of their attention.
        group_tokens: M, learned tokens; 0: no grouping block behind the stage. 0 for the last one.
        output_groups: G of each grouping block: an entry less.
        width_factors: width of the stage over that of the encoder (`embed_factors` of the official code).
    """

    depths: Sequence[int]
    heads: Sequence[int]
    group_tokens: Sequence[int]
    output_groups: Sequence[int]
    width_factors: Sequence[float]


def stages_of(groupings: int, depth: int, heads: int, group_tokens: int, output_groups: int) -> Stages:
    """The paper's stages: grouping after half of the blocks (1), and again after three quarters (2); a plain ViT (0).

    Raises:
        ConfigError: A stage would have no block.
    """
    if depth < 2 * groupings:
        raise ConfigError(f"model.depth is {depth}, {groupings} grouping stages need {2 * groupings}")
    half, quarter = depth // 2, depth // 4
    depths = {0: (depth,), 1: (depth - half, half), 2: (depth - 2 * quarter, quarter, quarter)}[groupings]
    tokens = {0: (), 1: (group_tokens,), 2: (group_tokens, output_groups)}[groupings]
    outputs = {0: (), 1: (output_groups,), 2: (group_tokens, output_groups)}[groupings]
    return Stages(depths, (heads,) * len(depths), (*tokens, 0), outputs, (1,) * len(depths))


class ImageEncoder(nn.Module):
    """Figure 2, the image side. A single stage without group tokens is a plain ViT, whose segments are its patches.

    Args:
        image_size: side of training pictures, a multiple of `patch_size`: the size of the position table.
        patch_size: side of a patch.
        width: C of the first stage.
        stages: their sizes.
        drop_path: of the last block; it grows linearly from 0.
        kind: of the grouping blocks.
        token_std: deviation of the group tokens of all stages at the start; None: the official code's, 0.02 in the first stage
            and 0 in later ones.
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        width: int,
        stages: Stages,
        drop_path: float,
        kind: Grouping,
        token_std: float | None = None,
    ) -> None:
        super().__init__()
        side = image_size // patch_size
        self.side = side
        widths = [int(width * factor) for factor in stages.width_factors]
        self.patch = nn.Conv2d(3, widths[0], patch_size, patch_size)
        self.patch_norm = nn.LayerNorm(widths[0])
        self.positions = nn.Parameter(torch.empty(1, side * side, widths[0]))
        rates = iter(torch.linspace(0, drop_path, sum(stages.depths), device="cpu").tolist())
        built = []
        for i, (depth, own, tokens) in enumerate(zip(stages.depths, widths, stages.group_tokens, strict=True)):
            blocks = [Block(own, stages.heads[i], next(rates)) for _ in range(depth)]
            group_tokens = projector = grouping = None
            if tokens:
                group_tokens, following = torch.zeros(1, tokens, own), widths[min(i + 1, len(widths) - 1)]
                grouping = GroupingBlock(own, following, stages.heads[i], tokens, stages.output_groups[i], kind)
                projector = _token_projector(widths[i - 1], own, stages.group_tokens[i - 1], tokens) if i else None
            built.append(Stage(blocks, group_tokens, projector, grouping))
        self.stages = nn.ModuleList(built)
        self.norm = nn.LayerNorm(widths[-1])
        self.apply(_start)
        nn.init.trunc_normal_(self.positions, std=0.02)
        for i, stage in enumerate(built):
            if stage.group_tokens is None or stage.grouping is None:
                continue
            if token_std is not None:
                nn.init.trunc_normal_(stage.group_tokens, std=token_std, a=-2 * token_std, b=2 * token_std)
            elif i == 0:  # those of later stages start at zero, beside their projector
                nn.init.trunc_normal_(stage.group_tokens, std=0.02)
            stage.grouping.start(kind.start_gain)

    def forward(self, pixels: Tensor, noise: Sequence[Tensor | None] = ()) -> Segments:
        """Normalised pixels [B, 3, H, W]; what is left of a side beyond whole patches is not seen.

        Args:
            noise: of each grouping block, [B, G, S], added to the logits of hard assignment in training; drawn where absent.
        """
        patches = self.patch(pixels)
        grid = (patches.shape[-2], patches.shape[-1])
        x = self.patch_norm(patches.flatten(2).transpose(1, 2)) + self.positions_of(grid)  # [B, h w, C]
        tokens, found = None, []
        for i, stage in enumerate(self.stages):
            x, tokens, assignment = stage(x, tokens, noise[i] if i < len(noise) else None)
            found += [] if assignment is None else [assignment]
        return Segments(self.norm(x), tuple(found), grid)

    def positions_of(self, grid: tuple[int, int]) -> Tensor:
        """The position table [1, h w, C], resized bicubically for a grid of another shape.

        The official code compares the number of patches, and would not resize a square table for 7 x 28 patches.
        """
        if grid == (self.side, self.side):
            return self.positions
        table = self.positions.transpose(1, 2).unflatten(2, (self.side, self.side)).float()
        resized = F.interpolate(table, grid, mode="bicubic", align_corners=False)
        return resized.flatten(2).transpose(1, 2).to(self.positions.dtype)


def _token_projector(before: int, width: int, tokens_before: int, tokens: int) -> nn.Module:
    """Group tokens [B, M', C'] of one stage -> additions [B, M, C] to those of the next."""
    mix = nn.Sequential(nn.LayerNorm(before), TokenMixer(tokens_before, before // 2, tokens))
    return mix if width == before else nn.Sequential(mix, nn.LayerNorm(before), nn.Linear(before, width, bias=False))


def _start(module: nn.Module) -> None:
    """Linear maps start with a truncated normal distribution and no bias.

    Its deviation is 0.02, as in the official code, at the official width of 384. Others keep what a map does to a token: with
    0.02 at a width of 64, the members of a group would be no more than three percent of what its segment is made of.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02 * (384 / module.in_features) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class TextEncoder(nn.Module):
    """CLIP's causal text transformer, without its projection.

    Args:
        vocabulary: token ids.
        context_length: most tokens of a text.
        width: a multiple of `HEAD_WIDTH`.
        layers: transformer blocks.
    """

    def __init__(self, vocabulary: int, context_length: int, width: int, layers: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.empty(context_length, width))
        self.blocks = nn.ModuleList(
            Block(width, width // HEAD_WIDTH, causal=True, act=QuickGELU) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)
        for block in self.blocks:
            assert isinstance(block, Block)
            for linear, std in (
                (block.attn.qkv, width**-0.5),
                (block.attn.proj, width**-0.5 * (2 * layers) ** -0.5),
                (block.mlp.fc1, (2 * width) ** -0.5),
                (block.mlp.fc2, width**-0.5 * (2 * layers) ** -0.5),
            ):
                nn.init.normal_(linear.weight, std=std)
            nn.init.zeros_(block.attn.qkv.bias)
            nn.init.zeros_(block.attn.proj.bias)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids int64 [N, L], zeros behind the end token, which is the largest -> the state at the end token, [N, W]."""
        x = self.tokens(ids) + self.positions[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[torch.arange(len(ids), device=ids.device), ids.argmax(1)]


class GroupViT(nn.Module):
    """Both encoders, their projectors, and the temperatures of the two contrasts (logarithms of scales).

    Args:
        image: encoder of pictures.
        text: encoder of texts.
        hidden: of the projectors.
        out: D of the common space.
        multi_label_scale: a temperature of its own for the multi-label contrast.
    """

    def __init__(self, image: ImageEncoder, text: TextEncoder, hidden: int, out: int, multi_label_scale: bool) -> None:
        super().__init__()
        self.image, self.text = image, text
        self.image_projector = Projector(image.norm.normalized_shape[0], hidden, out)
        self.text_projector = Projector(text.norm.normalized_shape[0], hidden, out)
        start = torch.tensor(1 / 0.07).log()
        self.logit_scale = nn.Parameter(start.clone())
        self.multi_label_logit_scale = nn.Parameter(start.clone()) if multi_label_scale else None

    def embed_segments(self, segments: Segments) -> Tensor:
        """[B, G, D], each segment in the common space, not normalised."""
        return self.image_projector(segments.tokens.flatten(0, 1)).unflatten(0, segments.tokens.shape[:2])
