"""What every method promises, checked on each that exists."""

import pytest
import torch
from torch import nn

from rislab.methods.base import TextSegmenter
from rislab.testing import CHECKS, Check, Factory, applies, check_method
from tests.methods.every import factories

CASES = [(name, check) for name, factory in sorted(factories().items()) for check in CHECKS if applies(check, factory)]


@pytest.mark.parametrize(("name", "check"), CASES, ids=[f"{name}-{check.__name__}" for name, check in CASES])
def test_contract(name: str, check: Check) -> None:
    torch.manual_seed(0)
    check(factories()[name])


def test_a_broken_promise_is_named() -> None:
    """The suite can fail: a method that does not read its texts."""

    def unread() -> Factory:
        method = factories()["clip"]()
        original = method.segment
        method.segment = lambda images, texts, index: original(images, ["dog"] * len(texts), index)  # type: ignore[method-assign]
        return method  # type: ignore[return-value]

    with pytest.raises(AssertionError, match="segment_answers_each_query_alike_in_any_company: two sentences"):
        check_method(unread)  # type: ignore[arg-type]


@pytest.mark.parametrize("trained", [False, True])
def test_unused_weights_are_exempt_where_they_are_frozen(trained: bool) -> None:
    """A layer that official weights hold and nothing reads: it is kept in the state, and out of training."""

    def spared() -> TextSegmenter:
        method = factories()["cris"]()
        method.__class__ = type("Spared", (type(method),), {"unused": ("spare.",)})
        method.spare = nn.Linear(2, 2).requires_grad_(trained)
        return method

    if not trained:
        check_method(spared)
        return
    with pytest.raises(
        AssertionError, match=r"unused_weights_stay_out_of_training: unused, but trained: \['spare.weight'"
    ):
        check_method(spared)
