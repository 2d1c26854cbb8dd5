"""What a label map of many classes takes, as rislab makes it and in two plain ways: time, memory, operations."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rislab.bench import tcl_plainly
from rislab.bench.random_weights import with_random_weights
from rislab.bench.timed import timed
from rislab.data.batch import LabelledPictures, Viewing
from rislab.errors import ConfigError
from rislab.files import replacing
from rislab.methods.base import TextSegmenter
from rislab.methods.tcl.task import TCLTask
from rislab.nn.sliding import boxes

How = Literal["rislab", "loop", "official"]
WINDOW, STRIDE = 448, 224
"""TCL's protocol."""


@runtime_checkable
class LabelMapMethod(Protocol):
    """A method whose features of a picture do not depend on the names, so that a loop over names can keep them."""

    def encode_images(self, images: Tensor) -> Any: ...

    def scores(self, encoded: Any, names: Sequence[str]) -> Tensor: ...


def measure(
    recipe: dict[str, Any],
    classes: int,
    height: int,
    width: int,
    how: How,
    labels: str | None = None,
    counts: bool = False,
) -> dict[str, float]:
    """Seconds and MiB for one picture of noise [3, height, width] under TCL's protocol, in this process, after a small one.

    Names are encoded before, in all of them: `text_seconds`, once a benchmark. The rest: see `timed`, without the names.

    Args:
        recipe: Class and options of a method.
        classes: Names.
        height, width: Of the picture in pixels.
        how: `loop` gives each name in turn the features of its window, brings the scores to full size and keeps those of every
            name; `official` is TCL's own way, see `tcl_plainly`.
        labels: A file to keep the label map in.
        counts: Whether operations are counted, in a second run.

    Raises:
        ConfigError: A method that does not have this way.
    """
    torch.manual_seed(0)
    method = with_random_weights(recipe).eval()
    names = tuple(f"thing number {n}" for n in range(classes))
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    blank = torch.zeros(height, width, dtype=torch.uint8).numpy()
    viewing = Viewing(WINDOW, 2048, WINDOW, STRIDE, "given")
    small = LabelledPictures([image[:, :64, :64]], [blank[:64, :64]], names, False, viewing, [0])
    with torch.inference_mode():
        began = time.perf_counter()
        method.label(small)
        text_seconds = time.perf_counter() - began
        ways: dict[How, Callable[[], Tensor]] = {
            "rislab": lambda: method.label(LabelledPictures([image], [blank], names, False, viewing, [0]))[0],
            "loop": lambda: one_by_one(method, image, names),
            "official": lambda: officially(method, image, names),
        }
        found, cost = timed(ways[how], counts, method if how == "rislab" else None)
    if labels is not None:
        with replacing(Path(labels)) as temporary, temporary.open("wb") as file:
            np.save(file, found.numpy().astype(np.int16))
    return {**cost, "text_seconds": text_seconds}


def officially(method: TextSegmenter, image: Tensor, names: Sequence[str]) -> Tensor:
    """Raises ConfigError for a method that is not TCL."""
    if not isinstance(method, TCLTask):
        raise ConfigError(f"--official is TCL's way, the config names {type(method).__name__}")
    return tcl_plainly.label_map(method, image, names, WINDOW, STRIDE)


def one_by_one(method: TextSegmenter, image: Tensor, names: Sequence[str]) -> Tensor:
    """The plain way: what a window shows is computed once; each name's scores are made, and kept, at full size.

    Raises:
        ConfigError: For a method that looks at the picture anew for every text, or only at frames of its own size.
    """
    if not isinstance(method, LabelMapMethod) or not method.any_size:
        raise ConfigError(
            f"--loop needs a method whose features of a picture serve every name, such as clip, maskclip and tcl; "
            f"{type(method).__name__} has none"
        )
    height, width = image.shape[-2:]
    total = torch.zeros(len(names), height, width)
    windows = torch.zeros(height, width)
    for y1, y2, x1, x2 in boxes(height, width, WINDOW, STRIDE):
        encoded = method.encode_images(image[None, :, y1:y2, x1:x2])
        for number, name in enumerate(names):
            scores = method.scores(encoded, [name])
            total[number, y1:y2, x1:x2] += F.interpolate(scores, (y2 - y1, x2 - x1), mode="bilinear")[0, 0]
        windows[y1:y2, x1:x2] += 1
    return total.div_(windows).argmax(0)


def agreement(one: Path, other: Path) -> float:
    """Share of pixels, in percent, that two kept label maps have in common."""
    return 100.0 * float((np.load(one) == np.load(other)).mean())
