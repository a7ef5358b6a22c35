"""Every family of switches, each played by the lab, driven by what drives them: one table, a row a family.

Each is a stack of two members with 4 PoE ports and 2 uplinks each, and a Pi on the third port of the second member:
groups 1 to n, ifIndexes from 49 or 49153, Comware's 1 + 3 x member.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lab.agentx import GEN_ERR
from lab.families import FAMILIES, Quirks
from lab.switch import Access, Device, FamilySwitch
from monitoring.places import map_ports
from monitoring.store import Store
from utility.config import SnmpAccess, Switch
from utility.drivers import Detection
from utility.findport import choose_edge, find_port
from utility.mac_mapper import Table, boards, settle
from utility.power_cycle import Left, PortResult, power_cycle, restore_ports, set_power
from utility.power_rules import Guard
from utility.switches import PoeSwitch, SwitchError, open_switch

PI = "b8:27:eb:00:00:07"
PATIENT = SnmpAccess(timeout=2.0, retries=2)  # the machine may be busy

_addresses = itertools.count(1)


@dataclass(frozen=True)
class Row:
    """What Piman is to make of a family. `socket` is the number that the lab has for the Pi's port.

    number   what a user calls it, and `label` what is printed there
    on       the value of its admin object
    others   ports with and without PoE; the labels of the first and the last
    source   of the watts; empty: it tells none
    """

    family: str
    socket: int
    number: int
    label: str
    index: tuple[int, ...]
    if_index: int
    on: int = 1
    driver: str = ""
    source: str = "measured"
    read_only: str = ""
    first: str = ""
    ports: tuple[int, int] = (8, 4)
    groups: int = 2  # power supplies


ROWS = [
    Row("standard", 7, 7, "port7", (1, 7), 7, source="", first="port1", ports=(8, 2), groups=1),
    Row("cisco-ios", 9, 7, "Gi2/0/3", (2, 3), 10603, first="Gi1/0/1"),
    Row("cisco-sb", 9, 7, "gi2/0/3", (2, 159), 159, first="gi1/0/1"),
    Row("procurve", 7, 7, "2/3", (2, 7), 7, first="1/1", ports=(8, 2)),
    Row("aos-cx", 9, 7, "2/1/3", (2, 3), 67, first="1/1/1"),
    Row("aos-cx-chassis", 9, 7, "2/1/3", (1, 67), 67, driver="aos-cx", first="1/1/1", groups=1),
    Row("comware", 9, 7, "GigabitEthernet2/0/3", (7, 9), 9, first="GigabitEthernet1/0/1"),
    Row("netgear", 7, 7, "2/g3", (2, 3), 7, first="1/g1", ports=(8, 2)),
    Row("tplink", 7, 7, "gigabitEthernet 2/0/3", (7,), 49159, first="gigabitEthernet 1/0/1", ports=(8, 2), groups=1),
    Row(
        "mikrotik", 7, 7, "ether3", (7,), 7, on=3, first="ether1", ports=(8, 2), groups=0,
        read_only="its SNMP is read-only for PoE: set `driver: routeros` for this switch",
    ),
    Row("zyxel-gs1915", 7, 7, "swp02", (1, 7), 7, driver="zyxel", first="swp00", ports=(8, 2), groups=1),
    Row(
        "juniper", 3, 3, "ge-0/0/2", (1, 3), 512, source="", first="ge-0/0/0", ports=(4, 8), groups=1,
        read_only="its SNMP is read-only for PoE and Junos wants NETCONF: set `driver: exec` for this switch",
    ),
    Row("huawei", 7, 7, "GigabitEthernet1/0/3", (11,), 11, first="GigabitEthernet0/0/1", ports=(8, 2), groups=0),
    Row("dlink", 7, 7, "1/7", (7,), 7, on=2, first="1/1", ports=(8, 2), groups=0),
]  # fmt: skip
ALL = pytest.mark.parametrize("row", ROWS, ids=[row.family for row in ROWS])

Start = Callable[..., tuple[FamilySwitch, PoeSwitch]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A function that starts the lab's switch, and opens it as config.yaml would."""
    running: list[FamilySwitch] = []
    opened = contextlib.ExitStack()

    def start_one(
        family: str, *, access: SnmpAccess = PATIENT, lab_access: Access | None = None, **options: object
    ) -> tuple[FamilySwitch, PoeSwitch]:
        number = next(_addresses)
        address = f"127.0.162.{number}"
        lab = FamilySwitch(family, tmp_path / str(number), address, access=lab_access, **options)  # type: ignore[arg-type]
        running.append(lab)
        lab.start()
        return lab, opened.enter_context(open_switch(Switch(0, IPv4Address(address), snmp=access)))

    with opened:
        yield start_one
    for switch in running:
        switch.stop()


