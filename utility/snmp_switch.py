"""A PoE switch over SNMP: what its tables say, joined to a face of ports by the rules of its driver.

The joins are pure functions over rows; `SnmpSwitch` walks and sets. What a family does differently is in drivers.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

from utility.config import Switch
from utility.drivers import DRIVERS, STANDARD, Detection, Driver, Oid, Watts, driver_for
from utility.fdb import Tables
from utility.snmp import OBJECTS, Row, Snmp, SnmpError, Value, text_of
from utility.switches import Capabilities, Neighbour, Port, PowerSupply

LLDP_REMOTE: Oid = (1, 0, 8802, 1, 1, 2, 1, 4, 1, 1)  # .column.time.localPort.number
LLDP_LOCAL: Oid = (1, 0, 8802, 1, 1, 2, 1, 3, 7, 1)  # .column.localPort
CHASSIS_IS_MAC = 4  # LldpChassisIdSubtype
FORWARDS = 0x20 | 0x08  # bridge, router; of LldpSystemCapabilitiesMap, whose first bit is the highest
SOCKET_TYPES = {6, 62, 69, 117}  # ifType: ethernetCsmacd, and what older agents say
NO_SOCKET = re.compile(
    r"(vlan|vl\d|po\d|port-channel|trunk|trk|lag|link agg|bond|cpu|stack|m(e|gmt|anagement)\d*\b|null|lo\d|br\d|ap\d)",
    re.I,
)
LABEL = re.compile(r"(\d+(?:/\D?\d+)*)\D*$")  # of Gi2/0/5, 1/g3, ge-0/0/4, swp07
UP = 1  # ifOperStatus


class Agent(Protocol):
    """What is needed of `utility.snmp.Snmp`."""

    switch: Switch

    def get(self, oids: Sequence[Oid]) -> dict[Oid, Value]: ...
    def set(self, oid: Oid, value: int) -> None: ...
    def walk(self, base: Oid) -> list[Row]: ...
    def columns(self, bases: Sequence[Oid]) -> dict[Oid, list[Row]]: ...
    def close(self) -> None: ...


# --------------------------------------------------------------------------------------------------- from rows to ports


@dataclass(frozen=True, slots=True)
class Interfaces:
    """The interfaces by ifIndex, and which bridge port is which."""

    names: Mapping[int, str]
    types: Mapping[int, int] = field(default_factory=dict)
    aliases: Mapping[int, str] = field(default_factory=dict)
    up: frozenset[int] = frozenset()
    bridge: Mapping[int, int] = field(default_factory=dict)  # bridge port -> ifIndex
    entities: Mapping[Oid, int] = field(default_factory=dict)  # PoE index -> ifIndex

    def is_socket(self, if_index: int) -> bool:
        """Whether something can be plugged in there, as far as its type and name say."""
        return self.types.get(if_index, 6) in SOCKET_TYPES and not NO_SOCKET.match(self.names.get(if_index, ""))


def label_numbers(name: str) -> tuple[int, ...]:
    """`Gi2/0/5` -> (2, 0, 5); empty where there are none."""
    found = LABEL.search(name)
    return tuple(map(int, re.findall(r"\d+", found[1]))) if found else ()


def _by_name(index: Oid, interfaces: Interfaces, first: int = 1) -> int | None:
    """The interface whose label begins with the index's group and ends in its port; `first`: what labels begin at.

    What is between the two is a slot, which the index does not tell: the lowest is that of the ports that do not come
    out, Gi1/0/1 rather than Gi1/1/1 of the module for uplinks.
    """
    wanted = tuple(number - 1 + first for number in index)
    found = sorted(
        (numbers[1:-1], if_index)
        for if_index, name in interfaces.names.items()
        if (numbers := label_numbers(name)) and _ends(numbers)[-len(wanted) :] == wanted
        if interfaces.is_socket(if_index)
    )
    is_one = len(found) == 1 or (len(found) > 1 and found[0][0] != found[1][0])
    return found[0][1] if is_one else None


def _ends(numbers: tuple[int, ...]) -> tuple[int, ...]:
    return (numbers[0], numbers[-1]) if len(numbers) > 1 else (1, numbers[0])


def _by_bridge(index: Oid, interfaces: Interfaces) -> int | None:
    if interfaces.bridge:
        return interfaces.bridge.get(index[-1])
    return _by_if_index(index, interfaces)  # a switch that joins nothing counts both alike


def _by_if_index(index: Oid, interfaces: Interfaces) -> int | None:
    return index[-1] if index[-1] in interfaces.names else None


_RULES: Mapping[str, Callable[[Oid, Interfaces], int | None]] = {
    "bridge": _by_bridge,
    "ifindex": _by_if_index,
    "name": _by_name,
    "name0": lambda index, interfaces: _by_name(index, interfaces, 0),
    "entity": lambda index, interfaces: interfaces.entities.get(index),
}


def map_indexes(indexes: Iterable[Oid], rules: Iterable[str], interfaces: Interfaces) -> dict[Oid, int]:
    """PoE index -> ifIndex by the first rule that gives each its own, else by the one that does for most.

    Indexes that lead nowhere, or to an interface that another one leads to as well, are left out: nothing is guessed.
    """
    indexes = list(indexes)
    best: dict[Oid, int] = {}
    for rule in rules:
        led = {index: _RULES[rule](index, interfaces) for index in indexes}
        times = Counter(led.values())
        mapped = {index: to for index, to in led.items() if to is not None and times[to] == 1}
        if len(mapped) > len(best):
            best = mapped
        if len(best) == len(indexes):
            break
    return best


def with_calibration(
    mapped: Mapping[Oid, int], calibrated: Mapping[Oid, int], indexes: Collection[Oid]
) -> dict[Oid, int]:
    """What a trial has shown goes before what a rule says, and takes an interface away from the port it had wrongly."""
    shown = {index: if_index for index, if_index in calibrated.items() if index in indexes}
    taken = set(shown.values())
    return {index: if_index for index, if_index in mapped.items() if if_index not in taken} | shown


def number_ports(poe: Sequence[tuple[Oid, str]], others: Sequence[str]) -> tuple[list[int], list[int]]:
    """What a user calls the ports: numbers for those with PoE, given by index and name, and for the others, by name.

    As the labels count; those of a stack's second member go on where the first's end. In order, where labels are no
    use.
    """
    first = min((_place(name, index)[1] for index, name in poe), default=1)
    shift = 1 if first == 0 else 0  # some count from 0
    places = [(member, port + shift) for member, port in (_place(name, index) for index, name in poe)]
    sizes = {member: max(port for its, port in places if its == member) for member, _ in places}
    before = {member: sum(size for its, size in sizes.items() if its < member) for member in sizes}
    numbers = [before[member] + port for member, port in places]
    if len(set(numbers)) < len(numbers) or (numbers and (min(numbers) < 1 or max(numbers) > 9999)):
        order = sorted(range(len(poe)), key=lambda at: poe[at][0])
        numbers = [order.index(at) + 1 for at in range(len(poe))]
    taken, rest = set(numbers), []
    for name in others:
        member, port = _place(name, (1, -1))
        port += shift
        rest.append(port if len(sizes) == 1 and member in sizes and port > 0 and port not in taken else 0)
        taken.add(rest[-1])
    last = max(taken, default=0)
    for at, number in enumerate(rest):
        if not number:
            last += 1
            rest[at] = last
    return numbers, rest


def _place(name: str, index: Oid) -> tuple[int, int]:
    """Member and port, by the label or else by the PoE index."""
    numbers = label_numbers(name) or index
    return _ends(numbers)[0], numbers[-1]


def read_neighbours(rows: Iterable[Row]) -> dict[int, Neighbour]:
    """lldpRemTable -> who is at the other end, by LLDP's local port number."""
    cells: dict[int, dict[int, Value]] = {}
    for oid, value in rows:
        index = oid[len(LLDP_REMOTE) :]
        if len(index) == 4:
            cells.setdefault(index[2], {}).setdefault(index[0], value)
    return {local: _neighbour(row) for local, row in cells.items()}


