"""monitoring/client: who answers."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address

import pytest

from monitoring.client import answering

HERE, THERE = IPv4Address("127.0.0.1"), IPv4Address("127.0.0.9")


def test_a_listener_and_a_refusal_are_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert answering([HERE, THERE], listener.getsockname()[1], timeout=5) == {HERE, THERE}


def test_silence_and_no_route_are_none() -> None:
    # The tests' world has no route to it; where there is one, 192.0.2.0/24 (RFC 5737) answers nobody.
    assert answering([IPv4Address("192.0.2.1"), HERE], timeout=0.2) == {HERE}
    assert answering([]) == set()


def test_a_full_queue_is_silence() -> None:
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        assert answering([HERE], listener.getsockname()[1], timeout=0.1) == set()


@pytest.mark.parametrize("count", [0, 200])
def test_all_are_asked_at_once(count: int) -> None:
    addresses = [IPv4Address("127.0.1.0") + number for number in range(count)]
    assert answering(addresses, port=1, timeout=5) == set(addresses)