def start_row(start: Start, row: Row, **options: object) -> tuple[FamilySwitch, PoeSwitch]:
    return start(row.family, ports=4, members=2, devices={row.socket: Device((PI,))}, **options)


def test_there_is_a_row_for_every_family() -> None:
    assert {row.family for row in ROWS} == set(FAMILIES)


@ALL
def test_ports(start: Start, row: Row) -> None:
    _lab, poe = start_row(start, row)
    face = poe.ports()
    assert poe.capabilities.driver == (row.driver or row.family)
    assert poe.capabilities.read_only == row.read_only
    assert [port.number for port in face] == list(range(1, len(face) + 1)), "each its own, in order"
    powered = [port for port in face if port.has_poe]
    assert (len(powered), len(face) - len(powered)) == row.ports
    assert powered[0].label == row.first
    assert {port.number for port in powered} == set(range(1, row.ports[0] + 1)), "those with PoE come first"

    pi = face[row.number - 1]
    assert (pi.label, pi.index, pi.if_index) == (row.label, row.index, row.if_index)
    assert (pi.admin_on, pi.setting, pi.detection, pi.link) == (True, row.on, Detection.DELIVERING, True)
    assert (pi.milliwatts, pi.source) == ((4000, row.source) if row.source else (None, ""))
    assert pi.power_class == (None if row.family == "mikrotik" else 0)
    for port in powered:
        if port != pi:
            assert (port.admin_on, port.detection, port.link) == (True, Detection.SEARCHING, False)
    assert dict(poe.macs(face)) == {row.number: {PI}}
    assert [port for port in poe.look(face) if port.number == row.number] == [pi]

    supplies = poe.supplies(face)
    assert len(supplies) == row.groups
    assert sum(supply.consumption or 0 for supply in supplies) == (4000 if row.groups else 0)
    assert sum(supply.capacity for supply in supplies) == (370_000 if row.groups else 0)


@ALL
def test_restart(start: Start, row: Row) -> None:
    lab, poe = start_row(start, row)
    heard: list[str] = []
    if row.read_only:
        with pytest.raises(SwitchError) as caught:
            power_cycle(poe, [row.number])
        assert str(caught.value).endswith(f": its ports cannot be switched: {row.read_only}")
        assert lab.told == []
        return
    results = power_cycle(
        poe, [row.number], off_time=0.2, stagger=0, on_progress=lambda _port, text: heard.append(text)
    )
    assert results == [PortResult(row.number, ok=True, text="power-cycled")]
    assert heard == ["off", "off for 0.2 s", "on", "delivering power"]
    assert lab.told == [(row.socket, False), (row.socket, True)]

    # off for good, on again; and what was left off
    assert set_power(poe, [row.number], False) == [PortResult(row.number, ok=True, text="off")]
    off = poe.ports()[row.number - 1]
    assert (off.admin_on, off.link) == (False, False)
    assert off.detection != Detection.DELIVERING
    assert restore_ports(poe, [Left(row.number, row.index, row.on)]) == [PortResult(row.number, ok=True, text="on")]
    assert poe.ports()[row.number - 1].setting == row.on


