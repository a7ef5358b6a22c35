"""The real agent in a QEMU Pi, installed with its root file system: what it tells, costs, and what is made of it."""

from __future__ import annotations

import json
from ipaddress import IPv4Address
from pathlib import Path

from lab.rack import Rack
from monitoring.metrics import Reading
from monitoring.monitoring_server import VERSION
from monitoring.store import Store
from tests.lab.agent_rig import HEAT, SUPPLY, events, shell, write
from tests.lab.rig import Manager, managed, until
from tests.prometheus_rig import prometheus


def test_a_pi_is_known_to_be_well_or_not(tmp_path: Path) -> None:
    rack = Rack(tmp_path, pis=1, kind="qemu", model="4", agent=True)
    with managed(rack) as manager:
        manager.end()
        rack.config.write_text(rack.config.read_text() + "monitoring: {interval: 1, timeout: 1}\n")
        manager.start()
        rack.start()
        manager.wait_for("up", timeout=150)
        until(lambda: "cpu_percent" in latest(manager).values, 60, "the agent answers the manager")
        address = rack.pis[0].address
        assert address is not None
        what_it_tells(manager)
        what_it_costs(address)
        what_prometheus_finds(manager, address)
        what_is_wrong_with_it(manager, address)


def latest(manager: Manager) -> Reading:
    """The last reading of the one Pi."""
    with Store(manager.rack.directory / "state" / "piman.db", read_only=True) as store:
        mac = manager.rack.pis[0].mac
        return store.latest_samples().get(mac, Reading(mac, 0.0))


def what_it_tells(manager: Manager) -> None:
    found = latest(manager)
    assert found.words["agent"] == VERSION
    assert found.words["error"] == ""
    assert found.words["image"].startswith("rootfs-")
    assert "arm64" in found.words["kernel"]
    assert found.words["evidence"].startswith("agent ")
    assert found.values["up"] == 1.0
    assert 0 < found.values["uptime"] < 600
    assert 5 < found.values["num_pids"] < 200
    assert 0 < found.values["disk_percent"] < 60
    assert abs(found.values["clock_offset"]) < 30  # this system has no time client; the installer set the clock
    assert found.values["card_errors"] == 0
    assert "temperature" not in found.values
    assert "under_voltage" not in found.values  # QEMU has neither heat nor supply
    told = json.loads(manager.piman("status", "--json").stdout)[0]
    assert told["up"] is True
    assert told["measured"].keys() >= {"cpu_percent", "memory_percent", "ping_ms"}
    assert " up " in manager.piman("status").stdout
    assert "pi1, Load average" in manager.piman("graph", "pi1", "load", "--since", "10m").stdout


def what_it_costs(address: IPv4Address) -> None:
    """Under 25 MB resident; its processor time means nothing in an emulated machine on a busy host."""
    status = shell(address, "grep -E 'VmRSS|Threads' /proc/$(pidof python3)/status").split()
    assert int(status[status.index("VmRSS:") + 1]) < 25_000
    assert status[status.index("Threads:") + 1] == "1"


def what_prometheus_finds(manager: Manager, address: IPv4Address) -> None:
    """Prometheus hears of the agent from the manager, and asks it itself."""
    folder = manager.rack.directory / "prometheus"
    written = manager.piman("grafana", str(folder))
    assert written.returncode == 0, written.stderr
    agent = f"http://{address}:3000/metrics"
    with prometheus(folder) as running:
        until(lambda: running.healthy() == {"http://127.0.0.1:5000/metrics", agent}, 60, "both are scraped")
        (found,) = running.query('piman_agent_uptime_seconds{name="pi1", job="piman-agents"}')
        told = found["metric"]
        assert isinstance(told, dict)
        assert (told["address"], told["mac"]) == (str(address), manager.rack.pis[0].mac)
        until(
            lambda: bool(running.query('piman_pi_stage{name="pi1", stage="up"} == 1')), 20, "the manager says the same"
        )
        until(lambda: bool(running.query('piman_switch_port_link{name="pi1"} == 1')), 30, "so does the switch")
        assert running.query('piman_service_events_total{service="tftp", event="transfers"} > 0')


def what_is_wrong_with_it(manager: Manager, address: IPv4Address) -> None:
    """Heat and supply, by files in place of what QEMU has not, and the card; the others are with the alerts."""
    write(address, HEAT, "85250")
    write(address, SUPPLY, "50005")
    shell(address, "echo 'mmcblk0: error -110 transferring data, sector 8' >/dev/kmsg")
    wanted = {"temperature": 85.2, "under_voltage": 1.0, "throttled": 1.0, "under_voltage_seen": 1.0}
    wanted["card_errors"] = 1.0

    def seen() -> bool:
        values = latest(manager).values
        return all(abs(values.get(name, -1) - value) < 0.1 for name, value in wanted.items())

    until(seen, 60, "heat, supply and card")
    assert events(address)["temperature"] == 85.25
    write(address, HEAT, "45000")
    write(address, SUPPLY, "0")
    until(lambda: latest(manager).values.get("temperature") == 45.0, 60, "it is cool again")
    until(lambda: not latest(manager).values["under_voltage"], 60, "its supply is good again")
    assert latest(manager).values["under_voltage_seen"] == 1.0
