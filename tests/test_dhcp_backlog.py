"""dhcp/backlog.py: what waits to be written up, in which order, and for how long."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any, cast

from dhcp.backlog import FEWEST, LAST_MINUTE, MANY, MOST, PATIENCE, SLICE, Backlog
from dhcp.prepared import Answered
from utility.hosts import Host

HOST = Host("b8:27:eb:00:00:01", IPv4Address("172.30.4.13"))


def answered(client: int, arrived: float = 0.0) -> Answered:
    request = bytes(70) + client.to_bytes(6, "big") + bytes(300)
    return Answered(request, arrived, HOST, b"", cast(Any, None))


def full(count: int, arrived: float = 0.0) -> Backlog:
    backlog = Backlog()
    for number in range(count):
        backlog.add(answered(number, arrived))
    return backlog


def test_the_oldest_comes_first_and_a_client_may_wait_until_the_last() -> None:
    backlog = Backlog()
    one = (1).to_bytes(6, "big")
    assert one not in backlog
    messages = [answered(1), answered(2)]
    for each in messages:
        backlog.add(each)
    assert len(backlog) == 2
    assert backlog.take() is messages[0]
    assert one in backlog
    assert backlog.take() is messages[1]
    assert one not in backlog
    assert not backlog


def test_what_is_due() -> None:
    assert Backlog().due(0.0, quiet=True) == 0
    assert full(3).due(0.0, quiet=True) == 3
    assert full(100).due(0.0, quiet=True) == SLICE
    assert full(100).due(0.0, quiet=False) == 0
    assert full(100).due(PATIENCE + 0.01, quiet=False) == MANY
    backlog = full(1000)
    backlog.took(1000, 1000 * LAST_MINUTE / 900)
    assert backlog.limit == 900
    assert backlog.due(0.0, quiet=False) == 100


def test_the_slower_it_goes_the_fewer_may_wait() -> None:
    backlog = Backlog()
    backlog.took(100_000, 1.0)
    assert backlog.limit == int(LAST_MINUTE / 1e-5)
    backlog.took(16, 16 * 2e-5)  # one slice says little
    assert LAST_MINUTE / 1.1e-5 < backlog.limit < LAST_MINUTE / 1e-5
    backlog.took(100_000, 1e6)
    assert backlog.limit == FEWEST
    backlog.took(100_000, 1e-3)
    assert backlog.limit == MOST
