"""The state that outlives the process, in SQLite: events, board rows, files, orders, leases. All the SQL, no rule.

Who may do what: the server and any number of commands open the same file at once. Board rows and events are cheap
(they survive a killed process; the last second of them may go when the machine loses power), and so are files, leases
and power-on times; orders and power intents are on the disk when the call returns. Errors: `StoreError`, a sentence
with the file's name.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType

from monitoring.alerts import Alert, AlertSeverity, Silence
from monitoring.metrics import Reading, Sample
from monitoring.samples import Samples
from utility.service import FileRecord, Severity, Stage

log = logging.getLogger("piman.store")

BUSY_SECONDS = 2.0  # how long one process waits for another's write
KEEP_EVENTS_PER_PI = 1_000
KEEP_EVENTS = 50_000
KEEP_FILES_PER_PI = 200  # four or five boots
KEEP_FILES = 20_000
KEEP_ALERTS = 10_000  # that are over
KEEP_NOTICES = 20_000  # that were sent
KEEP_TREATMENTS = 2_000
KEEP_AUDIT = 20_000

# Entry i brings a database of version i to version i + 1; the version is SQLite's user_version. Never edit an entry
# that has been released: append one.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # AUTOINCREMENT: an id is never given twice, so that a reader may follow with `id > last`.
        """CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, mac TEXT NOT NULL,
           severity TEXT NOT NULL, text TEXT NOT NULL)""",
        "CREATE INDEX events_by_mac ON events (mac, id)",
        """CREATE TABLE pis (mac TEXT PRIMARY KEY, name TEXT NOT NULL, address TEXT NOT NULL, stage TEXT NOT NULL,
           since REAL NOT NULL, heard TEXT NOT NULL, heard_at REAL NOT NULL, sent TEXT NOT NULL, sent_at REAL NOT NULL,
           done INTEGER NOT NULL, total INTEGER NOT NULL, stuck TEXT NOT NULL, reason TEXT NOT NULL,
           facts TEXT NOT NULL, updated REAL NOT NULL)""",
        """CREATE TABLE orders (mac TEXT PRIMARY KEY, token TEXT NOT NULL, ordered_at REAL NOT NULL,
           by TEXT NOT NULL)""",
        """CREATE TABLE intents (switch TEXT NOT NULL, port INTEGER NOT NULL, at REAL NOT NULL,
           PRIMARY KEY (switch, port))""",
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    ),
    (
        "ALTER TABLE pis ADD COLUMN hint TEXT NOT NULL DEFAULT ''",
        """CREATE TABLE files (id INTEGER PRIMARY KEY AUTOINCREMENT, mac TEXT NOT NULL, name TEXT NOT NULL,
           size INTEGER NOT NULL, done INTEGER NOT NULL, began REAL NOT NULL, seconds REAL NOT NULL,
           resent INTEGER NOT NULL, outcome TEXT NOT NULL, blksize INTEGER NOT NULL)""",
        "CREATE INDEX files_by_mac ON files (mac, id)",
        "CREATE TABLE leases (mac TEXT PRIMARY KEY, address TEXT NOT NULL UNIQUE, expires REAL NOT NULL)",
        # The id grows with each power-on, also of the same Pi: the server follows it as a reader follows the events.
        "CREATE TABLE powered (id INTEGER PRIMARY KEY AUTOINCREMENT, mac TEXT NOT NULL UNIQUE, at REAL NOT NULL)",
    ),
    (
        """CREATE TABLE audit (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, who TEXT NOT NULL,
           action TEXT NOT NULL, subject TEXT NOT NULL, result TEXT NOT NULL)""",
        """CREATE TABLE tokens (name TEXT PRIMARY KEY, role TEXT NOT NULL, hash TEXT NOT NULL UNIQUE,
           created REAL NOT NULL)""",
        """CREATE TABLE sessions (hash TEXT PRIMARY KEY, who TEXT NOT NULL, role TEXT NOT NULL, created REAL NOT NULL,
           seen REAL NOT NULL)""",
    ),
    (
        """CREATE TABLE alerts (id INTEGER PRIMARY KEY, rule TEXT NOT NULL, subject TEXT NOT NULL, name TEXT NOT NULL,
           severity TEXT NOT NULL, since REAL NOT NULL, opened_at REAL NOT NULL, text TEXT NOT NULL,
           value REAL NOT NULL, told INTEGER NOT NULL, suppressed TEXT NOT NULL, silenced TEXT NOT NULL,
           resolved_at REAL NOT NULL, ended TEXT NOT NULL, acknowledged TEXT NOT NULL DEFAULT '')""",
        "CREATE INDEX alerts_by_end ON alerts (resolved_at)",
        """CREATE TABLE silences (id INTEGER PRIMARY KEY AUTOINCREMENT, subject TEXT NOT NULL, rule TEXT NOT NULL,
           until REAL NOT NULL, by TEXT NOT NULL, why TEXT NOT NULL)""",
        """CREATE TABLE notices (id INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT NOT NULL, alert INTEGER NOT NULL,
           over INTEGER NOT NULL, queued_at REAL NOT NULL, sent_at REAL NOT NULL DEFAULT 0,
           tries INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT '')""",
        "CREATE INDEX notices_to_send ON notices (channel, id) WHERE sent_at = 0",
        """CREATE TABLE treatments (id INTEGER PRIMARY KEY AUTOINCREMENT, mac TEXT NOT NULL, at REAL NOT NULL,
           step TEXT NOT NULL, reason TEXT NOT NULL, outcome TEXT NOT NULL)""",
    ),
    (
        # Where the port is in the switch's own table, like 2.5, and the value that meant "on" there.
        "ALTER TABLE intents ADD COLUMN place TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE intents ADD COLUMN setting INTEGER",
    ),
    (
        # Where each Pi was last seen by the switches; and which interface a PoE port is, where only trying could tell.
        """CREATE TABLE places (mac TEXT PRIMARY KEY, switch TEXT NOT NULL, port INTEGER NOT NULL, label TEXT NOT NULL,
           since REAL NOT NULL, seen REAL NOT NULL)""",
        """CREATE TABLE calibrations (switch TEXT NOT NULL, place TEXT NOT NULL, if_index INTEGER NOT NULL,
           PRIMARY KEY (switch, place))""",
    ),
)
SCHEMA_VERSION = len(MIGRATIONS)


class StoreError(Exception):
    """The state cannot be read or written; `str()` is a sentence that names the file and says why."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the timeline. `mac` is empty for the manager itself; ids grow and are never given twice."""

    id: int
    when: float  # Unix time
    mac: str
    severity: Severity
    text: str


