"""How two sets of given masks differ in each metric, with an interval over pictures."""

import math
from dataclasses import dataclass

from rislab.evaluation.arithmetic import ExpressionArithmetic
from rislab.report.statistics import Sums, critical, image_variance
from rislab.scoring.score import Scores

LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """Of one metric, in points: the first minus the second, and its interval of 95 %; None of one picture."""

    difference: float
    interval: tuple[float, float] | None


def differences(one: Scores, other: Scores, protocol: str) -> dict[str, Difference]:
    """Of the metrics that both have, by the jackknife that leaves out one picture with all its sentences."""
    arithmetic = ExpressionArithmetic(one.conventions[protocol])
    both = [name for name in one.averages(protocol) if name in other.averages(protocol)]
    found = {}
    for metric in both:
        sums = [Sums(*arithmetic.parts(scores.tables[protocol], metric)) for scores in (one, other)]
        difference = sums[0].percent - sums[1].percent
        if len(sums[0].top) < 2:
            found[metric] = Difference(difference, None)
            continue
        variance = image_variance(sums[0].without_each() - sums[1].without_each())
        half = critical(LEVEL, variance.freedom) * math.sqrt(variance.value) if variance.value else 0.0
        found[metric] = Difference(difference, (difference - half, difference + half))
    return found