def _neighbour(row: Mapping[int, Value]) -> Neighbour:
    chassis, can = row.get(5), row.get(12)
    is_mac = row.get(4) == CHASSIS_IS_MAC and isinstance(chassis, bytes) and len(chassis) == 6
    return Neighbour(
        name=text_of(row.get(9)),
        mac=chassis.hex(":") if is_mac and isinstance(chassis, bytes) else "",
        port=text_of(row.get(8)) or text_of(row.get(7)),
        descr=text_of(row.get(10)),
        # Who does not say what it is may be anything.
        forwards=bool(can[0] & FORWARDS) if isinstance(can, bytes) and can else True,
    )


def place_neighbours(
    neighbours: Mapping[int, Neighbour], local: Iterable[Row], ports: Sequence[Port]
) -> dict[int, Neighbour]:
    """LLDP's local port -> port number: by the port's own LLDP name, else as bridge port, else as ifIndex."""
    names: dict[int, set[str]] = {}
    for oid, value in local:
        if len(oid) == len(LLDP_LOCAL) + 2 and oid[-2] in {3, 4}:
            names.setdefault(oid[-1], set()).add(text_of(value))
    by_name = {name: port for port in ports for name in (port.alias, port.label, port.if_name) if name}
    by_bridge = {port.bridge_port: port for port in ports if port.bridge_port is not None}
    by_index = {port.if_index: port for port in ports if port.if_index is not None}
    by_number = by_bridge if all(each in by_bridge for each in neighbours) else by_index
    placed = {}
    for number, neighbour in neighbours.items():
        named = [by_name[name] for name in names.get(number, ()) if name in by_name]
        port = named[0] if named else by_number.get(number)
        if port is not None:
            placed[port.number] = neighbour
    return placed