@ALL
def test_findport(start: Start, row: Row) -> None:
    """In a VLAN of its own where a family shows one VLAN at a time; an uplink sees other MACs."""
    vlan = 10 if row.family == "cisco-ios" else 1
    lab, poe = start_row(start, row, vlan=vlan)
    others = tuple(f"02:00:00:00:01:0{number}" for number in range(4))
    lab.plug(len(lab.sockets), Device(others, needs_power=False, vlan=1))
    lab.plug(1, Device(("b8:27:eb:00:00:01", "b8:27:eb:00:00:02")))
    (seen,) = find_port(PI, [poe])
    assert (seen.port, seen.if_index, seen.if_name, seen.macs_on_port) == (row.number, row.if_index, row.label, 1)
    assert not seen.is_trunk
    assert seen.face == poe.ports()[row.number - 1]
    assert [found.port for found in find_port("b8:27:eb:00:00:02", [poe])] == [1]
    (uplink,) = find_port(others[2], [poe])
    assert (uplink.is_trunk, uplink.port) == (True, 0)
    assert find_port("b8:27:eb:00:00:99", [poe]) == []


@ALL
def test_mapper(start: Start, row: Row, tmp_path: Path) -> None:
    """The Pi's port by a power cut, and the whole face without one."""
    vlan = 10 if row.family == "cisco-ios" else 1
    lab, poe = start_row(start, row, vlan=vlan)
    sure, unsure = settle([Table(poe.switch, ports := poe.ports(), poe.macs(ports))])
    assert {mac: spot.port.number for mac, spot in boards(sure, ()).items()} == {PI: row.number}
    assert unsure == {}
    assert lab.told == []
    if row.read_only:
        return
    poe.switch = replace(poe.switch, off_time=0.1)
    with Store(tmp_path / "piman.db") as store:
        [found] = map_ports(
            store, poe, [row.number], hears=False, guard=Guard(), patience=5, on_progress=lambda _port, _text: None
        )
    assert (found.port.label, found.verdict.mac, found.verdict.text) == (row.label, PI, "by the forwarding table")
    assert lab.told == [(row.socket, False), (row.socket, True)]


@pytest.mark.parametrize("family", ["huawei", "cisco-sb", "comware"])
def test_findport_where_interfaces_are_in_the_forwarding_table(start: Start, family: str) -> None:
    row = next(row for row in ROWS if row.family == family)
    lab, poe = start_row(start, row, quirks=Quirks(fdb_ifindex=True, no_qbridge=True))
    for number in range(1, 5):
        lab.plug(number, Device((f"b8:27:eb:00:01:{number:02x}",)))
    assert [seen.port for seen in find_port(PI, [poe])] == [row.number]
    assert [seen.port for seen in find_port("b8:27:eb:00:01:03", [poe])] == [3]
    assert poe.macs()[row.number] == {PI}


def test_findport_over_three_switches_in_a_chain(start: Start) -> None:
    """The first and the second see the Pi through a trunk; the last has it. One is slow, one falls over GETBULK."""
    mac = "02:00:00:00:00:0{}".format
    first, one = start("procurve", ports=4, name="one", mac=mac(1), quirks=Quirks(delay=0.005))
    second, two = start("comware", ports=4, name="two", mac=mac(2))
    pis = {2: Device((PI,)), 3: Device(("b8:27:eb:00:00:03",))}
    quirks = Quirks(bulk_silence=0.5)
    third, three = start("dlink", ports=4, name="three", mac=mac(3), quirks=quirks, devices=pis)
    first.connect(5, second, 5)
    second.connect(6, third, 5)
    switches = [replace_index(poe, number) for number, poe in enumerate((one, two, three))]
    sightings = find_port(PI, switches)
    assert [(seen.switch.index, seen.port, seen.is_trunk) for seen in sightings] == [
        (2, 2, False), (0, 0, True), (1, 0, True),
    ]  # fmt: skip
    assert choose_edge(sightings) == sightings[0]
    assert {seen.neighbour for seen in sightings[1:]} == {"two port GigabitEthernet1/0/5", "three port 1/5"}
    assert choose_edge(sightings[1:]) is None


