"""The families of PoE switches that the lab's switch can be: what each shows over SNMP, as data, and its tables.

Says nothing of time, sockets and networks: a `State` does (switch.py). Written from the vendors' MIBs and from what
people report of their switches; not from utility/drivers.py, so that each proves the other. Where the sources are
silent the row says "assumed".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from lab.agentx import GEN_ERR, NO_ERROR, Cell, Kind, Oid, Value

MIB_2: Oid = (1, 3, 6, 1, 2, 1)
SYSTEM: Oid = (*MIB_2, 1)
IF: Oid = (*MIB_2, 2)
IF_ENTRY: Oid = (*IF, 2, 1)
IF_X: Oid = (*MIB_2, 31)
IF_X_ENTRY: Oid = (*IF_X, 1, 1, 1)
BRIDGE: Oid = (*MIB_2, 17)
BASE_PORT: Oid = (*BRIDGE, 1, 4, 1)
STP_PORT: Oid = (*BRIDGE, 2, 15, 1)
FDB: Oid = (*BRIDGE, 4, 3, 1)
VLAN_FDB: Oid = (*BRIDGE, 7, 1, 2, 2, 1)
ENTITY: Oid = (*MIB_2, 47)
POE: Oid = (*MIB_2, 105)
POE_PORT: Oid = (*POE, 1, 1, 1)
POE_MAIN: Oid = (*POE, 1, 3, 1, 1)
LLDP: Oid = (1, 0, 8802, 1, 1, 2)
ENTERPRISES: Oid = (1, 3, 6, 1, 4, 1)
CISCO: Oid = (*ENTERPRISES, 9)

DISABLED, SEARCHING, DELIVERING = 1, 2, 3  # pethPsePortDetectionStatus
LEARNED, SELF = 3, 4  # dot1dTpFdbStatus
ETHERNET, VLAN_INTERFACE, BUNDLE = 6, 53, 161  # ifType
STP_STATES = {"disabled": 1, "blocking": 2, "listening": 3, "learning": 4, "forwarding": 5}
ON, OFF = 1, 2  # TruthValue


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table of PoE ports. `what` it shows decides what `values` are:

    admin    (on, off): may be set; `also` are further values that mean on
    state    (disabled, searching, delivering)
    power    (milliwatts per unit,)
    class    (what class 0 is,)
    fed      (while it delivers, else)
    fixed    (always,)
    denied   how often the budget was not enough; index, group: of the row; name: of the interface; entity: see Family
    """

    number: int
    what: str
    values: tuple[int | bytes, ...] = ()
    kind: Kind = Kind.INTEGER
    also: tuple[int, ...] = ()
    writable: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a row for each PoE port; `index` is a rule of INDEXES."""

    entry: Oid
    index: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single object of the PoE: fixed (value,), total, rest and budget (milliwatts per unit,)."""

    oid: Oid
    what: str
    values: tuple[int, ...]
    kind: Kind = Kind.INTEGER


def standard_table(index: str, *, writable: bool = True) -> Table:
    """pethPsePortTable (RFC 3621)."""
    return Table(
        POE_PORT,
        index,
        (
            Column(3, "admin", (ON, OFF), writable=writable),
            Column(4, "fixed", (2,)),  # the pairs cannot be chosen
            Column(5, "fixed", (1,)),  # signal pairs
            Column(6, "state", (DISABLED, SEARCHING, DELIVERING)),
            Column(7, "fixed", (3,)),  # low priority
            Column(8, "fixed", (0,), Kind.COUNTER),
            Column(9, "fixed", (b"",), Kind.STRING),
            Column(10, "class", (1,)),
            Column(11, "fixed", (0,), Kind.COUNTER),
            Column(12, "denied", (), Kind.COUNTER),
            Column(13, "fixed", (0,), Kind.COUNTER),
            Column(14, "fixed", (0,), Kind.COUNTER),
        ),
    )


@dataclass(frozen=True, slots=True)
class Family:
    """One family. Names are formats of {m} member, {p} port in it, {n} number over the stack, {m0} and {p0} from 0.

    first_index   ifIndex of the first port; `member_step` later the next member's ports begin, 0: they count on
    tables        of the PoE ports, POWER-ETHERNET-MIB's among them where it is served
    fdb           qbridge (and BRIDGE-MIB's), bridge (that alone), vlan (BRIDGE-MIB's, one VLAN at a time)
    bridge_port   what dot1dBasePort is: number or ifindex; `fdb_ifindex`: the forwarding table holds ifIndex regardless
    group_unit    milliwatts in one of pethMainPseConsumptionPower; the RFC says 1000
    uplinks_each  every member has uplinks; else the last has all of them
    poe_members   only so many members show their PoE; 0: all
    extra         interfaces that are no sockets: ifIndex, ifName, ifDescr, ifType
    entity_alias  ENTITY-MIB and the old Catalyst table say which interface a PoE port is
    lldp_ports    lldpLocPortTable says so
    omits         what the family's real switches show, or may, and this one does not
    """

    name: str
    object_id: Oid
    descr: str
    if_name: str
    if_descr: str
    tables: tuple[Table, ...]
    scalars: tuple[Scalar, ...] = ()
    first_index: int = 1
    member_step: int = 0
    fdb: str = "qbridge"
    bridge_port: str = "number"
    fdb_ifindex: bool = False
    group_unit: int = 1000
    uplinks_each: bool = False
    poe_members: int = 0
    extra: tuple[tuple[int, str, str, int], ...] = ()
    entity_alias: bool = False
    lldp_ports: bool = False
    omits: str = ""


