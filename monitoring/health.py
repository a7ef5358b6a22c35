"""Whether each Pi works, by all the evidence there is, and its latest reading. No clock, no I/O: time is an argument.

Rules, in the order in which `_weigh` applies them:

1. A port of the switch without link or power is down, whatever was heard before it was looked at.
2. An answer of the agent, or of the Pi's kernel to a TCP connection, is up; two polls in a row without are silence.
3. While a Pi boots or is installed, only its agent counts: the installer's kernel answers TCP too.
4. What a Pi says by itself (a lease renewed, the time asked for) is up until the next such word is overdue, but only
   if it was said well after the last answer to a poll: a Pi that died a moment after a word must not live on by it.
5. A Pi that changed more than FLAPS times within FLAP_WINDOW is up again only when the evidence has held for STEADY.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from monitoring.metrics import METRICS, Reading
from utility.service import Stage

FLAPS = 4  # changes
FLAP_WINDOW = 600.0
STEADY = 60.0
SILENT_POLLS = 2
NTP_HOLDS = 2100.0  # the longest pause of systemd-timesyncd, 2048 s
LEASE_HOLDS = 0.75  # of the lease: a client renews at half of it, and tries again
CLOCK_JUMP = 3600.0  # between two readings: the manager's own clock was set

AGENT_WORD = "an answer of its agent"  # how the board knows of what is known here better
BOOTING = frozenset(Stage) - {Stage.UP}


@dataclass(frozen=True, slots=True)
class Up:
    """Whether a Pi works, the Unix time since when (0: it was never heard), and why we think so."""

    is_up: bool
    since: float
    evidence: str


@dataclass(frozen=True, slots=True)
class Port:
    """What the switch says of a Pi's port at the Unix time `when`; None: the switch cannot tell."""

    when: float
    link: bool | None = None
    powered: bool | None = None
    watts: float | None = None


@dataclass(slots=True)
class _Pi:
    """What is known of one Pi. Times are Unix times, 0 for never."""

    reading: Reading | None = None
    agent_at: float = 0.0
    ping_at: float = 0.0
    silent: int = 0  # polls in a row without any answer
    error: str = ""
    word: str = ""
    word_at: float = 0.0
    stage: Stage | None = None
    stage_since: float = 0.0
    port: Port | None = None
    is_up: bool = False
    since: float = 0.0
    good_since: float = math.inf  # how long the evidence has held without a break
    works: Up = Up(True, 0.0, "")  # what is said of it while it does
    changes: deque[float] = field(default_factory=lambda: deque(maxlen=FLAPS + 1))


