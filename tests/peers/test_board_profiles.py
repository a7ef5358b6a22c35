"""Each board of lab/profiles.py at our DHCP and TFTP servers: it boots, and where one thing is wrong it fails.

The second half is what makes the first one worth something: it shows that the simulated board has the defect that the
server's rule is there for. All boards boot at the same time, each on a wire of its own; their waits are shortened.
"""

from __future__ import annotations

import contextlib
import random
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from dhcp.packet import Value
from dhcp.policy import DhcpPolicy
from dhcp.replies import Action, DhcpSettings, Reply
from dhcp.server import DhcpServer
from lab import frames
from lab.bootrom import BootFailed, BootRom, Downloaded
from lab.light import linux_lease
from lab.namespaces import Interface, no_ipv6
from lab.pi import Machine, PiState, VirtualPi
from lab.profiles import PI_3B, PI_4, PROFILES, PXE_MARK, Guid, Identity, Profile, eeprom_of, system_options
from lab.stack import Stack, drive
from lab.wire import Change, ChangingWire, Wire, unchanged
from tests.peers.netns import Network
from tftp.files import BootFiles
from tftp.server import TftpServer
from utility.hosts import Host
from utility.service import Report, Stage

SERVER, OTHER = IPv4Address("172.30.4.1"), IPv4Address("172.30.4.2")
SETTINGS = DhcpSettings(SERVER, IPv4Network("172.30.4.0/24"))
PACE = 0.4  # of the boards' waits; the mask ROM's 5 s become 2 s, and its OFFER comes after 1.2 s
FOLDER = "5e000001"
TOGETHER = 16
CONFIG = "[all]\narm_64bit=1\nkernel=piman.img\ninitramfs initramfs.gz followkernel\ndtoverlay=disable-wifi\n"


def noise(name: str, size: int) -> bytes:
    return random.Random(name).randbytes(size)


FILES: Mapping[str, bytes] = {
    **{name: noise(name, size) for name, size in (("bootcode.bin", 5_248), ("start.elf", 29_790), ("fixup.dat", 726))},
    **{name: noise(name, size) for name, size in (("start4.elf", 22_540), ("fixup4.dat", 540), ("piman.img", 60_001))},
    **{profile.device_tree: noise(profile.device_tree, 5_000) for profile in PROFILES.values()},
    "initramfs.gz": noise("initramfs.gz", 1468 * 20),  # ends with an empty block
    "overlays/overlay_map.dtb": noise("map", 512),
    "overlays/disable-wifi.dtbo": noise("wifi", 387),
    "config.txt": CONFIG.encode(),
    "cmdline.txt": b"console=tty1 master=172.30.4.1\n",
}
LONG = 65_536 * 512  # one block more than a board without roll-over can count


class ChangedPolicy(DhcpPolicy):
    """The real policy, whose replies are changed in one way."""

    change: Callable[[Reply], Reply]

    def receive(self, *words: Any, **more: Any) -> list[Action]:  # noqa: ANN401 - as the real one has it
        actions = super().receive(*words, **more)
        return [self.change(action) if isinstance(action, Reply) else action for action in actions]


