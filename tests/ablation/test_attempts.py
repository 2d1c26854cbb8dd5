"""What follows from how a trial ended, and a history that survives what happens to files."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rislab.ablation.attempts import STALLED_AFTER, Attempt, Attempts, next_move, slurm_job


def ended(kind: str, reached: int, parts: int = 1) -> Attempt:
    return Attempt(0.0, "host", 1, "", 0, parts, kind, True, reached)


@pytest.mark.parametrize("kind", ["preempted", "lost", "timeout", "disk"])
def test_what_the_machine_does_is_gone_on_from_while_it_gets_further(kind: str) -> None:
    assert next_move([ended(kind, step) for step in range(1, 60)], False)[0] == "again"
    stuck = [ended(kind, 7)] * (STALLED_AFTER + 1)
    move, why = next_move(stuck, False)
    assert (move, why) == ("stop", f"{kind}: 4 starts in a row got no further than step 7")
    assert next_move([*stuck, ended(kind, 8)], False)[0] == "again"
    assert next_move(stuck[:-1], False)[0] == "again"


def spans(*steps: tuple[int, int]) -> list[Attempt]:
    """Starts that were lost, by the steps between which they trained."""
    return [Attempt(0.0, "host", 1, "", before, 1, "lost", True, reached) for before, reached in steps]


def test_a_start_whose_checkpoints_were_lost_gets_further_from_where_it_begins() -> None:
    """As a campaign of faults had it: half of every checkpoint gone at step 22, and a kill every three steps after that."""
    history = [(0, 12), (12, 22), (7, 7), (7, 10), (10, 14), (14, 17), (17, 20), (20, 22)]
    for number in range(2, len(history) + 1):
        assert next_move(spans(*history[:number]), False)[0] == "again", history[:number]
    stuck = [*history[:5], *[(13, 14)] * STALLED_AFTER]
    assert next_move(spans(*stuck), False) == ("stop", "lost: 4 starts in a row got no further than step 14")


def test_losing_checkpoints_again_and_again_comes_to_an_end() -> None:
    """Each start gets further than its beginning, and none further than step 15."""
    round_trip = [(12, 15), (7, 12)]
    moves = [next_move(spans((0, 12), *(round_trip * count)), False)[0] for count in range(1, 12)]
    assert moves[:2] == ["again", "again"]
    assert moves[-1] == "stop"
    assert moves == sorted(moves), "once it is given up it stays so"


@pytest.mark.parametrize("kind", ["data", "config", "bug", "cancelled"])
def test_what_a_person_must_mend_is_left(kind: str) -> None:
    assert next_move([ended(kind, 9)], True)[0] == "stop"


def test_nan_gets_one_more_start() -> None:
    assert next_move([ended("nan", 3)], True)[0] == "again"
    assert next_move([ended("nan", 3), ended("preempted", 4), ended("nan", 9)], True)[0] == "stop"


def test_out_of_memory_is_split_where_that_changes_nothing() -> None:
    assert next_move([ended("oom", 0)], can_split=False)[0] == "stop"
    assert next_move([ended("oom", 0)], can_split=True)[0] == "smaller"
    assert next_move([ended("oom", 0, parts=8)], can_split=True)[0] == "smaller"
    assert next_move([ended("oom", 0, parts=16)], can_split=True)[0] == "stop"


def test_a_start_without_an_end_was_lost(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path / "a.jsonl")
    attempts.begin(0, 1)
    attempts.begin(12, 1)  # what status.json said when it was started again
    attempts.end("preempted", 30)
    attempts.begin(30, 2)
    assert [(a.kind, a.reached, a.parts) for a in attempts.all()] == [
        ("lost", 12, 1),
        ("preempted", 30, 1),
        ("", 30, 2),
    ]
    attempts.reset_counts()
    assert attempts.counted() == []
    assert len(attempts.all()) == 3
    attempts.start_small(4)
    assert attempts.parts == 4


@given(st.lists(st.sampled_from(["begin", "end", "cut", "junk"]), max_size=30), st.integers(0, 40))
def test_no_damage_makes_it_unreadable_or_resets_whole_lines(actions: list[str], cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        attempts = Attempts(Path(folder) / "a.jsonl")
        begun = 0
        for action in actions:
            if action == "begin":
                attempts.begin(begun, 1)
                begun += 1
            elif action == "end":
                attempts.end("lost", begun)
            elif action == "junk":
                with attempts.path.open("ab") as file:
                    file.write(b'\xff{"begin": 3')
            elif attempts.path.exists():
                whole = attempts.path.read_bytes()
                if not whole.endswith(b"\n"):
                    continue
                last = whole.rstrip(b"\n").rpartition(b"\n")[2]
                begun -= b'"begin"' in last and _parses(last)
                attempts.path.write_bytes(whole[: max(0, len(whole) - 1 - cut % max(1, len(last)) - 1)])
        assert len(attempts.all()) == max(begun, 0)


def _parses(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def test_a_job_is_named_with_its_restarts() -> None:
    array = {"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "2", "SLURM_RESTART_COUNT": "3"}
    assert slurm_job({}) == ""
    assert slurm_job({"SLURM_JOB_ID": "12"}) == "12.0"
    assert slurm_job(array) == "10_2.3"
