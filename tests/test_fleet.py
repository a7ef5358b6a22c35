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
from monitoring.diagnosis import Boot, Finding, diagnose
from monitoring.fleet import NOT_BELIEVED, STAGES, Fleet, PiState
from monitoring.store import Event, Order, PiRow, PowerOn, Store, StoreError
from utility.hosts import Host
from utility.service import FileRecord, Report, Severity, Stage

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

    def save_board(
        self,
        events: Iterable[Event],
        rows: Iterable[PiRow],
        forgotten: Iterable[str] = (),
        files: Iterable[FileRecord] = (),
    ) -> None:
        if self.broken:
            raise StoreError(self.broken)
        self.writes += 1
        super().save_board(events, rows, forgotten, files)

    def orders(self) -> list[Order]:
        if self.broken:
            raise StoreError(self.broken)
        return super().orders()

    def power_ons(self, after: int = 0) -> list[PowerOn]:
        if self.broken:
            raise StoreError(self.broken)
        return super().power_ons(after)

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

    def test_what_was_seen_before_the_last_words_is_no_news(self, world: World) -> None:
        world.report(Stage.FIRMWARE, heard="start4.elf")
        late = Report(MAC, Stage.LEASE, "DHCPREQUEST", "DHCPACK", "has an address", facts={"model": "Pi 4"})
        world.fleet.report(late, world.now - 3)
        world.fleet.report(Report(MAC, Stage.UP, "something"), world.now - 2)
        pi = world.pi()
        assert (pi.stage, pi.heard, pi.sent, pi.updated) == (Stage.FIRMWARE, "start4.elf", "", world.now)
        assert pi.facts == {"model": "Pi 4"}
        world.fleet.report(Report(MAC, Stage.KERNEL, "kernel8.img"), world.now + 1)
        assert world.pi().stage is Stage.KERNEL
        world.tick()
        assert world.told() == ["firmware", "has an address", "kernel after 1.0 s"]

    def test_the_transfer_of_a_boot_that_lost_power_is_no_news(self, world: World) -> None:
        world.report(Stage.KERNEL, done=0, total=9)
        began = world.now
        world.tick(3)
        for stage in (Stage.DISCOVER, *BOOT, Stage.BOOT):
            world.report(stage)
        world.tick(3)
        world.report(Stage.KERNEL, heard="ACK 4", done=4, total=9, began=began)
        assert (world.pi().stage, world.pi().done) == (Stage.BOOT, 0)
        world.report(Stage.UP)
        assert world.pi().stage is Stage.UP
        world.report(Stage.KERNEL, done=4, total=9, began=world.now)
        assert world.pi().stage is Stage.KERNEL

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
        world.tick(seconds - 1)
        assert not world.pi().stuck
        world.tick(1)
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

        def refuse(*_: object) -> None:
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


def file(name: str, began: float, outcome: str = "complete", mac: str = MAC, size: int = 1000) -> FileRecord:
    return FileRecord(mac, name, size, size if outcome == "complete" else 0, began, 0.5, 0, outcome)