class Manager:
    """Our two servers, in threads, in a network namespace of their own."""

    def __init__(self, net: Network, boot: Path, macs: list[str], change: Callable[[Reply], Reply]) -> None:
        net.host("mgr", f"{SERVER}/24")
        space = net.namespace("mgr").name
        no_ipv6(space)
        with contextlib.closing(Interface(space, "eth0")) as interface:
            interface.no_offloads()  # boards drop what has no checksum yet
        self.hosts = {
            mac: Host(mac, IPv4Address("172.30.4.11") + number, f"pi{number + 1}") for number, mac in enumerate(macs)
        }
        by_address = {host.address: host for host in self.hosts.values()}
        self.reports: list[Report] = []
        policy = ChangedPolicy(SETTINGS, self.hosts.get)
        policy.change = change
        with net.enter("mgr"):
            self.dhcp = DhcpServer("eth0", policy, self.reports.append)
            files = BootFiles(boot, lambda _name, _host: None)
            self.tftp = TftpServer(SERVER, 69, files, by_address.get, self.reports.append)

        def serve_files() -> None:
            with net.enter("mgr"):  # the transfers' sockets are made in this thread
                self.tftp.run()

        self._threads = [threading.Thread(target=self.dhcp.run), threading.Thread(target=serve_files)]

    def __enter__(self) -> Manager:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.dhcp.stop()
        self.tftp.stop()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def heard(self, word: str) -> int:
        return sum(report.heard.startswith(word) for report in self.reports)

    def facts(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for report in list(self.reports):
            found |= report.facts
        return found

    def is_up(self) -> bool:
        """Whether the system's lease is reported; that is done before the ACK goes out."""
        return any(report.stage is Stage.UP for report in self.reports)


@dataclass(frozen=True)
class Case:
    """One board at one server, both right but for what is said here.

    reply, out, into  what becomes of the server's DHCP replies, of the board's frames, and of the frames to it
    files             that are there instead of, or besides, those of FILES; None: not there
    fails             what the board says when it gives up; "": it boots. `hung`: only a power cycle helps
    from_disk         it boots the disk that it has; `disk` alone: it does not
    facts             what the manager is to learn of it
    """

    profile: Profile
    reply: Callable[[Reply], Reply] = lambda reply: reply
    out: Change = unchanged
    into: Change = unchanged
    files: Mapping[str, bytes | int | None] = field(default_factory=dict)
    fails: str = ""
    hung: bool = False
    disk: bool = False
    from_disk: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)

    def run(self, folder: Path) -> None:
        boot = folder / "boot"
        boot.mkdir(parents=True)
        write_files(boot, {**FILES, **self.files})
        with Network() as net:
            board = Identity(f"{self.profile.oui}:0a:0b:0c", int(FOLDER, 16), self.profile.revision)
            net.host("pi", None, mac=board.mac)
            with Manager(net, boot, [board.mac], self.reply) as manager:
                wire = make_wire(net, "pi")
                try:
                    self._boot(manager, board, wire)
                finally:
                    wire.close()

    def _boot(self, manager: Manager, board: Identity, wire: Wire) -> None:
        link = ChangingWire(wire, self.out, self.into)
        rom = BootRom(
            self.profile.scaled(PACE), board, link, time.monotonic, random.Random(7), scale=0.02, disk=self.disk
        )
        got = error = None
        for _ in range(3):
            resent = manager.tftp.counters["resent"]
            try:
                got, error = rom.run(), None
            except BootFailed as failure:
                got, error = None, failure
            # On a machine that held the board up for so long that the server repeated a block, it is not to blame.
            if manager.tftp.counters["resent"] == resent:
                break
        if error is not None:
            assert self.fails, f"{error}; {[report.event for report in manager.reports if report.event]}"
            assert self.fails in str(error)
            assert error.hung == self.hung
            assert not manager.is_up()
            return
        assert got is not None
        assert not self.fails, f"it booted, and should not: {got.requests}"
        assert got.from_disk == self.from_disk
        if not got.from_disk:
            self._check(manager, got, manager.tftp.counters["resent"] == resent and self.into is unchanged)
        # The third DHCP of a boot is the kernel's, and nothing of PXE is in it: the same address, and now it is up.
        assert not manager.is_up()
        stack = Stack(wire, board.mac_bytes, time.monotonic)
        lease = drive(linux_lease(stack, system_options(board, "pi1")), wire, time.monotonic)
        assert lease.address == manager.hosts[board.mac].address
        assert manager.is_up()

    def _check(self, manager: Manager, got: Downloaded, quiet: bool) -> None:
        """All files, the right bytes, nothing that a board may choke on, and all from whom it is told."""
        files = {**FILES, **{name: data for name, data in self.files.items() if isinstance(data, bytes)}}
        size = self.files.get("piman.img")
        assert got.kernel == (bytes(size) if isinstance(size, int) else files["piman.img"])
        assert got.initramfs == files["initramfs.gz"]
        assert got.device_tree == files[self.profile.device_tree]
        assert got.cmdline == files["cmdline.txt"].decode().strip()
        assert any(name.endswith("disable-wifi.dtbo") for name in got.requests)
        assert not quiet or got.complaints == ()
        assert got.lease.tftp_server == SERVER
        assert manager.heard("DHCPDISCOVER") >= sum(stage.dhcp is not None for stage in self.profile.stages)
        requests = any(stage.dhcp and stage.quirks.requests for stage in self.profile.stages)
        assert bool(manager.heard("DHCPREQUEST")) == requests
        assert {**manager.facts(), **self.facts} == manager.facts()


