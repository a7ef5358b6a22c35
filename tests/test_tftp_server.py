"""The TFTP thread over loopback: one client socket, real time, no sleeping."""

from __future__ import annotations

import contextlib
import logging
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tftp.files import BootFiles
from tftp.packet import Ack, Data, Error, ErrorCode, OptionAck, Options, Packet, ReadRequest, WriteRequest, parse
from tftp.server import TftpServer
from utility.hosts import Host
from utility.service import Report, Severity, Stage

HOME = IPv4Address("127.0.0.1")
PI = Host("b8:27:eb:00:00:01", HOME, "pi1")


def nobody(address: IPv4Address) -> Host | None:
    return None


def pi(address: IPv4Address) -> Host | None:
    return PI if address == HOME else None


def no_text(name: str, host: Host | None) -> bytes | None:
    return None


@contextlib.contextmanager
def running(server: TftpServer) -> Iterator[TftpServer]:
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        begun = time.monotonic()
        server.stop()
        thread.join(5)
        assert not thread.is_alive()
        assert time.monotonic() - begun < 1


class Client:
    """A socket with words."""

    def __init__(self, server: TftpServer, port: int = 0, address: str = "127.0.0.1") -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, port))
        self.socket.settimeout(5)
        self.server = ("127.0.0.1", server.port)
        self.peer = self.server

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, name: str, options: Options = (), mode: str = "octet") -> Packet:
        self.socket.sendto(ReadRequest(name, mode, options).encode(), self.server)
        return self.hear()

    def say(self, packet: Packet) -> None:
        self.socket.sendto(packet.encode(), self.peer)

    def hear(self) -> Packet:
        datagram, self.peer = self.socket.recvfrom(70000)
        return parse(datagram)

    def fetch(self, name: str, options: Options = (), mode: str = "octet") -> bytes:
        blksize = int(dict(options).get("blksize", "512"))
        packet = self.ask(name, options, mode)
        if isinstance(packet, OptionAck):
            self.say(Ack(0))
            packet = self.hear()
        content = b""
        while True:
            assert isinstance(packet, Data), packet
            content += packet.payload
            self.say(Ack(packet.block))
            if len(packet.payload) < blksize:
                return content
            packet = self.hear()

    def silent(self) -> bool:
        """Whether nothing is there by now."""
        self.socket.setblocking(False)
        try:
            self.socket.recv(1)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(5)
        return False


def until(condition: Callable[[], bool]) -> None:
    """Let the server's thread run until it is so."""
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.002)


@pytest.fixture
def boot(tmp_path: Path) -> Path:
    (tmp_path / "small").write_bytes(b"small\n")
    (tmp_path / "start4.elf").write_bytes(b"s" * 3000)
    (tmp_path / "kernel8.img").write_bytes(bytes(range(256)) * 8000)
    return tmp_path


@pytest.fixture
def reports() -> list[Report]:
    return []


@pytest.fixture
def server(boot: Path, reports: list[Report]) -> Iterator[TftpServer]:
    with running(TftpServer(HOME, 0, BootFiles(boot, no_text), pi, reports.append)) as server:
        yield server


def build(boot: Path, **limits: int) -> TftpServer:
    return TftpServer(HOME, 0, BootFiles(boot, no_text), nobody, lambda _report: None, **limits)


def test_a_taken_port_is_an_error_at_once(boot: Path) -> None:
    with running(build(boot)) as server, pytest.raises(OSError, match="in use"):
        TftpServer(HOME, server.port, BootFiles(boot, no_text), nobody, lambda _report: None)


def test_a_stop_before_the_run_holds(boot: Path) -> None:
    server = build(boot)
    server.stop()
    server.run()


@pytest.mark.parametrize("options", [(), (("blksize", "1468"), ("tsize", "0")), (("timeout", "2"),)])
def test_a_file_with_and_without_options(server: TftpServer, boot: Path, options: Options) -> None:
    with Client(server) as client:
        assert client.fetch("kernel8.img", options) == (boot / "kernel8.img").read_bytes()
        assert client.peer[1] != server.port
    until(lambda: server.counters["completed"] == 1)
    assert server.counters["resent"] == 0


