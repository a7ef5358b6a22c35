"""DHCP messages, and the frames they travel in, as bytes and as dataclasses. Must hold no decision and no socket.

RFC 2131 (the message), RFC 2132 (options), RFC 3396 (long options), RFC 4578 (options 93, 94, 97 of PXE clients).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from ipaddress import IPv4Address

MAGIC = b"\x63\x82\x53\x63"  # RFC 2131 section 3
MIN_PACKET = 300  # BOOTP (RFC 951): there are clients and switches that drop anything shorter
MAX_PACKET = 4096  # no client sends a quarter of it
BROADCAST_FLAG = 0x8000  # of `flags`, bytes 10-11; bytes 8-9 before it are `secs`
NO_ADDRESS = IPv4Address(0)

_HEADER = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")


class PacketError(ValueError):
    """These bytes are no such packet, or this packet has no bytes; the text says why."""


class Op(IntEnum):
    """Direction of a message."""

    REQUEST = 1
    REPLY = 2


class MessageType(IntEnum):
    """Option 53 (RFC 2132 section 9.6)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


class Option(IntEnum):
    """Option codes by the words of their RFCs. Others are legal, and travel as raw bytes."""

    PAD = 0
    SUBNET_MASK = 1
    ROUTER = 3
    DOMAIN_NAME_SERVER = 6
    HOST_NAME = 12
    DOMAIN_NAME = 15
    BROADCAST_ADDRESS = 28
    NTP_SERVERS = 42
    VENDOR_SPECIFIC = 43
    REQUESTED_ADDRESS = 50
    LEASE_TIME = 51
    OVERLOAD = 52
    MESSAGE_TYPE = 53
    SERVER_IDENTIFIER = 54
    PARAMETER_REQUEST_LIST = 55
    MESSAGE = 56
    MAX_MESSAGE_SIZE = 57
    RENEWAL_TIME = 58
    REBINDING_TIME = 59
    VENDOR_CLASS = 60
    CLIENT_IDENTIFIER = 61
    TFTP_SERVER_NAME = 66
    BOOT_FILE_NAME = 67
    CLIENT_GUID = 97
    END = 255


class Kind(Enum):
    """How an option's bytes are read."""

    IP = "one address"
    IPS = "addresses"
    U8 = "a byte"
    U16 = "16 bits"
    U32 = "32 bits"
    TEXT = "text"
    CODES = "option codes"
    RAW = "bytes"


KINDS: Mapping[int, Kind] = {
    Option.SUBNET_MASK: Kind.IP,
    Option.ROUTER: Kind.IPS,
    Option.DOMAIN_NAME_SERVER: Kind.IPS,
    Option.HOST_NAME: Kind.TEXT,
    Option.DOMAIN_NAME: Kind.TEXT,
    Option.BROADCAST_ADDRESS: Kind.IP,
    Option.NTP_SERVERS: Kind.IPS,
    Option.REQUESTED_ADDRESS: Kind.IP,
    Option.LEASE_TIME: Kind.U32,
    Option.MESSAGE_TYPE: Kind.U8,
    Option.SERVER_IDENTIFIER: Kind.IP,
    Option.PARAMETER_REQUEST_LIST: Kind.CODES,
    Option.MESSAGE: Kind.TEXT,
    Option.MAX_MESSAGE_SIZE: Kind.U16,
    Option.RENEWAL_TIME: Kind.U32,
    Option.REBINDING_TIME: Kind.U32,
    Option.VENDOR_CLASS: Kind.TEXT,
    Option.TFTP_SERVER_NAME: Kind.TEXT,
    Option.BOOT_FILE_NAME: Kind.TEXT,
}

Value = IPv4Address | tuple[IPv4Address, ...] | tuple[int, ...] | int | str | bytes

