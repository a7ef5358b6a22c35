"""monitoring/samples: the past in three levels, packed in small steps, bounded, and quick to draw."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitoring import samples as module
from monitoring.metrics import METRICS, Reading, Sample
from monitoring.samples import DAY, HOUR, PACK_AFTER, Samples

MAC, OTHER = "b8:27:eb:00:00:01", "b8:27:eb:00:00:02"
BEGIN = 1_700_006_400  # a midnight
YEAR = 366 * DAY


@pytest.fixture
def history(tmp_path: Path) -> Iterator[Samples]:
    made = Samples(tmp_path / "samples.db")
    yield made
    made.close()


def reading(mac: str, when: float, **values: float) -> Reading:
    return Reading(mac, when, values, {"error": "", "kernel": "6.1"})


def settle(history: Samples, now: float, steps: int = 2000) -> None:
    """Let it do all the work that is due."""
    for _ in range(steps):
        history.prune(now)


def fill(history: Samples, since: int, until: int, interval: int, pis: int = 1) -> None:
    """A triangle of temperature, the same each hour; packed as the server would."""
    for now in range(since, until, interval):
        heat = 40.0 + (now % HOUR) / 360
        macs = [MAC, *(f"b8:27:eb:01:{number >> 8:02x}:{number & 255:02x}" for number in range(1, pis))]
        history.add([reading(mac, now, temperature=METRICS["temperature"].rounded(heat), up=1.0) for mac in macs])
        history.prune(now)


def rows(history: Samples, table: str, where: str = "1") -> int:
    return int(history._read(f"SELECT count(*) FROM {table} WHERE {where}")[0][0])


def test_the_latest_of_each_and_the_recent(history: Samples) -> None:
    assert history.latest() == {}
    assert history.of(MAC, "load1", BEGIN, BEGIN + 9, 10) == []
    first, second = reading(MAC, BEGIN + 0.25, load1=0.5), reading(MAC, BEGIN + 10.5, load1=1.25, uptime=3e8)
    history.add([first, reading(OTHER, BEGIN, clock_offset=-0.000003)])
    history.add([second])
    assert history.latest() == {MAC: second, OTHER: reading(OTHER, BEGIN, clock_offset=-0.000003)}
    assert history.of(MAC, "load1", BEGIN, BEGIN + 60, 10) == [
        Sample(BEGIN, 0.5, 0.5, 0.5),
        Sample(BEGIN + 10, 1.25, 1.25, 1.25),
    ]
    assert history.of(OTHER, "clock_offset", BEGIN, BEGIN + 60, 10)[0].mean == -0.000003
    assert history.of(MAC, "watts", BEGIN, BEGIN + 60, 10) == []
    assert history.of(MAC, "no such metric", BEGIN, BEGIN + 60, 10) == []
    assert history.of(MAC, "load1", BEGIN + 60, BEGIN, 10) == []


def test_packing_changes_nothing_that_is_read(history: Samples) -> None:
    fill(history, BEGIN, BEGIN + 2 * HOUR, 60, pis=20)
    now = BEGIN + 2 * HOUR
    before = history.of(MAC, "temperature", BEGIN, now, 500)
    assert len(before) == 120
    settle(history, now + PACK_AFTER)
    assert rows(history, "recent") == 0
    assert history.of(MAC, "temperature", BEGIN, now, 500) == before
    history.add([reading(MAC, now, temperature=55.5)])
    assert history.of(MAC, "temperature", BEGIN, now + 1, 500) == [*before, Sample(now, 55.5, 55.5, 55.5)]


def test_while_a_packing_goes_on_every_row_is_read_once(history: Samples) -> None:
    for minute in range(10):
        history.add([reading(f"pi{number:02}", BEGIN + 60 * minute, load1=1.0) for number in range(30)])
    now = BEGIN + 600 + PACK_AFTER
    for _ in range(8):
        history.prune(now)
        history.add([reading("pi00", now, load1=2.0)])
        for number in (0, 7, 8, 29):
            found = history.of(f"pi{number:02}", "load1", BEGIN, BEGIN + 600, 100)
            assert [each.when for each in found] == [BEGIN + 60 * minute for minute in range(10)]
    assert rows(history, "recent") == 8  # those that came meanwhile


def test_the_three_levels_and_what_is_forgotten(history: Samples) -> None:
    end = BEGIN + 3 * DAY
    fill(history, BEGIN, end, 300)
    settle(history, end)
    assert rows(history, "blocks", "level = 0") <= 26
    assert rows(history, "blocks", "level = 1") == 3
    fine = history.of(MAC, "temperature", end - HOUR, end, 500)
    assert len(fine) == 12
    day = history.of(MAC, "temperature", end - DAY, end, 500)
    assert len(day) == 288
    old = history.of(MAC, "temperature", BEGIN, BEGIN + HOUR, 500)  # no longer in single readings
    assert [each.when for each in old] == [BEGIN + 300 * number for number in range(12)]
    all_of_it = history.of(MAC, "temperature", BEGIN, end, 10_000)
    assert [each.when for each in all_of_it] == list(range(BEGIN, end, 300))
    hourly = history.of(MAC, "temperature", end - YEAR, end, 10_000)
    assert [each.when for each in hourly[:48]] == list(range(BEGIN, BEGIN + 2 * DAY, HOUR))
    assert (hourly[0].low, hourly[0].high) == (40.0, 49.2)
    assert hourly[-1].when == end - 300  # the newest are as fine as they are known
    settle(history, BEGIN + 33 * DAY + PACK_AFTER)
    assert rows(history, "blocks", "level < 2") == rows(history, "latest") == 0
    assert len(history.of(MAC, "temperature", BEGIN, BEGIN + 3 * DAY, 500)) >= 70
    settle(history, BEGIN + YEAR + 12 * DAY)
    assert rows(history, "blocks") == 0


def test_an_hour_a_clock_went_through_twice_and_a_future_that_was_none(history: Samples) -> None:
    fill(history, BEGIN, BEGIN + HOUR, 600)
    settle(history, BEGIN + 3 * HOUR)
    history.add([reading(MAC, BEGIN + 30, temperature=60.0), reading(MAC, BEGIN + 90 * DAY, temperature=1.0)])
    settle(history, BEGIN + 4 * HOUR)
    found = history.of(MAC, "temperature", BEGIN, BEGIN + HOUR, 500)
    assert [each.when for each in found] == sorted(each.when for each in found)
    assert found[1] == Sample(BEGIN + 30, 60.0, 60.0, 60.0)
    settle(history, BEGIN + 4 * HOUR + PACK_AFTER + 1)
    assert history.of(MAC, "temperature", BEGIN + 89 * DAY, BEGIN + 91 * DAY, 500) == []


def test_a_damaged_block_is_a_gap_and_no_failure(history: Samples) -> None:
    fill(history, BEGIN, BEGIN + 2 * HOUR, 600)
    settle(history, BEGIN + 3 * HOUR)
    history._db.execute("UPDATE blocks SET data = x'00', meant = 0 WHERE level = 0 AND start = ?", [BEGIN])
    settle(history, BEGIN + 4 * HOUR)
    assert len(history.of(MAC, "temperature", BEGIN, BEGIN + 2 * HOUR, 500)) >= 6


def test_a_damaged_file_is_begun_anew_and_a_reader_needs_no_rights(tmp_path: Path) -> None:
    path = tmp_path / "samples.db"
    path.write_bytes(b"no database at all" * 500)
    history = Samples(path)
    history.add([reading(MAC, BEGIN, load1=1.0)])
    reader = Samples(path, read_only=True)
    assert set(reader.latest()) == {MAC}
    with pytest.raises(sqlite3.OperationalError):
        reader.add([reading(MAC, BEGIN, load1=1.0)])
    reader.close()
    history.close()
    history = Samples(path)
    assert set(history.latest()) == {MAC}
    history._db.execute("PRAGMA user_version = 99")
    history.close()
    with pytest.raises(sqlite3.OperationalError):
        Samples(tmp_path / "nowhere" / "samples.db")
    assert Samples(path).latest() == {}


def test_a_failed_write_leaves_nothing_behind(history: Samples) -> None:
    wrong = Reading(MAC, BEGIN, {"load1": 1.0}, {"error": object()})  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        history.add([wrong])
    history.add([reading(MAC, BEGIN, load1=2.0)])
    assert history.of(MAC, "load1", BEGIN, BEGIN + 9, 9) == [Sample(BEGIN, 2.0, 2.0, 2.0)]


def test_a_reader_without_rights_to_the_folder(tmp_path: Path) -> None:
    history = Samples(tmp_path / "samples.db")
    history.add([reading(MAC, BEGIN, load1=1.0)])
    history.close()
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == 0 or parent == Path("/"):
            break
    code = f"""import os, sys
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from pathlib import Path
from monitoring.samples import Samples
os.chdir({str(tmp_path)!r})
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(list(Samples(Path("samples.db"), read_only=True).latest()))"""
    tmp_path.chmod(0o555)
    for parent in tmp_path.parents[:3]:
        if parent != Path("/tmp"):
            parent.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert done.stdout == f"['{MAC}']\n", done.stderr


def test_a_week_of_five_hundred_pis_is_small_and_a_day_is_drawn_at_once(history: Samples) -> None:
    """One Pi every 10 s for 25 hours, written and packed as the server does it, counted up to 500 of a week."""
    chance, heat, end = random.Random(1), 45.0, BEGIN + DAY + HOUR
    for now in range(BEGIN, end, 10):
        heat += chance.gauss(0, 0.3) + (45 - heat) * 0.05
        values = dict.fromkeys(("under_voltage", "under_voltage_seen", "throttled", "throttled_seen"), 0.0)
        values |= {"cpu_percent": chance.expovariate(1 / 8) % 100, "memory_percent": 30 + chance.gauss(0, 0.2)}
        values |= {"disk_percent": 42.0, "num_pids": 97.0 + chance.randrange(3), "temperature": heat, "up": 1.0}
        values |= {"load1": abs(chance.gauss(0.3, 0.1)), "uptime": float(now - BEGIN), "card_errors": 0.0}
        values |= {"clock_offset": chance.gauss(0, 2e-5), "ping_ms": abs(chance.gauss(0.4, 0.05)), "watts": 3.1}
        history.add([reading(MAC, now, **values)])
        if now % 600 == 0:
            settle(history, now, 4)
    settle(history, end)
    sizes = dict(history._read("SELECT level, sum(length(data)) FROM blocks GROUP BY level"))
    raw, fine, coarse = (sizes[level] for level in range(3))
    week = 500 * (raw * 25 / 25 + 7 * fine * 24 / 25 + 7 * coarse * 24 / 25)
    assert week < 100e6  # of the 200 MB; pages, the index and what waits to be packed take some more
    # What waits to be packed at most, of 500 Pis, is looked through for the one.
    for _ in range(int(PACK_AFTER / 10)):
        history.add([reading(f"pi{number}", end, temperature=45.0, load1=1.0) for number in range(500)])
    assert rows(history, "recent") >= 90_000
    took = []
    for _ in range(5):
        began = time.thread_time()
        found = history.of(MAC, "temperature", end - DAY, end, 500)
        took.append(time.thread_time() - began)
    assert len(found) == 500
    assert min(took) < 0.05, took


def test_a_step_of_the_packing_is_short(history: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    for minute in range(30):
        history.add([reading(f"pi{number}", BEGIN + 60 * minute, load1=1.0, up=1.0) for number in range(100)])
    longest = 0.0
    for step in range(40):
        began = time.thread_time()
        history.prune(BEGIN + 1800 + step)
        longest = max(longest, time.thread_time() - began)
    assert rows(history, "recent") == 0
    assert longest < 0.2
    assert module.PIS_AT_ONCE <= 10
