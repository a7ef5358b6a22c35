"""The live board: what every Pi does now, made of what the services report. No protocol, no socket, no SQL.

Rules, in the order in which `_take` applies them:

1. A MAC that hosts.csv does not know is shown with its last words (256 such at most), has no stage, gets one event.
2. A report brings its stage unless NOT_BELIEVED says that it cannot be about the boot we watch: its words are kept
   and its event is told, but it is no progress.
3. `up` is not believed while the Pi fetches its boot files, unless that has long been stuck.
4. A PXE DISCOVER begins a new boot, whatever the stage was; so does everything else that is believed.
5. A stage that makes no progress within its deadline (STAGES) is stuck, and says what was expected.
6. A change of stage is an event, told with the time the last stage took, unless the report brings its own words.
7. A report without a MAC is the manager's own event.
8. A report of something that was seen before the Pi's last words (a crowd of DHCP clients is written up late) changes
   neither its stage nor its words: it brings facts, an event, and what is collected of the boot.

Beside the stage, what is seen of each boot is collected (`_Boot`), and looked at once a second by the rules of
diagnosis.py: what they find is an event, once, and stays on the row until the Pi goes on. A boot is what comes between
a power-on, or a DISCOVER after an earlier boot got anywhere, and `up`.
"""

from __future__ import annotations

import itertools
import logging
import math
import re
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from monitoring.diagnosis import BEFORE_HELLO, Boot, Finding, boot_summary, diagnose, duration, gravest
from monitoring.store import Event, PiRow, Store, StoreError
from utility.hosts import Host
from utility.service import FileRecord, Report, Severity, Stage

log = logging.getLogger("piman.fleet")

PiState = PiRow  # what the board shows is what the store keeps

MAX_UNKNOWN = 256
UNKNOWN_REST = 600.0  # an unknown MAC gives its place on the board to another after so much silence
MAX_QUEUED = 40_000  # events that wait for the store
MAX_QUEUED_PER_PI = 200  # of them: one Pi that boots in a circle must not push out the others
PROGRESS_INTERVAL = 0.25  # between two writes of a row where only a transfer went on
REFRESH_INTERVAL = 2.0  # between two looks at hosts.csv for names and addresses
PRUNE_INTERVAL = 60.0
POWER_INTERVAL = 1.0  # between two looks for power-ons that a command has noted
JUDGE_INTERVAL = DIAGNOSE_INTERVAL = 1.0
MAX_DIAGNOSED = 1_000  # boots at a time: looking at ten thousand would hold up all other threads
DIAGNOSE_FOR = 120.0  # after its last word nothing more is to be found out: every rule has fired by then
STILL_WRONG = 60.0  # what was wrong with one try is shown in the next, until it goes further or for so long
RECENT = 600.0  # an older power-on, another DHCP server, a finding that was told: not about this boot
MAX_FILES = 128  # of one boot; a real one has about 40
MAX_STARTS = 16
CLOCK_JUMP = 3600.0  # a gap between two ticks that is the clock's doing, not ours
MAX_TEXT = 300
MAX_FACTS = 32
MAX_NUMBER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Expectation:
    """How long a stage may go without progress, and what is to come. words: something new heard is progress too."""

    seconds: float
    expected: str
    words: bool = True


STAGES: Mapping[Stage, Expectation] = {
    # A board that only asks again for an address does not go on: words do not count there.
    Stage.DISCOVER: Expectation(30, "a REQUEST or the first TFTP read", words=False),
    Stage.LEASE: Expectation(60, "the first TFTP read", words=False),
    Stage.FIRMWARE: Expectation(60, "the kernel"),
    Stage.KERNEL: Expectation(120, "the hello of the installer"),
    Stage.HELLO: Expectation(90, "what the installer found on the card"),
    Stage.FORMAT: Expectation(180, "FORMATTED"),
    Stage.IMAGE: Expectation(60, "another byte of the image, or IS_FORMATTED"),
    Stage.BOOT: Expectation(180, "DHCP, NTP or anything else of the installed system"),
    Stage.UP: Expectation(math.inf, ""),
    Stage.FAILED: Expectation(math.inf, ""),
}

