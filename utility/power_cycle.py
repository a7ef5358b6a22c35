"""Power over Ethernet, port by port: which ports there are, off, and on again whatever happens. Speaks RFC 3621 only.

A port's admin state outlives a reboot of the switch, so a port that is left off stays off. Hence the order of things:
the intent is on record before a port goes off, it is struck out after the port was read back as on, and between the
two nothing but the death of the process keeps us from turning the port on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from utility.config import Switch
from utility.drivers import Oid
from utility.snmp import OBJECTS, Row, SnmpError, Value

log = logging.getLogger("piman.power_cycle")

ADMIN = OBJECTS["pethPsePortAdminEnable"]
DETECTION = OBJECTS["pethPsePortDetectionStatus"]
CLASS = OBJECTS["pethPsePortPowerClassifications"]

ON, OFF = 1, 2  # TruthValue
ON_TRIES = 3  # of turning a port on again, each with the tries of the SNMP access
RETRY_PAUSE = 2.0
POLL = 0.5  # between two looks at the detection status
DETECTION_TIME = 10.0  # for a port to stop delivering after off, to deliver again after on


class Detection(IntEnum):
    """pethPsePortDetectionStatus: what the port does with its power."""

    UNKNOWN = 0  # the switch does not say
    DISABLED = 1
    SEARCHING = 2
    DELIVERING = 3
    FAULT = 4
    TEST = 5
    OTHER_FAULT = 6


@dataclass(frozen=True, slots=True)
class PortState:
    """A PoE port: its index in the switch's table, and what it does. `power_class` is 0 to 4, None where unknown."""

    port: int
    group: int
    admin_on: bool
    detection: Detection
    power_class: int | None = None


@dataclass(frozen=True, slots=True)
class PortResult:
    """What became of one port: `ok` is that it was read back as on; `text` says the rest in a few words."""

    port: int
    ok: bool
    text: str


class Agent(Protocol):
    """What is needed of `utility.snmp.Snmp`."""

    switch: Switch

    def get(self, oids: Sequence[Oid]) -> dict[Oid, Value]: ...
    def set(self, oid: Oid, value: int) -> None: ...
    def walk(self, base: Oid) -> list[Row]: ...


class Intents(Protocol):
    """The record of ports that are off only until we turn them on again; it outlives the process."""

    def add(self, port: int) -> None: ...
    def clear(self, port: int) -> None: ...


class NoIntents:
    """No record kept."""

    def add(self, port: int) -> None:
        """Keep nothing."""

    def clear(self, port: int) -> None:
        """Keep nothing."""


Progress = Callable[[int, str], None]  # port, what happens to it now
Wait = Callable[[float], object]  # time.sleep, or the wait of an Event


def ignore_progress(_port: int, _text: str) -> None:
    """For a caller who does not watch."""


def read_ports(snmp: Agent) -> list[PortState]:
    """Every PoE port of the switch, by group and port; SnmpError."""
    detection = dict(snmp.walk(DETECTION))
    classes = dict(snmp.walk(CLASS))
    states = []
    for oid, admin in snmp.walk(ADMIN):
        if len(oid) != len(ADMIN) + 2:
            continue
        group, port = oid[len(ADMIN) :]
        power_class = classes.get((*CLASS, group, port))
        states.append(
            PortState(
                port=port,
                group=group,
                admin_on=admin == ON,
                detection=_detection(detection.get((*DETECTION, group, port))),
                # The MIB counts class 0 as 1.
                power_class=power_class - 1 if isinstance(power_class, int) and power_class > 0 else None,
            )
        )
    return states


def find_ports(snmp: Agent, ports: Iterable[int]) -> list[PortState]:
    """The states of the ports asked for, in that order, each once; SnmpError for the first that is no PoE port."""
    known = read_ports(snmp)
    if not known:
        raise SnmpError(snmp.switch, ADMIN, "the switch shows no PoE ports: has it PoE, and may we read it?")
    chosen = []
    for port in dict.fromkeys(ports):
        found = [state for state in known if state.port == port]
        if not found:
            numbers = _ranges(state.port for state in known)
            raise SnmpError(snmp.switch, None, f"no PoE port of that number; the switch has {numbers}", port)
        if len(found) > 1:
            groups = ", ".join(str(state.group) for state in found)
            raise SnmpError(snmp.switch, ADMIN, f"the groups {groups} each have a port of that number", port)
        chosen += found
    return chosen


