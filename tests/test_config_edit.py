"""utility.config_edit: what changes in config.yaml, byte by byte, and that nothing else does."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utility.config_edit import (
    Change,
    EditError,
    Value,
    add_item,
    add_switch,
    edit_config,
    hide_secrets,
    remove_item,
    remove_switch,
    reveal_secrets,
    values_of,
)

EXAMPLE = (Path(__file__).parent.parent / "config.yaml").read_text()
TEXT = """\
# The rack.
private_number: 4        # the VLAN
server_address: "172.30.4.1"

interface: ens4  # ours
router:          # none yet
dns: [172.30.4.1, 9.9.9.9]   # two
ports: {tftp: 69, ntp: 123}
snmp:
  # slow switches
  timeout: 3
  retries: 2

switch_count: 2
switches:
  - swtich_0_address: 172.30.4.254    # the lower
    pi_addresses:       # by port
      - 172.30.4.13     # one
      -
      - 172.30.4.15
    # nothing more on it
  - swtich_1_address: 172.30.4.253
    name: upper
    protected_ports: [47, 48]
    pi_addresses:
services:
- dhcp
- tftp
# the end
"""


def changed(text: str, after: str) -> list[str]:
    """The lines that went and came."""
    lines = difflib.unified_diff(text.splitlines(), after.splitlines(), n=0, lineterm="")
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


@pytest.mark.parametrize(
    ("key", "value", "lines"),
    [
        ("private_number", "7", ["-private_number: 4        # the VLAN", "+private_number: 7        # the VLAN"]),
        ("server_address", "10.0.0.1", ['-server_address: "172.30.4.1"', "+server_address: 10.0.0.1"]),
        ("router", "172.30.4.2", ["-router:          # none yet", "+router: 172.30.4.2          # none yet"]),
        ("router", None, ["-router:          # none yet"]),
        ("lease_time", "300", ["+lease_time: 300"]),
        ("lease_time", None, []),
        ("domain", "a: b # c's", ["+domain: 'a: b # c''s'"]),
        ("domain", "null", ["+domain: 'null'"]),
        ("dns", ["1.1.1.1"], ["-dns: [172.30.4.1, 9.9.9.9]   # two", "+dns: [1.1.1.1]   # two"]),
        ("dns[1]", "1.1.1.1", ["-dns: [172.30.4.1, 9.9.9.9]   # two", "+dns: [172.30.4.1, 1.1.1.1]   # two"]),
        ("dns[2]", "1.1.1.1", ["-dns: [172.30.4.1, 9.9.9.9]   # two", "+dns: [172.30.4.1, 9.9.9.9, 1.1.1.1]   # two"]),
        ("ntp_servers", ["1.1.1.1", "2.2.2.2"], ["+ntp_servers: [1.1.1.1, 2.2.2.2]"]),
        ("ports.tftp", "6969", ["-ports: {tftp: 69, ntp: 123}", "+ports: {tftp: 6969, ntp: 123}"]),
        ("ports.web", "80", ["-ports: {tftp: 69, ntp: 123}", "+ports: {tftp: 69, ntp: 123, web: 80}"]),
        ("ports.tftp", None, ["-ports: {tftp: 69, ntp: 123}", "+ports: {ntp: 123}"]),
        ("ports.ntp", None, ["-ports: {tftp: 69, ntp: 123}", "+ports: {tftp: 69}"]),
        ("snmp.timeout", None, ["-  timeout: 3"]),
        ("snmp.version", "1", ["+  version: 1"]),
        ("web.tls", "on", ["+web:", "+  tls: on"]),
        ("switches[0].name", "lower", ["+    name: lower"]),
        ("switches[0].pi_addresses[0]", "172.30.4.99",
         ["-      - 172.30.4.13     # one", "+      - 172.30.4.99     # one"]),
        ("switches[0].pi_addresses[0]", None, ["-      - 172.30.4.13     # one", "+      -     # one"]),
        ("switches[0].pi_addresses[1]", "172.30.4.14", ["-      -", "+      - 172.30.4.14"]),
        ("switches[0].pi_addresses[4]", "172.30.4.17", ["+      -", "+      - 172.30.4.17"]),
        ("switches[0].pi_addresses[9]", None, []),
        ("switches[0].pi_addresses", ["172.30.4.13"], ["-      -", "-      - 172.30.4.15"]),
        ("switches[0].pi_addresses", [None, "172.30.4.13"],
         ["-      - 172.30.4.13     # one", "-      -", "-      - 172.30.4.15", "+      -     # one",
          "+      - 172.30.4.13"]),
        ("switches[0].pi_addresses", [],
         ["-      - 172.30.4.13     # one", "-      -", "-      - 172.30.4.15"]),
        ("switches[1].pi_addresses[1]", "172.30.4.62", ["+      -", "+      - 172.30.4.62"]),
        ("switches[1].name", None, ["-    name: upper"]),
        ("services", ["dhcp", "ntp", "web"], ["-- tftp", "+- ntp", "+- web"]),
    ],
)  # fmt: skip
def test_one_change(key: str, value: Value, lines: list[str]) -> None:
    after = edit_config(TEXT, [Change(key, value)])
    assert sorted(changed(TEXT, after)) == sorted(lines)


@pytest.mark.parametrize(
    ("text", "key", "value", "after"),
    [
        ("a: 1", "b", "2", "a: 1\nb: 2\n"),  # no line end
        ("ports:\n", "ports.web", "1", "ports:\n  web: 1\n"),
        ("ports: ~  # none\n", "ports.web", "1", "ports: {web: 1}  # none\n"),
        ("ports: {}\n", "ports.web", "1", "ports: {web: 1}\n"),
        ("a: 1\nports:\n  web: 1\n", "ports.web", None, "a: 1\n"),
        ("a: |\n  text\nb: 1\n", "b", "2", "a: |\n  text\nb: 2\n"),
        ("a: |\n  text\nb: 1\n", "a", None, "b: 1\n"),
        ("b: 1\na: |\n  text\n", "c", "2", "b: 1\na: |\n  text\nc: 2\n"),
        ("switches:\n  - {address: 1.1.1.1, name: a}\n", "switches[0].name", "b",
         "switches:\n  - {address: 1.1.1.1, name: b}\n"),
        ("switches:\n  - name: a\n    address: 1.1.1.1\n", "switches[0].name", None,
         "switches:\n  - address: 1.1.1.1\n"),
        ("dns: 1.1.1.1\n", "dns", ["2.2.2.2"], "dns: [2.2.2.2]\n"),
        ("dns: []\n", "dns[1]", "2.2.2.2", "dns: [~, 2.2.2.2]\n"),
        ("dns: ~\n", "dns[0]", "2.2.2.2", "dns: [2.2.2.2]\n"),
        ("a: 1\n", "dns[0]", "2.2.2.2", "a: 1\ndns: [2.2.2.2]\n"),
        ("a: {x: {b: 1}}\n", "a.c.d", "1", "a: {x: {b: 1}, c: {d: 1}}\n"),
        ("a: 1\n", "b.c.d", "1", "a: 1\nb:\n  c:\n    d: 1\n"),
        ("b:\n  a: 1\n", "b.c.d", "1", "b:\n  a: 1\n  c:\n    d: 1\n"),
        ("b:  # none\na: 1\n", "b.c.d", "1", "b:  # none\n  c:\n    d: 1\na: 1\n"),
        ("a: {b: 1}\n", "c.d.e", "1", "a: {b: 1}\nc:\n  d:\n    e: 1\n"),
    ],
)  # fmt: skip
def test_other_ways_to_write_it(text: str, key: str, value: Value, after: str) -> None:
    assert edit_config(text, [Change(key, value)]) == after


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("a: 1\n", "a", "two\nlines"),
        ("a: 1\n", "a", " "),
        ("a:\n  - 1\n", "a[0].b", None),
        ("a: 1\n", "a..b", "1"),
        ("a: 1\n", "[0]", "1"),
        ("a: 1\n", "", "1"),
        ("a: 1\n", "a.b", "1"),
        ("a: 1\n", "b[0].c", "1"),
        ("a:\n  -\n", "a[0].b", "1"),
        ("a: |\n  text\n", "a", "1"),
        ("a:\n  b: 1\n", "a", "1"),
        ("a: [[1]]\n", "a[0]", "1"),
        ("a: 1\n", "a[0]", "1"),
        ("a: 1\n", "b[0]", ["1"]),
        ("a:\n  - b: 1\n", "a[0].b", None),
        ("a: 1\na: 2\n", "a", "3"),
        ("a: &x 1\nb: *x\n", "b", "2"),  # would change both
        ("a: [\n", "a", "1"),
        ("- a\n", "a", "1"),
        ("", "a", "1"),
        ("a: " + "[" * 100 + "]" * 100 + "\n", "b", "1"),
        ("a: " + "[" * 5000 + "]" * 5000 + "\n", "b", "1"),
    ],
)
def test_what_is_refused(text: str, key: str, value: Value) -> None:
    with pytest.raises(EditError):
        edit_config(text, [Change(key, value)])


def test_a_switch_comes_and_goes() -> None:
    after = add_switch(
        TEXT, {"address": "172.30.4.252", "name": "new", "pi_addresses": ["172.30.4.70", None], "x": None}
    )
    assert changed(TEXT, after) == [
        "-switch_count: 2",
        "+switch_count: 3",
        "+  - address: 172.30.4.252",
        "+    name: new",
        "+    pi_addresses:",
        "+      - 172.30.4.70",
        "+      -",
    ]
    assert remove_switch(after, 2) == TEXT
    after = remove_switch(TEXT, 0)
    assert values_of(after)["switches[0].swtich_0_address"] == "172.30.4.253"
    assert values_of(after)["switch_count"] == "1"
    after = remove_switch(after, 0)
    assert "switches: []\n" in after
    with pytest.raises(EditError, match="no switch 0"):
        remove_switch(after, 0)
    assert values_of(add_switch(after, {"address": "172.30.4.9"}))["switches[0].address"] == "172.30.4.9"


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("a: 1\n", "a: 1\nswitches:\n  - address: 1.1.1.1\n"),
        ("switches: []  # none\n", "switches:  # none\n  - address: 1.1.1.1\n"),
        ("switches:  # none\n", "switches:  # none\n  - address: 1.1.1.1\n"),
        ("switches: []\n", "switches:\n  - address: 1.1.1.1\n"),
        ("switches:\n- address: 2.2.2.2\n", "switches:\n- address: 2.2.2.2\n- address: 1.1.1.1\n"),
    ],
)
def test_the_first_switch(text: str, after: str) -> None:
    assert add_switch(text, {"address": "1.1.1.1"}) == after


def test_switches_in_one_line() -> None:
    text = "switches: [{address: 1.1.1.1}]  # all\n"
    after = add_switch(text, {"address": "2.2.2.2", "pi_addresses": ["3.3.3.3", None], "x": None})
    assert after == "switches: [{address: 1.1.1.1}, {address: 2.2.2.2, pi_addresses: [3.3.3.3, ~]}]  # all\n"
    assert remove_switch(after, 1) == text
    assert remove_switch(after, 0) == "switches: [{address: 2.2.2.2, pi_addresses: [3.3.3.3, ~]}]  # all\n"
    assert remove_switch(text, 0) == "switches: []  # all\n"


RULES = """\
monitoring:
  interval: 10   # often
  rules:         # ours
    - temperature > 70 for 2m   # a warm room
    # the cluster
    - name: busy
      when: cpu_percent > 99
      only: [pi1, pi2]
  channels: [slack, {type: webhook, url: "https://a.example/x"}]
