"""The first steps: what this machine looks like, what config.yaml could be, and whether a switch answers. No Flask."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from monitoring.doctor import check_switch
from monitoring.inspection import ask_switches, look_at_image, look_at_links
from monitoring.power import own_macs
from utility.config import SnmpAccess, Switch
from utility.power_rules import Guard, refusal
from utility.switches import Port, SwitchError, open_switch
from web.views import Json

SIOCGIFADDR = 0x8915  # linux/sockios.h
MAX_PORTS = 64


def address_of(interface: str) -> IPv4Address | None:
    """The first address of an interface; None where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker, contextlib.suppress(OSError):
        request = struct.pack("16sH22x", interface.encode()[:15], socket.AF_INET)
        return IPv4Address(fcntl.ioctl(asker, SIOCGIFADDR, request)[20:24])
    return None


def interfaces() -> list[Json]:
    """Those that a rack could be on, the likeliest first."""
    links = [link for link in look_at_links() if link.name != "lo"]
    found: list[tuple[int, Json]] = []
    for link in links:
        address = address_of(link.name)
        network = next((each for each in link.networks if address and address in each), None)
        rank = (2 if link.has_carrier else 0) + (1 if network and _is_rack_like(network) else 0)
        view: Json = {
            "name": link.name,
            "up": link.is_up,
            "carrier": link.has_carrier,
            "address": str(address) if address and network else "",
            "mask": str(network.netmask) if network else "",
            "networks": [str(each) for each in link.networks],
        }
        found.append((rank, view))
    return [view for _rank, view in sorted(found, key=lambda each: -each[0])]


def _is_rack_like(network: IPv4Network) -> bool:
    return 8 <= network.prefixlen <= 30 and not network.is_link_local and not network.is_loopback


def proposal(links: list[Json], links_with_router: frozenset[str]) -> Json:
    """What the first page is filled with: an interface that has an address, and rather one without the way out."""
    usable = [link for link in links if link["address"]]
    inner = [link for link in usable if link["name"] not in links_with_router]
    chosen = (inner or usable or [{"name": "", "address": "", "mask": ""}])[0]
    return {
        "interface": chosen["name"],
        "server_address": chosen["address"],
        "subnet_mask": chosen["mask"],
        "private_number": "1",
    }


def links_with_router() -> frozenset[str]:
    """The interfaces by which a default route leads out: other people's DHCP servers are on these."""
    with contextlib.suppress(OSError):
        lines = [line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]]
        return frozenset(line[0] for line in lines if int(line[1], 16) == 0 and int(line[7], 16) == 0)
    return frozenset()


def image_view(path: Path) -> Json:
    """Whether there is something to install."""
    image = look_at_image(path)
    return {
        "path": image.path,
        "size": image.size,
        "problem": image.problem,
        "good": not image.problem and image.has_init is not False,
    }


def try_switch(address: IPv4Address, access: SnmpAccess) -> Json:
    """Ask a switch what it is and which PoE ports it has. Takes as long as its patience."""
    switch = Switch(0, address, snmp=replace(access, timeout=1.5, retries=1))
    (facts,) = ask_switches([switch])
    checks = check_switch(switch, facts)
    return {
        "ok": not facts.problem,
        "description": " ".join(facts.description.split())[:200],
        "ports": [port.number for port in facts.ports if port.has_poe],
        "leads_on": leading_on(switch, facts.ports),
        "text": facts.problem or checks[0].text,
        "advice": checks[0].advice,
    }


def leading_on(switch: Switch, ports: Sequence[Port]) -> list[int]:
    """The PoE ports with this machine or another switch behind them: no Pi is there, and none may lose its power."""
    if not ports:
        return []
    try:
        with open_switch(switch) as poe:
            macs = poe.macs(ports)
    except SwitchError:  # a switch that keeps its tables to itself
        macs = {}
    guard = Guard(own_macs())
    fed = (port for port in ports if port.has_poe)
    return [port.number for port in fed if refusal(port, macs.get(port.number, frozenset()), (), guard)]


def config_text(wanted: Json) -> str:
    """A first config.yaml of what was asked on the pages; whether it is good is for config.py to say."""
    lines = [
        "# The rack: this manager, its PoE switches, and which Pi is on which port.",
        '# README ("Configuration") has every key.',
        "",
        f"private_number: {wanted['private_number']}",
        f"server_address: {wanted['server_address']}",
        f"subnet_mask: {wanted['subnet_mask']}",
        f"interface: {wanted['interface']}",
    ]
    if wanted.get("unknown_pis"):
        lines.append(f"unknown_pis: {wanted['unknown_pis']}")
    switches = wanted["switches"]
    assert isinstance(switches, list)
    lines.append("switches:" if switches else "switches: []")
    used: set[IPv4Address] = set()
    for switch in switches:
        lines.append(f"  - address: {switch['address']}")
        if switch.get("name"):
            lines.append(f"    name: {switch['name']}")
        count, left_alone = int(switch.get("ports", 0)), set(switch.get("protected", ()))
        if left_alone:
            lines.append(f"    protected_ports: {sorted(left_alone)}     # they lead to this machine or another switch")
        if count:
            lines.append("    pi_addresses:     # entry i is the Pi on port i, counted from 1")
            addresses = iter(_addresses(wanted, count, used))
            for port in range(1, count + 1):
                address = None if port in left_alone else next(addresses, None)
                if address is not None or port in left_alone:
                    lines.append(f"      - {address or 'null'}")
    return "\n".join(lines) + "\n"


def _addresses(wanted: Json, count: int, used: set[IPv4Address]) -> list[IPv4Address]:
    """So many addresses of the network that nobody has, one for each port."""
    try:
        network = IPv4Interface(f"{wanted['server_address']}/{wanted['subnet_mask']}").network
        switches = wanted["switches"]
        assert isinstance(switches, list)
        taken = {IPv4Address(str(wanted["server_address"])), *(IPv4Address(each["address"]) for each in switches)}
    except ValueError:
        return []
    found: list[IPv4Address] = []
    first = int(network.network_address) + (11 if network.num_addresses >= 64 else 1)
    for number in range(first, int(network.broadcast_address)):
        address = IPv4Address(number)
        if len(found) == min(count, MAX_PORTS):
            break
        if address not in taken and address not in used:
            found.append(address)
    used.update(found)
    return found
