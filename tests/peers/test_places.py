"""Mapping, discovering and calibrating on the lab's switches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lab.families import FAMILIES, INDEXES, standard_table
from lab.switch import Device, FamilySwitch
from monitoring.places import calibrate, map_ports, read_tables
from monitoring.store import PiRow, Store
from monitoring.switch_watch import read_denied
from utility.config import Switch
from utility.mac_mapper import boards, settle
from utility.power_rules import Guard
from utility.snmp import OBJECTS, Snmp
from utility.switches import open_switch

PI, OTHER = "b8:27:eb:00:00:07", "b8:27:eb:00:00:08"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "piman.db") as store:
        yield store


def test_the_ports_are_mapped_one_by_one(tmp_path: Path, store: Store) -> None:
    """What a server has heard counts too; a port with nobody, and an uplink, are told."""
    address = "127.0.166.1"
    devices = {1: Device((PI,)), 3: Device((OTHER, "02:00:00:00:00:11")), 5: Device(("02:00:00:00:00:22",) * 1)}
    many = Device(tuple(f"02:00:00:00:01:0{number}" for number in range(4)))
    told: list[tuple[int, str]] = []
    switch = Switch(0, IPv4Address(address), off_time=0.1)
    lab = FamilySwitch("comware", tmp_path / "sw", address, ports=6, devices={**devices, 4: many})

    def tell(number: int, text: str) -> None:
        told.append((number, text))
        if (number, text) == (3, "on"):
            store.save_pi(PiRow(OTHER, heard="DHCPDISCOVER", heard_at=9e9))

    with lab, open_switch(switch) as poe:
        found = map_ports(
            store, poe, [1, 2, 3, 4], hears=True, guard=Guard(), patience=0.3, on_progress=tell, wait=lambda _: None
        )
    assert [(each.port.number, each.verdict.mac) for each in found] == [(1, PI), (2, ""), (3, OTHER), (4, "")]
    assert found[0].verdict.text == "by the forwarding table"
    assert found[1].verdict.text.startswith("nobody was heard and the switch saw nobody")
    assert found[2].verdict.text == "by its boot and the forwarding table"
    assert found[3].verdict.text.startswith("left alone: 4 MACs are behind it")
    assert lab.told == [(1, False), (1, True), (2, False), (2, True), (3, False), (3, True)]
    assert store.intents() == []


def test_what_is_up_is_found_without_a_cut(tmp_path: Path) -> None:
    core = FamilySwitch("procurve", tmp_path / "core", "127.0.166.2", ports=4, name="core", mac="02:00:00:00:00:01")
    edge = FamilySwitch(
        "cisco-ios", tmp_path / "edge", "127.0.166.3", ports=4, vlan=10, name="edge", mac="02:00:00:00:00:02",
        devices={2: Device((PI,)), 3: Device((OTHER,))},
    )  # fmt: skip
    core.connect(5, edge, 5)
    core.plug(1, Device(("b8:27:eb:00:00:01",)))
    with core, edge:
        switches = [Switch(0, IPv4Address(core.address)), Switch(1, IPv4Address(edge.address))]
        sure, unsure = settle(read_tables(switches, lambda error: pytest.fail(str(error))))
    found = {mac: (spot.switch.index, spot.port.number) for mac, spot in boards(sure, ()).items()}
    assert found == {"b8:27:eb:00:00:01": (0, 1), PI: (1, 2), OTHER: (1, 3)}
    assert unsure == {}
    assert core.told == edge.told == []


def test_a_switch_whose_index_no_rule_explains_is_calibrated(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its PoE table counts from the back, by nines."""
    monkeypatch.setitem(INDEXES, "mad", lambda socket: (1, 900 - 9 * socket.number))
    family = replace(FAMILIES["standard"], tables=(standard_table("mad"),))
    address = "127.0.166.4"
    devices = {2: Device((PI,)), 3: Device((OTHER,))}
    told: list[tuple[int, str]] = []
    switch = Switch(0, IPv4Address(address), off_time=0.1)
    with FamilySwitch(family, tmp_path / "sw", address, ports=4, devices=devices):
        with open_switch(switch) as poe, Snmp(switch) as snmp:
            powered = [port for port in poe.ports() if port.has_poe]
            assert [port.if_index for port in powered] == [None] * 4

            def links() -> dict[int, bool]:
                return {oid[-1]: value == 1 for oid, value in snmp.walk(OBJECTS["ifOperStatus"])}

            found = calibrate(
                store, poe, [port.number for port in powered], links, guard=Guard(), patience=1.0,
                on_progress=lambda number, text: told.append((number, text)), wait=lambda _s: None,
            )  # fmt: skip
        assert found == {873: 3, 882: 2}
        assert told[-1] == (891, "no link went: plug a Pi in there that is up, and try again")
        assert store.calibrations() == {address: {(1, 873): 3, (1, 882): 2}}
        with open_switch(replace(switch, calibrated=store.calibrations()[address])) as poe:
            face = poe.ports()
            by_mac = {mac: number for number, macs in poe.macs(face).items() for mac in macs}
            names = {port.number: (port.label, port.index) for port in face}
    assert names[by_mac[PI]] == ("port2", (1, 882))
    assert names[by_mac[OTHER]] == ("port3", (1, 873))


def test_how_often_power_was_denied_is_read_from_a_switch_as_config_yaml_has_it(tmp_path: Path) -> None:
    address = "127.0.166.5"
    hungry = {port: Device((f"b8:27:eb:00:01:0{port}",), milliwatts=6000) for port in (1, 2)}
    with FamilySwitch("standard", tmp_path / "sw", address, ports=2, devices=hungry, budget=8000):
        assert (read_denied(Switch(0, IPv4Address(address))) or 0) >= 1
