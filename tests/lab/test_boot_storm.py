"""Five hundred boards, of all models, get power within ten seconds: each gets its address, its files, its fair share.

The server is piman.py in a process of its own. The boards are the boot ROMs of lab/bootrom.py, all in one loop in this
process, on one cable: a raw socket that speaks for five hundred MACs. They acknowledge at once, which no real board
does, and each hears the server alone: one another's broadcasts are not there.

The fair share. While n boards fetch files, each has a claim to every n-th packet that the server sends. So the sum of
1/n over all packets sent while a board fetches is what it should have been sent; what it was sent is counted. The one
over the other is 1 for a fair server, and grows where a board waits while others are served.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import random
import select
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lab import frames
from lab.bootrom import BootFailed, BootRom, Downloaded
from lab.namespaces import Interface, ip_batch, network_namespace, no_ipv6
from lab.profiles import PROFILES, Identity
from lab.rack import INTERFACE, MANAGER
from lab.stack import Waiting
from tests.lab.rig import PIMAN, REPEAT, ROOT, until

BOARDS = 500
POWER_ON = 10.0  # seconds in which all get power
FAIR = 1.5  # times a board's fair share of the server
NETWORK, MASK, FIRST = "172.30.4.0/22", "255.255.252.0", IPv4Address("172.30.4.11")
KERNEL, INITRAMFS = 600_000 * min(REPEAT, 3), 400_000 * min(REPEAT, 3)
SIZES = {
    "bootcode.bin": 52_480,
    "start.elf": 297_900,
    "fixup.dat": 7_266,
    "start4.elf": 225_400,
    "fixup4.dat": 5_400,
    "kernel8.img": KERNEL,
    "initramfs.gz": INITRAMFS,
    "rootfs.tgz": 1_000,
    **{profile.device_tree: 30_000 for profile in PROFILES.values()},
}
SPACE = "storm0"
LIMIT = 300.0 * min(REPEAT, 5)
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_QDISC_BYPASS, _PACKET_IGNORE_OUTGOING = 263, 6, 20, 23
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33


@dataclass
class Board:
    """One board, and when it did what."""

    identity: Identity
    model: str
    address: IPv4Address  # that it is to have
    power: float  # when it gets it
    waiting: Waiting[Downloaded] | None = None
    deadline: float = 0.0  # until when it waits
    entry: float = float("inf")  # its earliest one in the heap
    discovers: float = 0.0  # its first
    done: float = 0.0
    fetches: bool = False  # it has its address, and asks for files
    since: float = 0.0  # the storm's `fair` when it began to
    due: float = 0.0  # packets that it should have been sent
    packets: int = 0  # that it was sent
    failures: list[str] = field(default_factory=list)
    got: Downloaded | None = None

    @property
    def taken(self) -> float:
        return self.done - self.discovers

    @property
    def share(self) -> float:
        return self.due / self.packets


class Storm:
    """All boards in one loop.

    cpu     that the loop took, in seconds
    busy    seconds in which a board was fetching files, and of these `idle`, in which the loop waited for frames
    fair    packets of files that a board that fetched all the time should have been sent
    """

    def __init__(self, boards: list[Board]) -> None:
        self.boards = boards
        self.now = time.monotonic()
        self.cpu = self.busy = self.idle = self.fair = 0.0
        self.fetching = 0
        self.frames: Counter[str] = Counter()
        self.lost = 0
        self._by_mac = {board.identity.mac_bytes: board for board in boards}
        self._by_address = {board.address.packed: board for board in boards}
        self._timers: list[tuple[float, int, Board]] = []
        self._tie = itertools.count()
        self._running = len(boards)
        with network_namespace(SPACE):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 26)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 1 << 24)
        for option in (_PACKET_QDISC_BYPASS, _PACKET_IGNORE_OUTGOING):
            self._socket.setsockopt(_SOL_PACKET, option, 1)
        self._socket.setblocking(False)
        self._socket.bind(("eth0", 3))  # ETH_P_ALL

    def send(self, frame: bytes) -> None:
        """The boards' link."""
        self.frames["sent"] += 1
        try:
            self._socket.send(frame)
        except OSError:
            self.frames["not sent"] += 1  # lost, as on any cable

    def receive(self, timeout: float) -> bytes | None:
        raise AssertionError("a board of a storm waits by yielding")

    def run(self, limit: float) -> None:
        """Until each has booted or is dead; no longer than `limit` seconds."""
        began, cpu = time.monotonic(), time.process_time()
        for board in self.boards:
            board.power += began
            self._wait(board, board.power)
        while self._running and self.now < began + limit:
            self._turn()
        self.cpu = time.process_time() - cpu
        statistics_ = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        self.lost = struct.unpack("II", statistics_)[1]
        self._socket.close()

    def _turn(self) -> None:
        before = time.monotonic()
        wait = max(0.0, self._timers[0][0] - before) if self._timers else 1.0
        ready = select.select([self._socket], [], [], wait)[0]
        waited = time.monotonic()
        if self.fetching:
            self.idle += waited - before
            self.busy += waited - self.now
        self.now = waited
        if ready:
            for _ in range(64):
                try:
                    frame = self._socket.recv(2048)
                except BlockingIOError:
                    break
                self.frames["received"] += 1
                self._hear(frame)
        while self._timers and self._timers[0][0] <= self.now:
            when, _, board = heapq.heappop(self._timers)
            if when == board.entry:
                board.entry = float("inf")
                if board.deadline <= self.now:
                    self._step(board, None)
                else:
                    self._wait(board, board.deadline)

    def _hear(self, frame: bytes) -> None:
        board = self._by_mac.get(frame[:6])
        if board is None and (arp := frames.parse_arp(frame)) is not None:
            board = self._by_address.get(arp.target)  # heard by all, of use to one
        if board is None or board.waiting is None:
            return
        if board.fetches and frame[23] == 17:  # UDP
            self.fair += 1 / self.fetching
            board.packets += 1
        self._step(board, frame)

    def _step(self, board: Board, frame: bytes | None) -> None:
        try:
            if board.waiting is None:
                board.waiting = self._make_rom(board).boot()
                end = next(board.waiting)
            else:
                end = board.waiting.send(frame)
        except StopIteration as done:
            board.got, board.done = done.value, self.now
            self._end(board)
        except BootFailed as failure:
            board.failures.append(str(failure))
            self._fetch(board, False)
            board.waiting = None
            pause = PROFILES[board.model].restart
            if pause is None or failure.hung:
                self._end(board)
            else:
                self._wait(board, self.now + pause)
        else:
            self._wait(board, end)

    def _end(self, board: Board) -> None:
        self._fetch(board, False)
        board.waiting = None
        board.entry = float("-inf")  # none of those in the heap is its
        self._running -= 1

    def _fetch(self, board: Board, fetches: bool) -> None:
        """It begins or ends to ask for files."""
        if fetches and not board.fetches:
            board.since = self.fair
            self.fetching += 1
        elif board.fetches and not fetches:
            board.due += self.fair - board.since
            self.fetching -= 1
        board.fetches = fetches

    def _wait(self, board: Board, end: float) -> None:
        board.deadline = end
        if end < board.entry:
            board.entry = end
            heapq.heappush(self._timers, (end, next(self._tie), board))

    def _make_rom(self, board: Board) -> BootRom:
        def note(text: str) -> None:
            asks = text.endswith("asks for an address")
            if asks and not board.discovers:
                board.discovers = self.now
            self._fetch(board, not asks)

        rng = random.Random(board.identity.serial)
        return BootRom(PROFILES[board.model], board.identity, self, lambda: self.now, rng, note)


