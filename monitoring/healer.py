"""The thread that does what healing.py decides. No rule: it asks, records, acts and tells.

A step is on the disk before it is taken, so that a manager which dies over it counts it all the same; without that
record nothing is done.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from monitoring.healing import DAY, Decision, Past, Patient, Step, decide
from monitoring.store import Store, StoreError
from utility.config import Healing
from utility.service import Severity

log = logging.getLogger("piman.healing")

# Takes the step for these MACs -> what became of each, in words. It may take its time, and ends when the event is set.
Act = Callable[[Step, Sequence[str], threading.Event], Mapping[str, str]]


class Healer:
    """The service. Everything belongs to its thread, but for `stop`, and for one step at a time in a thread of its own.

    look   every Pi, and whether the manager's network is there; may raise StoreError
    act    does it
    """

    name = "healing"
    grace = 0.6  # for a step that is being taken, at the end: it turns on what it has turned off

    def __init__(
        self,
        limits: Healing,
        store: Store,
        look: Callable[[float], tuple[Sequence[Patient], bool]],
        act: Act,
        interval: float = 5.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._limits, self._store, self._look, self._act = limits, store, look, act
        self._interval, self._clock = interval, clock
        self._stopping = threading.Event()
        self._interrupt = threading.Event()  # of the step that is being taken
        self._acting: list[threading.Thread] = []
        self._told: dict[str, str] = {}  # MAC -> the last refusal that was told, without its numbers

    def run(self) -> None:
        while not self._stopping.wait(self._interval):
            if self._limits.enabled and not any(thread.is_alive() for thread in self._acting):
                self.step(self._clock())
        for thread in self._acting:
            thread.join(self.grace)

    def stop(self) -> None:
        self._stopping.set()
        self._interrupt.set()

    def step(self, now: float) -> None:
        """Look once, and begin what is to be done."""
        try:
            patients, network = self._look(now)
            past = [Past(each.mac, each.when, each.step) for each in self._store.treatments(now - DAY)]
            decisions = decide(patients, past, self._limits, network, now)
            fresh = {each.mac for each in past if now - each.when < self._limits.cooldown}
            taken = {each: number for each in decisions if (number := self._record(each, fresh, now))}
        except StoreError as error:
            log.warning("nothing is done: %s", error)
            return
        self._told = {mac: text for mac, text in self._told.items() if mac in {each.mac for each in decisions}}
        if taken and not self._limits.dry_run:
            self._interrupt = threading.Event()
            thread = threading.Thread(target=self._take, args=(taken,), name="healing step", daemon=True)
            self._acting = [thread]
            thread.start()

    def _record(self, decision: Decision, fresh: Collection[str], now: float) -> int:
        """Tell a decision; the number of the record of a step that is to be taken, 0 where nothing is to be done.

        fresh   who had a step a moment ago: that nothing more is done yet goes without saying
        """
        if decision.step is None:
            if decision.mac in fresh:
                return 0
            text = re.sub(r"[0-9]+", "", decision.reason)
            if self._told.get(decision.mac) != text:
                self._told[decision.mac] = text
                self._store.add_event(decision.mac, now, Severity.INFO, f"healing: nothing is done: {decision.reason}")
            return 0
        self._told.pop(decision.mac, None)
        is_alarm, dry = decision.step is Step.ALARM, self._limits.dry_run
        outcome = "told" if is_alarm else "dry run" if dry else "begun"
        number = self._store.add_treatment(decision.mac, now, str(decision.step), decision.reason, outcome)
        what = "somebody has to look at it" if is_alarm else f"{'would ' if dry else ''}{decision.step}"
        severity = Severity.ERROR if is_alarm else Severity.WARNING
        self._store.add_event(decision.mac, now, severity, f"healing: {what}: {decision.reason}")
        return 0 if is_alarm else number

    def _take(self, taken: Mapping[Decision, int]) -> None:
        """Take the steps, and note what came of them; its thread."""
        for step in (Step.POWER_CYCLE, Step.REINSTALL):
            numbers = {each.mac: number for each, number in taken.items() if each.step is step}
            if not numbers or self._stopping.is_set():
                continue
            try:
                outcomes = self._act(step, list(numbers), self._interrupt)
            except Exception as error:  # the top of a thread; the next step is another try
                log.exception("a step failed")
                outcomes = dict.fromkeys(numbers, f"failed: {error}")
            try:
                for mac, number in numbers.items():
                    self._store.end_treatment(number, outcomes.get(mac, "not done"))
            except StoreError as error:
                log.warning("%s", error)
