"""Our DHCP and TFTP servers behind a network that loses, doubles, reorders and delays: Linux's netem, in a guest.

netem draws its own dice, so no two runs are the same: what is asserted is that everything ends, and right, in time.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lab.bootrom import BootFailed, BootRom, Downloaded
from lab.namespaces import Interface
from lab.profiles import PROFILES, Identity, Profile
from lab.wire import Wire
from tests.peers.loaders import MAC, UBoot, u_boot
from tests.peers.manager import ADDRESS, Manager
from tests.peers.netem import NetemBridge
from tests.peers.netns import Network
from utility.hosts import Host

SOAK = bool(os.environ.get("PIMAN_SOAK"))
MODELS = ("3b", "3b+", "4", "5")
SIZES = {
    "bootcode.bin": 1100,
    "start.elf": 1600,
    "fixup.dat": 700,
    "start4.elf": 1600,
    "fixup4.dat": 700,
    "bcm2710-rpi-3-b.dtb": 600,
    "bcm2710-rpi-3-b-plus.dtb": 600,
    "bcm2711-rpi-4-b.dtb": 600,
    "bcm2712-rpi-5-b.dtb": 600,
    "kernel8.img": 3000,
    "initramfs.gz": 2048,
    "some": 7_777,
    "few": 5000,
    "more": 30_000,
}
CONFIG = b"arm_64bit=1\ninitramfs initramfs.gz followkernel\n"
CMDLINE = b"console=serial0,115200 root=/dev/ram0\n"
LIMIT = 200.0


def mac(number: int) -> str:
    return f"b8:27:eb:00:00:{number:02x}"


def address(number: int) -> IPv4Address:
    return IPv4Address(f"172.30.4.{10 + number}")


@dataclass
class Rack:
    """The manager on the near side of the bad network; hosts pi0 to pi9 on the far side."""

    far: Network
    bridge: NetemBridge
    boot: Path
    manager: Manager


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rack]:
    boot = tmp_path_factory.mktemp("boot")
    for name, size in SIZES.items():
        (boot / name).write_bytes(random.Random(name).randbytes(size))
    (boot / "config.txt").write_bytes(CONFIG)
    (boot / "cmdline.txt").write_bytes(CMDLINE)
    hosts = {MAC: Host(MAC, address(20), "u-boot")}
    hosts |= {mac(number): Host(mac(number), address(number), f"pi{number}") for number in range(10)}
    with contextlib.ExitStack() as stack:
        near, far = stack.enter_context(Network()), stack.enter_context(Network())
        manager = Manager(near, boot, hosts)
        for number in range(10):
            # What a board or udhcpc sends is made by itself; the TFTP clients want an address that is there.
            far.host(f"pi{number}", f"{address(number)}/24" if number > 4 else None, mac=mac(number))
            with contextlib.closing(Interface(far.namespace(f"pi{number}").name, "eth0")) as end:
                end.no_offloads()
        for net, name in ((near, "mgr"), *((far, f"pi{number}") for number in range(10))):
            # ARP is lost like all else, and Linux tries it three times only.
            words = "echo 40 >/proc/sys/net/ipv4/neigh/eth0/mcast_solicit"
            assert net.run(name, ["sh", "-c", words]).returncode == 0
        bridge = stack.enter_context(NetemBridge(near, far))
        stack.enter_context(manager)
        yield Rack(far, bridge, boot, manager)


# --- the clients ---


def run(rack: Rack, host: str, argv: list[str]) -> subprocess.CompletedProcess[str]:
    return rack.far.run(host, argv, timeout=LIMIT)


def udhcpc(rack: Rack, number: int) -> None:
    """An operating system, as far as DHCP is concerned."""
    words = ["-f", "-q", "-i", "eth0", "-s", "/bin/true", "-t", "10", "-T", "1", "-A", "1"]
    done = run(rack, f"pi{number}", ["busybox", "udhcpc", *words])
    assert done.returncode == 0, done.stderr
    assert f"lease of {address(number)} obtained from {ADDRESS}" in done.stderr


def hurried(profile: Profile) -> Profile:
    """The same board with shorter waits, so that it meets as many faults in a fraction of the time."""
    stages = []
    for stage in profile.stages:
        # A ROM that is deaf for a second is answered later.
        dhcp = stage.dhcp and replace(stage.dhcp, waits=(2.5 if stage.quirks.deaf else 1.0,) * 20)
        stages.append(replace(stage, dhcp=dhcp, tftp=replace(stage.tftp, retry=0.2)))
    return replace(profile, stages=tuple(stages))


def boot_rom(rack: Rack, number: int, model: str) -> None:
    """A board from power to kernel. It may give up, as real ones do; then its power is cycled."""
    # Some boards hang at a packet that comes twice. Here the network doubles them, which no server can help.
    profile = PROFILES[model].quirk(second_oack=True, repeated_data=True)
    profile = profile if SOAK else hurried(profile)
    board = Identity(mac(number), number, profile.revision)
    wire = Wire(rack.far.namespace(f"pi{number}").name, "eth0")
    downloaded: Downloaded | None = None
    told: list[str] = []
    with contextlib.closing(wire):
        end = time.monotonic() + LIMIT
        while downloaded is None and time.monotonic() < end:
            rom = BootRom(profile, board, wire, time.monotonic, random.Random(number), told.append, scale=0.0)
            try:
                downloaded = rom.run()
            except BootFailed as error:
                told.append(str(error))
    assert downloaded is not None, told
    assert downloaded.lease.address == address(number)
    assert downloaded.kernel == (rack.boot / "kernel8.img").read_bytes()
    assert downloaded.initramfs == (rack.boot / "initramfs.gz").read_bytes()
    assert downloaded.device_tree == (rack.boot / profile.device_tree).read_bytes()
    assert downloaded.cmdline.encode() == CMDLINE.strip()


class WindowClient:
    """A TFTP client with windows (RFC 7440), which acknowledges each gap at once, as the RFC advises."""

    WAIT = 0.6

    def __init__(self, channel: socket.socket, block: int, window: int) -> None:
        self._channel, self._block, self._window = channel, block, window
        self.agreed = 1
        self._blocks: list[bytes] = []
        self._ended = False
        self._gap_told = False

    def fetch(self, name: str) -> bytes:
        options = {"blksize": self._block} | ({"windowsize": self._window} if self._window > 1 else {})
        words = [name, "octet", *(str(word) for pair in options.items() for word in pair)]
        answer = b"\0\1" + b"".join(word.encode() + b"\0" for word in words)
        peer = (str(ADDRESS), 69)
        end = time.monotonic() + LIMIT
        self._channel.settimeout(self.WAIT)
        while not self._ended:
            assert time.monotonic() < end, f"{name}: {len(self._blocks)} blocks"
            try:
                packet, sender = self._channel.recvfrom(65536)
            except OSError:  # a timeout, or an ICMP error for something sent earlier
                self._channel.sendto(answer, peer)
                continue
            if peer[1] != 69 and sender != peer:
                continue  # the answer to a repeated request
            peer = sender
            opcode, number = struct.unpack("!HH", packet[:4])
            assert opcode in (3, 6), packet
            if opcode == 6:
                answer = b"\0\4\0\0" if not self._blocks else answer
                self.agreed = self._agree(packet)
                self._channel.sendto(answer, peer)
            elif self._take(number, packet[4:], self.agreed):
                answer = struct.pack("!HH", 4, len(self._blocks) & 0xFFFF)
                self._channel.sendto(answer, peer)
        self._dally(answer, peer)
        return b"".join(self._blocks)

    def _agree(self, packet: bytes) -> int:
        words = packet[2:].decode().rstrip("\0").split("\0")
        taken = dict(zip(words[::2], words[1::2], strict=True))
        self._block = int(taken.get("blksize", 512))
        return int(taken.get("windowsize", 1))

    def _take(self, number: int, data: bytes, window: int) -> bool:
        """Whether it is time to acknowledge: at a window's end, at the end, once at a gap, at what we have already."""
        have = len(self._blocks)
        if number != (have + 1) & 0xFFFF:
            told, self._gap_told = self._gap_told, True
            return not told
        self._blocks.append(data)
        self._gap_told = False
        self._ended = len(data) < self._block
        return self._ended or len(self._blocks) % window == 0

    def _dally(self, answer: bytes, peer: tuple[str, int]) -> None:
        """The last ACK may be lost: answer once more what is repeated (RFC 1350 section 6)."""
        with contextlib.suppress(TimeoutError, ConnectionRefusedError):
            while True:
                self._channel.recv(65536)
                self._channel.sendto(answer, peer)


