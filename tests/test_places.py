"""Tests of monitoring.places: what is kept of where the boards are, and what is news."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from monitoring import places as module
from monitoring.places import PlaceWatch, booted_since, moves, read_tables
from monitoring.power import hold_switch
from monitoring.store import PiRow, Place, Store, StoreError
from tests.test_config import BASE
from utility.config import Switch, load_config
from utility.drivers import Detection
from utility.mac_mapper import Spot, Table
from utility.service import Severity, Stage
from utility.switches import Port, SwitchError, ask_all

PI, OTHER, GUEST = (f"b8:27:eb:00:00:0{number}" for number in (1, 2, 3))
LEFT, RIGHT = Switch(0, IPv4Address("172.30.4.254"), "left"), Switch(1, IPv4Address("172.30.4.253"))
NAMES = {"172.30.4.254": "left"}


def spot(switch: Switch, number: int) -> Spot:
    return Spot(switch, Port(number, f"1/{number}", (1, number), number, detection=Detection.DELIVERING))


def test_a_board_that_is_new_is_kept_and_one_that_moved_is_news() -> None:
    places, events = moves({}, {PI: spot(LEFT, 3), OTHER: spot(RIGHT, 4)}, NAMES, 10.0)
    assert places == [
        Place(PI, "172.30.4.254", 3, "1/3", 10.0, 10.0),
        Place(OTHER, "172.30.4.253", 4, "1/4", 10.0, 10.0),
    ]
    assert events == []
    before = {place.mac: place for place in places}
    places, events = moves(before, {PI: spot(LEFT, 3), OTHER: spot(LEFT, 5)}, NAMES, 20.0)
    assert [(place.mac, place.port, place.since, place.seen) for place in places] == [
        (PI, 3, 10.0, 20.0),
        (OTHER, 5, 20.0, 20.0),
    ]
    [event] = events
    assert (event.mac, event.severity, event.when) == (OTHER, Severity.WARNING, 20.0)
    assert event.text == "moved from 172.30.4.253 port 4 to left port 5"


def test_a_board_that_is_not_where_config_yaml_has_it_is_told_once() -> None:
    has = {PI: (LEFT, 3), OTHER: (RIGHT, 4)}
    spots = {PI: spot(LEFT, 3), OTHER: spot(LEFT, 5), GUEST: spot(LEFT, 6)}
    places, events = moves({}, spots, NAMES, 10.0, has.get)
    [event] = events
    assert event.mac == OTHER
    assert event.text == (
        "is on left port 5, but config.yaml has it on 172.30.4.253 port 4, which a restart by its name cuts: "
        "correct pi_addresses, or the cable"
    )
    assert moves({place.mac: place for place in places}, spots, NAMES, 20.0, has.get)[1] == []


def test_who_booted_since() -> None:
    rows = [
        PiRow(PI, heard="DHCPDISCOVER", heard_at=11.0),
        PiRow(OTHER, "pi2", stage=Stage.FIRMWARE, since=12.0, heard="start4.elf", heard_at=12.5),
        PiRow(GUEST, "pi3", stage=Stage.UP, since=5.0, heard="NTP", heard_at=12.5),
        PiRow("b8:27:eb:00:00:04", heard="DHCPDISCOVER", heard_at=9.0),
    ]
    assert booted_since(rows, 10.0) == {PI, OTHER}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "piman.db") as store:
        yield store


def test_the_watch(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config.yaml").write_text(BASE + "  - address: 172.30.4.253\n")
    config = load_config(tmp_path / "config.yaml", environ={})
    where = {PI: 3, "02:00:00:00:00:01": 4}

    def read(switch: Switch) -> Table:
        if switch.index == 1:
            raise SwitchError(switch, "", "no answer")
        ports = [spot(switch, number).port for number in range(1, 9)]
        return Table(switch, ports, {number: frozenset({mac}) for mac, number in where.items()})

    monkeypatch.setattr(module, "read_table", read)
    watch = PlaceWatch(config, lambda: {PI, OTHER}, store)
    watch.look()
    assert [(place.mac, place.port) for place in store.places().values()] == [(PI, 3)], "a stranger is not kept"
    where[PI] = 6
    with hold_switch(store, config.switches[0]):
        watch.look()
        assert store.places()[PI].port == 3, "somebody works at that switch"
    watch.look()
    assert store.places()[PI].port == 6
    assert [event.text for event in store.latest_events(PI)] == [
        "moved from 172.30.4.254 port 3 to 172.30.4.254 port 6"
    ]
    assert caplog.text.count("no answer") == 1


def run(watch: PlaceWatch, look: Callable[[], None]) -> threading.Thread:
    watch.first = watch.interval = 0.01
    watch.look = look  # type: ignore[method-assign]
    thread = threading.Thread(target=watch.run)
    thread.start()
    return thread


def test_the_watch_ends_at_once_though_a_switch_is_silent(store: Store, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(BASE)
    watch = PlaceWatch(load_config(tmp_path / "config.yaml", environ={}), lambda: (), store)
    looked, answers = threading.Event(), threading.Event()

    def look() -> None:
        looked.set()
        answers.wait(60)

    thread = run(watch, look)
    assert looked.wait(10)
    watch.stop()
    thread.join(10)
    assert not thread.is_alive()
    answers.set()


def test_what_goes_wrong_in_a_look(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A store that fails is told and tried again; what nobody reckoned with comes out of the thread."""
    (tmp_path / "config.yaml").write_text(BASE)
    watch = PlaceWatch(load_config(tmp_path / "config.yaml", environ={}), lambda: (), store)
    watch.first = watch.interval = 0.01
    errors = iter([StoreError("the disk is full"), StoreError("the disk is full"), ZeroDivisionError()])

    def look() -> None:
        raise next(errors)

    watch.look = look  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        watch.run()
    assert caplog.text.count("the disk is full") == 1


def test_somebody_new_is_looked_for_at_once(store: Store, tmp_path: Path) -> None:
    """Who waits to be adopted is shown with the port, not five minutes later."""
    (tmp_path / "config.yaml").write_text(BASE)
    known, looked = {PI}, threading.Event()
    watch = PlaceWatch(load_config(tmp_path / "config.yaml", environ={}), lambda: set(known), store)
    watch.glance = 0.01
    watch.look = looked.set  # type: ignore[method-assign]
    thread = threading.Thread(target=watch.run)
    thread.start()
    assert not looked.wait(0.2), "those of hosts.csv are not new"
    known.add(GUEST)
    assert looked.wait(10)
    looked.clear()
    assert not looked.wait(0.2), "once"
    watch.stop()
    thread.join(10)


def test_a_switch_that_fails_is_told_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(switch: Switch) -> Table:
        if switch is RIGHT:
            raise SwitchError(switch, "", "no answer")
        return Table(switch, (), {})

    monkeypatch.setattr(module, "read_table", read)
    errors: list[SwitchError] = []
    assert [table.switch for table in read_tables([LEFT, RIGHT], errors.append)] == [LEFT]
    assert [str(error) for error in errors] == ["switch 172.30.4.253: no answer"]
    assert read_tables([], errors.append) == []


def test_switches_are_asked_at_once_and_told_in_order() -> None:
    met = threading.Barrier(3)

    def ask(number: int) -> int:
        met.wait(10)
        return number * 10

    assert ask_all(ask, [1, 2, 3]) == [10, 20, 30]
    assert ask_all(lambda number: number, [1, 2, 3, 4], at_once=2) == [1, 2, 3, 4]
    assert ask_all(ask, []) == []
    with pytest.raises(ZeroDivisionError):
        ask_all(lambda number: 1 // number, [1, 0, 2])
