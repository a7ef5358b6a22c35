"""Tests of the lab's switch without snmpd: its power, its configuration, its front. With snmpd: tests/peers."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from lab import switch as module
from lab.agentx import Mib, Oid
from lab.families import DELIVERING, DISABLED, SEARCHING, BridgeState, Neighbour, Quirks
from lab.switch import (
    Access,
    Device,
    FamilySwitch,
    Front,
    LabSwitch,
    PoePorts,
    User,
    find_family,
    parse_bridge,
    pdu_tag,
    render_configuration,
)


class Clock:
    """The time that a test says it is."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Power:
    """Three ports of which `there` have something, and what was told."""

    def __init__(self, there: set[int], **options: object) -> None:
        self.clock, self.there = Clock(), there
        self.told: list[tuple[int, bool]] = []
        self.ports = PoePorts(
            (1, 2, 3),
            lambda port, on: self.told.append((port, on)),
            self.there.__contains__,
            clock=self.clock,
            **options,  # type: ignore[arg-type]
        )

    def states(self) -> list[int]:
        return [self.ports.detection(port) for port in (1, 2, 3)]


def test_a_port_off_is_disabled_takes_no_power_and_comes_back() -> None:
    power = Power({1, 2})
    assert power.states() == [DELIVERING, DELIVERING, SEARCHING]
    power.ports.switch(1, False)
    power.ports.switch(1, False)
    assert power.states() == [DISABLED, DELIVERING, SEARCHING]
    assert (power.ports.milliwatts(1), power.ports.milliwatts(2), power.ports.is_on(1)) == (0, 4000, False)
    power.ports.switch(1, True)
    assert (power.states()[0], power.told) == (DELIVERING, [(1, False), (1, True)])
    with pytest.raises(KeyError):
        power.ports.is_on(4)


def test_detection_takes_its_time() -> None:
    power = Power({1}, detect=1.0, wants={1}.__contains__)
    assert power.states() == [DELIVERING, SEARCHING, SEARCHING]
    power.ports.switch(1, False)
    power.ports.switch(1, True)
    assert (power.states()[0], power.told, power.ports.deadline()) == (SEARCHING, [(1, False)], 101.0)
    power.clock.now = 100.9
    assert power.states()[0] == SEARCHING
    power.clock.now = 104.0
    assert (power.states()[0], power.ports.fed_since(1)) == (DELIVERING, 101.0)
    assert (power.told, power.ports.deadline()) == ([(1, False), (1, True)], None)
    power.ports.replug(1)
    assert (power.states()[0], power.ports.deadline()) == (SEARCHING, 105.0)


def test_a_port_that_is_off_before_its_detection_is_through_never_gave_power() -> None:
    power = Power({1}, detect=1.0, wants={1}.__contains__)
    power.ports.switch(1, False)
    power.ports.switch(1, True)
    power.ports.switch(1, False)
    power.clock.now = 110.0
    assert (power.states()[0], power.told) == (DISABLED, [(1, False)])


def test_a_budget_denies_and_counts_until_there_is_some_again() -> None:
    power = Power({1, 2, 3}, budget=9000)
    assert power.states() == [DELIVERING, DELIVERING, SEARCHING]
    assert [power.ports.denied(port) for port in (1, 2, 3)] == [0, 0, 1]
    power.clock.now = 103.5
    assert (power.ports.denied(3), power.ports.deadline(), power.ports.budget) == (4, 104.0, 9000)
    power.ports.switch(1, False)
    assert power.states() == [DISABLED, DELIVERING, SEARCHING]
    power.clock.now = 104.0
    assert power.states() == [DISABLED, DELIVERING, DELIVERING]
    power.ports.switch(1, True)
    assert power.states() == [SEARCHING, DELIVERING, DELIVERING]
    assert power.told == [(1, False), (3, True)]


