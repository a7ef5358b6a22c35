"""A Pi without a machine, after its boot ROM: our installer's behaviour, an SD card of one small file, and an OS.

It talks real TCP from the Pi's network namespace and takes the image it is sent, hashing instead of unpacking. What
it knows of the hello protocol is in tcp/README.md. The card keeps what was synced before the power went, no more.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from pathlib import Path

from lab.bootrom import Downloaded
from lab.namespaces import Interface, network_namespace
from lab.profiles import Identity, system_options
from lab.stack import ACK, DhcpClient, DhcpReply, Lease, NoAnswer, Stack, Waiting, drive, encode_dhcp, parse_dhcp
from lab.wire import PowerCut, Wire
from utility.service import Waker

CARD_STATES = ("blank", "piman", "foreign", "none")
INSTALLER_OPTIONS = b"\x3c\x0fpiman-installer" + bytes((55, 4, 1, 3, 6, 42)) + b"\xff"
_LINE_LIMIT, _CHUNK = 4096, 65536
_NO_LINGER = struct.pack("ii", 1, 0)  # a power cut sends no FIN


class Refused(Exception):  # noqa: N818 - ends this boot of the Pi
    """The installer gave up; the Pi starts again after a pause."""

    def __init__(self, text: str, by_manager: bool = False) -> None:
        super().__init__(text)
        self.by_manager = by_manager


@dataclass
class Card:
    """What is on the SD card. `image` is empty where no install was ever finished on it."""

    state: str = "blank"
    image: str = ""
    sha256: str = ""
    order: str = ""
    boots: int = 0

    @classmethod
    def load(cls, path: Path) -> Card:
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return cls()

    def save(self, path: Path) -> None:
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")
        new.replace(path)


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the parts of an install take, in seconds; `write` is in bytes a second."""

    kernel: float = 0.5
    format: float = 0.5
    write: float = 20e6
    sync: float = 0.2
    boot: float = 0.5
    reboot: float = 10.0  # after an error
    refused: float = 30.0  # after `refuse`


def linux_lease(stack: Stack, options: bytes) -> Waiting[Lease]:
    """DHCP as Linux does it: all four steps, with the same options, under an xid of its own; NoAnswer."""
    client = DhcpClient(stack, random.getrandbits(32))
    offer, _ = yield from client.discover(b"\x35\1\1" + options, (1.0, 2.0, 4.0, 8.0), pxe=False)
    server = offer.options.get(54, offer.source.packed)
    asked = b"\x32\4" + offer.address.packed + b"\x36\4" + server
    return (yield from client.request(b"\x35\1\3" + asked + options)).lease()


