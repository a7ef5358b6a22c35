"""The monitoring as one service: its parts run and end together, and healing acts by the operations of the commands."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from monitoring import operations
from monitoring.healing import Step
from monitoring.metrics import Reading
from monitoring.store import PiRow, Store
from monitoring.watching import Rack, Watching, healing_hand, site_of
from tests.alert_servers import Webhook, wait_for
from utility.config import Config, Healing, load_config
from utility.hosts import Host
from utility.power_cycle import PortResult
from utility.service import Stage

MAC = "b8:27:eb:00:00:01"
PI = Host(MAC, IPv4Address("127.3.0.1"), "pi1")
CONFIG = """\
private_number: 4
server_address: 127.0.0.1
subnet_mask: 255.0.0.0
interface: lo
switches: [{address: 127.3.0.254, pi_addresses: [127.3.0.1], snmp: {port: 9, timeout: 0.2, retries: 0}}]
monitoring: {interval: 1, timeout: 0.5, port: 9, rules: [switch_up == 0], channels: ["%s"]}
"""


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook() as opened:
        yield opened


@pytest.fixture
def config(tmp_path: Path, webhook: Webhook) -> Config:
    (tmp_path / "config.yaml").write_text(CONFIG % webhook.url)
    return load_config(tmp_path / "config.yaml", environ={})


@pytest.fixture
def store(config: Config) -> Iterator[Store]:
    with Store(config.state_dir / "piman.db") as opened:
        yield opened


def rack() -> Rack:
    row = PiRow(MAC, "pi1", PI.address, Stage.UP, heard="NTP", heard_at=time.time())
    return Rack(
        hosts=lambda: [PI],
        by_mac={MAC: PI}.get,
        by_address={PI.address: PI}.get,
        rows=lambda: [row],
        report=lambda _report: None,
        foreign=lambda: ("", 0.0),
    )


def running(watching: Watching) -> tuple[threading.Thread, list[BaseException]]:
    raised: list[BaseException] = []

    def work() -> None:
        try:
            watching.run()
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, raised


def test_it_polls_raises_and_ends_at_once(config: Config, store: Store, webhook: Webhook) -> None:
    store.add_samples([Reading("b8:27:eb:00:00:09", 5.0, {"up": 1.0}, {"since": "3", "error": ""})])
    watching = Watching(replace(config, site="lab"), store, rack())
    assert watching.health.up("b8:27:eb:00:00:09", 6.0).is_up  # as an earlier process knew
    thread, raised = running(watching)
    wait_for(lambda: webhook.taken)
    wait_for(lambda: MAC in store.latest_samples())
    began = time.monotonic()
    watching.stop()
    thread.join(5)
    assert time.monotonic() - began < 1.5
    assert raised == []
    assert webhook.texts[0].partition("(")[0].endswith("lab: critical: switch 127.3.0.254: it does not answer SNMP ")
    assert watching.switches.news()[0].error


def test_the_first_part_to_fail_ends_it(
    config: Config, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watching = Watching(config, store, rack())

    def fail() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(watching.parts[3], "run", fail)
    thread, raised = running(watching)
    thread.join(10)
    assert [str(error) for error in raised] == ["a bug"]


def test_healing_is_a_part_where_it_is_wanted(config: Config, store: Store) -> None:
    monitoring = replace(config.monitoring, healing=Healing(enabled=True))
    with_healing = Watching(replace(config, monitoring=monitoring), store, rack())
    assert [part.name for part in with_healing.parts] == [
        "monitoring", "samples", "switches", "alerts", "channels", "healing",
    ]  # fmt: skip
    without = Watching(config, store, rack())
    assert "healing" not in [part.name for part in without.parts]
    for watching in (with_healing, without):  # what they hold open is closed where they run
        watching.stop()
        watching.run()


def test_a_site_has_a_name(config: Config) -> None:
    assert site_of(replace(config, site="lab", domain="example.org")) == "lab"
    assert site_of(replace(config, domain="example.org")) == "example.org"
    assert site_of(config)


@pytest.mark.parametrize("step", [Step.POWER_CYCLE, Step.REINSTALL])
def test_a_step_is_an_operation(config: Config, store: Store, step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    def cycle(_switch: object, ports: list[int], *, wait: Callable[[float], object], **_: object) -> list[PortResult]:
        return [PortResult(port, ok=True, text="power-cycled") for port in ports]

    monkeypatch.setattr(operations, "power_cycle", cycle)
    act = healing_hand(config, store, rack().by_mac)
    assert act(step, [MAC], threading.Event()) == {MAC: "power-cycled"}
    assert [each.by for each in store.orders()] == (["the healing"] if step is Step.REINSTALL else [])
    assert act(step, ["b8:27:eb:00:00:09"], threading.Event()) == {}


def test_a_step_ends_with_the_manager(config: Config, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def cycle(_switch: object, ports: list[int], *, wait: Callable[[float], object], **_: object) -> list[PortResult]:
        wait(60)
        return []

    monkeypatch.setattr(operations, "power_cycle", cycle)
    stopping = threading.Event()
    threading.Timer(0.2, stopping.set).start()
    began = time.monotonic()
    (text,) = healing_hand(config, store, rack().by_mac)(Step.REINSTALL, [MAC], stopping).values()
    assert time.monotonic() - began < 5
    assert "interrupt" in text
    assert store.orders() == []
