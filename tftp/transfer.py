"""One TFTP read transfer as a state machine: datagram + now in, datagrams + deadline out. No socket, clock or file.

1. The first packet is an OACK where an option was agreed to, else DATA 1. Each further packet is sent because exactly
   the packet before it was acknowledged, or because the timer ran out; never because of a duplicate ACK. (Answering
   those doubles the traffic for the rest of the transfer, "Sorcerer's Apprentice", RFC 1123 4.2.3.1; and a doubled
   DATA makes the firmware of a Pi 4 hang now and then.)
2. The timer follows the measured round trip (RFC 6298, Karn's rule), not below 0.2 s, and backs off; the `timeout`
   option (RFC 2349), where the client gave it, is the interval itself. Every sixth wait is longer than the timers of
   clients: some (atftp, old boot ROMs) acknowledge a repetition by their own timer only, and start that anew at each
   repetition, so that a server that never pauses would never hear of a block whose ACK was lost.
3. Without progress for 30 s the transfer gives up. An ERROR of the client ends it at once and unanswered.
4. Block numbers roll over from 65535 to 0, so a file may be of any size.
"""

from __future__ import annotations

import math
import struct
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from tftp.packet import Ack, Error, ErrorCode, Opcode, OptionAck, Options, PacketError, parse

Read = Callable[[int, int], bytes]
"""(offset, length) -> bytes, fewer than asked only at the end of the file; OSError."""

DEFAULT_BLOCK = 512
LARGEST_BLOCK = 65464  # RFC 2348
PATIENCE = 30.0  # without progress
FIRST_TIMEOUT = 1.0
SHORTEST_TIMEOUT = 0.2
LONGEST_BACK_OFF = 1.0  # or twice the measured timeout, where that is more; on a lossy wire tries count, not politeness
BREATHER = 6.5  # atftp waits 5 s
BREATHE_AFTER = 6  # packets sent without an answer

CHUNK = 32 * 1024  # read from a file at once
CHUNK_PACKETS = 64  # but no more packets than this: with tiny blocks their overhead is most of the memory

_HEADER = struct.Struct(">HH")


class Outcome(StrEnum):
    """How a transfer ended."""

    COMPLETE = "complete"
    ABORTED = "aborted"  # the client sent an ERROR; code 0 is how a Pi ends its probes
    GONE = "gone"  # nobody listens at the client's port any more
    TIMEOUT = "timeout"
    FAILED = "failed"  # we could not read on


