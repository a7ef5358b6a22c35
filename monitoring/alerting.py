"""The threads of the alerts: one puts the rules to the facts, one for each channel sends. No rule, no SQL, no protocol.

What is to be told is in the store before it is sent, so that a manager that dies tells it after its restart, and what
was sent is marked, so that it is not told twice. A message whose sending was interrupted by the death of the process
may come twice; it has the same id then.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from monitoring.alerts import Alert, Change, Engine, Facts, Silence
from monitoring.channels import ChannelError, Message, Pace, Told, Tries, compose, deliver, wants
from monitoring.store import Event, Store, StoreError
from utility.config import Channel
from utility.rules import AlertSeverity, Rule
from utility.service import Severity

log = logging.getLogger("piman.alerts")

PRUNE_INTERVAL = 3600.0
MAX_UNSAVED = 10_000

_EVENTS = {
    AlertSeverity.INFO: Severity.INFO,
    AlertSeverity.WARNING: Severity.WARNING,
    AlertSeverity.CRITICAL: Severity.ERROR,
}


def event_of(alert: Alert, now: float) -> Event:
    """An alert on the timeline: of its Pi, or of the manager."""
    is_pi = alert.subject.count(":") == 5
    told = Told(alert, bool(alert.resolved_at))
    text = told.line if not is_pi else told.line.replace(f": {alert.name}: ", ": ", 1)
    severity = Severity.INFO if alert.resolved_at else _EVENTS[alert.severity]
    return Event(0, now, alert.subject if is_pi else "", severity, f"alert, {text}")


class Courier:
    """Sends what waits for one channel, one message at a time. `_lock` guards `_urgent`.

    What could not be written to the store (the disk is full, and that is what is to be told) comes by `tell_at_once`.
    """

    def __init__(
        self,
        channel: Channel,
        store: Store,
        site: str,
        pace: Pace | None = None,
        send: Callable[[Channel, Message], None] = deliver,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.channel = channel
        self._store, self._site, self._pace, self._send, self._clock = store, site, pace or Pace(), send, clock
        self._tries = Tries()
        self._lock = threading.Lock()
        self._urgent: list[tuple[int, Told, float]] = []
        self._wake = threading.Event()
        self._stopping = False

    def run(self) -> None:
        while not self._stopping:
            pause = self.step(self._clock())
            if self._wake.wait(pause):
                self._wake.clear()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    def wake(self) -> None:
        """There is something to send."""
        self._wake.set()

    def tell_at_once(self, told: Sequence[Told], now: float) -> None:
        with self._lock:
            self._urgent += [(0, each, now) for each in told]
        self._wake.set()

    def step(self, now: float) -> float:
        """Send what is due; the seconds until there may be more to do."""
        try:
            waiting = [
                (each.id, Told(each.alert, each.over), each.queued_at)
                for each in self._store.waiting_notices(self.channel.name)
            ]
        except StoreError as error:
            log.warning("channel %s: %s", self.channel.name, error)
            waiting = []
        with self._lock:
            waiting += self._urgent
        if not waiting:
            return 60.0
        due = self._tries.next_try(min(queued for _id, _told, queued in waiting), self._pace)
        if now < due:
            return min(due - now, 60.0)
        self._deliver(compose(self._site, [(number, told) for number, told, _queued in waiting], now), waiting)
        return 0.0

    def _deliver(self, message: Message, waiting: Sequence[tuple[int, Told, float]]) -> None:
        numbers = [number for number, _told, _queued in waiting if number]
        try:
            self._send(self.channel, message)
        except ChannelError as error:
            self._failed(numbers, error)
            return
        with self._lock:
            sent = [each for each in waiting if not each[0]]
            self._urgent = [each for each in self._urgent if each not in sent]
        now, failures = self._clock(), self._tries.failures
        self._tries = Tries(sent_at=now)
        self._settle(numbers, now, "")
        if failures >= self._pace.tell_after:
            self._event(now, Severity.INFO, f"works again after {failures} failures; alerts told late: {len(waiting)}")
        log.info("channel %s: told %s", self.channel.name, message.title)

    def _failed(self, numbers: Sequence[int], error: ChannelError) -> None:
        now, failures = self._clock(), self._tries.failures + 1
        self._tries = replace(self._tries, failed_at=now, failures=failures, retry_after=error.retry_after)
        log.debug("channel %s: %s", self.channel.name, error)
        self._settle(numbers, now, str(error))
        if failures == self._pace.tell_after:
            text = f"cannot be told of alerts: {error}; it is tried again every {self._pace.most:.0f} s"
            self._event(now, Severity.ERROR, text)
            log.warning("channel %s %s", self.channel.name, text)

    def _settle(self, numbers: Sequence[int], now: float, error: str) -> None:
        try:
            self._store.settle_notices(numbers, now, error)
        except StoreError as problem:
            log.warning("channel %s: %s", self.channel.name, problem)

    def _event(self, now: float, severity: Severity, text: str) -> None:
        try:
            self._store.add_event("", now, severity, f"channel {self.channel.name} {text}")
        except StoreError as problem:
            log.warning("channel %s: %s", self.channel.name, problem)


class Couriers:
    """The service that runs a thread for each channel. One that hangs in a message is not waited for at the end."""

    name = "channels"
    grace = 0.5  # for messages under way: what was sent shall be marked

    def __init__(self, couriers: Sequence[Courier], store: Store) -> None:
        self.couriers, self._store = couriers, store
        self._stopping = threading.Event()

    def run(self) -> None:
        try:
            dropped = self._store.drop_notices(each.channel.name for each in self.couriers)
        except StoreError as error:
            log.warning("%s", error)
        else:
            if dropped:
                log.info("alerts that waited for channels that config.yaml has no more: %d", dropped)
        threads = [
            threading.Thread(target=each.run, name=f"channel {each.channel.name}", daemon=True)
            for each in self.couriers
        ]
        for thread in threads:
            thread.start()
        self._stopping.wait()
        deadline = time.monotonic() + self.grace
        for courier in self.couriers:
            courier.stop()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def stop(self) -> None:
        self._stopping.set()


class Alerts:
    """The service that evaluates the rules every few seconds. Everything belongs to its thread, but for `stop`."""

    name = "alerts"

    def __init__(
        self,
        rules: Sequence[Rule],
        store: Store,
        facts: Callable[[float], Sequence[Facts]],
        couriers: Sequence[Courier],
        interval: float = 5.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._facts, self._couriers = store, facts, couriers
        self._interval, self._clock = interval, clock
        self._engine = Engine(rules, store.alerts(), store.last_alert_id() + 1)
        self._silences: list[Silence] = []
        self._acknowledged: dict[int, str] = {}
        self._unsaved: dict[int, Alert] = {}
        self._outage = ""
        self._pruned_at = float("-inf")
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.wait(self._interval):
            self.look(self._clock())

    def stop(self) -> None:
        self._stopping.set()

    def look(self, now: float) -> None:
        """Evaluate once, keep what changed, and let it be told."""
        try:
            self._silences, self._acknowledged = self._store.silences(now), self._store.acknowledged()
            if not 0 <= now - self._pruned_at < PRUNE_INTERVAL:
                self._pruned_at = now
                self._store.prune_alerts(now)
        except StoreError as error:
            self._tell_outage(str(error))
        changes = self._engine.evaluate(self._facts(now), now, self._silences, self._acknowledged)
        if changes or self._unsaved:
            self._save(changes, now)

    def _save(self, changes: Sequence[Change], now: float) -> None:
        told = [Told(each.alert, bool(each.alert.resolved_at)) for each in changes if each.tell]
        self._unsaved |= {each.alert.id: each.alert for each in changes}
        notices = [
            (courier.channel.name, each.alert.id, each.over)
            for courier in self._couriers
            for each in told
            if wants(courier.channel, each.alert, each.over)
        ]
        try:
            self._store.save_alerts(self._unsaved.values(), notices, [event_of(each.alert, now) for each in told], now)
        except StoreError as error:
            self._tell_outage(str(error))
            while len(self._unsaved) > MAX_UNSAVED:
                del self._unsaved[next(iter(self._unsaved))]
            for courier in self._couriers:
                wanted = [each for each in told if wants(courier.channel, each.alert, each.over)]
                if wanted:
                    courier.tell_at_once(wanted, now)
            return
        self._unsaved.clear()
        self._outage = ""
        for each in told:
            log.log(logging.INFO if each.over else logging.WARNING, "%s", each.line)
        for courier in self._couriers:
            courier.wake()

    def _tell_outage(self, text: str) -> None:
        if text != self._outage:
            self._outage = text
            log.warning("alerts are not kept: %s", text)
