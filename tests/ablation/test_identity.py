"""What changes a trial's identity, and what does not."""

import ast
import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rislab.ablation import identity, plan, signature
from rislab.ablation import table as tables
from rislab.ablation.identity import digest
from rislab.ablation.table import Paper, Profile, Row, Table
from tests.worlds import ROOT, tiny_config


def hashed(config: dict[str, Any]) -> str:
    return digest(identity.identity(copy.deepcopy(config)))


def test_what_cannot_change_the_result_does_not_count() -> None:
    config = tiny_config()
    other = tiny_config(
        trainer__default_root_dir="elsewhere",
        trainer__accelerator="gpu",
        data__init_args__root="/data",
        data__init_args__num_workers=4,
        trial={"checkpoint_every_n_steps": 9},
    )
    assert hashed(config) == hashed(other)


@pytest.mark.parametrize(
    "change",
    [
        {"seed_everything": 1},
        {"model__init_args__decoder_layers": 2},
        {"trainer__max_epochs": 3},
        {"data__init_args__generate__init_args__scenes": 41},
        {"data__init_args__shuffle_sentences": True},
    ],
    ids=str,
)
def test_what_changes_the_result_counts(change: dict[str, Any]) -> None:
    assert hashed(tiny_config()) != hashed(tiny_config(**change))


def test_a_default_written_out_is_the_same_trial() -> None:
    assert hashed(tiny_config(model__init_args__weight_decay=0)) == hashed(tiny_config())


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_order_and_form_do_not_count(value: dict[str, Any]) -> None:
    turned = dict(reversed(list(value.items())))
    assert digest(value) == digest(turned)
    assert digest(value) == digest(json.loads(json.dumps(value, indent=3)))


SOURCE = """
from typing import ClassVar, Literal


class Method:
    {declared}

    def __init__(self, depth: Literal[1, 2] = {default}, width: int = 8{option}) -> None:
        pass
"""


@pytest.fixture
def method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a method's source and gives the hash of a config that names it, as a later release of rislab would."""
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(signature, "PACKAGE", "fake.")

    def release(default: int = 1, option: str = "", declared: str = "") -> str:
        text = SOURCE.format(default=default, option=option, declared=declared or '"""A method."""')
        (tmp_path / "fake" / "task.py").write_text(text)
        signature.read.cache_clear()
        for module in ("fake", "fake.task"):
            sys.modules.pop(module, None)  # an earlier test imported another folder of that name
        return digest(identity.identity({"model": {"class_path": "fake.task.Method", "init_args": {"width": 8}}}))

    yield release
    signature.read.cache_clear()


def test_a_changed_default_changes_the_hash(method: Any) -> None:
    assert method() != method(default=2)


def test_an_option_added_later_with_its_neutral_value_changes_nothing(method: Any) -> None:
    before = method()
    assert method(option=", norm: bool = False") != before
    assert method(option=", norm: bool = False", declared='absent_means: ClassVar = {"norm": False}') == before


CHAIN = """
from dataclasses import dataclass
from typing import ClassVar


@dataclass
class Trunk:
    {trunk_declared}
    name: str = "small"
    width: int = {width}
    {trunk_option}


class Method:
    stages: ClassVar = ("first", "second")
    unused_in: ClassVar = {{"first": ("decoder",)}}
    {declared}

    def __init__(
        self, trunk: Trunk, depth: int = {depth}, decoder: int = {decoder}, stage: str | None = None{option}
    ) -> None:
        pass
"""

