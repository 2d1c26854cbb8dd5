"""The archive of parity cases: the same bytes for the same content, nothing written outside, and no case missing unnoticed."""

import http.server
import io
import os
import tarfile
import threading
from functools import partial
from pathlib import Path

import pytest

from rislab.errors import DataError
from tests.parity import archive, cases


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two cases of two methods, and a file that belongs to none."""
    for case in ("cris/one", "tcl/two"):
        place = tmp_path / "cases" / case
        place.mkdir(parents=True)
        (place / "case.json").write_text("{}")
        (place / "outputs.safetensors").write_bytes(case.encode() * 100)
    (tmp_path / "cases" / "README").write_text("of no case")
    return tmp_path / "cases"


def made(folder: Path, name: str = "a.tar") -> tuple[Path, str]:
    target = folder.parent / name
    return target, archive.make(folder, target)


def test_the_same_content_gives_the_same_bytes_whenever_and_by_whom_it_was_written(folder: Path) -> None:
    first, digest = made(folder)
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    second, again = made(folder, "b.tar")
    assert digest == again
    assert first.read_bytes() == second.read_bytes()
    (folder / "cris" / "one" / "outputs.safetensors").write_bytes(b"other")
    assert made(folder, "c.tar")[1] != digest


def test_what_comes_out_is_what_went_in_and_is_unpacked_once(folder: Path, tmp_path: Path) -> None:
    source, digest = made(folder)
    found = archive.fetch(str(source), digest, tmp_path / "cache")
    for path in folder.glob("*/*/*"):
        assert (found / path.relative_to(folder)).read_bytes() == path.read_bytes()
    assert not (found / "README").exists()
    source.unlink()
    assert archive.fetch(str(source), digest, tmp_path / "cache") == found
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [digest[:16]], "nothing temporary is left"


def test_an_archive_comes_by_url_and_a_failed_download_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    source, digest = made(folder)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(source.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        found = archive.fetch(f"{address}/a.tar", digest, tmp_path / "cache")
        with pytest.raises(DataError, match="404"):
            archive.fetch(f"{address}/b.tar", "0" * 64, tmp_path / "cache")
        server.shutdown()
    assert (found / "cris" / "one" / "case.json").is_file()
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize("digest", ["", "abc", "Z" * 64])
def test_a_digest_that_is_none_is_refused_before_anything_is_fetched(digest: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected the 64 hexadecimal digits"):
        archive.fetch("nowhere.tar", digest, tmp_path)


def test_another_digest_and_another_scheme_are_refused(folder: Path, tmp_path: Path) -> None:
    source, digest = made(folder)
    with pytest.raises(DataError, match=f"its sha256 is {digest}"):
        archive.fetch(str(source), "0" * 64, tmp_path / "cache")
    with pytest.raises(DataError, match="a path, or a URL with http or https"):
        archive.fetch(f"file://{source}", digest, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


@pytest.mark.parametrize(
    "evil",
    [
        [entry("../outside")],
        [entry("/tmp/outside")],
        [entry("cris/one/../../../outside")],
        [entry("cris/../outside")],
        [entry("cris/one/deeper/file")],
        [entry("cris/one/.hidden")],
        [entry("cris/one/link", tarfile.SYMTYPE, "/etc/passwd")],
        [entry("cris/one/link", tarfile.LNKTYPE, "cris/one/case.json")],
        [entry("cris/one/device", tarfile.CHRTYPE)],
        [entry("cris/one/pipe", tarfile.FIFOTYPE)],
        [entry("cris/one/case.json"), entry("cris/one/case.json")],
    ],
    ids=lambda members: f"{members[-1].name} {members[-1].type.decode()} {len(members)}",
)
def test_nothing_is_written_for_an_archive_that_would_write_elsewhere(
    evil: list[tarfile.TarInfo], tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w") as content:
        for member in (entry("cris/one/good"), *evil):
            content.addfile(member, io.BytesIO())
    with pytest.raises(DataError, match="nothing was unpacked"):
        archive.unpack(tmp_path / "evil.tar", tmp_path / "target", "evil.tar")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["evil.tar", "target"]


def test_files_that_are_not_those_of_the_index_and_other_versions_are_refused(folder: Path, tmp_path: Path) -> None:
    source, _ = made(folder)
    content = source.read_bytes()
    cases_of: dict[str, tuple[bytes, bytes, str]] = {
        "changed": (b"cris/onecris/one", b"cris/0necris/one", "outputs.safetensors is missing or not what"),
        "version": (b'"version": 1', b'"version": 2', "version 2, expected 1"),
        "index": (b'"files": {', b'"files"; {', "no readable parity.json"),
    }
    for name, (before, after, said) in cases_of.items():
        (tmp_path / f"{name}.tar").write_bytes(content.replace(before, after))
        with pytest.raises(DataError, match=said):
            archive.unpack(tmp_path / f"{name}.tar", tmp_path / name, name)
    (tmp_path / "cut.tar").write_bytes(content[:700])
    with pytest.raises(DataError, match=r"cut.tar: "):
        archive.unpack(tmp_path / "cut.tar", tmp_path / "cut", "cut.tar")


def test_links_in_the_folder_are_not_archived(folder: Path) -> None:
    (folder / "cris" / "one" / "link").symlink_to("/etc/passwd")
    with pytest.raises(DataError, match="expected a regular file"):
        made(folder)


def test_a_case_that_is_expected_and_missing_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cases, "ROOT", tmp_path)
    monkeypatch.delenv(cases.REQUIRED, raising=False)
    assert cases.cases("cris") == []
    monkeypatch.setenv(cases.REQUIRED, "1")
    with pytest.raises(AssertionError, match="lacks layers1, layers3"):
        cases.cases("cris")
    for method in {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")} - {"archive"}:
        assert cases.expected(method), f"no case of {method} is expected: expected.txt"


def test_the_command_says_what_is_missing_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(archive.ARCHIVE, raising=False)
    with pytest.raises(DataError, match="RISLAB_PARITY_ARCHIVE is not set"):
        archive.main(["fetch"])
    with pytest.raises(DataError, match="expected: make CASES ARCHIVE, or fetch"):
        archive.main(["fetsh"])
