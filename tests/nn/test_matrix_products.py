"""Products through oneDNN are torch's own, in value and gradient, and toy networks do not take them."""

import time
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from rislab.bench.operations import counted
from rislab.data.batch import ImageLabels, Images
from rislab.data.geometry import Stretch
from rislab.data.synthetic import batch_of
from rislab.methods.base import TextSegmenter
from rislab.nn import matrix_products
from rislab.nn.matrix_products import checkpointed, fast_products, is_available, linear

pytestmark = pytest.mark.skipif(not is_available(), reason="this torch has no linear layers of oneDNN")


class Parts(nn.Module):
    """A bit of everything that is a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(32, 48, 1).to(memory_format=torch.channels_last)
        self.strided = nn.Conv2d(48, 48, 1, stride=2)
        self.linear = nn.Linear(48, 64, bias=False)
        self.act = nn.ReLU(inplace=True)
        self.own = nn.MultiheadAttention(64, 4, batch_first=True)
        self.other = nn.MultiheadAttention(64, 4)
        self.matrix = nn.Parameter(torch.randn(64, 40))

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.linear(self.strided(self.act(self.conv(x))).flatten(2).transpose(1, 2)))
        hidden = torch.zeros(y.shape[:2], dtype=torch.bool)
        hidden[:, -5:] = True
        causal = torch.full((y.shape[1],) * 2, -torch.inf).triu(1)
        y = y + self.own(y, y, y, need_weights=False, attn_mask=causal)[0]
        y = y + self.own(y, y, y)[0]  # with weights: torch's own
        t = y.transpose(0, 1)
        t = t + self.other(t, t + 1, t, need_weights=False, key_padding_mask=hidden)[0]
        return t @ self.matrix


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Parts:
    torch.manual_seed(0)
    monkeypatch.setattr(matrix_products, "LARGE", 1)
    monkeypatch.setattr(matrix_products, "LEAST", 1)
    return Parts()


@pytest.mark.parametrize("training", [True, False])
def test_values_and_gradients_are_torchs(parts: Parts, training: bool) -> None:
    parts.train(training)
    x = torch.randn(3, 32, 12, 10).to(memory_format=torch.channels_last).requires_grad_()
    found: list[dict[str, Tensor]] = []
    for fast in (False, True):
        parts.zero_grad()
        x.grad = None
        with fast_products(parts) if fast else nullcontext():
            y = parts(x)
        (y * torch.linspace(0, 1, y.numel()).view(y.shape)).sum().backward()
        assert x.grad is not None
        found.append(
            {
                "y": y.detach(),
                "x": x.grad,
                **{name: p.grad for name, p in parts.named_parameters() if p.grad is not None},
            }
        )
    assert found[0].keys() == found[1].keys()
    for name, plain in found[0].items():
        torch.testing.assert_close(found[1][name], plain, atol=1e-4, rtol=1e-4, msg=name)


@torch.inference_mode()
def test_it_is_taken_and_counted(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    parts.eval()
    calls: list[int] = []
    product = matrix_products.product

    def seen(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        calls.append(len(weight))
        return product(x, weight, bias)

    monkeypatch.setattr(matrix_products, "product", seen)
    x = torch.randn(1, 32, 12, 10).to(memory_format=torch.channels_last)

    def fast() -> Tensor:
        with fast_products(parts):
            return parts(x)

    plain: Callable[[], Tensor] = lambda: parts(x)  # noqa: E731
    assert counted(fast) == pytest.approx(counted(plain))
    assert calls == [48, 64, 192, 64, 64, 64, 64, 64, 40]
    calls.clear()
    with fast_products(parts), torch.autocast("cpu", torch.bfloat16):
        assert parts.linear(torch.randn(4, 48)).dtype == torch.bfloat16
    monkeypatch.setattr(matrix_products, "LARGE", 10**9)
    fast()
    assert not calls


class Recomputed(TextSegmenter):
    """A layer that the backward pass computes again."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def losses(self, batch: Images) -> dict[str, Tensor]:
        x = batch.images.float().mean((2, 3)).repeat(1, 6)[:, :16]
        return {"loss": checkpointed(self.layer, x).square().mean()}


def test_what_is_computed_again_meets_the_same_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix_products, "LARGE", 1)
    monkeypatch.setattr(matrix_products, "LEAST", 1)
    method = Recomputed()
    monkeypatch.setattr(method, "log_dict", lambda *_, **__: None)
    method.training_step(batch_of(ImageLabels, Stretch(16), 2), 0).backward()
    assert method.layer.weight.grad is not None


def test_parts_of_a_matrix_take_no_longer_than_a_whole_one() -> None:
    """Columns of a weight, as LSeg's readout has them, and of an input: oneDNN's own way takes a thousand times as long."""
    torch.manual_seed(0)
    weight, x = torch.randn(256, 512), torch.randn(300, 512)
    whole = [weight[:, :256].clone(), x[:, :256].clone()]
    gradients, seconds = [], []
    for w, rows in (whole, (weight[:, :256], x[:, :256])):
        w, rows = w.detach().requires_grad_(), rows.detach().requires_grad_()
        least = float("inf")
        for _ in range(3):
            w.grad = None
            began = time.process_time()
            linear(rows, w).square().sum().backward()
            least = min(least, time.process_time() - began)
        seconds.append(least)
        assert w.grad is not None
        gradients.append(w.grad)
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-3)
    assert seconds[1] < 50 * seconds[0]
