"""The hello service on loopback: real sockets, whole sessions, and what must not hurt it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import socket
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tcp.image import ImageFile
from tcp.packet import Boot, Command, CommandReader, Format, Hello, Image, Refuse, SetDate
from tcp.server import MAX_PER_ADDRESS, HelloServer, Installs
from utility.hosts import Host
from utility.service import Report, Stage

LOCAL = IPv4Address("127.0.0.1")
CONTENT = os.urandom(20_000_000)  # more than the sockets of both ends hold
HASH = hashlib.sha256(CONTENT).hexdigest()


def host(number: int) -> Host:
    """Host n lives at 127.0.0.n: its peers connect from there."""
    return Host(f"b8:27:eb:00:00:{number:02x}", IPv4Address(f"127.0.0.{number}"), f"pi{number}")


def eventually(holds: Callable[[], bool]) -> None:
    """Wait for another thread; 5 s at most."""
    end = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


class Rig:
    """A running service, the world it asks, and what it reported."""

    def __init__(self, folder: Path) -> None:
        self.hosts = {host(n).address: host(n) for n in range(2, 200)}
        self.orders: dict[str, str] = {}
        self.reports: list[Report] = []
        self.peers: list[socket.socket] = []
        (folder / "rootfs.tgz").write_bytes(CONTENT)
        self.file = ImageFile(folder / "rootfs.tgz", folder)
        self.image: Callable[[], Image | None] = self.file.current
        installs = Installs(
            self.hosts.get, lambda _host: self.image(), self.orders.get, self.complete, lambda: datetime.now(UTC)
        )
        self.server = HelloServer(LOCAL, 0, 0, installs, self.reports.append)
        self.thread = threading.Thread(target=self.server.run, name="hello")
        self.thread.start()

    def complete(self, mac: str, token: str) -> bool:
        if self.orders.get(mac) == token:
            del self.orders[mac]
        return True

    def stop(self) -> float:
        """Stop it; how long that took."""
        started = time.monotonic()
        self.server.stop()
        self.thread.join(5)
        assert not self.thread.is_alive()
        return time.monotonic() - started

    def close(self) -> None:
        self.stop()
        for peer in self.peers:
            peer.close()

    def connect(self, number: int = 2, port: int = 0) -> socket.socket:
        peer = socket.create_connection((str(LOCAL), port or self.server.port), 5, (f"127.0.0.{number}", 0))
        peer.settimeout(5)
        self.peers.append(peer)
        return peer

    def stages(self, number: int = 2) -> list[Stage]:
        seen = [report.stage for report in self.reports if report.mac == host(number).mac and report.stage]
        return [stage for index, stage in enumerate(seen) if not index or seen[index - 1] is not stage]


class Pi:
    """A version 2 Pi, as far as the wire sees it."""

    def __init__(self, rig: Rig, number: int = 2, mac: str = "") -> None:
        self.rig, self.number = rig, number
        self.control = rig.connect(number)
        self._reader = CommandReader()
        self._commands: list[Command] = []
        self.say(Hello(mac or host(number).mac, sd=1 << 30).encode())

    def say(self, *lines: bytes) -> None:
        self.control.sendall(b"".join(line.rstrip(b"\n") + b"\n" for line in lines))

    def hear(self) -> Command | None:
        """The next command, None at the end of the connection."""
        while not self._commands:
            data = self.control.recv(4096)
            if not data:
                return None
            self._commands += self._reader.feed(data)
        return self._commands.pop(0)

    def until_format(self, status: bytes = b"IS_UNINSTALLED card=blank") -> Format:
        assert isinstance(self.hear(), SetDate)
        self.say(b"SET_DATE", status)
        command = self.hear()
        assert isinstance(command, Format)
        self.say(b"RECEIVED_FORMAT", b"FORMATTING", b"FORMATTED")
        return command

    def take(self, command: Format) -> bytes:
        with self.rig.connect(self.number, command.port) as source:
            return b"".join(iter(lambda: source.recv(65536), b""))

    def install(self, command: Format) -> None:
        data = self.take(command)
        self.say(b"PROGRESS %d" % len(data))
        sha256 = hashlib.sha256(data).hexdigest()
        order = f" order={command.order}" if command.order else ""
        self.say(f"IMAGE_OK sha256={sha256}".encode(), f"IS_FORMATTED image={command.image}{order}".encode())
        assert self.hear() == Boot()
        self.say(b"RECEIVED_BOOT")
        self.control.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    running = Rig(tmp_path)
    try:
        yield running
    finally:
        running.close()


def test_an_install_from_hello_to_boot(rig: Rig) -> None:
    rig.orders[host(2).mac] = "tok"
    pi = Pi(rig)
    command = pi.until_format()
    assert (command.size, command.sha256, command.order) == (len(CONTENT), HASH, "tok")
    pi.install(command)
    assert rig.orders == {}
    expected = [Stage.HELLO, Stage.FORMAT, Stage.IMAGE, Stage.BOOT]
    eventually(lambda: rig.stages() == expected)
    done = [report.done for report in rig.reports if report.done is not None]
    assert done == sorted(done)
    assert done[-1] == len(CONTENT)


def test_a_second_boot_needs_no_image(rig: Rig) -> None:
    rig.image = lambda: None
    pi = Pi(rig)
    assert isinstance(pi.hear(), SetDate)
    pi.say(b"SET_DATE", b"IS_INSTALLED image=rootfs-0 order=")
    assert pi.hear() == Boot()


def test_a_version_1_pi_is_installed(rig: Rig) -> None:
    with rig.connect() as control:
        control.sendall(b"+ echo Hello World\nHello World\nMAKING NODES\nMADE NODES\n")
        assert control.recv(999).startswith(b"busybox date -s ")
        control.sendall(b"RECEIVED_DATE\nSET_DATE\nCHECKING IF INSTALLED\nIS_UNINSTALLED\n")
        assert control.recv(999) == b"format\nEOM\n"
        control.sendall(b"RECEIVED_FORMAT\nFORMATTING\n+ sfdisk\n\xff\xfe\nFINISHED FORMATTING\n")
        with rig.connect(2, rig.server.image_port) as source:
            data = b"".join(iter(lambda: source.recv(65536), b""))
        assert data == CONTENT
        # Trace after the last word, and nothing read: the end must still be an end and not a reset.
        control.sendall(b"IS_FORMATTED\n" + b"+ trace\n" * 100)
        assert control.recv(999) == b""
        control.sendall(b"+ exit 0\n")
    eventually(lambda: any("not verified" in report.event for report in rig.reports))


def test_a_pi_that_says_nothing_gets_the_date_of_version_1(rig: Rig) -> None:
    with rig.connect() as control:
        assert control.recv(999).startswith(b"busybox date -s ")


def test_ten_pis_at_once(rig: Rig) -> None:
    def work(number: int) -> None:
        pi = Pi(rig, number)
        pi.install(pi.until_format())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2, 12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert all(rig.stages(number)[-1] is Stage.BOOT for number in range(2, 12))


def test_the_image_goes_to_nobody_else(rig: Rig) -> None:
    pi = Pi(rig)
    assert isinstance(pi.hear(), SetDate)
    for number in (2, 3):  # 2 has a session, but none that waits for an image
        with rig.connect(number, rig.server.image_port) as source:
            assert source.recv(1) == b""
    assert rig.server.counters["image for nobody"] == 2


def test_the_file_that_was_hashed_is_sent_whole(rig: Rig, tmp_path: Path) -> None:
    pi = Pi(rig)
    command = pi.until_format()
    (tmp_path / "new").write_bytes(b"another image")
    (tmp_path / "new").replace(rig.file.path)
    assert pi.take(command) == CONTENT


def test_an_image_replaced_between_hash_and_send_is_hashed_again(rig: Rig, tmp_path: Path) -> None:
    stale = rig.file.load()
    (tmp_path / "new").write_bytes(CONTENT[::-1])
    (tmp_path / "new").replace(rig.file.path)
    answers = iter([stale])
    rig.image = lambda: next(answers, None) or rig.file.load()
    pi = Pi(rig)
    assert pi.take(pi.until_format()) == CONTENT[::-1]


@pytest.mark.parametrize("gone", [False, True])
def test_an_image_that_is_never_the_one_hashed(rig: Rig, gone: bool) -> None:
    stale = rig.file.load()
    rig.file.path.write_bytes(b"shorter")
    if gone:
        rig.file.path.unlink()
    rig.image = lambda: stale
    pi = Pi(rig)
    pi.hear()
    pi.say(b"SET_DATE", b"IS_UNINSTALLED card=blank")
    assert isinstance(pi.hear(), Refuse)


def test_a_second_image_connection_takes_the_first_ones_place(rig: Rig) -> None:
    pi = Pi(rig)
    command = pi.until_format()
    with rig.connect(2, command.port) as first:
        assert first.recv(10)
        assert pi.take(command) == CONTENT


def test_a_stranger_is_closed_at_once(rig: Rig) -> None:
    rig.hosts.clear()
    with rig.connect() as control:
        assert control.recv(1) == b""
    assert rig.server.counters["unknown host"] == 1
    assert rig.reports == []


def test_the_address_of_another_pi_is_refused(rig: Rig) -> None:
    pi = Pi(rig, mac="b8:27:eb:00:00:99")
    command = pi.hear()
    assert isinstance(command, Refuse)
    assert "b8:27:eb:00:00:99" in command.reason


def test_a_pi_that_comes_back_supersedes_itself(rig: Rig) -> None:
    old = Pi(rig)
    old.until_format()
    new = Pi(rig)
    command = new.until_format()
    with contextlib.suppress(ConnectionResetError):
        assert old.hear() is None
    new.install(command)
    assert rig.server.counters["superseded"] == 1


def test_silence_supersedes_nobody(rig: Rig) -> None:
    pi = Pi(rig)
    command = pi.until_format()
    with contextlib.ExitStack() as stack:
        for _ in range(3 * MAX_PER_ADDRESS):
            stack.enter_context(rig.connect())
        eventually(lambda: rig.server.counters["made room"] >= 2 * MAX_PER_ADDRESS)
        pi.install(command)
    eventually(lambda: rig.stages()[-1] is Stage.BOOT)


def test_a_thousand_silent_connections(rig: Rig) -> None:
    """From many addresses: more than there may be sessions; the next real Pi is served all the same."""
    with contextlib.ExitStack() as stack:
        for index in range(1000):
            stack.enter_context(rig.connect(3 + index % 190))
        assert len(rig.server._connections) <= 300  # 256, and what is just ending
        pi = Pi(rig, 2)
        pi.install(pi.until_format())


@pytest.mark.parametrize("garbage", [b"x" * 5000, b"\0" * 1_200_000, b"noise\n" * 200_000, b"\n" * 200_000])
def test_garbage_ends_a_session(rig: Rig, garbage: bytes) -> None:
    pi = Pi(rig)
    assert isinstance(pi.hear(), SetDate)
    with contextlib.suppress(OSError):
        pi.control.sendall(garbage)
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        assert pi.hear() is None
    eventually(lambda: rig.stages() == [Stage.HELLO, Stage.FAILED])


def test_a_malformed_line_in_the_middle_is_passed_over(rig: Rig) -> None:
    pi = Pi(rig)
    pi.hear()
    pi.say(b"IS_INSTALLED image=../../x", b"PROGRESS many", b"SET_DATE", b"IS_INSTALLED")
    assert pi.hear() == Boot()


def test_an_order_that_cannot_be_completed_does_not_keep_a_pi_from_booting(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    object.__setattr__(rig.server._install, "complete", lambda _mac, _token: False)
    rig.orders[host(2).mac] = "tok"
    pi = Pi(rig)
    pi.hear()
    pi.say(b"SET_DATE", b"IS_INSTALLED image=rootfs-0 order=tok")
    assert pi.hear() == Boot()
    pi.say(b"IS_INSTALLED image=rootfs-0 order=tok", b"RECEIVED_BOOT")
    eventually(lambda: any(report.heard == "RECEIVED_BOOT" for report in rig.reports))
    (warning,) = [each for each in caplog.records if each.levelname == "WARNING"]
    assert warning.message == "pi2: order tok was carried out, but could not be noted; its next boot will"


def test_a_question_that_fails_ends_one_session(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    def locked(_mac: str) -> str:
        raise RuntimeError("database is locked")

    pending = rig.server._install.pending
    object.__setattr__(rig.server._install, "pending", locked)
    pi = Pi(rig)
    pi.hear()
    pi.say(b"SET_DATE", b"IS_INSTALLED")
    with contextlib.suppress(ConnectionResetError):
        assert pi.hear() is None  # neither boot nor format on a guess
    eventually(lambda: "hello pi2 failed" in caplog.text)
    object.__setattr__(rig.server._install, "pending", pending)
    again = Pi(rig)
    again.hear()
    again.say(b"SET_DATE", b"IS_INSTALLED")
    assert again.hear() == Boot()


def test_a_pi_that_vanishes_in_the_image(rig: Rig) -> None:
    pi = Pi(rig)
    command = pi.until_format()
    with rig.connect(2, command.port) as source:
        source.recv(100)
    pi.control.close()
    eventually(lambda: any("starts over" in report.event for report in rig.reports))
    eventually(lambda: not rig.server._connections and len(rig.server._threads) == 0)
    pi = Pi(rig)
    pi.install(pi.until_format())


def test_the_progress_is_what_the_pi_has_and_no_more(rig: Rig) -> None:
    """However much our kernel has taken: what the Pi's kernel has acknowledged."""
    (rig.file.path).write_bytes(bytes(32_000_000))
    pi = Pi(rig)
    command = pi.until_format()

    def told() -> int:
        return max((report.done or 0 for report in rig.reports), default=0)

    def has(source: socket.socket) -> int:
        waiting = fcntl.ioctl(source, termios.FIONREAD, bytes(4))
        return taken + int.from_bytes(waiting, sys.byteorder)

    with rig.connect(2, command.port) as source:
        taken = 0
        for wanted in (1_000_000, 3_000_000):
            while taken < wanted:
                taken += len(source.recv(65536))
            eventually(lambda: told() == has(source))
            assert wanted <= told() < 20_000_000
        while data := source.recv(1 << 20):
            taken += len(data)
    eventually(lambda: told() == 32_000_000)


