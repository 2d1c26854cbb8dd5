"""The trunks that DMMI was released with, by name and weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from rislab.encoders.swin import load as swin
from rislab.encoders.swin.model import Swin
from rislab.encoders.torchvision_resnet import ResNet, without_classifier
from rislab.encoders.weight_sources import absent_for_none, named_file
from rislab.errors import ConfigError, brief, nearest, one_line
from rislab.nn.weight_files import fits, read_weights

RESNETS: dict[str, dict[str, Any]] = {
    "resnet101": {},
    "resnet50": {"blocks": (3, 4, 6, 3)},
    "rislab-tiny-ResNet": {"blocks": (1, 1, 1, 1), "planes": (4, 8, 12, 16), "stem": 8},
}
"""Sizes; the tiny one is for tests and has no pretrained weights."""


@dataclass(frozen=True)
class TrunkSpec:
    """A trunk by name and weights: ``{name: swin_base, pretrained: hub, window: 12}`` or ``{name: resnet101, pretrained: hub}``.

    Attributes:
        name: One of `rislab.encoders.swin.load.SIZES`, or `resnet101`, `resnet50`.
        pretrained: `hub` for ImageNet weights from the Hugging Face hub (Swin) or torchvision (ResNet); a file of weights;
            `toy` for the tiny Swin; None for random weights.
        window: Side of a Swin's windows; a ResNet has none.
    """

    hashed_with: ClassVar[dict[str, dict[str, str]]] = {
        "rislab.encoders.swin.tiny.VERSION": {"name": "rislab-tiny-Swin"}
    }

    name: str
    pretrained: str | None = None
    window: int = 12

    def __post_init__(self) -> None:
        absent_for_none(self, "pretrained")


def load(spec: TrunkSpec, drop_path: float) -> Swin | ResNet:
    """The named trunk in float32.

    Args:
        spec: Which.
        drop_path: See `Swin`; a ResNet has none.

    Raises:
        ConfigError: Unknown name or unavailable weights.
        DataError: A file without weights of this trunk.
    """
    if spec.name in swin.SIZES:
        return swin.load(swin.SwinSpec(spec.name, spec.pretrained, spec.window), drop_path)
    if spec.name not in RESNETS:
        names = [*swin.SIZES, *RESNETS]
        raise ConfigError(
            f"trunk.name {brief(spec.name)} is none of {', '.join(names)}{nearest(str(spec.name), names)}"
        )
    model = ResNet(**RESNETS[spec.name])
    if spec.pretrained is None:
        return model
    if spec.pretrained == "hub":
        path, given = Path("torchvision"), _torchvisions(spec.name)
    else:
        path = named_file("trunk.pretrained", spec.pretrained, "one, hub or null")
        given = read_weights(path)
    state = without_classifier(given)
    fits(path, state, model.state_dict())
    model.load_state_dict(state)
    return model


def _torchvisions(name: str) -> dict[str, Tensor]:
    """torchvision's ImageNet-1K weights of the first release, which the official code names as `pretrained=True`.

    Raises:
        ConfigError: They can be neither fetched nor found in torch's cache, or there are none of this name.
    """
    import torchvision

    try:
        weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
        return dict(weights.get_state_dict(progress=False))
    except MemoryError:
        raise
    except Exception as error:  # of the network and the cache folder
        raise ConfigError(
            f"ImageNet weights of {name} are not available from torchvision ({one_line(error)[:200]}). Without a network, give "
            "them as trunk.pretrained: /path/to/weights"
        ) from error
