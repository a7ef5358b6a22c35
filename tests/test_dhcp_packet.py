"""dhcp/packet.py: one table of (packet, bytes) for both directions, real messages, and garbage by the thousand."""

from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhcp.boards import BOOT_ROM_GUID, Board, parse_guid
from dhcp.packet import (
    KINDS,
    MAGIC,
    Kind,
    MessageType,
    Op,
    Option,
    Packet,
    PacketError,
    RelayOption,
    Value,
    describe,
    encode_option,
    fit,
    make_reply,
    parse,
    relay_address,
)

MAC = bytes.fromhex("b827eb010203")

# Every field has a value of its own, so that none can be read from another's place.
GOLDEN = Packet(
    op=2,
    htype=1,
    hops=3,
    xid=0x04050607,
    secs=0x0809,
    flags=0x8A0B,
    ciaddr=IPv4Address("12.13.14.15"),
    yiaddr=IPv4Address("16.17.18.19"),
    siaddr=IPv4Address("20.21.22.23"),
    giaddr=IPv4Address("24.25.26.27"),
    chaddr=MAC,
    sname="boot-server",
    file="boot-file",
    options={
        Option.MESSAGE_TYPE: 5,
        Option.SERVER_IDENTIFIER: IPv4Address("28.29.30.31"),
        Option.ROUTER: (IPv4Address("32.33.34.35"), IPv4Address("36.37.38.39")),
        Option.LEASE_TIME: 0x40414243,
        Option.MAX_MESSAGE_SIZE: 0x4445,
        Option.HOST_NAME: "pi-é",
        Option.PARAMETER_REQUEST_LIST: (70, 71, 72),
        224: b"\x49\x4a",
        Option.VENDOR_SPECIFIC: b"",
    },
)
GOLDEN_BYTES = (
    bytes.fromhex("02010603 04050607 0809 8a0b 0c0d0e0f 10111213 14151617 18191a1b b827eb010203")
    + bytes(10)
    + b"boot-server".ljust(64, b"\0")
    + b"boot-file".ljust(128, b"\0")
    + MAGIC
    + bytes.fromhex("350105 36041c1d1e1f 03082021222324252627 330440414243 39024445 0c05")
    + "pi-é".encode()
    + bytes.fromhex("3703464748 e002494a 2b00 ff")
)

EMPTY = Packet(op=1, xid=0, chaddr=b"")
EMPTY_BYTES = b"\x01\x01" + bytes(234) + MAGIC + b"\xff"

LONG = bytes(range(256)) * 2
LONG_OPTION = Packet(op=1, xid=1, chaddr=MAC, options={43: LONG})
LONG_BYTES = (
    bytes.fromhex("01010600 00000001")
    + bytes(20)
    + MAC
    + bytes(10 + 192)
    + MAGIC
    + b"\x2b\xff"
    + LONG[:255]
    + b"\x2b\xff"
    + LONG[255:510]
    + b"\x2b\x02"
    + LONG[510:]
    + b"\xff"
)
TABLE = [(GOLDEN, GOLDEN_BYTES), (EMPTY, EMPTY_BYTES), (LONG_OPTION, LONG_BYTES)]


@pytest.mark.parametrize(("packet", "data"), TABLE)
def test_bytes_of_a_packet(packet: Packet, data: bytes) -> None:
    assert packet.encode() == data.ljust(300, b"\0")


@pytest.mark.parametrize(("packet", "data"), TABLE)
def test_packet_of_bytes(packet: Packet, data: bytes) -> None:
    parsed = parse(data)
    assert parsed == packet
    assert list(parsed.options) == list(packet.options)


# The options areas of captures of real boards: what they really send.
PXE = b"\x3c\x20PXEClient:Arch:00000:UNDI:002001\xff"
BOOT_ROM = bytes.fromhex("350101370c2b3c438081828384858687425d0200005e030102016111") + BOOT_ROM_GUID + PXE
SECOND_STAGE = bytes.fromhex(
    "350101370e2b3c4380818283848586874201035d0200005e03010201611100164c6cb6164c6cb6164c6cb6164c6cb6"
)
PI4 = bytes.fromhex("350101370e01032b3c424380818283848586875d0200005e030102016111003469505214 31d000010902f73df0cd91")


