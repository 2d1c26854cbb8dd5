"""The language in which a paper's claims are written: comparisons of table cells. Parsed here, never handed to `eval`.

miou_expr[con+dec4] < miou_expr[con+dec3]
miou_expr[dec1] < miou_expr[con+dec1] - 1.5 and oiou[base] < oiou[full]
miou_expr[con+dec1] < miou_expr[con+dec2] < miou_expr[con+dec3]
patch:miou_expr[ske] > patch:miou_expr[cfe]
"""

import re
from dataclasses import dataclass
from typing import Literal

from rislab.errors import ConfigError

_TOKEN = re.compile(
    r"\s*(?:(?P<cell>(?P<metric>(?:[a-z_]+:)?[a-z_]+(?:@\d+)?)\[(?P<row>[^\[\]]+)\])|(?P<number>\d+(?:\.\d+)?)|(?P<sign>[+-])"
    r"|(?P<op>[<>])|(?P<and>and\b))"
)


@dataclass(frozen=True)
class Term:
    """One cell with its sign: +1 or -1 times `metric` of `row`."""

    sign: int
    metric: str
    row: str


@dataclass(frozen=True)
class Side:
    """A sum of cells plus a constant, in the metric's unit (percent)."""

    terms: tuple[Term, ...]
    constant: float = 0.0


@dataclass(frozen=True)
class Comparison:
    left: Side
    op: Literal["<", ">"]
    right: Side

    @property
    def terms(self) -> tuple[Term, ...]:
        """Cells of the difference that must be positive for the claim to hold, signs turned accordingly."""
        greater, lesser = (self.left, self.right) if self.op == ">" else (self.right, self.left)
        return greater.terms + tuple(Term(-t.sign, t.metric, t.row) for t in lesser.terms)

    @property
    def margin(self) -> float:
        """Constant part of the same difference."""
        greater, lesser = (self.left, self.right) if self.op == ">" else (self.right, self.left)
        return greater.constant - lesser.constant


def parse(text: str) -> tuple[Comparison, ...]:
    """The comparisons of a claim; all must hold. `a < b < c` is two. Raises ConfigError with the place of the mistake."""
    comparisons: list[Comparison] = []
    side: Side | None = None
    operator: Literal["<", ">"] | None = None
    position, sign, expecting = 0, 1, True
    chained: Side | None = None

    def fail(what: str) -> ConfigError:
        return ConfigError(f"cannot read claim {text!r} at character {position + 1}: {what}")

    def close() -> None:
        nonlocal chained, side, operator
        if expecting or side is None:
            raise fail("a cell like miou_expr[row] or a number is missing")
        if operator is not None:
            assert chained is not None
            comparisons.append(Comparison(chained, operator, side))
        chained, side, operator = side, None, None

    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if match is None:
            raise fail(f"unexpected {text[position:].split()[0]!r}; known are metric[row], numbers, + - < > and")
        if match["cell"] or match["number"]:
            if not expecting:
                raise fail("an operator is missing")
            side = side or Side(())
            if match["cell"]:
                side = Side((*side.terms, Term(sign, match["metric"], match["row"].strip())), side.constant)
            else:
                side = Side(side.terms, side.constant + sign * float(match["number"]))
            sign, expecting = 1, False
        elif match["sign"]:
            sign = 1 if match["sign"] == "+" else -1
            expecting = True
        elif match["op"]:
            close()
            operator = "<" if match["op"] == "<" else ">"
            expecting = True
        else:
            if operator is None:
                raise fail("a comparison is missing before 'and'")
            close()
            chained, operator, expecting = None, None, True
        position = match.end()
    if operator is None:
        raise fail("no comparison: write metric[row] < metric[row]")
    close()
    return tuple(comparisons)
