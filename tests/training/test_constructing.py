"""Errors keep their class on the way to the user: one line and exit code 2, whatever libraries make of them."""

import argparse
import errno
import io
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rislab.cli import main as entry
from rislab.cli.main import main
from rislab.errors import ConfigError, DataError, DiskError, RislabError, one_line, underlying
from rislab.training.construction import constructing
from rislab.training.trial import _classify, prepare
from tests.worlds import rislab_here, tiny_config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__init_args__image_size": 97}, "model.image_size 97 is no multiple of 32"),
        ({"model__init_args__clip": {"name": "foo"}}, "clip.name 'foo' is no open_clip model"),
        (
            {"model__init_args__clip": {"name": "RN50", "pretrained": "nowhere.pt"}},
            "neither a file nor one of open_clip's tags",
        ),
        ({"model__init_args__num_head": 3}, "embed_dim must be divisible by num_heads"),
        ({"data__init_args__batch_size": 0}, "data.init_args.batch_size is 0"),
        ({"data__init_args__protocol": "nonsense"}, "data: protocol: Expected a member of Protocol"),
        ({"trainer__strategy": "nonsense"}, "trainer: ValueError: You selected an invalid strategy name"),
        ({"trainer__limit_train_batches": -3}, "invalid value -3 for limit_train_batches"),
        ({"trainer__max_epochs": "x"}, "trainer.max_epochs: Expected int. Got value: x"),
    ],
)
def test_a_wrong_config_is_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(tiny_config(**changes)))
    done = rislab_here("fit", "--config", str(config), "--trainer.default_root_dir", str(tmp_path / "out"))
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    with pytest.raises(ConfigError) as said:  # as a table's launcher meets it
        prepare(str(config), 1)
    assert _classify(said.value) == ("failed", "config")


def test_a_config_file_is_named(tmp_path: Path) -> None:
    for name, content in (("cut.yaml", b"model:\n  a: ["), ("binary.yaml", b"\xff\x00\xfe")):
        (tmp_path / name).write_bytes(content)
        done = rislab_here("fit", "--config", str(tmp_path / name))
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert str(tmp_path / name) in done.stderr


def wrapped(error: Exception) -> Exception:
    """As jsonargparse 4.53 does it, and as others might."""
    try:
        raise error
    except Exception as inner:
        try:
            raise ValueError("Does not validate against any of the Union subtypes\nErrors:\n  - x\n") from inner
        except ValueError as outer:
            return outer


@pytest.mark.parametrize("error", [ConfigError("a"), DataError("a"), DiskError("a")])
def test_our_errors_are_found_in_every_wrapping(error: RislabError) -> None:
    group = ExceptionGroup("several", [TypeError("x"), wrapped(error)])
    try:
        try:
            raise error
        except RislabError:
            raise argparse.ArgumentError(None, "x")  # noqa: B904  a context without a cause
    except argparse.ArgumentError as raised:
        context = raised
    for given in (wrapped(error), wrapped(wrapped(error)), group, context):
        assert underlying(given) is error
        with pytest.raises(type(error)) as said, constructing("model"):
            raise given
        assert said.value is error
    assert underlying(ValueError("a bug")) is None
    assert underlying(wrapped(ConnectionResetError(errno.ECONNRESET, "reset"))) is None


@pytest.mark.parametrize(
    ("number", "kind", "told"), [(errno.EROFS, DiskError, "Read-only"), (errno.ENOENT, DataError, "No such file")]
)
def test_what_the_file_system_says_of_a_constructor_names_the_file(
    number: int, kind: type[RislabError], told: str
) -> None:
    error = OSError(number, told, "/cache/.world.json.12-34.tmp")
    with pytest.raises(kind, match=rf"^/cache/world\.json: {told}") as said, constructing("data"):
        raise wrapped(error)
    assert _classify(said.value)[1] == ("disk" if kind is DiskError else "data")


def test_a_constructor_of_others_is_named_with_its_line() -> None:
    with (
        pytest.raises(ConfigError, match=r"^model: ZeroDivisionError: .* \(.*test_constructing\.py:\d+\)$"),
        constructing("model"),
    ):
        raise wrapped(ZeroDivisionError("division by zero"))
    with pytest.raises(MemoryError), constructing("model"):
        raise MemoryError


def test_a_loader_process_does_not_print_its_traceback() -> None:
    text = "Caught DataError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File x\n"
    assert one_line(DataError(text + "rislab.errors.DataError: a.jpg: unreadable\n")) == "a.jpg: unreadable"


def failing(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    def command(_: list[str]) -> int:
        raise error

    monkeypatch.setattr(entry, "_command", command)
    code = main(["anything"])
    return code, capsys.readouterr().err


def test_the_entry_point_tells_every_end(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stop = SystemExit(1)
    stop.__context__ = KeyboardInterrupt()
    read_only = PermissionError(errno.EACCES, "Permission denied", "/ro/.a.png.1-2.tmp")
    for error, code, told in (
        (read_only, 2, "rislab: /ro/a.png: Permission denied\n"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "/x"),
            2,
            "rislab: /x: No such file or directory\n",
        ),
        (KeyboardInterrupt(), 130, "rislab: interrupted\n"),
        (stop, 130, "rislab: interrupted\n"),
        (DataError("a"), 2, "rislab: a\n"),
    ):
        assert failing(error, monkeypatch, capsys) == (code, told)
    for bug in (ConnectionResetError(errno.ECONNRESET, "reset"), ValueError("a bug")):
        with pytest.raises(type(bug)):
            failing(bug, monkeypatch, capsys)


class Full(io.StringIO):
    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


class Closed(io.StringIO):
    def flush(self) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_output_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for stream, code, told in ((Full(), 2, "rislab: standard output: No space left on device\n"), (Closed(), 141, "")):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            assert main(["methods", "--json"]) == code
        assert capsys.readouterr().err == told


@pytest.mark.parametrize(
    "arguments", [("data", "toy", "--scenes", "20", "--size", "64", "--out", "{}/world"), ("methods", "cris", "--json")]
)
def test_a_place_that_cannot_be_written_is_named(
    tmp_path: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file where a folder is meant: what no user may write, root neither."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("RISLAB_CACHE", str(tmp_path / "file" / "cache"))
    done = rislab_here(*[argument.format(tmp_path / "file") for argument in arguments])
    if arguments[0] == "methods":
        assert done.returncode == 0, "a command that needs no cache runs without"
    else:
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert str(tmp_path / "file") in done.stderr
