"""The board: reports become stages, stages become stuck, and the store's trouble is nobody else's."""

from __future__ import annotations

import logging
import sqlite3
import tempfile
import threading
from collections.abc import Iterable
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from monitoring import fleet as fleet_module
from monitoring.fleet import NOT_BELIEVED, STAGES, Fleet, PiState
from monitoring.store import Event, PiRow, Store, StoreError
from utility.hosts import Host
from utility.service import Report, Severity, Stage

MAC = "b8:27:eb:00:00:01"
OTHER = "b8:27:eb:00:00:02"
STRANGER = "02:00:00:00:00:01"
BOOT = (Stage.DISCOVER, Stage.LEASE, Stage.FIRMWARE, Stage.KERNEL, Stage.HELLO)


class World:
    """A board with a clock and a hosts.csv that the test moves."""

    def __init__(self, folder: Path) -> None:
        self.now = 1000.0
        self.hosts = {
            MAC: Host(MAC, IPv4Address("172.30.4.13"), "pi1"),
            OTHER: Host(OTHER, IPv4Address("172.30.4.14")),
        }
        self.store = Breakable(folder / "piman.db")
        self.fleet = self.open()

    def open(self) -> Fleet:
        return Fleet(self.store, self.hosts.get, lambda: self.now)

    def report(self, stage: Stage | None = None, mac: str = MAC, heard: str = "", **rest: object) -> None:
        self.fleet.report(Report(mac, stage, heard, **rest))  # type: ignore[arg-type]

    def tick(self, seconds: float = 0.25) -> None:
        self.now += seconds
        self.fleet.tick(self.now)

    def pi(self, mac: str = MAC) -> PiState:
        return next(each for each in self.fleet.snapshot() if each.mac == mac)

    def kept(self, mac: str = MAC) -> PiRow:
        return next(each for each in self.store.pis() if each.mac == mac)

    def told(self, mac: str = MAC) -> list[str]:
        return [each.text for each in self.store.events(mac, limit=100_000)]


