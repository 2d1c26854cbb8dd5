"""Sweeps in step with their tables; what a sweep's arguments may be, and where its trials lie."""

import contextlib
import io
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from rislab.ablation import plan, sweeps, table
from rislab.cli.main import main
from rislab.errors import ConfigError
from tests.worlds import ROOT, tiny_chain, tiny_table

TABLES = sorted(path.stem for path in (ROOT / "ablations").glob("*.yaml"))
FILES = sorted((ROOT / "sweeps").glob("*.yaml"))


def printed(*arguments: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert main(list(arguments)) == 0
    return output.getvalue()


@pytest.mark.parametrize("name", TABLES)
def test_each_table_has_its_sweep_in_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stale? Write it again with the command in its first line."""
    monkeypatch.chdir(ROOT)
    text = (ROOT / "sweeps" / f"{name}.yaml").read_text()
    command = text.splitlines()[0].split("`")[1]
    assert command.startswith(f"rislab ablate export-sweep {name}")
    assert printed(*shlex.split(command)[1:]) == text


def values(spec: dict[str, Any]) -> list[Any]:
    """What a parameter can be: all of its values, or both ends of its range."""
    if "min" in spec:
        assert spec["min"] < spec["max"]
        return [spec["min"], spec["max"]]
    return list(spec["values"]) if "values" in spec else [spec["value"]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_parameter_is_a_row_or_an_option_with_legal_values(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    sweep = yaml.safe_load(path.read_text())
    command = sweep["command"]
    name, profile = command[command.index("trial") + 1], command[command.index("--profile") + 1]
    loaded = table.load(table.find(name))
    assert sweep["metric"] == {"name": sweeps.logged(loaded.metrics[0]), "goal": "maximize"}
    assert command == sweeps.command(name, ["--profile", profile])
    assert all(limit in path.read_text() for limit in sweeps.LIMITS)
    assert sweep["method"] in ("grid", "random", "bayes")
    assert sweep["method"] == "grid" or sweep["run_cap"] > 0
    parameters = sweep["parameters"]
    for row in values(parameters["row"]):
        for key, spec in parameters.items():
            if key == "row":
                continue
            for value in values(spec):
                # The form in which wandb's agent passes it on.
                typed = [f"row={row}", f"{key}={value}"]
                if "fold" in parameters and key != "fold":
                    typed.append(f"fold={parameters['fold']['values'][0]}")
                fold, rest = sweeps.fold_of(loaded.profile(profile), typed)
                found, seed, given = sweeps.arguments(loaded, rest)
                switched = sweeps.with_switches(loaded, loaded.profile(profile), found, given)
                cells = sweeps.chain(switched, loaded.profile(profile), row, seed, fold, runs=Path("runs"))
                assert cells[-1].is_last
                if key not in ("seed", "fold"):
                    assert cells[0].config["model"]["init_args"][key.removeprefix("model.")] == value


def test_rows_seeds_and_options_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    options = ["--profile", "refcoco", "--seeds", "2", "--rows", "con,dec1", "--data", "/data", "--threads", "4"]
    text = printed("ablate", "export-sweep", "cris", *options)
    assert "`rislab ablate export-sweep cris --profile refcoco --seeds 2 --rows con,dec1 --data /data" in text
    sweep = yaml.safe_load(text)
    assert sweep["parameters"] == {"row": {"values": ["con", "dec1"]}, "seed": {"values": [0, 1]}}
    passed = sweep["command"][6:]
    assert passed == ["cris", "--profile", "refcoco", "--data", "/data", "--threads", "4", "${args_no_hyphens}"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> table.Table:
    return table.load(tiny_table(tmp_path_factory.mktemp("tiny")))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["row=bas"], "no row 'bas' (did you mean 'base'?)"),
        (["seed=0"], "row=NAME is missing; rows are base"),
        (["row=base", "seed=-1"], "seed=-1: expected a whole number"),
        (["row=base", "seed=0.0"], "seed=0.0: expected a whole number"),
        (["row=base", "quick"], "'quick': expected KEY=VALUE, e.g. row=base seed=0"),
        (["row=base", "row=base"], "row is given twice"),
        (["row=base", "sed=1"], "sed=1: expected row, seed or a switch like model.sed (did you mean 'seed'?)"),
        (["row=base", "base_lr=1"], "expected row, seed or a switch like model.base_lr"),
        (["row=base", "model.base_lrr=1"], "base_lrr is no option of CRISTask (did you mean 'base_lr'?)"),
        (["row=base", "model.base_lr=fast"], "base_lr is 'fast', CRISTask takes float"),
        (["row=base", "model.decoder_layers=9"], "decoder_layers is 9, CRISTask takes one of 0, 1, 2, 3, 4"),
        (["row=base", "model.base_lr=None"], "null cannot come through a sweep's argument"),
        (["row=base", "model.base_lr="], "null cannot come through a sweep's argument"),
        (["row=base", "trainer.max_epochs=3"], "must begin with model. or data."),
        (["row=base", "model.dropout=x", "model.threshold=y"], "model.threshold=y: model.threshold is 'y'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_told(tiny: table.Table, arguments: list[str], said: str) -> None:
    def read() -> None:
        row, _, given = sweeps.arguments(tiny, arguments)
        sweeps.with_switches(tiny, tiny.profile("toy"), row, given)

    with pytest.raises(ConfigError) as error:
        read()
    assert said in str(error.value)


def test_values_arrive_as_wandb_writes_them(tiny: table.Table) -> None:
    """`${args_no_hyphens}` is Python's str() of a value."""
    given = {
        "model.base_lr": str(1e-05),
        "model.text_to_pixel": str(True),
        "model.fpn_out": str([16, 32, 8]),
        "data.val_split": "1",
        "data.test_splits": str(["val", "testA"]),
    }
    found = sweeps.with_switches(tiny, tiny.profile("toy"), tiny.row("base"), given)
    assert found.name == "tiny-search"
    assert dict(found.rows[0].switches) == {
        "model.init_args.text_to_pixel": True,
        "model.init_args.decoder_layers": 0,
        "model.init_args.base_lr": 1e-5,
        "model.init_args.fpn_out": [16, 32, 8],
        "data.init_args.val_split": "1",
        "data.init_args.test_splits": ["val", "testA"],
    }


def test_a_row_has_the_directories_of_the_whole_table(tmp_path: Path) -> None:
    """Also where another row trains the stage that it shares: that one is never trained twice."""
    loaded = table.load(
        tiny_chain(tmp_path, "a: {ske_layers: 1}\nb: {ske_layers: 1, decoder_levels: [2, 3, 4]}\nc: {ske_layers: 1}")
    )
    profile, runs = loaded.profile("toy"), tmp_path / "runs"
    whole = plan.plan(loaded, profile, [3], runs)
    answers = plan.answered_by(whole)
    for name in "abc":
        cells = sweeps.chain(loaded, profile, name, 3, runs=runs)
        mine = [cell for cell in whole if cell.row.name == name]
        assert [cell.trial.path for cell in cells] == [answers[cell.name].trial.path for cell in mine]
        assert [cell.hash for cell in cells] == [cell.hash for cell in mine]
        assert [(cell.row.name, cell.is_last) for cell in cells] == [(name, False), (name, True)]
        assert cells[1].parent is not None
        assert cells[1].parent.trial.path == cells[0].trial.path


def test_a_search_lies_beside_the_table(tiny: table.Table, tmp_path: Path) -> None:
    profile, row = tiny.profile("toy"), tiny.row("base")
    assert sweeps.with_switches(tiny, profile, row, {}) is tiny
    (plain,) = sweeps.chain(tiny, profile, "base", 1, runs=tmp_path)
    searching = sweeps.with_switches(tiny, profile, row, {"model.base_lr": "0.5"})
    (searched,) = sweeps.chain(searching, profile, "base", 1, runs=tmp_path)
    assert searched.trial.path == tmp_path / "tiny-search" / f"base--s1--{searched.hash[:8]}"
    assert searched.hash != plain.hash
    assert searched.config["model"]["init_args"]["base_lr"] == 0.5
