"""How GroupViT is trained: switches, losses, schedule, optimiser groups. Inference: inference.py, labels.py."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from rislab.data.batch import Captions, LabelledPictures
from rislab.data.geometry import Stretch
from rislab.data.prompted_nouns import PromptedNouns, TaggerName, WordType
from rislab.data.transforms import TimmTraining, Transform
from rislab.encoders.clip.dense import TEMPLATES, TemplateName
from rislab.errors import ConfigError
from rislab.methods.base import IMAGENET_MEAN, IMAGENET_STD, TextSegmenter, contrast_stretched
from rislab.methods.groupvit import inference
from rislab.methods.groupvit.contrast import contrasts
from rislab.methods.groupvit.encoding import encode_images, encode_texts
from rislab.methods.groupvit.grouping import Grouping
from rislab.methods.groupvit.inference import EncodedImages, Maps
from rislab.methods.groupvit.labels import label_picture
from rislab.methods.groupvit.model import HEAD_WIDTH, GroupViT, ImageEncoder, TextEncoder, expect_multiple, stages_of
from rislab.methods.groupvit.schedule import Schedule
from rislab.methods.groupvit.texts import VOCABULARY, Texts


class GroupViTTask(TextSegmenter):
    """GroupViT as a Lightning module. Defaults are the official recipe (configs/group_vit_gcc_yfcc_30e.yml).

    Args:
        image_size, patch_size, embed_dim, depth, heads, drop_path: of the image encoder; inference takes pictures of any size.
        grouping_stages: 2: grouping after half of the blocks and after three quarters; 1: after half; 0: a plain ViT, whose
            patches are labelled (tables 3 and 4).
        group_tokens: learned tokens of the first stage, and its segments where there are two.
        output_groups: segments of the last grouping, and tokens of the second stage (table 2).
        hard_assignment: table 1.
        gumbel, gumbel_tau, assign_eps, sum_assign, pre_assign_attn: see `grouping.Grouping`.
        assign_start_gain, group_token_std: ours, for small networks and short runs: see `grouping.Grouping.start_gain` and
            `model.ImageEncoder`.
        text_width, text_layers, context_length: of the text encoder.
        output_dim, projector_hidden_dim: of the common space.
        multi_label: K prompted nouns a caption, 0 for none (table 1).
        multi_label_loss_weight: of their contrast.
        share_temperature: one for both contrasts.
        tagger: nltk, as the official code, needs NLTK's data; pattern needs none.
        word_type: nouns and verbs, or noun phrases.
        prompt_templates: of which each noun gets one at random.
        micro_batch: pictures in memory together, of a batch whose gradients are exact (gradient caching); None: all.
        base_lr, min_lr, warmup_lr, warmup_steps, weight_decay: AdamW's: linear warm-up, cosine over the whole run.
        augment: `official` is timm's preset.
        templates, top_classes, maps: inference: prompts of class names; names kept of a whole picture; see `inference.composed`.
        bg_thresh: least score of a name; None: the official code's for the names given, see `inference.background_threshold`.
        map_threshold: of a lone sentence, where between its lowest and its highest cosine with a group foreground begins.
    """

    any_size: ClassVar[bool] = True
    multi_scale: ClassVar[bool] = False
    trains_on: ClassVar[type[Captions]] = Captions
    absent_means: ClassVar[dict[str, object]] = {"assign_start_gain": 1.0, "group_token_std": None}
    hashed_with: ClassVar[dict[str, dict[str, object]]] = {"rislab.data.nouns.VERSION": {"tagger": "pattern"}}

    def __init__(
        self,
        image_size: int = 224,
        patch_size: int = 16,
        embed_dim: int = 384,
        depth: int = 12,
        heads: int = 6,
        drop_path: float = 0.1,
        grouping_stages: Literal[0, 1, 2] = 2,
        group_tokens: int = 64,
        output_groups: int = 8,
        hard_assignment: bool = True,
        gumbel: bool = True,
        gumbel_tau: float = 1.0,
        assign_eps: float = 1.0,
        sum_assign: bool = False,
        pre_assign_attn: bool = True,
        assign_start_gain: float = 1.0,
        group_token_std: float | None = None,
        text_width: int = 256,
        text_layers: int = 12,
        context_length: int = 77,
        output_dim: int = 256,
        projector_hidden_dim: int = 4096,
        multi_label: int = 3,
        multi_label_loss_weight: float = 1.0,
        share_temperature: bool = False,
        tagger: TaggerName = "nltk",
        word_type: WordType = "noun",
        prompt_templates: TemplateName = "imagenet80",
        micro_batch: int | None = None,
        base_lr: float = 1.6e-3,
        min_lr: float = 4e-5,
        warmup_lr: float = 4e-6,
        warmup_steps: int = 14_000,
        weight_decay: float = 0.05,
        augment: Literal["none", "official"] = "official",
        templates: TemplateName = "photo",
        top_classes: int = 5,
        maps: Maps = "soft",
        bg_thresh: float | None = None,
        map_threshold: float = 0.5,
    ) -> None:
        super().__init__(IMAGENET_MEAN, IMAGENET_STD)
        expect_multiple("image_size", image_size, patch_size)
        expect_multiple("embed_dim", embed_dim, heads)
        expect_multiple("text_width", text_width, HEAD_WIDTH)
        stages = stages_of(grouping_stages, depth, heads, group_tokens, output_groups)
        kind = Grouping(
            hard_assignment,
            gumbel,
            gumbel_tau,
            assign_eps,
            sum_assign,
            pre_assign_attn,
            assign_start_gain,
        )
        image = ImageEncoder(image_size, patch_size, embed_dim, stages, drop_path, kind, group_token_std)
        text = TextEncoder(VOCABULARY, context_length, text_width, text_layers)
        own_scale = multi_label > 0 and not share_temperature
        self.model = GroupViT(image, text, projector_hidden_dim, output_dim, own_scale)
        self.texts = Texts(self.model, context_length, TEMPLATES[templates])
        self.multi_label, self.multi_label_loss_weight = multi_label, multi_label_loss_weight
        self.geometry = Stretch(image_size)
        self.nouns: tuple[TaggerName, WordType] = (tagger, word_type)
        self.prompt_templates, self.augment, self.micro_batch = TEMPLATES[prompt_templates], augment, micro_batch
        self.schedule = Schedule(base_lr, min_lr, warmup_lr, warmup_steps, weight_decay)
        self.top_classes, self.bg_thresh, self.map_threshold = top_classes, bg_thresh, map_threshold
        self.maps: Maps = maps

    def train_transform(self) -> Transform | None:
        picture = TimmTraining(self.geometry.size) if self.augment == "official" else None
        if not self.multi_label:
            return picture
        return PromptedNouns(self.geometry.size, self.multi_label, self.prompt_templates, *self.nouns, picture=picture)

    def losses(self, batch: Captions) -> dict[str, Tensor]:
        """`contrast`, and `multi_label` where that is on."""
        texts = [[text] for text in batch.texts]
        if self.multi_label:
            if batch.nouns is None:
                raise ConfigError(f"model.multi_label is {self.multi_label}, and the data give no prompted nouns")
            texts = [[text, *nouns] for text, nouns in zip(batch.texts, batch.nouns, strict=True)]
        return self.losses_of(self.normalise(batch.images), self.texts.ids(texts))

    def losses_of(self, pixels: Tensor, ids: Tensor, noise: Sequence[Tensor] = ()) -> dict[str, Tensor]:
        """The same of normalised pixels [B, 3, H, W] and token ids int64 [B, 1 + K, L] on the CPU, captions first.

        Args:
            noise: of each grouping block, [B, G, S]; drawn where absent.
        """
        self.texts.clear()
        model, at_once = self.model, self.micro_batch
        images, usage = encode_images(model, pixels, noise, at_once)
        states = encode_texts(model, ids.flatten(0, 1), None if at_once is None else at_once * ids.shape[1])
        if self._trainer is not None:  # no losses, but what tells a collapse; see `encoding.usage`
            kinds = ("used_groups", "assignment_entropy")
            each = {f"train/{kind}_{n}": row[i] for n, row in enumerate(usage, 1) for i, kind in enumerate(kinds)}
            self.log_dict(each, batch_size=len(pixels))
        return contrasts(model, images, states.unflatten(0, ids.shape[:2]), self.multi_label_loss_weight)

    def encode_images(self, images: Tensor) -> EncodedImages:
        """All that `scores` needs of the images."""
        return inference.encode_images(self.model, self.normalise(images), self.maps)

    def groups_of(self, image: Tensor) -> dict[str, Tensor]:
        """The group of each patch, int64 [h, w], behind each grouping, of a picture uint8 [3, H, W] shown whole."""
        return inference.groups(self.model, self.normalise(image[None]), self.maps)

    def scores(self, encoded: EncodedImages, names: Sequence[str]) -> Tensor:
        """`segment_vocabulary` of encoded images."""
        return inference.spread(self._table(encoded, names), inference.group_of_pixels(encoded))

    def _table(self, encoded: EncodedImages, names: Sequence[str]) -> Tensor:
        """Scores [I, G, C] of the groups."""
        scale = inference.scale_of(self.model.logit_scale)
        return inference.class_scores(encoded, self.texts.names(names), scale, self.top_classes)

    def segment_vocabulary(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """Scores [I, C, H, W], each pixel's its group's; that of a name depends on the other names."""
        return self.scores(self.encode_images(images), names)

    def segment(self, images: Tensor, texts: Sequence[str], image_index: Tensor) -> Tensor:
        """A sentence alone has no other class to be compared with: its best group is foreground, its worst is not."""
        encoded = self.encode_images(images)
        cosines = inference.sentence_cosines(encoded, self.texts.unit(texts), image_index)
        logits = contrast_stretched(cosines[:, None], self.map_threshold)[:, 0]
        return inference.mixed(encoded, logits, image_index)

    def with_background(self, scores: Tensor) -> Tensor:
        level = inference.OTHERS if self.bg_thresh is None else self.bg_thresh
        tables = [inference.with_background(each.flatten(1).T, level) for each in scores]
        return torch.stack([table.T.unflatten(1, scores.shape[2:]) for table in tables])

    def label(self, batch: LabelledPictures) -> list[Tensor]:
        """See `TextSegmenter.label`. Scores of the names are those of groups, not of pixels."""
        level = inference.background_threshold(batch.names) if self.bg_thresh is None else self.bg_thresh

        def table(encoded: EncodedImages) -> Tensor:
            found = self._table(encoded, batch.names)[0]
            return inference.with_background(found, level) if batch.has_background else found

        return [
            label_picture(self.encode_images, table, image, (label.shape[0], label.shape[1]), batch.viewing)
            for image, label in zip(batch.images, batch.labels, strict=True)
        ]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return self.schedule.optimiser(self.parameters(), self.training_steps)
