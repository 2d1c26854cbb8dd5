"""How DMMI is trained: switches, losses, optimiser (official args.py, train.py). The paper's tables: ablations/dmmi.yaml."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from rislab.data.batch import MaskQueries
from rislab.data.erasing import PhraseToErase
from rislab.data.geometry import Stretch
from rislab.data.nouns import tagger as tagger_of
from rislab.data.transforms import Transform
from rislab.encoders.bert.finetuning import distinct, train_first_layers
from rislab.encoders.bert.load import BERTSpec
from rislab.encoders.bert.load import load as load_bert
from rislab.errors import ConfigError
from rislab.losses.two_classes import weighted_cross_entropy
from rislab.methods.base import IMAGENET_MEAN, IMAGENET_STD, TextSegmenter
from rislab.methods.dmmi.erased import erased
from rislab.methods.dmmi.losses import pixel_sentence_contrast, recovery
from rislab.methods.dmmi.model import DMMI
from rislab.methods.dmmi.trunk import TrunkSpec
from rislab.methods.dmmi.trunk import load as load_trunk
from rislab.nn.lavt_recipe import poly_adamw, warn_of_a_small_batch

POSITIONS_AT_ONCE = 4 * 120 * 120
"""At stride 4, of all queries that evaluation computes together: more bring nothing on a CPU, and a benchmark's batch has a
hundred queries."""


class DMMITask(TextSegmenter):
    """DMMI as a Lightning module. Defaults are the official recipe; tables of the paper are known by their subjects only.

    Args:
        trunk: ``{name: swin_base, pretrained: hub, window: 12}`` or ``{name: resnet101, pretrained: hub}``.
        bert: the text encoder.
        image_size: side of the square that pictures are stretched to, or height and width; over 32 pixels. The paper has 448.
        max_tokens: tokens a sentence is cut to, [CLS] and [SEP] included; a cut sentence loses [SEP].
        mba: the two-way fusion (components); off: one region of one pixel and no update of the text, LAVT's one-way fusion.
        mba_directions: whether pixels, words, or both get a residual (directions).
        regions: odd sides of the regions in which a pixel looks for words.
        token_windows: tokens with which a word looks for pixels.
        mixing: weights of the maps of regions and of windows.
        fusion_drop, drop_path: dropout of the pixels' residual; rate of skipped blocks of a Swin.
        ccr: the decoder from image to text and its loss (components).
        detach_target: no gradient through the intact words.
        contrastive, tau: the contrast of pooled pixels and sentence (components), and its temperature.
        zero_indicator: leave zero targets out of both auxiliary losses, but for being negatives.
        erase, fill, when: what is erased, by which token, and whether it is chosen once or in every epoch (erasing).
        alignment: see `erased`.
        tagger: which says what a noun is; `nltk` is the official one and needs data.
        lambda_sim, lambda_con: weights of the auxiliary losses. The paper has 1.
        class_weights: of background and foreground.
        bert_dropout: whether BERT's dropout is on in training; off officially.
        bert_train_layers, bert_train_embeddings: how many of BERT's layers are trained, from the first; whether its embeddings
            are.
        decoder_heads, decoder_hidden, decoder_dropout: of the transformer layers.
        mask_padding_in_decoder, mask_padding_in_contrastive: leave padded words out of the decoder's attention, and of the pooled
            sentence; officially they are in both.
        base_lr, weight_decay, power: AdamW's, and of the schedule lr (1 - step / steps) ** power.
        warmup_steps: steps in which the rate rises to that of the schedule; none officially.
    """

    trains_on: ClassVar[type[MaskQueries]] = MaskQueries
    absent_means: ClassVar[dict[str, object]] = {"warmup_steps": 0}
    unused: ClassVar[tuple[str, ...]] = (
        "model.unread.",
        "model.fusions.3.gate.",
        *(f"model.fusions.{i}.mba.words.value.bias" for i in range(4)),
        *(f"model.fusions.{i}.mba.words.windows.0.key.bias" for i in range(4)),
    )
    hashed_with: ClassVar[dict[str, dict[str, object]]] = {"rislab.data.nouns.VERSION": {"tagger": "pattern"}}

    def __init__(
        self,
        trunk: TrunkSpec,
        bert: BERTSpec,
        image_size: int | tuple[int, int] = 480,
        max_tokens: int = 20,
        mba: bool = True,
        mba_directions: Literal["both", "visual_only", "text_only"] = "both",
        regions: tuple[int, ...] = (1, 3, 5),
        token_windows: tuple[int, ...] = (1, 2, 3),
        mixing: Literal["learned", "uniform"] = "learned",
        fusion_drop: float = 0.0,
        drop_path: float = 0.3,
        ccr: bool = True,
        detach_target: bool = True,
        contrastive: bool = True,
        tau: float = 0.05,
        zero_indicator: bool = True,
        erase: Literal["noun_phrase", "random_word", "none"] = "noun_phrase",
        fill: Literal["pad", "mask"] = "pad",
        when: Literal["once", "every_epoch"] = "once",
        alignment: Literal["exact", "official"] = "exact",
        tagger: Literal["nltk", "pattern"] = "pattern",
        lambda_sim: float = 0.01,
        lambda_con: float = 0.01,
        class_weights: tuple[float, float] = (0.9, 1.1),
        bert_dropout: bool = False,
        bert_train_layers: int = 10,
        bert_train_embeddings: bool = False,
        decoder_heads: int = 8,
        decoder_hidden: int = 2048,
        decoder_dropout: float = 0.1,
        mask_padding_in_decoder: bool = False,
        mask_padding_in_contrastive: bool = False,
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
        if not regions or any(k < 1 or k % 2 == 0 for k in regions):
            raise ConfigError(f"model.regions is {tuple(regions)}, expected odd numbers of pixels")
        if not token_windows or any(n < 1 for n in token_windows):
            raise ConfigError(f"model.token_windows is {tuple(token_windows)}, expected numbers of tokens from 1")
        text = load_bert(bert, max_tokens)
        if text.width % decoder_heads:
            raise ConfigError(f"model.decoder_heads {decoder_heads} does not divide the text width {text.width}")
        train_first_layers(text, bert_train_layers, bert_train_embeddings)
        self.model = DMMI(
            text,
            load_trunk(trunk, drop_path),
            regions if mba else (1,),
            token_windows,
            mixing == "learned",
            mba_directions if mba else "visual_only",
            fusion_drop,
            ccr,
            contrastive,
            decoder_heads,
            decoder_hidden,
            decoder_dropout,
            mask_padding_in_decoder,
        )
        self.transform = None
        if ccr and erase != "none":
            tagger_of(tagger)  # a tagger without its data is found here, not in a loader process
            # Official: only words whose token, p + 1 for word p, lies within the sentence.
            self.transform = PhraseToErase(erase, when == "every_epoch", tagger, max_tokens - 1)
        self.detach_target, self.zero_indicator, self.tau = detach_target, zero_indicator, tau
        self.fill, self.alignment = fill, alignment
        self.lambda_sim, self.lambda_con, self.class_weights = lambda_sim, lambda_con, class_weights
        self.bert_dropout = bert_dropout
        self.mask_padding_in_contrastive = mask_padding_in_contrastive
        self.base_lr, self.weight_decay, self.power, self.warmup_steps = base_lr, weight_decay, power, warmup_steps
        self.train()  # a Trainer keeps the modes that it finds

    def train(self, mode: bool = True) -> "DMMITask":
        """BERT stays in evaluation mode, as officially: its loader leaves it so, and nothing puts it into training mode."""
        super().train(mode)
        if not self.bert_dropout:
            self.model.text.eval()
        return self

    def train_transform(self) -> Transform | None:
        return self.transform

    def _words(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Words [N, L, D], each sentence encoded once, and which of them are no padding, bool [N, L]."""
        different, which = distinct(texts)
        tokens = self.model.text.tokens(different)
        return self.model.text.words(tokens)[which], ~tokens.padding[which]

    def segment(self, images: Tensor, texts: Sequence[str], image_index: Tensor) -> Tensor:
        first = self.model.encode_images(self.normalise(images))
        at_once = max(1, POSITIONS_AT_ONCE // first[0, ..., 0].numel())
        rows = (each.split(at_once) for each in (*self._words(texts), image_index))
        found = [self.model.answer(first, *some).logits for some in zip(*rows, strict=True)]
        logits = torch.cat(found) if len(found) > 1 else found[0]
        return logits[:, 1] - logits[:, 0]

    def losses(self, batch: MaskQueries) -> dict[str, Tensor]:
        """`cross_entropy`; `similarity` of recovered words; `contrastive` of pixels and sentences of the same process."""
        masks = batch.masks
        assert masks is not None
        words, is_word = self._words(batch.texts)
        answer = self.model.answer(
            self.model.encode_images(self.normalise(batch.images)), words, is_word, batch.image_index
        )
        logits = answer.logits[:, 1] - answer.logits[:, 0]
        terms = {"cross_entropy": weighted_cross_entropy(logits, masks, self.class_weights)}
        has_target = [not (none and self.zero_indicator) for none in batch.no_target]
        indicator, present = torch.tensor(has_target, device=logits.device).float(), is_word.float()
        if self.model.recovery is not None:
            found = self.model.recovery(answer.levels[1], self._erased_words(batch, words))
            target = answer.text.detach() if self.detach_target else answer.text
            terms["similarity"] = self.lambda_sim * recovery(target, found, present, indicator)
        if self.model.pooling is not None:
            pixels = self.model.pooling.pixels(answer.levels)
            sentences = self.model.pooling.sentence(answer.text, present if self.mask_padding_in_contrastive else None)
            terms["contrastive"] = self.lambda_con * pixel_sentence_contrast(pixels, sentences, indicator, self.tau)
        return terms

    def _erased_words(self, batch: MaskQueries, words: Tensor) -> Tensor:
        """Words [N, L, D] of the sentences without their chosen phrases, as BERT gives them."""
        spans = batch.noun_spans
        if spans is None or not any(spans):
            return words
        tokens = self.model.text.tokens(batch.texts)
        return self.model.text.words(erased(tokens, spans, self.alignment, self.fill))

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
