"""Image trunks by name and weights that are no CLIP: timm's vision transformers, torchvision's ResNets, a tiny ViT."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import timm
import torchvision
from timm.models.vision_transformer import VisionTransformer
from torchvision.models import ResNet

from rislab.encoders.weight_sources import absent_for_none
from rislab.errors import ConfigError, brief, nearest, one_line
from rislab.nn.weight_files import fits, read_weights
from rislab.paths import user_path

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
TINY: dict[str, dict[str, Any]] = {
    "rislab-tiny-ViT16": {"img_size": 192, "patch_size": 16, "embed_dim": 96, "depth": 4, "num_heads": 4},
}
"""Sizes of our own; the head has one class."""


@dataclass(frozen=True)
class ImageNetSpec:
    """A trunk by name and weights: ``{name: vit_large_patch16_384, pretrained: imagenet}``.

    Attributes:
        name: One of timm's vision transformers with a class token, of `RESNETS`, or `rislab-tiny-ViT16`.
        pretrained: `imagenet` for the weights that timm or torchvision lists first (of ResNets: IMAGENET1K_V1); a file of
            weights under their names; None for random weights.
    """

    hashed_with: ClassVar[dict[str, dict[str, str]]] = {}

    name: str
    pretrained: str | None = None

    def __post_init__(self) -> None:
        absent_for_none(self, "pretrained")


def load(spec: ImageNetSpec) -> VisionTransformer | ResNet:
    """The named trunk in float32, with its ImageNet classifier.

    Raises:
        ConfigError: Unknown name, another architecture, weights that cannot be fetched.
        DataError: A file without weights of this trunk.
    """
    from_library = spec.pretrained == "imagenet"
    if from_library and spec.name in TINY:
        raise ConfigError(f"trunk.pretrained 'imagenet': {spec.name} has no such weights, leave it out")
    try:
        model = _built(spec.name, from_library)
    except (MemoryError, ConfigError):
        raise
    except Exception as error:  # of timm, torchvision, the network and the cache folder
        if not from_library:
            raise
        raise ConfigError(
            f"trunk {spec.name!r}: ImageNet weights not available ({one_line(error)[:200]}). Without a network give a file "
            f"of weights, trunk.pretrained: /path/to/{spec.name}.safetensors"
        ) from error
    if spec.pretrained is not None and not from_library:
        path = _file(spec)
        state = read_weights(path)
        fits(path, state, model.state_dict())
        model.load_state_dict(state)
    return model


def _built(name: str, pretrained: bool) -> VisionTransformer | ResNet:
    if name in RESNETS:
        return torchvision.models.get_model(name, weights="IMAGENET1K_V1" if pretrained else None)
    if name in TINY:
        return VisionTransformer(**TINY[name], num_classes=1)
    if not timm.is_model(name):
        known = [*RESNETS, *TINY, *timm.list_models("vit_*")]
        raise ConfigError(f"trunk.name {brief(name)} is no trunk of timm's or torchvision's{nearest(name, known)}")
    model = timm.create_model(name, pretrained=pretrained)
    if not isinstance(model, VisionTransformer) or model.cls_token is None or model.num_prefix_tokens != 1:
        raise ConfigError(f"trunk.name {name!r} is a {type(model).__name__}; a vision transformer has one class token")
    return model


def _file(spec: ImageNetSpec) -> Path:
    path = user_path(str(spec.pretrained))
    if not path.exists():
        raise ConfigError(f"trunk.pretrained {brief(spec.pretrained, 200)} is neither a file nor `imagenet`")
    return path
