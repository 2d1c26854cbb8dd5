"""Every method's training step through `torch.compile`: the same loss and gradients. Minutes: `make compiled`."""

import pytest
import torch
from torch import Tensor

from rislab.testing.contract import total, training_batch
from tests.methods.every import factories

TRAINED = [name for name, factory in sorted(factories().items()) if factory().is_trained]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_a_compiled_step_has_the_same_loss_and_gradients(name: str) -> None:
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit = 64  # as `trial.compile` has it
    torch.manual_seed(0)
    method = factories()[name]().eval()  # nothing is drawn
    batch = training_batch(method)
    found: list[dict[str, Tensor]] = []
    for compiled in (False, True):
        method.zero_grad()
        if compiled:
            method.losses = torch.compile(method.losses, dynamic=False)  # type: ignore[method-assign]
        loss = total(method, batch)
        loss.backward()
        gradients = {key: p.grad.clone() for key, p in method.named_parameters() if p.grad is not None}
        found.append({"loss": loss.detach(), **gradients})
    plain, through = found
    largest = max(float(value.abs().max()) for value in plain.values())
    for key, value in plain.items():
        scale = max(float(value.abs().max()), 1e-3 * largest)
        difference = float((through[key] - value).abs().max()) / scale
        assert difference < 1e-3, f"{key} differs by {difference:.1e} of its largest value"
