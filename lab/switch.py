"""The virtual rack's PoE switch as a manager sees it: net-snmp's snmpd, with our PoE and bridge tables behind it.

snmpd speaks SNMP and shows the interfaces of the switch's network namespace. What it does not know, POWER-ETHERNET-MIB
(RFC 3621), BRIDGE-MIB (RFC 4188) and the forwarding table of Q-BRIDGE-MIB (RFC 4363), it asks of us over its
`pass_persist` protocol. Builds no network and starts no Pi: the lab does, and is told when a port's power changes.
"""

from __future__ import annotations

import bisect
import contextlib
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("piman.lab.switch")

Oid = tuple[int, ...]

POE: Oid = (1, 3, 6, 1, 2, 1, 105)
POE_PORT: Oid = (*POE, 1, 1, 1)
POE_MAIN: Oid = (*POE, 1, 3, 1, 1)
BRIDGE: Oid = (1, 3, 6, 1, 2, 1, 17)
BASE_PORT: Oid = (*BRIDGE, 1, 4, 1)
STP_PORT: Oid = (*BRIDGE, 2, 15, 1)
FDB: Oid = (*BRIDGE, 4, 3, 1)
VLAN_FDB: Oid = (*BRIDGE, 7, 1, 2, 2, 1)

GROUP = 1  # a simple switch has one group of PoE ports
VLAN = 1
ON, OFF = 1, 2  # TruthValue
DISABLED, SEARCHING, DELIVERING = 1, 2, 3  # pethPsePortDetectionStatus
LEARNED, SELF = 3, 4  # dot1dTpFdbStatus
BUDGET = 370  # watts of a usual switch with 24 ports
WATTS = 4  # of a Pi at work
CLASS_0 = 1  # the MIB counts class 0 as 1
STP_STATES = {"disabled": 1, "blocking": 2, "listening": 3, "learning": 4, "forwarding": 5}

FRESH = 0.2  # seconds for which the bridge's tables are believed: a walk asks hundreds of times
START_TIME = 5.0

# The parts of snmpd a switch has; the others show the processes and packages of this machine.
SNMPD_MODULES = (
    "snmp_mib,system_mib,sysORTable,snmpEngine,snmpMPDStats,usmStats,usmUser,usmConf,vacm_conf,vacm_vars,"
    "target_counters,interface,ifTable,ifXTable,pass_persist"
)


@dataclass(frozen=True, slots=True)
class BridgePort:
    """A port of the bridge. `number` is the one on the front panel, from 1; the uplink comes after the last."""

    number: int
    if_index: int
    name: str
    state: str = "forwarding"  # as `ip -d -j link` has it


@dataclass(frozen=True, slots=True)
class BridgeState:
    """What the kernel says of the bridge at one moment: its MAC, its ports, and MAC to port number of its table."""

    mac: str
    ports: tuple[BridgePort, ...]
    learned: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Cell:
    """One object: its type in the words of `pass_persist`, how to read it and, where it may be set, how to set it.

    `write` gets the new value and answers False for one it does not take.
    """

    kind: str
    read: Callable[[], int | str]
    write: Callable[[int], bool] | None = None


class Mib:
    """The objects, found by OID; not locked: only the agent's threads ask, and `rows` gives each a new table."""

    def __init__(self, cells: Mapping[Oid, Cell]) -> None:
        self._cells = dict(cells)
        self._order = sorted(self._cells)

    def find(self, oid: Oid) -> Cell | None:
        return self._cells.get(oid)

    def after(self, oid: Oid) -> Oid | None:
        """The next OID in the same MIB module as this one."""
        place = bisect.bisect_right(self._order, oid)
        following = self._order[place : place + 1]
        # snmpd takes what it is given: an answer from the other module would send a walk in circles.
        return following[0] if following and following[0][: len(POE)] == oid[: len(POE)] else None


