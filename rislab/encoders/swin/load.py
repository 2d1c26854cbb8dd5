"""Swins by name and weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypedDict

import torch.nn.functional as F
from torch import Tensor

from rislab.encoders.swin import tiny
from rislab.encoders.swin.model import Swin
from rislab.encoders.swin.names import TABLE, without_buffers
from rislab.encoders.weight_sources import absent_for_none, hub_file, named_file
from rislab.errors import ConfigError, brief, nearest
from rislab.nn.weight_files import fits, read_weights

HUB = "timm"
"""Owner of Microsoft's ImageNet-22K weights on the Hugging Face hub."""
HEAD = ("norm.", "head.")
"""Beginnings of the classifier's parts."""


@dataclass(frozen=True)
class SwinSpec:
    """A Swin by name and weights: ``{name: swin_base, pretrained: hub}``.

    Attributes:
        name: `swin_tiny`, `swin_small`, `swin_base`, `swin_large` or `rislab-tiny-Swin`.
        pretrained: `hub` for ImageNet-22K weights from the Hugging Face hub; a file of weights with official names or timm's,
            `swin_base_patch4_window12_384_22k.pth`; `toy` for the tiny one; None for random weights.
        window: Side of the windows, 7 or 12 in what was released; bias tables of another side are resized. Which one a file of
            weights has is not read from its name, as LAVT's code does. The tiny Swin has 6.
    """

    hashed_with: ClassVar[dict[str, dict[str, str]]] = {
        "rislab.encoders.swin.tiny.VERSION": {"name": "rislab-tiny-Swin"}
    }

    name: str
    pretrained: str | None = None
    window: int = 12

    def __post_init__(self) -> None:
        absent_for_none(self, "pretrained")


class Sizes(TypedDict):
    """Arguments of `Swin` that a name stands for."""

    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]


SIZES: dict[str, Sizes] = {
    "swin_tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
    "swin_small": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)},
    "swin_base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
    "swin_large": {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48)},
    tiny.NAME: {"embed_dim": tiny.EMBED_DIM, "depths": tiny.DEPTHS, "num_heads": tiny.NUM_HEADS},
}


def load(spec: SwinSpec, drop_path: float = 0.3) -> Swin:
    """The named Swin in float32.

    Args:
        spec: Which.
        drop_path: See `Swin`.

    Raises:
        ConfigError: Unknown name, unavailable weights, or no window.
        DataError: A file without weights of this Swin.
    """
    if spec.name not in SIZES:
        raise ConfigError(f"swin.name {brief(spec.name)} is none of {', '.join(SIZES)}{nearest(str(spec.name), SIZES)}")
    if spec.window < 1:
        raise ConfigError(f"swin.window is {spec.window}, expected 1 or more")
    if (spec.pretrained == "toy") != (spec.name == tiny.NAME) and spec.pretrained in ("toy", "hub"):
        raise ConfigError(f"swin.pretrained {spec.pretrained!r}: {spec.name} has no such weights")
    model = Swin(**SIZES[spec.name], window=spec.window, drop_path=drop_path)
    file = _weights(spec)
    if file is not None:
        state = resized_tables(from_release(read_weights(file)), spec.window)
        fits(file, state, model.state_dict())
        model.load_state_dict(state)
    return model


def from_release(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A classifier's state dict under our names: without its head and buffers, from official names or timm's.

    timm has the patch merging before a stage as `layers.{i + 1}.downsample`, the official code that after one as
    `layers.{i}.downsample`.
    """
    kept = {k: v for k, v in without_buffers(state).items() if not k.startswith(HEAD)}
    merging = {int(key.split(".")[1]) for key in kept if ".downsample." in key}
    if 0 in merging or not merging:
        return kept
    found = {}
    for key, value in kept.items():
        if ".downsample." in key:
            _, stage, rest = key.split(".", 2)
            key = f"layers.{int(stage) - 1}.{rest}"
        found[key] = value
    return found


def resized_tables(state: Mapping[str, Tensor], window: int) -> dict[str, Tensor]:
    """A state dict whose tables of relative position biases are those of another window, resized bicubically as officially.

    Args:
        state: Tables are [(2 w - 1) ** 2, heads] for windows of side w.
        window: The side that is wanted.
    """
    found = dict(state)
    for key, table in state.items():
        if key.endswith(TABLE):
            side, wanted = round(len(table) ** 0.5), 2 * window - 1
            if side != wanted and side**2 == len(table):
                square = table.T.reshape(1, -1, side, side)
                large = F.interpolate(square, (wanted, wanted), mode="bicubic", align_corners=False)
                found[key] = large.flatten(2)[0].T.contiguous()
    return found


def _weights(spec: SwinSpec) -> Path | None:
    """The file of weights; None for random ones.

    Raises:
        ConfigError: Neither a file nor a known word; weights that cannot be fetched.
    """
    if spec.pretrained is None:
        return None
    if spec.pretrained == "toy":
        return tiny.pretrained_path()
    if spec.pretrained != "hub":
        return named_file("swin.pretrained", spec.pretrained, "one, hub, toy or null")
    size = 384 if spec.window == 12 and spec.name in ("swin_base", "swin_large") else 224
    name = f"{spec.name}_patch4_window{12 if size == 384 else 7}_{size}.ms_in22k"
    return hub_file(f"{HUB}/{name}", "model.safetensors", "swin.pretrained: /path/to/weights")
