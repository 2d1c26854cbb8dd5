"""Pictures as users give them: a path, a PIL image or an array becomes uint8 RGB [h, w, 3]."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from rislab.data import decoding
from rislab.errors import ConfigError, DataError
from rislab.paths import contents, is_file, user_path, visible

Picture: TypeAlias = str | os.PathLike[str] | Image.Image | NDArray[Any]
"""What can be segmented. Paths and PIL images are turned as their EXIF orientation says; arrays are taken as they are."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".tif", ".tiff")
"""Of files in a folder that count as pictures."""


def check(given: object, where: str = "picture") -> None:
    """Raises ConfigError for what is no picture by its type. where: what the error calls it."""
    if not isinstance(given, (str, os.PathLike, Image.Image, np.ndarray)):
        kind = f"{type(given).__module__}.{type(given).__qualname__}".removeprefix("builtins.")
        hint = "; a tensor [3, h, w] is given as tensor.permute(1, 2, 0).numpy()" if kind.startswith("torch.") else ""
        raise ConfigError(f"{where} is a {kind}, expected a path, a PIL image or an array{hint}")


def name_of(given: Picture) -> str:
    """The file's path as it was given, or "" for a picture that came from no file."""
    if isinstance(given, (str, os.PathLike)):
        return os.fspath(given)
    return str(getattr(given, "filename", "") or "")


def read(given: Picture, where: str = "picture") -> NDArray[np.uint8]:
    """A picture as uint8 RGB [h, w, 3]; opacity is dropped, 16 bits become their upper 8.

    Args:
        given: The picture.
        where: What the errors call one without a path.

    Raises:
        ConfigError: Another type, another shape, no pixels.
        DataError: A file that is missing, damaged or no picture.
    """
    check(given, where)
    if isinstance(given, (str, os.PathLike)):
        path = user_path(given)
        return decoding.picture(contents(path), str(path), upright=True, noun="image")
    if isinstance(given, Image.Image):
        return _of_pil(given, name_of(given) or where)
    return _of_array(given, where)


def _of_pil(image: Image.Image, where: str) -> NDArray[np.uint8]:
    if image.mode in ("I", "F"):
        raise DataError(f"{where}: pixels of 32 bits (mode {image.mode}); a picture has 8 or 16")
    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):
            upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
        return np.array(upright.convert("RGB"), np.uint8)
    except (OSError, ValueError, SyntaxError) as error:  # opened, and decoded only now
        raise DataError(f"{where}: not a readable image ({error})") from None


def _of_array(array: NDArray[Any], where: str) -> NDArray[np.uint8]:
    shape = list(array.shape)
    if array.dtype != np.uint8:
        raise ConfigError(f"{where} is an array of {array.dtype} {shape}, expected uint8, 0 to 255")
    channels = 1 if array.ndim == 2 else shape[2] if array.ndim == 3 else 0
    if channels not in (1, 3, 4):
        hint = "; channels come last: array.transpose(1, 2, 0)" if array.ndim == 3 and shape[0] in (1, 3, 4) else ""
        hint = hint or ("; several pictures are a list" if array.ndim == 4 else "")
        raise ConfigError(f"{where} is an array of shape {shape}, expected RGB [h, w, 3] or grey [h, w]{hint}")
    if 0 in shape[:2]:
        raise ConfigError(f"{where} is an array of shape {shape}: no pixels")
    colours = array.reshape(*shape[:2], channels)[..., :3]
    return np.ascontiguousarray(np.repeat(colours, 3, axis=2) if channels == 1 else colours)


def listed(given: Sequence[Path]) -> tuple[list[Path], dict[Path, list[Path]]]:
    """Pictures of a command line, folders replaced by what is in them.

    Args:
        given: Files and folders. Folders are not searched deeper.

    Returns:
        The pictures, each once, and for each folder the files that are none and were left out.

    Raises:
        DataError: A path that is not there; a folder without any picture.
    """
    found: list[Path] = []
    others: dict[Path, list[Path]] = {}
    for path in given:
        if is_file(path):
            found.append(path)
            continue
        if not path.is_dir():
            raise DataError(f"{path}: no such image or folder")
        try:
            files = [file for file in visible(path.iterdir(), path) if is_file(file)]
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        pictures = [file for file in files if file.suffix.lower() in SUFFIXES]
        if not pictures:
            raise DataError(f"{path}: holds no picture; expected files that end with {', '.join(SUFFIXES)}")
        found += pictures
        if len(files) > len(pictures):
            others[path] = [file for file in files if file not in pictures]
    return list(dict.fromkeys(found)), others