def write_files(boot: Path, files: Mapping[str, bytes | int | None]) -> None:
    """By name; a number: so many zeros; None: not there; a name that ends with a slash: an empty folder."""
    for name, data in files.items():
        path = boot / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if isinstance(data, int):
            with path.open("wb") as file:
                file.truncate(data)
        elif data is not None and not name.endswith("/"):
            path.write_bytes(data)


def make_wire(net: Network, host: str) -> Wire:
    space = net.namespace(host).name
    no_ipv6(space)
    return Wire(space, "eth0")


# --- servers that are wrong in one way: their DHCP replies ---


def at_once(reply: Reply) -> Reply:
    return replace(reply, not_before=0.0)


def unpinned(reply: Reply) -> Reply:
    return replace(reply, neighbour=False)


def to_all(reply: Reply) -> Reply:
    return replace(reply, address=IPv4Address("255.255.255.255"), mac="ff:ff:ff:ff:ff:ff")


def with_options(change: Callable[[dict[int, Value]], object]) -> Callable[[Reply], Reply]:
    def changed(reply: Reply) -> Reply:
        options = dict(reply.packet.options)
        change(options)
        return replace(reply, packet=replace(reply.packet, options=options))

    return changed


def unpad(options: dict[int, Value]) -> None:
    if 43 in options:
        options[43] = b"\x06\x01\x03\x0a\x04\x00PXE\x09\x14\x00\x00\x11" + PXE_MARK + b"\xff"


def forget_43_and_66(options: dict[int, Value]) -> None:
    for code in (43, 66):
        options.pop(code, None)


def only_unpadded_43(options: dict[int, Value]) -> None:
    unpad(options)
    only_43(options)


def only_66(options: dict[int, Value]) -> None:
    options.pop(43, None)


def only_43(options: dict[int, Value]) -> None:
    options.pop(66, None)


# --- servers that are wrong in one way: their TFTP packets, and cables that double them ---


def of_tftp(opcode: int, change: Callable[[bytes, frames.Datagram], list[bytes]]) -> Change:
    """A change to the TFTP packets of this kind."""

    def changed(frame: bytes) -> list[bytes]:
        datagram = frames.parse_udp(frame)
        if datagram is None or 67 in (datagram.source_port, datagram.destination_port):
            return [frame]
        return change(frame, datagram) if datagram.payload[:2] == struct.pack("!H", opcode) else [frame]

    return changed


def again(opcode: int) -> Change:
    return of_tftp(opcode, lambda frame, _datagram: [frame, frame])


def without(opcode: int) -> Change:
    return of_tftp(opcode, lambda _frame, _datagram: [])


def from_another_address(frame: bytes) -> list[bytes]:
    datagram = frames.parse_udp(frame)
    if datagram is None or datagram.source_port == 67:
        return [frame]
    source, target = (OTHER.packed, datagram.source_port), (datagram.destination, datagram.destination_port)
    return [frames.encode_udp(datagram.source_mac, frame[:6], source, target, datagram.payload)]


def _no_blksize(frame: bytes, datagram: frames.Datagram) -> list[bytes]:
    """What the server does not see it does not agree to."""
    name, mode, *words = datagram.payload[2:-1].split(b"\0")
    options = [word for pair in zip(words[::2], words[1::2], strict=True) if pair[0] != b"blksize" for word in pair]
    payload = b"\0\1" + b"".join(word + b"\0" for word in (name, mode, *options))
    source, target = (datagram.source, datagram.source_port), (datagram.destination, datagram.destination_port)
    return [frames.encode_udp(frame[6:12], frame[:6], source, target, payload)]