def bridge_cells(state: BridgeState) -> dict[Oid, Cell]:
    """BRIDGE-MIB and the forwarding table of Q-BRIDGE-MIB."""
    entries = [(mac, port, LEARNED) for mac, port in state.learned.items()]
    entries.append((state.mac, 0, SELF))
    cells = {
        (*BRIDGE, 1, 1, 0): _octets(state.mac),
        (*BRIDGE, 1, 2, 0): _fixed("integer", len(state.ports)),
        (*BRIDGE, 1, 3, 0): _fixed("integer", 2),  # transparent-only
        (*BRIDGE, 4, 2, 0): _fixed("integer", 300),  # dot1dTpAgingTime
        (*BRIDGE, 7, 1, 2, 1, 1, 2, VLAN): _fixed("counter", len(state.learned)),  # dot1qFdbDynamicCount
        (*BRIDGE, 7, 1, 4, 2, 1, 3, 0, VLAN): _fixed("gauge", VLAN),  # dot1qVlanFdbId
    }
    for port in state.ports:
        cells[*BASE_PORT, 1, port.number] = _fixed("integer", port.number)
        cells[*BASE_PORT, 2, port.number] = _fixed("integer", port.if_index)
        cells[*BASE_PORT, 3, port.number] = _fixed("objectid", ".0.0")
        cells[*STP_PORT, 1, port.number] = _fixed("integer", port.number)
        cells[*STP_PORT, 3, port.number] = _fixed("integer", STP_STATES.get(port.state, 1))
    for mac, number, status in entries:
        digits = tuple(bytes.fromhex(mac.replace(":", "")))
        cells[*FDB, 1, *digits] = _octets(mac)
        cells[*FDB, 2, *digits] = cells[*VLAN_FDB, 2, VLAN, *digits] = _fixed("integer", number)
        cells[*FDB, 3, *digits] = cells[*VLAN_FDB, 3, VLAN, *digits] = _fixed("integer", status)
    return cells


def _fixed(kind: str, value: int | str) -> Cell:
    return Cell(kind, lambda: value)


def _octets(mac: str) -> Cell:
    return Cell("octet", lambda: mac.replace(":", " "))


class PoePorts:
    """The power of the ports 1 to `count`: on at first. `_lock` guards which are on.

    on_power(port, on) is called when a port's power changes, before the switch answers; delivering(port) says
    whether something takes power there.
    """

    def __init__(self, count: int, on_power: Callable[[int, bool], None], delivering: Callable[[int], bool]) -> None:
        self.count = count
        self._on_power = on_power
        self._delivering = delivering
        self._lock = threading.Lock()
        self._on = dict.fromkeys(range(1, count + 1), True)

    def is_on(self, port: int) -> bool:
        """Whether the port may give power; KeyError for one that is not there."""
        with self._lock:
            return self._on[port]

    def detection(self, port: int) -> int:
        """pethPsePortDetectionStatus."""
        if not self.is_on(port):
            return DISABLED
        return DELIVERING if self._delivering(port) else SEARCHING

    def set_admin(self, port: int, value: int) -> bool:
        """pethPsePortAdminEnable; False for a value that is no TruthValue."""
        if value not in {ON, OFF}:
            return False
        with self._lock:
            changed = self._on[port] != (value == ON)
            self._on[port] = value == ON
        if changed:
            self._on_power(port, value == ON)
        return True

    def consumption(self) -> int:
        """Watts."""
        return WATTS * sum(self.detection(port) == DELIVERING for port in range(1, self.count + 1))

    def cells(self) -> dict[Oid, Cell]:
        """POWER-ETHERNET-MIB."""
        cells = {
            (*POE_MAIN, 2, GROUP): _fixed("gauge", BUDGET),
            (*POE_MAIN, 3, GROUP): _fixed("integer", 1),  # on
            (*POE_MAIN, 4, GROUP): Cell("gauge", self.consumption),
            (*POE_MAIN, 5, GROUP): _fixed("integer", 80),  # percent at which a real one sends a trap
        }
        for port in range(1, self.count + 1):
            for column, cell in self._port_cells(port).items():
                cells[*POE_PORT, column, GROUP, port] = cell
        return cells

    def _port_cells(self, port: int) -> dict[int, Cell]:
        counters = dict.fromkeys((8, 11, 12, 13, 14), _fixed("counter", 0))
        return counters | {
            3: Cell(
                "integer",
                lambda: ON if self.is_on(port) else OFF,
                lambda value: self.set_admin(port, value),
            ),
            4: _fixed("integer", 2),  # the pairs cannot be chosen
            5: _fixed("integer", 1),  # signal pairs
            6: Cell("integer", lambda: self.detection(port)),
            7: _fixed("integer", 3),  # low priority
            9: _fixed("string", f"port {port}"),
            10: _fixed("integer", CLASS_0),
        }


# The words of `pass_persist`, and by how many more lines each is followed.
_ARGUMENTS = {"PING": 0, "get": 1, "getnext": 1, "set": 2}


