"""Tables and recipes by name: the order of the places, and names that lead nowhere."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rislab.ablation import lookup, plugins, table
from rislab.errors import ConfigError
from tests.worlds import ROOT, rislab_here


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The four places, each with a table of its own and one that all have; the working directory is the first."""
    found = {name: tmp_path / name for name in ("here", "option", "package", "ours")}
    for name, folder in found.items():
        (folder / "ablations").mkdir(parents=True)
        (folder / "experiments" / "cris").mkdir(parents=True)
        for file in (f"ablations/of-{name}.yaml", "ablations/all.yaml", "experiments/cris/all.yaml"):
            (folder / file).write_text(f"# {name}")
    (found["package"] / "ablations" / "of-ours.yaml").write_text("# package")
    entries = {path.stem: str(path) for path in (found["package"] / "ablations").glob("*.yaml")}
    monkeypatch.setattr(
        plugins, "sound", lambda group, ours: {name: entries[name] for name in entries.keys() - set(ours)}
    )
    monkeypatch.setattr(lookup, "package_root", lambda: found["ours"])
    monkeypatch.chdir(found["here"])
    return found


def test_the_first_place_counts(places: dict[str, Path]) -> None:
    def found(name: str, tables: Path | None) -> str:
        return table.find(name, tables).read_text().removeprefix("# ")

    for tables in (places["option"], places["option"] / "ablations"):
        assert found("all", tables) == "here"
        assert [found(f"of-{name}", tables) for name in places] == list(places), "a name of ours is no package's"
        Path("ablations/all.yaml").rename("ablations/kept")
        assert found("all", tables) == "option"
        assert found("all", None) == "ours"
        Path("ablations/kept").rename("ablations/all.yaml")
    recipe = "experiments/cris/all.yaml"
    assert lookup.find(recipe).read_text() == "# here"
    Path(recipe).unlink()
    assert (lookup.find(recipe, places["option"]).read_text(), lookup.find(recipe).read_text()) == (
        "# option",
        "# ours",
    )
    with pytest.raises(ConfigError, match="--tables gone: no such folder"):
        table.find("all", Path("gone"))


def test_a_folder_of_tables_alone_will_do(places: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "mine.yaml").write_text("# flat")
    assert table.find("mine", tmp_path / "flat").read_text() == "# flat"
    with pytest.raises(ConfigError, match="no table 'mine'"):
        table.find("mine")


def test_commands_about_all_tables_show_the_users_own(places: dict[str, Path]) -> None:
    assert sorted(lookup.own_tables()) == ["all", "of-here", "of-package"]
    assert sorted(lookup.own_tables(places["option"])) == ["all", "of-here", "of-option", "of-package"]
    for path in Path("ablations").iterdir():
        path.unlink()
    assert sorted(lookup.own_tables()) == ["all", "of-ours", "of-package"]
    assert sorted(lookup.every_table(places["option"])) == ["all", "of-option", "of-ours", "of-package"]


def test_a_report_names_a_table_so_that_it_is_found_again(places: dict[str, Path]) -> None:
    assert lookup.shown_name(places["here"] / "ablations" / "all.yaml") == "all"
    assert lookup.shown_name(places["ours"] / "ablations" / "of-ours.yaml") == "of-ours"
    hidden = places["ours"] / "ablations" / "all.yaml"
    assert lookup.shown_name(hidden) == str(hidden), "the working directory has another one of that name"


@given(st.text(max_size=300))
@example("")
@example("experiments/../../etc/passwd.yaml")
@example("experiments/" + "x" * 5000 + ".yaml")
@example("experiments/\0.yaml")
@example("experiments/[a-z]*/toy.yaml")
@example("experiments/**/toy.yaml")
def test_names_that_lead_nowhere_stay_as_they_are(name: str) -> None:
    given_path = Path(name)
    assert lookup.find(name) == given_path


def test_a_recipe_is_found_from_any_folder(tmp_path: Path) -> None:
    """`fit` and `segment` take `experiments/...` of rislab where the working directory has none."""
    found = lookup.find("experiments/cris/toy.yaml")
    assert found.read_bytes() == (ROOT / "experiments" / "cris" / "toy.yaml").read_bytes()
    done = rislab_here(
        "fit", "--config", "experiments/cris/toy.yaml", "--model.init_args.decoder_layer=3", cwd=tmp_path
    )
    assert (done.returncode, "did you mean" in done.stderr) == (2, True), done.stderr
    done = rislab_here("fit", "--config=experiments/cris/none.yaml", cwd=tmp_path)
    assert (done.returncode, "none.yaml" in done.stderr) == (2, True), done.stderr
