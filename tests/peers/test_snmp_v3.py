"""SNMP v3 as we speak it, against net-snmp's snmpd: every pair of protocols, right and wrong keys, VLANs, restarts."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lab.families import Quirks
from lab.switch import Access, Device, FamilySwitch
from lab.switch import User as LabUser
from utility.config import SnmpAccess, Switch
from utility.snmp import OBJECTS, NoAnswerError, Snmp, SnmpError
from utility.usm import AUTH, PRIV

NAME = (*OBJECTS["sysName"], 0)
ADMIN = OBJECTS["pethPsePortAdminEnable"]
FDB = OBJECTS["dot1dTpFdbPort"]
PI = "b8:27:eb:00:00:07"
AUTH_PASSWORD, PRIV_PASSWORD = "maplesyrup", "dolphin88"
ADDRESS = "127.0.163.1"


def access(user: str, auth: str = "SHA-256", priv: str = "AES", **others: object) -> SnmpAccess:
    words = SnmpAccess("3", timeout=1.0, auth_password=AUTH_PASSWORD, priv_password=PRIV_PASSWORD)
    return replace(words, user=user, auth_protocol=auth, priv_protocol=priv, **others)  # type: ignore[arg-type]


def ask(access: SnmpAccess, address: str = ADDRESS) -> Snmp:
    return Snmp(Switch(0, IPv4Address(address), snmp=access))


class Agent:
    """A snmpd that gives each pair of protocols a user, and some who may less. net-snmp writes AES-256-C AES256C."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        lines = [f"agentaddress udp:{ADDRESS}:161", "sysName sw0"]
        for auth in AUTH:
            for priv in PRIV:
                word = priv if priv.count("-") < 2 else priv.replace("-", "")
                lines.append(f'createUser {auth}_{priv} {auth} "{AUTH_PASSWORD}" {word} "{PRIV_PASSWORD}"')
                lines.append(f"rwuser {auth}_{priv} priv")
        lines += [
            f'createUser signed SHA "{AUTH_PASSWORD}"',
            "rouser signed auth",
            "createUser open",
            "rouser open noauth",
            f'createUser nobody SHA-256 "{AUTH_PASSWORD}" AES "{PRIV_PASSWORD}"',
            "[snmp] persistentDir state",
        ]
        (directory / "state").mkdir()
        (directory / "snmpd.conf").write_text("\n".join(lines) + "\n")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        (self.directory / "snmpd.log").unlink(missing_ok=True)
        command = ["snmpd", "-f", "-r", "-C", "-c", "snmpd.conf", "-Lf", "snmpd.log", "-m", ""]
        self.process = subprocess.Popen(command, cwd=self.directory, stdin=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while "NET-SNMP version" not in (
            (self.directory / "snmpd.log").read_text() if (self.directory / "snmpd.log").exists() else ""
        ):
            assert self.process.poll() is None, (self.directory / "snmpd.log").read_text()
            assert time.monotonic() < end
            time.sleep(0.02)

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(10)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    agent = Agent(tmp_path_factory.mktemp("snmpd"))
    agent.start()
    yield agent
    agent.stop()


@pytest.mark.parametrize("auth", AUTH)
def test_every_pair_of_protocols(agent: Agent, auth: str) -> None:
    for priv in PRIV:
        with ask(access(f"{auth}_{priv}", auth, priv)) as snmp:
            assert snmp.get([NAME]) == {NAME: b"sw0"}, priv
            assert len(snmp.walk((1, 3, 6, 1, 2, 1, 1))) > 5


def test_signed_only_and_not_even_that(agent: Agent) -> None:
    for user, auth in (("signed", "SHA"), ("open", "none")):
        with ask(access(user, auth, "none")) as snmp:
            assert snmp.get([NAME]) == {NAME: b"sw0"}


WRONG = [
    (
        {"user": "SHA-256_AES", "auth_password": "mapelsyrup"},
        (
            "user SHA-256_AES has another auth password or protocol there: correct PIMAN_SNMP_AUTH_PASSWORD, or"
            " auth_protocol (SHA-256)"
        ),
    ),
    ({"user": "MD5_AES"}, "user MD5_AES has another auth password or protocol there"),
    (
        {"user": "SHA-256_AES", "priv_password": "dolphin89"},
        (
            "user SHA-256_AES has another priv password or protocol there: correct PIMAN_SNMP_PRIV_PASSWORD, or"
            " priv_protocol (AES)"
        ),
    ),
    ({"user": "SHA-256_DES"}, "user SHA-256_DES has another priv password or protocol there"),
    ({"user": "stranger"}, "it knows no user stranger: create it on the switch, or correct `user:` or PIMAN_SNMP_USER"),
    ({"user": "signed", "auth": "SHA"}, "it does not give user signed this level of security: is SHA with AES what"),
    ({"user": "open"}, "it does not give user open this level of security"),
    ({"user": "nobody"}, "the user nobody may not read it: give it access on the switch, or another user to us"),
    ({"user": "SHA-256_AES", "priv": "none"}, "the user SHA-256_AES may not read it"),
]


@pytest.mark.parametrize(("words", "reason"), WRONG)
def test_what_is_wrong_is_said_in_a_line_without_the_secret(agent: Agent, words: dict[str, str], reason: str) -> None:
    wanted = access(**words)
    began = time.monotonic()
    with ask(replace(wanted, timeout=0.3)) as snmp, pytest.raises(SnmpError) as caught:
        snmp.get([NAME])
    assert f"switch {ADDRESS}: sysName.0: {reason}" in str(caught.value)
    assert "\n" not in str(caught.value)
    for secret in (wanted.auth_password, wanted.priv_password):
        assert secret not in str(caught.value)
    assert time.monotonic() - began < 5


def test_an_agent_without_version_3(agent: Agent) -> None:
    with ask(access("SHA-256_AES", retries=0), "127.0.163.9") as snmp, pytest.raises(SnmpError, match="is SNMP on"):
        snmp.get([NAME])


def test_an_agent_that_starts_again_is_asked_on(tmp_path: Path, agent: Agent) -> None:
    """Its engine keeps its name, counts its boots, and begins its clock anew."""
    with ask(access("SHA-256_AES")) as snmp:
        assert snmp.get([NAME]) == {NAME: b"sw0"}
        agent.stop()
        agent.start()
        assert snmp.get([NAME]) == {NAME: b"sw0"}
        snmp._line.session._engine = replace(  # a manager that slept
            snmp._line.session._engine,  # type: ignore[type-var]
            clock=replace(snmp._line.session._engine.clock, time=0, boots=1),  # type: ignore[union-attr]
        )
        assert snmp.get([NAME]) == {NAME: b"sw0"}


def lab_user(name: str) -> LabUser:
    return LabUser(name, AUTH_PASSWORD, PRIV_PASSWORD)


def test_a_switch_of_cisco_with_its_contexts_and_its_power(tmp_path: Path) -> None:
    users = (lab_user("piman"), replace(lab_user("guest"), may_write=False))
    address = "127.0.163.2"
    with FamilySwitch(
        "cisco-ios", tmp_path, address, vlan=10, devices={3: Device((PI,))}, access=Access("look", "", users)
    ):
        with ask(access("piman"), address) as snmp:
            digits = tuple(bytes.fromhex(PI.replace(":", "")))
            assert snmp.get([(*FDB, *digits)]) == {(*FDB, *digits): None}
            assert snmp.in_vlan(10).get([(*FDB, *digits)]) == {(*FDB, *digits): 3}
            assert len(snmp.in_vlan(10).walk(FDB)) == 2
            snmp.set((*ADMIN, 1, 3), 2)
            assert snmp.get([(*ADMIN, 1, 3)]) == {(*ADMIN, 1, 3): 2}
            with pytest.raises(SnmpError, match="in the context vlan-11: is it there, and may the user piman"):
                snmp.in_vlan(11).get([NAME])
        with ask(access("guest"), address) as snmp, pytest.raises(SnmpError) as caught:
            snmp.set((*ADMIN, 1, 3), 1)
        assert "pethPsePortAdminEnable.1.3: the user guest may not write it: give it write access" in str(caught.value)


def test_a_lossy_switch(tmp_path: Path) -> None:
    quirks = Quirks(loss=0.2)
    address = "127.0.163.3"
    with (
        FamilySwitch("standard", tmp_path, address, access=Access("", "", (lab_user("piman"),)), quirks=quirks),
        ask(access("piman", timeout=0.2, retries=10), address) as snmp,
    ):
        assert len(snmp.walk(ADMIN)) == 24


@pytest.mark.parametrize("version", ["2c", "3"])
def test_a_switch_that_falls_over_getbulk_is_read_row_by_row(tmp_path: Path, version: str) -> None:
    quirks = Quirks(bulk_silence=1.0)
    address = "127.0.163.4"
    users = (lab_user("piman"),)
    wanted = replace(access("piman"), version=version, timeout=0.4, retries=2)
    with FamilySwitch("standard", tmp_path, address, access=Access(users=users), quirks=quirks, ports=4):
        with ask(wanted, address) as snmp:
            assert len(snmp.walk(ADMIN)) == 4
            began = time.monotonic()
            assert len(snmp.walk(ADMIN)) == 4
            assert time.monotonic() - began < 1, "it learnt"
        with ask(replace(wanted, bulk=False), address) as snmp:
            began = time.monotonic()
            assert len(snmp.walk(ADMIN)) == 4
            assert time.monotonic() - began < 1


def test_nobody_there(tmp_path: Path) -> None:
    quirks = Quirks(loss=1.0)
    address = "127.0.163.5"
    with (
        FamilySwitch("standard", tmp_path, address, quirks=quirks, ports=1),
        ask(access("piman", timeout=0.1), address) as snmp,
        pytest.raises(NoAnswerError, match=r"no answer from .*is the address right, and SNMP version 3 on"),
    ):
        snmp.get([NAME])
