"""The cable of a virtual Pi: whole Ethernet frames of an interface in its namespace, with faults where wanted.

Looks into no frame. A raw packet socket instead of a tap, because /dev/net/tun is not everywhere.
"""

from __future__ import annotations

import contextlib
import heapq
import random
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from lab.namespaces import network_namespace
from utility.service import Waker

MAX_FRAME = 65536
_ETH_P_ALL, _PACKET_IGNORE_OUTGOING, _SOL_PACKET = 3, 23, 263
_BUFFER = 1 << 20
_BURST = 64  # frames taken from one side before the other is looked at


class PowerCut(Exception):  # noqa: N818 - not an error: the switch turned the port off
    """The Pi lost its power."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What the cable does to frames, each way: shares of 1, and seconds. The same seed does the same."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0  # held back long enough for others to pass
    delay: float = 0.0
    seed: int = 0

    def __bool__(self) -> bool:
        return bool(self.loss or self.duplicate or self.reorder or self.delay)


class FaultyPath:
    """One direction of a faulty cable, in the time it is told: frames go in, and come out when they are due."""

    HELD_BACK = 0.005

    def __init__(self, faults: Faults, direction: int = 0) -> None:
        self._faults = faults
        self._random = random.Random(faults.seed * 2 + direction)
        self._queue: list[tuple[float, int, bytes]] = []
        self._count = 0

    def put(self, frame: bytes, now: float) -> None:
        if self._random.random() < self._faults.loss:
            return
        copies = 2 if self._random.random() < self._faults.duplicate else 1
        for _ in range(copies):
            held = self.HELD_BACK if self._random.random() < self._faults.reorder else 0.0
            self._count += 1  # frames due at one moment leave in the order they came
            heapq.heappush(self._queue, (now + self._faults.delay + held, self._count, frame))

    @property
    def deadline(self) -> float | None:
        return self._queue[0][0] if self._queue else None

    def due(self, now: float) -> list[bytes]:
        frames = []
        while self._queue and self._queue[0][0] <= now:
            frames.append(heapq.heappop(self._queue)[2])
        return frames


Change = Callable[[bytes], list[bytes]]  # a frame -> what becomes of it


def unchanged(frame: bytes) -> list[bytes]:
    return [frame]


class ChangingWire:
    """A wire whose frames are changed on their way: to none, to another one, to more."""

    def __init__(self, wire: Wire, out: Change = unchanged, into: Change = unchanged) -> None:
        self._wire, self._out, self._into = wire, out, into
        self._ready: list[bytes] = []

    def send(self, frame: bytes) -> None:
        for each in self._out(frame):
            self._wire.send(each)

    def receive(self, timeout: float) -> bytes | None:
        end = time.monotonic() + timeout
        while not self._ready:
            frame = self._wire.receive(max(0.0, end - time.monotonic()))
            if frame is None:
                return None
            self._ready = self._into(frame)
        return self._ready.pop(0)


class Wire:
    """One end of the cable. One thread sends and receives; `cut` may come from any other."""

    def __init__(self, namespace: str, interface: str, faults: Faults | None = None) -> None:
        with network_namespace(namespace):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # 0: nothing comes in before the bind
        self._socket.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        self._socket.bind((interface, _ETH_P_ALL))
        self._waker = Waker()
        self._cut = False
        self._faults = faults or Faults()
        self._out, self._in = FaultyPath(self._faults, 0), FaultyPath(self._faults, 1)
        self._ready: list[bytes] = []

    def fileno(self) -> int:
        return self._socket.fileno()

    def cut(self) -> None:
        """Make what waits here raise PowerCut, now and from now on."""
        self._cut = True
        self._waker.wake()

    @property
    def is_cut(self) -> bool:
        return self._cut

    def close(self) -> None:
        self._socket.close()
        self._waker.close()

    def send(self, frame: bytes) -> None:
        if not self._faults:
            self._transmit(frame)
            return
        self._out.put(frame, time.monotonic())
        self._turn(time.monotonic())

    def receive(self, timeout: float) -> bytes | None:
        """The next frame, or None after `timeout` seconds; PowerCut."""
        end = time.monotonic() + timeout
        while True:
            if self._cut:
                raise PowerCut
            frame = self._take()
            if frame is not None:
                return frame
            now = time.monotonic()
            if now >= end:
                return None
            select.select(
                [self._socket.fileno(), self._waker.fileno()], [], [], max(0.0, min(end, self._wake_up(end)) - now)
            )

    def pump(self, other: socket.socket, ended: int) -> None:
        """Carry frames to and from a datagram socket until the descriptor `ended` is readable; PowerCut.

        A frame that one side has no room for is dropped, as a full switch does.
        """
        other.setblocking(False)
        everything = [self._socket.fileno(), other.fileno(), self._waker.fileno(), ended]
        while True:
            timeout = self._wake_up(0.0)
            wait = max(0.0, timeout - time.monotonic()) if timeout else None
            ready, _, _ = select.select(everything, [], [], wait)
            if self._cut:
                raise PowerCut
            for _ in range(_BURST):
                frame = self._take()
                if frame is None:
                    break
                with contextlib.suppress(OSError):
                    other.send(frame)
            if other.fileno() in ready:
                self._carry_out(other)
            if ended in ready:
                return

    def _carry_out(self, other: socket.socket) -> None:
        for _ in range(_BURST):
            try:
                self.send(other.recv(MAX_FRAME))
            except OSError:
                return

    def _take(self) -> bytes | None:
        if not self._faults:
            return self._read()
        now = time.monotonic()
        while (frame := self._read()) is not None:
            self._in.put(frame, now)
        self._turn(now)
        return self._ready.pop(0) if self._ready else None

    def _turn(self, now: float) -> None:
        for frame in self._out.due(now):
            self._transmit(frame)
        self._ready += self._in.due(now)

    def _wake_up(self, otherwise: float) -> float:
        return min((each for each in (self._out.deadline, self._in.deadline) if each is not None), default=otherwise)

    def _read(self) -> bytes | None:
        try:
            return self._socket.recv(MAX_FRAME)
        except BlockingIOError:
            return None
        except OSError:  # ENETDOWN: the port was turned off; `cut` follows
            return None

    def _transmit(self, frame: bytes) -> None:
        with contextlib.suppress(OSError):  # ENOBUFS, EAGAIN, ENETDOWN: lost, as on any cable
            self._socket.send(frame)
