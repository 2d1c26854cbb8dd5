"""Names of before keep their meaning: in configs, in identities, and for jsonargparse."""

import importlib
from pathlib import Path

import pytest

from rislab import moved_names
from rislab.ablation import identity, signature
from rislab.cli.main import main


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


@pytest.mark.parametrize(
    ("class_path", "option"),
    [
        ("rislab.datamodules.pairs.PairsData", "augment"),
        ("rislab.data.pairs.PairsData", "augment"),
        ("rislab.datamodules.referring.ReferringData", "flip"),
    ],
)
def test_an_option_that_moved_is_named_with_its_new_place(
    class_path: str, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = f"model.init_args.{option}"
    assert f"; it is {where} now" in str(signature.check(class_path, option, "none"))
    file = tmp_path / "before.yaml"
    file.write_text(f"data:\n  class_path: {class_path}\n  init_args: {{{option}: none}}\n")
    assert main(["fit", "--config", str(file)]) == 2
    said = capsys.readouterr().err.strip()
    assert said == f"rislab: {file}: data.init_args.{option} is no option of {class_path}; it is {where} now"