class LightMachine:
    """What runs on the board after the boot ROM. `run` returns when it restarts; one thread; `cut` from any."""

    def __init__(
        self,
        board: Identity,
        model: str,
        hostname: str,
        namespace: str,
        card_file: Path,
        note: Callable[[str], None],
        pace: Pace | None = None,
        card_bytes: int = 1 << 28,
    ) -> None:
        self._board, self._model, self._hostname = board, model, hostname
        self._namespace, self._card_file, self._note = namespace, card_file, note
        self._pace = pace or Pace()
        self._card_bytes = card_bytes
        self._waker = Waker()
        self._cut = False

    def cut(self) -> None:
        self._cut = True
        self._waker.wake()

    def close(self) -> None:
        self._waker.close()

    def run(self, downloaded: Downloaded, wire: Wire) -> None:
        """Install where told to, then be the installed system until the power goes (PowerCut)."""
        interface = Interface(self._namespace, "eth0")
        try:
            self._sleep(self._pace.kernel)
            with contextlib.suppress(NoAnswer):
                if downloaded.from_disk or self._installer(downloaded, wire, interface):
                    interface.set_address(IPv4Address(0), IPv4Address(0))
                    self._sleep(self._pace.boot)
                    self._system(wire, interface)
        finally:
            with contextlib.suppress(OSError):
                interface.set_address(IPv4Address(0), IPv4Address(0))
            interface.close()

    def _sleep(self, seconds: float) -> None:
        select.select([self._waker], [], [], seconds)
        if self._cut:
            raise PowerCut

    # -- DHCP, as Linux does it: the installer says who it is, the installed system gives its hostname

    def _lease(self, wire: Wire, options: bytes) -> Lease:
        stack = Stack(wire, self._board.mac_bytes, time.monotonic)
        return drive(linux_lease(stack, options), wire, time.monotonic)

    # -- the installer

    def _installer(self, downloaded: Downloaded, wire: Wire, interface: Interface) -> bool:
        """True: boot what is on the card; False: start again."""
        lease = self._lease(wire, INSTALLER_OPTIONS)
        interface.set_address(lease.address, lease.netmask)
        words = dict(word.partition("=")[::2] for word in downloaded.cmdline.split())
        master = words.get("master") or str(lease.next_server)
        try:
            with self._connect(master, 3333) as control:
                return _Session(self, control, master).run()
        except Refused as error:
            self._note(str(error))
            self._sleep(self._pace.refused if error.by_manager else self._pace.reboot)
        except OSError as error:
            self._note(f"the manager is gone: {error}")
            self._sleep(min(5.0, self._pace.reboot))
        return False

    @contextlib.contextmanager
    def _connect(self, host: str, port: int, tries: int = 10) -> Iterator[socket.socket]:
        for left in reversed(range(tries)):
            with self._socket(socket.SOCK_STREAM) as connection:
                connection.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    connection.connect((host, port))
                self._wait(connection, write=True, seconds=10.0)
                error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not error:
                    yield connection
                    return
                if not left:
                    raise OSError(error, f"cannot connect to {host}:{port}")
            self._sleep(1.0)

    def _socket(self, kind: socket.SocketKind) -> socket.socket:
        with network_namespace(self._namespace):
            made = socket.socket(socket.AF_INET, kind)
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return made

    def _wait(self, what: socket.socket, write: bool = False, seconds: float = 60.0) -> None:
        """Until it can be read (or written); PowerCut, and TimeoutError after `seconds`."""
        reading, writing = ([], [what.fileno()]) if write else ([what.fileno()], [])
        ready = select.select([self._waker.fileno(), *reading], writing, [], seconds)
        if self._cut:
            raise PowerCut
        if not ready[0] and not ready[1]:
            raise TimeoutError("the manager says nothing")

    # -- the installed system

    def _system(self, wire: Wire, interface: Interface) -> None:
        card = Card.load(self._card_file)
        card.boots += 1
        card.save(self._card_file)
        name = self._hostname.encode("ascii")
        lease = self._lease(wire, system_options(self._board, self._hostname))
        interface.set_address(lease.address, lease.netmask)
        self._note(f"up at {lease.address}")
        page = f"{self._hostname} {self._board.mac} image={card.image} boots={card.boots}\n"
        with contextlib.ExitStack() as stack:
            listeners = [stack.enter_context(self._listen(port)) for port in (80, 3000)]
            renewer = stack.enter_context(self._socket(socket.SOCK_DGRAM))
            renewer.bind(("", 68))
            renewal = _Renewal(self._board.mac_bytes, name, renewer)
            renewal.lease_taken(lease, time.monotonic())
            everything = [self._waker.fileno(), renewer.fileno(), *(each.fileno() for each in listeners)]
            while True:
                wait = max(0.0, renewal.deadline - time.monotonic())
                ready, _, _ = select.select(everything, [], [], wait)
                if self._cut:
                    raise PowerCut
                for listener in listeners:
                    if listener.fileno() in ready:
                        self._answer(listener, page)
                renewal.step(renewer.fileno() in ready, time.monotonic())

    def _listen(self, port: int) -> socket.socket:
        listener = self._socket(socket.SOCK_STREAM)
        listener.bind(("", port))
        listener.listen(8)
        listener.setblocking(False)
        return listener

    def _answer(self, listener: socket.socket, page: str) -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(0.5)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
                connection.recv(_LINE_LIMIT)
                body = page if listener.getsockname()[1] == 80 else "[]\n"
                kind = "text/plain" if listener.getsockname()[1] == 80 else "application/json"
                head = f"HTTP/1.0 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
                connection.sendall((head + body).encode("ascii"))


class _Renewal:
    """Renews the lease at half its time, by unicast (RFC 2131 section 4.3.2), from port 68."""

    def __init__(self, mac: bytes, hostname: bytes, channel: socket.socket) -> None:
        self._mac, self._hostname, self._channel = mac, hostname, channel
        self._lease: Lease | None = None
        self._xid = 0
        self.deadline = 0.0

    def lease_taken(self, lease: Lease, now: float) -> None:
        self._lease = lease
        self.deadline = now + max(1.0, lease.seconds / 2)

    def step(self, readable: bool, now: float) -> None:
        if self._lease is None:
            return
        if readable:
            with contextlib.suppress(OSError):
                data, source = self._channel.recvfrom(2048)
                reply: DhcpReply | None = parse_dhcp(data, IPv4Address(source[0]))
                if reply is not None and reply.xid == self._xid and reply.kind == ACK:
                    self.lease_taken(reply.lease(), now)
        if now >= self.deadline:
            self._xid = random.getrandbits(32)
            options = b"\x35\1\3" + bytes((12, len(self._hostname))) + self._hostname + b"\xff"
            message = encode_dhcp(self._xid, self._mac, options, self._lease.address.packed)
            with contextlib.suppress(OSError):
                self._channel.sendto(message, (str(self._lease.server), 67))
            self.deadline = now + 10.0