@dataclass(frozen=True, slots=True)
class Result:
    """The end of a transfer; `code` is that of the client's ERROR where it is ABORTED."""

    outcome: Outcome
    reason: str = ""
    code: int | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What was agreed to. `timeout` is None where the client left it to us; `answer` goes into the OACK."""

    blksize: int = DEFAULT_BLOCK
    timeout: int | None = None
    answer: Options = ()


# Each option: (the value asked for, the file's size) -> the value agreed to, or None to leave the option out.
_AGREE: dict[str, Callable[[int, int | None], int | None]] = {
    # A server may answer with less than was asked, not with more; below 8 is no block size. RFC 2348.
    "blksize": lambda asked, _size: min(asked, LARGEST_BLOCK) if asked >= 8 else None,
    "timeout": lambda asked, _size: asked if 1 <= asked <= 255 else None,  # RFC 2349
    "tsize": lambda _asked, size: size,
}


def negotiate(options: Options, size: int | None) -> Terms:
    """Agree to what we know and can do; the rest is ignored, as RFC 2347 asks. `size` is None where it is not known.

    The answer names options as the client wrote them. Of an option given twice the first counts.
    """
    agreed: dict[str, int] = {}
    answer: list[tuple[str, str]] = []
    for name, text in options:
        agree = _AGREE.get(name.lower())
        if agree is None or name.lower() in agreed or not (text.isascii() and text.isdigit() and len(text) <= 20):
            continue
        value = agree(int(text), size)
        if value is not None:
            agreed[name.lower()] = value
            answer.append((name, str(value)))
    return Terms(agreed.get("blksize", DEFAULT_BLOCK), agreed.get("timeout"), tuple(answer))


class PacketCache:
    """The prepared packets read last, so that many Pis that fetch one kernel read and cut it once.

    Bounded by `limit` bytes. Used by one thread, therefore without a lock.
    """

    def __init__(self, limit: int = 16 * 1024 * 1024) -> None:
        self.limit = limit
        self.held = 0
        self._chunks: OrderedDict[Hashable, tuple[list[bytes], int]] = OrderedDict()

    def get(self, key: Hashable) -> list[bytes] | None:
        found = self._chunks.get(key)
        if found is None:
            return None
        self._chunks.move_to_end(key)
        return found[0]

    def put(self, key: Hashable, packets: list[bytes]) -> None:
        """Keep a chunk under a new key, and forget the oldest ones beyond the limit."""
        cost = sum(map(len, packets)) + 48 * len(packets)  # a bytes object and its place in the list
        self._chunks[key] = (packets, cost)
        self.held += cost
        while self.held > self.limit:
            self.held -= self._chunks.popitem(last=False)[1][1]


def data_packets(
    read: Read, blksize: int, cache: PacketCache | None = None, identity: Hashable = None
) -> Iterator[bytes]:
    """The encoded DATA packets of a file, in order; the last one is shorter than a full block, and may be empty.

    Reads a chunk at a time, in order. `identity` names the file's content in the cache; None: not to be cached.
    Raises what `read` raises. The packets equal `Data(...).encode()`, made without the detour: this is the hot path.
    """
    per_chunk = min(CHUNK_PACKETS, max(1, CHUNK // blksize))
    length = per_chunk * blksize
    index = 0
    while True:
        key = (identity, blksize, index)
        packets = cache.get(key) if cache and identity is not None else None
        if packets is None:
            data = read(index * length, length)
            first = index * per_chunk + 1
            # A chunk that is not full is the last, and ends with a short block: 0 bytes where the size divides evenly.
            starts = range(0, length if len(data) == length else len(data) + 1, blksize)
            packets = [
                _HEADER.pack(Opcode.DATA, number & 0xFFFF) + data[start : start + blksize]
                for number, start in enumerate(starts, first)
            ]
            if cache and identity is not None:
                cache.put(key, packets)
        yield from packets
        if len(packets[-1]) < blksize + 4:
            return
        index += 1


class Netascii:
    """A `Read` that turns the lines of another one into netascii (RFC 764): LF becomes CR LF, CR becomes CR NUL.

    Only in order from the start: where a byte ends up depends on all those before it.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._taken = 0  # bytes of the file
        self._given = 0  # bytes of netascii
        self._rest = b""

    def __call__(self, offset: int, length: int) -> bytes:
        if offset != self._given:
            raise ValueError("netascii can only be read in order")
        while len(self._rest) < length:
            piece = self._read(self._taken, length)
            self._taken += len(piece)
            self._rest += piece.replace(b"\r", b"\r\0").replace(b"\n", b"\r\n")
            if len(piece) < length:
                break
        answer, self._rest = self._rest[:length], self._rest[length:]
        self._given += len(answer)
        return answer


