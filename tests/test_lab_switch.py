"""Tests of the lab's switch without snmpd: its tables, its side of pass_persist, the relay. With snmpd: tests/peers."""

from __future__ import annotations

import bisect
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import switch as module
from lab.switch import (
    BRIDGE,
    POE,
    POE_MAIN,
    POE_PORT,
    BridgePort,
    BridgeState,
    Cell,
    LabSwitch,
    Mib,
    Oid,
    PassPersist,
    PoePorts,
    bridge_cells,
    parse_bridge,
    parse_oid,
    render_configuration,
)

ADMIN = ".1.3.6.1.2.1.105.1.1.1.3.1"
STATE = BridgeState(
    "02:00:00:00:00:fe",
    (BridgePort(1, 11, "p1"), BridgePort(2, 17, "p2", "disabled")),
    {"b8:27:eb:00:00:01": 1},
)


class Power:
    """What the lab is told, and what it tells."""

    def __init__(self, fed: set[int]) -> None:
        self.fed = fed
        self.told: list[tuple[int, bool]] = []
        self.ports = PoePorts(3, lambda port, on: self.told.append((port, on)), self.fed.__contains__)


def session(table: Mib | None = None) -> tuple[Callable[[str], str], Power]:
    """A function from lines to the answer, and the power behind it."""
    power = Power({1, 2})
    cells = bridge_cells(STATE) | power.ports.cells()
    agent = PassPersist(lambda: table or Mib(cells))

    def ask(lines: str) -> str:
        return "".join(agent.feed(line) for line in lines.split("\n"))

    return ask, power


def test_ping() -> None:
    assert session()[0]("PING") == "PONG\n"


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (f"get\n{ADMIN}.2", f"{ADMIN}.2\ninteger\n1\n"),
        ("get\n.1.3.6.1.2.1.105.1.1.1.6.1.3", ".1.3.6.1.2.1.105.1.1.1.6.1.3\ninteger\n2\n"),
        ("get\n.1.3.6.1.2.1.105.1.1.1.9.1.3", ".1.3.6.1.2.1.105.1.1.1.9.1.3\nstring\nport 3\n"),
        ("get\n.1.3.6.1.2.1.105.1.3.1.1.4.1", ".1.3.6.1.2.1.105.1.3.1.1.4.1\ngauge\n8\n"),
        ("get\n.1.3.6.1.2.1.17.1.1.0", ".1.3.6.1.2.1.17.1.1.0\noctet\n02 00 00 00 00 fe\n"),
        ("get\n.1.3.6.1.2.1.17.1.4.1.2.2", ".1.3.6.1.2.1.17.1.4.1.2.2\ninteger\n17\n"),
        ("get\n.1.3.6.1.2.1.17.2.15.1.3.2", ".1.3.6.1.2.1.17.2.15.1.3.2\ninteger\n1\n"),
        ("get\n.1.3.6.1.2.1.17.4.3.1.2.184.39.235.0.0.1", ".1.3.6.1.2.1.17.4.3.1.2.184.39.235.0.0.1\ninteger\n1\n"),
        ("get\n.1.3.6.1.2.1.17.4.3.1.3.2.0.0.0.0.254", ".1.3.6.1.2.1.17.4.3.1.3.2.0.0.0.0.254\ninteger\n4\n"),
        (
            "get\n.1.3.6.1.2.1.17.7.1.2.2.1.3.1.184.39.235.0.0.1",
            ".1.3.6.1.2.1.17.7.1.2.2.1.3.1.184.39.235.0.0.1\ninteger\n3\n",
        ),
        ("get\n.1.3.6.1.2.1.105", "NONE\n"),
        (f"get\n{ADMIN}.4", "NONE\n"),
        ("get\nsysDescr", "NONE\n"),
        ("getnext\n.1.3.6.1.2.1.105", f"{ADMIN}.1\ninteger\n1\n"),
        (f"getnext\n{ADMIN}.1", f"{ADMIN}.2\ninteger\n1\n"),
        (f"getnext\n{ADMIN}.3", ".1.3.6.1.2.1.105.1.1.1.4.1.1\ninteger\n2\n"),
        ("getnext\n.1.3.6.1.2.1.17.99", "NONE\n"),
        ("getnext\n.1.3.6.1.2.1.105.1.3.1.1.5.1", "NONE\n"),
        ("what is this", "NONE\n"),
    ],
)
def test_questions_and_answers(command: str, answer: str) -> None:
    assert session()[0](command) == answer