def test_netascii(server: TftpServer) -> None:
    with Client(server) as client:
        assert client.fetch("small", (("tsize", "0"),), "netascii") == b"small\r\n"


def test_the_largest_block(server: TftpServer, boot: Path) -> None:
    with Client(server) as client:
        assert client.fetch("kernel8.img", (("blksize", "65464"),)) == (boot / "kernel8.img").read_bytes()


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (ReadRequest("nothing"), ErrorCode.FILE_NOT_FOUND),
        (ReadRequest("../secret"), ErrorCode.ACCESS_VIOLATION),
        (ReadRequest("small", "mail"), ErrorCode.ILLEGAL_OPERATION),
        (WriteRequest("small"), ErrorCode.ACCESS_VIOLATION),
    ],
)
def test_refusals(server: TftpServer, request_: Packet, code: ErrorCode) -> None:
    with Client(server) as client:
        client.say(request_)
        answer = client.hear()
        assert isinstance(answer, Error)
        assert answer.code == code
        assert client.peer[1] != server.port


@pytest.mark.parametrize(
    ("datagram", "counter"),
    [
        (b"", "malformed"),
        (b"\0\1", "malformed"),
        (b"\0\1" + b"x" * 9000, "malformed"),
        (Error(0, "gave up").encode(), "stray Error"),
        (Ack(7).encode(), "stray Ack"),
        (Data(1, b"x").encode(), "stray Data"),
        (OptionAck((("a", "b"),)).encode(), "stray OptionAck"),
    ],
)
def test_what_is_no_request_is_dropped_and_counted(server: TftpServer, datagram: bytes, counter: str) -> None:
    with Client(server) as client:
        client.socket.sendto(datagram, client.server)
        until(lambda: server.counters[counter] == 1)
        assert client.silent()
        assert client.fetch("small") == b"small\n"


def test_a_doubled_request_gets_one_answer(server: TftpServer) -> None:
    with Client(server) as client:
        client.ask("start4.elf", (("tsize", "0"),))
        client.socket.sendto(ReadRequest("start4.elf", "octet", (("tsize", "0"),)).encode(), client.server)
        until(lambda: server.counters["duplicate request"] == 1)
        client.say(Ack(0))
        assert client.hear() == Data(1, b"s" * 512)
        assert server.counters["transfers"] == 1


def test_another_request_from_the_same_port_replaces_the_transfer(server: TftpServer) -> None:
    with Client(server) as client:
        client.ask("start4.elf")
        assert client.fetch("small") == b"small\n"
        assert server.counters["superseded"] == 1


