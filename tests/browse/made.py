"""Contents of a browser at full size, made without a data set: ellipses on pictures of noise."""

import io
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from rislab.browse.contents import Contents, Entry, Picture, Unit
from rislab.data import masks
from rislab.metrics.error_classes import CLASSES

WORDS = ("red", "blue", "small", "large", "left", "right", "circle", "square", "star", "the", "of", "top")
POSITIONS = {"left", "right", "top"}
KINDS = 60
"""Targets, and answers to each; units take them in turn, so that making a large table takes seconds."""


@cache
def _ellipse(x: float, y: float, width: float, height: float, size: tuple[int, int]) -> str:
    rows, columns = np.mgrid[: size[0], : size[1]]
    inside = ((columns / size[1] - x) / width) ** 2 + ((rows / size[0] - y) / height) ** 2 < 1
    counts: str = masks.to_json(masks.encode(inside))["counts"]
    return counts


def made(
    folder: Path, units: int, pictures: int, rows: int, seeds: int = 1, size: tuple[int, int] = (96, 96)
) -> Contents:
    """rows: of which a later one is better on average. Pictures are written into `folder`."""
    rng = np.random.default_rng(0)
    shapes = rng.uniform(0.2, 0.8, (KINDS, 2)), rng.uniform(0.08, 0.25, (KINDS, 2))
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{n}.jpg" for n in range(pictures)]
    for n, file in enumerate(files):
        file.write_bytes(_picture(n % KINDS, size))
    picture_of = np.sort(np.arange(units) % pictures)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 10)).tolist()) for _ in range(units)]
    made_units = []
    for n in range(units):
        (x, y), (width, height) = (shape[n % KINDS] for shape in shapes)
        target = _ellipse(x, y, width, height, size)
        share = masks.area({"size": list(size), "counts": target.encode()}) / (size[0] * size[1])
        words = texts[n].split()
        position = bool(POSITIONS & set(words))
        made_units.append(Unit(n, int(picture_of[n]), texts[n], share, size, target, len(words), n % 5, position))
    hard = rng.normal(0, 20, pictures)[picture_of]
    entries = []
    for row in range(rows):
        for seed in range(seeds):
            scores = np.clip(50 + 3 * row + hard + rng.normal(0, 15, units), 0, 100).round(2)
            errors = rng.integers(0, len(CLASSES), units).astype(np.uint8)
            kept = []
            for n in range(units):
                (x, y), (width, height) = (shape[n % KINDS] for shape in shapes)
                kept.append(_ellipse(x + 0.01 * (row - rows), y, width, height + 0.01 * seed, size))
            entries.append(Entry(f"r{row}", f"row {row}", seed, "", False, scores, errors, kept))
    shown = [Picture(file.name, *size, file) for file in files]
    return Contents(
        "A table",
        "made data",
        "expressions",
        "miou_expr",
        "IoU",
        shown,
        made_units,
        entries,
        ("r9 s0 is not shown: failed",),
    )


@cache
def _picture(number: int, size: tuple[int, int]) -> bytes:
    coarse = Image.fromarray(np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize((size[1], size[0]), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()
