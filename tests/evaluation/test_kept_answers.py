"""Answers that a trial keeps: whole splits, the same file from any number of processes, never more than the limit."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rislab.evaluation.kept_answers import (
    FILE,
    LONGEST,
    Answer,
    KeptAnswers,
    UnreadableAnswersError,
    map_from_bytes,
    map_to_bytes,
    read,
    small_map,
)


def answers(*units: int, size: int = 10) -> list[Answer]:
    return [Answer(unit, 4, 6, b"%010d" % unit if size == 10 else b"x" * size) for unit in units]


@settings(deadline=None, max_examples=30)
@given(st.permutations(list(range(12))), st.integers(1, 4))
def test_any_division_over_processes_gives_the_same_file(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], processes: int
) -> None:
    folder = tmp_path_factory.mktemp("division")
    parts = []
    for process in range(processes):
        kept = KeptAnswers(1000)
        kept.offer("val", answers(*order[process::processes], order[0]))  # the first one comes along, as padding does
        kept.offer("test", answers(*order[process::processes]))
        parts.append(kept.parts)
    whole = KeptAnswers(1000)
    whole.gather(parts)
    whole.write(folder, "run lengths")
    alone = KeptAnswers(1000)
    alone.offer("val", answers(*range(12)))
    alone.offer("test", answers(*range(12)))
    alone.gather([alone.parts])
    (folder / "alone").mkdir()
    alone.write(folder / "alone", "run lengths")
    assert (folder / FILE).read_bytes() == (folder / "alone" / FILE).read_bytes()
    found = read(folder / FILE)
    assert found.form == "run lengths"
    assert not found.left_out
    assert list(found.splits) == ["val", "test"]
    assert list(found.splits["val"].values()) == answers(*range(12))


def test_a_split_beyond_the_limit_is_left_out_whole_and_said(tmp_path: Path) -> None:
    kept = KeptAnswers(100)
    for split, units in (("val", range(6)), ("testA", range(50)), ("testB", range(5))):
        for unit in units:
            kept.offer(split, answers(unit))
            assert sum(len(part.answers) for part in kept.parts.values()) <= 25
    kept.gather([kept.parts])
    kept.write(tmp_path, "run lengths")
    found = read(tmp_path / FILE)
    assert {split: len(of) for split, of in found.splits.items()} == {"val": 6}
    assert found.left_out == {"testA": 500, "testB": 50}


def test_nothing_is_written_where_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"of an earlier start")
    kept = KeptAnswers(0)
    kept.gather([kept.parts])
    kept.write(tmp_path, "run lengths")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UnreadableAnswersError, match="kept no answers"):
        read(tmp_path / FILE)


def test_damaged_files_are_said(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(UnreadableAnswersError, match="cannot be read"):
        read(path)
    pq.write_table(pa.table({"split": ["val"], "unit": [1]}), path)
    with pytest.raises(UnreadableAnswersError, match="not as a trial writes it"):
        read(path)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 700), st.integers(1, 700))
def test_small_label_maps(height: int, width: int) -> None:
    labels = (np.arange(height)[:, None] // 40 + np.arange(width)[None] // 30).astype(np.uint8)
    small = small_map(labels)
    assert max(small.shape) <= max(LONGEST, 1)
    assert set(np.unique(small)) <= set(np.unique(labels))
    assert max(labels.shape) > LONGEST or np.array_equal(small, labels)
    assert np.array_equal(map_from_bytes(map_to_bytes(small)), small)


def test_no_map() -> None:
    with pytest.raises(UnreadableAnswersError, match="no PNG"):
        map_from_bytes(b"nothing")