def test_a_restarted_boot_rom_that_repeats_itself_is_served_again(boot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tftp.server._STALLED", -1.0)  # whatever has moved counts as stalled
    with running(build(boot)) as server, Client(server) as client:
        client.ask("start4.elf")
        client.say(Ack(1))
        assert client.hear() == Data(2, b"s" * 512)
        assert client.ask("start4.elf") == Data(1, b"s" * 512)
        assert server.counters["superseded"] == 1


def test_a_lost_packet_comes_again_by_the_timer(server: TftpServer) -> None:
    with Client(server) as client:
        client.ask("start4.elf")
        client.say(Ack(1))
        assert client.hear() == Data(2, b"s" * 512)
        assert client.hear() == Data(2, b"s" * 512)
        client.say(Error(3, "disk full"))
    until(lambda: server.counters["aborted by the client"] == 1)
    assert server.counters["resent"] == 1


def test_early_terminate_is_quiet(server: TftpServer, reports: list[Report], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "piman.tftp")
    with Client(server) as client:
        client.ask("start4.elf", (("tsize", "0"),))
        client.say(Error(0, "Early terminate"))
        until(lambda: server.counters["aborted by the client"] == 1)
        assert client.silent()
    assert not caplog.records
    assert not any(report.event for report in reports)


def test_a_client_that_is_gone_ends_the_transfer_at_once(server: TftpServer, reports: list[Report]) -> None:
    with Client(server) as client:
        client.ask("start4.elf")
        client.say(Ack(1))
        client.hear()
    until(lambda: server.counters["client gone"] == 1)  # the timer's repetition met a closed port
    assert not any(report.event for report in reports)


def test_the_limits(boot: Path) -> None:
    with running(build(boot, max_transfers=3, max_per_client=2)) as server:
        clients = [Client(server), Client(server), Client(server, address="127.0.0.2")]
        for client in clients:
            client.ask("start4.elf")
        with Client(server) as late:
            late.socket.sendto(ReadRequest("small").encode(), late.server)
            until(lambda: server.counters["too many transfers"] == 1)
            clients[2].say(Error(0))
            until(lambda: server.counters["aborted by the client"] == 1)
            late.socket.sendto(ReadRequest("small").encode(), late.server)
            until(lambda: server.counters["too many transfers of one client"] == 1)
            clients[0].say(Error(0))
            until(lambda: server.counters["aborted by the client"] == 2)
            assert late.fetch("small") == b"small\n"
        for client in clients:
            client.socket.close()


def test_without_descriptors_a_request_is_dropped_and_the_service_goes_on(boot: Path) -> None:
    with running(build(boot)) as server, Client(server) as client:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.ExitStack() as filled:
            resource.setrlimit(resource.RLIMIT_NOFILE, (client.socket.fileno() + 20, hard))
            filled.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
            held = []
            with contextlib.suppress(OSError):
                while True:
                    held.append(filled.enter_context(Path("/dev/null").open("rb")))
            held.pop().close()  # enough for the folder, not for the file in it
            client.socket.sendto(ReadRequest("small").encode(), client.server)
            answer = client.hear()
            assert isinstance(answer, Error)
            assert answer.code == ErrorCode.NOT_DEFINED
        assert client.fetch("small") == b"small\n"


def test_a_peer_that_cannot_be_answered_is_dropped(boot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = build(boot)
    opened = server._files.open("small", None)
    monkeypatch.setattr(server._files, "open", lambda _name, _host: opened)
    server._request(ReadRequest("small").encode(), "192.0.2.77", ("127.0.0.1", 9), 0.0)
    assert [reason for reason in server.counters if reason.startswith("no socket")]
    server._request(WriteRequest("small").encode(), "192.0.2.77", ("127.0.0.1", 9), 0.0)
    assert [reason for reason in server.counters if reason.startswith("not sent")]
    server.stop()
    server.run()


def test_clients_in_flight_are_told_that_the_server_stops(boot: Path) -> None:
    with contextlib.ExitStack() as stack:
        with running(build(boot)) as server:
            clients = [stack.enter_context(Client(server)) for _ in range(20)]
            for client in clients:
                client.ask("kernel8.img")
        for client in clients:
            assert client.hear() == Error(0, "the server stops")


def test_a_boot_is_reported(server: TftpServer, reports: list[Report], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "piman.tftp")
    with Client(server) as client:
        client.fetch("beef/start4.elf")
        for _ in range(2):
            client.ask("beef/bcm2711.dtb")
        client.ask("beef/recovery.elf")
        size = len(client.fetch("beef/kernel8.img", (("blksize", "1468"),)))
        client.fetch("small")
    with Client(server) as client:
        client.fetch("start4.elf")
    until(lambda: server.counters["completed"] == 4)
    assert not any(report.event for report in reports)
    assert {report.mac for report in reports} == {PI.mac}
    assert reports[0] == Report(PI.mac, Stage.FIRMWARE, "RRQ start4.elf", "block 1 of start4.elf")
    assert reports[1] == Report(PI.mac, Stage.FIRMWARE, "RRQ beef/bcm2711.dtb", "file not found")
    kernel = [report for report in reports if report.stage is Stage.KERNEL]
    assert kernel[0] == Report(PI.mac, Stage.KERNEL, "RRQ kernel8.img", "block 1 of kernel8.img", done=0, total=size)
    assert (kernel[-1].sent, kernel[-1].done, kernel[-1].total) == ("all of kernel8.img", size, size)
    # More firmware after the kernel is no step back; the first file of all is a new boot.
    assert [report.stage for report in reports[-2:]] == [None, Stage.FIRMWARE]
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if "bcm2711.dtb" in line]) == 1
    assert not [line for line in lines if "recovery.elf" in line]
    assert [line for line in lines if line.startswith("pi1: kernel8.img completed")]
    assert len(lines) == 2


