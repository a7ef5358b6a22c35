"""The thread that heals: what is recorded before it is done, told, and never done twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from monitoring.healer import Healer
from monitoring.healing import Patient, Step
from monitoring.store import Store, StoreError
from tests.alert_servers import wait_for
from utility.config import Healing
from utility.service import Severity

NOW = 1_000_000.0
DEAD = Patient("b8:27:eb:00:00:01", "pi1", is_up=False, since=NOW - 400, evidence="agent 400 s ago")
WELL = [Patient(f"b8:27:eb:00:01:{n:02x}", f"pi{n}", is_up=True, since=1.0) for n in range(2, 8)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "piman.db") as opened:
        yield opened


@dataclass
class Rack:
    store: Store
    patients: list[Patient] = field(default_factory=lambda: [DEAD])
    taken: list[tuple[Step, list[str]]] = field(default_factory=list)
    hangs: bool = False
    fails: bool = False

    def look(self, _now: float) -> tuple[Sequence[Patient], bool]:
        return [*self.patients, *WELL], True

    def act(self, step: Step, macs: Sequence[str], stopping: threading.Event) -> Mapping[str, str]:
        self.taken.append((step, list(macs)))
        if self.hangs:
            stopping.wait()
        if self.fails:
            raise RuntimeError("a bug")
        return dict.fromkeys(macs, "power-cycled")

    def healer(self, limits: Healing = Healing(enabled=True)) -> Healer:  # noqa: B008  # it is frozen
        return Healer(limits, self.store, self.look, self.act, interval=0.05, clock=lambda: NOW)

    @property
    def events(self) -> list[tuple[str, Severity, str]]:
        return [(each.mac, each.severity, each.text) for each in self.store.events()]


def test_a_step_is_recorded_taken_and_told(store: Store) -> None:
    rack = Rack(store)
    healer = rack.healer()
    healer.step(NOW)
    wait_for(lambda: [each.outcome for each in store.treatments()] == ["power-cycled"])
    assert rack.taken == [(Step.POWER_CYCLE, [DEAD.mac])]
    assert rack.events == [(DEAD.mac, Severity.WARNING, "healing: power-cycle: dead for 6m40s (agent 400 s ago)")]
    healer.step(NOW + 10)
    healer.step(NOW + 20)
    assert len(rack.taken) == len(rack.events) == 1


def test_why_nothing_is_done_is_told_once(store: Store) -> None:
    rack = Rack(store, [replace(DEAD, powered_at=NOW - 10)])
    healer = rack.healer()
    for second in (0, 10, 20):
        healer.step(NOW + second)
    assert [text for _mac, _severity, text in rack.events] == ["healing: nothing is done: it was power-cycled 10s ago"]
    rack.patients = []
    healer.step(NOW + 30)
    rack.patients = [replace(DEAD, powered_at=NOW + 30)]
    healer.step(NOW + 40)
    assert len(rack.events) == 2


def test_a_dry_run_tells_and_does_nothing(store: Store) -> None:
    rack = Rack(store)
    rack.healer(Healing(enabled=True, dry_run=True)).step(NOW)
    assert rack.taken == []
    assert rack.events[0][2] == "healing: would power-cycle: dead for 6m40s (agent 400 s ago)"
    assert [(each.step, each.outcome) for each in store.treatments()] == [("power-cycle", "dry run")]


def test_an_alarm_is_told_once(store: Store) -> None:
    rack = Rack(store, [replace(DEAD, since=NOW - 80_000)])
    for seconds in (30_000, 20_000, 10_000):
        store.add_treatment(DEAD.mac, NOW - seconds, "power-cycle", "", "")
    healer = rack.healer()
    for second in range(3):
        healer.step(NOW + 10 * second)
    assert [(severity, text.partition(":")[2].partition(":")[0]) for _mac, severity, text in rack.events] == [
        (Severity.ERROR, " somebody has to look at it"),
    ]
    assert rack.taken == []


def test_without_a_record_nothing_is_done(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_words: object) -> int:
        raise StoreError("the disk is full")

    rack = Rack(store)
    monkeypatch.setattr(store, "add_treatment", refuse)
    rack.healer().step(NOW)
    assert rack.taken == []


def test_a_step_that_fails_is_noted(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    rack = Rack(store, fails=True)
    rack.healer().step(NOW)
    wait_for(lambda: [each.outcome for each in store.treatments()] == ["failed: a bug"])


def test_the_service_is_off_by_default_and_ends_in_the_middle_of_a_step(store: Store) -> None:
    rack = Rack(store, hangs=True)
    for limits, steps in ((Healing(), 0), (Healing(enabled=True), 1)):
        healer = rack.healer(limits)
        thread = threading.Thread(target=healer.run)
        thread.start()
        if steps:
            wait_for(lambda: rack.taken)
        else:
            time.sleep(0.3)
        began = time.monotonic()
        healer.stop()
        thread.join(5)
        assert time.monotonic() - began < 1
        assert len(rack.taken) == steps
