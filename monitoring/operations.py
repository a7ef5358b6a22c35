"""What can be done to Pis and ports, for the commands, the web page and self-healing alike. No terminal, no socket.

Whatever a user can cause is an OperationError: a sentence that says what is known instead, or what to do.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from monitoring.directory import Roster, place_of
from monitoring.power import (
    InterruptionError,
    PowerIntents,
    PowerOptions,
    Waiting,
    hold_switch,
    left_off,
    own_macs,
    restore_left_off,
)
from monitoring.store import PiRow, Store, StoreError
from utility.config import Config, ConfigError, Switch
from utility.findport import Sighting, choose_edge, find_port
from utility.hosts import Host, Hosts, parse_mac
from utility.power_cycle import PortResult, power_cycle, set_power
from utility.power_rules import Guard
from utility.service import Severity, Stage
from utility.switches import PoeSwitch, Port, SwitchError, open_switch

if TYPE_CHECKING:
    from utility.images import StoredImage


class OperationError(Exception):
    """It cannot be done; `str()` is for the user. usage: the words were wrong, rather than the rack."""

    def __init__(self, text: str, usage: bool = False) -> None:
        super().__init__(text)
        self.usage = usage


Warn = Callable[[str], None]


def say_nothing(_text: str) -> None:
    """For a caller who does not want to hear of switches that failed."""


# -------------------------------------------------------------------------------------------- naming Pis and ports


@dataclass(frozen=True, slots=True)
class Target:
    """A port that is acted on, and the Pi that config.yaml and hosts.csv say is there."""

    switch: Switch
    port: int
    host: Host | None

    @property
    def label(self) -> str:
        where = f"{self.switch.name or self.switch.address} port {self.port}"
        return f"{self.host.name} ({where})" if self.host else where


def known_switches(config: Config) -> str:
    """The switches in words, for somebody who named another."""
    if not config.switches:
        return "config.yaml has no switches"
    return "known: " + ", ".join(f"{each.index} ({each.name or each.address})" for each in config.switches)


def find_switch(config: Config, text: str) -> Switch | None:
    """A switch by its address, its name, or its number in config.yaml (0 first)."""
    for switch in config.switches:
        if text in (str(switch.address), switch.name, str(switch.index)):
            return switch
    return None


def parse_ports(words: Iterable[str]) -> list[int] | None:
    """`2 3`, `1-6,8` -> ports in the order given, each once; None where a word is no list of ports."""
    ports: dict[int, None] = {}
    for piece in ",".join(words).split(","):
        first, dash, last = piece.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(first + last) > 8:
            return None
        low, high = int(first), int(last or first)
        if not 1 <= low <= high:
            return None
        ports.update(dict.fromkeys(range(low, high + 1)))
    return list(ports)


def ports_by_label(switch: Switch, words: Sequence[str]) -> list[int] | None:
    """`Gi2/0/5`, or `2/0/5` -> the numbers of the ports, which the switch is asked for; None: these are no labels."""
    if not all(re.search(r"\d/\D?\d", word) for word in words):
        return None
    try:
        with open_switch(switch) as poe:
            face = poe.ports(())
    except SwitchError as error:
        raise OperationError(str(error)) from None
    ports = []
    for word in words:
        found = [port.number for port in face if word.lower() in _names_of(port)]
        if len(found) != 1:
            known = ", ".join(port.label for port in face if port.has_poe)
            raise OperationError(f"{switch.name or switch.address} has no port {word!r}; it has {known}")
        ports += found
    return ports


def _names_of(port: Port) -> tuple[str, ...]:
    label = port.label.lower()
    return label, label.lstrip("abcdefghijklmnopqrstuvwxyz- ")


def host_on(switch: Switch, port: int, hosts: Hosts | Roster) -> Host | None:
    """The Pi that belongs on a port: config.yaml names its address, hosts.csv the Pi with that address."""
    if not 1 <= port <= len(switch.pi_addresses):
        return None
    address = switch.pi_addresses[port - 1]
    return hosts.by_address(address) if address else None


def resolve(config: Config, hosts: Hosts | Roster, words: Sequence[str], warn: Warn = say_nothing) -> list[Target]:
    """`SWITCH PORTS...` or Pis by hostname, address or MAC -> targets; OperationError says what is known instead."""
    switch = find_switch(config, words[0])
    if switch and len(words) > 1:
        ports = parse_ports(words[1:]) or ports_by_label(switch, words[1:])
        if ports is None:
            raise OperationError(
                f"{' '.join(words[1:])!r} is no list of ports; write it like: 2 3 4  or: 1-6,8", usage=True
            )
        return [Target(switch, port, host_on(switch, port, hosts)) for port in ports]
    if switch:
        raise OperationError(f"which ports of switch {words[0]}? write them like: 2 3 4  or: 1-6,8", usage=True)
    if len(words) > 1 and parse_ports(words[1:]) is not None and hosts.named(words[0]) is None:
        raise OperationError(f"there is no switch {words[0]!r}; {known_switches(config)}")
    return [resolve_pi(config, hosts, word, warn) for word in words]


def find_host(hosts: Hosts | Roster, word: str) -> Host:
    """A Pi by hostname, address or MAC; OperationError."""
    host = hosts.named(word)
    if host is None:
        names = [each.name for each in hosts.all()]
        known = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        raise OperationError(f"there is no Pi {word!r} in hosts.csv; known: {known or 'none'}")
    return host


def resolve_pi(config: Config, hosts: Hosts | Roster, word: str, warn: Warn = say_nothing) -> Target:
    """One Pi by hostname, address or MAC; where config.yaml does not place it, the switches are asked."""
    host = find_host(hosts, word)
    placed = place_of(config, host)
    if placed:
        return Target(placed[0], placed[1], host)
    search = look_for(config.switches, host.mac, host, [config.private_number])
    edge = search.edge
    if edge is None or not edge.port:
        raise OperationError(
            f"{host.name}: config.yaml names no port for {host.address}, and {search.why_not}; name switch and port"
        )
    for error in search.failed.values():
        warn(str(error))
    return Target(edge.switch, edge.port, host)


@dataclass(frozen=True, slots=True)
class Search:
    """What the switches say of a MAC. `failed`: those that said nothing, by their number, and why."""

    mac: str
    switches: Sequence[Switch]
    sightings: Sequence[Sighting]
    failed: Mapping[int, SwitchError]

    @property
    def edge(self) -> Sighting | None:
        return choose_edge(self.sightings)

    @property
    def why_not(self) -> str:
        """Why there is no `edge`, and what to do; the switches that failed are told with it."""
        errors = "\n".join(str(self.failed[number]) for number in sorted(self.failed))
        if not self.sightings and self.failed and len(self.failed) == len(self.switches):
            return errors
        return "\n".join(filter(None, (errors, self._why_not())))

    def _why_not(self) -> str:
        if not self.sightings:
            asked = ", ".join(str(each.address) for each in self.switches if each.index not in self.failed)
            what = "is the Pi powered, and did it send anything lately?"
            return f"{self.mac} is on no port of {asked or 'no switch: config.yaml has none'}; {what}"
        edges = [each for each in self.sightings if not each.is_trunk]
        if edges:
            both = " and ".join(each.where for each in edges)
            what = "wait until the switches forget, or name the port"
            return f"{self.mac} is on {both}, and nothing tells which is right: {what}"
        ways = ", ".join(each.where + (f" to {each.neighbour}" if each.neighbour else "") for each in self.sightings)
        what = "add that switch to config.yaml, or name its port"
        return f"{self.mac} is behind another switch, seen through {ways}: {what}"


def look_for(switches: Sequence[Switch], mac: str, host: Host | None, vlans: Iterable[int] = ()) -> Search:
    """Ask all switches which port a MAC is on; one that fails does not hide the others' answer.

    vlans  where it is likely to be. A Pi that nobody has seen may have been silent: it is woken and looked for again
    """
    vlans, failed = tuple(vlans), dict[int, SwitchError]()

    def fails(error: SwitchError) -> None:
        failed[error.switch.index] = error

    if host:
        nudge([host.address])
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_switch(switch)) for switch in switches]
        found = find_port(mac, opened, vlans, on_error=fails)
        if not found and host and not failed:
            nudge([host.address], 1.0)
            found = find_port(mac, opened, vlans, on_error=fails)
    return Search(mac, switches, found, failed)


def nudge(addresses: Iterable[IPv4Address], patience: float = 0.2) -> None:
    """Make Pis say something, so that the switches have their MACs: they forget who is silent for five minutes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for address in addresses:
            with contextlib.suppress(OSError):  # no route is no error here: then it is not silence that hides it
                sender.sendto(b"", (str(address), 9))  # discard, RFC 863; the answer that counts is the ARP reply
        time.sleep(patience)


