"""The read transfer: its rules one by one, then thousands of whole files over a bad wire in virtual time."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire import Weather, converse
from tftp.packet import Ack, Data, Error, OptionAck, Options, PacketError, ReadRequest, parse
from tftp.transfer import (
    CHUNK,
    CHUNK_PACKETS,
    LARGEST_BLOCK,
    Blocks,
    Netascii,
    Outcome,
    PacketCache,
    Read,
    ReadTransfer,
    Result,
    Sending,
    Terms,
    negotiate,
)


def reader(content: bytes) -> Read:
    return lambda offset, length: content[offset : offset + length]


def transfer_of(content: bytes, options: Options = ()) -> ReadTransfer:
    terms = negotiate(options, len(content))
    return ReadTransfer(Blocks(reader(content), terms.blksize), terms)


def datagrams(sending: Sending, blksize: int) -> list[bytes]:
    """What goes over the wire: runs of DATA packets cut into single ones."""
    return [
        bytes(each[at : at + blksize + 4]) if isinstance(each, memoryview) else each
        for each in sending
        for at in (range(0, len(each), blksize + 4) if isinstance(each, memoryview) else (0,))
    ]


def data_packets(
    read: Read, blksize: int, cache: PacketCache | None = None, identity: str | None = None, at_once: int = 1
) -> list[bytes]:
    """All DATA packets of a file, asked for a few at a time."""
    blocks, packets = Blocks(read, blksize, cache, identity), list[bytes]()
    while not packets or len(packets[-1]) == blksize + 4:
        packets += datagrams(blocks.runs(len(packets) + 1, at_once), blksize)
    return packets


@pytest.mark.parametrize(
    ("options", "terms"),
    [
        ((), Terms()),
        ((("tsize", "0"),), Terms(answer=(("tsize", "777"),))),
        ((("blksize", "1468"), ("tsize", "0")), Terms(1468, None, (("blksize", "1468"), ("tsize", "777")))),
        ((("BlkSize", "8"),), Terms(8, None, (("BlkSize", "8"),))),
        ((("blksize", "7"),), Terms()),
        ((("blksize", "65464"),), Terms(65464, None, (("blksize", "65464"),))),
        ((("blksize", "99999"),), Terms(65464, None, (("blksize", "65464"),))),
        ((("blksize", "512"), ("blksize", "1024")), Terms(512, None, (("blksize", "512"),))),
        ((("blksize", "-8"), ("tsize", "²"), ("timeout", "")), Terms()),
        ((("blksize", "9" * 21),), Terms()),
        ((("timeout", "3"),), Terms(512, 3, (("timeout", "3"),))),
        ((("timeout", "0"),), Terms()),
        ((("timeout", "256"),), Terms()),
        ((("windowsize", "4"), ("x", "y")), Terms(512, None, (("windowsize", "4"),), 4)),
        ((("windowsize", "0"), ("windowsize", "x")), Terms()),
        ((("windowsize", "65536"),), Terms()),
        ((("WINDOWSIZE", "65535"),), Terms(512, None, (("WINDOWSIZE", "64"),), 64)),
        (
            (("windowsize", "64"), ("blksize", "8192")),
            Terms(8192, None, (("windowsize", "16"), ("blksize", "8192")), 16),
        ),
        (
            (("blksize", "65464"), ("windowsize", "64")),
            Terms(65464, None, (("blksize", "65464"), ("windowsize", "2")), 2),
        ),
    ],
)
def test_options(options: Options, terms: Terms) -> None:
    assert negotiate(options, 777) == terms


def test_a_size_that_is_not_known_is_not_told() -> None:
    assert negotiate((("tsize", "0"),), None) == Terms()


@given(
    st.lists(st.tuples(st.sampled_from(("blksize", "TSIZE", "timeout", "windowsize", "x")), st.text(max_size=6))).map(
        tuple
    )
)
def test_any_options_give_sound_terms(options: Options) -> None:
    terms = negotiate(options, 5)
    assert 8 <= terms.blksize <= 65464
    assert terms.timeout is None or 1 <= terms.timeout <= 255
    assert 1 <= terms.windowsize <= 64
    assert terms.windowsize == 1 or terms.windowsize * terms.blksize <= CHUNK
    assert len(terms.answer) <= 4


@given(st.integers(0, 300), st.integers(8, 64))
def test_packets_are_the_encoded_blocks(size: int, blksize: int) -> None:
    content = random.Random(size).randbytes(size)
    expected = [
        Data(number, content[start : start + blksize]).encode()
        for number, start in enumerate(range(0, size + 1, blksize), 1)
    ]
    assert data_packets(reader(content), blksize) == expected
    assert data_packets(reader(content), blksize, at_once=7) == expected


@pytest.mark.parametrize("blksize", [8, 512, 1468, CHUNK, 65464])
@pytest.mark.parametrize("beside", [-1, 0, 1])
def test_chunks_join_without_a_seam(blksize: int, beside: int) -> None:
    chunk = min(CHUNK_PACKETS, max(1, CHUNK // blksize)) * blksize
    content = random.Random(blksize).randbytes(2 * chunk + beside)
    packets = data_packets(reader(content), blksize)
    assert data_packets(reader(content), blksize, at_once=min(3, chunk // blksize)) == packets
    assert b"".join(packet[4:] for packet in packets) == content
    assert [len(packet) for packet in packets[:-1]] == [blksize + 4] * (len(packets) - 1)
    assert len(packets[-1]) < blksize + 4


def test_block_numbers_roll_over_to_zero() -> None:
    numbers = [packet[2:4] for packet in data_packets(reader(bytes(65537 * 8)), 8, at_once=64)]
    assert numbers[65534:65538] == [b"\xff\xff", b"\0\0", b"\0\1", b"\0\2"]


def test_the_cache_spares_reading_and_stays_in_its_bounds() -> None:
    reads: list[int] = []
    content = random.Random(1).randbytes(1_000_000)

    def read(offset: int, length: int) -> bytes:
        reads.append(offset)
        return content[offset : offset + length]

    cache = PacketCache()
    for at_once in (1, 1, 16, 64):
        assert b"".join(p[4:] for p in data_packets(read, 1024, cache, "file", at_once)) == content
    assert len(reads) == 4
    assert b"".join(p[4:] for p in data_packets(read, 1024, cache, None)) == content
    assert b"".join(p[4:] for p in data_packets(read, 512, cache, "file")) == content
    small = PacketCache(limit=700_000)
    assert b"".join(p[4:] for p in data_packets(read, 1024, small, "file")) == content
    assert 0 < small.held <= 700_000


def test_the_cache_forgets_what_is_not_used() -> None:
    cache = PacketCache()
    for name in ("a", "b"):
        data_packets(reader(bytes(600_000)), 1024, cache, name)
    held = cache.held
    cache.age()
    assert cache.held == held  # used since the last time
    data_packets(reader(b""), 1024, cache, "b")  # from the cache, what it reads does not count
    cache.age()
    assert cache.held == held // 2
    cache.age()
    assert cache.held == 0


def test_netascii() -> None:
    content = b"one\ntwo\r\nthree\r" * 2000
    translated = content.replace(b"\r", b"\r\0").replace(b"\n", b"\r\n")
    read = Netascii(reader(content))
    assert b"".join(packet[4:] for packet in data_packets(read, 8)) == translated
    with pytest.raises(ValueError, match="in order"):
        read(0, 8)


@given(st.binary(max_size=200).map(lambda raw: raw.replace(b"\1", b"\n").replace(b"\2", b"\r")), st.integers(8, 30))
def test_netascii_of_any_bytes_is_undone_by_the_client(content: bytes, blksize: int) -> None:
    sent = b"".join(packet[4:] for packet in data_packets(Netascii(reader(content)), blksize))
    assert sent.replace(b"\r\n", b"\n").replace(b"\r\0", b"\r") == content


def test_without_options_the_first_packet_is_data() -> None:
    transfer = transfer_of(b"x" * 600)
    assert transfer.start(10.0) == [Data(1, b"x" * 512).encode()]
    assert not transfer.heard
    assert transfer.acknowledged == 0
    assert transfer.receive(Ack(1).encode(), 10.1) == [Data(2, b"x" * 88).encode()]
    assert transfer.heard
    assert (transfer.acknowledged, transfer.progress) == (1, 10.1)
    assert transfer.receive(Ack(2).encode(), 10.2) == []
    assert transfer.result == Result(Outcome.COMPLETE)
    assert (transfer.acknowledged, transfer.deadline) == (2, math.inf)


def test_with_options_the_first_packet_is_one_oack_that_only_the_timer_repeats() -> None:
    transfer = transfer_of(b"x", (("tsize", "0"),))
    oack = OptionAck((("tsize", "1"),)).encode()
    assert transfer.start(0.0) == [oack]
    assert transfer.tick(0.9) == []
    assert transfer.tick(1.0) == [oack]
    assert transfer.receive(Ack(0).encode(), 1.1) == [Data(1, b"x").encode()]
    assert transfer.receive(Ack(0).encode(), 1.2) == []  # not repeated for a duplicate
    assert transfer.resent == 1


def test_whatever_is_not_the_awaited_ack_is_answered_with_silence() -> None:
    transfer = transfer_of(b"x" * 5000)
    transfer.start(0.0)
    transfer.receive(Ack(1).encode(), 0.1)
    deadline = transfer.deadline
    for odd in (Ack(1), Ack(0), Ack(3), Data(2, b""), ReadRequest("f"), OptionAck((("a", "b"),))):
        assert transfer.receive(odd.encode(), 0.2) == []
    assert transfer.receive(b"\0", 0.2) == []
    assert (transfer.result, transfer.deadline) == (None, deadline)
    assert transfer.receive(Ack(2).encode() + b"padding", 0.3) == [Data(3, b"x" * 512).encode()]


def test_an_error_ends_it_and_after_the_end_there_is_only_silence() -> None:
    transfer = transfer_of(b"x" * 5000)
    transfer.start(0.0)
    assert transfer.receive(Error(0, "Early terminate").encode(), 0.1) == []
    assert transfer.result == Result(Outcome.ABORTED, "Early terminate", 0)
    assert transfer.receive(Ack(1).encode(), 0.2) == []
    assert transfer.tick(100.0) == []
    transfer.refused()
    assert transfer.result.outcome is Outcome.ABORTED


def test_the_timer_follows_the_round_trip_and_backs_off() -> None:
    transfer = transfer_of(b"x" * 50_000)
    transfer.start(0.0)
    now = 0.0
    for block in range(1, 40):
        now += 0.3
        transfer.receive(Ack(block).encode(), now)
    assert 0.3 < transfer.deadline - now < 0.4
    waits = []
    for _ in range(5):
        when = transfer.deadline
        assert len(transfer.tick(when)) == 1
        waits.append(transfer.deadline - when)
    assert waits[0] == pytest.approx(0.6, abs=0.1)
    assert waits[1:] == pytest.approx([1.0, 1.0, 1.0, 6.5])  # the last one is for clients that wait for silence
    # After a repetition nobody knows the round trip: some of the back-off stays until it is measured again.
    transfer.receive(Ack(40).encode(), 100.0)
    assert transfer.deadline - 100.0 == pytest.approx(0.6, abs=0.1)
    transfer.receive(Ack(41).encode(), 100.01)
    assert transfer.deadline - 100.01 < 0.6


def test_a_fast_wire_does_not_bring_the_timer_below_its_floor() -> None:
    transfer = transfer_of(b"x" * 50_000)
    transfer.start(0.0)
    for block in range(1, 40):
        transfer.receive(Ack(block).encode(), block * 0.0001)
    assert transfer.deadline - 39 * 0.0001 == pytest.approx(0.2)


def test_the_clients_timeout_is_the_interval() -> None:
    transfer = transfer_of(b"x" * 600, (("timeout", "4"),))
    transfer.start(0.0)
    transfer.receive(Ack(0).encode(), 0.001)
    for when in (4.001, 8.001, 12.001):
        assert transfer.deadline == pytest.approx(when)
        assert len(transfer.tick(transfer.deadline)) == 1


@pytest.mark.parametrize(("options", "patience"), [((), 30.0), ((("timeout", "20"),), 60.0)])
def test_it_gives_up_after_a_bounded_time(options: Options, patience: float) -> None:
    transfer = transfer_of(b"x" * 600, options)
    transfer.start(5.0)
    for _ in itertools.takewhile(lambda _: transfer.result is None, range(100)):
        when = transfer.deadline
        transfer.tick(when)
    assert transfer.result == Result(Outcome.TIMEOUT, f"no answer for {patience:.0f} s")
    assert when == 5.0 + patience


def test_a_closed_port() -> None:
    transfer = transfer_of(b"x" * 600)
    transfer.start(0.0)
    transfer.refused()
    assert transfer.result == Result(Outcome.GONE, "the client's port is closed")
    transfer = transfer_of(b"x")
    transfer.start(0.0)
    transfer.refused()  # the only block was out, so it is the last ACK that was lost
    assert transfer.result
    assert transfer.result.outcome is Outcome.COMPLETE


@pytest.mark.parametrize(("error", "reason"), [(OSError(5, "disk gone"), "disk gone"), (OSError("odd"), "odd")])
def test_a_file_that_cannot_be_read_on_ends_with_an_error(error: OSError, reason: str) -> None:
    def read(offset: int, length: int) -> bytes:
        if offset:
            raise error
        return bytes(length)

    transfer = ReadTransfer(Blocks(read, LARGEST_BLOCK), Terms(LARGEST_BLOCK))
    transfer.start(0.0)
    for block in range(1, CHUNK // LARGEST_BLOCK):
        transfer.receive(Ack(block).encode(), 0.1)
    assert transfer.receive(Ack(CHUNK // LARGEST_BLOCK).encode(), 0.1) == [Error(0, reason).encode()]
    assert transfer.result == Result(Outcome.FAILED, reason)


class Client:
    """A pure reading client: repeats its last packet by timer, acknowledges duplicates again as RFC 1350 clients do.

    With a window (RFC 7440) it acknowledges the window's last block, the file's last, and the one before a gap. A
    `calm` one says so once for each gap, others at each packet behind it, and when the last one comes again.
    """

    def __init__(
        self, options: Options = (), timeout: float = 1.0, abort_at: int | None = None, calm: bool = False
    ) -> None:
        self.deadline = 0.0
        self.content = bytearray()
        self.error: Error | None = None
        self.complete = False
        self.oacks = 0
        self._last = ReadRequest("file", "octet", options).encode()
        self._timeout = timeout
        self._expected = 1
        self._blksize = 512
        self._windowsize = 1
        self._in_window = 0
        self._calm = calm
        self._told = False
        self._abort_at = abort_at
        self._tries = 0

    def tick(self, now: float) -> list[bytes]:
        self._tries += 1
        self.deadline = now + self._timeout if self._tries < 40 else math.inf
        return [self._last]

    def receive(self, datagram: bytes, now: float) -> list[bytes]:
        packet = parse(datagram)
        if isinstance(packet, Error):
            self.error, self.deadline = packet, math.inf
        elif isinstance(packet, OptionAck):
            self.oacks += 1
            if self._expected == 1:
                self._blksize = int(dict(packet.options).get("blksize", "512"))
                self._windowsize = int(dict(packet.options).get("windowsize", "1"))
                return self._answer(Ack(0).encode(), now)
        elif isinstance(packet, Data):
            return self._take(packet, now)
        return []

    def _odd(self, packet: Data, now: float) -> list[bytes]:
        """A block that is not the next one: a duplicate, or behind a gap."""
        before = (self._expected - 1) & 0xFFFF
        if self._windowsize == 1:
            return [Ack(packet.block).encode()] if packet.block == before else []
        if self.complete:
            return [Ack(before).encode()]
        behind = (packet.block - self._expected) & 0xFFFF >= 0x8000
        if (behind and packet.block != before) or (self._calm and (self._told or behind)):
            return []
        self._told = True
        self._in_window = 0
        return self._answer(Ack(before).encode(), now)

    def _take(self, packet: Data, now: float) -> list[bytes]:
        if self.complete or packet.block != self._expected & 0xFFFF:
            return self._odd(packet, now)
        if self._expected == self._abort_at:
            self.deadline = math.inf
            return [Error(0, "Early terminate").encode()]
        self.content += packet.payload
        self._expected += 1
        self._in_window += 1
        self._told = False
        self.deadline = now + self._timeout
        last = len(packet.payload) < self._blksize
        if not last and self._in_window < self._windowsize:
            return []
        self._in_window = 0
        answer = self._answer(Ack(packet.block).encode(), now)
        if last:
            self.complete, self.deadline = True, math.inf
        return answer

    def _answer(self, packet: bytes, now: float) -> list[bytes]:
        self._last, self._tries, self.deadline = packet, 0, now + self._timeout
        return [packet]


class Server:
    """What the server does around a transfer: a request starts it, a second one does not."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.transfer: ReadTransfer | None = None

    @property
    def deadline(self) -> float:
        return self.transfer.deadline if self.transfer else math.inf

    @deadline.setter
    def deadline(self, when: float) -> None:
        raise AttributeError

    def receive(self, datagram: bytes, now: float) -> list[bytes]:
        try:
            packet = parse(datagram)
        except PacketError:
            packet = None
        if isinstance(packet, ReadRequest):
            if self.transfer:
                return []
            self.transfer = transfer_of(self.content, packet.options)
            return datagrams(self.transfer.start(now), self.transfer.blksize)
        if self.transfer is None:
            return []
        quick = self.transfer.quick(datagram, now)
        return datagrams(
            self.transfer.receive(datagram, now) if quick is None else [quick],
            self.transfer.blksize,
        )

    def tick(self, now: float) -> list[bytes]:
        assert self.transfer
        return datagrams(self.transfer.tick(now), self.transfer.blksize)