def power_cycle(
    snmp: Agent,
    ports: Iterable[int],
    off_time: float | None = None,
    stagger: float = 1.0,
    *,
    on_progress: Progress = ignore_progress,
    intents: Intents | None = None,
    wait: Wait = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> list[PortResult]:
    """Turn the ports off together, wait, and turn them on one by one, `stagger` seconds apart; a result for each.

    `off_time` is the switch's own where not given: a second is too short for many boards to notice, and boards that
    start at the same instant take one another's addresses. A port that is protected, or no PoE port, raises SnmpError
    before anything is switched. What goes wrong later is in the results, and ports that went off are turned on
    again, also when a signal or another exception ends the wait.
    """
    ports = list(dict.fromkeys(ports))
    for port in ports:
        if port in snmp.switch.protected_ports:
            raise SnmpError(snmp.switch, None, "is protected: see protected_ports in config.yaml", port)
    cycle = _Cycle(snmp, on_progress, intents or NoIntents(), wait, clock)
    return cycle.run(find_ports(snmp, ports), snmp.switch.off_time if off_time is None else off_time, stagger)


def restore_ports(
    snmp: Agent,
    ports: Iterable[int],
    *,
    on_progress: Progress = ignore_progress,
    intents: Intents | None = None,
    wait: Wait = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> list[PortResult]:
    """Turn on the ports that an interrupted power cycle has left off, and strike out their intents."""
    cycle = _Cycle(snmp, on_progress, intents or NoIntents(), wait, clock)
    return cycle.turn_all_on(find_ports(snmp, ports), stagger=0)


class _Cycle:
    """One power cycle: who is told, and how to wait."""

    def __init__(self, snmp: Agent, tell: Progress, intents: Intents, wait: Wait, clock: Callable[[], float]) -> None:
        self.snmp = snmp
        self.tell = tell
        self.intents = intents
        self.wait = wait
        self.clock = clock

    def run(self, states: list[PortState], off_time: float, stagger: float) -> list[PortResult]:
        touched: list[PortState] = []
        notes: dict[int, str] = {}
        finished = False
        try:
            for state in states:
                self._turn_off(state, touched, notes)
            self._wait_off([state for state in touched if state.port not in notes], off_time, notes)
            finished = True
        finally:
            # Somebody who interrupts does not wait for the pause between two ports.
            results = {result.port: result for result in self.turn_all_on(touched, stagger if finished else 0)}
        dead = self._wait_on([state for state in touched if results[state.port].ok and _was_fed(state)])
        return [self._judge(state, results.get(state.port), notes.get(state.port), dead) for state in states]

    def _turn_off(self, state: PortState, touched: list[PortState], notes: dict[int, str]) -> None:
        """Off, and read back; the port is then in `touched`, and in `notes` if something went wrong.

        SnmpError where that is the first port and the switch did nothing: the others would fare no better.
        """
        self.intents.add(state.port)
        touched.append(state)  # before the SET: its answer may be lost, and the port off all the same
        try:
            self._switch(state, OFF)
        except SnmpError as error:
            if self._is_on(state):
                touched.remove(state)
                self.intents.clear(state.port)
                if not touched:
                    raise
            notes[state.port] = f"could not be turned off: {error.reason}"
            self.tell(state.port, notes[state.port])
        else:
            self.tell(state.port, "off")

    def _is_on(self, state: PortState) -> bool:
        oid = (*ADMIN, state.group, state.port)
        try:
            return self.snmp.get([oid])[oid] == ON
        except SnmpError:
            return False  # not known, so better turn it on

    def turn_all_on(self, states: Sequence[PortState], stagger: float) -> list[PortResult]:
        """On, each port as often as it takes; an exception from outside ends it only after the last port."""
        results = []
        interruption: BaseException | None = None
        for number, state in enumerate(states):
            for _again in range(2):
                try:
                    if number and stagger and interruption is None:
                        self.wait(stagger)
                    results.append(self._turn_on(state))
                    break
                except BaseException as error:  # noqa: BLE001  # Ctrl-C, a full disk: the ports first, it is raised below
                    interruption = error
        if interruption:
            raise interruption
        return results

    def _turn_on(self, state: PortState) -> PortResult:
        reason = ""
        for attempt in range(ON_TRIES):
            if attempt:
                self.wait(RETRY_PAUSE)
            try:
                self._switch(state, ON)
            except SnmpError as error:
                reason = error.reason
                log.warning("%s", error)
                continue
            self.tell(state.port, "on")
            self.intents.clear(state.port)
            return PortResult(state.port, ok=True, text="on")
        self.tell(state.port, f"not on: {reason}")
        return PortResult(state.port, ok=False, text=f"IS PERHAPS STILL OFF: {reason}")

    def _switch(self, state: PortState, value: int) -> None:
        """Set and read back; SnmpError with the port."""
        oid = (*ADMIN, state.group, state.port)
        taken = False
        try:
            self.snmp.set(oid, value)
            taken = True
            if self.snmp.get([oid])[oid] != value:
                word = "on" if value == ON else "off"
                raise SnmpError(self.snmp.switch, oid, f"the switch took the order, but the port is not {word}")
        except SnmpError as error:
            if taken and value == OFF:  # perhaps it is only slow, and would go off when nobody turns it on any more
                with suppress(SnmpError):
                    self.snmp.set(oid, ON)
            raise error.at_port(state.port) from error

    def _wait_off(self, states: list[PortState], off_time: float, notes: dict[int, str]) -> None:
        """At least `off_time`, and until no port delivers power any more: only then does the board really restart."""
        for state in states:
            self.tell(state.port, f"off for {off_time:g} s")
        began = self.clock()
        if states:
            self.wait(off_time)
        left = self._poll(states, lambda detection: detection != Detection.DELIVERING, began + off_time)
        for port in left:
            notes[port] = "was never without power: the switch went on delivering"
            self.tell(port, notes[port])

    def _wait_on(self, states: list[PortState]) -> dict[int, Detection]:
        """Wait for the ports to deliver power again; those that do not, and what they do instead."""
        left = self._poll(
            states, lambda detection: detection in {Detection.DELIVERING, Detection.UNKNOWN}, self.clock()
        )
        for state in states:
            if state.port not in left:
                self.tell(state.port, "delivering power")
        return left

    def _poll(self, states: list[PortState], good: Callable[[Detection], bool], since: float) -> dict[int, Detection]:
        """Look until every port's detection status is good, or the time is over; the ports where it is not."""
        oids = {(*DETECTION, state.group, state.port): state.port for state in states}
        left = {state.port: Detection.UNKNOWN for state in states}
        while left:
            try:
                values = self.snmp.get([oid for oid, port in oids.items() if port in left])
            except SnmpError as error:  # it answered a moment ago; that it is busy now changes nothing yet
                log.debug("%s", error)
            else:
                seen = {oids[oid]: _detection(value) for oid, value in values.items()}
                left = {port: detection for port, detection in seen.items() if not good(detection)}
            if not left or self.clock() - since > DETECTION_TIME:
                break
            self.wait(POLL)
        return left

    def _judge(
        self, state: PortState, result: PortResult | None, note: str | None, dead: Mapping[int, Detection]
    ) -> PortResult:
        if result and not result.ok:
            return result
        if note:
            return PortResult(state.port, ok=False, text=note)
        if not _was_fed(state):
            return PortResult(state.port, ok=True, text="on; nothing took power there before")
        if state.port in dead:
            doing = dead[state.port].name.lower().replace("_", " ")
            return PortResult(state.port, ok=True, text=f"on, but nothing takes power there ({doing})")
        return PortResult(state.port, ok=True, text="power-cycled")


def _was_fed(state: PortState) -> bool:
    """Whether a device is to be expected: a port that was searching before has none."""
    return state.detection != Detection.SEARCHING


def _detection(value: Value) -> Detection:
    return Detection(value) if isinstance(value, int) and 0 < value <= max(Detection) else Detection.UNKNOWN


def _ranges(numbers: Iterable[int]) -> str:
    """`1-8, 11` for 1 to 8 and 11."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
