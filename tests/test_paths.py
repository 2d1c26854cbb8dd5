"""Paths as people write them, wherever they come in."""

from pathlib import Path

import pytest
import yaml

from rislab.ablation.configs import Configs
from rislab.ablation.table import find, load
from rislab.cli.main import parser
from rislab.data.shards import expand
from rislab.data.toy.world import ToyWorld
from rislab.datamodules.referring import ReferringData
from rislab.datamodules.semantic import SemanticData
from rislab.errors import ConfigError, DataError
from rislab.paths import absolute, contents, is_file, lines, unsafe_name, user_path, visible
from tests.worlds import ROOT, rislab_here


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def test_a_tilde_is_the_home_folder_on_every_command_line(home: Path) -> None:
    for words in (
        "data check ~/d", "data pack ~/d", "data show ~/d --out ~/d", "data leaks ~/d --train a --eval b", "data toy --out ~/d",
        "score ~/d --data ~/d --out ~/d --split val", "segment ~/d x --checkpoint c --out ~/d --masks ~/d --config ~/d",
        "bench step --config ~/d", "matrix --methods a --benchmarks b --checkpoints ~/d --runs ~/d --out ~/d",
        "ablate plan cris --runs ~/d", "ablate report cris --out ~/d", "ablate status cris --html ~/d", "ablate gc --runs ~/d",
    ):  # fmt: skip
        given = vars(parser().parse_args(words.split()))
        paths = [value for value in given.values() if isinstance(value, Path)]
        assert sum(path == home / "d" for path in paths) == words.count("~"), words


def test_a_tilde_is_the_home_folder_in_configs_and_tables(home: Path) -> None:
    assert ReferringData("~/data").root == home / "data"
    assert SemanticData("~/data").root == home / "data"
    assert expand("~/{0..1}.tar") == [home / "0.tar", home / "1.tar"]
    profile = load(ROOT / "ablations" / "cris.yaml").profile("toy")
    assert Configs(profile, "~/data").base()["data"]["init_args"]["root"] == str(home / "data")
    assert find("~/tables/mine.yaml") == home / "tables" / "mine.yaml"


def test_a_world_is_written_where_the_tilde_says(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert rislab_here("data", "toy", "--out", "~/w", "--scenes", "20", "--size", "64").returncode == 0
    assert (home / "w" / "refcoco").is_dir()
    assert not (tmp_path / "~").exists()
    assert rislab_here("data", "check", "~/w", "--strict").returncode == 0


def test_make_hands_the_path_on_as_it_is_written() -> None:
    text = (ROOT / "Makefile").read_text()
    assert text.count("--data '$(DATA)'") == text.count("--data ") > 1


@pytest.mark.parametrize("given", ["", "a\0b", "~no-such-user-here/x"])
def test_what_is_no_path_is_said(given: str) -> None:
    with pytest.raises(ConfigError):
        user_path(given)


def test_links_keep_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "store")
    assert absolute(tmp_path / "link") == tmp_path / "link"
    monkeypatch.chdir(tmp_path / "link")
    monkeypatch.setenv("PWD", str(tmp_path / "link"))
    assert absolute(".") == tmp_path / "link"
    assert absolute("x") == tmp_path / "link" / "x"
    assert absolute("..") == tmp_path
    monkeypatch.setenv("PWD", "/nowhere")
    assert absolute("x") == tmp_path / "store" / "x"


@pytest.mark.parametrize("root", ["../x", "a/../../x"])
def test_a_generated_world_stays_in_the_cache(root: str) -> None:
    with pytest.raises(ConfigError, match="a generated world lies in the cache folder"):
        ReferringData(root, generate=ToyWorld(20, 64, 0))


@pytest.mark.parametrize("name", ["a.jpg", "a/b.jpg", "..a.jpg", "größer.jpg", "a b.jpg", "x" * 255])
def test_names_that_stay_in_their_folder(name: str) -> None:
    assert unsafe_name(name) == ""


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "/a",
        "../a",
        "a/..",
        "a/../b",
        "..\\a",
        "\\\\host\\a",
        "C:/a",
        "c:a",
        "a\nb",
        "a\x7f",
        "x" * 256,
        "ü" * 128,
        "a/" * 600,
    ],
)
def test_names_that_do_not(name: str) -> None:
    assert unsafe_name(name)


def test_lists_and_files_of_other_systems(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfone \r\n\r\n two\r\n")
    assert lines(path) == ["one", "two"]
    with pytest.raises(DataError, match="cannot be read"):
        contents(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        contents(tmp_path / "none")
    for name in ("a\0b", "x" * 300):
        assert not is_file(tmp_path / name)
        with pytest.raises(DataError, match="cannot be read"):
            contents(tmp_path / name)
    for name in ("._list.txt", ".DS_Store", "__MACOSX/list.txt", ".hidden/list.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0")
    assert visible(tmp_path.rglob("*.txt"), tmp_path) == [path]


def test_paths_of_a_file_of_checkpoints(home: Path, tmp_path: Path) -> None:
    from rislab.cli.matrix import beside, read_checkpoints

    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump({"cris": "~/best.ckpt", "tcl": "best.ckpt"}))
    found = {name: beside(file, given) for name, given in read_checkpoints(file).items()}
    assert found == {"cris": home / "best.ckpt", "tcl": tmp_path / "best.ckpt"}
