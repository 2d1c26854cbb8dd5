"""A CLIP small enough for a laptop, pretrained on the toy world on first use.

It replaces OpenAI's weights in the toy recipes: ``{name: rislab-tiny-RN, pretrained: toy}``. Same classes, same tokenizer,
same contrastive objective (InfoNCE over the batch, learned temperature; Radford et al., ICML 2021, section 2.3).
"""

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from rislab.data.toy import captions
from rislab.encoders.pretrained import cached_file, made_once, own_randomness
from rislab.errors import ConfigError, nearest
from rislab.messages import progress

CONFIGS = Path(__file__).parent / "configs"
NAMES = tuple(sorted(path.stem for path in CONFIGS.glob("*.json")))
MEAN = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(1, 3, 1, 1)
STD = torch.tensor(open_clip.OPENAI_DATASET_STD).view(1, 3, 1, 1)


VERSION = 6
"""Raise it when the same recipe would give other weights: for a change here, in a model config, in scenes or captions."""


@dataclass(frozen=True)
class Recipe:
    """How a tiny CLIP is pretrained; its hash is part of the file's name.

    Attributes:
        pairs: Pictures with captions.
        steps: Optimiser steps.
        batch_size: Pairs a step.
        lr: Highest learning rate.
        size: Side of the pictures in pixels.
        seed: Of pictures, order and weights.
        kinds: Pictures hold the kinds of things that the labelled pictures hold, else those that are referred to.
    """

    pairs: int = 6000
    steps: int = 500
    batch_size: int = 48
    lr: float = 2e-3
    size: int = 96
    seed: int = 0
    kinds: bool = False


RECIPES = {
    "rislab-tiny-RN": Recipe(),
    "rislab-tiny-ViT": Recipe(steps=500, kinds=True),
}


@cache
def register_configs() -> None:
    """Make our model configs known to open_clip; a second call does nothing."""
    open_clip.add_model_config(CONFIGS)


def weights_file(name: str, recipe: Recipe) -> Path:
    """Where the weights of this model and recipe are cached."""
    recipe_of(name)
    what = {
        "model": json.loads((CONFIGS / f"{name}.json").read_text()),
        "recipe": asdict(recipe),
        "version": VERSION,
    }
    return cached_file("clip", name, what)


def recipe_of(name: str) -> Recipe:
    """How the model of this name is pretrained.

    Raises:
        ConfigError: The name is none of `NAMES`.
    """
    if name not in NAMES:
        raise ConfigError(f"{name!r} has no toy weights, only {', '.join(NAMES)}{nearest(name, NAMES)}")
    return RECIPES[name]


def pretrained_path(name: str, recipe: Recipe | None = None) -> Path:
    """The weights file, pretrained now if it is not there.

    Args:
        name: One of `NAMES`.
        recipe: None for the model's own.
    """
    recipe = recipe or recipe_of(name)
    return made_once(weights_file(name, recipe), lambda: pretrain(name, recipe))


def _normalise(images: np.ndarray[Any, Any]) -> Tensor:
    """uint8 [n, S, S, 3] -> float32 [n, 3, S, S], channels last in memory."""
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD


def _pairs(recipe: Recipe, count: int, seed: int) -> tuple[np.ndarray[Any, Any], list[str]]:
    if recipe.kinds:
        return captions.kinds_pairs(count, recipe.size, seed, whole=True)
    return captions.pairs(count, recipe.size, seed)


def pretrain(name: str, recipe: Recipe) -> dict[str, Tensor]:
    """The state dict of a CLIP that is trained contrastively on captioned toy scenes.

    Args:
        name: One of `NAMES`.
        recipe: How.
    """
    register_configs()
    images, texts = _pairs(recipe, recipe.pairs, recipe.seed)
    tokens = open_clip.get_tokenizer(name)(texts)
    # Captions are short and attention is causal: what follows the longest one changes nothing.
    length = int((tokens != 0).sum(1).max())
    order = np.random.default_rng([recipe.seed, 2])
    with own_randomness(recipe.seed), progress(f"pretraining {name}") as show, torch.enable_grad():
        model = open_clip.create_model(name, force_quick_gelu=True, precision="fp32").train()
        model = model.to(memory_format=torch.channels_last)
        words = _only_used_words(model, tokens)
        optimiser = torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad], lr=recipe.lr, weight_decay=0.01, fused=True
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.lr, recipe.steps)
        for step in range(recipe.steps):
            chosen = order.integers(0, recipe.pairs, recipe.batch_size)
            image = F.normalize(model.encode_image(_normalise(images[chosen])), dim=-1)
            text = F.normalize(words(model, tokens[chosen], length), dim=-1)
            logits = model.logit_scale.exp().clamp(max=100) * image @ text.T
            # The same caption twice in a batch is no negative.
            same = (tokens[chosen][:, None] == tokens[chosen][None]).all(-1)
            target = same.float() / same.sum(1, keepdim=True)
            loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            show(step + 1, recipe.steps)
        words.write_back(model)
        _temper(model, tokens[: recipe.batch_size])
    return {key: value.detach().contiguous() for key, value in model.state_dict().items()}


