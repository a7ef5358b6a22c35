"""One TFTP read transfer as a state machine: datagram + now in, datagrams + deadline out. No socket, clock or file.

1. The first packet is an OACK where an option was agreed to, else DATA 1. In lock-step each further packet is sent
   because exactly the packet before it was acknowledged, or because the timer ran out; never because of a duplicate
   ACK. (Answering those doubles the traffic for the rest of the transfer, "Sorcerer's Apprentice", RFC 1123 4.2.3.1;
   and a doubled DATA makes the firmware of a Pi 4 hang now and then.)
2. With a window (RFC 7440) the blocks after the acknowledged one go out together, up to `windowsize`. The ACK of a
   block in the middle says that the next one was lost: the window starts again behind it. The ACK of the block before
   the window says that its first block was lost, or is a duplicate of the ACK that set the window off, which nobody
   can tell apart; so it is answered once. An ACK within half the shortest round trip after the window went out is no
   answer to that: it may bring new blocks, and never old ones.
3. The timer follows the measured round trip (RFC 6298, Karn's rule), not below 0.2 s, and backs off; the `timeout`
   option (RFC 2349), where the client gave it, is the interval itself. Every sixth wait is longer than the timers of
   clients: some (atftp, old boot ROMs) acknowledge a repetition by their own timer only, and start that anew at each
   repetition, so that a server that never pauses would never hear of a block whose ACK was lost.
4. Without progress for 30 s the transfer gives up. An ERROR of the client ends it at once and unanswered.
5. Block numbers roll over from 65535 to 0, so a file may be of any size.
"""

from __future__ import annotations

import math
import struct
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tftp.packet import Ack, Error, ErrorCode, Opcode, OptionAck, Options, PacketError, parse

Read = Callable[[int, int], bytes]
"""(offset, length) -> bytes, fewer than asked only at the end of the file; OSError."""

Sending = Sequence[bytes | memoryview]
"""What to send: see ReadTransfer."""

DEFAULT_BLOCK = 512
LARGEST_BLOCK = 65464  # RFC 2348
PATIENCE = 30.0  # without progress
FIRST_TIMEOUT = 1.0
SHORTEST_TIMEOUT = 0.2
LONGEST_BACK_OFF = 1.0  # or twice the measured timeout, where that is more; on a lossy wire tries count, not politeness
BREATHER = 6.5  # atftp waits 5 s
BREATHE_AFTER = 6  # packets sent without an answer

LARGEST_WINDOW = 64  # RFC 7440; the kernel cuts as many packets out of one buffer
WINDOW_BYTES = 128 * 1024  # sent at once: more does not fit into a socket's buffer at either end

CHUNK = 256 * 1024  # read from a file at once; more than a window
CHUNK_PACKETS = 1024  # but no more packets than this: with tiny blocks their overhead is most of the memory
CACHE_LIMIT = 128 * 1024 * 1024  # two boots' files in two block sizes
MEASURE_EVERY = 128  # blocks; more often at the start

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
    windowsize: int = 1


# Each option: (the value asked for, the file's size) -> the value agreed to, or None to leave the option out.
_AGREE: dict[str, Callable[[int, int | None], int | None]] = {
    # A server may answer with less than was asked, not with more; below 8 is no block size. RFC 2348.
    "blksize": lambda asked, _size: min(asked, LARGEST_BLOCK) if asked >= 8 else None,
    "timeout": lambda asked, _size: asked if 1 <= asked <= 255 else None,  # RFC 2349
    "tsize": lambda _asked, size: size,
    # RFC 7440: 1 to 65535; a server may answer with less.
    "windowsize": lambda asked, _size: min(asked, LARGEST_WINDOW) if 1 <= asked <= 65535 else None,
}


