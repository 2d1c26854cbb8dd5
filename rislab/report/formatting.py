"""Numbers, intervals and verdicts as text, the same in every form of a report."""

from collections.abc import Sequence

from rislab.report.statistics import Spread
from rislab.report.verdicts import Decided, Judged

UNVERIFIED = "not verified"
REPEAT_ONE = "rislab fit --config runs/DIRECTORY/config.yaml --trainer.default_root_dir=ANOTHER"
"""The directory itself is the evidence; `fit` refuses to write into it."""


def signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"


def exactly(spread: Spread) -> str:
    """A cell in four digits, for those who point at it."""
    seeds = f"{spread.n} seed{'s' if spread.n > 1 else ''}"
    return f"{spread.mean:.4f} over {seeds}" + ("" if spread.sd is None else f", standard deviation {spread.sd:.4f}")


def interval(test: Decided) -> str:
    """`+2.06 [+0.56, +3.56], p = 0.012`; the line of a claim with a margin; of one seed, its direction and no p."""
    reaches = f"[{test.low:+.2f}, {test.high:+.2f}]"
    line = f", line {test.line:+.2f}" if test.line else ""
    if test.p is None:
        return f"{test.difference:+.2f}{line}, {'' if test.as_claimed else 'not '}as claimed; over pictures alone {reaches}"
    p = "p < 0.001" if test.p < 0.001 else f"p = {test.p:.3f}"
    return f"{test.difference:+.2f} {reaches}{line}, {p}"


def headline(judged: Judged) -> str:
    """The verdict; of a single seed, with what it showed: `single seed: +2.06, as claimed`."""
    if judged.verdict != "single seed":
        return judged.verdict
    shown = (f"{t.difference:+.2f}, {'' if t.as_claimed else 'not '}as claimed" for t in judged.tests)
    return f"{judged.verdict}: {'; '.join(shown)}"


def folds(values: Sequence[tuple[str, float | None]]) -> str:
    """Values of single folds behind their mean: ` (52.80, 53.80, –, 38.50)`; empty without folds."""
    return f" ({', '.join('–' if value is None else f'{value:.2f}' for _, value in values)})" if values else ""


def ratio(value: float | None) -> str:
    """A row's spread between seeds over the pooled one."""
    return "" if value is None else f"{value:.2f}"


def evidence(judged: Judged) -> str:
    """Differences with their intervals, one a comparison, or why there are none."""
    return "; ".join(interval(test) for test in judged.tests) or judged.why
