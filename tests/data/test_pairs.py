"""Image-text shards: every pair once, exactly resumable, and whatever the web has put into them."""

import io
import multiprocessing
import os
import signal
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rislab.data.geometry import Stretch
from rislab.data.pair_batches import SPARE, Captions, Pairs, PairsLoader, epoch_order
from rislab.data.shards import Shards, expand, scan
from rislab.data.toy.vocabulary import add
from rislab.errors import DataError

SIZE = 16


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RISLAB_CACHE", str(tmp_path / "cache"))


def picture(value: int, size: tuple[int, int] = (20, 20), kind: str = "JPEG", mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (value % 256, 100, 100)).convert(mode).save(out, kind)
    return out.getvalue()


def shard(path: Path, samples: list[tuple[str, dict[str, bytes]]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, parts in samples:
            for suffix, content in parts.items():
                add(tar, f"{key}.{suffix}", content)
    return path


def plain(folder: Path, shards: int = 3, each: int = 8) -> list[str]:
    for s in range(shards):
        numbers = range(s * each, (s + 1) * each)
        shard(
            folder / f"cc-{s:06d}.tar",
            [(f"{n:09d}", {"jpg": picture(n), "txt": f"text {n}".encode(), "json": b"{}"}) for n in numbers],
        )
    return [str(folder / f"cc-{{000000..{shards - 1:06d}}}.tar")]


def loader(patterns: list[str], batch_size: int = 3, workers: int = 0, rank: int = 0, world: int = 1) -> PairsLoader:
    """What PairsData builds, without a Trainer."""
    shards = Shards(patterns)
    step = (batch_size + SPARE) * world
    steps = len(shards) // step

    def plan(epoch: int) -> list[np.ndarray]:
        order = epoch_order(shards.shard, [0, epoch], None)
        each = order[: steps * step].reshape(steps, world, -1)[:, rank]
        return list(np.column_stack([np.full(steps, epoch), each]))

    return PairsLoader(Pairs(shards, batch_size, Stretch(SIZE), None, 0), plan, num_workers=workers)


def texts(batches: list[Captions]) -> list[list[str]]:
    return [batch.texts for batch in batches]


def test_every_member_is_counted(tmp_path: Path) -> None:
    """Keys with dots, webp, hidden files of a Mac, metadata: the numbers add up to what the archive holds."""
    path = shard(
        tmp_path / "a.tar",
        [
            ("000000", {"jpg": picture(1), "txt": b"one", "json": b"{}", "cls": b"3"}),
            ("000001", {"webp": picture(2, kind="WEBP"), "txt": b"two"}),
            ("item0.input", {"jpg": picture(3)}),
            ("item0.outputs", {"txt": b"three"}),
            ("shot_2.0_x", {"jpg": picture(4), "txt": b"four"}),
            ("shot_2.1_x", {"jpg": picture(5), "txt": b"five"}),
            ("000002", {"avif": b"?", "txt": b"a format that is not read"}),
            ("000003", {"jpg": picture(6), "png": picture(7, kind="PNG"), "txt": b"twice", "text": b"twice"}),
            ("000004", {"jpg": picture(8), "txt": b""}),
            ("._000000", {"jpg": b"x" * 84, "txt": b"x" * 84}),
            ("__MACOSX/._000000", {"jpg": b"x"}),
        ],
    )
    found = scan(path)
    assert len(found.extents) == 3
    assert found.skipped == {
        "unknown member": 7,
        "no picture": 1,
        "second picture or text of a key": 2,
        "empty text": 1,
    }
    assert found.ignored == {"metadata": 1, "further member of a pair": 1, "hidden file": 3}
    assert found.example == "item0.input.jpg"
    with tarfile.open(path) as tar:
        members = len(tar.getmembers())
    pairs = len(found.extents) + found.skipped["empty text"]
    rest = {**found.skipped, **found.ignored}
    assert members == found.members == 2 * pairs + sum(rest.values()) - rest["empty text"]
    shards = Shards([str(path)])
    assert [shards.pair(n)[1] for n in range(3)] == ["one", "two", "twice"]
    assert shards.pair(1)[0].size == (20, 20)
    assert "e.g. item0.input.jpg" in shards.skipped_text()


def test_a_damaged_header_in_the_middle_is_no_end(tmp_path: Path) -> None:
    path = Path(plain(tmp_path, shards=1, each=8)[0].replace("{000000..000000}", "000000"))
    whole = bytearray(path.read_bytes())
    at = whole.index(b"000000004.jpg")
    whole[at : at + 512] = b"\xa5" * 512
    path.write_bytes(whole)
    found = scan(path)
    assert len(found.extents) == 4
    assert found.skipped == {"truncated shard": 1}
    path.write_bytes(b"\x1f\x8b garbage" * 100)
    assert scan(path).skipped == {"no tar archive": 1}


@pytest.mark.parametrize("fault", ["garbage", "empty", "beyond", "read-only"])
def test_a_damaged_index_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    patterns = plain(tmp_path, shards=1, each=4)
    if fault == "read-only":
        (tmp_path / "file").touch()
        monkeypatch.setenv("RISLAB_CACHE", str(tmp_path / "file" / "cache"))  # cannot be made
        assert len(Shards(patterns)) == 4
        return
    assert len(Shards(patterns)) == 4
    (kept,) = (tmp_path / "cache" / "shards").glob("*.npz")
    if fault == "beyond":
        about = np.array('[{}, {}, 4, ""]')
        np.savez(kept, extents=np.array([[0, 10**12, 0, 1]]), about=about)
    else:
        kept.write_bytes({"garbage": b"PK\x03\x04 no index" * 50, "empty": b""}[fault])
    assert len(Shards(patterns)) == 4
    with np.load(kept) as stored:
        assert stored["extents"].shape == (4, 4), "the damaged one is replaced"


@pytest.mark.parametrize(
    "pattern", ["{0..999999999}.tar", "{0..9999}/{0..9999}.tar", "{0..{1..2}}.tar", "{a,b}.tar", "{0..1.tar"]
)
def test_patterns_are_judged_before_they_are_expanded(pattern: str) -> None:
    with pytest.raises(DataError, match=r"^\{"):
        expand(pattern)
    with pytest.raises(DataError, match="comes after"):
        expand("{2..1}.tar")
    assert [str(p) for p in expand("{0..1}/a-{08..10}.tar")][:4] == [
        "0/a-08.tar",
        "0/a-09.tar",
        "0/a-10.tar",
        "1/a-08.tar",
    ]


def test_patterns_expand_as_in_a_shell() -> None:
    assert len(expand("gcc3m/gcc-train-{000000..00347}.tar")) == 348
    assert expand("a{08..11}b") == [Path("a08b"), Path("a09b"), Path("a10b"), Path("a11b")]
    assert len(expand("{0..1}/{0..2}.tar")) == 6
    assert expand("one.tar") == [Path("one.tar")]
    with pytest.raises(DataError, match="3 comes after 1"):
        expand("{3..1}")


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 99), st.sampled_from([None, 1, 2]))
def test_an_order_is_a_permutation(count: int, shards: int, seed: int, at_once: int | None) -> None:
    belongs = np.sort(np.random.default_rng(seed).integers(0, shards, count)).astype(np.int32)
    order = epoch_order(belongs, [seed], at_once)
    assert sorted(order.tolist()) == list(range(count))
    assert np.array_equal(order, epoch_order(belongs, [seed], at_once))
    if at_once == 1:  # shard after shard
        assert len(np.flatnonzero(np.diff(belongs[order]))) == len(np.unique(belongs)) - 1


