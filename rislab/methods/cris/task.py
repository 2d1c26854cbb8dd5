"""How CRIS is trained: switches, loss, optimiser groups, schedule (section 4.1 of the paper; official config/*.yaml)."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from numpy.typing import NDArray
from torch import Tensor, nn

from rislab.data.batch import MaskQueries
from rislab.data.flips import Flip
from rislab.data.geometry import Letterbox
from rislab.data.transforms import Transform, text_safe_flip
from rislab.encoders.clip.text import CLIPTextEncoder
from rislab.encoders.clip.tokens import Tokenizer
from rislab.encoders.clip.trunk import CLIPSpec, ResNetPyramid, load
from rislab.errors import ConfigError
from rislab.losses.text_to_pixel import text_to_pixel as text_to_pixel_loss
from rislab.methods.base import TextSegmenter
from rislab.methods.cris.model import CRIS


class CRISTask(TextSegmenter):
    """CRIS as a Lightning module. Defaults are the official RefCOCO recipe.

    Args:
        clip: the trunk, e.g. ``{name: RN50, pretrained: openai}``; one of CLIP's ResNets.
        image_size: side of the letterbox, a multiple of 32.
        word_len: tokens a sentence is cut to, start and end included; 17 for RefCOCO and RefCOCO+, 22 for G-Ref.
        text_to_pixel: the contrastive head (ablation table, "Con."); off: a fixed classifier.
        decoder_layers: depth of the decoder (ablation table, "Dec." and n); 0 removes it.
        fpn_out: widths of the neck; the middle one is the decoder's and must equal the text width.
        num_head, dim_ffn, dropout: of the decoder.
        kernel_size: of the dynamic kernel; the paper's text says a dot product (1), the release uses 3.
        base_lr, weight_decay: Adam's.
        lr_multi: factor of the rate for CLIP's towers, their position tables excepted.
        schedule: of the rate: `steps` multiplies it by lr_decay after each of the epochs in milestones; `cosine` lets it rise
            linearly over warmup_steps optimiser steps and fall to 0 along half a cosine at the last one.
        milestones, lr_decay: of `steps`.
        warmup_steps: of `cosine`.
        legacy_first_epoch_lr: give the towers the full rate during the first epoch, as the published runs did (their optimiser
            read the groups' rates only after its first scheduler step).
        freeze_token_embedding: keep CLIP's word table fixed; the official line meant to do so has no effect.
        threshold: probability above which a pixel is drawn as foreground.
        flip: mirror training pictures at random and exchange left and right in their sentences (`swap`), or mirror only those
            whose sentences name no side (`refuse`); the official code does not (`none`).
    """

    absent_means: ClassVar[dict[str, Any]] = {"schedule": "steps", "warmup_steps": 0, "flip": "none"}
    trains_on: ClassVar[type[MaskQueries]] = MaskQueries

    def __init__(
        self,
        clip: CLIPSpec,
        image_size: int = 416,
        word_len: int = 17,
        text_to_pixel: bool = True,
        decoder_layers: Literal[0, 1, 2, 3, 4] = 3,
        fpn_out: tuple[int, int, int] = (256, 512, 1024),
        num_head: int = 8,
        dim_ffn: int = 2048,
        dropout: float = 0.1,
        kernel_size: Literal[1, 3] = 3,
        base_lr: float = 1e-4,
        lr_multi: float = 0.1,
        weight_decay: float = 0.0,
        milestones: tuple[int, ...] = (35,),
        lr_decay: float = 0.1,
        legacy_first_epoch_lr: bool = True,
        freeze_token_embedding: bool = False,
        threshold: float = 0.35,
        schedule: Literal["steps", "cosine"] = "steps",
        warmup_steps: int = 0,
        flip: Flip = Flip.none,
    ) -> None:
        super().__init__()
        if image_size % 32:
            raise ConfigError(f"model.image_size {image_size} is no multiple of 32")
        if warmup_steps < 0:
            raise ConfigError(f"model.warmup_steps is {warmup_steps}, expected 0 or more")
        if schedule == "cosine" and legacy_first_epoch_lr:
            raise ConfigError("model.legacy_first_epoch_lr belongs to schedule `steps`: set it to false for `cosine`")
        if schedule == "steps" and warmup_steps:
            raise ConfigError("model.warmup_steps belongs to schedule `cosine`: set it to 0 for `steps`")
        towers = load(clip)
        text = CLIPTextEncoder(towers)
        if fpn_out[1] != text.width:
            raise ConfigError(
                f"model.fpn_out {tuple(fpn_out)}: the middle width must equal the text width {text.width}"
            )
        if word_len > len(text.positional_embedding):
            raise ConfigError(f"model.word_len {word_len}: {clip.name} has {len(text.positional_embedding)} positions")
        trunk = ResNetPyramid(towers.visual, text.text_projection.shape[1])
        self.model = CRIS(
            trunk, text, fpn_out, text_to_pixel, decoder_layers, num_head, dim_ffn, dropout, kernel_size
        ).to(memory_format=torch.channels_last)
        text.token_embedding.weight.requires_grad_(not freeze_token_embedding)
        self.tokenizer = Tokenizer(clip.name)
        self.geometry = Letterbox(image_size)
        self.mask_threshold = threshold
        self.word_len = word_len
        self.base_lr, self.lr_multi, self.weight_decay = base_lr, lr_multi, weight_decay
        self.milestones, self.lr_decay, self.legacy_first_epoch_lr = milestones, lr_decay, legacy_first_epoch_lr
        self.schedule, self.warmup_steps = schedule, warmup_steps
        self.flip = flip

    def forward(self, images: Tensor, texts: Sequence[str], image_index: Tensor) -> Tensor:
        """uint8 images [I, 3, H, W] and N sentences -> mask logits [N, H/4, W/4]."""
        pixels = self.normalise(images).contiguous(memory_format=torch.channels_last)
        tokens = self.tokenizer(list(texts), self.word_len).to(images.device)
        return self.model(pixels, tokens, image_index)

    def segment(self, images: Tensor, texts: Sequence[str], image_index: Tensor) -> Tensor:
        return self(images, texts, image_index)

    def take_tokens(self, tokenizer: str, ids: Mapping[str, NDArray[np.int32]]) -> None:
        self.tokenizer.take(tokenizer, ids)

    def train_transform(self) -> Transform | None:
        return text_safe_flip(self.flip)

    def losses(self, batch: MaskQueries) -> dict[str, Tensor]:
        """One term, pixel-wise binary cross-entropy: `text_to_pixel` with the dynamic kernel, `mask` with the fixed one."""
        masks = batch.masks
        assert masks is not None
        loss = text_to_pixel_loss(self(batch.images, batch.texts, batch.image_index), masks)
        return {"text_to_pixel" if self.model.projector.head.depends_on_text else "mask": loss}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        slow: list[nn.Parameter] = []
        fast: list[nn.Parameter] = []
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                tower = name.startswith(("trunk.", "text.")) and "positional_embedding" not in name
                (slow if tower else fast).append(parameter)
        groups: list[dict[str, object]] = [{"params": slow}, {"params": fast}]
        optimiser = torch.optim.Adam(groups, lr=self.base_lr, weight_decay=self.weight_decay, fused=True)
        by_step = self.schedule == "cosine"
        factors: list[Callable[[int], float]] = [self._slow_factor, self._fast_factor]
        if by_step:
            factors = [self._slow_cosine_factor, self._cosine_factor]
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factors)
        interval = "step" if by_step else "epoch"
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": interval}}

    def _slow_cosine_factor(self, step: int) -> float:
        return self.lr_multi * self._cosine_factor(step)

    def _cosine_factor(self, step: int) -> float:
        """Factor of the rate in an optimiser step, counted from 0: above 0 in the first step, 0 after the last one."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        done = (step - self.warmup_steps) / max(1, self.training_steps - self.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def _fast_factor(self, epoch: int) -> float:
        """Factor of the rate in an epoch, counted from 0."""
        return self.lr_decay ** sum(epoch >= milestone for milestone in self.milestones)

    def _slow_factor(self, epoch: int) -> float:
        first = self.legacy_first_epoch_lr and epoch == 0
        return self._fast_factor(epoch) * (1.0 if first else self.lr_multi)