def test_it_stops_within_a_second(rig: Rig) -> None:
    pi = Pi(rig)
    command = pi.until_format()
    with rig.connect(2, command.port) as source, rig.connect(3):
        source.recv(100)
        assert rig.stop() < 1.0
        rig.server.stop()  # again, after its end
        with contextlib.suppress(ConnectionResetError):
            assert pi.hear() is None


def test_a_session_that_begins_while_the_service_ends_is_closed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Callable[[], None]] = []
    monkeypatch.setattr(rig.server, "_start", lambda _name, work: begun.append(work))
    peer = rig.connect()
    eventually(lambda: bool(begun))
    (connection,) = rig.server._connections
    rig.stop()
    begun[0]()  # its thread gets to run only now
    assert (connection.control.fileno(), connection.waker.fileno()) == (-1, -1)
    assert peer.recv(1) == b""


def test_the_ports_are_taken_in_the_constructor(rig: Rig) -> None:
    installs = rig.server._install
    for ports in ((rig.server.port, 0), (0, rig.server.image_port)):
        with pytest.raises(OSError, match="in use"):
            HelloServer(LOCAL, *ports, installs, rig.reports.append)


def test_out_of_descriptors_is_waited_out(rig: Rig) -> None:
    class Full:
        def accept(self) -> None:
            raise OSError(24, "Too many open files")

    rig.server._accept(Full(), lambda _peer, _address: None)  # type: ignore[arg-type]
    assert rig.server.counters["out of descriptors"] == 1


def test_no_thread_to_be_had(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with rig.connect() as control:
        assert control.recv(1) == b""
    monkeypatch.undo()
    eventually(lambda: rig.server.counters["not served"] == 1)
    assert rig.server._connections == []
    pi = Pi(rig)
    assert isinstance(pi.hear(), SetDate)


@pytest.mark.parametrize("missing", ["descriptor", "thread"])
def test_an_image_that_cannot_be_served_is_not_promised(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    def dup(_descriptor: int) -> int:
        raise OSError(24, "Too many open files")

    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pi = Pi(rig)
    command = pi.until_format()
    eventually(lambda: any(report.heard == "FORMATTED" for report in rig.reports))
    before = len(list(Path("/proc/self/fd").iterdir()))
    with monkeypatch.context() as patch:
        patch.setattr(*((os, "dup", dup) if missing == "descriptor" else (threading.Thread, "start", start)))
        assert pi.take(command) == b""
    eventually(lambda: len(list(Path("/proc/self/fd").iterdir())) == before)
    assert rig.server.counters["not served"] == 1
    (connection,) = rig.server._connections
    assert (connection.image_socket, connection.image_new) == (None, False)
    assert Stage.IMAGE not in rig.stages()
    pi.install(command)  # the next one is served
