"""How TCL is trained: switches, losses, two-stage schedule, optimiser groups. Inference: inference.py."""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from rislab.data.batch import Captions
from rislab.data.geometry import Stretch
from rislab.data.transforms import TimmTraining
from rislab.encoders.clip.dense import TEMPLATES, DenseViT, LastAttention, Prompts, TemplateName
from rislab.encoders.clip.tokens import Tokenizer
from rislab.encoders.clip.trunk import CLIPSpec, load
from rislab.errors import ConfigError
from rislab.losses.contrastive import TextSide, image_text, region_text
from rislab.losses.masks import area, total_variation
from rislab.methods.base import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, TextSegmenter
from rislab.methods.tcl.inference import EncodedImages, encode_images, masks, without_margins
from rislab.methods.tcl.losses import own_cosines, own_pairs, pairs, scale
from rislab.methods.tcl.model import (
    TCL,
    Activation,
    Binarise,
    Grounder,
    GroundingDecoder,
    Norm,
    ToMask,
    binarise,
)  # fmt: skip
from rislab.nn.schedules import decay_groups, warmed_cosine
from rislab.nn.sliding import Margins
from rislab.ranks import gathered


class TCLTask(TextSegmenter):
    """TCL as a Lightning module. Defaults are the official recipe (configs/tcl.yml).

    Args:
        clip: the frozen trunk, a CLIP with a ViT.
        image_size: of training pictures.
        augment: of training pictures: the official crops and colours (timm's), or the evaluation's geometry alone.
        normalisation: the official code's is ImageNet's.
        trained: off, it is scored as it starts: MaskCLIP through the mask's start (first row of the table).
        ie_freeze: blocks of the trunk under the grounder; those behind are copied and trained in the second stage; None: all but
            one.
        last_attention: of the last block: each patch's own value, or CLIP's.
        decoder, n_layers, double, kernel_size, decoder_norm, decoder_act, gated: the gated convolutions; see `GroundingDecoder`.
        init_w, init_b, learnable: of the mask, sigmoid(w s + b).
        binarise, gumbel_tau: of the mask that cuts the picture in TCL_v.
        tcl_v_w, tcl_f_w: weights of the contrasts of cut pictures and of regions with texts.
        area_pos_w, area_neg_w, prior_pos, prior_neg: of the masks' areas under the own and under other texts.
        tv_mask_w, tv_img_w: of the total variation of masks and of pixel embeddings. A weight of 0 switches a term off.
        tclf_text_side: over several processes; see `region_text`.
        texts_at_once: texts whose masks are in memory together, None all.
        ust_steps: steps before the copied blocks are trained, too; None: never; 0: from the start.
        base_lr, min_lr, warmup_steps, weight_decay: AdamW's; linear warm-up from a ten-thousandth, then cosine.
        templates, bg_thresh, kp_w, pamr, pamr_iter: inference only: prompts of a class name; score of the background; share of
            CLIP's own map in the mask; refinement. Published numbers without refinement have bg_thresh 0.5.
    """

    frozen: ClassVar[tuple[str, ...]] = ("model.tower.", "prompts.")
    any_size: ClassVar[bool] = True
    untrained_when: ClassVar[tuple[dict[str, object], ...]] = ({"trained": False},)
    trains_on: ClassVar[type[Captions]] = Captions

    def __init__(
        self,
        clip: CLIPSpec,
        image_size: int = 224,
        normalisation: Literal["imagenet", "clip"] = "imagenet",
        trained: bool = True,
        ie_freeze: int | None = None,
        last_attention: LastAttention = "value",
        decoder: bool = True,
        n_layers: int = 2,
        double: bool = True,
        kernel_size: Literal[1, 3, 5] = 3,
        decoder_norm: Norm = "layer",
        decoder_act: Activation = "gelu",
        gated: bool = True,
        init_w: float = 10.0,
        init_b: float = -2.5,
        learnable: bool = True,
        binarise: Binarise = "gumbel",
        gumbel_tau: float = 1.0,
        tcl_v_w: float = 0.1,
        tcl_f_w: float = 0.1,
        area_pos_w: float = 0.4,
        area_neg_w: float = 0.4,
        prior_pos: float = 0.4,
        prior_neg: float = 0.0,
        tv_mask_w: float = 1.0,
        tv_img_w: float = 1.0,
        tclf_text_side: TextSide = "official",
        texts_at_once: int | None = None,
        ust_steps: int | None = 30_000,
        base_lr: float = 7.5e-5,
        min_lr: float = 1e-5,
        warmup_steps: int = 15_000,
        weight_decay: float = 0.05,
        templates: TemplateName = "tcl9",
        bg_thresh: float = 0.4,
        kp_w: float = 0.3,
        pamr: bool = True,
        pamr_iter: int = 10,
        augment: Literal["none", "official"] = "official",
    ) -> None:
        super().__init__(*((IMAGENET_MEAN, IMAGENET_STD) if normalisation == "imagenet" else (CLIP_MEAN, CLIP_STD)))
        towers = load(clip)
        tower = DenseViT(towers.visual)
        del towers.visual, towers.logit_scale  # the one lives in the model, the other is not ours
        for parameter in (*tower.parameters(), *towers.parameters()):
            parameter.requires_grad_(False)
        depth = len(tower.blocks)
        after = depth - 1 if ie_freeze is None else ie_freeze
        if not 1 <= after <= depth:
            raise ConfigError(f"model.ie_freeze {ie_freeze}: {clip.name} has blocks 1 to {depth}")
        if decoder_norm == "group" and tower.width % 32:
            raise ConfigError(f"model.decoder_norm group: 32 groups do not divide {clip.name}'s width {tower.width}")
        shape = (tower.width, n_layers, double, kernel_size, decoder_norm, decoder_act, gated)
        grounder = Grounder(
            tower, after, last_attention, GroundingDecoder(*shape) if decoder else None, ToMask(init_w, init_b, learnable)
        ).requires_grad_(trained)  # fmt: skip
        grounder.to_mask.requires_grad_(trained and learnable)
        if ust_steps is None:
            grounder.blocks.requires_grad_(False)
        self.model = TCL(tower, grounder, after)
        self.prompts = Prompts(towers, Tokenizer(clip.name))
        start = torch.tensor(math.log(1 / 0.07))
        self.image_scale = nn.Parameter(start.clone(), requires_grad=trained and tcl_v_w > 0)
        self.region_scale = nn.Parameter(start.clone(), requires_grad=trained and tcl_f_w > 0)
        self.geometry = Stretch(image_size)
        self.binarise, self.gumbel_tau = binarise, gumbel_tau
        self.tcl_v_w, self.tcl_f_w = tcl_v_w, tcl_f_w
        self.area_pos_w, self.area_neg_w, self.priors = area_pos_w, area_neg_w, (prior_pos, prior_neg)
        self.tv_mask_w, self.tv_img_w = tv_mask_w, tv_img_w
        self.tclf_text_side: TextSide = tclf_text_side
        self.texts_at_once = texts_at_once
        self.ust_steps = ust_steps
        self.base_lr, self.min_lr, self.warmup_steps, self.weight_decay = base_lr, min_lr, warmup_steps, weight_decay
        self.templates = TEMPLATES[templates]
        self.bg_thresh, self.kp_w, self.refines, self.pamr_iter = bg_thresh, kp_w, pamr, pamr_iter
        self.mask_threshold = bg_thresh
        self.augment = augment

    def train(self, mode: bool = True) -> "TCLTask":
        """What is frozen stays in evaluation mode."""
        super().train(mode)
        self.model.tower.eval()
        self.prompts.eval()
        return self

    def train_transform(self) -> TimmTraining | None:
        return TimmTraining(self.geometry.size) if self.augment == "official" else None

    def losses(self, batch: Captions) -> dict[str, Tensor]:
        """`tcl_v`, `tcl_f`, `area_pos`, `area_neg`, `tv_mask`, `tv_img`: those whose weight is not 0."""
        return self.losses_of(self.normalise(batch.images), self.prompts.raw(batch.texts))

    def losses_of(self, pixels: Tensor, texts: Tensor, uniform: Tensor | None = None) -> dict[str, Tensor]:
        """The same of normalised pixels [B, 3, H, W] and raw text embeddings [B, D].

        Args:
            uniform: [B, h, w] in (0, 1), the draw of the binarisation; None draws it.
        """
        embeddings = self.model.grounder(*self.model.frozen(pixels))
        with torch.autocast(pixels.device.type, enabled=False):
            embeddings = embeddings.float()
            terms: dict[str, Tensor] = {}
            if self.tcl_v_w:
                own = self.model.grounder.to_mask.logits(own_cosines(embeddings, texts))
                cut = binarise(own, self.binarise, uniform, self.gumbel_tau)
                cut = F.interpolate(cut[:, None], pixels.shape[-2:], mode="nearest")
                seen = self.model.embed(cut * pixels)
                terms["tcl_v"] = self.tcl_v_w * image_text(seen, texts, scale(self.image_scale))
            terms |= self._pair_losses(embeddings, gathered(texts))
            if self.tv_img_w:
                terms["tv_img"] = self.tv_img_w * total_variation(embeddings)
        return terms

    def _pair_losses(self, embeddings: Tensor, texts: Tensor) -> dict[str, Tensor]:
        """Terms over the masks of every own picture under the texts of all processes."""
        if not any((self.tcl_f_w, self.area_pos_w, self.area_neg_w, self.tv_mask_w)):
            return {}
        regions, areas, variation = pairs(self.model.grounder.to_mask, embeddings, texts, self.texts_at_once)
        is_own = own_pairs(areas)
        if self._trainer is not None:  # no loss: what tells a collapse
            self.log("train/mask_area", areas[is_own].mean().detach(), batch_size=len(areas))
        terms = {}
        if self.tcl_f_w:
            contrast = region_text(regions, texts, scale(self.region_scale), self.tclf_text_side)
            terms["tcl_f"] = self.tcl_f_w * contrast
        if self.area_pos_w:
            terms["area_pos"] = self.area_pos_w * area(areas[is_own], self.priors[0])
        if self.area_neg_w:
            terms["area_neg"] = self.area_neg_w * area(areas[~is_own], self.priors[1])
        if self.tv_mask_w:
            terms["tv_mask"] = self.tv_mask_w * variation
        return terms

    def masks(self, pixels: Tensor, texts: Tensor) -> Tensor:
        """Normalised pixels [I, 3, H, W], texts [C, D] -> masks [I, C, h, w] in [0, 1], at the decoder's stride.

        Where sides are no multiples of the patch the answer is at [H, W].
        """
        encoded = encode_images(self.model, pixels, self.refines, self.kp_w > 0)
        return without_margins(masks(self.model, encoded, texts, self.pamr_iter, self.kp_w), encoded)

    def segment(self, images: Tensor, texts: Sequence[str], image_index: Tensor) -> Tensor:
        """Log-odds of the masks, refined and mixed as for class names."""
        embeddings = self.prompts(texts, unit_first=False)
        pixels = self.normalise(images)
        found = [
            self.masks(pixels[i : i + 1], embeddings[image_index == i])[0]
            for i in range(len(images))
        ]  # fmt: skip
        order = torch.argsort(image_index, stable=True)
        return torch.logit(torch.cat(found)[torch.argsort(order)], eps=1e-6)

    def segment_vocabulary(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """Masks [I, C, h, w] of class names in [0, 1]."""
        return self.scores(self.encode_images(images), names)

    def encode_images(self, images: Tensor) -> EncodedImages:
        """All that `scores` needs of the images; it does not depend on the names."""
        return encode_images(self.model, self.normalise(images), self.refines, self.kp_w > 0)

    def scores(self, encoded: EncodedImages, names: Sequence[str]) -> Tensor:
        """`segment_vocabulary` of encoded images."""
        return without_margins(self._with_margins(encoded, names), encoded)

    def _with_margins(self, encoded: EncodedImages, names: Sequence[str]) -> Tensor:
        texts = self.prompts(names, self.templates, unit_first=False)
        return masks(self.model, encoded, texts, self.pamr_iter, self.kp_w)

    def window_scores(self, images: Tensor, names: Sequence[str]) -> tuple[Tensor, Margins]:
        encoded = self.encode_images(images)
        return self._with_margins(encoded, names), encoded.margins

    def with_background(self, scores: Tensor) -> Tensor:
        return torch.cat([torch.full_like(scores[:, :1], self.bg_thresh), scores], dim=1)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """First stage: the copied blocks stay. Their gradients are made, and averaged by DDP, which expects one of every
        parameter in every step, and dropped here, before they are clipped."""
        if self.ust_steps is not None and self.global_step < self.ust_steps:
            for parameter in self.model.grounder.blocks.parameters():
                parameter.grad = None

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """0-d parameters (gates, scale and shift, temperatures) are decayed, as in the official code; vectors are not."""
        groups = decay_groups(self.parameters(), self.weight_decay)
        optimiser = torch.optim.AdamW(groups, lr=self.base_lr, eps=1e-6, fused=True)
        steps, last = self.training_steps, self.min_lr / self.base_lr

        def factor(step: int) -> float:
            return warmed_cosine(step, steps, self.warmup_steps, first=1e-4, last=last)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
