"""config.yaml's switches that are not ours to know: `drivers:`, and `driver: exec`, `unifi` and `routeros`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.test_config import BASE, ROOT, load, problems
from utility.config import Commands, Controller
from utility.drivers import DRIVERS, STANDARD, Detection, Driver, Supply, Watts, oid


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


START = BASE[: BASE.index("switches:")]
OWN = """\
drivers:
  acme:
    object_id: [1.3.6.1.4.1.99999.1, .1.3.6.1.4.1.99999.2]
    admin: 1.3.6.1.4.1.99999.5.1.2
    on: 1
    off: 0
    also_on: 2, 3
    index: [ifindex, bridge]
    detection: 1.3.6.1.4.1.99999.5.1.3
    states: {delivering: [Feeding, 3], searching: 2, disabled: "off", fault: 4}
    power_class: 1.3.6.1.4.1.99999.5.1.4
    class_zero: 0
    watts: 1.3.6.1.4.1.99999.5.1.5
    watts_unit: 100
    watts_source: allocated
    watts_by_port: true
    capacity: 1.3.6.1.4.1.99999.6.1
    capacity_unit: 1
    consumption: 1.3.6.1.4.1.99999.6.2
    consumption_unit: 10
    fdb: bridge
    read_only: look, do not touch
  acme-small: {object_id: 1.3.6.1.4.1.99999.1.7, like: acme, watts_unit: 10}
  cheap: {like: tplink, object_id: 1.3.6.1.4.1.99999.3}
"""


def test_a_user_adds_a_switch(tmp_path: Path) -> None:
    config = load(START + OWN + "switches:\n  - {address: 172.30.4.9, driver: acme, power_budget: 65.5}\n")
    [switch] = config.switches
    acme, small, cheap = switch.drivers
    assert (switch.driver, switch.power_budget) == ("acme", 65.5)
    column = oid("1.3.6.1.4.1.99999.5.1")
    watts = Watts((*column, 5), 100, "allocated", by_port=True)
    assert acme == Driver(
        "acme",
        (oid("1.3.6.1.4.1.99999.1"), oid("1.3.6.1.4.1.99999.2")),
        admin=(*column, 2), on=1, off=0, also_on=(2, 3), index=("ifindex", "bridge"), detection=(*column, 3),
        states={
            "feeding": Detection.DELIVERING, 3: Detection.DELIVERING, 2: Detection.SEARCHING,
            "off": Detection.DISABLED, 4: Detection.FAULT,
        },
        power_class=(*column, 4), class_zero=0, watts=(watts,),
        supply=Supply(oid("1.3.6.1.4.1.99999.6.1"), oid("1.3.6.1.4.1.99999.6.2"), 1, 10),
        fdb="bridge", read_only="look, do not touch",
    )  # fmt: skip
    object_id = oid("1.3.6.1.4.1.99999.1.7")
    assert small == replace(acme, name="acme-small", object_ids=(object_id,), watts=(replace(watts, milliwatts=10),))
    tplink = next(row for row in DRIVERS if row.name == "tplink")
    assert cheap == replace(tplink, name="cheap", object_ids=(oid("1.3.6.1.4.1.99999.3"),))


def test_a_driver_that_says_nothing_is_the_standard(tmp_path: Path) -> None:
    config = load(START + "drivers:\n  plain:\nswitches: [{address: 172.30.4.9, driver: snmp}]\n")
    assert config.switches[0].drivers == (replace(STANDARD, name="plain"),)
    assert config.switches[0].driver == "auto", "as it was called before there were others"


EXEC = """\
switches:
  - address: 172.30.4.9
    driver: exec
    exec:
      on: poe {address} {port} on
      off: poe {address} {port} off
      status: poe {address} {port} | awk '{print $1}'
      ports: 8
"""


def test_three_commands() -> None:
    assert load(START + EXEC).switches[0].commands == Commands(
        "poe {address} {port} on", "poe {address} {port} off", "poe {address} {port} | awk '{print $1}'", 8
    )
    [switch] = load(START + EXEC + "      timeout: 5\n").switches
    assert switch.commands
    assert (switch.driver, switch.commands.timeout) == ("exec", 5.0)


def test_controllers_have_their_passwords_in_env() -> None:
    text = """\
switches:
  - address: 172.30.4.9
    driver: unifi
    unifi: {server: "https://172.30.4.2:8443/", site: lab, user: me, fingerprint: "%s"}
  - address: 172.30.4.10
    driver: routeros
