"""Verdicts: what each takes, what is read for it, and that words, numbers, colours and pictures agree."""

import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rislab.ablation import plan, signature, table
from rislab.encoders.clip.trunk import CLIPSpec
from rislab.errors import ConfigError
from rislab.methods.base import TextSegmenter
from rislab.methods.clip.task import CLIPTask
from rislab.methods.cris.task import CRISTask
from rislab.methods.maskclip.task import MaskCLIPTask
from rislab.methods.risclip.task import RISCLIPTask
from rislab.methods.tcl.task import TCLTask
from rislab.report.conventions import selected_on
from rislab.report.figures import interval_chart
from rislab.report.formatting import interval
from rislab.report.measurements import Evidence, Measurement, is_trained
from rislab.report.model import view
from rislab.report.report_page import MARKS
from rislab.report.results import Results, collect
from rislab.report.statistics import NOTHING, Variance
from rislab.report.verdicts import Decided, Decision, Judged, Verdict, decide, judge, verdict_of
from rislab.report.write import build
from tests.report.simulated import ALL, Scenario, Simulation
from tests.report.trials import finish
from tests.worlds import ROOT, tiny_chain, tiny_table

VERDICT_OF: dict[Decision, Verdict] = {
    "for": "replicated",
    "against": "contradicted",
    "negligible": "negligible",
    "open": "inconclusive",
    "single": "single seed",
}

variances = st.builds(Variance, st.floats(1e-4, 30), st.floats(1, 60))
measurements = st.builds(
    Measurement,
    difference=st.floats(-12, 12),
    images=variances,
    pictures=st.just(60),
    seeds=st.none() | variances | st.just(NOTHING),
    least=st.just(3),
)


@given(
    st.lists(st.tuples(measurements, st.sampled_from([0.0, 1.5, -2.0])), min_size=1, max_size=6),
    st.integers(0, 4),
    st.sampled_from([0.5, 1.0, 3.0]),
)
def test_interval_colour_and_verdict_agree(
    found: list[tuple[Measurement, float]], not_run: int, interest: float
) -> None:
    for test in decide(found, len(found) + not_run, interest):
        assert test.low <= test.difference <= test.high
        assert verdict_of([test]) == VERDICT_OF[test.decision]
        inside = -interest < test.low and test.high < interest
        match test.decision:
            case "for":
                assert test.line <= test.low
            case "against":
                assert test.high <= test.line
            case "open":
                assert test.low <= test.line <= test.high
                assert not inside
                assert test.needed
            case "negligible":
                assert inside
        assert (test.p is None) == (test.decision == "single")
        assert (test.needed != "") == (test.decision == "open")
        drawn = interval_chart(test, 20.0)
        assert f'class="interval {test.decision}"' in drawn
        at = {kind: float(x) for kind, x in re.findall(r'class="(line|zero|reach)" x1="([\d.]+)"', drawn)}
        assert at["line"] == pytest.approx(90 + 84 * test.line / 20, abs=0.06)
        assert ("zero" in at) == (test.line != 0)


@given(st.lists(st.tuples(measurements, st.sampled_from([0.0, 1.5])), min_size=2, max_size=5))
def test_holm_decides(found: list[tuple[Measurement, float]]) -> None:
    """What is for or against is what Holm rejects, over the whole family."""
    tests = decide(found, len(found), 1e-6)
    rejected = [test.p is not None and test.p < 0.05 for test in tests]
    assert [test.decision in ("for", "against") for test in tests] == rejected


def test_what_has_not_been_run_counts_in_the_family() -> None:
    one = [(Measurement(3.0, Variance(1.0, 100), 60, NOTHING, None), 0.0)]
    alone, among = decide(one, 1, 1.0)[0], decide(one, 6, 1.0)[0]
    assert alone.p is not None
    assert among.p == pytest.approx(6 * alone.p)
    assert among.high - among.low > alone.high - alone.low