def test_the_kernels_words_become_the_bridges_state() -> None:
    links = [
        {"ifindex": 1, "ifname": "lo", "address": "00:00:00:00:00:00"},
        {"ifindex": 2, "ifname": "br0", "address": "02:00:00:00:00:fe"},
        {
            "ifindex": 9,
            "ifname": "up",
            "operstate": "UP",
            "linkinfo": {"info_slave_data": {"state": "forwarding", "no": "0x1"}},
        },
        {"ifindex": 7, "ifname": "p1", "operstate": "LOWERLAYERDOWN", "linkinfo": {"info_kind": "veth"}},
    ]
    entries = [
        {"mac": "b8:27:eb:00:00:01", "ifname": "p1", "flags": [], "master": "br0", "state": ""},
        {"mac": "02:00:00:00:00:01", "ifname": "up", "master": "br0", "state": "stale"},
        {"mac": "02:00:00:00:00:aa", "ifname": "p1", "master": "br0", "state": "permanent"},
        {"mac": "33:33:00:00:00:01", "ifname": "p1", "flags": ["self"], "state": "permanent"},
        {"mac": "02:00:00:00:00:bb", "ifname": "p1", "master": "br1", "state": ""},
        {"mac": "02:00:00:00:00:cc", "ifname": "other", "master": "br0", "state": ""},
    ]
    assert parse_bridge(json.dumps(links), json.dumps(entries), "br0", ["p1", "up"]) == BridgeState(
        "02:00:00:00:00:fe",
        frozenset({2}),
        {1: "disabled", 2: "forwarding"},
        {"b8:27:eb:00:00:01": 1, "02:00:00:00:00:01": 2},
    )
    assert parse_bridge("[]", "[]", "br0", []) == BridgeState("00:00:00:00:00:00", frozenset(), {}, {})


def test_the_configuration() -> None:
    lines = render_configuration(Access("look", "touch"), "10.0.0.1", 161, [9]).splitlines()
    assert lines[0] == "agentaddress udp:10.0.0.1:161"
    assert 'rocommunity "look"' in lines
    assert 'rwcommunity "touch"' in lines
    assert 'com2sec -Cn vlan-9 read9 default "look@9"' in lines
    assert "access read9 vlan-9 any noauth exact everything none none" in lines
    assert "access write9 vlan-9 any noauth exact everything everything none" in lines
    users = (User("root", "swordfish", "dolphin88"), User("guest", "swordfish", "dolphin88", may_write=False))
    text = render_configuration(Access("look", "", users), "10.0.0.1", 161, [9])
    assert "rwcommunity" not in text
    assert "write9" not in text
    assert 'createUser root SHA-256 "swordfish" AES "dolphin88"' in text
    assert 'access root "" usm priv prefix everything everything none' in text
    assert 'access guest "" usm priv prefix everything none none' in text


def test_a_family_that_is_none_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="no family of switches 'ios'; there are standard, cisco-ios"):
        find_family("ios")


# ---------------------------------------------------------------------------------------------- a switch without snmpd


def _family_switch(directory: Path, clock: Clock, **options: object) -> FamilySwitch:
    devices = {3: Device(("b8:27:eb:00:00:03",), link_delay=2.0), 4: Device(("b8:27:eb:00:00:04",), needs_power=False)}
    return FamilySwitch("standard", directory, devices=devices, clock=clock, **options)  # type: ignore[arg-type]


