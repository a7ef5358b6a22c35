"""Tests of utility.power_cycle: a switch in memory, time that only passes when somebody waits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Self

import pytest

from utility.config import Switch
from utility.drivers import Detection
from utility.power_cycle import Left, NoIntents, PortResult, power_cycle, restore_ports, set_power
from utility.power_rules import CLASS_MILLIWATTS, Guard
from utility.switches import Capabilities, Neighbour, Port, PowerSupply, SwitchError

AUTO, STATIC, OFF = 1, 2, 4
CAREFUL = Guard()
ABLE = Capabilities("bench")


class Interrupted(BaseException):
    """As Ctrl-C would."""


@dataclass
class Bench:
    """A switch whose ports deliver power when on, after `lag` seconds. It is also the clock and the record.

    stuck      ports that go on delivering when off; `empty` ones have nothing plugged in
    refuse     (port, on) -> a reason not to do it; None: it is done
    slow       seconds for an order to be seen
    link_lag   from power to link; a port takes `draw` milliwatts once it has link, `peak` before
    """

    count: int = 4
    lag: float = 0.0
    link_lag: float = 0.0
    slow: float = 0.0
    empty: frozenset[int] = frozenset()
    stuck: frozenset[int] = frozenset()
    power_class: int | None = None
    peak: int = 4000
    draw: int = 4000
    capacity: int = 0
    options: Mapping[str, object] = field(default_factory=dict)
    can: Capabilities = ABLE
    neighbours: Mapping[int, Neighbour] = field(default_factory=dict)
    seen: Mapping[int, frozenset[str]] = field(default_factory=dict)
    refuse: Callable[[int, bool], str | None] = lambda _port, _on: None
    silent: int = 0  # looks that fail
    interrupt_at: set[float] = field(default_factory=set)  # times at which a wait ends in Interrupted
    now: float = 0.0
    log: list[tuple[float, str, int]] = field(default_factory=list)
    record: dict[int, Left] = field(default_factory=dict)
    heard: list[tuple[int, str]] = field(default_factory=list)
    most: int = 0  # ports that started at the same time

    def __post_init__(self) -> None:
        self.settings = dict.fromkeys(range(1, self.count + 1), AUTO)
        self.changed = dict.fromkeys(self.settings, -100.0)
        self.switch = Switch(0, IPv4Address("172.30.4.254"), **self.options)  # type: ignore[arg-type]
        self.due: list[tuple[float, int, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        """It holds nothing."""

    # -- a PoeSwitch

    @property
    def capabilities(self) -> Capabilities:
        return self.can

    def ports(self, wanted: Collection[int] | None = None) -> list[Port]:
        ports = [
            Port(number, f"p{number}", index=(1, number), power_class=self.power_class) for number in self.settings
        ]
        uplink = Port(self.count + 1, "up1")
        return [*(replace(p, neighbour=self.neighbours.get(p.number)) for p in self._seen(ports)), uplink]

    def look(self, ports: Sequence[Port]) -> list[Port]:
        if self.silent:
            self.silent -= 1
            raise SwitchError(self.switch, "state", "no answer")
        return self._seen(ports)

    def turn(self, port: Port, on: bool) -> None:
        number = port.number
        value = (port.setting if port.setting in {AUTO, STATIC} else AUTO) if on else OFF
        self.log.append((self.now, "on" if on else "off", number))
        reason = self.refuse(number, on)
        if reason:
            raise SwitchError(self.switch, "power", reason, number)
        self.due.append((self.now + self.slow, number, value or AUTO))

    def complaint(self, port: Port, reason: str) -> SwitchError:
        return SwitchError(self.switch, "power", reason, port.number)

    def macs(self, ports: Sequence[Port] | None = None) -> Mapping[int, frozenset[str]]:
        return self.seen

    def supplies(self, ports: Iterable[Port]) -> list[PowerSupply]:
        numbers = frozenset(port.number for port in ports if port.has_poe)
        taken = sum(port.milliwatts or 0 for port in self._seen(self.ports()[:-1]))
        return [PowerSupply(numbers, self.capacity, taken)] if self.capacity else []

    def _seen(self, ports: Sequence[Port]) -> list[Port]:
        for when, number, value in list(self.due):
            if when <= self.now:
                self.due.remove((when, number, value))
                if (self.settings[number] == OFF) != (value == OFF):
                    self.changed[number] = self.now
                self.settings[number] = value
        return [self._port(port) for port in ports]

    def _port(self, port: Port) -> Port:
        number = port.number
        on = self.settings[number] != OFF
        age = self.now - self.changed[number]
        fed = number in self.stuck or (on and number not in self.empty and age >= self.lag)
        up = fed and age >= self.lag + self.link_lag
        return replace(
            port,
            admin_on=on,
            setting=self.settings[number],
            detection=Detection.DELIVERING if fed else Detection.SEARCHING if on else Detection.DISABLED,
            link=up,
            milliwatts=(self.draw if up else self.peak) if fed else 0,
            source="measured",
        )

    # -- the record, and time

    def add(self, left: Left) -> None:
        assert self.settings[left.port] != OFF, "it is on record before it goes off"
        self.record[left.port] = left

    def clear(self, port: int) -> None:
        self.record.pop(port, None)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        starting = [
            p for p in self._seen(self.ports()[:-1]) if p.admin_on and p.number not in self.empty and not p.link
        ]
        self.most = max(self.most, len(starting))
        if self.now in self.interrupt_at:
            raise Interrupted

    def cycle(
        self, *ports: int, off_time: float | None = 5.0, stagger: float = 1.0, guard: Guard = CAREFUL
    ) -> list[PortResult]:
        return power_cycle(
            self, ports, off_time, stagger, guard=guard, intents=self, wait=self.wait, clock=lambda: self.now,
            on_progress=lambda port, text: self.heard.append((port, text)),
        )  # fmt: skip

    def all_on(self) -> bool:
        self._seen([])
        return OFF not in self.settings.values()


def cycled(*ports: int) -> list[PortResult]:
    return [PortResult(port, ok=True, text="power-cycled") for port in ports]


def test_no_ports_no_work() -> None:
    bench = Bench()
    assert bench.cycle() == []
    assert bench.log == []


def test_ports_go_off_together_and_come_back_one_by_one() -> None:
    bench = Bench()
    assert bench.cycle(3, 1, 2, 3) == cycled(3, 1, 2)
    assert bench.log == [
        (0, "off", 3), (0, "off", 1), (0, "off", 2),
        (5, "on", 3), (6, "on", 1), (7, "on", 2),
    ]  # fmt: skip
    assert bench.record == {}
    assert [text for port, text in bench.heard if port == 3] == ["off", "off for 5 s", "on", "delivering power"]


def test_the_off_time_is_the_switchs_own_unless_given() -> None:
    bench = Bench(options={"off_time": 7.5})
    bench.cycle(1, off_time=None)
    assert bench.log == [(0, "off", 1), (7.5, "on", 1)]


def test_a_port_gets_back_the_value_that_it_had() -> None:
    bench = Bench()
    bench.settings |= {1: STATIC, 2: AUTO, 3: OFF}
    bench.add = lambda left: bench.record.update({left.port: left})  # type: ignore[method-assign]
    assert bench.cycle(1, 2, 3)[0].ok
    assert bench.settings == {1: STATIC, 2: AUTO, 3: AUTO, 4: AUTO}


def test_the_port_stays_off_until_it_delivers_no_more() -> None:
    bench = Bench(stuck=frozenset({1}))
    passed = bench.wait

    def wait(seconds: float) -> None:
        passed(seconds)
        if bench.now >= 8:
            bench.stuck = frozenset()

    bench.wait = wait  # type: ignore[method-assign]
    assert bench.cycle(1) == cycled(1)
    assert bench.log == [(0, "off", 1), (8, "on", 1)]


def test_a_port_that_never_stops_delivering_was_not_cycled() -> None:
    bench = Bench(stuck=frozenset({1}))
    text = "was never without power: the switch went on delivering"
    assert bench.cycle(1, 2) == [PortResult(1, ok=False, text=text), *cycled(2)]
    assert bench.all_on()


def test_a_device_that_takes_its_time_is_waited_for_until_it_has_a_link() -> None:
    bench = Bench(lag=3, link_lag=4)
    assert bench.cycle(1) == cycled(1)
    assert bench.now == 12


def test_a_device_that_does_not_come_back_is_told() -> None:
    bench = Bench(lag=99)
    assert bench.cycle(1) == [PortResult(1, ok=True, text="on, but nothing takes power there (searching)")]
    bench = Bench(link_lag=99)
    assert bench.cycle(1) == [PortResult(1, ok=True, text="on, but no link after 20 s")]


def test_nothing_is_waited_for_at_a_port_that_was_empty() -> None:
    bench = Bench(empty=frozenset({1}))
    assert bench.cycle(1) == [PortResult(1, ok=True, text="on; nothing took power there before")]
    assert bench.now == 5


def test_a_switch_that_is_slow_to_obey_is_waited_for() -> None:
    bench = Bench(slow=1.0)
    assert bench.cycle(1) == cycled(1)
    assert bench.now == 7


# ------------------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize(
    ("bench", "text"),
    [
        (
            Bench(can=Capabilities("mikrotik", read_only="set `driver: routeros`")),
            "switch 172.30.4.254: its ports cannot be switched: set `driver: routeros`",
        ),
        (
            Bench(count=0),
            "switch 172.30.4.254: it shows no PoE ports: has it PoE, and may we read it? See `piman ports`",
        ),
    ],
)
def test_a_switch_that_cannot_be_switched_is_an_error(bench: Bench, text: str) -> None:
    with pytest.raises(SwitchError) as caught:
        bench.cycle(1)
    assert str(caught.value) == text
    assert bench.log == []


def test_ports_that_cannot_be_meant_fail_alone() -> None:
    bench = Bench(options={"protected_ports": frozenset({2})}, neighbours={3: Neighbour("sw2", "", "24")})
    results = {result.port: result.text for result in bench.cycle(1, 2, 3, 5, 9) if not result.ok}
    assert results == {
        2: "left alone: it is in protected_ports in config.yaml (--force switches it all the same)",
        3: "left alone: it leads to sw2 port 24, as LLDP says (--force switches it all the same)",
        5: "up1 has no PoE",
        9: "no PoE port of that number; the switch has 1-4",
    }
    assert bench.log == [(0, "off", 1), (5, "on", 1)]


def test_force_switches_what_is_left_alone() -> None:
    bench = Bench(options={"protected_ports": frozenset({2})}, seen={1: frozenset("abc")})
    assert [result.ok for result in bench.cycle(1, 2)] == [False, False]
    assert bench.log == []
    assert bench.cycle(1, 2, guard=Guard(force=True)) == cycled(1, 2)


def test_a_write_that_is_refused_ends_it_at_the_first_port() -> None:
    bench = Bench(refuse=lambda _port, _on: "you may not")
    with pytest.raises(SwitchError, match=r"port 1: power: you may not"):
        bench.cycle(1, 2, 3)
    assert bench.log == [(0, "off", 1)]
    assert bench.record == {}


def test_a_later_port_that_cannot_be_turned_off_is_in_the_results() -> None:
    bench = Bench(refuse=lambda port, on: "no" if (port, on) == (2, False) else None)
    failed = PortResult(2, ok=False, text="could not be turned off: no")
    assert bench.cycle(1, 2, 3) == [*cycled(1), failed, *cycled(3)]
    assert (2, failed.text) in bench.heard
    assert bench.all_on()
    assert bench.record == {}


NOT_OFF = "the switch took the order, but the port is not off: does something else rule it, a schedule or a lock?"


def test_a_switch_that_takes_the_order_and_does_nothing_is_told_to_leave_the_port_on() -> None:
    bench = Bench(slow=99)
    with pytest.raises(SwitchError) as caught:
        bench.cycle(1)
    assert str(caught.value) == f"switch 172.30.4.254 port 1: power: {NOT_OFF}"
    assert bench.log == [(0, "off", 1), (3, "on", 1)]


def test_an_order_whose_answer_is_lost_may_have_been_done_so_the_port_is_turned_on() -> None:
    bench = Bench()

    def lose(port: int, on: bool) -> str | None:
        if on:
            return None
        bench.settings[port] = OFF
        bench.silent = 1  # the look that would tell is lost as well
        return "no answer"

    bench.refuse = lose
    assert bench.cycle(1) == [PortResult(1, ok=False, text="could not be turned off: no answer")]
    assert bench.all_on()


def test_a_port_that_does_not_come_on_is_tried_again_and_then_told() -> None:
    failures = ["no", "no"]
    bench = Bench(refuse=lambda _port, on: failures.pop() if on and failures else None)
    assert bench.cycle(1) == cycled(1)
    assert bench.now == 9, "two pauses"

    bench = Bench(refuse=lambda port, on: "no" if on and port == 1 else None)
    bench.settings[1] = STATIC
    assert bench.cycle(1, 2) == [PortResult(1, ok=False, text="IS PERHAPS STILL OFF: no"), *cycled(2)]
    assert bench.record == {1: Left(1, (1, 1), STATIC)}, "the record stays, for restore_ports"

    bench.refuse = lambda _port, _on: None
    gone = Left(99, (9, 99))
    results = restore_ports(bench, [Left(7, (1, 1), STATIC), gone], intents=bench, wait=bench.wait)
    assert results == [
        PortResult(7, ok=True, text="on"),
        PortResult(99, ok=False, text="no PoE port of that number; the switch has 1-4"),
    ]
    assert bench.settings[1] == STATIC
    assert bench.all_on()


def test_a_record_that_cannot_be_written_leaves_the_port_on() -> None:
    bench = Bench()

    class Full(NoIntents):
        def add(self, left: Left) -> None:
            if left.port == 2:
                raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        power_cycle(bench, [1, 2], intents=Full(), wait=bench.wait, clock=lambda: bench.now)
    assert bench.all_on()
    assert ("off", 2) not in {(word, port) for _, word, port in bench.log}


def test_a_record_that_cannot_be_struck_out_is_raised_after_the_ports_are_on() -> None:
    bench = Bench()

    class Full(NoIntents):
        def clear(self, port: int) -> None:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        power_cycle(bench, [1, 2], 0, intents=Full(), wait=bench.wait, clock=lambda: bench.now)
    assert bench.all_on()


def test_an_interrupted_wait_turns_every_port_on_at_once() -> None:
    bench = Bench(interrupt_at={5})
    with pytest.raises(Interrupted):
        bench.cycle(1, 2, 3)
    assert bench.log[3:] == [(5, "on", 1), (5, "on", 2), (5, "on", 3)]
    assert bench.record == {}
    assert bench.all_on()


def test_an_interruption_while_ports_come_on_still_turns_on_all() -> None:
    bench = Bench(interrupt_at={6})
    with pytest.raises(Interrupted):
        bench.cycle(1, 2, 3)
    assert bench.log[3:] == [(5, "on", 1), (6, "on", 2), (6, "on", 3)]
    assert bench.all_on()


def test_a_switch_that_is_busy_while_it_is_watched_is_asked_again() -> None:
    bench = Bench(lag=1)
    passed = bench.wait

    def wait(seconds: float) -> None:
        passed(seconds)
        bench.silent = 1 if bench.now in {5, 6} else 0

    bench.wait = wait  # type: ignore[method-assign]
    assert bench.cycle(1) == cycled(1)


# ----------------------------------------------------------------------------------------------------------- the budget


def test_no_more_ports_start_at_once_than_the_switch_can_feed() -> None:
    # Class 0 is reckoned with 15.4 W while it starts; a board that runs takes 4 W.
    bench = Bench(48, lag=1, link_lag=5, power_class=0, peak=7000, capacity=20 * CLASS_MILLIWATTS[0])
    assert bench.cycle(*range(1, 49), stagger=0) == cycled(*range(1, 49))
    assert bench.most == 20
    assert (21, "waits for power: 20 are starting") in bench.heard
    assert bench.all_on()


@pytest.mark.parametrize("own", [0, 20 * CLASS_MILLIWATTS[0]])
def test_the_budget_may_be_given_in_config_yaml(own: int) -> None:
    budget = {"power_budget": 10 * CLASS_MILLIWATTS[0] / 1000}
    bench = Bench(24, lag=1, link_lag=5, power_class=0, capacity=own, options=budget)
    assert bench.cycle(*range(1, 25), stagger=0) == cycled(*range(1, 25))
    assert bench.most == 10


def test_a_budget_that_is_too_small_for_one_still_starts_them_one_by_one() -> None:
    bench = Bench(3, lag=1, link_lag=2, capacity=1)
    assert bench.cycle(1, 2, 3, stagger=0) == cycled(1, 2, 3)
    assert bench.most == 1
    assert [when for when, word, _ in bench.log if word == "on"] == [5, 8, 11]


# ---------------------------------------------------------------------------------------------------------- on and off


def set_ports(bench: Bench, on: bool, *ports: int, guard: Guard = CAREFUL) -> list[PortResult]:
    return set_power(
        bench, ports, on, guard=guard, intents=bench, wait=bench.wait, clock=lambda: bench.now,
        on_progress=lambda port, text: bench.heard.append((port, text)),
    )  # fmt: skip


def test_a_port_can_be_turned_off_for_good_and_on_again() -> None:
    bench = Bench(options={"protected_ports": frozenset({3})})
    bench.record[1] = Left(1)  # of a power cycle that was killed: nobody is to turn it on now
    off, protected = set_ports(bench, False, 1, 3)
    assert (off, protected.ok) == (PortResult(1, ok=True, text="off"), False)
    assert bench.record == {}
    assert bench.settings[1] == OFF
    assert set_ports(bench, True, 1, 3, 4) == [
        PortResult(1, ok=True, text="on"),
        PortResult(3, ok=True, text="is on already"),
        PortResult(4, ok=True, text="is on already"),
    ]
    assert bench.all_on()


def test_a_port_that_cannot_be_turned_off_for_good() -> None:
    bench = Bench(refuse=lambda port, on: "no" if port == 2 else None)
    assert set_ports(bench, False, 1, 2) == [
        PortResult(1, ok=True, text="off"),
        PortResult(2, ok=False, text="could not be turned off: no"),
    ]
    with pytest.raises(SwitchError, match="port 2: power: no"):
        set_ports(bench, False, 2, 3)


def test_a_port_that_cannot_be_turned_on() -> None:
    bench = Bench(refuse=lambda _port, on: "no" if on else None)
    set_ports(bench, False, 1)
    assert set_ports(bench, True, 1) == [PortResult(1, ok=False, text="IS PERHAPS STILL OFF: no")]
