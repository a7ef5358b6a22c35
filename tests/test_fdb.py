"""Tests of utility.fdb: switches in memory, each with a forwarding table of its own kind."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_snmp import FakeAgent
from utility.config import Switch
from utility.drivers import STANDARD, Driver, Oid
from utility.fdb import BRIDGE_FDB, VLAN_FDB, Place, Tables, digits_of, holds_interfaces, parse_table
from utility.snmp import OBJECTS, Row, Value

PI = "b8:27:eb:01:02:03"
IF_INDEX, IF_NAME, IF_DESCR = OBJECTS["dot1dBasePortIfIndex"], OBJECTS["ifName"], OBJECTS["ifDescr"]
OPER = OBJECTS["ifOperStatus"]
BRIDGE = Driver("bridge alone", fdb="bridge")
CISCO = Driver("cisco", fdb="vlan")

Cells = dict[Oid, Value]


def plain(table: Mapping[str, int]) -> Cells:
    return {(*BRIDGE_FDB, *digits_of(mac)): port for mac, port in table.items()}


def per_vlan(table: Mapping[str, int], fdb: int = 1) -> Cells:
    return {(*VLAN_FDB, fdb, *digits_of(mac)): port for mac, port in table.items()}


def interfaces(offset: int = 100, *, up: Collection[int] = range(1, 9), ports: int = 8) -> Cells:
    """Bridge port n is interface `offset` + n, called ge-0/0/n; its description is another word."""
    cells: Cells = {(*IF_INDEX, port): offset + port for port in range(1, ports + 1)}
    for port in range(1, ports + 1):
        cells |= {(*IF_DESCR, offset + port): f"Port {port}".encode(), (*OPER, offset + port): 1 if port in up else 2}
        cells[*IF_NAME, offset + port] = f"ge-0/0/{port}".encode()
    return cells


def neighbours(count: int, port: int) -> dict[str, int]:
    return {f"02:00:00:00:00:{number:02x}": port for number in range(count)}


def tables(
    cells: Cells, driver: Driver = STANDARD, hints: Collection[int] = (), version: str = "2c"
) -> tuple[FakeAgent, Tables]:
    agent = FakeAgent(cells, version)
    return agent, Tables(agent.snmp(Switch(0, IPv4Address("172.30.4.254"))), driver, hints)


@pytest.mark.parametrize("version", ["1", "2c"])
@pytest.mark.parametrize("kind", ["plain", "fdb 1", "fdb 7", "fdb 4094", "both"])
def test_each_kind_of_table_joins_to_the_interface(version: str, kind: str) -> None:
    rows: Cells = {}
    if kind in {"plain", "both"}:
        rows |= plain({PI: 3} | neighbours(2, port=4))
    if kind != "plain":
        fdb = 1 if kind == "both" else int(kind.split()[1])
        rows |= per_vlan({PI: 3} | neighbours(2, port=4), fdb) | per_vlan(neighbours(3, port=5), 6)
    agent, them = tables(rows | interfaces(), version=version)
    (place,) = them.find(PI)
    assert (place.entry, place.if_index, place.if_name, place.link) == (3, 103, "ge-0/0/3", True)
    if version == "2c" and kind in {"plain", "fdb 1", "both"}:
        assert len(agent.requests) == 3, "one question who has it, and two what that port is"
    (same,) = them.search(PI)
    assert (same.entry, same.if_index) == (3, 103)
    assert them.count(place, 9) == 1
    assert them.read(dict)[103] == {PI}


def test_a_mac_that_nobody_has_seen_costs_two_questions() -> None:
    agent, them = tables(plain(neighbours(3, port=1)) | interfaces())
    assert them.find(PI) == []
    assert len(agent.requests) == 2, "one GET, and one look for a table per VLAN"
    assert them.search(PI) == []


def test_hints_are_asked_first_and_in_the_same_question() -> None:
    agent, them = tables(per_vlan({PI: 3}, 9) | interfaces(), hints=[9, 9])
    assert [place.if_index for place in them.find(PI)] == [103]
    assert len(agent.requests) == 3
    assert len(agent.requests[0][2]) == 3


def test_a_mac_in_two_vlans_is_one_place_and_on_two_ports_two() -> None:
    _, them = tables(per_vlan({PI: 3}, 1) | per_vlan({PI: 3}, 2) | interfaces(), hints=[2])
    assert [place.if_index for place in them.find(PI)] == [103]
    cells = plain({PI: 3}) | per_vlan({PI: 3}, 1) | per_vlan({PI: 4}, 2) | interfaces()
    _, them = tables(cells, hints=[2, 1])
    assert [place.if_index for place in them.find(PI)] == [103, 104]
    _, them = tables(cells, hints=[2])
    assert [(place.if_index, place.table) for place in them.find(PI)] == [(104, VLAN_FDB)], "the one that was asked for"
    assert [place.if_index for place in them.search(PI)] == [103, 104]


def test_the_switch_itself_is_on_no_port() -> None:
    _, them = tables(plain({PI: 0}) | per_vlan({PI: 0}))
    assert (them.find(PI), them.search(PI), them.read(dict)) == ([], [], {})


def test_a_switch_with_a_plain_table_alone_is_not_asked_for_others() -> None:
    agent, them = tables(plain({PI: 3}) | interfaces(), BRIDGE)
    assert len(them.find(PI)) == len(them.search(PI)) == 1
    assert all(oid[: len(VLAN_FDB)] != VLAN_FDB for _, _, oids in agent.requests for oid in oids)
    assert them.read(dict) == {103: {PI}}


@pytest.mark.parametrize("index", [0, -1, b"3", None])
def test_an_entry_that_is_no_bridge_port_is_taken_for_the_interface(index: Value) -> None:
    _, them = tables(plain({PI: 3}) | {(*IF_INDEX, 3): index, (*IF_NAME, 3): b"", (*IF_DESCR, 3): b"three\0"})
    (place,) = them.find(PI)
    assert (place.if_index, place.if_name, place.link, place.if_type) == (3, "three", None, 0)
    assert them.read(dict) == {3: {PI}}


def test_a_name_moves_no_cursor() -> None:
    _, them = tables(plain({PI: 3}) | {(*IF_NAME, 3): "\x1b[2Jé\n3 ".encode()})
    assert them.find(PI)[0].if_name == "?[2Jé?3"


# ------------------------------------------------------------------------- bridge ports, or interfaces in their place


def shifted(up: Collection[int]) -> Cells:
    """Bridge port n is interface n + 4, and there are interfaces 1 to 28 all the same, as on Huawei's."""
    cells = interfaces(4, up=up, ports=24)
    return cells | {(*IF_NAME, each): b"Vlanif%d" % each for each in range(1, 5)}


