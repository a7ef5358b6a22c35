"""Tests of monitoring.power: who holds a switch, and what is found on record of one that nobody held."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from monitoring.power import PowerIntents, hold_switch, left_off, restore_left_off
from monitoring.store import Store, StoreError
from tests.test_power_cycle import OFF, STATIC, Bench
from utility.config import Switch
from utility.power_cycle import Left, PortResult

SWITCH = Switch(0, IPv4Address("172.30.4.254"))
OTHER = Switch(1, IPv4Address("172.30.4.253"), "attic")


def test_one_at_a_time_holds_a_switch_and_the_others_wait(tmp_path: Path) -> None:
    heard: list[str] = []
    with Store(tmp_path / "piman.db") as store, hold_switch(store, SWITCH) as first:
        assert first
        with hold_switch(store, OTHER) as other, hold_switch(store, SWITCH, patience=0) as second:
            assert (other, second) == (True, False)

        class TiredError(Exception):
            """Enough."""

        def wait(_seconds: float) -> None:
            heard.append("waits")
            if len(heard) == 3:
                raise TiredError

        with pytest.raises(TiredError), hold_switch(store, SWITCH, on_wait=lambda: heard.append("told"), wait=wait):
            pass
        assert heard == ["told", "waits", "waits"]
    with Store(tmp_path / "piman.db") as store, hold_switch(store, SWITCH, patience=0) as again:
        assert again


def test_a_state_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with Store(tmp_path / "piman.db") as store:
        (tmp_path / "switch-172.30.4.254.lock").mkdir()
        with pytest.raises(StoreError, match=r"switch-172\.30\.4\.254\.lock: the state cannot be written there"):
            hold_switch(store, SWITCH).__enter__()


def test_what_a_process_that_died_left_off_is_turned_on(tmp_path: Path) -> None:
    bench = Bench()
    bench.settings |= {2: OFF, 3: OFF}
    with Store(tmp_path / "piman.db") as store:
        intents = PowerIntents(store, SWITCH)
        assert restore_left_off(store, bench) == []
        intents.add(Left(2, (1, 2), STATIC))
        PowerIntents(store, OTHER).add(Left(3))
        assert intents.left() == [Left(2, (1, 2), STATIC)]
        results = restore_left_off(store, bench, bench.wait)
        assert results == [PortResult(2, ok=True, text="on")]
        assert [intent.switch for intent in store.intents()] == ["172.30.4.253"]
    assert (bench.settings[2], bench.settings[3]) == (STATIC, OFF)
    assert left_off(OTHER, results[0]) == "attic port 2 was left off by a power cycle that died; it is on again"