_SIZES = {Kind.IP: 4, Kind.U8: 1, Kind.U16: 2, Kind.U32: 4}
_TYPES: Mapping[Kind, type] = {
    Kind.IP: IPv4Address,
    Kind.IPS: tuple,
    Kind.U8: int,
    Kind.U16: int,
    Kind.U32: int,
    Kind.TEXT: str,
    Kind.CODES: tuple,
    Kind.RAW: bytes,
}


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _addresses(data: bytes) -> tuple[IPv4Address, ...]:
    return tuple(IPv4Address(data[i : i + 4]) for i in range(0, len(data), 4))


def _text(data: bytes) -> str:
    """Bytes that are no UTF-8 survive as lone surrogates: a client's odd host name is no reason to refuse it."""
    return data.decode("utf-8", "surrogateescape")


def _text_bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise PacketError(f"{text!r} cannot be sent as text") from error


_DECODERS: Mapping[Kind, Callable[[bytes], Value]] = {
    Kind.IP: IPv4Address,
    Kind.IPS: _addresses,
    Kind.U8: _number,
    Kind.U16: _number,
    Kind.U32: _number,
    Kind.TEXT: _text,
    Kind.CODES: tuple,
    Kind.RAW: bytes,
}


def _check_size(code: int, kind: Kind, data: bytes) -> None:
    if len(data) != _SIZES.get(kind, len(data)) or (kind is Kind.IPS and (not data or len(data) % 4)):
        raise PacketError(f"option {code} has {len(data)} bytes, which is not {kind.value}")


def _decode_value(code: int, data: bytes) -> Value:
    kind = KINDS.get(code, Kind.RAW)
    _check_size(code, kind, data)
    return _DECODERS[kind](data)


def _value_bytes(kind: Kind, value: Value) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return _text_bytes(value)
    if isinstance(value, int):
        return value.to_bytes(_SIZES[kind], "big")
    if isinstance(value, IPv4Address):
        return value.packed
    return b"".join(bytes([item]) if isinstance(item, int) else item.packed for item in value)


def encode_option(code: int, value: Value) -> bytes:
    """One option as it travels, in as many pieces of 255 bytes as it takes (RFC 3396 section 7)."""
    kind = KINDS.get(code, Kind.RAW)
    if code in (Option.PAD, Option.OVERLOAD, Option.END) or not 0 < code < 255:
        raise PacketError(f"option {code} cannot be sent")
    if not isinstance(value, _TYPES[kind]):
        raise PacketError(f"option {code} is {kind.value}, not {value!r}")
    try:
        data = _value_bytes(kind, value)
    except (OverflowError, ValueError) as error:
        raise PacketError(f"option {code} cannot hold {value!r}") from error
    _check_size(code, kind, data)
    pieces = [data[i : i + 255] for i in range(0, len(data), 255)] or [b""]
    return b"".join(bytes((code, len(piece))) + piece for piece in pieces)


def _read_options(area: bytes, into: dict[int, bytes]) -> None:
    """Join the options of one area to those read before (RFC 3396). The area's end may stand for a missing END."""
    at = 0
    while at < len(area) and area[at] != Option.END:
        code = area[at]
        at += 1
        if code == Option.PAD:
            continue
        if at == len(area) or at + 1 + area[at] > len(area):
            raise PacketError(f"option {code} runs past the end")
        into[code] = into.get(code, b"") + area[at + 1 : at + 1 + area[at]]
        at += 1 + area[at]