RRQ, DATA, ACK, ERROR, OACK = 1, 3, 4, 5, 6
no_blksize = of_tftp(RRQ, _no_blksize)

# --- the table ---

OWN_FOLDER: Mapping[str, bytes | None] = {
    **dict.fromkeys(FILES),
    **{f"{FOLDER}/{name}": data for name, data in FILES.items()},
    "bootcode.bin": FILES["bootcode.bin"],  # the ROM knows no folder
}
EMPTY_FOLDER = {f"{FOLDER}/": b""}
NOTHING: Mapping[str, None] = dict.fromkeys(FILES)
DATES = {
    "4": ("2019-09-10", "2019-12-01", "2020-02-01", "2020-04-01", "2022-10-03", "2025-09-23"),
    "cm4": ("2020-10-01", "2025-09-23"),
    "5": ("2023-11-01", "2025-09-23"),
    "cm5": ("2024-11-01", "2025-09-23"),
}
SERIAL = {"serial": FOLDER}
DELICATE_4 = PI_4.quirk(repeated_data=False, second_oack=False)


def long_counter(rollover: bool) -> Profile:
    """A Pi 4 that asks for no block size, so that its blocks run out before our patience."""
    return PI_4.tftp(options=(("tsize", "0"),)).quirk(rollover=rollover, needs_blksize=False)


def swapped(model: str) -> Profile:
    dhcp = PROFILES[model].stages[0].dhcp
    assert dhcp is not None
    return PROFILES[model].dhcp(fourcc=dhcp.fourcc[::-1])


