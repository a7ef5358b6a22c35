"""The families of switches as data: the face, the indexes, that no table is broken. Over SNMP: tests/peers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from lab.agentx import GEN_ERR, Kind, Oid, encode_value
from lab.families import (
    BASE_PORT,
    BRIDGE,
    DELIVERING,
    DISABLED,
    FAMILIES,
    FDB,
    INDEXES,
    POE_PORT,
    VLAN_FDB,
    BridgeState,
    Neighbour,
    Quirks,
    bridge_cells,
    interface_cells,
    lay_out,
    lldp_cells,
    poe_cells,
    roots,
    system_cells,
    vlan_cells,
    with_quirks,
)


class Still:
    """A switch with something on port 1, that takes every order and notes it."""

    name = "sw"

    def __init__(self, quirks: Quirks | None = None) -> None:
        self.quirks = quirks or Quirks()
        self.off: set[int] = set()
        self.words: dict[int, int | None] = {}
        self.orders: list[tuple[int, bool]] = []

    def uptime(self) -> float:
        return 12.345

    def is_on(self, number: int) -> bool:
        return number not in self.off

    def word(self, number: int) -> int | None:
        return self.words.get(number)

    def switch_power(self, number: int, on: bool, word: int | None = None) -> bool:
        self.orders.append((number, on))
        self.words[number] = word
        (self.off.discard if on else self.off.add)(number)
        return True

    def detection(self, number: int) -> int:
        return DISABLED if number in self.off else DELIVERING if number == 1 else 2

    def milliwatts(self, number: int) -> int:
        return 4300 if self.detection(number) == DELIVERING else 0

    def power_class(self, _number: int) -> int:
        return 3

    def denied(self, _number: int) -> int:
        return 5

    def budget(self) -> int:
        return 370_000

    def is_up(self, number: int) -> bool:
        return number == 1

    def interface_on(self, _number: int) -> bool:
        return True

    def switch_interface(self, _number: int, _on: bool) -> bool:
        return False

    def neighbours(self) -> Mapping[int, Neighbour]:
        return {}


STATE = BridgeState(
    "02:00:00:00:00:fe", frozenset({1}), {1: "forwarding"}, {"b8:27:eb:00:00:01": 1}, {"b8:27:eb:00:00:01": 1}
)
DIGITS = (0xB8, 0x27, 0xEB, 0, 0, 1)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
@pytest.mark.parametrize("members", [1, 3])
def test_every_object_can_be_shown_and_is_registered(family: object, members: int) -> None:
    row = FAMILIES[family.name]  # type: ignore[attr-defined]
    sockets, state = lay_out(row, 8, members), Still()
    cells = system_cells(row, state) | interface_cells(row, sockets, state, STATE.mac) | poe_cells(row, sockets, state)
    cells |= bridge_cells(row, sockets, STATE) | vlan_cells(sockets if row.fdb == "vlan" else ())
    cells |= lldp_cells(row, sockets, {9: Neighbour("other", "02:00:00:00:00:99", "1/1")})
    bases = roots(row)
    for oid, cell in cells.items():
        if row.fdb == "vlan" or oid[:7] != (1, 3, 6, 1, 4, 1, 9):
            assert any(oid[: len(base)] == base for base in bases), oid
        value = cell.read()
        expected = {Kind.STRING: bytes, Kind.OBJECT_ID: tuple}.get(cell.kind, int)
        assert isinstance(value, expected), oid
        encode_value(oid, cell.kind, value)
    assert len({each.if_index for each in sockets} | {each[0] for each in row.extra}) == len(sockets) + len(row.extra)
    assert len({each.bridge_port for each in sockets}) == len(sockets)
    assert [each.number for each in sockets] == list(range(1, len(sockets) + 1))
    assert row.omits


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_every_admin_object_switches_its_own_port(family: object) -> None:
    row = FAMILIES[family.name]  # type: ignore[attr-defined]
    sockets, state = lay_out(row, 4, 2), Still()
    cells = poe_cells(row, sockets, state)
    for table in row.tables:
        for column in (each for each in table.columns if each.what == "admin"):
            on, off = (value for value in column.values if isinstance(value, int))
            for socket in (each for each in sockets if each.has_poe):
                cell = cells[*table.entry, column.number, *INDEXES[table.index](socket)]
                if not column.writable:
                    assert cell.check(Kind.INTEGER, off)
                    continue
                assert cell.check(Kind.INTEGER, off) == 0
                state.orders.clear()
                assert cell.write
                assert (cell.read(), cell.write(off), cell.read(), state.orders) == (
                    on,
                    0,
                    off,
                    [(socket.number, False)],
                )
                for word in (*column.also, on):
                    assert (cell.write(word), cell.read()) == (0, word)


@pytest.mark.parametrize(
    ("family", "index", "names"),
    [
        ("cisco-ios", [(1, 2), (2, 1)], ["Gi1/0/2", "Gi2/0/1"]),
        ("cisco-sb", [(1, 50), (2, 157)], ["gi1/0/2", "gi2/0/1"]),
        ("procurve", [(1, 2), (2, 25)], ["1/2", "2/1"]),
        ("aos-cx-chassis", [(1, 2), (1, 65)], ["1/1/2", "2/1/1"]),
        ("comware", [(4, 2), (7, 27)], ["GigabitEthernet1/0/2", "GigabitEthernet2/0/1"]),
        ("netgear", [(1, 2), (2, 1)], ["1/g2", "2/g1"]),
        ("tplink", [(2,), (25,)], ["gigabitEthernet 1/0/2", "gigabitEthernet 2/0/1"]),
        ("huawei", [(6,), (29,)], ["GigabitEthernet0/0/2", "GigabitEthernet1/0/1"]),
        ("dlink", [(2,), (25,)], ["1/2", "1/25"]),
    ],
)
def test_indexes_of_a_stack(family: str, index: list[Oid], names: list[str]) -> None:
    row = FAMILIES[family]
    sockets = lay_out(row, 24, 2)
    chosen = [next(each for each in sockets if (each.member, each.port) == place) for place in ((1, 2), (2, 1))]
    assert [INDEXES[row.tables[0].index](socket) for socket in chosen] == index
    assert [socket.name for socket in chosen] == names


def test_a_single_switch_counts_its_uplinks_after_its_ports() -> None:
    sockets = lay_out(FAMILIES["cisco-ios"], 4, 1, 2, vlan=7, without_poe=frozenset({2}))
    assert [(each.port, each.has_poe, each.is_trunk, each.vlan) for each in sockets] == [
        (1, True, False, 7),
        (2, False, False, 7),
        (3, True, False, 7),
        (4, True, False, 7),
        (5, False, True, 7),
        (6, False, True, 7),
    ]


def test_juniper_shows_its_first_member_alone() -> None:
    assert {each.member for each in lay_out(FAMILIES["juniper"], 4, 3) if each.has_poe} == {1}


def test_forwarding_tables() -> None:
    sockets = lay_out(FAMILIES["cisco-sb"], 4)

    def value(family: str, base: Oid, vlan: int = 0, **quirks: bool) -> object:
        row = with_quirks(FAMILIES[family], Quirks(**quirks))  # type: ignore[arg-type]
        sockets = lay_out(row, 4, vlan=1)
        cell = bridge_cells(row, sockets, STATE, vlan).get((*base, *DIGITS))
        return cell.read() if cell else None

    assert value("cisco-sb", (*FDB, 2)) == 49
    assert value("procurve", (*VLAN_FDB, 2, 1)) == 1
    assert value("procurve", (*VLAN_FDB, 2, 1), no_qbridge=True) is None
    assert value("mikrotik", (*VLAN_FDB, 2, 1)) is None
    assert value("huawei", (*FDB, 2), fdb_ifindex=True) == 5
    assert (value("cisco-ios", (*FDB, 2), 1), value("cisco-ios", (*FDB, 2), 2)) == (1, None)
    cells = bridge_cells(FAMILIES["cisco-sb"], sockets, STATE)
    assert cells[*BASE_PORT, 2, 50].read() == 50
    assert cells[*FDB, 3, 2, 0, 0, 0, 0, 0xFE].read() == 4
    assert cells[*BRIDGE, 7, 1, 2, 1, 1, 2, 1].read() == 1
    unknown = BridgeState("02:00:00:00:00:fe", frozenset(), {}, {"b8:27:eb:00:00:01": 99})
    assert (*FDB, 2, *DIGITS) not in bridge_cells(FAMILIES["cisco-sb"], sockets, unknown)


def test_refused_writes_keep_their_reason() -> None:
    row = FAMILIES["standard"]
    state = Still(Quirks(refusal=GEN_ERR))
    sockets = lay_out(row, 2)
    assert poe_cells(row, sockets, state)[*POE_PORT, 3, 1, 1].check(Kind.INTEGER, 2) == GEN_ERR
    interfaces = interface_cells(row, sockets, state, STATE.mac)
    assert interfaces[1, 3, 6, 1, 2, 1, 2, 2, 1, 7, 1].check(Kind.INTEGER, 2) == GEN_ERR


def test_an_interface_that_cannot_be_switched_is_a_general_error() -> None:
    row = FAMILIES["standard"]
    cell = interface_cells(row, lay_out(row, 2), Still(), STATE.mac)[1, 3, 6, 1, 2, 1, 2, 2, 1, 7, 1]
    assert cell.write
    assert (cell.read(), cell.write(2)) == (1, GEN_ERR)
