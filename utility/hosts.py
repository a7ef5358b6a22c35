"""hosts.csv: which Pi has which address. Read, watched, and written back without losing a human's lines.

The text stays the truth: a line that is changed is changed in the one field that changes, every other byte is kept.
No protocol and no log here; what is wrong with the file is raised as ConfigError or returned as problems.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import re
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from utility.config import Config, ConfigError, Problem

HEADER = """\
# The Pis: one a line, MAC;IP;hostname;last_seen. Only these are served. Lines that begin with # are comments.
#
#   MAC        printed by the Pi when it starts with no card; a Pi that asks for an address shows up in `piman status`
#   IP         0.0.0.0: Piman picks a free address of the network and writes it here
#   hostname   letters, digits and -, unique; may be empty
#   last_seen  written by Piman now and then, as Unix time; 0: never
#
# Edits are picked up within two seconds. A broken edit is refused, and the last good file stays in force.
#
# b8:27:eb:01:02:03;172.30.4.13;pi1;0
# b8:27:eb:01:02:04;0.0.0.0;;0
"""

# Not just any twelve digits with marks between: 172.130.104.113 is an address.
_MAC = re.compile(
    r"([0-9a-f]{2}([:-])(?:[0-9a-f]{2}\2){4}[0-9a-f]{2}|(?:[0-9a-f]{4}[.-]){2}[0-9a-f]{4}|[0-9a-f]{6}-?[0-9a-f]{6})"
)
_PLAIN_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
_HOSTNAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_TIME = re.compile(r"[0-9]{1,15}(?:\.[0-9]{0,9})?")  # the first release wrote fractions
_FIELDS = "MAC;IP;hostname;last_seen"
_PICK = IPv4Address(0)
_MISSING = "does not exist"


def parse_mac(text: str) -> str:
    """`B8-27-EB-01-02-03`, `b827.eb01.0203`, `b827eb010203` ... -> `b8:27:eb:01:02:03`; ValueError."""
    if not _MAC.fullmatch(text.strip().lower()):
        shown = text if len(text) <= 60 else text[:57] + "..."
        raise ValueError(f"{shown!r} is no MAC address; write it like b8:27:eb:01:02:03")
    digits = re.sub(r"[:.\-]", "", text.strip().lower())
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))


UNASSIGNED = IPv4Address(0)  # in the file: Piman picks one


@dataclass(frozen=True, slots=True)
class Host:
    """One Pi of hosts.csv."""

    mac: str  # aa:bb:cc:dd:ee:ff
    address: IPv4Address
    hostname: str = ""
    last_seen: int = 0  # Unix time, 0 never

    @property
    def name(self) -> str:
        """What a human calls it: its hostname, else its address."""
        return self.hostname or str(self.address)


# ---------------------------------------------------------------------------------------------------- text <-> hosts


@dataclass(frozen=True, slots=True)
class Plan:
    """What hosts.csv is held against: the network, addresses no Pi may have, and which to give away first.

    `others` are the networks behind relays: an address may be of one of them, but none is given away by itself.
    """

    network: IPv4Network
    taken: Collection[IPv4Address] = frozenset()
    preferred: Sequence[IPv4Address] = ()
    pool: tuple[IPv4Address, IPv4Address] | None = None  # first and last; not given to a host by itself
    others: tuple[IPv4Network, ...] = ()

    @classmethod
    def of(cls, config: Config) -> Plan:
        return cls(config.network, config.taken, config.pi_addresses, config.pool, config.networks[1:])

    def is_free(self, address: IPv4Address) -> bool:
        """Whether the address may be given away, as far as config.yaml goes."""
        ends = (self.network.network_address, self.network.broadcast_address)
        pooled = self.pool is not None and self.pool[0] <= address <= self.pool[1]
        return address in self.network and address not in ends and address not in self.taken and not pooled

    def free(self, used: Collection[IPv4Address]) -> Iterator[IPv4Address]:
        """The addresses to give away, in order; `used` may grow meanwhile."""
        for addresses in (self.preferred, self.network.hosts()):
            for address in addresses:
                if address not in used and self.is_free(address):
                    yield address


@dataclass(slots=True)
class Table:
    """What one content of hosts.csv says. Only `Hosts` changes it: when a host was seen, and the lines with it."""

    lines: list[str]  # each with its line ending
    numbers: dict[str, int] = field(default_factory=dict)  # MAC -> index of its line
    by_mac: dict[str, Host] = field(default_factory=dict)
    by_address: dict[IPv4Address, Host] = field(default_factory=dict)
    by_name: dict[str, Host] = field(default_factory=dict)  # lower case

    def put(self, host: Host) -> None:
        self.by_mac[host.mac] = host
        self.by_address[host.address] = host
        if host.hostname:
            self.by_name[host.hostname.lower()] = host

    def encode(self) -> bytes:
        return "".join(self.lines).encode()


def parse_hosts(data: bytes, plan: Plan, path: Path, before: Table | None = None) -> Table:
    """Parse hosts.csv, and pick an address where it says 0.0.0.0; raises ConfigError with every problem.

    The table's lines are the file's, with the picked addresses in them. `path` is for the problems. Who had an
    address in the table `before` is given the same again.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        place = data.count(b"\n", 0, error.start) + 1
        what = f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise ConfigError((Problem(path, place, "", what),)) from None
    reading = _Reading(plan, path, Table(text.split("\n")))
    lines = reading.table.lines
    for number, line in enumerate(lines):
        body = line.partition("#")[0].strip().strip("\ufeff")  # the byte order mark of Windows editors
        if body:
            reading.take(number, body)
        lines[number] = line + "\n"
    lines[-1] = lines[-1][:-1]  # the last line has no line ending; it is empty where the text ends with one
    reading.pick_addresses(before or Table([]))
    if reading.problems:
        raise ConfigError(tuple(sorted(reading.problems, key=lambda problem: problem.line)))
    return reading.table