def test_a_small_difference_is_negligible_only_when_it_surely_is() -> None:
    def decision(difference: float, error: float, line: float = 0.0) -> Decision:
        return decide([(Measurement(difference, Variance(error**2, 1000), 60, NOTHING, None), line)], 1, 1.0)[
            0
        ].decision

    assert decision(0.2, 0.3) == "negligible"
    assert decision(0.2, 0.5) == "open"
    assert decision(0.5, 0.1) == "negligible", "real, but smaller than what matters"
    assert decision(1.2, 0.1) == "for"
    assert decision(-1.2, 0.1) == "against"
    # A claim with a margin says itself what matters; where that leaves it open, what is surely small is negligible.
    assert decision(0.5, 0.1, line=1.5) == "against"
    assert decision(0.5, 0.1, line=0.4) == "negligible"
    assert decision(2.0, 0.1, line=1.5) == "for"


@pytest.mark.parametrize(
    ("decisions", "verdict"),
    [
        (["for", "for"], "replicated"),
        (["for", "against"], "contradicted"),
        (["single", "against"], "contradicted"),
        (["single", "for"], "single seed"),
        (["for", "negligible"], "negligible"),
        (["open", "negligible"], "inconclusive"),
        (["open", "for"], "inconclusive"),
    ],
)
def test_claims_of_several_comparisons(decisions: list[Decision], verdict: Verdict) -> None:
    assert verdict_of([Decided(1.0, 0.0, 0.5, 1.5, 0.01, decision) for decision in decisions]) == verdict


@pytest.mark.parametrize(
    ("measurement", "line", "says"),
    [
        ((2.0, 0.1, 60, 1.0, 3), 0.0, r"^about \d+ seeds would decide it"),
        (
            (2.0, 2.0, 60, 1e-6, 3),
            0.0,
            r"^more seeds alone would not decide it: about \d+ pictures would, \d+ times as many",
        ),
        (
            (2.0, 4.0, 60, 10.0, 3),
            0.0,
            r"^neither more seeds nor more pictures alone would decide it: about \d+ seeds and \d+ pic",
        ),
        ((2.0, 2.0, 60, None, None), 0.0, r"^about \d+ pictures would, \d+ times"),
        ((1.5001, 2.0, 60, 2.0, 3), 1.5, r"^not even 200 seeds and 64 times the pictures"),
    ],
)
def test_an_open_comparison_says_what_it_lacks(measurement: tuple, line: float, says: str) -> None:
    difference, images, pictures, seeds, least = measurement
    error = NOTHING if seeds is None else Variance(seeds, 4)
    (test,) = decide([(Measurement(difference, Variance(images, 59), pictures, error, least), line)], 1, 1.0)
    assert test.decision == "open"
    assert re.search(says, test.needed), test.needed


def test_seeds_that_are_said_to_do_would_do() -> None:
    """With as many as are proposed the same difference and spread decide, with one fewer they do not."""
    images, seeds = Variance(0.1, 59), Variance(1.0, 4)
    (test,) = decide([(Measurement(2.0, images, 60, seeds, 3), 0.0)], 1, 1.0)
    many = int(re.search(r"\d+", test.needed)[0])  # type: ignore[index]
    for number, decided in ((many - 1, False), (many, True)):
        more = Variance(seeds.value * 3 / number, seeds.freedom * (number - 1) / 2)
        (then,) = decide([(Measurement(2.0, images, 60, more, number), 0.0)], 1, 1.0)
        assert (then.decision == "for") == decided


def test_numbers_are_printed_with_their_line_and_without_a_p_for_one_seed() -> None:
    assert interval(Decided(2.06, 0.0, 0.56, 3.56, 0.012, "for")) == "+2.06 [+0.56, +3.56], p = 0.012"
    assert interval(Decided(2.06, 1.5, 1.56, 2.56, 0.0004, "for")) == "+2.06 [+1.56, +2.56], line +1.50, p < 0.001"
    assert interval(Decided(1.0, 1.5, 0.1, 1.9, None, "single")) == (
        "+1.00, line +1.50, not as claimed; over pictures alone [+0.10, +1.90]"
    )
    assert set(MARKS) == set(get_args(Verdict))


def judged_of(scenario: Scenario, folder: Path, seed: int = 0) -> list[Judged]:
    return Simulation(scenario, folder).in_memory(seed)