@pytest.mark.parametrize(
    ("command", "answer", "told"),
    [
        (f"set\n{ADMIN}.2\ninteger 2\n", "DONE\n", [(2, False)]),
        (f"set\n{ADMIN}.2\ninteger 1\n", "DONE\n", []),
        (f"set\n{ADMIN}.2\ninteger 3\n", "wrong-value\n", []),
        (f"set\n{ADMIN}.2\ninteger off\n", "wrong-value\n", []),
        (f'set\n{ADMIN}.2\nstring "off"\n', "wrong-type\n", []),
        (f"set\n{ADMIN}.4\ninteger 2\n", "not-writable\n", []),
        ("set\n.1.3.6.1.2.1.105.1.1.1.6.1.1\ninteger 2\n", "not-writable\n", []),
        ("set\nsysName\ninteger 2\n", "NONE\n", []),
    ],
)
def test_orders(command: str, answer: str, told: list[tuple[int, bool]]) -> None:
    ask, power = session()
    assert ask(command) == answer
    assert power.told == told
    assert ask("PING") == "PONG\n", "and the next command is understood"


def test_a_port_off_is_disabled_takes_no_power_and_comes_back() -> None:
    ask, power = session()
    ask(f"set\n{ADMIN}.1\ninteger 2\n")
    assert [power.ports.detection(port) for port in (1, 2, 3)] == [1, 3, 2]
    assert (power.ports.consumption(), power.ports.is_on(1)) == (4, False)
    ask(f"set\n{ADMIN}.1\ninteger 1\n")
    assert (power.ports.consumption(), power.told) == (8, [(1, False), (1, True)])
    with pytest.raises(KeyError):
        power.ports.is_on(4)


def test_a_walk_by_getnext_sees_every_object_in_order() -> None:
    power = Power(set())
    cells = bridge_cells(STATE) | power.ports.cells()
    table = Mib(cells)
    for base in (BRIDGE, POE):
        seen: list[Oid] = []
        oid: Oid | None = table.after(base)
        while oid:
            seen.append(oid)
            oid = table.after(oid)
        assert seen == sorted(oid for oid in cells if oid[: len(base)] == base)
    assert {oid[: len(POE_PORT) + 1][-1] for oid in cells if oid[: len(POE_PORT)] == POE_PORT} == {
        3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
    }  # fmt: skip
    assert {oid[-2] for oid in cells if oid[: len(POE_MAIN)] == POE_MAIN} == {2, 3, 4, 5}
    assert table.find((1, 3)) is None


@given(
    st.sets(st.lists(st.integers(0, 20), min_size=1, max_size=3).map(tuple)), st.lists(st.integers(0, 20), max_size=4)
)
def test_after_is_the_least_greater_one(tails: set[tuple[int, ...]], start: list[int]) -> None:
    cells = {(*POE, *tail): Cell("integer", lambda: 1) for tail in tails}
    order, oid = sorted(cells), (*POE, *start)
    expected = order[bisect.bisect_right(order, oid) :]
    assert Mib(cells).after(oid) == (expected[0] if expected else None)


@given(st.lists(st.text(st.characters(blacklist_characters="\n", codec="latin-1"), max_size=20)))
def test_any_lines_are_answered(lines: list[str]) -> None:
    ask, _ = session()
    for line in lines:
        assert isinstance(ask(line), str)


def test_oids() -> None:
    assert parse_oid(".1.3.6\n") == (1, 3, 6)
    assert parse_oid("1.3") == (1, 3)
    assert (parse_oid(""), parse_oid("1.x"), parse_oid("1..3")) == (None, None, None)