OPTIONS: list[Options] = [
    (),
    (("tsize", "0"),),
    (("tsize", "0"), ("blksize", "64")),
    (("blksize", "1468"), ("tsize", "0")),
    (("timeout", "1"),),
    (("windowsize", "2"),),
    (("blksize", "64"), ("windowsize", "16")),
    (("windowsize", "64"), ("tsize", "0"), ("blksize", "32")),
]


@pytest.mark.parametrize("options", OPTIONS)
def test_on_a_good_wire_nothing_is_sent_twice(options: Options) -> None:
    content = random.Random(7).randbytes(20_000)
    client, server = Client(options), Server(content)
    story = converse(client, server, Weather(), seed=1)
    assert client.content == content
    sent = story.sent_by(1)
    assert len(sent) == len(set(sent))
    assert client.oacks == (1 if options else 0)
    assert server.transfer
    assert server.transfer.result == Result(Outcome.COMPLETE)


def test_thousands_of_transfers_over_a_bad_wire_end_whole() -> None:
    chance = random.Random(2)
    for seed in range(2000):
        weather = Weather(chance.uniform(0, 0.3), chance.uniform(0, 0.3), 0.0005, chance.choice((0.001, 0.05, 0.3)))
        content = chance.randbytes(chance.choice((0, 1, 511, 512, 513, 1024, chance.randrange(6000))))
        client, server = Client(chance.choice(OPTIONS), calm=chance.random() < 0.5), Server(content)
        converse(client, server, weather, seed)
        assert client.complete, (seed, weather)
        assert client.content == content, (seed, weather)
        assert server.transfer
        assert server.transfer.result, (seed, weather)
        # The last ACK may be lost with a client that is gone then: the one case that ends with patience.
        assert server.transfer.result.outcome in (Outcome.COMPLETE, Outcome.TIMEOUT), (seed, weather)