# -------------------------------------------------------------------------------------------------- power and orders


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one target: whether it was done, and words."""

    target: Target
    ok: bool
    text: str


Progress = Callable[[Target, str], None]  # any thread
PortTell = Callable[[int, str], None]
DEFAULT = PowerOptions()
PATIENCE = 3  # times that somebody has to interrupt until we go although a port may be off


class Operations:
    """Acts on the rack in somebody's name. Switches are worked on in parallel, one port after the other on each.

    by        whose name stands in the record
    tell      hears each step of each port; called from several threads
    stopping  makes, for each work, what ends it early where it is set: when the ports that are off are on again
    """

    def __init__(
        self, store: Store, by: str, tell: Progress, stopping: Callable[[], threading.Event] = threading.Event
    ) -> None:
        self._store, self._by, self._tell, self._stopping = store, by, tell, stopping

    def cycle(self, targets: Sequence[Target], options: PowerOptions = DEFAULT) -> list[Outcome]:
        """Power-cycle the targets; what became of each is an event too."""

        def act(poe: PoeSwitch, ports: list[int], guard: Guard, tell: PortTell, waiting: Waiting) -> list[PortResult]:
            return power_cycle(
                poe, ports, off_time=options.off_time, stagger=options.stagger, guard=guard,
                on_progress=tell, intents=PowerIntents(self._store, poe.switch), wait=waiting,
            )  # fmt: skip

        outcomes = self._act(targets, options, act)
        self._record(outcomes, "", "not power-cycled")
        return outcomes

    def turn(self, targets: Sequence[Target], on: bool, options: PowerOptions = DEFAULT) -> list[Outcome]:
        """Turn the targets on, or off until somebody turns them on; what became of each is an event too."""

        def act(poe: PoeSwitch, ports: list[int], guard: Guard, tell: PortTell, waiting: Waiting) -> list[PortResult]:
            return set_power(
                poe, ports, on, stagger=options.stagger, guard=guard,
                on_progress=tell, intents=PowerIntents(self._store, poe.switch), wait=waiting,
            )  # fmt: skip

        outcomes = self._act(targets, options, act)
        word = "on" if on else "off"
        self._record(outcomes, f"turned {word} by {self._by}", f"not turned {word}")
        return outcomes

    def restore(self, switches: Iterable[Switch]) -> list[str]:
        """Turn on what a power cycle that died left off, at every switch; a sentence about each port."""
        left = {intent.switch for intent in self._store.intents()}
        said: list[str] = []

        def at(switch: Switch) -> list[str]:
            with hold_switch(self._store, switch, patience=0) as held, open_switch(switch) as poe:
                results = restore_left_off(self._store, poe) if held else []
            return [left_off(switch, result) for result in results]

        for switch in (each for each in switches if str(each.address) in left):
            try:
                said += at(switch)
            except SwitchError as error:
                said.append(f"{error}; a port may still be off there")
        return said

    def _record(self, outcomes: Iterable[Outcome], done: str, failed: str) -> None:
        for outcome in outcomes:
            if outcome.target.host:
                severity = Severity.INFO if outcome.ok else Severity.ERROR
                text = done or outcome.text if outcome.ok else f"{failed}: {outcome.text}"
                self._store.add_event(outcome.target.host.mac, time.time(), severity, text)

    def _act(self, targets: Sequence[Target], options: PowerOptions, act: PowerAct) -> list[Outcome]:
        """Work on all switches. Who interrupts waits until what is off is on again, and is then obeyed."""
        groups: dict[int, list[Target]] = {}
        for target in targets:
            groups.setdefault(target.switch.index, []).append(target)
        boards = {row.mac for row in self._store.pis()} | {target.host.mac for target in targets if target.host}
        guard = Guard(own_macs(), frozenset(boards), options.force)
        stopping = self._stopping()
        with ThreadPoolExecutor(max(len(groups), 1), "power") as pool:
            futures = [pool.submit(self._act_on_switch, group, guard, act, stopping) for group in groups.values()]
            try:
                return [outcome for future in futures for outcome in future.result()]
            except BaseException:
                stopping.set()
                _outlast(futures)
                raise

    def _act_on_switch(
        self, targets: Sequence[Target], guard: Guard, act: PowerAct, stopping: threading.Event
    ) -> list[Outcome]:
        """One switch's ports; a switch that fails fails them all."""
        switch, by_port = targets[0].switch, {target.port: target for target in targets}
        waiting = Waiting(stopping)

        def tell(port: int, text: str) -> None:
            target = by_port.get(port) or Target(switch, port, None)
            self._tell(target, text)
            if target.host and text == "on":
                with contextlib.suppress(StoreError):  # it only dates what the Pi does next
                    self._store.add_power_on(target.host.mac, time.time())

        def tell_of_others() -> None:
            tell(targets[0].port, "waits: somebody else is switching ports there")

        try:
            with hold_switch(self._store, switch, on_wait=tell_of_others, wait=waiting), open_switch(switch) as poe:
                for result in restore_left_off(self._store, poe, waiting):
                    tell(result.port, left_off(switch, result))
                results = act(poe, list(by_port), guard, tell, waiting)
        except (SwitchError, InterruptionError) as error:
            return [Outcome(target, ok=False, text=str(error)) for target in targets]
        return [Outcome(by_port[result.port], result.ok, result.text) for result in results]

    def reinstall(
        self, targets: Sequence[Target], options: PowerOptions = DEFAULT
    ) -> tuple[dict[str, str], list[Outcome]]:
        """Order a fresh install of exactly these Pis and power-cycle them -> token of each MAC's order, outcomes.

        An order whose Pi was not power-cycled is taken back: it must not be formatted at some later reboot.
        OperationError where there is a target with no Pi; nothing was ordered then.
        """
        check_pis(targets)
        orders: dict[str, str] = {}
        try:
            for mac in (target.host.mac for target in targets if target.host):
                orders[mac] = self._store.order_install(mac, time.time(), self._by)
                self._store.add_event(mac, time.time(), Severity.INFO, f"reinstall ordered by {self._by}")
            outcomes = self.cycle(targets, options)
        except BaseException:  # Ctrl-C among them: nobody knows which Pis boot now, so none is to be formatted
            self._cancel(orders)
            raise
        failed = {each.target.host.mac for each in outcomes if not each.ok and each.target.host}
        self._cancel({mac: token for mac, token in orders.items() if mac in failed})
        return orders, outcomes

    def _cancel(self, orders: Mapping[str, str]) -> None:
        """Take back orders, unless they were carried out or replaced meanwhile."""
        for mac, token in orders.items():
            if self._store.complete_order(mac, token):
                self._store.add_event(mac, time.time(), Severity.ERROR, "reinstall cancelled: no power cycle")


