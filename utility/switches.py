"""What a switch is to the rest of Piman: a face of ports whose power can be turned off and on, however it is asked.

A `PoeSwitch` is SNMP (snmp_switch.py), three commands of the user's (exec_switch.py) or a controller's web interface;
`open_switch` chooses. Holds no protocol and no rule of power cycling.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, Self, TypeVar

from utility.config import Switch
from utility.drivers import Detection, Oid

Asked = TypeVar("Asked")
Told = TypeVar("Told")


class SwitchError(Exception):
    """A switch did not do what it was asked. `str()` is one line: the switch, the port, the object, what to do.

    what    the object that was asked for, or the command; may be empty
    """

    def __init__(self, switch: Switch, what: str, reason: str, port: int | None = None) -> None:
        where = f"{switch.name} ({switch.address})" if switch.name else str(switch.address)
        at = "" if port is None else f" port {port}"
        named = f" {what}:" if what else ""
        super().__init__(f"switch {where}{at}:{named} {reason}")
        self.switch = switch
        self.what = what
        self.reason = reason
        self.port = port

    def at_port(self, port: int) -> SwitchError:
        """The same error, with the port that was being worked on."""
        return SwitchError(self.switch, self.what, self.reason, port)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Who answers LLDP at the other end of the cable. `forwards`: it says that it is a bridge or a router."""

    name: str
    mac: str  # empty: it has said another chassis id
    port: str
    descr: str = ""
    forwards: bool = True

    @property
    def label(self) -> str:
        return " port ".join(part for part in (self.name or self.mac or "a device", self.port) if part)


@dataclass(frozen=True, slots=True)
class Port:
    """One port of the face.

    number       what a user gives to `restart`: the PoE ports from 1 on as the labels count them, over a stack on; then
                 the ports without PoE
    label        what is printed at it, as far as the switch says
    index        in the switch's PoE table; empty: no PoE
    admin_on     whether it may give power; None: it has no PoE, or the switch's value means nothing to us
    setting      the value that says so, where a family has several that mean on: it is given back with `turn`
    milliwatts   what it gives now; `source` is one of drivers.SOURCES, empty where milliwatts is None
    link         whether it has one; None where not known
    """

    number: int
    label: str
    index: Oid = ()
    if_index: int | None = None
    bridge_port: int | None = None
    if_name: str = ""
    alias: str = ""
    admin_on: bool | None = None
    setting: int | str | None = None
    detection: Detection = Detection.UNKNOWN
    power_class: int | None = None  # 0 to 8
    milliwatts: int | None = None
    source: str = ""
    link: bool | None = None
    neighbour: Neighbour | None = None

    @property
    def has_poe(self) -> bool:
        return bool(self.index)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What can be done with a switch.

    read_only    why its ports cannot be switched; empty where they can
    lag          seconds by which what it says of a port may be late
    """

    driver: str
    read_only: str = ""
    fdb: str = ""  # one of drivers.FDB_MODES; empty: it has no forwarding table for us
    warnings: tuple[str, ...] = ()
    lag: float = 0.0


@dataclass(frozen=True, slots=True)
class PowerSupply:
    """What feeds some ports, in milliwatts. `consumption`: of all of them together, now; None where nobody says."""

    ports: frozenset[int]
    capacity: int
    consumption: int | None = None


class PoeSwitch(Protocol):
    """One switch. Every method may raise SwitchError; one request at a time is under way."""

    switch: Switch

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...

    @property
    def capabilities(self) -> Capabilities: ...

    def ports(self, wanted: Collection[int] | None = None) -> list[Port]:
        """The whole face, by number. Where each port costs a question, those that are not `wanted` are not asked."""

    def look(self, ports: Sequence[Port]) -> list[Port]:
        """The same ports as they are now: setting, detection, watts, link. Cheap; in the order given."""

    def turn(self, port: Port, on: bool) -> None:
        """Order it; the caller looks whether it was done. On gives back the port's `setting` where it means on."""

    def complaint(self, port: Port, reason: str) -> SwitchError:
        """An error about that port's power that names the object."""

    def macs(self, ports: Sequence[Port] | None = None) -> Mapping[int, frozenset[str]]:
        """Port number -> the MACs that the forwarding table has there; `ports` is the face, where it is known."""

    def supplies(self, ports: Iterable[Port]) -> list[PowerSupply]:
        """What feeds these ports, as far as the switch says."""


def ask_all(ask: Callable[[Asked], Told], switches: Sequence[Asked], at_once: int = 64) -> list[Told]:
    """What `ask` says of each, in their order; many at once. The first exception comes out of here.

    In threads that nobody waits for who has had enough: a switch that is silent for ten seconds must not keep a
    process alive that was told to end.
    """
    results: dict[int, Told] = {}
    failures: list[BaseException] = []
    left = iter(enumerate(switches))
    lock = threading.Lock()

    def work() -> None:
        while not failures:
            with lock:
                number, switch = next(left, (-1, None))
            if switch is None:
                return
            try:
                results[number] = ask(switch)
            except BaseException as error:  # noqa: BLE001  # the top of a thread; raised below
                failures.append(error)

    threads = [
        threading.Thread(target=work, name=f"switch {number}", daemon=True)
        for number in range(min(len(switches), at_once))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [results[number] for number in range(len(switches))]


def open_switch(switch: Switch) -> PoeSwitch:
    """The switch, as config.yaml says it is asked. Nothing is sent before the first request."""
    module, name = _KINDS.get(switch.driver, ("utility.snmp_switch", "SnmpSwitch"))
    opened: PoeSwitch = getattr(import_module(module), name)(switch)
    return opened


# Driver -> where it is; each knows this file, and is loaded when there is such a switch.
_KINDS = {
    "exec": ("utility.exec_switch", "ExecSwitch"),
    "unifi": ("utility.unifi", "UnifiSwitch"),
    "routeros": ("utility.routeros", "RouterOsSwitch"),
}
