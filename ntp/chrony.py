"""chronyd's own protocol, as far as one question goes: what it says of the clock it keeps. No socket, no clock.

The command protocol of chrony 2.2 and later (version 6, candm.h of its sources): a request of fixed length, padded so
that its answer is not longer, and one answer. Everybody on the machine may ask this question.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ntp.packet import Leap, PacketError

PORT = 323
VERSION, REQUEST, REPLY = 6, 1, 2
TRACKING_REQUEST, TRACKING_REPLY, SUCCESS = 33, 5, 0

_REQUEST = struct.Struct("!BBxx HH I 92x")  # version, type, command, attempt, sequence, room for the answer
_HEADER = struct.Struct("!BBxx HHH 6x I 8x")  # version, type, command, reply, status, sequence
_TRACKING = struct.Struct("!4s 20x HH III I 20x II")  # the address of the source and some measures are passed over
REPLY_SIZE = _HEADER.size + _TRACKING.size + 4  # the last word, an interval, is not read

COEFFICIENT_BITS = 25


@dataclass(frozen=True, slots=True)
class Tracking:
    """What chronyd knows of its clock. Times in seconds. It answers NTP clients with the same values."""

    reference_id: bytes
    stratum: int
    leap: Leap
    reference_ns: int  # Unix time in nanoseconds of the last update
    correction: float  # what the system clock still lacks, and is being slewed by
    root_delay: float
    root_dispersion: float

    @classmethod
    def parse(cls, data: bytes, sequence: int) -> Tracking:
        """Read the answer to the request of that number; raises PacketError for all else."""
        if len(data) < REPLY_SIZE:
            raise PacketError(f"{len(data)} bytes are fewer than an answer has")
        if _HEADER.unpack_from(data) != (VERSION, REPLY, TRACKING_REQUEST, TRACKING_REPLY, SUCCESS, sequence):
            raise PacketError("not the answer to our question")
        reference_id, stratum, leap, high, low, nanoseconds, *floats = _TRACKING.unpack_from(data, _HEADER.size)
        if leap > Leap.UNSYNCHRONISED:
            raise PacketError(f"leap {leap}")
        seconds = low if high == 0x7FFFFFFF else high << 32 | low  # that high: a 32-bit chronyd has none
        return cls(reference_id, stratum, Leap(leap), seconds * 10**9 + nanoseconds, *map(decode_float, floats))


def tracking_request(sequence: int) -> bytes:
    """The question; `sequence` of 32 bits comes back in its answer."""
    return _REQUEST.pack(VERSION, REQUEST, TRACKING_REQUEST, 0, sequence)


def decode_float(word: int) -> float:
    """chronyd's number of 32 bits: a signed exponent of 7, a signed coefficient of 25, no hidden bit."""
    exponent, coefficient = word >> COEFFICIENT_BITS, word & (1 << COEFFICIENT_BITS) - 1
    exponent -= (exponent & 1 << 6) << 1
    coefficient -= (coefficient & 1 << COEFFICIENT_BITS - 1) << 1
    return float(coefficient) * 2.0 ** (exponent - COEFFICIENT_BITS)