def test_ranks_and_workers_never_share_a_pair(tmp_path: Path) -> None:
    patterns = plain(tmp_path, shards=1, each=40)  # fewer shards than processes
    seen = [
        text for rank in range(2) for batch in loader(patterns, workers=2, rank=rank, world=2) for text in batch.texts
    ]
    assert len(seen) == len(set(seen)) == 24
    lengths = {len(loader(patterns, rank=rank, world=2)) for rank in range(2)}
    assert lengths == {4}, "every process takes as many steps"


def test_goes_on_where_it_was(tmp_path: Path) -> None:
    patterns = plain(tmp_path)
    whole = loader(patterns)
    expected = [texts(list(whole)) for _ in range(2)]
    assert expected[0] != expected[1], "epochs differ"
    first = loader(patterns)
    for _, batch in zip(range(2), first, strict=False):
        assert batch.texts
    second = loader(patterns, workers=1)
    second.load_state_dict(first.state_dict())
    assert texts(list(second)) == expected[0][2:]
    assert texts(list(second)) == expected[1]


def bad_shard(path: Path) -> Path:
    good = picture(7)
    samples: list[tuple[str, dict[str, bytes]]] = [(f"{n:05d}", {"jpg": picture(n), "txt": b"good"}) for n in range(30)]
    samples[1:1] = [
        ("png", {"jpg": picture(1, kind="PNG"), "txt": b"a png named jpg"}),
        ("wide", {"jpg": picture(1, (10_000, 4)), "text": b"very wide"}),
        ("grey", {"jpeg": picture(1, mode="L"), "txt": b"grey"}),
        ("cmyk", {"jpg": picture(1, mode="CMYK"), "txt": b"four colours"}),
        ("none", {"jpg": good, "txt": b""}),
        ("blank", {"jpg": good, "txt": b"  \n"}),
        ("lonely", {"jpg": good}),
        ("silent", {"txt": b"no picture"}),
        ("cut", {"jpg": good[: len(good) // 3], "txt": b"half a picture"}),
        ("html", {"jpg": b"<html>404</html>", "txt": b"not a picture"}),
        ("long", {"jpg": good, "txt": ("word " * 300).encode()}),
        ("odd", {"jpg": good, "txt": b"\xff\xfe broken \xc3"}),
    ]
    return shard(path, samples)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_the_web_holds(tmp_path: Path, workers: int) -> None:
    path = bad_shard(tmp_path / "web.tar")
    shards = Shards([str(path)])
    assert shards.skipped == {"empty text": 1, "no text": 1, "no picture": 1}
    batches = loader([str(path)], batch_size=4, workers=workers)
    with pytest.warns(UserWarning, match="image-text pairs: unreadable picture; skipped"):
        seen = [batch for _ in range(6) for batch in batches]
    assert {len(batch.texts) for batch in seen} == {4}, "every batch is whole"
    assert all(batch.images.shape == (4, 3, SIZE, SIZE) for batch in seen)
    assert set(batches.skipped) == {"unreadable picture", "empty text"}
    resumed = loader([str(path)], batch_size=4)
    resumed.load_state_dict(batches.state_dict())
    assert resumed.skipped == batches.skipped, "a resumed run goes on counting"
    assert {"a png named jpg", "very wide", "grey", "four colours"} <= {text for batch in seen for text in batch.texts}
    assert not {"half a picture", "not a picture"} & {text for batch in seen for text in batch.texts}


def test_a_truncated_shard_gives_what_it_has(tmp_path: Path) -> None:
    path = Path(plain(tmp_path, shards=1, each=8)[0].replace("{000000..000000}", "000000"))
    whole = path.read_bytes()
    for size in (len(whole) // 2, 700, 100):
        path.write_bytes(whole[:size])
        found = scan(path)
        assert found.skipped.get("truncated shard") == 1 or size == 100, found.skipped
        assert len(found.extents) < 8
    path.write_bytes(whole[: len(whole) // 2])
    shards = Shards([str(path)])
    assert 2 <= len(shards) <= 5
    assert all(shards.pair(n)[1] == f"text {n}" for n in range(len(shards)))


def test_an_index_is_made_anew_when_the_file_has_changed(tmp_path: Path) -> None:
    patterns = plain(tmp_path, shards=1, each=4)
    assert len(Shards(patterns)) == len(Shards(patterns)) == 4
    plain(tmp_path, shards=1, each=6)
    assert len(Shards(patterns)) == 6


def test_no_shard_and_no_pair_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of 3 shards is there"):
        Shards([str(tmp_path / "{0..2}.tar")])
    path = shard(tmp_path / "empty.tar", [("a", {"jpg": picture(1)})])
    with pytest.raises(DataError, match=r"hold no pair of a picture and a text: \{'no text': 1\}"):
        Shards([str(path)])


def test_more_unreadable_pairs_than_spares_are_filled_up_and_counted(tmp_path: Path) -> None:
    samples = [(f"{n}", {"jpg": picture(n) if n < 3 else b"nothing", "txt": b"x"}) for n in range(7)]
    shards = Shards([str(shard(tmp_path / "a.tar", samples))])
    batch = Pairs(shards, 5, Stretch(SIZE), None, 0)[np.array([0, *range(7)])]
    assert len(batch.texts) == 5
    assert batch.skipped == {"unreadable picture": 4, "repeated": 2}
    with pytest.raises(DataError, match=r"no pair of a whole batch can be read; the first is .*a\.tar, byte"):
        Pairs(shards, 2, Stretch(SIZE), None, 0)[np.array([0, 3, 4, 5, 6])]


def test_a_killed_loader_process_is_replaced(tmp_path: Path) -> None:
    patterns = plain(tmp_path, shards=2, each=40)
    expected = texts(list(loader(patterns)))
    batches = loader(patterns, workers=2)
    seen = []
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        for batch in batches:
            seen.append(batch)
            if len(seen) == 3:
                worker = multiprocessing.active_children()[0]
                assert worker.pid is not None
                os.kill(worker.pid, signal.SIGKILL)
    assert texts(seen) == expected
    assert batches.lost == 1