class Health:
    """The live readings of all Pis, and the verdict on each. Thread safe: `_lock` guards all of it; nothing blocks.

    interval     seconds between two polls of a Pi
    lease_time   of DHCP, in seconds: how often a Pi is heard if it says nothing else
    """

    def __init__(self, interval: float = 10.0, lease_time: float = 600.0) -> None:
        self._interval, self._lease_time = interval, lease_time
        self._lock = threading.Lock()
        self._pis: dict[str, _Pi] = {}
        self._at = 0.0  # of the last reading

    def take(self, reading: Reading) -> Reading:
        """Take what a poll found, and judge the Pi by it; the reading with `up`, `watts`, `evidence`, `since` in it."""
        with self._lock:
            self._allow_for_clock(reading.when)
            pi = self._pis.setdefault(reading.mac, _Pi())
            pi.error = reading.words.get("error", "")
            if not pi.error:
                pi.agent_at = reading.when
            if "ping_ms" in reading.values:
                pi.ping_at = reading.when
            pi.silent = 0 if not pi.error or "ping_ms" in reading.values else pi.silent + 1
            up = self._judge(pi, reading.when)
            values, words = dict(reading.values), dict(reading.words)
            values["up"] = float(up.is_up)
            if pi.port and pi.port.watts is not None and METRICS["watts"].accepts(pi.port.watts):
                values["watts"] = pi.port.watts
            words["evidence"], words["since"] = up.evidence, f"{up.since:.0f}"
            pi.reading = Reading(reading.mac, reading.when, values, words)
            return pi.reading

    def restore(self, reading: Reading) -> None:
        """Go on from the last reading that an earlier process kept: up, and since when."""
        with self._lock:
            if reading.mac in self._pis:
                return
            pi = self._pis[reading.mac] = _Pi(reading, is_up=bool(reading.values.get("up")))
            since = reading.words.get("since", "")
            pi.since = float(since) if since.isdecimal() else 0.0
            if not reading.words.get("error"):
                pi.agent_at = reading.when
            if "ping_ms" in reading.values:
                pi.ping_at = reading.when
            pi.good_since = pi.since if pi.is_up else math.inf

    def heard(self, mac: str, word: str, when: float, stage: Stage | None, stage_since: float) -> None:
        """Take what the board knows of a Pi: its last word, and its stage since when."""
        with self._lock:
            pi = self._pis.setdefault(mac, _Pi())
            pi.stage, pi.stage_since = stage, stage_since
            if when > pi.word_at and word != AGENT_WORD:
                pi.word, pi.word_at = word, when

    def port(self, mac: str, port: Port) -> None:
        """Take what the switch says of a Pi's port."""
        with self._lock:
            self._pis.setdefault(mac, _Pi()).port = port

    def keep(self, macs: Iterable[str]) -> None:
        """Forget all the others: they are no longer in hosts.csv."""
        with self._lock:
            wanted = set(macs)
            for mac in [mac for mac in self._pis if mac not in wanted]:
                del self._pis[mac]

    def latest(self) -> Mapping[str, Reading]:
        """The last reading of each Pi that was polled, by its MAC."""
        with self._lock:
            return {mac: pi.reading for mac, pi in self._pis.items() if pi.reading is not None}

    def up(self, mac: str, now: float) -> Up:
        """The verdict of the last poll, with its evidence in words as of `now`."""
        with self._lock:
            pi = self._pis.get(mac)
            return self._told(pi, now) if pi else Up(False, 0.0, "not polled yet")

    def ups(self, now: float) -> dict[str, Up]:
        """The same of all, but the evidence only of those that are down: nobody asks why the others work."""
        with self._lock:
            return {mac: self._works(pi) if pi.is_up else self._told(pi, now) for mac, pi in self._pis.items()}

    # With the lock held

    def _judge(self, pi: _Pi, now: float) -> Up:
        good = self._weigh(pi, now)
        pi.good_since = min(pi.good_since, now) if good else math.inf
        if good != pi.is_up and (not good or self._is_steady(pi, now)):
            pi.is_up = good
            pi.since = now if good else max(pi.agent_at, pi.ping_at, min(pi.word_at, now)) or now
            pi.changes.append(now)
        return self._told(pi, now)

    def _is_steady(self, pi: _Pi, now: float) -> bool:
        return not self._flaps(pi, now) or now - pi.good_since >= STEADY

    @staticmethod
    def _flaps(pi: _Pi, now: float) -> bool:
        return len(pi.changes) > FLAPS and now - pi.changes[0] < FLAP_WINDOW

    def _weigh(self, pi: _Pi, now: float) -> bool:
        answered = max(pi.agent_at, pi.ping_at)
        if pi.port and (pi.port.link is False or pi.port.powered is False) and pi.port.when > answered:
            return False
        if pi.stage in BOOTING:
            return pi.agent_at > pi.stage_since and pi.silent < SILENT_POLLS
        if answered and pi.silent < SILENT_POLLS:
            return True
        is_recent = now - pi.word_at < self._holds(pi.word)
        return bool(pi.word_at) and is_recent and (not answered or pi.word_at > answered + 1.5 * self._interval)

    def _holds(self, word: str) -> float:
        return NTP_HOLDS if word.startswith("NTP") else LEASE_HOLDS * self._lease_time

    def _told(self, pi: _Pi, now: float) -> Up:
        return Up(pi.is_up, pi.since, ", ".join(self._evidence(pi, now)) or "never heard")

    @staticmethod
    def _works(pi: _Pi) -> Up:
        if pi.works.since != pi.since:
            pi.works = Up(True, pi.since, "")
        return pi.works

    def _evidence(self, pi: _Pi, now: float) -> list[str]:
        told = []
        if pi.stage in BOOTING and pi.agent_at <= pi.stage_since:
            told.append("failed to install or boot" if pi.stage is Stage.FAILED else f"boots: {pi.stage}")
        if not pi.is_up and self._flaps(pi, now):
            told.append(f"flaps: {len(pi.changes)} changes in {_ago(now - pi.changes[0])}")
        if pi.agent_at:
            told.append(f"agent {_ago(now - pi.agent_at)} ago")
        if pi.ping_at and (pi.error or not pi.agent_at):
            told.append(f"TCP {_ago(now - pi.ping_at)} ago")
        if pi.word_at:
            told.append(f"{pi.word} {_ago(now - pi.word_at)} ago")
        if pi.port is not None:
            told += _of_port(pi.port)
        return told

    def _allow_for_clock(self, now: float) -> None:
        """Move what is remembered along when the manager's clock is set: it was no later, the clock was wrong."""
        gap, self._at = now - self._at, now
        if abs(gap) < CLOCK_JUMP or gap == now:
            return
        for pi in self._pis.values():
            pi.agent_at, pi.ping_at = _moved(pi.agent_at, gap, now), _moved(pi.ping_at, gap, now)
            pi.since, pi.good_since = _moved(pi.since, gap, now), pi.good_since + gap
            pi.changes = deque((each + gap for each in pi.changes), FLAPS + 1)


def _moved(when: float, gap: float, now: float) -> float:
    """A time of the old clock by the new one; what an earlier process knew by a right clock is not in the future."""
    return min(when + gap, now) if when else 0.0


def _of_port(port: Port) -> list[str]:
    if port.powered is False:
        return ["its port is without power"]
    if port.link is False:
        return ["its port has no link"]
    return [f"its port gives {port.watts:.1f} W"] if port.watts else []


def _ago(seconds: float) -> str:
    seconds = max(0.0, seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
