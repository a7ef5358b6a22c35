"""UDP over a cable, with DHCP and TFTP clients on it: the network code that boot ROMs carry. No file order, no model.

Everything here waits by `Link.receive` alone and reads the time from the clock it was given, so that tests run it in
virtual time.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Protocol

from lab import frames
from lab.frames import BROADCAST, BROADCAST_MAC, NO_ADDRESS, Datagram
from lab.profiles import Tftp

PXE_MARK = b"Raspberry Pi Boot"
DISCOVER, OFFER, REQUEST, ACK, NAK = 1, 2, 3, 5, 6
_COOKIE = bytes.fromhex("63825363")
_ARP_TRIES, _ARP_WAIT = 5, 1.0
_BLOCKS = 65535  # a block number's range, without rollover


class Link(Protocol):
    """A cable's end: lab.wire.Wire, or a test's."""

    def send(self, frame: bytes) -> None: ...

    def receive(self, timeout: float) -> bytes | None: ...


class NoAnswer(Exception):  # noqa: N818 - a silence
    """Nobody answered in time, or with nothing that could be used."""


class NotFound(Exception):  # noqa: N818 - a 404 is part of a healthy boot
    """The TFTP server answered with an ERROR."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What DHCP brought. `tftp_server` is where the boot files are."""

    address: IPv4Address
    netmask: IPv4Address
    server: IPv4Address
    next_server: IPv4Address
    tftp_server: IPv4Address
    seconds: int = 0


class Stack:
    """The addresses of one board, and datagrams in and out. One thread."""

    def __init__(self, link: Link, mac: bytes, clock: Callable[[], float]) -> None:
        self.mac, self.clock = mac, clock
        self.address = NO_ADDRESS
        self.ttl, self.udp_checksum, self.answers_arp = 64, True, True
        self.last_frame = 0.0  # when the newest frame for us came in
        self._link = link
        self._neighbours: dict[bytes, bytes] = {}

    def sleep(self, seconds: float) -> None:
        """Wait, deaf but for ARP."""
        end = self.clock() + seconds
        while self.clock() < end:
            self.hear(end)

    def send(self, destination: tuple[bytes, int], source_port: int, payload: bytes) -> None:
        mac = BROADCAST_MAC if destination[0] == BROADCAST else self._resolve(destination[0])
        source = (self.address, source_port)
        self._link.send(frames.encode_udp(self.mac, mac, source, destination, payload, self.ttl, 0, self.udp_checksum))

    def receive(self, port: int, end: float) -> Datagram | None:
        """The next datagram to `port`, or None when the clock reaches `end`."""
        while True:
            datagram = self.hear(end)
            if datagram is not None and datagram.destination_port == port:
                return datagram
            if self.clock() >= end:
                return None

    def hear(self, end: float) -> Datagram | None:
        """Take one frame: its datagram, or None where it held none or the clock reached `end`."""
        frame = self._link.receive(max(0.0, end - self.clock()))
        if frame is None or frame[:6] not in (self.mac, BROADCAST_MAC):  # the network chip's filter
            return None
        self.last_frame = self.clock()
        arp = frames.parse_arp(frame)
        if arp is not None:
            self._neighbours[arp.sender] = arp.sender_mac
            if arp.operation == frames.ARP_REQUEST and arp.target == self.address != NO_ADDRESS and self.answers_arp:
                reply = frames.encode_arp(frames.ARP_REPLY, self.mac, self.address, arp.sender_mac, arp.sender)
                self._link.send(reply)
            return None
        datagram = frames.parse_udp(frame)
        if datagram is None or (self.udp_checksum and not datagram.intact):
            return None
        return datagram

    def _resolve(self, address: bytes) -> bytes:
        for _ in range(_ARP_TRIES):
            if address in self._neighbours:
                break
            self._link.send(frames.encode_arp(frames.ARP_REQUEST, self.mac, self.address, bytes(6), address))
            end = self.clock() + _ARP_WAIT
            while address not in self._neighbours and self.clock() < end:
                self.hear(end)
        if address not in self._neighbours:
            raise NoAnswer(f"no ARP answer from {IPv4Address(address)}")
        return self._neighbours[address]


