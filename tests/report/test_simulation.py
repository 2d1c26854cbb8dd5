"""What a verdict promises, on tables whose truth is known: no more than 6 % of them are told of a difference that is none.

`make simulation` draws thousands of tables of every scenario, and prints what docs/conventions.md says of them.
"""

from pathlib import Path

import pytest
from scipy import stats

from rislab.report import statistics
from rislab.report.verdicts import Judged
from tests.report.simulated import ALL, Scenario, Simulation, all_null, is_wrong, powers

PROMISED = 0.06
MANY = 2000


def wrong(scenario: Scenario, tables: int, folder: Path) -> int:
    simulation = Simulation(scenario, folder)
    return sum(is_wrong(simulation.in_memory(seed)) for seed in range(tables))


def is_kept(found: int, tables: int, doubt: float) -> bool:
    """Whether so many wrong tables are likely enough where the promise is kept."""
    return bool(stats.binom.sf(found - 1, tables, PROMISED) > doubt)


@pytest.mark.parametrize(
    "name",
    [
        "2 seeds, one row x4",
        "3 seeds, both rows x2",
        "3 seeds, the same, that row x4",
        "stages, four rows share the first",
        "3 seeds, against an untrained row",
        "two untrained rows, 20 pictures",
    ],
)
def test_false_positives(name: str, tmp_path: Path) -> None:
    (scenario,) = [each for each in all_null() if each.name == name]
    assert is_kept(wrong(scenario, 100, tmp_path), 100, doubt=1e-3)


def test_what_matters_is_rarely_called_negligible(tmp_path: Path) -> None:
    """A true difference of exactly what matters is called negligible in 2.5 % of tables at most, a far smaller one in most."""
    rates = []
    for gain in (1.0, 0.0):
        (tmp_path / str(gain)).mkdir()
        scenario = Scenario("-", gains={"a": gain}, sd=0.3, per_picture=1.0, noise=1.0, pictures=100)
        simulation = Simulation(scenario, tmp_path / str(gain))
        rates.append(sum(simulation.in_memory(seed)[0].verdict == "negligible" for seed in range(60)) / 60)
    assert rates[0] <= 0.1
    assert rates[1] > 0.5


def test_pooling_without_looking_would_break_the_promise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "BORROW", (1e9,) * 99)
    assert not is_kept(wrong(Scenario("-", spread={"a": 4.0, "b": 4.0}), 100, tmp_path), 100, doubt=1e-3)


def test_power(tmp_path: Path) -> None:
    """Eight points between rows that differ by 1.5 between seeds: three seeds find most of four such claims."""
    (scenario,) = [each for each in powers() if each.name == "3 seeds, 8 points"]
    assert found(scenario, 40, tmp_path) > 0.75


def found(scenario: Scenario, tables: int, folder: Path) -> float:
    """Share of a scenario's claims, all of them true, that are replicated."""
    simulation = Simulation(scenario, folder)
    verdicts = [claim.verdict for seed in range(tables) for claim in simulation.in_memory(seed)]
    return verdicts.count("replicated") / len(verdicts)


@pytest.mark.parametrize(
    "scenario",
    [
        Scenario("-", ALL[:2], gains={"b": 9.0}, spread={"a": 2.0}, other_seeds={"b": 2}, pictures=20),
        Scenario(
            "-", chain=True, sharing=("c", "d"), untrained=("b",), rows=("a", "b", "c", "d"), pictures=20, seeds=2
        ),
    ],
    ids=["single stage", "two stages"],
)
def test_in_memory_is_what_trial_directories_say(scenario: Scenario, tmp_path: Path) -> None:
    simulation = Simulation(scenario, tmp_path)
    assert said(simulation.from_directories(0)) == said(simulation.in_memory(0))


def said(judged: list[Judged]) -> list[tuple[object, ...]]:
    return [(each.verdict, each.tests, each.why) for each in judged]


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_all_scenarios(tmp_path: Path) -> None:
    """Prints the two tables of docs/conventions.md."""
    rates: dict[str, float] = {}
    broken = []
    for number, scenario in enumerate(all_null()):
        (tmp_path / str(number)).mkdir()
        count = wrong(scenario, MANY, tmp_path / str(number))
        rates[scenario.name] = count / MANY
        print(f"{100 * count / MANY:5.1f} %  {scenario.name}", flush=True)
        if not is_kept(count, MANY, doubt=0.01):
            broken.append(scenario.name)
    print("power:")
    for number, scenario in enumerate(powers()):
        (tmp_path / f"power {number}").mkdir()
        print(f"{100 * found(scenario, MANY // 10, tmp_path / f'power {number}'):5.1f} %  {scenario.name}", flush=True)
    assert not broken
    assert max(rates.values()) > 0.03, "a promise that is kept by saying nothing is worth nothing"
