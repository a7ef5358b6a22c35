"""TFTP messages: golden bytes both ways, and any bytes at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tftp.packet import (
    Ack,
    Data,
    Error,
    ErrorCode,
    OptionAck,
    Packet,
    PacketError,
    ReadRequest,
    WriteRequest,
    parse,
)

GOLDEN: list[tuple[Packet, bytes]] = [
    (ReadRequest("bootcode.bin"), b"\0\1bootcode.bin\0octet\0"),
    (
        ReadRequest("deadbeef/start4.elf", "octet", (("tsize", "0"), ("blksize", "1468"))),
        b"\0\1deadbeef/start4.elf\0octet\0tsize\x000\0blksize\x001468\0",
    ),
    (ReadRequest("\xff", "netascii", (("Odd", ""),)), b"\0\1\xff\0netascii\0Odd\0\0"),
    (WriteRequest("a", "mail", (("b", "c"),)), b"\0\2a\0mail\0b\0c\0"),
    (Data(0x0102, b"xyz"), b"\0\3\1\2xyz"),
    (Data(0xFFFF, b""), b"\0\3\xff\xff"),
    (Ack(0x0304), b"\0\4\3\4"),
    (Error(ErrorCode.FILE_NOT_FOUND, "not here"), b"\0\5\0\1not here\0"),
    (Error(0x0506, ""), b"\0\5\5\6\0"),
    (OptionAck((("tsize", "7"), ("blksize", "8"))), b"\0\6tsize\x007\0blksize\x008\0"),
]


@pytest.mark.parametrize(("packet", "wire"), GOLDEN)
def test_golden_packets_both_ways(packet: Packet, wire: bytes) -> None:
    assert packet.encode() == wire
    assert parse(wire) == packet


@pytest.mark.parametrize(
    ("wire", "packet"),
    [
        (b"\0\4\0\1padding", Ack(1)),
        (b"\0\5\0\0Early terminate", Error(0, "Early terminate")),
        (b"\0\1f\0OcTeT\0", ReadRequest("f", "octet")),
        (b"\0\1f\0octet\0tsize\x000\0\0\0\0", ReadRequest("f", "octet", (("tsize", "0"),))),
    ],
)
def test_what_boot_roms_write_is_understood(wire: bytes, packet: Packet) -> None:
    assert parse(wire) == packet


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"\0\4\0",
        b"\0\0\0\0",
        b"\0\7\0\1",
        b"\1\1f\0octet\0",
        b"\0\1file",
        b"\0\1file\0",
        b"\0\1file\0octet",
        b"\0\2file\0octet\0tsize\0",
        b"\0\6tsize\0",
        b"\0\6tsize\x001",
        b"\0\6\0\0",  # acknowledges nothing
    ],
)
def test_malformed(wire: bytes) -> None:
    with pytest.raises(PacketError):
        parse(wire)


text = st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=40)
options = st.lists(st.tuples(text.filter(bool), text), max_size=4).map(tuple)
ascii_mode = st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=10).map(
    lambda mode: mode.lower() if mode.isascii() else mode
)
number = st.integers(0, 0xFFFF)
packets: st.SearchStrategy[Packet] = st.one_of(
    st.builds(ReadRequest, text, ascii_mode, options),
    st.builds(WriteRequest, text, ascii_mode, options),
    st.builds(Data, number, st.binary(max_size=600)),
    st.builds(Ack, number),
    st.builds(Error, number, text),
    st.builds(OptionAck, options.filter(bool)),
)


@given(packets)
def test_what_is_encoded_is_parsed(packet: Packet) -> None:
    wire = packet.encode()
    if len(wire) >= 4:
        assert parse(wire) == packet


@given(
    st.one_of(st.binary(max_size=80), st.integers(0, 7).flatmap(lambda n: st.binary().map(lambda b: bytes((0, n)) + b)))
)
def test_any_bytes_are_a_packet_or_a_packet_error(wire: bytes) -> None:
    try:
        packet = parse(wire)
    except PacketError:
        return
    assert parse(packet.encode()) == packet


def test_text_beyond_latin_1_can_still_be_sent() -> None:
    assert Error(0, "€").encode() == b"\0\5\0\0?\0"
