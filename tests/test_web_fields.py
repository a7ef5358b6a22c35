"""web.fields: the forms have every key that utility/config knows, with its default."""

from __future__ import annotations

from pathlib import Path

import pytest

from utility.config import load_config
from utility.config.keys import (
    CHANNEL,
    CONTROLLER,
    DRIVER,
    EXEC,
    PASSWORDS,
    RULE,
    SECRET_VARIABLES,
    SNMP,
    SUBNET,
    SWITCH,
    VARIABLES,
)
from utility.config.keys import HEALING as HEALING_KEYS
from utility.config_edit import Change, add_item, edit_config, remove_item, values_of
from utility.rules import BUILT_IN
from web.fields import (
    DRIVERS_OF_YOUR_OWN,
    FIELDS,
    HEALING,
    LISTS,
    SWITCH_FIELDS,
    Field,
    field_views,
    list_views,
    switch_fields,
    switch_views,
    threshold_fields,
)
from web.views import Json

BASE = """\
private_number: 4
server_address: 172.30.4.1
subnet_mask: 255.255.255.0
interface: lo
switches:
  - swtich_0_address: 172.30.4.254
    protected_ports: [1, 3-5]
    pi_addresses:
      - 172.30.4.13
      -
      - 172.30.4.15
  - address: 172.30.4.253
    pi_addresses: 172.30.4.61, 172.30.4.62
"""


def test_the_forms_have_every_plain_key() -> None:
    known = {name.removeprefix("PIMAN_").lower() for name in VARIABLES}
    shown = {each.key.replace(".", "_") for each in FIELDS}
    secrets = {name.removeprefix("PIMAN_").lower() for name in SECRET_VARIABLES}
    assert known - secrets <= shown
    assert shown <= known | {"snmp_read_community", "snmp_write_community"}
    assert len({each.key for each in FIELDS}) == len(FIELDS)