def replace_index(poe: PoeSwitch, number: int) -> PoeSwitch:
    """The same as the switch with that number in config.yaml."""
    poe.switch = replace(poe.switch, index=number)
    return poe


def test_a_mac_that_two_switches_claim_is_not_guessed(start: Start) -> None:
    (_, one), (_, two) = (start(family, devices={3: Device((PI,))}) for family in ("procurve", "netgear"))
    sightings = find_port(PI, [one, replace_index(two, 1)])
    assert [(seen.switch.index, seen.port) for seen in sightings] == [(0, 3), (1, 3)]
    assert choose_edge(sightings) is None


@pytest.mark.parametrize("family", ["comware", "tplink"])
def test_version_1_does_as_well(start: Start, family: str) -> None:
    access = replace(PATIENT, version="1")
    lab, poe = start(family, access=access, devices={3: Device((PI,))})
    assert [(port.number, port.milliwatts, port.link) for port in poe.ports()][2] == (3, 4000, True)
    assert power_cycle(poe, [3], off_time=0.1) == [PortResult(3, ok=True, text="power-cycled")]
    assert lab.told == [(3, False), (3, True)]
    with pytest.raises(SwitchError, match=r"port 4: .*: the switch has no such object to set"):
        poe.turn(replace(poe.ports()[3], index=(99, 99)[: len(poe.ports()[3].index)]), False)


def test_cisco_gets_its_static_power_back(start: Start) -> None:
    lab, poe = start("cisco-ios", devices={3: Device((PI,))})
    poe.turn(replace(poe.ports()[2], setting=2), True)
    assert poe.ports()[2].setting == 2, "static"
    assert power_cycle(poe, [3], off_time=0.1) == [PortResult(3, ok=True, text="power-cycled")]
    assert poe.ports()[2].setting == 2
    assert lab.told[1:] == [(3, False), (3, True)]


# -------------------------------------------------------------------------------------------------- what goes wrong


def test_uplinks_and_our_own_port_are_left_alone_unless_forced(start: Start) -> None:
    lab, poe = start("procurve", ports=4, devices={1: Device((PI,)), 2: Device(("02:00:00:00:00:01",))}, name="sw1")
    other, _ = start("aos-cx", ports=4, name="sw2", devices={1: Device(("b8:27:eb:00:00:09",))})
    lab.connect(3, other, 5)
    lab.plug(4, Device(tuple(f"02:00:00:00:01:0{n}" for n in range(3)), needs_power=False))
    ours = Guard(own_macs=frozenset({"02:00:00:00:00:01"}))
    suffix = "(--force switches it all the same)"
    assert [result.text for result in power_cycle(poe, [1, 2, 3, 4, 5], off_time=0.1, stagger=0, guard=ours)] == [
        "power-cycled",
        f"left alone: this machine is behind it {suffix}",
        f"left alone: it leads to sw2 port 1/1/5, as LLDP says {suffix}",
        f"left alone: 3 MACs are behind it, so it leads to a switch {suffix}",
        "1/5 has no PoE",
    ]
    assert lab.told == [(1, False), (1, True)]
    forced = power_cycle(poe, [2], off_time=0.1, guard=Guard(own_macs=ours.own_macs, force=True))
    assert forced == [PortResult(2, ok=True, text="power-cycled")]


