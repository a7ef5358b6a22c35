"""Power, port by port: off, and on again whatever happens. Knows no switch but by its face (switches.py).

A port's admin state outlives a reboot of the switch, so a port that is left off stays off. Hence the order of things:
the intent is on record before a port goes off, it is struck out after the port was read back as on, and between the
two nothing but the death of the process keeps us from turning the port on. What may be switched at all, and how many
ports may start at once, is in power_rules.py.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from utility.drivers import Detection
from utility.power_rules import Guard, Patience, by_number, fits, outcome, ranges, refusal, total_supply
from utility.switches import PoeSwitch, Port, PowerSupply, SwitchError

log = logging.getLogger("piman.power_cycle")

NO_FORCE = Guard()
STAGGER = 1.0  # between two ports that come on
ON_TRIES = 3  # of turning a port on again, each with the tries of the switch's access
RETRY_PAUSE = 2.0
POLL = 0.5  # between two looks at a port
READ_BACK_TIME = 3.0  # for an order to be seen in what the switch says
DETECTION_TIME = 10.0  # for a port to stop delivering after off, to deliver again after on
LINK_TIME = 20.0  # for the link to come back: a board's firmware has to wake first
START_TIME = 5.0  # that a board without a link is taken to start, where power is short


@dataclass(frozen=True, slots=True)
class PortResult:
    """What became of one port: `ok` is that it was read back as ordered; `text` says the rest in a few words."""

    port: int
    ok: bool
    text: str


@dataclass(frozen=True, slots=True)
class Left:
    """A port that is off only until we turn it on again; `setting` is the value that it had, `index` its PoE index."""

    port: int
    index: tuple[int, ...] = ()
    setting: int | str | None = None


class Intents(Protocol):
    """The record of ports that are off only until we turn them on again; it outlives the process."""

    def add(self, left: Left) -> None: ...
    def clear(self, port: int) -> None: ...


class NoIntents:
    """No record kept."""

    def add(self, left: Left) -> None:
        """Keep nothing."""

    def clear(self, port: int) -> None:
        """Keep nothing."""


Progress = Callable[[int, str], None]  # port, what happens to it now
Wait = Callable[[float], object]  # time.sleep, or the wait of an Event


def ignore_progress(_port: int, _text: str) -> None:
    """For a caller who does not watch."""


def power_cycle(
    switch: PoeSwitch,
    numbers: Iterable[int],
    off_time: float | None = None,
    stagger: float = STAGGER,
    *,
    guard: Guard = NO_FORCE,
    on_progress: Progress = ignore_progress,
    intents: Intents | None = None,
    wait: Wait = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> list[PortResult]:
    """Turn the ports off together, wait, and turn them on one by one, `stagger` seconds apart; a result for each.

    `off_time` is the switch's own where not given: a second is too short for many boards to notice, and boards that
    start at the same instant take one another's addresses. No more start at once than the switch can feed. What is
    wrong with one port (none of that number, no PoE, refused by `guard`) is its result, and the others are done; what
    is wrong with the switch raises SwitchError. Ports that went off are turned on again, also when a signal or another
    exception ends the wait.
    """
    numbers = list(dict.fromkeys(numbers))
    face = switch.ports(numbers)
    chosen, refused = choose(switch, face, numbers, guard)
    cycle = _Cycle(switch, face, on_progress, intents or NoIntents(), wait, clock)
    done = refused | cycle.run(chosen, switch.switch.off_time if off_time is None else off_time, stagger)
    return [PortResult(number, *done[number]) for number in numbers]


def set_power(
    switch: PoeSwitch,
    numbers: Iterable[int],
    on: bool,
    stagger: float = STAGGER,
    *,
    guard: Guard = NO_FORCE,
    on_progress: Progress = ignore_progress,
    intents: Intents | None = None,
    wait: Wait = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> list[PortResult]:
    """Turn the ports on, or off to stay so; a result for each. SwitchError as with `power_cycle`."""
    numbers = list(dict.fromkeys(numbers))
    face = switch.ports()
    # Turning on takes nobody's power away.
    chosen, refused = choose(switch, face, numbers, replace(guard, force=guard.force or on))
    cycle = _Cycle(switch, face, on_progress, intents or NoIntents(), wait, clock)
    done = refused | (cycle.start(chosen, stagger) if on else cycle.stop(chosen))
    return [PortResult(number, *done[number]) for number in numbers]


def restore_ports(
    switch: PoeSwitch,
    left: Iterable[Left],
    *,
    on_progress: Progress = ignore_progress,
    intents: Intents | None = None,
    wait: Wait = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> list[PortResult]:
    """Turn on the ports that an interrupted power cycle has left off, and strike out their intents."""
    left = list(left)
    face = switch.ports([each.port for each in left])
    numbered, placed = by_number(face), {port.index: port for port in face if port.has_poe}
    cycle = _Cycle(switch, face, on_progress, intents or NoIntents(), wait, clock)
    results = []
    for each in left:
        # A stack that lost a member counts its ports anew; the place in the switch's table stays.
        port = placed.get(each.index) or numbered.get(each.port)
        if port is None or not port.has_poe:
            results.append(PortResult(each.port, False, _no_such_port(face)))
            continue
        ok, text = cycle.turn_on(replace(port, setting=each.setting), recorded_as=each.port)
        results.append(PortResult(each.port, ok, text))
    return results


def choose(
    switch: PoeSwitch, face: Sequence[Port], numbers: Sequence[int], guard: Guard
) -> tuple[list[Port], dict[int, tuple[bool, str]]]:
    """The ports that may be switched, in the order asked for, and why the others may not.

    SwitchError where none ever can: a switch that is read-only, or shows no PoE at all.
    """
    able = switch.capabilities
    if able.read_only:
        raise SwitchError(switch.switch, "", f"its ports cannot be switched: {able.read_only}")
    if not any(port.has_poe for port in face):
        raise SwitchError(switch.switch, "", "it shows no PoE ports: has it PoE, and may we read it? See `piman ports`")
    known, refused, chosen = by_number(face), dict[int, tuple[bool, str]](), []
    macs: Mapping[int, frozenset[str]] = {}
    if not guard.force:
        with suppress(SwitchError):  # a switch without a forwarding table is no reason to do nothing
            macs = switch.macs(face)
    for number in numbers:
        port = known.get(number)
        if port is None or not port.has_poe:
            refused[number] = (False, _no_such_port(face) if port is None else f"{port.label or 'it'} has no PoE")
            continue
        why = refusal(port, macs.get(number, ()), switch.switch.protected_ports, guard)
        if why:
            refused[number] = (False, why)
        else:
            chosen.append(port)
    return chosen, refused


def _no_such_port(face: Sequence[Port]) -> str:
    return f"no PoE port of that number; the switch has {ranges(port.number for port in face if port.has_poe)}"


@dataclass(slots=True)
class _Start:
    """A port that was turned on and has not settled yet. `now` is the last look at it."""

    before: Port
    since: float
    now: Port
    told: bool = False


class _Cycle:
    """One power cycle of one switch: who is told, and how to wait. Results are number -> (ok, text)."""

    def __init__(
        self,
        switch: PoeSwitch,
        face: Sequence[Port],
        tell: Progress,
        intents: Intents,
        wait: Wait,
        clock: Callable[[], float],
    ) -> None:
        self.switch = switch
        self.powered = [port for port in face if port.has_poe]
        self.tell = tell
        self.intents = intents
        self.wait = wait
        self.clock = clock
        self.starting: dict[int, _Start] = {}
        self.outcomes: dict[int, str] = {}
        self._supplies: list[PowerSupply] | None = None

    def run(self, ports: list[Port], off_time: float, stagger: float) -> dict[int, tuple[bool, str]]:
        touched: list[Port] = []
        notes: dict[int, str] = {}
        finished = False
        try:
            for port in ports:
                self._turn_off(port, touched, notes)
            self._wait_off([port for port in touched if port.number not in notes], off_time, notes)
            finished = True
        finally:
            # Somebody who interrupts waits neither for the pause between two ports nor for the budget.
            results = self.turn_all_on(touched, stagger if finished else None)
        self._settle_all()
        return {port.number: self._judge(port.number, results, notes) for port in ports}

    def start(self, ports: list[Port], stagger: float) -> dict[int, tuple[bool, str]]:
        """Turn on, and leave on what is on."""
        results = self.turn_all_on([port for port in ports if not port.admin_on], stagger)
        self._settle_all()
        done = {}
        for port in ports:
            ok, text = results.get(port.number, (True, "is on already"))
            settled = self.outcomes.get(port.number, text)
            done[port.number] = (ok, "on" if settled == "power-cycled" else settled)
        return done

    def stop(self, ports: list[Port]) -> dict[int, tuple[bool, str]]:
        """Turn off for good."""
        results: dict[int, tuple[bool, str]] = {}
        for port in ports:
            try:
                self._order(port, False)
            except SwitchError as error:
                if not any(ok for ok, _ in results.values()):
                    raise  # the others would fare no better
                results[port.number] = (False, f"could not be turned off: {error.reason}")
            else:
                self.intents.clear(port.number)  # nobody is to turn it on again
                results[port.number] = (True, "off")
            self.tell(port.number, results[port.number][1])
        return results

    # -- off

    def _turn_off(self, port: Port, touched: list[Port], notes: dict[int, str]) -> None:
        """Off, and read back; the port is then in `touched`, and in `notes` if something went wrong.

        SwitchError where that is the first port and the switch did nothing: the others would fare no better.
        """
        self.intents.add(Left(port.number, port.index, port.setting))
        touched.append(port)  # before the order: its answer may be lost, and the port off all the same
        try:
            self._order(port, False)
        except SwitchError as error:
            if self._is_on(port):
                touched.remove(port)
                self.intents.clear(port.number)
                if not touched:
                    raise
            notes[port.number] = f"could not be turned off: {error.reason}"
            self.tell(port.number, notes[port.number])
        else:
            self.tell(port.number, "off")

    def _is_on(self, port: Port) -> bool:
        try:
            return self.switch.look([port])[0].admin_on is True
        except SwitchError:
            return False  # not known, so better turn it on

    def _order(self, port: Port, on: bool) -> None:
        """Order and read back; SwitchError with the port."""
        self.switch.turn(port, on)
        try:
            began = self.clock()
            while self.switch.look([port])[0].admin_on is not on:
                if self.clock() - began >= READ_BACK_TIME:
                    text = f"the switch took the order, but the port is not {'on' if on else 'off'}"
                    raise self.switch.complaint(port, f"{text}: does something else rule it, a schedule or a lock?")
                self.wait(POLL)
        except SwitchError as error:
            if not on:  # perhaps it is only slow, and would go off when nobody turns it on any more
                with suppress(SwitchError):
                    self.switch.turn(port, True)
            raise error.at_port(port.number) from error

    def _wait_off(self, ports: list[Port], off_time: float, notes: dict[int, str]) -> None:
        """At least `off_time`, and until no port delivers power any more: only then does the board really restart."""
        for port in ports:
            self.tell(port.number, f"off for {off_time:g} s")
        began = self.clock()
        if ports:
            self.wait(off_time)
        left = list(ports)
        while left:
            with suppress(SwitchError):  # it answered a moment ago; that it is busy now changes nothing yet
                left = [port for port in self.switch.look(left) if port.detection == Detection.DELIVERING]
            if not left or self.clock() - began > off_time + DETECTION_TIME + self.switch.capabilities.lag:
                break
            self.wait(POLL)
        for port in left:
            notes[port.number] = "was never without power: the switch went on delivering"
            self.tell(port.number, notes[port.number])

    # -- on

    def turn_all_on(self, ports: Sequence[Port], stagger: float | None) -> dict[int, tuple[bool, str]]:
        """On, each port as often as it takes; an exception from outside ends it only after the last port.

        `stagger` None: all at once, whatever the budget.
        """
        results: dict[int, tuple[bool, str]] = {}
        interruption: BaseException | None = None
        for at, port in enumerate(ports):
            for _again in range(2):
                try:
                    if stagger is not None and interruption is None:
                        self._await_turn(port, stagger if at else 0)
                    results[port.number] = self.turn_on(port)
                    break
                except BaseException as error:  # noqa: BLE001  # Ctrl-C, a full disk: the ports first, raised below
                    interruption = error
            if results.get(port.number, (False,))[0]:
                self.starting[port.number] = _Start(port, self.clock(), replace(port, milliwatts=0))
        if interruption:
            raise interruption
        return results

    def turn_on(self, port: Port, recorded_as: int | None = None) -> tuple[bool, str]:
        reason = ""
        for attempt in range(ON_TRIES):
            if attempt:
                self.wait(RETRY_PAUSE)
            try:
                self._order(port, True)
            except SwitchError as error:
                reason = error.reason
                log.warning("%s", error)
                continue
            self.tell(port.number, "on")
            self.intents.clear(port.number if recorded_as is None else recorded_as)
            return True, "on"
        self.tell(port.number, f"not on: {reason}")
        return False, f"IS PERHAPS STILL OFF: {reason}"

    def _await_turn(self, port: Port, stagger: float) -> None:
        """Until the pause is over, and the switch can feed one more that starts. One may always start."""
        if stagger:
            self.wait(stagger)
        told = False
        while self.starting and self._feeds():
            self._settle()
            if not self.starting or fits(port, [start.now for start in self.starting.values()], self._feeds(anew=True)):
                return
            if not told:
                self.tell(port.number, f"waits for power: {len(self.starting)} are starting")
                told = True
            self.wait(POLL)

    def _feeds(self, anew: bool = False) -> list[PowerSupply]:
        """What feeds the ports; the last that was known, where the switch is busy."""
        if self._supplies is None or anew:
            with suppress(SwitchError):
                supplies = self.switch.supplies(self.powered)
                if self.switch.switch.power_budget:
                    ports = self.powered if supplies else self.switch.look(self.powered)
                    budget = int(self.switch.switch.power_budget * 1000)
                    supplies = [*supplies, total_supply(budget, ports, supplies)]
                self._supplies = supplies
        return self._supplies or []

    def _settle_all(self) -> None:
        self._settle()
        while self.starting:
            self.wait(POLL)
            self._settle()

    def _settle(self) -> None:
        """Look at the ports that are starting, and let go of those of which it is known what became of them."""
        if not self.starting:
            return
        try:
            seen = by_number(self.switch.look([start.before for start in self.starting.values()]))
        except SwitchError as error:  # it is busy: its ports are as they were, and no younger
            log.debug("%s", error)
            seen = {number: start.now for number, start in self.starting.items()}
        late = self.switch.capabilities.lag
        patience = Patience(DETECTION_TIME + late, LINK_TIME + late, START_TIME + late if self._supplies else 0.0)
        for number, start in list(self.starting.items()):
            start.now = seen[number]
            delivers = start.now.detection == Detection.DELIVERING
            if delivers and not start.told and start.before.detection != Detection.SEARCHING:
                start.told = True
                self.tell(number, "delivering power")
            text = outcome(start.before, start.now, self.clock() - start.since, patience)
            if text:
                self.outcomes[number] = text
                del self.starting[number]

    def _judge(
        self, number: int, results: Mapping[int, tuple[bool, str]], notes: Mapping[int, str]
    ) -> tuple[bool, str]:
        result = results.get(number)
        if result and not result[0]:
            return result
        if number in notes:
            return False, notes[number]
        return True, self.outcomes.get(number, "power-cycled")
