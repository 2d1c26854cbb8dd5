"""Locks and claims: without hard links, cut short, from another machine, from the future."""

import errno
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rislab.ablation import sharing, trial
from rislab.ablation.trial import TrialBusyError, TrialDir
from rislab.files import being_created, create, keep_as, write_json
from tests.ablation.test_sharing import _claim_all
from tests.launch.test_local_pool import STAMPEDE
from tests.worlds import ROOT

DEAD = 2**22 - 1


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refuse)


def refuse(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def holder(folder: Path) -> dict[str, object]:
    """What a lock of this process holds."""
    with TrialDir(folder / "mine").locked():
        found: dict[str, object] = json.loads((folder / "mine" / "lock").read_text())
    return found


def take(folder: Path) -> None:
    with TrialDir(folder).locked():
        pass


@pytest.mark.usefixtures("no_links")
def test_without_hard_links_a_lock_is_exclusive_and_leaves_nothing(tmp_path: Path) -> None:
    one = TrialDir(tmp_path / "a")
    with one.locked():
        with pytest.raises(TrialBusyError, match=f"process {os.getpid()} on .* since "):
            take(one.path)
        write_json(one.lock_file, json.loads(one.lock_file.read_text()) | {"pid": DEAD})
        take(one.path)
    assert list(one.path.iterdir()) == []


@pytest.mark.parametrize("cut", [b"", b'{"boot_id": "12'])
def test_a_cut_lock_is_its_live_writers_and_no_dead_ones(cut: bytes, tmp_path: Path) -> None:
    """As `create` leaves it where there are no hard links, when it is looked at, or killed, between two of its calls."""
    me = holder(tmp_path)
    one = TrialDir(tmp_path / "a")
    one.path.mkdir()
    one.lock_file.write_bytes(cut)
    beside = one.path / f".lock-{'0' * 32}.new"
    write_json(beside, me)
    assert being_created(one.lock_file) == [beside]
    assert one.holder() == me
    with pytest.raises(TrialBusyError):
        take(one.path)
    write_json(beside, me | {"pid": DEAD})
    assert one.holder() is None
    take(one.path)
    one.lock_file.write_bytes(cut)  # damaged later, with no process writing it
    beside.unlink()
    take(one.path)
    write_json(beside, me | {"host": "elsewhere", "boot_id": "x"})
    one.lock_file.write_bytes(cut)
    with pytest.raises(TrialBusyError, match="on elsewhere"):
        take(one.path)  # is elsewhere: believed for a minute
    for path in (beside, one.lock_file):
        os.utime(path, (time.time() - 100,) * 2)
    take(one.path)


@pytest.mark.parametrize("content", ["[]", "{}", '{"pid": "x", "host": 3}', '{"pid": 1}', "\x00\xff", "[" * 100000])
def test_a_lock_of_another_form_blocks_no_start(content: str, tmp_path: Path) -> None:
    one = TrialDir(tmp_path / "a")
    one.path.mkdir()
    one.lock_file.write_text(content)
    assert one.holder() is None
    take(one.path)


def test_a_dead_lock_has_one_successor_without_hard_links(tmp_path: Path) -> None:
    """Four processes fall upon twenty cut or dead locks at once: never two inside."""
    me = holder(tmp_path)
    for number in range(20):
        folder = tmp_path / f"trial-{number:02}"
        write_json(folder / "lock", me | {"pid": DEAD})
        if number % 2:
            (folder / "lock").write_bytes(b'{"pid"')
    refused = "import os\ndef refuse(*_, **__):\n    raise PermissionError\nos.link = refuse\n"
    command = [sys.executable, "-c", refused + STAMPEDE, str(tmp_path), str(time.time() + 0.7)]
    crowd = [subprocess.Popen(command, cwd=ROOT) for _ in range(4)]
    assert [process.wait(60) for process in crowd] == [0] * 4
    assert not list(tmp_path.glob("trial-*/*lock*"))


@pytest.mark.usefixtures("no_links")
def test_processes_agree_on_claims_without_hard_links(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    begin, said = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_claim_all, args=(str(tmp_path), f"t{n}", begin, said)) for n in range(4)]
    for process in processes:
        process.start()
    found: dict[int, set[str]] = {}
    for _ in range(4 * 201):
        answer = said.get(timeout=60)
        if answer is not None:
            found.setdefault(answer[0], set()).add(answer[1])
    for process in processes:
        process.join()
    assert {number: len(places) for number, places in found.items()} == dict.fromkeys(range(200), 1)
    assert not list((tmp_path / sharing.CLAIMS).glob(".*"))


@pytest.mark.parametrize("cut", ["", "one/ba"])
def test_a_cut_claim_is_waited_for_and_then_replaced(cut: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "WRITTEN_WITHIN_SECONDS", 0.2)
    digest = "0" * 64
    place, own = tmp_path / sharing.CLAIMS / digest, tmp_path / "two" / "base--s0--00000000"
    place.parent.mkdir()
    place.write_text(cut)
    assert sharing.claim(tmp_path, digest, own) == own
    assert sharing.claimed(tmp_path, digest) == own
    assert [path.name for path in place.parent.iterdir()] == [digest]
    place.write_text("one/base--s0--00000000")  # only its last byte is missing
    assert sharing.claim(tmp_path, digest, own) == tmp_path / "one" / "base--s0--00000000"


@pytest.mark.usefixtures("no_links")
def test_files_are_created_and_kept_without_hard_links(tmp_path: Path) -> None:
    one = tmp_path / "one"
    assert [create(one, b"first"), create(one, b"second")] == [True, False]
    keep_as(one, tmp_path / "two")
    one.write_bytes(b"third")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"one": b"third", "two": b"first"}
    with pytest.raises(OSError, match="No such file"):
        create(tmp_path / "nowhere" / "one", b"")


def test_a_sign_of_life_from_the_future_counts_at_first_sight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_CLOCKS", {})
    me = holder(tmp_path)
    one = TrialDir(tmp_path / "a")
    write_json(one.lock_file, me | {"host": "elsewhere", "boot_id": "x"})
    ahead = time.time() + 7200
    os.utime(one.lock_file, (ahead, ahead))
    assert one.held_by().startswith(f"process {os.getpid()} on elsewhere since ")
    began, real = time.monotonic(), time.monotonic
    monkeypatch.setattr(trial.time, "monotonic", lambda: real() + 50)
    assert one.holder() is not None
    monkeypatch.setattr(trial.time, "monotonic", lambda: real() + 61)
    assert one.holder() is None, "not until that time comes"
    os.utime(one.lock_file, (ahead + 2, ahead + 2))  # it beats: its clock is ahead
    assert one.holder() is not None
    assert real() - began < 5


def test_what_killed_saves_left_goes_with_the_next_start(tmp_path: Path) -> None:
    one = TrialDir(tmp_path)
    one.checkpoints.mkdir()
    names = {
        "dead": f".last.ckpt.{DEAD}-1.tmp",
        "of another machine": ".last.ckpt.1-1.tmp",  # a number that is taken here
        "mine": f".best.ckpt.{os.getpid()}-1.tmp",
        "whole": "last.ckpt",
    }
    for name in names.values():
        (one.checkpoints / name).write_bytes(b"x")

    def left() -> set[str]:
        return {what for what, name in names.items() if (one.checkpoints / name).exists()}

    one.clear()
    assert left() == set(names), "without the lock, what is young may still be written"
    for name in names.values():
        os.utime(one.checkpoints / name, (time.time() - 100,) * 2)
    one.clear()
    assert left() == set(names) - {"dead"}
    with one.locked():
        one.clear()
    assert left() == {"mine", "whole"}
