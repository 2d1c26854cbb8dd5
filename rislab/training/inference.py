"""Masks for pictures that belong to no data set: load a method from a file, and segment with it."""

import importlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from jsonargparse import ArgumentParser
from numpy.typing import NDArray

from rislab.ablation import lookup, signature
from rislab.data.batch import LabelledPictures, Viewing
from rislab.data.benchmark_trees import fitted
from rislab.encoders.clip.trunk import CLIPSpec, is_tag, quick_gelu_of, without_weights
from rislab.errors import ConfigError, DataError, about, brief, one_line
from rislab.methods.base import TRUNK, TextSegmenter
from rislab.nn.matrix_products import fast_products
from rislab.nn.weight_files import fits
from rislab.training.checkpoints import RECIPE, read_checkpoint
from rislab.training.construction import constructing

CLIP_SPEC = f"{CLIPSpec.__module__}.{CLIPSpec.__qualname__}"
"""What the annotation of an option names that is a CLIP."""


@dataclass(frozen=True)
class Segment:
    """One answer.

    Attributes:
        text: The sentence or class name.
        mask: bool [h, w], at the picture's size.
        score: Mean foreground probability of the mask's pixels, 0 to 1; 0 of an empty mask, None of a class name.
    """

    text: str
    mask: NDArray[np.bool_]
    score: float | None = None


def recipe_of(path: Path) -> dict[str, Any]:
    """Class and options of the method in a checkpoint of ours, none of which makes a reader open a file.

    Weights that are no tag of open_clip's are left out where the checkpoint holds all weights itself.

    Raises:
        ConfigError: No checkpoint of ours, or one whose frozen trunk comes from a file.
        DataError: An unreadable file.
    """
    checkpoint = read_checkpoint(path)
    with about(path):
        recipe = own_recipe(checkpoint)
        method = named_class(recipe["class_path"])
        try:
            _check_frozen(recipe, method)
        except ConfigError:
            if TRUNK in checkpoint:
                raise
            return without_pretraining(recipe)
    return without_pretraining(recipe, kept=method.frozen_options)


def load_method(path: Path, trunk: Path | None = None) -> TextSegmenter:
    """The method in a checkpoint of ours, in evaluation mode on the CPU.

    Only classes below `rislab.methods` are built. No pretrained trunk is fetched where the checkpoint holds all weights; one
    that leaves a frozen trunk out needs it. A checkpoint cannot name a file: what it says is not always ours.

    Args:
        path: the checkpoint.
        trunk: file of the frozen trunk's weights, where the trial took them from a file.
    Raises DataError for an unreadable file and weights of another model, ConfigError for one that is not ours.
    """
    checkpoint = read_checkpoint(path)
    with about(path):
        recipe = own_recipe(checkpoint)
        method = named_class(recipe["class_path"])
        recipe = without_pretraining(recipe, kept=method.frozen_options if TRUNK in checkpoint else ())
        if TRUNK in checkpoint and not method.frozen:
            raise ConfigError(f"it leaves out a frozen trunk, and {method.__name__} has none")
        if TRUNK in checkpoint and trunk is not None:
            recipe = _with_trunk(recipe, method, trunk)
        elif TRUNK in checkpoint:
            _check_frozen(recipe, method)
        model = build(recipe)
        if "state_dict" not in checkpoint:
            raise DataError("no checkpoint of a training run; expected a dict with 'state_dict'")
        model.on_load_checkpoint(checkpoint)
    fits(path, checkpoint["state_dict"], model.state_dict())
    model.load_state_dict(checkpoint["state_dict"])
    return model.eval()


