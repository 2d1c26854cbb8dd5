"""From differences and their errors to a verdict on each claim. What each verdict means: docs/conventions.md, "Verdicts"."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from rislab.ablation.table import Claim
from rislab.report.measurements import Evidence, Measurement, NoEvidenceError
from rislab.report.results import Results
from rislab.report.statistics import NOTHING, Variance, critical, holm, total_error, two_sided

Verdict = Literal["replicated", "contradicted", "negligible", "inconclusive", "single seed", "not run"]
Decision = Literal["for", "against", "negligible", "open", "single"]
"""Of one comparison: as claimed; the other way; too small to matter; undecided; nothing is known of other seeds."""

LEVEL = 0.05
MOST_SEEDS = 200
"""More are not run; a difference that needs them is not decided by seeds."""
MOST_PICTURES = 64
"""So many times the pictures are the most that is proposed."""


@dataclass(frozen=True)
class Decided:
    """One comparison of a claim, turned so that a larger difference is what the claim says.

    Attributes:
        difference: in percent points.
        line: what it must exceed for the claim to hold.
        low, high: interval; simultaneous over the table's comparisons. Of pictures alone where the decision is `single`.
        p: two-sided, of the difference being on the line, adjusted by Holm over the table; None where the decision is `single`.
        needed: what more would have to be run; empty where it is decided.
    """

    difference: float
    line: float
    low: float
    high: float
    p: float | None
    decision: Decision
    needed: str = ""

    @property
    def as_claimed(self) -> bool:
        return self.difference > self.line


@dataclass(frozen=True)
class Judged:
    claim: Claim
    verdict: Verdict
    tests: tuple[Decided, ...]
    why: str


def judge(results: Results) -> list[Judged]:
    """A verdict for every claim of the table that is to be judged."""
    evidence = Evidence(results)
    claims = [claim for claim in results.table.claims if claim.judged]
    measured: list[list[Measurement] | str] = []
    for claim in claims:
        try:
            measured.append([evidence.measure(comparison) for comparison in claim.comparisons])
        except NoEvidenceError as problem:
            measured.append(str(problem))
    family = sum(len(claim.comparisons) for claim in claims)
    found = [
        (measurement, 0.0 - comparison.margin)
        for claim, outcome in zip(claims, measured, strict=True)
        if not isinstance(outcome, str)
        for measurement, comparison in zip(outcome, claim.comparisons, strict=True)
    ]
    tests = iter(decide(found, family, results.table.margin_of_interest))
    judged = []
    for claim, outcome in zip(claims, measured, strict=True):
        if isinstance(outcome, str):
            judged.append(Judged(claim, "not run", (), outcome))
            continue
        own = tuple(next(tests) for _ in outcome)
        judged.append(Judged(claim, verdict_of(own), own, _why(own, results.table.margin_of_interest)))
    return judged


def decide(found: Sequence[tuple[Measurement, float]], family: int, interest: float) -> list[Decided]:
    """Decide comparisons together.

    Args:
        found: each with the line that its difference must exceed.
        family: comparisons that share the level: all of the table's, whether they have been run or not.
        interest: the smallest difference that matters, in points.
    """
    raw = [_p(measurement, line, measurement.seeds) for measurement, line in found if measurement.seeds is not None]
    adjusted = iter(holm(raw, family))
    level = LEVEL / family if family else LEVEL
    tests = []
    for measurement, line in found:
        if measurement.seeds is None:
            half = _half(measurement.images, level)
            low, high = measurement.difference - half, measurement.difference + half
            tests.append(Decided(measurement.difference, line, low, high, None, "single"))
            continue
        tests.append(
            _decided(
                measurement, line, next(adjusted), total_error(measurement.images, measurement.seeds), level, interest
            )
        )
    return tests


def _p(measurement: Measurement, line: float, seeds: Variance) -> float:
    error = total_error(measurement.images, seeds)
    excess = measurement.difference - line
    if error.value <= 0:
        return 1.0 if excess == 0 else 0.0
    return two_sided(excess / math.sqrt(error.value), error.freedom)


def _half(error: Variance, level: float) -> float:
    return critical(level, error.freedom) * math.sqrt(error.value) if error.value > 0 else 0.0


def _decided(
    measurement: Measurement, line: float, p: float, error: Variance, level: float, interest: float
) -> Decided:
    difference, half = measurement.difference, _half(error, level)
    low, high = difference - half, difference + half
    decision: Decision = "open"
    if p < LEVEL:
        decision = "for" if difference > line else "against"
        # Holm's later steps are sharper than Bonferroni's interval; where they decide, the interval ends at the line.
        low, high = (max(low, line), high) if difference > line else (low, min(high, line))
    if -interest < low and high < interest and (decision == "open" or not line):
        decision = "negligible"
    needed = _needed(measurement, line, level, interest) if decision == "open" else ""
    return Decided(difference, line, low, high, p, decision, needed)


def verdict_of(tests: Sequence[Decided]) -> Verdict:
    """All comparisons of a claim must hold for it to be replicated; one that is against contradicts it."""
    decisions = {test.decision for test in tests}
    if "against" in decisions:
        return "contradicted"
    if "single" in decisions:
        return "single seed"
    if "open" in decisions:
        return "inconclusive"
    return "negligible" if "negligible" in decisions else "replicated"


def _why(tests: Sequence[Decided], interest: float) -> str:
    """What a reader must know beside the numbers."""
    verdict = verdict_of(tests)
    if verdict == "single seed":
        return "one seed: the interval covers pictures only; two seeds at least are needed, three are a good start"
    if verdict == "negligible":
        return f"the difference is smaller than {interest:g} points, the smallest that matters here"
    if verdict == "inconclusive":
        return "; ".join(dict.fromkeys(test.needed for test in tests if test.needed))
    return ""


def _needed(measurement: Measurement, line: float, level: float, interest: float) -> str:
    """What would decide an open comparison, should difference and spread stay as they are. A rough guide."""
    seeds = measurement.seeds if measurement.seeds is not None else NOTHING
    now = measurement.least

    def decides(many: int | None, pictures: int) -> bool:
        error = Variance(measurement.images.value / pictures, measurement.images.freedom)
        if many is not None and now is not None:
            error = total_error(error, Variance(seeds.value * now / many, seeds.freedom * (many - 1) / (now - 1)))
        half = _half(error, level)
        difference = measurement.difference
        small = not line and abs(difference) + half < interest
        return abs(difference - line) > half or small

    stays = "if difference and spread stay as they are"
    if now is not None and decides(MOST_SEEDS, 1):
        return f"about {_least(lambda n: decides(n, 1), now, MOST_SEEDS)} seeds would decide it, {stays}"
    for times in (2**k for k in range(1, int(math.log2(MOST_PICTURES)) + 1)):
        if decides(now, times):
            more = _least(lambda k: decides(now, k), times // 2, times)
            alone = "more seeds alone would not decide it: " if now is not None else ""
            return f"{alone}about {more * measurement.pictures} pictures would, {more} times as many, {stays}"
        if now is not None and decides(MOST_SEEDS, times):
            many = _least(partial(decides, pictures=times), now, MOST_SEEDS)
            return (
                f"neither more seeds nor more pictures alone would decide it: about {many} seeds and "
                f"{times * measurement.pictures} pictures, {times} times as many, would, {stays}"
            )
    return (
        f"not even {MOST_SEEDS} seeds and {MOST_PICTURES} times the pictures would decide it: the difference lies too close to "
        "what it is compared with"
    )


def _least(decides: Callable[[int], bool], too_few: int, enough: int) -> int:
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if decides(middle) else (middle, enough)
    return enough
