"""DeepLab's augmentation: one of a few scales, a crop, a mirror image."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rislab.data.transforms import Key, LongSideScaleCrop, Sample, Transform


@dataclass(frozen=True)
class ScaleSetCrop(Transform):
    """Scale drawn from a list, padding right and below, random crop, flip (kazuto1011/deeplab-pytorch, datasets/base.py).

    Attributes:
        size: Height and width of the crop, the network's frame.
        scales: Of the picture; each as likely.
        fill: RGB of padded pixels; padded labels are ignored.
        flip: Probability of a mirrored picture.
    """

    size: tuple[int, int]
    scales: tuple[float, ...]
    fill: tuple[int, int, int]
    flip: float = 0.5

    def __call__(self, sample: Sample, key: Key) -> Sample:
        scale = np.random.default_rng([*key, 1]).choice(self.scales)
        long = max(1, round(max(sample.picture.shape[:2]) * float(scale)))
        return _crop(self.size, long, self.flip, self.fill)(sample, key)


@lru_cache(maxsize=1024)
def _crop(size: tuple[int, int], long: int, flip: float, fill: tuple[int, int, int]) -> LongSideScaleCrop:
    """Made once for each length, since making one takes longer than using it."""
    return LongSideScaleCrop(size, (long, long), flip, fill)