def window_client(rack: Rack, number: int, block: int, window: int) -> None:
    with rack.far.enter(f"pi{number}"):
        channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with channel:
        client = WindowClient(channel, block, window)
        assert client.fetch("some") == (rack.boot / "some").read_bytes()
        assert client.agreed == window


# Their own time-outs are 5 s. Without options: atftp gives up when the network doubles an OACK, and curl asks for a
# repetition every 5 s only.
TFTP_CLIENTS = {
    "atftp": f"atftp -g -r few -l OUT {ADDRESS} 69",
    "curl": f"curl -sS --tftp-no-options -o OUT tftp://{ADDRESS}/few",
    "tftp-hpa": f"tftp -m binary {ADDRESS} -c get few OUT",
}


def tftp_client(rack: Rack, number: int, client: str, out: Path) -> None:
    done = run(rack, f"pi{number}", [word.replace("OUT", str(out)) for word in TFTP_CLIENTS[client].split()])
    assert done.returncode == 0, f"{client}: {done.stdout}{done.stderr}"
    assert out.read_bytes() == (rack.boot / "few").read_bytes(), f"{client}: {done.stdout}{done.stderr}"


def at_once(jobs: Mapping[str, Callable[[], None]]) -> None:
    """Run them side by side. The first failure is raised, after all have ended."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        running = [pool.submit(job) for job in jobs.values()]
    for each in running:
        each.result()


# What netem is told, and which boards boot through it. Each request of a board that is lost costs its time-out, and a
# Pi 3 makes many, so where much is lost or late --soak alone boots all of them, with the waits of the real ones.
NETWORKS = {
    "good": ("", ("5",)),
    "loss 5": ("loss 5%", MODELS),
    "loss 20": ("loss 20%", ("4",)),
    "loss 30": ("loss 30%", ("5",)),
    "reorder": ("delay 10ms reorder 50% 25%", MODELS),
    "duplicate": ("duplicate 40%", ("3b", "5")),
    "delay": ("delay 100ms", ("4",)),
    "storm": ("loss 20% duplicate 10% reorder 25% delay 2ms", ("5",)),
}


@pytest.mark.timeout(LIMIT + 60)
@pytest.mark.parametrize("name", NETWORKS)
def test_boots_leases_and_transfers(rack: Rack, name: str, tmp_path: Path) -> None:
    words, models = NETWORKS[name]
    rack.bridge.set(words)
    jobs: dict[str, Callable[[], None]] = {"udhcpc": partial(udhcpc, rack, 4)}
    for number, model in enumerate(MODELS):
        if SOAK or model in models:
            jobs[f"boot ROM of a {model}"] = partial(boot_rom, rack, number, model)
    for number, (block, window) in enumerate([(512, 1), (512, 8)], 5):
        jobs[f"window {window}"] = partial(window_client, rack, number, block, window)
    if name == "storm":
        for number, client in enumerate(TFTP_CLIENTS, 7):
            jobs[client] = partial(tftp_client, rack, number, client, tmp_path / client)
    at_once(jobs)
    for sent, dropped in rack.bridge.counts():
        assert sent > 50
        assert bool(dropped) == ("loss" in words)


@pytest.mark.timeout(LIMIT + 60)
def test_uboot_and_its_windows(rack: Rack) -> None:
    """A real client of windows. It tells each gap once, at once; otherwise it waits for the time-out it asked for.

    A block that comes twice is a gap to it: with windows, a network that doubles makes the server send many times over.
    """
    rack.bridge.set("")
    with u_boot(rack.far.namespace("pi9"), "e1000") as machine:
        uboot = UBoot(machine)
        assert f"bound to address {address(20)}" in uboot.run("dhcp", 60)
        uboot.run("setenv tftptimeout 1000")  # milliseconds; none is shorter
        uboot.run("setenv tftptimeoutcountmax 100")
        for words, window in (("loss 5%", 8), ("duplicate 30%", 8), ("delay 100ms", 8)):
            rack.bridge.set(words)
            uboot.fetch(rack.boot / "more", 1468, window)
