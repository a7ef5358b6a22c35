"""Tests of utility.findport: switches in memory, each with a forwarding table of its own kind."""

from __future__ import annotations

from ipaddress import IPv4Address
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_snmp import FakeAgent
from utility.config import Switch
from utility.drivers import Oid
from utility.findport import BRIDGE_FDB, VLAN_FDB, Sighting, choose_edge, find_port, parse_table
from utility.snmp import OBJECTS, Snmp, SnmpError, Value

PI = "b8:27:eb:01:02:03"
IF_INDEX, IF_NAME, IF_DESCR = OBJECTS["dot1dBasePortIfIndex"], OBJECTS["ifName"], OBJECTS["ifDescr"]
ADMIN = OBJECTS["pethPsePortAdminEnable"]

Table = dict[str, int]  # MAC to bridge port


def digits(mac: str) -> Oid:
    return tuple(bytes.fromhex(mac.replace(":", "")))


def plain(table: Table) -> dict[Oid, Value]:
    return {(*BRIDGE_FDB, *digits(mac)): port for mac, port in table.items()}


def per_vlan(table: Table, fdb: int = 1) -> dict[Oid, Value]:
    return {(*VLAN_FDB, fdb, *digits(mac)): port for mac, port in table.items()}


def interfaces(offset: int = 100, *, names: bool = True) -> dict[Oid, Value]:
    """Bridge port n is interface `offset` + n, called ge-0/0/n; its description is another word."""
    cells: dict[Oid, Value] = {(*IF_INDEX, port): offset + port for port in range(1, 9)}
    cells |= {(*IF_DESCR, offset + port): f"Port {port}".encode() for port in range(1, 9)}
    if names:
        cells |= {(*IF_NAME, offset + port): f"ge-0/0/{port}".encode() for port in range(1, 9)}
    return cells


def switch(cells: dict[Oid, Value], index: int = 0, version: str = "2c") -> tuple[FakeAgent, Snmp]:
    agent = FakeAgent(cells, version)
    return agent, agent.snmp(Switch(index, IPv4Address(f"172.30.4.{254 - index}")))


def found(sightings: list[Sighting]) -> list[tuple[int, int, int, str, int]]:
    return [(seen.switch.index, seen.port, seen.if_index, seen.if_name, seen.macs_on_port) for seen in sightings]


def neighbours(count: int, port: int) -> Table:
    return {f"02:00:00:00:00:{number:02x}": port for number in range(count)}


@pytest.mark.parametrize("version", ["1", "2c"])
@pytest.mark.parametrize(
    "table", [plain, per_vlan, lambda rows: per_vlan(rows, 7), lambda rows: plain(rows) | per_vlan(rows)]
)
def test_each_kind_of_table_joins_to_the_interface(version: str, table: object) -> None:
    assert callable(table)
    _, snmp = switch(table({PI: 3} | neighbours(2, port=4)) | interfaces(), version=version)
    assert found(find_port(PI, [snmp])) == [(0, 3, 103, "ge-0/0/3", 1)]


def test_any_spelling_of_the_mac_and_none_that_is_none() -> None:
    _, snmp = switch(plain({PI: 3}) | interfaces())
    assert len(find_port("B827.EB01.0203", [snmp])) == 1
    with pytest.raises(ValueError, match="is no MAC address"):
        find_port("pi3", [snmp])


def test_a_switch_that_names_no_interface_is_taken_to_count_by_them() -> None:
    _, snmp = switch(plain({PI: 49}) | {(*IF_DESCR, 49): b"gigabitethernet1\0", (*IF_NAME, 49): b""})
    assert found(find_port(PI, [snmp])) == [(0, 49, 49, "gigabitethernet1", 1)]
    _, bare = switch(plain({PI: 49}))
    assert found(find_port(PI, [bare])) == [(0, 49, 49, "", 1)]


@pytest.mark.parametrize("index", [0, -1, b"3", None])
def test_an_interface_that_is_none(index: Value) -> None:
    _, snmp = switch(plain({PI: 3}) | {(*IF_INDEX, 3): index, (*IF_NAME, 3): b"three"})
    assert found(find_port(PI, [snmp])) == [(0, 3, 3, "three", 1)]


def test_a_name_moves_no_cursor() -> None:
    _, snmp = switch(plain({PI: 3}) | {(*IF_NAME, 3): "\x1b[2Jé\n3 ".encode()})
    assert found(find_port(PI, [snmp])) == [(0, 3, 3, "?[2Jé?3", 1)]


def test_the_port_to_restart_is_the_one_with_poe() -> None:
    cells = plain({PI: 3}) | interfaces()
    assert found(find_port(PI, [switch(cells | {(*ADMIN, 1, 3): 1, (*ADMIN, 1, 103): 1})[1]]))[0][1] == 3
    assert found(find_port(PI, [switch(cells | {(*ADMIN, 1, 103): 1})[1]]))[0][1] == 103


def test_a_mac_that_nobody_has_seen() -> None:
    agent, snmp = switch(plain(neighbours(3, port=1)) | interfaces())
    assert find_port(PI, [snmp]) == []
    assert find_port(PI, []) == []
    assert len(agent.requests) == 2, "one GET and one look for a table per VLAN"


