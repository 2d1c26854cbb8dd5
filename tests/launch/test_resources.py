"""Trials share GPUs by what they were measured to take."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rislab.errors import ConfigError
from rislab.launch.resources import FILL, Allocation, Device, Requirement, ResourcePool, chosen

TWO = [Device("0", 80_000.0), Device("1", 80_000.0)]


def test_small_ones_share_and_unmeasured_ones_do_not() -> None:
    places = ResourcePool(8, TWO)
    small = [places.take(Requirement(1, 20_000.0)) for _ in range(3)]
    assert [place and place.devices for place in small] == [("0",)] * 3
    assert places.take(Requirement(1)) == Allocation(("1",))
    assert places.take(Requirement(1, 20_000.0)) is None  # 0 is full to 90 %, 1 is taken whole
    assert places.take(Requirement(2)) is None


def test_a_large_one_gets_whole_gpus_and_cpu_trials_need_none() -> None:
    places = ResourcePool(3, TWO)
    assert places.take(Requirement(1, 79_000.0)) == Allocation(("0",))
    assert places.take(Requirement(2)) is None
    assert places.take(Requirement()) == Allocation()
    assert places.take(Requirement(1)) == Allocation(("1",))
    assert places.take(Requirement()) is None  # no slot


needs = st.builds(Requirement, st.integers(0, 3), st.none() | st.floats(1, 100_000))


@given(st.lists(needs | st.integers(0, 5), max_size=40), st.integers(1, 6))
def test_no_gpu_is_ever_given_out_beyond_its_memory(actions: list[Requirement | int], slots: int) -> None:
    places, held = ResourcePool(slots, TWO), []
    for action in actions:
        if isinstance(action, int):
            if action < len(held):
                places.give_back(held.pop(action))
            continue
        place = places.take(action)
        if place is not None:
            held.append(place)
            assert len(place.devices) == action.gpus
        assert len(held) <= slots
        for device in TWO:
            mine = [p for p in held if device.name in p.devices]
            alone = [p for p in mine if p.memory_mb is None]
            assert not alone or len(mine) == 1
            assert alone or sum(p.memory_mb or 0 for p in mine) <= FILL * device.memory_mb


def test_devices_are_how_many_or_which() -> None:
    assert chosen(None, TWO) == TWO
    assert chosen("1", TWO) == TWO[:1]
    assert chosen("1,", TWO) == TWO[1:]
    for wrong in ("3", "0", "x", "0,7"):
        with pytest.raises(ConfigError, match=r"--devices .*there are 0, 1"):
            chosen(wrong, TWO)