class Breakable(Store):
    """A store that can be told to fail, and counts what it is asked."""

    broken = ""
    writes = 0
    prunes = 0

    def save_board(self, events: Iterable[Event], rows: Iterable[PiRow], forgotten: Iterable[str] = ()) -> None:
        if self.broken:
            raise StoreError(self.broken)
        self.writes += 1
        super().save_board(events, rows, forgotten)

    def prune_events(self, per_pi: int = 1_000, in_all: int = 50_000) -> int:
        self.prunes += 1
        if self.broken:
            raise StoreError(self.broken)
        return super().prune_events(per_pi, in_all)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class TestReports:
    def test_a_whole_row(self, world: World) -> None:
        world.report(Stage.HELLO, heard="HELLO 2", sent="date", facts={"model": "4"})
        world.now += 3
        world.report(Stage.IMAGE, heard="PROGRESS 5", done=5, total=9, facts={"serial": "ab"})
        world.now += 2
        world.report(sent="image")
        expected = PiState(
            mac=MAC,
            name="pi1",
            address=IPv4Address("172.30.4.13"),
            stage=Stage.IMAGE,
            since=1003.0,
            heard="PROGRESS 5",
            heard_at=1003.0,
            sent="image",
            sent_at=1005.0,
            done=5,
            total=9,
            facts={"model": "4", "serial": "ab"},
            updated=1005.0,
        )
        assert world.fleet.snapshot() == [expected]
        assert world.store.pis() == []  # nothing is written by a report
        world.tick()
        assert world.store.pis() == [expected]

    def test_a_boot_tells_how_long_each_stage_took(self, world: World) -> None:
        for stage, seconds in zip(
            (*BOOT, Stage.BOOT, Stage.UP), (3.21, 12.4, 99.6, 250, 3720, 100_000, 1), strict=True
        ):
            world.report(stage)
            world.now += seconds
        world.tick()
        assert world.told() == [
            "discover",
            "lease after 3.2 s",
            "firmware after 12 s",
            "kernel after 100 s",
            "hello after 4 min 10 s",
            "boot after 1 h 2 min",
            "up after 1 d 3 h",
        ]

    def test_own_words_replace_the_event_of_a_change(self, world: World) -> None:
        world.report(Stage.FORMAT, event="card is blank", severity=Severity.WARNING)
        world.report(event="more")
        world.report(Stage.FORMAT, event="and more")
        world.tick()
        assert world.told() == ["card is blank", "more", "and more"]
        assert world.store.events(MAC)[0].severity is Severity.WARNING

    def test_a_new_stage_begins_at_nothing(self, world: World) -> None:
        world.report(Stage.KERNEL, done=5, total=9)
        world.report(Stage.HELLO)
        assert (world.pi().done, world.pi().total) == (0, 0)

    def test_failed_has_a_reason_until_it_is_left(self, world: World) -> None:
        world.report(Stage.HELLO)
        world.report(Stage.FAILED, heard="ERROR card")
        assert world.pi().reason == "ERROR card"
        world.report(Stage.DISCOVER)
        assert world.pi().reason == ""
        world.report(Stage.HELLO)
        world.report(Stage.FAILED, heard="ERROR card", event="card: no card")
        assert world.pi().reason == "card: no card"
        world.report(Stage.HELLO)
        world.report(Stage.FAILED)
        assert world.pi().reason == "no reason given"
        world.tick()
        failures = [each for each in world.store.events(MAC) if each.severity is Severity.ERROR]
        assert [each.text for each in failures] == ["failed after 0.0 s", "card: no card", "failed after 0.0 s"]

    @pytest.mark.parametrize("stage", Stage)
    def test_up_is_believed_only_of_a_pi_that_we_are_not_booting(self, world: World, stage: Stage) -> None:
        world.report(stage)
        world.report(Stage.UP, heard="NTP request", event="says it is up")
        assert (world.pi().stage is Stage.UP) == (stage not in NOT_BELIEVED[Stage.UP])
        assert world.pi().heard == "NTP request"
        world.tick()
        assert world.told()[-1] == "says it is up"

    def test_up_is_believed_where_the_boot_has_long_been_stuck(self, world: World) -> None:
        world.report(Stage.KERNEL)
        world.tick(100)
        world.report(Stage.UP, heard="NTP request")  # no progress: the deadline stays
        world.tick(21)
        assert world.pi().stuck
        world.report(Stage.FAILED)
        world.report(Stage.KERNEL)
        world.tick(91)
        world.report(Stage.UP, heard="NTP request")
        assert world.pi().stage is Stage.UP
        assert not world.pi().stuck

    def test_a_file_after_the_kernel_is_no_new_boot(self, world: World) -> None:
        world.report(Stage.KERNEL, done=1, total=2)
        world.report(Stage.FIRMWARE, heard="RRQ bcm2711.dtb", done=7, total=8)
        assert world.pi().stage is Stage.KERNEL
        assert (world.pi().done, world.pi().total) == (1, 2)

    def test_the_end_of_a_dead_session_does_not_fail_the_next_boot(self, world: World) -> None:
        world.report(Stage.IMAGE)
        world.report(Stage.DISCOVER)
        world.report(Stage.FAILED, event="no word for 60 s")
        assert world.pi().stage is Stage.DISCOVER

    def test_a_discover_of_the_boot_rom_begins_a_new_boot(self, world: World) -> None:
        for stage in Stage:
            world.report(stage)
            world.report(Stage.DISCOVER)
            assert world.pi().stage is Stage.DISCOVER

    def test_what_a_pi_says_is_made_fit_for_a_line(self, world: World) -> None:
        facts = {f"key{i}\n": "v\x1b[2J" for i in range(100)}
        world.report(Stage.IMAGE, heard="a\nb\ud800" + "x" * 1000, done=-5, total=2**80, facts=facts, event="a\0b")
        world.report(facts={"key0\n": "new"})
        pi = world.pi()
        assert pi.heard == "a?b?" + "x" * 296
        assert (pi.done, pi.total) == (0, 2**63 - 1)
        assert len(pi.facts) == 32
        assert pi.facts["key1?"] == "v?[2J"
        assert pi.facts["key0?"] == "new"
        world.tick()
        assert world.kept() == world.pi()
        assert world.told() == ["a?b"]


