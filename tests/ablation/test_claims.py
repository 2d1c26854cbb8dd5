"""The claim language: what it means, and what it says of mistakes."""

import pytest

from rislab.ablation.claims import Comparison, Side, Term, parse
from rislab.errors import ConfigError


def test_a_chain_is_several_comparisons() -> None:
    first, second = parse("miou_expr[a] < miou_expr[con+dec2] < miou_expr[c]")
    assert first == Comparison(Side((Term(1, "miou_expr", "a"),)), "<", Side((Term(1, "miou_expr", "con+dec2"),)))
    assert second.left == first.right


def test_terms_are_turned_so_that_positive_means_the_claim() -> None:
    (claim,) = parse("pr@50[a] - pr@50[b] > 1.5")
    assert claim.terms == (Term(1, "pr@50", "a"), Term(-1, "pr@50", "b"))
    assert claim.margin == -1.5
    (turned,) = parse("1.5 < pr@50[a] - pr@50[b]")
    assert (turned.terms, turned.margin) == (claim.terms, claim.margin)


def test_and_joins_independent_comparisons() -> None:
    assert len(parse("oiou[a] > oiou[b] and miou_expr[a] > miou_expr[b] > 10")) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("miou_expr[a]", "no comparison"),
        ("miou_expr[a] <", "is missing"),
        ("miou_expr[a] < < miou_expr[b]", "is missing"),
        ("miou_expr[a] miou_expr[b]", "operator is missing"),
        ("__import__('os')", "unexpected"),
        ("miou_expr[a] < miou_expr[b] and", "no comparison"),
        ("and miou_expr[a] < 3", "before 'and'"),
        ("", "no comparison"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(text)
