"""The readings of all Pis over time, in an SQLite file of its own beside the state. No rule of health, no clock.

A file of its own: it is large, written every few seconds and can be lost without harm, where the state is small and
must be on the disk when a call returns. Errors: sqlite3's own; `Store`, by which everybody comes here, tells them.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path

from monitoring.metrics import METRICS, Reading, Sample

_TABLES = (
    "CREATE TABLE IF NOT EXISTS latest (mac TEXT PRIMARY KEY, at REAL NOT NULL, readings TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS recent (mac TEXT NOT NULL, at REAL NOT NULL, readings TEXT NOT NULL)",
)


class Samples:
    """Thread safe: `_lock` guards the one connection."""

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self._lock = threading.Lock()
        how = "mode=ro" if read_only else "mode=rwc"
        self._db = sqlite3.connect(
            f"{path.absolute().as_uri()}?{how}", 2.0, isolation_level=None, check_same_thread=False, uri=True
        )
        if not read_only:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            for statement in _TABLES:
                self._db.execute(statement)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def add(self, readings: Iterable[Reading]) -> None:
        rows = [(each.mac, each.when, json.dumps([dict(each.values), dict(each.words)])) for each in readings]
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR REPLACE INTO latest VALUES (?,?,?)", rows)
            self._db.executemany("INSERT INTO recent VALUES (?,?,?)", rows)

    def latest(self) -> dict[str, Reading]:
        with self._lock:
            rows = self._db.execute("SELECT mac, at, readings FROM latest ORDER BY mac").fetchall()
        return {mac: Reading(mac, at, *json.loads(text)) for mac, at, text in rows}

    def of(self, mac: str, metric: str, since: float, until: float, points: int) -> list[Sample]:
        sql = "SELECT at, readings FROM recent WHERE mac = ? AND at >= ? AND at < ? ORDER BY at"
        with self._lock:
            rows = self._db.execute(sql, [mac, since, until]).fetchall()
        found = [(at, json.loads(text)[0].get(metric)) for at, text in rows]
        span = max((until - since) / max(points, 1), 1e-3)
        buckets: dict[int, list[float]] = {}
        for at, value in found:
            if value is not None:
                buckets.setdefault(int((at - since) / span), []).append(METRICS[metric].rounded(value))
        return [
            Sample(since + number * span, sum(each) / len(each), min(each), max(each))
            for number, each in buckets.items()
        ]

    def prune(self, now: float) -> None:
        with self._lock:
            self._db.execute("DELETE FROM recent WHERE at < ?", [now - 86400])