class PassPersist:
    """The agent's side of `pass_persist` (snmpd.conf(5)): lines in, lines out. `table` gives the objects of now."""

    def __init__(self, table: Callable[[], Mib]) -> None:
        self._table = table
        self._lines: list[str] = []

    def feed(self, line: str) -> str:
        """The answer to the command that this line completes; "" while there is more to come."""
        if not line and not self._lines:
            return ""  # snmpd ends the value of a set with one line end too many
        self._lines.append(line)
        word = self._lines[0]
        if word not in _ARGUMENTS:
            self._lines.clear()
            return "NONE\n"
        if len(self._lines) <= _ARGUMENTS[word]:
            return ""
        arguments = self._lines[1:]
        self._lines.clear()
        if word == "PING":
            return "PONG\n"
        oid = parse_oid(arguments[0])
        if oid is None:
            return "NONE\n"
        return self._set(oid, arguments[1]) if word == "set" else self._get(oid, following=word == "getnext")

    def _get(self, oid: Oid, following: bool) -> str:
        table = self._table()
        found = table.after(oid) if following else oid
        cell = table.find(found) if found else None
        if found is None or cell is None:
            return "NONE\n"
        return f".{'.'.join(map(str, found))}\n{cell.kind}\n{cell.read()}\n"

    def _set(self, oid: Oid, text: str) -> str:
        cell = self._table().find(oid)
        if cell is None or cell.write is None:
            return "not-writable\n"
        kind, _, number = text.partition(" ")
        if kind != "integer":
            return "wrong-type\n"
        try:
            value = int(number)
        except ValueError:
            return "wrong-value\n"
        return "DONE\n" if cell.write(value) else "wrong-value\n"


def parse_oid(text: str) -> Oid | None:
    """`.1.3.6` -> (1, 3, 6); None for what is no OID."""
    try:
        return tuple(int(part) for part in text.strip().lstrip(".").split("."))
    except ValueError:
        return None


def parse_bridge(links: str, entries: str, bridge: str, names: Sequence[str]) -> BridgeState:
    """The bridge's state from the JSON of `ip -d -j link` and `bridge -j fdb`; `names[i]` is the port i + 1."""
    numbers = {name: number for number, name in enumerate(names, 1)}
    mac, ports = "00:00:00:00:00:00", []
    for link in json.loads(links):
        name = link["ifname"]
        if name == bridge:
            mac = link["address"]
        if name in numbers:
            state = link.get("linkinfo", {}).get("info_slave_data", {}).get("state", "disabled")
            ports.append(BridgePort(numbers[name], link["ifindex"], name, state))
    learned = {
        entry["mac"]: numbers[entry["ifname"]]
        for entry in json.loads(entries)
        # Permanent entries are the bridge's and its ports' own addresses and multicast groups.
        if entry.get("state") != "permanent" and entry["ifname"] in numbers and entry.get("master") == bridge
    }
    return BridgeState(mac, tuple(sorted(ports, key=lambda port: port.number)), learned)


def render_configuration(
    address: str, port: int, name: str, read_community: str, write_community: str, relay: Iterable[str]
) -> str:
    """snmpd.conf."""
    command = " ".join(relay)
    lines = [
        f"agentaddress udp:{address}:{port}",
        f'rocommunity "{read_community}"',
        f'rwcommunity "{write_community}"',
        "sysdescr Piman lab PoE switch",
        # The number of net-snmp, since nobody gives one to a switch that does not exist.
        "sysobjectid .1.3.6.1.4.1.8072.9999.9999",
        f"sysname {name}",
        "sysservices 2",  # a bridge
        "dontLogTCPWrappersConnects yes",
        "[snmp] persistentDir .",
        "[snmp] noPersistentSave yes",
        "[snmpd]",
    ]
    lines += [f"pass_persist .{'.'.join(map(str, base))} {command}" for base in (BRIDGE, POE)]
    return "\n".join(lines) + "\n"