@pytest.mark.parametrize("ports", [{7}, {1, 2, 3, 7}, {3, 7}, set(range(1, 9))])
@pytest.mark.parametrize("direct", [False, True])
def test_a_number_that_is_both_is_what_has_a_link(ports: set[int], direct: bool) -> None:
    """The Pi is on bridge port 7, interface 11; bridge port 3 is interface 7, and 11 is interface 15."""
    table = {PI: 11 if direct else 7}
    table |= {f"02:00:00:00:00:{port:02x}": port + 4 if direct else port for port in ports - {7}}
    _, them = tables(plain(table) | shifted(ports))
    (place,) = them.find(PI)
    assert place.if_index == 11
    links = {port + 4: port in ports for port in range(1, 25)}
    assert them.read(lambda: links)[11] == {PI}
    assert them.search(PI)[0].if_index == 11


def test_where_nothing_tells_the_two_apart_the_standard_holds() -> None:
    _, them = tables(plain({PI: 7}) | shifted(range(1, 9)))
    assert [them.find(PI)[0].if_index for _ in range(2)] == [11, 11]
    _, them = tables(plain({PI: 7}) | {oid: value for oid, value in shifted(()).items() if oid[:-1] != OPER})
    assert them.find(PI)[0].if_index == 11


@pytest.mark.parametrize(
    ("entries", "joins", "there", "up", "direct"),
    [
        ({3}, {}, {3}, (), True),
        ({3, 4}, {3: 103}, {103, 104}, {103}, False),  # one of them aged out of the other table
        ({3, 4}, {3: 103, 4: 104}, {103, 104}, {103, 104}, False),
        ({11, 12}, {11: 15, 3: 7}, {11, 12, 15, 7}, {11, 12}, True),  # as bridge ports they lead not far
        ({7}, {7: 11}, {7, 11}, {7}, True),
        ({7}, {7: 11}, {7, 11}, {11}, False),
        ({7}, {7: 11}, {7, 11}, {7, 11}, False),
    ],
)
def test_holds_interfaces(
    entries: set[int], joins: dict[int, int], there: set[int], up: set[int], direct: bool
) -> None:
    assert holds_interfaces(entries, joins, there, up) is direct


# ------------------------------------------------------------------------------------------------------- VLAN by VLAN