def test_duplicates_on_the_wire_are_not_multiplied() -> None:
    content = bytes(100 * 512)
    client, server = Client(), Server(content)
    story = converse(client, server, Weather(double=1.0), seed=3)
    assert client.content == content
    assert len(story.sent_by(1)) == 101  # each packet once, though each ACK came two to four times


def test_a_file_of_more_than_65535_blocks_over_a_wire_that_loses_some() -> None:
    content = random.Random(5).randbytes(66_000 * 8 + 3)
    client, server = Client((("blksize", "8"),)), Server(content)
    converse(client, server, Weather(loss=0.002, double=0.01, slowest=0.003), seed=4, longest=7200)
    assert client.content == content


class SilentClient(Client):
    """As atftp: a repetition is acknowledged once, more of them only start its own timer anew."""

    def _take(self, packet: Data, now: float) -> list[bytes]:
        if packet.block == (self._expected - 1) & 0xFFFF:
            self.deadline = now + self._timeout
            return []
        return super()._take(packet, now)


def test_a_client_that_waits_for_silence_gets_it() -> None:
    content = random.Random(8).randbytes(20_000)
    client, server = SilentClient(timeout=5.0), Server(content)
    converse(client, server, Weather(loss=0.15), seed=7)
    assert client.content == content


def test_early_terminate_is_quiet_and_silence_ends() -> None:
    client, server = Client((("tsize", "0"),), abort_at=1), Server(bytes(5000))
    story = converse(client, server, Weather(), seed=5)
    assert len(story.sent_by(1)) == 2
    assert server.transfer
    assert server.transfer.result == Result(Outcome.ABORTED, "Early terminate", 0)
    client, server = Client(timeout=2.0), Server(bytes(5000))
    story = converse(client, server, Weather(loss=1.0), seed=6)
    assert server.transfer is None
    assert 70 < story.time < 90


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.one_of(st.none(), st.binary(max_size=8), st.integers(0, 4)), st.floats(0, 40)), max_size=30)
)
def test_any_input_in_any_state_is_survived(steps: list[tuple[bytes | int | None, float]]) -> None:
    transfer, now = transfer_of(bytes(1500), (("tsize", "0"),)), 0.0
    transfer.start(now)
    for step, wait in steps:
        now += wait
        if step is None:
            answer = transfer.tick(now)
        else:
            answer = transfer.receive(Ack(step).encode() if isinstance(step, int) else step, now)
        assert len(answer) <= 1
        assert 0 <= transfer.sent - transfer.acknowledged <= transfer.windowsize
        assert (transfer.result is None) == (transfer.deadline < math.inf)