@pytest.mark.parametrize("field", [each for each in FIELDS if each.default], ids=lambda field: field.key)
def test_what_a_form_calls_the_default_is_it(field: Field, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    wanted = field.default.split(", ") if field.kind in ("list", "choices") else field.default
    text = edit_config(BASE, [Change(field.key, wanted)])
    assert load_config(path, environ={}, data=text.encode()) == load_config(path, environ={}, data=BASE.encode())


def test_values_and_switches_as_a_form_has_them() -> None:
    values = values_of(BASE + "dns: [1.1.1.1, 2.2.2.2]\nsnmp: {read_community: seen}\n")
    views = {str(each["key"]): each for each in field_views(values)}
    assert views["dns"]["value"] == ["1.1.1.1", "2.2.2.2"]
    assert views["router"]["value"] is None
    secret = views["snmp.read_community"]
    assert (secret["set"], secret["value"]) == (True, None)
    first, second = switch_views(values, 2)
    assert first["pi_addresses"] == ["172.30.4.13", None, "172.30.4.15"]
    assert second["pi_addresses"] == ["172.30.4.61", "172.30.4.62"]
    fields = {str(each["key"]): each["value"] for each in first["fields"]}  # type: ignore[attr-defined]
    assert fields["switches[0].swtich_0_address"] == "172.30.4.254"
    assert fields["switches[0].protected_ports"] == ["1", "3-5"]


def test_the_forms_of_entries_have_every_key() -> None:
    shown = {each.key: {field.key for field in each.fields} for each in LISTS}
    assert shown == {
        "subnets": set(SUBNET),
        "monitoring.rules": set(RULE),
        "monitoring.channels": set(CHANNEL),
    }
    of_switch = {each.key.partition(".")[0] for each in SWITCH_FIELDS}
    assert of_switch == {"address", *SWITCH} - {"pi_addresses"}
    nested = {name: {each.key.partition(".")[2] for each in SWITCH_FIELDS if each.key.startswith(f"{name}.")}
              for name in ("snmp", "exec", "unifi", "routeros")}  # fmt: skip
    assert nested["snmp"] == set(SNMP) - set(PASSWORDS)
    assert nested["exec"] == set(EXEC)
    assert nested["unifi"] == set(CONTROLLER)
    assert nested["routeros"] == set(CONTROLLER) - {"site"}
    assert {each.key for each in HEALING} == set(HEALING_KEYS)
    assert {each.key.partition(".")[0] for each in DRIVERS_OF_YOUR_OWN.fields} == set(DRIVER)


MONITORING = """\
subnets:
  - {network: 10.2.0.0/24, router: 10.2.0.1, dns: [1.1.1.1]}
monitoring:
  healing: dry-run
  thresholds: {cpu: 90, temperature: 75}
  rules:
    - temperature > 70 for 2m
    - name: agent
      enabled: false
  channels:
    - slack
    - https://hooks.slack.com/services/T0/B0/secret
    - type: webhook
      url: https://user.example/secret
"""


def entries(views: list[Json], key: str) -> list[dict[str, tuple[object, object]]]:
    (found,) = (each for each in views if each["key"] == key)
    rows: list[list[Json]] = found["entries"]  # type: ignore[assignment]
    return [{str(field["key"]): (field["set"], field["value"]) for field in row if field["set"]} for row in rows]


def test_the_lists_with_their_entries_and_no_secret() -> None:
    views = list_views(values_of(BASE + MONITORING))
    assert "secret" not in str([entries(views, each.key) for each in LISTS])
    assert entries(views, "subnets") == [
        {
            "subnets[0].network": (True, "10.2.0.0/24"),
            "subnets[0].router": (True, "10.2.0.1"),
            "subnets[0].dns": (True, ["1.1.1.1"]),
        }
    ]
    assert entries(views, "monitoring.rules") == [
        {"monitoring.rules[0]": (True, "temperature > 70 for 2m")},
        {"monitoring.rules[1].name": (True, "agent"), "monitoring.rules[1].enabled": (True, "false")},
    ]
    assert entries(views, "monitoring.channels") == [
        {"monitoring.channels[0]": (True, "slack")},
        {"monitoring.channels[1]": (True, None)},
        {"monitoring.channels[2].type": (True, "webhook"), "monitoring.channels[2].url": (True, None)},
    ]
    assert [each["key"] for each in switch_fields()] == [each.key for each in SWITCH_FIELDS]


def test_thresholds_and_healing_have_the_keys_that_the_file_uses() -> None:
    shown = {str(each["key"]): each["value"] for each in field_views(values_of(BASE + MONITORING)) if each["set"]}
    assert shown["monitoring.thresholds.cpu"] == "90"
    assert shown["monitoring.thresholds.temperature"] == "75"
    assert shown["monitoring.healing"] == "dry-run"
    views = {str(each["key"]) for each in field_views(values_of(BASE))}
    assert "monitoring.healing.enabled" in views
    assert "monitoring.thresholds.cpu_percent" in views


@pytest.mark.parametrize("field", threshold_fields({}), ids=lambda field: field.key)
def test_what_is_called_a_rules_number_is_it(field: Field, tmp_path: Path) -> None:
    text = edit_config(BASE, [Change(field.key, field.default)])
    config = load_config(tmp_path / "config.yaml", environ={}, data=text.encode())
    assert {rule.name: rule.expression for rule in config.monitoring.rules} == {
        rule.name: rule.expression for rule in BUILT_IN
    }


@pytest.mark.parametrize("field", [each for each in HEALING if each.key != "enabled"], ids=lambda field: field.key)
def test_what_healing_calls_the_default_is_it(field: Field, tmp_path: Path) -> None:
    def healing(*changes: Change) -> object:
        text = edit_config(BASE, [Change("monitoring.healing.enabled", "true"), *changes])
        return load_config(tmp_path / "config.yaml", environ={}, data=text.encode()).monitoring.healing

    assert healing(Change(f"monitoring.healing.{field.key}", field.default)) == healing()


def test_rows_of_drivers_are_entries_with_names() -> None:
    text = "drivers:\n  acme: {like: standard, states: {delivering: [3]}}\n  other-2:\n    object_id: 1.3.6.1.4.1.9\n"
    views = list_views(values_of(BASE + text))
    assert entries(views, "drivers") == [
        {"drivers.acme.like": (True, "standard"), "drivers.acme.states.delivering": (True, ["3"])},
        {"drivers.other-2.object_id": (True, ["1.3.6.1.4.1.9"])},
    ]


def test_an_entry_that_a_form_makes_is_good(tmp_path: Path) -> None:
    text = add_item(BASE, "subnets", {"network": "10.2.0.0/24", "router": "10.2.0.1"})
    text = add_item(text, "monitoring.rules", {"when": "temperature > 70 for 2m", "severity": "critical"})
    text = add_item(text, "monitoring.channels", {"type": "email", "to": ["ops@example.org"]})
    config = load_config(tmp_path / "config.yaml", environ={}, data=text.encode())
    assert [str(each.network) for each in config.subnets] == ["10.2.0.0/24"]
    assert [each.kind for each in config.monitoring.channels] == ["email"]
    assert next(each for each in config.monitoring.rules if each.name == "temperature").severity == "critical"
    for name in ("monitoring.channels", "monitoring.rules", "subnets"):
        text = remove_item(text, name, 0)
    assert load_config(tmp_path / "config.yaml", environ={}, data=text.encode()).subnets == ()