def test_links_follow_the_power_and_macs_follow_the_links(tmp_path: Path) -> None:
    clock = Clock()
    switch = _family_switch(tmp_path, clock)
    assert (switch.is_up(3), switch.is_up(4), switch.is_up(5)) == (False, True, False)
    clock.now += 2
    assert switch.bridge_state().learned == {"b8:27:eb:00:00:03": 3, "b8:27:eb:00:00:04": 4}
    switch.switch_power(3, False)
    switch.switch_power(4, False)
    assert switch.bridge_state().learned == {"b8:27:eb:00:00:04": 4}
    assert (switch.told, switch.detection(4), switch.is_up(4)) == ([(3, False), (4, False)], DISABLED, True)
    switch.plug(4, None)
    switch.plug(25, Device(("02:00:00:00:00:01",)))
    assert switch.bridge_state().up == frozenset(), "an uplink feeds nobody"
    switch.plug(25, Device(("02:00:00:00:00:01",), needs_power=False))
    assert switch.bridge_state().learned == {"02:00:00:00:00:01": 25}
    switch.switch_interface(25, False)
    assert switch.bridge_state().learned == {}


def test_an_interface_off_keeps_the_power(tmp_path: Path) -> None:
    clock = Clock()
    switch = _family_switch(tmp_path, clock)
    clock.now += 5
    switch.switch_interface(3, False)
    assert (switch.interface_on(3), switch.is_up(3), switch.detection(3)) == (False, False, DELIVERING)
    switch.switch_interface(3, True)
    assert (switch.interface_on(3), switch.is_up(3)) == (True, True)


def test_a_switch_that_says_yes_and_does_nothing(tmp_path: Path) -> None:
    switch = _family_switch(tmp_path, Clock(), quirks=Quirks(does_nothing=True))
    assert switch.switch_power(3, False)
    assert (switch.told, switch.detection(3)) == ([(3, False)], DELIVERING)


def test_macs_behind_trunks_are_seen_on_the_trunks(tmp_path: Path) -> None:
    def make(number: int) -> FamilySwitch:
        device = Device((f"b8:27:eb:00:00:0{number}",))
        return FamilySwitch(
            "procurve", tmp_path, devices={number: device}, name=f"sw{number}", mac=f"02:00:00:00:00:f{number}"
        )

    one, two, three = make(1), make(2), make(3)
    one.connect(25, two, 26)
    two.connect(25, three, 25)
    three.connect(26, one, 26)  # a ring, which ends all the same
    assert one.bridge_state().learned["b8:27:eb:00:00:01"] == 1
    assert two.bridge_state().learned["b8:27:eb:00:00:02"] == 2
    assert set(two.bridge_state().learned) == {
        *(f"b8:27:eb:00:00:0{number}" for number in (1, 2, 3)),
        *("02:00:00:00:00:f1", "02:00:00:00:00:f3"),
    }
    assert one.neighbours()[25] == Neighbour("sw2", "02:00:00:00:00:f2", "1/26")
    one.switch_interface(25, False)
    assert 25 not in one.neighbours()


def test_tables_are_made_anew_only_when_the_bridge_changes(tmp_path: Path) -> None:
    clock = Clock()
    switch = _family_switch(tmp_path, clock)
    first = switch.table("")
    assert switch.table("") is first
    clock.now += 5
    assert switch.table("") is not first


# -------------------------------------------------------------------------------------------------------- the processes


def _lab_switch(directory: Path) -> LabSwitch:
    return LabSwitch("nowhere", "br0", ["p1"], "10.0.0.1", directory, lambda _port, _on: None, lambda _port: True)


def test_a_namespace_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    agent = _lab_switch(tmp_path / "a" / "b")
    with pytest.raises(RuntimeError, match="snmpd of the lab's switch in nowhere did not start: it says nothing"):
        agent.start()
    agent.stop()
    assert (tmp_path / "a" / "b" / "snmpd.conf").stat().st_mode & 0o077 == 0, "it holds the communities"
    assert agent.admin(1) is True


def test_an_address_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    switch = FamilySwitch("standard", tmp_path, "192.0.2.1")
    with pytest.raises(RuntimeError, match=r"snmpd of the lab's switch in 192\.0\.2\.1 did not start: .*192\.0\.2\.1"):
        switch.start()


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name, path: None)
    with pytest.raises(RuntimeError, match="snmpd is not installed; the Debian packages are"):
        module._tool("snmpd")