def make_boards(count: int) -> list[Board]:
    """All models in turn, powered on at any moment of POWER_ON."""
    chance = random.Random(4)
    models = list(PROFILES)
    boards = []
    for number in range(count):
        model = models[number % len(models)]
        profile = PROFILES[model]
        mac = f"{profile.oui}:00:{number >> 8:02x}:{number & 255:02x}"
        identity = Identity(mac, 0x5E000000 + number, profile.revision)
        boards.append(Board(identity, model, FIRST + number, chance.uniform(0, POWER_ON)))
    return boards


@contextlib.contextmanager
def cable() -> Iterator[None]:
    """The manager's interface here, and the boards' end in a network namespace."""
    ip_batch([f"netns add {SPACE}"])
    try:
        no_ipv6(SPACE)
        ip_batch(
            [
                f"link add {INTERFACE} type veth peer name eth0 netns {SPACE}",
                f"addr add {MANAGER}/22 dev {INTERFACE}",
                f"link set {INTERFACE} txqueuelen 10000 up",
            ]
        )
        ip_batch(["link set eth0 txqueuelen 10000 up"], SPACE)
        for space, name in (("", INTERFACE), (SPACE, "eth0")):
            with contextlib.closing(Interface(space, name)) as interface:
                interface.no_offloads()
        yield
    finally:
        ip_batch([f"netns del {SPACE}"])


