"""Debian's TFTP clients at our server: tftp-hpa, atftp and curl: options, long files, a bad cable, many at once."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lab.wire import Faults, FaultyPath
from tests.peers.netns import Network
from tests.test_tftp_transfer import Client as PureClient
from tftp.files import BootFiles
from tftp.packet import Error, OptionAck, Options, ReadRequest, parse
from tftp.server import TftpServer
from utility.service import Waker

MANAGER = "172.30.4.1"
SECOND = "172.30.4.2"  # another address of the manager
SIZES = {"empty": 0, "one": 1, "edge": 1024, "kernel8.img": 1_000_000}


@dataclass
class Rack:
    net: Network
    boot: Path
    here: Path
    server: TftpServer
    thread: threading.Thread

    def get(self, argv: Sequence[str], timeout: float = 20) -> subprocess.CompletedProcess[str]:
        return self.net.run("pi", argv, timeout)

    def check(self, argv: Sequence[str], name: str, timeout: float = 20) -> None:
        """Run a client that is to leave the file in `out`, and compare."""
        done = self.get(argv, timeout)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (self.here / "out").read_bytes() == (self.boot / name).read_bytes(), done.stdout + done.stderr


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Rack]:
    boot, here = tmp_path / "boot", tmp_path / "here"
    boot.mkdir()
    here.mkdir()
    for name, size in SIZES.items():
        (boot / name).write_bytes(random.Random(name).randbytes(size))
    (boot / "text").write_bytes(b"one\ntwo\rthree\r\nfour")
    with Network() as net:
        net.host("mgr", f"{MANAGER}/24")
        net.host("pi", "172.30.4.13/24", mac="b8:27:eb:00:00:01")
        net.run("mgr", ["ip", "addr", "add", f"{SECOND}/24", "dev", "eth0"])
        with net.enter("mgr"):
            files = BootFiles(boot, lambda _name, _host: None)
            # On all addresses: the answer has to come from the one that was asked.
            server = TftpServer(
                IPv4Address("0.0.0.0"), 69, files, lambda _address: None, lambda _report: None, max_per_client=200
            )

        def work() -> None:
            with net.enter("mgr"):  # the transfers' sockets are made in this thread
                server.run()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield Rack(net, boot, here, server, thread)
        finally:
            server.stop()
            thread.join(5)
            assert not thread.is_alive()


def curl(rack: Rack, name: str, *options: str, host: str = MANAGER) -> list[str]:
    return ["curl", "-sS", *options, "-o", str(rack.here / "out"), f"tftp://{host}/{name}"]


def atftp(rack: Rack, name: str, *options: str, host: str = MANAGER) -> list[str]:
    words = [word for option in options for word in ("--option", option)]
    return ["atftp", *words, "-g", "-r", name, "-l", str(rack.here / "out"), host, "69"]


def tftp_hpa(rack: Rack, name: str, mode: str = "binary", host: str = MANAGER) -> list[str]:
    return ["tftp", "-m", mode, host, "-c", "get", name, str(rack.here / "out")]


@pytest.mark.parametrize("name", SIZES)
def test_every_client_with_its_defaults(rack: Rack, name: str) -> None:
    rack.check(tftp_hpa(rack, name), name)
    rack.check(atftp(rack, name), name)
    if SIZES[name]:  # curl makes no file of nothing
        rack.check(curl(rack, name), name)
        rack.check(curl(rack, f"/deadbeef//{name}", host=SECOND), name)
        rack.check(curl(rack, name, "--tftp-no-options"), name)


@pytest.mark.parametrize(
    "options",
    [
        ["blksize 8"],
        ["blksize 1024"],
        ["blksize 1468"],
        ["blksize 65464"],
        ["tsize 0"],
        ["timeout 2"],
        ["blksize 1468", "tsize 0", "timeout 3"],
        ["windowsize 1"],
        ["windowsize 8"],
        ["windowsize 65535"],
        ["blksize 1428", "windowsize 16", "tsize 0"],
        ["blksize 1468", "windowsize 64"],
        ["blksize 8192", "windowsize 4"],
    ],
)
def test_each_option(rack: Rack, options: list[str]) -> None:
    rack.check(atftp(rack, "kernel8.img", *options), "kernel8.img", timeout=60)


@pytest.mark.parametrize("size", [8, 512, 1468, 65464])
def test_curl_with_block_sizes(rack: Rack, size: int) -> None:
    rack.check(curl(rack, "kernel8.img", "--tftp-blksize", str(size)), "kernel8.img", timeout=60)


@pytest.mark.parametrize("side", ["mgr", "pi"])
def test_windows_through_a_device_without_checksum_offload(rack: Rack, side: str) -> None:
    """The kernel has to cut and sum by itself, or to refuse, so that we fall back; the client drops wrong sums."""
    done = rack.net.run(side, ["ethtool", "-K", "eth0", "tx", "off"])
    assert done.returncode == 0, done.stderr
    rack.check(atftp(rack, "kernel8.img", "blksize 1428", "windowsize 32"), "kernel8.img")


def test_windows_over_a_route_with_a_small_mtu(rack: Rack) -> None:
    """Blocks that do not fit are fragmented by the kernel, one by one; those that do are cut by it."""
    for host in ("mgr", "pi"):
        assert rack.net.run(host, ["ip", "link", "set", "eth0", "mtu", "1000"]).returncode == 0
    for size in (900, 1428):
        rack.check(atftp(rack, "kernel8.img", f"blksize {size}", "windowsize 16"), "kernel8.img")


def test_netascii(rack: Rack) -> None:
    """tftp-hpa's own default mode: what comes out is the text that went in."""
    rack.check(tftp_hpa(rack, "text", "ascii"), "text")
    done = rack.get(curl(rack, "text;mode=netascii"))
    assert done.returncode == 0, done.stderr
    assert (rack.here / "out").read_bytes() == b"one\r\ntwo\r\0three\r\0\r\nfour"


