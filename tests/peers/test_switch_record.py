"""A switch recorded over SNMP and played again by the lab is the same switch to us."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lab.replay import parse_record
from lab.switch import Device, FamilySwitch
from utility.config import SnmpAccess, Switch
from utility.drivers import Detection
from utility.findport import find_port
from utility.recorder import Disguise, record
from utility.snmp import Snmp
from utility.snmp_switch import SnmpSwitch
from utility.switches import Port

PI = "b8:27:eb:00:00:07"
OTHERS = ("02:00:00:00:00:99", "02:00:00:00:00:98", "02:00:00:00:00:97")


def recorded(address: str, disguise: Disguise) -> str:
    switch = Switch(0, IPv4Address(address), snmp=SnmpAccess())
    with Snmp(switch) as snmp:
        it = SnmpSwitch(switch, snmp)
        return record(snmp, it.driver, it.object_id, disguise)


def plain(port: Port) -> Port:
    """Without what is the lab's own doing: who is powered, and that a record shows all VLANs as one."""
    return replace(port, milliwatts=0, detection=Detection.UNKNOWN, bridge_port=None)


@pytest.mark.parametrize(("family", "number", "place"), [("cisco-ios", 27, 1), ("tplink", 27, 2), ("comware", 27, 3)])
def test_a_recorded_switch_is_the_same_switch(tmp_path: Path, family: str, number: int, place: int) -> None:
    vlan = 10 if family == "cisco-ios" else 1
    uplink = Device(OTHERS, needs_power=False, vlan=1)
    live, again = f"127.0.164.{place}", f"127.0.165.{place}"
    devices = {number: Device((PI,)), 25: uplink}
    with FamilySwitch(family, tmp_path / "live", live, members=2, vlan=vlan, devices=devices, name="rack-a") as it:
        text = recorded(live, Disguise(["public", "private"]))
        with SnmpSwitch(Switch(0, IPv4Address(live))) as asked:
            faces, seen = asked.ports(), find_port(PI, [asked])
    played = {port: Device((f"02:00:00:00:01:{port:02x}",)) for port in range(1, 99)}
    with (
        FamilySwitch("standard", tmp_path / "again", again, record=parse_record(text), devices=played),
        SnmpSwitch(Switch(0, IPv4Address(again))) as asked,
    ):
        assert [plain(port) for port in asked.ports()] == [plain(port) for port in faces]
        (found,) = find_port(PI, [asked])
        assert (found.port, found.if_index, found.if_name) == (seen[0].port, seen[0].if_index, seen[0].if_name)
        (trunk,) = find_port(OTHERS[0], [asked])
        assert trunk.is_trunk
        port = next(port for port in asked.ports() if port.number == found.port)
        asked.turn(port, on=False)
        assert asked.look([port])[0].admin_on is False
    assert it.name in text


def test_an_anonymous_record_plays_too(tmp_path: Path) -> None:
    live, again = "127.0.164.9", "127.0.165.9"
    with FamilySwitch("procurve", tmp_path / "live", live, devices={5: Device((PI,))}, name="rack-a"):
        text = recorded(live, Disguise(anonymise=True))
    assert "rack-a" not in text
    with (
        FamilySwitch("standard", tmp_path / "again", again, record=parse_record(text)),
        SnmpSwitch(Switch(0, IPv4Address(again))) as asked,
    ):
        macs = asked.macs()
    assert [number for number, each in macs.items() if any(mac.startswith("b8:27:eb") for mac in each)] == [5]
    assert PI not in str(macs)
