"""The two official versions of CLIMS as settings: all in which they differ, and how a class's own texts are written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rislab.errors import ConfigError, brief, nearest
from rislab.methods.base import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from rislab.methods.clims.model import HeadName

VERSION = 1
"""Raised when a version's settings change: they are no options, and count in a trial's identity."""

Normalisation = Literal["imagenet", "clip"]
STATISTICS = {"imagenet": (IMAGENET_MEAN, IMAGENET_STD), "clip": (CLIP_MEAN, CLIP_STD)}
BackgroundMode = Literal["shared", "per_class"]


@dataclass(frozen=True)
class Variant:
    """Settings of one version; an option of the task stands in for each.

    Attributes:
        head: See `rislab.methods.clims.model.Head`.
        normalisation: Mean and standard deviation of the network's pictures, and of CLIP's where they have none of their own.
        prompt: Of a class and of a background, `{}` for its name.
        renames: `CLASS: NAME`, what a prompt calls a class.
        background: Whether all classes have the same background prompts.
        background_prompts: Their names; `CLASS: NAME` where each class has its own.
        class_weights: `CLASS: WEIGHT` in OTM and BTM; 1 for others.
        clamp: Keep the cosines in OTM and BTM away from 0 and 1.
        alpha, beta, gamma, delta: Weights of OTM, BTM, CBS and REG.
        head_lr_multi: Rate of the head as a multiple of the trunk's.
        train_norms: Train factors and shifts of batch norm.
        train_stem: Train the stem.
    """

    head: HeadName
    normalisation: Normalisation
    prompt: str
    renames: tuple[str, ...]
    background: BackgroundMode
    background_prompts: tuple[str, ...]
    class_weights: tuple[str, ...]
    clamp: bool
    alpha: float
    beta: float
    gamma: float
    delta: float
    head_lr_multi: float
    train_norms: bool
    train_stem: bool


VARIANTS: dict[Literal["repo", "paper"], Variant] = {
    "repo": Variant(
        head="linear",
        normalisation="imagenet",
        prompt="a photo of {}.",
        renames=(
            "person: player",
            "diningtable: dining table",
            "pottedplant: potted plant",
            "tvmonitor: tv monitor",
        ),
        background="shared",
        background_prompts=(
            "tree", "river", "sea", "lake", "water", "railway", "railroad", "track", "stone", "rocks",
        ),
        class_weights=(),
        clamp=True,
        alpha=10,
        beta=24,
        gamma=1,
        delta=0.2,
        head_lr_multi=10,
        train_norms=True,
        train_stem=False,
    ),
    # Its optimiser collects weights of convolutions, and takes no module for the head: one rate, and norms stay.
    "paper": Variant(
        head="bottleneck",
        normalisation="clip",
        prompt="a photo of {}",
        renames=(),
        background="per_class",
        background_prompts=(
            "boat: river", "boat: water", "boat: lake", "boat: sea", "boat: building",
            "train: railroad", "train: railway", "train: branches", "train: tree",
        ),
        class_weights=("sofa: 3", "diningtable: 3", "chair: 3"),
        clamp=False,
        alpha=10,
        beta=25,
        gamma=29.5,
        delta=1.15,
        head_lr_multi=1,
        train_norms=False,
        train_stem=True,
    ),
}  # fmt: skip
"""Weights are those of PASCAL VOC."""


def by_class(
    entries: Sequence[str], names: Sequence[str], option: str, known: Sequence[str] = ()
) -> dict[str, list[str]]:
    """`CLASS: TEXT` entries as texts by class.

    Args:
        entries: As written.
        names: The classes.
        option: What the entries are called in messages.
        known: Entries that are left out where the class is none of the names: those of a version, which is PASCAL VOC's.

    Raises:
        ConfigError: An entry of another form, or of no class.
    """
    found: dict[str, list[str]] = {}
    for entry in entries:
        name, colon, text = (part.strip() for part in entry.partition(":"))
        if not (colon and name and text):
            raise ConfigError(f"model.{option}: {brief(entry)}, expected `CLASS: TEXT`")
        if name in names:
            found.setdefault(name, []).append(text)
        elif entry not in known:
            raise ConfigError(f"model.{option}: {name!r} is no class{nearest(name, names)}")
    return found


def numbers(texts: Mapping[str, Sequence[str]], names: Sequence[str], option: str) -> list[float]:
    """A number for each class, 1 where none is given. Raises ConfigError for what is no number, and for two of a class."""
    found = []
    for name in names:
        given = texts.get(name, ["1"])
        try:
            (text,) = given
            found.append(float(text))
        except ValueError:
            raise ConfigError(f"model.{option}: {name}: {', '.join(given)}, expected one number") from None
    return found


def settings_of(variant: Literal["repo", "paper"], **options: Any) -> Variant:
    """The settings of a version; an option that is not None stands in for the version's."""
    return replace(VARIANTS[variant], **{name: value for name, value in options.items() if value is not None})
