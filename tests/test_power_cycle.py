"""Tests of utility.power_cycle: a switch in memory, time that only passes when somebody waits."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address

import pytest

from tests.test_snmp import FakeAgent
from utility.config import Switch
from utility.drivers import Oid
from utility.power_cycle import (
    ADMIN,
    CLASS,
    DETECTION,
    Detection,
    NoIntents,
    PortResult,
    PortState,
    find_ports,
    power_cycle,
    read_ports,
    restore_ports,
)
from utility.snmp import Snmp, SnmpError, Value

ON, OFF = 1, 2


class Interrupted(BaseException):
    """As Ctrl-C would."""


@dataclass
class PoeSwitch:
    """A PoE switch whose ports deliver power when on, after `lag` seconds. It is also the clock and the record.

    `stuck` ports go on delivering when off.
    """

    ports: int = 4
    group: int = 1
    lag: float = 0.0
    empty: frozenset[int] = frozenset()
    stuck: frozenset[int] = frozenset()
    now: float = 0.0
    log: list[tuple[float, str, int]] = field(default_factory=list)
    intents: set[int] = field(default_factory=set)
    heard: list[tuple[int, str]] = field(default_factory=list)
    interrupt_at: set[float] = field(default_factory=set)  # times at which a wait ends in Interrupted

    def __post_init__(self) -> None:
        self.changed = dict.fromkeys(range(1, self.ports + 1), -100.0)
        cells: dict[Oid, Value] = {(*ADMIN, self.group, port): ON for port in self.changed}
        cells |= {(*DETECTION, self.group, port): self.detection(port, on=True) for port in self.changed}
        cells |= {(*CLASS, self.group, port): 1 + port % 2 for port in self.changed}
        self.agent = FakeAgent(cells)
        self.agent.on_set = self.on_set
        self.agent.refuse = self.on_request

    def detection(self, port: int, on: bool) -> Detection:
        fed = port in self.stuck or (on and port not in self.empty and self.now - self.changed[port] >= self.lag)
        return Detection.DELIVERING if fed else Detection.SEARCHING if on else Detection.DISABLED

    def on_request(self, _kind: str, _oids: tuple[Oid, ...]) -> int:
        for port in self.changed:
            on = self.agent.cells[*ADMIN, self.group, port] == ON
            self.agent.cells[*DETECTION, self.group, port] = self.detection(port, on)
        return 0

    def on_set(self, oid: Oid, value: int) -> int:
        port = oid[-1]
        self.log.append((self.now, "on" if value == ON else "off", port))
        self.changed[port] = self.now
        return 0

    def add(self, port: int) -> None:
        assert self.agent.cells[*ADMIN, self.group, port] == ON, "it is on record before it goes off"
        self.intents.add(port)

    def clear(self, port: int) -> None:
        assert self.agent.cells[*ADMIN, self.group, port] == ON, "only a port that is on is struck out"
        self.intents.discard(port)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        if self.now in self.interrupt_at:
            raise Interrupted

    def snmp(self, **switch: object) -> Snmp:
        return self.agent.snmp(Switch(0, IPv4Address("172.30.4.254"), **switch), retries=0)  # type: ignore[arg-type]

    def cycle(self, *ports: int, off_time: float | None = 5.0, stagger: float = 1.0) -> list[PortResult]:
        return power_cycle(
            self.snmp(),
            ports,
            off_time,
            stagger,
            intents=self,
            wait=self.wait,
            clock=lambda: self.now,
            on_progress=lambda port, text: self.heard.append((port, text)),
        )

    def all_on(self) -> bool:
        return all(value == ON for oid, value in self.agent.cells.items() if oid[: len(ADMIN)] == ADMIN)


def test_read_ports_joins_the_columns() -> None:
    switch = PoeSwitch(ports=2, group=3, empty=frozenset({2}))
    del switch.agent.cells[*CLASS, 3, 2]
    switch.agent.cells[*ADMIN, 9] = 1  # an index that is none
    assert read_ports(switch.snmp()) == [
        PortState(1, 3, admin_on=True, detection=Detection.DELIVERING, power_class=1),
        PortState(2, 3, admin_on=True, detection=Detection.SEARCHING, power_class=None),
    ]


@pytest.mark.parametrize("value", [0, 7, b"3", None])
def test_a_detection_status_outside_the_mib_is_unknown(value: Value) -> None:
    agent = FakeAgent({(*ADMIN, 1, 1): 2} | ({(*DETECTION, 1, 1): value} if value is not None else {}))
    [state] = read_ports(agent.snmp())
    assert (state.detection, state.admin_on, state.power_class) == (Detection.UNKNOWN, False, None)


def test_ports_are_found_once_and_in_the_order_asked_for() -> None:
    assert [state.port for state in find_ports(PoeSwitch().snmp(), [3, 1, 3])] == [3, 1]


@pytest.mark.parametrize(
    ("cells", "port", "text"),
    [
        (
            {},
            1,
            "switch 172.30.4.254: pethPsePortAdminEnable: the switch shows no PoE ports: has it PoE, and may we re",
        ),
        ({(*ADMIN, 1, 1): 1}, 2, "switch 172.30.4.254 port 2: no PoE port of that number; the switch has 1"),
        (
            {(*ADMIN, 1, port): 1 for port in (1, 2, 3, 7, 9, 10)},
            8,
            "switch 172.30.4.254 port 8: no PoE port of that number; the switch has 1-3, 7, 9-10",
        ),
        (
            {(*ADMIN, 1, 1): 1, (*ADMIN, 2, 1): 1},
            1,
            "switch 172.30.4.254 port 1: pethPsePortAdminEnable: the groups 1, 2 each have a port of that number",
        ),
    ],
    ids=["no PoE", "one port", "out of range", "stack"],
)
def test_a_port_that_cannot_be_meant_is_an_error(cells: dict[Oid, Value], port: int, text: str) -> None:
    agent = FakeAgent(cells)
    with pytest.raises(SnmpError) as caught:
        power_cycle(agent.snmp(), [port])
    assert str(caught.value).startswith(text)
    assert all(kind != "Set" for kind, _, _ in agent.requests)


def test_a_protected_port_is_an_error_before_the_switch_is_asked() -> None:
    switch = PoeSwitch()
    with pytest.raises(SnmpError, match="port 2: is protected: see protected_ports"):
        power_cycle(switch.snmp(protected_ports=frozenset({2})), [1, 2])
    assert switch.agent.requests == []


def test_no_ports_no_work() -> None:
    switch = PoeSwitch()
    assert switch.cycle() == []
    assert switch.log == []


def test_ports_go_off_together_and_come_back_one_by_one() -> None:
    switch = PoeSwitch()
    assert switch.cycle(3, 1, 2) == [PortResult(port, ok=True, text="power-cycled") for port in (3, 1, 2)]
    assert switch.log == [
        (0, "off", 3), (0, "off", 1), (0, "off", 2),
        (5, "on", 3), (6, "on", 1), (7, "on", 2),
    ]  # fmt: skip
    assert switch.intents == set()
    assert [text for port, text in switch.heard if port == 3] == ["off", "off for 5 s", "on", "delivering power"]


def test_the_off_time_is_the_switchs_own_unless_given() -> None:
    switch = PoeSwitch()
    power_cycle(switch.snmp(off_time=7.5), [1], wait=switch.wait, intents=switch, clock=lambda: switch.now)
    assert switch.log == [(0, "off", 1), (7.5, "on", 1)]


def test_the_port_stays_off_until_it_delivers_no_more() -> None:
    switch = PoeSwitch(stuck=frozenset({1}))
    passed = switch.wait

    def wait(seconds: float) -> None:
        passed(seconds)
        if switch.now >= 8:
            switch.stuck = frozenset()

    results = power_cycle(switch.snmp(), [1], 5, wait=wait, clock=lambda: switch.now, intents=switch)
    assert results == [PortResult(1, ok=True, text="power-cycled")]
    assert switch.log == [(0, "off", 1), (8, "on", 1)]


def test_a_port_that_never_stops_delivering_was_not_cycled() -> None:
    switch = PoeSwitch(stuck=frozenset({1}))
    text = "was never without power: the switch went on delivering"
    assert switch.cycle(1, 2) == [PortResult(1, ok=False, text=text), PortResult(2, ok=True, text="power-cycled")]
    assert switch.all_on()


def test_a_device_that_takes_its_time_is_waited_for() -> None:
    switch = PoeSwitch(lag=3)
    assert switch.cycle(1) == [PortResult(1, ok=True, text="power-cycled")]
    assert switch.now == 8


def test_a_device_that_does_not_come_back_is_a_warning() -> None:
    switch = PoeSwitch(lag=99)
    text = "on, but nothing takes power there (searching)"
    assert switch.cycle(1) == [PortResult(1, ok=True, text=text)]


def test_nothing_is_waited_for_at_a_port_that_was_empty() -> None:
    switch = PoeSwitch(empty=frozenset({1}))
    assert switch.cycle(1) == [PortResult(1, ok=True, text="on; nothing took power there before")]
    assert switch.now == 5


def test_a_switch_that_does_not_tell_the_detection_status_is_taken_at_its_word() -> None:
    agent = FakeAgent({(*ADMIN, 1, 1): ON})
    results = power_cycle(agent.snmp(), [1], 0, wait=lambda _seconds: None)
    assert results == [PortResult(1, ok=True, text="power-cycled")]


def test_a_write_that_is_refused_ends_it_at_the_first_port() -> None:
    switch = PoeSwitch()
    switch.agent.on_set = lambda _oid, _value: 6
    with pytest.raises(SnmpError, match=r"port 1: pethPsePortAdminEnable\.1\.1: the write community may not write it"):
        switch.cycle(1, 2, 3)
    assert [kind for kind, _, _ in switch.agent.requests].count("Set") == 1
    assert switch.intents == set()


def test_a_later_port_that_cannot_be_turned_off_is_in_the_results() -> None:
    switch = PoeSwitch()
    taken = switch.on_set
    switch.agent.on_set = lambda oid, value: 10 if (oid[-1], value) == (2, OFF) else taken(oid, value)
    first, second, third = switch.cycle(1, 2, 3)
    assert (first.ok, third.ok) == (True, True)
    assert second == PortResult(
        2, ok=False, text="could not be turned off: the switch refuses the value 2 (wrongValue)"
    )
    assert (2, second.text) in switch.heard
    assert switch.all_on()
    assert switch.intents == set()


def test_a_switch_that_takes_the_order_and_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    switch = PoeSwitch()
    snmp = switch.snmp()
    monkeypatch.setattr(snmp, "set", lambda _oid, _value: None)
    with pytest.raises(SnmpError, match="the switch took the order, but the port is not off"):
        power_cycle(snmp, [1], wait=switch.wait)


def test_a_switch_that_is_slow_to_obey_is_told_to_leave_the_port_on(monkeypatch: pytest.MonkeyPatch) -> None:
    switch = PoeSwitch()
    snmp = switch.snmp()
    told: list[int] = []  # obeyed when nobody looks any more
    monkeypatch.setattr(snmp, "set", lambda _oid, value: told.append(value))
    with pytest.raises(SnmpError, match="the switch took the order, but the port is not off"):
        power_cycle(snmp, [1], intents=switch, wait=switch.wait)
    assert told == [OFF, ON]


def test_an_order_whose_answer_is_lost_may_have_been_done_so_the_port_is_turned_on() -> None:
    switch = PoeSwitch()
    taken = switch.on_set

    def lose(oid: Oid, value: int) -> int:
        status = taken(oid, value)
        if value == OFF:
            switch.agent.cells[oid] = OFF
            switch.agent.on_set = taken
            switch.agent.silent = 2  # the read that would tell is lost as well
            return 5
        return status

    switch.agent.on_set = lose
    [result] = switch.cycle(1)
    assert not result.ok
    assert result.text.startswith("could not be turned off: the write community may not")
    assert switch.all_on()


def test_a_port_that_does_not_come_on_is_tried_again_and_then_told() -> None:
    switch = PoeSwitch()
    taken = switch.on_set
    failures = [5, 5]
    switch.agent.on_set = lambda oid, value: failures.pop() if value == ON and failures else taken(oid, value)
    assert switch.cycle(1) == [PortResult(1, ok=True, text="power-cycled")]
    assert switch.now == 9, "two pauses"

    switch = PoeSwitch()
    dead = switch.on_set
    switch.agent.on_set = lambda oid, value: 5 if (oid[-1], value) == (1, ON) else dead(oid, value)
    first, second = switch.cycle(1, 2)
    assert not first.ok
    assert first.text.startswith("IS PERHAPS STILL OFF: the write community may not")
    assert second.ok
    assert switch.intents == {1}, "the record stays, for restore_ports"

    switch.agent.on_set = dead
    heard: list[int] = []
    results = restore_ports(
        switch.snmp(), switch.intents, intents=switch, on_progress=lambda port, _: heard.append(port)
    )
    assert results == [PortResult(1, ok=True, text="on")]
    assert (switch.intents, heard, switch.all_on()) == (set(), [1], True)


def test_an_interrupted_wait_turns_every_port_on_at_once() -> None:
    switch = PoeSwitch(interrupt_at={5})
    with pytest.raises(Interrupted):
        switch.cycle(1, 2, 3)
    assert switch.log[3:] == [(5, "on", 1), (5, "on", 2), (5, "on", 3)]
    assert switch.intents == set()
    assert switch.all_on()


def test_a_second_interruption_while_ports_come_on_still_turns_on_all() -> None:
    switch = PoeSwitch(interrupt_at={6})
    with pytest.raises(Interrupted):
        switch.cycle(1, 2, 3)
    assert switch.log[3:] == [(5, "on", 1), (6, "on", 2), (6, "on", 3)]
    assert switch.all_on()


def test_a_record_that_cannot_be_written_leaves_the_port_on() -> None:
    switch = PoeSwitch()

    class Full(NoIntents):
        def add(self, port: int) -> None:
            if port == 2:
                raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        power_cycle(switch.snmp(), [1, 2], intents=Full(), wait=switch.wait)
    assert switch.all_on()
    assert ("off", 2) not in {(word, port) for _, word, port in switch.log}


def test_a_record_that_cannot_be_struck_out_is_raised_after_the_ports_are_on() -> None:
    switch = PoeSwitch()

    class Full(NoIntents):
        def clear(self, port: int) -> None:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        power_cycle(switch.snmp(), [1, 2], 0, intents=Full(), wait=switch.wait, clock=lambda: switch.now)
    assert switch.all_on()


def test_a_switch_that_is_busy_while_it_is_watched_is_asked_again() -> None:
    switch = PoeSwitch(lag=1)
    quiet = switch.on_request
    lost = [5]

    def busy(kind: str, oids: tuple[Oid, ...]) -> int:
        if kind == "Get" and oids[0][: len(DETECTION)] == DETECTION and lost:
            return lost.pop()
        return quiet(kind, oids)

    switch.agent.refuse = busy
    assert switch.cycle(1) == [PortResult(1, ok=True, text="power-cycled")]