web: {address: 0.0.0.0}
"""


@pytest.mark.parametrize(
    ("name", "values", "lines"),
    [
        (
            "monitoring.rules", {"when": "up == 0", "severity": "info", "only": ["pi3"]},
            ["+    - when: 'up == 0'", "+      severity: info", "+      only:", "+        - pi3"],
        ),
        (
            "monitoring.channels", {"type": "email", "to": ["a@b.c", "d@e.f"]},
            [
                '-  channels: [slack, {type: webhook, url: "https://a.example/x"}]',
                '+  channels: [slack, {type: webhook, url: "https://a.example/x"}, {type: email, to: [a@b.c, d@e.f]}]',
            ],
        ),
        ("subnets", {"network": "10.2.0.0/24"}, ["+subnets:", "+  - network: 10.2.0.0/24"]),
        ("web.lists", {"a": "b"}, ["-web: {address: 0.0.0.0}", "+web: {address: 0.0.0.0, lists: [{a: b}]}"]),
        ("monitoring.more", {"a": "b"}, ["+  more:", "+    - a: b"]),
        ("other.more", {"a": "b"}, ["+other:", "+  more:", "+    - a: b"]),
    ],
)  # fmt: skip
def test_an_entry_comes_to_a_list_and_goes(name: str, values: dict[str, Value], lines: list[str]) -> None:
    after = add_item(RULES, name, values)
    assert changed(RULES, after) == lines
    number = {"monitoring.rules": 2, "monitoring.channels": 2}.get(name, 0)
    back = remove_item(after, name, number)
    assert values_of(back) == values_of(RULES)


@pytest.mark.parametrize(
    ("text", "name", "after"),
    [
        ("monitoring:\nx: 1\n", "monitoring.rules", "monitoring:\n  rules:\n    - a: b\nx: 1\n"),
        ("monitoring: {rules: []}\nx: 1\n", "monitoring.rules", "monitoring: {rules: [{a: b}]}\nx: 1\n"),
        ("monitoring: {}\n", "monitoring.rules", "monitoring: {rules: [{a: b}]}\n"),
        ("monitoring:\n  rules: ~  # none\n", "monitoring.rules", "monitoring:\n  rules:  # none\n    - a: b\n"),
    ],
)
def test_the_first_entry_of_a_list(text: str, name: str, after: str) -> None:
    assert add_item(text, name, {"a": "b"}) == after


def test_the_first_entries_of_lists_go() -> None:
    assert changed(RULES, remove_item(RULES, "monitoring.rules", 0)) == [
        "-    - temperature > 70 for 2m   # a warm room"
    ]
    after = remove_item(remove_item(RULES, "monitoring.rules", 1), "monitoring.rules", 0)
    assert "  rules: []         # ours\n" in after
    assert 'channels: [{type: webhook, url: "https://a.example/x"}]' in remove_item(RULES, "monitoring.channels", 0)
    assert "channels: [slack]" in remove_item(RULES, "monitoring.channels", 1)


@pytest.mark.parametrize(
    ("work", "text"),
    [
        (lambda: add_item("rules: hot\n", "rules", {"a": "b"}), "no list here"),
        (lambda: add_item("a: 1\n", "b.c.rules", {"a": "b"}), "there is no b.c"),
        (lambda: add_item("monitoring: ~\n", "monitoring.rules", {"a": "b"}), "there is no monitoring"),
        (lambda: add_item("a: &x [{b: 1}]\nc: *x\n", "a", {"b": "2"}), "cannot be added to"),
        (lambda: remove_item(RULES, "monitoring.rules", 2), "there is no monitoring.rules"),
        (lambda: remove_item(RULES, "monitoring.interval", 0), "there is no monitoring.interval"),
        (lambda: remove_item("a: &x [1, 2]\nc: *x\n", "a", 0), "cannot be removed"),
    ],
)
def test_what_cannot_be_done_to_a_list(work: Callable[[], str], text: str) -> None:
    with pytest.raises(EditError, match=text):
        work()


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        (
            RULES, "monitoring.rules[0].severity",
            [
                "-    - temperature > 70 for 2m   # a warm room",
                "+    - {when: 'temperature > 70 for 2m', severity: critical}   # a warm room",
            ],
        ),
        (RULES, "monitoring.rules[1].severity", ["+      severity: critical"]),
        (
            "monitoring:\n  healing: dry-run  # first\n", "monitoring.healing.after",
            ["-  healing: dry-run  # first", "+  healing: {enabled: dry-run, after: critical}  # first"],
        ),
        ("monitoring:\n  interval: 3\n", "monitoring.healing.after", ["+  healing:", "+    after: critical"]),
    ],
)  # fmt: skip
def test_what_is_written_short_gets_room_for_keys(text: str, key: str, lines: list[str]) -> None:
    assert changed(text, edit_config(text, [Change(key, "critical")])) == lines


_SCALAR = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(
    lambda text: bool(text.strip()) and text.isprintable()
)
_KEYS = st.sampled_from([*sorted(values_of(TEXT)), "lease_time", "web.tls", "snmp.port", "switches[1].off_time"])


@given(_KEYS, st.one_of(_SCALAR, st.none()))
def test_whatever_is_set_is_read_and_nothing_else_changes(key: str, value: str | None) -> None:
    try:
        after = edit_config(TEXT, [Change(key, value)])
    except EditError as error:
        assert "all there is" in str(error)  # noqa: PT017  # a switch without its address
        return
    old, new = values_of(TEXT), values_of(after)
    assert new.get(key) == value
    assert {k: v for k, v in old.items() if k != key} == {k: v for k, v in new.items() if k != key}
    assert after.count("#") >= TEXT.count("#") - 1


def test_the_example_keeps_its_comments() -> None:
    after = edit_config(EXAMPLE, [Change("lease_time", "300"), Change("switches[1].off_time", "9")])
    assert len(changed(EXAMPLE, after)) == 3


SECRETS = """\
snmp: {read_community: seen, write_community: "quo ted"}   # write_community: old-one
switches:
  - address: 172.30.4.254
    snmp:
      write_community: w1
