"""A Swin small enough for a laptop, pretrained on the toy world on first use.

It replaces ImageNet's weights in the toy recipes: ``{name: rislab-tiny-Swin, pretrained: toy, window: 6}``. Same class;
pretrained by classifying pictures of one thing: its shape, colour, size and pattern.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from rislab.data.toy import scene
from rislab.encoders.pretrained import cached_file, made_once, one_thread, own_randomness
from rislab.encoders.swin.model import Swin
from rislab.messages import progress

NAME = "rislab-tiny-Swin"
EMBED_DIM, DEPTHS, NUM_HEADS, WINDOW = 16, (1, 1, 2, 1), (2, 4, 4, 8), 6
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)

VERSION = 1
"""Raise it when the same recipe would give other weights: for a change here, in the network, or in toy scenes."""

QUESTIONS = (scene.SHAPES, tuple(scene.COLOURS), tuple(scene.SIZES), scene.PATTERNS)
"""What is classified, each by a softmax of its own."""


@dataclass(frozen=True)
class Recipe:
    """How the tiny Swin is pretrained; its hash is part of the file's name.

    Attributes:
        pictures: Pictures of one thing.
        steps: Optimiser steps.
        batch_size: Pictures a step.
        lr: Highest learning rate.
        size: Side of the pictures in pixels.
        scene: Side of the scenes in pixels in which a thing has its size: it fills a picture half as large as a scene.
        seed: Of pictures, order and weights.
    """

    pictures: int = 6000
    steps: int = 600
    batch_size: int = 48
    lr: float = 3e-3
    size: int = 48
    scene: int = 96
    seed: int = 0


def weights_file(recipe: Recipe) -> Path:
    """Where the weights of this recipe are cached."""
    sizes = {"embed_dim": EMBED_DIM, "depths": DEPTHS, "num_heads": NUM_HEADS, "window": WINDOW}
    return cached_file("swin", NAME, {"model": sizes, "recipe": asdict(recipe), "version": VERSION})


def pretrained_path(recipe: Recipe | None = None) -> Path:
    """The weights file, pretrained now if it is not there.

    Args:
        recipe: None for the default one.
    """
    recipe = recipe or Recipe()
    return made_once(weights_file(recipe), lambda: pretrain(recipe))


def pictures(recipe: Recipe, count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """uint8 RGB [count, size, size, 3], one thing each, and int64 [count, 4], the answers to `QUESTIONS`."""
    size = recipe.size
    sizes = {w: (low * recipe.scene / size, high * recipe.scene / size) for w, (low, high) in scene.SIZES.items()}
    rng = np.random.default_rng([seed, 13])
    images = np.empty((count, size, size, 3), np.uint8)
    answers = np.empty((count, len(QUESTIONS)), np.int64)
    for i in range(count):
        kind = str(rng.choice(scene.SHAPES)), str(rng.choice(list(scene.COLOURS)))
        thing = scene.place(rng, size, kind, [], sizes, striped=0.5)
        assert thing is not None, "there is space for the first thing"
        drawn = scene.draw(rng, (thing,), size)
        assert drawn is not None, "a lone thing is never hidden"
        images[i] = drawn.image
        looks = thing.shape, thing.colour, thing.size, thing.pattern
        answers[i] = [words.index(word) for words, word in zip(QUESTIONS, looks, strict=True)]
    return images, answers


class _Classifier(nn.Module):
    """A Swin, mean over its last map, and a linear layer for each question."""

    def __init__(self) -> None:
        super().__init__()
        self.swin = Swin(EMBED_DIM, DEPTHS, NUM_HEADS, WINDOW, drop_path=0.0)
        self.norm = nn.LayerNorm(self.swin.channels[-1])
        self.heads = nn.ModuleList(nn.Linear(self.swin.channels[-1], len(words)) for words in QUESTIONS)

    def forward(self, images: NDArray[np.uint8]) -> list[Tensor]:
        """uint8 RGB [n, S, S, 3] -> logits [n, answers] of each question."""
        pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD
        found = self.norm(self.swin(pixels)[-1]).mean((1, 2))
        return [head(found) for head in self.heads]


def pretrain(recipe: Recipe) -> dict[str, Tensor]:
    """The state dict of a Swin that is trained to say what a picture shows."""
    state = _trained(recipe).swin.state_dict()
    return {key: value.detach().contiguous() for key, value in state.items()}


def _trained(recipe: Recipe) -> _Classifier:
    images, answers = pictures(recipe, recipe.pictures, recipe.seed)
    order = np.random.default_rng([recipe.seed, 2])
    with one_thread(), own_randomness(recipe.seed), progress(f"pretraining {NAME}") as show, torch.enable_grad():
        model = _Classifier()
        optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=0.01, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.lr, recipe.steps)
        for step in range(recipe.steps):
            chosen = order.integers(0, recipe.pictures, recipe.batch_size)
            wanted = torch.from_numpy(answers[chosen])
            found = model(images[chosen])
            loss = torch.stack([F.cross_entropy(logits, wanted[:, i]) for i, logits in enumerate(found)]).sum()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            show(step + 1, recipe.steps)
    return model.eval()


@torch.no_grad()
def accuracy(recipe: Recipe) -> dict[str, float]:
    """Share in percent of right answers of the pretrained model on unseen pictures, by question."""
    model = _trained(recipe)
    images, answers = pictures(recipe, 500, recipe.seed + 1000)
    found = [logits.argmax(1).numpy() for logits in model(images)]
    names = ("shape", "colour", "size", "pattern")
    return {name: 100 * float((found[i] == answers[:, i]).mean()) for i, name in enumerate(names)}