def test_refusals_are_told_at_once(rack: Rack) -> None:
    begun = time.monotonic()
    done = rack.get(curl(rack, "nothing"))
    assert done.returncode == 68, done.stderr  # not found
    done = rack.get(curl(rack, "../secret", "--path-as-is"))
    assert done.returncode == 69, done.stderr  # no permission
    assert "file not found" in rack.get(tftp_hpa(rack, "nothing")).stdout
    (rack.here / "out").write_bytes(b"x")
    done = rack.get(["curl", "-sS", "-T", str(rack.here / "out"), f"tftp://{MANAGER}/up"])
    assert done.returncode == 69, done.stderr
    assert time.monotonic() - begun < 5


def test_more_than_65535_blocks(rack: Rack) -> None:
    (rack.boot / "long").write_bytes(random.Random(9).randbytes(65_540 * 512 + 77))
    rack.check(curl(rack, "long", "--tftp-no-options"), "long", timeout=60)
    (rack.boot / "longer").write_bytes(random.Random(9).randbytes(2 * 65_536 * 8 + 3))  # twice around
    rack.check(curl(rack, "longer", "--tftp-blksize", "8"), "longer", timeout=60)


class BadCable:
    """A cable of its own for `pi`, which carries each frame as the faults have it.

    Not tc's netem, because many small kernels (those of virtual machines and containers) are built without it.
    """

    def __init__(self, net: Network, faults: Faults) -> None:
        net.host("cable")
        pi = net.namespace("pi").name
        for host, command in (
            ("cable", f"ip link add far type veth peer name eth1 netns {pi}"),
            ("cable", "ip link set far up"),
            ("pi", "ip link set eth0 down"),
            ("pi", "ip addr flush dev eth0"),
            ("pi", "ip link set eth1 up"),
            ("pi", "ip addr add 172.30.4.13/24 dev eth1"),
            # What passes a packet socket has to carry its checksums; a veth leaves them to hardware that is not there.
            ("pi", "ethtool -K eth1 tx off"),
            ("mgr", "ethtool -K eth0 tx off"),
        ):
            done = net.run(host, command.split())
            assert done.returncode == 0, f"{command}: {done.stderr}"
        with net.enter("cable"):
            self._ends = [self._open("eth0"), self._open("far")]
        self._paths = [FaultyPath(faults, 0), FaultyPath(faults, 1)]
        self._waker = Waker()
        self._stopping = False
        self.carried = 0
        self._thread = threading.Thread(target=self._run)

    @staticmethod
    def _open(interface: str) -> socket.socket:
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        end.setsockopt(263, 23, 1)  # SOL_PACKET, PACKET_IGNORE_OUTGOING
        end.bind((interface, 3))  # ETH_P_ALL
        end.setblocking(False)
        return end

    def __enter__(self) -> BadCable:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._waker.wake()
        self._thread.join()
        self._waker.close()
        for end in self._ends:
            end.close()

    def _run(self) -> None:
        while not self._stopping:
            due = [path.deadline for path in self._paths if path.deadline is not None]
            wait = max(0.0, min(due) - time.monotonic()) if due else None
            everything: list[socket.socket | Waker] = [*self._ends, self._waker]
            ready = select.select(everything, [], [], wait)[0]
            now = time.monotonic()
            for end, path in zip(self._ends, self._paths, strict=True):
                if end in ready:
                    path.put(end.recv(65536), now)
            for end, path in zip(self._ends[::-1], self._paths, strict=True):
                for frame in path.due(now):
                    self.carried += 1
                    with contextlib.suppress(OSError):  # no room: one more that is lost
                        end.send(frame)


# Without options: atftp gives up when the cable doubles an OACK, and curl asks for a repetition every 5 s only.
@pytest.mark.parametrize("client", ["atftp", "curl"])
def test_a_cable_that_loses_doubles_and_reorders(rack: Rack, client: str) -> None:
    (rack.boot / "some").write_bytes(random.Random(3).randbytes(25_000))
    argv = atftp(rack, "some") if client == "atftp" else curl(rack, "some", "--tftp-no-options")
    with BadCable(rack.net, Faults(loss=0.2, duplicate=0.2, reorder=0.25, delay=0.002, seed=11)) as cable:
        rack.check(argv, "some", timeout=100)
    assert cable.carried > 50
    assert rack.server.counters["resent"] > 5