class TestStuck:
    @pytest.mark.parametrize("stage", Stage)
    def test_each_stage_at_its_deadline(self, world: World, stage: Stage) -> None:
        world.report(stage, heard="RRQ kernel8.img")
        seconds = STAGES[stage].seconds
        if stage in (Stage.UP, Stage.FAILED):
            world.tick(3599)
            assert not world.pi().stuck
            return
        world.tick(seconds - 0.5)
        assert not world.pi().stuck
        world.tick(0.5)
        assert world.pi().stuck.startswith("heard 'RRQ kernel8.img' ")
        assert world.pi().stuck.endswith(f" ago; expected {STAGES[stage].expected}")
        assert world.kept().stuck == world.pi().stuck

    def test_told_once_and_told_when_it_goes_on(self, world: World) -> None:
        world.report(Stage.IMAGE, heard="PROGRESS 1", done=1, total=9)
        for _ in range(10):
            world.tick(10)
        world.report(heard="PROGRESS 2", done=2)
        assert not world.pi().stuck
        world.tick()
        text = "stuck in image: heard 'PROGRESS 1' 60 s ago; expected another byte of the image, or IS_FORMATTED"
        assert world.told()[1:] == [text, "goes on in image, stuck for 40 s"]
        assert world.store.events(MAC)[1].severity is Severity.WARNING

    def test_nothing_heard_at_all(self, world: World) -> None:
        world.report(Stage.LEASE)
        world.tick(60)
        assert world.pi().stuck == "nothing heard; expected the first TFTP read"

    def test_bytes_and_new_words_are_progress_and_the_same_again_is_not(self, world: World) -> None:
        world.report(Stage.FIRMWARE, heard="RRQ a")
        world.tick(50)
        world.report(heard="RRQ b")
        world.tick(50)
        assert not world.pi().stuck
        world.report(Stage.FIRMWARE, heard="RRQ b")
        world.tick(11)
        assert world.pi().stuck
        world.report(done=10, total=20)
        assert not world.pi().stuck

    def test_asking_again_for_an_address_is_not(self, world: World) -> None:
        for i in range(7):
            world.report(Stage.DISCOVER, heard=f"DHCPDISCOVER {i}")
            world.tick(5)
        assert world.pi().stuck

    def test_the_managers_clock_may_be_set(self, world: World) -> None:
        world.report(Stage.IMAGE)
        world.tick(10)
        world.tick(3e7)  # the first answer of an NTP server
        assert not world.pi().stuck
        world.tick(-2e7)
        assert not world.pi().stuck
        world.tick(49)
        assert not world.pi().stuck
        world.tick(1)
        assert world.pi().stuck


class TestStrangers:
    def test_one_event_and_no_stage(self, world: World) -> None:
        for _ in range(3):
            world.report(Stage.DISCOVER, STRANGER, "DHCPDISCOVER", event="unknown, vendor X", done=5)
        world.report(mac=STRANGER, heard="again", facts={"vendor": "X"})
        world.tick(200)
        pi = world.pi(STRANGER)
        assert (pi.name, pi.address, pi.stage, pi.stuck, pi.done) == ("", None, None, "", 0)
        assert (pi.heard, pi.facts) == ("again", {"vendor": "X"})
        assert world.told(STRANGER) == ["unknown, vendor X"]
        world.fleet = world.open()
        world.report(Stage.DISCOVER, STRANGER, event="unknown, vendor X")
        world.tick()
        assert len(world.told(STRANGER)) == 1

    def test_words_for_one_that_brings_none(self, world: World) -> None:
        world.report(mac=STRANGER, heard="x")
        world.tick()
        assert world.told(STRANGER) == ["a MAC that is not in hosts.csv"]

    def test_a_flood_of_them_stays_small(self, world: World) -> None:
        world.report(Stage.DISCOVER)
        for i in range(1000):
            world.report(Stage.DISCOVER, f"02:00:00:00:{i // 256:02x}:{i % 256:02x}", event="unknown")
        world.tick()
        assert len(world.store.pis()) == 257
        assert len(world.store.events(limit=10_000)) == 257
        world.now += 300
        world.report(mac="02:00:00:00:00:00", heard="still here")
        world.now += 301
        world.report(mac=STRANGER, heard="new")  # takes the place of the one unheard for longest
        world.tick()
        macs = {each.mac for each in world.store.pis()}
        assert len(macs) == 257
        assert macs >= {MAC, STRANGER, "02:00:00:00:00:00"}
        assert world.store.pis() == world.fleet.snapshot()

    def test_adopted_and_taken_out(self, world: World) -> None:
        world.report(Stage.DISCOVER, STRANGER)
        world.hosts[STRANGER] = Host(STRANGER, IPv4Address("172.30.4.50"), "new")
        world.tick(3)
        assert world.kept(STRANGER).name == "new"
        world.report(Stage.IMAGE, STRANGER, done=4, total=5)
        assert world.pi(STRANGER).stage is Stage.IMAGE
        del world.hosts[STRANGER]
        world.tick(3)
        pi = world.kept(STRANGER)
        assert (pi.name, pi.address, pi.stage, pi.done) == ("", None, None, 0)

    def test_many_taken_out_at_once(self, world: World) -> None:
        macs = [f"02:00:00:00:{i // 256:02x}:{i % 256:02x}" for i in range(300)]
        world.hosts |= {mac: Host(mac, IPv4Address("172.30.4.1")) for mac in macs}
        for mac in macs:
            world.report(Stage.UP, mac)
        world.tick()
        world.hosts.clear()
        world.tick(3)
        assert len(world.fleet.snapshot()) == len(world.store.pis()) == 256

    def test_a_pi_that_moves(self, world: World) -> None:
        world.report(Stage.UP)
        world.tick()
        world.hosts[MAC] = Host(MAC, IPv4Address("172.30.4.99"), "pi99")
        world.tick(1)
        assert world.kept().name == "pi1"
        world.tick(1)
        assert (world.kept().name, world.kept().address) == ("pi99", IPv4Address("172.30.4.99"))