def window_of(size: int, content: bytes = bytes(512 * 40), trip: float = 0.1) -> ReadTransfer:
    """A transfer whose second window is on its way at 1.0, after a first one that took one round trip."""
    transfer = transfer_of(content, (("windowsize", str(size)),))
    transfer.start(1.0 - 2 * trip)
    assert numbers(transfer.receive(Ack(0).encode(), 1.0 - trip)) == list(range(1, size + 1))
    assert numbers(transfer.receive(Ack(size).encode(), 1.0)) == list(range(size + 1, 2 * size + 1))
    return transfer


def numbers(sending: Sending, blksize: int = 512) -> list[int]:
    packets = [parse(datagram) for datagram in datagrams(sending, blksize)]
    return [packet.block for packet in packets if isinstance(packet, Data)]


def test_a_window_follows_the_ack_of_the_one_before() -> None:
    transfer = window_of(8)
    runs = transfer.receive(Ack(16).encode(), 1.1)
    assert len(runs) == 1  # one buffer, for one system call
    assert numbers(runs) == list(range(17, 25))
    assert (transfer.acknowledged, transfer.sent, transfer.resent) == (16, 24, 0)


def test_an_ack_in_the_middle_starts_the_window_again_behind_it() -> None:
    transfer = window_of(8)
    assert numbers(transfer.receive(Ack(11).encode(), 1.1)) == list(range(12, 20))
    assert (transfer.acknowledged, transfer.sent, transfer.resent) == (11, 19, 5)
    # What was left of the window before brings more ACKs, sooner than they can be about the one that is on its way:
    # that one has what they miss. They bring new blocks only.
    for _ in range(5):
        assert transfer.receive(Ack(11).encode(), 1.11) == []
    assert numbers(transfer.receive(Ack(13).encode(), 1.12)) == [20, 21]
    assert numbers(transfer.receive(Ack(21).encode(), 1.2)) == list(range(22, 30))
    assert transfer.resent == 5


