"""Labels at several scales against a loop that is written from the specification alone."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rislab.nn.multi_scale import MultiScale, multi_scale_labels

VIEW = MultiScale(52, (0.5, 0.75, 1.0, 1.25, 1.5, 1.75), 48, 32)
CLASSES = 4


class Network:
    """Scores at a quarter of the window's side, not the same for a mirrored window."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn(CLASSES, 3, 4, 4, generator=generator)
        self.calls = 0

    def __call__(self, window: Tensor) -> Tensor:
        assert window.shape == (1, 3, 48, 48)
        self.calls += 1
        return F.conv2d(window.double() / 255 - 0.5, self.weight.double(), stride=4).float()


def bilinear(picture: Tensor, height: int, width: int) -> Tensor:
    """Aligned corners, one axis after the other, by weights written out."""
    for axis, size in ((-2, height), (-1, width)):
        old = picture.shape[axis]
        place = torch.arange(size, dtype=torch.float64) * ((old - 1) / (size - 1) if size > 1 else 0)
        low = place.floor().long().clamp(max=max(0, old - 2))
        part = (place - low).reshape(-1, 1) if axis == -2 else place - low
        high = (low + 1).clamp(max=old - 1)
        picture = picture.index_select(axis, low) * (1 - part) + picture.index_select(axis, high) * part
    return picture


def reference(network: Network, image: Tensor, size: tuple[int, int]) -> Tensor:
    """Section 5.1 of the specification, step by step, in double precision. Returns the summed scores [C, h, w]."""
    total = torch.zeros(CLASSES, *size, dtype=torch.float64)
    height, width = image.shape[-2:]
    for scale in VIEW.scales:
        long = math.ceil(VIEW.long_side * scale)
        short = round(min(height, width) * long / max(height, width) + 1e-9)
        h, w = (long, short) if height > width else (short, long)
        canvas = torch.zeros(3, max(h, 48), max(w, 48), dtype=torch.float64)
        canvas[:, :h, :w] = bilinear(image.double(), h, w)
        summed, count = torch.zeros(CLASSES, *canvas.shape[1:], dtype=torch.float64), torch.zeros(canvas.shape[1:])
        y = 0
        while True:
            x = 0
            while True:
                part = canvas[:, y : y + 48, x : x + 48]
                window = torch.zeros(3, 48, 48, dtype=torch.float64)
                window[:, : part.shape[1], : part.shape[2]] = part
                straight = bilinear(network(window[None])[0].double(), 48, 48)
                mirrored = bilinear(network(window.flip(-1)[None])[0].double(), 48, 48).flip(-1)
                summed[:, y : y + 48, x : x + 48] += (straight + mirrored)[:, : part.shape[1], : part.shape[2]]
                count[y : y + 48, x : x + 48] += 1
                x += 32
                if x + 48 - 32 >= canvas.shape[2]:
                    break
            y += 32
            if y + 48 - 32 >= canvas.shape[1]:
                break
        total += bilinear((summed / count)[:, :h, :w], *size)
    return total


@pytest.mark.parametrize("size", [(37, 61), (61, 37), (50, 50), (20, 90)])
def test_labels_are_those_of_the_specification(size: tuple[int, int]) -> None:
    image = torch.randint(0, 256, (3, *size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    ours, theirs = Network(), Network()
    expected = reference(theirs, image, size)
    labels = multi_scale_labels(ours, image, size, VIEW)
    assert ours.calls == theirs.calls
    best = expected.sort(0, descending=True).values
    decided = best[0] - best[1] > 1e-4
    assert decided.float().mean() > 0.98
    assert torch.equal(labels[decided], expected.argmax(0)[decided])


def test_labels_come_at_the_size_of_the_label_map() -> None:
    image = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8)
    assert multi_scale_labels(Network(), image, (80, 121), VIEW).shape == (80, 121)