def test_one_trained_row_with_one_seed_is_no_verdict(tmp_path: Path) -> None:
    """Though the pooled spread of the others is known; the row without training needs one seed only."""
    claims = ("miou_expr[a] > miou_expr[b]", "miou_expr[c] > miou_expr[b]", "miou_expr[g] > miou_expr[b]")
    gains = {"a": 30.0, "c": 30.0, "g": 30.0}
    scenario = Scenario("-", claims, gains=gains, other_seeds={"a": 1, "b": 1}, untrained=("b", "g"))
    one, several, untrained = judged_of(scenario, tmp_path)
    assert one.verdict == "single seed"
    assert one.tests[0].as_claimed
    assert several.verdict == "replicated"
    assert untrained.verdict == "replicated", "decided by pictures alone"


def test_the_pooled_spread_counts_each_trial_of_the_stage_that_is_read_once(tmp_path: Path) -> None:
    """Seven rows of which four share the first stage, and one trains nothing: (3 distinct first stages) x (3 seeds - 1)."""
    scenario = Scenario("-", chain=True, sharing=("d", "e", "f", "g"), untrained=("a",))
    simulation = Simulation(scenario, tmp_path)
    for cell in plan.distinct(simulation.planned):
        cell.write()
    simulation.from_directories(0)
    results = collect(simulation.table, simulation.profile, range(3), simulation.planned)
    evidence = Evidence(results)
    patch, last = evidence.pool((("patch:miou_expr", 1),)), evidence.pool((("miou_expr", 1),))
    assert patch is not None
    assert last is not None
    assert (patch.freedom, last.freedom) == (3 * 2, 6 * 2)
    rows = {row.row.name: row for row in results.rows}
    ratios = {name: evidence.spread_ratio(row, "miou_expr") for name, row in rows.items()}
    assert [name for name, ratio in ratios.items() if ratio is None] == ["a"]
    squares = [ratio**2 for ratio in ratios.values() if ratio is not None]
    assert sum(squares) / len(squares) == pytest.approx(1), (
        "equal numbers of seeds: their mean square is the pooled one"
    )
    page = view(results)
    assert [line.ours[0].ratio for line in page.lines].count(None) == 1


def test_rows_that_are_the_same_trials_differ_by_nothing(tmp_path: Path) -> None:
    scenario = Scenario(
        "-", ("patch:miou_expr[a] > patch:miou_expr[b]", "miou_expr[a] > miou_expr[b]"), chain=True, sharing=("a", "b")
    )
    same, other = judged_of(scenario, tmp_path)
    assert (same.tests[0].difference, same.tests[0].low, same.tests[0].high) == (0, 0, 0)
    assert same.verdict == "negligible"
    assert other.tests[0].difference != 0


@pytest.mark.parametrize("declared", [True, False])
def test_the_level_of_guessing_is_compared_where_sentences_are_dealt_out_on_purpose(
    tmp_path: Path, declared: bool
) -> None:
    """Its expressions are the same, each of another picture. Elsewhere that is a mistake, and no evidence."""
    path = tiny_table(tmp_path, "base: {decoder_layers: 1}\nguessing: {decoder_layers: 0}")
    content = yaml.safe_load(path.read_text())
    if declared:
        content["rows"][1]["switches"] = {"data.shuffle_sentences": True}
    claim = {"name": "read", "text": "Language is read", "holds": "miou_expr[base] > miou_expr[guessing]"}
    content["claims"] = [claim | {"source": "tests"}]
    path.write_text(yaml.safe_dump(content))
    loaded = table.load(path)
    cells = plan.plan(loaded, loaded.profile("toy"), [0, 1], tmp_path / "runs")
    for cell in cells:
        finish(cell, 0.3 if cell.row.name == "base" else 0.0, pictures=False, is_dealt=cell.row.name == "guessing")
    (judged,) = judge(collect(loaded, loaded.profile("toy"), [0, 1], cells))
    assert judged.verdict == ("replicated" if declared else "not run")


def test_the_family_is_the_tables_whatever_rows_are_shown(tmp_path: Path) -> None:
    simulation = Simulation(Scenario("-", ALL, gains={"a": 9.0}), tmp_path)
    whole = simulation.from_directories(1)
    some = [cell for cell in simulation.planned if cell.row.name in "ab"]
    results = collect(simulation.table, simulation.profile, range(3), some)
    judged = judge(results)
    assert [j.verdict for j in judged[1:]] == ["not run"] * 5
    first, shown = whole[0].tests[0], judged[0].tests[0]
    assert first.difference == shown.difference
    assert shown.p is not None
    (alone,) = judge(_with_claims(results, 1))
    assert alone.tests[0].p is not None
    assert shown.p == pytest.approx(min(1.0, 6 * alone.tests[0].p)), "Holm's first step over all six"