"""
    prints = ":".join(["AB"] * 32)
    config = load(START + text % prints, "PIMAN_UNIFI_PASSWORD=sesame\nPIMAN_ROUTEROS_PASSWORD=two\n")
    assert [switch.controller for switch in config.switches] == [
        Controller("https://172.30.4.2:8443", "me", "sesame", "lab", "ab" * 32),
        Controller("https://172.30.4.10", "piman", "two"),
    ]
    assert "sesame" not in repr(config)


OID = "expected an OID in numbers, like 1.3.6.1.2.1.105.1.1.1.3"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("drivers:\n  acme: {admin: pethPse}", f"6: drivers.acme.admin: found 'pethPse'; {OID}"),
        ("drivers:\n  acme:\n    object_id: 9.1", f"7: drivers.acme.object_id: found '9.1'; {OID}"),
        ("drivers:\n  acme: {vlan: 1}", "6: drivers.acme.vlan: unknown key; known here: object_id, like"),
        (
            "drivers:\n  acme: {on: yes}",
            "6: drivers.acme.on: found 'yes'; expected a whole number from 0 to 2147483647",
        ),
        ("drivers:\n  acme: {on: 2}", "6: drivers.acme: 2 is off, and it is on as well"),
        ("drivers:\n  acme: {also_on: [3, 2]}", "6: drivers.acme: 2 is off, and it is on as well"),
        ("drivers:\n  acme: {like: acme}", "6: drivers.acme.like: found 'acme'; expected aos-cx or cisco-ios"),
        ("drivers:\n  acme: {index: number}", "6: drivers.acme.index: found 'number'; expected bridge or ifindex or"),
        ("drivers:\n  acme: {states: {asleep: 1}}", "6: drivers.acme.states.asleep: unknown key; known here: disabled"),
        ("drivers:\n  acme: {fdb: mine}", "6: drivers.acme.fdb: found 'mine'; expected qbridge or bridge or vlan"),
        ("drivers:\n  tplink: {on: 3}", "6: drivers.tplink: is the name of a driver that is there; give it another"),
        ("drivers:\n  exec: {on: 3}", "6: drivers.exec: is the name of a driver that is there; give it another"),
        ("drivers:\n  ACME: {on: 3}", "6: drivers.ACME: expected a driver's name of small letters, digits and -"),
        ("drivers: [acme]", "5: drivers: found a list; expected keys with values"),
    ],
)
def test_a_mistake_in_a_driver_is_told_with_its_line(text: str, expected: str) -> None:
    [problem] = problems(f"{START}{text}\nswitches: []\n")
    assert problem.startswith(f"config.yaml:{expected}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("driver: exec", "7: switches[0].driver: exec needs the section `exec:` with on, off, status and ports"),
        ("exec: {on: a}", "7: switches[0].exec: is there, but the driver is another; add `driver: exec`"),
        ("unifi: {site: a}", "7: switches[0].unifi: is there, but the driver is another; add `driver: unifi`"),
        (
            "driver: exec\n    exec: {on: 'a {port}', off: 'b {port}', ports: 4}",
            "8: switches[0].exec.status: is missing; expected a command, like `ssh poe@{address} poe {port} on`",
        ),
        (
            "driver: exec\n    exec: {on: a, off: 'b {port}', status: 'c {port}', ports: 4}",
            "8: switches[0].exec.on: has no {port} in it, so it would do all ports",
        ),
        (
            "driver: exec\n    exec: {on: 'a {prot}', off: 'b {port}', status: 'c {port}', ports: 4}",
            "8: switches[0].exec.on: found 'a {prot}'; {prot} is not known; expected a command with {port} and, where",
        ),
        (
            "driver: exec\n    exec: {on: 'a {port}', off: 'b {port}', status: 'c {port}'}",
            "8: switches[0].exec.ports: is missing; expected how many ports there are",
        ),
        (
            "driver: unifi",
            "7: switches[0].driver: unifi needs the section `unifi:` with the controller's `server:`",
        ),
        (
            "driver: unifi\n    unifi: {user: me}",
            "8: switches[0].unifi.server: is missing; expected the controller's address, like https://172.30.4.2:8443",
        ),
        (
            "driver: routeros\n    routeros: {server: 172.30.4.2}",
            "8: switches[0].routeros.server: found '172.30.4.2'; expected https://HOST or https://HOST:PORT",
        ),
        (
            "driver: routeros\n    routeros: {fingerprint: ab}",
            "8: switches[0].routeros.fingerprint: found 'ab'; expected the SHA-256 of the certificate, 64 hexadecimal",
        ),
        (
            "driver: routeros\n    routeros: {password: sesame}",
            "8: switches[0].routeros.password: unknown key; known here: server, user, site, fingerprint",
        ),
        (
            "power_budget: lots",
            "7: switches[0].power_budget: found 'lots'; expected a number of watts from 1 to 100000",
        ),
    ],
)
def test_a_mistake_in_a_switch_is_told_with_its_line(text: str, expected: str) -> None:
    [problem, *_] = problems(f"{START}switches:\n  - address: 172.30.4.9\n    {text}\n")
    assert problem.startswith(f"config.yaml:{expected}")


def test_a_controllers_password_is_kept_out_of_config_yaml() -> None:
    [problem] = problems(f"{BASE}unifi_password: sesame\n")
    assert "put PIMAN_UNIFI_PASSWORD=... into .env" in problem
    assert "sesame" not in problem


def test_the_examples_of_the_readme_load() -> None:
    text = (ROOT / "README.md").read_text()
    section = text[text.index("#### A switch that is not in the table") : text.index("### SNMP\n")]
    own, by_commands, by_web = (block.partition("```")[0] for block in section.split("```yaml\n")[1:])
    [switch] = load(START + own).switches
    assert [driver.name for driver in switch.drivers] == ["acme"]
    assert load(START + by_commands).switches[0].driver == "exec"
    assert [switch.driver for switch in load(START + by_web).switches] == ["unifi", "routeros"]
