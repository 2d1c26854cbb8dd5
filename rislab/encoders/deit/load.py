"""DeiTs and DINOs by name and weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from rislab.encoders.deit import tiny
from rislab.encoders.deit.model import PatchEncoder
from rislab.encoders.weight_sources import absent_for_none
from rislab.errors import ConfigError, brief, nearest
from rislab.nn.weight_files import fits, read_weights
from rislab.paths import user_path

SIZES: dict[str, Mapping[str, Any]] = {
    "deit-s16-sin": {"width": 384, "depth": 12, "heads": 6, "distilled": True, "classes": 1000, "rest": "cut"},
    "dino-s16": {"width": 384, "depth": 12, "heads": 6, "distilled": False, "rest": "pad"},
    "dino-b16": {"width": 768, "depth": 12, "heads": 12, "distilled": False, "rest": "pad"},
    tiny.NAME: tiny.SIZES,
}
GET = {
    "deit-s16-sin": "deit_s_sin_dist.pth of the releases of Muzammal-Naseer/Intriguing-Properties-of-Vision-Transformers",
    "dino-s16": "dino_deitsmall16_pretrain.pth of facebookresearch/dino",
    "dino-b16": "dino_vitbase16_pretrain.pth of facebookresearch/dino",
}
HEADS = ("head.", "head_dist.")
"""Classifiers, which no feature reads: a file may lack them, have others, or have some where we have none."""


@dataclass(frozen=True)
class DeiTSpec:
    """A DeiT or DINO by name and weights: ``{name: deit-s16-sin, pretrained: /weights/deit_s_sin_dist.pth}``.

    Attributes:
        name: `deit-s16-sin` (DeiT-S/16, distilled, trained on Stylized-ImageNet), `dino-s16`, `dino-b16`, or `rislab-tiny-DeiT`.
        pretrained: A file of weights with timm's names; `toy` for the tiny one; None for random weights.
    """

    hashed_with: ClassVar[dict[str, dict[str, str]]] = {"rislab.encoders.deit.tiny.VERSION": {"pretrained": "toy"}}

    name: str
    pretrained: str | None = None

    def __post_init__(self) -> None:
        absent_for_none(self, "pretrained")


def load(spec: DeiTSpec) -> PatchEncoder:
    """The named encoder in float32.

    Raises:
        ConfigError: Unknown name, or no such file.
        DataError: A file without weights of this encoder.
    """
    if spec.name not in SIZES:
        raise ConfigError(
            f"encoder.name {brief(spec.name)} is none of {', '.join(SIZES)}{nearest(str(spec.name), SIZES)}"
        )
    encoder = PatchEncoder(**SIZES[spec.name])
    if spec.pretrained is None:
        return encoder
    if spec.pretrained == "toy":
        if spec.name != tiny.NAME:
            raise ConfigError(f"encoder.pretrained 'toy' belongs to {tiny.NAME}, {spec.name} has no toy weights")
        path = tiny.pretrained_path()
    else:
        path = user_path(spec.pretrained)
        if not path.exists():
            where = f": get {GET[spec.name]}" if spec.name in GET else ", toy or null"
            raise ConfigError(f"encoder.pretrained {brief(spec.pretrained, 200)} is no file{where}")
    own = encoder.vit.state_dict()
    found = read_weights(path)
    heads = {key: own[key] for key in own if key.startswith(HEADS)}
    state: dict[str, Tensor] = {key: value for key, value in found.items() if not key.startswith(HEADS)}
    for key, value in heads.items():
        state[key] = found[key] if key in found and found[key].shape == value.shape else value
    fits(path, state, own)
    encoder.vit.load_state_dict(state)
    return encoder