@dataclass(frozen=True, slots=True)
class Socket:
    """A port of the face. `number` counts over the stack in order of member and port; `has_poe`: uplinks have none."""

    number: int
    member: int
    port: int
    if_index: int
    bridge_port: int
    name: str
    descr: str
    has_poe: bool
    vlan: int = 1
    is_trunk: bool = False


# From a socket to its index in a table of PoE ports.
INDEXES: dict[str, Callable[[Socket], Oid]] = {
    "member.port": lambda socket: (socket.member, socket.port),
    "member.number": lambda socket: (socket.member, socket.number),
    "member.ifindex": lambda socket: (socket.member, socket.if_index),
    "1.ifindex": lambda socket: (1, socket.if_index),
    "1.number": lambda socket: (1, socket.number),
    "1+3m.bridge": lambda socket: (1 + 3 * socket.member, socket.bridge_port),
    "number": lambda socket: (socket.number,),
    "ifindex": lambda socket: (socket.if_index,),
}


@dataclass(frozen=True, slots=True)
class Quirks:
    """What a switch does wrong, or slowly.

    delay          seconds before each answer, one after the other
    loss           share of the requests, and of the answers, that get lost; `seed` of which
    bulk_silence   seconds without any answer after a GETBULK (versions 1 and 2c: v3 hides what a request is)
    refusal        error-status of every set, 0: none is refused
    does_nothing   it says yes to a set
    without_poe    numbers of ports that have no PoE: they have no rows
    fdb_ifindex    the forwarding table holds ifIndex in the place of bridge ports
    no_qbridge     it has BRIDGE-MIB's forwarding table only
    """

    delay: float = 0.0
    loss: float = 0.0
    seed: int = 1
    bulk_silence: float = 0.0
    refusal: int = 0
    does_nothing: bool = False
    without_poe: frozenset[int] = frozenset()
    fdb_ifindex: bool = False
    no_qbridge: bool = False


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Who answers LLDP at the other end of a cable."""

    name: str
    mac: str
    port_id: str
    descr: str = "a switch"


@dataclass(frozen=True, slots=True)
class BridgeState:
    """The bridge at one moment. `stp` of the ports by number, as `ip -d -j link` has it; those without are down.

    learned  MAC -> number of the port
    vlans    MAC -> VLAN, where it is not the one of its port
    """

    mac: str
    up: frozenset[int]
    stp: Mapping[int, str]
    learned: Mapping[str, int]
    vlans: Mapping[str, int] = field(default_factory=dict)


class State(Protocol):
    """What the tables show; ports go by their number. Called in one thread."""

    name: str
    quirks: Quirks

    def uptime(self) -> float: ...
    def is_on(self, number: int) -> bool: ...
    def word(self, number: int) -> int | None:
        """The value that switched it on, where a family has several."""

    def switch_power(self, number: int, on: bool, word: int | None = None) -> bool: ...
    def detection(self, number: int) -> int: ...
    def milliwatts(self, number: int) -> int: ...
    def power_class(self, number: int) -> int: ...
    def denied(self, number: int) -> int: ...
    def budget(self) -> int:
        """Milliwatts, of all ports together."""

    def is_up(self, number: int) -> bool: ...
    def interface_on(self, number: int) -> bool: ...
    def switch_interface(self, number: int, on: bool) -> bool: ...
    def neighbours(self) -> Mapping[int, Neighbour]: ...


def lay_out(
    family: Family,
    ports: int = 24,
    members: int = 1,
    uplinks: int = 2,
    *,
    vlan: int = 1,
    without_poe: frozenset[int] = frozenset(),
) -> tuple[Socket, ...]:
    """The face: `ports` with PoE on each member and `uplinks` without, on each or on the last."""
    sockets: list[Socket] = []
    for member in range(1, members + 1):
        count = ports + (uplinks if family.uplinks_each or member == members else 0)
        for port in range(1, count + 1):
            number = len(sockets) + 1
            if_index = family.first_index + (
                (member - 1) * family.member_step + port - 1 if family.member_step else number - 1
            )
            words = {"m": member, "p": port, "n": number, "m0": member - 1, "p0": port - 1}
            has_poe = port <= ports and number not in without_poe
            sockets.append(
                Socket(
                    number,
                    member,
                    port,
                    if_index,
                    if_index if family.bridge_port == "ifindex" else number,
                    family.if_name.format(**words),
                    family.if_descr.format(**words),
                    has_poe and not 0 < family.poe_members < member,
                    vlan,
                    port > ports,
                )
            )
    return tuple(sockets)


def roots(family: Family, *, own_interfaces: bool = True) -> list[Oid]:
    """The parts of the tree that the tables of a family are in."""
    bases = [SYSTEM, BRIDGE, ENTITY, POE, LLDP]
    if own_interfaces:
        bases += [IF, IF_X]
    vendors = {table.entry[:7] for table in family.tables if table.entry[:6] == ENTERPRISES}
    vendors |= {scalar.oid[:7] for scalar in family.scalars}
    return [*bases, *sorted(vendors)]


# --------------------------------------------------------------------------------------------------------- the tables


def system_cells(family: Family, state: State) -> dict[Oid, Cell]:
    """The system group (RFC 3418)."""
    return {
        (*SYSTEM, 1, 0): _fixed(Kind.STRING, family.descr.encode("latin-1")),
        (*SYSTEM, 2, 0): _fixed(Kind.OBJECT_ID, family.object_id),
        (*SYSTEM, 3, 0): Cell(Kind.TIME_TICKS, lambda: int(state.uptime() * 100) & 0xFFFFFFFF),
        (*SYSTEM, 4, 0): _fixed(Kind.STRING, b""),
        (*SYSTEM, 5, 0): _fixed(Kind.STRING, state.name.encode("latin-1")),
        (*SYSTEM, 6, 0): _fixed(Kind.STRING, b""),
        (*SYSTEM, 7, 0): _fixed(Kind.INTEGER, 2),  # a bridge
    }


def interface_cells(family: Family, sockets: tuple[Socket, ...], state: State, mac: str) -> dict[Oid, Cell]:
    """ifTable and ifXTable (RFC 2863)."""
    cells = {(*IF, 1, 0): _fixed(Kind.INTEGER, len(sockets) + len(family.extra))}
    for socket in sockets:
        cells |= _interface_row(socket.if_index, socket.name, socket.descr, ETHERNET, mac)
        number = socket.number
        cells[*IF_ENTRY, 7, socket.if_index] = Cell(
            Kind.INTEGER,
            lambda number=number: 1 if state.interface_on(number) else 2,  # type: ignore[misc]
            None
            if state.quirks.refusal
            else lambda value, number=number: _done(state.switch_interface(number, value == 1)),  # type: ignore[misc]
            frozenset({1, 2}),
            state.quirks.refusal or GEN_ERR,
        )
        cells[*IF_ENTRY, 8, socket.if_index] = Cell(
            Kind.INTEGER,
            lambda number=number: 1 if state.is_up(number) else 2,  # type: ignore[misc]
        )
    for if_index, name, descr, if_type in family.extra:
        cells |= _interface_row(if_index, name, descr, if_type, mac)
    return cells


def _interface_row(if_index: int, name: str, descr: str, if_type: int, mac: str) -> dict[Oid, Cell]:
    return {
        (*IF_ENTRY, 1, if_index): _fixed(Kind.INTEGER, if_index),
        (*IF_ENTRY, 2, if_index): _fixed(Kind.STRING, descr.encode()),
        (*IF_ENTRY, 3, if_index): _fixed(Kind.INTEGER, if_type),
        (*IF_ENTRY, 4, if_index): _fixed(Kind.INTEGER, 1500),
        (*IF_ENTRY, 5, if_index): _fixed(Kind.GAUGE, 1_000_000_000),
        (*IF_ENTRY, 6, if_index): _fixed(Kind.STRING, _octets(mac)),
        (*IF_ENTRY, 7, if_index): _fixed(Kind.INTEGER, 1),
        (*IF_ENTRY, 8, if_index): _fixed(Kind.INTEGER, 1),
        (*IF_ENTRY, 9, if_index): _fixed(Kind.TIME_TICKS, 0),
        (*IF_X_ENTRY, 1, if_index): _fixed(Kind.STRING, name.encode()),
        (*IF_X_ENTRY, 15, if_index): _fixed(Kind.GAUGE, 1000),
        (*IF_X_ENTRY, 18, if_index): _fixed(Kind.STRING, b""),
    }


def poe_cells(family: Family, sockets: tuple[Socket, ...], state: State) -> dict[Oid, Cell]:
    """All tables of the PoE, standard and private."""
    cells: dict[Oid, Cell] = {}
    powered = [socket for socket in sockets if socket.has_poe]
    for table in family.tables:
        index = INDEXES[table.index]
        for socket in powered:
            for column in table.columns:
                cells[*table.entry, column.number, *index(socket)] = _column_cell(column, socket, index(socket), state)
        if table.entry == POE_PORT:
            cells |= _group_cells(family, index, powered, state)
    for scalar in family.scalars:
        cells[scalar.oid] = _scalar_cell(scalar, powered, state)
    if family.entity_alias:
        cells |= _entity_cells(powered)
    return cells


def _column_cell(column: Column, socket: Socket, index: Oid, state: State) -> Cell:
    number, values = socket.number, column.values
    if column.what == "admin":
        return _admin_cell(column, number, state)
    reads: dict[str, Callable[[], Value]] = {
        "state": lambda: values[state.detection(number) - 1],
        "power": lambda: state.milliwatts(number) // int(values[0]),
        "class": lambda: state.power_class(number) + int(values[0]),
        "fed": lambda: values[0 if state.detection(number) == DELIVERING else 1],
        "fixed": lambda: values[0],
        "denied": lambda: state.denied(number),
        "index": lambda: index[-1],
        "group": lambda: index[0],
        "name": socket.name.encode,
        "entity": lambda: entity_of(socket),
    }
    return Cell(column.kind, reads[column.what])


def _admin_cell(column: Column, number: int, state: State) -> Cell:
    on, off = (value for value in column.values if isinstance(value, int))

    def read() -> int:
        return (state.word(number) or on) if state.is_on(number) and column.also else on if state.is_on(number) else off

    def write(value: int) -> int:
        return _done(state.switch_power(number, value != off, value if value in column.also else None))

    allowed = column.writable and not state.quirks.refusal
    takes = frozenset((on, off, *column.also))
    if not column.writable:
        return Cell(column.kind, read)
    return Cell(column.kind, read, write if allowed else None, takes, state.quirks.refusal or GEN_ERR)


def _group_cells(
    family: Family, index: Callable[[Socket], Oid], powered: list[Socket], state: State
) -> dict[Oid, Cell]:
    """pethMainPseTable: the groups share the budget equally."""
    groups: dict[int, list[int]] = {}
    for socket in powered:
        groups.setdefault(index(socket)[0], []).append(socket.number)
    cells: dict[Oid, Cell] = {}
    for group, numbers in groups.items():
        cells |= {
            (*POE_MAIN, 2, group): Cell(Kind.GAUGE, lambda: state.budget() // len(groups) // 1000),
            (*POE_MAIN, 3, group): _fixed(Kind.INTEGER, 1),  # on
            (*POE_MAIN, 4, group): Cell(
                Kind.GAUGE,
                lambda numbers=numbers: sum(map(state.milliwatts, numbers)) // family.group_unit,  # type: ignore[misc]
            ),
            (*POE_MAIN, 5, group): _fixed(Kind.INTEGER, 80),  # percent at which a real one sends a trap
        }
    return cells


def _scalar_cell(scalar: Scalar, powered: list[Socket], state: State) -> Cell:
    unit = scalar.values[0]

    def total() -> int:
        return sum(state.milliwatts(socket.number) for socket in powered)

    reads: dict[str, Callable[[], Value]] = {
        "fixed": lambda: unit,
        "total": lambda: total() // unit,
        "rest": lambda: (state.budget() - total()) // unit,
        "budget": lambda: state.budget() // unit,
    }
    return Cell(scalar.kind, reads[scalar.what])


def entity_of(socket: Socket) -> int:
    """entPhysicalIndex of a port; the way Catalysts count (assumed)."""
    return 1000 * socket.member + socket.port


def _entity_cells(powered: list[Socket]) -> dict[Oid, Cell]:
    cells = {}
    for socket in powered:
        # entAliasMappingIdentifier; and portIfIndex of CISCO-STACK-MIB
        cells[*ENTITY, 1, 3, 2, 1, 2, entity_of(socket), 0] = _fixed(Kind.OBJECT_ID, (*IF_ENTRY, 1, socket.if_index))
        cells[*CISCO, 5, 1, 4, 1, 1, 11, socket.member, socket.port] = _fixed(Kind.INTEGER, socket.if_index)
    return cells


def vlan_cells(sockets: tuple[Socket, ...]) -> dict[Oid, Cell]:
    """Cisco's own tables of VLANs: which there are, whose access port is whose, and the trunks' native one."""
    cells: dict[Oid, Cell] = {}
    for vlan in sorted({1, *(socket.vlan for socket in sockets)}):
        cells[*CISCO, 9, 46, 1, 3, 1, 1, 2, 1, vlan] = _fixed(Kind.INTEGER, 1)  # vtpVlanState: operational
    for socket in sockets:
        if socket.is_trunk:
            cells[*CISCO, 9, 46, 1, 6, 1, 1, 5, socket.if_index] = _fixed(Kind.INTEGER, 1)
        else:
            cells[*CISCO, 9, 68, 1, 2, 2, 1, 2, socket.if_index] = _fixed(Kind.INTEGER, socket.vlan)
    return cells


def bridge_cells(family: Family, sockets: tuple[Socket, ...], state: BridgeState, vlan: int = 0) -> dict[Oid, Cell]:
    """BRIDGE-MIB (RFC 4188) and, with `fdb` qbridge, the forwarding table of Q-BRIDGE-MIB (RFC 4363).

    vlan  show the ports and addresses of this one alone; 0: of all
    """
    shown = [socket for socket in sockets if not vlan or socket.vlan == vlan or socket.is_trunk]
    cells: dict[Oid, Cell] = {
        (*BRIDGE, 1, 1, 0): _fixed(Kind.STRING, _octets(state.mac)),
        (*BRIDGE, 1, 2, 0): _fixed(Kind.INTEGER, len(shown)),
        (*BRIDGE, 1, 3, 0): _fixed(Kind.INTEGER, 2),  # transparent-only
        (*BRIDGE, 4, 2, 0): _fixed(Kind.INTEGER, 300),  # dot1dTpAgingTime
    }
    for socket in shown:
        port = socket.bridge_port
        cells[*BASE_PORT, 1, port] = _fixed(Kind.INTEGER, port)
        cells[*BASE_PORT, 2, port] = _fixed(Kind.INTEGER, socket.if_index)
        cells[*BASE_PORT, 3, port] = _fixed(Kind.OBJECT_ID, (0, 0))
        cells[*STP_PORT, 1, port] = _fixed(Kind.INTEGER, port)
        cells[*STP_PORT, 3, port] = _fixed(Kind.INTEGER, STP_STATES.get(state.stp.get(socket.number, ""), 1))
    by_number = {socket.number: socket for socket in shown}
    found: dict[int, int] = {}
    rows = [(state.mac, 0, SELF, vlan or 1)]
    for mac, number in state.learned.items():
        at = by_number.get(number)
        its = state.vlans.get(mac, at.vlan if at else 1)
        if at is not None and vlan in {0, its}:
            rows.append((mac, at.if_index if family.fdb_ifindex else at.bridge_port, LEARNED, its))
            found[its] = found.get(its, 0) + 1
    for mac, port, status, its in rows:
        digits = tuple(_octets(mac))
        cells[*FDB, 1, *digits] = _fixed(Kind.STRING, _octets(mac))
        cells[*FDB, 2, *digits] = _fixed(Kind.INTEGER, port)
        cells[*FDB, 3, *digits] = _fixed(Kind.INTEGER, status)
        if family.fdb == "qbridge":
            cells[*VLAN_FDB, 2, its, *digits] = _fixed(Kind.INTEGER, port)
            cells[*VLAN_FDB, 3, its, *digits] = _fixed(Kind.INTEGER, status)
    if family.fdb == "qbridge":
        for each in sorted({1, *(socket.vlan for socket in sockets), *found}):
            cells[*BRIDGE, 7, 1, 2, 1, 1, 2, each] = _fixed(Kind.COUNTER, found.get(each, 0))  # dot1qFdbDynamicCount
            cells[*BRIDGE, 7, 1, 4, 2, 1, 3, 0, each] = _fixed(Kind.GAUGE, each)  # dot1qVlanFdbId
    return cells


def lldp_cells(family: Family, sockets: tuple[Socket, ...], neighbours: Mapping[int, Neighbour]) -> dict[Oid, Cell]:
    """lldpRemTable, whose local port is the bridge port; lldpLocPortTable where the family has it (IEEE 802.1AB)."""
    cells: dict[Oid, Cell] = {}
    for socket in sockets:
        if family.lldp_ports:
            row = (*LLDP, 1, 3, 7, 1)
            cells[*row, 2, socket.bridge_port] = _fixed(Kind.INTEGER, 7)  # a local name
            cells[*row, 3, socket.bridge_port] = _fixed(
                Kind.STRING, f"{socket.member}/0/{socket.port}".encode("latin-1")
            )
            cells[*row, 4, socket.bridge_port] = _fixed(Kind.STRING, socket.name.encode("latin-1"))
        neighbour = neighbours.get(socket.number)
        if neighbour is None:
            continue
        values: dict[int, tuple[Kind, Value]] = {
            4: (Kind.INTEGER, 4),  # the chassis by its MAC
            5: (Kind.STRING, _octets(neighbour.mac)),
            6: (Kind.INTEGER, 5),  # the port by its name
            7: (Kind.STRING, neighbour.port_id.encode("latin-1")),
            8: (Kind.STRING, neighbour.port_id.encode("latin-1")),
            9: (Kind.STRING, neighbour.name.encode("latin-1")),
            10: (Kind.STRING, neighbour.descr.encode("latin-1")),
            11: (Kind.STRING, b"\x20"),  # a bridge
            12: (Kind.STRING, b"\x20"),
        }
        for column, (kind, value) in values.items():
            cells[*LLDP, 1, 4, 1, 1, column, 0, socket.bridge_port, 1] = _fixed(kind, value)
    return cells


def _fixed(kind: Kind, value: Value) -> Cell:
    return Cell(kind, lambda: value)


def _done(done: bool) -> int:
    return NO_ERROR if done else GEN_ERR


def _octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


# --------------------------------------------------------------------------------------------------------- the families

_CISCO_PSE: Oid = (*CISCO, 9, 402, 1, 2, 1)
_HUAWEI: Oid = (*ENTERPRISES, 2011)
_TPLINK: Oid = (*ENTERPRISES, 11863)
_TPLINK_POE: Oid = (*_TPLINK, 6, 56, 1)
_DLINK: Oid = (*ENTERPRISES, 171)

_ROWS = (
    Family(
        "standard",
        # The number of net-snmp, since nobody gives one to a switch that does not exist.
        (*ENTERPRISES, 8072, 9999, 9999),
        "Piman lab PoE switch",
        "port{n}",
        "port{n}",
        (standard_table("1.number"),),
        omits="nothing: it is RFC 3621 on one group; it cannot be stacked as real ones are",
    ),
    Family(
        "cisco-ios",
        (*CISCO, 1, 516),
        "Cisco IOS Software, C3750 Software (C3750-IPSERVICESK9-M), Version 12.2(55)SE\r\nTechnical Support:"
        " http://www.cisco.com/techsupport\r\nCompiled by the lab",
        "Gi{m}/0/{p}",
        "GigabitEthernet{m}/0/{p}",
        (
            standard_table("member.port"),
            Table(
                _CISCO_PSE,
                "member.port",
                (
                    Column(1, "admin", (1, 4), also=(2, 3)),  # auto, disable; static, limit
                    Column(6, "fixed", (30_000,)),
                    Column(7, "fed", (15_400, 0)),
                    Column(8, "fed", (15_400, 0)),
                    Column(9, "power", (1,)),
                    Column(10, "power", (1,)),
                    Column(11, "entity"),
                ),
            ),
        ),
        first_index=10101,
        member_step=500,
        fdb="vlan",
        uplinks_each=True,
        extra=((1, "Vl1", "Vlan1", VLAN_INTERFACE), (5001, "Po1", "Port-channel1", BUNDLE), (14501, "Nu0", "Null0", 1)),
        entity_alias=True,
        omits="columns 2-5 of cpeExtPsePortTable, entPhysicalTable itself, CISCO-VTP beyond the VLANs' state",
    ),
    Family(
        "cisco-sb",
        (*CISCO, 6, 1, 1004, 28, 6),
        "CBS350-24P-4G 24-Port Gigabit PoE Managed Switch",
        "gi{m}/0/{p}",
        "GigabitEthernet{m}/0/{p}",
        (
            standard_table("member.ifindex"),
            Table(
                (*CISCO, 6, 1, 101, 108, 1, 1),
                "member.ifindex",
                (
                    Column(1, "group"),
                    Column(2, "index"),
                    Column(3, "fed", (49_000, 0)),
                    Column(4, "fed", (82, 0)),
                    Column(5, "power", (1,)),
                    Column(6, "fixed", (30_000,)),
                ),
            ),
        ),
        first_index=49,
        member_step=108,  # assumed
        bridge_port="ifindex",
        uplinks_each=True,
        extra=((1000, "Po1", "Port-Channel1", BUNDLE), (100_000, "1", "Vlan 1", VLAN_INTERFACE)),
        omits="rlPethPsePortTable from column 7 on; sysObjectID and where a member's ifIndexes begin are assumed",
    ),
    Family(
        "procurve",
        (*ENTERPRISES, 11, 2, 3, 7, 11, 181),
        "Aruba JL255A 2930F-24G-PoE+-4SFP+ Switch, revision WC.16.10.0003, ROM WC.16.01.0006",
        "{m}/{p}",
        "{m}/{p}",
        (
            standard_table("member.number"),
            Table(
                (*ENTERPRISES, 11, 2, 14, 11, 1, 9, 1, 1, 1),
                "member.number",
                (
                    Column(1, "fed", (80, 0)),
                    Column(2, "fed", (499, 0)),
                    Column(3, "power", (1,)),
                    Column(8, "power", (1,)),
                ),
            ),
        ),
        extra=((600, "DEFAULT_VLAN", "DEFAULT_VLAN", VLAN_INTERFACE), (4000, "lo0", "HP Switch software loopback", 24)),
        omits="columns 4-7 of hpicfPoePethPsePortTable; a stack's uplinks are all on its last member",
    ),
    Family(
        "aos-cx",
        (*ENTERPRISES, 47196, 4, 1, 1, 1, 101),
        "Aruba JL662A FL.10.08.1021",
        "{m}/1/{p}",
        "{m}/1/{p}",
        (
            standard_table("member.port"),
            Table(
                (*ENTERPRISES, 47196, 4, 1, 1, 3, 8, 1, 1, 1),
                "member.port",
                (Column(6, "fed", (13_920, 0)), Column(7, "power", (1,))),
            ),
        ),
        member_step=64,
        uplinks_each=True,
        extra=((16_777_217, "vlan1", "vlan1", VLAN_INTERFACE),),
        omits="the other columns of arubaWiredPoePethPsePortTable, IEEE8021-Q-BRIDGE-MIB",
    ),
    # On chassis the port of the PoE index is the ifIndex: 1.193 for 4/1/1 has been seen.
    Family(
        "aos-cx-chassis",
        (*ENTERPRISES, 47196, 4, 1, 1, 1, 201),
        "Aruba R0X27A FL.10.08.1021",
        "{m}/1/{p}",
        "{m}/1/{p}",
        (
            standard_table("1.ifindex"),
            Table(
                (*ENTERPRISES, 47196, 4, 1, 1, 3, 8, 1, 1, 1),
                "1.ifindex",
                (Column(6, "fed", (13_920, 0)), Column(7, "power", (1,))),
            ),
        ),
        member_step=64,
        uplinks_each=True,
        extra=((16_777_217, "vlan1", "vlan1", VLAN_INTERFACE),),
        omits="as aos-cx",
    ),
    Family(
        "comware",
        (*ENTERPRISES, 25506, 11, 1, 189),
        "HPE Comware Platform Software, Software Version 7.1.070, Release 3507P18\r\nHPE 5130-24G-PoE+-4SFP+ EI\r\n"
        "Copyright (c) 2010-2023",
        "GigabitEthernet{m}/0/{p}",
        "GigabitEthernet{m}/0/{p}",
        (
            standard_table("1+3m.bridge"),
            Table(
                (*ENTERPRISES, 25506, 2, 14, 1, 1),
                "1+3m.bridge",
                (
                    Column(3, "power", (1,)),
                    Column(4, "power", (1,)),
                    Column(5, "power", (1,)),
                    Column(6, "fixed", (30_000,)),
                ),
            ),
        ),
        uplinks_each=True,
        extra=((635, "Vlan-interface1", "Vlan-interface1", VLAN_INTERFACE), (634, "NULL0", "NULL0", 1)),
        omits="columns 1, 2 and 7 of hh3cPsePortTable; that ports count on over the stack is assumed",
    ),
    Family(
        "netgear",
        (*ENTERPRISES, 4526, 100, 4, 36),
        "S3300-28X-PoE+ ProSAFE 24-port Gigabit Stackable Smart Switch with PoE+",
        "{m}/g{p}",
        "Unit: {m} Slot: 0 Port: {p} Gigabit - Level",
        (
            standard_table("member.port"),
            Table(
                (*ENTERPRISES, 4526, 10, 15, 1, 1, 1),
                "member.port",
                (
                    Column(1, "fixed", (30_000,), Kind.GAUGE),
                    Column(2, "power", (1,), Kind.GAUGE),
                    Column(3, "fed", (75, 0), Kind.GAUGE),
                    Column(4, "fed", (53, 0), Kind.GAUGE),
                ),
            ),
        ),
        group_unit=1,
        extra=(
            (417, "vlan 1", "CPU Interface for Slot: 5 Port: 1", VLAN_INTERFACE),
            (418, "lag 1", " Link Aggregate 1", BUNDLE),
        ),
        omits="the tables under 4526.11 that older and smart families have; a stack's index is assumed",
    ),
    Family(
        "tplink",
        (*_TPLINK, 5, 89),
        "JetStream 24-Port Gigabit L2 Managed Switch with 4 SFP Slots and PoE+",
        "gigabitEthernet {m}/0/{p}",
        "gigabitEthernet {m}/0/{p} : copper",
        (
            Table(
                (*_TPLINK_POE, 1, 2, 1, 1),
                "number",
                (
                    Column(1, "index"),
                    Column(2, "admin", (1, 0)),
                    Column(3, "fixed", (2,)),
                    Column(4, "fixed", (300,)),
                    Column(5, "fixed", (b"No Limit",), Kind.STRING),
                    Column(6, "fixed", (b"None",), Kind.STRING),
                    Column(7, "power", (100,)),
                    Column(8, "fed", (75, 0)),
                    Column(9, "fed", (530, 0)),
                    Column(10, "class", (0,)),
                    Column(11, "state", (0, 0, 2)),  # off, and on; turning-on(1) is not shown
                ),
            ),
            # Auto recovery: off on every port, as it is from the factory.
            Table(
                (*_TPLINK_POE, 3, 2, 1, 1),
                "number",
                (
                    Column(1, "index"),
                    Column(2, "fixed", (b"0.0.0.0",), Kind.STRING),
                    Column(3, "fixed", (60,)),
                    Column(4, "fixed", (30,)),
                    Column(5, "fixed", (3,)),
                    Column(6, "fixed", (15,)),
                    Column(7, "fixed", (0,)),
                    Column(8, "fixed", (0,)),
                    Column(9, "fixed", (0,)),
                    Column(10, "fixed", (0,)),
                ),
            ),
        ),
        scalars=(
            Scalar((*_TPLINK_POE, 1, 1, 1, 0), "budget", (100,)),
            Scalar((*_TPLINK_POE, 1, 1, 2, 0), "fixed", (1,)),
            Scalar((*_TPLINK_POE, 1, 1, 3, 0), "total", (100,)),
            Scalar((*_TPLINK_POE, 1, 1, 4, 0), "rest", (100,)),
            Scalar((*_TPLINK_POE, 3, 1, 1, 0), "fixed", (0,)),
        ),
        first_index=49153,
        lldp_ports=True,
        omits="the private forwarding table that some have in place of the standard ones, PoE profiles; auto recovery"
        " can be seen, not set, and never acts",
    ),
    Family(
        "mikrotik",
        (*ENTERPRISES, 14988, 1),
        "RouterOS CRS328-24P-4S+",
        "ether{p}",
        "ether{p}",
        (
            Table(
                (*ENTERPRISES, 14988, 1, 1, 15, 1, 1),
                "ifindex",
                (
                    Column(2, "name", (), Kind.STRING),
                    Column(3, "state", (1, 2, 3)),
                    Column(4, "fed", (530, 0)),
                    Column(5, "fed", (75, 0)),
                    Column(6, "power", (100,)),
                ),
            ),
        ),
        fdb="bridge",
        extra=((100, "bridge", "bridge", 209),),
        omits="nothing of the PoE: RouterOS shows it and lets nobody set it; volts and watts in tenths",
    ),
    Family(
        "zyxel-gs1915",
        (*ENTERPRISES, 890, 1, 15),
        "GS1915-24EP",
        "swp{p0:02d}",
        "swp{p0:02d}",
        (
            standard_table("1.number"),
            Table((*ENTERPRISES, 890, 1, 15, 3, 59, 2, 1, 1), "number", (Column(1, "power", (1,)),)),
        ),
        extra=((65, "vlan1", "vlan1", VLAN_INTERFACE),),
        omits="the other columns of zyPoePsePortTable, its auto recovery; sysObjectID and names are assumed",
    ),
    Family(
        "juniper",
        (*ENTERPRISES, 2636, 1, 1, 1, 2, 63),
        "Juniper Networks, Inc. ex3300-24p Ethernet Switch, kernel JUNOS 12.3R12",
        "ge-{m0}/0/{p0}",
        "ge-{m0}/0/{p0}",
        (standard_table("member.port", writable=False),),
        first_index=510,
        member_step=100,
        uplinks_each=True,
        poe_members=1,
        extra=((33, "me0", "me0", ETHERNET), (502, "vlan", "vlan", VLAN_INTERFACE)),
        omits="Junos' own tables, so no watts of a port; the logical interfaces (ge-0/0/0.0) that its bridge ports are",
    ),
    Family(
        "huawei",
        (*_HUAWEI, 2, 23, 304),
        "S5720-28P-PWR-LI-AC\r\nHuawei Versatile Routing Platform Software\r\nVRP (R) software,Version 5.170",
        "GigabitEthernet{m0}/0/{p}",
        "GigabitEthernet{m0}/0/{p}",
        (
            Table(
                (*_HUAWEI, 5, 25, 195, 3, 1),
                "ifindex",
                (
                    Column(2, "name", (), Kind.STRING),
                    Column(3, "admin", (1, 2)),
                    Column(4, "fixed", (3,)),
                    Column(5, "fixed", (30_000,)),
                    Column(6, "fed", (b"on", b"off"), Kind.STRING),
                    # "Powered" has been seen; the other two words are assumed.
                    Column(7, "state", (b"Disabled", b"Detecting", b"Powered"), Kind.STRING),
                    Column(8, "class", (0,)),
                    Column(9, "fed", (15_400, 0)),
                    Column(10, "power", (1,)),
                    Column(11, "power", (1,)),
                    Column(12, "power", (1,)),
                ),
            ),
        ),
        first_index=5,
        extra=(
            (1, "InLoopBack0", "InLoopBack0", 24),
            (2, "NULL0", "NULL0", 1),
            (4, "Vlanif1", "Vlanif1", VLAN_INTERFACE),
        ),
        omits="the slots' table (195.2), manual operation; where a second member's ifIndexes begin is assumed",
    ),
    Family(
        "dlink",
        (*_DLINK, 10, 113, 9),
        "DES-3200-28P Fast Ethernet Switch",
        "1/{n}",
        "D-Link DES-3200-28P R4.36 Port {n}",
        (
            Table(
                (*_DLINK, 12, 24, 3, 1, 1),
                "number",
                (
                    Column(1, "index"),
                    Column(2, "admin", (2, 3), also=(1,)),  # enable, disable; other
                    Column(3, "fixed", (3,)),
                ),
            ),
            Table(
                (*_DLINK, 12, 24, 4, 1, 1),
                "number",
                (
                    Column(1, "index"),
                    Column(2, "class", (0,)),
                    Column(3, "power", (1,)),
                    Column(4, "fed", (530, 0)),
                    Column(5, "fed", (75, 0)),
                    Column(7, "state", (2, 2, 1)),  # its light: 1 on, 2 off
                ),
            ),
        ),
        extra=((5121, "System", "rif0-System", VLAN_INTERFACE),),
        omits="the unit's totals; that watts are in mW is assumed",
    ),
)

FAMILIES: dict[str, Family] = {family.name: family for family in _ROWS}


def with_quirks(family: Family, quirks: Quirks) -> Family:
    """The family with what concerns its tables."""
    return replace(
        family,
        fdb_ifindex=family.fdb_ifindex or quirks.fdb_ifindex,
        fdb="bridge" if quirks.no_qbridge and family.fdb == "qbridge" else family.fdb,
    )
