"""How LAVT is trained: switches, losses, optimiser (official args.py, train.py). The paper's tables: ablations/lavt.yaml."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from rislab.data.batch import MaskQueries
from rislab.data.geometry import Stretch
from rislab.encoders.bert.finetuning import distinct, train_first_layers
from rislab.encoders.bert.load import BERTSpec
from rislab.encoders.bert.load import load as load_bert
from rislab.encoders.swin.load import SwinSpec
from rislab.encoders.swin.load import load as load_swin
from rislab.errors import ConfigError
from rislab.losses.two_classes import two_class_dice, weighted_cross_entropy
from rislab.methods.base import IMAGENET_MEAN, IMAGENET_STD, TextSegmenter
from rislab.methods.lavt.model import LAVT
from rislab.nn.lavt_recipe import poly_adamw, warn_of_a_small_batch

POSITIONS_AT_ONCE = 8 * 120 * 120
"""At stride 4, of all queries that evaluation computes together: more bring nothing on a CPU, and a benchmark's batch has a
hundred queries."""


class LAVTTask(TextSegmenter):
    """LAVT as a Lightning module. Defaults are the official recipe of `lavt`.

    Args:
        swin: the trunk, e.g. ``{name: swin_base, pretrained: hub, window: 12}``.
        bert: the text encoder.
        image_size: side of the square that pictures are stretched to, or height and width; more than 32 pixels.
        max_tokens: tokens a sentence is cut to, [CLS] and [SEP] included; a cut sentence loses [SEP].
        language_pathway: how the fused text enters the next stage (paper, table 2 "LP", and text around 3c): added, concatenated,
            in the place of the map, or not at all; the last is a late fusion between trunk and decoder.
        text_pooling: fuse words, or one mean vector (table 2, without "PWAM"; our reading).
        gate, gate_layers: of the fused text (table 3a); `none` for a factor of 1. The number of layers is ours.
        inorm_query, inorm_out: InstanceNorms in PWAM (table 3b, where both change together).
        fusion_stages: stages from 1 that have a fusion; the decoder gets the visual map of the others (ours).
        decoder_input: what the decoder gets of a stage, the fused text or the gated sum (table 3c).
        pwam_heads, head_scale: heads of each stage; logits are divided by the square root of all channels or of a head's.
        fusion_drop, drop_path: dropout in the fusion; rate of skipped blocks of the trunk.
        decoder_width: channels of the decoder; none given: four times those of the first stage, as officially.
        class_weights: of background and foreground in the cross-entropy.
        loss: cross-entropy, Dice, or both; the code of the authors' Dice loss was never released, so it is ours.
        bert_dropout: whether BERT's dropout is on in training; off in `lavt`, on in `lavt_one`.
        bert_train_layers, bert_train_embeddings: how many of BERT's layers are trained, from the first; whether its embeddings
            are.
        base_lr, weight_decay, power: AdamW's, and of the schedule lr (1 - step / steps) ** power.
        warmup_steps: steps in which the rate rises to that of the schedule; none officially.
    """

    trains_on: ClassVar[type[MaskQueries]] = MaskQueries
    absent_means: ClassVar[dict[str, object]] = {"warmup_steps": 0}
    unused: ClassVar[tuple[str, ...]] = ("model.fusions.3.gate.",)

    def __init__(
        self,
        swin: SwinSpec,
        bert: BERTSpec,
        image_size: int | tuple[int, int] = 480,
        max_tokens: int = 20,
        language_pathway: Literal["sum", "concat", "replace", "none"] = "sum",
        text_pooling: Literal["words", "mean"] = "words",
        gate: Literal["tanh", "sigmoid", "none"] = "tanh",
        gate_layers: Literal[1, 2] = 2,
        inorm_query: bool = True,
        inorm_out: bool = True,
        fusion_stages: tuple[int, ...] = (1, 2, 3, 4),
        decoder_input: Literal["residual", "gated_sum"] = "residual",
        pwam_heads: tuple[int, int, int, int] = (1, 1, 1, 1),
        head_scale: Literal["full", "head"] = "full",
        fusion_drop: float = 0.0,
        drop_path: float = 0.3,
        decoder_width: int | None = None,
        class_weights: tuple[float, float] = (0.9, 1.1),
        loss: Literal["ce", "dice", "ce+dice"] = "ce",
        bert_dropout: bool = False,
        bert_train_layers: int = 10,
        bert_train_embeddings: bool = False,
        base_lr: float = 5e-5,
        weight_decay: float = 0.01,
        power: float = 0.9,
        warmup_steps: int = 0,
    ) -> None:
        super().__init__(IMAGENET_MEAN, IMAGENET_STD)
        self.geometry = Stretch(image_size)
        if warmup_steps < 0:
            raise ConfigError(f"model.warmup_steps is {warmup_steps}, expected 0 or more")
        if min(self.geometry.size) <= 32:
            raise ConfigError(
                f"model.image_size is {image_size}, expected more than 32: at stride 32, InstanceNorm of one pixel is 0"
            )
        if not fusion_stages or not set(fusion_stages) <= {1, 2, 3, 4}:
            raise ConfigError(f"model.fusion_stages is {tuple(fusion_stages)}, expected some of 1 to 4")
        trunk = load_swin(swin, drop_path)
        wrong = [
            i for i, (C, heads) in enumerate(zip(trunk.channels, pwam_heads, strict=True)) if heads < 1 or C % heads
        ]
        if wrong:
            raise ConfigError(
                f"model.pwam_heads is {tuple(pwam_heads)}: {pwam_heads[wrong[0]]} does not divide the "
                f"{trunk.channels[wrong[0]]} channels of stage {wrong[0] + 1}"
            )
        text = load_bert(bert, max_tokens)
        train_first_layers(text, bert_train_layers, bert_train_embeddings)
        self.model = LAVT(
            text,
            trunk,
            language_pathway,
            text_pooling,
            gate,
            gate_layers,
            inorm_query,
            inorm_out,
            fusion_stages,
            decoder_input,
            pwam_heads,
            head_scale,
            fusion_drop,
            decoder_width,
        )
        self.class_weights, self.loss = class_weights, loss
        self.bert_dropout = bert_dropout
        self.base_lr, self.weight_decay, self.power, self.warmup_steps = base_lr, weight_decay, power, warmup_steps
        self.train()  # a Trainer keeps the modes that it finds

    def train(self, mode: bool = True) -> "LAVTTask":
        """In `lavt`, BERT stays in evaluation mode: its loader leaves it so, and nothing puts it into training mode."""
        super().train(mode)
        if not self.bert_dropout:
            self.model.text.eval()
        return self

    def forward(self, images: Tensor, texts: Sequence[str], image_index: Tensor) -> Tensor:
        """uint8 images [I, 3, H, W] and N sentences -> mask logits [N, H/4, W/4], foreground minus background."""
        maps = self.model.encode_images(self.normalise(images))
        different, which = distinct(texts)
        tokens = self.model.text.tokens(different)
        words, is_word = self.model.text.words(tokens)[which], ~tokens.padding[which]
        at_once = len(texts) if torch.is_grad_enabled() else max(1, POSITIONS_AT_ONCE // maps[0][0, ..., 0].numel())
        found = [
            self.model.answer(maps, *rows)
            for rows in zip(words.split(at_once), is_word.split(at_once), image_index.split(at_once), strict=True)
        ]
        logits = torch.cat(found) if len(found) > 1 else found[0]
        return logits[:, 1] - logits[:, 0]

    def segment(self, images: Tensor, texts: Sequence[str], image_index: Tensor) -> Tensor:
        return self(images, texts, image_index)

    def losses(self, batch: MaskQueries) -> dict[str, Tensor]:
        """`cross_entropy` and `dice`, those of the option `loss`."""
        masks = batch.masks
        assert masks is not None
        logits = self(batch.images, batch.texts, batch.image_index)
        terms = {}
        if self.loss != "dice":
            terms["cross_entropy"] = weighted_cross_entropy(logits, masks, self.class_weights)
        if self.loss != "ce":
            terms["dice"] = two_class_dice(logits, masks)
        return terms

    def on_fit_start(self) -> None:
        warn_of_a_small_batch(self.trainer)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return poly_adamw(
            self.model.named_parameters(),
            ("trunk.", "fusions.", "norms."),
            self.base_lr,
            self.weight_decay,
            self.training_steps,
            self.power,
            self.warmup_steps,
        )
