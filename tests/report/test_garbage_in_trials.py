"""Whatever a file of a trial holds, the table is planned, shown and reported, with the other trials as they are."""

import copy
import csv
import io
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from rislab.ablation import plan
from rislab.ablation.integrity import seal
from rislab.ablation.plan import Planned
from rislab.cli.ablate.status import live_view, notes
from rislab.cli.main import main
from rislab.files import read_json, write_json
from rislab.report import figures, status, status_page
from rislab.report.write import build
from tests.report.trials import finish, planned_table
from tests.worlds import tiny_table

ROWS = "base: {decoder_layers: 0}\nfull: {decoder_layers: 1}"
NASTY: list[Any] = [
    None,
    True,
    -1,
    10**400,
    1e308,
    math.nan,
    math.inf,
    "",
    "x\x1b[2J",
    "../../../../etc/passwd",
    [],
    {},
    [[]],
    {"a": {"b": []}},
    [100_000, 100_000],
]
BYTES = [b"", b"\xff\xfe", b"[" * 3000, b"null", b"[1, 2", b"{}", b"7", b'"text"']
FILES = (
    "metrics.json",
    "manifest.json",
    "identity.json",
    "provenance.json",
    "status.json",
    "job.json",
    "lock",
    "attempts.jsonl",
    "predictions/predictions.json",
    "predictions/label_maps.json",
    "log/metrics.csv",
    "scores.parquet",
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[Planned], Path]:
    folder = tmp_path_factory.mktemp("garbage")
    loaded, cells = planned_table(tiny_table(folder, ROWS), folder / "runs", [0])
    for cell in cells:
        finish(cell, 0.1)
        kept = cell.directory / "predictions"
        for name in ("2.png", "2-target.png", "2-prediction.png"):
            Image.new("RGB" if name == "2.png" else "L", (8, 6)).save(kept / name)
        maps = {"image_id": 2, "image": "2.png", "target": "2-target.png", "prediction": "2-prediction.png"}
        write_json(kept / "label_maps.json", [maps | {"classes": {"0": "sky"}, "right": 50.0}])
        cell.trial.attempts.begin(0, 1)
        cell.trial.attempts.end("", 20)
        cell.trial.set_job("slurm", "7")
        write_json(cell.trial.lock_file, {"host": "h", "pid": 1, "boot_id": "b", "process_started": 1, "job": "7.0"})
        seal(cell.directory, read_json(cell.trial.metrics_file))
    return loaded, cells, folder


def show(table: tuple[Any, list[Planned], Path]) -> dict[str, str]:
    """Everything that is made of a table; the states of its trials by name."""
    loaded, cells, folder = table
    plan.expected(cells)
    seen = status.read_status(cells)
    live_view(seen)
    notes(seen.trials)
    json.dumps([line.as_json() for line in seen.trials], allow_nan=False)
    status_page.page(seen, "t", "s", 5, 0.0)
    forms = {path.suffix: path.read_text() for path in build(loaded, loaded.profile("toy"), [0], cells, folder / "out")}
    values = [float(row["value"]) for row in csv.DictReader(io.StringIO(forms[".csv"])) if row["row"] == "base"]
    assert values, "the other trial is shown"
    assert all(math.isfinite(value) for value in values)
    for text in forms.values():
        assert "\x1b" not in text
    return {line.trial: line.state for line in seen.trials}


@pytest.fixture
def spoiled(table: tuple[Any, list[Planned], Path]) -> Iterator[Path]:
    """The trial whose files may be spoiled; it is as it was afterwards."""
    place = table[1][1].directory
    kept = place.with_name("kept")
    shutil.copytree(place, kept)
    yield place
    shutil.rmtree(place)
    kept.rename(place)


def mutated(data: st.DataObject, value: Any) -> Any:
    """The value with one part of it, anywhere, replaced or taken away."""
    value = copy.deepcopy(value)
    parts: list[tuple[Any, Any]] = []

    def walk(each: Any) -> None:
        for key in each if isinstance(each, dict) else range(len(each)):
            parts.append((each, key))
            if isinstance(each[key], (dict, list)):
                walk(each[key])

    walk(value)
    place, key = data.draw(st.sampled_from(parts))
    if data.draw(st.booleans()):
        place[key] = data.draw(st.sampled_from(NASTY))
    else:
        del place[key]
    return value


