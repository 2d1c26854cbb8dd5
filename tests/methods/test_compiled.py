"""Every method's training step through `torch.compile`: the same loss and gradients. Minutes: `make compiled`."""

import pytest
import torch

from rislab.testing.contract import loss_and_gradients, require_alike, training_batch
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
    plain = loss_and_gradients(method, batch)
    method.losses = torch.compile(method.losses, dynamic=False)  # type: ignore[method-assign]
    require_alike(plain, loss_and_gradients(method, batch), most=1e-3)
