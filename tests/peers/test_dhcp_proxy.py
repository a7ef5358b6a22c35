"""Our proxy beside dnsmasq as the DHCP server: boards boot from us at addresses that it gave them, and nobody else is
touched."""

from __future__ import annotations

import contextlib
import random
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from dhcp.proxy import ProxyPolicy
from dhcp.replies import DhcpSettings
from dhcp.server import DhcpServer
from lab.bootrom import BootRom, Downloaded
from lab.profiles import PROFILES, Identity
from tests.peers.netns import Network
from tftp.files import BootFiles
from tftp.server import TftpServer
from utility.hosts import Host
from utility.service import Report, Stage

SERVER, ROUTER = IPv4Address("172.30.4.1"), IPv4Address("172.30.4.254")
MAC = "b8:27:eb:00:00:01"
HOST = Host(MAC, IPv4Address("172.30.4.13"), "pi1")  # where hosts.csv would have it, were we the DHCP server
SETTINGS = DhcpSettings(SERVER, IPv4Network("172.30.4.0/24"))
RANGE = [IPv4Address(f"172.30.4.{n}") for n in range(50, 61)]
FILES = {
    "bootcode.bin": b"b" * 1500,
    "start.elf": b"s" * 3000,
    "fixup.dat": b"f" * 512,
    "start4.elf": b"4" * 3000,
    "fixup4.dat": b"x" * 10,
    "config.txt": b"arm_64bit=1\nkernel=kernel8.img\ninitramfs initramfs.gz followkernel\n",
    "cmdline.txt": b"console=tty1\n",
    "kernel8.img": b"k" * 50000,
    "initramfs.gz": b"i" * 4096,
    **{profile.device_tree: b"dtb" for profile in PROFILES.values()},
}


class Cable:
    """The Pi's end of the wire, for the simulated boards (lab.stack.Link)."""

    def __init__(self, net: Network) -> None:
        with net.enter("pi"):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(263, 23, 1)  # SOL_PACKET, PACKET_IGNORE_OUTGOING
        self._socket.bind(("eth0", 3))

    def send(self, frame: bytes) -> None:
        self._socket.send(frame)

    def receive(self, timeout: float) -> bytes | None:
        ready, _, _ = select.select([self._socket], [], [], timeout)
        return self._socket.recv(65535) if ready else None

    def close(self) -> None:
        self._socket.close()


class Classroom:
    """A router with dnsmasq, our proxy and TFTP server, a Pi, and a PC that is none of our business."""

    def __init__(self, net: Network, folder: Path) -> None:
        self.net, self.folder = net, folder
        self.reports: list[Report] = []
        self.policy = ProxyPolicy(SETTINGS, {MAC: HOST}.get)
        for host in ("mgr", "router"):  # a raw socket would see checksums that a card never filled in
            net.run(host, ["ethtool", "-K", "eth0", "tx", "off"])
        with net.enter("mgr"):
            self.dhcp = DhcpServer("eth0", self.policy, self.reports.append)
            files = BootFiles(folder / "boot", lambda _name, _host: None)
            self.tftp = TftpServer(SERVER, 69, files, self.policy.host_of_lease, self.reports.append)

    def run_tftp(self) -> None:
        with self.net.enter("mgr"):  # it opens a socket for each transfer
            self.tftp.run()

    def boot(self, model: str) -> Downloaded:
        profile = PROFILES[model]
        cable = Cable(self.net)
        board = Identity(MAC, 0x5E000001, profile.revision)
        with contextlib.closing(cable):
            return BootRom(profile, board, cable, time.monotonic, random.Random(1), scale=0.0).run()

    def events(self) -> list[str]:
        return [each.event for each in self.reports if each.event]