def test_the_ack_before_the_window_is_answered_once_and_not_at_once() -> None:
    transfer = window_of(4)
    assert transfer.receive(Ack(4).encode(), 1.01) == []  # a duplicate on the wire
    assert numbers(transfer.receive(Ack(4).encode(), 1.1)) == [5, 6, 7, 8]
    assert transfer.resent == 4
    assert transfer.receive(Ack(4).encode(), 1.2) == []
    assert transfer.receive(Ack(4).encode(), 1.9) == []
    assert numbers(transfer.receive(Ack(8).encode(), 1.95)) == [9, 10, 11, 12]
    for odd in (0, 7, 13, 65535):
        assert transfer.receive(Ack(odd).encode(), 3.0) == []
    assert numbers(transfer.tick(transfer.deadline)) == [9, 10, 11, 12]


def test_the_last_window_is_what_is_left() -> None:
    transfer = window_of(4, bytes(512 * 10))
    assert [len(packet) for packet in datagrams(transfer.receive(Ack(8).encode(), 1.1), 512)] == [516, 516, 4]
    assert transfer.receive(Ack(9).encode(), 1.101) == []  # all that is left is on its way
    assert numbers(transfer.receive(Ack(10).encode(), 1.2)) == [11]
    assert transfer.result is None
    assert transfer.receive(Ack(11).encode(), 1.3) == []
    assert transfer.result == Result(Outcome.COMPLETE)
    assert (transfer.acknowledged, transfer.resent) == (11, 1)