@dataclass(frozen=True, slots=True)
class Packet:
    """A DHCP message (RFC 2131 section 2). `options` keeps its order, and is sent in it; option 52 is never in it."""

    op: int
    xid: int
    chaddr: bytes  # as long as hlen says, at most 16
    options: Mapping[int, Value] = field(default_factory=dict)
    htype: int = 1
    hops: int = 0
    secs: int = 0
    flags: int = 0
    ciaddr: IPv4Address = NO_ADDRESS
    yiaddr: IPv4Address = NO_ADDRESS
    siaddr: IPv4Address = NO_ADDRESS
    giaddr: IPv4Address = NO_ADDRESS
    sname: str = ""
    file: str = ""

    @property
    def mac(self) -> str:
        """The hardware address as `aa:bb:cc:dd:ee:ff`; "" where it is not Ethernet's."""
        return self.chaddr.hex(":") if self.htype == 1 and len(self.chaddr) == 6 else ""

    @property
    def wants_broadcast(self) -> bool:
        return bool(self.flags & BROADCAST_FLAG)

    def address(self, code: int) -> IPv4Address | None:
        value = self.options.get(code)
        return value if isinstance(value, IPv4Address) else None

    def number(self, code: int, default: int = 0) -> int:
        value = self.options.get(code)
        return value if isinstance(value, int) else default

    def text(self, code: int) -> str:
        value = self.options.get(code)
        return value if isinstance(value, str) else ""

    def raw(self, code: int) -> bytes:
        value = self.options.get(code)
        return value if isinstance(value, bytes) else b""

    def requested(self) -> tuple[int, ...]:
        """The parameter request list, option 55; empty where there is none."""
        value = self.options.get(Option.PARAMETER_REQUEST_LIST, ())
        return tuple(item for item in value if isinstance(item, int)) if isinstance(value, tuple) else ()

    def encode(self) -> bytes:
        """At least 300 bytes. PacketError where a field does not fit its place."""
        sname, file = _text_bytes(self.sname), _text_bytes(self.file)
        if len(self.chaddr) > 16 or len(sname) > 64 or len(file) > 128:
            raise PacketError("chaddr, sname or file is too long")
        if b"\0" in sname + file:
            raise PacketError("a NUL would end sname or file early")
        try:
            header = _HEADER.pack(
                self.op,
                self.htype,
                len(self.chaddr),
                self.hops,
                self.xid,
                self.secs,
                self.flags,
                self.ciaddr.packed,
                self.yiaddr.packed,
                self.siaddr.packed,
                self.giaddr.packed,
                self.chaddr,
                sname,
                file,
                MAGIC,
            )
        except struct.error as error:
            raise PacketError(f"a field is out of range: {error}") from error
        options = b"".join(encode_option(code, value) for code, value in self.options.items())
        return (header + options + b"\xff").ljust(MIN_PACKET, b"\0")


def parse(data: bytes) -> Packet:
    """Read a message; PacketError, and nothing else, where the bytes are none."""
    if not _HEADER.size <= len(data) <= MAX_PACKET:
        raise PacketError(f"{len(data)} bytes, a message has {_HEADER.size} to {MAX_PACKET}")
    op, htype, hlen, hops, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr, chaddr, sname, file, magic = (
        _HEADER.unpack_from(data)
    )
    if magic != MAGIC:
        raise PacketError("no DHCP magic cookie")
    if hlen > 16:
        raise PacketError(f"a hardware address of {hlen} bytes")
    raw: dict[int, bytes] = {}
    _read_options(data[_HEADER.size :], raw)
    # RFC 2131 section 4.1 and RFC 3396 section 5: options first, then `file`, then `sname`, where 52 says so.
    overload = raw.pop(Option.OVERLOAD, b"\0")
    if len(overload) != 1 or overload[0] > 3:
        raise PacketError(f"option overload is {overload.hex()}")
    if overload[0] & 1:
        _read_options(file, raw)
        file = b""
    if overload[0] & 2:
        _read_options(sname, raw)
        sname = b""
    raw.pop(Option.OVERLOAD, None)
    return Packet(
        op,
        xid,
        chaddr[:hlen],
        {code: _decode_value(code, value) for code, value in raw.items()},
        htype,
        hops,
        secs,
        flags,
        IPv4Address(ciaddr),
        IPv4Address(yiaddr),
        IPv4Address(siaddr),
        IPv4Address(giaddr),
        _text(sname.split(b"\0", 1)[0]),
        _text(file.split(b"\0", 1)[0]),
    )


def fit(options: Mapping[int, Value], limit: int) -> dict[int, Value]:
    """The options, in their order, that fit a message of `limit` bytes; those that do not are left out."""
    room = limit - _HEADER.size - 1
    kept: dict[int, Value] = {}
    for code, value in options.items():
        size = len(encode_option(code, value))
        if size <= room:
            kept[code] = value
            room -= size
    return kept