@pytest.fixture
def classroom(tmp_path: Path) -> Iterator[Classroom]:
    (tmp_path / "boot").mkdir()
    for name, data in FILES.items():
        (tmp_path / "boot" / name).write_bytes(data)
    with Network() as net:
        net.host("mgr", "172.30.4.1/24")
        net.host("router", "172.30.4.254/24")
        net.host("pi", None, mac=MAC)
        net.host("pc", None, mac="02:00:00:00:00:77")
        options = "--no-daemon --port=0 --conf-file=/dev/null --user=root --no-ping --log-dhcp --interface=eth0"
        leases = f"--dhcp-range=172.30.4.50,172.30.4.60,255.255.255.0,2m --dhcp-leasefile={tmp_path}/leases"
        net.popen("router", ["dnsmasq", *options.split(), *leases.split()])
        assert wait_for(lambda: ":0043 " in net.run("router", ["cat", "/proc/net/udp"]).stdout)
        it = Classroom(net, tmp_path)
        threads = [threading.Thread(target=run) for run in (it.dhcp.run, it.run_tftp)]
        for thread in threads:
            thread.start()
        yield it
        it.dhcp.stop()
        it.tftp.stop()
        for thread in threads:
            thread.join(2)
            assert not thread.is_alive()


def wait_for(true: Callable[[], bool], limit: float = 20) -> bool:
    end = time.monotonic() + limit
    while not true() and time.monotonic() < end:
        threading.Event().wait(0.02)
    return true()


@pytest.mark.parametrize("model", ["3b", "3b+", "4", "5", "cm4"])
def test_a_board_boots_from_us_at_the_address_of_the_other_server(classroom: Classroom, model: str) -> None:
    got = classroom.boot(model)
    assert got.kernel == FILES["kernel8.img"]
    assert got.initramfs == FILES["initramfs.gz"]
    assert got.complaints == ()
    assert got.lease.address in RANGE
    assert got.lease.server == ROUTER
    assert got.lease.tftp_server == SERVER
    assert classroom.policy.host_of_lease(got.lease.address) == Host(MAC, got.lease.address, "pi1")
    stages = [each.stage for each in classroom.reports if each.stage is not None]
    assert stages.index(Stage.DISCOVER) < stages.index(Stage.LEASE) < stages.index(Stage.FIRMWARE)
    assert Stage.KERNEL in stages  # the TFTP server knew whose requests these were
    assert {each.mac for each in classroom.reports} == {MAC}
    assert any(event.endswith(f"has {got.lease.address} from another DHCP server") for event in classroom.events())


def test_the_3b_is_a_neighbour_as_long_as_it_answers_no_arp(classroom: Classroom) -> None:
    monitor = classroom.net.popen("mgr", ["stdbuf", "-oL", "ip", "monitor", "neigh"])
    assert monitor.stdout is not None
    address = classroom.boot("3b").lease.address
    monitor.terminate()
    seen = monitor.stdout.read()
    assert re.search(rf"^{address} dev eth0 lladdr {MAC} PERMANENT", seen, re.MULTILINE), seen
    # bootcode.bin spoke since, and answers ARP.
    assert MAC not in classroom.net.run("mgr", ["ip", "neigh", "show", "nud", "permanent"]).stdout


def test_a_pc_gets_its_address_and_hears_nothing_from_us(classroom: Classroom) -> None:
    script = classroom.folder / "script"
    script.write_text('#!/bin/sh\necho "$1 ip=$ip server=$serverid boot=$siaddr"\n')
    script.chmod(0o755)
    udhcpc = ["busybox", "udhcpc", "-f", "-n", "-q", "-i", "eth0", "-s", str(script), "-t", "5", "-T", "1"]
    done = classroom.net.run("pc", [*udhcpc, "-V", "PXEClient:Arch:00000:UNDI:002001"], timeout=30)
    assert re.search(r"bound ip=172\.30\.4\.\d+ server=172\.30\.4\.254", done.stdout)
    assert classroom.dhcp.counters["sent"] == 0
    assert wait_for(lambda: classroom.dhcp.counters["unknown MAC"] >= 2)


def test_a_pi_that_is_up_is_known_at_its_address_and_not_answered(classroom: Classroom) -> None:
    script = classroom.folder / "script"
    script.write_text('#!/bin/sh\necho "$1 ip=$ip"\n')
    script.chmod(0o755)
    udhcpc = ["busybox", "udhcpc", "-f", "-n", "-q", "-i", "eth0", "-s", str(script), "-t", "5", "-T", "1"]
    done = classroom.net.run("pi", udhcpc, timeout=30)
    (address,) = re.findall(r"bound ip=(\S+)", done.stdout)
    assert wait_for(lambda: classroom.policy.host_of_lease(IPv4Address(address)) is not None)
    assert wait_for(lambda: [each.stage for each in classroom.reports if each.stage] == [Stage.UP])
    assert classroom.dhcp.counters["sent"] == 0
