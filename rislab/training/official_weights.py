"""Authors' releases as checkpoints of ours, so that they are scored like any other."""

from pathlib import Path

import torch

from rislab.files import replacing
from rislab.training.checkpoints import RECIPE
from rislab.training.inference import load_official, read_recipe


def as_checkpoint(official: Path, config: Path, target: Path) -> None:
    """Write a release as a checkpoint that holds all weights and its recipe.

    Args:
        official: the authors' file.
        config: the recipe that it was trained by, experiments/METHOD/*.yaml.
        target: the checkpoint.

    Raises:
        DataError: An unreadable file, or weights of another model.
        ConfigError: No recipe, or one whose trunk cannot be had.
    """
    recipe = read_recipe(config)
    model = load_official(official, recipe)
    checkpoint = {"state_dict": model.state_dict(), RECIPE: recipe, "global_step": 0, "epoch": 0}
    with replacing(target) as temporary, temporary.open("wb") as file:
        torch.save(checkpoint, file)
