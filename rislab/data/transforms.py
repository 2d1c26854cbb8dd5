"""What training does with a picture, its masks and its texts before they reach the network. A method owns its transform.

A transform is drawn from a key alone, (seed, epoch, sample id): it reads no global random state and leaves none changed, so
the same sample is the same in any loader process and after any resume.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from rislab.data.flips import Flip, is_flipped, mirrored

Key = Sequence[int]
"""(seed, epoch, sample id), each 0 or more."""


@dataclass(frozen=True)
class Sample:
    """One picture with all that moves along with it.

    Attributes:
        picture: uint8 [H, W, 3], RGB.
        masks: uint8 [N, H, W]: label maps, or soft masks times 255; N is 0 where there are none.
        texts: sentences about the picture.
        noun_spans: of each text, first and last character (exclusive) of the phrase that may be erased, or None for a text
            without one; set by a transform of a method that erases (`rislab.data.erasing`).
    """

    picture: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    texts: tuple[str, ...] = ()
    noun_spans: tuple[tuple[int, int] | None, ...] | None = None


class Transform(ABC):
    """Maps a sample to the network's frame.

    Attributes:
        in_frame: whether the sample comes in the network's frame already, so that frames can be cached or packed; otherwise it
            comes at its original size and leaves in the frame.
    """

    in_frame: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, sample: Sample, key: Key) -> Sample:
        """The sample as the network gets it, drawn from the key alone."""


@dataclass(frozen=True)
class TextSafeFlip(Transform):
    """Mirrors a picture at random where its sentences allow it; see `rislab.data.flips`.

    Attributes:
        flip: `swap` exchanges left and right in sentences, `refuse` leaves pictures whose sentences name a side.
        probability: of a mirrored picture, 0 to 1.
    """

    flip: Flip
    probability: float = 0.5
    in_frame: ClassVar[bool] = True

    def __call__(self, sample: Sample, key: Key) -> Sample:
        seed, epoch, image_id = key
        if not is_flipped(self.flip, list(sample.texts), seed, epoch, image_id, self.probability):
            return sample
        texts = tuple(mirrored(text) for text in sample.texts)
        return Sample(sample.picture[:, ::-1], sample.masks[..., ::-1], texts)


def text_safe_flip(flip: Flip) -> TextSafeFlip | None:
    """The transform of a method's option `flip`; None for `none`, which is what CRIS, LAVT and DMMI do."""
    return None if flip is Flip.none else TextSafeFlip(flip)


@dataclass(frozen=True)
class TimmTraining(Transform):
    """timm's training preset as TCL and GroupViT use it (their configs/default.yml, `img_aug`), for pictures without masks.

    Random resized crop, flip, RandAugment (m9, mstd 0.5, inc 1), and erasing of pixels with probability 0.25. Erased pixels are
    noise around the mean colour in ImageNet's units, as the code has it, here rounded to bytes.

    Attributes:
        size: height and width of the network's frame.
    """

    size: tuple[int, int]

    def __call__(self, sample: Sample, key: Key) -> Sample:
        from rislab.data.timm_preset import training_picture

        assert not len(sample.masks), "the preset moves pictures only"
        return replace(sample, picture=training_picture(sample.picture, self.size, key))


@dataclass(frozen=True)
class LongSideScaleCrop(Transform):
    """Flip, long side drawn between two bounds, pad, random crop (LSeg, CLIMS). Built on albumentations.

    Attributes:
        size: height and width of the crop, the network's frame.
        long_side: smallest and largest length of the long side, in pixels.
        flip: probability of a mirrored picture.
        fill: RGB of padded pixels; a method that pads after normalisation gives its mean colour, which is 0 there.
        mask_fill: value of padded mask pixels; 255 is ignored.
        cubic: whether pictures are scaled with a cubic kernel, not a linear one; masks always take the nearest pixel.
        pad_at: where padding goes, right and below or on all sides at random.
    """

    size: tuple[int, int]
    long_side: tuple[int, int]
    flip: float = 0.5
    fill: tuple[int, int, int] = (0, 0, 0)
    mask_fill: int = 255
    cubic: bool = False
    pad_at: str = "top_left"

    def __call__(self, sample: Sample, key: Key) -> Sample:
        seed = _seed(key)
        low, high = self.long_side
        height, width = sample.picture.shape[:2]
        scale = int(np.random.default_rng(seed).integers(low, high + 1)) / max(height, width)
        scaled = max(1, round(height * scale)), max(1, round(width * scale))
        done = _applied(self._crop, _resized(sample, scaled, self.cubic), seed)
        return Sample(done["image"], _stacked(done["masks"], self.size), sample.texts)

    @cached_property
    def _crop(self) -> Any:
        album = _albumentations()
        height, width = self.size
        return album.Compose(
            [
                album.HorizontalFlip(p=self.flip),
                album.PadIfNeeded(
                    height,
                    width,
                    position=self.pad_at,
                    fill=self.fill,
                    fill_mask=self.mask_fill,
                    border_mode=cv2.BORDER_CONSTANT,
                ),
                album.RandomCrop(height, width),
            ]
        )


def _resized(sample: Sample, size: tuple[int, int], cubic: bool) -> Sample:
    """A sample at another size. Masks take the nearest pixel, so that labels stay labels."""
    shape = (size[1], size[0])
    picture = cv2.resize(sample.picture, shape, interpolation=cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR)
    masks = [cv2.resize(mask, shape, interpolation=cv2.INTER_NEAREST_EXACT) for mask in sample.masks]
    return Sample(np.asarray(picture, np.uint8), _stacked(masks, size), sample.texts)


def _stacked(masks: Sequence[NDArray[Any]], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.stack(masks).astype(np.uint8) if len(masks) else np.empty((0, *size), np.uint8)


def _applied(compose: Any, sample: Sample, seed: int) -> Any:
    """What albumentations makes of a sample. Its generator is its own and is seeded for each sample."""
    compose.set_random_seed(seed)
    return compose(image=sample.picture, masks=list(sample.masks))


def _seed(key: Key) -> int:
    return int(np.random.SeedSequence(list(key)).generate_state(1)[0])


def _albumentations() -> Any:
    """The library, imported on first use: it takes seconds, and looks for a newer version of itself on the network otherwise."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations

    return albumentations
