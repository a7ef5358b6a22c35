"""The TFTP thread over loopback: one client socket, real time, no sleeping."""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import math
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tftp.files import BootFiles
from tftp.packet import Ack, Data, Error, ErrorCode, OptionAck, Options, Packet, ReadRequest, WriteRequest, parse
from tftp.server import TftpServer, _Session
from utility.hosts import Host
from utility.service import FileRecord, Report, Severity, Stage

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
        content, windowsize = b"", int(dict(options).get("windowsize", "1"))
        for number in itertools.count(1):
            while isinstance(packet, Data) and (packet.block - number) & 0xFFFF >= 0x8000:
                packet = self.hear()  # again: on a slow machine the timer was faster
            assert isinstance(packet, Data), packet
            assert packet.block == number & 0xFFFF
            content += packet.payload
            last = len(packet.payload) < blksize
            if last or number % windowsize == 0:
                self.say(Ack(packet.block))
            if last:
                break
            packet = self.hear()
        return content

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


def build(boot: Path, max_transfers: int = 2000, max_per_client: int = 64) -> TftpServer:
    return TftpServer(HOME, 0, BootFiles(boot, no_text), nobody, lambda _report: None, max_transfers, max_per_client)


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
    middle = [report for report in reports if report.sent == "block 11 of kernel8.img"]
    assert middle[0].began == pytest.approx(time.time(), abs=60)
    assert replace(middle[0], began=math.inf) == Report(
        PI.mac,
        Stage.KERNEL,
        "ACK 10 of kernel8.img",
        "block 11 of kernel8.img",
        done=10 * 512,
        total=2_048_000,
    )