@dataclass(frozen=True, slots=True)
class HostChange:
    """What a line shall be: of the Pi `mac`, or of a new one. A field that is None stays as it is.

    action   "add", "edit" or "remove"
    """

    action: str
    mac: str
    address: str | None = None
    hostname: str | None = None


def edit_hosts(data: bytes, changes: Iterable[HostChange]) -> bytes:
    """The content with lines changed, added at its end, or gone; the others as they were. ValueError says why not.

    Whether it is good then is for `parse_hosts` to say: broken lines stay what they are.
    """
    lines = data.decode(errors="surrogateescape").splitlines(keepends=True)
    for change in changes:
        mac = parse_mac(change.mac)
        numbers = [number for number, line in enumerate(lines) if _mac_in(line) == mac]
        if change.action == "add":
            if numbers:
                raise ValueError(f"{mac} is in line {numbers[0] + 1} already")
            if lines and not lines[-1].endswith("\n"):
                lines[-1] += "\n"
            lines.append(f"{mac};{change.address or UNASSIGNED};{change.hostname or ''};0\n")
            continue
        if not numbers:
            raise ValueError(f"{mac} is not in hosts.csv")
        if change.action == "remove":
            del lines[numbers[0]]
            continue
        for index, text in ((1, change.address), (2, change.hostname)):
            if text is not None:
                lines[numbers[0]] = _with_field(lines[numbers[0]], index, text or ("" if index == 2 else "0.0.0.0"))
    return "".join(lines).encode(errors="surrogateescape")


def _mac_in(line: str) -> str:
    """The MAC that a line begins with; empty where it is none."""
    try:
        return parse_mac(line.partition("#")[0].partition(";")[0].strip("\ufeff \t\r\n"))
    except ValueError:
        return ""