def test_a_window_over_the_roll_over() -> None:
    content = random.Random(4).randbytes(8 * 65_600 + 5)
    options = (("blksize", "8"), ("windowsize", "64"))
    client, server = Client(options, calm=True), Server(content)
    story = converse(client, server, Weather(), seed=1)
    assert client.content == content
    sent = [parse(datagram) for datagram in story.sent_by(1)]
    blocks = [packet.block for packet in sent if isinstance(packet, Data)]
    assert blocks == [number & 0xFFFF for number in range(1, 65_602)]
    client, server = Client(options), Server(content)
    converse(client, server, Weather(loss=0.001, double=0.01), seed=4, longest=7200)
    assert client.content == content


@pytest.mark.parametrize("calm", [True, False])
def test_duplicates_do_not_multiply_a_window_more_than_once(calm: bool) -> None:
    content = bytes(400 * 512)
    client, server = Client((("windowsize", "16"),), calm=calm), Server(content)
    story = converse(client, server, Weather(double=1.0), seed=3)
    assert client.content == content
    assert len(story.sent_by(1)) <= 402 * (1 if calm else 2)


@given(
    st.sampled_from([0, 511, 512 * 3, 512 * 200 + 7, 512 * 1300]),
    st.lists(st.sampled_from(["ack"] * 40 + ["double", "tick", "other", "error"]), max_size=150),
    st.lists(st.floats(0.0001, 0.3), min_size=1, max_size=5),
)
def test_the_quick_way_does_what_the_plain_one_does(size: int, steps: list[str], waits: list[float]) -> None:
    def state(transfer: ReadTransfer) -> list[object]:
        slots = [slot for slot in ReadTransfer.__slots__ if slot not in ("_blocks", "_lane_packets", "_lane_acks")]
        return [getattr(transfer, slot) for slot in slots]

    quick, plain = transfer_of(bytes(size)), transfer_of(bytes(size))
    now, taken = 1.0, 0
    assert quick.start(now) == plain.start(now)
    for step, wait in zip(steps, itertools.cycle(waits)):
        now += wait
        if step == "tick":
            now = min(max(now, plain.deadline), now + 40)
            assert quick.tick(now) == plain.tick(now)
        else:
            block = plain.sent - (step == "double")
            datagram = {"other": b"\0\3", "error": Error(3).encode()}.get(step, Ack(block & 0xFFFF).encode())
            answer = quick.quick(datagram, now)
            taken += answer is not None
            got = quick.receive(datagram, now) if answer is None else [answer]
            assert got == plain.receive(datagram, now)
        assert state(quick) == state(plain)
    if size > 512 * 100 and steps[:80] == ["ack"] * 80:
        assert taken > 40
