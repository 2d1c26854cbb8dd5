"""Names become folders, jobs, arguments, cells, lines on a screen: one grammar where they are read, one escape at each sink."""

import csv
import io
import re
from pathlib import Path

import pytest
from rich.table import Table

from rislab.ablation import table
from rislab.ablation.yaml_lines import read_yaml
from rislab.cli.ablate import screen_tables
from rislab.cli.console import open_console
from rislab.cli.main import main
from rislab.data.roots import data_root
from rislab.errors import ConfigError
from rislab.files import cache_dir
from rislab.printable import printable
from rislab.report.csv import csv_cell
from rislab.report.markdown import md_code, md_escape
from rislab.report.write import build
from tests.report.trials import finish, planned_table
from tests.worlds import rislab_here, tiny_table

BAD = [
    "../../escape",
    "elsewhere/abs_escape",
    "/abs",
    "..",
    "a..b",
    "",
    ".shared",
    "-x",
    "two\nlines",
    "a b",
    "x" * 300,
    "nul\0",
    "row--s0",
    "esc\x1b[2J",
    "=1+1",
    "naïve",
]


@pytest.mark.parametrize("name", BAD, ids=repr)
def test_a_name_that_leads_elsewhere_is_no_name(name: str) -> None:
    assert table.name_mistake(name)


@pytest.mark.parametrize("name", ["con+dec3", "a", "0", "RN50.v2_b-1", "x" * 80])
def test_ordinary_names_are_names(name: str) -> None:
    assert table.name_mistake(name) is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: tiny\n", "name: ../../escape\n", "table '../../escape': a name has letters"),
        ("name: tiny\n", "name: a..b\n", "table 'a..b': a name may not hold '..'"),
        ("name: tiny\n", "name: ''\n", "table '': a name may not be empty"),
        ("- name: base\n", "- name: a--b\n", "row 'a--b': a name may not hold '--'"),
        ("  toy:\n", '  "t\\ny":\n', r"profile 't\ny': a name has letters"),
        ("  toy:\n", "  7:\n", "profile 7: a name is a text: put it in quotes"),
        ("    split: val", "    stages: [{name: ../x}]\n    split: val", "stage '../x': a name has letters"),
    ],
)
def test_names_are_checked_where_they_are_read(old: str, new: str, said: str, tmp_path: Path) -> None:
    path = tiny_table(tmp_path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    done = rislab_here(
        "ablate", "report", str(path), "--runs", str(tmp_path / "r/runs"), "--out", str(tmp_path / "o/out")
    )
    assert done.returncode == 2
    assert re.search(r"table\.yaml:\d+  ", done.stderr), done.stderr
    assert said in done.stderr
    assert not (tmp_path / "r").exists()
    assert not (tmp_path / "o").exists()


def test_a_generated_world_stays_in_the_cache() -> None:
    for root in ("../x", "a/../../x", "../../../../x"):
        with pytest.raises(ConfigError, match="a generated world lies in the cache folder"):
            data_root(root, is_generated=True)
    assert data_root("toy", is_generated=True) == cache_dir() / "toy"
    assert data_root("/chosen", is_generated=True) == Path("/chosen")


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b]\n"
        "d: &d [*c, *c, *c, *c, *c, *c, *c, *c]\ne: &e [*d, *d, *d, *d, *d, *d, *d, *d]\nf: &f [*e, *e, *e, *e, *e, *e, *e, *e]\n"
        "g: [*f, *f, *f, *f, *f, *f, *f, *f]",
        "a: &a [*a]",
        "? [1, 2]\n: x",
        "a: 2024-99-99",
        "n: " + "9" * 5000,
    ],
    ids=["aliases of aliases", "itself", "a list as a key", "no date", "a huge number"],
)
def test_a_small_file_that_stands_for_much_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"t\.yaml"):
        read_yaml(tmp_path / "t.yaml")


def test_control_characters_are_shown_and_not_obeyed() -> None:
    assert printable("a\x1b[2Jb\x07\x9b\x7f\udc80") == "a\\x1b[2Jb\\x07\\x9b\\x7f\\udc80"
    assert printable("line\n\ttab é 漢") == "line\n\ttab é 漢"


@pytest.mark.parametrize(
    ("given", "cell"), [("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"), ("@x", "'@x"), ("-1", "'-1")]
)
def test_a_text_cell_is_no_formula(given: str, cell: str) -> None:
    assert csv_cell(given) == cell


@pytest.mark.parametrize("first", "=+-@\t\r")
def test_every_first_letter_of_a_formula_is_quoted(first: str) -> None:
    assert str(csv_cell(f"{first}1")).startswith("'")


def test_markdown_shows_text_as_text() -> None:
    assert md_escape("<b> ![x](http://h) *a*") == "&lt;b> !\\[x](http&#58;//h) \\*a\\*"
    assert md_code("a `b` c") == "`` a `b` c ``"


def test_what_a_table_says_is_text_in_every_form_of_a_report(tmp_path: Path) -> None:
    path = tiny_table(tmp_path)
    evil = '"=1+1 <script>alert(1)</script> ![x](http://h/x.png) \\e[2J \\u202e"'
    text = path.read_text()
    for key in (
        "title: A table for tests",
        "title: CRIS",
        "venue: CVPR",
        "dataset: a world of a few scenes",
        "label: base",
    ):
        assert key in text
        text = text.replace(key, f"{key.partition(':')[0]}: {evil}")
    text = text.replace("- tests", f"- {evil}").replace(
        "claims: []", f"claims:\n- {{name: c, text: {evil}, holds: 'oiou[base] > 1', source: {evil}}}"
    )
    path.write_text(text)
    loaded, cells = planned_table(path, tmp_path / "runs", [0])
    finish(cells[0], 0.1)
    forms = {p.suffix: p.read_text() for p in build(loaded, loaded.profile("toy"), [0], cells, tmp_path / "out")}
    for form, content in forms.items():
        assert "\x1b" not in content, form
    for form in (".md", ".html"):
        assert "<script" not in forms[form], form
    assert "![x](" not in forms[".md"]
    rows = list(csv.DictReader(io.StringIO(forms[".csv"])))
    assert {row["dataset"][:2] for row in rows} == {"'="}
    assert all(float(row["value"]) >= 0 for row in rows), "numbers stay numbers"


def test_screens_show_control_characters_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "a\x1b[2J\x9bb"
    screen = open_console()
    screen.print(evil, markup=False)
    table_of_rich = Table(evil, title=evil)
    table_of_rich.add_row(evil)
    screen.print(table_of_rich)
    screen_tables.show(screen, [(evil, "left")], [[evil], [(evil, "red")]], evil)
    print(screen_tables.plain([("x", "left")], [[evil]], colours=False))
    (tmp_path / "t.yaml").write_text("x")
    assert main(["ablate", "plan", str(tmp_path / f"{evil}.yaml")]) == 2
    shown = capsys.readouterr()
    for text in (shown.out, shown.err):
        assert "\x1b" not in text
        assert "\x9b" not in text
        assert "a\\x1b[2J\\x9bb" in text