PowerAct = Callable[[PoeSwitch, list[int], Guard, PortTell, Waiting], list[PortResult]]


def _outlast(futures: Iterable[Future[list[Outcome]]]) -> None:
    """Until all ports are on, even if somebody who is impatient interrupts again."""
    for _again in range(PATIENCE):
        with contextlib.suppress(KeyboardInterrupt):
            wait(futures)
            return


def check_pis(targets: Iterable[Target]) -> None:
    """OperationError where a target has no Pi that could be reinstalled."""
    nameless = ", ".join(target.label for target in targets if target.host is None)
    if nameless:
        raise OperationError(f"{nameless}: config.yaml and hosts.csv name no Pi there, so none can be reinstalled")


def judge_installs(
    waiting: Iterable[Host], rows: Mapping[str, PiRow], pending: Mapping[str, str], orders: Mapping[str, str]
) -> tuple[list[Host], list[Host]]:
    """Of the Pis waited for: those that are installed and up, and those that failed.

    rows     the board, only of Pis that did anything since the orders were given
    pending  the tokens of orders not yet carried out
    orders   the tokens that were given
    """
    done, broken = [], []
    for host in waiting:
        row = rows.get(host.mac)
        if row is None:
            continue
        if row.stage == Stage.FAILED:
            broken.append(host)
        elif row.stage == Stage.UP and pending.get(host.mac) != orders[host.mac]:
            done.append(host)
    return done, broken


