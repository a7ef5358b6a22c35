"""Looks at this machine, its files and switches for the doctor. Changes nothing; what it means is for doctor.py."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import os
import shutil
import socket
import struct
import sys
import tarfile
import time
import zlib
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from monitoring import doctor
from monitoring.doctor import BootFolder, Check, Folder, ImageFile, Link, PortTry, SwitchFacts
from monitoring.store import Store, StoreError
from utility.config import HOW, Config, Switch
from utility.hosts import Hosts
from utility.service import port_holder, server_runs
from utility.snmp import OBJECTS, Snmp
from utility.switches import SwitchError, open_switch

SIOCGIFFLAGS, SIOCGIFADDR, SIOCGIFNETMASK = 0x8913, 0x8915, 0x891B  # linux/sockios.h
IFF_UP, IFF_RUNNING = 0x1, 0x40
IMAGE_PATIENCE = 10.0  # seconds to look for /sbin/init in an image
LONGEST_TEXT = 64 * 1024
THREADS = 32  # switches asked at once
ProblemsOf = Callable[[Path], Sequence[str]]
_NAMES_OF_INIT = frozenset({"sbin/init", "usr/sbin/init"})


# The round of the doctor


def examine(config: Config, hosts: Hosts, problems_of: ProblemsOf, untried: Collection[str] = ()) -> list[Check]:
    """All there is to look at; it takes as long as the switches take. For the rest see `look_here`."""
    checks = doctor.check_files(config, {host.address: host.name for host in hosts.all()})
    checks += look_here(config, problems_of, untried)
    for switch, facts in zip(config.switches, ask_switches(config.switches), strict=True):
        checks += doctor.check_switch(switch, facts)
    return checks


def look_here(config: Config, problems_of: ProblemsOf, untried: Collection[str] = ()) -> list[Check]:
    """What can be seen on this machine.

    problems_of    what TFTP says of the files in a folder
    untried        services whose ports are not tried: of the one who asks
    """
    tries = [each for each in try_ports(config) if each.service not in untried]
    boot = look_at_boot(config.boot_dir, problems_of)
    return [
        *doctor.check_network(config, look_at_links(), is_our_address(config.server_address)),
        *doctor.check_ports(tries, running_server(config.state_dir)),
        *doctor.check_boot(boot, models_seen(config.state_dir), config.dhcp_mode == "proxy"),
        *doctor.check_image(look_at_image(config.image)),
        *doctor.check_folders([look_at_folder(folder) for folder in (config.state_dir, config.log_dir)]),
    ]


def models_seen(state_dir: Path) -> set[str]:
    """The boards that the server has seen."""
    with contextlib.suppress(StoreError), Store(state_dir / "piman.db", read_only=True) as store:
        return {row.facts.get("model", "") for row in store.pis()}
    return set()


# The network


def look_at_links() -> list[Link]:
    """Every interface, with its network, and those that the kernel reaches through it without a router."""
    networks: dict[str, list[IPv4Network]] = {}
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        name, destination, gateway, *_rest, mask = line.split()[:8]
        if int(gateway, 16) == 0 and int(mask, 16):
            networks.setdefault(name, []).append(IPv4Network((_from_hex(destination), str(_from_hex(mask)))))
    links = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        for _number, name in socket.if_nameindex():
            flags = int.from_bytes(_ask_interface(asker, SIOCGIFFLAGS, name)[:2], sys.byteorder)
            given = IPv4Address(_ask_interface(asker, SIOCGIFADDR, name)[4:8])
            netmask = IPv4Address(_ask_interface(asker, SIOCGIFNETMASK, name)[4:8])
            found = networks.get(name, [])
            if int(given):  # the loopback has no route, and a route can be left out
                found.append(IPv4Network((given, str(netmask)), strict=False))
            links.append(Link(name, bool(flags & IFF_UP), bool(flags & IFF_RUNNING), tuple(dict.fromkeys(found))))
    return links


def _ask_interface(asker: socket.socket, what: int, name: str) -> bytes:
    """The answer of netdevice(7) behind the name; zeros where there is none."""
    try:
        return fcntl.ioctl(asker, what, struct.pack("16s24x", name.encode()))[16:]
    except OSError:  # it went meanwhile, or has no address
        return bytes(24)


def _from_hex(text: str) -> IPv4Address:
    """An address as /proc/net/route has it: the bytes in the machine's order."""
    return IPv4Address(struct.pack("=I", int(text, 16)))


