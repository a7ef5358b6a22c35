"""The virtual rack: network, PoE switch, Pis, and the configuration a manager needs to run it.

Runs no manager: that is piman's server, started in the same network namespace by whoever wants it. Has to run in a
private world (lab.namespaces.enter, or tests/run.sh), since it makes network namespaces by fixed names.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import io
import os
import random
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import TextIO

from lab.families import Neighbour, Quirks
from lab.light import Pace
from lab.machine import CARD_BYTES
from lab.namespaces import Interface, LabError, ip_batch, no_ipv6, require_private_network, write_lab_file
from lab.pi import KINDS, PiState, VirtualPi
from lab.profiles import PROFILES, Profile
from lab.replay import Record
from lab.rootfs import RootfsError, build_rootfs
from lab.switch import LabSwitch, User, find_family
from lab.wire import Faults

MANAGER, SWITCH, NETMASK = IPv4Address("172.30.4.1"), IPv4Address("172.30.4.254"), IPv4Address("255.255.255.0")
FIRST_PI = IPv4Address("172.30.4.11")
INTERFACE, SWITCH_NAMESPACE, BRIDGE, UPLINK = "ens4", "switch0", "br0", "uplink"
MAX_PIS = 48
MAX_SWITCHES = 16
AGENT_ROOTFS = "agent/rootfs.tgz"  # in the cache
_INSTALL = Path(__file__).resolve().parent.parent / "install"
_TEMPLATES = ("config.txt", "cmdline.txt")
# Of config.yaml; a folder where it begins otherwise is somebody else's.
_FIRST_LINE = "# Written by piman lab; this rack is virtual."
# A virtual Pi runs no firmware, so these are stand-ins: random bytes, as many as the real files have.
_FIRMWARE = {
    "bootcode.bin": 52_480,
    "start.elf": 2_979_000,
    "fixup.dat": 7_266,
    "start4.elf": 2_254_000,
    "fixup4.dat": 5_400,
}
_LIGHT_FILES = {
    "bootcode.bin": 52_480,
    "start.elf": 297_900,
    "fixup.dat": 7_266,
    "start4.elf": 225_400,
    "fixup4.dat": 5_400,
    "kernel8.img": 600_000,
    "initramfs.gz": 400_000,
}
_TOOLS = {
    "ip": "iproute2",
    "bridge": "iproute2",
    "snmpd": "snmpd",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}
_QEMU_TOOLS = {"qemu-system-aarch64": "qemu-system-arm", "mke2fs": "e2fsprogs", "modinfo": "kmod"}


def prerequisites(kind: str) -> list[str]:
    """The Debian packages that a rack of this kind needs and that are not installed."""
    wanted = _TOOLS | ({} if kind == "light" else _QEMU_TOOLS)
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return sorted({package for tool, package in wanted.items() if not shutil.which(tool, path=path)})


def cache_directory() -> Path:
    """Where the lab keeps what it fetched and built: beside the cache of install/debian.sh."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("PIMAN_CACHE") or Path(home) / "piman") / "lab"


def prepare_files(cache: Path | None = None) -> Path:
    """Fetch and build what QEMU Pis boot and install, into cache/boot; returns the cache. LabError.

    Needs the network of the machine, so call it before `enter`. The second time there is nothing to do.
    """
    cache = cache or cache_directory()
    boot = cache / "boot"
    boot.mkdir(parents=True, exist_ok=True)
    _script("boot/fetch_boot_files.sh", "--no-firmware", "--output", str(boot))
    initramfs, sums = boot / "initramfs.gz", _digest(boot / "kernel8.img")
    stamp = cache / ".initramfs"
    if not initramfs.exists() or not stamp.exists() or stamp.read_text(encoding="ascii") != sums:
        _script("initram/create_initramfs.gz.sh", "arm64", "--output", str(initramfs))
        stamp.write_text(sums, encoding="ascii")
        (boot / "rootfs.tgz").unlink(missing_ok=True)
    if not (boot / "rootfs.tgz").exists():
        try:
            build_rootfs(initramfs, boot / "rootfs.tgz")
        except (RootfsError, OSError) as error:
            raise LabError(f"no root file system: {error}") from error
    return cache


