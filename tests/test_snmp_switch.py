"""Tests of utility.snmp_switch: what its rules make of rows, also of those that no family of the lab has.

The families themselves are driven in tests/peers/test_families_driven.py.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from tests.test_snmp import FakeAgent
from utility.config import Switch
from utility.drivers import DRIVERS, OBJECTS, STANDARD, Detection, Driver, Oid, Watts, oid
from utility.snmp import Row, Value, text_of
from utility.snmp_switch import (
    LLDP_LOCAL,
    LLDP_REMOTE,
    Interfaces,
    SnmpSwitch,
    detection_of,
    label_numbers,
    map_indexes,
    number_ports,
    place_neighbours,
    read_neighbours,
)
from utility.switches import Neighbour, Port, PowerSupply

ADMIN, DETECTION, CLASS = (
    OBJECTS[f"pethPsePort{name}"] for name in ("AdminEnable", "DetectionStatus", "PowerClassifications")
)
IF_NAME, IF_DESCR, IF_OPER = oid("1.3.6.1.2.1.31.1.1.1.1"), oid("1.3.6.1.2.1.2.2.1.2"), oid("1.3.6.1.2.1.2.2.1.8")
BASE = oid("1.3.6.1.2.1.17.1.4.1.2")
SYS_OBJECT_ID = oid("1.3.6.1.2.1.1.2.0")


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("Gi2/0/5", (2, 0, 5)),
        ("10GE1/0/3", (1, 0, 3)),
        ("1/g3", (1, 3)),
        ("ge-0/0/4", (0, 0, 4)),
        ("swp07", (7,)),
        ("gigabitEthernet 1/0/7 : copper", (1, 0, 7)),
        ("A12", (12,)),
        ("uplink", ()),
        ("", ()),
    ],
)
def test_label_numbers(name: str, numbers: tuple[int, ...]) -> None:
    assert label_numbers(name) == numbers


STACK = Interfaces(
    {1: "Vlan1", 11: "Gi1/0/1", 12: "Gi1/0/2", 21: "Gi2/0/1", 22: "Gi2/0/2", 5: "Po1"},
    bridge={1: 11, 2: 12, 3: 21, 4: 22},
)
MEMBERS = [(1, 1), (1, 2), (2, 1), (2, 2)]
LED = dict(zip(MEMBERS, (11, 12, 21, 22), strict=True))


@pytest.mark.parametrize(
    ("indexes", "rules", "mapped"),
    [
        (MEMBERS, ("name",), LED),
        (MEMBERS, ("bridge", "ifindex", "name"), LED),  # what an unknown stack is asked by
        ([(1, 1), (2, 3)], ("bridge",), {(1, 1): 11, (2, 3): 21}),
        ([(1, 11), (1, 22)], ("bridge", "ifindex"), {(1, 11): 11, (1, 22): 22}),
        ([(1, 0), (2, 1)], ("name0",), {}),
        (MEMBERS, ("entity",), {}),
        # Two that lead to the same place lead nowhere.
        ([(1, 1), (2, 1), (1, 2)], ("bridge",), {(1, 2): 12}),
        ([(9,), (1,)], ("bridge", "ifindex"), {(1,): 11}),
        ([], ("name",), {}),
    ],
)
def test_map_indexes(indexes: list[Oid], rules: tuple[str, ...], mapped: dict[Oid, int]) -> None:
    assert map_indexes(indexes, rules, STACK) == mapped


def test_a_label_that_two_interfaces_have() -> None:
    names = {1: "Gi1/0/1", 2: "Te1/1/1", 3: "Gi1/0/2", 4: "Ap1/0/1", 5: "StackPort1", 6: "Trk1", 7: "Gi1/1/1.100"}
    assert map_indexes([(1, 1), (1, 2)], ("name",), Interfaces(names)) == {(1, 1): 1, (1, 2): 3}
    twins = Interfaces({1: "Gi1/0/1", 2: "Fa1/0/1", 3: "Gi1/0/2"})
    assert map_indexes([(1, 1), (1, 2)], ("name",), twins) == {(1, 2): 3}, "nothing is guessed"


@pytest.mark.parametrize(
    ("poe", "others", "numbers"),
    [
        ([((1, 1), "g1"), ((1, 2), "g2")], ["g3", "g4"], ([1, 2], [3, 4])),
        ([((1, 1), "g1"), ((1, 4), "g4")], ["g2", "g3", "te1"], ([1, 4], [2, 3, 5])),
        ([((1, 1), "ge-0/0/0"), ((1, 2), "ge-0/0/1")], ["ge-0/0/2", "xe-0/1/0"], ([1, 2], [3, 4])),
        ([((1, 1), "1/1"), ((1, 2), "1/2"), ((2, 3), "2/1")], ["1/3", "2/2"], ([1, 2, 3], [4, 5])),
        # A chassis whose slots have letters: the labels are no use.
        ([((1, 1), "A1"), ((1, 2), "A2"), ((1, 25), "B1")], [], ([1, 2, 3], [])),
        ([((1, 49), ""), ((1, 50), "")], ["", "uplink"], ([49, 50], [51, 52])),
        ([], ["g1", "g2"], ([], [1, 2])),
    ],
)
def test_number_ports(poe: list[tuple[Oid, str]], others: list[str], numbers: tuple[list[int], list[int]]) -> None:
    assert number_ports(poe, others) == numbers


def lldp(local: int, **columns: Value) -> list[Row]:
    return [((*LLDP_REMOTE, int(column[1:]), 0, local, 1), value) for column, value in columns.items()]


def test_who_is_at_the_other_end() -> None:
    rows = [
        *lldp(1, c4=4, c5=bytes.fromhex("0200000000fe"), c7=b"24", c9=b"sw2", c10=b"a switch", c12=b"\x20"),
        *lldp(2, c4=4, c5=b"short", c8=b"eth0", c12=b"\x80\x00"),
        *lldp(3, c4=5, c5=bytes.fromhex("0200000000fd"), c9=b"evil\x1b[2J"),
        ((*LLDP_REMOTE, 4, 0), 1),  # an index that is none
    ]
    assert read_neighbours(rows) == {
        1: Neighbour("sw2", "02:00:00:00:00:fe", "24", "a switch", forwards=True),
        2: Neighbour("", "", "eth0", forwards=False),
        3: Neighbour("evil?[2J", "", ""),
    }


def test_which_port_a_neighbour_is_at() -> None:
    who = Neighbour("sw2", "", "24")
    ports = [Port(1, "g1", if_index=49, bridge_port=1, if_name="g1"), Port(2, "g2", if_index=50, if_name="g2")]
    assert place_neighbours({1: who}, [], ports) == {1: who}
    assert place_neighbours({50: who}, [], ports) == {2: who}, "not all are bridge ports: then it is the ifIndex"
    assert place_neighbours({7: who}, [((*LLDP_LOCAL, 3, 7), b"g2"), ((*LLDP_LOCAL, 2, 7), 5)], ports) == {2: who}
    assert place_neighbours({7: who}, [((*LLDP_LOCAL, 3), b"g2")], ports) == {}


def test_words_and_states() -> None:
    huawei = next(driver for driver in DRIVERS if driver.name == "huawei")
    assert text_of(b" a\0") == "a"
    assert text_of(5) == ""
    assert detection_of(huawei, b"Powered") == Detection.DELIVERING
    assert detection_of(huawei, b"Perhaps") == Detection.UNKNOWN
    assert [detection_of(STANDARD, value) for value in (3, 9, None, (1, 3))] == [3, 0, 0, 0]


# ---------------------------------------------------------------------------------------------------------- the switch


def opened(cells: dict[Oid, Value], driver: str = "auto", **options: object) -> SnmpSwitch:
    agent = FakeAgent(cells)
    switch = Switch(0, IPv4Address("172.30.4.254"), driver=driver, **options)  # type: ignore[arg-type]
    return SnmpSwitch(switch, agent.snmp(switch))


def test_a_switch_that_shows_its_poe_alone() -> None:
    poe = opened({(*ADMIN, 1, 1): 1, (*ADMIN, 1, 2): 3, (*ADMIN, 9): 1, (*ADMIN, 1, 3, 4): 1, (*DETECTION, 1, 1): 3})
    assert poe.ports() == [
        Port(1, "1.1", index=(1, 1), admin_on=True, setting=1, detection=Detection.DELIVERING),
        Port(2, "1.2", index=(1, 2), setting=3),
        Port(9, "9", index=(9,), admin_on=True, setting=1),
    ]
    assert poe.macs() == {}
    assert poe.supplies(poe.ports()) == []


def test_a_switch_without_poe_has_a_face_all_the_same() -> None:
    cells: dict[Oid, Value] = {(*IF_DESCR, 1): b"port 1", (*IF_DESCR, 2): b"port 2", (*IF_DESCR, 3): b"Vlan1"}
    cells |= {(*oid("1.3.6.1.2.1.2.2.1.3"), 4): 53, (*IF_DESCR, 4): b"routed", (*IF_OPER, 2): 1}
    ports = opened(cells).ports()
    assert [(port.number, port.label, port.has_poe, port.link) for port in ports] == [
        (1, "port 1", False, False),
        (2, "port 2", False, True),
    ]


def test_a_family_member_without_the_familys_table_is_switched_by_the_standard() -> None:
    poe = opened({SYS_OBJECT_ID: oid("1.3.6.1.4.1.9.1.1"), (*ADMIN, 1, 1): 1, (*DETECTION, 1, 1): 2, (*CLASS, 1, 1): 5})
    [port] = poe.ports()
    assert (poe.capabilities.driver, port.admin_on, port.detection, port.power_class) == ("cisco-ios", True, 2, 4)
    poe.turn(port, False)
    assert poe.look([port])[0].admin_on is False
    assert str(poe.complaint(port, "no")) == "switch 172.30.4.254 port 1: pethPsePortAdminEnable.1.1: no"


def test_a_family_that_shows_no_poe_at_all_stays_what_it_is() -> None:
    poe = opened({SYS_OBJECT_ID: oid("1.3.6.1.4.1.11863.5.1")})
    assert poe.ports() == []
    assert poe.capabilities.driver == "tplink"


def test_a_switch_that_goes_behind_our_back_is_told_of() -> None:
    recovers = (*OBJECTS["tpPoeRecoveryGlobalStatus"], 0)
    cells: dict[Oid, Value] = {SYS_OBJECT_ID: oid("1.3.6.1.4.1.11863.5.1")}
    assert opened(cells).capabilities.warnings == ()
    assert opened(cells | {recovers: 0}).capabilities.warnings == ()
    [warning] = opened(cells | {recovers: 1}).capabilities.warnings
    assert warning.startswith("PoE auto recovery is on")


def test_config_yaml_names_the_driver_or_adds_one() -> None:
    own = Driver("own", (oid("1.3.6.1.4.1.99"),), on=7, off=8)
    admin: dict[Oid, Value] = {(*ADMIN, 1, 1): 7}
    assert opened(admin | {SYS_OBJECT_ID: oid("1.3.6.1.4.1.99.5")}, drivers=(own,)).ports()[0].admin_on is True
    assert opened(admin, "own", drivers=(own,)).ports()[0].admin_on is True
    assert opened(admin, "standard", drivers=(own,)).ports()[0].admin_on is None
    assert opened(admin, "tplink").capabilities.driver == "tplink"


@pytest.mark.parametrize(("drawn", "milliwatts"), [(40, 4000), (0, 0), (-10, None), (10**9, None), (b"4", None)])
def test_watts_that_cannot_be_are_none(drawn: Value, milliwatts: int | None) -> None:
    column = oid("1.3.6.1.4.1.99.1")
    own = Driver("own", watts=(Watts(oid("1.3.6.1.4.1.99.9")), Watts(column, 100, "allocated")))
    poe = opened({(*ADMIN, 1, 1): 1, (*column, 1, 1): drawn}, "own", drivers=(own,))
    [port] = poe.ports()
    assert (port.milliwatts, port.source) == (milliwatts, "" if milliwatts is None else "allocated")
    assert poe.look([port]) == [port]


def test_a_setting_that_means_nothing_to_us_is_not_given_back() -> None:
    poe = opened({(*ADMIN, 1, 1): 2})
    [port] = poe.ports()
    poe.turn(replace(port, setting=3), True)
    assert poe.look([port])[0].setting == 1


def test_supplies_with_nonsense() -> None:
    capacity, taken = OBJECTS["pethMainPsePower"], OBJECTS["pethMainPseConsumptionPower"]
    cells: dict[Oid, Value] = {(*capacity, 1): 0, (*capacity, 2): 370, (*capacity, 3): 370, (*taken, 2): -1}
    poe = opened(cells)
    ports = [Port(1, "", index=(2, 1)), Port(2, "")]
    assert poe.supplies(ports) == [PowerSupply(frozenset({1}), 370_000, None)]


def test_a_forwarding_table_of_bridge_ports_that_are_no_interfaces() -> None:
    fdb = oid("1.3.6.1.2.1.17.4.3.1.2")
    cells: dict[Oid, Value] = {(*IF_NAME, 49): b"g1", (*IF_NAME, 50): b"g2", (*BASE, 1): 49, (*BASE, 2): -1}
    cells |= {(*fdb, 2, 0, 0, 0, 0, 1): 1, (*fdb, 2, 0, 0, 0, 0, 2): 2, (*fdb, 2, 0, 0, 0, 0, 3): 7}
    poe = opened(cells | {(*ADMIN, 1, 1): 1})
    assert poe.macs() == {1: {"02:00:00:00:00:01"}}
