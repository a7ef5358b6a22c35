"""Forwarding tables over SNMP: which interface a MAC is behind. Asks for one MAC, or reads the whole table.

What stands in a table is a *bridge port*, and dot1dBasePortIfIndex says which interface that is. Some switches put the
interface itself there, and have the other table all the same: the one reading of the two under which the MACs are on
interfaces that have a link is then the right one. Which of several ports a MAC is really on is for findport.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from utility.drivers import Driver, Oid
from utility.snmp import OBJECTS, Row, SnmpError, Value, text_of

BRIDGE_FDB = OBJECTS["dot1dTpFdbPort"]
VLAN_FDB = OBJECTS["dot1qTpFdbPort"]  # .fdb.MAC
BASE_PORT = OBJECTS["dot1dBasePortIfIndex"]
UP = 1  # ifOperStatus
MAX_TABLES = 256  # forwarding tables of one switch that are looked into, or VLANs

Digits = tuple[int, ...]


class Agent(Protocol):
    """What is needed of `utility.snmp.Snmp`."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
    def get(self, oids: Sequence[Oid]) -> dict[Oid, Value]: ...
    def next(self, oid: Oid) -> Row | None: ...
    def walk(self, base: Oid) -> list[Row]: ...
    def rows(self, base: Oid) -> Iterator[tuple[Oid, Value, str]]: ...
    def in_vlan(self, vlan: int, *, sure: bool = False) -> Agent: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where a MAC is on one switch.

    entry     what stands in the forwarding table; `if_index` the interface that is
    vlan      in whose context the table was read; 0: in none
    table     its base: BRIDGE_FDB or VLAN_FDB
    if_type   ifType, 0 where the switch does not say; `link` None likewise
    """

    entry: int
    if_index: int
    if_name: str = ""
    if_type: int = 0
    link: bool | None = None
    vlan: int = 0
    table: Oid = BRIDGE_FDB


def digits_of(mac: str) -> Digits:
    return tuple(bytes.fromhex(mac.replace(":", "")))


def parse_table(rows: Iterable[Row], base: Oid) -> dict[int, set[str]]:
    """Rows of dot1dTpFdbPort or dot1qTpFdbPort -> MACs by what stands there. 0 is the switch itself: left out."""
    table: dict[int, set[str]] = {}
    for oid, entry in rows:
        digits = oid[len(base) :][-6:]
        if len(digits) == 6 and max(digits) <= 255 and isinstance(entry, int) and entry > 0:
            table.setdefault(entry, set()).add(bytes(digits).hex(":"))
    return table


def holds_interfaces(
    entries: Collection[int], joins: Mapping[int, int], interfaces: Collection[int], up: Collection[int]
) -> bool:
    """Whether a table's entries are interfaces rather than bridge ports.

    joins       bridge port -> ifIndex
    interfaces  those that there are; `up` those of them that have a link
    """
    if not any(entry in joins for entry in entries):
        return True
    if not all(entry in interfaces for entry in entries):
        return False
    if not all(entry in joins for entry in entries):
        return True
    return sum(entry in up for entry in entries) > sum(joins[entry] in up for entry in entries)


class Tables:
    """The forwarding tables of one switch.

    hints  numbers of the VLANs that what is looked for is likely in; where it is in one of them, no other counts
    """

    def __init__(self, agent: Agent, driver: Driver, hints: Iterable[int] = ()) -> None:
        self.agent, self.driver = agent, driver
        self.hints = tuple(dict.fromkeys(hints))
        self._direct: dict[int, bool] = {}  # by VLAN: whether the entries are interfaces

    # -- one MAC

    def find(self, mac: str) -> list[Place]:
        """Where the MAC is, by direct questions: a switch that has not seen it has told so in one answer or two."""
        digits = digits_of(mac)
        found = self._find_in(self.agent, digits, 0)
        if found or self.driver.fdb != "vlan":
            return found
        for vlan in self.vlans():
            with contextlib.suppress(SnmpError), self.agent.in_vlan(vlan, sure=True) as agent:
                found = self._find_in(agent, digits, vlan)
            if found:
                break
        return found

    def search(self, mac: str) -> list[Place]:
        """The same by the whole table, for the agent that has its rows and does not give them to who asks for one."""
        places = []
        for vlan, agent in self._contexts():
            base, table = self._read(agent)
            entries = sorted(entry for entry, macs in table.items() if mac in macs)
            places += self._resolve(agent, entries, vlan, base)
        return places

    def count(self, place: Place, enough: int) -> int:
        """How many MACs are where this one is; not counted on beyond `enough`."""
        agent = self.agent.in_vlan(place.vlan, sure=True) if place.vlan else self.agent
        macs: set[Digits] = set()
        for oid, entry, _ in agent.rows(place.table):
            if entry == place.entry:
                macs.add(oid[-6:])
            if len(macs) > enough:
                break
        return len(macs)

    def vlans(self) -> list[int]:
        """The VLANs that there are by Cisco's tables, those of the hints first."""
        bases = (OBJECTS["vmVlan"], OBJECTS["vlanTrunkPortNativeVlan"])
        rows = [row for base in bases for row in self.agent.walk(base)]
        known = {value for _, value in rows if isinstance(value, int) and 0 < value < 4095}
        states = [(*OBJECTS["vtpVlanState"], 1, vlan) for vlan in self.hints if vlan not in known]
        known |= {oid[-1] for oid, value in (self.agent.get(states) if states else {}).items() if value is not None}
        return sorted(known, key=lambda vlan: (vlan not in self.hints, vlan))[:MAX_TABLES]

    def _find_in(self, agent: Agent, digits: Digits, vlan: int) -> list[Place]:
        direct = (*BRIDGE_FDB, *digits)
        in_vlans = [(*VLAN_FDB, fdb, *digits) for fdb in self._fdbs()]
        values = agent.get([direct, *in_vlans])
        base = VLAN_FDB if values[direct] is None else BRIDGE_FDB
        hinted = [values.get((*VLAN_FDB, fdb, *digits)) for fdb in self.hints]
        entries = {value for value in hinted if isinstance(value, int)}
        if entries:  # it may be elsewhere in another VLAN, and in that one is not what was asked
            base = VLAN_FDB
        else:
            entries = {value for value in values.values() if isinstance(value, int)}
        if not entries and self.driver.fdb == "qbridge":
            entries = self._hop(agent, digits, set(self._fdbs()))
        return self._resolve(agent, sorted(entry for entry in entries if entry > 0), vlan, base)

    def _fdbs(self) -> tuple[int, ...]:
        """Numbers of forwarding tables, which are often those of VLANs."""
        return tuple(dict.fromkeys((*self.hints, 1))) if self.driver.fdb == "qbridge" else ()

    @staticmethod
    def _hop(agent: Agent, digits: Digits, asked: set[int]) -> set[int]:
        """Look into each table there is, from one to the next, at the one place where the MAC would be."""
        last: Oid = VLAN_FDB
        for _ in range(MAX_TABLES):
            row = agent.next(last)
            if row is None or row[0][: len(VLAN_FDB)] != VLAN_FDB or len(row[0]) != len(VLAN_FDB) + 7:
                break
            fdb = row[0][len(VLAN_FDB)]
            if row[0] <= last:  # in a circle
                break
            wanted = (*VLAN_FDB, fdb, *digits)
            value = None if fdb in asked else row[1] if row[0] == wanted else agent.get([wanted])[wanted]
            if isinstance(value, int):
                return {value}
            last = (*VLAN_FDB, fdb, *[255] * 6, 0)
        return set()

    # -- from an entry to its interface

    def _resolve(self, agent: Agent, entries: Sequence[int], vlan: int, base: Oid) -> list[Place]:
        if not entries:
            return []
        joins = {entry: (*BASE_PORT, entry) for entry in entries}
        looks = {entry: _interface(entry) for entry in entries}
        values = agent.get([*joins.values(), *(oid for look in looks.values() for oid in look)])
        joined = {entry: values[oid] for entry, oid in joins.items()}
        others = [each for entry, each in joined.items() if isinstance(each, int) and each > 0 and each != entry]
        if others:
            values |= agent.get([oid for each in others for oid in _interface(each)])
        found = {}
        for entry in entries:
            if_index = joined[entry]
            if not isinstance(if_index, int) or if_index < 1:  # none such; or no interface, which some say with 0 or -1
                if_index = entry
            if if_index != entry and self._is_direct(agent, vlan, base, entry, if_index, values):
                if_index = entry
            found[if_index] = _place(entry, if_index, values, vlan, base)
        return list(found.values())

    def _is_direct(
        self, agent: Agent, vlan: int, base: Oid, entry: int, if_index: int, values: Mapping[Oid, Value]
    ) -> bool:
        """Whether the entry is the interface itself, and no bridge port, though there is one of that number."""
        one, other = _place(entry, entry, values, vlan, base), _place(entry, if_index, values, vlan, base)
        if one.link is None or other.link is None:
            return other.link is None and one.link is not None
        if one.link != other.link:
            return one.link  # who was heard has a link
        if vlan not in self._direct:
            joins = {oid[-1]: value for oid, value in agent.walk(BASE_PORT) if isinstance(value, int)}
            links = {oid[-1]: value == UP for oid, value in agent.walk(OBJECTS["ifOperStatus"])}
            entries = parse_table(agent.walk(base), base)
            self._direct[vlan] = holds_interfaces(entries, joins, links, {each for each in links if links[each]})
        return self._direct[vlan]

    # -- all of it

    def read(self, up: Callable[[], Mapping[int, bool]]) -> dict[int, set[str]]:
        """ifIndex -> MACs. `up` says of the interfaces whether they have a link, where that is needed."""
        found: dict[int, set[str]] = {}
        for _vlan, agent in self._contexts():
            _, table = self._read(agent)
            if not table:
                continue
            walked = {oid[-1]: value for oid, value in agent.walk(BASE_PORT)}
            joins = {port: value for port, value in walked.items() if isinstance(value, int) and value > 0}
            if any(joins.get(entry, entry) != entry for entry in table):
                links = up()
                if holds_interfaces(table, joins, links, {each for each in links if links[each]}):
                    joins = {}
            for entry, macs in table.items():
                found.setdefault(joins.get(entry, entry), set()).update(macs)
        return found

    def _contexts(self) -> Iterator[tuple[int, Agent]]:
        """Whom to ask for a table; who does not answer for one VLAN does for others."""
        yield 0, self.agent
        for vlan in self.vlans() if self.driver.fdb == "vlan" else ():
            with self.agent.in_vlan(vlan, sure=True) as agent:
                try:
                    agent.next(BRIDGE_FDB)
                except SnmpError:
                    continue
                yield vlan, agent

    def _read(self, agent: Agent) -> tuple[Oid, dict[int, set[str]]]:
        bases = (VLAN_FDB, BRIDGE_FDB) if self.driver.fdb == "qbridge" else (BRIDGE_FDB,)
        for base in bases:
            table = parse_table(agent.walk(base), base)
            if table:
                return base, table
        return BRIDGE_FDB, {}


_LOOKS = ("ifName", "ifDescr", "ifOperStatus", "ifType")


def _interface(if_index: int) -> list[Oid]:
    return [(*OBJECTS[name], if_index) for name in _LOOKS]


def _place(entry: int, if_index: int, values: Mapping[Oid, Value], vlan: int, base: Oid) -> Place:
    name, descr, oper, if_type = (values.get(oid) for oid in _interface(if_index))
    return Place(
        entry,
        if_index,
        text_of(name) or text_of(descr),
        if_type if isinstance(if_type, int) else 0,
        oper == UP if isinstance(oper, int) else None,
        vlan,
        base,
    )
