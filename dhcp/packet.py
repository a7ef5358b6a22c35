"""DHCP messages as bytes, as dataclasses, and as words for a human. Must hold no decision and no socket.

RFC 2131 (the message), RFC 2132 (options), RFC 3396 (long options), RFC 4578 (options 93, 94, 97 of PXE clients),
RFC 3046, 3527 and 5107 (option 82 of relay agents).
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
    USER_CLASS = 77
    RELAY_AGENT = 82
    CLIENT_ARCHITECTURE = 93
    CLIENT_GUID = 97
    ETHERBOOT = 175  # iPXE's own
    END = 255


class Kind(Enum):
    """How an option's bytes are read."""

    __hash__ = object.__hash__  # each is one object; an Enum's own, by its name, is slow, and each option is looked up

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


_IPS = Kind.IPS  # shorter to reach


def _check_size(code: int, kind: Kind, data: bytes) -> None:
    size = len(data)
    if size != _SIZES.get(kind, size) or (kind is _IPS and (not size or size % 4)):
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


_NOT_SENT = frozenset({Option.PAD, Option.OVERLOAD, Option.END})


def encode_option(code: int, value: Value) -> bytes:
    """One option as it travels, in as many pieces of 255 bytes as it takes (RFC 3396 section 7)."""
    kind = KINDS.get(code, Kind.RAW)
    if code in _NOT_SENT or not 0 < code < 255:
        raise PacketError(f"option {code} cannot be sent")
    if not isinstance(value, _TYPES[kind]):
        raise PacketError(f"option {code} is {kind.value}, not {value!r}")
    try:
        data = _value_bytes(kind, value)
    except (OverflowError, ValueError) as error:
        raise PacketError(f"option {code} cannot hold {value!r}") from error
    _check_size(code, kind, data)
    if len(data) < 256:
        return bytes((code, len(data))) + data
    pieces = (data[i : i + 255] for i in range(0, len(data), 255))
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


# --- what a relay agent adds ---


class RelayOption(IntEnum):
    """Sub-options of option 82 (RFC 3046 section 2), as far as they are read here."""

    LINK_SELECTION = 5  # RFC 3527
    SERVER_OVERRIDE = 11  # RFC 5107


def relay_address(packet: Packet, code: RelayOption) -> IPv4Address | None:
    """An address among the sub-options of option 82; None where it is not there, or damaged."""
    data = packet.raw(Option.RELAY_AGENT)
    at = 0
    while at + 2 <= len(data):
        value = data[at + 2 : at + 2 + data[at + 1]]
        if data[at] == code and len(value) == 4:
            return IPv4Address(value)
        at += 2 + data[at + 1]
    return None


# --- in words ---

# Names of options that are not worth a name in code, but are worth one in a log (RFC 2132, the IANA registry).
_NAMES = {
    2: "time offset",
    7: "log servers",
    17: "root path",
    26: "interface MTU",
    33: "static routes",
    40: "NIS domain",
    44: "NetBIOS name servers",
    80: "rapid commit",
    81: "client FQDN",
    91: "last transaction",
    94: "client network interface",
    116: "auto-configure",
    118: "subnet selection",
    119: "domain search",
    121: "classless routes",
    145: "forcerenew nonce",
    150: "TFTP server address",
    209: "configuration file",
    210: "path prefix",
    249: "Microsoft classless routes",
    252: "proxy auto-discovery",
}
_LONGEST = 64  # characters of a value that are shown


def option_name(code: int) -> str:
    """`lease time`, `option 224`."""
    if code in _OPTION_CODES:
        return Option(code).name.lower().replace("_", " ")
    return _NAMES.get(code, f"option {code}")


_OPTION_CODES = frozenset(Option)


def printable(text: str, longest: int = _LONGEST) -> str:
    """A stranger's text for a human: cut, and without a character that moves a cursor."""
    cut = text if len(text) <= longest else text[: longest - 3] + "..."
    return "".join(c if " " <= c <= "~" else "?" for c in cut)


def _value_words(value: Value) -> str:
    if isinstance(value, bytes):
        return printable(value.hex())
    if isinstance(value, str):
        return f'"{printable(value)}"'
    if isinstance(value, tuple):
        words = (option_name(item) if isinstance(item, int) else str(item) for item in value)
        return printable(", ".join(words), 4 * _LONGEST)
    return str(value)


_MESSAGE_TYPES = frozenset(MessageType)


def describe(packet: Packet) -> str:
    """The whole message in one line of words, for a log. Never raises."""
    kind = packet.number(Option.MESSAGE_TYPE)
    name = "DHCP" + MessageType(kind).name if kind in _MESSAGE_TYPES else f"message {packet.op}/{kind}"
    head = [name, packet.mac or f"hardware {packet.htype}/{packet.chaddr.hex()}", f"xid {packet.xid:08x}"]
    numbers = (("secs", packet.secs), ("hops", packet.hops), ("flags", packet.flags))
    head += [f"{word} {number}" for word, number in numbers if number]
    addresses = ("ciaddr", "yiaddr", "siaddr", "giaddr")
    head += [f"{word} {getattr(packet, word)}" for word in addresses if getattr(packet, word) != NO_ADDRESS]
    head += [f'{word} "{printable(getattr(packet, word))}"' for word in ("sname", "file") if getattr(packet, word)]
    rest = (item for item in packet.options.items() if item[0] != Option.MESSAGE_TYPE)
    return " ".join(head) + "".join(f"; {option_name(code)} {_value_words(value)}" for code, value in rest)