class LabSwitch:
    """The agent of one virtual switch.

    namespace  the network namespace the switch's bridge is in, as `ip netns` names it
    bridge     the bridge's interface; `ports` those of its ports 1, 2 ... in order; `uplink` the one that follows
    address    the address of the switch in that namespace
    directory  for snmpd's files and ours; made, and left behind

    `on_power` and `delivering`: see PoePorts; both are called in the agent's threads and must not call back.
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
        name: str = "lab-switch",
        read_community: str = "public",
        write_community: str = "private",
        port: int = 161,
    ) -> None:
        self.namespace = namespace
        self.bridge = bridge
        self.names = [*ports, *([uplink] if uplink else [])]
        self.directory = directory
        self._on_power = on_power
        self.poe = PoePorts(len(ports), self._switch_power, delivering)
        self._configuration = render_configuration(
            str(address),
            port,
            name,
            read_community,
            write_community,
            (_relay_python(), "-I", "-S", "relay.py", "agent"),
        )
        self._table_lock = threading.Lock()
        self._table = Mib({})
        self._table_until = 0.0
        self._listener: socket.socket | None = None
        self._snmpd: subprocess.Popen[bytes] | None = None

    def admin(self, port: int) -> bool:
        """Whether the port's power is on; KeyError for a port that is not there."""
        return self.poe.is_on(port)

    def start(self) -> None:
        """Start the agent; it answers when this returns. RuntimeError with snmpd's own words if it does not come up."""
        self.directory.mkdir(parents=True, exist_ok=True)
        configuration = self.directory / "snmpd.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(self._configuration)
        (self.directory / "relay.py").write_bytes(Path(__file__).with_name("switch_relay.py").read_bytes())
        self._listener = self._listen()
        threading.Thread(target=self._accept, args=(self._listener,), name="lab-switch", daemon=True).start()
        # snmpd works in our directory, and every path we give it is relative: it splits its lines at blanks.
        command = [_tool("ip"), "netns", "exec", self.namespace, _tool("snmpd")]
        command += ["-f", "-r", "-C", "-c", "snmpd.conf", "-Lf", "snmpd.log", "-m", "", "-I", SNMPD_MODULES]
        self._log_file().unlink(missing_ok=True)
        self._snmpd = subprocess.Popen(
            command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            self._await_snmpd(self._snmpd)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the agent; any number of times."""
        if self._snmpd:
            self._snmpd.terminate()
            try:
                self._snmpd.wait(2)
            except subprocess.TimeoutExpired:
                self._snmpd.kill()
                self._snmpd.wait()
            self._snmpd = None
        if self._listener:
            # Closing alone does not wake a thread that waits in accept.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None

    def _log_file(self) -> Path:
        return self.directory / "snmpd.log"

    def _await_snmpd(self, snmpd: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIME
        while True:
            said = self._log_file().read_text(errors="replace") if self._log_file().exists() else ""
            if "NET-SNMP version" in said:  # its last line before it serves
                return
            if snmpd.poll() is not None or time.monotonic() > deadline:
                lines = [line for line in said.splitlines() if line and not line.startswith("Server Exiting")]
                last = lines[-1] if lines else "it says nothing; is the namespace there?"
                raise RuntimeError(f"snmpd of the lab's switch in {self.namespace} did not start: {last}")
            time.sleep(0.02)

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        (self.directory / "agent").unlink(missing_ok=True)
        # By way of the descriptor: a socket's path has room for 107 bytes only, and our directory may be deep.
        folder = os.open(self.directory, os.O_PATH | os.O_DIRECTORY)
        try:
            listener.bind(f"/proc/self/fd/{folder}/agent")
        finally:
            os.close(folder)
        listener.listen()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # stopped
                return
            threading.Thread(target=self._serve, args=(connection,), name="lab-switch-mib", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        """Answer one relay until it ends; snmpd starts another when it needs one."""
        session = PassPersist(self._now)
        with connection, connection.makefile("r", encoding="latin-1", newline="\n") as lines:
            try:
                for line in lines:
                    answer = session.feed(line.rstrip("\n"))
                    if answer:
                        connection.sendall(answer.encode("latin-1"))
            except Exception:
                log.exception("the switch in %s could not answer", self.namespace)

    def _switch_power(self, port: int, on: bool) -> None:
        self._on_power(port, on)
        with self._table_lock:
            self._table_until = 0.0  # the link went down or up, and MACs with it

    def _now(self) -> Mib:
        """The objects as they are now; the bridge is asked anew after FRESH seconds."""
        with self._table_lock:
            if time.monotonic() > self._table_until:
                state = parse_bridge(
                    self._ask("ip", "-n", self.namespace, "-d", "-j", "link", "show"),
                    self._ask("bridge", "-n", self.namespace, "-j", "fdb", "show", "br", self.bridge),
                    self.bridge,
                    self.names,
                )
                self._table = Mib(bridge_cells(state) | self.poe.cells())
                self._table_until = time.monotonic() + FRESH
            return self._table

    def _ask(self, tool: str, *arguments: str) -> str:
        done = subprocess.run([_tool(tool), *arguments], capture_output=True, text=True, check=True, timeout=5)
        return done.stdout or "[]"


def _tool(name: str) -> str:
    """Where a program is: a user's PATH has no /usr/sbin on Debian."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if not found:
        raise RuntimeError(f"{name} is not installed; the Debian packages are snmpd and iproute2")
    return found


def _relay_python() -> str:
    # snmpd splits the command at blanks and knows no quotes.
    return sys.executable if " " not in sys.executable else "/usr/bin/python3"