def detection_of(driver: Driver, value: Value) -> Detection:
    key = text_of(value).lower() if isinstance(value, bytes) else value
    return driver.states.get(key, Detection.UNKNOWN) if isinstance(key, int | str) else Detection.UNKNOWN


# ----------------------------------------------------------------------------------------------------------- the switch


class SnmpSwitch:
    """A `PoeSwitch` over SNMP. What it is, is asked once; an object is for one thread."""

    def __init__(self, switch: Switch, agent: Agent | None = None) -> None:
        self.switch = switch
        self.agent: Agent = agent or Snmp(switch)
        self._driver: Driver | None = None
        self._watts: Watts | None = None
        self._capabilities: Capabilities | None = None
        self._fetched: dict[Oid, list[Row]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.agent.close()

    @property
    def driver(self) -> Driver:
        """The row for this switch: as config.yaml names it, else by its sysObjectID."""
        if self._driver is None:
            rows = (*self.switch.drivers, *DRIVERS, STANDARD)
            named = [row for row in rows if row.name == self.switch.driver]
            self._driver = named[0] if named else driver_for(self.object_id, rows)
        return self._driver

    @property
    def object_id(self) -> Oid | None:
        """The number that the maker gave to this kind of switch."""
        asked = (*OBJECTS["sysObjectID"], 0)
        value = self.agent.get([asked])[asked]
        return value if isinstance(value, tuple) else None

    @property
    def capabilities(self) -> Capabilities:
        if self._capabilities is None:
            driver = self.driver
            asked = [caution.object for caution in driver.cautions]
            values = self.agent.get(asked) if asked else {}
            warnings = tuple(each.text for each in driver.cautions if values[each.object] == each.value)
            self._capabilities = Capabilities(driver.name, driver.read_only, driver.fdb, warnings)
        return self._capabilities

    # -- the face

    def ports(self, wanted: Collection[int] | None = None) -> list[Port]:  # noqa: ARG002
        self._fetched = self.agent.columns(self._columns())
        admin = self._walk_poe(self.driver.admin)
        if not admin and not self.driver.is_standard:
            # A member of the family that has not the family's own table may have the standard one.
            standard = self._walk_poe(STANDARD.admin)
            if standard:
                admin, self._driver = standard, self._as_standard(self.driver)
        driver = self.driver
        detection = self._walk_poe(driver.detection)
        classes = self._walk_poe(driver.power_class)
        watts = self._walk_watts()
        interfaces = self._interfaces(admin)
        mapped = with_calibration(map_indexes(admin, driver.index, interfaces), self.switch.calibrated, admin)
        bridge_ports = {if_index: port for port, if_index in interfaces.bridge.items()}
        others = self._without_poe(set(mapped.values()), interfaces)
        names = [(index, interfaces.names.get(mapped.get(index, 0), "")) for index in admin]
        numbers, other_numbers = number_ports(names, [interfaces.names.get(each, "") for each in others])
        ports = []
        for number, (index, value) in zip(numbers, admin.items(), strict=True):
            port = self._socket(number, mapped.get(index), interfaces, bridge_ports)
            port = replace(port, label=port.label or ".".join(map(str, index)), index=index)
            power_class = classes.get(index)
            if isinstance(power_class, int) and 0 <= power_class - driver.class_zero <= 8:
                port = replace(port, power_class=power_class - driver.class_zero)
            ports.append(self._with_power(port, value, detection.get(index), watts.get(self._watts_index(index))))
        ports += [
            self._socket(number, if_index, interfaces, bridge_ports)
            for number, if_index in zip(other_numbers, others, strict=True)
        ]
        ports.sort(key=lambda port: port.number)
        neighbours = self._neighbours(ports)
        return [replace(port, neighbour=neighbours.get(port.number)) for port in ports]

    def _as_standard(self, driver: Driver) -> Driver:
        return replace(
            driver,
            admin=STANDARD.admin, on=STANDARD.on, off=STANDARD.off, also_on=(), detection=STANDARD.detection,
            states=STANDARD.states, power_class=STANDARD.power_class, class_zero=STANDARD.class_zero,
            supply=STANDARD.supply,
        )  # fmt: skip

    def _columns(self) -> list[Oid]:
        """The columns that a face is made of, so that they are asked for together."""
        driver = self.driver
        watts = driver.watts if self._watts is None else (self._watts,)
        columns = [driver.admin, driver.detection, driver.power_class, *(each.column for each in watts)]
        columns += [OBJECTS[name] for name in ("ifName", "ifType", "ifAlias", "ifOperStatus", "dot1dBasePortIfIndex")]
        return [each for each in dict.fromkeys(columns) if each]

    def _walk(self, column: Oid) -> list[Row]:
        """What was asked for beforehand is taken once."""
        fetched = self._fetched.pop(column, None)
        return self.agent.walk(column) if fetched is None else fetched

    def _walk_poe(self, column: Oid | None) -> dict[Oid, Value]:
        """Index -> value, for the rows whose index is one of a PoE port."""
        rows = self._walk(column) if column else []
        size = len(column or ())
        return {oid[size:]: value for oid, value in rows if len(oid) - size in {1, 2}}

    def _walk_watts(self) -> dict[Oid, Value]:
        """The power of each port, from the first column that the switch has; later only from that."""
        for watts in self.driver.watts if self._watts is None else (self._watts,):
            found = self._walk_poe(watts.column)
            if found:
                self._watts = watts
                return found
        return {}

    def _watts_index(self, index: Oid) -> Oid:
        return index[-1:] if self._watts and self._watts.by_port else index

    def _interfaces(self, admin: Iterable[Oid]) -> Interfaces:
        def column(name: str | Oid) -> dict[int, Value]:
            base = OBJECTS[name] if isinstance(name, str) else name
            return {oid[-1]: value for oid, value in self._walk(base) if len(oid) == len(base) + 1}

        names = {if_index: text_of(name) for if_index, name in column("ifName").items()}
        if not any(names.values()):
            names = {if_index: text_of(name) for if_index, name in column("ifDescr").items()}
        base = column("dot1dBasePortIfIndex")
        return Interfaces(
            names=names,
            types={if_index: value for if_index, value in column("ifType").items() if isinstance(value, int)},
            aliases={if_index: text_of(value) for if_index, value in column("ifAlias").items()},
            up=frozenset(if_index for if_index, value in column("ifOperStatus").items() if value == UP),
            # A port that is no interface is said to be 0 or -1.
            bridge={port: value for port, value in base.items() if isinstance(value, int) and value > 0},
            entities=self._entities() if "entity" in self.driver.index and admin else {},
        )

    def _entities(self) -> dict[Oid, int]:
        """PoE index -> ifIndex, by way of the physical entity (ENTITY-MIB)."""
        base, row = OBJECTS["entAliasMappingIdentifier"], OBJECTS["ifDescr"][:-1]
        aliases = {
            oid[len(base)]: value[-1]
            for oid, value in self.agent.walk(base)
            if isinstance(value, tuple) and value[: len(row)] == row and len(value) == len(row) + 2
        }
        physical = self._walk_poe(OBJECTS["cpeExtPsePortEntPhyIndex"])
        return {
            index: aliases[entity]
            for index, entity in physical.items()
            if isinstance(entity, int) and entity in aliases
        }

    @staticmethod
    def _without_poe(powered: set[int], interfaces: Interfaces) -> list[int]:
        """The sockets without PoE: the bridge's other ports; all interfaces where the bridge shows not even ours."""
        bridged = set(interfaces.bridge.values())
        seen = bridged if bridged and powered <= bridged else bridged | set(interfaces.names)
        return sorted(each for each in seen - powered if interfaces.is_socket(each))

    @staticmethod
    def _socket(number: int, if_index: int | None, interfaces: Interfaces, bridge_ports: Mapping[int, int]) -> Port:
        if if_index is None:
            return Port(number, "")
        name = interfaces.names.get(if_index, "")
        return Port(
            number,
            name,
            if_index=if_index,
            # Where there is no such table the two are the same.
            bridge_port=bridge_ports.get(if_index) if bridge_ports else if_index,
            if_name=name,
            alias=interfaces.aliases.get(if_index, ""),
            link=if_index in interfaces.up,
        )

    def _with_power(self, port: Port, admin: Value, detection: Value, watts: Value) -> Port:
        driver = self.driver
        unit = self._watts
        known = unit is not None and isinstance(watts, int) and 0 <= watts * unit.milliwatts < 1_000_000
        return replace(
            port,
            admin_on=driver.is_on(admin) if isinstance(admin, int) else None,
            setting=admin if isinstance(admin, int) else None,
            detection=detection_of(driver, detection),
            milliwatts=watts * unit.milliwatts if known and unit and isinstance(watts, int) else None,
            source=unit.source if known and unit else "",
        )

    def _neighbours(self, ports: Sequence[Port]) -> dict[int, Neighbour]:
        neighbours = read_neighbours(self.agent.walk(LLDP_REMOTE))
        return place_neighbours(neighbours, self.agent.walk(LLDP_LOCAL), ports) if neighbours else {}

    # -- its power

    def look(self, ports: Sequence[Port]) -> list[Port]:
        driver, watts, oper = self.driver, self._watts, OBJECTS["ifOperStatus"]
        asked: dict[Oid, None] = {}
        for port in ports:
            if port.index:
                asked[*driver.admin, *port.index] = None
                if driver.detection:
                    asked[*driver.detection, *port.index] = None
                if watts:
                    asked[*watts.column, *self._watts_index(port.index)] = None
            if port.if_index is not None:
                asked[*oper, port.if_index] = None
        values = self.agent.get(list(asked))
        found = []
        for port in ports:
            now = port
            if port.index:
                detection = values.get((*driver.detection, *port.index)) if driver.detection else None
                drawn = values.get((*watts.column, *self._watts_index(port.index))) if watts else None
                now = self._with_power(port, values.get((*driver.admin, *port.index)), detection, drawn)
            if port.if_index is not None:
                now = replace(now, link=values.get((*oper, port.if_index)) == UP)
            found.append(now)
        return found

    def turn(self, port: Port, on: bool) -> None:
        driver = self.driver
        value = driver.off
        if on:
            value = port.setting if isinstance(port.setting, int) and driver.is_on(port.setting) else driver.on
        try:
            self.agent.set((*driver.admin, *port.index), value)
        except SnmpError as error:
            raise error.at_port(port.number) from error

    def complaint(self, port: Port, reason: str) -> SnmpError:
        return SnmpError(self.switch, (*self.driver.admin, *port.index), reason, port.number)

    def supplies(self, ports: Iterable[Port]) -> list[PowerSupply]:
        supply, powered = self.driver.supply, [port for port in ports if port.index]
        capacity, consumption = self._walk_poe(supply.capacity), self._walk_poe(supply.consumption)
        found = []
        for group, value in capacity.items():
            fed = frozenset(port.number for port in powered if len(capacity) == 1 or port.index[:1] == group)
            taken = consumption.get(group)
            if fed and isinstance(value, int) and value > 0:
                found.append(
                    PowerSupply(
                        fed,
                        value * supply.capacity_unit,
                        taken * supply.consumption_unit if isinstance(taken, int) and taken >= 0 else None,
                    )
                )
        return found

    # -- the forwarding table

    def macs(self, ports: Sequence[Port] | None = None) -> Mapping[int, frozenset[str]]:
        ports = self.ports() if ports is None else ports
        by_index = {port.if_index: port.number for port in ports if port.if_index is not None}
        links = {port.if_index: bool(port.link) for port in ports if port.if_index is not None}
        found: dict[int, set[str]] = {}
        if isinstance(self.agent, Snmp):
            for if_index, macs in Tables(self.agent, self.driver).read(lambda: links).items():
                if if_index in by_index:
                    found.setdefault(by_index[if_index], set()).update(macs)
        return {number: frozenset(macs) for number, macs in found.items()}
