"""From what happens on a Pi to what arrives: light agents, the poller, the rules, a real webhook and mail server."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from monitoring.alerting import Alerts, Courier, Couriers
from monitoring.channels import Pace
from monitoring.client import Poller
from monitoring.health import Health
from monitoring.lookout import Lookout
from monitoring.store import PiRow, Store
from tests.agents import Agents, _Asked, events_of, http, mac_of
from tests.alert_servers import Mailbox, Webhook, wait_for
from utility.config import Config, load_config
from utility.hosts import Host
from utility.service import Service, Stage

PIS = {f"pi{number}": f"10.99.0.1{number}" for number in (1, 2, 3)}
CONFIG = """\
private_number: 4
server_address: 10.99.0.1
subnet_mask: 255.255.255.0
interface: alerts0
switches: []
monitoring:
  rules:
    - cpu_percent > 95 for 1s clear < 80
    - load1 > 8 for 1s clear < 4
    - disk_percent > 90 for 1s clear < 85
    - num_pids > 500 for 1s clear < 400
    - temperature > 80 for 1s clear < 75
    - under_voltage == 1 for 1s
    - up == 0 for 1s
  channels:
    - {type: webhook, url: "%s"}
    - {type: email, to: [ops@example.org], server: "localhost:%d"}
"""
TROUBLE: dict[str, float] = {
    "cpu_percent": 99.5,
    "load1": 12.0,
    "disk_percent": 97.0,
    "num_pids": 900,
    "temperature": 84.0,
    "under_voltage": 1,
}


class Bench(Agents):
    """Healthy agents, but for what a test does to them."""

    def __init__(self) -> None:
        super().__init__()
        self.done_to: dict[str, dict[str, float]] = {}

    def __enter__(self) -> Bench:
        super().__enter__()
        return self

    def _answer(self, asked: _Asked) -> None:
        found = {**events_of(asked.address, time.time()), **self.done_to.get(asked.address, {})}
        asked.out = http(json.dumps(found).encode())
        self._send(asked)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=30)


@pytest.fixture
def network() -> Iterator[None]:
    """The Pis' addresses on this machine, behind an interface that leads nowhere for those that are taken away."""
    ip("link", "add", "alerts0", "type", "bridge")
    ip("addr", "add", "10.99.0.1/24", "dev", "alerts0")
    ip("link", "set", "alerts0", "up")
    for address in PIS.values():
        power(address, on=True)
    yield
    ip("link", "del", "alerts0")
    for address in PIS.values():
        subprocess.run(["ip", "addr", "del", f"{address}/32", "dev", "lo"], check=False, stderr=subprocess.DEVNULL)


def power(address: str, on: bool) -> None:
    ip("addr", "add" if on else "del", f"{address}/32", "dev", "lo")


@contextlib.contextmanager
def manager(config: Config, agents: Bench, store: Store) -> Iterator[Health]:
    """The polling and the alerting of a server, quicker."""
    hosts = [Host(mac_of(address), IPv4Address(address), name) for name, address in PIS.items()]
    rows = [
        PiRow(each.mac, each.name, each.address, Stage.UP, heard="NTP", heard_at=time.time() - 9e4) for each in hosts
    ]
    settings = replace(config.monitoring, interval=0.3, timeout=0.3, port=agents.port)
    health = Health(settings.interval)
    poller = Poller(settings, lambda: hosts, lambda: rows, health, lambda reading: None, lambda _report: None)
    lookout = Lookout(replace(config, monitoring=settings), store, health, lambda: rows)
    pace = Pace(group=0.3, interval=0.5, first=0.1)
    couriers = [Courier(channel, store, "rack", pace) for channel in settings.channels]
    alerts = Alerts(settings.rules, store, lookout.facts, couriers, interval=0.2)
    services: list[Service] = [poller, alerts, Couriers(couriers, store)]
    threads = [threading.Thread(target=each.run, name=each.name, daemon=True) for each in services]
    for thread in threads:
        thread.start()
    try:
        yield health
    finally:
        for service in services:
            service.stop()
        for thread in threads:
            thread.join(5)


def test_what_happens_on_a_pi_arrives_once_and_that_it_is_over_once(network: None, tmp_path: Path) -> None:
    with Webhook() as webhook, Mailbox() as mailbox, Bench() as agents, Store(tmp_path / "piman.db") as store:
        (tmp_path / "config.yaml").write_text(CONFIG % (webhook.url, mailbox.port))
        config = load_config(tmp_path / "config.yaml", environ={})

        def arrived() -> Counter[tuple[str, str, str]]:
            alerts = [alert for body in webhook.taken for alert in body["alerts"]]
            return Counter((each["name"], each["rule"], each["event"]) for each in alerts)

        with manager(config, agents, store) as health:
            wait_for(lambda: len(health.latest()) == 3)
            agents.done_to[PIS["pi1"]] = TROUBLE
            agents.done_to[PIS["pi2"]] = {"temperature": 84.0}
            power(PIS["pi3"], on=False)
            raised = {("pi1", rule, "raised") for rule in TROUBLE}
            raised |= {("pi2", "temperature", "raised"), ("pi3", "up", "raised")}
            wait_for(lambda: arrived().keys() == raised)
            agents.done_to = {PIS["pi2"]: {"temperature": 78.0}}  # neither hot nor cool
            power(PIS["pi3"], on=True)
            wait_for(lambda: ("pi3", "up", "over") in arrived() and len(arrived()) == 15)
        # The manager is started anew while one alert is open.
        with manager(config, agents, store) as health:
            wait_for(lambda: len(health.latest()) == 3)
            time.sleep(2)
            assert len(arrived()) == 15
            agents.done_to = {}
            wait_for(lambda: len(arrived()) == 16)
            wait_for(lambda: "over: pi2" in "".join(each.as_string() for each in mailbox.mails))
    everything = raised | {(name, rule, "over") for name, rule, _event in raised}
    assert arrived() == Counter(everything)
    lines = [line[2:] for mail in mailbox.mails for line in mail.get_content().splitlines()]  # type: ignore[attr-defined]
    assert sorted(line.partition(": it")[0].partition(": its")[0] for line in lines) == sorted(
        f"{'over' if event == 'over' else 'critical' if rule == 'up' else 'warning'}: {name}"
        for name, rule, event in everything
    )
