"""Which port of which switch a MAC address is on. Asks all switches at once; never changes anything, and never guesses.

The trunks between switches see a MAC as well as the port it is plugged into. That one is the port with no switch at
its other end, by LLDP, and with few MACs. Where two are alike, both are told. How a table is read is in fdb.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from utility.config import Switch
from utility.drivers import Oid
from utility.fdb import BASE_PORT, Agent, Place, Tables
from utility.hosts import parse_mac
from utility.snmp import Snmp
from utility.snmp_switch import Interfaces, SnmpSwitch, read_neighbours
from utility.switches import Neighbour, PoeSwitch, Port, SwitchError, ask_all

TRUNK_MACS = 2  # more MACs than this on one port: a switch is behind it, not a Pi
LLDP_REMOTE: Oid = (1, 0, 8802, 1, 1, 2, 1, 4, 1, 1)  # .column.time.localPort.number
LLDP_LOCAL: Oid = (1, 0, 8802, 1, 1, 2, 1, 3, 7, 1)  # .column.localPort


@dataclass(frozen=True, slots=True)
class Sighting:
    """A MAC in a switch's forwarding table.

    port          the number for `restart`; 0: not known, or not asked for as it is a trunk
    macs_on_port  this MAC and others, counted up to one more than a Pi has; 0: not counted
    neighbour     the switch at the other end of the cable, empty: none said so
    face          that port with its power, where it was asked for
    """

    switch: Switch
    port: int
    if_index: int
    if_name: str
    macs_on_port: int = 0
    neighbour: str = ""
    is_socket: bool = True  # no: a bundle of ports, a VLAN, the switch's own processor
    face: Port | None = None

    @property
    def is_trunk(self) -> bool:
        """Whether the port rather leads to another switch than to the device itself."""
        return bool(self.neighbour) or not self.is_socket or self.macs_on_port > TRUNK_MACS

    @property
    def where(self) -> str:
        """`rack-b port 7 (Gi1/0/7)`."""
        name = f" ({self.if_name})" if self.if_name and self.port else ""
        return f"{self.switch.name or self.switch.address} {f'port {self.port}' if self.port else self.if_name}{name}"


def find_port(
    mac: str,
    switches: Sequence[PoeSwitch],
    vlans: Iterable[int] = (),
    on_error: Callable[[SwitchError], None] | None = None,
) -> list[Sighting]:
    """Every port that the MAC is seen on, the likeliest first; empty: no switch knows it.

    vlans     where it is likely to be
    on_error  is told of a switch that fails: it does not hide the answer of another. Without it, SwitchError is raised
              where nothing was found

    ValueError: no MAC address.
    """
    mac, vlans = parse_mac(mac), tuple(vlans)
    errors: dict[int, SwitchError] = {}
    sightings: list[Sighting] = []
    for thorough in (False, True):

        def search(switch: PoeSwitch, thorough: bool = thorough) -> list[Sighting]:
            if thorough and switch.switch.index in errors:
                return []
            try:
                return search_switch(switch, mac, vlans, thorough=thorough)
            except SwitchError as error:
                errors[switch.switch.index] = error
                return []

        sightings = sightings or [each for found in ask_all(search, switches) for each in found]
    for error in errors.values():
        if on_error:
            on_error(error)
        elif not sightings:
            raise error
    return sorted(sightings, key=lambda sighting: (sighting.is_trunk, sighting.macs_on_port))


def choose_edge(sightings: Iterable[Sighting]) -> Sighting | None:
    """The one port that is no trunk; None where there is none, or more than one with as few MACs.

    A trunk leads to a switch that did not answer or that nobody named: cutting its power would cut that one's too.
    """
    edges = [sighting for sighting in sightings if not sighting.is_trunk]
    fewest = [each for each in edges if each.macs_on_port == min(edge.macs_on_port for edge in edges)]
    return fewest[0] if len(fewest) == 1 else None


def search_switch(switch: PoeSwitch, mac: str, vlans: Sequence[int] = (), *, thorough: bool = False) -> list[Sighting]:
    """The ports of one switch that the MAC is on; SwitchError. `thorough`: by its whole table."""
    if not isinstance(switch, SnmpSwitch) or not isinstance(switch.agent, Snmp):
        return _search_face(switch, mac)
    agent = switch.agent
    tables = Tables(agent, switch.driver, vlans)
    places = tables.search(mac) if thorough else tables.find(mac)
    found = [_look(switch.switch, agent, tables, place, mac) for place in places]
    if any(not each.is_trunk for each in found):
        ports = switch.ports()
        # Where a PoE port is no interface that we know of, one without PoE may be it.
        is_told = all(port.if_index is not None for port in ports if port.has_poe)
        face = {port.if_index: port for port in ports if port.if_index is not None and (port.has_poe or is_told)}
        found = [each if each.is_trunk else _on_face(each, face.get(each.if_index), mac) for each in found]
    return found


def _search_face(switch: PoeSwitch, mac: str) -> list[Sighting]:
    """The same for a switch that is not asked over SNMP."""
    macs = switch.macs()
    ports = {port.number: port for port in switch.ports()} if any(mac in each for each in macs.values()) else {}
    return [
        _on_face(Sighting(switch.switch, number, 0, "", len(macs[number])), port, mac)
        for number, port in ports.items()
        if mac in macs.get(number, ())
    ]


def _look(switch: Switch, agent: Snmp, tables: Tables, place: Place, mac: str) -> Sighting:
    """What is at the other end of that place, and how many are there."""
    interfaces = Interfaces({place.if_index: place.if_name}, {place.if_index: place.if_type} if place.if_type else {})
    seen = Sighting(switch, 0, place.if_index, place.if_name, is_socket=interfaces.is_socket(place.if_index))
    if not seen.is_socket:
        return seen
    neighbour = neighbour_at(agent, place)
    if neighbour is not None and neighbour.forwards and neighbour.mac != mac:
        return replace(seen, neighbour=neighbour.label)
    return replace(seen, macs_on_port=tables.count(place, TRUNK_MACS))


def _on_face(seen: Sighting, port: Port | None, mac: str) -> Sighting:
    if port is None:
        return seen
    leads_on = port.neighbour and port.neighbour.forwards and port.neighbour.mac != mac
    return replace(
        seen,
        port=port.number,
        if_index=port.if_index or seen.if_index,
        if_name=port.if_name or port.label or seen.if_name,
        neighbour=port.neighbour.label if port.neighbour and leads_on else "",
        face=port,
    )


def neighbour_at(agent: Agent, place: Place) -> Neighbour | None:
    """Who answers LLDP there. Its table goes by bridge port or by interface, or by numbers that it has names for."""
    neighbours = read_neighbours(agent.walk(LLDP_REMOTE))
    if not neighbours:
        return None
    names = {number: [(*LLDP_LOCAL, column, number) for column in (3, 4)] for number in neighbours}
    joins = {number: (*BASE_PORT, number) for number in neighbours}
    values = agent.get([*joins.values(), *(oid for each in names.values() for oid in each)])
    for number, oids in names.items():
        if place.if_name and place.if_name.encode() in [values[oid] for oid in oids]:
            return neighbours[number]
    by_bridge = all(values[oid] is not None for oid in joins.values())
    for number in neighbours:
        here = values[joins[number]] == place.if_index if by_bridge else number == place.if_index
        if here:
            return neighbours[number]
    return None
