"""A BERT small enough for a laptop, pretrained on sentences of the toy world on first use.

It replaces Google's weights in the toy recipes: ``{name: rislab-tiny-BERT, pretrained: toy}``. Same class, a WordPiece
vocabulary of its own, pretrained by masked language modelling alone (Devlin et al., NAACL 2019, section 3.1).
"""

from collections import Counter
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rislab.data.toy import kinds, language, scene
from rislab.encoders.bert.model import BERT, Sizes
from rislab.encoders.bert.tokens import SPECIAL, WordPiece, read_vocabulary
from rislab.encoders.pretrained import cached_file, made_once, one_thread, own_randomness
from rislab.messages import progress

NAME = "rislab-tiny-BERT"
VOCABULARY = Path(__file__).parent / "configs" / f"{NAME}.txt"
"""Made by `make_vocabulary`."""
SIZES: Sizes = {"width": 64, "layers": 2, "heads": 4, "hidden": 128, "positions": 64}

VERSION = 1
"""Raise it when the same recipe would give other weights: for a change here, in the vocabulary, or in toy sentences."""

MASKED, LENGTH = 0.15, 32


@dataclass(frozen=True)
class Recipe:
    """How the tiny BERT is pretrained; its hash is part of the file's name.

    Attributes:
        scenes: Toy scenes that sentences are made of.
        steps: Optimiser steps.
        batch_size: Sentences a step.
        lr: Highest learning rate.
        seed: Of sentences, order, masks and weights.
    """

    scenes: int = 2000
    steps: int = 1500
    batch_size: int = 64
    lr: float = 3e-3
    seed: int = 0


@cache
def vocabulary() -> tuple[str, ...]:
    """The word pieces."""
    return tuple(read_vocabulary(VOCABULARY))


def weights_file(recipe: Recipe) -> Path:
    """Where the weights of this recipe are cached."""
    what = {"model": SIZES, "vocabulary": vocabulary(), "recipe": asdict(recipe), "version": VERSION}
    return cached_file("bert", NAME, what)


def pretrained_path(recipe: Recipe | None = None) -> Path:
    """The weights file, pretrained now if it is not there.

    Args:
        recipe: None for the default one.
    """
    recipe = recipe or Recipe()
    return made_once(weights_file(recipe), lambda: pretrain(recipe))


def sentences(scenes: int, seed: int) -> list[str]:
    """Sentences of toy scenes: as the three data sets word them, of groups, of nothing there, and of the labelled kinds."""
    rng = np.random.default_rng([seed, 11])
    found: list[str] = []
    for _ in range(scenes):
        things = scene.compose(rng, 96)
        if len(things) < 3:
            continue  # as for pictures: nothing to tell apart
        for name in language.KINDS:
            found += language.sentences(rng, things, int(rng.integers(len(things))), name, 96)
        group = language.group(rng, things, 96)
        absent = language.nothing_there(rng, things)
        found += ([group[0]] if group else []) + ([absent] if absent else [])
        found += [f"{thing.size} {thing.pattern} {thing.colour} {thing.shape}" for thing in kinds.gather(rng, 96, 2)]
    return found