# ---------------------------------------------------------------------------------------------------------- adopting


def strangers(hosts: Hosts, rows: Iterable[PiRow]) -> tuple[str, ...]:
    """The MACs of Raspberry Pis that asked for an address and are not in hosts.csv."""
    # What only a Raspberry Pi's boot loader tells of itself, and what the DHCP policy took for one.
    unknown = (row for row in rows if not hosts.find(row.mac))
    return tuple(row.mac for row in unknown if row.facts.keys() & {"waiting", "model", "serial"})


def adopt(hosts: Hosts, mac: str, name: str = "", address: str = "0.0.0.0") -> Host:
    """Write one Pi into hosts.csv (opened to write); it gets a free address for 0.0.0.0. OperationError."""
    try:
        mac = parse_mac(mac)
        known = hosts.find(mac)
        if known:
            raise OperationError(f"{known.mac} is in hosts.csv already, as {known.name}")
        return hosts.add(mac, IPv4Address(address), name or f"pi-{mac.replace(':', '')[-6:]}")
    except ConfigError as error:
        raise OperationError(str(error)) from None
    except ValueError as error:
        raise OperationError(str(error), usage=True) from None
    except OSError as error:
        raise OperationError(f"hosts.csv could not be written: {error.strerror}") from None


def choose_image(config: Config, name: str, who: str) -> StoredImage:
    """Let new installations have that image, or the only one whose name begins so. OperationError."""
    from utility.images import ImportFailedError, use_image  # noqa: PLC0415  # few commands unpack anything

    try:
        chosen = use_image(config.image, name)
    except ImportFailedError as error:
        raise OperationError(str(error)) from None
    except OSError as error:
        raise OperationError(f"{error.filename or config.image}: {error.strerror or error}") from None
    with contextlib.suppress(StoreError):  # it is for the record
        if (config.state_dir / "piman.db").exists():
            with Store(config.state_dir / "piman.db") as store:
                text = f"new installations get {chosen.name}, chosen by {who}"
                store.add_event("", time.time(), Severity.INFO, text)
    return chosen