def own_recipe(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint of ours says of its method: a class below `rislab.methods` and plain options.

    jsonargparse takes a text where it expects a class or its options as the name of a file, so a CLIP has to be a mapping.
    Raises ConfigError.
    """
    recipe = checkpoint.get(RECIPE)
    class_path = recipe.get("class_path") if isinstance(recipe, dict) else None
    if not isinstance(recipe, dict) or not isinstance(class_path, str):
        raise ConfigError(
            "no rislab checkpoint (it names no method). `best.ckpt` of a trial is one; for an official "
            "release give its config, too: --config experiments/cris/refcoco_r50.yaml --official"
        )
    named_class(class_path)
    options = recipe.get("init_args")
    strange = sorted(str(key) for key in recipe.keys() - {"class_path", "init_args"})
    if strange or not isinstance(options, dict):
        raise ConfigError(
            f"its recipe has {strange[0] if strange else 'no init_args'}, expected class_path and init_args"
        )
    known = signature.read(class_path).options
    for name, value in options.items():
        spec = _spec_of(known, name)
        if not (_is_spec(value, spec) if spec is not None else _is_plain(value)):
            raise ConfigError(f"option {name!r} of its recipe is a {type(value).__name__}, expected {_expected(spec)}")
    for name in (name for name, option in known.items() if option.of == CLIP_SPEC):
        clip = options.get(name)
        if not isinstance(clip, dict) or not isinstance(clip.get("name"), str):
            raise ConfigError(f"its recipe names no CLIP, expected {name}: {{name: ..., pretrained: ...}}")
        if "quick_gelu" not in clip:  # written when every CLIP was built with QuickGELU
            options = options | {name: clip | {"quick_gelu": True}}
    return recipe | {"init_args": options}


def _spec_of(known: Mapping[str, signature.Option], name: str) -> str | None:
    """The class of an option that is given by its fields, such as a trunk; None for a plain one, and for an enum's member."""
    found = known[name].of if name in known else None
    return found if found is not None and signature.has_options(found) else None


def _is_spec(value: Any, class_path: str) -> bool:
    """Whether a value is a mapping of plain options of a class, such as a trunk's name and weights.

    An option may be such a mapping itself: the world that an archive is generated from. It is written only where no file can
    say that it is: below the user's cache folder.
    """
    if not isinstance(value, dict):
        return False
    known = signature.read(class_path).options
    nested = {name: spec for name in value if (spec := _spec_of(known, name)) is not None and value[name] is not None}
    if not value.keys() <= known.keys() or not all(_is_spec(value[name], spec) for name, spec in nested.items()):
        return False
    if nested and ("root" in value and (not isinstance(value["root"], str) or _leaves(value["root"]))):
        return False
    return all(_is_plain(inner) for name, inner in value.items() if name not in nested)


def _leaves(folder: str) -> bool:
    """Whether a folder is anywhere but below the one that relative folders are in."""
    return Path(folder).is_absolute() or ".." in Path(folder).parts or folder.startswith("~")


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(item, (str, int, float, bool, type(None))) for item in value)
    return isinstance(value, (str, int, float, bool, type(None)))


def _expected(spec: str | None) -> str:
    if spec is None:
        return "a number, a text or a list of these"
    return f"a mapping of {' and '.join(list(signature.read(spec).options)[:2])}"


def _with_trunk(recipe: dict[str, Any], method: type[TextSegmenter], file: Path) -> dict[str, Any]:
    """A recipe whose frozen trunk comes from a file of weights. Raises ConfigError where there is not one alone."""
    options = recipe["init_args"]
    named = [name for name in method.frozen_options if isinstance(options.get(name), dict)]
    if len(named) != 1:
        raise ConfigError(
            f"--trunk {file}: {method.__name__} has {len(named)} frozen trunks ({', '.join(named)}), not one"
        )
    given = options[named[0]]
    activation = {"quick_gelu": quick_gelu_of(given)} if _clips(method) & {named[0]} else {}
    return recipe | {"init_args": options | {named[0]: given | {"pretrained": str(file)} | activation}}


def _clips(method: type[TextSegmenter]) -> set[str]:
    """The options of a method that name a CLIP."""
    known = signature.read(f"{method.__module__}.{method.__qualname__}").options
    return {name for name, option in known.items() if option.of == CLIP_SPEC}


def _check_frozen(recipe: dict[str, Any], method: type[TextSegmenter]) -> None:
    """Raises ConfigError for a frozen trunk whose weights a checkpoint names as a file.

    A CLIP's are random, the toy ones, or listed by open_clip for this model. Another trunk's are named by one word.
    """
    for name in method.frozen_options:
        given = recipe["init_args"].get(name)
        if not isinstance(given, dict):
            continue
        weights = given.get("pretrained")
        if weights in (None, "toy"):
            continue
        if name in _clips(method):
            spec = CLIPSpec(given["name"], weights)
            is_known, known = isinstance(weights, str) and is_tag(spec), f"none of open_clip's tags for {given['name']}"
        else:
            is_known, known = isinstance(weights, str) and weights.isidentifier(), "no word for weights"
        if not is_known:
            raise ConfigError(
                f"its frozen trunk comes from {brief(weights)}, which is {known}. A checkpoint cannot name a file: give the "
                f"file of {'CLIP ' if name in _clips(method) else ''}weights that it was trained on, --trunk FILE"
            )


def _is_method(class_path: Any) -> bool:
    """Whether a class may be imported because a file names it: one of our methods, or of an installed package's."""
    return class_path in signature.methods().values()


def named_class(class_path: Any) -> type[TextSegmenter]:
    """The method's class. Raises ConfigError when there is none of that name in `rislab methods`."""
    module, _, name = str(class_path).rpartition(".")
    found = None
    if _is_method(class_path):
        with suppress(ImportError):
            found = getattr(importlib.import_module(module), name, None)
    if not isinstance(found, type) or not issubclass(found, TextSegmenter):
        raise ConfigError(f"model.class_path {class_path!r} is no method of rislab; `rislab methods` lists them")
    return found


def read_recipe(config: Path) -> dict[str, Any]:
    """The `model` part of a config file, which may be one of rislab's recipes. Raises ConfigError, naming the file."""
    config = lookup.find(config)
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{config}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{config}: not a readable YAML file ({one_line(error)})") from error
    recipe = content.get("model") if isinstance(content, dict) else None
    if not isinstance(recipe, dict) or not isinstance(recipe.get("class_path"), str):
        raise ConfigError(f"{config}: expected `model:` with a class_path, as in experiments/METHOD/*.yaml")
    return recipe


