"""What chronyd says of its clock: bytes and values."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntp.chrony import Tracking, decode_float, tracking_request
from ntp.packet import Leap, PacketError

# An answer of chronyd 4.3 to question 0x01020304, its fields put to values of their own.
GOLDEN_BYTES = bytes.fromhex(
    "06020000 0021 0005 0000 0000 0000 0000 01020304 00000000 00000000"
    "c0a80109 c0a8010900000000000000000000000000010000 0004 0001 00000000 6a800005 0000000b"
    "e7a00000 00000001 00000002 00000003 00000004 00000005 02800000 f8c00000 00000006"
)
GOLDEN = Tracking(
    reference_id=b"\xc0\xa8\x01\x09",
    stratum=4,
    leap=Leap.INSERT,
    reference_ns=0x6A800005 * 10**9 + 11,
    correction=-0.1875 * 2**-13,
    root_delay=0.25 * 2**1,
    root_dispersion=0.375 * 2**-4,
)


def encode_float(coefficient: int, exponent: int) -> int:
    return (exponent & 0x7F) << 25 | coefficient & 0x1FFFFFF


def test_the_question() -> None:
    # As long as its answer: a port that answers with more than it is asked can be turned against others.
    assert tracking_request(0x01020304) == bytes.fromhex("06010000 0021 0000 01020304") + bytes(92)
    assert len(tracking_request(0)) == len(GOLDEN_BYTES)


def test_golden() -> None:
    assert Tracking.parse(GOLDEN_BYTES, 0x01020304) == GOLDEN


def test_a_32_bit_chronyd_has_no_upper_seconds() -> None:
    data = bytearray(GOLDEN_BYTES)
    data[56:60] = bytes.fromhex("7fffffff")
    assert Tracking.parse(bytes(data), 0x01020304) == GOLDEN


def test_after_2106() -> None:
    data = bytearray(GOLDEN_BYTES)
    data[56:60] = bytes.fromhex("00000001")
    assert Tracking.parse(bytes(data), 0x01020304).reference_ns == 0x1_6A800005 * 10**9 + 11


@pytest.mark.parametrize(
    ("place", "what"),
    [
        (0, "question"),
        (1, "question"),
        (5, "question"),
        (7, "question"),
        (9, "question"),
        (19, "question"),
        (55, "leap"),
    ],
)
def test_what_is_no_answer(place: int, what: str) -> None:
    data = bytearray(GOLDEN_BYTES)
    data[place] += 3
    with pytest.raises(PacketError, match=what):
        Tracking.parse(bytes(data), 0x01020304)


@given(st.binary(max_size=150), st.booleans())
def test_any_bytes(data: bytes, headed: bool) -> None:
    try:
        Tracking.parse(GOLDEN_BYTES[:28] + data if headed else data, 0x01020304)
    except PacketError:
        return
    assert headed
    assert len(data) >= 76


@pytest.mark.parametrize(
    ("word", "value"),
    [
        (0, 0.0),
        (encode_float(1 << 23, 1), 0.5),
        (encode_float(1 << 23, 2), 1.0),
        (encode_float(-(1 << 23), 2), -1.0),
        (encode_float(-(1 << 24), 63), -(2.0**62)),
        (encode_float((1 << 24) - 1, -64), ((1 << 24) - 1) * 2.0**-89),
    ],
)
def test_numbers(word: int, value: float) -> None:
    assert decode_float(word) == value


@given(st.integers(0, 2**32 - 1))
def test_every_number_is_finite(word: int) -> None:
    (exponent,) = struct.unpack("b", bytes([(word >> 25) << 1]))
    assert abs(decode_float(word)) <= 2.0 ** (exponent // 2 - 1)