def test_the_kernels_words_become_the_bridges_state() -> None:
    links = [
        {"ifindex": 1, "ifname": "lo", "address": "00:00:00:00:00:00"},
        {"ifindex": 2, "ifname": "br0", "address": "02:00:00:00:00:fe"},
        {"ifindex": 9, "ifname": "up", "linkinfo": {"info_slave_data": {"state": "forwarding", "no": "0x1"}}},
        {"ifindex": 7, "ifname": "p1", "linkinfo": {"info_kind": "veth"}},
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
        (BridgePort(1, 7, "p1", "disabled"), BridgePort(2, 9, "up", "forwarding")),
        {"b8:27:eb:00:00:01": 1, "02:00:00:00:00:01": 2},
    )
    assert parse_bridge("[]", "[]", "br0", []) == BridgeState("00:00:00:00:00:00", (), {})


def test_the_configuration() -> None:
    lines = render_configuration("10.0.0.1", 161, "sw", "look", "touch", ["/py", "-S", "relay.py"]).splitlines()
    assert lines[:3] == ["agentaddress udp:10.0.0.1:161", 'rocommunity "look"', 'rwcommunity "touch"']
    assert lines[-2:] == [
        "pass_persist .1.3.6.1.2.1.17 /py -S relay.py",
        "pass_persist .1.3.6.1.2.1.105 /py -S relay.py",
    ]


def _lab_switch(directory: Path) -> LabSwitch:
    return LabSwitch("nowhere", "br0", ["p1"], "10.0.0.1", directory, lambda _port, _on: None, lambda _port: True)


def test_a_namespace_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    agent = _lab_switch(tmp_path / "a" / "b")
    with pytest.raises(RuntimeError, match="snmpd of the lab's switch in nowhere did not start: it says nothing"):
        agent.start()
    agent.stop()
    assert (tmp_path / "a" / "b" / "snmpd.conf").stat().st_mode & 0o077 == 0, "it holds the communities"
    assert agent.admin(1) is True


def test_a_failing_lab_ends_the_relays_connection_with_a_log_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    agent = _lab_switch(tmp_path)
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(f"PING\nget\n{ADMIN}.1\n".encode())
        agent._serve(theirs)  # there is no namespace to ask
        assert ours.recv(100) == b"PONG\n"
        assert ours.recv(100) == b""
    assert "the switch in nowhere could not answer" in caplog.text


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name, path: None)
    with pytest.raises(RuntimeError, match="snmpd is not installed; the Debian packages are"):
        module._tool("snmpd")


def test_a_python_with_a_blank_in_its_path_is_not_given_to_snmpd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/opt/my python/bin/python3")
    assert module._relay_python() == "/usr/bin/python3"


def test_an_agent_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf:
        killed = False

        def terminate(self) -> None: ...

        def kill(self) -> None:
            self.killed = True

        def wait(self, timeout: float | None = None) -> None:
            if timeout is not None:
                raise subprocess.TimeoutExpired("snmpd", timeout)

    agent, deaf = _lab_switch(tmp_path), Deaf()
    monkeypatch.setattr(agent, "_snmpd", deaf)
    agent.stop()
    agent.stop()
    assert deaf.killed


def _run_relay(path: str, cwd: Path) -> subprocess.Popen[bytes]:
    script = Path(module.__file__).with_name("switch_relay.py")
    command = [sys.executable, "-I", "-S", str(script), path]
    return subprocess.Popen(command, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_the_relay_passes_both_ways_and_ends_with_either_side(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent"))
        listener.listen()
        for we_end_first in (True, False):
            with _run_relay("agent", tmp_path) as relay:
                assert relay.stdin
                assert relay.stdout
                connection, _ = listener.accept()
                with connection:
                    relay.stdin.write(b"PING\n")
                    relay.stdin.flush()
                    assert connection.recv(100) == b"PING\n"
                    connection.sendall(b"PONG\n")
                    assert relay.stdout.readline() == b"PONG\n"
                    if we_end_first:
                        connection.shutdown(socket.SHUT_RDWR)
                        assert relay.wait(5) == 0
                    else:
                        relay.stdin.close()
                        assert connection.recv(100) == b""
                        assert relay.wait(5) == 0
