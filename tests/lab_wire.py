"""A manager for the boot ROM's tests: DHCP and TFTP by hand, on a cable in virtual time. Nothing here sleeps."""

from __future__ import annotations

import heapq
import struct
from collections.abc import Mapping
from ipaddress import IPv4Address

from lab import frames
from lab.frames import Datagram
from lab.profiles import PXE_MARK

SERVER, PI = IPv4Address("10.0.0.1"), IPv4Address("10.0.0.7")
SERVER_MAC = bytes.fromhex("020000000001")
COOKIE = bytes.fromhex("63825363")


def option(code: int, value: bytes) -> bytes:
    return bytes((code, len(value))) + value


class VirtualManager:
    """The other end of a board's cable. What it does wrong is set on its attributes before the boot."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.now = 100.0
        self.files = dict(files)
        self.offer_delay = 1.2
        self.offers = True
        self.boot_options = option(43, PXE_MARK + b"   ") + option(66, str(SERVER).encode())
        self.chaddr = b""  # of the replies; empty: as asked
        self.silent: set[str] = set()
        self.refuse = False  # NAK instead of ACK
        self.twice = False  # every TFTP packet twice
        self.lose_every = 0  # of the frames to the board, each so many is lost
        self.source = SERVER  # of TFTP answers
        self.take_options = True
        self.answer_arp = True
        self.dhcp: list[bytes] = []
        self.dhcp_times: list[float] = []
        self.requests: list[tuple[str, tuple[str, ...]]] = []
        self.errors: list[str] = []
        self.ports: list[int] = []
        self.talk: list[str] = []  # requests and ERRORs in the order they came
        self.arp_answers = 0
        self._queue: list[tuple[float, int, bytes]] = []
        self._count = 0
        self._transfers: dict[int, tuple[bytes, int, int]] = {}  # our port: data, block size, last block taken
        self._next_port = 30000

    def clock(self) -> float:
        return self.now

    def receive(self, timeout: float) -> bytes | None:
        end = self.now + timeout
        if self._queue and self._queue[0][0] <= end:
            due, _, frame = heapq.heappop(self._queue)
            self.now = max(self.now, due)
            return frame
        self.now = max(end, self.now + 1e-6)
        return None

    def put(self, frame: bytes, delay: float = 0.0001) -> None:
        self._count += 1
        if not self.lose_every or self._count % self.lose_every:
            heapq.heappush(self._queue, (self.now + delay, self._count, frame))

    def send(self, frame: bytes) -> None:
        arp = frames.parse_arp(frame)
        if arp is not None:
            self.arp_answers += arp.operation == frames.ARP_REPLY
            if arp.operation == frames.ARP_REQUEST and self.answer_arp:
                self.put(frames.encode_arp(frames.ARP_REPLY, SERVER_MAC, SERVER.packed, arp.sender_mac, arp.sender))
            return
        datagram = frames.parse_udp(frame)
        assert datagram is not None
        assert datagram.intact
        if datagram.destination_port == 67:
            self._answer_dhcp(datagram)
        elif datagram.destination_port == 69:
            self._answer_request(datagram)
        else:
            self._answer_transfer(datagram)

    def _answer_dhcp(self, datagram: Datagram) -> None:
        self.dhcp.append(datagram.payload)
        self.dhcp_times.append(self.now)
        kind = datagram.payload[242]
        if kind == 1 and not self.offers:
            return
        answer = 2 if kind == 1 else 6 if self.refuse else 5
        xid, chaddr = datagram.payload[4:8], self.chaddr or datagram.payload[28:34]
        head = (
            b"\2\1\6\0" + xid + bytes(8) + PI.packed + SERVER.packed + bytes(4) + chaddr.ljust(16, b"\0") + bytes(192)
        )
        options = option(53, bytes((answer,))) + option(54, SERVER.packed) + option(1, b"\xff\xff\xff\0")
        options += option(51, struct.pack("!I", 600)) + (self.boot_options if kind == 1 else b"") + b"\xff"
        target = datagram.source_mac
        payload = head + COOKIE + options
        frame = frames.encode_udp(SERVER_MAC, target, (SERVER.packed, 67), (PI.packed, 68), payload)
        self.put(frame, self.offer_delay if kind == 1 else 0.01)

    def _answer_request(self, datagram: Datagram) -> None:
        if datagram.payload[1] == 5:
            self.errors.append("to port 69")
            return
        name, _, *options = (word.decode() for word in datagram.payload[2:-1].split(b"\0"))
        self.requests.append((name, tuple(options)))
        self.talk.append(name)
        self.ports.append(datagram.source_port)
        if name in self.silent:
            return
        self._next_port += 1
        data = self.files.get(name)
        if data is None:
            self._tftp(datagram, self._next_port, b"\0\5\0\1File not found\0")
            return
        block = 512
        accepted = b""
        for key, value in zip(options[::2], options[1::2], strict=True):
            if self.take_options:
                block = int(value) if key == "blksize" else block
                accepted += f"{key}\0{len(data) if key == 'tsize' else value}\0".encode()
        self._transfers[self._next_port] = (data, block, 0)
        self._tftp(datagram, self._next_port, b"\0\6" + accepted if accepted else b"\0\3\0\1" + data[:block])

    def _answer_transfer(self, datagram: Datagram) -> None:
        if datagram.payload[1] == 5:
            self.talk.append("ERROR")
            self.errors.append(datagram.payload[4:-1].decode())
            return
        data, block, last = self._transfers[datagram.destination_port]
        (acknowledged,) = struct.unpack("!H", datagram.payload[2:4])
        acknowledged = last + ((acknowledged - last + 1) & 0xFFFF) - 1  # the counter rolls over; an ACK may come again
        self._transfers[datagram.destination_port] = (data, block, max(last, acknowledged))
        if acknowledged * block <= len(data):
            number = acknowledged + 1
            payload = b"\0\3" + struct.pack("!H", number & 0xFFFF) + data[acknowledged * block : number * block]
            self._tftp(datagram, datagram.destination_port, payload)

    def _tftp(self, asked: Datagram, port: int, payload: bytes) -> None:
        target = (PI.packed, asked.source_port)
        frame = frames.encode_udp(SERVER_MAC, asked.source_mac, (self.source.packed, port), target, payload)
        for _ in range(2 if self.twice else 1):
            self.put(frame)