def hosts_digest(data: bytes) -> str:
    """A hash of what a human wrote: the same for two contents that differ in last_seen alone."""
    text = re.sub(r"(?m)^([^#;\n]*;[^#;\n]*;[^#;\n]*);[^#\n]*", r"\1", data.decode(errors="surrogateescape"))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def with_last_seen(data: bytes, newer: bytes) -> bytes:
    """The content `data` with last_seen as it is in `newer`, where a Pi was seen since `data` was read."""
    seen: dict[str, str] = {}
    for line in newer.decode(errors="surrogateescape").splitlines():
        mac, fields = _mac_in(line), line.partition("#")[0].split(";")
        if mac and len(fields) == 4 and _TIME.fullmatch(fields[3].strip()):
            seen[mac] = fields[3].strip()
    lines = data.decode(errors="surrogateescape").splitlines(keepends=True)
    for number, line in enumerate(lines):
        fields = line.partition("#")[0].split(";")
        when = seen.get(_mac_in(line))
        if when is not None and len(fields) in (3, 4):
            lines[number] = _with_field(line, 3, when)
    return "".join(lines).encode(errors="surrogateescape")


class _Reading:
    """One pass over the lines: the table so far, and what was wrong."""

    def __init__(self, plan: Plan, path: Path, table: Table) -> None:
        self.plan = plan
        self.path = path
        self.table = table
        self.problems: list[Problem] = []
        self.picks: list[tuple[str, str, int]] = []  # MAC, hostname, last_seen: for those who want an address
        self._names: dict[str, int] = {}

    def wrong(self, number: int, key: str, text: str) -> None:
        self.problems.append(Problem(self.path, number + 1, key, text))

    def take(self, number: int, body: str) -> None:
        """Read the line with that index, `body` without comment and surrounding blanks."""
        fields = [part.strip() for part in body.split(";")]
        if len(fields) > 4:
            self.wrong(number, "", f"found {len(fields)} fields; expected {_FIELDS}")
            return
        fields += [""] * (4 - len(fields))
        mac = self._mac(number, fields[0])
        hostname = self._hostname(number, fields[2])
        last_seen = self._last_seen(number, fields[3])
        address = self._address(number, fields[1])
        if mac is None or address is None:
            return
        self.table.numbers[mac] = number
        if address == _PICK:
            self.picks.append((mac, hostname, last_seen))
        else:
            self.table.put(Host(mac, address, hostname, last_seen))

    def _mac(self, number: int, text: str) -> str | None:
        """The MAC, or None where there is a problem with it."""
        mac = text.lower()
        if not _PLAIN_MAC.fullmatch(mac):
            try:
                mac = parse_mac(text)
            except ValueError as error:
                self.wrong(number, "MAC", str(error))
                return None
        if mac[1] in "13579bdf" or mac == "00:00:00:00:00:00":
            self.wrong(number, "MAC", f"{text} is not the address of one board")
            return None
        first = self.table.numbers.get(mac)
        if first is not None:
            self.wrong(number, "MAC", f"{text} is already in line {first + 1}; one line for each Pi")
            return None
        return mac

    def _address(self, number: int, text: str) -> IPv4Address | None:
        if text in ("", "0.0.0.0"):
            return _PICK
        try:
            address = IPv4Address(text)
        except ValueError:
            self.wrong(number, "IP", f"found {text!r}; expected an address of {self.plan.network}, or 0.0.0.0")
            return None
        network = self.plan.network
        if address not in network:
            network = next((each for each in self.plan.others if address in each), network)
        twin = self.table.by_address.get(address)
        if address not in network:
            outside = ", ".join(map(str, (self.plan.network, *self.plan.others)))
            which = "one of these networks" if self.plan.others else "that network"
            self.wrong(number, "IP", f"{address} is outside {outside}; give an address of {which}, or 0.0.0.0")
        elif address in (network.network_address, network.broadcast_address):
            self.wrong(number, "IP", f"{address} is the network or broadcast address of {network}")
        elif address in self.plan.taken:
            self.wrong(number, "IP", f"{address} is the server's, the router's or a switch's in config.yaml")
        elif twin is not None:
            self.wrong(number, "IP", f"{address} is already in line {self.table.numbers[twin.mac] + 1}")
        else:
            return address
        return None

    def _hostname(self, number: int, text: str) -> str:
        if text and not _HOSTNAME.fullmatch(text):
            shown = text if len(text) <= 70 else text[:67] + "..."
            self.wrong(number, "hostname", f"found {shown!r}; expected up to 63 letters, digits and - (RFC 1123)")
        elif text:
            first = self._names.setdefault(text.lower(), number)
            if first != number:
                self.wrong(number, "hostname", f"{text} is already in line {first + 1}")
        return text

    def _last_seen(self, number: int, text: str) -> int:
        if text and not _TIME.fullmatch(text):
            self.wrong(number, "last_seen", f"found {text[:40]!r}; expected a Unix time, or 0 for never")
            return 0
        return int(text.partition(".")[0] or 0)

    def pick_addresses(self, before: Table) -> None:
        """Give each line that wants one a free address, in the file's order, and write it into the line."""
        table = self.table
        free = self.plan.free(table.by_address)
        for known in (True, False):
            for mac, hostname, last_seen in self.picks:
                if (mac in before.by_mac) is not known:
                    continue
                had = before.by_mac[mac].address if known else _PICK
                again = had not in table.by_address and self.plan.is_free(had)
                address = had if again else next(free, None)
                if address is None:
                    self.wrong(table.numbers[mac], "IP", f"no free address is left in {self.plan.network}")
                    continue
                table.put(Host(mac, address, hostname, last_seen))
                number = table.numbers[mac]
                table.lines[number] = _with_field(table.lines[number], 1, str(address))