@dataclass(frozen=True, slots=True)
class DhcpReply:
    """A BOOTREPLY, as far as a boot ROM reads it."""

    xid: int
    hardware: bytes
    address: IPv4Address
    next_server: IPv4Address
    source: IPv4Address
    options: Mapping[int, bytes]

    @property
    def kind(self) -> int:
        return (self.options.get(53) or b"\0")[0]

    def _address(self, code: int) -> IPv4Address | None:
        value = self.options.get(code, b"")
        return IPv4Address(value[:4]) if len(value) >= 4 else None

    @property
    def pxe_server(self) -> IPv4Address | None:
        """Where it sends a boot ROM: option 66 as a dotted quad, or whoever sent option 43 with the Pi's words."""
        try:
            return IPv4Address(self.options.get(66, b"").rstrip(b"\0").decode("ascii", "replace"))
        except ValueError:
            return (self._address(54) or self.source) if PXE_MARK in self.options.get(43, b"") else None

    def lease(self, tftp_server: IPv4Address | None = None) -> Lease:
        server = self._address(54) or self.source
        seconds = int.from_bytes(self.options.get(51, b"")[:4], "big")
        netmask = self._address(1) or IPv4Address("255.255.255.0")
        chosen = tftp_server or self.pxe_server or self.next_server
        return Lease(self.address, netmask, server, self.next_server, chosen, seconds)


def encode_dhcp(xid: int, mac: bytes, options: bytes, client: bytes = NO_ADDRESS) -> bytes:
    """A BOOTREQUEST (RFC 2131 section 2): secs and flags 0, `options` with their end mark."""
    head = struct.pack("!BBBBIHH4s12x16s192x", 1, 1, 6, 0, xid, 0, 0, client, mac)
    return head + _COOKIE + options


def parse_dhcp(data: bytes, source: IPv4Address) -> DhcpReply | None:
    """A BOOTREPLY that came from `source`; None for anything else. Repeated options are joined (RFC 3396)."""
    if len(data) < 240 or data[0] != 2 or data[236:240] != _COOKIE:
        return None
    options: dict[int, bytes] = {}
    at = 240
    while at < len(data) and data[at] != 255:
        if data[at] == 0:
            at += 1
        elif at + 1 >= len(data) or at + 2 + data[at + 1] > len(data):
            return None
        else:
            options[data[at]] = options.get(data[at], b"") + data[at + 2 : at + 2 + data[at + 1]]
            at += 2 + data[at + 1]
    (xid,) = struct.unpack("!I", data[4:8])
    address, next_server = IPv4Address(data[16:20]), IPv4Address(data[20:24])
    return DhcpReply(xid, data[28:34], address, next_server, source, options)


