"""lab/wire.py: the faults of a cable, in the time they are told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lab.wire import Faults, FaultyPath

FRAMES = [bytes((number % 256, number // 256)) for number in range(2000)]


def carried(faults: Faults, direction: int = 0) -> list[bytes]:
    path = FaultyPath(faults, direction)
    out = []
    for number, frame in enumerate(FRAMES):
        path.put(frame, number * 0.001)
        out += path.due(number * 0.001)
    return out + path.due(1e9)


def test_a_good_cable() -> None:
    assert not Faults(seed=3)
    assert carried(Faults()) == FRAMES


def test_loss() -> None:
    out = carried(Faults(loss=0.2))
    assert 0.7 < len(out) / len(FRAMES) < 0.9
    assert out == sorted(out, key=FRAMES.index)


def test_duplicates_follow_one_another() -> None:
    out = carried(Faults(duplicate=0.5))
    assert 1.4 < len(out) / len(FRAMES) < 1.6
    assert list(dict.fromkeys(out)) == FRAMES


def test_reorder_loses_nothing() -> None:
    out = carried(Faults(reorder=0.1))
    assert out != FRAMES
    assert sorted(out) == sorted(FRAMES)


def test_delay() -> None:
    path = FaultyPath(Faults(delay=0.5))
    assert path.deadline is None
    path.put(b"one", 10.0)
    assert path.deadline == 10.5
    assert path.due(10.4) == []
    assert path.due(10.5) == [b"one"]
    assert path.deadline is None


@given(st.integers(0, 1000))
def test_a_seed_does_the_same_twice_and_each_way_its_own(seed: int) -> None:
    faults = Faults(loss=0.1, duplicate=0.1, reorder=0.1, seed=seed)
    assert carried(faults) == carried(faults) != carried(faults, 1)
