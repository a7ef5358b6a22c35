"""Whatever JSON a UniFi controller or a MikroTik switch answers: a face, or a SwitchError of one line."""

from __future__ import annotations

from ipaddress import IPv4Address
from random import Random

import pytest

from utility.config import Controller, Switch
from utility.rest import RestClient
from utility.switches import Port, SwitchError, open_switch

WORDS = [
    "port_idx", "port_poe", "poe_mode", "poe_class", "poe_power", "poe_good", "up", "name", "local_port_idx",
    "chassis_id", "port_id", "sw_port", "sw_mac", "mac", "_id", "total_max_power", "total_used_power",
    "poe-out", "poe-out-status", "poe-out-power", "running", "on-interface", "mac-address", "local", "interface",
    "identity", "comment",
]  # fmt: skip
LEAVES: list[object] = [
    None, True, 0, 1, 2, -1, 2.5, 1e400, "", "1", "Class 4", "Class", "off", "auto", "ether1", "ether1,bridge",
    "b8:27:eb:00:00:01", "nan", "9e999", "powered-on", "true", "\x1b[2J", [], {},
]  # fmt: skip


def row(chance: Random) -> object:
    if chance.random() < 0.05:
        return chance.choice(LEAVES)
    return {word: chance.choice(LEAVES) for word in chance.sample(WORDS, chance.randrange(len(WORDS)))}


def rows(chance: Random) -> object:
    return chance.choice(LEAVES) if chance.random() < 0.05 else [row(chance) for _ in range(chance.randrange(5))]


def of_unifi(chance: Random) -> object:
    device = {table: rows(chance) for table in ("port_table", "port_overrides", "lldp_table")}
    more = row(chance)
    return {"data": [{**(more if isinstance(more, dict) else {}), **device, "ip": "172.30.4.9"}, row(chance)]}


@pytest.mark.parametrize(("driver", "answer"), [("unifi", of_unifi), ("routeros", rows)])
def test_any_json(driver: str, answer: object, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = Random(driver)
    monkeypatch.setattr(RestClient, "ask", lambda *_asked: answer(chance))  # type: ignore[operator]
    access = Controller("http://127.0.0.1:9", "piman", "sesame")
    switch = Switch(0, IPv4Address("172.30.4.9"), driver=driver, controller=access)
    faces = 0
    for _again in range(600):
        said = ""
        with open_switch(switch) as poe:
            try:
                ports = poe.ports()
                assert all(isinstance(port, Port) and port.number > 0 for port in ports)
                assert [port.number for port in poe.look(ports)] == [port.number for port in ports]
                poe.macs(ports)
                assert all(supply.capacity > 0 for supply in poe.supplies(ports))
                for port in ports[:1]:
                    poe.turn(port, True)
                faces += bool(ports)
            except SwitchError as error:
                said = str(error)
        assert "\n" not in said
    assert faces > 50