def make_reply(
    request: Packet,
    options: Mapping[int, Value],
    *,
    ciaddr: IPv4Address = NO_ADDRESS,
    yiaddr: IPv4Address = NO_ADDRESS,
    siaddr: IPv4Address = NO_ADDRESS,
) -> Packet:
    """A reply, with what RFC 2131 table 3 says is copied from the request."""
    return Packet(
        op=Op.REPLY,
        xid=request.xid,
        chaddr=request.chaddr,
        options=options,
        htype=request.htype,
        flags=request.flags,
        giaddr=request.giaddr,
        ciaddr=ciaddr,
        yiaddr=yiaddr,
        siaddr=siaddr,
    )


# --- what a Pi says of itself in option 97 ---------------------------------------------------------------------------

# Types of the new-style revision code, bits 4 to 11 (Raspberry Pi documentation, "Raspberry Pi revision codes").
_MODELS = {
    0x00: "Pi 1A",
    0x01: "Pi 1B",
    0x02: "Pi 1A+",
    0x03: "Pi 1B+",
    0x04: "Pi 2B",
    0x06: "CM1",
    0x08: "Pi 3B",
    0x09: "Pi Zero",
    0x0A: "CM3",
    0x0C: "Pi Zero W",
    0x0D: "Pi 3B+",
    0x0E: "Pi 3A+",
    0x10: "CM3+",
    0x11: "Pi 4",
    0x12: "Pi Zero 2 W",
    0x13: "Pi 400",
    0x14: "CM4",
    0x15: "CM4S",
    0x17: "Pi 5",
    0x18: "CM5",
    0x19: "Pi 500",
    0x1A: "CM5 Lite",
}
_NEW_STYLE = 1 << 23  # of a revision code; all boards that send one have it
BOOT_ROM_GUID = b"\0" + b"\x44" * 16  # every Pi 3B and 2B v1.2: says nothing of the board


@dataclass(frozen=True, slots=True)
class Board:
    """What option 97 tells of a Pi. A hint: anyone can send it. Empty where it says nothing."""

    model: str = ""  # "Pi 4"
    serial: str = ""  # 8 hex digits, the low half
    revision: str = ""  # hex, "d03114"


def _generation(fourcc: bytes) -> str:
    """The digit of "RPi4" in either byte order, both are in the field; "" for another text."""
    for text in (fourcc, fourcc[::-1]):
        if text[:3] == b"RPi" and text[3:].isdigit():
            return text[3:].decode()
    return ""


def parse_guid(guid: bytes) -> Board:
    """Read option 97. A PC's, a malformed and a Pi 3B boot ROM's one give an empty Board.

    EEPROM boot loaders of Pi 4 and 5: 00, "RPi4", revision, four bytes of the MAC, serial. The boot ROM of a 3B+,
    bootcode.bin, and EEPROMs before March 2020: 00 and four times the serial. Numbers are little-endian.
    """
    if len(guid) != 17 or guid[0] or guid == BOOT_ROM_GUID:
        return Board()
    generation = _generation(guid[1:5])
    if generation:
        order = "<" if struct.unpack("<I", guid[5:9])[0] & _NEW_STYLE else ">"
        revision, serial = struct.unpack(order + "I4xI", guid[5:17])
        # Without the new-style bit in either order the number is no code that can be decoded: believe the fourcc.
        known = _MODELS.get(revision >> 4 & 0xFF) if revision & _NEW_STYLE else None
        return Board(known or f"Pi {generation}", f"{serial:08x}", f"{revision:x}")
    if guid[1:5] * 4 == guid[1:]:
        return Board(serial=f"{struct.unpack('<I', guid[1:5])[0]:08x}")
    return Board()


# --- Ethernet, IPv4 and UDP around a message -------------------------------------------------------------------------

_ETHERNET = struct.Struct("!6s6sH")
_IP = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")
_ETHERTYPE_IP = 0x0800
_PROTOCOL_UDP = 17
_DO_NOT_FRAGMENT = 0x4000
_FRAGMENT = 0x3FFF  # more fragments, or an offset


