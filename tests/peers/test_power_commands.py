"""restart, power and ports as commands, at switches that the lab plays: what they print, and what becomes of a port
when they are killed, interrupted or hung up on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.switch import Device, FamilySwitch

ROOT = Path(__file__).parents[2]
LEFT, RIGHT = "127.0.163.1", "127.0.163.2"
CONFIG = f"""\
private_number: 4
server_address: 127.0.0.1
subnet_mask: 255.0.0.0
interface: lo
services: ntp
ports: {{ntp: 12345}}
snmp: {{timeout: 1}}
switches:
  - {{name: left, address: {LEFT}, protected_ports: 4, pi_addresses: [127.0.4.13]}}
  - {{name: right, address: {RIGHT}, off_time: 0.5}}
"""


@dataclass
class Rack:
    """Two switches and a configuration of them."""

    folder: Path
    left: FamilySwitch
    right: FamilySwitch

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "piman.py"), "-c", str(self.folder / "config.yaml"), *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *words: str) -> tuple[int, str, str]:
        with self.start(*words) as process:
            said, complained = process.communicate(timeout=100)
        return process.returncode, said, complained

    def start_and_wait_for_off(self, *words: str) -> subprocess.Popen[str]:
        process = self.start(*words)
        assert process.stdout
        while "off for" not in process.stdout.readline():
            assert process.poll() is None
        return process


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Rack]:
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "hosts.csv").write_text("b8:27:eb:00:00:01;127.0.4.13;pi1;0\n")
    boards = {number: Device((f"b8:27:eb:00:00:{number:02x}",)) for number in (1, 2)}
    with (
        FamilySwitch("cisco-ios", tmp_path / "left", LEFT, ports=4, devices=boards) as left,
        FamilySwitch(
            "tplink", tmp_path / "right", RIGHT, ports=4, devices={1: Device(("b8:27:eb:00:01:01",))}
        ) as right,
    ):
        yield Rack(tmp_path, left, right)


LEFT_OFF = "left port 1 was left off by a power cycle that died; it is on again"


def wait_until_on(switch: FamilySwitch, number: int) -> None:
    end = time.monotonic() + 30
    while not switch.is_on(number):
        assert time.monotonic() < end, "the port stays off"
        time.sleep(0.05)


def test_killed_between_off_and_on_the_next_power_command_turns_the_port_on_and_says_so(rack: Rack) -> None:
    rack.left.switch_power(1, True, 2)  # static
    with rack.start_and_wait_for_off("restart", "left", "1", "--off-time", "60") as process:
        process.kill()
    assert not rack.left.is_on(1)
    code, said, complained = rack.run("restart", "right", "1")
    assert (code, complained) == (0, f"warning: {LEFT_OFF}\n")
    assert said.endswith("right port 1: power-cycled\n")
    assert rack.left.is_on(1)
    assert rack.left.word(1) == 2
    assert rack.run("power", "on", "right", "1") == (0, "right port 1: is on already\n", "")


def test_killed_between_off_and_on_mapper_turns_the_port_on_too(rack: Rack) -> None:
    with rack.start_and_wait_for_off("restart", "left", "1", "--off-time", "60") as process:
        process.kill()
    _, _, complained = rack.run("mapper", "right", "1", "--timeout", "1")
    assert complained.startswith(f"warning: {LEFT_OFF}\n")
    assert rack.left.is_on(1)


def test_killed_between_off_and_on_the_next_server_turns_the_port_on_and_says_so(rack: Rack) -> None:
    with rack.start_and_wait_for_off("restart", "left", "1", "--off-time", "60") as process:
        process.kill()
    with rack.start("server") as server:
        wait_until_on(rack.left, 1)
        time.sleep(0.5)
        server.terminate()
        _, complained = server.communicate(timeout=30)
    assert LEFT_OFF in complained


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_the_port_is_on_before_it_ends(rack: Rack, number: signal.Signals) -> None:
    with rack.start_and_wait_for_off("restart", "left", "1-2", "--off-time", "60") as process:
        began = time.monotonic()
        os.kill(process.pid, number)
        _, complained = process.communicate(timeout=30)
    assert time.monotonic() - began < 20
    assert process.returncode in {130, 128 + signal.SIGTERM}
    assert "Traceback" not in complained
    assert rack.left.is_on(1)
    assert rack.left.is_on(2)
    assert rack.run("power", "on", "left", "1") == (0, "pi1 (left port 1): is on already\n", "")


def test_several_of_which_some_fail(rack: Rack) -> None:
    code, said, complained = rack.run("restart", "left", "1-9", "--off-time", "0.5", "--stagger", "0")
    assert code == 3
    assert said.splitlines()[-2:] == [
        "left ports 1-2: power-cycled",
        "left port 3: on; nothing took power there before",
    ]
    assert complained.splitlines() == [
        "left port 4: left alone: it is in protected_ports in config.yaml (--force switches it all the same)",
        "left port 5: Gi1/0/5 has no PoE",
        "left port 6: Gi1/0/6 has no PoE",
        "left ports 7-9: no PoE port of that number; the switch has 1-4",
        "Error: 6 of 9 ports were not restarted: left port 4; left port 5; left port 6; left ports 7-9",
    ]


def test_off_and_on(rack: Rack) -> None:
    code, _, complained = rack.run("power", "off", "left", "1", "4")
    assert code == 3
    assert complained.splitlines() == [
        "left port 4: left alone: it is in protected_ports in config.yaml (--force switches it all the same)",
        "Error: 1 of 2 ports were not turned off: left port 4",
    ]
    assert not rack.left.is_on(1)
    assert rack.run("power", "off", "left", "4", "--force") == (0, "left port 4: off\n", "")
    assert not rack.left.is_on(4)
    code, said, _ = rack.run("power", "on", "left", "1-3")
    assert code == 0
    assert said.splitlines()[-1] == "left ports 2-3: is on already"
    assert rack.left.is_on(1)


def test_the_face(rack: Rack) -> None:
    code, said, _ = rack.run("ports", "left")
    assert code == 0
    lines = said.splitlines()
    assert lines[0].split() == ["PORT", "LABEL", "POE", "WATTS", "CLASS", "LINK", "MAC", "PI"]
    assert lines[1].split() == ["1", "Gi1/0/1", "delivering", "4.0", "0", "up", "b8:27:eb:00:00:01", "pi1"]
    assert lines[-1] == "power: 8 of 370 W"
    told = json.loads(rack.run("ports", RIGHT, "--json")[1])
    assert (told["driver"], told["ports"][0]["macs"], len(told["ports"])) == ("tplink", ["b8:27:eb:00:01:01"], 6)
    assert rack.run("ports", "attic") == (1, "", "Error: there is no switch 'attic'; known: 0 (left), 1 (right)\n")


def test_bad_access_is_one_line_and_exit_1(rack: Rack) -> None:
    (rack.folder / ".env").write_text("PIMAN_SNMP_WRITE_COMMUNITY=public\n")
    code, _, complained = rack.run("restart", "left", "1-2")
    assert code == 1
    first, last = complained.splitlines()
    assert first.startswith(f"left ports 1-2: switch left ({LEFT}) port 1: cpeExtPsePortEnable.1.1: the")
    assert "the write community may not write it: give it write access on the switch" in first
    assert last == "Error: 2 of 2 ports were not restarted: left ports 1-2"
    rack.right.stop()
    code, said, complained = rack.run("restart", "right", "1")
    assert (code, said) == (1, "")
    assert f"switch right ({RIGHT}): sysObjectID.0: port 161 is closed: is SNMP on?" in complained