def discover(options: bytes, xid: int = 0x26F30339) -> bytes:
    return (
        bytes.fromhex("01010600") + struct.pack("!I", xid) + bytes(20) + MAC.ljust(16, b"\0") + bytes(192) + MAGIC
    ) + options


@pytest.mark.parametrize(
    ("options", "size", "board"),
    [
        (BOOT_ROM, 320, Board()),
        (SECOND_STAGE + PXE, 322, Board(serial="b66c4c16")),
        (PI4 + PXE, 322, Board("Pi 4", "91cdf03d", "d03114")),
    ],
)
def test_what_a_pi_sends(options: bytes, size: int, board: Board) -> None:
    data = discover(options)
    packet = parse(data)
    assert len(data) == size
    assert packet.mac == "b8:27:eb:01:02:03"
    assert packet.number(Option.MESSAGE_TYPE) == MessageType.DISCOVER
    assert packet.text(Option.VENDOR_CLASS) == "PXEClient:Arch:00000:UNDI:002001"
    assert not packet.wants_broadcast
    assert 43 in packet.requested()
    assert packet.raw(94) == b"\x01\x02\x01"
    assert parse_guid(packet.raw(Option.CLIENT_GUID)) == board


def test_the_broadcast_flag_is_not_in_secs() -> None:
    assert Packet(op=1, xid=1, chaddr=MAC, flags=0x8000).wants_broadcast
    assert not Packet(op=1, xid=1, chaddr=MAC, secs=0x8000).wants_broadcast
    assert parse(bytes(EMPTY_BYTES[:10]) + b"\x80\x00" + EMPTY_BYTES[12:]).wants_broadcast


@pytest.mark.parametrize(
    ("htype", "chaddr", "mac"),
    [(1, MAC, "b8:27:eb:01:02:03"), (6, MAC, ""), (1, MAC[:5], ""), (1, bytes(16), "")],
)
def test_mac(htype: int, chaddr: bytes, mac: str) -> None:
    assert Packet(op=1, xid=1, chaddr=chaddr, htype=htype).mac == mac


def test_accessors_give_nothing_for_another_kind() -> None:
    packet = Packet(op=1, xid=1, chaddr=MAC, options={1: "text", 2: 5, 55: b"raw", 3: (IPv4Address("10.0.0.1"),)})
    assert packet.address(1) is None
    assert packet.number(1, 7) == 7
    assert packet.number(2) == 5
    assert packet.text(2) == ""
    assert packet.raw(2) == b""
    assert packet.requested() == ()


# --- overload, long options, odd endings ---


def overloaded(overload: int, options: bytes, sname: bytes, file: bytes) -> Packet:
    head = EMPTY_BYTES[:44] + sname.ljust(64, b"\0") + file.ljust(128, b"\0") + MAGIC
    return parse(head + bytes((52, 1, overload)) + options + b"\xff")


@pytest.mark.parametrize(
    ("overload", "host", "sname", "file"),
    [
        (0, "a", "\x0c\x01c\udcff", "\x0c\x01b\udcff"),
        (1, "ab", "\x0c\x01c\udcff", ""),
        (2, "ac", "", "\x0c\x01b\udcff"),
        (3, "abc", "", ""),
    ],
)
def test_overload_joins_options_then_file_then_sname(overload: int, host: str, sname: str, file: str) -> None:
    packet = overloaded(overload, b"\x0c\x01a", b"\x0c\x01c\xff", b"\x0c\x01b\xff")
    assert packet.text(Option.HOST_NAME) == host
    assert (packet.sname, packet.file) == (sname, file)
    assert Option.OVERLOAD not in packet.options


def test_overload_inside_an_overloaded_field_means_nothing() -> None:
    assert overloaded(1, b"", b"name", b"\x34\x01\x02\xff").sname == "name"


def test_padding_between_options_and_a_missing_end() -> None:
    data = EMPTY_BYTES[:240] + b"\0\0\x35\x01\x03\0\0\0"
    assert parse(data).options == {Option.MESSAGE_TYPE: 3}


def test_nothing_after_the_end_is_read() -> None:
    assert parse(EMPTY_BYTES + b"\x35\x09").options == {}


