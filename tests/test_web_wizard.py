"""web.wizard: what a machine is seen as, and the first config.yaml."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path
from typing import NoReturn

import pytest

from monitoring.doctor import SwitchFacts
from utility.config import SnmpAccess, Switch, load_config
from utility.drivers import Detection
from utility.switches import Port, SwitchError
from web import wizard
from web.views import Json

WANTED: Json = {
    "private_number": "4",
    "server_address": "172.30.4.1",
    "subnet_mask": "255.255.255.0",
    "interface": "eth0",
    "unknown_pis": "approve",
    "switches": [
        {"address": "172.30.4.254", "name": "lower", "ports": 3},
        {"address": "172.30.4.12", "ports": 2},
        {"address": "172.30.4.253"},
    ],
}


def test_the_first_config_is_good_and_gives_each_port_an_address(tmp_path: Path) -> None:
    config = load_config(tmp_path / "config.yaml", environ={}, data=wizard.config_text(WANTED).encode())
    assert (config.interface, config.unknown_pis) == ("eth0", "approve")
    addresses = [[str(each) for each in switch.pi_addresses] for switch in config.switches]
    assert addresses == [["172.30.4.11", "172.30.4.13", "172.30.4.14"], ["172.30.4.15", "172.30.4.16"], []]
    none = wizard.config_text({**WANTED, "switches": [], "unknown_pis": ""})
    assert load_config(tmp_path / "config.yaml", environ={}, data=none.encode()).switches == ()


@pytest.mark.parametrize(
    "wrong", [{"server_address": "x"}, {"subnet_mask": ""}, {"switches": [{"address": "y", "ports": 1}]}]
)
def test_what_is_wrong_is_left_to_the_files_own_rules(tmp_path: Path, wrong: Json) -> None:
    assert "pi_addresses" in wizard.config_text({**WANTED, **wrong}) or wrong.get("switches")


def test_a_small_network_is_used_from_its_beginning() -> None:
    text = wizard.config_text(
        {**WANTED, "subnet_mask": "255.255.255.240", "switches": [{"address": "172.30.4.14", "ports": 64}]}
    )
    assert text.count("      - 172.30.4.") == 12


def test_the_inner_interface_is_proposed() -> None:
    links: list[Json] = [
        {"name": "office", "address": "10.0.0.5", "mask": "255.0.0.0"},
        {"name": "rack", "address": "172.30.4.1", "mask": "255.255.255.0"},
        {"name": "spare", "address": "", "mask": ""},
    ]
    assert wizard.proposal(links, frozenset({"office"}))["interface"] == "rack"
    assert wizard.proposal(links, frozenset({"office", "rack"}))["interface"] == "office"
    assert wizard.proposal([], frozenset())["server_address"] == ""


def test_this_machine_is_looked_at() -> None:
    assert wizard.address_of("lo") == IPv4Address("127.0.0.1")
    assert wizard.address_of("nic99") is None
    assert "lo" not in [each["name"] for each in wizard.interfaces()]
    assert isinstance(wizard.links_with_router(), frozenset)


def test_an_image_is_looked_for(tmp_path: Path) -> None:
    assert wizard.image_view(tmp_path / "rootfs.tgz") == {
        "path": str(tmp_path / "rootfs.tgz"), "size": 0, "problem": "No such file or directory", "good": False
    }  # fmt: skip


def test_a_switch_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    port = Port(1, "1", index=(1, 1), admin_on=True, detection=Detection.DELIVERING)
    answers = [SwitchFacts("A  switch\nof 8 ports", (port,)), SwitchFacts(problem="no answer")]
    monkeypatch.setattr(wizard, "ask_switches", lambda _switches: [answers.pop(0)])
    monkeypatch.setattr(wizard, "open_switch", no_switch)
    found = wizard.try_switch(IPv4Address("172.30.4.254"), SnmpAccess())
    assert (found["ok"], found["description"], found["ports"]) == (True, "A switch of 8 ports", [1])
    assert found["leads_on"] == []
    found = wizard.try_switch(IPv4Address("172.30.4.254"), SnmpAccess())
    assert (found["ok"], found["text"], bool(found["advice"])) == (False, "no answer", True)


def no_switch(switch: Switch) -> NoReturn:
    raise SwitchError(switch, "", "it keeps its tables to itself")


def test_a_port_that_leads_on_is_left_alone(tmp_path: Path) -> None:
    wanted = {**WANTED, "switches": [{"address": "172.30.4.254", "ports": 4, "protected": [2, 9]}]}
    path = tmp_path / "config.yaml"
    path.write_text(wizard.config_text(wanted))
    (switch,) = load_config(path, environ={}).switches
    assert switch.protected_ports == {2, 9}
    assert [str(each) for each in switch.pi_addresses] == ["172.30.4.11", "None", "172.30.4.12", "172.30.4.13"]