# read_community=public2
monitoring:
  channels:
    - https://hooks.example.org/T0/B0/x7
    - {type: slack, url: 'https://h.example.org/y8'}
domain: rack
"""


def hide(text: str) -> tuple[str, dict[str, str]]:
    numbers: dict[str, int] = {}
    return hide_secrets(
        text, lambda key: "community" in key, lambda value: f"(hidden {numbers.setdefault(value, len(numbers))})"
    )


@pytest.mark.parametrize("text", [SECRETS, SECRETS + "broken: [\n", "a: " + "[" * 60 + "]" * 60 + "\n" + SECRETS])
def test_no_secret_is_shown_and_all_come_back(text: str) -> None:
    shown, hidden = hide(text)
    for secret in ("seen", "quo ted", "old-one", "w1", "public2", "x7", "y8"):
        assert secret not in shown
    assert "domain: rack" in shown
    assert "https://hooks.example.org/(hidden" in shown
    assert reveal_secrets(shown, hidden) == text


def test_a_file_with_hidden_secrets_can_be_edited() -> None:
    shown, hidden = hide(SECRETS)
    edited = edit_config(shown, [Change("domain", "other"), Change("snmp.port", "1161")])
    after = values_of(reveal_secrets(edited, hidden))
    assert after == values_of(SECRETS) | {"domain": "other", "snmp.port": "1161"}


def test_what_is_no_secret_is_not_hidden() -> None:
    for text in (EXAMPLE, "read_community:\n", "snmp: {read_community: ' '}\n"):
        assert hide(text)[1] in ({}, {"(hidden 0)": "' '"})
