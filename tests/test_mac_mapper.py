"""Tests of utility.mac_mapper: which board is on which port, and what hosts.csv should say of it."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network

import pytest

from utility.config import Switch
from utility.drivers import Detection
from utility.hosts import Host, Plan
from utility.mac_mapper import (
    Proposal,
    Spot,
    Table,
    Verdict,
    boards,
    is_edge,
    is_settled,
    judge,
    propose,
    settle,
    which_went,
)
from utility.switches import Neighbour, Port


def ip(last: int) -> IPv4Address:
    return IPv4Address(f"172.30.4.{last}")


def mac(last: int) -> str:
    return f"b8:27:eb:00:00:{last:02x}"


def switch(index: int = 0, *addresses: int | None, name: str = "") -> Switch:
    return Switch(index, ip(254 - index), name, tuple(None if each is None else ip(each) for each in addresses))


def port(number: int, *, fed: bool = True, neighbour: Neighbour | None = None) -> Port:
    detection = Detection.DELIVERING if fed else Detection.SEARCHING
    return Port(number, f"1/{number}", (1, number), number, detection=detection, neighbour=neighbour)


CORE = Neighbour("core", "02:00:00:00:00:01", "8")


def table(macs: Mapping[int, set[str]], index: int = 0, *ports: Port) -> Table:
    face = ports or tuple(port(number) for number in range(1, 9))
    return Table(switch(index), face, {number: frozenset(each) for number, each in macs.items()})


@pytest.mark.parametrize(
    ("neighbour", "macs", "edge"),
    [
        (None, set(), True),
        (None, {mac(1), mac(2)}, True),
        (None, {mac(1), mac(2), mac(3)}, False),
        (CORE, {mac(1)}, False),
        (Neighbour("pi1", mac(1), "eth0"), {mac(1)}, True),  # lldpd on a Pi that routes for its containers
        (Neighbour("pi1", mac(1), "eth0", forwards=False), set(), True),
    ],
)
def test_is_edge(neighbour: Neighbour | None, macs: set[str], edge: bool) -> None:
    assert is_edge(port(1, neighbour=neighbour), macs, {mac(1)}) is edge


def test_a_mac_is_where_one_edge_has_it() -> None:
    trunk = {mac(each) for each in range(1, 9)}
    sure, unsure = settle([table({1: {mac(1)}, 2: {mac(2), mac(9)}, 8: trunk}), table({3: {mac(3)}, 4: {mac(9)}}, 1)])
    assert {each: (spot.switch.index, spot.port.number) for each, spot in sure.items()} == {
        mac(1): (0, 1),
        mac(2): (0, 2),
        mac(3): (1, 3),
    }
    assert [[(spot.switch.index, spot.port.number) for spot in spots] for spots in unsure.values()] == [
        [(0, 2), (1, 4)]
    ]
    assert settle([]) == ({}, {})


def test_boards_are_known_or_alone_where_there_is_power() -> None:
    face = (port(1), port(2, fed=False), port(3), port(4), port(5, fed=False))
    macs = {1: {mac(1)}, 2: {mac(2)}, 3: {mac(3), mac(4)}, 4: {mac(5), mac(6)}, 5: {mac(7)}}
    sure, _ = settle([table(macs, 0, *face)])
    assert list(boards(sure, {mac(4), mac(7)})) == [mac(1), mac(4), mac(7)]
    assert list(boards(sure, {mac(3), mac(4)})) == [mac(1), mac(3), mac(4)]


@pytest.mark.parametrize(
    ("on_port", "heard", "elsewhere", "found", "text"),
    [
        ({1}, {1, 2}, {2}, 1, "by its boot and the forwarding table"),
        ({1, 3}, {1}, set(), 1, "by its boot and the forwarding table"),
        ({1}, set(), set(), 1, "by the forwarding table"),
        ({1}, {2}, set(), 1, "by the forwarding table"),
        (set(), {1, 2}, {2}, 1, "by its boot"),
        ({1, 2}, set(), set(), 0, f"2 MACs are there: {mac(1)}, {mac(2)}; unplug all but the Pi"),
        (set(), {1, 2}, set(), 0, f"{mac(1)}, {mac(2)} asked for addresses and the switch has none of them"),
        (set(), {2}, {2}, 0, "nobody was heard and the switch saw nobody: is a Pi plugged in there?"),
    ],
)
def test_who_is_on_a_port(on_port: set[int], heard: set[int], elsewhere: set[int], found: int, text: str) -> None:
    verdict = judge(*({mac(each) for each in macs} for macs in (on_port, heard, elsewhere)))
    assert verdict.mac == (mac(found) if found else "")
    assert verdict.text.startswith(text)


def test_when_to_wait_no_longer() -> None:
    both, one, none = judge({mac(1)}, {mac(1)}, ()), judge({mac(1)}, (), ()), Verdict("", "nobody")
    assert [is_settled(each, hears=True) for each in (both, one, none)] == [True, False, False]
    assert [is_settled(each, hears=False) for each in (both, one, none)] == [True, True, False]


# --------------------------------------------------------------------------------------------------------- hosts.csv

PLAN = Plan(IPv4Network("172.30.4.0/28"), {ip(1)}, (ip(4), ip(5), ip(6)))


def spots(*places: tuple[int, int], on: Switch | None = None) -> dict[str, Spot]:
    """(MAC, port) ..."""
    return {mac(which): Spot(on or switch(0, 4, None, 5, 6), port(number)) for which, number in places}


def lines(found: list[Proposal]) -> list[str]:
    return [each.line for each in found]


def test_a_new_one_gets_the_address_of_its_port_and_others_the_first_free() -> None:
    found = propose(spots((3, 3), (2, 2), (1, 1), (9, 9)), [Host(mac(7), ip(2), "taken")], PLAN)
    assert lines(found) == [
        f"{mac(1)};172.30.4.4;pi-000001;0",
        f"{mac(2)};172.30.4.3;pi-000002;0",
        f"{mac(3)};172.30.4.5;pi-000003;0",
        f"{mac(9)};172.30.4.7;pi-000009;0",
    ]
    assert not any(each.note or each.is_known for each in found)


def test_a_known_one_keeps_what_it_has_and_differences_are_told() -> None:
    hosts = [Host(mac(1), ip(4), "pi1"), Host(mac(2), ip(9), "pi2"), Host(mac(3), ip(8), "pi3")]
    found = propose(spots((1, 1), (2, 2), (3, 3)), hosts, PLAN)
    assert [(each.is_known, each.hostname, each.note) for each in found] == [
        (True, "pi1", ""),
        (True, "pi2", ""),
        (True, "pi3", "config.yaml has 172.30.4.5 on 172.30.4.254 port 3"),
    ]


def test_an_address_that_another_has_is_told_and_not_given() -> None:
    found = propose(spots((1, 1)), [Host(mac(8), ip(4), "old")], PLAN)
    assert (found[0].address, found[0].note) == (
        ip(2),
        "config.yaml's 172.30.4.4 for 172.30.4.254 port 1 is that of old",
    )
    twins = propose(spots((1, 1), (2, 1)), [], PLAN)
    assert [each.address for each in twins] == [ip(4), ip(2)]
    assert twins[1].note == "config.yaml's 172.30.4.4 for 172.30.4.254 port 1 is given away"


def test_addresses_of_other_ports_come_last_and_when_none_is_left_it_is_said() -> None:
    tight = Plan(IPv4Network("172.30.4.0/29"), {ip(1)}, (ip(4), ip(5), ip(6)))
    found = propose(spots((1, 9), (2, 10), (3, 11), (4, 1), (5, 12)), [Host(mac(9), ip(6), "pi9")], tight)
    assert [str(each.address) for each in found] == ["172.30.4.4", "172.30.4.2", "172.30.4.3", "172.30.4.5", "None"]
    assert found[-1].note == "no free address is left in 172.30.4.0/29"
    assert found[-1].line == f"{mac(5)};0.0.0.0;pi-000005;0"


def test_where_a_spot_is() -> None:
    assert Spot(switch(0, 4, name="rack-a"), port(1)).where == "rack-a port 1"
    assert Spot(switch(0, 4), port(1)).address == ip(4)
    assert Spot(switch(0, 4), port(2)).address is None
    assert Spot(switch(0, 4), port(0)).address is None


def test_which_interface_went() -> None:
    before = {1: True, 2: True, 3: False, 4: True}
    assert which_went(before, {1, 3, 4}, {1: True, 2: True, 3: True}) == [1]
    assert which_went(before, set(), before) == []