def _with_claims(results: Results, count: int) -> Results:
    return replace(results, table=replace(results.table, claims=results.table.claims[:count]))


def test_a_row_without_a_stage_shows_no_number_of_it(tmp_path: Path) -> None:
    """`joint` trains everything at once: it has no patch stage, and `patch:` is not what it scored at its end."""
    path = tiny_chain(tmp_path, "chain: {ske: true}\njoint: {stage: joint}\npatch-only: {stage: patch}")
    content = yaml.safe_load(path.read_text())
    content["claims"] = [
        {"name": "c", "text": "t", "holds": "patch:miou_expr[chain] > patch:miou_expr[joint]", "source": "s"}
    ]
    path.write_text(yaml.safe_dump(content))
    loaded = table.load(path)
    planned = plan.plan(loaded, loaded.profile("toy"), [0], tmp_path / "runs")
    for cell in plan.distinct(planned):
        finish(cell, 0.05 if cell.stage == "patch" else 0.1)
    results = collect(loaded, loaded.profile("toy"), [0], planned)
    chain, joint, patch = (row.cells[0] for row in results.rows)
    assert chain.value("val", "patch:miou_expr") != chain.value("val", "miou_expr")
    assert joint.value("val", "patch:miou_expr") is None
    assert joint.value("val", "miou_expr") is not None
    assert patch.value("val", "patch:miou_expr") == patch.value("val", "miou_expr")
    (claim,) = judge(results)
    assert (claim.verdict, claim.why) == ("not run", "no result for joint: patch:miou_expr, split 'val'")
    markdown, csv_file, tex, page = (
        f.read_text() for f in build(loaded, loaded.profile("toy"), [0], planned, tmp_path)
    )
    (row,) = [line for line in markdown.splitlines() if line.startswith("| joint |")]
    assert row.split(" | ")[2] == "*not measured*"
    assert page.count(">not measured<") == 1
    assert r"joint & -- & " in tex
    assert "joint,0,patch:" not in csv_file
    assert f"chain,0,patch:miou_expr,{chain.value('val', 'patch:miou_expr')!r}" in csv_file


def test_what_trains_nothing_is_declared_as_the_methods_do_it() -> None:
    """The declaration, which is read from source, against the built method."""
    off = {"adapters": False, "cfe": False, "ske": False}
    small = {"image_size": 64, "decoder_levels": (1, 2), "decoder_width": (8, 8), "ske_mlp": 32, "heads": 4}
    vit = CLIPSpec("rislab-tiny-ViT")
    cases: list[tuple[type[TextSegmenter], dict[str, object], bool]] = [
        (CRISTask, {"clip": CLIPSpec("rislab-tiny-RN"), "image_size": 64, "fpn_out": (16, 32, 16)}, True),
        (CLIPTask, {"clip": vit}, False),
        (MaskCLIPTask, {"clip": vit}, False),
        (TCLTask, {"clip": vit, "trained": False}, False),
        (RISCLIPTask, {"clip": vit, "stage": "patch", **small, **off}, False),
        (RISCLIPTask, {"clip": vit, **small, **off}, False),
        (RISCLIPTask, {"clip": vit, "stage": "pixel", **small, **off}, True),
        (RISCLIPTask, {"clip": vit, "stage": "patch", **small, **off, "ske": True}, True),
    ]
    for task, options, trained in cases:
        declared = signature.trains_nothing(f"{task.__module__}.{task.__name__}", options)
        assert task(**options).is_trained == trained  # type: ignore[arg-type]
        assert declared != trained, (task.__name__, options)


