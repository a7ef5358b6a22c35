"""monitoring/blocks: what goes in comes out, in few bytes; means keep the extremes; damage is a BlockError."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.blocks import CODES, Block, BlockError, decode, encode, means, rows_of, thin
from monitoring.metrics import METRICS, Sample


def day_of_one(rows: int, interval: int = 10, seed: int = 1) -> Block:
    """What a healthy Pi measures: some of it noise, some of it always the same."""
    chance, block, heat = random.Random(seed), Block.empty(), 45.0
    for number in range(rows):
        heat += chance.gauss(0, 0.3) + (45 - heat) * 0.05
        values = dict.fromkeys(
            ("under_voltage", "under_voltage_seen", "throttled", "throttled_seen", "card_errors"), 0.0
        )
        values |= {"cpu_percent": min(100, chance.expovariate(1 / 8)), "memory_percent": 30 + chance.gauss(0, 1)}
        values |= {"disk_percent": 42.0, "num_pids": 97.0 + chance.randrange(3), "temperature": heat, "up": 1.0}
        values |= {"load1": abs(chance.gauss(0.3, 0.1)), "uptime": 1e4 + number * interval}
        values |= {"clock_offset": chance.gauss(0, 2e-5), "ping_ms": abs(chance.gauss(0.4, 0.05)), "watts": 3.1}
        block.add(number * interval, {name: (METRICS[name].rounded(each),) * 3 for name, each in values.items()}, False)
    return block


def test_every_metric_has_a_code_of_its_own() -> None:
    assert CODES.keys() == METRICS.keys()
    assert len(set(CODES.values())) == len(CODES)
    assert max(CODES.values()) < 31  # a bit of a mask, and a key with two more bits


def test_an_hour_costs_six_bytes_a_reading_and_a_day_of_means_sixteen() -> None:
    hour = day_of_one(360)
    data = encode(hour)
    assert len(data) < 6 * 360
    assert decode(data) == hour
    day = Block.empty()
    for begin, values in means(day_of_one(8640), 0, 300).items():
        day.add(begin, values, is_mean=True)
    data = encode(day)
    assert len(day.times) == 288
    assert len(data) < 18 * 288
    again = decode(data)
    assert again.times == day.times
    for name, column in day.values.items():
        for table, others in ((column, again.values[name]), (day.lows[name], again.lows[name])):
            half = METRICS[name].resolution * 1.001
            assert all(abs(one - other) <= half for one, other in zip(table, others, strict=True) if one and other)


def test_one_metric_comes_out_without_the_others() -> None:
    block = Block.empty()
    block.add(0, {"temperature": (45.0, 44.0, 46.0), "up": (1.0, 1.0, 1.0)}, is_mean=True)
    block.add(300, {"up": (0.5, 0.0, 1.0)}, is_mean=True)
    data = encode(block)
    assert rows_of(data, "temperature", 1000) == [(1000, (45.0, 44.0, 46.0))]
    assert rows_of(data, "up", 1000) == [(1000, (1.0, 1.0, 1.0)), (1300, (0.5, 0.0, 1.0))]
    assert rows_of(data, "watts", 1000) == []
    assert decode(data) == block


def test_rows_come_into_order() -> None:
    block = Block.empty()
    for time, value in ((20, 2.0), (0, 0.0), (10, 1.0)):
        block.add(time, {"load1": (value,) * 3}, is_mean=False)
    block.sort()
    assert (block.times, block.values) == ([0, 10, 20], {"load1": [0.0, 1.0, 2.0]})


def test_means_of_means_keep_the_extremes_and_leave_out_what_was_not_measured() -> None:
    block = Block.empty()
    block.add(0, {"watts": (3.0, 1.0, 4.0)}, is_mean=True)
    block.add(300, {"up": (1.0, 1.0, 1.0)}, is_mean=True)
    block.add(600, {"watts": (5.0, 4.5, 9.0), "up": (0.0, 0.0, 0.0)}, is_mean=True)
    block.add(3600, {"up": (0.0, 0.0, 0.0)}, is_mean=True)
    assert means(block, 7200, 3600) == {
        7200: {"watts": (4.0, 1.0, 9.0), "up": (0.5, 0.0, 1.0)},
        10800: {"up": (0.0, 0.0, 0.0)},
    }


def test_many_samples_are_thinned_and_few_are_not() -> None:
    found = [(100.0 + number, (float(number), number - 1.0, number + 1.0)) for number in range(10)]
    assert thin(found, 100.0, 110.0, 10) == [Sample(when, *parts) for when, parts in found]
    assert thin(found, 100.0, 110.0, 2) == [Sample(100.0, 2.0, -1.0, 5.0), Sample(105.0, 7.0, 4.0, 10.0)]


numbers = st.none() | st.integers(-10, 10) | st.integers(-(2**52), 2**52)


@given(st.lists(numbers, max_size=40), st.sampled_from(["num_pids", "uptime", "load1"]))
def test_any_numbers_come_out_as_they_went_in(column: list[int | None], name: str) -> None:
    block = Block.empty()
    for time, number in enumerate(column):
        value = None if number is None else round(number * METRICS[name].resolution, 6)
        block.add(time, {} if value is None else {name: (value, value, value)}, is_mean=False)
    again = decode(encode(block))
    assert again.times == block.times
    for one, other in zip(block.values.get(name, []), again.values.get(name, []), strict=True):
        assert one == other or (one is not None and other is not None and math.isclose(one, other, rel_tol=1e-12))


@given(st.data())
def test_damage_is_a_block_error(data: st.DataObject) -> None:
    whole = encode(day_of_one(20))
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    if at < len(changed):
        changed[at] = data.draw(st.integers(0, 255))
    for read in (decode, lambda each: rows_of(each, "temperature", 0), lambda each: rows_of(each, "uptime", 0)):
        try:
            read(bytes(changed))
        except BlockError:
            continue


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no times"),
        (b"\1\x40\0\2\0\0\0\0\0", "no times"),
        (b"\1\0", "no times"),
        (b"\1\0\0", "directory is cut short"),
        (b"\1\0\0\2\0\0\0\x03\0", "a column is damaged"),  # no such width
        (b"\1\0\0\0\0\0\0", "a column is damaged"),  # an empty column
        (b"\3\0\0\4\0\0\0\x81\0\1\2", "a column is damaged"),  # two numbers for three
        (b"\1\0\0\x0c\0\0\0\0" + b"\xff" * 11, "a number without end"),
        (b"\3\0\0\x0c\0\0\0\x10" + b"\xff" * 8 + b"\x7f" + b"\0" * 2, "numbers that nobody measured"),
    ],
)
def test_what_is_no_block(data: bytes, reason: str) -> None:
    with pytest.raises(BlockError, match=reason):
        decode(data)