def _with_field(line: str, index: int, text: str) -> str:
    """The line with one field replaced, the blanks around it, the comment and the line ending as they were."""
    body, mark, comment = line.partition("#")
    kept = body.rstrip()
    fields = kept.split(";")
    fields += [""] * (index + 1 - len(fields))
    old = fields[index].strip()
    before = fields[index][: len(fields[index]) - len(fields[index].lstrip())]
    after = fields[index][len(before) + len(old) :]
    fields[index] = before + text + after
    return ";".join(fields) + body[len(kept) :] + mark + comment


# ------------------------------------------------------------------------------------------------------------ the file

_Stamp = tuple[int, int, int, int]


class Hosts:
    """hosts.csv, in memory and on disk.

    All methods may be called from any thread. `_lock` guards every attribute, with one exception: `find`,
    `by_address`, `named` and `all` read the reference `_table` without it, so that no datagram waits for the disk. A
    table in force never gains or loses a key, so they see each host as it was or as it is.
    """

    def __init__(self, path: Path, plan: Plan, write: bool = True, mend: bool = False) -> None:
        """Read the file; raises ConfigError. With `write`, a missing file is created and picked addresses go in.

        With `mend`, a broken file is no error: nothing of it is in force until `rewrite`, or somebody else, mends it.
        """
        self.path = path
        self._plan = plan
        self._write = write
        self._lock = threading.Lock()
        self._seen: dict[str, int] = {}  # not yet on disk
        self._stamp: _Stamp | None = None  # of the file when it was last read
        self._sure = False  # it was read twice with that stamp: an edit in the same clock tick would not change it
        self._data = b""  # the last good content that was on disk
        self._refused: bytes | str = ""  # the content, or the error, why what is on disk is not in force
        self._emptied = False  # it has just become empty: perhaps an editor is writing it
        self._unsaved = False  # picked addresses are not yet in the file
        self._table = Table([""])
        if write:
            self._prepare()
        problems = self._refresh()
        if problems and not mend and (write or self._refused != _MISSING):
            raise ConfigError(problems)
        self._save_picks()

    @classmethod
    def open(cls, path: Path, config: Config, write: bool = True, mend: bool = False) -> Hosts:
        """hosts.csv beside that config.yaml."""
        return cls(path, Plan.of(config), write, mend)

    def follow(self, config: Config) -> tuple[Problem, ...]:
        """Hold the file against another config.yaml from now on; what is wrong with it then, and not taken over."""
        with self._lock:
            self._plan = Plan.of(config)
            self._stamp, self._data, self._refused = None, b"", ""
            problems = self._refresh()
            self._save_picks()
            return problems

    def find(self, mac: str) -> Host | None:
        """The Pi with that MAC, written `aa:bb:cc:dd:ee:ff`."""
        return self._table.by_mac.get(mac)

    def by_address(self, address: IPv4Address) -> Host | None:
        return self._table.by_address.get(address)

    def named(self, text: str) -> Host | None:
        """The Pi with that hostname (in any case), MAC (in any form) or address."""
        table = self._table
        if text.lower() in table.by_name:
            return table.by_name[text.lower()]
        with contextlib.suppress(ValueError):
            return table.by_mac.get(parse_mac(text))
        with contextlib.suppress(ValueError):
            return table.by_address.get(IPv4Address(text))
        return None

    def all(self) -> tuple[Host, ...]:
        """All Pis, in the file's order."""
        table = self._table
        return tuple(table.by_mac[mac] for mac in table.numbers)

    def check(self) -> tuple[Problem, ...]:
        """Take over an edited file; a stat where it is not. A broken one is told once, and changes nothing."""
        with self._lock:
            problems = self._refresh()
            self._save_picks()
            return problems

    def seen(self, mac: str, when: float) -> None:
        """Remember that a Pi gave a sign of life at that Unix time; `flush` writes it."""
        with self._lock:
            host = self._table.by_mac.get(mac)
            if host is not None and int(when) > host.last_seen:
                self._seen[mac] = int(when)
                self._table.put(replace(host, last_seen=int(when)))

    def flush(self) -> None:
        """Write what is new into the file, atomically, merged with a human's edits meanwhile.

        Nothing is written where the file is broken or gone; the next flush has it all. OSError: the file is intact.
        """
        with self._lock:
            self._save()

    def add(self, mac: str, address: IPv4Address = UNASSIGNED, hostname: str = "") -> Host:
        """Write a new line at the end of the file; an address is picked if none is given. Durable when it returns.

        ConfigError where the line, or the file as it is, is wrong; OSError where it cannot be written.
        """
        with self._lock:
            for _ in range(5):
                problems = self._refresh()
                if self._refused:
                    raise ConfigError(problems or (Problem(self.path, 0, "", "is not in force; mend it first"),))
                lines = "".join(self._table.lines)
                if lines and not lines.endswith("\n"):
                    lines += "\n"
                data = f"{lines}{mac};{address};{hostname};0\n".encode()
                table = parse_hosts(data, self._plan, self.path, self._table)
                data = table.encode()
                if self._replace(data):
                    self._take_over(table, data)
                    return table.by_mac[mac]
            raise OSError(errno.EBUSY, f"{self.path} is being written by others all the time")

    def rewrite(self, make: Callable[[bytes], bytes]) -> bytes:
        """Put what `make` makes of the file's content in its place, picked addresses in it. Durable when it returns.

        The content before. ConfigError where the new one is wrong, OSError where it cannot be written, and what `make`
        raises; `make` is called again where another wrote meanwhile.
        """
        with self._lock:
            for _ in range(5):
                self._refresh()
                before = self.path.read_bytes()
                table = parse_hosts(make(before), self._plan, self.path, self._table)
                data = table.encode()
                if self._replace(data):
                    self._take_over(table, data)
                    return before
            raise OSError(errno.EBUSY, f"{self.path} is being written by others all the time")

    def problems_of(self, data: bytes) -> tuple[Problem, ...]:
        """What would be wrong with the file if that were in it."""
        try:
            parse_hosts(data, self._plan, self.path, self._table)
        except ConfigError as error:
            return error.problems
        return ()

    # ---- below: with the lock held, or in the constructor

    def _save_picks(self) -> None:
        if self._unsaved:
            self._unsaved = False
            with contextlib.suppress(OSError):  # the next flush tries again, and says so
                self._save()

    def _save(self) -> None:
        for _ in range(5 if self._write else 0):  # a human's save may come in between, but hardly each time
            self._refresh()
            if self._refused or self._emptied:
                return
            table = self._table
            for mac, when in self._seen.items():
                number = table.numbers[mac]
                table.lines[number] = _with_field(table.lines[number], 3, str(when))
            data = table.encode()
            if data == self._data or self._replace(data):
                self._seen.clear()
                return

    def _refresh(self) -> tuple[Problem, ...]:
        """Read the file if it changed; the problems, unless they were told before."""
        try:
            stamp = _stamp(self.path)
            if stamp == self._stamp and self._sure:
                return ()
            data = self.path.read_bytes()
        except OSError as error:
            self._stamp = None
            what = _MISSING if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
            return self._refuse(what, (Problem(self.path, 0, "", what),))
        self._sure = stamp == self._stamp
        self._stamp = stamp
        self._emptied = not data and bool(self._data) and not self._sure
        if data == self._data:
            self._refused = ""
        if data in (self._data, self._refused) or self._emptied:
            return ()
        try:
            table = parse_hosts(data, self._plan, self.path, self._table)
        except ConfigError as error:
            return self._refuse(data, error.problems)
        self._take_over(table, data)
        return ()

    def _refuse(self, what: bytes | str, problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
        told = self._refused == what
        self._refused = what
        return () if told else problems

    def _take_over(self, table: Table, data: bytes) -> None:
        for mac, when in list(self._seen.items()):
            host = table.by_mac.get(mac)
            if host is None or when <= host.last_seen:
                del self._seen[mac]
            else:
                table.put(replace(host, last_seen=when))
        self._refused = ""
        self._data = data
        self._unsaved = table.encode() != data
        self._table = table

    def _prepare(self) -> None:
        """Create a missing file, and remove what a process that was killed while writing left behind."""
        target = self.path.resolve()
        try:
            if not target.exists():
                write_file(target, HEADER.encode(), None, lambda: True)
            for left in target.parent.glob(f".{glob.escape(target.name)}.*.new"):
                if time.time() - left.stat().st_mtime > 60:  # younger: another process may be at it
                    left.unlink()
        except OSError as error:
            if not target.exists():
                what = f"does not exist and cannot be created: {error.strerror}"
                raise ConfigError((Problem(self.path, 0, "", what),)) from None

    def _replace(self, data: bytes) -> bool:
        """Put `data` in the file's place, unless the file is no longer the one that was read."""
        target = self.path.resolve()  # a symlink stays one
        if not write_file(target, data, target.stat(), lambda: _stamp(target) == self._stamp):
            return False
        self._data = data
        self._stamp = _stamp(target)
        self._sure = False
        return True


def _stamp(path: Path) -> _Stamp:
    """What changes when a file changes."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def write_file(target: Path, data: bytes, like: os.stat_result | None, still: Callable[[], bool]) -> bool:
    """Replace a file in one step, durable, with owner and mode of `like`; False: not done, as `still` said no."""
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".new", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if like is not None:
                # Without root only a group of one's own can be given; the rest is as good as can be.
                with contextlib.suppress(PermissionError):
                    os.fchown(descriptor, -1, like.st_gid)
                with contextlib.suppress(PermissionError):
                    os.fchown(descriptor, like.st_uid, -1)
            os.fchmod(descriptor, 0o644 if like is None else stat.S_IMODE(like.st_mode))
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        if not still():
            return False
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True
