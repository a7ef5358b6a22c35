"""The server's chores. The rest of them is seen in tests/test_piman.py and tests/lab, with a whole server."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from monitoring.metrics import Reading
from monitoring.power import hold_switch, restore_left_off
from monitoring.store import Store
from monitoring.upkeep import ConfigWatch, PowerRestorer, Recorder
from tests.test_power_cycle import AUTO, OFF, STATIC, Bench
from utility.config import load_config

CONFIG = """\
private_number: 4
server_address: 127.0.0.1
subnet_mask: 255.0.0.0
interface: lo
switches:
  - address: 127.0.4.254
    pi_addresses: []
"""


def test_a_port_left_off_is_tried_until_it_is_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG, encoding="utf-8")
    config = load_config(tmp_path / "config.yaml", environ={})
    tries: list[bool] = []
    bench = Bench(4, refuse=lambda _port, on: "no answer" if on and not tries[-1] else None)
    bench.switch = config.switches[0]
    bench.settings |= {3: OFF, 4: OFF}
    monkeypatch.setattr("monitoring.upkeep.open_switch", lambda switch: bench)
    monkeypatch.setattr(
        "monitoring.upkeep.restore_left_off", lambda store, poe: restore_left_off(store, poe, bench.wait)
    )
    with Store(tmp_path / "piman.db") as store:
        store.add_intent("127.0.4.254", 3, time.time(), (1, 3), STATIC)
        store.add_intent("10.9.9.9", 5, time.time())  # no switch of ours
        restorer = PowerRestorer(config, store)
        for answers in (False, False, True, True):
            tries.append(answers)
            restorer.restore()
        assert [intent.switch for intent in store.intents()] == ["10.9.9.9"]
    assert bench.settings == {1: AUTO, 2: AUTO, 3: STATIC, 4: OFF}
    told = [record.getMessage() for record in caplog.records if record.name == "piman.upkeep"]
    assert told == [
        "127.0.4.254 port 3 was left off by a power cycle that died, and stays off: IS PERHAPS STILL OFF: no answer",
        "127.0.4.254 port 3 was left off by a power cycle that died; it is on again",
    ]


def test_a_port_that_somebody_is_at_work_on_is_left_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG, encoding="utf-8")
    config = load_config(tmp_path / "config.yaml", environ={})
    bench = Bench(1)
    bench.switch = config.switches[0]
    monkeypatch.setattr("monitoring.upkeep.open_switch", lambda switch: bench)
    with Store(tmp_path / "piman.db") as store:
        store.add_intent("127.0.4.254", 1, time.time())
        with hold_switch(store, config.switches[0]) as held:
            assert held
            PowerRestorer(config, store).restore()
        assert bench.log == []
        PowerRestorer(config, store).restore()
        assert bench.log == [(0, "on", 1)]


def test_an_edit_is_told_once_and_when_it_is_over(tmp_path: Path) -> None:
    path, told = tmp_path / "config.yaml", list[str]()
    watch = ConfigWatch([path, tmp_path / ".env"], lambda: told.append(path.read_text() if path.exists() else ""))
    watch.look()
    assert told == []
    path.write_text("half")
    watch.look()
    path.write_text("all of it")
    watch.look()
    assert told == []
    for _again in range(3):
        watch.look()
    assert told == ["all of it"]
    path.unlink()
    for _again in range(3):
        watch.look()
    assert told == ["all of it", ""]


def test_readings_are_written_together_and_an_outage_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    mac = "b8:27:eb:00:00:01"
    with Store(tmp_path / "piman.db") as store:
        recorder = Recorder(store, clock=lambda: 2000.0)
        recorder.interval = recorder.prune_interval = 0.01
        monkeypatch.setattr(recorder, "max_waiting", 2)
        for when in (1000.0, 1001.0, 1002.0):  # the third is one too many
            recorder.add(Reading(mac, when, {"load1": 1.0}, {}))
        thread = threading.Thread(target=recorder.run)
        thread.start()
        deadline = time.monotonic() + 10
        while len(store.samples(mac, "load1", 0.0, 9e9)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        recorder.add(Reading(mac, 1003.0, {"load1": 1.0}, {}))
        recorder.stop()  # writes what waits
        thread.join(5)
        assert [each.when for each in store.samples(mac, "load1", 0.0, 9e9)] == [1000, 1001, 1003]
    for _ in range(2):  # the store is closed
        recorder.add(Reading(mac, 1004.0, {"load1": 1.0}, {}))
        recorder.write()
    assert caplog.text.count("the samples are not being kept") == 1
