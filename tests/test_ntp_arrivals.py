"""Datagrams taken many at a time are the same datagrams."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from ntp.arrivals import ROOM, SO_TIMESTAMPNS, Arrivals


@contextlib.contextmanager
def wire() -> Iterator[tuple[socket.socket, socket.socket]]:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far,
    ):
        near.bind(("127.0.0.1", 0))
        far.bind(("127.0.0.2", 0))
        far.connect(near.getsockname())
        yield near, far


def test_each_with_its_size_sender_and_time() -> None:
    with wire() as (near, far):
        arrivals = Arrivals(near, 4)
        assert arrivals.take() == 0
        sent = [b"", b"a", b"b" * 48, b"c" * ROOM, b"d" * 2000, b"e"]
        before = time.time_ns()
        for data in sent:
            far.send(data)
        seen, times = [], []
        for expected in (4, 2, 0):
            taken = arrivals.take()
            assert taken == expected
            for number in range(taken):
                seen.append(bytes(arrivals.packets[number][: arrivals.sizes[number]]))
                assert arrivals.sender(number) == far.getsockname()
                seconds, nanoseconds = arrivals.received_at(number)
                times.append(seconds * 10**9 + nanoseconds)
        assert seen == [data[:ROOM] for data in sent]
        # Right after it was told to stamp what arrives, the kernel may still stamp what is taken.
        assert before <= min(times) <= max(times) <= time.time_ns()


def test_two_senders_can_be_told_apart() -> None:
    with wire() as (near, far), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        arrivals = Arrivals(near, 4)
        far.send(b"1")
        other.sendto(b"2", near.getsockname())
        far.send(b"3")
        assert arrivals.take() == 3
        first, second, third = map(bytes, arrivals.senders[:3])
        assert first == third != second


def test_a_kernel_that_is_silent_of_the_time() -> None:
    with wire() as (near, far):
        arrivals = Arrivals(near, 4)
        far.send(b"with")
        assert arrivals.take() == 1
        near.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 0)
        far.send(b"without")
        assert arrivals.take() == 1
        before = time.time_ns()
        seconds, nanoseconds = arrivals.received_at(0)
        assert before <= seconds * 10**9 + nanoseconds <= time.time_ns()


def test_an_error_is_raised() -> None:
    with wire() as (near, _far):
        arrivals = Arrivals(near, 4)
        near.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            arrivals.take()