@pytest.mark.parametrize(
    ("family", "quirks", "text"),
    [
        (
            "procurve",
            Quirks(refusal=GEN_ERR),
            "port 1: pethPsePortAdminEnable.1.1: the write community may not write it",
        ),
        ("tplink", Quirks(refusal=17), "port 1: tpPoePortStatus.1: the write community may not write it"),
        (
            "comware",
            Quirks(does_nothing=True),
            "port 1: pethPsePortAdminEnable.4.1: the switch took the order, but the port is not off",
        ),
    ],
)
def test_a_switch_that_does_not_do_it_gets_one_line(start: Start, family: str, quirks: Quirks, text: str) -> None:
    lab, poe = start(family, quirks=quirks, devices={1: Device((PI,))})
    with pytest.raises(SwitchError) as caught:
        power_cycle(poe, [1, 2], off_time=0.1)
    assert f"switch {lab.address} {text}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert poe.ports()[0].admin_on


@pytest.mark.parametrize(
    ("access", "text"),
    [
        (SnmpAccess(read_community="guess", timeout=0.2, retries=0), "and the read community?"),
        (SnmpAccess(write_community="guess", timeout=0.2, retries=0), "and the write community?"),
        (SnmpAccess(write_community="public"), "the write community may not write it"),
        (SnmpAccess(port=162), "port 162 is closed: is SNMP on?"),
    ],
    ids=["read", "write", "read-only", "closed"],
)
def test_a_switch_that_we_may_not_use_gets_one_line(start: Start, access: SnmpAccess, text: str) -> None:
    lab, poe = start("huawei", access=access, devices={1: Device((PI,))})
    with pytest.raises(SwitchError, match=r"^switch 127\.0\.162\.[0-9]+( port 1)?: ") as caught:
        power_cycle(poe, [1, 2], off_time=0.1)
    assert text in str(caught.value)
    assert lab.told == []


def test_ports_without_poe_in_between_keep_the_numbers_of_the_others(start: Start) -> None:
    _lab, poe = start("cisco-ios", ports=6, quirks=Quirks(without_poe=frozenset({2, 3})))
    assert [(port.number, port.label, port.has_poe) for port in poe.ports()][:5] == [
        (1, "Gi1/0/1", True), (2, "Gi1/0/2", False), (3, "Gi1/0/3", False), (4, "Gi1/0/4", True), (5, "Gi1/0/5", True),
    ]  # fmt: skip
    [first, second] = power_cycle(poe, [2, 99], off_time=0.1)
    assert (first.text, second.text) == ("Gi1/0/2 has no PoE", "no PoE port of that number; the switch has 1, 4-6")


def test_a_slow_and_lossy_switch_is_driven_all_the_same(start: Start) -> None:
    access = SnmpAccess(timeout=0.5, retries=8)
    lab, poe = start("netgear", access=access, quirks=Quirks(delay=0.01, loss=0.1), ports=8, devices={3: Device((PI,))})
    assert power_cycle(poe, [3], off_time=0.1) == [PortResult(3, ok=True, text="power-cycled")]
    assert lab.told[0] == (3, False)
    assert lab.told[-1] == (3, True)


def test_forty_eight_boards_start_as_the_budget_allows(start: Start) -> None:
    """Class 0 is reckoned with 15.4 W while it starts; a board that runs takes 4 W."""
    boards = {number: Device((f"b8:27:eb:00:01:{number:02x}",), link_delay=3.0) for number in range(1, 49)}
    lab, _ = start("comware", ports=48, devices=boards, budget=20 * 15_400)
    while not all(lab.is_up(number) for number in boards):
        time.sleep(0.1)
    heard: list[str] = []
    most = 0

    def watch(_port: int, text: str) -> None:
        nonlocal most
        heard.append(text)
        if "on" in heard:
            most = max(most, sum(lab.is_on(number) and not lab.is_up(number) for number in boards))

    with open_switch(Switch(0, IPv4Address(lab.address), power_budget=20 * 15.4)) as poe:
        results = power_cycle(poe, range(1, 49), off_time=0.5, stagger=0, on_progress=watch)
    assert [result.text for result in results] == ["power-cycled"] * 48
    assert 10 < most <= 20
    assert "waits for power: 20 are starting" in heard
    assert all(lab.is_up(number) for number in boards)
    assert heard.count("on") == 48
