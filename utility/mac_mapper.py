"""From what switches and DHCP have seen to which board is on which port, and to lines of hosts.csv. Pure.

A port is an edge where no switch is at the other end and few MACs are behind it; a MAC on one edge is there, on two it
is nowhere until somebody has looked. Who asks the switches is monitoring/places.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from utility.config import Switch
from utility.drivers import Detection
from utility.hosts import Host, Plan
from utility.switches import Port

EDGE_MACS = 2  # more MACs than this on one port: a switch is behind it, not a Pi


@dataclass(frozen=True, slots=True)
class Table:
    """A switch as it is: its face, and the MACs by port number."""

    switch: Switch
    ports: Sequence[Port]
    macs: Mapping[int, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Spot:
    """A port of a switch."""

    switch: Switch
    port: Port

    @property
    def where(self) -> str:
        return f"{self.switch.name or self.switch.address} port {self.port.number}"

    @property
    def address(self) -> IPv4Address | None:
        """Of the Pi that config.yaml has there."""
        of_ports = self.switch.pi_addresses
        return of_ports[self.port.number - 1] if 1 <= self.port.number <= len(of_ports) else None


def is_edge(port: Port, macs: Collection[str], known: Collection[str] = ()) -> bool:
    """Whether a device is there, rather than a switch. A board of ours that answers LLDP is no switch for that."""
    neighbour = port.neighbour
    leads_on = neighbour is not None and neighbour.forwards and neighbour.mac not in known
    return not leads_on and len(macs) <= EDGE_MACS


def settle(tables: Iterable[Table], known: Collection[str] = ()) -> tuple[dict[str, Spot], dict[str, list[Spot]]]:
    """MAC -> where it is, and MAC -> where it may be, of those that more than one edge has seen.

    `known` are MACs of boards.
    """
    found: dict[str, list[Spot]] = {}
    for table in tables:
        for port in table.ports:
            macs = table.macs.get(port.number, frozenset())
            if is_edge(port, macs, known):
                for mac in macs:
                    found.setdefault(mac, []).append(Spot(table.switch, port))
    sure = {mac: spots[0] for mac, spots in found.items() if len(spots) == 1}
    return sure, {mac: spots for mac, spots in found.items() if len(spots) > 1}


def boards(spots: Mapping[str, Spot], known: Collection[str]) -> dict[str, Spot]:
    """Those that are boards: `known` to hosts.csv or DHCP, or alone on a port that gives power. In the switches' order.

    Of two on one port the known one is the board, and a board may have a second MAC.
    """
    on_port: dict[tuple[int, int], list[str]] = {}
    for mac, spot in spots.items():
        on_port.setdefault((spot.switch.index, spot.port.number), []).append(mac)
    found = {}
    for place in sorted(on_port):
        macs = sorted(on_port[place])
        ours = [mac for mac in macs if mac in known]
        fed = spots[macs[0]].port.detection is Detection.DELIVERING
        for mac in ours or (macs if fed and len(macs) == 1 else []):
            found[mac] = spots[mac]
    return found


# ---------------------------------------------------------------------------------------------- one port, power-cycled


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whose port it is: `mac` is empty where `text` says why nobody knows."""

    mac: str
    text: str


def judge(on_port: Collection[str], heard: Collection[str], elsewhere: Collection[str]) -> Verdict:
    """Who is on a port that has just got its power back.

    on_port    MACs that the switch has there
    heard      MACs that asked for an address since
    elsewhere  MACs that the switch has on other ports

    1. Who is on the port and asked is it.
    2. Else who is alone on the port.
    3. Else the one who asked and is on no other port: some switches learn slowly.
    """
    both = sorted(set(on_port) & set(heard))
    if len(both) == 1:
        return Verdict(both[0], "by its boot and the forwarding table")
    if len(on_port) == 1:
        return Verdict(next(iter(on_port)), "by the forwarding table")
    if on_port:
        return Verdict("", f"{len(on_port)} MACs are there: {', '.join(sorted(on_port))}; unplug all but the Pi")
    asked = sorted(set(heard) - set(elsewhere))
    if len(asked) == 1:
        return Verdict(asked[0], "by its boot")
    if asked:
        return Verdict(
            "", f"{', '.join(asked)} asked for addresses and the switch has none of them; try this port again"
        )
    return Verdict("", "nobody was heard and the switch saw nobody: is a Pi plugged in there?")


def is_settled(verdict: Verdict, hears: bool) -> bool:
    """Whether waiting longer would tell nothing more; `hears`: somebody listens for DHCPDISCOVER."""
    return bool(verdict.mac) and (not hears or "and the" in verdict.text)


# --------------------------------------------------------------------------------------------------------- hosts.csv


@dataclass(frozen=True, slots=True)
class Proposal:
    """A line for hosts.csv, or with `is_known` what it says already. `note`: what somebody should look at."""

    mac: str
    address: IPv4Address | None  # None: none is free
    hostname: str
    spot: Spot
    is_known: bool = False
    note: str = ""

    @property
    def line(self) -> str:
        return f"{self.mac};{self.address or '0.0.0.0'};{self.hostname};0"


def propose(spots: Mapping[str, Spot], hosts: Sequence[Host], plan: Plan) -> list[Proposal]:
    """What hosts.csv should say of these, in the order of switches and ports.

    A new one gets the address that config.yaml has for its port; else a free one, and one that config.yaml has for
    another port only where no other is left.
    """
    by_mac, used = {host.mac: host for host in hosts}, {host.address for host in hosts}
    by_address = {host.address: host for host in hosts}
    wanted = {spot.address for mac, spot in spots.items() if mac not in by_mac}
    found = []
    for mac, spot in sorted(spots.items(), key=lambda item: (item[1].switch.index, item[1].port.number, item[0])):
        host, configured = by_mac.get(mac), spot.address
        if host is not None:
            odd = configured is not None and configured != host.address
            note = f"config.yaml has {configured} on {spot.where}" if odd else ""
            found.append(Proposal(mac, host.address, host.hostname, spot, is_known=True, note=note))
            continue
        note = ""
        if configured is not None and configured in used:
            other = by_address.get(configured)
            note = (
                f"config.yaml's {configured} for {spot.where} is {f'that of {other.name}' if other else 'given away'}"
            )
        address = configured if configured is not None and configured not in used else _free(plan, used, wanted)
        if address is None:
            note = f"no free address is left in {plan.network}"
        else:
            used.add(address)
        found.append(Proposal(mac, address, f"pi-{mac.replace(':', '')[-6:]}", spot, note=note))
    return found


def _free(plan: Plan, used: Collection[IPv4Address], wanted: Collection[IPv4Address | None]) -> IPv4Address | None:
    """An address for one whose port has none; those of other ports come last."""
    kept = {*plan.preferred, *(each for each in wanted if each is not None)}
    first = next((each for each in plan.free(used) if each not in kept), None)
    return first if first is not None else next((each for each in plan.free(used) if each not in wanted), None)


# ------------------------------------------------------------------------------------------------------- calibration


def which_went(before: Mapping[int, bool], gone: Collection[int], after: Mapping[int, bool]) -> list[int]:
    """The interfaces that had a link, lost it while one port was without power, and have it again."""
    return sorted(each for each, up in before.items() if up and each in gone and after.get(each, False))
