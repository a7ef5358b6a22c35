"""The readings of all Pis over time, in an SQLite file of its own beside the state. No rule of health, no clock.

A file of its own: it is large, written every few seconds, and can be lost without harm, where the state is small and
must be on the disk when a call returns. Errors: sqlite3's own, which Store, by which everybody comes here, tells.

    latest    the last reading of each Pi
    recent    what came since the last packing, in the order in which it came: writing appends, wherever the Pi is
    blocks    the rest, packed (blocks.py): hours of single readings, days of five-minute means, weeks of hourly ones

`prune` does a little of the work each time: it packs `recent` when its oldest row is PACK_AFTER old, a few Pis in a
transaction, so that nobody waits; makes the means of hours that are over; and deletes what is too old.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monitoring import blocks
from monitoring.blocks import CODES, Block, BlockError, Row
from monitoring.metrics import METRICS, Reading, Sample

log = logging.getLogger("piman.samples")

PACK_AFTER = 1800.0  # seconds
PIS_AT_ONCE = 8
HOUR, DAY = 3600, 86_400
SETTLED = PACK_AFTER + 1200.0  # after an hour's end, until all of it has been packed


@dataclass(frozen=True, slots=True)
class Level:
    """How finely the past is kept. width: seconds of a mean, 0 for single readings; span: of a block; keep: in all."""

    width: int
    span: int
    keep: int


LEVELS = (Level(0, HOUR, DAY), Level(300, DAY, 30 * DAY), Level(HOUR, 8 * DAY, 366 * DAY))
# The longest span of a graph that is drawn of each level.
REACH = (26 * HOUR, 31 * DAY)

_SCHEMA = 2
_TABLES = (
    "CREATE TABLE pis (id INTEGER PRIMARY KEY, mac TEXT NOT NULL UNIQUE, packed INTEGER NOT NULL DEFAULT 0)",
    "CREATE TABLE latest (pi INTEGER PRIMARY KEY, at REAL NOT NULL, readings TEXT NOT NULL)",
    # AUTOINCREMENT: an id is never given twice, so that `packed` says for each Pi which of them are in blocks.
    "CREATE TABLE recent (id INTEGER PRIMARY KEY AUTOINCREMENT, pi INTEGER NOT NULL, at INTEGER NOT NULL, data BLOB)",
    """CREATE TABLE blocks (level INTEGER NOT NULL, start INTEGER NOT NULL, pi INTEGER NOT NULL,
       meant INTEGER NOT NULL DEFAULT 0, data BLOB NOT NULL, UNIQUE (level, start, pi))""",
    "CREATE INDEX blocks_to_mean ON blocks (start) WHERE level = 0 AND meant = 0",
)
_MASK = struct.Struct("<I")
_NAMES = tuple(sorted(CODES, key=CODES.__getitem__))


class Samples:
    """Thread safe: `_lock` guards the one connection.

    path       the file; made unless read_only; one that is damaged is begun anew
    read_only  nothing is written, not even a side file
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._ids: dict[str, int] = {}
        self._pack_to = 0  # the last row of the packing that goes on; 0: none does
        self._deleted_at = -1e18
        self._db = self._open_to_read() if read_only else self._open_to_write()

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def add(self, readings: Iterable[Reading]) -> None:
        """Keep readings, in one transaction that is safe from a killed process, not from a power cut."""
        found = list(readings)
        with self._lock, self._transaction() as db:
            rows = [(self._id(each.mac), each) for each in found]
            sql = "INSERT OR REPLACE INTO latest (pi, at, readings) VALUES (?,?,?)"
            db.executemany(sql, ((number, each.when, _text(each)) for number, each in rows))
            sql = "INSERT INTO recent (pi, at, data) VALUES (?,?,?)"
            db.executemany(sql, ((number, int(each.when), _data(each.values)) for number, each in rows))

    def latest(self) -> dict[str, Reading]:
        """The last reading of each Pi."""
        sql = "SELECT mac, at, readings FROM latest JOIN pis ON pis.id = pi ORDER BY mac"
        return {mac: Reading(mac, at, *json.loads(text)) for mac, at, text in self._read(sql)}

    def of(self, mac: str, metric: str, since: float, until: float, points: int) -> list[Sample]:
        """A metric of a Pi over a span, as finely as `points` need and as is still known."""
        if metric not in METRICS or until <= since:
            return []
        known = self._read("SELECT id FROM pis WHERE mac = ?", [mac])
        if not known:
            return []
        level = next((level for level, reach in enumerate(REACH) if until - since <= reach), len(LEVELS) - 1)
        found = self._around(int(known[0][0]), metric, since, until, level)
        return blocks.thin(found, since, until, max(1, points))

    def prune(self, now: float) -> None:
        """One small step of the packing; to be called every few seconds."""
        with self._lock:
            if self._pack_to or self._has_old(now):
                self._pack()
            elif not self._mean(now) and not 0 <= now - self._deleted_at < PACK_AFTER:
                self._deleted_at = now
                self._delete(now)

    # Reading

    def _around(self, number: int, metric: str, since: float, until: float, level: int) -> list[Row]:
        """The samples of a level, and where it has none, of a coarser one before them and of a finer one after."""
        found = self._at_level(number, metric, since, until, level)
        first = found[0][0] if found else until
        last = found[-1][0] + max(LEVELS[level].width, 1) if found else since
        before = self._before(number, metric, since, first, level + 1) if level + 1 < len(LEVELS) else []
        if before:
            last = max(last, before[-1][0] + LEVELS[level + 1].width)
        after = self._around(number, metric, last, until, level - 1) if level and last < until else []
        return [*before, *found, *after]

    def _before(self, number: int, metric: str, since: float, until: float, level: int) -> list[Row]:
        found = self._at_level(number, metric, since, until, level)
        first = found[0][0] if found else until
        coarser = self._before(number, metric, since, first, level + 1) if level + 1 < len(LEVELS) else []
        return [*coarser, *found]

    def _at_level(self, number: int, metric: str, since: float, until: float, level: int) -> list[Row]:
        span = LEVELS[level].span
        starts = range(int(since // span) * span, int(until) + 1, span)
        if len(starts) > 500:  # since 1970, say: what is not kept need not be looked for
            starts = starts[-500:]
        marks = ",".join("?" * len(starts))
        sql = f"SELECT start, data FROM blocks WHERE level = ? AND start IN ({marks}) AND pi = ? ORDER BY start"
        found: list[Row] = []
        for start, data in self._read(sql, [level, *starts, number]):
            with contextlib.suppress(BlockError):
                found += blocks.rows_of(data, metric, start)
        if level == 0:
            found += self._recent(number, metric, since, until)
        return [row for row in found if since <= row[0] < until]

    def _recent(self, number: int, metric: str, since: float, until: float) -> list[Row]:
        sql = """SELECT at, data FROM recent WHERE pi = ?1 AND id > (SELECT packed FROM pis WHERE id = ?1)
                 AND at >= ?2 AND at < ?3"""
        rows = ((at, _values(data).get(metric)) for at, data in self._read(sql, [number, int(since), until]))
        return [(at, (value, value, value)) for at, value in rows if value is not None]

    def _read(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    # Packing (with the lock held)

    def _has_old(self, now: float) -> bool:
        """Whether a packing is to begin."""
        row = self._db.execute("SELECT at FROM recent ORDER BY id LIMIT 1").fetchone()
        if row is None or 0 <= now - row[0] < PACK_AFTER:
            return False
        self._pack_to = int(self._db.execute("SELECT max(id) FROM recent").fetchone()[0])
        return True

    def _pack(self) -> None:
        """Pack what came of some Pis until the packing began, or end the packing."""
        with self._transaction() as db:
            sql = """SELECT id, packed FROM pis WHERE packed < ?1 AND
                     id IN (SELECT DISTINCT pi FROM recent WHERE id <= ?1) LIMIT ?2"""
            pis = dict(db.execute(sql, [self._pack_to, PIS_AT_ONCE]).fetchall())
            if not pis:
                db.execute("DELETE FROM recent WHERE id <= ?", [self._pack_to])
                self._pack_to = 0
                return
            sql = f"SELECT id, pi, at, data FROM recent WHERE id <= ? AND pi IN ({','.join('?' * len(pis))})"
            hours: dict[tuple[int, int], list[tuple[int, bytes]]] = {}
            for row, pi, at, data in db.execute(sql, [self._pack_to, *pis]):
                if row > pis[pi]:
                    hours.setdefault((at // HOUR * HOUR, pi), []).append((at, data))
            for (start, pi), rows in hours.items():
                block = self._block(0, start, pi)
                for at, data in rows[: blocks.MAX_ROWS - len(block.times)]:
                    values = _values(data).items()
                    block.add(at - start, {name: (value, value, value) for name, value in values}, is_mean=False)
                self._keep(0, start, pi, block)
            db.executemany("UPDATE pis SET packed = ? WHERE id = ?", [(self._pack_to, pi) for pi in pis])

    def _mean(self, now: float) -> bool:
        """Make the means of some hours that are over; whether there were any."""
        sql = "SELECT start, pi FROM blocks WHERE level = 0 AND meant = 0 AND (start < ? OR start > ?) LIMIT ?"
        found = self._db.execute(sql, [now - HOUR - SETTLED, now + HOUR, PIS_AT_ONCE]).fetchall()
        if not found:
            return False
        with self._transaction() as db:
            for start, pi in found:
                raw = self._block(0, start, pi)
                for number, level in enumerate(LEVELS[1:], 1):
                    outer = start // level.span * level.span
                    block = self._block(number, outer, pi)
                    known = set(block.times)  # of an hour that a clock, set back, went through twice
                    for begin, values in blocks.means(raw, start, level.width).items():
                        if begin - outer not in known:
                            block.add(begin - outer, values, is_mean=True)
                    self._keep(number, outer, pi, block)
                db.execute("UPDATE blocks SET meant = 1 WHERE level = 0 AND start = ? AND pi = ?", [start, pi])
        return True

    def _delete(self, now: float) -> None:
        """Delete what is older than it is kept, what a wrong clock put into the future, and what holds nothing else."""
        with self._transaction() as db:
            for number, level in enumerate(LEVELS):
                sql = "DELETE FROM blocks WHERE level = ? AND (start < ? OR start > ?)"
                db.execute(sql, [number, now - level.keep - level.span, now + DAY])
            db.execute("DELETE FROM latest WHERE at < ? OR at > ?", [now - LEVELS[1].keep, now + DAY])

    def _block(self, level: int, start: int, pi: int) -> Block:
        sql = "SELECT data FROM blocks WHERE level = ? AND start = ? AND pi = ?"
        row = self._db.execute(sql, [level, start, pi]).fetchone()
        if row:
            with contextlib.suppress(BlockError):
                return blocks.decode(row[0])
        return Block.empty()

    def _keep(self, level: int, start: int, pi: int, block: Block) -> None:
        block.sort()
        sql = """INSERT INTO blocks (level, start, pi, data) VALUES (?,?,?,?)
                 ON CONFLICT (level, start, pi) DO UPDATE SET data = excluded.data"""
        self._db.execute(sql, [level, start, pi, blocks.encode(block)])

    def _id(self, mac: str) -> int:
        if mac not in self._ids:
            self._db.execute("INSERT OR IGNORE INTO pis (mac) VALUES (?)", [mac])
            self._ids[mac] = int(self._db.execute("SELECT id FROM pis WHERE mac = ?", [mac]).fetchone()[0])
        return self._ids[mac]

    # The file

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            self._ids.clear()  # what was given a number in vain
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _open_to_read(self) -> sqlite3.Connection:
        try:
            db = self._connect("mode=ro")
            db.execute("SELECT count(*) FROM latest").fetchone()
        except sqlite3.OperationalError:
            # Without rights to the folder a reader cannot make a WAL's side files; with no -wal nothing is pending.
            if self.path.with_name(self.path.name + "-wal").exists():
                raise
            db = self._connect("mode=ro&immutable=1")
        return db

    def _open_to_write(self) -> sqlite3.Connection:
        try:
            return self._prepared()
        except sqlite3.OperationalError:  # locked, full, no permission: the file itself may be sound
            raise
        except sqlite3.DatabaseError as error:
            log.error("%s is damaged (%s): the history of the Pis begins anew", self.path, error)
            for end in ("", "-wal", "-shm"):
                self.path.with_name(self.path.name + end).unlink(missing_ok=True)
            return self._prepared()

    def _prepared(self) -> sqlite3.Connection:
        db = self._connect("mode=rwc")
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA wal_autocheckpoint = 400")  # pages
            if os.geteuid() == 0:  # a command run with sudo must not make a file that the service cannot write
                owner = self.path.parent.stat()
                os.chown(self.path, owner.st_uid, owner.st_gid)
            self._make_tables(db)
        except BaseException:
            db.close()
            raise
        return db

    @staticmethod
    def _make_tables(db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        if version == 0:
            for statement in _TABLES:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {_SCHEMA}")
        db.execute("COMMIT")
        if version not in (0, _SCHEMA):
            raise sqlite3.DatabaseError(f"it is of another version, {version}")

    def _connect(self, how: str) -> sqlite3.Connection:
        name = f"{self.path.absolute().as_uri()}?{how}"
        return sqlite3.connect(name, 2.0, isolation_level=None, check_same_thread=False, uri=True)


def _text(reading: Reading) -> str:
    return json.dumps([dict(reading.values), dict(reading.words)])


def _data(values: Mapping[str, float]) -> bytes:
    """Values as the bits of those that are there, and a float each: 4 bytes are as much as a graph can show."""
    there = [name for name in _NAMES if name in values]
    mask = sum(1 << CODES[name] for name in there)
    return struct.pack(f"<I{len(there)}f", mask, *(values[name] for name in there))


def _values(data: bytes) -> dict[str, float]:
    (mask,) = _MASK.unpack_from(data)
    there = [name for name in _NAMES if mask >> CODES[name] & 1]
    found = struct.unpack_from(f"<{len(there)}f", data, _MASK.size)
    return {name: METRICS[name].rounded(value) for name, value in zip(there, found, strict=True)}
