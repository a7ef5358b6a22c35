"""NTP messages and timestamps as bytes and as values (RFC 5905, sections 6 and 7.3). No clock, no decision.

A timestamp is a 64-bit unsigned integer: seconds since 1900 in the upper 32 bits, modulo 2^32 (an era is 136 years;
era 1 begins in February 2036), the fraction in the lower 32.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from enum import IntEnum

HEADER = struct.Struct("!BBbb II4s QQQQ")
HEADER_SIZE = HEADER.size  # 48
UNIX_EPOCH = 2_208_988_800  # 1970 in seconds since 1900
ERA = 1 << 64
NANOSECONDS = 1_000_000_000

# What is the same in all replies of one clock state to requests of one kind, and what is not.
HEAD_SIZE = 24
ORIGIN, RECEIVE, TRANSMIT = slice(24, 32), 32, slice(40, 48)
_TIMESTAMP = struct.Struct("!II")


class PacketError(ValueError):
    """The bytes are no NTP message."""


class Leap(IntEnum):
    """The leap indicator."""

    NONE = 0
    INSERT = 1  # the last minute of the day has 61 seconds
    DELETE = 2
    UNSYNCHRONISED = 3


class Mode(IntEnum):
    """Who speaks to whom."""

    RESERVED = 0
    SYMMETRIC_ACTIVE = 1
    SYMMETRIC_PASSIVE = 2
    CLIENT = 3
    SERVER = 4
    BROADCAST = 5
    CONTROL = 6
    PRIVATE = 7


@dataclass(frozen=True, slots=True)
class NtpPacket:
    """The header. What may follow it, extension fields and a MAC, is not kept: we neither use nor send any."""

    leap: Leap
    version: int  # 0 to 7
    mode: Mode
    stratum: int  # 0: unspecified, or a kiss-o'-death
    poll: int  # log2 of seconds, signed
    precision: int  # log2 of seconds, signed
    root_delay: int  # 1/65536 s
    root_dispersion: int  # 1/65536 s
    reference_id: bytes  # 4 bytes: an address, or 4 letters
    reference_time: int
    origin_time: int
    receive_time: int
    transmit_time: int

    @classmethod
    def parse(cls, data: bytes) -> NtpPacket:
        """Read the first 48 bytes of a datagram; raises PacketError if there are fewer."""
        if len(data) < HEADER_SIZE:
            raise PacketError(f"{len(data)} bytes are fewer than a header has")
        first, *rest = HEADER.unpack_from(data)
        return cls(Leap(first >> 6), first >> 3 & 7, Mode(first & 7), *rest)

    def encode(self) -> bytes:
        """The 48 bytes of the header."""
        return HEADER.pack(
            self.leap << 6 | self.version << 3 | self.mode,
            self.stratum,
            self.poll,
            self.precision,
            self.root_delay,
            self.root_dispersion,
            self.reference_id,
            self.reference_time,
            self.origin_time,
            self.receive_time,
            self.transmit_time,
        )


def timestamp(unix_ns: int) -> int:
    """The timestamp of a Unix time in nanoseconds; exact to 2^-32 s, rounded down."""
    seconds, rest = divmod(unix_ns, NANOSECONDS)
    return (((seconds + UNIX_EPOCH) << 32) + (rest << 32) // NANOSECONDS) % ERA


def write_timestamp(buffer: bytearray, offset: int, seconds: int, nanoseconds: int) -> None:
    """`timestamp` for the hot path: of a Unix time in two parts, as bytes, into a prepared buffer."""
    _TIMESTAMP.pack_into(buffer, offset, (seconds + UNIX_EPOCH) & 0xFFFFFFFF, (nanoseconds << 32) // NANOSECONDS)


def unix_ns(stamp: int, near_ns: int) -> int:
    """The Unix time in nanoseconds of a timestamp, in the era that brings it nearest to `near_ns`; rounded up.

    Up, where `timestamp` rounds down: so that a time survives the way there and back.
    """
    ahead = (stamp - timestamp(near_ns)) % ERA
    ahead -= ERA if ahead >= ERA // 2 else 0
    base = (near_ns // NANOSECONDS + UNIX_EPOCH << 32) + (timestamp(near_ns) & 0xFFFFFFFF)
    since_1900 = -(-(base + ahead) * NANOSECONDS // (1 << 32))
    return since_1900 - UNIX_EPOCH * NANOSECONDS


def short(seconds: float) -> int:
    """Seconds as the 16.16 format of delays and dispersions, rounded up and kept within its range."""
    return min(max(0, math.ceil(seconds * 65536)), 0xFFFFFFFF)