def test_the_kernels_progress_is_reported_now_and_then(
    boot: Path, reports: list[Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tftp.server._REPORT_INTERVAL", 0.0)
    with running(TftpServer(HOME, 0, BootFiles(boot, no_text), pi, reports.append)) as server, Client(server) as client:
        client.fetch("kernel8.img")
        until(lambda: server.counters["completed"] == 1)
    middle = [report for report in reports if report.sent == "block 9 of kernel8.img"]
    assert middle[0] == Report(
        PI.mac,
        Stage.KERNEL,
        "ACK 8 of kernel8.img",
        "block 9 of kernel8.img",
        done=8 * 512,
        total=2_048_000,
    )


def test_a_client_that_falls_silent_is_an_event(
    boot: Path, reports: list[Report], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tftp.transfer.PATIENCE", 0.2)
    monkeypatch.setattr("tftp.transfer.FIRST_TIMEOUT", 0.05)
    caplog.set_level(logging.INFO, "piman.tftp")
    with running(TftpServer(HOME, 0, BootFiles(boot, no_text), pi, reports.append)) as server:
        with Client(server) as client:
            client.ask("start4.elf")
            until(lambda: server.counters["timed out"] == 1)
        event = reports[-1]
        assert event.severity is Severity.WARNING
        assert event.event.startswith("start4.elf timed out after 0 of 3000 bytes")
        assert not caplog.records  # whoever keeps the event logs it
        # A Pi that asks for something else has left the first transfer by itself.
        with Client(server) as first, Client(server) as second:
            first.ask("start4.elf")
            second.fetch("small")
            until(lambda: server.counters["timed out"] == 2)
        assert not reports[-1].event
        # A client's own reason is worth a line.
        with Client(server) as client:
            client.ask("start4.elf")
            client.say(Error(3, "disk full"))
            until(lambda: server.counters["aborted by the client"] == 1)
    assert "disk full" in caplog.records[-1].getMessage()
    assert not reports[-1].event


def test_a_file_written_in_place_meanwhile_is_an_error(server: TftpServer, boot: Path, reports: list[Report]) -> None:
    with Client(server) as client:
        client.ask("kernel8.img")
        (boot / "kernel8.img").write_bytes(b"new")
        block = 1
        client.say(Ack(block))
        while isinstance(packet := client.hear(), Data):
            client.say(Ack(packet.block))
        assert isinstance(packet, Error)
        until(lambda: server.counters["failed"] == 1)
    assert reports[-1].severity is Severity.ERROR
    assert "changed" in reports[-1].event


def test_a_hundred_at_once_are_served_by_one_thread(boot: Path) -> None:
    content = (boot / "start4.elf").read_bytes()
    with running(build(boot, max_per_client=200)) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(server)) for _ in range(100)]
        taken = [b""] * 100
        for client in clients:
            client.ask("start4.elf", (("blksize", "100"),))
            client.say(Ack(0))
        for _ in range(31):
            for index, client in enumerate(clients):
                packet = client.hear()
                assert isinstance(packet, Data)
                taken[index] += packet.payload
                client.say(Ack(packet.block))
        assert set(taken) == {content}
        until(lambda: server.counters["completed"] == 100)
        assert not server._sessions
        assert not server._by_peer
        assert not server._per_client
