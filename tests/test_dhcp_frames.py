"""dhcp/frames.py: Ethernet, IPv4, UDP and ARP as bytes in both directions, and garbage by the thousand."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhcp.frames import Arp, Frame, encode_arp_request, parse_arp, parse_frame
from dhcp.packet import PacketError

FRAME = Frame(
    "b8:27:eb:01:02:03",
    "02:0a:0b:0c:0d:0e",
    IPv4Address("172.30.4.1"),
    IPv4Address("172.30.4.13"),
    0x1516,
    0x1718,
    b"\x19\x1a\x1b",
)
# Checksums by a plain loop over 16-bit words, not by the code under test.
FRAME_BYTES = bytes.fromhex(
    "020a0b0c0d0e b827eb010203 0800 4500001f 0000 4000 4011 da83 ac1e0401 ac1e040d 1516 1718 000b 3f45 191a1b"
)


def test_bytes_of_a_frame() -> None:
    assert FRAME.encode() == FRAME_BYTES


@pytest.mark.parametrize("padding", [b"", bytes(15), b"\xff"])
def test_frame_of_bytes(padding: bytes) -> None:
    assert parse_frame(FRAME_BYTES + padding) == FRAME


def changed(at: int, to: str) -> bytes:
    data = bytes.fromhex(to)
    return FRAME_BYTES[:at] + data + FRAME_BYTES[at + len(data) :]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "Ethernet"),
        (FRAME_BYTES[:13], "Ethernet"),
        (FRAME_BYTES[:33], "IP header"),
        (changed(12, "86dd"), "86dd"),
        (changed(14, "65"), "lengths"),
        (changed(14, "44"), "lengths"),
        (changed(16, "0013"), "lengths"),
        (FRAME_BYTES[:-1], "lengths"),
        (changed(20, "2000"), "one whole"),
        (changed(23, "06"), "one whole"),
        (changed(24, "0000"), "IP checksum"),
        (changed(16, "001b 0000 4000 4011 da87"), "UDP header"),
        (changed(38, "0007"), "UDP length"),
        (changed(38, "000c"), "UDP length"),
        (changed(40, "1c46"), "UDP checksum"),
    ],
)
def test_frames_refused(data: bytes, reason: str) -> None:
    with pytest.raises(PacketError, match=reason):
        parse_frame(data)


def test_no_checksum_and_one_that_a_card_would_fill_in() -> None:
    assert parse_frame(changed(40, "0000")) == FRAME
    assert parse_frame(changed(40, "1234"), checksum_ready=False) == FRAME


def test_a_checksum_of_zero_is_sent_as_all_ones() -> None:
    nobody = ("00:00:00:00:00:00", "00:00:00:00:00:00", IPv4Address(0), IPv4Address(0))
    data = Frame(*nobody, 0, 0, b"\xff\xda").encode()  # 11 + 0a + 0a of the headers and ffda make ffff
    assert data[40:42] == b"\xff\xff"
    assert parse_frame(data).payload == b"\xff\xda"


@given(st.binary(max_size=80), st.booleans())
def test_any_frame(data: bytes, ready: bool) -> None:
    for frame in (data, changed(12, "0800") + data, FRAME_BYTES[:14] + data):
        try:
            parse_frame(frame, ready)
        except PacketError:
            continue


@given(
    st.builds(IPv4Address, st.integers(0, 2**32 - 1)),
    st.builds(IPv4Address, st.integers(0, 2**32 - 1)),
    st.integers(0, 65535),
    st.integers(0, 65535),
    st.binary(max_size=600),
)
def test_any_frame_comes_back(
    source: IPv4Address, destination: IPv4Address, source_port: int, destination_port: int, payload: bytes
) -> None:
    frame = Frame(FRAME.source_mac, FRAME.destination_mac, source, destination, source_port, destination_port, payload)
    assert parse_frame(frame.encode()) == frame


# --- ARP ---

ARP_REQUEST = bytes.fromhex(
    "ffffffffffff b827eb010203 0806 0001 0800 06 04 0001 b827eb010203 ac1e0401 000000000000 ac1e0464"
) + bytes(18)
ARP_REPLY = bytes.fromhex(
    "b827eb010203 020a0b0c0d0e 0806 0001 0800 06 04 0002 020a0b0c0d0e ac1e0464 b827eb010203 ac1e0401"
)


def test_bytes_of_an_arp_request() -> None:
    assert (
        encode_arp_request("b8:27:eb:01:02:03", IPv4Address("172.30.4.1"), IPv4Address("172.30.4.100")) == ARP_REQUEST
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (ARP_REQUEST, Arp("b8:27:eb:01:02:03", IPv4Address("172.30.4.1"))),
        (ARP_REPLY, Arp("02:0a:0b:0c:0d:0e", IPv4Address("172.30.4.100"))),
    ],
)
def test_who_says_what_in_arp(data: bytes, said: Arp) -> None:
    assert parse_arp(data) == said


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (ARP_REPLY[:41], "truncated"),
        (FRAME_BYTES + bytes(20), "not ARP"),
        (ARP_REPLY[:14] + b"\0\6" + ARP_REPLY[16:], "something else"),
        (ARP_REPLY[:18] + b"\x08" + ARP_REPLY[19:], "something else"),
    ],
)
def test_arp_refused(data: bytes, reason: str) -> None:
    with pytest.raises(PacketError, match=reason):
        parse_arp(data)


@given(st.binary(max_size=80) | st.binary(max_size=40).map(lambda tail: ARP_REPLY[:14] + tail))
def test_any_arp(data: bytes) -> None:
    try:
        assert parse_arp(data).mac.count(":") == 5
    except PacketError:
        return
