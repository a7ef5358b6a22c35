"""The virtual PoE switch as a manager sees it: net-snmp's snmpd, with the tables of one of the families behind it.

snmpd speaks SNMP in all its versions; what is in the tables it asks of us over AgentX. `LabSwitch` is the switch of a
rack: a bridge of the kernel, and Pis whose power it cuts. `FamilySwitch` has no network: devices that are a MAC and an
appetite, for tests of those who talk to switches. Builds no network and starts no Pi: the rack does, and is told when a
port's power changes.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import logging
import math
import os
import random
import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lab.agentx import Agent, Cell, Mib, Oid
from lab.families import (
    DELIVERING,
    DISABLED,
    FAMILIES,
    SEARCHING,
    BridgeState,
    Family,
    Neighbour,
    Quirks,
    Socket,
    bridge_cells,
    interface_cells,
    lay_out,
    lldp_cells,
    poe_cells,
    roots,
    system_cells,
    vlan_cells,
    with_quirks,
)
from lab.namespaces import network_namespace
from lab.replay import Record

log = logging.getLogger("piman.lab.switch")

BUDGET = 370_000  # milliwatts of a usual switch with 24 ports
MILLIWATTS = 4000  # of a Pi at work
RETRY = 1.0  # seconds after which a port that the budget had nothing for asks again
FRESH = 0.2  # seconds for which the bridge's tables are believed: a walk asks hundreds of times
MOMENT = 0.01  # the same, where to look costs a tenth of a millisecond
START_TIME = 5.0

# The parts of snmpd a switch has; the others show the processes and packages of this machine.
_MODULES = "snmpEngine,snmpMPDStats,usmStats,usmUser,usmConf,vacm_conf,vacm_vars,target_counters"
_KERNEL_MODULES = f"{_MODULES},interface,ifTable,ifXTable"
_BEHIND = 10_000  # added to the port: where snmpd is when something of ours stands before it


# ------------------------------------------------------------------------------------------------------------ the power


@dataclass(slots=True)
class _Port:
    on: bool = True
    word: int | None = None
    ready: float = 0.0  # when its detection is through, or asks for power again
    fed: bool = False
    since: float = 0.0  # when `fed` or `on` last changed
    denied: int = 0


class PoePorts:
    """The power of some ports; off -> disabled, on -> searching -> delivering. `_lock` guards them.

    ports               on at first, but for those in `off`
    on_power(port, on)  is called when a port's power changes; where `detect` is 0, before the switch answers
    delivering(port)    whether something takes the power it is given
    wants(port)         whether something is there that would; `milliwatts(port)` of it
    detect              seconds from on to the first power; `budget` in milliwatts, 0 is without end
    """

    def __init__(
        self,
        ports: Iterable[int],
        on_power: Callable[[int, bool], None],
        delivering: Callable[[int], bool] = lambda _port: True,
        *,
        wants: Callable[[int], bool] = lambda _port: True,
        milliwatts: Callable[[int], int] = lambda _port: MILLIWATTS,
        off: Iterable[int] = (),
        detect: float = 0.0,
        budget: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_power, self._delivering, self._wants, self._milliwatts = on_power, delivering, wants, milliwatts
        self._detect, self._budget, self._clock = detect, budget, clock
        self._lock = threading.Lock()
        start = clock()
        self._ports = {number: _Port(since=start, ready=start) for number in ports}
        for number in off:
            self._ports[number].on = False
        self.numbers = frozenset(self._ports)
        self._due = start  # nothing to do before
        self._feed(start)

    @property
    def budget(self) -> int:
        return self._budget or BUDGET

    def is_on(self, port: int) -> bool:
        """Whether the port may give power; KeyError for one that is not there."""
        with self._lock:
            return self._ports[port].on

    def word(self, port: int) -> int | None:
        """The value that it was switched on with, where that matters."""
        return self._ports[port].word

    def fed_since(self, port: int) -> float | None:
        """When its power came; None while it has none."""
        self.advance()
        with self._lock:
            return self._ports[port].since if self._ports[port].fed else None

    def detection(self, port: int) -> int:
        """pethPsePortDetectionStatus."""
        fed = self.fed_since(port) is not None
        if not self.is_on(port):
            return DISABLED
        return DELIVERING if fed and self._delivering(port) else SEARCHING

    def milliwatts(self, port: int) -> int:
        return self._milliwatts(port) if self.detection(port) == DELIVERING else 0

    def denied(self, port: int) -> int:
        """pethPsePortPowerDeniedCounter."""
        self.advance()
        return self._ports[port].denied

    def switch(self, port: int, on: bool, word: int | None = None) -> None:
        """KeyError for a port that is not there."""
        with self._lock:
            it, now = self._ports[port], self._clock()
            it.word = word if on else it.word
            changed, was_fed = it.on != on, it.fed
            if changed:
                it.on, it.fed, it.since, it.ready = on, False, now, now + self._detect
                self._due = min(self._due, it.ready)
        if changed and was_fed:
            self._on_power(port, False)
        self.advance()

    def replug(self, port: int) -> None:
        """Something else is there now: detection begins anew."""
        with self._lock:
            it, now = self._ports[port], self._clock()
            it.fed, it.since, it.ready = False, now, now + self._detect
            self._due = min(self._due, it.ready)
        self.advance()

    def advance(self) -> None:
        """Do what has become due since."""
        with self._lock:
            now = self._clock()
            fed = self._feed(now) if now >= self._due else []
        for port in fed:
            self._on_power(port, True)

    def deadline(self) -> float | None:
        """When `advance` has something to do; None: not before the next order."""
        with self._lock:
            return self._due if self._due < math.inf else None

    def _feed(self, now: float) -> list[int]:
        waiting = [
            (it.ready, number)
            for number, it in self._ports.items()
            if it.on and not it.fed and it.ready <= now and self._wants(number)
        ]
        fed = []
        left = self._budget - sum(self._milliwatts(number) for number, it in self._ports.items() if it.fed)
        for _, number in sorted(waiting):
            it, needed = self._ports[number], self._milliwatts(number)
            if self._budget and needed > left:
                times = int((now - it.ready) // RETRY) + 1
                it.denied += times
                it.ready += times * RETRY
                continue
            left -= needed
            it.fed, it.since = True, max(it.ready, it.since)
            fed.append(number)
        later = (it.ready for number, it in self._ports.items() if it.on and not it.fed and self._wants(number))
        self._due = min(later, default=math.inf)
        return fed


# ------------------------------------------------------------------------------------------------------------ the agent


@dataclass(frozen=True, slots=True)
class User:
    """Of SNMP v3, authPriv; the passwords have at least 8 characters. Protocols by snmpd's names: SHA-256, AES."""

    name: str
    auth_password: str
    priv_password: str
    auth: str = "SHA-256"
    priv: str = "AES"
    may_write: bool = True


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask a switch; without a `write_community` nobody sets anything by versions 1 and 2c."""

    read_community: str = "public"
    write_community: str = "private"
    users: tuple[User, ...] = ()


def render_configuration(access: Access, address: str, port: int, vlans: Iterable[int] = ()) -> str:
    """snmpd.conf. `vlans` have a context each, vlan-N, and communities of their own, NAME@N."""
    lines = [
        f"agentaddress udp:{address}:{port}",
        "master agentx",
        "agentXSocket unix:agentx",
        "agentXTimeout 10",
        f'rocommunity "{access.read_community}"',
        "view everything included .1",
    ]
    if access.write_community:
        lines.append(f'rwcommunity "{access.write_community}"')
    for vlan in vlans:
        for kind, community in (("read", access.read_community), ("write", access.write_community)):
            if community:
                write = "everything" if kind == "write" else "none"
                name = f"{kind}{vlan}"
                lines += [
                    f'com2sec -Cn vlan-{vlan} {name} default "{community}@{vlan}"',
                    f"group {name} v1 {name}",
                    f"group {name} v2c {name}",
                    f"access {name} vlan-{vlan} any noauth exact everything {write} none",
                ]
    for user in access.users:
        write = "everything" if user.may_write else "none"
        lines += [
            f'createUser {user.name} {user.auth} "{user.auth_password}" {user.priv} "{user.priv_password}"',
            f"group {user.name} usm {user.name}",
            f'access {user.name} "" usm priv prefix everything {write} none',
        ]
    lines += ["dontLogTCPWrappersConnects yes", "[snmp] persistentDir .", "[snmp] noPersistentSave yes", "[snmpd]"]
    return "\n".join(lines) + "\n"


class SwitchAgent:
    """A snmpd with our tables behind it and, where a quirk asks for that, a `Front` before it.

    directory   for snmpd's files; made, and left behind
    namespace   the network namespace it is to run in; "" is the caller's
    roots       what is registered, by context
    table       the objects of now, by context; called in one thread
    """

    def __init__(
        self,
        directory: Path,
        address: str,
        port: int,
        access: Access,
        roots: Mapping[str, Sequence[Oid]],
        table: Callable[[str], Mib],
        *,
        namespace: str = "",
        quirks: Quirks | None = None,
        modules: str = _MODULES,
    ) -> None:
        self._directory, self._namespace, self._roots, self._table = directory, namespace, roots, table
        self._address, self._port, self._quirks, self._modules = address, port, quirks or Quirks(), modules
        self._has_front = bool(self._quirks.delay or self._quirks.loss or self._quirks.bulk_silence)
        behind = (port + _BEHIND) % 65536 if self._has_front else port
        vlans = [int(context.removeprefix("vlan-")) for context in roots if context]
        self._behind = (address, behind)
        self._configuration = render_configuration(access, address, behind, vlans)
        self._snmpd: subprocess.Popen[bytes] | None = None
        self._agent: Agent | None = None
        self._front: Front | None = None

    def start(self) -> None:
        """It answers when this returns. RuntimeError with snmpd's own words if it does not come up."""
        self._directory.mkdir(parents=True, exist_ok=True)
        configuration = self._directory / "snmpd.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(self._configuration, encoding="utf-8")
        for name in ("snmpd.log", "agentx"):
            (self._directory / name).unlink(missing_ok=True)
        # snmpd works in our directory, and every path we give it is relative: it splits its lines at blanks.
        command = [_tool("ip"), "netns", "exec", self._namespace] if self._namespace else []
        command += [_tool("snmpd"), "-f", "-r", "-C", "-c", "snmpd.conf", "-Lf", "snmpd.log", "-m", ""]
        nowhere = subprocess.DEVNULL
        self._snmpd = subprocess.Popen(
            [*command, "-I", self._modules], cwd=self._directory, stdin=nowhere, stdout=nowhere, stderr=nowhere
        )
        try:
            self._await_snmpd(self._snmpd)
            self._agent = Agent(self._directory / "agentx", self._roots, self._table, f"switch {self._address}")
            if self._has_front:
                with network_namespace(self._namespace) if self._namespace else contextlib.nullcontext():
                    self._front = Front((self._address, self._port), self._behind, self._quirks)
        except BaseException as error:
            self.stop()
            if isinstance(error, (OSError, EOFError)):
                raise RuntimeError(f"the agent of {self._address} did not start: {error}") from error
            raise

    def stop(self) -> None:
        """Any number of times."""
        if self._front:
            self._front.close()
            self._front = None
        if self._snmpd:
            self._snmpd.terminate()
            try:
                self._snmpd.wait(2)
            except subprocess.TimeoutExpired:
                self._snmpd.kill()
                self._snmpd.wait()
            self._snmpd = None
        if self._agent:
            self._agent.close()
            self._agent = None

    def _await_snmpd(self, snmpd: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIME
        file = self._directory / "snmpd.log"
        while True:
            said = file.read_text(errors="replace") if file.exists() else ""
            if "NET-SNMP version" in said:  # its last line before it serves
                return
            if snmpd.poll() is not None or time.monotonic() > deadline:
                lines = [line for line in said.splitlines() if line and not line.startswith("Server Exiting")]
                last = lines[-1] if lines else "it says nothing; is the namespace there?"
                where = self._namespace or self._address
                raise RuntimeError(f"snmpd of the lab's switch in {where} did not start: {last}")
            time.sleep(0.01)


def pdu_tag(message: bytes) -> int:
    """The tag of the PDU in a message of version 1 or 2c: 0xA5 is GETBULK. 0 for anything else, v3 too."""
    place = 0
    for tag in (0x30, 0x02, 0x04):
        if len(message) < place + 2 or message[place] != tag:
            return 0
        length = message[place + 1]
        place += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(message[place : place + size], "big")
            place += size
        place += 0 if tag == 0x30 else length
    return message[place] if place < len(message) else 0


class Front:
    """Stands before a snmpd and makes it slow, lossy, or silent after a GETBULK, from its construction to `close`."""

    def __init__(self, address: tuple[str, int], behind: tuple[str, int], quirks: Quirks) -> None:
        self._quirks, self._behind = quirks, behind
        self._random = random.Random(quirks.seed)
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._listener.bind(address)
        except OSError:
            self._listener.close()
            raise
        self._wake, self._woken = socket.socketpair()
        self._clients: dict[tuple[str, int], socket.socket] = {}
        self._queue: list[tuple[float, int, bytes, tuple[str, int]]] = []
        self._order = itertools.count()
        self._free = self._silent = 0.0
        # Its sockets are made in the thread that made it: that one is in the right namespace.
        self._spare = [self._upstream() for _ in range(16)]
        self._thread = threading.Thread(target=self._run, name="lab-switch-front", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._wake.send(b"x")
        self._thread.join()
        for each in (self._listener, self._wake, self._woken, *self._clients.values(), *self._spare):
            each.close()

    def _upstream(self) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.connect(self._behind)
        return made

    def _run(self) -> None:
        while True:
            timeout = max(0.0, self._queue[0][0] - time.monotonic()) if self._queue else None
            ready, _, _ = select.select([self._listener, self._woken, *self._clients.values()], [], [], timeout)
            if self._woken in ready:
                return
            self._pass_on()
            for client, upstream in list(self._clients.items()):
                if upstream in ready:
                    with contextlib.suppress(OSError):
                        answer = upstream.recv(65536)
                        if not self._lost():
                            self._listener.sendto(answer, client)
            if self._listener in ready:
                with contextlib.suppress(OSError):
                    self._take(*self._listener.recvfrom(65536))

    def _lost(self) -> bool:
        return self._random.random() < self._quirks.loss

    def _take(self, request: bytes, client: tuple[str, int]) -> None:
        now = time.monotonic()
        if self._quirks.bulk_silence and pdu_tag(request) == 0xA5:
            self._silent = now + self._quirks.bulk_silence
        if now < self._silent or self._lost():
            return
        self._free = max(now, self._free) + self._quirks.delay
        heapq.heappush(self._queue, (self._free, next(self._order), request, client))

    def _pass_on(self) -> None:
        while self._queue and self._queue[0][0] <= time.monotonic():
            _, _, request, client = heapq.heappop(self._queue)
            upstream = self._clients.pop(client, None)
            if upstream is None:  # the one that has been quiet longest gives its socket up
                upstream = self._spare.pop() if self._spare else self._clients.pop(next(iter(self._clients)))
            self._clients[client] = upstream
            with contextlib.suppress(OSError):
                upstream.send(request)


# --------------------------------------------------------------------------------------------------------- the switches


class _Switch:
    """What both kinds of switches have: a face, power, and the tables of a family or of a record. A families.State.

    Its methods may be called from any thread.
    """

    def __init__(
        self,
        family: Family,
        sockets: tuple[Socket, ...],
        poe: PoePorts,
        *,
        name: str,
        quirks: Quirks,
        record: Record | None,
        own_interfaces: bool,
    ) -> None:
        self.family, self.sockets, self.poe = family, sockets, poe
        self.name, self.quirks, self.record = name, quirks, record
        self._own_interfaces = own_interfaces
        self._started = time.monotonic()
        self._table_lock = threading.Lock()
        self._fixed: dict[Oid, Cell] = {}
        self._tables: dict[str, tuple[object, Mib]] = {}

    # -- what the tables show

    def uptime(self) -> float:
        return time.monotonic() - self._started

    def is_on(self, number: int) -> bool:
        return self.poe.is_on(number)

    def admin(self, number: int) -> bool:
        """Whether the port's power is on; KeyError for a port that has no PoE."""
        return self.poe.is_on(number)

    def word(self, number: int) -> int | None:
        return self.poe.word(number)

    def switch_power(self, number: int, on: bool, word: int | None = None) -> bool:
        if not self.quirks.does_nothing:
            self.poe.switch(number, on, word)
        return True

    def detection(self, number: int) -> int:
        return self.poe.detection(number)

    def milliwatts(self, number: int) -> int:
        return self.poe.milliwatts(number)

    def power_class(self, _number: int) -> int:
        return 0

    def denied(self, number: int) -> int:
        return self.poe.denied(number)

    def budget(self) -> int:
        return self.poe.budget

    def bridge_state(self) -> BridgeState:
        raise NotImplementedError

    def neighbours(self) -> Mapping[int, Neighbour]:
        raise NotImplementedError

    def is_up(self, number: int) -> bool:
        return number in self.bridge_state().up

    def interface_on(self, _number: int) -> bool:
        return True

    def switch_interface(self, _number: int, _on: bool) -> bool:
        return False

    # -- the tables

    def socket(self, number: int) -> Socket:
        """Of the face; KeyError."""
        for each in self.sockets:
            if each.number == number:
                return each
        raise KeyError(number)

    def contexts(self) -> dict[str, list[Oid]]:
        """What is registered with snmpd."""
        if self.record:
            return {"": self.record.roots()}
        bases = roots(self.family, own_interfaces=self._own_interfaces)
        vlans = sorted({1, *(each.vlan for each in self.sockets)}) if self.family.fdb == "vlan" else []
        return {"": bases, **{f"vlan-{vlan}": bases for vlan in vlans}}

    def table(self, context: str) -> Mib:
        """The objects of now."""
        with self._table_lock:
            if self.record:
                if "" not in self._tables:
                    self._tables[""] = (None, Mib(self.record.cells(self)))
                return self._tables[""][1]
            state, neighbours = self.bridge_state(), dict(self.neighbours())
            seen = (state, neighbours)
            if context not in self._tables or self._tables[context][0] != seen:
                if not self._fixed:
                    self._fixed = self._fixed_cells(state.mac)
                vlan = int(context.removeprefix("vlan-") or "1") if self.family.fdb == "vlan" else 0
                cells = self._fixed | bridge_cells(self.family, self.sockets, state, vlan)
                cells |= lldp_cells(self.family, self.sockets, neighbours)
                self._tables[context] = (seen, Mib(cells))
            return self._tables[context][1]

    def _fixed_cells(self, mac: str) -> dict[Oid, Cell]:
        cells = system_cells(self.family, self) | poe_cells(self.family, self.sockets, self)
        if self._own_interfaces:
            cells |= interface_cells(self.family, self.sockets, self, mac)
        if self.family.fdb == "vlan":
            cells |= vlan_cells(self.sockets)
        return cells


def _powered(sockets: tuple[Socket, ...], record: Record | None) -> tuple[list[int], list[int]]:
    """The ports with PoE, and those of them that are off at first."""
    if record:
        return record.ports(), record.off()
    return [each.number for each in sockets if each.has_poe], []


def find_family(name: str) -> Family:
    """ValueError with the names there are."""
    try:
        return FAMILIES[name]
    except KeyError:
        raise ValueError(f"no family of switches {name!r}; there are {', '.join(FAMILIES)}") from None


class LabSwitch(_Switch):
    """The switch of a rack.

    namespace  the network namespace its bridge is in, as `ip netns` names it
    bridge     the bridge's interface; `ports` those of its ports 1, 2 ... in order; `uplink` and `trunks` follow
    address    the address of the switch in that namespace
    directory  for snmpd's files; made, and left behind
    record     a recorded switch to show in place of a family

    `on_power`, `delivering`, `detect` and `budget`: see PoePorts; the functions are called in the agent's threads and
    must not call back. The family "standard" shows the kernel's own interfaces, any other its own names and ifIndexes.
    """

    def __init__(
        self,
        namespace: str,
        bridge: str,
        ports: Sequence[str],
        address: object,
        directory: Path,
        on_power: Callable[[int, bool], None],
        delivering: Callable[[int], bool],
        *,
        uplink: str = "",
        trunks: Sequence[str] = (),
        name: str = "lab-switch",
        read_community: str = "public",
        write_community: str = "private",
        users: tuple[User, ...] = (),
        port: int = 161,
        family: str = "standard",
        quirks: Quirks | None = None,
        wants: Callable[[int], bool] = lambda _port: True,
        detect: float = 0.0,
        budget: int = 0,
        record: Record | None = None,
    ) -> None:
        quirks = quirks or Quirks()
        chosen = with_quirks(find_family(family), quirks)
        self.namespace = namespace
        self.bridge = bridge
        self.names = [*ports, *([uplink] if uplink else []), *trunks]
        self.directory = directory
        self._rack_power = on_power
        self._around: dict[int, Neighbour] = {}
        sockets = lay_out(chosen, len(ports), 1, len(self.names) - len(ports), without_poe=quirks.without_poe)
        powered, off = _powered(sockets, record)
        poe = PoePorts(powered, self._power_changes, delivering, wants=wants, off=off, detect=detect, budget=budget)
        own = family != "standard"
        super().__init__(chosen, sockets, poe, name=name, quirks=quirks, record=record, own_interfaces=own)
        self._state_lock = threading.Lock()
        self._state = BridgeState("00:00:00:00:00:00", frozenset(), {}, {})
        self._state_until = 0.0
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._ticker: threading.Thread | None = None
        self._agent = SwitchAgent(
            directory,
            str(address),
            port,
            Access(read_community, write_community, users),
            self.contexts(),
            self.table,
            namespace=namespace,
            quirks=quirks,
            modules=_MODULES if own or record else _KERNEL_MODULES,
        )

    def start(self) -> None:
        """Start the agent; it answers when this returns. RuntimeError with snmpd's own words if it does not come up."""
        self._stopping.clear()
        if not self._own_interfaces:
            self._take_kernel_interfaces()
        self._agent.start()
        self._ticker = threading.Thread(target=self._tick, name="lab-switch-power", daemon=True)
        self._ticker.start()

    def stop(self) -> None:
        """End the agent; any number of times."""
        self._stopping.set()
        self._wake.set()
        if self._ticker:
            self._ticker.join()
            self._ticker = None
        self._agent.stop()

    def feeds(self, number: int) -> bool:
        """Whether the port gives power; one without PoE has something with a supply of its own."""
        return number not in self.poe.numbers or self.poe.fed_since(number) is not None

    def meet(self, number: int, neighbour: Neighbour) -> None:
        """From now on this one answers LLDP on that port."""
        self._around[number] = neighbour

    def port_name(self, number: int) -> str:
        return self.socket(number).name if self._own_interfaces else self.names[number - 1]

    def switch_power(self, number: int, on: bool, word: int | None = None) -> bool:
        done = super().switch_power(number, on, word)
        self._wake.set()
        return done

    def neighbours(self) -> Mapping[int, Neighbour]:
        return self._around

    def bridge_state(self) -> BridgeState:
        """The bridge is asked anew after FRESH seconds."""
        with self._state_lock:
            if time.monotonic() > self._state_until:
                self._state = parse_bridge(
                    self._ask("ip", "-n", self.namespace, "-d", "-j", "link", "show"),
                    self._ask("bridge", "-n", self.namespace, "-j", "fdb", "show", "br", self.bridge),
                    self.bridge,
                    self.names,
                )
                self._state_until = time.monotonic() + FRESH
            return self._state

    def _power_changes(self, port: int, on: bool) -> None:
        self._rack_power(port, on)
        with self._state_lock:
            self._state_until = 0.0  # the link went down or up, and MACs with it

    def _tick(self) -> None:
        """Give power when detection is through, or the budget has some again."""
        while not self._stopping.is_set():
            deadline = self.poe.deadline()
            self._wake.wait(None if deadline is None else max(0.01, deadline - time.monotonic()))
            self._wake.clear()
            if not self._stopping.is_set():
                self.poe.advance()

    def _take_kernel_interfaces(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):  # no such namespace: snmpd will say so
            links = json.loads(self._ask("ip", "-n", self.namespace, "-j", "link", "show"))
            indexes = {link["ifname"]: link["ifindex"] for link in links}
            self.sockets = tuple(
                replace(each, name=name, descr=name, if_index=indexes.get(name, 0))
                for each, name in zip(self.sockets, self.names, strict=True)
            )

    def _ask(self, tool: str, *arguments: str) -> str:
        done = subprocess.run([_tool(tool), *arguments], capture_output=True, text=True, check=True, timeout=5)
        return done.stdout or "[]"


def parse_bridge(links: str, entries: str, bridge: str, names: Sequence[str]) -> BridgeState:
    """The bridge's state from the JSON of `ip -d -j link` and `bridge -j fdb`; `names[i]` is the port i + 1."""
    numbers = {name: number for number, name in enumerate(names, 1)}
    mac, up, stp = "00:00:00:00:00:00", set(), {}
    for link in json.loads(links):
        name = link["ifname"]
        if name == bridge:
            mac = link["address"]
        if name in numbers:
            stp[numbers[name]] = link.get("linkinfo", {}).get("info_slave_data", {}).get("state", "disabled")
            if link.get("operstate") == "UP":
                up.add(numbers[name])
    learned = {
        entry["mac"]: numbers[entry["ifname"]]
        for entry in json.loads(entries)
        # Permanent entries are the bridge's and its ports' own addresses and multicast groups.
        if entry.get("state") != "permanent" and entry["ifname"] in numbers and entry.get("master") == bridge
    }
    return BridgeState(mac, frozenset(up), stp, learned)


@dataclass(frozen=True, slots=True)
class Device:
    """What is plugged into a port of a FamilySwitch.

    macs         that it shows; a trunk has more than one
    needs_power  False: it has a supply of its own
    link_delay   seconds from power to link
    is_silent    it has a link and says nothing: the forwarding table does not know it
    vlan         0: its port's
    """

    macs: tuple[str, ...]
    needs_power: bool = True
    milliwatts: int = MILLIWATTS
    power_class: int = 0
    link_delay: float = 0.0
    is_silent: bool = False
    vlan: int = 0


@dataclass(slots=True)
class _Cable:
    """From one switch to another."""

    other: FamilySwitch
    port: int
    neighbour: Neighbour


class FamilySwitch(_Switch):
    """A switch without a network, for those who ask it over SNMP: `with FamilySwitch("procurve", folder) as switch:`.

    Answers on address:port of the network namespace that `start` is called in; the whole of 127.0.0.0/8 is there.

    devices   by the port's number on the face; `plug` and `unplug` change them
    ports     with PoE, of each of the `members`; `uplinks` beside them
    vlan      of all ports
    told      what was switched, in order: (number, on)
    """

    def __init__(
        self,
        family: str | Family,
        directory: Path,
        address: str = "127.0.0.1",
        *,
        port: int = 161,
        devices: Mapping[int, Device] | None = None,
        ports: int = 24,
        members: int = 1,
        uplinks: int = 2,
        vlan: int = 1,
        name: str = "",
        mac: str = "02:00:00:00:00:fe",
        access: Access | None = None,
        quirks: Quirks | None = None,
        detect: float = 0.0,
        budget: int = 0,
        record: Record | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        quirks = quirks or Quirks()
        chosen = with_quirks(find_family(family) if isinstance(family, str) else family, quirks)
        self.address, self.port, self.mac = address, port, mac
        self._devices = dict(devices or {})
        self._device_lock = threading.Lock()
        self._cables: dict[int, _Cable] = {}
        self._interfaces_off: set[int] = set()
        self._clock = clock
        self._changes = 0  # of what we were told: a state seen before the last one counts no more
        self._seen: tuple[int, float, BridgeState] | None = None
        self.told: list[tuple[int, bool]] = []
        sockets = lay_out(chosen, ports, members, uplinks, vlan=vlan, without_poe=quirks.without_poe)
        powered, off = _powered(sockets, record)
        poe = PoePorts(
            powered,
            lambda _port, _on: None,
            wants=self._wants,
            milliwatts=lambda number: self._devices[number].milliwatts if number in self._devices else 0,
            off=off,
            detect=detect,
            budget=budget,
            clock=clock,
        )
        super().__init__(
            chosen, sockets, poe, name=name or f"lab-{chosen.name}", quirks=quirks, record=record, own_interfaces=True
        )
        self._agent = SwitchAgent(
            directory, address, port, access or Access(), self.contexts(), self.table, quirks=quirks
        )

    def __enter__(self) -> FamilySwitch:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def start(self) -> None:
        """It answers when this returns. RuntimeError with snmpd's own words if it does not come up."""
        self._agent.start()

    def stop(self) -> None:
        """Any number of times."""
        self._agent.stop()

    def plug(self, number: int, device: Device | None) -> None:
        """Put a device into a port, or with None take out what is there."""
        with self._device_lock:
            self._devices.pop(number, None)
            if device is not None:
                self._devices[number] = device
        with contextlib.suppress(KeyError):  # a port without PoE
            self.poe.replug(number)
        self._changes += 1

    def connect(self, number: int, other: FamilySwitch, its: int) -> None:
        """Lay a cable from a port of ours to one of another switch: both are LLDP neighbours and see what is behind."""
        self._cables[number] = _Cable(other, its, Neighbour(other.name, other.mac, other.socket(its).name))
        other._cables[its] = _Cable(self, number, Neighbour(self.name, self.mac, self.socket(number).name))
        self._changes += 1
        other._changes += 1

    # -- what the tables show

    def switch_power(self, number: int, on: bool, word: int | None = None) -> bool:
        self.told.append((number, on))
        done = super().switch_power(number, on, word)
        self._changes += 1
        return done

    def power_class(self, number: int) -> int:
        device = self._devices.get(number)
        return device.power_class if device else 0

    def interface_on(self, number: int) -> bool:
        return number not in self._interfaces_off

    def switch_interface(self, number: int, on: bool) -> bool:
        """ifAdminStatus: takes the link away, and leaves the power."""
        (self._interfaces_off.discard if on else self._interfaces_off.add)(number)
        self._changes += 1
        return True

    def is_up(self, number: int) -> bool:
        if number in self._interfaces_off:
            return False
        if number in self._cables:
            return True
        device = self._devices.get(number)
        if device is None:
            return False
        if not device.needs_power:
            return True
        try:
            since = self.poe.fed_since(number)
        except KeyError:  # nothing feeds it here
            return False
        return since is not None and self._clock() >= since + device.link_delay

    def neighbours(self) -> Mapping[int, Neighbour]:
        return {number: cable.neighbour for number, cable in self._cables.items() if self.is_up(number)}

    def bridge_state(self) -> BridgeState:
        """Looked at anew after MOMENT seconds, and after each change of this switch."""
        changes, now = self._changes, self._clock()
        if self._seen and self._seen[0] == changes and now < self._seen[1] + MOMENT:
            return self._seen[2]
        up = frozenset(each.number for each in self.sockets if self.is_up(each.number))
        learned: dict[str, int] = {}
        vlans: dict[str, int] = {}
        for number, macs in self._macs(None, frozenset()).items():
            for mac, vlan in macs:
                learned[mac] = number
                vlans[mac] = vlan
        state = BridgeState(self.mac, up, dict.fromkeys(up, "forwarding"), learned, vlans)
        self._seen = (changes, now, state)
        return state

    def _macs(self, hidden: int | None, seen: frozenset[int]) -> dict[int, list[tuple[str, int]]]:
        """MACs with their VLAN by port; without what is behind the port `hidden` and the switches in `seen`."""
        found: dict[int, list[tuple[str, int]]] = {}
        for number, device in list(self._devices.items()):
            if number != hidden and not device.is_silent and self.is_up(number):
                vlan = device.vlan or self.socket(number).vlan
                found[number] = [(mac, vlan) for mac in device.macs]
        for number, cable in self._cables.items():
            if number != hidden and id(cable.other) not in seen and self.is_up(number):
                behind = cable.other._macs(cable.port, seen | {id(self)})
                found[number] = [(cable.other.mac, 1), *(each for macs in behind.values() for each in macs)]
        return found

    def _wants(self, number: int) -> bool:
        device = self._devices.get(number)
        return device is not None and device.needs_power


def _tool(name: str) -> str:
    """Where a program is: a user's PATH has no /usr/sbin on Debian."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if not found:
        raise RuntimeError(f"{name} is not installed; the Debian packages are snmpd and iproute2")
    return found