def cisco(vlans: Mapping[str, Cells], known: Cells) -> tuple[FakeAgent, Tables]:
    """What a community of a VLAN sees beside what all see."""
    agent, them = tables(known | interfaces(10100), CISCO, [4])
    everywhere = dict(agent.cells)

    def show(_kind: str, _oids: tuple[Oid, ...]) -> int:
        agent.cells = everywhere | vlans.get(agent.requests[-1][1], {})
        return 0

    agent.refuse = show
    agent.communities |= set(vlans)
    return agent, them


ACCESS, NATIVE, STATE = OBJECTS["vmVlan"], OBJECTS["vlanTrunkPortNativeVlan"], OBJECTS["vtpVlanState"]


def test_cisco_is_asked_vlan_by_vlan() -> None:
    known: Cells = {(*ACCESS, 10101): 9, (*ACCESS, 10102): 7, (*NATIVE, 10108): 1, (*ACCESS, 10103): 0}
    seen = {"public@9": plain({PI: 3} | neighbours(2, 3)), "public@7": plain(neighbours(1, 2)), "public@1": Cells()}
    agent, them = cisco(seen, known)
    assert them.vlans() == [1, 7, 9], "4 is no VLAN there"
    (place,) = them.find(PI)
    assert place == Place(3, 10103, "ge-0/0/3", 0, True, 9, BRIDGE_FDB)
    assert them.count(place, 2) == 3
    assert them.count(place, 9) == 3
    assert [each.vlan for each in them.search(PI)] == [9]
    assert them.read(dict) == {10103: {PI, *neighbours(2, 3)}, 10102: set(neighbours(1, 2))}
    assert {community for _, community, _ in agent.requests} == {"public", "public@1", "public@7", "public@9"}


def test_a_vlan_of_the_hints_comes_first_where_it_is_one() -> None:
    known: Cells = {(*ACCESS, 10101): 9, (*STATE, 1, 4): 1}
    _, them = cisco({"public@4": plain({PI: 3})}, known)  # and @9 does not answer
    assert them.vlans() == [4, 9]
    assert [place.vlan for place in them.find(PI)] == [4]
    assert them.read(dict) == {10103: {PI}}
    assert them.find("02:00:00:00:00:99") == []


# ------------------------------------------------------------------------------------------------ agents with troubles


def test_a_table_that_goes_in_circles_and_one_without_end() -> None:
    agent, them = tables(per_vlan(neighbours(1, 1), 5))
    first = min(agent.cells)
    agent.following = lambda _oid: first  # type: ignore[method-assign, assignment]
    assert them.find(PI) == []
    endless: Cells = {(*VLAN_FDB, fdb, 2, 0, 0, 0, 0, 1): 1 for fdb in range(1, 400)}
    agent, them = tables(endless)
    assert them.find(PI) == []
    assert len(agent.requests) < 600


def test_an_agent_that_gives_its_rows_only_to_who_reads_them_all() -> None:
    agent, them = tables(per_vlan({PI: 3}, 5) | interfaces())
    refuse = (*VLAN_FDB, 5, *digits_of(PI))
    value_of = agent._value
    agent._value = lambda oid: value_of((1, 3) if oid == refuse and agent.requests[-1][0] == "Get" else oid)  # type: ignore[method-assign]
    following = agent.following
    agent.following = lambda oid: following(following(oid) or oid) if oid == VLAN_FDB else following(oid)  # type: ignore[method-assign]
    assert them.find(PI) == []
    agent.following = following  # type: ignore[method-assign]
    assert [place.if_index for place in them.search(PI)] == [103]


def test_rows_that_are_none_are_left_out() -> None:
    rows: list[Row] = [
        ((*BRIDGE_FDB, 1, 2), 3),
        ((*BRIDGE_FDB, 1, 2, 3, 4, 5, 256), 3),
        ((*BRIDGE_FDB, 1, 2, 3, 4, 5, 6), b"3"),
        ((*BRIDGE_FDB, 1, 2, 3, 4, 5, 6), 0),
        ((*BRIDGE_FDB, 1, 2, 3, 4, 5, 7), 3),
    ]
    assert parse_table(rows, BRIDGE_FDB) == {3: {"01:02:03:04:05:07"}}


oids = st.lists(st.integers(0, 2**32 - 1), max_size=9).map(lambda tail: (*VLAN_FDB, *tail))


@given(st.lists(st.tuples(oids, st.one_of(st.none(), st.integers(), st.binary(), oids))))
def test_any_rows_make_a_table(rows: list[Row]) -> None:
    for entry, macs in parse_table(rows, VLAN_FDB).items():
        assert entry > 0
        assert all(len(mac) == 17 for mac in macs)