DATA = """
class Data:
    def __init__(self, root: str = "data", seed: int = 0, size: int = 8) -> None:
        pass
"""


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """As `method`, for a chain of two stages with a dataclass among its options: hashes of the planned cells of a table.

    It goes the whole way: sources, configs of a profile, rows with switches, chains.
    """
    package = tmp_path / "fake"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "data.py").write_text(DATA)
    config = {
        "model": {"class_path": "fake.task.Method", "init_args": {"trunk": {"name": "small"}}},
        "data": {"class_path": "fake.data.Data", "init_args": {}},
        "trainer": {"max_epochs": 1},
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(signature, "PACKAGE", "fake.")
    profile = Profile("toy", (tmp_path / "config.yaml",), "c", "d", False, "val")
    rows = (Row("plain", "", {}, {}), Row("wide", "", {"model.init_args.trunk.width": 16}, {}))
    paper = Paper("m", "t", "v", 2026, "", ())
    table = Table(tmp_path / "t.yaml", "t", "t", paper, {"toy": profile}, (0,), ("oiou",), "plain", rows, ())

    def release(**source: Any) -> dict[str, str]:
        given = {
            "width": 8,
            "depth": 1,
            "decoder": 1,
            "option": "",
            "declared": "",
            "trunk_option": "",
            "trunk_declared": "",
        }
        (package / "task.py").write_text(CHAIN.format(**given | source))
        signature.read.cache_clear()
        for module in ("fake", "fake.task", "fake.data"):
            sys.modules.pop(module, None)
        cells = plan.plan(table, profile, [0], tmp_path / "runs")
        for cell in cells:
            assert cell.hash == digest(cell.identity), "a hash put together from parts is that of the whole"
        return {cell.name: cell.hash for cell in cells}

    yield release
    signature.read.cache_clear()


ALL = {"plain s0 first", "plain s0 second", "wide s0 first", "wide s0 second"}


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"depth": 2}, ALL),
        ({"decoder": 2}, {"plain s0 second", "wide s0 second"}),  # the first stage does not read it
        ({"width": 9}, {"plain s0 first", "plain s0 second"}),  # the other row says what it wants
        ({"option": ", norm: bool = False"}, ALL),
        ({"trunk_option": "norm: bool = False"}, ALL),
        ({"option": ", norm: bool = False", "declared": 'absent_means: ClassVar = {"norm": False}'}, set()),
        ({"option": ", norm: bool = True", "declared": 'absent_means: ClassVar = {"norm": False}'}, ALL),
        ({"trunk_option": "norm: bool = False", "trunk_declared": 'absent_means: ClassVar = {"norm": False}'}, set()),
        ({"trunk_option": "norm: bool = True", "trunk_declared": 'absent_means: ClassVar = {"norm": False}'}, ALL),
    ],
    # A set's own order differs between processes, and pytest's workers compare their ids.
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_what_a_release_changes_in_a_chain(chain: Any, changed: dict[str, Any], names: set[str]) -> None:
    """Through all stages, and in dataclasses of ours as in methods."""
    before, after = chain(), chain(**changed)
    assert before.keys() == ALL
    assert {name for name in ALL if before[name] != after[name]} == names


def test_hashes_of_the_shipped_tables_are_those_of_their_whole_configs() -> None:
    """A plan hashes parts of configs, each once; nothing of that may show."""
    for path in sorted((ROOT / "ablations").glob("*.yaml")):
        loaded = tables.load(path)
        for profile in loaded.profiles.values():
            for cell in plan.plan(loaded, profile, [0, 3], Path("runs")):
                assert cell.hash == digest(cell.identity), (path.name, profile.name, cell.name)
                parent = cell.parent and cell.parent.hash
                whole = identity.identity(copy.deepcopy(cell.config), parent, cell.takes == "outputs")
                assert cell.hash == digest(whole), (path.name, profile.name, cell.name)


def test_a_world_or_clip_that_our_code_makes_anew_is_another_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    toy, foreign = (
        tiny_config(model__init_args__clip={"name": name, "pretrained": weights})
        for name, weights in (("rislab-tiny-RN", "toy"), ("RN50", "openai"))
    )
    del foreign["data"]["init_args"]["generate"]
    before = hashed(toy), hashed(foreign)
    constant = signature.constant
    for counted in ("rislab.data.toy.world", "rislab.encoders.clip.tiny"):
        raised = {(counted, "VERSION"): 99}
        monkeypatch.setattr(signature, "constant", lambda *path, r=raised: r.get(path) or constant(*path))
        assert (hashed(toy) != before[0], hashed(foreign) != before[1]) == (True, False)


def test_signature_reads_types_choices_and_defaults() -> None:
    read = signature.read("rislab.methods.cris.task.CRISTask")
    assert read.options["decoder_layers"].choices == (0, 1, 2, 3, 4)
    assert read.options["base_lr"].default == 1e-4
    assert read.options["clip"].default is signature.REQUIRED
    assert signature.read("rislab.datamodules.referring.ReferringData").options["protocol"].default == "native"
    assert signature.read("rislab.data.toy.world.ToyWorld").options["scenes"].default > 0
    assert "torch" not in Path(signature.__file__).read_text().split('"""')[2]


def test_fields_of_our_dataclasses_are_filled_in_too() -> None:
    config = tiny_config(model__init_args__clip={"name": "RN50"})
    assert identity.resolve(config)["model"]["init_args"]["clip"] == {"name": "RN50", "pretrained": None}
    assert hashed(config) == hashed(tiny_config(model__init_args__clip={"name": "RN50", "pretrained": None}))


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        ("int", [1], [True, 1.0, "1", None]),
        ("float", [1, 1.5], [True, "1e-4"]),
        ("bool", [True], [1, "no"]),
        ("int | None", [None, 3], ["3"]),
        ("Optional[str]", [None, "a"], [1]),
        ("Literal[1, 'a']", [1, "a"], [True, 2]),
        ("tuple[int, int]", [[1, 2]], [[1], [1, "2"], 1]),
        ("tuple[float, ...]", [[], [1, 2.5]], [["a"]]),
        ("list[int] | None", [[1], None], [1]),
        ("dict[str, float]", [{"a": 1}], [{"a": "b"}, 1]),
        ("SomeClass", [1, "a", None], []),
    ],
)
def test_values_are_checked_against_annotations(annotation: str, good: list[Any], bad: list[Any]) -> None:
    node = ast.parse(annotation, mode="eval").body
    assert [value for value in good if not signature._fits(node, value)] == []
    assert [value for value in bad if signature._fits(node, value)] == []
