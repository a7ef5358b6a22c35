"""Tests of utility.findport: switches in memory, between them trunks that see what is behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Self

import pytest

from tests.test_fdb import Cells, interfaces, neighbours, per_vlan, plain
from tests.test_snmp import FakeAgent
from utility.config import Switch
from utility.drivers import Detection
from utility.findport import LLDP_LOCAL, LLDP_REMOTE, Sighting, choose_edge, find_port
from utility.snmp import OBJECTS, SnmpError
from utility.snmp_switch import SnmpSwitch
from utility.switches import Capabilities, Port, SwitchError

PI = "b8:27:eb:01:02:03"
ADMIN, DETECTION = OBJECTS["pethPsePortAdminEnable"], OBJECTS["pethPsePortDetectionStatus"]


def poe(ports: int = 4) -> Cells:
    """The first ports give power."""
    return {(*column, 1, port): value for port in range(1, ports + 1) for column, value in ((ADMIN, 1), (DETECTION, 3))}


def lldp(port: int, name: str = "core", can: int = 0x20) -> Cells:
    """A neighbour at a local port; 0x20: it is a bridge."""
    return {(*LLDP_REMOTE, 9, 0, port, 1): name.encode(), (*LLDP_REMOTE, 12, 0, port, 1): bytes([can])}


def switch(cells: Cells, index: int = 0) -> tuple[FakeAgent, SnmpSwitch]:
    agent = FakeAgent(cells)
    it = Switch(index, IPv4Address(f"172.30.4.{254 - index}"), f"sw{index}")
    return agent, SnmpSwitch(it, agent.snmp(it))


def found(sightings: list[Sighting]) -> list[tuple[int, int, int, str, int]]:
    return [(seen.switch.index, seen.port, seen.if_index, seen.if_name, seen.macs_on_port) for seen in sightings]


def test_the_port_to_restart_with_its_power() -> None:
    _, it = switch(plain({PI: 3} | neighbours(2, port=4)) | interfaces() | poe())
    (seen,) = find_port("B827.EB01.0203", [it])
    assert found([seen]) == [(0, 3, 103, "ge-0/0/3", 1)]
    assert (seen.where, seen.is_trunk) == ("sw0 port 3 (ge-0/0/3)", False)
    assert seen.face is not None
    assert (seen.face.index, seen.face.detection, seen.face.admin_on) == ((1, 3), Detection.DELIVERING, True)
    assert choose_edge([seen]) == seen
    with pytest.raises(ValueError, match="is no MAC address"):
        find_port("pi3", [it])


def test_nobody_has_seen_it() -> None:
    assert find_port(PI, []) == []
    _, it = switch(plain(neighbours(3, port=1)) | interfaces())
    assert find_port(PI, [it]) == []
    assert choose_edge([]) is None


def test_the_edge_comes_before_the_trunk() -> None:
    core = switch(plain({PI: 8} | neighbours(5, port=8)) | interfaces() | poe(), 0)[1]
    edge = switch(per_vlan({PI: 2}) | interfaces() | poe(), 1)[1]
    sightings = find_port(PI, [core, edge])
    assert found(sightings) == [(1, 2, 102, "ge-0/0/2", 1), (0, 0, 108, "ge-0/0/8", 3)]
    assert [seen.is_trunk for seen in sightings] == [False, True]
    assert sightings[1].where == "sw0 ge-0/0/8"
    assert choose_edge(sightings) == sightings[0]
    assert choose_edge(sightings[1:]) is None, "it is behind a switch that was not asked"


def test_a_neighbour_that_is_a_switch_makes_a_trunk_without_counting() -> None:
    agent, core = switch(plain({PI: 8}) | interfaces() | poe() | lldp(8), 0)
    edge = switch(plain({PI: 2}) | interfaces() | poe() | lldp(8), 1)[1]
    sightings = find_port(PI, [core, edge])
    assert [(seen.switch.index, seen.neighbour) for seen in sightings] == [(1, ""), (0, "core")]
    assert choose_edge(sightings) == sightings[0]
    assert len(agent.requests) < 8


@pytest.mark.parametrize("number", [3, 103])
def test_a_pi_that_speaks_lldp_is_no_switch(number: int) -> None:
    it = switch(plain({PI: 3}) | interfaces() | poe() | lldp(number, "pi3", 0x01))[1]
    assert [seen.is_trunk for seen in find_port(PI, [it])] == [False]


@pytest.mark.parametrize(
    ("cells", "is_trunk"),
    [
        (lldp(3), True),
        (lldp(103), True),
        (lldp(8), False),
        (lldp(103) | lldp(8), False),  # 103 is no bridge port: by interface, and 8 another's
        (lldp(77) | {(*LLDP_LOCAL, 3, 77): b"ge-0/0/3"}, True),
        (lldp(77) | {(*LLDP_LOCAL, 4, 77): b"ge-0/0/4"}, False),
    ],
)
def test_which_port_a_neighbour_is_at(cells: Cells, is_trunk: bool) -> None:
    it = switch(plain({PI: 3}) | interfaces() | poe() | cells)[1]
    (seen,) = find_port(PI, [it])
    # 103 alone is in no other table, and is then the interface.
    assert seen.is_trunk is (is_trunk or cells.keys() >= lldp(103).keys())


@pytest.mark.parametrize("name", ["Po1", "Vlan1", "LAG 2", "CPU Interface", "Stack1", "Port-channel3"])
def test_what_is_no_socket_is_no_edge(name: str) -> None:
    it = switch(plain({PI: 3}) | interfaces() | poe() | {(*OBJECTS["ifName"], 103): name.encode()})[1]
    (seen,) = find_port(PI, [it])
    assert (seen.is_trunk, seen.if_name) == (True, name)
    assert choose_edge([seen]) is None


def test_a_bundle_by_its_type() -> None:
    it = switch(plain({PI: 3}) | interfaces() | {(*OBJECTS["ifType"], 103): 161})[1]
    assert [seen.is_trunk for seen in find_port(PI, [it])] == [True]


def test_two_ports_that_are_alike_are_not_guessed_between() -> None:
    switches = [switch(plain({PI: port}) | interfaces() | poe(8), port)[1] for port in (2, 5)]
    sightings = find_port(PI, switches)
    assert [seen.port for seen in sightings] == [2, 5]
    assert choose_edge(sightings) is None
    fewer = [replace(sightings[0], macs_on_port=2), sightings[1]]
    assert choose_edge(fewer) == sightings[1]


def test_a_socket_that_is_not_on_the_face() -> None:
    it = switch(plain({PI: 7}))[1]
    (seen,) = find_port(PI, [it])
    assert (seen.port, seen.if_index, seen.face) == (0, 7, None)


def test_a_switch_that_fails_hides_no_answer_of_another() -> None:
    silent, dead = switch({}, 0)
    silent.silent = 999
    _, alive = switch(plain({PI: 3}) | interfaces(), 1)
    assert [seen.switch.index for seen in find_port(PI, [dead, alive])] == [1]
    errors: list[SwitchError] = []
    assert len(find_port(PI, [dead, alive], on_error=errors.append)) == 1
    before = len(silent.requests)
    assert find_port(PI, [dead], on_error=errors.append) == []
    assert len(silent.requests) == before + 3, "not asked again in more detail"
    assert [error.switch.index for error in errors] == [0, 0]
    with pytest.raises(SnmpError, match=r"^switch sw0 \(172\.30\.4\.254\): .*: no answer"):
        find_port(PI, [dead])


def test_an_agent_that_gives_its_rows_only_to_who_reads_them_all() -> None:
    agent, it = switch(plain({PI: 3}) | interfaces() | poe())
    value_of = agent._value
    row = next(iter(plain({PI: 3})))
    agent._value = lambda oid: value_of((1, 3) if oid == row and agent.requests[-1][0] == "Get" else oid)  # type: ignore[method-assign]
    assert [seen.port for seen in find_port(PI, [it])] == [3]


class OtherSwitch:
    """One that is not asked over SNMP."""

    def __init__(self, table: Mapping[int, frozenset[str]], faces: list[Port]) -> None:
        self.switch = Switch(3, IPv4Address("172.30.4.250"))
        self.capabilities = Capabilities("other")
        self._table, self._faces = table, faces

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        """Nothing to close."""

    def ports(self) -> list[Port]:
        return self._faces

    def macs(self) -> Mapping[int, frozenset[str]]:
        return self._table


def test_a_switch_that_is_asked_in_another_way() -> None:
    faces = [Port(1, "ether1", if_name="ether1"), Port(2, "ether2", milliwatts=4100, source="measured")]
    it = OtherSwitch({2: frozenset({PI, "02:00:00:00:00:01"})}, faces)
    (seen,) = find_port(PI, [it])  # type: ignore[list-item]
    assert found([seen]) == [(3, 2, 0, "ether2", 2)]
    assert seen.face == faces[1]
    assert find_port("02:00:00:00:00:99", [it]) == []  # type: ignore[list-item]