def write_manager(folder: Path, boards: list[Board]) -> Path:
    """Its configuration, hosts.csv and boot files."""
    boot = folder / "boot"
    boot.mkdir()
    for name, size in SIZES.items():
        (boot / name).write_bytes(random.Random(name).randbytes(size))
    for name in ("config.txt", "cmdline.txt"):
        shutil.copyfile(ROOT / "install" / "boot" / name, boot / name)
    lines = [f"{board.identity.mac};{board.address};pi{number};0" for number, board in enumerate(boards)]
    (folder / "hosts.csv").write_text("\n".join(["# MAC;IP;hostname;last_seen", *lines]) + "\n", encoding="utf-8")
    config = folder / "config.yaml"
    config.write_text(
        f"private_number: 4\nserver_address: {MANAGER}\nsubnet_mask: {MASK}\ninterface: {INTERFACE}\n"
        "boot_dir: boot\nstate_dir: state\nlog_dir: logs\nswitches: []\n"
    )
    return config


@contextlib.contextmanager
def server(config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`piman server`, from the moment when it is ready."""
    output = config.with_suffix(".log")
    with output.open("wb") as log:
        process = subprocess.Popen([*PIMAN, "--config", str(config), "server"], stdout=log, stderr=subprocess.STDOUT)
    try:
        until(lambda: process.poll() is not None or b"ready: " in output.read_bytes(), 30, "the manager is ready")
        assert process.poll() is None, output.read_text()
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def cpu_of(process: subprocess.Popen[bytes]) -> float:
    """Seconds of processor time, of all its threads."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def tell(storm: Storm, wall: float, cpu: float) -> str:
    boards = [board for board in storm.boards if board.got]
    taken = [board.taken for board in boards]
    shares = [board.share for board in boards]
    waited = f"they waited for it in {storm.idle / storm.busy:.0%} of the {storm.busy:.1f} s in which any fetched"
    lines = [
        f"{len(boards)} of {len(storm.boards)} boards in {wall:.1f} s from the first power to the last file",
        f"a board: p50 {statistics.median(taken):.2f} s, p99 {quantile(taken, 0.99):.2f} s, longest {max(taken):.2f} s",
        f"fair share: p50 {statistics.median(shares):.2f}x, p99 {quantile(shares, 0.99):.2f}x, most {max(shares):.2f}x",
        f"server: {cpu:.1f} s of processor, {cpu / wall:.0%}; {storm.frames['received']} frames from it",
        f"boards: {storm.cpu:.1f} s of processor, {storm.cpu / wall:.0%}; {waited}",
        f"frames: {dict(storm.frames)}, lost before the boards: {storm.lost}",
    ]
    for model in PROFILES:
        of_model = [board.taken for board in boards if board.model == model]
        if of_model:
            middle = statistics.median(of_model)
            lines.append(f"{model:4} p50 {middle:.2f} s, longest {max(of_model):.2f} s")
    return "\n".join(lines)


@pytest.mark.timeout(LIMIT + 60)
def test_five_hundred_boards(tmp_path: Path) -> None:
    boards = make_boards(BOARDS)
    config = write_manager(tmp_path, boards)
    with cable(), server(config) as process:
        storm = Storm(boards)
        before, began = cpu_of(process), time.monotonic()
        storm.run(LIMIT)
        wall, cpu = time.monotonic() - began, cpu_of(process) - before
        told = tell(storm, wall, cpu)
        logging.getLogger("tests").info("%s", told)
    assert not storm.lost, told  # else it is the boards that are too slow
    kernel, initramfs = ((tmp_path / "boot" / name).read_bytes() for name in ("kernel8.img", "initramfs.gz"))
    for board in boards:
        got = board.got
        assert got is not None, f"{board.model} {board.address}: {board.failures}\n{told}"
        assert not board.failures, f"{board.model} {board.address}: {board.failures}\n{told}"
        assert got.lease.address == board.address
        assert (got.kernel, got.initramfs) == (kernel, initramfs)
        assert len(got.device_tree) == SIZES[PROFILES[board.model].device_tree]
        assert f"master={MANAGER}" in got.cmdline
        assert board.share <= FAIR, told
