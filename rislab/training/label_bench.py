"""What a label map of many classes takes, as rislab makes it and class by class: time and memory."""

import resource
import time
from typing import Any, Literal

import torch
import torch.nn.functional as F

from rislab.data.semantic import LabelBatch, Viewing
from rislab.errors import ConfigError
from rislab.methods.base import TextSegmenter
from rislab.nn.sliding import boxes
from rislab.training.inference import build, without_pretraining

How = Literal["rislab", "loop"]


def measure(recipe: dict[str, Any], classes: int, height: int, width: int, how: How) -> dict[str, float]:
    """Seconds and peak MiB for one picture of noise [3, height, width] under TCL's protocol, in this process, after a first one.

    how: `loop` asks for one class at a time and keeps every class at full size. Text embeddings are made before, in both:
    the first picture fills them in.
    """
    torch.manual_seed(0)
    method = build(without_pretraining(recipe)).eval()
    names = tuple(f"thing number {n}" for n in range(classes))
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    if not method.any_size and how == "loop":
        raise ConfigError("the loop is written for methods that take pictures of any size")
    empty = torch.zeros(height, width, dtype=torch.uint8).numpy()
    batch = LabelBatch([image], [empty], names, False, Viewing(448, 2048, 448, 224, "given"), [0])
    with torch.inference_mode():
        first = method.label(LabelBatch([image[:, :64, :64]], [empty[:64, :64]], names, False, batch.viewing, [0]))
        assert len(first) == 1
        before = _peak()
        began = time.perf_counter()
        found = method.label(batch)[0] if how == "rislab" else one_by_one(method, image, names)
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "grown_mb": _peak() - before, "checksum": float(found.sum())}


def one_by_one(method: TextSegmenter, image: torch.Tensor, names: tuple[str, ...]) -> torch.Tensor:
    """The plain way: each class asked by itself, its scores kept at full size, and the largest taken at the end."""
    height, width = image.shape[-2:]
    total = torch.zeros(len(names), height, width)
    seen = torch.zeros(height, width)
    for y1, y2, x1, x2 in boxes(height, width, 448, 224):
        window = image[None, :, y1:y2, x1:x2]
        for number, name in enumerate(names):
            scores = method.segment_vocabulary(window, [name])
            total[number, y1:y2, x1:x2] += F.interpolate(scores, (y2 - y1, x2 - x1), mode="bilinear")[0, 0]
        seen[y1:y2, x1:x2] += 1
    return (total / seen).argmax(0)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
