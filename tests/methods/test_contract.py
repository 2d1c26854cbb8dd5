"""What every method promises, checked on each that exists."""

import pytest
import torch

from rislab.testing import CHECKS, Check, Factory, applies
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

    from rislab.testing import check_method

    with pytest.raises(AssertionError, match="segment_answers_each_query_alike_in_any_company: two sentences"):
        check_method(unread)  # type: ignore[arg-type]