@dataclass(frozen=True, slots=True)
class PiRow:
    """What is known of one Pi. Times are Unix times, 0 for never; `done` and `total` are bytes of the stage's transfer.

    `name` is empty and `stage` None for a MAC that is not in hosts.csv.
    """

    mac: str
    name: str = ""
    address: IPv4Address | None = None
    stage: Stage | None = None
    since: float = 0.0  # when the stage began
    heard: str = ""
    heard_at: float = 0.0
    sent: str = ""
    sent_at: float = 0.0
    done: int = 0
    total: int = 0  # 0: not known
    stuck: str = ""  # why the stage does not go on; empty: it does
    reason: str = ""  # why it failed, in stage FAILED
    facts: Mapping[str, str] = field(default_factory=dict)
    updated: float = 0.0
    hint: str = ""  # what is wrong with its boot, and what to do; empty: nothing that is known


@dataclass(frozen=True, slots=True)
class Order:
    """A fresh install is wanted on the Pi `mac`; only an install that carries `token` clears it."""

    mac: str
    token: str
    ordered_at: float
    by: str


@dataclass(frozen=True, slots=True)
class Intent:
    """A port that we turned off and mean to turn on again; one found at a start was left by a process that died."""

    switch: str
    port: int
    when: float
    index: tuple[int, ...] = ()  # in the switch's own table
    setting: int | str | None = None  # the value that it had there


@dataclass(frozen=True, slots=True)
class Place:
    """Where the switches have seen a MAC: `since` when, and `seen` last. `label` is what is printed at the port."""

    mac: str
    switch: str
    port: int
    label: str = ""
    since: float = 0.0
    seen: float = 0.0


@dataclass(frozen=True, slots=True)
class Lease:
    """An address of the pool, and whose it is until the Unix time `expires`."""

    mac: str
    address: IPv4Address
    expires: float


@dataclass(frozen=True, slots=True)
class PowerOn:
    """The last time that a Pi's port was turned on. A Pi's next one has a greater id."""

    id: int
    mac: str
    when: float


@dataclass(frozen=True, slots=True)
class Audit:
    """Who did what to which Pi or file, and what came of it. Ids grow and are never given twice."""

    id: int
    when: float
    who: str
    action: str
    subject: str
    result: str


@dataclass(frozen=True, slots=True)
class Token:
    """A script's way in; of the token itself only a hash is kept."""

    name: str
    role: str
    hash: str
    created: float


@dataclass(frozen=True, slots=True)
class WebSession:
    """Somebody who logged in on the web page; of the cookie only a hash is kept."""

    hash: str
    who: str
    role: str
    created: float
    seen: float  # now and then


@dataclass(frozen=True, slots=True)
class Notice:
    """What a channel is to be told, or was: that an alert was raised, or (`over`) that it is over.

    sent_at   0: it waits; tries: so often it was not taken, at last because of `error`
    """

    id: int
    channel: str
    alert: Alert
    over: bool
    queued_at: float
    sent_at: float = 0.0
    tries: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Treatment:
    """What was done by itself about a Pi, or would have been, and what came of it."""

    id: int
    mac: str
    when: float
    step: str
    reason: str
    outcome: str


