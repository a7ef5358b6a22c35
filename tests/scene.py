"""A rack of four Pis at one moment, to export: one up, one installing, one never heard, one on no switch."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

from monitoring.alerts import Alert
from monitoring.exporters import Scene
from monitoring.facts import ManagerNews, SwitchNews, View, gather
from monitoring.health import Up
from monitoring.metrics import METRICS, Reading
from monitoring.store import PiRow
from utility.config import load_config
from utility.hosts import Host
from utility.rules import AlertSeverity
from utility.service import Stage
from utility.switches import Port

NOW = 1_790_000_000.0
SILENT = "172.30.4.253"
CONFIG = f"""\
private_number: 4
server_address: 172.30.4.1
subnet_mask: 255.255.255.0
interface: lo
site: lab-2
switches:
  - address: 172.30.4.254
    name: upper
    pi_addresses: [172.30.4.11, 172.30.4.12]
  - address: {SILENT}
    pi_addresses: [172.30.4.13]
"""
MACS = tuple(f"b8:27:eb:00:00:0{number}" for number in range(1, 5))
HOSTS = tuple(Host(mac, IPv4Address(f"172.30.4.{number}"), f"pi{number}") for number, mac in enumerate(MACS, 11))
ROWS = (
    PiRow(MACS[0], "pi11", HOSTS[0].address, Stage.UP, NOW - 600, "NTP", NOW - 5.5, facts={"model": 'Pi 4 "B"'}),
    PiRow(MACS[1], "pi12", HOSTS[1].address, Stage.IMAGE, NOW - 60, "PROGRESS", NOW - 1, done=150, total=600),
    PiRow(MACS[3], "pi14", HOSTS[3].address, Stage.HELLO, NOW - 60),
    PiRow("dc:a6:32:00:00:01", facts={"vendor": "Raspberry Pi"}),
)
VALUES = {
    **{name: 1.0 if metric.unit == "bool" else 12.0 for name, metric in METRICS.items()},
    "ping_ms": 0.25,
    "clock_offset": -0.000001,
}
READINGS = {MACS[0]: Reading(MACS[0], NOW - 3, VALUES, {"image": "lite", "kernel": "6.6", "agent": "2", "error": ""})}
NEWS = (
    SwitchNews("172.30.4.254", "upper", NOW - 4, percent=25.0, denied=2, watts=30.5, budget=120.0),
    SwitchNews(SILENT, "", NOW - 9, error="does not answer"),
)
FACES = {
    "172.30.4.254": [
        Port(1, "1", (1, 1), admin_on=True, milliwatts=3500, link=True),
        Port(3, "3", (1, 3), admin_on=False, link=False),
        Port(4, "sfp"),
    ]
}
HOT = Alert(7, "temperature", MACS[0], "pi11", AlertSeverity.WARNING, NOW - 90, NOW - 30, "it is at 81 °C", 81.0)
OVER = Alert(6, "up", MACS[1], "pi12", AlertSeverity.CRITICAL, NOW - 900, NOW - 800, "it is down", 0.0, resolved_at=NOW)


def scene(folder: Path) -> Scene:
    """All of it. `folder` takes its config.yaml."""
    (folder / "config.yaml").write_text(CONFIG)
    config = load_config(folder / "config.yaml", environ={})
    view = View(
        ROWS,
        READINGS,
        {MACS[0]: Up(True, NOW - 500, "agent 3 s ago")},
        {MACS[0]: ("172.30.4.254", 1)},
        switches=NEWS,
        manager=ManagerNews(41.5, True),
    )
    counters = {"tftp": {"transfers": 12, "refused: file not found": 3}}
    process = {"process_threads": 9.0}
    return Scene(
        config, "lab-2", gather(view, NOW), HOSTS, {row.mac: row for row in ROWS}, READINGS, frozenset({MACS[1]}),
        [HOT, OVER], NEWS, FACES, counters, process, "1.2",
    )  # fmt: skip
