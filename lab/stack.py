"""UDP over a cable, with DHCP and TFTP clients on it: the network code that boot ROMs carry. No file order, no model.

What waits here is a generator: it yields the time until which it waits, and is sent the next frame, or None when that
time has come. `drive` runs one on a cable of its own; a single loop may run hundreds side by side.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Protocol, TypeVar

from lab import frames
from lab.frames import BROADCAST, BROADCAST_MAC, NO_ADDRESS, Arp, Datagram
from lab.profiles import PXE_MARK, Quirks, Tftp

DISCOVER, OFFER, REQUEST, ACK, NAK = 1, 2, 3, 5, 6
_COOKIE = bytes.fromhex("63825363")
_ARP_TRIES, _ARP_WAIT = 5, 1.0
_BLOCKS = 65535  # a block number's range, without rollover


class Link(Protocol):
    """A cable's end: lab.wire.Wire, or a test's."""

    def send(self, frame: bytes) -> None: ...

    def receive(self, timeout: float) -> bytes | None: ...


T = TypeVar("T")
Waiting = Generator[float, bytes | None, T]


def drive(waiting: Waiting[T], link: Link, clock: Callable[[], float]) -> T:
    """Run it to its end; what it returns or raises, and what the link raises."""
    frame: bytes | None = None
    try:
        end = next(waiting)
        while True:
            frame = link.receive(max(0.0, end - clock()))
            end = waiting.send(frame)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        waiting.close()


class NoAnswer(Exception):  # noqa: N818 - a silence
    """Nobody answered in time, or with nothing that could be used."""


class Hung(NoAnswer):
    """The board has stopped for good, on something that a server must not do."""


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
    """The addresses of one board, and datagrams in and out. Sends on the link; frames come in as Waiting says."""

    def __init__(self, link: Link, mac: bytes, clock: Callable[[], float]) -> None:
        self.mac, self.clock = mac, clock
        self.address = NO_ADDRESS
        self.ttl = 64
        self.quirks = Quirks()
        self.last_frame = 0.0  # when the newest frame for us came in
        self._link = link
        self._neighbours: dict[bytes, bytes] = {BROADCAST: BROADCAST_MAC}

    def sleep(self, seconds: float) -> Waiting[None]:
        """Wait, deaf but for ARP."""
        end = self.clock() + seconds
        while self.clock() < end:
            yield from self.hear(end)

    def send(self, destination: tuple[bytes, int], source_port: int, payload: bytes) -> Waiting[None]:
        mac = self._neighbours.get(destination[0]) or (yield from self._resolve(destination[0]))
        source = (self.address, source_port)
        with_checksum = self.quirks.udp_checksum
        self._link.send(frames.encode_udp(self.mac, mac, source, destination, payload, self.ttl, 0, with_checksum))

    def receive(self, port: int, end: float) -> Waiting[Datagram | None]:
        """The next datagram to `port`, or None when the clock reaches `end`."""
        while True:
            datagram = yield from self.hear(end)
            if datagram is not None and datagram.destination_port == port:
                return datagram
            if self.clock() >= end:
                return None

    def hear(self, end: float) -> Waiting[Datagram | None]:
        """Take one frame: its datagram, or None where it held none or the clock reached `end`."""
        frame = yield end
        if frame is None or frame[:6] not in (self.mac, BROADCAST_MAC):  # the network chip's filter
            return None
        self.last_frame = self.clock()
        datagram = frames.parse_udp(frame, self.quirks.udp_checksum)
        if datagram is None:
            arp = frames.parse_arp(frame)
            if arp is not None:
                self._hear_arp(arp)
            return None
        if not datagram.intact:
            return None
        if not self.quirks.asks_arp:
            self._neighbours[datagram.source] = datagram.source_mac
        return datagram

    def _hear_arp(self, arp: Arp) -> None:
        self._neighbours[arp.sender] = arp.sender_mac
        asked = arp.operation == frames.ARP_REQUEST and arp.target == self.address != NO_ADDRESS
        if asked and self.quirks.answers_arp:
            self._link.send(frames.encode_arp(frames.ARP_REPLY, self.mac, self.address, arp.sender_mac, arp.sender))

    def _resolve(self, address: bytes) -> Waiting[bytes]:
        for _ in range(_ARP_TRIES):
            if address in self._neighbours:
                break
            self._link.send(frames.encode_arp(frames.ARP_REQUEST, self.mac, self.address, bytes(6), address))
            end = self.clock() + _ARP_WAIT
            while address not in self._neighbours and self.clock() < end:
                yield from self.hear(end)
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

    def pxe_server(self, menu: bytes = PXE_MARK, strict: bool = False) -> IPv4Address | None:
        """Where it sends a boot ROM: option 66 as a dotted quad, or whoever sent option 43 with the words of `menu`.

        strict    an option 43 without them makes the whole reply useless
        """
        if strict and menu not in self.options.get(43, menu):
            return None
        try:
            return IPv4Address(self.options.get(66, b"").rstrip(b"\0").decode("ascii", "replace"))
        except ValueError:
            return (self._address(54) or self.source) if menu in self.options.get(43, b"") else None

    def lease(self, tftp_server: IPv4Address | None = None) -> Lease:
        server = self._address(54) or self.source
        seconds = int.from_bytes(self.options.get(51, b"")[:4], "big")
        netmask = self._address(1) or IPv4Address("255.255.255.0")
        chosen = tftp_server or self.pxe_server() or self.next_server
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

    def _broadcast(self, options: bytes) -> Waiting[None]:
        return self._stack.send((BROADCAST, 67), 68, encode_dhcp(self._xid, self._stack.mac, options))

    def discover(
        self, options: bytes, waits: tuple[float, ...], pxe: bool = True
    ) -> Waiting[tuple[DhcpReply, IPv4Address | None]]:
        """The OFFER it takes, and the boot server; NoAnswer after the last wait.

        A boot ROM (`pxe`) goes on until it has both an address and a boot server, which may come in two OFFERs
        (proxy DHCP). How well it listens is in the stack's quirks.
        """
        quirks = self._stack.quirks
        offer: DhcpReply | None = None
        server: IPv4Address | None = None
        for wait in waits:
            yield from self._broadcast(options)
            started = self._stack.clock()
            end = started + wait
            while self._stack.clock() < end:
                heard = yield from self._stack.hear(end)
                # One that shares its xid with all others and has no other look cannot tell whose OFFER it is.
                reply = self._read(heard, (OFFER,), own_only=quirks.requests)
                if reply is not None and int(reply.address):
                    offer = reply
                if reply is not None:
                    server = reply.pxe_server(quirks.menu, quirks.strict_menu) or server
                awake = self._stack.last_frame >= started + quirks.deaf
                if offer is not None and awake and (server is not None or not pxe):
                    return offer, server
        raise NoAnswer("DHCP: no usable OFFER")

    def request(self, options: bytes, wait: float = 4.0, tries: int = 3) -> Waiting[DhcpReply]:
        """The ACK; NoAnswer after the last try, or at a NAK."""
        for _ in range(tries):
            yield from self._broadcast(options)
            end = self._stack.clock() + wait
            while self._stack.clock() < end:
                reply = self._read((yield from self._stack.receive(68, end)), (ACK, NAK), own_only=True)
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

    def probe(self, name: str) -> Waiting[None]:
        """Ask for it, and end the transfer at the first answer with ERROR 0; NotFound, NoAnswer.

        Now and then the ERROR leaves only after the next request: boards do that, on the same file.
        """
        port = self._new_port()
        datagram = yield from self._ask(name, port)
        self._owed.append((port, datagram.source_port))
        if self._random.random() < 0.7:
            yield from self.finish()

    def fetch(self, name: str) -> Waiting[tuple[bytes, bool]]:
        """The file, and whether the server took a block size that was asked for; NotFound, NoAnswer."""
        port = self._new_port()
        first = yield from self._ask(name, port)
        return (yield from _Transfer(self, self._stack, self._server, self._style, name, port).run(first))

    def _new_port(self) -> int:
        if not self._next_port:
            return self._random.randint(20000, 60000)
        self._next_port += 1
        return self._next_port - 1

    def finish(self) -> Waiting[None]:
        """Send the ERRORs that are owed."""
        for port, peer in self._owed:
            yield from self._stack.send((self._server, peer), port, b"\0\5\0\0Early terminate\0")
        self._owed.clear()

    def _ask(self, name: str, port: int) -> Waiting[Datagram]:
        words = [name, "octet", *(word for option in self._style.options for word in option)]
        request = b"\0\1" + b"".join(word.encode("ascii") + b"\0" for word in words)
        end = self._stack.clock() + self._style.timeout
        while self._stack.clock() < end:
            yield from self._stack.send((self._server, 69), port, request)
            yield from self.finish()
            retry = min(end, self._stack.clock() + self._style.retry)
            while (datagram := (yield from self._stack.receive(port, retry))) is not None:
                if self.from_server(datagram, name):
                    return check_error(datagram)
        yield from self._stack.send((self._server, 69), port, b"\0\5\0\0Timeout\0")
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

    def run(self, first: Datagram) -> Waiting[tuple[bytes, bool]]:
        peer = first.source_port
        datagram: Datagram | None = first
        end = self._stack.clock() + self._style.timeout
        while self._stack.clock() < end:
            if datagram is None or not self._client.from_server(datagram, self._name):
                pass
            elif datagram.source_port != peer:
                if datagram.payload[:2] == b"\0\6":  # a second answer to one request, from a port of its own
                    self._complain_of_oack()
            else:
                check_error(datagram)
                count = len(self._blocks)
                last = self._take(datagram.payload)
                yield from self._send(peer)
                if last:
                    return self._finish()
                if len(self._blocks) > count:
                    end = self._stack.clock() + self._style.timeout
            datagram = yield from self._stack.receive(self._port, self._stack.clock() + self._style.retry)
            if datagram is None:
                yield from self._send(peer)
        yield from self._stack.send((self._server, peer), self._port, b"\0\5\0\0Timeout\0")
        raise NoAnswer(f"TFTP: {self._name} stopped after {len(self._blocks)} blocks")

    def _send(self, peer: int) -> Waiting[None]:
        if self._answer:
            yield from self._stack.send((self._server, peer), self._port, self._answer)

    def _take(self, payload: bytes) -> bool:
        """Take in an OACK or a block; True at the last block. What it is answered with is in `_answer`."""
        opcode, number = struct.unpack("!HH", payload[:4])
        if opcode == 6:
            self._take_options(payload)
        elif opcode == 3 and number == (len(self._blocks) + 1) & 0xFFFF:
            if len(self._blocks) >= _BLOCKS and not self._stack.quirks.rollover:
                raise NoAnswer(f"TFTP: {self._name} has more than {_BLOCKS} blocks, which this board cannot count")
            self._blocks.append(payload[4:])
            self._answer = payload[:2].replace(b"\3", b"\4") + payload[2:4]
            return len(payload) - 4 < self._block_size
        elif opcode == 3:
            self._client.complaints.append(f"{self._name}: block {number} again")
            if not self._stack.quirks.repeated_data:
                raise Hung(f"{self._name}: hangs at block {number}, which came again")
        return False

    def _complain_of_oack(self) -> None:
        self._client.complaints.append(f"{self._name}: a second OACK")
        if not self._stack.quirks.second_oack:
            raise Hung(f"{self._name}: hangs at a second OACK")

    def _take_options(self, payload: bytes) -> None:
        if self._options_taken or self._blocks:
            self._complain_of_oack()
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