class TestBoots:
    """What is collected of a boot, and what comes of it; the rules themselves are in test_diagnosis."""

    def discover(self, world: World, offer: str = "172.30.4.13", **facts: str) -> None:
        world.report(Stage.DISCOVER, heard="DHCPDISCOVER", facts=facts)
        if offer:
            world.report(sent=f"DHCPOFFER {offer}")

    def rom_discovers(self, world: World, times: int = 1) -> None:
        """A Pi 3's boot ROM: each OFFER is a lease to it."""
        for _ in range(times):
            world.report(Stage.DISCOVER, heard="DHCPDISCOVER")
            world.tick(1.2)
            world.report(Stage.LEASE, sent="DHCPOFFER 172.30.4.13")
            world.tick(3.8)

    def lease(self, world: World) -> None:
        world.report(Stage.LEASE, heard="DHCPREQUEST 172.30.4.13 (selecting)", sent="DHCPACK 172.30.4.13")

    def fetch(self, world: World, *names: str, outcome: str = "complete") -> None:
        for name in names:
            stage = Stage.KERNEL if name.startswith(("kernel", "init")) else Stage.FIRMWARE
            world.report(stage, heard=f"RRQ {name}")
            world.fleet.record_file(file(name, world.now, outcome))
            world.tick(0.5)

    def boot(self, world: World, *names: str) -> None:
        self.discover(world)
        world.now += 1
        self.lease(world)
        self.fetch(world, *(names or ("start4.elf", "config.txt", "cmdline.txt", "kernel8.img", "initramfs.gz")))

    def warnings(self, world: World) -> list[str]:
        return [each.text for each in world.store.events(MAC, limit=10**6) if each.severity is not Severity.INFO]

    def test_a_boot_is_summed_up_when_its_system_is_heard(self, world: World) -> None:
        world.fleet.power_on(MAC, world.now)
        world.tick(5)
        self.boot(world)
        world.tick(18)
        world.report(Stage.HELLO, heard="HELLO 2")
        world.report(Stage.FORMAT)
        world.tick(12)
        world.report(Stage.BOOT, heard="IS_FORMATTED")
        world.tick(10)
        assert not [text for text in world.told() if text.startswith("booted in")]
        world.report(Stage.UP, heard="NTP request")
        world.tick(1)
        text = "booted in 48 s: link 5.0 s, address 1.0 s, 5 files 0.0 MB in 2.5 s, kernel to hello 18 s, install 12 s"
        assert world.told()[-1].replace("5.0 kB", "0.0 MB") == f"{text}, its own system 10 s"
        world.tick(500)
        world.report(Stage.UP, heard="NTP request")
        world.tick(1)
        assert len([text for text in world.told() if text.startswith("booted in")]) == 1
        assert self.warnings(world) == []
        assert world.pi().hint == ""

    def test_a_boot_whose_system_stays_silent_is_summed_up_too_and_once(self, world: World) -> None:
        self.boot(world)
        world.report(Stage.HELLO)
        world.report(Stage.BOOT)
        world.tick(181)
        assert world.pi().stuck
        world.tick(1)
        assert world.told()[-1].startswith("brought to boot its card in 3.5 s: address 1.0 s, 5 files")
        world.report(Stage.UP, heard="DHCPREQUEST")
        world.tick(1)
        assert len([text for text in world.told() if "5 files" in text]) == 1

    def test_a_boot_that_the_next_one_ends_is_summed_up(self, world: World) -> None:
        self.boot(world)
        world.report(Stage.HELLO)
        world.report(Stage.BOOT)
        world.now += 20
        self.boot(world)
        assert len([text for text in world.told() if text.startswith("brought to boot its card in 3.5 s")]) == 1

    def test_power_and_no_word_is_told_once_and_goes_when_it_speaks(self, world: World) -> None:
        world.fleet.power_on(MAC, world.now)
        for _ in range(89):
            world.tick(1)
        assert (world.pi().hint, world.pi().stage) == ("", None)
        for _ in range(600):
            world.tick(1)
        assert world.kept().hint.startswith("power for 90 s and not a word: no network in BOOT_ORDER")
        (told,) = world.told()
        assert told == world.pi().hint
        assert world.store.events(MAC)[0].severity is Severity.WARNING
        self.discover(world)
        world.tick(1)
        assert world.kept().hint.startswith("no DISCOVER for 11 min 29 s after power-on (1 DISCOVER since")
        self.lease(world)
        self.fetch(world, "start4.elf", "config.txt")
        world.tick(1)
        assert world.kept().hint == ""
        assert len(self.warnings(world)) == 2

    def test_power_that_another_process_turned_on(self, world: World) -> None:
        world.report(Stage.UP, heard="NTP request")
        world.tick(1000)
        with Store(world.store.path) as other:
            other.add_power_on(MAC, world.now)
            other.add_power_on(STRANGER, world.now)
        world.tick(0.5)
        world.tick(88)
        assert not world.pi().hint
        world.tick(2)
        assert world.pi().hint.startswith("power for 90 s")
        with Store(world.store.path) as other:
            other.add_power_on(MAC, world.now)
        world.tick(1)
        assert world.pi().hint == ""
        assert [each.mac for each in world.fleet.snapshot()] == [MAC]

    def test_the_word_of_the_power_comes_after_the_first_discover(self, world: World) -> None:
        at = world.now
        world.tick(0.5)
        self.discover(world)
        world.fleet.power_on(MAC, at)
        world.tick(0.5)
        world.report(Stage.LEASE, heard="DHCPREQUEST x")
        world.report(Stage.HELLO)
        world.report(Stage.UP)
        world.tick(1)
        assert world.told()[-1] == "booted in 1.0 s: link 0.5 s, address 0.5 s"

    def test_the_word_of_the_power_comes_after_a_discover_that_began_no_boot(self, world: World) -> None:
        self.rom_discovers(world, 5)
        world.tick(16)
        assert world.pi().hint.startswith("sent 5 DISCOVERs and is silent")
        assert [each.text for each in world.store.events(MAC) if each.severity is Severity.ERROR] == [world.pi().hint]
        at = world.now
        world.now += 0.3
        self.discover(world, offer="")
        world.fleet.power_on(MAC, at)
        world.tick(1)
        assert not world.pi().hint
        self.lease(world)
        self.fetch(world, "start4.elf")
        world.report(Stage.HELLO)
        world.report(Stage.UP)
        world.tick(1)
        assert "link 0.3 s" in world.told()[-1]

    def test_power_of_long_ago_and_of_strangers_is_nothing(self, world: World) -> None:
        world.fleet.power_on(MAC, world.now - 600)
        world.fleet.power_on(MAC, world.now + 10)
        world.fleet.power_on(STRANGER, world.now)
        assert world.fleet.snapshot() == []

    def test_a_restart_of_the_manager_blames_nobody(self, world: World) -> None:
        world.fleet.power_on(MAC, world.now)
        world.store.add_power_on(MAC, world.now)
        world.now += 40
        world.store.add_power_on(OTHER, world.now - 6)
        world.report(Stage.DISCOVER, OTHER, "DHCPDISCOVER")
        world.tick(20)
        world.fleet = world.open()
        for _ in range(89):
            world.tick(1)
        assert self.warnings(world) == []
        for _ in range(5):
            world.tick(1)
        assert world.pi().hint.startswith("power for 2 min 30 s and not a word")
        assert not world.pi(OTHER).hint

    def test_what_was_wrong_before_a_restart_stays_until_the_pi_speaks(self, world: World) -> None:
        world.report(Stage.UP, heard="NTP request")
        world.tick(1)
        world.fleet.power_on(MAC, world.now)
        world.tick(91)
        world.fleet = world.open()
        world.tick(1)
        assert world.pi().hint.startswith("power for 91 s")
        world.report(Stage.UP, heard="NTP request")
        world.tick(1)
        assert world.pi().hint == ""

    def test_a_boot_rom_loads_another_loader_in_the_same_boot(self, world: World) -> None:
        for again in range(5):
            self.rom_discovers(world)
            self.fetch(world, "bootcode.bin")
            self.fetch(world, "bootsig.bin", outcome="missing")
            self.rom_discovers(world)
            self.fetch(world, "start.elf", "config.txt", "cmdline.txt", "kernel8.img", "initramfs.gz")
            world.tick(30)
            assert bool(world.pi().hint) == (again >= 3)
        (told,) = self.warnings(world)
        assert told.startswith("started 4 times in 2 min")
        assert "the kernel comes and panics" in told

    def test_a_finding_is_told_again_after_a_good_boot_and_after_power(self, world: World) -> None:
        for again in range(3):
            self.discover(world)
            self.fetch(world, "start4.elf", "start.elf", outcome="missing")
            world.tick(5)
            assert "start4.elf" in world.pi().hint
            assert len(self.warnings(world)) == 1, again
        world.fleet.power_on(MAC, world.now)
        assert world.pi().hint == ""
        self.discover(world)
        self.fetch(world, "start4.elf", outcome="missing")
        world.tick(5)
        assert len(self.warnings(world)) == 2
        self.boot(world)
        world.tick(1)
        assert "start4.elf, and cannot boot" in world.pi().hint  # who knows
        world.report(Stage.HELLO)
        world.tick(1)
        assert world.pi().hint == ""
        world.report(Stage.UP)
        world.tick(1)
        self.discover(world)
        self.fetch(world, "start4.elf", outcome="missing")
        world.tick(5)
        assert len(self.warnings(world)) == 3

    def test_what_was_wrong_with_one_try_is_shown_in_the_next_for_a_minute(self, world: World) -> None:
        self.discover(world)
        self.fetch(world, "kernel8.img", outcome="missing")
        world.tick(5)
        assert world.pi().hint
        world.now += 10
        self.boot(world)
        world.tick(40)
        assert world.pi().hint
        world.tick(8)
        assert not world.pi().hint

    def test_offers_that_are_not_taken(self, world: World) -> None:
        for _ in range(4):
            self.discover(world, model="Pi 4")
            world.tick(8)
        assert world.pi().hint.startswith("4 DISCOVERs, 4 OFFERs of ours, and nothing after")

    @pytest.mark.parametrize(
        "report",
        [
            Report(MAC, heard="DHCPREQUEST to 10.0.0.1"),
            Report("", event="another DHCP server, 10.0.0.1 (x), answers", severity=Severity.WARNING),
            Report(OTHER, event="another DHCP server, 10.0.0.1 (x), offered it y", severity=Severity.WARNING),
        ],
    )
    def test_another_dhcp_server(self, world: World, report: Report) -> None:
        self.discover(world)
        world.fleet.report(report)
        world.tick(11)
        assert world.pi().hint.startswith("another DHCP server, 10.0.0.1, answers")

    def test_an_installer_that_has_an_address_and_is_not_let_through(self, world: World) -> None:
        self.boot(world)
        world.tick(10)
        world.report(heard="DHCPDISCOVER")
        world.report(heard="DHCPREQUEST 172.30.4.13 (selecting)")
        for _ in range(61):
            world.tick(1)
        assert "TCP connection to port 3333" in world.pi().hint
        world.report(Stage.HELLO)
        world.tick(1)
        assert not world.pi().hint

    def test_an_installer_that_starts_over(self, world: World) -> None:
        for again in range(3):
            self.boot(world)
            world.report(Stage.HELLO)
            world.report(Stage.FORMAT)
            world.report(Stage.IMAGE, done=again, total=9)
            world.tick(200)
        assert world.pi().hint.startswith("the installer began 3 times")
        world.report(Stage.BOOT)
        world.tick(1)
        assert not world.pi().hint

    @pytest.mark.parametrize("ordered", [False, True])
    def test_a_card_that_is_booted_without_asking(self, world: World, ordered: bool) -> None:
        world.report(Stage.UP, heard="NTP request")
        if ordered:
            world.store.order_install(MAC, world.now, "teacher")
        world.tick(10)
        world.fleet.power_on(MAC, world.now)
        world.tick(25)
        world.report(Stage.UP, heard="DHCPREQUEST")
        world.tick(1)
        assert "booted the system on its card and did not ask us" in world.told()[-1]
        assert bool(world.pi().hint) == ordered
        assert len(self.warnings(world)) == ordered

    def test_the_end_of_a_transfer_of_the_boot_before(self, world: World) -> None:
        self.discover(world)
        self.fetch(world, "start4.elf")
        began = world.now
        world.now += 10
        self.discover(world)
        world.fleet.record_file(file("kernel8.img", began, "failed"))
        world.tick(1)
        assert not world.pi().hint
        assert [each.name for each in world.store.files(MAC)] == ["start4.elf", "kernel8.img"]

    def test_files_are_kept_of_known_pis_alone(self, world: World) -> None:
        world.report(mac=STRANGER, heard="x")
        world.report(Stage.UP)
        world.fleet.record_file(file("S/a\n\ud800", 1.0))
        world.fleet.record_file(file("a", 1.0, mac=STRANGER))
        world.fleet.record_file(file("a", 1.0, mac=OTHER))
        world.tick()
        assert [each.name for each in world.store.files(MAC)] == ["S/a??"]
        assert world.store.files(STRANGER) == world.store.files(OTHER) == []

    def test_files_of_an_outage_are_few(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fleet_module, "MAX_QUEUED", 5)
        world.report(Stage.UP)
        for i in range(9):
            world.fleet.record_file(file(f"{i}", 1.0))
        world.tick()
        assert len(world.store.files(MAC)) == 5

    def test_an_outage_of_the_store_stops_no_finding(self, world: World) -> None:
        world.store.broken = "full"
        world.fleet.power_on(MAC, world.now)
        world.tick(91)
        assert world.pi().hint
        world.store.broken = ""
        world.tick(1)
        assert world.kept().hint
        assert len(world.told()) == 1

    def test_a_clock_that_is_set_ends_what_was_measured_with_it(self, world: World) -> None:
        world.fleet.power_on(MAC, world.now)
        world.report(Stage.UP, OTHER)
        world.tick(3e7)
        world.tick(91)
        assert not world.pi().hint
        assert world.told() == []
        world.tick(-2e7)
        world.fleet.power_on(MAC, world.now)
        world.tick(91)
        assert world.pi().hint

    def test_one_that_is_taken_out_of_hosts_csv(self, world: World) -> None:
        world.fleet.power_on(MAC, world.now)
        world.tick(91)
        del world.hosts[MAC]
        world.tick(3)
        assert world.kept().hint == ""
        world.tick(91)
        assert len(world.told()) == 1

    def test_nothing_is_looked_at_for_ever(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        looked = []

        def look(boot: Boot, now: float) -> list[Finding]:
            looked.append(now)
            return diagnose(boot, now)

        monkeypatch.setattr(fleet_module, "diagnose", look)
        self.discover(world)
        for _ in range(1000):
            world.tick(1)
        assert 110 < len(looked) < 130
        self.discover(world)
        world.tick(1)
        assert looked[-1] == world.now

    def test_a_boot_that_changes_while_it_is_looked_at(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        def late(boot: Boot, now: float) -> list[Finding]:
            self.lease(world)
            return diagnose(boot, now)

        world.fleet.power_on(MAC, world.now)
        world.tick(30)
        self.discover(world)
        with monkeypatch.context() as slow:
            slow.setattr(fleet_module, "diagnose", late)
            world.tick(1)
        assert not world.pi().hint  # it was in another stage
        world.tick(1)
        assert world.pi().hint.startswith("no DISCOVER for 30 s")


class TestTheManagersOwn:
    def test_an_event_and_no_row(self, world: World) -> None:
        world.report(mac="", event="another DHCP server,\n10.0.0.1", severity=Severity.WARNING)
        world.report(mac="", heard="nothing")
        world.tick()
        (event,) = world.store.events("")
        assert (event.text, event.severity) == ("another DHCP server,?10.0.0.1", Severity.WARNING)
        assert world.fleet.snapshot() == world.store.pis() == []


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
        heard=st.sampled_from(["", "a", "DHCPDISCOVER", "DHCPREQUEST to 10.0.0.1"]),
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

    @rule(mac=macs, ago=st.sampled_from([0.0, 1.0, 700.0]))
    def power(self, mac: str, ago: float) -> None:
        self.world.fleet.power_on(mac, self.world.now - ago)

    @rule(
        mac=macs,
        name=st.sampled_from(["bootcode.bin", "start4.elf", "S/kernel8.img", "initramfs.gz", ""]),
        outcome=st.sampled_from(["complete", "timeout", "missing", "failed", "aborted"]),
    )
    def record(self, mac: str, name: str, outcome: str) -> None:
        self.world.fleet.record_file(file(name, self.world.now, outcome, mac))

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
            assert pi.name or (pi.stage, pi.hint) == (None, "")

    def teardown(self) -> None:
        self.world.store.close()
        self.folder.cleanup()


TestBoards = Boards.TestCase
TestBoards.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


def test_every_stage_has_its_row() -> None:
    assert set(STAGES) == set(Stage)
    assert all(each.seconds > 0 for each in STAGES.values())
    assert sqlite3.threadsafety == 3  # the store's one connection is used by several threads
