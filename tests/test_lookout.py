"""What is put together for alerts and healing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from monitoring.facts import SwitchNews
from monitoring.health import Health
from monitoring.lookout import Lookout, barrier
from monitoring.metrics import Reading
from monitoring.store import PiRow, Store
from utility.config import Config, Switch, load_config
from utility.service import Stage
from utility.switches import Neighbour, Port

MAC, NOW = "b8:27:eb:01:02:03", 10_000.0
ROW = PiRow(MAC, "pi3", IPv4Address("172.30.4.15"), Stage.UP, since=9000, heard="NTP", heard_at=9990)
STRANGER = PiRow("b8:27:eb:01:02:09", heard_at=9990)
SWITCH = "172.30.4.254"
NEWS = SwitchNews(SWITCH, "", NOW)
PORTS = [Port(number, str(number), (1, number)) for number in range(1, 5)]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "config.yaml").write_text(
        "private_number: 4\nserver_address: 172.30.4.1\nsubnet_mask: 255.255.255.0\ninterface: none0\n"
        f"switches: [{{address: {SWITCH}, protected_ports: [4], pi_addresses: [172.30.4.13, null, 172.30.4.15]}}]\n"
    )
    return load_config(tmp_path / "config.yaml", environ={})


@pytest.fixture
def store(config: Config) -> Iterator[Store]:
    with Store(config.state_dir / "piman.db") as opened:
        yield opened


def test_all_that_is_known(config: Config, store: Store, tmp_path: Path) -> None:
    carrier = tmp_path / "carrier"
    carrier.write_text("1\n")
    health = Health()
    health.take(Reading(MAC, NOW - 1, {"temperature": 50.0}, {"agent": "1"}))
    store.add_samples([Reading("b8:27:eb:01:02:04", 1.0, {}, {"agent": "1"})])
    store.add_power_on(MAC, 9000.0)
    lookout = Lookout(
        config, store, health, lambda: [ROW, STRANGER], lambda: [NEWS], foreign=lambda: ("172.30.4.9", NOW),
        carrier=carrier,
    )  # fmt: skip
    view = lookout.view(NOW)
    assert view.places == {MAC: (SWITCH, 3)}
    assert view.powered == {MAC: 9000.0}
    assert view.agents == {MAC, "b8:27:eb:01:02:04"}
    assert view.ups[MAC].is_up
    assert view.manager.network is True
    assert 0 <= (view.manager.disk_percent or -1) <= 100
    assert view.manager.foreign_dhcp == "172.30.4.9"
    facts = {each.subject: each for each in lookout.facts(NOW)}
    assert list(facts) == ["manager", f"switch:{SWITCH}", MAC]
    assert facts[MAC].values["temperature"] == 50
    store.add_power_on(MAC, 9500.0)
    assert lookout.view(NOW).powered == {MAC: 9500.0}


def test_the_patients(config: Config, store: Store) -> None:
    store.order_install(MAC, 1.0, "ada")
    off = replace(NEWS, off=frozenset({3}))
    lookout = Lookout(config, store, Health(), lambda: [ROW, STRANGER], lambda: [off], lambda: {SWITCH: PORTS})
    (patient,), network = lookout.patients(NOW)
    assert network is True  # there is no such interface here, which is no reason
    assert (patient.name, patient.is_up, patient.ordered, patient.off, patient.barrier) == (
        "pi3",
        False,
        True,
        True,
        "",
    )


def test_a_network_without_a_link(config: Config, store: Store, tmp_path: Path) -> None:
    carrier = tmp_path / "carrier"
    lookout = Lookout(config, store, Health(), list, carrier=carrier)
    assert lookout.view(NOW).manager.network is None
    carrier.write_text("0\n")
    assert lookout.view(NOW).manager.network is False
    assert lookout.patients(NOW) == ([], False)
    carrier.unlink()
    carrier.mkdir()  # cannot be read, as the file of an interface that is down
    assert lookout.view(NOW).manager.network is False


def test_a_store_and_a_disk_that_fail_are_no_end(config: Config, tmp_path: Path) -> None:
    store = Store(config.state_dir / "piman.db")
    store.close()
    lookout = Lookout(replace(config, state_dir=tmp_path / "gone"), store, Health(), lambda: [ROW])
    assert lookout.view(NOW).manager.disk_percent is None
    assert lookout.view(NOW).powered == {}


@pytest.mark.parametrize(
    ("number", "news", "port", "reason"),
    [
        (3, NEWS, PORTS[2], ""),
        (4, NEWS, PORTS[3], "its port is protected"),
        (3, None, PORTS[2], "its switch does not answer"),
        (3, replace(NEWS, error="no answer"), PORTS[2], "its switch does not answer"),
        (3, NEWS, PORTS[1], "its port gives no power"),
        (3, NEWS, replace(PORTS[2], index=()), "its port gives no power"),
        (3, NEWS, replace(PORTS[2], neighbour=Neighbour("core", "", "7")), "its port leads to core port 7"),
        (3, NEWS, replace(PORTS[2], neighbour=Neighbour("pi3", "", "eth0", forwards=False)), ""),
    ],
)
def test_what_bars_a_port(number: int, news: SwitchNews | None, port: Port, reason: str) -> None:
    switch = Switch(0, IPv4Address(SWITCH), protected_ports=frozenset({4}))
    assert barrier((switch, number), news, {SWITCH: [port]}) == reason
    assert barrier(None, news, {}) == "config.yaml names no port for it"