def test_a_page_says_when_the_checkpoint_was_chosen_on_the_split_it_shows(tmp_path: Path) -> None:
    loaded = table.load(tiny_table(tmp_path, "base: {decoder_layers: 0}"))
    planned = plan.plan(loaded, loaded.profile("toy"), [0], tmp_path / "runs")
    for cell in planned:
        finish(cell, 0.0)
    files = {f.suffix: f.read_text() for f in build(loaded, loaded.profile("toy"), [0], planned, tmp_path)}
    said = "The checkpoint of every trained row was chosen on val, the split that is reported"
    assert all(said in files[kind] for kind in (".md", ".html", ".tex"))
    path = loaded.path
    path.write_text(path.read_text().replace("split: val", "split: testA"))
    other = table.load(path)
    seen = view(collect(other, other.profile("toy"), [0], planned))
    assert seen.selection is None
    assert ("checkpoint", "the best on val during training; reported on testA") in seen.conventions


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "ablations").glob("*.yaml")))
def test_toy_profiles_report_a_split_that_selection_has_not_seen(name: str) -> None:
    loaded = table.load(ROOT / "ablations" / f"{name}.yaml")
    profile = loaded.profile("toy")
    results = collect(loaded, profile, [0], plan.plan(loaded, profile, [0], Path("runs")))
    chosen = selected_on(results)
    trains = any(
        is_trained(each) for row in results.rows for last in row.cells for each in (*last.earlier.values(), last)
    )
    assert bool(chosen) == trains, "nothing is chosen only where nothing is trained"
    assert profile.split not in chosen


def test_recalled_claims_are_shown_apart_and_not_judged(tmp_path: Path) -> None:
    path = tiny_table(tmp_path, "base: {decoder_layers: 0}\nmore: {decoder_layers: 1}")
    claims = (
        'claims:\n- {name: read, text: was read, holds: "miou_expr[more] > miou_expr[base]", source: s}\n'
        '- {name: heard, text: was heard, holds: "miou_expr[more] > miou_expr[base]", source: s, judged: false}\n'
    )
    path.write_text(path.read_text().replace("claims: []", claims))
    loaded = table.load(path)
    planned = plan.plan(loaded, loaded.profile("toy"), [0, 1], tmp_path / "runs")
    for cell in planned:
        finish(cell, 0.2 if cell.row.name == "more" else 0.0)
    (judged,) = judge(collect(loaded, loaded.profile("toy"), [0, 1], planned))
    assert judged.claim.name == "read"
    markdown, *_, page = (f.read_text() for f in build(loaded, loaded.profile("toy"), [0, 1], planned, tmp_path))
    apart = markdown[markdown.index("## Not judged") :]
    assert "was heard" in apart
    assert "was read" not in apart
    assert "was heard" not in markdown[: markdown.index("## Not judged")]
    assert page.index("<h2>Not judged</h2>") < page.index("was heard")


def test_no_shipped_claim_that_was_only_recalled_is_judged() -> None:
    for path in (ROOT / "ablations").glob("*.yaml"):
        for claim in table.load(path).claims:
            assert claim.judged == ("recalled" not in claim.source), f"{path.name}: {claim.name}"


@pytest.mark.parametrize("value", ["0", "-1", "200", ".nan", "one"])
def test_the_smallest_difference_that_matters_is_checked(tmp_path: Path, value: str) -> None:
    path = tiny_table(tmp_path, "base: {decoder_layers: 0}")
    path.write_text(path.read_text() + f"margin_of_interest: {value}\n")
    with pytest.raises(ConfigError, match=r"table\.yaml:\d+.*margin_of_interest is"):
        table.load(path)


def test_the_smallest_difference_that_matters_decides_what_is_negligible(tmp_path: Path) -> None:
    path = tiny_table(tmp_path, "base: {decoder_layers: 0}\nmore: {decoder_layers: 1}")
    holds = 'claims: [{name: c, text: t, holds: "miou_expr[more] > miou_expr[base]", source: s}]'
    path.write_text(path.read_text().replace("claims: []", holds) + "margin_of_interest: 30\n")
    loaded = table.load(path)
    planned = plan.plan(loaded, loaded.profile("toy"), [0, 1, 2], tmp_path / "runs")
    for cell in planned:
        finish(cell, 0.05 if cell.row.name == "more" else 0.0)
    assert loaded.margin_of_interest == 30
    (judged,) = judge(collect(loaded, loaded.profile("toy"), [0, 1, 2], planned))
    assert judged.verdict == "negligible"
    assert judged.why == "the difference is smaller than 30 points, the smallest that matters here"