def make_vocabulary(size: int = 180) -> list[str]:
    """The word pieces of toy sentences, with all letters and digits, so that no word is unknown.

    The trainer breaks ties between merges by chance: that is why the list is a file of the package, and not made when it is
    needed.

    Args:
        size: Of the trained part; below the number of words, so that some words have several pieces.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=size, show_progress=False, special_tokens=list(SPECIAL))
    tokenizer.train_from_iterator(sentences(2000, 0), trainer)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = set(tokenizer.get_vocab()) | set(letters) | {f"##{letter}" for letter in letters} | set(".,'-!?")
    return [*SPECIAL, *sorted(pieces - set(SPECIAL), key=lambda piece: (len(piece.removeprefix("##")), piece))]


class _MaskedWords(nn.Module):
    """The head that is trained with a BERT and then dropped: a layer, and the word table as classifier."""

    def __init__(self, bert: BERT) -> None:
        super().__init__()
        self.bert = bert
        self.dense = nn.Linear(bert.width, bert.width)
        self.norm = nn.LayerNorm(bert.width)
        self.bias = nn.Parameter(torch.zeros(bert.embeddings.word_embeddings.num_embeddings))

    def forward(self, ids: Tensor, padding: Tensor, at: Tensor) -> Tensor:
        """Logits over the vocabulary of the tokens where `at` bool [N, L] is True."""
        words = self.bert(ids, padding)[0][at]
        return F.linear(self.norm(F.gelu(self.dense(words))), self.bert.embeddings.word_embeddings.weight, self.bias)


def _masked(ids: Tensor, tokenizer: WordPiece) -> tuple[Tensor, Tensor]:
    """Ids with some words hidden, and where: 15 % are chosen; of these 80 % are [MASK], 10 % another word, 10 % themselves."""
    is_word = ids > tokenizer.mask_id
    at = is_word & (torch.rand(ids.shape) < MASKED)
    first = is_word & (is_word.cumsum(1) == 1 + torch.randint(0, 4, (len(ids), 1)))  # at least one, mostly
    at = at | (first & ~at.any(1, keepdim=True))
    draw = torch.rand(ids.shape)
    other = torch.randint(tokenizer.mask_id + 1, len(tokenizer), ids.shape)
    hidden = torch.where(draw < 0.8, torch.full_like(ids, tokenizer.mask_id), torch.where(draw < 0.9, other, ids))
    return torch.where(at, hidden, ids), at


def pretrain(recipe: Recipe) -> dict[str, Tensor]:
    """The state dict of a BERT that is trained to find the masked words of toy sentences."""
    head = _trained(recipe)
    return {key: value.detach().contiguous() for key, value in head.bert.state_dict().items()}


def _trained(recipe: Recipe) -> _MaskedWords:
    tokenizer = WordPiece(list(vocabulary()))
    tokens = tokenizer.tokens(list(dict.fromkeys(sentences(recipe.scenes, recipe.seed))), LENGTH)
    lengths = (~tokens.padding).sum(1)
    order = np.random.default_rng([recipe.seed, 2])
    with one_thread(), own_randomness(recipe.seed), progress(f"pretraining {NAME}") as show, torch.enable_grad():
        head = _MaskedWords(BERT(tokenizer, vocab_size=len(vocabulary()), dropout=0.0, attention_dropout=0.0, **SIZES))
        optimiser = torch.optim.AdamW(head.parameters(), lr=recipe.lr, weight_decay=0.01, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.lr, recipe.steps)
        for step in range(recipe.steps):
            chosen = torch.from_numpy(order.integers(0, len(tokens), recipe.batch_size))
            length = int(lengths[chosen].max())
            ids, padding = tokens.ids[chosen, :length], tokens.padding[chosen, :length]
            hidden, at = _masked(ids, tokenizer)
            loss = F.cross_entropy(head(hidden, padding, at), ids[at])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            show(step + 1, recipe.steps)
    return head.eval()


@torch.no_grad()
def masked_accuracy(recipe: Recipe) -> dict[str, Any]:
    """Share in percent of masked words of unseen sentences that the pretrained model finds, and of the most frequent word."""
    head = _trained(recipe)
    tokenizer = head.bert.tokenizer
    assert isinstance(tokenizer, WordPiece)
    known = set(sentences(recipe.scenes, recipe.seed))
    unseen = [text for text in dict.fromkeys(sentences(300, recipe.seed + 1000)) if text not in known]
    tokens = tokenizer.tokens(unseen, LENGTH)
    with own_randomness(recipe.seed):
        hidden, at = _masked(tokens.ids, tokenizer)
    right = tokens.ids[at]
    found = head(hidden, tokens.padding, at).argmax(-1)
    frequent = Counter(right.tolist()).most_common(1)[0][1]
    return {"model": 100 * float((found == right).float().mean()), "most frequent": 100 * frequent / len(right)}
