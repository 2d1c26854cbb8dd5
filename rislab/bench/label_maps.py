"""What a label map of many classes takes, as rislab makes it and class by class: time and memory."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rislab.bench.resident_memory import peak, start_of_peak
from rislab.data.batch import LabelledPictures, Viewing
from rislab.errors import ConfigError
from rislab.files import replacing
from rislab.methods.base import TextSegmenter
from rislab.nn.sliding import boxes
from rislab.training.inference import build, without_pretraining

How = Literal["rislab", "loop"]
WINDOW, STRIDE = 448, 224
"""TCL's protocol."""


@runtime_checkable
class LabelMapMethod(Protocol):
    """A method whose features of a picture do not depend on the names, so that a loop over names can keep them."""

    def encode_images(self, images: Tensor) -> Any: ...

    def scores(self, encoded: Any, names: Sequence[str]) -> Tensor: ...


def measure(
    recipe: dict[str, Any], classes: int, height: int, width: int, how: How, labels: str | None = None
) -> dict[str, float]:
    """Seconds and MiB for one picture of noise [3, height, width] under TCL's protocol, in this process, after a small one.

    Names are encoded before, in both: `text_seconds`, once a benchmark. seconds: without them; cpu_seconds: of all threads, which
    other programs of the machine hardly change. grown_mb: peak of resident memory over what was there before. labels: a file to
    keep the label map in.

    Args:
        how: `loop` gives each name in turn the features of its window, brings the scores to full size and keeps those of every
            name.
    """
    torch.manual_seed(0)
    method = build(without_pretraining(recipe)).eval()
    names = tuple(f"thing number {n}" for n in range(classes))
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    blank = torch.zeros(height, width, dtype=torch.uint8).numpy()
    viewing = Viewing(WINDOW, 2048, WINDOW, STRIDE, "given")
    small = LabelledPictures([image[:, :64, :64]], [blank[:64, :64]], names, False, viewing, [0])
    with torch.inference_mode():
        began = time.perf_counter()
        method.label(small)
        text_seconds = time.perf_counter() - began
        before = start_of_peak()
        began, worked = time.perf_counter(), time.process_time()
        if how == "rislab":
            (found,) = method.label(LabelledPictures([image], [blank], names, False, viewing, [0]))
        else:
            found = one_by_one(method, image, names)
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - worked
    grown = peak() - before
    if labels is not None:
        with replacing(Path(labels)) as temporary, temporary.open("wb") as file:
            np.save(file, found.numpy().astype(np.int16))
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "grown_mb": grown, "text_seconds": text_seconds}


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