GOOD = {
    **{f"{name}": Case(profile, facts=SERIAL) for name, profile in PROFILES.items()},
    **{f"{name} with a folder": Case(profile, files=OWN_FOLDER) for name, profile in PROFILES.items()},
    **{f"{name} with an empty folder": Case(profile, files=EMPTY_FOLDER) for name, profile in PROFILES.items()},
    **{
        f"{name} of {day}": Case(eeprom_of(PROFILES[name], date.fromisoformat(day)), facts=SERIAL)
        for name, days in DATES.items()
        for day in days
    },
    **{f"{name}, fourcc swapped": Case(swapped(name), facts=SERIAL) for name in ("4", "5", "cm4", "cm5")},
    **{f"{name}, DHCP_OPTION97=0": Case(PROFILES[name].dhcp(guid=Guid.SERIAL), facts=SERIAL) for name in ("4", "5")},
    "3b+ at a server that does not wait": Case(PROFILES["3b+"], at_once),
    "4 at a server that does not wait": Case(PI_4, at_once),
    "3b, option 43 alone": Case(PI_3B, with_options(only_43)),
    "3b, option 66 alone": Case(PI_3B, with_options(only_66)),
    "4, option 43 alone": Case(PI_4, with_options(only_43)),
    "4, option 43 unpadded and alone": Case(PI_4, with_options(only_unpadded_43)),
    "4, option 66 alone": Case(PI_4, with_options(only_66)),
    "4, which hangs at a repeated block": Case(DELICATE_4),
    "4, which hangs at a repeated block, its ACKs doubled": Case(DELICATE_4, out=again(ACK)),
    "3b, which hangs at a second OACK, its RRQs doubled": Case(PI_3B, out=again(RRQ)),
    "4, each DATA doubled": Case(PI_4.quirk(repeated_data=True), into=again(DATA), files={"piman.img": b"short"}),
    "4, a config.txt of 4096 bytes": Case(PI_4, files={"config.txt": CONFIG.encode().ljust(4096, b"#")}),
    "3b, a config.txt of 5000 bytes": Case(PI_3B, files={"config.txt": CONFIG.encode().ljust(5000, b"#")}),
    "4, more blocks than 65535": Case(long_counter(True), files={"piman.img": LONG}),
    # A disk of its own that it can boot, or not.
    "3b with a disk": Case(PI_3B, disk=True, from_disk=True),
    "4 with a disk, network first": Case(PI_4, disk=True),
    "4 with a disk, disk first": Case(replace(PI_4, disk_first=True), disk=True, from_disk=True),
    "4 with a disk, no boot server": Case(PI_4, with_options(forget_43_and_66), disk=True, from_disk=True),
    "5 with a disk, no files": Case(PROFILES["5"], files=NOTHING, disk=True, from_disk=True),
}
BAD = {
    "3b, an OFFER at once": Case(PI_3B, at_once, fails="no usable OFFER"),
    "3b, option 43 unpadded": Case(PI_3B, with_options(unpad), fails="no usable OFFER"),
    "3b, neither 43 nor 66": Case(PI_3B, with_options(forget_43_and_66), fails="no usable OFFER"),
    "4, neither 43 nor 66": Case(PI_4, with_options(forget_43_and_66), fails="no usable OFFER"),
    "5, neither 43 nor 66": Case(PROFILES["5"], with_options(forget_43_and_66), fails="no usable OFFER"),
    "3b, no neighbour entry": Case(PI_3B, unpinned, fails="no answer for bootcode.bin"),
    "3b, two OACKs": Case(PI_3B, into=again(OACK), fails="hangs at a second OACK", hung=True),
    "3b+, two OACKs": Case(PROFILES["3b+"], into=again(OACK), fails="hangs at a second OACK", hung=True),
    "4, each DATA doubled": Case(DELICATE_4, into=again(DATA), fails="hangs at block", hung=True),
    "4, blksize ignored": Case(PI_4, out=no_blksize, fails="no kernel: none of kernel8.img"),
    "5, blksize ignored": Case(PROFILES["5"], out=no_blksize, fails="no kernel: none of kernel_2712.img"),
    **{
        f"{name}, files from another address": Case(PROFILES[name], into=from_another_address, fails="no answer for")
        for name in ("3b", "4", "5")
    },
    "4, a config.txt of 4097 bytes": Case(
        PI_4, files={"config.txt": CONFIG.encode().ljust(4097, b"#")}, fails="no kernel: none of kernel8.img"
    ),
    "4 of an old date, more blocks than 65535": Case(
        long_counter(False), files={"piman.img": LONG}, fails="more than 65535 blocks"
    ),
    **{
        f"{name} with an empty folder, no 404s": Case(
            PROFILES[name], into=without(ERROR), files=EMPTY_FOLDER, fails=f"no answer for {FOLDER}/{first}"
        )
        for name, first in (("4", "start4.elf"), ("5", "config.txt"))
    },
    "4 without files": Case(PI_4, files=NOTHING, fails="start4.elf is missing"),
    "4 without a disk, no boot server": Case(PI_4, with_options(forget_43_and_66), fails="no usable OFFER"),
}


def three_at_once(folder: Path, change: Callable[[Reply], Reply]) -> list[tuple[IPv4Address, IPv4Address]]:
    """Three 3Bs with their one xid get power at one moment: the address that each is to have, and the one it took."""
    boot = folder / "boot"
    boot.mkdir(parents=True)
    write_files(boot, FILES)
    boards = [Identity(f"b8:27:eb:0a:0b:{number:02x}", 0x5E000000 + number, PI_3B.revision) for number in range(3)]
    with Network() as net:
        for board in boards:
            net.host(f"pi{board.serial & 3}", None, mac=board.mac)
        with Manager(net, boot, [board.mac for board in boards], change) as manager, contextlib.ExitStack() as stack:
            wires = [make_wire(net, f"pi{board.serial & 3}") for board in boards]
            for wire in wires:
                stack.callback(wire.close)
            ready = threading.Barrier(len(boards))

            def boot_one(board: Identity, wire: Wire) -> IPv4Address:
                rom = BootRom(PI_3B.scaled(PACE), board, wire, time.monotonic, random.Random(board.serial), scale=0)
                ready.wait(30)
                try:
                    return rom.run().lease.address
                except BootFailed:  # two boards with one address get in each other's way
                    return IPv4Address(0)

            with ThreadPoolExecutor(len(boards)) as pool:
                found = list(pool.map(boot_one, boards, wires))
            return [(manager.hosts[board.mac].address, address) for board, address in zip(boards, found, strict=True)]