def is_our_address(address: IPv4Address) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True


def try_ports(config: Config) -> list[PortTry]:
    """Take each port of each service as the server would, and give it back at once."""
    address = str(config.server_address) if is_our_address(config.server_address) else ""
    udp, tcp, ports = socket.SOCK_DGRAM, socket.SOCK_STREAM, config.ports
    wanted = {
        "dhcp": [(udp, "dhcp", ports.dhcp, "")],
        "tftp": [(udp, "tftp", ports.tftp, address)],
        "hello": [(tcp, "hello", ports.hello, address), (tcp, "image", ports.image, address)],
        "ntp": [(udp, "ntp", ports.ntp, address)],
        "web": [(tcp, "web", ports.web, each) for each in config.web.addresses],
    }
    return [_try_port(*each) for service in config.services for each in wanted.get(service, ())]


def _try_port(kind: socket.SocketKind, service: str, number: int, address: str) -> PortTry:
    protocol = "TCP" if kind is socket.SOCK_STREAM else "UDP"
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as taker:
        if kind is socket.SOCK_STREAM:
            taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            taker.bind((address, number))
        except PermissionError as error:
            return PortTry(service, protocol, number, error.strerror or "", denied=True)
        except OSError as error:
            return PortTry(service, protocol, number, error.strerror or str(error), holder=port_holder(number))
    return PortTry(service, protocol, number)


def running_server(state_dir: Path) -> str:
    """The server that holds the state folder, called as `port_holder` calls it; empty where none runs."""
    if not server_runs(state_dir):
        return ""
    with contextlib.suppress(OSError):
        pid = (state_dir / "server.pid").read_text().strip()
        return f"{Path('/proc', pid, 'comm').read_text().strip()} (process {pid})"
    return "a server"


# Files


def look_at_boot(folder: Path, problems_of: ProblemsOf) -> BootFolder:
    try:
        names = frozenset(each.name for each in folder.iterdir() if each.is_file())
    except OSError:
        return BootFolder(str(folder), exists=False)
    return BootFolder(
        str(folder),
        True,
        names,
        _text(folder / "config.txt"),
        _text(folder / "cmdline.txt"),
        tuple(problems_of(folder)),
    )


def _text(path: Path) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(LONGEST_TEXT).decode("utf-8", "replace")
    return ""


def look_at_image(path: Path) -> ImageFile:
    """Whether it is a root file system in a .tar.gz; one that is too long to be read through is taken on trust."""
    try:
        size = path.stat().st_size
        return ImageFile(str(path), size, has_init=_has_init(path, time.monotonic() + IMAGE_PATIENCE))
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError):
        return ImageFile(str(path), problem="is no .tar.gz, or is not complete")
    except OSError as error:
        return ImageFile(str(path), problem=error.strerror or str(error))


def _has_init(path: Path, deadline: float) -> bool | None:
    """None: time was over before the end."""
    # Not tarfile's own "r|gz", which takes a torn file for a whole one.
    with gzip.open(path) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as archive:
        for member in archive:
            if member.name.removeprefix("./").lstrip("/") in _NAMES_OF_INIT:
                return True
            if time.monotonic() > deadline:
                return None
    return False


def look_at_folder(path: Path) -> Folder:
    """A folder that is to be written to; where it is not there yet, the one in which it would be made."""
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        return Folder(str(path), problem=f"{there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        return Folder(str(path), problem="this user may not write there")
    return Folder(str(path), shutil.disk_usage(there).free)


# Switches


def ask_switches(switches: Sequence[Switch]) -> list[SwitchFacts]:
    """All at once: one that is silent costs its patience once."""
    if not switches:
        return []
    with ThreadPoolExecutor(min(len(switches), THREADS), "doctor") as pool:
        return list(pool.map(_ask_switch, switches))


def _ask_switch(switch: Switch) -> SwitchFacts:
    try:
        with open_switch(switch) as opened:
            ports = tuple(opened.ports())
            return SwitchFacts(_describe(switch), ports, opened.capabilities)
    except SwitchError as error:
        return SwitchFacts(problem=str(error))


def _describe(switch: Switch) -> str:
    """What it says of itself, where SNMP is the way to ask."""
    if switch.driver in HOW:
        return f"by driver {switch.driver}"
    oid = (*OBJECTS["sysDescr"], 0)
    with Snmp(switch) as snmp:
        described = snmp.get([oid])[oid]
    return described.decode("utf-8", "replace") if isinstance(described, bytes) else ""