# reported stage -> the stages in which it is not believed
NOT_BELIEVED: Mapping[Stage, frozenset[Stage]] = {
    # A kernel's own `ip=dhcp`, before the installer speaks, must not pass for the installed system. Later there is no
    # such doubt: the installer's DHCP says whose it is, so a system that is heard was booted while nobody listened.
    Stage.UP: frozenset({Stage.FIRMWARE, Stage.KERNEL}),
    # Some models fetch a device tree or an overlay after the kernel.
    Stage.FIRMWARE: frozenset({Stage.KERNEL}),
    # The session of a boot that lost power ends by its timeout, when the Pi has long begun the next boot.
    Stage.FAILED: frozenset({Stage.DISCOVER, Stage.LEASE, Stage.FIRMWARE, Stage.KERNEL}),
}


_DISCOVER, _LEASE, _WARNING = Stage.DISCOVER, Stage.LEASE, Severity.WARNING  # of each report: shorter to reach
_LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.ERROR: logging.ERROR}
_SERVER = re.compile(r"another DHCP server, ([0-9.]+)")
_ADVANCED = frozenset(Stage) - {Stage.DISCOVER, Stage.LEASE, Stage.FIRMWARE}
# All that a boot ROM fetches. What it has loaded then asks for an address of its own, in the same boot.
_ROM_FILES = frozenset({"bootcode.bin", "bootsig.bin"})


@dataclass(slots=True)
class _Boot:
    """What was seen of a Pi's boot so far, as in diagnosis.Boot; the last six outlive it."""

    began_at: float
    powered_at: float = 0.0
    discovers: int = 0
    first_discover: float = 0.0
    last_discover: float = 0.0
    offers: int = 0
    requested: bool = False
    rom: bool = False
    foreign: str = ""
    asked_at: float = 0.0
    entered: dict[Stage, float] = field(default_factory=dict)
    files: deque[FileRecord] = field(default_factory=lambda: deque(maxlen=MAX_FILES))
    advanced: bool = False  # so far that another DISCOVER is another boot
    starting: bool = True  # the next file is the first since a DISCOVER
    summed_up: bool = False
    shown: Finding | None = None  # on the board
    diagnosed_at: float = -math.inf
    first_file: str = ""
    starts: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_STARTS))
    had_kernel: bool = False
    installs: int = 0
    told: dict[int, float] = field(default_factory=dict)  # rule -> when
    wrong_at: float = -math.inf  # when something was last found that belongs on the board


@dataclass(slots=True)
class _Pi:
    """A row that changes, and what is known beyond the row."""

    mac: str
    name: str = ""
    address: IPv4Address | None = None
    stage: Stage | None = None
    since: float = 0.0
    heard: str = ""
    heard_at: float = 0.0
    sent: str = ""
    sent_at: float = 0.0
    done: int = 0
    total: int = 0
    stuck: str = ""
    reason: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    updated: float = 0.0
    known: bool = False  # hosts.csv has it
    told: bool = False  # its one event as an unknown MAC
    progress_at: float = 0.0  # when the stage last went on
    stuck_at: float = 0.0
    saved_at: float = -math.inf
    urgent: bool = False  # more changed than the progress of a transfer
    hint: str = ""
    boot: _Boot | None = None
    kept: PiRow | None = None  # the row; None: something changed
    host: Host | None = None  # by which it was named

    def row(self) -> PiRow:
        """As it is now. Most rows are asked for many times before they change."""
        if self.kept is None:
            self.kept = self._made()
        return self.kept

    def _made(self) -> PiRow:
        return PiRow(
            mac=self.mac,
            name=self.name,
            address=self.address,
            stage=self.stage,
            since=self.since,
            heard=self.heard,
            heard_at=self.heard_at,
            sent=self.sent,
            sent_at=self.sent_at,
            done=self.done,
            total=self.total,
            stuck=self.stuck,
            reason=self.reason,
            facts=dict(self.facts),
            updated=self.updated,
            hint=self.hint,
        )


