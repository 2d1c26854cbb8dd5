"""timm's training preset, drawn from a key; see `rislab.data.transforms.TimmTraining`."""

import random
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data.random_erasing import RandomErasing
from timm.data.transforms_factory import create_transform
from torchvision.transforms.functional import pil_to_tensor

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def training_picture(picture: NDArray[np.uint8], size: tuple[int, int], key: Sequence[int]) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] -> uint8 [h, w, 3], drawn from the key. Global random states, which timm reads, are as they were."""
    seed = int(np.random.SeedSequence(list(key)).generate_state(1)[0])
    python, numbers = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            first, second, _ = create_transform(
                size, is_training=True, auto_augment="rand-m9-mstd0.5-inc1", color_jitter=0.4, separate=True
            )
            pixels = pil_to_tensor(second(first(Image.fromarray(picture)))).float() / 255
            erased = RandomErasing(0.25, mode="pixel", max_count=1, device="cpu")((pixels - MEAN) / STD)
    finally:
        random.setstate(python)
        np.random.set_state(numbers)
    shown = ((erased * STD + MEAN).clamp(0, 1) * 255).round().to(torch.uint8)
    return np.asarray(shown.permute(1, 2, 0).numpy())