class Store:
    """The state in one SQLite file. Thread safe: `_lock` guards the one connection.

    path       the file; made, with its folder, unless read_only
    read_only  nothing is written, not even a side file, so that a user without rights may look
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        self.read_only = read_only
        self.moved_aside: Path | None = None  # the corrupt file that this opening replaced
        self._lock = threading.RLock()
        self._in_use: int | None = None  # descriptor of the lock file, flock shared while open
        self._samples: Samples | None = None  # opened when it is first asked for
        self._db = self._open_to_read() if read_only else self._open_to_write()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the use of the file; any number of times. What is called afterwards raises StoreError."""
        with self._lock:
            if self._samples is not None:
                self._samples.close()
            self._db.close()
            self._release()

    # Opening

    def _open_to_read(self) -> sqlite3.Connection:
        if not self.path.is_file():
            raise StoreError(f"{self.path}: there is no state here yet; the server makes it at its first start")
        try:
            with self._not_while_opening():
                return self._connect("mode=ro")
        except sqlite3.OperationalError as error:
            # A WAL database needs its -wal and -shm files, which a reader without rights to the folder cannot make.
            # With no -wal there is no writer and nothing pending: the file alone is the whole truth.
            if not self._side_file("-wal").exists():
                with self._told():
                    return self._connect("immutable=1")
            raise StoreError(f"{self.path}: cannot be read by this user ({error}); try with sudo") from error
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{self.path}: is damaged ({error}); the server's next start begins a new one") from error

    def _open_to_write(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._only_opener():
                self._in_use = os.open(self._side_file(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                fcntl.flock(self._in_use, fcntl.LOCK_SH)
                try:
                    return self._connect("mode=rwc")
                except sqlite3.OperationalError:  # locked, full, no permission: the file itself may be sound
                    raise
                except sqlite3.DatabaseError as error:
                    return self._begin_anew(error)
        except (OSError, sqlite3.Error) as error:
            self._release()
            raise StoreError(f"{self.path}: cannot be opened to write: {error}") from error
        except StoreError:
            self._release()
            raise

    @contextlib.contextmanager
    def _only_opener(self) -> Iterator[None]:
        """One process at a time makes or migrates the file: the switch to WAL does not wait for others by itself."""
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def _not_while_opening(self) -> Iterator[None]:
        """Wait for a process that makes or migrates the file: half-way it has no version that could be read."""
        try:
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:  # a folder that may not be listed: then without
            yield
            return
        try:
            fcntl.flock(folder, fcntl.LOCK_SH)
            yield
        finally:
            os.close(folder)

    def _connect(self, how: str) -> sqlite3.Connection:
        """Open and check; a DatabaseError that is no OperationalError means that the file is damaged."""
        name = f"{self.path.absolute().as_uri()}?{how}"
        db = sqlite3.connect(name, BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=True)
        try:
            if how == "mode=rwc":
                self._prepare(db)
            version = _version(db)
            if version != SCHEMA_VERSION:
                age = "a newer" if version > SCHEMA_VERSION else "an older"
                raise StoreError(
                    f"{self.path}: is of {age} version of Piman ({version}, here {SCHEMA_VERSION}); "
                    "start the server of this version once, or use the newer one"
                )
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA wal_autocheckpoint = 400")  # pages: the WAL stays under 2 MB, on an SD card too
        self._give_to_folders_owner()
        problem = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise sqlite3.DatabaseError(problem)
        if _version(db) >= SCHEMA_VERSION:
            return
        with _transaction(db):
            for number in range(_version(db), SCHEMA_VERSION):
                for statement in MIGRATIONS[number]:
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _give_to_folders_owner(self) -> None:
        """A command run with sudo must not make files that the service, which is not root, cannot write."""
        if os.geteuid() != 0:
            return
        owner = self.path.parent.stat()
        for each in (self.path, self._side_file(".lock")):
            os.chown(each, owner.st_uid, owner.st_gid)

    def _begin_anew(self, error: sqlite3.DatabaseError) -> sqlite3.Connection:
        """Move the damaged file aside, unless another process has it open and would go on writing to it."""
        assert self._in_use is not None
        try:
            fcntl.flock(self._in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = f"{self.path}: is damaged ({error}) and in use by another process; restart the server"
            raise StoreError(text) from error
        number = 1
        while (aside := self._side_file(f".corrupt-{number}")).exists():
            number += 1
        for end in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                self._side_file(end).rename(f"{aside}{end}")
        log.error("%s was damaged (%s): moved to %s, a new one begun", self.path, error, aside.name)
        db = self._connect("mode=rwc")
        fcntl.flock(self._in_use, fcntl.LOCK_SH)
        self.moved_aside = aside
        text = f"the state was damaged ({error}) and begun anew; the old file is {aside.name}; install orders are lost"
        just_made = self.path.stat().st_mtime
        _insert_events(db, [Event(0, just_made, "", Severity.ERROR, text)])
        return db

    def _side_file(self, end: str) -> Path:
        return self.path.with_name(self.path.name + end)

    def _release(self) -> None:
        if self._in_use is not None:
            os.close(self._in_use)
            self._in_use = None

    # Transactions

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what SQLite raises into a StoreError."""
        try:
            yield
        except (sqlite3.Error, UnicodeError, OverflowError) as error:
            raise StoreError(f"{self.path}: {error}") from error

    @contextlib.contextmanager
    def _writing(self, durable: bool) -> Iterator[sqlite3.Connection]:
        """One transaction. durable: on the disk when it ends; else safe from a killed process only."""
        if self.read_only:
            raise StoreError(f"{self.path}: was opened to read only")
        with self._lock, self._told():
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            with _transaction(self._db):
                yield self._db

    def _read(self, sql: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        with self._lock, self._told():
            return self._db.execute(sql, values).fetchall()

    # Events

    def add_event(self, mac: str, when: float, severity: Severity, text: str) -> None:
        """Append one line to the timeline of `mac` (empty: of the manager)."""
        self.save_board([Event(0, when, mac, severity, text)], [])

    def events(self, mac: str | None = None, after: int = 0, limit: int = 200) -> list[Event]:
        """The first `limit` events with an id above `after`, in order, of one Pi or of all: a follower misses none."""
        rows = self._read(
            f"{_EVENTS} WHERE id > ?2 AND (?1 IS NULL OR mac = ?1) ORDER BY id LIMIT ?3", [mac, after, limit]
        )
        return [_event(each) for each in _typed(rows)]

    def latest_events(self, mac: str | None = None, limit: int = 200) -> list[Event]:
        """The newest `limit` events of one Pi or of all, the oldest of them first."""
        where, values = ("WHERE mac = ?", [mac]) if mac is not None else ("", [])
        rows = self._read(f"{_EVENTS} {where} ORDER BY id DESC LIMIT ?", [*values, limit])
        return [_event(each) for each in _typed(rows[::-1])]

    def last_event_id(self) -> int:
        """The id of the newest event, 0 where there is none: where a follower who wants only news begins."""
        return int(_typed(self._read("SELECT coalesce(max(id), 0) FROM events"))[0][0])

    def prune_events(self, per_pi: int = KEEP_EVENTS_PER_PI, in_all: int = KEEP_EVENTS) -> int:
        """Forget the oldest events beyond `per_pi` of one MAC and `in_all` together; return how many went."""
        return self._prune("events", per_pi, in_all)

    def _prune(self, table: str, per_pi: int, in_all: int) -> int:
        gone = 0
        with self._writing(durable=False) as db:
            sql = f"SELECT mac FROM {table} GROUP BY mac HAVING count(*) > ?"
            for (mac,) in db.execute(sql, [per_pi]).fetchall():
                sql = f"""DELETE FROM {table} WHERE mac = ?1 AND id <=
                          (SELECT id FROM {table} WHERE mac = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)"""
                gone += db.execute(sql, [mac, per_pi]).rowcount
            sql = f"DELETE FROM {table} WHERE id <= (SELECT id FROM {table} ORDER BY id DESC LIMIT 1 OFFSET ?)"
            gone += db.execute(sql, [in_all]).rowcount
        return gone

    # The board

    def save_board(
        self,
        events: Iterable[Event],
        rows: Iterable[PiRow],
        forgotten: Iterable[str] = (),
        files: Iterable[FileRecord] = (),
    ) -> None:
        """Append events (their ids are given here) and files, replace rows, drop the rows of `forgotten` MACs.

        All or nothing.
        """
        with self._writing(durable=False) as db:
            _insert_events(db, events)
            db.executemany("DELETE FROM pis WHERE mac = ?", ((mac,) for mac in forgotten))
            sql = f"INSERT OR REPLACE INTO pis ({_PI_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
            db.executemany(sql, (_pi_values(row) for row in rows))
            sql = f"INSERT INTO files ({_FILE_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)"
            db.executemany(sql, (_file_values(each) for each in files))

    def save_pi(self, row: PiRow) -> None:
        """Replace what is kept of one Pi."""
        self.save_board([], [row])

    def pis(self) -> list[PiRow]:
        """Every row, in the order of the MACs."""
        return [_pi_row(each) for each in self._read(f"SELECT {_PI_COLUMNS} FROM pis ORDER BY mac")]

    # Files that the Pis fetched

    def files(self, mac: str, limit: int = 200) -> list[FileRecord]:
        """The newest `limit` files of one Pi, in the order in which they ended."""
        sql = f"SELECT {_FILE_COLUMNS} FROM files WHERE mac = ? ORDER BY id DESC LIMIT ?"
        return [_file(each) for each in _typed(self._read(sql, [mac, limit])[::-1])]

    def prune_files(self, per_pi: int = KEEP_FILES_PER_PI, in_all: int = KEEP_FILES) -> int:
        """Forget the oldest files beyond `per_pi` of one MAC and `in_all` together; return how many went."""
        return self._prune("files", per_pi, in_all)

    # Leases of the pool

    def save_lease(self, mac: str, address: IPv4Address, expires: float) -> None:
        """Keep a lease in place of the one `mac` had, and of the one another had of that address."""
        with self._writing(durable=False) as db:
            sql = "INSERT OR REPLACE INTO leases (mac, address, expires) VALUES (?,?,?)"
            db.execute(sql, [mac, str(address), expires])

    def forget_lease(self, mac: str) -> None:
        """`mac` has no lease any more; no error where it had none."""
        with self._writing(durable=False) as db:
            db.execute("DELETE FROM leases WHERE mac = ?", [mac])

    def leases(self) -> list[Lease]:
        """Every lease that is kept, run out or not, in the order of the MACs."""
        rows = self._read("SELECT mac, address, expires FROM leases ORDER BY mac")
        return [Lease(mac, IPv4Address(address), float(expires)) for mac, address, expires in _typed(rows)]

    # When ports were turned on

    def add_power_on(self, mac: str, when: float) -> None:
        """Note that the port of the Pi `mac` was turned on at `when`, for the server to learn of."""
        with self._writing(durable=False) as db:
            db.execute("INSERT OR REPLACE INTO powered (mac, at) VALUES (?,?)", [mac, when])

    def power_ons(self, after: int = 0) -> list[PowerOn]:
        """The last power-on of each Pi, of those with an id above `after`, in order."""
        rows = self._read("SELECT id, mac, at FROM powered WHERE id > ? ORDER BY id", [after])
        return [PowerOn(int(number), mac, float(at)) for number, mac, at in _typed(rows)]

    # Install orders

    def order_install(self, mac: str, when: float, by: str) -> str:
        """Order a fresh install of `mac`; return its token, 8 hex digits. On the disk when it returns.

        An order that was pending is replaced, and its token is worth nothing from now on: an install that is under
        way for the old order does not clear the new one, as "install it again" asks for.
        """
        token = secrets.token_hex(4)
        with self._writing(durable=True) as db:
            db.execute(
                "INSERT OR REPLACE INTO orders (mac, token, ordered_at, by) VALUES (?,?,?,?)", [mac, token, when, by]
            )
        return token

    def pending_order(self, mac: str) -> str | None:
        """The token of the order that waits for `mac`, or None."""
        rows = self._read("SELECT token FROM orders WHERE mac = ?", [mac])
        return str(rows[0][0]) if rows else None

    def orders(self) -> list[Order]:
        """Every pending order, the oldest first."""
        rows = self._read("SELECT mac, token, ordered_at, by FROM orders ORDER BY ordered_at, mac")
        return [Order(str(mac), str(token), float(at), str(by)) for mac, token, at, by in _typed(rows)]

    def complete_order(self, mac: str, token: str) -> bool:
        """Clear the order of `mac` if it is the one with `token`; return whether it was. On the disk at return."""
        with self._writing(durable=True) as db:
            return db.execute("DELETE FROM orders WHERE mac = ? AND token = ?", [mac, token]).rowcount == 1

    def cancel_order(self, mac: str) -> bool:
        """Clear whatever order waits for `mac`; return whether there was one. On the disk at return."""
        with self._writing(durable=True) as db:
            return db.execute("DELETE FROM orders WHERE mac = ?", [mac]).rowcount == 1

    # Ports that must not stay off

    def add_intent(
        self, switch: str, port: int, when: float, index: tuple[int, ...] = (), setting: int | str | None = None
    ) -> None:
        """Note, before a port is turned off, that it is to come on again. On the disk when it returns."""
        values = [switch, port, when, ".".join(map(str, index)), setting]
        with self._writing(durable=True) as db:
            db.execute("INSERT OR REPLACE INTO intents (switch, port, at, place, setting) VALUES (?,?,?,?,?)", values)

    def clear_intent(self, switch: str, port: int) -> None:
        """The port was read back as on (or is to stay off)."""
        with self._writing(durable=True) as db:
            db.execute("DELETE FROM intents WHERE switch = ? AND port = ?", [switch, port])

    def intents(self) -> list[Intent]:
        """The ports that are off, or were about to be, and are to come on again."""
        rows = self._read("SELECT switch, port, at, place, setting FROM intents ORDER BY switch, port")
        return [
            Intent(
                str(switch),
                int(port),
                float(at),
                tuple(int(number) for number in str(place).split(".") if number),
                setting if isinstance(setting, int | str) else None,
            )
            for switch, port, at, place, setting in _typed(rows)
        ]

    # Who did what, and who may

    def add_audit(self, when: float, who: str, action: str, subject: str, result: str) -> None:
        """Append to the audit trail; the oldest beyond KEEP_AUDIT go."""
        with self._writing(durable=False) as db:
            sql = "INSERT INTO audit (at, who, action, subject, result) VALUES (?,?,?,?,?)"
            number = db.execute(sql, [when, who, action, subject, result]).lastrowid or 0
            db.execute("DELETE FROM audit WHERE id <= ?", [number - KEEP_AUDIT])

    def audit(self, limit: int = 200, before: int = 0) -> list[Audit]:
        """The newest `limit` entries, the newest first; of those with an id below `before`, if that is given."""
        sql = "SELECT id, at, who, action, subject, result FROM audit WHERE ?1 = 0 OR id < ?1 ORDER BY id DESC LIMIT ?2"
        rows = _typed(self._read(sql, [before, limit]))
        return [Audit(int(number), float(at), *words) for number, at, *words in rows]

    def add_token(self, token: Token) -> bool:
        """Keep a token; False where there is one of that name. On the disk when it returns."""
        with self._writing(durable=True) as db:
            sql = "INSERT OR IGNORE INTO tokens (name, role, hash, created) VALUES (?,?,?,?)"
            return db.execute(sql, [token.name, token.role, token.hash, token.created]).rowcount == 1

    def tokens(self) -> list[Token]:
        """Every token, by name."""
        rows = _typed(self._read("SELECT name, role, hash, created FROM tokens ORDER BY name"))
        return [Token(name, role, digest, float(created)) for name, role, digest, created in rows]

    def delete_token(self, name: str) -> bool:
        """Make a token worthless; return whether there was one. On the disk when it returns."""
        with self._writing(durable=True) as db:
            return db.execute("DELETE FROM tokens WHERE name = ?", [name]).rowcount == 1

    def save_session(self, session: WebSession) -> None:
        """Keep a session, in place of the one with its hash."""
        with self._writing(durable=False) as db:
            sql = "INSERT OR REPLACE INTO sessions (hash, who, role, created, seen) VALUES (?,?,?,?,?)"
            db.execute(sql, [session.hash, session.who, session.role, session.created, session.seen])

    def session(self, digest: str) -> WebSession | None:
        """The session with that hash."""
        sql = "SELECT hash, who, role, created, seen FROM sessions WHERE hash = ?"
        for key, who, role, created, seen in _typed(self._read(sql, [digest])):
            return WebSession(key, who, role, float(created), float(seen))
        return None

    def end_sessions(self, digest: str | None = None, seen_before: float | None = None) -> None:
        """End one session, those not seen since, or all. On the disk when it returns."""
        with self._writing(durable=True) as db:
            sql = "DELETE FROM sessions WHERE (?1 IS NULL OR hash = ?1) AND (?2 IS NULL OR seen < ?2)"
            db.execute(sql, [digest, seen_before])

    # What was measured of the Pis: in a file of its own, with a lock of its own

    def add_samples(self, readings: Iterable[Reading]) -> None:
        """Keep what polls found: for the graphs, and for other processes as the latest of each Pi."""
        with self._told():
            self._history().add(readings)

    def latest_samples(self) -> dict[str, Reading]:
        """The last reading of each Pi, by MAC; nothing where nobody ever polled."""
        with self._told():
            return self._history().latest() if self._has_history() else {}

    def samples(self, mac: str, metric: str, since: float, until: float, points: int = 500) -> list[Sample]:
        """A metric of a Pi from one Unix time to another, in order, as at most `points` means with their extremes."""
        with self._told():
            return self._history().of(mac, metric, since, until, points) if self._has_history() else []

    def prune_samples(self, now: float) -> None:
        """Pack what is old, and forget what is too old. To be called every now and then."""
        with self._told():
            self._history().prune(now)

    def _has_history(self) -> bool:
        return not self.read_only or self.path.with_name("samples.db").exists()

    def _history(self) -> Samples:
        with self._lock:
            if self._samples is None:
                self._samples = Samples(self.path.with_name("samples.db"), self.read_only)
            return self._samples

    # Alerts, and who was told of them

    def save_alerts(
        self, alerts: Iterable[Alert], notices: Iterable[tuple[str, int, bool]], events: Iterable[Event], now: float
    ) -> None:
        """Keep alerts as they are now, queue notices (channel, id of the alert, it is over), append events.

        All or nothing: what was told and what is queued agree, whenever the process dies. Who has acknowledged an
        alert is left as it is, since another process writes that.
        """
        with self._writing(durable=False) as db:
            db.executemany(_SAVE_ALERT, (_alert_values(each) for each in alerts))
            sql = "INSERT INTO notices (channel, alert, over, queued_at) VALUES (?,?,?,?)"
            db.executemany(sql, ((channel, alert, over, now) for channel, alert, over in notices))
            _insert_events(db, events)

    def alerts(self, open_only: bool = True, limit: int = 10_000) -> list[Alert]:
        """The open alerts, or all, the newest `limit` of them; the oldest first."""
        where = "WHERE resolved_at = 0" if open_only else ""
        sql = f"SELECT {_ALERT_COLUMNS} FROM alerts {where} ORDER BY id DESC LIMIT ?"
        return [_alert(each) for each in _typed(self._read(sql, [limit])[::-1])]

    def last_alert_id(self) -> int:
        return int(_typed(self._read("SELECT coalesce(max(id), 0) FROM alerts"))[0][0])

    def acknowledge_alert(self, number: int, by: str) -> bool:
        """Note who knows of an open alert (empty: nobody); return whether there is such a one."""
        with self._writing(durable=False) as db:
            sql = "UPDATE alerts SET acknowledged = ? WHERE id = ? AND resolved_at = 0"
            return db.execute(sql, [by, number]).rowcount == 1

    def acknowledged(self) -> dict[int, str]:
        """By whom, for each open alert of which somebody knows."""
        rows = self._read("SELECT id, acknowledged FROM alerts WHERE resolved_at = 0 AND acknowledged != ''")
        return {int(number): by for number, by in _typed(rows)}

    def add_silence(self, subject: str, rule: str, until: float, by: str, why: str) -> int:
        """Let nobody be told until then of what matches both patterns; the silence's number."""
        with self._writing(durable=False) as db:
            sql = "INSERT INTO silences (subject, rule, until, by, why) VALUES (?,?,?,?,?)"
            return db.execute(sql, [subject, rule, until, by, why]).lastrowid or 0

    def end_silence(self, number: int, now: float) -> bool:
        """End a silence before its time; return whether it was in force."""
        with self._writing(durable=False) as db:
            return (
                db.execute("UPDATE silences SET until = ?1 WHERE id = ?2 AND until > ?1", [now, number]).rowcount == 1
            )

    def silences(self, now: float) -> list[Silence]:
        """Those in force."""
        rows = self._read("SELECT id, subject, rule, until, by, why FROM silences WHERE until > ? ORDER BY id", [now])
        return [Silence(int(each[0]), each[1], each[2], float(each[3]), each[4], each[5]) for each in _typed(rows)]

    def waiting_notices(self, channel: str, limit: int = 500) -> list[Notice]:
        """What a channel has still to be told, in order."""
        rows = self._read(f"{_NOTICES} WHERE channel = ? AND sent_at = 0 ORDER BY notices.id LIMIT ?", [channel, limit])
        return [_notice(each) for each in _typed(rows)]

    def latest_notices(self, limit: int = 200) -> list[Notice]:
        """The newest notices, sent or waiting, the oldest of them first."""
        rows = self._read(f"{_NOTICES} ORDER BY notices.id DESC LIMIT ?", [limit])
        return [_notice(each) for each in _typed(rows[::-1])]

    def settle_notices(self, numbers: Iterable[int], now: float, error: str = "") -> None:
        """Note that notices were sent, or why they were not."""
        with self._writing(durable=False) as db:
            if error:
                sql = "UPDATE notices SET tries = tries + 1, error = ? WHERE id = ?"
                db.executemany(sql, ((error, number) for number in numbers))
            else:
                db.executemany("UPDATE notices SET sent_at = ? WHERE id = ?", ((now, number) for number in numbers))

    def drop_notices(self, channels: Iterable[str]) -> int:
        """Forget what waits for any other channel than these, which are all there are now; how many."""
        names = list(channels)
        marks = ",".join("?" * len(names))
        with self._writing(durable=False) as db:
            return db.execute(f"DELETE FROM notices WHERE sent_at = 0 AND channel NOT IN ({marks})", names).rowcount

    def prune_alerts(self, now: float, alerts: int = KEEP_ALERTS, notices: int = KEEP_NOTICES) -> None:
        """Forget the oldest of what is over, what was sent and what was treated."""
        with self._writing(durable=False) as db:
            sql = "DELETE FROM {0} WHERE {1} AND id <= (SELECT id FROM {0} WHERE {1} ORDER BY id DESC LIMIT 1 OFFSET ?)"
            db.execute(sql.format("alerts", "resolved_at > 0"), [alerts])
            db.execute(sql.format("notices", "sent_at > 0"), [notices])
            db.execute(sql.format("treatments", "id > 0"), [KEEP_TREATMENTS])
            db.execute("DELETE FROM silences WHERE until < ?", [now - 86400])

    # What was done about Pis by itself

    def add_treatment(self, mac: str, when: float, step: str, reason: str, outcome: str) -> int:
        """Note a step before it is taken, on the disk when it returns: a manager that dies over it counts it too."""
        with self._writing(durable=True) as db:
            sql = "INSERT INTO treatments (mac, at, step, reason, outcome) VALUES (?,?,?,?,?)"
            return db.execute(sql, [mac, when, step, reason, outcome]).lastrowid or 0

    def end_treatment(self, number: int, outcome: str) -> None:
        with self._writing(durable=False) as db:
            db.execute("UPDATE treatments SET outcome = ? WHERE id = ?", [outcome, number])

    def treatments(self, since: float = 0.0) -> list[Treatment]:
        """Every step since then, in order."""
        rows = self._read(
            "SELECT id, mac, at, step, reason, outcome FROM treatments WHERE at >= ? ORDER BY id", [since]
        )
        return [Treatment(int(each[0]), each[1], float(each[2]), each[3], each[4], each[5]) for each in _typed(rows)]

    # Which Pi is plugged where

    def save_places(self, places: Iterable[Place]) -> None:
        """Keep where each of these is, in place of where it was."""
        sql = "INSERT OR REPLACE INTO places (mac, switch, port, label, since, seen) VALUES (?,?,?,?,?,?)"
        with self._writing(durable=False) as db:
            db.executemany(sql, ((p.mac, p.switch, p.port, p.label, p.since, p.seen) for p in places))

    def forget_places(self, macs: Iterable[str]) -> None:
        with self._writing(durable=False) as db:
            db.executemany("DELETE FROM places WHERE mac = ?", ((mac,) for mac in macs))

    def places(self) -> dict[str, Place]:
        """By MAC."""
        rows = self._read("SELECT mac, switch, port, label, since, seen FROM places ORDER BY mac")
        return {
            mac: Place(mac, switch, int(port), label, float(since), float(seen))
            for mac, switch, port, label, since, seen in _typed(rows)
        }

    def save_calibration(self, switch: str, index: Sequence[int], if_index: int) -> None:
        """The PoE port with that index is that interface, as a trial has shown. On the disk when it returns."""
        sql = "INSERT OR REPLACE INTO calibrations (switch, place, if_index) VALUES (?,?,?)"
        with self._writing(durable=True) as db:
            db.execute(sql, [switch, ".".join(map(str, index)), if_index])

    def forget_calibrations(self, switch: str) -> None:
        """All of one switch: it was replaced, or its stack was built anew."""
        with self._writing(durable=True) as db:
            db.execute("DELETE FROM calibrations WHERE switch = ?", [switch])

    def calibrations(self) -> dict[str, dict[tuple[int, ...], int]]:
        """By switch: PoE index -> ifIndex."""
        found: dict[str, dict[tuple[int, ...], int]] = {}
        for switch, place, if_index in _typed(self._read("SELECT switch, place, if_index FROM calibrations")):
            found.setdefault(switch, {})[tuple(map(int, place.split(".")))] = int(if_index)
        return found

    # Words about the manager itself: its process, its start, its heartbeat

    def set_meta(self, key: str, value: str) -> None:
        with self._writing(durable=False) as db:
            db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?,?)", [key, value])

    def get_meta(self, key: str, default: str = "") -> str:
        rows = self._read("SELECT value FROM meta WHERE key = ?", [key])
        return str(rows[0][0]) if rows else default


_EVENTS = "SELECT id, at, mac, severity, text FROM events"
_PI_COLUMNS = (
    "mac, name, address, stage, since, heard, heard_at, sent, sent_at, done, total, stuck, reason, facts, updated, hint"
)
_FILE_COLUMNS = "mac, name, size, done, began, seconds, resent, outcome, blksize"
_STAGES = {str(stage): stage for stage in Stage}
_ALERT_FIELDS = tuple(each.name for each in fields(Alert) if each.name != "acknowledged")
_ALERT_COLUMNS = ", ".join((*_ALERT_FIELDS, "acknowledged"))
_SAVE_ALERT = f"""INSERT INTO alerts ({", ".join(_ALERT_FIELDS)}) VALUES ({", ".join("?" * len(_ALERT_FIELDS))})
    ON CONFLICT (id) DO UPDATE SET {", ".join(f"{each} = excluded.{each}" for each in _ALERT_FIELDS)}"""
_NOTICES = f"""SELECT notices.id, channel, over, queued_at, sent_at, tries, error, alerts.{_ALERT_COLUMNS}
    FROM notices JOIN alerts ON alerts.id = notices.alert"""


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")  # not deferred: a lock is waited for here, never half-way
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk rolls back by itself
            db.execute("ROLLBACK")
        raise


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _insert_events(db: sqlite3.Connection, events: Iterable[Event]) -> None:
    sql = "INSERT INTO events (at, mac, severity, text) VALUES (?,?,?,?)"
    db.executemany(sql, ((each.when, each.mac, str(each.severity), each.text) for each in events))


def _typed(rows: list[tuple[object, ...]]) -> list[tuple[str, ...]]:
    """For the type checker: every value of ours is something that str, int or float take."""
    return rows  # type: ignore[return-value]


def _event(row: tuple[str, ...]) -> Event:
    return Event(int(row[0]), float(row[1]), row[2], Severity(row[3]), row[4])


def _alert_values(alert: Alert) -> list[object]:
    values = (getattr(alert, name) for name in _ALERT_FIELDS)
    return [str(each) if isinstance(each, AlertSeverity) else each for each in values]


def _alert(row: Sequence[str]) -> Alert:
    fields_of = dict(zip((*_ALERT_FIELDS, "acknowledged"), row, strict=True))
    return Alert(
        id=int(fields_of["id"]),
        rule=fields_of["rule"],
        subject=fields_of["subject"],
        name=fields_of["name"],
        severity=AlertSeverity(fields_of["severity"]),
        since=float(fields_of["since"]),
        opened_at=float(fields_of["opened_at"]),
        text=fields_of["text"],
        value=float(fields_of["value"]),
        told=bool(fields_of["told"]),
        acknowledged=fields_of["acknowledged"],
        suppressed=fields_of["suppressed"],
        silenced=fields_of["silenced"],
        resolved_at=float(fields_of["resolved_at"]),
        ended=fields_of["ended"],
    )


def _notice(row: tuple[str, ...]) -> Notice:
    number, channel, over, queued, sent, tries, error, *alert = row
    return Notice(int(number), channel, _alert(alert), bool(over), float(queued), float(sent), int(tries), error)


_facts_text = json.JSONEncoder(sort_keys=True).encode


def _pi_values(row: PiRow) -> tuple[object, ...]:
    address = str(row.address) if row.address else ""
    facts = _facts_text(dict(row.facts))
    begun = (
        row.mac,
        row.name,
        address,
        str(row.stage or ""),
        row.since,
        row.heard,
        row.heard_at,
        row.sent,
        row.sent_at,
    )
    return (*begun, row.done, row.total, row.stuck, row.reason, facts, row.updated, row.hint)


def _pi_row(values: tuple[object, ...]) -> PiRow:
    (row,) = _typed([values])
    return PiRow(
        mac=row[0],
        name=row[1],
        address=IPv4Address(row[2]) if row[2] else None,
        stage=_STAGES.get(row[3]),
        since=float(row[4]),
        heard=row[5],
        heard_at=float(row[6]),
        sent=row[7],
        sent_at=float(row[8]),
        done=int(row[9]),
        total=int(row[10]),
        stuck=row[11],
        reason=row[12],
        facts=json.loads(row[13]),
        updated=float(row[14]),
        hint=row[15],
    )


def _file_values(file: FileRecord) -> tuple[object, ...]:
    begun = (file.mac, file.name, file.size, file.done)
    return (*begun, file.began, file.seconds, file.resent, file.outcome, file.blksize)


def _file(row: tuple[str, ...]) -> FileRecord:
    mac, name, size, done, began, seconds, resent, outcome, blksize = row
    return FileRecord(mac, name, int(size), int(done), float(began), float(seconds), int(resent), outcome, int(blksize))
