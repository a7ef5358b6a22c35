"""Which port of which switch a MAC address is on, from the switches' forwarding tables. Asks; never changes anything.

A table maps a MAC to a *bridge port*; dot1dBasePortIfIndex maps that to an interface; ifName names it. Where the
bridge port has no such row the switch put interface numbers into its table, as some do. The port number to give to
`restart` is the PoE port with the number of the bridge port or else of the interface; a switch that numbers
its PoE ports in another way needs a look at its labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from utility.config import Switch
from utility.drivers import Oid
from utility.hosts import parse_mac
from utility.snmp import OBJECTS, Row, Snmp, SnmpError, Value

BRIDGE_FDB = OBJECTS["dot1dTpFdbPort"]
VLAN_FDB = OBJECTS["dot1qTpFdbPort"]
POE_ADMIN = OBJECTS["pethPsePortAdminEnable"]

THREADS = 64  # switches asked at once
TRUNK_MACS = 2  # more MACs than this on one port: a switch is behind it, not a Pi


@dataclass(frozen=True, slots=True)
class Sighting:
    """A MAC in a switch's forwarding table. `port` is the number for `restart`; `macs_on_port` counts this MAC too."""

    switch: Switch
    port: int
    if_index: int
    if_name: str
    macs_on_port: int

    @property
    def is_trunk(self) -> bool:
        """Whether the port rather leads to another switch than to the device itself."""
        return self.macs_on_port > TRUNK_MACS


def find_port(
    mac: str,
    snmps: Sequence[Snmp],
    vlan: int | None = None,
    on_error: Callable[[SnmpError], None] | None = None,
) -> list[Sighting]:
    """Every port that the MAC is seen on, the likeliest first; empty: no switch knows it.

    All switches are asked at once. The trunks between switches see the MAC as well; the port with the fewest MACs is
    the one it is plugged into (`choose_edge`). A switch that fails is told to `on_error`, and does not hide the answer
    of another; without `on_error` its SnmpError is raised where nothing was found. ValueError: no MAC address.
    """
    mac = parse_mac(mac)
    errors: list[SnmpError] = []

    def search(snmp: Snmp) -> list[Sighting]:
        try:
            return search_switch(snmp, mac, vlan)
        except SnmpError as error:
            errors.append(error)
            return []

    sightings: list[Sighting] = []
    if snmps:
        with ThreadPoolExecutor(min(len(snmps), THREADS), "findport") as pool:
            for found in pool.map(search, snmps):
                sightings += found
    for error in errors:
        if on_error:
            on_error(error)
        elif not sightings:
            raise error
    return sorted(sightings, key=lambda sighting: sighting.macs_on_port)


def choose_edge(sightings: Iterable[Sighting]) -> Sighting | None:
    """The one port with fewer MACs than every other; None where there is none, or two are alike, or it is a trunk.

    A trunk leads to a switch that did not answer or that nobody named: cutting its power would cut that one's too.
    """
    ordered = sorted(sightings, key=lambda sighting: sighting.macs_on_port)
    if not ordered or ordered[0].is_trunk:
        return None
    if len(ordered) > 1 and ordered[0].macs_on_port == ordered[1].macs_on_port:
        return None
    return ordered[0]


def search_switch(snmp: Snmp, mac: str, vlan: int | None = None) -> list[Sighting]:
    """The ports of one switch that the MAC is on; SnmpError."""
    table = read_table(snmp, mac, vlan)
    if mac not in table and vlan is not None:
        # Cisco shows VLAN 1 unless the community says which; any other switch does not answer to that name.
        with snmp.in_vlan(vlan) as in_vlan:
            try:
                table = read_table(in_vlan, mac, vlan)
                return [_resolve(in_vlan, port, table) for port in sorted(table.get(mac, ()))]
            except SnmpError:
                return []
    return [_resolve(snmp, port, table) for port in sorted(table.get(mac, ()))]


def read_table(snmp: Snmp, mac: str, vlan: int | None) -> dict[str, set[int]]:
    """The forwarding table, MAC to bridge ports; empty, or without the MAC, where the switch has not seen it.

    One GET finds out, where it can, whether the MAC is there at all: most switches have not to be walked then.
    """
    digits = tuple(bytes.fromhex(mac.replace(":", "")))
    direct = [(*BRIDGE_FDB, *digits), (*VLAN_FDB, vlan or 1, *digits)]
    values = snmp.get(direct)
    if values[direct[0]] and not values[direct[1]]:
        table = parse_table(snmp.walk(BRIDGE_FDB), BRIDGE_FDB)
        if mac in table:
            return table
    # No row of that MAC in the plain table: it may still be in the table per VLAN, whose index we cannot guess.
    return parse_table(snmp.walk(VLAN_FDB), VLAN_FDB)


def parse_table(rows: Iterable[Row], base: Oid) -> dict[str, set[int]]:
    """Rows of dot1dTpFdbPort or dot1qTpFdbPort; their index ends in the MAC. Port 0 is the switch itself: left out."""
    table: dict[str, set[int]] = {}
    for oid, port in rows:
        digits = oid[len(base) :][-6:]
        if len(digits) == 6 and max(digits) <= 255 and isinstance(port, int) and port > 0:
            table.setdefault(bytes(digits).hex(":"), set()).add(port)
    return table


def _resolve(snmp: Snmp, bridge_port: int, table: dict[str, set[int]]) -> Sighting:
    """Ask for what a human calls the port, and for what its PoE is called."""
    base = (*OBJECTS["dot1dBasePortIfIndex"], bridge_port)
    if_index = snmp.get([base])[base]
    if not isinstance(if_index, int) or if_index < 1:  # no such row; or no interface, which some say with 0 or -1
        if_index = bridge_port
    name, description = (*OBJECTS["ifName"], if_index), (*OBJECTS["ifDescr"], if_index)
    numbers = dict.fromkeys((bridge_port, if_index))
    poe = {number: (*POE_ADMIN, 1, number) for number in numbers}
    values = snmp.get([name, description, *poe.values()])
    port = next((number for number in numbers if values[poe[number]] is not None), bridge_port)
    return Sighting(
        switch=snmp.switch,
        port=port,
        if_index=if_index,
        if_name=_text(values[name]) or _text(values[description]),
        macs_on_port=sum(bridge_port in ports for ports in table.values()),
    )


def _text(value: Value) -> str:
    """A switch's word for a human: nothing in it moves a cursor."""
    text = value.decode("utf-8", "replace").strip("\0 ") if isinstance(value, bytes) else ""
    return "".join(each if each.isprintable() else "?" for each in text)