def prepare_agent(cache: Path | None = None) -> Path:
    """Build, beside what prepare_files makes, a root file system with Python and the node agent; its path. LabError."""
    cache = prepare_files(cache)
    output, stamp, python = cache / AGENT_ROOTFS, cache / ".agent", cache / "python"
    digest = hashlib.sha256((cache / ".initramfs").read_bytes())
    for path in (Path(__file__).with_name("python_tree.sh"), _INSTALL.parent / "monitoring" / "monitoring_server.py"):
        digest.update(path.read_bytes())
    if not output.exists() or not stamp.exists() or stamp.read_text(encoding="ascii") != digest.hexdigest():
        _script("../lab/python_tree.sh", str(python))
        try:
            build_rootfs(cache / "boot" / "initramfs.gz", output, python=python)
        except (RootfsError, OSError) as error:
            raise LabError(f"no root file system with the agent: {error}") from error
        stamp.write_text(digest.hexdigest(), encoding="ascii")
        shutil.rmtree(python)
    return output


def _digest(kernel: Path) -> str:
    """Of what initramfs and root file system are made of; the modules in the initramfs fit one kernel only."""
    digest = hashlib.sha256()
    for path in (kernel, Path(__file__).with_name("rootfs.py"), *sorted((_INSTALL / "initram").iterdir())):
        if path.is_file() and not path.name.endswith(".gz"):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _script(name: str, *arguments: str) -> None:
    done = subprocess.run(
        ["bash", str(_INSTALL / name), *arguments], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        raise LabError(f"install/{name}: {done.stderr.decode(errors='replace').strip()}")


def _noise(name: str, size: int) -> bytes:
    return random.Random(name).randbytes(size)


@dataclass(frozen=True, slots=True)
class SwitchPlan:
    """One switch of a rack: which it is, and how it behaves; see lab.switch.LabSwitch.

    detect   seconds from power on to the first milliwatt; `budget` in milliwatts, 0: without end
    record   a recorded switch (lab.replay.read_record) in place of the family
    """

    family: str = "standard"
    quirks: Quirks = field(default_factory=Quirks)
    detect: float = 0.0
    budget: int = 0
    users: tuple[User, ...] = ()
    record: Record | None = None


class Rack:
    """N Pis on a PoE switch. `with Rack(directory) as rack:` builds it, `rack.start()` gives the Pis power.

    Of several switches the first has the manager on its uplink, and a trunk to each of the others.
    The manager's side is the namespace of the caller. Power by SNMP works from the beginning.
    Each `open` is a new rack: what an earlier one left in the folder (configuration, the manager's state, the Pis'
    cards) is written anew.

    directory    holds everything of it: config.yaml, hosts.csv, boot/, state/, logs/, pis/, switch/, lab.json
    files        the folder that prepare_files filled; kinds other than light need it
    stagger      seconds between two Pis at the start, as a switch does it
    image_bytes  size of the light Pis' image
    ports        of each switch; more than it has Pis: the rest is empty
    known        False: hosts.csv is empty
    switches     what they are; the Pis are spread over them in order
    agent        install the root file system that prepare_agent made, in which the node agent runs
    tell         is told what is done, a line at a time
    """

    def __init__(
        self,
        directory: Path,
        pis: int = 2,
        kind: str = "qemu",
        model: str = "3b",
        *,
        files: Path | None = None,
        scale: float = 1.0,
        stagger: float = 0.5,
        faults: Faults | None = None,
        pace: Pace | None = None,
        card_bytes: int = CARD_BYTES,
        image_bytes: int = 4_000_000,
        ports: int = 0,
        known: bool = True,
        switches: Sequence[SwitchPlan] = (SwitchPlan(),),
        agent: bool = False,
        tell: Callable[[str], object] = lambda _text: None,
    ) -> None:
        _check_options(pis, kind, model)
        self.directory = directory.resolve()
        self.kind, self.model = kind, model
        self.config, self.hosts = self.directory / "config.yaml", self.directory / "hosts.csv"
        self.boot_dir, self.image = self.directory / "boot", self.directory / "boot" / "rootfs.tgz"
        self._files = None if kind == "light" else _prepared(files)
        self._agent = agent
        self._image_bytes, self._known, self._tell = image_bytes, known, tell
        self._stagger = stagger
        _check_switches(pis, switches)
        self._each = -(-pis // len(switches))  # Pis on a switch
        self._ports = max(ports, self._each)
        self._stopping = threading.Event()
        self._starter: threading.Thread | None = None
        self._namespaces: list[str] = []
        self._claim: TextIO | None = None
        self.directory.mkdir(parents=True, exist_ok=True)
        profile = PROFILES[model]
        self.pis = [
            VirtualPi(
                (number - 1) % self._each + 1,
                f"pi{number}",
                _mac(profile, number),
                _serial(profile, number),
                profile,
                kind,
                self.directory / "pis" / f"pi{number}",
                address=FIRST_PI + (number - 1),
                scale=scale,
                faults=faults,
                pace=pace,
                card_bytes=card_bytes,
            )
            for number in range(1, pis + 1)
        ]
        self.switches = [self._plan_switch(index, plan, len(switches)) for index, plan in enumerate(switches)]
        self.switch = self.switches[0]
        self._introduce()

    def __enter__(self) -> Rack:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Build network and switch, write the files; LabError. No Pi has power yet."""
        require_private_network()
        self._take_folder()
        try:
            self._tell("writing boot files and configuration")
            self._clear()
            self._write_files()
            count = len(self.switches)
            self._tell(f"building the network: {count} switch{'es' * (count > 1)} and {len(self.pis)} Pis")
            self._build_network()
            for switch in self.switches:
                switch.start()
        except (OSError, RuntimeError) as error:
            self.close()
            raise LabError(f"the rack does not come up: {error}") from error
        except LabError:
            self.close()
            raise
        write_lab_file(self.directory)

    def start(self) -> None:
        """Power the Pis one after the other, in the background, as far as their ports are on."""
        self._starter = threading.Thread(target=self._start_pis, name="lab-power", daemon=True)
        self._starter.start()

    def close(self) -> None:
        """Take everything down; any number of times. The folder stays."""
        self._stopping.set()
        if self._starter is not None:
            self._starter.join()
        for switch in self.switches:
            switch.stop()
        for pi in self.pis:
            pi.power_off()
        with contextlib.suppress(LabError):
            if self._namespaces:
                ip_batch([f"link del {INTERFACE}"])
        for name in self._namespaces:
            with contextlib.suppress(LabError):
                ip_batch([f"netns del {name}"])
        self._namespaces.clear()
        if self._claim is not None:
            (self.directory / "lab.json").unlink(missing_ok=True)
            self._claim.close()
            self._claim = None

    def _take_folder(self) -> None:
        """Keep other racks out of it for as long as this one runs: PIDs cannot be told apart from inside."""
        claim = (self.directory / ".lock").open("w")
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            claim.close()
            raise LabError(f"a lab runs in {self.directory} already; give another folder, or end it") from error
        self._claim = claim

    def pi(self, name: str) -> VirtualPi:
        """By name, MAC, or number of the port (of the first switch that has a Pi there); KeyError."""
        for each in self.pis:
            if name in (each.name, each.mac, str(each.port)):
                return each
        raise KeyError(name)

    def switch_of(self, pi: VirtualPi) -> LabSwitch:
        """The one that feeds it, on `pi.port`."""
        return self.switches[self.pis.index(pi) // self._each]

    def wait(self, reached: Callable[[], bool], timeout: float, interval: float = 0.05) -> bool:
        """Whether it came true in time."""
        end = time.monotonic() + timeout
        while not reached():
            if time.monotonic() >= end:
                return False
            time.sleep(interval)
        return True

    def wait_state(self, state: PiState, timeout: float) -> bool:
        """Whether every Pi came to be in this state at one moment."""
        return self.wait(lambda: all(pi.state is state for pi in self.pis), timeout)

    def _start_pis(self) -> None:
        for pi in self.pis:
            if self._stopping.is_set():
                return
            if self.switch_of(pi).feeds(pi.port):
                pi.power_on()
            self._stopping.wait(self._stagger)

    def _plan_switch(self, index: int, plan: SwitchPlan, count: int) -> LabSwitch:
        first = index * self._each
        pis = {pi.port: pi for pi in self.pis[first : first + self._each]}

        def on_power(port: int, on: bool) -> None:
            if port in pis and not self._stopping.is_set():
                (pis[port].power_on if on else pis[port].power_off)()

        return LabSwitch(
            _namespace(index),
            BRIDGE,
            [f"port{number}" for number in range(1, self._ports + 1)],
            SWITCH - index,
            self.directory / (f"switch{index}" if index else "switch"),
            on_power,
            lambda port: port in pis and pis[port].is_on,
            uplink=UPLINK,
            trunks=[] if index else [f"trunk{other}" for other in range(1, count)],
            name=f"lab-switch{index or ''}",
            users=plan.users,
            family=plan.family,
            quirks=plan.quirks,
            # All ports look for something to feed, but what is nowhere takes nothing from a budget.
            wants=pis.__contains__ if plan.budget else lambda _port: True,
            detect=plan.detect,
            budget=plan.budget,
            record=plan.record,
        )

    def _introduce(self) -> None:
        """Make the switches at both ends of each trunk LLDP neighbours."""
        uplink, first = self._ports + 1, self.switches[0]
        for index, switch in enumerate(self.switches[1:], 1):
            trunk = uplink + index
            first.meet(trunk, Neighbour(switch.name, _switch_mac(index), switch.port_name(uplink)))
            switch.meet(uplink, Neighbour(first.name, _switch_mac(0), first.port_name(trunk)))

    # -- the network: the manager's end is here, each Pi and the switch in a namespace of their own

    def _build_network(self) -> None:
        switches = [switch.namespace for switch in self.switches]
        self._namespaces = [*switches, *(pi.namespace for pi in self.pis)]
        ip_batch([f"netns add {name}" for name in self._namespaces])
        for name in self._namespaces:
            no_ipv6(name)
        lines = [f"link add {INTERFACE} type veth peer name {UPLINK} netns {SWITCH_NAMESPACE}"]
        for index, name in enumerate(switches):
            kind = "type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
            lines.append(f"link add {BRIDGE} netns {name} address {_switch_mac(index)} {kind}")
            if index:
                lines.append(
                    f"link add trunk{index} netns {SWITCH_NAMESPACE} type veth peer name {UPLINK} netns {name}"
                )
        used = set()
        for pi in self.pis:
            name = self.switch_of(pi).namespace
            used.add((name, pi.port))
            peer = f"peer name eth0 address {pi.mac} netns {pi.namespace}"
            lines.append(f"link add port{pi.port} netns {name} type veth {peer}")
        # Ports with nothing in them are there too, and have no carrier.
        for name in switches:
            for port in range(1, self._ports + 1):
                if (name, port) not in used:
                    lines.append(f"link add port{port} netns {name} type veth peer name empty{port} netns {name}")
        lines += [f"addr add {MANAGER}/24 dev {INTERFACE}", f"link set {INTERFACE} up"]
        ip_batch(lines)
        ends = [("", INTERFACE), *((pi.namespace, "eth0") for pi in self.pis)]
        for index, switch in enumerate(self.switches):
            ip_batch(
                [
                    f"addr add {SWITCH - index}/24 dev {BRIDGE}",
                    *(f"link set {name} up" for name in ("lo", BRIDGE)),
                    *(f"link set {name} master {BRIDGE} up" for name in switch.names),
                ],
                switch.namespace,
            )
            ends += [(switch.namespace, name) for name in (BRIDGE, *switch.names)]
        for namespace, name in ends:
            with contextlib.closing(Interface(namespace, name)) as interface:
                interface.no_offloads()

    # -- the files

    def _clear(self) -> None:
        """Remove what an earlier rack left: its state would be taken for that of these Pis. LabError."""
        if not self.config.exists():
            return  # a new folder
        if not self.config.read_text(encoding="utf-8", errors="replace").startswith(_FIRST_LINE):
            raise LabError(f"{self.config} is none of a lab's; give the lab a folder of its own")
        for name in ("state", "pis"):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self.directory / name)
        for pi in self.pis:
            pi.directory.mkdir(parents=True)
            pi.put_card("blank")

    def _write_files(self) -> None:
        for name in ("boot", "state", "logs"):
            (self.directory / name).mkdir(exist_ok=True)
        self.config.write_text(self._config_text(), encoding="utf-8")
        lines = [f"{pi.mac};{pi.address};{pi.name};0" for pi in self.pis] if self._known else []
        self.hosts.write_text("\n".join(["# MAC;IP;hostname;last_seen", *lines]) + "\n", encoding="utf-8")
        if self._files is None:
            self._make_light_files()
        else:
            for source in sorted((self._files / "boot").iterdir()):
                if source.is_file() and not source.name.startswith(".") and source.name not in _TEMPLATES:
                    _link(source, self.boot_dir / source.name)
            self._make_noise(_FIRMWARE)
            if self._agent:
                _link(self._files / AGENT_ROOTFS, self.image)
        for name in _TEMPLATES:
            shutil.copyfile(_INSTALL / "boot" / name, self.boot_dir / name)

    def _make_light_files(self) -> None:
        self._make_noise(_LIGHT_FILES | {PROFILES[self.model].device_tree: 55_000})
        self.image.unlink(missing_ok=True)
        self.image.write_bytes(_noise_image(self._image_bytes))

    def _make_noise(self, files: dict[str, int]) -> None:
        for name, size in files.items():
            path = self.boot_dir / name
            if not path.exists() or path.stat().st_size != size:
                path.unlink(missing_ok=True)
                path.write_bytes(_noise(name, size))

    def _config_text(self) -> str:
        lines = [
            _FIRST_LINE,
            "private_number: 4",
            f"server_address: {MANAGER}",
            f"subnet_mask: {NETMASK}",
            f"interface: {INTERFACE}",
            "boot_dir: boot",
            "state_dir: state",
            "log_dir: logs",
            f"switch_count: {len(self.switches)}",
            "switches:",
        ]
        for index in range(len(self.switches)):
            pis = self.pis[index * self._each :][: self._each]
            addresses = [str(pi.address) for pi in pis] + [""] * (self._ports - len(pis))
            lines += [
                f"  - {'swtich_0' if not index else f'switch_{index}'}_address: {SWITCH - index}",
                "    off_time: 1",
            ]
            lines += ["    pi_addresses:", *(f"      - {address}".rstrip() for address in addresses)]
        return "\n".join([*lines, ""])


def _noise_image(size: int) -> bytes:
    """A root file system of about that size, as far as a light Pi and who looks at it are concerned: one program."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        program = tarfile.TarInfo("./sbin/init")
        program.size, program.mode = size, 0o755
        archive.addfile(program, io.BytesIO(_noise("rootfs.tgz", size)))
    return gzip.compress(made.getvalue(), 1, mtime=0)


def _check_options(pis: int, kind: str, model: str) -> None:
    if not 1 <= pis <= MAX_PIS:
        raise LabError(f"{pis} Pis: a rack has 1 to {MAX_PIS}")
    if kind not in KINDS or model not in PROFILES:
        raise LabError(f"a Pi is {', '.join(KINDS)}, of model {', '.join(PROFILES)}; not {kind} {model}")


def _check_switches(pis: int, switches: Sequence[SwitchPlan]) -> None:
    if not 1 <= len(switches) <= min(MAX_SWITCHES, pis):
        raise LabError(f"{len(switches)} switches: a rack has 1 to {MAX_SWITCHES}, and a Pi on each")
    for plan in switches:
        try:
            find_family(plan.family)
        except ValueError as error:
            raise LabError(str(error)) from None
        if plan.record and 0 < len(plan.record.ports()) < -(-pis // len(switches)):
            raise LabError(f"the recorded switch has {len(plan.record.ports())} PoE ports, too few for the Pis")


def _namespace(index: int) -> str:
    return f"switch{index}"


def _switch_mac(index: int) -> str:
    return f"02:00:00:00:fe:{index:02x}"


def _prepared(files: Path | None) -> Path:
    """The folder with what QEMU Pis boot; LabError."""
    files = files or cache_directory()
    if not (files / "boot" / "rootfs.tgz").exists():
        raise LabError(f"no boot files in {files}: prepare_files makes them")
    return files


def _mac(profile: Profile, port: int) -> str:
    return f"{profile.oui}:00:00:{port:02x}"


def _serial(profile: Profile, port: int) -> int:
    """On a Pi 3 the MAC ends with the serial's last 24 bits; on later boards the two have nothing in common."""
    return (0x5E000000 if profile.oui == "b8:27:eb" else 0x7BF18E00) + port


def _link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where that cannot be."""
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