class TestKeeping:
    def test_goes_on_after_a_restart(self, world: World) -> None:
        world.report(Stage.IMAGE, heard="PROGRESS 5", done=5, total=9)
        world.tick()
        before = world.fleet.snapshot()
        world.now += 1000
        world.fleet = world.open()
        assert world.fleet.snapshot() == before
        world.tick(59)
        assert not world.pi().stuck  # the time that the manager was away is nobody's fault
        world.tick(1)
        assert world.pi().stuck
        world.fleet = world.open()
        world.report(done=6)
        assert not world.pi().stuck

    def test_progress_is_written_now_and_then_and_milestones_at_once(self, world: World) -> None:
        world.report(Stage.IMAGE, done=0, total=99)
        world.tick()
        writes = world.store.writes
        for i in range(1, 27):
            world.report(done=i)
            world.tick(0.01)
        assert world.store.writes == writes + 1
        world.report(Stage.BOOT)
        world.tick(0.01)
        assert world.store.writes == writes + 2
        world.report(done=50)
        world.tick(0.01)
        assert world.kept().done == 0
        world.fleet.flush(world.now)
        assert world.kept().done == 50

    def test_nothing_new_writes_nothing(self, world: World) -> None:
        world.report(Stage.UP)
        world.tick()
        writes = world.store.writes
        for _ in range(100):
            world.tick()
        world.fleet.flush(world.now)
        assert world.store.writes == writes

    def test_an_outage_is_logged_once_and_loses_nothing(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "piman.fleet")
        world.store.broken = "disk is full"
        world.report(Stage.UP, STRANGER)
        for stage in BOOT:
            world.report(stage)
            world.tick()
        assert [each.levelname for each in caplog.records] == ["ERROR"]
        assert "disk is full" in caplog.text
        assert len(world.fleet.snapshot()) == 2
        world.store.broken = ""
        world.tick()
        assert len(world.told()) == 5
        assert world.store.pis() == world.fleet.snapshot()
        lines = [each.getMessage() for each in caplog.records]
        assert "the board is being kept again (it was not: disk is full)" in lines
        assert "pi1: discover" in lines
        assert f"{STRANGER}: a MAC that is not in hosts.csv" in lines

    def test_a_row_that_goes_during_an_outage(self, world: World) -> None:
        world.report(mac=STRANGER, heard="x")
        world.tick()
        world.store.broken = "full"
        for i in range(256):
            world.now += 601
            world.report(mac=f"02:00:00:00:01:{i:02x}", heard="x")
        world.tick()
        world.report(mac=STRANGER, heard="x")  # its row was to go; now it is back
        world.tick()
        world.store.broken = ""
        world.tick()
        assert world.store.pis() == world.fleet.snapshot()

    def test_a_pi_forgotten_while_its_row_was_being_refused(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.report(mac=STRANGER, heard="x")

        def refuse(events: Iterable[Event], rows: Iterable[PiRow], forgotten: Iterable[str] = ()) -> None:
            with world.fleet._lock:
                world.fleet._forget(STRANGER)
            raise StoreError("full")

        with monkeypatch.context() as broken:
            broken.setattr(world.store, "save_board", refuse)
            world.tick()
        world.tick()
        assert world.store.pis() == []

    def test_the_queue_is_bounded_and_fair(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fleet_module, "MAX_QUEUED", 250)
        world.store.broken = "full"
        for i in range(1000):
            world.report(event=f"{i}")
        for i in range(1000):
            world.report(mac=OTHER, event=f"{i}")
        world.tick()
        world.report(event="also lost")
        world.tick()
        world.store.broken = ""
        world.tick()
        assert world.told() == [str(i) for i in range(200)]
        assert world.told(OTHER) == [str(i) for i in range(50)]
        assert world.told("") == ["1751 events were lost: more than could be kept"]

    def test_old_events_go_once_a_minute(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        for _ in range(400):
            world.report(event="x")
            world.tick()
        assert world.store.prunes == 2
        caplog.set_level(logging.DEBUG, "piman.fleet")

        def fail(*_: object) -> int:
            raise StoreError("busy")

        world.store.prune_events = fail  # type: ignore[assignment,method-assign]
        world.report(event="x")
        world.tick(61)
        assert "old events stay for now: busy" in caplog.text

    def test_severities_reach_the_log(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "piman.fleet")
        for severity in Severity:
            world.report(event=f"a {severity}", severity=severity)
        world.tick()
        assert [each.levelname for each in caplog.records] == ["INFO", "WARNING", "ERROR"]

    def test_a_real_full_disk(self, world: World) -> None:
        world.report(Stage.UP)
        world.tick()
        pages = world.store._read("PRAGMA page_count")[0][0]
        world.store._read(f"PRAGMA max_page_count = {pages}")
        for i in range(150):
            world.report(event=f"{i} " + "x" * 300)
        world.tick()
        assert len(world.told()) == 1
        world.store._read("PRAGMA max_page_count = 100000")
        world.tick()
        assert len(world.told()) == 151


def test_many_threads(world: World) -> None:
    def work(mac: str) -> None:
        for i in range(500):
            world.report(BOOT[i % 5], mac, f"word {i}")

    threads = [threading.Thread(target=work, args=(mac,)) for mac in (MAC, OTHER, STRANGER, MAC)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        world.tick(0.1)
    world.fleet.flush(world.now)
    assert world.store.pis() == world.fleet.snapshot()


class Boards(RuleBasedStateMachine):
    """Whatever is reported, in whatever order: the board is legal and the store follows it."""

    macs = st.sampled_from([MAC, OTHER, STRANGER])

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="piman-board-")
        self.world = World(Path(self.folder.name))

    @rule(
        mac=macs,
        stage=st.sampled_from([None, *Stage]),
        heard=st.sampled_from(["", "a", "b"]),
        event=st.sampled_from(["", "told"]),
        done=st.none() | st.integers(-(2**70), 2**70),
    )
    def report(self, mac: str, stage: Stage | None, heard: str, event: str, done: int | None) -> None:
        before = {each.mac: each.stage for each in self.world.fleet.snapshot()}.get(mac)
        stuck = {each.mac: each.stuck for each in self.world.fleet.snapshot()}.get(mac)
        self.world.report(stage, mac, heard, event=event, done=done)
        after = self.world.pi(mac)
        if stage is Stage.UP and before in NOT_BELIEVED[Stage.UP] and not stuck:
            assert after.stage is before
        assert after.updated == self.world.now

    @rule(seconds=st.sampled_from([0.25, 20.0, 61.0, 200.0, 4000.0, -1000.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.tick(seconds)

    @rule(mac=macs)
    def hosts_change(self, mac: str) -> None:
        if self.world.hosts.pop(mac, None) is None:
            self.world.hosts[mac] = Host(mac, IPv4Address("172.30.4.77"), "late")

    @rule(broken=st.booleans())
    def disk(self, broken: bool) -> None:
        self.world.store.broken = "full" if broken else ""

    @rule()
    def restart(self) -> None:
        if not self.world.store.broken:
            self.world.fleet.flush(self.world.now)
            assert self.world.store.pis() == self.world.fleet.snapshot()
            self.world.fleet = self.world.open()

    @invariant()
    def legal(self) -> None:
        for pi in self.world.fleet.snapshot():
            assert not pi.stuck or pi.stage not in (None, Stage.UP, Stage.FAILED)
            assert bool(pi.reason) == (pi.stage is Stage.FAILED)
            assert 0 <= pi.done < 2**63
            assert pi.name or pi.stage is None

    def teardown(self) -> None:
        self.world.store.close()
        self.folder.cleanup()


TestBoards = Boards.TestCase
TestBoards.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


def test_every_stage_has_its_row() -> None:
    assert set(STAGES) == set(Stage)
    assert all(each.seconds > 0 for each in STAGES.values())
    assert sqlite3.threadsafety == 3  # the store's one connection is used by several threads
