"""What an NTP server answers (RFC 5905, sections 9.2 and 7.4). No socket, no clock: time and clock state are given.

Rules:

1. Versions 1 to 4 are answered, in the version of the request; others are dropped.
2. Client requests (mode 3) are answered as server (mode 4). Version 1 had no modes: its 0 is a client's (RFC 1305
   appendix D.4). All else is dropped: symmetric (1, 2) would let a stranger set our clock, broadcast (5) and server (4)
   are answers, control (6) and private (7) can be made to answer with more than was asked.
3. An answer is one header of 48 bytes: never longer than its request, so nobody is drowned through us.
4. Who asks more often than the limit, if there is one, gets a RATE kiss-o'-death once, then nothing until it rests.
5. A clock that nobody should follow says so: leap 3, stratum 0 (16 inside, 0 on the wire), "INIT".
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from ntp.packet import Leap, Mode, NtpPacket

UNSYNCHRONISED_STRATUM = 16
RATE_POLL = 6  # the least interval, log2 of seconds, that a RATE answer asks for
MAX_CLIENTS = 4096  # whose rate is remembered


@dataclass(frozen=True, slots=True)
class ClockState:
    """What the manager's clock is worth, as the header's fields say it. stratum 16: worth nothing."""

    leap: Leap
    stratum: int
    precision: int  # log2 of seconds
    root_delay: int  # 1/65536 s
    root_dispersion: int  # 1/65536 s
    reference_id: bytes
    reference_time: int  # a timestamp


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A client may ask `burst` times at once, and once every `interval` seconds in the long run."""

    burst: int = 16
    interval: float = 1.0


@dataclass(frozen=True, slots=True)
class Reply:
    """Send this to who asked. Its transmit time is the receive time: the server writes the true one, late."""

    packet: NtpPacket


@dataclass(frozen=True, slots=True)
class Ignore:
    """Send nothing, for this reason."""

    reason: str


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float
    kissed: bool = False


class NtpPolicy:
    """Decides about requests; remembers nothing but the rates. One thread only.

    limit  None: everybody is answered, as often as they ask. That is the default: a rack trusts its Pis, an answer
           costs less than the bookkeeping, and is never longer than the question.
    """

    def __init__(self, limit: RateLimit | None = None) -> None:
        self.limit = limit
        self._buckets: OrderedDict[IPv4Address, _Bucket] = OrderedDict()

    def receive(
        self, request: NtpPacket, peer: IPv4Address, received: int, clock: ClockState, now: float
    ) -> Reply | Ignore:
        """Decide about a request that came from `peer` at the timestamp `received`; `now` is monotonic seconds."""
        if not 1 <= request.version <= 4:
            return Ignore(f"version {request.version}")
        if request.mode is not Mode.CLIENT and (request.version, request.mode) != (1, Mode.RESERVED):
            return Ignore(f"mode {request.mode}")
        if self.limit is None:
            return Reply(make_reply(request, received, clock))
        bucket = self._take(peer, self.limit, now)
        if bucket.tokens >= 0:
            return Reply(make_reply(request, received, clock))
        if bucket.kissed:
            return Ignore("asks too often")
        bucket.kissed = True
        return Reply(make_kiss(request, received, clock, b"RATE"))

    def _take(self, peer: IPv4Address, limit: RateLimit, now: float) -> _Bucket:
        """Take a token of the client's; below 0 there was none. Two are the depth of its debt: it is soon forgiven."""
        bucket = self._buckets.pop(peer, None) or _Bucket(limit.burst, now)
        self._buckets[peer] = bucket
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        bucket.tokens = min(limit.burst, bucket.tokens + (now - bucket.at) / limit.interval)
        bucket.at = now
        if bucket.tokens >= 1:
            bucket.kissed = False
        bucket.tokens = max(-2.0, bucket.tokens - 1)
        return bucket


def make_reply(request: NtpPacket, received: int, clock: ClockState) -> NtpPacket:
    """The answer to a request (RFC 5905, figure 31): version, poll and the client's transmit time are copied."""
    usable = clock.stratum < UNSYNCHRONISED_STRATUM
    return NtpPacket(
        leap=clock.leap if usable else Leap.UNSYNCHRONISED,
        version=request.version,
        mode=Mode.SERVER,
        stratum=clock.stratum if usable else 0,
        poll=request.poll,
        precision=clock.precision,
        root_delay=clock.root_delay,
        root_dispersion=clock.root_dispersion,
        reference_id=clock.reference_id if usable else b"INIT",
        reference_time=clock.reference_time,
        origin_time=request.transmit_time,  # as it came: the client knows its request by it, whatever it means
        receive_time=received,
        transmit_time=received,
    )


def make_kiss(request: NtpPacket, received: int, clock: ClockState, code: bytes) -> NtpPacket:
    """A kiss-o'-death (section 7.4): stratum 0 and four letters; only the origin time has to be right."""
    reply = make_reply(request, received, clock)
    poll = max(request.poll, RATE_POLL)
    return replace(reply, leap=Leap.UNSYNCHRONISED, stratum=0, reference_id=code, poll=poll)
