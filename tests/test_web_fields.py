"""web.fields: the forms have every key that utility/config knows, with its default."""

from __future__ import annotations

from pathlib import Path

import pytest

from utility.config import load_config
from utility.config.keys import SECRET_VARIABLES, VARIABLES
from utility.config_edit import Change, edit_config, values_of
from web.fields import FIELDS, Field, field_views, switch_views

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
