"""What Prometheus is configured with: each rule in PromQL, and the committed files, which are made of the same."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from monitoring.exporters import FAMILIES
from monitoring.prometheus_files import (
    Manager,
    alert_name,
    dashboard_provider,
    data_source,
    expression_of,
    prometheus_config,
    rules_file,
    summary_of,
)
from utility.rules import BUILT_IN, parse_rule

FOLDER = Path(__file__).parent.parent / "monitoring" / "grafana"
FIRES = ', alertstate="firing"}'


@pytest.mark.parametrize(
    ("rule", "expression"),
    [
        ("card_errors > 0", "piman_pi_card_errors_total > 0"),
        ("ping_ms > 250", "piman_pi_ping_seconds > 0.25"),
        ("clock_offset > 1", "abs(piman_pi_clock_offset_seconds) > 1"),
        ("agent == 0 for 10m", "piman_pi_agent == 0"),
        ("up == 1", "piman_pi_up == 1"),
        (
            "up == 0 for 2m",
            (
                "piman_pi_up == 0 unless on (site, mac) piman_pi_excused == 1 "
                "unless on (site, switch) piman_switch_up == 0 unless on (site) piman_manager_network == 0"
            ),
        ),
        ("switch_up == 0", "piman_switch_up == 0 unless on (site) piman_manager_network == 0"),
        ("network == 0", "piman_manager_network == 0"),
        (
            "temperature > 80 clear < 75",
            "piman_pi_temperature_celsius > 80 or (piman_pi_temperature_celsius >= 75) and on (site, mac) "
            'ALERTS{alertname="PimanTemperature"' + FIRES,
        ),
        (
            "poe_percent >= 90 clear < 85.5",
            "piman_switch_poe_percent >= 90 or (piman_switch_poe_percent >= 85.5) and on (site, switch) "
            'ALERTS{alertname="PimanPoePercent"' + FIRES,
        ),
        ("throttled == 1 clear for 1m", "piman_pi_throttled == 1"),
    ],
)
def test_expressions(rule: str, expression: str) -> None:
    assert expression_of(parse_rule(rule)) == expression


@pytest.mark.parametrize(
    ("pattern", "regex"),
    [("pi*", "pi.*"), ("a.b?", "a\\\\.b."), ("[!ab]x[1-3]", "[^ab]x[1-3]"), ("[", "\\\\["), ("a\\", "a\\\\\\\\")],
)
def test_a_rule_for_some(pattern: str, regex: str) -> None:
    rule = replace(parse_rule("up == 0"), only=(pattern, "c"))
    quoted = f'"(?i:{regex}|c)"'
    labels = " or ".join(f"piman_pi_up{{{label}=~{quoted}}} == 0" for label in ("name", "address", "mac"))
    assert expression_of(rule).startswith(f"({labels}) unless on")
    assert expression_of(replace(parse_rule("foreign_dhcp == 1"), only=("x",))) == "piman_manager_foreign_dhcp == 1"


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("up == 0", "{{ $labels.site }}: {{ $labels.name }}: it is down"),
        ("up == 1", "{{ $labels.site }}: {{ $labels.name }}: up is yes"),
        ("ping_ms > 3", '{{ $labels.site }}: {{ $labels.name }}: it takes {{ $value | printf "%.3f" }} s to answer'),
        (
            "poe_percent > 90",
            (
                "{{ $labels.site }}: switch {{ $labels.switch }}: its ports take "
                '{{ $value | printf "%.0f" }}% of the power it has'
            ),
        ),
        ("network == 0", "{{ $labels.site }}: the manager: the network interface has no link"),
    ],
)
def test_summaries(rule: str, text: str) -> None:
    assert summary_of(parse_rule(rule)) == text


def test_names() -> None:
    names = [alert_name(rule) for rule in BUILT_IN]
    assert len(set(names)) == len(names)
    assert {"PimanPiDown", "PimanSwitchDown", "PimanDiskFull"} < set(names)
    assert alert_name(replace(BUILT_IN[0], name="my own-rule 2")) == "PimanMyOwnRule2"


def test_a_rule_that_is_off_is_not_in_the_file() -> None:
    off = rules_file([replace(BUILT_IN[0], enabled=False), BUILT_IN[1]])
    assert "PimanPiDown" not in off
    assert "PimanAgentSilent" in off


def test_several_managers_with_and_without_a_token() -> None:
    text = prometheus_config([Manager("10.0.0.1:5000"), Manager("10.0.0.2:443", tls=True, token_file="/etc/t")])
    assert text.count("url:") == 2
    assert "- url: https://10.0.0.2:443/sd\n        tls_config:" in text
    assert text.count('credentials_file: "/etc/t"') == 2
    assert "replacement: piman\n" in text


def test_the_committed_files_are_the_ones_that_are_written() -> None:
    def is_as(name: str, text: str) -> bool:
        return (FOLDER / name).read_text() == text

    assert is_as("piman.rules.yml", rules_file(BUILT_IN)), "write it anew with `piman grafana`"
    assert is_as("prometheus.yml", prometheus_config([Manager("127.0.0.1:5000")]))
    assert is_as("datasource.yml", data_source("http://localhost:9090"))
    assert is_as("dashboards.yml", dashboard_provider("/var/lib/grafana/dashboards/piman"))


# ------------------------------------------------------------------------------------------------ the dashboard

DASHBOARD = json.loads((FOLDER / "piman.json").read_text())
KINDS = {"row", "stat", "timeseries", "table", "state-timeline", "bargauge", "gauge"}


def test_the_dashboard_is_one() -> None:
    assert (DASHBOARD["uid"], DASHBOARD["schemaVersion"]) == ("piman-rack", 38)
    panels = DASHBOARD["panels"]
    assert {each["type"] for each in panels} == KINDS
    assert len({each["id"] for each in panels}) == len(panels)
    source = re.search(r"uid: (\S+)", data_source("x"))
    assert source
    for each in panels:
        if each["type"] != "row":
            assert each["targets"]
            assert {target["datasource"]["uid"] for target in each["targets"]} == {source[1]}
            assert len({target["refId"] for target in each["targets"]}) == len(each["targets"])


def test_no_panel_covers_another() -> None:
    taken: set[tuple[int, int]] = set()
    for each in DASHBOARD["panels"]:
        at = each["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, each["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_the_dashboard_asks_for_nothing_that_is_not_exported() -> None:
    source = (FOLDER.parent / "exporters.py").read_text()
    known = set(re.findall(r'"((?:piman|process)_\w+)"', source)) | {family.name for family in FAMILIES.values()}
    asked = set(re.findall(r"\b(?:piman_(?!agent_)|process_)\w+", json.dumps(DASHBOARD)))
    assert asked - known == set()
