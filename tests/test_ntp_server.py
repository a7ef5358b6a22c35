"""The NTP thread over loopback, and what is said of the kernel's clock."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from ntp import server as server_module
from ntp.packet import Leap, Mode, NtpPacket, timestamp, unix_ns
from ntp.policy import ClockState, NtpPolicy
from ntp.server import KernelClock, NtpServer, clock_state, measure_precision, read_kernel_clock
from tests.test_ntp_packet import GOLDEN
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
    assert reports == [Report(PI.mac, Stage.UP, heard="NTP request", sent="time")]
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


def test_strangers_are_answered_and_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[Report] = []
    asked: list[IPv4Address] = []
    monkeypatch.setattr(server_module, "MAX_REPORTED", 1)
    with serving(reports, asked.append) as server, client(server) as asking:
        server._reported["172.30.4.99"] = 0.0  # a table that is full begins anew
        for _ in range(3):
            asking.send(GOLDEN.encode())
            asking.recv(1000)
        assert list(server._reported) == ["127.0.0.1"]
    assert reports == []
    assert asked == [LOOPBACK]


def test_a_reply_that_cannot_be_sent_is_counted() -> None:
    reports: list[Report] = []
    server = NtpServer(LOOPBACK, 0, NtpPolicy(), lambda _: PI, reports.append, lambda: CLOCK)
    server._answer(GOLDEN.encode(), time.time_ns(), ("127.0.0.1", 0))
    assert server.counters == {"could not be sent": 1}
    assert reports == []
    server.stop()
    server.run()  # ends at once, and closes


def test_a_taken_port_is_an_error() -> None:
    with serving([]) as server, pytest.raises(OSError, match="in use"):
        NtpServer(LOOPBACK, server.port, NtpPolicy(), lambda _: None, lambda _: None)


def test_the_kernels_clock_by_default_and_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []

    def read() -> KernelClock:
        reads.append(1)
        return KernelClock(True, Leap.DELETE, 0.25)

    monkeypatch.setattr(server_module, "read_kernel_clock", read)
    server = NtpServer(LOOPBACK, 0, NtpPolicy(), lambda _: None, lambda _: None)
    state = server._clock_at(100.0)
    assert (state.leap, state.stratum, state.root_dispersion) == (Leap.DELETE, 3, 16384)
    server._clock_at(100.9)
    assert len(reads) == 1
    server._clock_at(101.0)
    assert len(reads) == 2
    server.stop()
    server.run()  # ends at once, and closes


def test_when_the_kernel_says_nothing_of_the_arrival() -> None:
    stamp = struct.pack("@ll", 5, 7)
    assert server_module._received_at([(1, 99, b""), (socket.SOL_SOCKET, 35, stamp)]) == 5_000_000_007
    before = time.time_ns()
    assert server_module._received_at([(socket.SOL_SOCKET, 35, b"short")]) >= before


class TestClock:
    def test_synchronised(self) -> None:
        state = clock_state(KernelClock(True, Leap.INSERT, 0.5), 10**18, 99.0, -21, 10)
        assert state == ClockState(Leap.INSERT, 3, -21, 0, 32768, bytes([127, 0, 0, 1]), timestamp(10**18))

    def test_local_with_a_dispersion_that_grows_to_a_second(self) -> None:
        kernel = KernelClock(False, Leap.INSERT, 16.0)
        states = [clock_state(kernel, 10**18, age, -21, 10) for age in (0.0, 10_000.0, 1e9)]
        assert [each.root_dispersion for each in states] == [656, 10486, 65536]
        assert {(each.leap, each.stratum, each.reference_id) for each in states} == {
            (Leap.NONE, 10, bytes([127, 127, 1, 1]))
        }

    def test_local_and_not_to_be_followed(self) -> None:
        assert clock_state(KernelClock(False, Leap.NONE, 16.0), 10**18, 0.0, -21, None).stratum == 16

    def test_this_kernel(self, monkeypatch: pytest.MonkeyPatch) -> None:
        kernel = read_kernel_clock()
        assert 0 <= kernel.max_error < 100
        assert -30 <= measure_precision() < 0

    def test_a_kernel_that_cannot_tell(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Library:
            def __init__(self, _name: None, use_errno: bool) -> None: ...

            def adjtimex(self, _timex: object) -> int:
                return -1

        monkeypatch.setattr("ctypes.CDLL", Library)
        assert read_kernel_clock() == KernelClock(False, Leap.NONE, 1.0)