class _Session:
    """One hello session, version 2."""

    def __init__(self, machine: LightMachine, control: socket.socket, master: str) -> None:
        self._machine, self._control, self._master = machine, control, master
        self._pace = machine._pace
        self._card_file = machine._card_file
        self._buffer = b""

    def run(self) -> bool:
        machine = self._machine
        model = machine._model.replace(" ", "_")
        card = Card.load(self._card_file)
        size = 0 if card.state == "none" else machine._card_bytes
        self._say(f"HELLO 2 mac={machine._board.mac} serial={machine._board.folder} model={model} sd={size}")
        command = self._command()
        if command[0] == "date":
            self._say("SET_DATE")
            self._say_card(card)
            command = self._command()
        if command[0] == "format":
            self._format(dict(word.partition("=")[::2] for word in command[1:]))
            command = self._command()
        if command[0] == "boot":
            self._say("RECEIVED_BOOT")
            return True
        if command[0] == "refuse":
            raise Refused("refused: " + " ".join(command[1:]), by_manager=True)
        raise Refused(f"unknown command {command[0]}")

    def _say_card(self, card: Card) -> None:
        if card.image:
            self._say(f"IS_INSTALLED image={card.image} order={card.order}")
        else:
            self._say(f"IS_UNINSTALLED card={card.state}")

    def _fail(self, step: str, words: str) -> Refused:
        self._say(f"ERROR {step} {words}")
        return Refused(f"{step}: {words}")

    def _format(self, wanted: dict[str, str]) -> None:
        self._say("RECEIVED_FORMAT")
        card = Card.load(self._card_file)
        if card.state == "none":
            raise self._fail("card", "no card")
        self._say("FORMATTING")
        boots = card.boots
        Card("piman", boots=boots).save(self._card_file)  # the old system is gone with the first write
        self._machine._sleep(self._pace.format)
        self._say("FORMATTED")
        self._machine._note("takes the image")
        try:
            size, port = int(wanted["size"]), int(wanted["port"])
            image, expected = wanted["image"], wanted["sha256"]
        except (KeyError, ValueError) as error:
            raise self._fail("image", f"the format command lacks {error}") from error
        found = self._take_image(port, size)
        if found != expected:
            raise self._fail("hash", f"{found} is not {expected}")
        self._say(f"IMAGE_OK sha256={found}")
        self._machine._sleep(self._pace.sync)
        order = wanted.get("order", "")
        Card("piman", image, found, order, boots).save(self._card_file)
        self._say(f"IS_FORMATTED image={image} order={order}")
        self._machine._note(f"installed {image}")

    def _take_image(self, port: int, size: int) -> str:
        """Read the image no faster than a card takes it; its SHA-256 in hex."""
        digest, done, spoken = hashlib.sha256(), 0, time.monotonic()
        started = spoken
        with self._machine._connect(self._master, port, tries=3) as source:
            while True:
                self._machine._wait(source, seconds=30.0)
                data = source.recv(_CHUNK)
                if not data:
                    break
                digest.update(data)
                done += len(data)
                ahead = done / self._pace.write - (time.monotonic() - started)
                if ahead > 0.02:
                    self._machine._sleep(ahead)
                if time.monotonic() - spoken >= 1.0:
                    spoken = time.monotonic()
                    self._say(f"PROGRESS {done}")
        if done != size:
            raise self._fail("image", f"{done} of {size} bytes came")
        return digest.hexdigest()

    def _say(self, line: str) -> None:
        self._control.setblocking(True)
        self._control.sendall(line.encode("ascii", "replace") + b"\n")
        self._control.setblocking(False)

    def _command(self) -> list[str]:
        """The words of the manager's next command: the lines before EOM, joined."""
        lines: list[str] = []
        while True:
            while b"\n" not in self._buffer:
                if len(self._buffer) > _LINE_LIMIT:
                    raise Refused("the manager sent a line without end")
                self._machine._wait(self._control, seconds=120.0)
                data = self._control.recv(_LINE_LIMIT)
                if not data:
                    raise ConnectionResetError("the manager closed the session")
                self._buffer += data
            line, _, self._buffer = self._buffer.partition(b"\n")
            if line.strip() == b"EOM":
                return " ".join(lines).split() or [""]
            lines.append(line.decode("ascii", "replace"))