def test_text_that_is_no_utf8_survives() -> None:
    packet = parse(EMPTY_BYTES[:240] + b"\x0c\x02\xe9\x41\xff")
    assert packet.encode()[240:245] == b"\x0c\x02\xe9\x41\xff"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "0 bytes"),
        (EMPTY_BYTES[:239], "239 bytes"),
        (bytes(4097), "4097 bytes"),
        (bytes(300), "magic cookie"),
        (b"\x01\x01\x11" + EMPTY_BYTES[3:], "17 bytes"),
        (EMPTY_BYTES[:240] + b"\x0c", "option 12 runs"),
        (EMPTY_BYTES[:240] + b"\x0c\x05abc", "option 12 runs"),
        (EMPTY_BYTES[:240] + b"\x32\x03abc\xff", "option 50 has 3 bytes"),
        (EMPTY_BYTES[:240] + b"\x03\x00\xff", "option 3 has 0 bytes"),
        (EMPTY_BYTES[:240] + b"\x03\x05abcde\xff", "option 3 has 5 bytes"),
        (EMPTY_BYTES[:240] + b"\x35\x01\x01\x35\x01\x01\xff", "option 53 has 2 bytes"),
        (EMPTY_BYTES[:240] + b"\x34\x01\x04\xff", "overload"),
        (EMPTY_BYTES[:240] + b"\x34\x00\xff", "overload"),
    ],
)
def test_refused(data: bytes, reason: str) -> None:
    with pytest.raises(PacketError, match=reason):
        parse(data)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"chaddr": bytes(17)}, "too long"),
        ({"sname": "s" * 65}, "too long"),
        ({"file": "f" * 129}, "too long"),
        ({"file": "a\0b"}, "NUL"),
        ({"sname": "\ud800"}, "text"),
        ({"xid": 1 << 32}, "out of range"),
        ({"secs": -1}, "out of range"),
        ({"options": {0: b""}}, "option 0"),
        ({"options": {52: b"\1"}}, "option 52"),
        ({"options": {255: b""}}, "option 255"),
        ({"options": {256: b""}}, "option 256"),
        ({"options": {12: b"raw"}}, "option 12 is text"),
        ({"options": {53: 256}}, "cannot hold"),
        ({"options": {55: (256,)}}, "cannot hold"),
        ({"options": {3: ()}}, "0 bytes"),
    ],
)
def test_not_encodable(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(PacketError, match=reason):
        replace(EMPTY, **fields).encode()


def test_fit_leaves_out_what_does_not_fit_and_keeps_the_order() -> None:
    options: dict[int, Value] = {53: 1, 224: bytes(300), 12: "pi", 225: b"x"}
    size = 240 + 1 + 3 + 4
    assert fit(options, size) == {53: 1, 12: "pi"}
    assert list(fit(options, 1000)) == list(options)
    packet = Packet(op=1, xid=1, chaddr=MAC, options=fit(options, 240 + 1 + 3 + 304 + 4))
    assert len(packet.encode()) == 240 + 1 + 3 + 304 + 4
    assert len(encode_option(224, bytes(300))) == 304


def test_a_reply_copies_what_table_3_says() -> None:
    reply = make_reply(GOLDEN, {53: 2}, yiaddr=IPv4Address("10.0.0.1"))
    assert reply == Packet(
        op=Op.REPLY,
        xid=GOLDEN.xid,
        chaddr=MAC,
        options={53: 2},
        flags=GOLDEN.flags,
        giaddr=GOLDEN.giaddr,
        yiaddr=IPv4Address("10.0.0.1"),
    )


# --- any packet, any bytes ---

addresses = st.integers(0, 2**32 - 1).map(IPv4Address)
values: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.IP: addresses,
    Kind.IPS: st.lists(addresses, min_size=1, max_size=80).map(tuple),
    Kind.U8: st.integers(0, 255),
    Kind.U16: st.integers(0, 65535),
    Kind.U32: st.integers(0, 2**32 - 1),
    Kind.TEXT: st.text(st.characters(codec="utf-8"), max_size=100),
    Kind.CODES: st.lists(st.integers(0, 255), max_size=30).map(tuple),
    Kind.RAW: st.binary(max_size=600),
}
codes = st.integers(1, 254).filter(lambda code: code != Option.OVERLOAD)
option = codes.flatmap(lambda code: st.tuples(st.just(code), values[KINDS.get(code, Kind.RAW)]))


