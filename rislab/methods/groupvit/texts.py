"""Texts of GroupViT on their way into the common space: token ids, prompts of class names, embeddings that are kept."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rislab.encoders.clip.dense import averaged
from rislab.encoders.clip.tokens import Tokenizer
from rislab.methods.groupvit.encoding import encode_texts
from rislab.methods.groupvit.model import GroupViT

TOKENIZER, VOCABULARY = "ViT-B-16", 49_408
"""CLIP's byte pairs, by an open_clip model that has them; and their number."""


class Texts:
    """Embeddings of texts by a model whose weights may change.

    Args:
        model: has the text encoder and its projector; in evaluation mode when it is used here.
        context_length: tokens that a text is cut to.
        templates: prompts of class names, with ``{}`` for the name.
    """

    def __init__(self, model: GroupViT, context_length: int, templates: Sequence[str]) -> None:
        self.model, self.context_length, self.templates = model, context_length, templates
        self.tokenizer = Tokenizer(TOKENIZER)
        self._kept: tuple[object, Tensor] | None = None

    def ids(self, texts: Sequence[Sequence[str]]) -> Tensor:
        """Token ids int64 [B, T, L] of T texts for each of B pictures, on the CPU."""
        flat = self.tokenizer([text for each in texts for text in each], self.context_length)
        return flat.unflatten(0, (len(texts), -1))

    @torch.no_grad()
    def raw(self, texts: Sequence[str]) -> Tensor:
        """Embeddings float32 [N, D], not normalised."""
        ids = self.tokenizer(texts, self.context_length)
        return self.model.text_projector(encode_texts(self.model, ids)).float()

    def unit(self, texts: Sequence[str]) -> Tensor:
        """Unit embeddings [N, D] of sentences, without a prompt."""
        return F.normalize(self.raw(texts), dim=-1)

    def clear(self) -> None:
        """Drop what is kept: weights are about to change."""
        self._kept = None

    def names(self, names: Sequence[str]) -> Tensor:
        """Unit embeddings [C, D] of class names in their prompts; the last ones are kept until weights change."""
        # Fused optimisers change parameters without counting: training also calls `clear`.
        weights = sum(parameter._version for parameter in self.model.parameters()), self.model.logit_scale.device
        if self._kept is None or self._kept[0] != (tuple(names), weights):
            each = self.raw([form.format(name) for name in names for form in self.templates])
            units = averaged(each.unflatten(0, (len(names), len(self.templates))), unit_first=False)
            self._kept = (tuple(names), weights), units
        return self._kept[1]
