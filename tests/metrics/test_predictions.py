"""The way from logits to the mask that is compared: against Pillow, torch, and itself."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rislab.data.geometry import Letterbox, Stretch
from rislab.metrics.predictions import enlarged, predictions
from rislab.metrics.protocols import CRIS, LAVT, NATIVE, Protocol
from rislab.metrics.scored_size import at_scored_size


def some_logits(rows: int = 2, side: int = 6) -> torch.Tensor:
    return torch.randn(rows, side, side, generator=torch.Generator().manual_seed(0)) * 8


def test_cris_takes_the_sigmoid_first() -> None:
    """The order matters: interpolated logits give other probabilities near an edge."""
    logits = some_logits()
    ours = enlarged(logits, (24, 24), CRIS)
    wanted = F.interpolate(logits.sigmoid()[:, None], (24, 24), mode="bicubic", align_corners=True)
    other = F.interpolate(logits[:, None], (24, 24), mode="bicubic", align_corners=True).sigmoid()
    torch.testing.assert_close(ours, wanted[:, 0])
    assert (ours - other[:, 0]).abs().max() > 0.1


def test_lavt_decides_by_argmax_of_two_interpolated_logits() -> None:
    pair = torch.randn(3, 2, 15, 15, generator=torch.Generator().manual_seed(1))
    official = F.interpolate(pair, (480, 480), mode="bilinear", align_corners=True).argmax(1).bool()
    places = [Stretch(480).place(300, 500)] * 3
    ours = predictions(pair[:, 1] - pair[:, 0], places, LAVT, 0.35)
    agree = [(torch.from_numpy(one) == other).float().mean() for one, other in zip(ours, official, strict=True)]
    assert min(agree) > 0.99999  # a sum in another order, at a tie


def test_native_leaves_the_threshold_to_the_method() -> None:
    flat = torch.full((1, 4, 4), float(torch.logit(torch.tensor(0.4))))
    place = [Letterbox(16).place(16, 16)]
    assert predictions(flat, place, NATIVE, 0.35)[0].all()
    assert not predictions(flat, place, NATIVE, 0.5)[0].any()
    assert predictions(flat, place, CRIS, 0.5)[0][1:-1, 1:-1].all()


def test_masks_are_stretched_as_pillow_does() -> None:
    rng = np.random.default_rng(0)
    for height, width in ((427, 640), (333, 500), (100, 37), (480, 480), (1, 1)):
        mask = rng.random((height, width)) < 0.5
        wanted = np.asarray(Image.fromarray(mask.view(np.uint8)).resize((480, 480), Image.Resampling.NEAREST))
        np.testing.assert_array_equal(at_scored_size(mask, LAVT), wanted.astype(bool))
        assert at_scored_size(mask, NATIVE) is mask


@pytest.mark.parametrize("name", list(Protocol.__members__))
def test_sizes(name: str) -> None:
    convention = Protocol[name].convention
    for geometry in (Letterbox(64), Stretch(64), Stretch((48, 64))):
        place = geometry.place(50, 70)
        found = predictions(some_logits(1, 16), [place], convention, 0.5)[0]
        assert found.shape == ((480, 480) if convention.side else (50, 70))
        assert found.dtype == np.bool_
    assert predictions(some_logits(1)[:0], [], convention, 0.5) == []


sizes = st.tuples(st.integers(8, 90), st.integers(8, 90))


@settings(max_examples=40, deadline=None)
@given(sizes, st.sampled_from([Letterbox(96), Stretch(96), Stretch((64, 128))]), st.booleans())
def test_geometry_is_undone(size: tuple[int, int], geometry: Letterbox | Stretch, cubic: bool) -> None:
    """There and back, a smooth picture is what it was; a constant one exactly so, away from a letterbox's border."""
    height, width = size
    place = geometry.place(height, width)
    there = np.append(np.array([[0.0, 0], [width - 1, 0], [0, height - 1]]), np.ones((3, 1)), 1) @ place.matrix.T
    back = np.append(there, np.ones((3, 1)), 1) @ place.inverse.T
    np.testing.assert_allclose(back, [[0, 0], [width - 1, 0], [0, height - 1]], atol=1e-6)
    y, x = np.mgrid[:96, :128][:, : place.input_size[0], : place.input_size[1]]
    columns, rows = (np.append(np.stack([x.ravel(), y.ravel()], 1), np.ones((x.size, 1)), 1) @ place.inverse.T).T
    ramp = (columns.reshape(x.shape) / 90 + rows.reshape(x.shape) / 180).astype(np.float32)
    undone = place.undo(ramp, cubic)
    wanted = np.arange(width) / 90 + np.arange(height)[:, None] / 180
    inner = (slice(3, -3), slice(3, -3))
    np.testing.assert_allclose(undone[inner], wanted[inner], atol=2e-3)


def test_a_stretched_picture_is_pillows() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (50, 80, 3), np.uint8)
    geometry = Stretch(64)
    wanted = np.asarray(Image.fromarray(picture).resize((64, 64), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(geometry.image(picture, geometry.place(50, 80)), wanted)