def test_an_agent_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf:
        killed = False

        def terminate(self) -> None: ...

        def kill(self) -> None:
            self.killed = True

        def wait(self, timeout: float | None = None) -> None:
            if timeout is not None:
                raise subprocess.TimeoutExpired("snmpd", timeout)

    roots: dict[str, list[Oid]] = {"": []}
    agent, deaf = module.SwitchAgent(tmp_path, "10.0.0.1", 161, Access(), roots, lambda _context: Mib({})), Deaf()
    monkeypatch.setattr(agent, "_snmpd", deaf)
    agent.stop()
    agent.stop()
    assert deaf.killed


# ----------------------------------------------------------------------------------------------------------- the front

BULK = bytes.fromhex("3024020101 0406 7075626c6963 a517 0204 00000001 020100 020114 3009 3007 0603 2b0601 0500")


@pytest.mark.parametrize(
    ("message", "tag"),
    [
        (BULK, 0xA5),
        (b"\x30\x81\x84" + BULK[2:], 0xA5),
        (bytes.fromhex("3010 020103 3003 0201010400"), 0),  # v3
        (BULK[:12], 0),
        (b"\x30\x02", 0),
        (b"", 0),
    ],
)
def test_which_pdu_it_is(message: bytes, tag: int) -> None:
    assert pdu_tag(message) == tag


class Echo:
    """What is behind a front: it hears, and answers when told to."""

    def __init__(self, quirks: Quirks) -> None:
        self.behind = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.behind.bind(("127.0.0.1", 0))
        self.client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            address = probe.getsockname()
        self.front = Front(address, self.behind.getsockname(), quirks)
        self.client.connect(address)
        for each in (self.behind, self.client):
            each.settimeout(10)

    def __enter__(self) -> Echo:
        return self

    def __exit__(self, *_error: object) -> None:
        self.front.close()
        self.behind.close()
        self.client.close()

    def pass_through(self, data: bytes) -> None:
        self.client.send(data)
        heard, where = self.behind.recvfrom(1000)
        assert heard == data
        self.behind.sendto(data[::-1], where)
        assert self.client.recv(1000) == data[::-1]


def test_a_front_passes_both_ways_for_many_clients() -> None:
    with Echo(Quirks(delay=0.001)) as echo:
        for number in range(40):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.connect(echo.client.getpeername())
                client.settimeout(10)
                client.send(b"%d" % number)
                heard, where = echo.behind.recvfrom(100)
                echo.behind.sendto(heard, where)
                assert client.recv(100) == b"%d" % number


def test_a_slow_front_takes_one_request_after_the_other() -> None:
    with Echo(Quirks(delay=0.05)) as echo:
        start = time.monotonic()
        for number in range(4):
            echo.client.send(b"%d" % number)
        heard = [echo.behind.recv(100) for _ in range(4)]
        assert heard == [b"0", b"1", b"2", b"3"]
        assert time.monotonic() - start >= 0.19


def test_a_lossy_front_loses_its_share() -> None:
    with Echo(Quirks(loss=0.5, seed=3)) as echo:
        for number in range(60):
            echo.client.send(b"%d" % number)
        echo.behind.settimeout(0.5)
        heard = 0
        with contextlib.suppress(TimeoutError):
            while True:
                echo.behind.recv(100)
                heard += 1
        assert 15 <= heard <= 45


def test_after_a_bulk_a_front_is_silent_for_a_while() -> None:
    with Echo(Quirks(bulk_silence=0.6)) as echo:
        echo.pass_through(b"before")
        start = time.monotonic()
        echo.client.send(BULK)
        echo.behind.settimeout(0.1)
        while True:  # as somebody does who tries again
            echo.client.send(b"after")
            try:
                assert echo.behind.recv(100) == b"after"
                break
            except TimeoutError:
                assert time.monotonic() < start + 10
        assert time.monotonic() - start >= 0.6
