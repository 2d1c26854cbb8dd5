"""MaskCLIP as a method: nothing is trained; texts, arithmetic and the two refinements are switches."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rislab.data.geometry import Stretch
from rislab.encoders.clip.dense import TEMPLATES, LastAttention, Prompts, TemplateName, dense, imitate_mmseg
from rislab.encoders.clip.tokens import Tokenizer
from rislab.encoders.clip.trunk import CLIPSpec, load
from rislab.methods.base import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, TrainingFree, contrast_stretched
from rislab.methods.maskclip.model import KeyNorm, MaskCLIP


class MaskCLIPTask(TrainingFree):
    """MaskCLIP. Defaults are the official zero-shot configuration, but for OpenAI's arithmetic.

    Args:
        clip: any CLIP with a ViT or one of CLIP's ResNets.
        image_size: side of the square that pictures are stretched to.
        last_attention: each patch's own value, or the full attention of plain CLIP (main comparison of the paper).
        residual, ffn: of the last block, for the value path of a ViT ("ours": how other papers read MaskCLIP).
        arithmetic: LayerNorm eps and GELU of OpenAI's CLIP, or of the official code; see
            `rislab.encoders.clip.dense.imitate_mmseg`.
        normalisation: of pictures; the official pipeline takes ImageNet's.
        templates: prompts that a name is put into; sentences of referring data are taken as they are.
        pd_thresh: prompt denoising, 0 off; official runs with it: 0.5.
        ks_thresh: key smoothing, 0 off; official runs: 1.0.
        ks_norm: how keys are normalised for it. Both need several classes: they refine `segment_vocabulary` only.
        map_threshold: where between the lowest and the highest cosine of a sentence's map foreground begins.
        bg_thresh: probability among the class names below which a pixel is background, where a benchmark has one.
    """

    frozen: ClassVar[tuple[str, ...]] = ("model.", "prompts.")
    any_size: ClassVar[bool] = True
    untrained_when: ClassVar[tuple[dict[str, object], ...]] = ({},)
    absent_means: ClassVar[dict[str, Any]] = {"bg_thresh": 0.5}

    def __init__(
        self,
        clip: CLIPSpec,
        image_size: int = 512,
        last_attention: LastAttention = "value",
        residual: bool = True,
        ffn: bool = True,
        arithmetic: Literal["openai", "official"] = "openai",
        normalisation: Literal["imagenet", "clip"] = "imagenet",
        templates: TemplateName = "scene85",
        pd_thresh: float = 0.0,
        ks_thresh: float = 0.0,
        ks_norm: KeyNorm = "positions",
        map_threshold: float = 0.5,
        bg_thresh: float = 0.5,
    ) -> None:
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if normalisation == "imagenet" else (CLIP_MEAN, CLIP_STD)
        super().__init__(mean, std)
        towers = load(clip)
        if arithmetic == "official":
            imitate_mmseg(towers.visual)
        self.model = MaskCLIP(dense(towers.visual), last_attention, residual, ffn)
        del towers.visual  # it lives in the model
        self.prompts = Prompts(towers, Tokenizer(clip.name))
        self.templates = TEMPLATES[templates]
        self.geometry = Stretch(image_size)
        self.pd_thresh, self.ks_thresh, self.ks_norm = pd_thresh, ks_thresh, ks_norm
        self.map_threshold, self.bg_thresh = map_threshold, bg_thresh
        self.freeze()

    def segment(self, images: Tensor, texts: Sequence[str], image_index: Tensor) -> Tensor:
        """Cosine maps [N, h, w], stretched between their own extremes: one sentence has no other class to be compared with."""
        features, _ = self.model.features(self.normalise(images))
        cosines = torch.einsum("ndhw,nd->nhw", features[image_index], self.prompts(texts))
        return contrast_stretched(cosines, self.map_threshold)

    def segment_vocabulary(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """Scores [I, C, h, w]: 100 cosine, or smoothed probabilities; the class is the largest."""
        return self.scores(self.encode_images(images), names)

    def encode_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features and keys of the images, all that `scores` needs of them; see `MaskCLIP.features`."""
        return self.model.features(self.normalise(images))

    def scores(self, encoded: tuple[Tensor, Tensor], names: Sequence[str]) -> Tensor:
        """`segment_vocabulary` of encoded images."""
        texts = self.prompts(names, self.templates)
        scores = self.model.scores(*encoded, texts, self.pd_thresh, self.ks_thresh, self.ks_norm)
        return scores if self.ks_thresh > 0 else 100.0 * scores

    def with_background(self, scores: Tensor) -> Tensor:
        """Probabilities over the names, and the background's threshold before them; the official code has no background."""
        found = scores if self.ks_thresh > 0 else scores.softmax(1)
        return torch.cat([torch.full_like(found[:, :1], self.bg_thresh), found], dim=1)