class DhcpClient:
    """One DHCP conversation over a Stack."""

    def __init__(self, stack: Stack, xid: int) -> None:
        self._stack, self._xid = stack, xid

    def _broadcast(self, options: bytes) -> None:
        self._stack.send((BROADCAST, 67), 68, encode_dhcp(self._xid, self._stack.mac, options))

    def discover(
        self,
        options: bytes,
        waits: tuple[float, ...],
        deaf: float = 0.0,
        own_only: bool = True,
        pxe: bool = True,
    ) -> tuple[DhcpReply, IPv4Address | None]:
        """The OFFER it takes, and the boot server; NoAnswer after the last wait.

        deaf      an OFFER is looked at only once a frame came in this long after the DISCOVER
        own_only  False: takes an OFFER to any board, as long as the xid is its own
        pxe       goes on until it has both an address and a boot server, which may come in two OFFERs (proxy DHCP)
        """
        offer: DhcpReply | None = None
        server: IPv4Address | None = None
        for wait in waits:
            self._broadcast(options)
            started = self._stack.clock()
            end = started + wait
            while self._stack.clock() < end:
                heard = self._stack.hear(end)
                reply = self._read(heard, (OFFER,), own_only)
                if reply is not None and int(reply.address):
                    offer = reply
                if reply is not None:
                    server = reply.pxe_server or server
                awake = self._stack.last_frame >= started + deaf
                if offer is not None and awake and (server is not None or not pxe):
                    return offer, server
        raise NoAnswer("DHCP: no usable OFFER")

    def request(self, options: bytes, wait: float = 4.0, tries: int = 3) -> DhcpReply:
        """The ACK; NoAnswer after the last try, or at a NAK."""
        for _ in range(tries):
            self._broadcast(options)
            end = self._stack.clock() + wait
            while self._stack.clock() < end:
                reply = self._read(self._stack.receive(68, end), (ACK, NAK), True)
                if reply is not None and reply.kind == NAK:
                    raise NoAnswer("DHCP: the server refused the address")
                if reply is not None:
                    return reply
        raise NoAnswer("DHCP: no answer to the REQUEST")

    def _read(self, datagram: Datagram | None, kinds: tuple[int, ...], own_only: bool) -> DhcpReply | None:
        if datagram is None or datagram.destination_port != 68:
            return None
        reply = parse_dhcp(datagram.payload, IPv4Address(datagram.source))
        if reply is None or reply.xid != self._xid or reply.kind not in kinds:
            return None
        return reply if not own_only or reply.hardware == self._stack.mac else None


class TftpClient:
    """The TFTP client of one boot stage (RFC 1350, 2347-2349), and what it has to say about its server.

    `complaints` lists what a server must never do, and which boards are known to choke on.
    """

    def __init__(self, stack: Stack, server: IPv4Address, style: Tftp, rng: random.Random, first_port: int = 0) -> None:
        self.complaints: list[str] = []
        self._stack, self._server, self._style, self._random = stack, server.packed, style, rng
        self._next_port = first_port
        self._owed: list[tuple[int, int]] = []  # aborted requests whose ERROR is still to be sent: port, their port

    def probe(self, name: str) -> None:
        """Ask for it, and end the transfer at the first answer with ERROR 0; NotFound, NoAnswer.

        Now and then the ERROR leaves only after the next request: boards do that, on the same file.
        """
        port = self._new_port()
        datagram = self._ask(name, port)
        self._owed.append((port, datagram.source_port))
        if self._random.random() < 0.7:
            self._pay()

    def fetch(self, name: str) -> tuple[bytes, bool]:
        """The file, and whether the server took a block size that was asked for; NotFound, NoAnswer."""
        port = self._new_port()
        return _Transfer(self, self._stack, self._server, self._style, name, port).run(self._ask(name, port))

    def finish(self) -> None:
        self._pay()

    def _new_port(self) -> int:
        if not self._next_port:
            return self._random.randint(20000, 60000)
        self._next_port += 1
        return self._next_port - 1

    def _pay(self) -> None:
        for port, peer in self._owed:
            self._stack.send((self._server, peer), port, b"\0\5\0\0Early terminate\0")
        self._owed.clear()

    def _ask(self, name: str, port: int) -> Datagram:
        words = [name, "octet", *(word for option in self._style.options for word in option)]
        request = b"\0\1" + b"".join(word.encode("ascii") + b"\0" for word in words)
        end = self._stack.clock() + self._style.timeout
        while self._stack.clock() < end:
            self._stack.send((self._server, 69), port, request)
            self._pay()
            retry = min(end, self._stack.clock() + self._style.retry)
            while (datagram := self._stack.receive(port, retry)) is not None:
                if self.from_server(datagram, name):
                    return check_error(datagram)
        self._stack.send((self._server, 69), port, b"\0\5\0\0Timeout\0")
        raise NoAnswer(f"TFTP: no answer for {name}")

    def from_server(self, datagram: Datagram, name: str) -> bool:
        """Whether it may be looked at: boards drop what does not come from the address they asked."""
        if datagram.source != self._server:
            self.complaints.append(f"{name}: answer from {IPv4Address(datagram.source)}")
            return False
        return len(datagram.payload) >= 4


