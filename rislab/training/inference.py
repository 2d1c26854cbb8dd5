"""Masks for pictures that belong to no data set: load a method from a file, ask it, draw what it says."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jsonargparse import ArgumentParser
from numpy.typing import NDArray

from rislab.data import decoding, masks
from rislab.data.semantic import LabelBatch, Viewing
from rislab.data.vocabulary import fitted
from rislab.errors import ConfigError
from rislab.methods.base import TRUNK, TextSegmenter
from rislab.paths import contents
from rislab.training.checkpoints import RECIPE, read_checkpoint

METHODS = "rislab.methods."


@dataclass(frozen=True)
class Segment:
    """One answer: the sentence and its mask bool [h, w] at the picture's size."""

    text: str
    mask: NDArray[np.bool_]

    def as_json(self) -> dict[str, Any]:
        segmentation = masks.to_json(masks.encode(self.mask))
        return {"text": self.text, "pixels": int(self.mask.sum()), "segmentation": segmentation}


def load_method(path: Path) -> TextSegmenter:
    """The method in a checkpoint of ours, in evaluation mode on the CPU.

    Only classes below `rislab.methods` are built. No pretrained trunk is fetched where the checkpoint holds all weights; one
    that leaves a frozen trunk out needs it.
    Raises DataError for an unreadable file, ConfigError for one that is not ours.
    """
    checkpoint = read_checkpoint(path)
    recipe = checkpoint.get(RECIPE)
    if not isinstance(recipe, dict) or not str(recipe.get("class_path", "")).startswith(METHODS):
        raise ConfigError(
            f"{path}: no rislab checkpoint (it names no method). `best.ckpt` of a trial is one; for an official "
            "release give its config, too: --config experiments/cris/refcoco_r50.yaml --official"
        )
    model = build(recipe if TRUNK in checkpoint else without_pretraining(recipe))
    model.on_load_checkpoint(checkpoint)
    model.load_state_dict(checkpoint["state_dict"])
    return model.eval()


def build(recipe: dict[str, Any]) -> TextSegmenter:
    """A method from its class_path and init_args."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(TextSegmenter, "model")
    config = parser.parse_object({"model": recipe})
    model: TextSegmenter = parser.instantiate_classes(config).model
    return model


def load_official(path: Path, recipe: dict[str, Any]) -> TextSegmenter:
    """A method whose weights come from its authors' release, through the method's `official.py`."""
    package = str(recipe["class_path"]).rpartition(".")[0].rpartition(".")[0]
    if not package.startswith(METHODS):
        raise ConfigError(f"model.class_path {recipe['class_path']!r} is no method of rislab")
    state = importlib.import_module(f"{package}.official").load_official(path)
    model = build(without_pretraining(recipe))
    missing = model.state_dict().keys() - state.keys()
    if missing and all(key.startswith(model.frozen) for key in missing):
        model = build(recipe)  # a release of what was trained: the trunk comes from where the recipe says
        state = {key: model.state_dict()[key] for key in missing} | state
    model.load_state_dict(state)
    return model.eval()


def without_pretraining(recipe: Any) -> Any:
    """The same recipe with every trunk's `pretrained` set to None: its weights are about to be overwritten."""
    if isinstance(recipe, dict):
        return {k: None if k == "pretrained" else without_pretraining(v) for k, v in recipe.items()}
    return recipe


def read_image(path: Path) -> NDArray[np.uint8]:
    """A picture of no data set, uint8 RGB [h, w, 3], turned as viewers show it (EXIF orientation). Raises DataError."""
    return decoding.picture(contents(path), str(path), upright=True, noun="image")


@torch.inference_mode()
def segment_classes(
    model: TextSegmenter, image: NDArray[np.uint8], names: Sequence[str], has_background: bool
) -> list[Segment]:
    """The pixels of each class name in one picture, uint8 RGB [h, w, 3]: each pixel has one, or none with a background.

    Shown as TCL's protocol does: short side 448, windows of 448; smaller where the method's own frame is smaller.
    """
    side = min(448, *model.geometry.size)
    viewing = Viewing(side, 2048 * side // 448, side, side // 2, "given")
    pixels = torch.from_numpy(fitted(image, viewing.short, viewing.long).transpose(2, 0, 1).copy())
    nothing = np.zeros(image.shape[:2], np.uint8)
    (label,) = model.label(LabelBatch([pixels], [nothing], tuple(names), has_background, viewing, [0]))
    found = label.cpu().numpy() - has_background
    return [Segment(name, found == number) for number, name in enumerate(names)]


@torch.inference_mode()
def segment(model: TextSegmenter, image: NDArray[np.uint8], texts: Sequence[str]) -> list[Segment]:
    """Masks of `texts` in one picture, uint8 RGB [h, w, 3]; foreground is p > the method's own threshold."""
    placement = model.geometry.place(*image.shape[:2])
    pixels = torch.from_numpy(model.geometry.image(image, placement)).permute(2, 0, 1)[None]
    logits = model.segment(pixels, list(texts), torch.zeros(len(texts), dtype=torch.int64))
    frame = F.interpolate(logits[:, None].sigmoid(), placement.input_size, mode="bicubic", align_corners=True)[:, 0]
    probabilities = frame.float().cpu().numpy()
    return [
        Segment(text, placement.undo(probability) > model.mask_threshold)
        for text, probability in zip(texts, probabilities, strict=True)
    ]
