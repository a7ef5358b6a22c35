"""lab/frames.py: both directions from one table, and any bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import frames
from lab.frames import Arp, Datagram

A, B = bytes.fromhex("020102030405"), bytes.fromhex("060708090a0b")
FRAME = bytes.fromhex(
    "060708090a0b 020102030405 08004500 001f 1234 0000 80 11 1498 0a000001 0a0000020044 0043 000b 26ec 616263"
)


def test_udp_golden() -> None:
    made = frames.encode_udp(A, B, (bytes((10, 0, 0, 1)), 68), (bytes((10, 0, 0, 2)), 67), b"abc", 128, 0x1234)
    assert made == FRAME
    parsed = frames.parse_udp(made)
    assert parsed == Datagram(A, bytes((10, 0, 0, 1)), 68, bytes((10, 0, 0, 2)), 67, b"abc", True)


def test_udp_without_checksum() -> None:
    made = frames.encode_udp(A, B, (b"\1\2\3\4", 5), (b"\6\7\x08\x09", 10), b"x", with_checksum=False)
    assert made[40:42] == b"\0\0"
    parsed = frames.parse_udp(made)
    assert parsed is not None
    assert parsed.intact


def test_a_wrong_checksum_is_seen() -> None:
    made = bytearray(frames.encode_udp(A, B, (b"\1\2\3\4", 5), (b"\6\7\x08\x09", 10), b"hello"))
    made[-1] ^= 1
    parsed = frames.parse_udp(bytes(made))
    assert parsed is not None
    assert not parsed.intact


def test_padding_after_the_datagram_is_not_payload() -> None:
    made = frames.encode_udp(A, B, (b"\1\2\3\4", 5), (b"\6\7\x08\x09", 10), b"hi")
    parsed = frames.parse_udp(made + bytes(16))
    assert parsed is not None
    assert parsed.payload == b"hi"


@pytest.mark.parametrize(
    ("at", "value"),
    [(12, 0x86), (14, 0x65), (14, 0x44), (17, 0xFF), (20, 0x20), (21, 0x01), (23, 6), (39, 7), (39, 0xFF)],
)
def test_what_is_no_whole_datagram(at: int, value: int) -> None:
    made = bytearray(frames.encode_udp(A, B, (b"\1\2\3\4", 5), (b"\6\7\x08\x09", 10), b"abc"))
    made[at] = value
    assert frames.parse_udp(bytes(made)) is None


@pytest.mark.parametrize(("operation", "target_mac"), [(frames.ARP_REQUEST, bytes(6)), (frames.ARP_REPLY, B)])
def test_arp(operation: int, target_mac: bytes) -> None:
    made = frames.encode_arp(operation, A, b"\1\2\3\4", target_mac, b"\5\6\7\x08")
    assert made[:6] == (B if any(target_mac) else frames.BROADCAST_MAC)
    assert len(made) == 42
    assert frames.parse_arp(made) == Arp(operation, A, b"\1\2\3\4", b"\5\6\7\x08")
    assert frames.parse_arp(made[:41]) is None
    assert frames.parse_udp(made) is None


@given(st.binary(max_size=80))
def test_any_bytes(data: bytes) -> None:
    ethernet = bytes(12)
    for frame in (data, ethernet + b"\x08\0" + data, ethernet + b"\x08\x06" + data):
        frames.parse_udp(frame)
        frames.parse_arp(frame)


@given(st.binary(max_size=1472), st.integers(0, 65535), st.integers(0, 65535))
def test_udp_round_trip(payload: bytes, source: int, destination: int) -> None:
    made = frames.encode_udp(A, B, (b"\1\2\3\4", source), (b"\6\7\x08\x09", destination), payload)
    assert frames.parse_udp(made) == Datagram(A, b"\1\2\3\4", source, b"\6\7\x08\x09", destination, payload, True)
