"""The fully connected CRF against sums over all pairs, and against what its authors' C++ computes."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rislab.nn.dense_crf import Kernels, Lattice, mean_field

Array = NDArray[np.float64]


def all_pairs(probability: Array, image: NDArray[np.uint8], kernels: Kernels, iterations: int) -> Array:
    """Mean field with exact Gaussians: the formulas, every pair of pixels."""
    labels, height, width = probability.shape
    y, x = np.mgrid[:height, :width]
    places = np.stack([x, y], -1).reshape(-1, 2)
    colours = image.reshape(-1, 3).astype(np.float64)

    def kernel(features: Array) -> Array:
        pairs = np.exp(-((features[:, None] - features[None]) ** 2).sum(-1) / 2)
        root = np.sqrt(pairs.sum(1))
        return pairs / root[:, None] / root[None]

    near = kernel(places / kernels.near_sxy)
    alike = kernel(np.concatenate([places / kernels.alike_sxy, colours / kernels.alike_srgb], 1))
    logits = np.log(probability.reshape(labels, -1).T)

    def softmax(z: Array) -> Array:
        e = np.exp(z - z.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    q = softmax(logits)
    for _ in range(iterations):
        q = softmax(logits + kernels.near_weight * near @ q + kernels.alike_weight * alike @ q)
    return q.T.reshape(labels, height, width)


@pytest.mark.parametrize("iterations", [1, 10])
@pytest.mark.parametrize("srgb", [3.0, 20.0])
def test_marginals_are_near_those_of_all_pairs(iterations: int, srgb: float) -> None:
    """The lattice approximates: 0.03 of a probability after one update, which the next ones shrink."""
    rng = np.random.default_rng(0)
    image = np.zeros((16, 20, 3))
    image[:, :10], image[:, 10:] = (200, 60, 40), (40, 70, 190)
    image = np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)
    probability = rng.random((3, 16, 20))
    probability[0, :, :10] += 0.3
    probability[1, :, 10:] += 0.3
    probability /= probability.sum(0)
    kernels = Kernels(alike_srgb=srgb)
    exact = all_pairs(probability, image, kernels, iterations)
    found = mean_field(torch.from_numpy(probability), torch.from_numpy(image), kernels, iterations).numpy()
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)
    assert np.abs(found - exact).max() < 0.05
    assert np.abs(found - exact).mean() < 0.005
    assert np.abs(probability - exact).mean() > 0.15, "the CRF has something to do"
    if iterations == 10:
        assert (found.argmax(0) == exact.argmax(0)).all()
        assert (found[:, :, :10].argmax(0) == 0).all(), "one label on each side of the edge"
        assert (found[:, :, 10:].argmax(0) == 1).all()


FIRST_LABEL = {
    1: [[0.2064, 0.5424, 0.5604, 0.1537, 0.0210, 0.0084, 0.0195], [0.5494, 0.5355, 0.2980, 0.0598, 0.0156, 0.0179, 0.0596],
        [0.8565, 0.5746, 0.1087, 0.0267, 0.0303, 0.0794, 0.2237], [0.8954, 0.5251, 0.0752, 0.0250, 0.0744, 0.2834, 0.4178],
        [0.7899, 0.3546, 0.0808, 0.0741, 0.1881, 0.3851, 0.3748]],
    3: [[0.5304, 0.8611, 0.6054, 0.0330, 0.0017, 0.0005, 0.0006], [0.9080, 0.8895, 0.3802, 0.0079, 0.0008, 0.0002, 0.0009],
        [0.9845, 0.8955, 0.1390, 0.0035, 0.0005, 0.0006, 0.0023], [0.9896, 0.8225, 0.0540, 0.0018, 0.0011, 0.0018, 0.0064],
        [0.9729, 0.6046, 0.0188, 0.0038, 0.0046, 0.0074, 0.0134]],
}  # fmt: skip
"""Printed by pydensecrf2 1.1 (the C++ of Krähenbühl) for the input below, by iterations."""


@pytest.mark.parametrize("iterations", FIRST_LABEL)
def test_marginals_are_those_of_the_authors_code(iterations: int) -> None:
    y, x = np.mgrid[:5, :7]
    colours = ((20 * x + 7 * y) % 256, 60 + 40 * ((x + y) > 5), (90 + 3 * x * y) % 256)
    image = torch.from_numpy(np.stack(colours, -1).astype(np.uint8))
    scores = torch.from_numpy(np.stack([np.sin(x + 0.7 * y), np.cos(0.9 * x - y), 0.2 * x - 0.1 * y]))
    found = mean_field(scores.softmax(0), image, Kernels(alike_sxy=3, alike_srgb=30), iterations)
    np.testing.assert_allclose(found[0].numpy(), FIRST_LABEL[iterations], atol=2e-4)


def test_points_sum_to_one_and_one_point_reads_itself() -> None:
    """Whatever is spread is read again where kernels do not reach: two points that are far apart keep to themselves."""
    features = torch.tensor([[0.0, 0.0, 0.0], [50.0, -20.0, 9.0]], dtype=torch.float64)
    lattice = Lattice(features)
    torch.testing.assert_close(lattice.weights.sum(1), torch.ones(2))
    assert (lattice.weights >= 0).all()
    alone = lattice(torch.tensor([[1.0], [0.0]]))
    assert float(alone[1]) == 0.0
    assert float(alone[0]) > 0.1
