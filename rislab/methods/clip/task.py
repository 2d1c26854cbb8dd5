"""CLIP as a method: nothing is trained."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from rislab.data.geometry import Stretch
from rislab.encoders.clip.dense import TEMPLATES, Prompts, TemplateName, dense
from rislab.encoders.clip.tokens import Tokenizer
from rislab.encoders.clip.trunk import CLIPSpec, load
from rislab.methods.base import TrainingFree, contrast_stretched
from rislab.methods.clip.model import DenseCLIP


class CLIPTask(TrainingFree):
    """Plain CLIP, read densely: the first row of MaskCLIP's, TCL's and RISCLIP's tables.

    Args:
        clip: any CLIP with a ViT or one of CLIP's ResNets.
        image_size: side of the square that pictures are stretched to.
        templates: prompts that a name is put into; sentences of referring data are taken as they are.
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
        image_size: int = 480,
        templates: TemplateName = "imagenet80",
        map_threshold: float = 0.5,
        bg_thresh: float = 0.5,
    ) -> None:
        super().__init__()
        towers = load(clip)
        self.model = DenseCLIP(dense(towers.visual))
        del towers.visual  # it lives in the model
        self.prompts = Prompts(towers, Tokenizer(clip.name))
        self.templates = TEMPLATES[templates]
        self.geometry = Stretch(image_size)
        self.map_threshold, self.bg_thresh = map_threshold, bg_thresh
        self.freeze()

    def segment(self, images: Tensor, texts: Sequence[str], image_index: Tensor) -> Tensor:
        """Cosine maps [N, h, w], stretched between their own extremes: one sentence has no other class to be compared with."""
        features = self.encode_images(images)
        cosines = torch.einsum("ndhw,nd->nhw", features[image_index], self.prompts(texts))
        return contrast_stretched(cosines, self.map_threshold)

    def segment_vocabulary(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """100 cosine, [I, C, h, w]; the class is the largest."""
        return self.scores(self.encode_images(images), names)

    def encode_images(self, images: Tensor) -> Tensor:
        """Features [I, D, h, w], all that `scores` needs of the images."""
        return self.model(self.normalise(images))

    def scores(self, encoded: Tensor, names: Sequence[str]) -> Tensor:
        """`segment_vocabulary` of encoded images."""
        return 100.0 * torch.einsum("idhw,kd->ikhw", encoded, self.prompts(names, self.templates))

    def with_background(self, scores: Tensor) -> Tensor:
        """Probabilities over the names, and the background's threshold before them."""
        found = scores.softmax(1)
        return torch.cat([torch.full_like(found[:, :1], self.bg_thresh), found], dim=1)
