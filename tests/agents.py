"""Five hundred agents in one thread: one listener for all of 127.0.0.0/8, and agents that misbehave among them.

Whose agent answers is told by the address that was asked. `python -m tests.agents PORT` runs them as a process of
their own, and prints what they saw as JSON at its end.
"""

from __future__ import annotations

import heapq
import json
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from utility.service import Waker

FIRST = IPv4Address("127.1.0.1")
OTHER_MAC = "dc:a6:32:ff:ff:ff"
CHUNK = 0.25  # seconds between two bytes of a slow one


def mac_of(address: str) -> str:
    """The MAC of the Pi with a test's address."""
    return "b8:27:eb:" + ":".join(f"{each:02x}" for each in IPv4Address(address).packed[1:])


def events_of(address: str, now: float) -> dict[str, object]:
    """What a healthy agent answers; the values move with the time."""
    return {
        "time": now,
        "cpu_percent": round(20 + 10 * ((now / 7) % 1), 1),
        "memory_percent": 31.5,
        "disk_percent": 42.0,
        "num_pids": 97,
        "temperature": round(45 + 3 * ((now / 60) % 1), 1),
        "load1": 0.25,
        "uptime": round(now % 1e6),
        "under_voltage": 0,
        "throttled": 0,
        "card_errors": 0,
        "mac": [mac_of(address)],
        "kernel": "6.1.0",
        "agent": "1",
    }


def http(body: bytes, status: str = "200 OK", kind: str = "application/json", more: str = "") -> bytes:
    head = f"HTTP/1.0 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def healthy(address: str) -> bytes:
    return http(json.dumps(events_of(address, time.time())).encode())


def of_another(address: str) -> bytes:
    return http(json.dumps({**events_of(address, time.time()), "mac": [OTHER_MAC]}).encode())


Behaviour = Callable[[str], bytes | None]  # the answer to a question at an address; None: never one
BEHAVIOURS: Mapping[str, Behaviour] = {
    "healthy": healthy,
    "nonsense": lambda _address: bytes(range(256)) * 8,
    "html": lambda _address: http(b"<!DOCTYPE html><title>It works</title>", kind="text/html"),
    "huge": lambda _address: http(b" " * 10_000_000),
    "slow": healthy,  # a byte at a time
    "redirect": lambda _address: http(b"", "302 Found", more="Location: http://127.0.0.1:1/events\r\n"),
    "another": of_another,
    "hangs": lambda _address: None,
    "closes": lambda _address: b"",
    "resets": lambda _address: b"",
    "broken": lambda _address: http(b"{}", "500 Internal Server Error"),
    "wild": lambda _address: http(
        b'{"cpu_percent": 1e400, "temperature": "hot", "load1": NaN, "uptime": -5, "num_pids": 3, "kernel": "\\u001b"}'
    ),
    "deep": lambda _address: http(b"[" * 12_000),
}


@dataclass(slots=True)
class _Asked:
    socket: socket.socket
    address: str
    behaviour: str
    data: bytearray = field(default_factory=bytearray)
    out: bytes = b""


class Agents:
    """Listens at once; the thread runs inside the `with`. asked: address -> the times of its polls, monotonic."""

    def __init__(self, port: int = 0, behaviours: Mapping[str, str] | None = None) -> None:
        self.behaviours = dict(behaviours or {})
        self.asked: dict[str, list[float]] = {}
        self._listener = socket.create_server(("0.0.0.0", port), backlog=1024)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._waker = Waker()
        self._stopping = False
        self._slow: list[tuple[float, int, _Asked]] = []
        self._open: set[socket.socket] = set()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._waker, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self) -> Agents:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join()

    def stop(self) -> None:
        self._stopping = True
        self._waker.wake()

    def run(self) -> None:
        while not self._stopping:
            pause = max(0.0, self._slow[0][0] - time.monotonic()) if self._slow else None
            for key, events in self._selector.select(pause):
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.data, _Asked):
                    self._serve(key.data, events)
            self._drip()
        for each in (*self._open, self._listener):
            each.close()
        self._selector.close()
        self._waker.close()

    def _accept(self) -> None:
        for _ in range(64):
            try:
                connection, _peer = self._listener.accept()
            except BlockingIOError:
                return
            connection.setblocking(False)
            address = connection.getsockname()[0]
            self.asked.setdefault(address, []).append(time.monotonic())
            self._open.add(connection)
            asked = _Asked(connection, address, self.behaviours.get(address, "healthy"))
            self._selector.register(connection, selectors.EVENT_READ, asked)

    def _serve(self, asked: _Asked, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                data = asked.socket.recv(4096)
                asked.data += data
                if not data:
                    self._close(asked)
                elif b"\r\n\r\n" in asked.data and not asked.out:
                    self._answer(asked)
            elif asked.out:
                self._send(asked)
        except OSError:
            self._close(asked)

    def _answer(self, asked: _Asked) -> None:
        answer = BEHAVIOURS[asked.behaviour](asked.address)
        if answer is None:
            return
        asked.out = answer
        if asked.behaviour == "resets":
            asked.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if asked.behaviour == "slow":
            heapq.heappush(self._slow, (time.monotonic(), id(asked), asked))
        else:
            self._send(asked)

    def _send(self, asked: _Asked) -> None:
        sent = asked.socket.send(asked.out) if asked.out else 0
        asked.out = asked.out[sent:]
        if asked.out:
            self._selector.modify(asked.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, asked)
        else:
            self._close(asked)

    def _drip(self) -> None:
        while self._slow and self._slow[0][0] <= time.monotonic():
            _due, number, asked = heapq.heappop(self._slow)
            if asked.socket not in self._open:
                continue
            try:
                asked.socket.send(asked.out[:1])
            except OSError:
                self._close(asked)
                continue
            asked.out = asked.out[1:]
            heapq.heappush(self._slow, (time.monotonic() + CHUNK, number, asked))

    def _close(self, asked: _Asked) -> None:
        self._selector.unregister(asked.socket)
        self._open.discard(asked.socket)
        asked.socket.close()


def addresses(count: int) -> Iterator[IPv4Address]:
    """The addresses of `count` Pis: no byte of them is 0 or 255."""
    for number in range(count):
        yield FIRST + (number // 250 << 8) + number % 250


def main() -> None:
    """Run until SIGTERM: PORT, then ADDRESS=BEHAVIOUR for those that are not healthy."""
    agents = Agents(int(sys.argv[1]), dict(word.split("=") for word in sys.argv[2:]))
    signal.signal(signal.SIGTERM, lambda _number, _frame: agents.stop())
    agents.run()
    sys.stdout.write(json.dumps(agents.asked))


if __name__ == "__main__":
    main()