def build(recipe: dict[str, Any]) -> TextSegmenter:
    """A method from its class_path and init_args. Raises ConfigError, and what its constructor raises for the user."""
    with constructing("model"):
        parser = ArgumentParser(exit_on_error=False)
        parser.add_subclass_arguments(TextSegmenter, "model")
        config = parser.parse_object({"model": recipe})
        model: TextSegmenter = parser.instantiate(config).model
    return model


def load_official(path: Path, recipe: dict[str, Any]) -> TextSegmenter:
    """A method whose weights come from its authors' release, through the method's `official.py`.

    Raises DataError, naming the file: unreadable, no weights, those of another model. Raises ConfigError for the recipe.
    """
    method = named_class(recipe.get("class_path"))
    package = method.__module__.rpartition(".")[0]
    state = importlib.import_module(f"{package}.official").load_official(path)
    model = build(without_pretraining(recipe))
    missing = model.state_dict().keys() - state.keys()
    if missing and method.frozen and all(key.startswith(method.frozen) for key in missing):
        model = build(recipe)  # a release of what was trained: the trunk comes from where the recipe says
        state = {key: model.state_dict()[key] for key in missing} | state
    fits(path, state, model.state_dict())
    model.load_state_dict(state)
    return model.eval()


def fitting_recipes(path: Path, class_path: str, recipes: Mapping[str, dict[str, Any]]) -> list[str]:
    """Names of the recipes whose models have the weights of a release, in their shapes; a frozen trunk may be left out of it.

    Args:
        path: The release.
        class_path: The method that it belongs to.
        recipes: Class and options, by name.

    Raises:
        DataError: A file that cannot be read, or is no release of that method.
    """
    method = named_class(class_path)
    state = importlib.import_module(f"{method.__module__.rpartition('.')[0]}.official").load_official(path)
    found = []
    for name, recipe in recipes.items():
        with torch.device("meta"):  # shapes alone
            own = build(without_pretraining(recipe)).state_dict()
        left_out = own.keys() - state.keys()
        is_whole = not left_out or bool(method.frozen and all(key.startswith(method.frozen) for key in left_out))
        if is_whole and all(key in own and own[key].shape == value.shape for key, value in state.items()):
            found.append(name)
    return found


def without_pretraining(recipe: dict[str, Any], kept: Sequence[str] = ()) -> dict[str, Any]:
    """The same recipe with `pretrained` set to None in every trunk: its weights are about to be overwritten.

    Args:
        recipe: Class and options of a method.
        kept: Options that stay as they are.
    """
    known = signature.read(recipe["class_path"]).options
    options = {
        name: value if name in kept else _without_weights(value, known[name].of if name in known else None)
        for name, value in recipe.get("init_args", {}).items()
    }
    return recipe | {"init_args": options}


def _without_weights(value: Any, of: str | None) -> Any:
    """An option without the weights that it names: `of` is the class that its annotation names."""
    if not isinstance(value, dict):
        return value
    if of == CLIP_SPEC:
        return without_weights(value)
    return {key: None if key == "pretrained" else _without_weights(inner, None) for key, inner in value.items()}


@torch.inference_mode()
def segment_classes(
    model: TextSegmenter, image: NDArray[np.uint8], names: Sequence[str], has_background: bool
) -> list[Segment]:
    """The pixels of each class name in one picture, uint8 RGB [h, w, 3]: each pixel has one, or none with a background.

    Shown as TCL's protocol does: short side 448, windows of 448; smaller where the method's own frame is smaller.
    """
    side = min(448, *model.geometry.size)
    viewing = Viewing(side, 2048 * side // 448, side, side // 2, "given")
    pixels = torch.from_numpy(fitted(image, viewing.short, viewing.long).transpose(2, 0, 1).copy()).to(model.device)
    nothing = np.zeros(image.shape[:2], np.uint8)
    with fast_products(model):
        (label,) = model.label(LabelledPictures([pixels], [nothing], tuple(names), has_background, viewing, [0]))
    found = label.cpu().numpy() - has_background
    return [Segment(name, found == number) for number, name in enumerate(names)]


@torch.inference_mode()
def segment(model: TextSegmenter, image: NDArray[np.uint8], texts: Sequence[str]) -> list[Segment]:
    """Masks of `texts` in one picture, uint8 RGB [h, w, 3]; foreground is p > the method's own threshold."""
    placement = model.geometry.place(*image.shape[:2])
    pixels = torch.tensor(model.geometry.image(image, placement)).permute(2, 0, 1)[None].to(model.device)
    with fast_products(model):
        logits = model.segment(pixels, list(texts), torch.zeros(len(texts), dtype=torch.int64, device=model.device))
    frame = F.interpolate(logits[:, None].sigmoid(), placement.input_size, mode="bicubic", align_corners=True)[:, 0]
    probabilities = frame.float().cpu().numpy()
    found = []
    for text, probability in zip(texts, probabilities, strict=True):
        whole = placement.undo(probability)
        mask = whole > model.mask_threshold
        # Cubic interpolation overshoots.
        found.append(Segment(text, mask, min(float(whole[mask].mean()), 1.0) if mask.any() else 0.0))
    return found