def short_text(size: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=size // 4)


packets = st.builds(
    Packet,
    op=st.integers(0, 255),
    xid=st.integers(0, 2**32 - 1),
    chaddr=st.binary(max_size=16),
    options=st.lists(option, max_size=4, unique_by=lambda item: item[0]).map(dict),
    htype=st.integers(0, 255),
    hops=st.integers(0, 255),
    secs=st.integers(0, 65535),
    flags=st.integers(0, 65535),
    ciaddr=addresses,
    yiaddr=addresses,
    siaddr=addresses,
    giaddr=addresses,
    sname=short_text(64),
    file=short_text(128),
)


@given(packets)
def test_any_packet_comes_back(packet: Packet) -> None:
    data = packet.encode()
    assert len(data) >= 300
    assert parse(data) == packet


def parses(data: bytes) -> None:
    try:
        packet = parse(data)
    except PacketError:
        return
    assert parse(packet.encode()) == packet


@given(st.binary(max_size=700))
def test_any_bytes(data: bytes) -> None:
    parses(data)


@given(st.binary(min_size=236, max_size=236), st.binary(max_size=400))
def test_any_bytes_after_a_cookie(head: bytes, tail: bytes) -> None:
    parses(head[:2] + b"\x06" + head[3:] + MAGIC + tail)


@given(st.binary(min_size=64, max_size=64), st.binary(min_size=128, max_size=128), st.integers(0, 4))
def test_any_overload(sname: bytes, file: bytes, overload: int) -> None:
    parses(EMPTY_BYTES[:44] + sname + file + MAGIC + bytes((52, 1, overload, 255)))


# --- what a relay agent adds ---


@pytest.mark.parametrize(
    ("agent", "link"),
    [
        (b"", None),
        (bytes.fromhex("0104 706f7274 0504 0a020001"), IPv4Address("10.2.0.1")),
        (bytes.fromhex("0504 0a020001 0504 0a020002"), IPv4Address("10.2.0.1")),
        (bytes.fromhex("0503 0a0200"), None),
        (bytes.fromhex("0504 0a0200"), None),
        (bytes.fromhex("01ff 0504 0a020001"), None),
        (b"\x05", None),
    ],
)
def test_an_address_in_option_82(agent: bytes, link: IPv4Address | None) -> None:
    packet = Packet(op=1, xid=1, chaddr=MAC, options={82: agent})
    assert relay_address(packet, RelayOption.LINK_SELECTION) == link
    assert relay_address(packet, RelayOption.SERVER_OVERRIDE) is None


# --- in words ---


def test_a_message_in_words() -> None:
    assert describe(GOLDEN) == (
        "DHCPACK b8:27:eb:01:02:03 xid 04050607 secs 2057 hops 3 flags 35339 ciaddr 12.13.14.15 yiaddr 16.17.18.19 "
        'siaddr 20.21.22.23 giaddr 24.25.26.27 sname "boot-server" file "boot-file"; server identifier 28.29.30.31; '
        'router 32.33.34.35, 36.37.38.39; lease time 1078018627; max message size 17477; host name "pi-?"; '
        "parameter request list option 70, option 71, option 72; option 224 494a; vendor specific "
    )
    pi = parse(discover(PI4 + PXE))
    assert describe(pi) == (
        "DHCPDISCOVER b8:27:eb:01:02:03 xid 26f30339; parameter request list subnet mask, router, vendor specific, "
        "vendor class, tftp server name, boot file name, option 128, option 129, option 130, option 131, option 132, "
        "option 133, option 134, option 135; client architecture 0000; client network interface 010201; "
        'client guid 00346950521431d000010902f73df0cd91; vendor class "PXEClient:Arch:00000:UNDI:002001"'
    )


def test_what_is_long_is_cut_and_what_is_odd_is_shown() -> None:
    packet = Packet(op=3, xid=1, chaddr=b"\1\2", htype=6, options={53: 99, 43: bytes(300), 12: "\x1b" * 99})
    assert describe(packet) == (
        f'message 3/99 hardware 6/0102 xid 00000001; vendor specific {"0" * 61}...; host name "{"?" * 61}..."'
    )


@given(packets)
def test_any_packet_in_words(packet: Packet) -> None:
    line = describe(packet)
    assert line.isascii()
    assert line.isprintable()
