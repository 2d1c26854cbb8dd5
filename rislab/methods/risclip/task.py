"""How RISCLIP is trained: switches, two stages, losses, optimiser groups. What the paper leaves open: see model.py."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from rislab.data.batch import MaskQueries
from rislab.data.flips import Flip
from rislab.data.geometry import Stretch
from rislab.data.transforms import Transform, text_safe_flip
from rislab.encoders.clip.tokens import Tokenizer
from rislab.encoders.clip.trunk import CLIPSpec, load
from rislab.errors import ConfigError
from rislab.losses.dice import dice
from rislab.losses.focal import focal
from rislab.methods.base import TextSegmenter, contrast_stretched
from rislab.methods.risclip.model import RISCLIP, MapHead, Towers, ValuePath
from rislab.methods.risclip.modules import Conditioning, Exchange, adapters_of_towers
from rislab.nn.conv_decoder import CoarseToFine, NormOrder


class RISCLIPTask(TextSegmenter):
    """RISCLIP as a Lightning module. Defaults are RISCLIP-B's.

    Args:
        clip: the frozen trunk, a CLIP with a ViT.
        image_size: side of the square that pictures are stretched to.
        word_len: tokens a sentence is cut to, start and end included.
        stage: `patch` trains adapters, CFE and SKE on the patch map; `pixel` trains the decoder on top of them, all else frozen;
            `joint` trains everything at once.
        value_path: where patches keep their own value instead of the attention's: the last block (MaskCLIP), all, none.
        adapters, adapter_ratio, adapter_input, adapter_towers: after attention and MLP of every block (chain, row 2); hidden
            width as a share of the block's; on the sum or on the branch; in which tower.
        cfe, cfe_direction, cfe_blocks, cfe_norms: exchange between the towers (chain, row 3); which tokens it changes; text
            blocks from 1 at whose entrance it stands, none given: the last half; LayerNorms in it.
        ske, ske_layers, ske_parts, ske_mlp: conditioning in the shared space (chain, row 4); across modalities, within, or both.
        heads: of the attentions in CFE and SKE.
        decoder_levels, decoder_width, decoder_norm_order: image blocks from 1 that the decoder sees, coarsest stage last in the
            list; widths of its stages, coarsest first; order of its layers.
        map_scale: of the patch logit: learned, fixed, or the bare cosine.
        focal_weight, focal_alpha, dice_weight, dice_over: the losses; a weight of 0 switches a term off.
        patch_target: a patch's target: the share of it that is covered, any pixel, or half of it.
        base_lr, weight_decay, map_lr_multi: AdamW's; norms, biases and the map's scale are not decayed.
        flip: of training pictures, and of left and right in their sentences; see `rislab.data.flips`.
    """

    trains_on: ClassVar[type[MaskQueries]] = MaskQueries
    absent_means: ClassVar[dict[str, object]] = {"flip": "none"}
    frozen: ClassVar[tuple[str, ...]] = ("model.towers.clip.", "model.towers.image.")
    stages: ClassVar[tuple[str, ...]] = ("patch", "pixel")
    splits_batches: ClassVar[dict[str, dict[str, object]]] = {"patch": {"dice_over": "sample"}}
    untrained_when: ClassVar[tuple[dict[str, object], ...]] = (
        {"stage": "patch", "adapters": False, "cfe": False, "ske": False},
    )
    unused_in: ClassVar[dict[str, tuple[str, ...]]] = {
        "patch": ("decoder_levels", "decoder_width", "decoder_norm_order"),
        "pixel": ("patch_target", "map_lr_multi"),
    }

    def __init__(
        self,
        clip: CLIPSpec,
        image_size: int = 480,
        word_len: int = 77,
        stage: Literal["patch", "pixel", "joint"] = "patch",
        value_path: ValuePath = "last",
        adapters: bool = True,
        adapter_ratio: float = 0.5,
        adapter_input: Literal["sum", "branch"] = "sum",
        adapter_towers: Literal["both", "image", "text"] = "both",
        cfe: bool = True,
        cfe_direction: Literal["both", "text", "image"] = "both",
        cfe_blocks: tuple[int, ...] | None = None,
        cfe_norms: Literal[1, 3] = 1,
        ske: bool = True,
        ske_layers: int = 6,
        ske_parts: Literal["both", "inter", "intra"] = "both",
        ske_mlp: int = 256,
        heads: int = 8,
        decoder_levels: tuple[int, ...] = (1, 2, 3, 4),
        decoder_width: tuple[int, ...] = (256, 128, 64, 32),
        decoder_norm_order: NormOrder = "conv-relu-norm",
        map_scale: Literal["learned", "fixed", "none"] = "learned",
        focal_weight: float = 1.75,
        focal_alpha: float = 0.65,
        dice_weight: float = 1.0,
        dice_over: Literal["sample", "batch"] = "sample",
        patch_target: Literal["area", "any", "half"] = "area",
        base_lr: float = 5e-5,
        weight_decay: float = 5e-3,
        map_lr_multi: float = 20.0,
        flip: Flip = Flip.none,
    ) -> None:
        super().__init__()
        self.flip = flip
        towers = load(clip)
        for parameter in towers.parameters():
            parameter.requires_grad_(False)
        widths = (int(towers.visual.conv1.out_channels), int(towers.ln_final.normalized_shape[0]))
        depths = (len(towers.visual.transformer.resblocks), len(towers.transformer.resblocks))
        embed_dim = int(towers.text_projection.shape[1])
        if len(decoder_levels) != len(decoder_width) or max(decoder_levels) > depths[0]:
            raise ConfigError(
                f"model.decoder_levels {tuple(decoder_levels)} and decoder_width {tuple(decoder_width)}: "
                f"as many widths as levels, which are blocks 1 to {depths[0]}"
            )
        own = adapters_of_towers(widths, depths, adapter_ratio, adapter_towers if adapters else "none")
        blocks = cfe_blocks if cfe_blocks is not None else tuple(range(depths[1] // 2 + 1, depths[1] + 1))
        if not all(1 <= block <= depths[1] for block in blocks):
            raise ConfigError(f"model.cfe_blocks {tuple(blocks)}: {clip.name} has text blocks 1 to {depths[1]}")
        directions = cfe_direction in ("both", "text"), cfe_direction in ("both", "image")
        exchanges = {b - 1: Exchange(widths, embed_dim, heads, cfe_norms, *directions) for b in blocks} if cfe else {}
        parts = ske_parts in ("both", "inter"), ske_parts in ("both", "intra")
        layers = [Conditioning(embed_dim, heads, ske_mlp, *parts) for _ in range(ske_layers if ske else 0)]
        self.trains_map = adapters or cfe or ske
        head = MapHead(map_scale == "learned") if self.trains_map and map_scale != "none" else None
        decoder = None
        if stage != "patch":
            decoder = CoarseToFine([widths[0]] * len(decoder_levels), decoder_width, decoder_norm_order, extra=1)
        levels = decoder_levels if decoder else ()
        both = Towers(towers, value_path, own[0], own[1], adapter_input == "sum", exchanges, levels)
        self.model = RISCLIP(both, nn.ModuleList(layers), head, decoder)
        self.stage = stage
        if stage == "pixel":
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(name.startswith("decoder."))
        self.tokenizer = Tokenizer(clip.name)
        self.geometry = Stretch(image_size)
        self.word_len = word_len
        self.focal_weight, self.focal_alpha = focal_weight, focal_alpha
        self.dice_weight, self.dice_over = dice_weight, dice_over
        self.patch_target = patch_target
        self.base_lr, self.weight_decay, self.map_lr_multi = base_lr, weight_decay, map_lr_multi

    def train(self, mode: bool = True) -> "RISCLIPTask":
        """What is frozen stays in evaluation mode: in the second stage, all but the decoder."""
        super().train(mode)
        if self.stage == "pixel":
            self.model.eval()
            assert self.model.decoder is not None
            self.model.decoder.train(mode)
        return self

    def _level_logits(self, images: Tensor, texts: Sequence[str], image_index: Tensor) -> dict[str, Tensor]:
        """Logits by the name of the stage that they belong to: patch [N, h, w], pixel [N, H, W]."""
        tokens = self.tokenizer(texts, self.word_len).to(images.device)
        pixels = self.normalise(images)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.stage != "pixel"):
            cosine, levels = self.model.patch_map(pixels, tokens, image_index)
        found = {}
        if self.stage != "pixel":
            found["patch"] = self._patch_logits(cosine)
        if self.model.decoder is not None:
            found["pixel"] = self.model.pixel_logits(cosine, levels, (images.shape[-2], images.shape[-1]))
        return found

    def _patch_logits(self, cosine: Tensor) -> Tensor:
        if not self.trains_map:
            return contrast_stretched(cosine, 0.5)
        return cosine if self.model.head is None else self.model.head(cosine)

    def segment(self, images: Tensor, texts: Sequence[str], image_index: Tensor) -> Tensor:
        """Mask logits: the decoder's where there is one, else the patch map."""
        return list(self._level_logits(images, texts, image_index).values())[-1]

    def train_transform(self) -> Transform | None:
        return text_safe_flip(self.flip)

    def losses(self, batch: MaskQueries) -> dict[str, Tensor]:
        """`patch_focal`, `patch_dice`, `pixel_focal`, `pixel_dice`: those of the stage whose weight is not 0."""
        masks = batch.masks
        assert masks is not None
        terms = {}
        for level, logits in self._level_logits(batch.images, batch.texts, batch.image_index).items():
            is_patch = level == "patch"
            target = self._covered(masks, (logits.shape[-2], logits.shape[-1])) if is_patch else (masks > 0.5).float()
            if self.focal_weight:
                terms[f"{level}_focal"] = self.focal_weight * focal(logits, target, self.focal_alpha)
            if self.dice_weight:
                terms[f"{level}_dice"] = self.dice_weight * dice(logits, target, over_batch=self.dice_over == "batch")
        return terms

    def _covered(self, masks: Tensor, grid: tuple[int, int]) -> Tensor:
        """Masks [N, H, W] -> target of each patch [N, h, w]."""
        if self.patch_target == "any":
            return F.adaptive_max_pool2d((masks > 0.5).float(), grid)
        area = F.adaptive_avg_pool2d(masks, grid)
        return (area > 0.5).float() if self.patch_target == "half" else area

    def configure_optimizers(self) -> OptimizerLRScheduler:
        trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        body = [p for name, p in trained.items() if not name.startswith("head.")]
        groups: list[dict[str, object]] = [
            {"params": [p for p in body if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in body if p.ndim <= 1], "weight_decay": 0.0},
            {
                "params": [p for name, p in trained.items() if name.startswith("head.")],
                "weight_decay": 0.0,
                "lr": self.map_lr_multi * self.base_lr,
            },
        ]
        optimiser = torch.optim.AdamW([g for g in groups if g["params"]], lr=self.base_lr, fused=True)
        steps = self.training_steps
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: max(0.0, 1 - step / steps))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
