"""`rislab compare`: what was scored, what papers report, and a reason wherever there is no number."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from rislab.ablation import identity, plan, published, table
from rislab.ablation.integrity import sha256
from rislab.errors import ConfigError
from rislab.files import write_json
from rislab.report.comparison import build
from rislab.report.document import Cell, Document
from rislab.report.document_forms import latex
from rislab.report.matrix import Cell as MatrixCell
from tests.report.trials import finish, record
from tests.test_layers import HEAVY
from tests.worlds import ROOT, rislab_here, tiny_table

ROWS = "base: {decoder_layers: 0}\nfull: {decoder_layers: 1}"
CLAIMS = """claims:
- {name: up, text: better, holds: "miou_expr[full] > miou_expr[base]", source: table 3}
"""
PAPER = {
    "method": "cris",
    "title": "CRIS & co_",
    "paper": "Wang et al.",
    "full": {"table": "tiny", "row": "full", "profile": "toy", "measured": {}},
    "results": [
        {"name": "R50", "protocol": "cris", "source": "a README", "values": {"refcoco/val": {"miou_expr": 69.52}}},
    ],
}
FREE = {
    "method": "maskclip",
    "title": "MaskCLIP",
    "paper": "Zhou et al.",
    "results": [
        {"name": "ViT", "protocol": "tcl", "source": "a paper", "values": {"voc21/val": {"miou_class": 38.8}}},
        {"name": "ViT", "protocol": "sclip", "source": "another", "values": {"voc21/val": {"miou_class": 43.4}}},
    ],
}
PROTOCOLS = {
    "tcl": {"title": "TCL's", "text": "windows of 448", "ours": "tcl"},
    "sclip": {"title": "SCLIP's", "text": "windows of 224"},
    "cris": {"title": "CRIS's", "text": "own size", "ours": "cris"},
}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a table, files of two methods, two benchmarks, and nothing run."""
    monkeypatch.setenv("RISLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    path = tiny_table(tmp_path, ROWS)
    path.write_text(path.read_text().replace("claims: []", CLAIMS))
    papers, benchmarks = tmp_path / "ablations" / "papers", tmp_path / "experiments" / "benchmarks"
    papers.mkdir(parents=True)
    benchmarks.mkdir(parents=True)
    path.rename(tmp_path / "ablations" / "tiny.yaml")
    for name, content in (("protocols", PROTOCOLS), ("cris", PAPER), ("maskclip", FREE)):
        (papers / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    for name in ("toy-refcoco", "voc21"):
        (benchmarks / f"{name}.yaml").write_text((ROOT / "experiments" / "benchmarks" / f"{name}.yaml").read_text())
    return tmp_path


def train(folder: Path, seeds: Sequence[int]) -> list[Path]:
    """Finish both rows of the table with these seeds. Returns the checkpoints of the whole method."""
    loaded = table.load(folder / "ablations" / "tiny.yaml")
    found = []
    for cell in plan.plan(loaded, loaded.profile("toy"), seeds, folder / "runs"):
        finish(cell, 0.1 if cell.row.name == "full" else 0.0, pictures=False)
        best = cell.trial.checkpoints / "best.ckpt"
        best.parent.mkdir(exist_ok=True)
        best.write_bytes(cell.name.encode())
        found += [best] if cell.row.name == "full" else []
    return found


def score(folder: Path, method: str, checkpoint: Path | None, error: str = "", gain: float = 0.0) -> float | None:
    """A cell of the matrix on toy-refcoco. Returns its mIoU; None for one that failed."""
    data = yaml.safe_load((folder / "experiments" / "benchmarks" / "toy-refcoco.yaml").read_text())["data"]
    recipe = yaml.safe_load((ROOT / "experiments" / method / "toy.yaml").read_text())["model"]
    start = {} if checkpoint is None else {"start_from": str(checkpoint)}
    config = {"trainer": {}, "model": recipe, "data": data, "trial": {"train": False} | start}
    weights = None if checkpoint is None else sha256(checkpoint)
    hashed = identity.identity(config, weights)
    cell = MatrixCell(method, "toy-refcoco", folder / "runs" / "matrix", hashed, config, weights, "")
    cell.write()
    if error:
        cell.trial.update_status(state="failed", error=error, kind="config")
        return None
    ids = np.arange(60)
    intersection = np.random.default_rng(len(str(checkpoint)) + int(100 * gain)).integers(300, 600, 60) + int(
        300 * gain
    )
    same = {"union": np.full(60, 1000), "target": np.full(60, 1000), "prediction": np.full(60, 1000)}
    counts = {"sent_id": ids, "ref_id": ids, "image_id": ids // 3, "intersection": intersection} | same
    stand_in: Any = SimpleNamespace(trial=cell.trial, directory=cell.trial.path)
    record(stand_in, counts | {"no_target": np.zeros(60, np.int64)}, "native", ("miou_expr", "oiou"))
    result = json.loads(cell.trial.metrics_file.read_text())
    return float(result["splits"]["val"]["miou_expr"])


def document(folder: Path, seeds: int = 1) -> Document:
    loaded = [table.load(folder / "ablations" / "tiny.yaml")]
    return build.document(published.load(), loaded, [], range(seeds), build.Places())


def generated(content: Document) -> dict[tuple[str, str], dict[str, Cell]]:
    """Cells of the first grid by method and whose numbers, then by benchmark and metric."""
    grid = content.sections[0].grids[0]
    heads = [f"{column.title} {column.soft[1]}" if len(column.soft) > 1 else column.title for column in grid.columns]
    return {(row.cells[0].text, row.cells[1].text): dict(zip(heads, row.cells, strict=True)) for row in grid.rows}


def test_seeds_of_one_row_are_one_mean_with_its_spread(world: Path) -> None:
    values = [score(world, "cris", checkpoint, gain=0.1 * n) for n, checkpoint in enumerate(train(world, [0, 1, 2]))]
    cell = generated(document(world, 3))["CRIS & co_", "ours: full (tiny, toy)"]["toy-refcoco mIoU (expr)"]
    assert cell.value == pytest.approx(np.mean(np.array(values, float)))
    assert cell.text == f"{np.mean(np.array(values, float)):.2f} ± {np.std(np.array(values, float), ddof=1):.2f}"
    assert cell.soft == "n = 3"


def test_a_missing_number_has_its_own_reason(world: Path) -> None:
    first = generated(document(world))
    cell = first["CRIS & co_", "ours: full (tiny, toy)"]["toy-refcoco"]
    assert (cell.text, cell.reason) == ("", "not trained: pending (seed 0)")
    (checkpoint,) = train(world, [0])
    assert generated(document(world))["CRIS & co_", "ours: full (tiny, toy)"]["toy-refcoco"].reason == (
        "not scored: rislab compare --run"
    )
    score(world, "cris", checkpoint, error="a closed vocabulary answers no sentences")
    cell = generated(document(world))["CRIS & co_", "ours: full (tiny, toy)"]["toy-refcoco"]
    assert cell.reason == "failed: a closed vocabulary answers no sentences"
    score(world, "cris", checkpoint, error="CRISTask cannot be scored on toy world: it answers no sentences")
    cell = generated(document(world))["CRIS & co_", "ours: full (tiny, toy)"]["toy-refcoco"]
    assert cell.reason == "cannot be scored: it answers no sentences"


def test_official_weights_and_strange_checkpoints_stand_apart_from_ours(world: Path) -> None:
    (ours,) = train(world, [0])
    official = world / "runs" / "matrix" / "official" / f"cris--cris_best--{'0' * 8}.ckpt"
    other = world / "elsewhere" / "checkpoints" / "best.ckpt"
    for path in (official, other):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode() + b"weights")
    for checkpoint in (ours, official, other):
        score(world, "cris", checkpoint)
    score(world, "maskclip", None)
    rows = generated(document(world))
    assert list(rows) == [
        ("CRIS & co_", "ours: full (tiny, toy)"),
        ("CRIS & co_", "official weights, our evaluation: cris_best"),
        ("CRIS & co_", f"checkpoint: elsewhere/checkpoints/best.ckpt ({sha256(other)[:8]})"),
        ("MaskCLIP", "ours: no training, rislab-tiny-ViT toy"),
    ]
    assert all(not row["toy-refcoco mIoU (expr)"].reason for row in rows.values())
    assert sum(row["toy-refcoco mIoU (expr)"].best for row in rows.values()) == 1


def test_a_checkpoint_that_has_changed_since_it_was_scored_is_no_longer_ours(world: Path) -> None:
    (checkpoint,) = train(world, [0])
    score(world, "cris", checkpoint)
    checkpoint.write_bytes(b"trained anew")
    rows = generated(document(world))
    assert any(whose.startswith("checkpoint: ") for _, whose in rows)
    reason = rows["CRIS & co_", "ours: full (tiny, toy)"]["toy-refcoco mIoU (expr)"].reason
    assert reason == "not scored: rislab compare --run"


def test_a_cell_of_another_config_of_a_benchmark_is_left_out_and_named(world: Path) -> None:
    score(world, "maskclip", None)
    path = world / "experiments" / "benchmarks" / "toy-refcoco.yaml"
    path.write_text(path.read_text().replace("scenes: 3000", "scenes: 2999"))
    content = document(world)
    row = next(cells for (method, _), cells in generated(content).items() if method == "MaskCLIP")
    assert row["toy-refcoco"].reason == "not scored: rislab compare --run"
    items = next(s.items for s in content.sections if s.title.startswith("What was not run"))
    assert any("scored by another config than today's of toy-refcoco" in item for item in items)
    path.unlink()
    items = next(s.items for s in document(world).sections if s.title.startswith("What was not run"))
    assert any("no benchmark 'toy-refcoco' in experiments/benchmarks" in item for item in items)


def test_a_method_with_an_option_that_was_once_the_datas_is_shown(world: Path) -> None:
    """LSeg's `flip` is hashed among the data, as it was first."""
    expected = score(world, "lseg", None)
    row = next(cells for (method, _), cells in generated(document(world)).items() if method == "lseg")
    assert row["toy-refcoco mIoU (expr)"].value == pytest.approx(expected)


def test_a_damaged_cell_shows_a_reason_and_no_number(world: Path) -> None:
    score(world, "maskclip", None)
    (metrics,) = (world / "runs" / "matrix").glob("*/metrics.json")
    metrics.write_text(metrics.read_text().replace('"miou_expr": 4', '"miou_expr": 9'))
    row = next(cells for (method, _), cells in generated(document(world)).items() if method == "MaskCLIP")
    assert row["toy-refcoco"].reason.startswith("damaged: metrics.json")
    items = next(s.items for s in document(world).sections if s.title.startswith("What was not run"))
    assert any("MaskCLIP on toy-refcoco: damaged" in item for item in items)


def test_what_another_tool_or_a_killed_one_left_hides_no_score(world: Path) -> None:
    (checkpoint,) = train(world, [0])
    expected = score(world, "cris", checkpoint)
    score(world, "maskclip", None)
    matrix, tables = world / "runs" / "matrix", world / "runs" / "tiny"
    (cell,) = matrix.glob("cris--*")
    for number, (config, parent) in enumerate(
        (("trial: [1]", "0" * 64), ("trial: x", "0" * 64), ("{}", [1]), ("{}", {}))
    ):
        strange = matrix / f"cris--toy-refcoco--0000000{number}"
        shutil.copytree(cell, strange)
        identity_file = strange / "identity.json"
        held = json.loads(identity_file.read_text())
        identity_file.write_text(json.dumps(held | {"config": held["config"] | {"parent": parent}}))
        (strange / "config.yaml").write_text(config)
    (free,) = matrix.glob("maskclip--*")
    held = json.loads((free / "identity.json").read_text())
    held["config"]["model"] = {"init_args": {"clip": "RN50"}}
    (free / "identity.json").write_text(json.dumps(held))
    for path in (world / "runs" / "loop", matrix / "loop", tables / "full--s1--deadbeef"):
        path.symlink_to(path)
    (tables / "full--s2--deadbeef").mkdir()
    (tables / "full--s2--deadbeef" / "metrics.json").write_text('{"loss": NaN')
    (matrix / "cris--toy-refcoco--00000009").mkdir()
    cells = generated(document(world))["CRIS & co_", "ours: full (tiny, toy)"]
    assert cells["toy-refcoco mIoU (expr)"].value == pytest.approx(expected)
    items = next(s.items for s in document(world).sections if s.title.startswith("What was not run"))
    for name, why in (("2", "identity.json: `parent` is no sha256"), ("9", "no identity.json")):
        assert any(item.startswith(f"Cell left out: cris--toy-refcoco--0000000{name}: {why}") for item in items), (
            "\n".join(items)
        )


def test_every_cell_of_numbers_has_a_number_or_a_reason_in_every_form(world: Path) -> None:
    (checkpoint,) = train(world, [0])
    score(world, "cris", checkpoint)
    said = rislab_here("compare", cwd=world)
    assert said.returncode == 0, said.stderr
    files = {path.suffix: path for path in (world / "reports" / "compare").iterdir()}
    assert files.keys() == {".md", ".csv", ".tex", ".html"}
    lines = list(csv.DictReader(files[".csv"].open()))
    numbers = [line for line in lines if line["table"] in ("generated", "tcl", "sclip", "cris", "tiny-toy", "cost")]
    assert len(numbers) > 20
    assert all(line["text"] or line["reason"] for line in numbers)
    reasons = {line["reason"] for line in lines if line["reason"]}
    for suffix in (".md", ".html", ".tex"):
        text = files[suffix].read_text()
        for value in ("69.52", "38.80", "43.40"):
            assert value in text, f"{value} in {suffix}"
    page = files[".html"].read_text()
    assert "<script" not in page
    assert "CRIS &amp; co_" in page
    assert all(reason.replace("'", "&#39;") in page for reason in reasons)
    assert r"CRIS \& co\_" in files[".tex"].read_text()


def test_latex_has_as_many_cells_in_each_line_as_columns(world: Path) -> None:
    (checkpoint,) = train(world, [0])
    score(world, "cris", checkpoint)

    text = latex(document(world))
    tables = re.findall(r"\\begin\{longtable\}\{(.*)\}\n((?s:.*?))\\end\{longtable\}", text)
    assert len(tables) >= 7
    for columns, body in tables:
        without_prose, prose = re.subn(r">\{\\raggedright\\arraybackslash\}p\{[\d.]+cm\}", "", columns)
        assert without_prose == "r" * len(without_prose)
        number = prose + len(without_prose)
        lines = [line for line in body.splitlines() if line.endswith(r" \\")]
        assert lines
        for line in lines:
            assert len(re.findall(r"(?<!\\)&", line)) == number - 1, line
    plain = re.sub(r"\\[\\{}]", "", text)
    assert plain.count("{") == plain.count("}")
    assert all(text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") for name in ("document", "itemize"))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_of_all_that_we_ship_compiles_and_keeps_within_the_page(tmp_path: Path) -> None:
    tables = [table.load(path) for path in sorted((ROOT / "ablations").glob("*.yaml"))]
    papers = published.load(ROOT / "ablations" / "papers")
    content = build.document(papers, tables, [], range(1), build.Places(*(tmp_path / str(n) for n in range(4))))
    (tmp_path / "compare.tex").write_text(latex(content))
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "compare.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in (tmp_path / "compare.log").read_text(errors="replace")


def test_the_same_files_give_the_same_bytes_without_torch(world: Path) -> None:
    (checkpoint,) = train(world, [0])
    score(world, "cris", checkpoint)
    write_json(world / "runs" / "costs" / "cris-toy.json", COST)
    code = (
        "import sys\nfrom rislab.cli.main import main\ncode = main(['compare'])\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)\nsys.exit(code)"
    )
    found = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=world, env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stderr.strip().endswith("[]"), done.stderr
        found.append([path.read_bytes() for path in sorted((world / "reports" / "compare").iterdir())])
    assert found[0] == found[1]


COST = {
    "method": "cris", "scale": "toy", "config": "full of tiny, toy", "model": "0" * 64, "picture": [96, 96],
    "parameters_m": 3.19, "gflops": 0.105, "seconds": 0.0101, "memory_mb": 12.5, "device": "x86_64", "threads": 1,
}  # fmt: skip


def test_costs_are_read_from_their_files_and_broken_ones_are_named(world: Path) -> None:
    costs = world / "runs" / "costs"
    write_json(costs / "cris-toy.json", COST)
    write_json(costs / "cris-paper.json", {"method": "cris", "scale": "paper", "config": "c", "error": "no memory"})
    write_json(costs / "maskclip-toy.json", COST | {"method": "maskclip", "gflops": "many"})
    content = document(world)
    grid = next(g for s in content.sections for g in s.grids if g.name == "cost")
    by_row = {(row.cells[0].text, row.cells[1].text): row.cells for row in grid.rows}
    assert [cell.text for cell in by_row["CRIS & co_", "toy"][3:8]] == ["3.19", "", "0.105", "0.0101", "12"]
    assert by_row["CRIS & co_", "toy"][4].reason == "the paper's model has another size"
    assert by_row["CRIS & co_", "paper"][3].reason == "no memory"
    assert by_row["MaskCLIP", "toy"][3].reason == "not measured: rislab bench cost"
    items = next(s.items for s in content.sections if s.title.startswith("What was not run"))
    assert any(item.startswith("Cost left out: maskclip-toy.json: ") for item in items)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda d: d["results"][0].update(protocol="criss"),
            r"cris.yaml:\d+  no protocol 'criss' \(did you mean 'cris'",
        ),
        (lambda d: d["results"][0]["values"].update({"refcoco": {}}), r"'refcoco', expected BENCHMARK/SPLIT"),
        (lambda d: d["results"][0]["values"]["refcoco/val"].update(miou_exp=3), r"did you mean 'miou_expr'"),
        (
            lambda d: d["results"][0]["values"]["refcoco/val"].update(miou_expr=690),
            r"miou_expr is 690, expected percent",
        ),
        (lambda d: d.update(method="lavt"), r"method 'lavt' in a file named cris.yaml"),
        (lambda d: d.update(tittle="x"), r"cris.yaml:\d+  'tittle' is no key of .*did you mean 'title'"),
        (lambda d: d["full"].update(row="ful"), r"no row 'ful' \(did you mean 'full'"),
        (lambda d: d["full"].update(profile="tooy"), r"no profile 'tooy'"),
        (lambda d: d["full"].update(table="tinny"), r"no table 'tinny'.*did you mean 'tiny'"),
    ],
)
def test_mistakes_in_a_file_are_named_with_the_nearest_name(world: Path, change: Any, said: str) -> None:
    content = json.loads(json.dumps(PAPER))
    change(content)
    (world / "ablations" / "papers" / "cris.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(ConfigError, match=said):
        document(world)
    assert rislab_here("compare", cwd=world).returncode == 2


def test_mistakes_on_the_command_line_are_one_line(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = rislab_here("compare", "--methods", "criss", cwd=world)
    assert (said.returncode, "(did you mean 'cris'?)" in said.stderr) == (2, True)
    said = rislab_here("compare", "--seeds", "0", cwd=world)
    assert (said.returncode, "--seeds 0: expected at least 1" in said.stderr) == (2, True)
    said = rislab_here("compare", "--data", "somewhere", cwd=world)
    assert (said.returncode, "belong to --run" in said.stderr) == (2, True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = rislab_here("compare", "--pdf", cwd=world)
    assert (said.returncode, "pip install 'rislab[pdf]'" in said.stderr) == (2, True)
    assert not (world / "reports").exists(), "nothing is written before that is known"


def test_the_page_becomes_a_pdf_where_weasyprint_works(world: Path) -> None:
    try:
        import weasyprint  # noqa: F401
    except (ImportError, OSError) as error:  # OSError: no Pango
        pytest.skip(f"WeasyPrint cannot be used here: {error}")
    said = rislab_here("compare", "--pdf", cwd=world)
    assert said.returncode == 0, said.stderr
    made = world / "reports" / "compare" / "compare.pdf"
    assert made.read_bytes().startswith(b"%PDF-")
    assert str(made.relative_to(world)) in said.stdout


def test_a_broken_table_hides_no_other_and_is_named_in_the_report(world: Path) -> None:
    (world / "ablations" / "bad.yaml").write_text("name: bad\n")
    said = rislab_here("compare", cwd=world)
    assert said.returncode == 2
    assert "Table left out: ablations/bad.yaml" in (world / "reports" / "compare" / "compare.md").read_text()
