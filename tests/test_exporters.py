"""What Prometheus is told: names, labels and values, what is left out, and the targets of its discovery."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from monitoring.exporters import FAMILIES, MAX_EVENTS, facts_from_store, prometheus_text, service_discovery
from monitoring.facts import SwitchNews
from monitoring.metrics import Reading
from tests.scene import MACS, NOW, ROWS, SILENT, scene
from utility.rules import MEASURES

PI11 = 'site="lab-2",name="pi11",mac="b8:27:eb:00:00:01",address="172.30.4.11",switch="upper",port="1"'
PI11 += ',model="Pi 4 \\"B\\""'
PI12 = 'site="lab-2",name="pi12",mac="b8:27:eb:00:00:02",address="172.30.4.12",switch="upper",port="2"'
PI14 = 'site="lab-2",name="pi14",mac="b8:27:eb:00:00:04",address="172.30.4.14"'


def lines(folder: Path, start: str) -> list[str]:
    text = prometheus_text(scene(folder)).decode()
    return [line for line in text.splitlines() if line.startswith(start)]


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("piman_info", ['piman_info{site="lab-2",version="1.2"} 1']),
        ("piman_pi_temperature_celsius", [f"piman_pi_temperature_celsius{{{PI11}}} 12"]),
        ("piman_pi_ping_seconds", [f"piman_pi_ping_seconds{{{PI11}}} 0.00025"]),
        ("piman_pi_clock_offset_seconds", [f"piman_pi_clock_offset_seconds{{{PI11}}} -1e-06"]),
        ("piman_pi_card_errors_total", [f"piman_pi_card_errors_total{{{PI11}}} 12"]),
        ("piman_pi_up{", [f"piman_pi_up{{{PI11}}} 1"]),
        ("piman_pi_last", [
            f"piman_pi_last_heard_timestamp_seconds{{{PI11}}} 1789999994.5",
            f"piman_pi_last_heard_timestamp_seconds{{{PI12}}} 1789999999",
        ]),
        ("piman_pi_stage{", [
            f'piman_pi_stage{{{PI11},stage="up"}} 1',
            f'piman_pi_stage{{{PI12},stage="image"}} 1',
            f'piman_pi_stage{{{PI14},stage="hello"}} 1',
        ]),
        ("piman_pi_install_bytes", [f"piman_pi_install_bytes{{{PI12}}} 150"]),
        ("piman_pi_install_size", [f"piman_pi_install_size_bytes{{{PI12}}} 600"]),
        ("piman_pi_excused", [
            f"piman_pi_excused{{{PI11}}} 0", f"piman_pi_excused{{{PI12}}} 1", f"piman_pi_excused{{{PI14}}} 1",
        ]),
        ("piman_strangers", ['piman_strangers{site="lab-2"} 1']),
        ("piman_switch_up", [
            'piman_switch_up{site="lab-2",switch="upper",address="172.30.4.254"} 1',
            f'piman_switch_up{{site="lab-2",switch="{SILENT}",address="{SILENT}"}} 0',
        ]),
        ("piman_switch_poe_budget", [
            'piman_switch_poe_budget_watts{site="lab-2",switch="upper",address="172.30.4.254"} 120',
        ]),
        ("piman_switch_port_watts", ['piman_switch_port_watts{site="lab-2",switch="upper",port="1",name="pi11"} 3.5']),
        ("piman_switch_port_enabled", [
            'piman_switch_port_enabled{site="lab-2",switch="upper",port="1",name="pi11"} 1',
            'piman_switch_port_enabled{site="lab-2",switch="upper",port="3"} 0',
        ]),
        ("piman_manager", [
            'piman_manager_foreign_dhcp{site="lab-2"} 0',
            'piman_manager_disk_percent{site="lab-2"} 41.5',
            'piman_manager_network{site="lab-2"} 1',
        ]),
        ("piman_alert{", [
            (f'piman_alert{{site="lab-2",rule="temperature",subject="{MACS[0]}",name="pi11",'
            'severity="warning",state="firing"} 1'),
        ]),
        ('piman_alerts{site="lab-2",severity="warning",state="firing"}', [
            'piman_alerts{site="lab-2",severity="warning",state="firing"} 1',
        ]),
        ("piman_service", [
            'piman_service_events_total{site="lab-2",service="tftp",event="refused: file not found"} 3',
            'piman_service_events_total{site="lab-2",service="tftp",event="transfers"} 12',
        ]),
        ("process_", ['process_threads{site="lab-2"} 9']),
    ],
)  # fmt: skip
def test_lines(tmp_path: Path, start: str, expected: list[str]) -> None:
    assert lines(tmp_path, start) == expected


def test_every_pi_of_hosts_csv_has_its_line_also_one_that_was_never_heard(tmp_path: Path) -> None:
    names = [line.split('name="')[1].split('"')[0] for line in lines(tmp_path, "piman_pi_info")]
    assert names == ["pi11", "pi12", "pi13", "pi14"]
    assert len(lines(tmp_path, "piman_pi_install_ordered")) == 4


def test_every_measure_has_a_name_of_its_own_and_a_meaning() -> None:
    assert FAMILIES.keys() == MEASURES.keys()
    assert len({family.name for family in FAMILIES.values()}) == len(FAMILIES)
    assert all(family.help.endswith(".") for family in FAMILIES.values())


def test_each_family_is_described_once_and_in_one_piece(tmp_path: Path) -> None:
    text = prometheus_text(scene(tmp_path)).decode()
    described = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    found = [line.partition("{")[0] for line in text.splitlines() if not line.startswith("#")]
    assert described == list(dict.fromkeys(found))
    assert found == [name for name in described for _ in range(found.count(name))]


def test_what_is_old_is_not_told_as_if_it_were_now(tmp_path: Path) -> None:
    now = scene(tmp_path)
    old = facts_from_store(now.config, list(now.rows.values()), now.readings, NOW + 3600)
    text = prometheus_text(replace(now, facts=old)).decode()
    assert "piman_pi_temperature" not in text
    assert "piman_manager" not in text


def test_labels_take_any_text(tmp_path: Path) -> None:
    row = replace(ROWS[0], facts={"model": 'a\\b\n"c"\ud800'})
    text = prometheus_text(replace(scene(tmp_path), rows={row.mac: row})).decode()
    assert 'model="a\\\\b\\n\\"c\\"?"' in text


def test_a_service_that_counts_too_much_is_summed_up(tmp_path: Path) -> None:
    many = {f"reason {number:03}": 1 + number for number in range(MAX_EVENTS + 2)}
    text = prometheus_text(replace(scene(tmp_path), counters={"dhcp": many})).decode()
    assert text.count("piman_service_events_total{") == MAX_EVENTS + 1
    assert 'event="other"} 3\n' in text
    assert 'event="reason 000"' not in text


def test_discovery(tmp_path: Path) -> None:
    found = service_discovery(scene(tmp_path), 3000)
    assert json.loads(json.dumps(found[0])) == {
        "targets": ["172.30.4.11:3000"],
        "labels": {
            "site": "lab-2",
            "name": "pi11",
            "mac": MACS[0],
            "address": "172.30.4.11",
            "switch": "upper",
            "port": "1",
            "model": 'Pi 4 "B"',
        },
    }
    assert [each["targets"] for each in found][1:] == [[f"172.30.4.{number}:3000"] for number in (12, 13, 14)]


@pytest.mark.parametrize(("since", "up"), [("1789999000", True), ("yesterday", False), ("", False)])
def test_facts_of_the_store(tmp_path: Path, since: str, up: bool) -> None:
    reading = Reading(MACS[0], NOW - 3, {"up": 1.0, "temperature": 40.0}, {"since": since, "evidence": "agent"})
    facts = facts_from_store(scene(tmp_path).config, ROWS, {MACS[0]: reading}, NOW)
    (pi,) = [each for each in facts if each.subject == MACS[0]]
    assert (pi.values.get("up") == 1.0) is up
    assert pi.values["temperature"] == 40.0
    assert [each.kind for each in facts] == ["pi", "pi", "pi"]


def test_before_anything_was_asked_there_are_only_the_files(tmp_path: Path) -> None:
    asked = SwitchNews("172.30.4.254", "upper", NOW)
    bare = replace(scene(tmp_path), facts=[], news=[asked], faces={}, rows={}, readings={}, alerts=[])
    text = prometheus_text(bare).decode()
    assert text.count("piman_pi_info{") == 4
    assert text.count("piman_switch") == 3
    assert "piman_switch_asked_timestamp_seconds{" in text
