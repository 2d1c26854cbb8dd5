"""A convolution of a doubled picture at the picture's own size is the plain one, in value and gradient."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from rislab.methods.tcl.model import GatedConv
from rislab.nn.doubled_convolution import cells, doubled_convolution


def test_entries_of_a_kernel_fall_into_cells() -> None:
    assert [cells(3, 0), cells(3, 1)] == [[1, 2], [2, 1]]
    assert [cells(5, 0), cells(5, 1)] == [[2, 2, 1], [1, 2, 2]]


@pytest.mark.parametrize("size", [1, 3, 5, 7])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 3, 1, 4), (1, 3, 6, 2)])
def test_it_is_the_convolution_of_the_doubled_picture(size: int, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    given = [torch.randn(shape), torch.randn(4, 3, size, size), torch.randn(4)]
    found: list[list[torch.Tensor]] = []
    for is_plain in (True, False):
        x, weight, bias = leaves = [each.double().requires_grad_() for each in given]
        if is_plain:
            y = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, bias, padding=size // 2)
        else:
            y = doubled_convolution(x, weight, bias)
        weights = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        (y * weights).sum().backward()
        found.append([y.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)])
    for plain, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm", ["layer", "batch", "group", "none"])
@pytest.mark.parametrize("training", [True, False])
def test_norm_and_activation_commute_with_the_doubling(norm: Any, training: bool) -> None:
    torch.manual_seed(0)
    layer = GatedConv(32, 3, norm, "gelu", gated=True).double().train(training)
    assert layer.gate is not None
    torch.nn.init.constant_(layer.gate, 0.3)
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    found = []
    for is_plain in (True, False):
        layer.load_state_dict(state)
        layer.zero_grad()
        x = torch.randn(2, 32, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        y = layer(F.interpolate(x, scale_factor=2, mode="nearest")) if is_plain else layer.after_doubling(x)
        y.square().sum().backward()
        assert x.grad is not None
        gradients = {name: p.grad for name, p in layer.named_parameters()}
        found.append(
            {
                "y": y.detach(),
                "x": x.grad,
                **gradients,
                **{f"after {k}": v.clone() for k, v in layer.state_dict().items()},
            }
        )
    for name, plain in found[0].items():
        torch.testing.assert_close(found[1][name], plain, rtol=1e-10, atol=1e-10, msg=name)
