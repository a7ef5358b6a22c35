"""What the server does every now and then: the board's tick, hosts.csv, ports left off, samples. Three threads.

Holds no rule: what a tick means is in fleet.py, what a port needs in utility/power_cycle.py.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from monitoring.client import answering
from monitoring.fleet import Fleet
from monitoring.metrics import Reading
from monitoring.power import hold_switch, left_off, restore_left_off
from monitoring.store import Store, StoreError
from utility.config import Config, Switch
from utility.hosts import Hosts
from utility.service import Report, Stage
from utility.switches import SwitchError, open_switch

log = logging.getLogger("piman.upkeep")


class Upkeep:
    """The clockwork: re-reads hosts.csv, finds the stuck, and writes what the board learnt to the store."""

    name = "upkeep"
    interval = 0.25  # the board's rows reach other processes within this
    look_interval = 1.0  # between two looks whether a file was changed
    flush_interval = 60.0  # last_seen in hosts.csv
    ask_interval = 5.0
    ask_after = 15.0  # in stage boot: by then the installer has made room for what it booted, or has rebooted

    def __init__(self, fleet: Fleet, hosts: Hosts, store: Store) -> None:
        self._fleet, self._hosts, self._store = fleet, hosts, store
        self._stopping = threading.Event()
        self._also: list[Callable[[], None]] = []

    def also(self, look: Callable[[], None]) -> None:
        """Do this too, each time that hosts.csv is looked at; to be said before `run`."""
        self._also.append(look)

    def run(self) -> None:
        next_flush = time.monotonic() + self.flush_interval
        next_ask = next_look = 0.0
        while not self._stopping.wait(self.interval):
            self._fleet.tick(time.time())
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + self.look_interval
                self.reload()
                for look in self._also:
                    look()
            if time.monotonic() >= next_ask:
                next_ask = time.monotonic() + self.ask_interval
                self._ask_the_booting()
            if time.monotonic() >= next_flush:
                next_flush = time.monotonic() + self.flush_interval
                self._write_hosts()
        self._fleet.flush(time.time())
        self._write_hosts()

    def stop(self) -> None:
        self._stopping.set()

    def reload(self) -> None:
        """Take over hosts.csv if it changed; a broken one is told once and the last good one stays."""
        for problem in self._hosts.check():
            log.warning("hosts.csv is not taken over: %s", problem)

    def _ask_the_booting(self) -> None:
        """A Pi whose first words we missed (we were being restarted) would be silent until its lease is half over."""
        long_ago = time.time() - self.ask_after
        rows = [row for row in self._fleet.snapshot() if row.stage is Stage.BOOT and row.since < long_ago]
        asked = {row.address: row.mac for row in rows if row.address}
        for address in answering(asked) if asked else ():
            self._fleet.report(Report(asked[address], Stage.UP, heard="an answer on TCP", event="it answers"))

    def _write_hosts(self) -> None:
        try:
            self._hosts.flush()
        except OSError as error:
            log.warning("hosts.csv could not be written: %s", error)


class Recorder:
    """Writes the readings to the store, in a thread of its own: a slow disk must not hold up the polls.

    `_lock` guards the readings that wait; those beyond max_waiting are dropped.
    """

    name = "samples"
    interval = 2.0  # one write for all readings of that time
    prune_interval = 10.0
    max_waiting = 20_000

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store, self._clock = store, clock
        self._lock = threading.Lock()
        self._waiting: list[Reading] = []
        self._stopping = threading.Event()
        self._outage = False

    def add(self, reading: Reading) -> None:
        with self._lock:
            if len(self._waiting) < self.max_waiting:
                self._waiting.append(reading)

    def run(self) -> None:
        next_prune = 0.0
        while not self._stopping.wait(self.interval):
            self.write()
            if time.monotonic() >= next_prune:
                next_prune = time.monotonic() + self.prune_interval
                self._try(lambda: self._store.prune_samples(self._clock()))
        self.write()

    def stop(self) -> None:
        self._stopping.set()

    def write(self) -> None:
        """Write what waits."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if waiting:
            self._try(lambda: self._store.add_samples(waiting))

    def _try(self, work: Callable[[], None]) -> None:
        """Samples that cannot be kept are lost, and an outage is told once."""
        try:
            work()
        except StoreError as error:
            if not self._outage:
                log.error("the samples are not being kept: %s", error)
            self._outage = True
        else:
            self._outage = False


class ConfigWatch:
    """Sees that a file of the configuration was edited, and tells once it has been left alone for a moment."""

    def __init__(self, paths: Sequence[Path], changed: Callable[[], None]) -> None:
        self._paths, self._changed = paths, changed
        self._known = self._last = self._stamps()

    def look(self) -> None:
        """To be called now and then, by one thread."""
        stamps, before = self._stamps(), self._last
        self._last = stamps
        if stamps == before and stamps != self._known:  # an editor may still be writing where it has just changed
            self._known = stamps
            self._changed()

    def _stamps(self) -> tuple[tuple[int, ...], ...]:
        found: list[tuple[int, ...]] = []
        for path in self._paths:
            try:
                stat = path.stat()
                found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
            except OSError:
                found.append(())
        return tuple(found)


class PowerRestorer:
    """Turns on what a power cycle that died left off, as often as it takes: a switch may start slower than we do."""

    name = "power"
    interval = 5.0

    def __init__(self, config: Config, store: Store) -> None:
        self._config, self._store = config, store
        self._stopping = threading.Event()
        self._told: set[str] = set()

    def run(self) -> None:
        self.restore()
        while not self._stopping.wait(self.interval):
            self.restore()

    def stop(self) -> None:
        self._stopping.set()

    def restore(self) -> None:
        """Try once the ports that are on record; what fails is told once and tried again."""
        switches = {str(switch.address): switch for switch in self._config.switches}
        try:
            for address in sorted({intent.switch for intent in self._store.intents()} & switches.keys()):
                if not self._stopping.is_set():
                    self._restore(switches[address])
        except StoreError as error:
            self._tell_once(str(error))

    def _restore(self, switch: Switch) -> None:
        """Nothing, while somebody holds the switch: then the ports are off for a moment, as they should."""
        try:
            with hold_switch(self._store, switch, patience=0) as held, open_switch(switch) as poe:
                results = restore_left_off(self._store, poe) if held else []
        except SwitchError as error:
            self._tell_once(str(error))
            return
        for result in results:
            if result.ok:
                log.warning("%s", left_off(switch, result))
            else:
                self._tell_once(left_off(switch, result))

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            log.warning("%s", text)