def own_addresses(folder: Path) -> None:
    found = three_at_once(folder, lambda reply: reply)
    assert all(own == taken for own, taken in found), found


def stolen_addresses(folder: Path) -> None:
    found = three_at_once(folder, to_all)
    assert any(own != taken for own, taken in found), found


def virtual_pi(folder: Path, net: Network, profile: Profile, kind: type[VirtualPi] = VirtualPi) -> VirtualPi:
    space = net.namespace("pi").name
    mac = f"{profile.oui}:0a:0b:0c"
    return kind(1, "pi1", mac, int(FOLDER, 16), profile.scaled(PACE), "light", folder / "pi", space, scale=0.02)


def a_pi_with_a_disk_comes_up(folder: Path) -> None:
    """Nobody tells it where to boot from, so it boots what is on its disk, and asks for an address as a system does."""
    with Network() as net:
        net.host("pi", None, mac=f"{PI_4.oui}:0a:0b:0c")
        pi = virtual_pi(folder, net, PI_4.dhcp(waits=(1.0,)))
        pi.disk = True
        with Manager(net, folder, [pi.mac], with_options(forget_43_and_66)) as manager:
            pi.power_on()
            try:
                assert wait_for(lambda: "up at 172.30.4.11" in pi.text), pi.history
                assert manager.is_up()
            finally:
                pi.power_off()


class Reset:
    """A kernel that does nothing but reset the board."""

    def run(self, downloaded: Downloaded, wire: Wire) -> None:
        """That was it."""

    def cut(self) -> None:
        """It does not run."""

    def close(self) -> None:
        """It holds nothing."""


class ResetsAtOnce(VirtualPi):
    def make_machine(self) -> Machine:
        return Reset()


def a_pi_that_only_starts_cold(folder: Path) -> None:
    boot = folder / "boot"
    boot.mkdir(parents=True)
    write_files(boot, FILES)
    with Network() as net:
        net.host("pi", None, mac=f"{PI_4.oui}:0a:0b:0c")
        pi = virtual_pi(folder, net, replace(PI_4, warm_boot=False), ResetsAtOnce)
        with Manager(net, boot, [pi.mac], lambda reply: reply):
            for boots in (1, 2):
                pi.power_on()
                assert wait_for(lambda: pi.state is PiState.DEAD), pi.history
                assert (pi.text, len(pi.boots)) == ("hangs after a reset", boots)
                pi.power_off()


def wait_for(reached: Callable[[], bool], limit: float = 60) -> bool:
    end = time.monotonic() + limit
    while not reached() and time.monotonic() < end:
        threading.Event().wait(0.05)
    return reached()


JOBS: Mapping[str, Callable[[Path], None]] = {
    **{f"{name}: boots": case.run for name, case in GOOD.items()},
    **{f"{name}: fails": case.run for name, case in BAD.items()},
    "4 with a disk, no boot server: comes up": a_pi_with_a_disk_comes_up,
    "4 that only starts cold: a power cycle helps": a_pi_that_only_starts_cold,
    "three 3b at once: each its own address": own_addresses,
    "three 3b at once, OFFERs to all: stolen": stolen_addresses,
}


@pytest.fixture(scope="module")
def jobs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[None]]]:
    """Those that are asked for run side by side: most of a boot is waiting."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    wanted = [str(item.callspec.params["job"]) for item in items if item.path == request.path]
    folder = tmp_path_factory.mktemp("boards")
    with ThreadPoolExecutor(TOGETHER) as pool:
        wanted.sort(key=lambda name: name.endswith("boots"))  # what fails takes longest
        yield {name: pool.submit(JOBS[name], folder / str(number)) for number, name in enumerate(wanted)}


@pytest.mark.parametrize("job", JOBS)
def test_board(jobs: dict[str, Future[None]], job: str) -> None:
    jobs[job].result()