def test_what_is_sent_again_to_a_pi_without_power_is_no_progress(
    boot: Path, reports: list[Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tftp.server._REPORT_INTERVAL", 0.0)
    monkeypatch.setattr("tftp.transfer.PATIENCE", 0.3)
    monkeypatch.setattr("tftp.transfer.FIRST_TIMEOUT", 0.02)
    with running(TftpServer(HOME, 0, BootFiles(boot, no_text), pi, reports.append)) as server, Client(server) as client:
        client.ask("kernel8.img")
        for _ in range(3):
            packet = client.hear()
            assert isinstance(packet, Data)
            client.say(Ack(packet.block))
        until(lambda: server.counters["timed out"] == 1)
    assert server.counters["resent"] > 1
    assert len([report for report in reports if report.done]) <= 3


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
        until(lambda: reports[-1].severity is Severity.ERROR)  # it is counted before it is told
    assert server.counters["failed"] == 1
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


class Channel:
    """A transfer's socket that counts what it is given to send, and fails where it is told to."""

    def __init__(self, real: socket.socket, refusal: int = 0) -> None:
        self.real, self.refusal = real, refusal
        self.lengths: list[int] = []
        self.recv, self.fileno, self.close = real.recv, real.fileno, real.close
        self.getsockopt, self.setsockopt = real.getsockopt, real.setsockopt

    def send(self, packet: bytes | memoryview) -> int:
        if self.refusal and len(packet) > 1472:
            raise OSError(self.refusal, "refused")
        self.lengths.append(len(packet))
        return self.real.send(packet)


@pytest.fixture
def channels(monkeypatch: pytest.MonkeyPatch) -> list[Channel]:
    """Every transfer's channel, in order. A test that appends one first says by it how all of them are to fail."""
    made: list[Channel] = []
    init = _Session.__init__

    def wrapped(self: _Session, channel: socket.socket, *rest: object) -> None:
        made.append(Channel(channel, made[0].refusal if made else 0))
        init(self, made[-1], *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(_Session, "__init__", wrapped)
    return made


def window(size: int, blksize: int = 1468) -> Options:
    return (("blksize", str(blksize)), ("windowsize", str(size)))


@pytest.mark.parametrize(
    ("size", "blksize", "calls"),
    [
        (16, 1468, [16 * 1472] * 87),  # 2048000 bytes are 1396 blocks: 87 windows and four blocks
        (64, 1468, [44 * 1472, 20 * 1472] * 21),  # 65507 bytes are the most for one call
        (64, 1024, [63 * 1028, 1028] * 31),
        (64, 512, [64 * 516] * 62),
    ],
)
def test_a_window_is_one_system_call(
    server: TftpServer, boot: Path, channels: list[Channel], size: int, blksize: int, calls: list[int]
) -> None:
    with Client(server) as client:
        assert client.fetch("kernel8.img", window(size, blksize)) == (boot / "kernel8.img").read_bytes()
    until(lambda: server.counters["completed"] == 1)
    if server.counters["resent"]:
        return  # on a slow machine the timer was faster: the sums do not tell anything
    lengths = channels[0].lengths[1:]  # after the OACK
    # A chunk of the file may end in the middle of a window: that one takes two calls.
    assert sum(lengths) == 2_048_000 + 4 * (2_048_000 // blksize + 1)
    assert len(lengths) <= len(calls) + 12
    assert lengths[:2] == calls[:2]


@pytest.mark.parametrize("refusal", [errno.EINVAL, errno.EIO, errno.ENOPROTOOPT, errno.EMSGSIZE])
def test_a_kernel_that_does_not_cut_gets_single_packets(
    server: TftpServer, boot: Path, channels: list[Channel], refusal: int
) -> None:
    channels.append(Channel(server._refusals, refusal))
    with Client(server) as client:
        assert client.fetch("kernel8.img", window(16)) == (boot / "kernel8.img").read_bytes()
    until(lambda: server.counters["completed"] == 1)
    assert set(channels[1].lengths[1:-1]) == {1472}
    assert server.counters["not segmented: refused"] == 1  # asked once, not for each window


def test_a_socket_that_knows_no_segmentation_gets_single_packets(
    server: TftpServer, boot: Path, channels: list[Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tftp.server._UDP_SEGMENT", 9999)
    with Client(server) as client:
        assert client.fetch("kernel8.img", window(16)) == (boot / "kernel8.img").read_bytes()
    assert set(channels[0].lengths[1:-1]) == {1472}


@pytest.mark.parametrize("blksize", [8, 500, 65464])
def test_blocks_that_are_too_short_or_too_long_to_be_cut(
    server: TftpServer, boot: Path, channels: list[Channel], blksize: int
) -> None:
    with Client(server) as client:
        assert client.fetch("start4.elf", window(2, blksize)) == (boot / "start4.elf").read_bytes()
    assert max(channels[0].lengths) <= max(blksize + 4, 60)


def test_windows_over_the_roll_over(server: TftpServer, boot: Path) -> None:
    content = bytes(range(251)) * 4000
    (boot / "long").write_bytes(content)
    with Client(server) as client:
        assert client.fetch("long", window(64, 8)) == content


def test_a_window_of_which_some_is_lost(server: TftpServer, boot: Path) -> None:
    content = (boot / "kernel8.img").read_bytes()
    with Client(server) as client:
        client.ask("kernel8.img", window(4, 512))
        client.say(Ack(0))
        assert [client.hear() for _ in range(4)] == blocks_of(content, 1, 4)
        client.say(Ack(2))
        heard: list[Packet] = []
        while set(map(repr, blocks_of(content, 3, 6))) - set(map(repr, heard)):
            heard.append(client.hear())
        client.say(Ack(6))
        while client.hear() != blocks_of(content, 10, 10)[0]:
            pass
        assert [client.hear() for _ in range(4)] == blocks_of(content, 7, 10)  # by the timer
        client.say(Error(0))
    until(lambda: server.counters["aborted by the client"] == 1)
    assert server.counters["resent"] >= 4


def blocks_of(content: bytes, first: int, last: int) -> list[Data]:
    return [Data(number, content[(number - 1) * 512 : number * 512]) for number in range(first, last + 1)]


@pytest.mark.parametrize("options", [(("blksize", "1468"),), window(8)])
def test_a_cached_file_is_old_or_new_but_never_mixed(server: TftpServer, boot: Path, options: Options) -> None:
    path = boot / "kernel8.img"
    contents = [bytes([number]) * 600_000 for number in range(6)]
    for number, content in enumerate(contents):
        if number % 2:
            path.write_bytes(content)  # in place, of the same size, while packets of the old one are kept
        else:
            (boot / "new").write_bytes(content)
            (boot / "new").rename(path)
        with Client(server) as client:
            assert client.fetch("kernel8.img", options) == content


def test_a_file_replaced_under_a_transfer_is_served_whole_as_it_was(server: TftpServer, boot: Path) -> None:
    content = (boot / "kernel8.img").read_bytes()[:600_000]
    (boot / "kernel8.img").write_bytes(content)
    with Client(server) as client, Client(server) as other:
        assert client.ask("kernel8.img") == Data(1, content[:512])
        (boot / "new").write_bytes(b"n" * 600_000)
        (boot / "new").rename(boot / "kernel8.img")
        assert other.fetch("kernel8.img", window(8)) == b"n" * 600_000
        for number, start in enumerate(range(512, 600_000 + 1, 512), 2):
            client.say(Ack(number - 1))
            while (packet := client.hear()) != Data(number, content[start : start + 512]):
                assert isinstance(packet, Data)  # the timer's, for what was not acknowledged meanwhile
                assert packet.block < number
        client.say(Ack(1172))
    until(lambda: server.counters["completed"] == 2)


def test_prepared_packets_are_shared_and_then_forgotten(boot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tftp.server._FORGET_AFTER", 0.05)
    with running(build(boot)) as server, Client(server) as client:
        held = 0
        for _ in range(3):
            client.fetch("kernel8.img", window(8))
            held = max(held, server._cache.held)
        assert held < 3_000_000
        until(lambda: server._cache.held == 0)


@contextlib.contextmanager
def recording(
    boot: Path, files: BootFiles | None = None
) -> Iterator[tuple[TftpServer, list[FileRecord], list[Report]]]:
    records: list[FileRecord] = []
    reports: list[Report] = []
    files = files or BootFiles(boot, no_text)
    with running(TftpServer(HOME, 0, files, pi, reports.append, record=records.append)) as server:
        yield server, records, reports


def test_each_file_of_a_known_pi_is_recorded(boot: Path) -> None:
    begun = time.time()
    with recording(boot) as (server, records, _reports):
        with Client(server) as client:
            client.fetch("beef/start4.elf", window(2))
            client.ask("beef/recovery.elf")
            client.ask("../secret")
            client.ask("kernel8.img")
            client.say(Error(0, "Early terminate"))
            until(lambda: len(records) == 3)
        with Client(server, address="127.0.0.2") as stranger:
            stranger.fetch("small")
            stranger.ask("nothing")
        until(lambda: server.counters["completed"] == 2)
    assert [(record.name, record.size, record.done, record.resent, record.outcome) for record in records] == [
        ("start4.elf", 3000, 3000, 0, "complete"),
        ("beef/recovery.elf", 0, 0, 0, "missing"),
        ("kernel8.img", 2_048_000, 0, 0, "aborted"),
    ]
    assert all(record.mac == PI.mac and begun - 1 < record.began < time.time() + 1 for record in records)
    assert all(0 <= record.seconds < 60 for record in records)


def test_every_large_file_shows_its_bytes(boot: Path) -> None:
    (boot / "start.elf").write_bytes(bytes(1_500_000))
    with recording(boot) as (server, _records, reports):
        with Client(server) as client:
            client.fetch("start.elf")
        until(lambda: server.counters["completed"] == 1)
    assert (reports[0].stage, reports[0].done, reports[0].total) == (Stage.FIRMWARE, 0, 1_500_000)
    assert (reports[-1].stage, reports[-1].done, reports[-1].total) == (Stage.FIRMWARE, 1_500_000, 1_500_000)


def test_what_boot_loaders_cannot_do_with_a_file_is_told_once(boot: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "piman.tftp")
    (boot / "config.txt").write_bytes(b"#" * 5000)
    with (boot / "huge").open("wb") as file:
        file.truncate(65535 * 512)
    with recording(boot) as (server, _records, reports):
        for name, options in (
            ("config.txt", ()),
            ("config.txt", ()),
            ("huge", window(4, 512)),
            ("huge", ()),
            ("huge", ()),
        ):
            with Client(server) as client:
                client.ask(name, options)
                client.say(Error(0))
        for name, size in (("huge", 5000), ("config.txt", 5000), ("config.txt", 6000)):
            with Client(server, address="127.0.0.2") as stranger:
                if size != 5000:
                    (boot / "config.txt").write_bytes(b"#" * size)
                stranger.ask(name)
                stranger.say(Error(0))
        until(lambda: server.counters["transfers"] == 8)
    assert [(report.severity, report.event) for report in reports if report.event] == [
        (Severity.WARNING, "config.txt has 5000 bytes; over the network Pis read only the first 4096"),
        (Severity.WARNING, "huge takes 65536 blocks of 512 bytes; boot loaders before September 2025 stop at 65535"),
    ]
    assert [record.getMessage() for record in caplog.records] == [
        "config.txt has 6000 bytes; over the network Pis read only the first 4096"
    ]


def test_an_eeprom_update_is_one_line(boot: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "piman.tftp")
    (boot / "pieeprom.upd").write_bytes(b"firmware")
    with recording(boot, BootFiles(boot, no_text, firmware_updates=lambda host: host == PI)) as (server, _records, _):
        with Client(server) as client:
            client.ask("pieeprom.upd")
            client.say(Error(0, "Early terminate"))
        with Client(server) as client:
            assert client.fetch("pieeprom.upd") == b"firmware"
        with Client(server, address="127.0.0.2") as stranger:
            assert isinstance(stranger.ask("pieeprom.upd"), Error)
        until(lambda: server.counters["completed"] == 1)
    assert len(caplog.records) == 1
    assert caplog.records[0].getMessage().startswith("pi1: pieeprom.upd completed after 8 of 8 bytes")
