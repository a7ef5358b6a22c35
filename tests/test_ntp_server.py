"""The NTP thread over loopback, and what is said of the kernel's clock."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntp import chrony
from ntp import server as server_module
from ntp.arrivals import Arrivals
from ntp.clock import KernelClock
from ntp.packet import Leap, Mode, NtpPacket, unix_ns
from ntp.policy import ClockState, NtpPolicy, RateLimit, make_reply
from ntp.server import NtpClient, NtpServer
from tests.test_ntp_chrony import GOLDEN as TRACKING
from tests.test_ntp_chrony import GOLDEN_BYTES
from tests.test_ntp_clock import chronyd_that_answers
from tests.test_ntp_packet import GOLDEN, packets
from tests.test_ntp_policy import CLOCK
from utility.hosts import Host
from utility.service import Report, Stage

LOOPBACK = IPv4Address("127.0.0.1")
PI = Host("b8:27:eb:00:00:01", LOOPBACK, "pi1")


@contextlib.contextmanager
def serving(
    reports: list[Report], host_of: Callable[[IPv4Address], Host | None] = lambda _: PI, clock: ClockState = CLOCK
) -> Iterator[NtpServer]:
    server = NtpServer(LOOPBACK, 0, NtpPolicy(), host_of, reports.append, lambda: clock)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(1)
        assert not thread.is_alive()
        server.stop()


class Unsendable:
    """A socket with no way back to who asked."""

    def __init__(self, real: socket.socket) -> None:
        self.close, self.fileno = real.close, real.fileno

    def sendto(self, _data: bytes, _peer: object) -> int:
        raise OSError("Network is unreachable")


@contextlib.contextmanager
def client(server: NtpServer) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(5)
        asking.connect((str(LOOPBACK), server.port))
        yield asking


def test_an_answer_with_true_times() -> None:
    reports: list[Report] = []
    with serving(reports) as server, client(server) as asking:
        before = time.time_ns()
        asking.send(GOLDEN.encode() + b"an extension field")
        data = asking.recv(1000)
        after = time.time_ns()
    assert len(data) == 48
    reply = NtpPacket.parse(data)
    assert (reply.mode, reply.stratum, reply.origin_time) == (Mode.SERVER, 3, GOLDEN.transmit_time)
    received, sent = unix_ns(reply.receive_time, before), unix_ns(reply.transmit_time, before)
    assert before <= received < sent <= after
    (report,) = reports
    facts = {"ntp": "version 4", "ntp_at": str(received // 10**9)}
    assert report == Report(PI.mac, Stage.UP, heard="NTP request", sent="time", facts=facts)
    assert server.counters == {"answered": 1}


def test_garbage_is_dropped_counted_and_survived(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "piman.ntp")
    reports: list[Report] = []
    control = replace(GOLDEN, mode=Mode.CONTROL).encode()
    with serving(reports) as server, client(server) as asking:
        for garbage in (b"", b"x", bytes(47), bytes(48), b"\xff" * 5000, control):
            asking.send(garbage)
        for _ in range(100):  # more than a batch
            asking.send(GOLDEN.encode())
        for _ in range(100):
            asking.recv(1000)
    dropped = {"malformed": 3, "version 0": 1, "version 7": 1, "mode 6": 1}
    assert server.counters == {"answered": 100, **dropped}
    assert len(reports) == 1  # not one for each request
    assert len([each for each in caplog.records if "dropped" in each.message]) == 6
    assert all(each.levelno == logging.DEBUG for each in caplog.records)


def test_strangers_are_answered_and_not_reported() -> None:
    reports: list[Report] = []
    asked: list[IPv4Address] = []
    with serving(reports, asked.append) as server, client(server) as asking:
        for _ in range(3):
            asking.send(GOLDEN.encode())
            asking.recv(1000)
    assert reports == []
    assert asked == [LOOPBACK]


def test_the_prepared_way_is_the_readable_way() -> None:
    """Each request twice, at the least: by the policy the first time, from what was prepared the second."""
    state = [CLOCK]
    server = NtpServer(LOOPBACK, 0, NtpPolicy(), lambda _: None, lambda _: None, lambda: state[0])

    @given(packets, st.booleans(), st.sampled_from([1, 2, 3, 4]), st.sampled_from([CLOCK, replace(CLOCK, stratum=16)]))
    def answers(packet: NtpPacket, longer: bool, version: int, clock: ClockState) -> None:
        request = replace(packet, version=version, mode=Mode.CLIENT)
        if state[0] != clock:
            state[0], server._state_until = clock, 0.0
        for _ in range(2):
            asking.send(request.encode() + b"extension" * longer)
            assert not server._answer_waiting()
            data = asking.recv(1000)
            reply = NtpPacket.parse(data)
            expected = make_reply(request, reply.receive_time, clock)
            assert data == replace(expected, transmit_time=reply.transmit_time).encode()
            assert 0 <= reply.transmit_time - reply.receive_time < 10 << 32
        assert len(server._heads) >= 1

    with client(server) as asking:
        answers()
    server.stop()
    server.run()


@pytest.mark.parametrize("step", [-1, 1])
def test_on_both_sides_of_2036(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    era_1 = 2**32 - 2_208_988_800
    monkeypatch.setattr(Arrivals, "received_at", lambda *_: (era_1 - 1, 999_999_999))
    monkeypatch.setattr("time.time_ns", lambda: era_1 * 10**9 + step)
    server = NtpServer(LOOPBACK, 0, NtpPolicy(), lambda _: None, lambda _: None, lambda: CLOCK)
    with client(server) as asking:
        for _ in range(2):
            asking.send(GOLDEN.encode())
            server._answer_waiting()
            reply = NtpPacket.parse(asking.recv(1000))
            assert reply.receive_time >> 32 == 0xFFFFFFFF
            assert reply.transmit_time >> 32 == (0xFFFFFFFF if step < 0 else 0)
            assert unix_ns(reply.transmit_time, 10**9 * era_1) == era_1 * 10**9 + step
    server.stop()
    server.run()


def test_a_limit_holds_on_the_quick_way_too() -> None:
    policy = NtpPolicy(RateLimit(burst=2, interval=1000.0))
    server = NtpServer(LOOPBACK, 0, policy, lambda _: None, lambda _: None, lambda: CLOCK)
    with client(server) as asking:
        for _ in range(5):
            asking.send(GOLDEN.encode())
        server._answer_waiting()
        answers = [NtpPacket.parse(asking.recv(1000)) for _ in range(3)]
    assert [each.stratum for each in answers] == [3, 3, 0]
    assert answers[2].reference_id == b"RATE"
    assert server.counters == {"answered": 3, "asks too often": 2}
    server.stop()
    server.run()


class TestClients:
    def test_who_asks_and_how(self, monkeypatch: pytest.MonkeyPatch) -> None:
        arrival = [0, 0]
        monkeypatch.setattr(Arrivals, "received_at", lambda *_: tuple(arrival))
        reports: list[Report] = []
        server = NtpServer(LOOPBACK, 0, NtpPolicy(), lambda _: PI, reports.append, lambda: CLOCK)
        assert server.clients() == []
        with client(server) as asking:
            for seconds, poll in ((1000, 6), (1000, 6), (1002, 6), (1009, 6), (1010, 10), (400, 10), (464, 0)):
                arrival[0] = seconds
                asking.send(replace(GOLDEN, version=3, poll=poll).encode())
                server._answer_waiting()
                found = server.clients()
                if seconds == 1002:
                    asked = NtpClient("127.0.0.1", "pi1", PI.mac, 3, 64, last=1002, interval=2, requests=3)
                    assert found == [replace(asked, reported=1000)]
        # Reported every ten seconds, and at once after the clock was set back.
        assert [each.facts for each in reports] == [
            {"ntp": "version 3, every 64 s", "ntp_at": "1000"},
            {"ntp": "version 3, every 1024 s", "ntp_at": "1010"},
            {"ntp": "version 3, every 1024 s", "ntp_at": "400"},
            {"ntp": "version 3", "ntp_at": "464"},
        ]
        assert found == [NtpClient("127.0.0.1", "pi1", PI.mac, 3, 0, 464, interval=64, requests=7, reported=464)]
        server.stop()
        server.run()

    def test_the_table_is_bounded_and_forgets_the_one_reported_longest_ago(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server_module, "MAX_CLIENTS", 3)
        server = NtpServer(LOOPBACK, 0, NtpPolicy(), lambda _: None, lambda _: None, lambda: CLOCK)
        for seconds, number in enumerate((1, 2, 3, 1, 4), start=100):
            address = f"172.30.4.{number}"
            sender = (address, 123)
            server._note(server._admit(repr(sender).encode(), sender), seconds * 10, memoryview(GOLDEN.encode()))
        assert [each.address for each in server.clients()] == ["172.30.4.1", "172.30.4.3", "172.30.4.4"]
        assert len(server._peers) == 1  # none is there that was forgotten
        for port in range(1000, 1007):
            server._admit(str(port).encode(), ("172.30.4.1", port))
        assert len(server.clients()) == 3
        assert len(server._peers) <= 3
        server.stop()
        server.run()


def test_chronyds_word_counts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with chronyd_that_answers([GOLDEN_BYTES]) as port:
        monkeypatch.setattr(chrony, "PORT", port)
        server = NtpServer(LOOPBACK, 0, NtpPolicy(), lambda _: None, lambda _: None)
        thread = threading.Thread(target=server.run)
        thread.start()
        with client(server) as asking:
            deadline = time.monotonic() + 10
            while True:  # what was asked before chronyd answered is answered from the kernel's state
                asking.send(GOLDEN.encode())
                reply = NtpPacket.parse(asking.recv(1000))
                if reply.stratum == 4 or time.monotonic() > deadline:
                    break
        server.stop()
        thread.join(5)
        assert not thread.is_alive()
    assert (reply.stratum, reply.reference_id) == (4, TRACKING.reference_id)


def test_a_reply_that_cannot_be_sent_is_counted() -> None:
    reports: list[Report] = []
    server = NtpServer(LOOPBACK, 0, NtpPolicy(), lambda _: PI, reports.append, lambda: CLOCK)
    with client(server) as asking:
        asking.send(GOLDEN.encode())
        server._socket = Unsendable(server._socket)  # type: ignore[assignment]
        server._answer_waiting()
    assert server.counters == {"could not be sent": 1}
    assert reports == []
    server.stop()
    server.run()  # ends at once, and closes


def test_a_taken_port_is_an_error() -> None:
    with serving([]) as server, pytest.raises(OSError, match="in use"):
        NtpServer(LOOPBACK, server.port, NtpPolicy(), lambda _: None, lambda _: None)


def test_the_systems_clock_by_default_and_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []

    def read() -> KernelClock:
        reads.append(1)
        return KernelClock(True, Leap.DELETE, 0.25)

    monkeypatch.setattr("ntp.clock.read_kernel_clock", read)
    server = NtpServer(LOOPBACK, 0, NtpPolicy(), lambda _: None, lambda _: None)
    state = server._renew_state(100.0)
    assert (state.leap, state.stratum, state.root_dispersion) == (Leap.DELETE, 3, 16384)
    server._renew_state(100.9)
    assert len(reads) == 1
    server._renew_state(101.0)
    assert len(reads) == 2
    server.stop()
    server.run()  # ends at once, and closes