class ReadTransfer:
    """One file on its way to one client. `start` gives the first packet; then `receive` and `tick`, until `result`.

    deadline  when `tick` wants to be called, infinity when it does not
    sent      DATA packets sent so far, not counting repetitions
    resent    repetitions
    """

    __slots__ = (
        "_awaited",
        "_fixed",
        "_last",
        "_packet",
        "_packets",
        "_patience",
        "_progress",
        "_rto",
        "_srtt",
        "_tries",
        "_unasked",
        "_var",
        "blksize",
        "deadline",
        "resent",
        "result",
        "sent",
    )

    def __init__(self, packets: Iterator[bytes], terms: Terms) -> None:
        self.blksize = terms.blksize
        self.result: Result | None = None
        self.deadline = math.inf
        self.sent = 0
        self.resent = 0
        self._packets = packets
        self._packet = OptionAck(terms.answer).encode() if terms.answer else b""
        self._unasked = 0 if terms.answer else 1  # DATA packets that go out before the first ACK
        self._awaited = Ack(0).encode()
        self._last = False  # the packet in flight is the last
        self._fixed = terms.timeout is not None
        self._rto = FIRST_TIMEOUT if terms.timeout is None else float(terms.timeout)
        self._patience = max(PATIENCE, 3 * self._rto)
        self._srtt = self._var = 0.0
        self._tries = 0
        self._progress = 0.0

    @property
    def acknowledged(self) -> int:
        """Blocks that the client is known to have."""
        return self.sent if self.result and self.result.outcome is Outcome.COMPLETE else max(0, self.sent - 1)

    @property
    def heard(self) -> bool:
        """Whether the client has acknowledged anything yet."""
        return self.sent > self._unasked

    @property
    def progress(self) -> float:
        """When the transfer last moved."""
        return self._progress

    def start(self, now: float) -> list[bytes]:
        """The first packet."""
        if not self._packet:
            return self._send_next(now)
        self._progress = now
        self._tries = 1
        self.deadline = now + self._rto
        return [self._packet]

    def receive(self, datagram: bytes, now: float) -> list[bytes]:
        """Take what the client sent; return what to send it."""
        if datagram == self._awaited and self.result is None:  # nearly always: nothing is parsed
            return self._advance(now)
        if self.result is not None:
            return []
        try:
            packet = parse(datagram)
        except PacketError:
            return []
        if isinstance(packet, Error):
            self._end(Outcome.ABORTED, packet.message, packet.code)
        elif isinstance(packet, Ack) and packet.encode() == self._awaited:  # padded
            return self._advance(now)
        return []  # a duplicate ACK above all: rule 1

    def tick(self, now: float) -> list[bytes]:
        """Repeat the packet in flight if it is time to; give up if it was time to for too long."""
        if now < self.deadline:
            return []
        if now >= self._progress + self._patience:
            self._end(Outcome.TIMEOUT, f"no answer for {self._patience:.0f} s")
            return []
        interval = self._rto
        self._tries += 1
        if not self._fixed:
            interval = min(self._rto * 2.0 ** min(self._tries - 1, 8), max(LONGEST_BACK_OFF, 2 * self._rto))
            if self._tries % BREATHE_AFTER == 0:
                interval = max(interval, BREATHER)
        self.resent += 1
        self.deadline = min(now + interval, self._progress + self._patience)
        return [self._packet]

    def refused(self) -> None:
        """Nobody listens at the client's port. After the last block that is an ACK that was lost."""
        if self.result is None:
            self._end(Outcome.COMPLETE if self._last else Outcome.GONE, "the client's port is closed")

    def _advance(self, now: float) -> list[bytes]:
        if not self._fixed:
            if self._tries == 1:
                self._measure(now - self._progress)
            else:  # of a packet sent twice nobody knows which one was answered: keep some back-off instead (Karn)
                self._rto = min(2 * self._rto, max(self._rto, LONGEST_BACK_OFF))
        if self._last:
            self._end(Outcome.COMPLETE)
            return []
        return self._send_next(now)

    def _send_next(self, now: float) -> list[bytes]:
        try:
            packet = next(self._packets)
        except OSError as error:
            reason = error.strerror or str(error)
            self._end(Outcome.FAILED, reason)
            return [Error(ErrorCode.NOT_DEFINED, reason).encode()]
        self._packet = packet
        self._awaited = b"\0\4" + packet[2:4]
        self._last = len(packet) < self.blksize + 4
        self.sent += 1
        self._tries = 1
        self._progress = now
        self.deadline = now + self._rto
        return [packet]

    def _measure(self, trip: float) -> None:
        """RFC 6298 section 2."""
        if self._srtt:
            off = trip - self._srtt
            self._var += (abs(off) - self._var) / 4
            self._srtt += off / 8
        else:
            self._srtt, self._var = trip, trip / 2
        self._rto = max(SHORTEST_TIMEOUT, self._srtt + 4 * self._var)

    def _end(self, outcome: Outcome, reason: str = "", code: int | None = None) -> None:
        self.result = Result(outcome, reason, code)
        self.deadline = math.inf
