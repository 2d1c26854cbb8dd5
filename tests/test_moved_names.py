"""Names of before keep their meaning: in configs, in identities, and for jsonargparse."""

import importlib

import pytest

from rislab import moved_names
from rislab.ablation import identity, signature


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