def test_the_switch_itself_is_on_no_port() -> None:
    _, snmp = switch(plain({PI: 0}) | per_vlan({PI: 0}))
    assert find_port(PI, [snmp]) == []


def test_an_entry_that_ages_out_between_two_looks() -> None:
    agent, snmp = switch(plain({PI: 3}))

    def forget(kind: str, _oids: tuple[Oid, ...]) -> int:
        if kind == "GetBulk":
            agent.cells.clear()
        return 0

    agent.refuse = forget
    assert find_port(PI, [snmp]) == []


def test_a_vlan_is_looked_at_where_the_plain_table_has_no_answer() -> None:
    agent, snmp = switch(plain({PI: 3}) | interfaces())
    assert len(find_port(PI, [snmp], vlan=9)) == 1
    assert {community for _, community, _ in agent.requests} == {"public"}


def test_a_vlan_is_asked_for_in_the_community_as_cisco_wants_it() -> None:
    agent, snmp = switch(interfaces())

    def show(_kind: str, _oids: tuple[Oid, ...]) -> int:
        if agent.requests[-1][1] == "public@9":
            agent.cells |= plain({PI: 3})
        return 0

    agent.refuse = show
    agent.communities.add("public@9")
    assert found(find_port(PI, [snmp], vlan=9)) == [(0, 3, 103, "ge-0/0/3", 1)]


def test_a_switch_that_knows_no_such_community_has_just_not_seen_it() -> None:
    _, snmp = switch(interfaces())
    assert find_port(PI, [snmp], vlan=9) == []


def test_the_edge_comes_before_the_trunk() -> None:
    trunk = switch(plain({PI: 8} | neighbours(5, port=8)) | interfaces(), 0)[1]
    edge = switch(per_vlan({PI: 2}) | interfaces(), 1)[1]
    sightings = find_port(PI, [trunk, edge])
    assert found(sightings) == [(1, 2, 102, "ge-0/0/2", 1), (0, 8, 108, "ge-0/0/8", 6)]
    assert [seen.is_trunk for seen in sightings] == [False, True]
    assert choose_edge(sightings) == sightings[0]
    assert choose_edge(sightings[1:]) is None  # behind a switch that was not asked


def test_two_ports_that_are_alike_are_not_guessed_between() -> None:
    sightings = find_port(PI, [switch(plain({PI: port}) | interfaces(), port)[1] for port in (2, 5)])
    assert [seen.port for seen in sightings] == [2, 5]
    assert choose_edge(sightings) is None
    assert choose_edge([]) is None
    assert choose_edge(sightings[:1]) == sightings[0]


def test_a_mac_in_two_vlans_is_one_sighting_and_on_two_ports_two() -> None:
    _, snmp = switch(per_vlan({PI: 3}, 1) | per_vlan({PI: 3}, 2) | interfaces())
    assert found(find_port(PI, [snmp])) == [(0, 3, 103, "ge-0/0/3", 1)]
    _, snmp = switch(per_vlan({PI: 3}, 1) | per_vlan({PI: 4}, 2) | interfaces())
    assert [seen.port for seen in find_port(PI, [snmp])] == [3, 4]


def test_a_switch_that_fails_hides_no_answer_of_another() -> None:
    silent, dead = switch({}, 0)
    silent.silent = 99
    _, alive = switch(plain({PI: 3}) | interfaces(), 1)
    assert [seen.switch.index for seen in find_port(PI, [dead, alive])] == [1]
    errors: list[SnmpError] = []
    assert len(find_port(PI, [dead, alive], on_error=errors.append)) == 1
    assert find_port(PI, [dead], on_error=errors.append) == []
    assert [error.switch.index for error in errors] == [0, 0]
    with pytest.raises(SnmpError, match=r"^switch 172\.30\.4\.254: .*: no answer"):
        find_port(PI, [dead])


def test_rows_that_are_none_are_left_out() -> None:
    rows: list[tuple[Oid, Value]] = [
        ((*BRIDGE_FDB, 1, 2), 3),
        ((*BRIDGE_FDB, 1, 2, 3, 4, 5, 256), 3),
        ((*BRIDGE_FDB, 1, 2, 3, 4, 5, 6), b"3"),
        ((*BRIDGE_FDB, 1, 2, 3, 4, 5, 6), 0),
        ((*BRIDGE_FDB, 1, 2, 3, 4, 5, 7), 3),
    ]
    assert parse_table(rows, BRIDGE_FDB) == {"01:02:03:04:05:07": {3}}


oids = st.lists(st.integers(0, 2**32 - 1), max_size=9).map(lambda tail: (*VLAN_FDB, *tail))


@given(st.lists(st.tuples(oids, st.one_of(st.none(), st.integers(), st.binary(), oids))))
def test_any_rows_make_a_table(rows: list[tuple[Oid, Value]]) -> None:
    for mac, ports in parse_table(rows, VLAN_FDB).items():
        assert len(mac) == 17
        assert min(ports) > 0


def test_sightings_are_in_order_of_their_macs() -> None:
    snmps = [switch(plain({PI: 8} | neighbours(count, port=8)) | interfaces(), count)[1] for count in (4, 0, 2, 1, 3)]
    assert all(one.macs_on_port < two.macs_on_port for one, two in pairwise(find_port(PI, snmps)))