def _temper(model: Any, tokens: Tensor) -> None:
    """Scale the sentence state to a norm of about sqrt(embed_dim) / 4.

    Retrieval compares directions and does not change. Kernels made from the state (CRIS) grow with its norm, and a head of few
    channels has no fan-in that averages large ones out.
    """
    with torch.no_grad():
        norm = model.encode_text(tokens).norm(dim=-1).mean()
        model.text_projection *= model.text_projection.shape[1] ** 0.5 / 4 / norm


class _only_used_words:  # noqa: N801  reads as a step of the recipe
    """Trains only the rows of the token embedding that occur, instead of all 49,408 in each step."""

    def __init__(self, model: Any, tokens: Tensor) -> None:
        self.used = tokens.unique()
        self.index = torch.zeros(model.token_embedding.num_embeddings, dtype=torch.int64)
        self.index[self.used] = torch.arange(len(self.used))
        model.token_embedding.weight.requires_grad_(False)
        model.register_parameter("used_words", torch.nn.Parameter(model.token_embedding.weight[self.used].clone()))

    def __call__(self, model: Any, tokens: Tensor, length: int) -> Tensor:
        """Sentence features [n, embed_dim] of token ids [n, context], read up to `length`."""
        tokens = tokens[:, :length]
        x = F.embedding(self.index[tokens], model.used_words) + model.positional_embedding[:length]
        x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
        state: Tensor = x[torch.arange(len(tokens)), tokens.argmax(-1)] @ model.text_projection
        return state

    def write_back(self, model: Any) -> None:
        with torch.no_grad():
            model.token_embedding.weight[self.used] = model.used_words
        del model.used_words


@torch.no_grad()
def retrieval(name: str, candidates: int = 100, rounds: int = 5, recipe: Recipe | None = None) -> dict[str, Any]:
    """Share in percent of unseen pairs whose partner is ranked first, or among the first five, of `candidates`.

    Captions that occur twice among the candidates are left out, so that there is one right answer.

    Args:
        name: One of `NAMES`.
        candidates: Pairs among which the partner is searched.
        rounds: Times that it is repeated, with other pairs.
        recipe: None for the model's own.

    Returns:
        `R@1` and `R@5` under `image to text`, `text to image` and `chance`.
    """
    register_configs()
    recipe = recipe or recipe_of(name)
    path = pretrained_path(name, recipe)
    model = open_clip.create_model(name, pretrained=str(path), force_quick_gelu=True, precision="fp32").eval()
    images, texts = _pairs(recipe, 2 * candidates * rounds, recipe.seed + 1000)
    keep = list({text: i for i, text in enumerate(texts)}.values())
    ranks: dict[str, list[Tensor]] = {"image to text": [], "text to image": []}
    for start in range(0, min(len(keep), candidates * rounds) - candidates + 1, candidates):
        chosen = keep[start : start + candidates]
        image = F.normalize(model.encode_image(_normalise(images[chosen])), dim=-1)
        text = F.normalize(model.encode_text(open_clip.get_tokenizer(name)([texts[i] for i in chosen])), dim=-1)
        similarity = image @ text.T
        for way, scores in (("image to text", similarity), ("text to image", similarity.T)):
            ranks[way].append((scores > scores.diagonal()[:, None]).sum(1))
    result: dict[str, Any] = {"name": name, "candidates": candidates}
    for way, found in ranks.items():
        rank = torch.cat(found)
        result[way] = {f"R@{k}": 100 * float((rank < k).float().mean()) for k in (1, 5)}
    result["chance"] = {f"R@{k}": 100 * k / candidates for k in (1, 5)}
    return result