class Fleet:
    """The board. Thread safe: `_lock` guards all that is on it and is never held while the store is used.

    store   where rows and events are kept; its rows are the board's beginning, so that a restart forgets nothing
    find    the Pi of a MAC, None if hosts.csv has none; asked often, must be quick
    clock   Unix time, for the moment of a report
    """

    def __init__(self, store: Store, find: Callable[[str], Host | None], clock: Callable[[], float]) -> None:
        self._store, self._find, self._clock = store, find, clock
        self._lock = threading.Lock()
        self._writer = threading.Lock()  # one tick at a time
        self._pis: dict[str, _Pi] = {}
        self._unknown: dict[str, None] = {}  # the MACs without a host, the one unheard for longest first
        self._changed: dict[str, None] = {}
        self._forgotten: set[str] = set()
        self._events: list[Event] = []
        self._files: list[FileRecord] = []
        self._booting: dict[str, None] = {}  # whose boot is to be looked at
        self._foreign, self._foreign_at = "", -math.inf
        self._power_id = 0
        self._queued: Counter[str] = Counter()
        self._lost = 0
        self._outage = ""  # why the store does not take our rows; told once
        self._began_at = now = clock()
        self._ticked_at = self._refreshed_at = now
        self._pruned_at = self._looked_at = self._judged_at = self._diagnosed_at = -math.inf
        for row in store.pis():
            self._load(row, now)

    def report(self, report: Report, when: float | None = None) -> None:
        """Put what a service saw on the board, now or at that Unix time. Any thread; quick (no disk), never raises."""
        now = self._clock() if when is None else when
        mac = report.mac
        host = self._find(mac) if mac else None
        with self._lock:
            if mac:
                self._take(report, host, now, is_late=when is not None)
            else:
                self._take_own(report, now)

    def power_on(self, mac: str, at: float) -> None:
        """The port of a Pi was turned on at the Unix time `at`: what it does from now on is a new boot. Any thread."""
        now, host = self._clock(), self._find(mac)
        with self._lock:
            if host is not None and 0 <= now - at < RECENT:
                pi = self._pis.get(mac) or self._admit(mac, host, now)
                assert pi is not None  # None is for strangers
                self._name(pi, host, now)
                self._power_on(pi, at)

    def record_file(self, record: FileRecord) -> None:
        """Keep what became of a file that a Pi asked for. Any thread; quick (no disk), never raises."""
        with self._lock:
            pi = self._pis.get(record.mac)
            if pi is not None and pi.known:
                self._take_file(pi, record)

    def tick(self, now: float) -> None:
        """Mark what is stuck, write what changed, forget old events. To be called about four times a second."""
        if not 0 <= now - self._refreshed_at < REFRESH_INTERVAL:
            self._refreshed_at = now
            self._refresh(now)
        with self._lock:
            self._allow_for_clock(now)
            if not 0 <= now - self._judged_at < JUDGE_INTERVAL:
                self._judged_at = now
                for pi in self._pis.values():
                    self._judge(pi, now)
        if not 0 <= now - self._looked_at < POWER_INTERVAL:
            self._looked_at = now
            self._look_for_power()
        if not 0 <= now - self._diagnosed_at < DIAGNOSE_INTERVAL:
            self._diagnosed_at = now
            self._diagnose(now)
        self._write(now, everything=False)

    def flush(self, now: float) -> None:
        """Write all there is, at the end of the process."""
        self._write(now, everything=True)

    def snapshot(self) -> list[PiState]:
        """The board as it is, in the order of the MACs; unknown MACs have an empty name and no stage."""
        with self._lock:
            return [self._pis[mac].row() for mac in sorted(self._pis)]

    def foreign_server(self) -> tuple[str, float]:
        """The address of another DHCP server, and when it was last told of; empty: none was."""
        with self._lock:
            return self._foreign, self._foreign_at

    def _refresh(self, now: float) -> None:
        """Follow hosts.csv: a Pi may have been named, moved, adopted, taken out."""
        with self._lock:
            macs = list(self._pis)
        hosts = {mac: self._find(mac) for mac in macs}  # not under our lock: hosts.csv has its own
        with self._lock:
            for mac, host in hosts.items():
                if mac in self._pis:
                    self._name(self._pis[mac], host, now)
            while len(self._unknown) > MAX_UNKNOWN:
                self._forget(next(iter(self._unknown)))

    # What a report does (with the lock held)

    def _take(self, report: Report, host: Host | None, now: float, is_late: bool) -> None:
        pi = self._pis.get(report.mac) or self._admit(report.mac, host, now)
        if pi is None:
            return
        self._name(pi, host, now)
        if not pi.known:
            self._take_stranger(pi, report, now)
        elif is_late and now < pi.updated:
            self._take_late(pi, report, now)
            now = pi.updated
        elif pi.boot is not None and report.began < pi.boot.began_at:  # the Pi lost power meanwhile
            self._take_late(pi, report, now)
        else:
            self._take_news(pi, report, now)
        pi.updated = now
        self._touch(pi)

    def _take_news(self, pi: _Pi, report: Report, now: float) -> None:
        stage = report.stage
        if pi.hint and pi.boot is None:  # of before our start: what it says now decides whether it stays
            self._begin(pi, now)
        if stage is None or stage is _DISCOVER or stage is _LEASE:
            self._witness(pi, report, now)
        if stage is None or stage is pi.stage:
            if self._note(pi, report, now) or self._count(pi, report):
                self._go_on(pi, now)
            if report.event:
                self._tell(now, pi.mac, report.severity, report.event)
        else:
            self._note(pi, report, now)
            if self._believes(pi, stage):
                self._enter(pi, stage, report, now)
            elif report.event:
                self._tell(now, pi.mac, report.severity, report.event)

    def _take_late(self, pi: _Pi, report: Report, now: float) -> None:
        if report.stage in (None, _DISCOVER, _LEASE):
            self._witness(pi, report, now)
        self._note(pi, replace(report, heard="", sent=""), now)
        if report.event:
            self._tell(now, pi.mac, report.severity, report.event)

    def _take_stranger(self, pi: _Pi, report: Report, now: float) -> None:
        self._note(pi, report, now)
        self._unknown[pi.mac] = self._unknown.pop(pi.mac, None)  # to the end: heard last
        if not pi.told:
            pi.told = True
            self._tell(now, pi.mac, report.severity, report.event or "a MAC that is not in hosts.csv")

    def _take_own(self, report: Report, now: float) -> None:
        """What the manager saw of no Pi in particular."""
        self._hear_of_server(report, now)
        if report.event:
            self._tell(now, "", report.severity, report.event)

    def _admit(self, mac: str, host: Host | None, now: float) -> _Pi | None:
        """A place on the board for a MAC; None if it is unknown and the places for those are taken."""
        if host is None and len(self._unknown) >= MAX_UNKNOWN:
            oldest = next(iter(self._unknown))
            # A stranger who makes up MACs would else write one event each, without limit.
            if 0 <= now - self._pis[oldest].updated < UNKNOWN_REST:
                return None
            self._forget(oldest)
        pi = self._pis[mac] = _Pi(mac, known=True)
        self._forgotten.discard(mac)
        return pi

    def _forget(self, mac: str) -> None:
        del self._unknown[mac], self._pis[mac]
        self._changed.pop(mac, None)
        self._forgotten.add(mac)

    def _name(self, pi: _Pi, host: Host | None, now: float) -> None:
        """Make the row say what hosts.csv says of the Pi."""
        if host is pi.host and pi.known == (host is not None):  # nearly always
            return
        pi.host = host
        name, address = (host.name, host.address) if host else ("", None)
        if pi.known == (host is not None) and (pi.name, pi.address) == (name, address):
            return
        if host is None:
            pi.stage, pi.stuck, pi.reason, pi.done, pi.total = None, "", "", 0, 0
            pi.hint, pi.boot = "", None
            self._booting.pop(pi.mac, None)
            self._unknown[pi.mac] = None
        else:
            self._unknown.pop(pi.mac, None)
        pi.name, pi.address, pi.known, pi.urgent = _clean(name), address, host is not None, True
        pi.progress_at = now
        self._touch(pi)

    def _note(self, pi: _Pi, report: Report, now: float) -> bool:
        """Take over the words; return whether they show that the stage goes on."""
        went_on = False
        if report.heard:
            heard = _clean(report.heard)
            if heard != pi.heard:
                went_on = pi.stage is not None and STAGES[pi.stage].words
                pi.heard = heard
            pi.heard_at = now
        if report.sent:
            pi.sent, pi.sent_at = _clean(report.sent), now
        for raw, text in report.facts.items():
            if pi.facts.get(raw) == text:  # nearly always: a board is the same in each of its messages
                continue
            key, value = _clean(raw), _clean(text)
            if key in pi.facts or len(pi.facts) < MAX_FACTS:
                pi.urgent = pi.urgent or pi.facts.get(key) != value
                pi.facts[key] = value
        return went_on

    def _count(self, pi: _Pi, report: Report) -> bool:
        """Take over the bytes of the stage's transfer; return whether they changed."""
        before = (pi.done, pi.total)
        pi.done = pi.done if report.done is None else _number(report.done)
        pi.total = pi.total if report.total is None else _number(report.total)
        return (pi.done, pi.total) != before

    def _believes(self, pi: _Pi, stage: Stage) -> bool:
        if pi.stage not in NOT_BELIEVED.get(stage, frozenset()):
            return True
        # A report that we missed (we were being restarted) must not hide for ever that the Pi works.
        return stage is Stage.UP and bool(pi.stuck)

    def _enter(self, pi: _Pi, stage: Stage, report: Report, now: float) -> None:
        """Begin a stage."""
        text = report.event or (f"{stage} after {duration(now - pi.since)}" if pi.stage else str(stage))
        failed = stage is Stage.FAILED
        severity = Severity.ERROR if failed and report.severity is Severity.INFO else report.severity
        pi.reason = _clean(report.event or report.heard or "no reason given") if failed else ""
        pi.done, pi.total = _number(report.done or 0), _number(report.total or 0)
        boot = pi.boot or self._begin(pi, now)
        boot.entered.setdefault(stage, now)
        if stage in _ADVANCED:
            boot.advanced = True
            boot.installs = 0 if stage in (Stage.BOOT, Stage.UP) else boot.installs + (stage is Stage.FORMAT)
        self._booting[pi.mac] = None
        pi.stage, pi.since, pi.progress_at, pi.stuck, pi.urgent = stage, now, now, "", True
        self._tell(now, pi.mac, severity, text)

    def _go_on(self, pi: _Pi, now: float) -> None:
        pi.progress_at = now
        if pi.stuck:
            pi.stuck, pi.urgent = "", True
            self._tell(now, pi.mac, Severity.INFO, f"goes on in {pi.stage}, stuck for {duration(now - pi.stuck_at)}")

    def _tell(self, now: float, mac: str, severity: Severity, text: str) -> None:
        """Queue an event for the next tick."""
        if len(self._events) >= MAX_QUEUED or self._queued[mac] >= MAX_QUEUED_PER_PI:
            self._lost += 1
            return
        self._queued[mac] += 1
        self._events.append(Event(0, now, mac, severity, _clean(text)))

    # What is collected of a boot (with the lock held)

    def _begin(self, pi: _Pi, now: float) -> _Boot:
        """Another boot of a Pi."""
        before = pi.boot
        boot = _Boot(now)
        if before is not None:
            if pi.stage is Stage.BOOT:
                self._sum_up(pi, before, self._seen(pi, before, ordered=False), now)
            boot.first_file, boot.starts, boot.had_kernel = before.first_file, before.starts, before.had_kernel
            boot.installs, boot.told, boot.rom = before.installs, before.told, before.rom
            boot.wrong_at = before.wrong_at
        pi.boot = boot
        self._booting[pi.mac] = None
        return boot

    def _power_on(self, pi: _Pi, at: float) -> None:
        before = pi.boot
        if before is not None and before.began_at >= at:  # it was quicker than the word of its power
            before.powered_at = at
            return
        if before is None and pi.heard_at > at:  # it is long past, and nobody listened meanwhile
            return
        boot = self._begin(pi, at)
        boot.powered_at = at
        boot.starts, boot.had_kernel, boot.told, boot.wrong_at = deque(maxlen=MAX_STARTS), False, {}, -math.inf
        if before is not None and before.last_discover >= at:
            boot.discovers, boot.first_discover, boot.last_discover = 1, before.last_discover, before.last_discover
        if pi.hint:
            pi.hint, pi.urgent = "", True
        self._touch(pi)

    def _witness(self, pi: _Pi, report: Report, now: float) -> None:
        """Count what is said by DHCP, before the report changes the stage."""
        boot = pi.boot
        if report.severity is _WARNING:
            self._hear_of_server(report, now)
        if report.stage is _DISCOVER:
            if boot is None or boot.advanced:
                boot = self._begin(pi, now)
            if not boot.discovers:
                boot.first_discover = now
            boot.discovers += 1
            boot.last_discover = now
            boot.starting = True
            boot.offers += report.sent.startswith("DHCPOFFER")
            return
        if boot is None:
            return
        heard = report.heard
        if report.sent.startswith("DHCPOFFER"):
            boot.offers += 1
            boot.rom = boot.rom or report.stage is _LEASE  # it has what it is offered, without a REQUEST
        elif heard.startswith("DHCPREQUEST to "):
            boot.foreign = heard[len("DHCPREQUEST to ") :]
        elif report.stage is _LEASE:
            boot.requested, boot.rom = True, False
        elif heard.startswith("DHCP"):
            boot.asked_at = now

    def _hear_of_server(self, report: Report, now: float) -> None:
        """Note another DHCP server: it is told of now and then, and concerns every Pi."""
        found = _SERVER.search(report.event)
        if found:
            self._foreign, self._foreign_at = found[1], now

    def _take_file(self, pi: _Pi, record: FileRecord) -> None:
        name = _clean(record.name)
        if name != record.name:
            record = replace(record, name=name)
        if len(self._files) < MAX_QUEUED:
            self._files.append(record)
        boot = pi.boot
        if boot is None or record.began < boot.began_at:  # the end of a transfer that a boot before it began
            return
        boot.files.append(record)
        name = name.rpartition("/")[2]
        boot.advanced = boot.advanced or name not in _ROM_FILES
        boot.had_kernel = boot.had_kernel or (record.outcome == "complete" and name.startswith("kernel"))
        if boot.starting:
            boot.starting = False
            boot.first_file = boot.first_file or name
            if name == boot.first_file:
                boot.starts.append(record.began)

    def _seen(self, pi: _Pi, boot: _Boot, ordered: bool) -> Boot:
        """What the rules look at."""
        recent = self._foreign if abs(boot.began_at - self._foreign_at) < RECENT else ""
        return Boot(
            name=pi.name,
            stage=pi.stage,
            model=pi.facts.get("model", ""),
            rom=boot.rom,
            ordered=ordered,
            watched_at=self._began_at,
            powered_at=boot.powered_at,
            heard_at=pi.heard_at,
            discovers=boot.discovers,
            first_discover=boot.first_discover,
            last_discover=boot.last_discover,
            offers=boot.offers,
            requested=boot.requested,
            foreign=boot.foreign or recent,
            asked_at=boot.asked_at,
            entered=dict(boot.entered),
            files=tuple(boot.files),
            starts=tuple(boot.starts),
            had_kernel=boot.had_kernel,
            installs=boot.installs,
        )

    def _sum_up(self, pi: _Pi, boot: _Boot, seen: Boot, now: float) -> None:
        """Tell how long a boot took, once."""
        text = "" if boot.summed_up else boot_summary(seen)
        if text:
            boot.summed_up = True
            self._tell(now, pi.mac, Severity.INFO, text)

    # What time brings to light

    def _look_for_power(self) -> None:
        """Learn of the ports that another process turned on."""
        try:
            found = self._store.power_ons(self._power_id)
        except StoreError as error:
            log.debug("no news of the power: %s", error)
            return
        for each in found:
            self._power_id = each.id
            self.power_on(each.mac, each.when)

    def _diagnose(self, now: float) -> None:
        """Let the rules look at every boot that goes on, outside the lock."""
        if not self._booting:
            return
        try:
            ordered = {order.mac for order in self._store.orders()}
        except StoreError:
            ordered = set()
        with self._lock:
            turn = list(itertools.islice(self._booting, MAX_DIAGNOSED))
            for mac in turn:
                self._booting[mac] = self._booting.pop(mac)  # to the end: the others are next
            seen = [
                (pi, pi.boot, self._seen(pi, pi.boot, pi.mac in ordered))
                for pi in map(self._pis.__getitem__, turn)
                if pi.boot and pi.boot.diagnosed_at <= max(pi.updated, pi.boot.began_at, self._began_at) + DIAGNOSE_FOR
            ]
        found = [(pi, boot, each, diagnose(each, now)) for pi, boot, each in seen]
        with self._lock:
            for pi, boot, each, findings in found:
                if pi.boot is boot and pi.stage is each.stage:
                    self._judge_boot(pi, boot, each, findings, now)

    def _judge_boot(self, pi: _Pi, boot: _Boot, seen: Boot, findings: list[Finding], now: float) -> None:
        """Tell what was found (with the lock held)."""
        boot.diagnosed_at = now
        for finding in findings:
            if not 0 <= now - boot.told.get(finding.rule, -math.inf) < RECENT:
                self._tell(now, pi.mac, finding.severity, str(finding))
                boot.told[finding.rule] = now
        self._show(pi, boot, gravest(findings), now)
        if pi.stage is Stage.UP and pi.heard_at > boot.powered_at:
            self._sum_up(pi, boot, seen, now)
            boot.told.clear()
            boot.had_kernel = False
            self._booting.pop(pi.mac, None)
        elif pi.stage is Stage.BOOT and pi.stuck:
            self._sum_up(pi, boot, seen, now)

    def _show(self, pi: _Pi, boot: _Boot, finding: Finding | None, now: float) -> None:
        """Put a finding on the board (with the lock held)."""
        if finding:
            boot.wrong_at = now
        elif boot.wrong_at <= boot.began_at and now < boot.wrong_at + STILL_WRONG and pi.stage in BEFORE_HELLO:
            return
        before, boot.shown = boot.shown, finding
        if finding and before and (finding.rule, finding.advice) == (before.rule, before.advice):
            return  # only its seconds have grown
        text = _clean(str(finding or ""))
        if text != pi.hint:
            pi.hint, pi.urgent = text, True
            self._touch(pi)

    def _touch(self, pi: _Pi) -> None:
        """Its row is another one now, and has to be written."""
        self._changed[pi.mac], pi.kept = None, None

    # What time does to a stage (with the lock held)

    def _judge(self, pi: _Pi, now: float) -> None:
        """Mark a Pi whose stage is past its deadline."""
        if pi.stage is None or pi.stuck or now - pi.progress_at < STAGES[pi.stage].seconds:
            return
        expected = STAGES[pi.stage].expected
        last = f"heard '{pi.heard}' {duration(now - pi.heard_at)} ago" if pi.heard_at else "nothing heard"
        pi.stuck, pi.stuck_at, pi.urgent = f"{last}; expected {expected}", now, True
        self._touch(pi)
        self._tell(now, pi.mac, Severity.WARNING, f"stuck in {pi.stage}: {pi.stuck}")

    def _allow_for_clock(self, now: float) -> None:
        """Keep the deadlines when the manager's own clock is set: its first NTP answer may move it by years."""
        gap = now - self._ticked_at
        self._ticked_at = now
        if 0 <= gap < CLOCK_JUMP:
            return
        for pi in self._pis.values():
            pi.progress_at += gap
            pi.saved_at = -math.inf
            if pi.boot is not None:  # what was measured by the old clock cannot be held against the new one
                pi.boot, pi.hint, pi.urgent = None, "", True
                self._touch(pi)
        self._booting.clear()
        self._began_at = now

    # The store

    def _load(self, row: PiRow, now: float) -> None:
        pi = _Pi(row.mac, row.name, row.address, row.stage, row.since, row.heard, row.heard_at, row.sent, row.sent_at)
        pi.done, pi.total, pi.stuck, pi.reason = row.done, row.total, row.stuck, row.reason
        pi.facts, pi.updated, pi.hint = dict(row.facts), row.updated, row.hint
        pi.known, pi.told = bool(row.name), not row.name
        # The time that we were away counts for nobody: every deadline begins anew.
        pi.progress_at = pi.stuck_at = now
        self._pis[row.mac] = pi
        if not pi.known:
            self._unknown[row.mac] = None
        self._name(pi, self._find(row.mac), now)

    def _write(self, now: float, everything: bool) -> None:
        with self._writer:
            with self._lock:
                due = [pi for mac in self._changed if _due(pi := self._pis[mac], now) or everything]
                if not due and not self._events and not self._forgotten and not self._files:
                    return
                for pi in due:
                    del self._changed[pi.mac]
                    pi.saved_at, pi.urgent = now, False
                rows = [pi.row() for pi in due]
                events, forgotten, lost, files = self._events, self._forgotten, self._lost, self._files
                self._events, self._forgotten, self._lost, self._files = [], set(), 0, []
                self._queued.clear()
            text = f"{lost} events were lost: more than could be kept"
            extra = [Event(0, now, "", Severity.WARNING, text)] if lost else []
            try:
                self._store.save_board([*events, *extra], rows, forgotten, files)
            except StoreError as error:
                self._take_back(events, lost, rows, forgotten, error)
                return
            self._tell_log([*events, *extra])
            self._prune(now, grown=bool(events or files))

    def _take_back(
        self, events: list[Event], lost: int, rows: list[PiRow], forgotten: set[str], error: StoreError
    ) -> None:
        """Keep for the next tick what the store did not take, but for the files; log an outage once."""
        if not self._outage:
            log.error("the board is not being kept: %s", error)
        self._outage = str(error)
        with self._lock:
            kept = (events + self._events)[:MAX_QUEUED]
            self._lost += lost + len(events) + len(self._events) - len(kept)
            self._events = kept
            self._queued = Counter(each.mac for each in kept)
            self._forgotten |= {mac for mac in forgotten if mac not in self._pis}
            for row in rows:
                if row.mac in self._pis:
                    self._changed[row.mac] = None
                    self._pis[row.mac].urgent = True

    def _tell_log(self, events: list[Event]) -> None:
        """The milestones in the log, once they are kept: each event once, however long the store was away."""
        if self._outage:
            log.info("the board is being kept again (it was not: %s)", self._outage)
            self._outage = ""
        for event in events:
            level = _LEVELS[event.severity]
            if log.isEnabledFor(level):
                host = self._find(event.mac) if event.mac else None
                log.log(level, "%s: %s", host.name if host else event.mac or "piman", event.text)

    def _prune(self, now: float, grown: bool) -> None:
        if not grown or 0 <= now - self._pruned_at < PRUNE_INTERVAL:
            return
        self._pruned_at = now
        try:
            self._store.prune_events()
            self._store.prune_files()
        except StoreError as error:
            log.debug("old events stay for now: %s", error)


def _due(pi: _Pi, now: float) -> bool:
    """Whether a changed row is to be written now: at once for a milestone, now and then for mere progress."""
    return pi.urgent or now - pi.saved_at >= PROGRESS_INTERVAL or now < pi.saved_at


def _number(value: int) -> int:
    return min(max(0, value), MAX_NUMBER)


def _clean(text: str) -> str:
    """What a Pi said, fit for a table, a log line and the store: printable, and not too long."""
    text = text[:MAX_TEXT]
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)