def negotiate(options: Options, size: int | None) -> Terms:
    """Agree to what we know and can do; the rest is ignored, as RFC 2347 asks. `size` is None where it is not known.

    The answer names options as the client wrote them. Of an option given twice the first counts.
    """
    agreed: dict[str, int] = {}
    answer: list[str] = []
    for name, text in options:
        agree = _AGREE.get(name.lower())
        if agree is None or name.lower() in agreed or not (text.isascii() and text.isdigit() and len(text) <= 20):
            continue
        value = agree(int(text), size)
        if value is not None:
            agreed[name.lower()] = value
            answer.append(name)
    blksize = agreed.get("blksize", DEFAULT_BLOCK)
    if "windowsize" in agreed:  # `blksize` may stand after it
        agreed["windowsize"] = min(agreed["windowsize"], max(1, WINDOW_BYTES // blksize))
    told = tuple((name, str(agreed[name.lower()])) for name in answer)
    return Terms(blksize, agreed.get("timeout"), told, agreed.get("windowsize", 1))


class Chunk:
    """DATA packets that follow one another in one buffer: each of `stride` bytes, but for the file's last.

    `packets` and `acks` are the same packets one by one, and the ACK that each one awaits.
    """

    __slots__ = ("_acks", "_packets", "count", "first", "last", "stride", "used", "view")

    def __init__(self, data: bytes, first: int, blksize: int, last: bool) -> None:
        self.first = first  # the number of its first block in the file, not wrapped
        self.stride = blksize + 4
        self.count = len(data) // blksize + last  # the last block is short, and empty where the size divides evenly
        self.last = last
        self.used = True
        blocks = memoryview(data)
        parts: list[bytes | memoryview] = []
        for index in range(self.count):
            parts.append(_HEADER.pack(Opcode.DATA, (first + index) & 0xFFFF))
            parts.append(blocks[index * blksize : (index + 1) * blksize])
        self.view = memoryview(b"".join(parts))
        self._packets: list[memoryview] = []
        self._acks: list[bytes] = []

    @property
    def packets(self) -> list[memoryview]:
        if not self._packets:
            stride, view = self.stride, self.view
            self._packets = [view[at : at + stride] for at in range(0, len(view), stride)]
        return self._packets

    @property
    def acks(self) -> list[bytes]:
        if not self._acks:
            first = self.first
            self._acks = [_HEADER.pack(Opcode.ACK, number & 0xFFFF) for number in range(first, first + self.count)]
        return self._acks

    @property
    def cost(self) -> int:
        """Bytes of memory, with the objects of `packets` and `acks`."""
        return len(self.view) + 300 * self.count


class PacketCache:
    """Prepared packets, shared: a rack of Pis that fetch one kernel read and cut it once.

    Bounded by `limit` bytes; `age`, called now and then, forgets what was not used since the call before.
    Used by one thread, therefore without a lock.
    """

    def __init__(self, limit: int = CACHE_LIMIT) -> None:
        self.limit = limit
        self.held = 0
        self._chunks: OrderedDict[Hashable, Chunk] = OrderedDict()

    def get(self, key: Hashable) -> Chunk | None:
        chunk = self._chunks.get(key)
        if chunk is not None:
            chunk.used = True
            self._chunks.move_to_end(key)
        return chunk

    def put(self, key: Hashable, chunk: Chunk) -> None:
        """Keep a chunk under a new key, and forget the oldest ones beyond the limit."""
        self._chunks[key] = chunk
        self.held += chunk.cost
        while self.held > self.limit:
            self.held -= self._chunks.popitem(last=False)[1].cost

    def age(self) -> None:
        for key in [key for key, chunk in self._chunks.items() if not chunk.used]:
            self.held -= self._chunks.pop(key).cost
        for chunk in self._chunks.values():
            chunk.used = False


class Blocks:
    """A file as encoded DATA packets, read and cut a chunk at a time, in order.

    `identity` names the file's content in the cache; None: not to be cached. Raises what `read` raises. The packets
    equal `Data(...).encode()`, made without the detour: this is the hot path.
    """

    def __init__(
        self, read: Read, blksize: int = DEFAULT_BLOCK, cache: PacketCache | None = None, identity: Hashable = None
    ) -> None:
        self.blksize = blksize
        self._read = read
        self._cache = cache if identity is not None else None
        self._identity = identity
        self._per_chunk = min(CHUNK_PACKETS, max(1, CHUNK // blksize))
        self._recent: list[Chunk] = []  # the last two: a window may begin in the one and end in the other

    def chunk(self, block: int) -> Chunk:
        """The chunk that holds a block; blocks count from 1 and are not wrapped."""
        for chunk in self._recent:
            if 0 <= block - chunk.first < chunk.count:
                return chunk
        index = (block - 1) // self._per_chunk
        key = (self._identity, self.blksize, index)
        found = self._cache.get(key) if self._cache else None
        if found is None:
            length = self._per_chunk * self.blksize
            data = self._read(index * length, length)
            # A chunk that is not full is the last.
            found = Chunk(data, index * self._per_chunk + 1, self.blksize, len(data) < length)
            if self._cache:
                self._cache.put(key, found)
        self._recent = [*self._recent[-1:], found]
        return found

    def runs(self, first: int, most: int) -> list[memoryview]:
        """Up to `most` packets from a block on, fewer at the file's end: contiguous where they are in one chunk."""
        runs = []
        while most:
            chunk = self.chunk(first)
            start = first - chunk.first
            part = min(most, chunk.count - start)
            runs.append(chunk.view[start * chunk.stride : (start + part) * chunk.stride])
            if chunk.last:
                break
            first, most = first + part, most - part
        return runs


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
    """Sends a file to one client.

    deadline      when to call `tick` if nothing is received; infinity once it has ended
    result        None while it goes on
    sent          blocks sent so far, without repetitions
    acknowledged  blocks that the client is known to have
    resent        packets sent again

    What a call returns is to be sent in this order: `bytes` are one datagram, a `memoryview` is a run of DATA packets,
    each of `blksize` + 4 bytes but the last one.

    `quick` does what `receive` does where nothing is special; a test holds the two equal.
    """

    __slots__ = (
        "_awaited",
        "_blocks",
        "_demanded",
        "_fixed",
        "_greeting",
        "_lane_acks",
        "_lane_end",
        "_lane_first",
        "_lane_packets",
        "_last",
        "_out",
        "_patience",
        "_rto",
        "_shortest",
        "_srtt",
        "_tries",
        "_var",
        "acknowledged",
        "blksize",
        "deadline",
        "progress",
        "resent",
        "result",
        "sent",
        "windowsize",
    )

    def __init__(self, blocks: Blocks, terms: Terms) -> None:
        self.blksize = terms.blksize
        self.windowsize = terms.windowsize
        self.result: Result | None = None
        self.deadline = math.inf
        self.sent = 0
        self.acknowledged = 0
        self.resent = 0
        self.progress = 0.0  # when the transfer last moved
        self._blocks = blocks
        self._greeting = OptionAck(terms.answer).encode() if terms.answer else b""
        self._awaited = Ack(0).encode()  # the ACK of all that is on its way
        self._last = False  # the last block is on its way
        self._fixed = terms.timeout is not None
        self._rto = FIRST_TIMEOUT if terms.timeout is None else float(terms.timeout)
        self._patience = max(PATIENCE, 3 * self._rto)
        self._srtt = self._var = 0.0
        self._shortest = 0.0  # round trip, of a window or the OACK; 0: not known yet
        self._tries = 0
        self._out = 0.0  # when what is on its way was last sent
        self._demanded = False  # the window on its way was already sent again because of an ACK
        # `quick` may send the blocks up to `_lane_end`, which are those of one chunk from `_lane_first` on.
        self._lane_end = 0
        self._lane_first = 0
        self._lane_packets: list[memoryview] = []
        self._lane_acks: list[bytes] = []

    @property
    def heard(self) -> bool:
        """Whether the client has acknowledged anything yet."""
        return self.acknowledged > 0 or (self.sent > 0 and self._greeting != b"")

    def start(self, now: float) -> Sending:
        """The first packet, or without options the first DATA."""
        if not self._greeting:
            return self._send_window(now)
        self.progress = self._out = now
        self._tries = 1
        self.deadline = now + self._rto
        return [self._greeting]

    def quick(self, datagram: bytes, now: float) -> memoryview | None:
        """What `receive` would answer to the awaited ACK in lock-step; None: nothing was done, call `receive`.

        It leaves to `receive`: windows, the file's last block, the ACK of a repeated packet, each chunk's first block,
        and every block whose round trip is measured (MEASURE_EVERY).
        """
        sent = self.sent
        if sent >= self._lane_end or datagram != self._awaited:
            return None
        index = sent - self._lane_first
        self.acknowledged = sent
        self.sent = sent + 1
        self._awaited = self._lane_acks[index]
        self.progress = self._out = now
        self.deadline = now + self._rto
        return self._lane_packets[index]

    def receive(self, datagram: bytes, now: float) -> Sending:
        """Take what the client sent; return what to send it."""
        if self.result is not None:
            return []
        if datagram == self._awaited:  # nearly always: nothing is parsed
            return self._advance(self.sent - self.acknowledged, now)
        try:
            packet = parse(datagram)
        except PacketError:
            return []
        if isinstance(packet, Error):
            self._end(Outcome.ABORTED, packet.message, packet.code)
        elif isinstance(packet, Ack):
            return self._receive_ack(packet.block, now)
        return []

    def _receive_ack(self, block: int, now: float) -> Sending:
        in_flight = self.sent - self.acknowledged
        ahead = (block - self.acknowledged) & 0xFFFF
        if not self.sent:
            return self._advance(0, now) if block == 0 else []
        if 0 < ahead <= in_flight:
            return self._advance(ahead, now)
        # Of the window the first block was lost, or all: rule 2. In lock-step it can only be a duplicate: rule 1.
        if ahead == 0 and self.windowsize > 1 and not self._demanded and self._is_about_now(now):
            self._demanded = True
            return self._repeat(now)
        return []

    def _is_about_now(self, now: float) -> bool:
        """Whether an ACK can be an answer to what was sent last; not if it came within half the shortest round trip."""
        return now - self._out >= self._shortest / 2

    def tick(self, now: float) -> Sending:
        """Repeat what is on its way if it is time to; give up if it was time to for too long."""
        if now < self.deadline:
            return []
        if now >= self.progress + self._patience:
            self._end(Outcome.TIMEOUT, f"no answer for {self._patience:.0f} s")
            return []
        interval = self._rto
        self._tries += 1
        if not self._fixed:
            interval = min(self._rto * 2.0 ** min(self._tries - 1, 8), max(LONGEST_BACK_OFF, 2 * self._rto))
            if self._tries % BREATHE_AFTER == 0:
                interval = max(interval, BREATHER)
        self.deadline = min(now + interval, self.progress + self._patience)
        return self._repeat(now)

    def refused(self) -> None:
        """Nobody listens at the client's port. After the last block that is an ACK that was lost."""
        if self.result is None:
            if self._last:
                self.acknowledged = self.sent
            self._end(Outcome.COMPLETE if self._last else Outcome.GONE, "the client's port is closed")

    def _advance(self, blocks: int, now: float) -> Sending:
        """The client has so many blocks more: send what follows."""
        self.acknowledged += blocks
        if not self._fixed:
            if self._tries > 1:  # of a packet sent twice nobody knows which one was answered: keep some back-off (Karn)
                self._rto = min(2 * self._rto, max(self._rto, LONGEST_BACK_OFF))
                self._lane_end = self.sent + 1 if self.windowsize == 1 else 0  # and measure the next one
            elif self.sent >= self._lane_end and self.acknowledged == self.sent and not self._demanded:
                self._measure(now - self._out)
                if self.windowsize > 1:
                    self._shortest = min(self._shortest or math.inf, now - self._out)
        if self._last and self.acknowledged == self.sent:
            self._end(Outcome.COMPLETE)
            return []
        again = self.sent - self.acknowledged
        if again and not self._is_about_now(now):  # what was lost is on its way again already
            return self._send_window(now, self.sent + 1)
        self.resent += again
        return self._send_window(now, self.acknowledged + 1)

    def _send_window(self, now: float, first: int = 1) -> Sending:
        """The blocks from `first` on, up to the window's end."""
        if self._last and first > self.sent:  # nothing is left
            self.progress = now
            self.deadline = now + self._rto
            return []
        try:
            runs = self._blocks.runs(first, self.acknowledged + self.windowsize + 1 - first)
            chunk = self._blocks.chunk(first)
        except OSError as error:
            reason = error.strerror or str(error)
            self._end(Outcome.FAILED, reason)
            return [Error(ErrorCode.NOT_DEFINED, reason).encode()]
        stride = self.blksize + 4
        count = sum(-(-len(run) // stride) for run in runs)
        self.sent = first - 1 + count
        self._last = len(runs[-1]) % stride != 0
        self._awaited = _HEADER.pack(Opcode.ACK, self.sent & 0xFFFF)
        self._tries = 1
        self.progress = now
        if first == self.acknowledged + 1:
            self._out, self._demanded = now, False
        self.deadline = now + self._rto
        if self.windowsize == 1 and self.sent > self._lane_end:
            self._open_lane(chunk)
        return runs

    def _open_lane(self, chunk: Chunk) -> None:
        """Let `quick` send what follows in the chunk, up to where the round trip is to be measured again."""
        self._lane_packets, self._lane_acks, self._lane_first = chunk.packets, chunk.acks, chunk.first - 1
        self._lane_end = min(chunk.first - 1 + chunk.count - chunk.last, self.sent + min(MEASURE_EVERY, self.sent // 4))

    def _repeat(self, now: float) -> Sending:
        self._out = now
        self._lane_end = 0
        if not self.sent:
            self.resent += 1
            return [self._greeting]
        in_flight = self.sent - self.acknowledged
        self.resent += in_flight
        return self._blocks.runs(self.acknowledged + 1, in_flight)

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
        self._lane_end = 0