def fetch_purely(rack: Rack, name: str, options: Options, seconds: float) -> PureClient:
    """Let the pure client of the transfer's tests talk through a real socket: the Debian ones give up early."""
    client = PureClient(options, calm=True)
    with rack.net.enter("pi"):
        channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    channel.setblocking(False)
    server = (MANAGER, 69)
    request = ReadRequest(name, "octet", options).encode()
    limit = time.monotonic() + seconds
    with channel:
        while not client.complete and time.monotonic() < limit:
            now = time.monotonic()
            answers: list[bytes] = []
            if client.deadline <= now:
                answers = [request] if server[1] == 69 else client.tick(now)
                client.deadline = now + 1.0
            elif select.select([channel], [], [], min(client.deadline, limit) - now)[0]:
                datagram, server = channel.recvfrom(70000)
                answers = client.receive(datagram, time.monotonic())
            for answer in answers:
                channel.sendto(answer, server)
    return client


@pytest.mark.parametrize("window", [1, 4, 16])
@pytest.mark.parametrize(
    "faults",
    [
        Faults(delay=0.1, seed=1),
        Faults(duplicate=0.3, reorder=0.3, delay=0.002, seed=2),
        Faults(loss=0.05, duplicate=0.1, reorder=0.1, delay=0.002, seed=3),
        Faults(loss=0.2, duplicate=0.2, reorder=0.2, delay=0.005, seed=4),
        Faults(loss=0.3, duplicate=0.2, reorder=0.2, delay=0.005, seed=5),
    ],
    ids=["delay", "mixed-up", "5%", "20%", "30%"],
)
def test_a_bad_cable_with_and_without_windows(rack: Rack, window: int, faults: Faults) -> None:
    content = random.Random(3).randbytes(10_000)
    (rack.boot / "some").write_bytes(content)
    options: Options = (("blksize", "512"), ("tsize", "0"))
    if window > 1:
        options += (("windowsize", str(window)),)
    with BadCable(rack.net, faults):
        client = fetch_purely(rack, "some", options, seconds=90)
    assert client.complete
    assert client.content == content


def test_a_hundred_at_once(rack: Rack) -> None:
    url, content = f"tftp://{MANAGER}/kernel8.img", (rack.boot / "kernel8.img").read_bytes()
    words = [word for number in range(100) for word in ("-o", str(rack.here / str(number)), url)]
    argv = ["curl", "-sS", "--parallel", "--parallel-immediate", "--parallel-max", "100", *words]
    done = rack.get([*argv, "--tftp-blksize", "1468"], timeout=60)
    assert done.returncode == 0, done.stderr
    assert all((rack.here / str(number)).read_bytes() == content for number in range(100))
    assert rack.server.counters["transfers"] == 100


def test_an_early_terminate_and_a_killed_client(rack: Rack) -> None:
    """A Pi's probe, from a plain socket as no Debian client makes one; and a killed client, whose port is closed."""
    (rack.boot / "large").write_bytes(bytes(40_000_000))
    with rack.net.enter("pi"):
        probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with probe:
        probe.settimeout(5)
        probe.sendto(ReadRequest("large", "octet", (("tsize", "0"),)).encode(), (SECOND, 69))
        answer, peer = probe.recvfrom(2000)
        assert (parse(answer), peer[0]) == (OptionAck((("tsize", "40000000"),)), SECOND)
        probe.sendto(Error(0, "Early terminate").encode(), peer)
        assert "file not found" in rack.get(tftp_hpa(rack, "nothing")).stdout  # the server has turned since
        probe.setblocking(False)
        with pytest.raises(BlockingIOError):
            probe.recv(1)
    assert rack.server.counters["aborted by the client"] == 1
    client = rack.net.popen("pi", curl(rack, "large", "--limit-rate", "1M"))
    deadline = time.monotonic() + 10
    while not rack.server._sessions and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    client.kill()
    client.wait()
    while rack.server._sessions and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert not rack.server._sessions
    assert not rack.server.counters["timed out"]


def test_a_stop_with_transfers_in_flight(rack: Rack) -> None:
    (rack.boot / "large").write_bytes(bytes(60_000_000))
    clients = [rack.net.popen("pi", curl(rack, "large", "--tftp-no-options")) for _ in range(5)]
    deadline = time.monotonic() + 10
    while len(rack.server._sessions) < 5 and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    begun = time.monotonic()
    rack.server.stop()
    rack.thread.join(5)
    assert time.monotonic() - begun < 1
    for client in clients:
        with contextlib.suppress(subprocess.TimeoutExpired):
            client.wait(5)
        assert client.returncode not in (0, None)
