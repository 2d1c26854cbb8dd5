"""Names of before keep their meaning: in configs, in identities, and for jsonargparse."""

import importlib
import re
from pathlib import Path

import pytest
import yaml

from rislab import moved_names
from rislab.ablation import identity, plan, signature, table
from rislab.errors import ConfigError
from rislab.training.cli import as_of_today

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("old", "new"), moved_names.MOVED.items())
def test_each_first_name_can_be_imported_and_is_what_identities_hold(old: str, new: str) -> None:
    moved_names.register()
    module = importlib.import_module(old)
    assert module is importlib.import_module(new)
    assert module.__spec__ is not None
    assert module.__spec__.name == new
    assert moved_names.current(f"{old}.X") == f"{new}.X"
    assert moved_names.original(f"{new}.X") == f"{old}.X"
    assert moved_names.current(f"{old}s") == f"{old}s", "only whole names are renamed"


def test_a_config_of_before_is_read_and_has_the_hash_of_today() -> None:
    options = {"root": "data", "dataset": "refcoco"}
    before, today = (
        {"data": {"class_path": f"rislab.{package}.referring.ReferringData", "init_args": options}}
        for package in ("data", "datamodules")
    )
    assert signature.read(before["data"]["class_path"]).options
    assert identity.identity(before) == identity.identity(today)
    assert identity.resolve(before) == identity.resolve(today)


MODELS = {"augment": "rislab.methods.tcl.task.TCLTask", "flip": "rislab.methods.cris.task.CRISTask"}
"""A method that has an option which was a data module's once."""


@pytest.mark.parametrize(
    ("class_path", "option"),
    [
        ("rislab.datamodules.pairs.PairsData", "augment"),
        ("rislab.data.pairs.PairsData", "augment"),
        ("rislab.datamodules.referring.ReferringData", "flip"),
    ],
)
def test_an_option_that_moved_is_read_where_it_was_and_keeps_the_hash(class_path: str, option: str) -> None:
    assert f"; it is model.init_args.{option} now" in str(signature.check(class_path, option, "none"))
    model, data = {"class_path": MODELS[option]}, {"class_path": class_path}
    before = {"model": model, "data": {**data, "init_args": {option: "x"}}}
    today = {"model": {**model, "init_args": {option: "x"}}, "data": {**data, "init_args": {}}}
    assert moved_names.with_options_moved(before) == today
    assert moved_names.with_options_moved(today) == today
    assert identity.identity(before) == identity.identity(today)
    assert identity.identity(today)["data"]["init_args"][option] == "x", "a hash of before held it there"
    assert option not in identity.identity(today)["model"]["init_args"]
    both = {"model": {"init_args": {option: "y"}}, "data": before["data"]}
    with pytest.raises(ConfigError, match=f"data.init_args.{option} is 'x' and model.init_args.{option} is 'y'"):
        moved_names.with_options_moved(both)


@pytest.mark.parametrize("form", ["--config {}", "--config={}", "-c {}"])
def test_the_command_reads_a_config_of_before(form: str, tmp_path: Path) -> None:
    file = tmp_path / "before.yaml"
    text = (ROOT / "experiments/cris/toy.yaml").read_text()
    file.write_text(re.sub(r"(ReferringData\n  init_args:\n)", r"\1    flip: swap\n", text))
    assert "    flip: swap\n" in file.read_text()
    arguments = as_of_today(["fit", *form.format(file).split(), "--trainer.max_epochs=1"])
    assert (arguments[0], arguments[-1]) == ("fit", "--trainer.max_epochs=1")
    config = yaml.safe_load(arguments[-2].removeprefix("--config="))
    assert config["model"]["init_args"]["flip"] == "swap"
    assert "flip" not in config["data"]["init_args"]
    today = tmp_path / "today.yaml"
    today.write_text(text)
    assert as_of_today(["fit", "--config", str(today)]) == ["fit", "--config", str(today)], "left as it is"


def test_a_trial_of_before_is_found_under_its_hash() -> None:
    """The first row of TCL's toy table, as it was planned while `augment` was an option of the data."""
    found = table.load(ROOT / "ablations/tcl.yaml")
    first = plan.plan(found, found.profiles["toy"], [0], Path("runs"), [found.rows[0].name])[0]
    assert first.hash == "fc7c576a9a416c2d43c8d6bfe750a55b1d6f59d33185744c4c0687fe65ade8cc"
    assert "augment" in first.config["model"]["init_args"]
    assert "augment" not in first.config["data"]["init_args"]
