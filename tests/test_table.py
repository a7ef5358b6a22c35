"""monitoring/table: the board as text."""

from __future__ import annotations

import dataclasses
import json
from ipaddress import IPv4Address

import pytest

from monitoring.alerts import Alert
from monitoring.metrics import Reading
from monitoring.store import PiRow
from monitoring.table import HEADINGS, age, health, measured, progress, progress_line, status_json, status_table
from utility.hosts import Host
from utility.rules import AlertSeverity
from utility.service import Stage

HOSTS = [
    Host("b8:27:eb:00:00:01", IPv4Address("172.30.4.13"), "pi1", 7),
    Host("b8:27:eb:00:00:02", IPv4Address("172.30.4.14")),
    Host("b8:27:eb:00:00:03", IPv4Address("172.30.4.15"), "pi3"),
]
ROWS = [
    PiRow(HOSTS[0].mac, "pi1", HOSTS[0].address, Stage.IMAGE, since=990.0, heard="PROGRESS 5", heard_at=995.0,
          sent="image", sent_at=994.0, done=5_000_000, total=20_000_000, facts={"image": "rootfs-1"}),
    PiRow(HOSTS[1].mac, "", HOSTS[1].address, Stage.FAILED, since=900.0, reason="no SD card"),
    PiRow("dc:a6:32:00:00:09", heard="DHCPDISCOVER", heard_at=400.0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (3.4, "3 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (200_000, "2 d")],
)
def test_age(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_progress_and_health() -> None:
    assert progress(ROWS[0]) == "5.0/20.0 MB 25 %"
    assert not progress(ROWS[1])
    assert [health(row) for row in ROWS[:2]] == ["ok", "failed: no SD card"]
    assert health(PiRow("x", stage=Stage.FAILED)) == "failed"
    assert health(PiRow("x", stage=Stage.KERNEL, stuck="silent for 60 s")) == "stuck: silent for 60 s"


def test_a_progress_line() -> None:
    assert progress_line("pi1", None) == "pi1          waiting"
    assert progress_line("pi1", ROWS[0]) == "pi1          image      5.0/20.0 MB 25 %"
    assert progress_line("pi2", ROWS[1]).endswith("failed: no SD card")


def test_the_table_has_every_pi_of_the_hosts_and_then_the_unknown() -> None:
    lines = status_table(ROWS, HOSTS, {HOSTS[0].mac: (0, 1)}, {HOSTS[2].mac}, now=1000.0)
    assert [line.split()[0] for line in lines] == ["NAME", "pi1", "172.30.4.14", "pi3", "unknown:"]
    assert "0/1          image   5.0/20.0 MB 25 %  5 s    rootfs-1  ok" in lines[1]
    assert lines[2].endswith("failed: no SD card")
    assert lines[3].endswith("never  -         reinstall ordered")
    assert lines[4] == "unknown: dc:a6:32:00:00:09  DHCPDISCOVER  10 min ago; adopt with: piman adopt dc:a6:32:00:00:09"


def test_who_waits_for_approval_and_what_is_known_of_a_stranger() -> None:
    facts = {"waiting": "yes", "vendor": "Raspberry Pi", "model": "Pi 4", "serial": "91cdf03d"}
    waits, adopt = "dc:a6:32:00:00:08", "adopt with: piman adopt"
    rows = [PiRow(waits, heard="DHCPDISCOVER", heard_at=988.0, facts=facts), PiRow("02:00:00:00:00:01")]
    rows.append(PiRow("dc:a6:32:00:00:07", heard="DHCPDISCOVER", heard_at=999.0, facts={"model": "Pi 5"}))
    assert status_table(rows, [], {}, (), now=1000.0)[1:] == [
        f"waiting for approval: {waits}  Raspberry Pi  Pi 4  serial 91cdf03d  12 s ago; {adopt} {waits}",
        f"unknown: 02:00:00:00:00:01  asked for an address  17 min ago; {adopt} 02:00:00:00:00:01",
        f"unknown: dc:a6:32:00:00:07  Pi 5  1 s ago; {adopt} dc:a6:32:00:00:07",
    ]


def test_what_is_wrong_with_a_boot_is_told_in_place_of_what_was_to_come() -> None:
    hint = "sent 5 DISCOVERs and is silent; `piman restart pi1`"
    row = PiRow(HOSTS[0].mac, "pi1", HOSTS[0].address, Stage.DISCOVER, stuck="nothing heard", hint=hint)
    assert health(row) == hint
    assert progress_line("pi1", row).endswith(hint)
    assert status_table([row], HOSTS[:1], {}, {HOSTS[0].mac}, 1000.0)[1].endswith(hint)
    never = PiRow(HOSTS[0].mac, "pi1", hint="power for 90 s and not a word")
    assert status_table([never], HOSTS[:1], {}, (), 1000.0)[1].endswith("never  -      power for 90 s and not a word")
    assert health(PiRow("x", stage=Stage.FAILED, reason="no SD card", hint=hint)) == "failed: no SD card"


def test_the_json_keys_are_the_same_for_every_pi() -> None:
    rows = json.loads(json.dumps(status_json(ROWS, HOSTS, {HOSTS[0].mac: (0, 1)}, {HOSTS[2].mac})))
    assert len({tuple(row) for row in rows}) == 1
    first, second, never, unknown = rows
    assert (first["switch"], first["port"], first["stage"], first["done"]) == (0, 1, "image", 5_000_000)
    assert (second["name"], second["stage"], second["reason"]) == ("172.30.4.14", "failed", "no SD card")
    assert (never["stage"], never["heard_at"], never["ordered"]) == (None, None, True)
    assert (first["hint"], never["hint"]) == (None, None)
    assert (unknown["known"], unknown["name"], unknown["mac"]) == (False, None, "dc:a6:32:00:00:09")


READINGS = {
    HOSTS[0].mac: Reading(
        HOSTS[0].mac,
        997.0,
        {"up": 1.0, "cpu_percent": 12.34, "temperature": 45.6, "ping_ms": 0.5},
        {"since": "400", "image": "rootfs-9", "evidence": "agent 0 s ago", "error": "", "kernel": "6.1", "agent": "2"},
    ),
    HOSTS[1].mac: Reading(HOSTS[1].mac, 990.0, {"up": 0.0}, {"since": "700", "evidence": "no word", "error": "silent"}),
    HOSTS[2].mac: Reading(HOSTS[2].mac, 100.0, {"up": 1.0}, {"since": "0"}),
}
UP = [dataclasses.replace(row, stage=Stage.UP, reason="", total=0, facts={}) for row in ROWS[:2]]


def alert(number: int, severity: AlertSeverity, text: str) -> Alert:
    return Alert(number, "rule", HOSTS[0].mac, "pi1", severity, float(number), 1.0, text, 1.0)


def test_what_is_measured_has_columns_where_somebody_polls() -> None:
    lines = status_table(UP, HOSTS, {}, (), 1000.0, measured(READINGS, []))
    assert lines[0].split() == list(HEADINGS)
    assert lines[1].split("  up ")[1].split() == ["3", "s", "10", "min", "12.3", "%", "45.6", "°C", "rootfs-9", "ok"]
    assert lines[2].endswith("down 5 min  -       -        -         down: no word")
    assert lines[3].split()[-6:] == ["never", "-", "-", "-", "-", "-"]  # its reading is of long ago
    assert "UP" not in status_table(UP, HOSTS, {}, (), 1000.0)[0]
    quiet = {HOSTS[1].mac: Reading(HOSTS[1].mac, 990.0, {"up": 0.0}, {"since": "0"})}
    assert status_table(UP, HOSTS, {}, (), 1000.0, measured(quiet, []))[2].endswith("down  -    -     -      down")


def test_who_was_down_while_it_booted_is_not_down_when_it_is_up() -> None:
    booted = [dataclasses.replace(row, since=995.0) for row in UP]
    assert status_table(booted, HOSTS, {}, (), 1000.0, measured(READINGS, []))[2].endswith(
        "  -       -        -         ok"
    )


def test_the_gravest_alert_is_the_health_unless_the_boot_says_more() -> None:
    alerts = [
        alert(1, AlertSeverity.WARNING, "its disk is 96 % full"),
        alert(2, AlertSeverity.CRITICAL, "it is at 85 °C"),
        alert(3, AlertSeverity.CRITICAL, "its supply voltage is too low"),
    ]
    table = status_table(UP, HOSTS, {}, (), 1000.0, measured(READINGS, alerts))
    assert table[1].endswith("critical: it is at 85 °C (and 2 more)")
    table = status_table(UP, HOSTS, {}, (), 1000.0, measured(READINGS, alerts[:1]))
    assert table[1].endswith("warning: its disk is 96 % full")
    table = status_table(UP, HOSTS, {}, {HOSTS[0].mac}, 1000.0, measured(READINGS, alerts))
    assert table[1].endswith("reinstall ordered")
    rows = status_json(UP, HOSTS, {}, (), measured(READINGS, alerts))
    assert rows[0]["alerts"] == [
        "critical: it is at 85 °C",
        "critical: its supply voltage is too low",
        "warning: its disk is 96 % full",
    ]


def test_the_json_has_the_latest_readings() -> None:
    first, second, never = json.loads(json.dumps(status_json(UP, HOSTS, {}, (), measured(READINGS, []))))
    assert (first["up"], first["up_since"], first["measured_at"]) == (True, 400.0, 997.0)
    assert first["measured"] == {"cpu_percent": 12.34, "temperature": 45.6, "ping_ms": 0.5}
    assert first["agent"] == {"agent": "2", "image": "rootfs-9", "kernel": "6.1", "error": None}
    assert (second["up"], second["evidence"], second["agent"]["error"]) == (False, "no word", "silent")
    assert never["up_since"] is None
    (unpolled,) = status_json(UP[:1], HOSTS[:1], {}, ())
    assert (unpolled["up"], unpolled["measured"], unpolled["alerts"]) == (None, {}, [])
