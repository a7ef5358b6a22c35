"""Tests of utility.exec_switch: commands that keep each port in a file."""

from __future__ import annotations

import time
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from utility.config import Commands, Switch
from utility.exec_switch import ExecSwitch
from utility.power_cycle import PortResult, power_cycle, set_power
from utility.switches import Capabilities, SwitchError, open_switch

ADDRESS = IPv4Address("172.30.4.9")


def switch(folder: Path, **commands: object) -> Switch:
    for port in range(1, 5):
        (folder / f"{port}").write_text("on\n")
    given = Commands(
        on=f"echo on {{address}} {{port}} >> {folder}/log; echo on > {folder}/{{port}}",
        off=f"echo off {{address}} {{port}} >> {folder}/log; echo off > {folder}/{{port}}",
        status=f"echo status {{port}} >> {folder}/log; cat {folder}/{{port}}",
        ports=4,
    )
    return Switch(0, ADDRESS, driver="exec", commands=replace(given, **commands))  # type: ignore[arg-type]


def test_a_power_cycle_asks_only_for_its_ports(tmp_path: Path) -> None:
    with open_switch(switch(tmp_path)) as poe:
        assert poe.capabilities == Capabilities("exec")
        assert power_cycle(poe, [2, 9], off_time=0) == [
            PortResult(2, ok=True, text="power-cycled"),
            PortResult(9, ok=False, text="no PoE port of that number; the switch has 1-4"),
        ]
    done = (tmp_path / "log").read_text().splitlines()
    assert [line for line in done if "status" not in line] == ["off 172.30.4.9 2", "on 172.30.4.9 2"]
    assert {line for line in done if "status" in line} == {"status 2"}


def test_the_face(tmp_path: Path) -> None:
    with ExecSwitch(switch(tmp_path)) as poe:
        assert set_power(poe, [3], False) == [PortResult(3, ok=True, text="off")]
        assert [(port.number, port.admin_on, port.has_poe) for port in poe.ports()] == [
            (1, True, True), (2, True, True), (3, False, True), (4, True, True),
        ]  # fmt: skip
        assert (poe.macs(), poe.supplies(poe.ports())) == ({}, [])


@pytest.mark.parametrize(
    ("commands", "text"),
    [
        (
            {"off": "echo no such port >&2; exit 3"},
            "`echo no such port >&2; exit 3`: ended with exit code 3: 'no such port'",
        ),
        ({"off": "exit 1"}, "`exit 1`: ended with exit code 1"),
        (
            {"off": "sleep 60 & sleep 60", "timeout": 0.2},
            "`sleep 60 & sleep 60`: has not ended in 0.2 s; it was stopped",
        ),
        ({"status": "printf 'per\\033haps'"}, "`printf 'per\\033haps'`: printed 'per?haps'; expected on or off"),
        ({"status": "true"}, "`true`: printed ''; expected on or off"),
    ],
)
def test_a_command_that_goes_wrong(tmp_path: Path, commands: dict[str, object], text: str) -> None:
    began = time.monotonic()
    with ExecSwitch(switch(tmp_path, **commands)) as poe, pytest.raises(SwitchError) as caught:
        power_cycle(poe, [1], off_time=0)
    assert str(caught.value) == f"switch 172.30.4.9 port 1: {text}"
    assert time.monotonic() - began < 30


def test_a_shell_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_words: object, **_options: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("subprocess.Popen", fail)
    with ExecSwitch(switch(tmp_path)) as poe, pytest.raises(SwitchError, match="cannot be started: Cannot allocate"):
        poe.ports()
