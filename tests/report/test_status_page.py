"""The live view: what a line says, what is left, and the page."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rislab.ablation import plan, table
from rislab.cli.main import main
from rislab.files import write_json
from rislab.report import status, status_page
from rislab.report.status import TableStatus, TimeLeft, TrialStatus, seconds_left, time_left
from tests.worlds import tiny_chain, tiny_table

TRIAL = TrialStatus(
    "a s0", "a", 0, "", "0" * 64, "runs/t/a", "", "pending", "", None, None, None, None, "oiou", None, None, "", ""
)


def trials(*states_and_seconds: tuple[str, float | None]) -> list[TrialStatus]:
    return [replace(TRIAL, state=state, seconds_left=seconds) for state, seconds in states_and_seconds]


@pytest.mark.parametrize(
    ("arguments", "seconds"),
    [
        (("done", "", 10, 10, 2.0, 60.0, 5.0), 0.0),
        (("running", "fit", 10, 30, 2.0, None, 5.0), 10.0),
        (("running", "fit", 10, 30, 2.0, 600.0, 5.0), 10.0),  # its own speed, not that of other days
        (("running", "fit", None, None, None, 600.0, 100.0), 500.0),
        (("running", "prepare", None, None, None, None, 5.0), None),
        (("running", "test", 30, 30, 2.0, 60.0, 90.0), 0.0),
        (("running", "fit", 5, 30, 0.0, None, 5.0), None),
        (("pending", "", None, None, None, 60.0, 0.0), 60.0),
        (("pending", "", None, None, None, None, 0.0), None),
        (("interrupted", "", 10, 40, 2.0, 60.0, 0.0), 45.0),
        (("a state of tomorrow", "", None, None, None, 60.0, 0.0), 60.0),
    ],
)
def test_what_a_trial_still_has(arguments: tuple[Any, ...], seconds: float | None) -> None:
    assert seconds_left(*arguments) == seconds


@pytest.mark.parametrize(
    ("given", "seconds", "text"),
    [
        ([("done", 0.0)], 0.0, "nothing is left to run"),
        ([("running", 30.0), ("done", 0.0)], 30.0, "about 30 s left"),
        ([("running", 60.0), ("running", 20.0), ("pending", 100.0)], 120.0, "about 2 min left, 2 at once"),
        ([("running", 60.0), ("pending", 7200.0)], 7260.0, "about 2.0 h left"),
        (
            [("pending", 60.0), ("lost", 40.0)],
            100.0,
            "nothing runs now; about 2 min left of trials, one after the other",
        ),
        ([("running", None)], 0.0, "time left unknown: the trial left was never measured"),
        (
            [("running", 60.0), ("running", None), ("pending", None), ("failed", 0.0)],
            60.0,
            "time left unknown: 2 of the 3 trials left were never measured; the others: about 60 s, 2 at once",
        ),
        (
            [("queued", None), ("queued", None)],
            0.0,
            "nothing runs now; time left unknown: 2 of the 2 trials left were never measured",
        ),
    ],
)
def test_what_the_table_still_has(given: list[tuple[str, float | None]], seconds: float, text: str) -> None:
    found = time_left(trials(*given))
    assert found.seconds == seconds
    assert found.text == text


def test_trials_that_were_never_measured_count_as_the_others_of_their_stage() -> None:
    fit, test = replace(TRIAL, state="running", phase="fit"), replace(TRIAL, state="running", phase="test")
    seen = [
        replace(fit, speed=2.0, max_steps=100, step=40, seconds_left=30.0),  # 50 s in all
        replace(TRIAL, state="done", speed=1.0, max_steps=100, step=100, seconds_left=0.0),  # 100 s
        test,
        TRIAL,
        replace(TRIAL, stage="another"),
    ]
    found = time_left(seen[:4])
    assert found == TimeLeft(75.0, at_once=2, waiting=3, estimated=2, unknown=0)
    assert found.text == "about 75 s left, 2 at once; 2 trials were never measured, and taken as the others"
    assert time_left(seen) == TimeLeft(75.0, at_once=2, waiting=4, estimated=2, unknown=1)


@given(st.lists(st.tuples(st.sampled_from(["running", "pending"]), st.floats(0, 1e4)), min_size=1, max_size=12))
def test_no_trial_is_forgotten_and_no_slot_is_made_up(given: list[tuple[str, float | None]]) -> None:
    found: TimeLeft = time_left(trials(*given))
    total, longest = sum(s or 0 for _, s in given), max(s or 0 for _, s in given)
    assert max(longest, total / max(1, found.at_once)) <= found.seconds * (1 + 1e-9) + 1e-9
    assert found.seconds <= total * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h"), (2e5, "2.3 days")]
)
def test_durations(seconds: float, text: str) -> None:
    assert status.duration(seconds) == text


def cells(folder: Path, rows: str = "base: {decoder_layers: 0}\nfull: {decoder_layers: 1}") -> list[plan.Planned]:
    loaded = table.load(tiny_table(folder, rows))
    return plan.plan(loaded, loaded.profile("toy"), [0, 1], folder / "runs")


def test_a_line_is_read_from_files_alone(tmp_path: Path) -> None:
    base, other, full, last = cells(tmp_path)
    base.write()
    write_json(base.trial.metrics_file, {"splits": {"val": {"miou_expr": 61.5}, "test": {"miou_expr": 1.0}}})
    write_json(base.trial.provenance_file, {"seconds": {"fit": 100.0, "test": 20.0}})
    base.trial.update_status(state="done", step=38, max_steps=40, epoch=1, speed=2.0, metrics={"miou_expr": 50.0})
    full.trial.path.mkdir(parents=True)
    with full.trial.locked():
        full.trial.update_status(
            state="running", stage="fit", step=10, max_steps=40, speed=2.0, metrics={"miou_expr": 12.5}
        )
        seen = status.read_status([base, other, full, last])
    last.trial.update_status(state="failed", kind="data", error="one\nline")
    before, waiting, running, _ = seen.trials
    assert (before.state, before.step, before.value, before.phase) == ("done", 40, 61.5, "")
    assert (waiting.state, waiting.seconds_left, waiting.value) == ("pending", 120.0, None)
    assert (running.state, running.phase, running.value, running.seconds_left) == ("running", "fit", 12.5, 15.0)
    assert running.time_left == "15 s"
    assert seen.counts == {"running": 1, "pending": 2, "done": 1}
    again = status.read_status([base, other, full, last], seen)
    assert again.trials[0] is before, "what was done is not read again"
    assert [line.state for line in again.by_urgency] == ["failed", "lost", "pending", "done"]
    assert again.failures[-1].reason == "data: one line"
    assert json.loads(json.dumps(running.as_json()))["directory"] == str(full.trial.path)


def test_the_metric_is_the_tables_first_of_the_stage(tmp_path: Path) -> None:
    path = tiny_chain(tmp_path, "full: {ske: true}")
    for metrics, expected in [
        (["patch:miou_expr", "oiou"], ["miou_expr", "oiou"]),
        (["patch:oiou"], ["oiou", "oiou"]),
        (["pr@50", "patch:oiou"], ["oiou", "pr@50"]),
    ]:
        text = re.sub(r"metrics:\n(- .*\n)+", f"metrics: {json.dumps(metrics)}\n", path.read_text())
        path.write_text(re.sub(r"metrics: \[.*\]\n", f"metrics: {json.dumps(metrics)}\n", text))
        loaded = table.load(path)
        found = plan.plan(loaded, loaded.profile("toy"), [0], tmp_path / "runs")
        assert [cell.metric for cell in found] == expected


@pytest.mark.parametrize("status", ["", "[]", '{"metrics": 3, "step": "x", "speed": null}', '{"state": "of tomorrow"}'])
def test_odd_files_are_no_reason_to_stop(status: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = cells(tmp_path)
    found[0].trial.path.mkdir(parents=True)
    found[0].trial.status_file.write_text(status)
    options = [str(tmp_path / "table.yaml"), "--runs", str(tmp_path / "runs")]
    for more in ([], ["--json"], ["--html", str(tmp_path / "page.html")]):
        assert main(["ablate", "status", *options, *more]) == 0
    assert main(["ablate", "plan", *options]) == 0
    assert ("of tomorrow" in capsys.readouterr().out) == ("of tomorrow" in status)
    assert ('class="text state other"' in (tmp_path / "page.html").read_text()) == ("of tomorrow" in status)


def test_the_page_needs_nothing_else_and_stops_when_all_has_ended(tmp_path: Path) -> None:
    running = replace(TRIAL, state="running", phase="fit", step=5, max_steps=10, value=12.345, seconds_left=90.0)
    failed = replace(TRIAL, trial="<b>", row="<b>", state="failed", kind="bug", note="<script>alert(1)</script>")
    page = status_page.page(TableStatus((running, failed)), "A & B", "toy, split val", 5, 0.0)
    assert '<meta http-equiv="refresh" content="5">' in page
    assert "<title>0/2 A &amp; B</title>" in page
    assert "1970-01-01 00:00:00 UTC" in page
    assert "bug: &lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not re.search(r"<script|src=|href=|url\(|@import", page)
    assert "12.35" in page or "12.34" in page
    ended = status_page.page(TableStatus((failed, replace(TRIAL, state="done"))), "A", "toy", 5, 0.0)
    assert "http-equiv" not in ended
    assert "everything has ended" in ended


def test_status_writes_the_page_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = cells(tmp_path)
    for cell in found:
        cell.trial.update_status(state="diverged", error="x", kind="nan")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")}
    page = tmp_path / "pages" / "live.html"
    options = [str(tmp_path / "table.yaml"), "--seeds", "2", "--runs", str(tmp_path / "runs")]
    assert main(["ablate", "status", *options, "--html", str(page), "--watch"]) == 0
    assert capsys.readouterr().out.strip() == str(page)
    assert page.read_text().count("nan: x") == 4 * 2
    assert [path.name for path in page.parent.iterdir()] == ["live.html"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")} == before


def test_the_live_view_fits_the_screen(tmp_path: Path) -> None:
    from rislab.cli.ablate.status import live_view, status_view

    def drawn(given: Any) -> list[str]:
        console = Console(width=80, file=io.StringIO())
        console.print(given)
        return console.file.getvalue().splitlines()

    states = ["running", "failed", *["done"] * 98]
    many = [replace(TRIAL, trial=f"r{n}", state=state) for n, state in enumerate(states)]
    many[1] = replace(many[1], kind="oom", note="a long reason " * 20)
    said = drawn(live_view(TableStatus(tuple(many)), height=18))
    assert len(said) <= 18 - 1
    assert "91 more trials" in " ".join(said[:2])
    assert said[-1].startswith("r1: oom: a long reason")
    assert drawn(status_view(cells(tmp_path)))


def test_nothing_of_a_common_table_is_cut_at_80_characters() -> None:
    from rislab.cli.ablate.status import live_view

    common = replace(
        TRIAL, trial="con+dec1 s0", state="running", phase="fit", step=168, max_steps=2793, epoch=6, speed=6.9,
        metric="miou_expr", value=44.6, seconds_left=600.0,
    )  # fmt: skip
    console = Console(width=80, file=io.StringIO())
    console.print(
        live_view(TableStatus((common, replace(common, state="pending"), replace(common, state="done", phase=""))))
    )
    assert "…" not in console.file.getvalue()


def test_what_is_said_of_several_trials_is_said_once() -> None:
    from rislab.cli.ablate.status import notes

    stale = [replace(TRIAL, trial=f"r{n}", state="done", note="code changed: a.py") for n in range(6)]
    failed = replace(TRIAL, trial="x", state="failed", kind="bug", note="boom", shared_with="y")
    assert notes([*stale, failed]) == [
        "x: bug: boom",
        "x: shared with y",
        "r0, r1, r2, r3 and 2 more: code changed: a.py",
    ]
