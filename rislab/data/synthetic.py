"""Batches of noise of every member of the family, for measurements and for tests that need no data."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from rislab.data.batch import Captions, Episodes, ImageLabels, Images, LabelMaps, MaskQueries
from rislab.data.geometry import Geometry

NAMES = ("cat", "dog", "striped chair", "tree")
"""Class names of synthetic batches."""


def batch_of(
    kind: type[Images],
    geometry: Geometry,
    images: int = 2,
    queries: int = 1,
    seed: int = 0,
    vocabulary: Sequence[str] | None = None,
) -> Images:
    """A batch of a member of the family.

    Args:
        kind: which member.
        geometry: of the method; its frame is the size of the pictures.
        images: pictures in the batch.
        queries: sentences a picture, where a member has several.
        seed: of the noise.
        vocabulary: the class names that a method answers, whose first ones stand in for `NAMES`; None for one that takes any.

    Raises:
        KeyError: The class is no member of the family.
    """
    batch = MAKERS[kind](geometry, images, queries, np.random.default_rng(seed))
    if vocabulary is None or not hasattr(batch, "names"):
        return batch
    return type(batch)(**(vars(batch) | {"names": tuple(vocabulary[: len(NAMES)])}))


def _pictures(geometry: Geometry, images: int, rng: np.random.Generator) -> Images:
    pixels = rng.integers(0, 256, (images, 3, *geometry.size), np.uint8)
    placement = geometry.place(*geometry.size)
    return Images(images=torch.from_numpy(pixels), image_ids=list(range(images)), placements=[placement] * images)


def _boxes(geometry: Geometry, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """uint8 [count, H, W], 1 in a box whose place depends on its number."""
    height, width = geometry.size
    masks = np.zeros((count, height, width), np.uint8)
    for number, mask in enumerate(masks):
        top, left = (number % 2) * height // 2, (number // 2 % 2) * width // 2
        mask[top : top + height // 4, left : left + width // 4] = 1
    return masks


def _mask_queries(geometry: Geometry, images: int, queries: int, rng: np.random.Generator) -> MaskQueries:
    index = np.arange(images).repeat(queries)
    ids = list(range(len(index)))
    return MaskQueries(
        **vars(_pictures(geometry, images, rng)),
        texts=[f"the second red thing left of number {number}" for number in ids],
        image_index=torch.from_numpy(index),
        mask_bytes=torch.from_numpy(_boxes(geometry, len(index)) * 255),
        ref_ids=ids,
        sent_ids=ids,
        no_target=[False] * len(ids),
    )


def _captions(geometry: Geometry, images: int, queries: int, rng: np.random.Generator) -> Captions:
    return Captions(
        **vars(_pictures(geometry, images, rng)),
        texts=[f"a photo of {NAMES[number % len(NAMES)]} number {number}" for number in range(images)],
        nouns=[[f"a photo of a {NAMES[(number + k) % len(NAMES)]}." for k in range(2)] for number in range(images)],
    )


def _label_maps(geometry: Geometry, images: int, queries: int, rng: np.random.Generator) -> LabelMaps:
    labels = torch.from_numpy(_boxes(geometry, images)) * torch.arange(1, images + 1, dtype=torch.uint8).view(-1, 1, 1)
    labels = labels % (len(NAMES) + 1)
    labels[:, 0] = 255
    return LabelMaps(**vars(_pictures(geometry, images, rng)), labels=labels, names=NAMES, has_background=True)


def _image_labels(geometry: Geometry, images: int, queries: int, rng: np.random.Generator) -> ImageLabels:
    present = torch.from_numpy(rng.random((images, len(NAMES))) < 0.5)
    present[torch.arange(images), torch.arange(images) % len(NAMES)] = True
    return ImageLabels(**vars(_pictures(geometry, images, rng)), present=present, names=NAMES)


def _episodes(geometry: Geometry, images: int, queries: int, rng: np.random.Generator) -> Episodes:
    masks = torch.from_numpy(_boxes(geometry, images))
    masks[:, 0] = 255
    index = torch.arange(images) % len(NAMES)
    return Episodes(**vars(_pictures(geometry, images, rng)), class_index=index, names=NAMES, masks=masks)


Maker = Callable[[Geometry, int, int, np.random.Generator], Images]
MAKERS: dict[type[Images], Maker] = {
    MaskQueries: _mask_queries,
    Captions: _captions,
    LabelMaps: _label_maps,
    ImageLabels: _image_labels,
    Episodes: _episodes,
}
"""One maker for each member of the closed family."""