def _ones_sum(data: bytes) -> int:
    """Sum of 16-bit words in one's complement (RFC 1071), 0 standing for 0xFFFF: 65536 is 1 modulo 65535."""
    return int.from_bytes(data if len(data) % 2 == 0 else data + b"\0", "big") % 0xFFFF


def _pseudo_header(source: bytes, destination: bytes, length: int) -> bytes:
    return source + destination + struct.pack("!HH", _PROTOCOL_UDP, length)


@dataclass(frozen=True, slots=True)
class Frame:
    """An Ethernet frame with one whole UDP datagram over IPv4. MACs are `aa:bb:cc:dd:ee:ff`."""

    source_mac: str
    destination_mac: str
    source: IPv4Address
    destination: IPv4Address
    source_port: int
    destination_port: int
    payload: bytes

    def encode(self) -> bytes:
        length = _UDP.size + len(self.payload)
        source, destination = self.source.packed, self.destination.packed
        udp = _UDP.pack(self.source_port, self.destination_port, length, 0)
        total = _ones_sum(_pseudo_header(source, destination, length) + udp + self.payload)
        # 0 would say "no checksum" (RFC 768), so it is sent as 0xFFFF; the sum 0 stands for 0xFFFF as well.
        udp = udp[:6] + (0xFFFF - total or 0xFFFF).to_bytes(2, "big")
        fields = (0x45, 0, _IP.size + length, 0, _DO_NOT_FRAGMENT, 64, _PROTOCOL_UDP)
        check = 0xFFFF - _ones_sum(_IP.pack(*fields, 0, source, destination))
        ethernet = _ETHERNET.pack(_mac_bytes(self.destination_mac), _mac_bytes(self.source_mac), _ETHERTYPE_IP)
        return ethernet + _IP.pack(*fields, check, source, destination) + udp + self.payload


def _mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _ip_payload(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Source, destination and payload of an IPv4 packet that carries whole UDP; what the frame was padded with goes."""
    if len(data) < _IP.size:
        raise PacketError("truncated IP header")
    version, _tos, total, _id, fragment, _ttl, protocol, _check, source, destination = _IP.unpack_from(data)
    size = (version & 15) * 4
    if version >> 4 != 4 or not _IP.size <= size <= total <= len(data):
        raise PacketError("IP lengths do not agree")
    if protocol != _PROTOCOL_UDP or fragment & _FRAGMENT:
        raise PacketError("not one whole UDP datagram")
    if _ones_sum(data[:size]):
        raise PacketError("IP checksum is wrong")
    return source, destination, data[size:total]


def parse_frame(data: bytes, checksum_ready: bool = True) -> Frame:
    """Read a frame; PacketError where it is no UDP over IPv4 or a checksum is wrong.

    checksum_ready    False for a frame from a neighbour on the same machine, whose UDP checksum is still to be filled
                      in by a network card that it will never meet (TP_STATUS_CSUMNOTREADY in packet(7))
    """
    if len(data) < _ETHERNET.size:
        raise PacketError("truncated Ethernet header")
    to, sender, ethertype = _ETHERNET.unpack_from(data)
    if ethertype != _ETHERTYPE_IP:
        raise PacketError(f"not IPv4 but {ethertype:04x}")
    source, destination, udp = _ip_payload(data[_ETHERNET.size :])
    if len(udp) < _UDP.size:
        raise PacketError("truncated UDP header")
    source_port, destination_port, length, check = _UDP.unpack_from(udp)
    if not _UDP.size <= length <= len(udp):
        raise PacketError("UDP length does not agree")
    udp = udp[:length]
    # The boot ROM of a Pi 3 sends no UDP checksum at all, that is 0.
    if check and checksum_ready and _ones_sum(_pseudo_header(source, destination, length) + udp):
        raise PacketError("UDP checksum is wrong")
    return Frame(
        sender.hex(":"),
        to.hex(":"),
        IPv4Address(source),
        IPv4Address(destination),
        source_port,
        destination_port,
        udp[_UDP.size :],
    )
