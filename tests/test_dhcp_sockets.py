"""dhcp/sockets.py on the loopback interface: many frames in one call, and what of them could not be sent."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from dhcp.frames import ETHERTYPE_IP, Frame
from dhcp.sockets import BURST, MAX_FRAME, PACKET_OUTGOING, FrameSocket, open_raw, udp_to

NOBODY = IPv4Address("127.9.9.9")
LO = "00:00:00:00:00:00"


def frame(number: int, size: int = 300) -> bytes:
    to, sender = IPv4Address("127.0.0.1"), IPv4Address("127.0.0.2")
    return Frame(LO, LO, sender, to, 4067, 4067, number.to_bytes(2, "big") + bytes(size)).encode()


@pytest.fixture
def lo() -> Iterator[FrameSocket]:
    with open_raw("lo", ETHERTYPE_IP, udp_to(4067, ours=NOBODY)) as opened:
        yield opened


def heard(lo: FrameSocket) -> list[bytes]:
    """What came in. The loopback shows each frame twice: as it leaves, and as it arrives."""
    found: list[bytes] = []
    while frames := lo.receive():
        found += [data for data, _, kind in frames if kind != PACKET_OUTGOING]
    return found


def test_what_it_is(lo: FrameSocket) -> None:
    assert (lo.interface, lo.mac) == ("lo", LO)


def test_many_at_once_in_their_order(lo: FrameSocket) -> None:
    frames = [frame(number, 50 + number) for number in range(BURST)]
    assert lo.receive() == []
    assert lo.send_all([]) == []
    assert lo.send_all(frames) == []
    assert heard(lo) == frames
    lo.send(frames[3])
    assert heard(lo) == [frames[3]]


def test_one_that_cannot_be_sent_does_not_hold_up_the_others(lo: FrameSocket) -> None:
    failures = lo.send_all([frame(1), b"", frame(2), b"\1", frame(3)])
    assert [each.errno for each in failures] == [errno.EINVAL] * 2
    assert heard(lo) == [frame(1), frame(2), frame(3)]


def test_one_that_is_too_long_is_cut(lo: FrameSocket) -> None:
    lo.send(frame(1, 20_000))
    assert [len(each) for each in heard(lo)] == [MAX_FRAME]


def test_a_socket_that_is_gone(lo: FrameSocket) -> None:
    lo.close()
    with pytest.raises(OSError, match="descriptor"):
        lo.receive()
    assert [each.errno for each in lo.send_all([frame(1)])] == [errno.EBADF]