@pytest.mark.parametrize("is_sealed", [True, False], ids=["with digests", "of an earlier release"])
@pytest.mark.parametrize("name", FILES)
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_garbage_in_any_place_ends_no_table(
    data: st.DataObject, name: str, is_sealed: bool, table: tuple[Any, list[Planned], Path], spoiled: Path
) -> None:
    path = spoiled / name
    before = {each: each.read_bytes() for each in (path, spoiled / "manifest.json", spoiled / "metrics.json")}
    try:
        if not is_sealed and name != "manifest.json":
            (spoiled / "manifest.json").unlink()
        if name in ("status.json", "job.json", "lock", "attempts.jsonl"):
            (spoiled / "metrics.json").unlink()  # a trial that is not done
        if data.draw(st.booleans()) and name.endswith(".json"):
            path.write_text(json.dumps(mutated(data, json.loads(path.read_bytes()))))
        elif data.draw(st.booleans()) and name.endswith((".jsonl", ".csv", "lock")):
            lines = path.read_text().splitlines()
            at = data.draw(st.integers(0, len(lines) - 1))
            text = str(data.draw(st.sampled_from(NASTY)))
            lines[at] = lines[at].replace(data.draw(st.sampled_from(["1", "0", '"b"', "9", "val"])), text)
            path.write_text("\n".join(lines) + "\n")
        else:
            path.write_bytes(data.draw(st.sampled_from(BYTES)))
        assert show(table)["base s0"] == "done"
    finally:
        for each, content in before.items():
            each.write_bytes(content)


@pytest.mark.parametrize("column", ["sent_id", "intersection", "no_target"])
@pytest.mark.parametrize("values", [[None] * 180, ["x"] * 180, [0.5] * 180, [[1]] * 180], ids=str)
def test_scores_of_other_types_are_no_evidence(
    column: str, values: list[Any], table: tuple[Any, list[Planned], Path], spoiled: Path
) -> None:
    (spoiled / "manifest.json").unlink()
    scores = pq.read_table(spoiled / "scores.parquet")
    at = scores.column_names.index(column)
    pq.write_table(scores.set_column(at, column, pa.array(values)), spoiled / "scores.parquet")
    show(table)
    assert "scores.parquet has no readable scores of split 'val'" in (table[2] / "out/tiny/report.md").read_text()


def test_a_name_in_a_trial_leads_nowhere_else(table: tuple[Any, list[Planned], Path], spoiled: Path) -> None:
    """A picture beside the trial is in no report, by whatever way a trial's file names it."""
    secret = spoiled.parent / "secret.png"
    Image.new("RGB", (20, 20), (255, 0, 0)).save(secret)
    (spoiled / "predictions" / "link.png").symlink_to(secret)
    _, cells, _ = table
    for name in ("../../secret.png", str(secret), "link.png", ".."):
        entry = read_json(spoiled / "predictions" / "predictions.json")[0] | {"image": name}
        write_json(spoiled / "predictions" / "predictions.json", [entry])
        seal(spoiled, read_json(spoiled / "metrics.json"))
        show(table)
        page = (table[2] / "out/tiny/report.html").read_text()
        red = figures.data_uri(figures.np.asarray(Image.open(secret)))
        assert red not in page
    secret.unlink()
    assert cells[1].state == "done"


def test_pictures_and_masks_are_judged_by_their_size_before_they_are_decoded(spoiled: Path, table: Any) -> None:
    huge = {"size": [100_000, 100_000], "counts": "0"}
    assert figures.read_mask(huge) is None
    assert figures.read_mask({"size": [20, 20], "counts": "0"}) is None, "runs that do not fill the mask"
    assert figures.read_mask({"size": [2, 2], "counts": "o" * 10_000}) is None
    png = bytearray((spoiled / "predictions" / "2.png").read_bytes())
    png[16:24] = (20_000).to_bytes(4, "big") * 2  # the header says 400 million pixels
    (spoiled / "predictions" / "2.png").write_bytes(png)
    from rislab.report.results import collect

    loaded, cells, _ = table
    cell = collect(loaded, loaded.profile("toy"), [0], cells).cells[1]
    assert figures.read_picture(cell, "2.png") is None


def test_the_commands_end_well_beside_a_broken_trial(
    table: Any, spoiled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (spoiled / "metrics.json").write_text("[]")
    folder = table[2]
    options = [str(folder / "table.yaml"), "--runs", str(folder / "runs")]
    for more in (
        ["plan", "--json"],
        ["status", "--html", str(folder / "page.html")],
        ["report", "--out", str(folder / "out")],
    ):
        assert main(["ablate", more[0], *options, *more[1:]]) == 0
    assert "metrics.json: it is a list, expected an object" in (folder / "page.html").read_text()
    assert main(["ablate", "cancel", *options]) == 0
    assert "full s0: left alone, damaged: " in capsys.readouterr().out