def check_error(datagram: Datagram) -> Datagram:
    """The datagram, unless it is an ERROR: then NotFound with its words."""
    if datagram.payload[:2] == b"\0\5":
        raise NotFound(datagram.payload[4:].rstrip(b"\0").decode("ascii", "replace"))
    return datagram


class _Transfer:
    """One file on its way in, lock-step."""

    def __init__(self, client: TftpClient, stack: Stack, server: bytes, style: Tftp, name: str, port: int) -> None:
        self._client, self._stack, self._server, self._style = client, stack, server, style
        self._name, self._port = name, port
        self._blocks: list[bytes] = []
        self._block_size = 512
        self._size: int | None = None
        self._options_taken = False
        self._answer = b""

    def run(self, first: Datagram) -> tuple[bytes, bool]:
        peer = first.source_port
        datagram: Datagram | None = first
        end = self._stack.clock() + self._style.timeout
        while self._stack.clock() < end:
            if datagram is not None and datagram.source_port == peer and self._client.from_server(datagram, self._name):
                check_error(datagram)
                count = len(self._blocks)
                last = self._take(datagram.payload)
                self._send(peer)
                if last:
                    return self._finish()
                if len(self._blocks) > count:
                    end = self._stack.clock() + self._style.timeout
            datagram = self._stack.receive(self._port, self._stack.clock() + self._style.retry)
            if datagram is None:
                self._send(peer)
        self._stack.send((self._server, peer), self._port, b"\0\5\0\0Timeout\0")
        raise NoAnswer(f"TFTP: {self._name} stopped after {len(self._blocks)} blocks")

    def _send(self, peer: int) -> None:
        if self._answer:
            self._stack.send((self._server, peer), self._port, self._answer)

    def _take(self, payload: bytes) -> bool:
        """Take in an OACK or a block; True at the last block. What it is answered with is in `_answer`."""
        opcode, number = struct.unpack("!HH", payload[:4])
        if opcode == 6:
            self._take_options(payload)
        elif opcode == 3 and number == (len(self._blocks) + 1) & 0xFFFF:
            if len(self._blocks) >= _BLOCKS and not self._style.rollover:
                raise NoAnswer(f"TFTP: {self._name} has more than {_BLOCKS} blocks, which this board cannot count")
            self._blocks.append(payload[4:])
            self._answer = payload[:2].replace(b"\3", b"\4") + payload[2:4]
            return len(payload) - 4 < self._block_size
        elif opcode == 3:
            self._client.complaints.append(f"{self._name}: block {number} again")
        return False

    def _take_options(self, payload: bytes) -> None:
        if self._options_taken or self._blocks:
            self._client.complaints.append(f"{self._name}: a second OACK")
        words = payload[2:].rstrip(b"\0").split(b"\0")
        options = {key.lower(): value for key, value in zip(words[::2], words[1::2], strict=False)}
        self._options_taken = True
        for key in options:
            if key.decode("latin-1") not in dict(self._style.options):
                self._client.complaints.append(f"{self._name}: OACK with {key!r}, which was not asked for")
        self._block_size = int(options.get(b"blksize", b"512"))
        self._size = int(options[b"tsize"]) if b"tsize" in options else None
        if not self._blocks:
            self._answer = b"\0\4\0\0"

    def _finish(self) -> tuple[bytes, bool]:
        data = b"".join(self._blocks)
        if self._size is not None and self._size != len(data):
            self._client.complaints.append(f"{self._name}: {len(data)} bytes, but tsize said {self._size}")
        return data, "blksize" not in dict(self._style.options) or self._block_size != 512
