"""TFTP messages as dataclasses, to and from bytes (RFC 1350, options as in RFC 2347); no socket, no decision."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

Options = tuple[tuple[str, str], ...]  # as written on the wire: order, case and unknown ones are kept

_TWO = struct.Struct(">HH")


class PacketError(ValueError):
    """Bytes that are no TFTP message; the text says why."""


class Opcode(IntEnum):
    """RFC 1350 section 5, RFC 2347."""

    RRQ = 1
    WRQ = 2
    DATA = 3
    ACK = 4
    ERROR = 5
    OACK = 6


class ErrorCode(IntEnum):
    """RFC 1350 appendix I, RFC 2347."""

    NOT_DEFINED = 0
    FILE_NOT_FOUND = 1
    ACCESS_VIOLATION = 2
    DISK_FULL = 3
    ILLEGAL_OPERATION = 4
    UNKNOWN_TRANSFER = 5
    FILE_EXISTS = 6
    NO_SUCH_USER = 7
    OPTION_REFUSED = 8


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """RRQ. Text is Latin-1, so that any byte of a name survives; the mode is in lower case."""

    filename: str
    mode: str = "octet"
    options: Options = ()

    def encode(self) -> bytes:
        return _encode_request(Opcode.RRQ, self.filename, self.mode, self.options)


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """WRQ, of the same form as RRQ."""

    filename: str
    mode: str = "octet"
    options: Options = ()

    def encode(self) -> bytes:
        return _encode_request(Opcode.WRQ, self.filename, self.mode, self.options)


@dataclass(frozen=True, slots=True)
class Data:
    """DATA; the first block of a file is number 1, and 65535 is followed by 0."""

    block: int
    payload: bytes

    def encode(self) -> bytes:
        return _TWO.pack(Opcode.DATA, self.block) + self.payload


@dataclass(frozen=True, slots=True)
class Ack:
    """ACK; block 0 acknowledges an OACK."""

    block: int

    def encode(self) -> bytes:
        return _TWO.pack(Opcode.ACK, self.block)


@dataclass(frozen=True, slots=True)
class Error:
    """ERROR; `code` is an ErrorCode, or a number that we do not know."""

    code: int
    message: str = ""

    def encode(self) -> bytes:
        return _TWO.pack(Opcode.ERROR, self.code) + _text(self.message)


@dataclass(frozen=True, slots=True)
class OptionAck:
    """OACK: the options that the server agrees to, with the values it agrees to."""

    options: Options

    def encode(self) -> bytes:
        return Opcode.OACK.to_bytes(2, "big") + _encode_options(self.options)


Packet = ReadRequest | WriteRequest | Data | Ack | Error | OptionAck


def parse(datagram: bytes) -> Packet:
    """Read one datagram; PacketError if it is no TFTP message. Options that we do not know are kept."""
    if len(datagram) < 4:
        raise PacketError(f"{len(datagram)} bytes are too short")
    opcode, number = _TWO.unpack_from(datagram)
    match opcode:
        case Opcode.RRQ:
            return ReadRequest(*_parse_request(datagram))
        case Opcode.WRQ:
            return WriteRequest(*_parse_request(datagram))
        case Opcode.DATA:
            return Data(number, datagram[4:])
        case Opcode.ACK:
            return Ack(number)  # what follows is padding
        case Opcode.ERROR:
            # Some boot ROMs leave out the final NUL.
            return Error(number, datagram[4:].partition(b"\0")[0].decode("latin-1"))
        case Opcode.OACK:
            options = _parse_options(_strings(datagram[2:]))
            if not options:
                raise PacketError("an OACK that acknowledges no option")
            return OptionAck(options)
    raise PacketError(f"unknown opcode {opcode}")


def _text(text: str) -> bytes:
    return text.encode("latin-1", "replace") + b"\0"


def _encode_options(options: Options) -> bytes:
    return b"".join(_text(name) + _text(value) for name, value in options)


def _encode_request(opcode: Opcode, filename: str, mode: str, options: Options) -> bytes:
    return opcode.to_bytes(2, "big") + _text(filename) + _text(mode) + _encode_options(options)


def _strings(body: bytes) -> list[str]:
    """The NUL-terminated strings of a body; PacketError if the last one has no end."""
    *strings, rest = body.split(b"\0")
    if rest:
        raise PacketError("a string without its NUL")
    return [each.decode("latin-1") for each in strings]


def _parse_request(datagram: bytes) -> tuple[str, str, Options]:
    strings = _strings(datagram[2:])
    if len(strings) < 2:
        raise PacketError("a request without a mode")
    filename, mode, *options = strings
    # Modes in any mix of cases: RFC 1350 section 5. ASCII only, as lower() of other letters can change their number.
    return filename, mode.lower() if mode.isascii() else mode, _parse_options(options)


def _parse_options(strings: list[str]) -> Options:
    """Pair names with values. An empty name ends the list: some PXE ROMs pad their requests with NULs."""
    options: list[tuple[str, str]] = []
    for at in range(0, len(strings), 2):
        if not strings[at]:
            break
        if at + 1 == len(strings):
            raise PacketError(f"option {strings[at]!r} without a value")
        options.append((strings[at], strings[at + 1]))
    return tuple(options)
