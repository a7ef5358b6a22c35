"""The store: rows come back as they went in, orders are exact, damage and rights are met with a sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from monitoring import store as store_module
from monitoring.alerts import Alert, AlertSeverity, Silence
from monitoring.metrics import Reading, Sample
from monitoring.store import (
    SCHEMA_VERSION,
    Audit,
    Event,
    Intent,
    Lease,
    Notice,
    Order,
    PiRow,
    Place,
    PowerOn,
    Store,
    StoreError,
    Token,
    Treatment,
    WebSession,
)
from utility.service import FileRecord, Severity, Stage

MAC = "b8:27:eb:00:00:01"
OTHER = "b8:27:eb:00:00:02"
FULL_ROW = PiRow(
    mac=MAC,
    name="pi1",
    address=IPv4Address("172.30.4.13"),
    stage=Stage.IMAGE,
    since=1.5,
    heard="PROGRESS 7",
    heard_at=2.5,
    sent="format",
    sent_at=3.5,
    done=7,
    total=9,
    stuck="no byte for 60 s",
    reason="none yet",
    facts={"model": "Raspberry Pi 3", "größe": "ünicode"},
    updated=4.5,
    hint="power for 90 s and not a word",
)
FILE = FileRecord(MAC, "kernel8.img", 9, 8, 1.5, 2.5, 3, "timeout", 1468)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "piman.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store(path) as opened:
        yield opened


def as_nobody(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python as a user without rights here."""
    drop = "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n" if os.geteuid() == 0 else ""
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(Path.cwd())!r})\n{IMPORTS}{drop}{code}",
        *words,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


IMPORTS = "from pathlib import Path\nfrom monitoring.store import *\nfrom utility.service import *\n"


def test_readings_are_kept_beside_the_state(store: Store, path: Path) -> None:
    with pytest.raises(StoreError), Store(path, read_only=True) as reader:
        reader.add_samples([])
    with Store(path, read_only=True) as reader:
        assert reader.latest_samples() == {}
        assert reader.samples(MAC, "cpu_percent", 0.0, 9e9) == []
        first = Reading(MAC, 1000.0, {"cpu_percent": 5.0}, {"error": ""})
        store.add_samples([first])
        assert reader.latest_samples() == {MAC: first}
        assert reader.samples(MAC, "cpu_percent", 1000.0, 1001.0) == [Sample(1000.0, 5.0, 5.0, 5.0)]
    store.prune_samples(1000.0)


class TestEvents:
    def test_come_back_in_order_with_growing_ids(self, store: Store) -> None:
        store.add_event(MAC, 1.0, Severity.INFO, "one")
        store.add_event("", 2.0, Severity.ERROR, "two")
        assert store.events() == [
            Event(1, 1.0, MAC, Severity.INFO, "one"),
            Event(2, 2.0, "", Severity.ERROR, "two"),
        ]

    def test_of_one_pi_or_of_the_manager(self, store: Store) -> None:
        for mac in (MAC, OTHER, "", MAC):
            store.add_event(mac, 1.0, Severity.INFO, mac)
        assert [each.id for each in store.events(MAC)] == [1, 4]
        assert [each.id for each in store.events("")] == [3]

    def test_the_next_and_the_newest(self, store: Store) -> None:
        assert store.last_event_id() == 0
        store.save_board([Event(0, float(i), MAC, Severity.INFO, "x") for i in range(1, 11)], [])
        assert store.last_event_id() == 10
        assert [each.id for each in store.latest_events(limit=3)] == [8, 9, 10]
        assert [each.id for each in store.latest_events(MAC, 2)] == [9, 10]
        assert store.latest_events(OTHER) == []
        assert [each.id for each in store.events(limit=3)] == [1, 2, 3]
        assert [each.id for each in store.events(after=4, limit=3)] == [5, 6, 7]
        assert [each.id for each in store.events(MAC, after=9)] == [10]
        assert store.events(after=10) == []

    def test_pruned_per_pi_and_in_all(self, store: Store) -> None:
        batch = [Event(0, 0.0, mac, Severity.INFO, "x") for mac in (MAC, MAC, MAC, OTHER, MAC, "", OTHER)]
        store.save_board(batch, [])
        assert store.prune_events(per_pi=2, in_all=4) == 3
        assert [each.id for each in store.events()] == [4, 5, 6, 7]
        assert store.prune_events(per_pi=2, in_all=4) == 0
        store.add_event(MAC, 1.0, Severity.INFO, "an id is never given twice")
        assert store.events()[-1].id == 8

    def test_the_limits_are_the_documented_ones(self, store: Store) -> None:
        batch = [Event(0, 0.0, f"{i % 60}", Severity.INFO, "x") for i in range(60_000)]
        batch += [Event(0, 0.0, MAC, Severity.INFO, "y") for _ in range(1_005)]
        store.save_board(batch, [])
        store.prune_events()
        assert len(store.events(MAC, limit=10**6)) == 1_000
        assert len(store.events(limit=10**6)) == 50_000


ALERT = Alert(
    id=3,
    rule="temperature",
    subject=MAC,
    name="pi1",
    severity=AlertSeverity.CRITICAL,
    since=1.5,
    opened_at=2.5,
    text="it is at 83 °C",
    value=83.4,
    told=True,
    suppressed="upper is down",
    silenced="by ada",
    resolved_at=0.0,
    ended="",
)


class TestAlerts:
    def test_an_alert_comes_back_as_it_went_in(self, store: Store) -> None:
        over = dataclasses.replace(ALERT, id=4, resolved_at=9.0, ended="its rule is gone", told=False)
        assert store.last_alert_id() == 0
        store.save_alerts([ALERT, over], [], [Event(0, 1.0, MAC, Severity.INFO, "x")], 1.0)
        assert store.alerts() == [ALERT]
        assert store.alerts(open_only=False) == [ALERT, over]
        assert store.alerts(open_only=False, limit=1) == [over]
        assert store.last_alert_id() == 4
        assert [each.text for each in store.events()] == ["x"]

    def test_an_acknowledgement_survives_a_save_and_needs_an_open_alert(self, store: Store) -> None:
        store.save_alerts([ALERT], [], [], 1.0)
        assert store.acknowledge_alert(3, "ada")
        store.save_alerts([dataclasses.replace(ALERT, text="it is at 90 °C")], [], [], 2.0)
        assert store.acknowledged() == {3: "ada"}
        assert store.alerts() == [dataclasses.replace(ALERT, text="it is at 90 °C", acknowledged="ada")]
        store.save_alerts([dataclasses.replace(ALERT, resolved_at=5.0)], [], [], 2.0)
        assert not store.acknowledge_alert(3, "bob")
        assert store.acknowledged() == {}

    def test_silences_end_by_time_or_by_hand(self, store: Store) -> None:
        first = store.add_silence("lab-*", "*", 100.0, "ada", "the fan is away")
        second = store.add_silence("*", "up", 200.0, "ada", "")
        assert store.silences(50.0) == [
            Silence(first, "lab-*", "*", 100.0, "ada", "the fan is away"),
            Silence(second, "*", "up", 200.0, "ada", ""),
        ]
        assert [each.id for each in store.silences(100.0)] == [second]
        assert store.end_silence(second, 120.0)
        assert not store.end_silence(second, 121.0)
        assert store.silences(120.0) == []

    def test_notices_wait_until_they_are_sent(self, store: Store) -> None:
        store.save_alerts([ALERT], [("slack", 3, False), ("email", 3, False), ("slack", 3, True)], [], 7.0)
        waiting = [Notice(1, "slack", ALERT, False, 7.0), Notice(3, "slack", ALERT, True, 7.0)]
        assert store.waiting_notices("slack") == waiting
        store.settle_notices([1, 3], 8.0, "it answered 500")
        assert {(each.tries, each.error) for each in store.waiting_notices("slack")} == {(1, "it answered 500")}
        store.settle_notices([1], 9.0)
        assert [each.id for each in store.waiting_notices("slack")] == [3]
        assert [(each.id, each.sent_at) for each in store.latest_notices()] == [(1, 9.0), (2, 0.0), (3, 0.0)]
        assert [each.id for each in store.latest_notices(limit=1)] == [3]
        assert store.drop_notices(["slack"]) == 1
        assert store.drop_notices([]) == 1

    def test_what_is_over_is_pruned_and_what_is_open_is_kept(self, store: Store) -> None:
        over = [dataclasses.replace(ALERT, id=number, resolved_at=5.0) for number in range(10, 20)]
        store.save_alerts([ALERT, *over], [("slack", each.id, False) for each in [ALERT, *over]], [], 1.0)
        store.settle_notices(range(2, 12), 9.0)
        store.add_silence("*", "*", 5.0, "ada", "")
        store.prune_alerts(1e6, alerts=3, notices=4)
        assert [each.id for each in store.alerts(open_only=False)] == [3, 17, 18, 19]
        assert [each.id for each in store.latest_notices()] == [1, 9, 10, 11]

    def test_what_was_done_by_itself_is_counted(self, store: Store) -> None:
        number = store.add_treatment(MAC, 10.0, "power-cycle", "dead for 5 m", "")
        store.end_treatment(number, "done")
        store.add_treatment(OTHER, 20.0, "reinstall", "dead again", "")
        assert store.treatments() == [
            Treatment(1, MAC, 10.0, "power-cycle", "dead for 5 m", "done"),
            Treatment(2, OTHER, 20.0, "reinstall", "dead again", ""),
        ]
        assert [each.mac for each in store.treatments(since=20.0)] == [OTHER]


class TestBoard:
    def test_a_row_comes_back_as_it_went_in(self, store: Store) -> None:
        store.save_pi(FULL_ROW)
        store.save_pi(PiRow(OTHER))
        assert store.pis() == [FULL_ROW, PiRow(OTHER)]

    @given(
        text=st.text(st.characters(exclude_categories=["Cs"])),
        stage=st.sampled_from([None, *Stage]),
        number=st.integers(0, 2**63 - 1),
        when=st.floats(0, 1e12),
        facts=st.dictionaries(st.text(), st.text()),
    )
    @settings(max_examples=50)
    def test_any_row(self, text: str, stage: Stage | None, number: int, when: float, facts: dict[str, str]) -> None:
        row = PiRow(MAC, text, None, stage, when, text, when, text, when, number, number, text, text, facts, when, text)
        assert store_module._pi_row(store_module._pi_values(row)) == row

    def test_rows_go(self, store: Store) -> None:
        store.save_board([], [FULL_ROW, PiRow(OTHER)])
        store.save_board([], [], [MAC])
        assert store.pis() == [PiRow(OTHER)]

    def test_all_or_nothing(self, store: Store) -> None:
        with pytest.raises(StoreError):
            store.save_board([Event(0, 1.0, MAC, Severity.INFO, "x")], [PiRow(MAC, done=2**70)])
        with pytest.raises(StoreError, match="surrogates"):
            store.add_event(MAC, 1.0, Severity.INFO, "\ud800")
        assert store.events() == []
        store.save_pi(FULL_ROW)  # and the store goes on


class TestFiles:
    def test_come_back_as_they_went_in(self, store: Store) -> None:
        other = dataclasses.replace(FILE, mac=OTHER)
        more = [dataclasses.replace(FILE, name=f"file {i}") for i in range(3)]
        store.save_board([], [], [], [FILE, other, *more])
        assert store.files(MAC) == [FILE, *more]
        assert store.files(MAC, limit=2) == more[1:]
        assert store.files(OTHER) == [other]
        assert store.files("") == []

    def test_go_or_stay_with_the_rest_of_the_board(self, store: Store) -> None:
        with pytest.raises(StoreError):
            store.save_board([Event(0, 1.0, MAC, Severity.INFO, "x")], [], [], [dataclasses.replace(FILE, size=2**70)])
        assert store.events() == []

    def test_the_newest_of_each_pi_and_of_all_are_kept(self, store: Store) -> None:
        batch = [dataclasses.replace(FILE, mac=mac, name=f"{i}") for i, mac in enumerate([MAC, MAC, MAC, OTHER, MAC])]
        store.save_board([], [], [], batch)
        assert store.prune_files(per_pi=2, in_all=2) == 3
        assert [each.name for each in store.files(MAC)] == ["4"]
        assert [each.name for each in store.files(OTHER)] == ["3"]

    def test_the_limits_are_the_documented_ones(self, store: Store) -> None:
        batch = [dataclasses.replace(FILE, mac=f"{i % 150}") for i in range(25_000)]
        store.save_board([], [], [], [*batch, *[FILE] * 210])
        store.prune_files()
        assert len(store.files(MAC, limit=10**6)) == 200
        assert store._read("SELECT count(*) FROM files") == [(20_000,)]


class TestLeases:
    def test_one_of_each_pi_and_one_of_each_address(self, store: Store) -> None:
        first, second = IPv4Address("172.30.4.100"), IPv4Address("172.30.4.101")
        store.save_lease(MAC, first, 10.5)
        store.save_lease(OTHER, second, 20.0)
        assert store.leases() == [Lease(MAC, first, 10.5), Lease(OTHER, second, 20.0)]
        store.save_lease(MAC, first, 30.0)  # renewed
        assert store.leases()[0].expires == 30.0
        store.save_lease(MAC, second, 40.0)  # the other's had run out
        assert store.leases() == [Lease(MAC, second, 40.0)]
        store.forget_lease(OTHER)
        store.forget_lease(MAC)
        assert store.leases() == []

    def test_outlive_the_process(self, path: Path) -> None:
        with Store(path) as store:
            store.save_lease(MAC, IPv4Address("172.30.4.100"), 10.5)
        with Store(path, read_only=True) as store:
            assert store.leases() == [Lease(MAC, IPv4Address("172.30.4.100"), 10.5)]


def test_power_ons_are_followed_by_their_id(store: Store, path: Path) -> None:
    with Store(path) as another:
        another.add_power_on(MAC, 1.0)
        another.add_power_on(OTHER, 2.0)
        first = store.power_ons()
        assert [(each.mac, each.when) for each in first] == [(MAC, 1.0), (OTHER, 2.0)]
        assert store.power_ons(first[-1].id) == []
        another.add_power_on(OTHER, 3.0)  # the newest one again
        (news,) = store.power_ons(first[-1].id)
        assert news == PowerOn(first[-1].id + 1, OTHER, 3.0)
        another.add_power_on(MAC, 4.0)
        assert [each.mac for each in store.power_ons()] == [OTHER, MAC]


class TestOrders:
    def test_taken_by_its_token_and_once(self, store: Store) -> None:
        token = store.order_install(MAC, 5.0, "teacher")
        assert len(token) == 8
        assert int(token, 16) >= 0
        assert store.pending_order(MAC) == token
        assert store.pending_order(OTHER) is None
        assert store.orders() == [Order(MAC, token, 5.0, "teacher")]
        assert not store.complete_order(MAC, "00000000x")
        assert not store.complete_order(OTHER, token)
        assert store.complete_order(MAC, token)
        assert not store.complete_order(MAC, token)
        assert store.pending_order(MAC) is None

    def test_a_second_order_replaces_the_first(self, store: Store) -> None:
        old = store.order_install(MAC, 1.0, "a")
        new = store.order_install(MAC, 2.0, "b")
        assert old != new
        assert not store.complete_order(MAC, old)
        assert store.orders() == [Order(MAC, new, 2.0, "b")]

    def test_cancelled(self, store: Store) -> None:
        store.order_install(MAC, 1.0, "a")
        assert store.cancel_order(MAC)
        assert not store.cancel_order(MAC)
        assert store.orders() == []

    def test_seen_by_another_process_at_once(self, store: Store, path: Path) -> None:
        with Store(path) as command:
            token = command.order_install(MAC, 1.0, "cli")
        assert store.pending_order(MAC) == token
        with Store(path, read_only=True) as reader:
            assert reader.pending_order(MAC) == token
            with pytest.raises(StoreError, match="read only"):
                reader.cancel_order(MAC)


class Orders(RuleBasedStateMachine):
    """Orders against a dictionary: whatever the sequence, the store holds what the dictionary holds."""

    macs = st.sampled_from([f"b8:27:eb:00:00:0{i}" for i in range(4)])

    def __init__(self) -> None:
        super().__init__()
        self.temporary = tempfile.TemporaryDirectory(prefix="piman-orders-")
        self.folder = Path(self.temporary.name)
        self.store = Store(self.folder / "piman.db")
        self.model: dict[str, str] = {}
        self.old: set[str] = set()

    @rule(mac=macs)
    def order(self, mac: str) -> None:
        self.old |= {self.model[mac]} if mac in self.model else set()
        self.model[mac] = self.store.order_install(mac, 1.0, "model")

    @rule(mac=macs)
    def complete(self, mac: str) -> None:
        token = self.model.pop(mac, "")
        assert self.store.complete_order(mac, token) == bool(token)

    @rule(mac=macs, data=st.data())
    def complete_with_the_token_of_another(self, mac: str, data: st.DataObject) -> None:
        wrong = sorted(self.old | {token for owner, token in self.model.items() if owner != mac} | {""})
        assert not self.store.complete_order(mac, data.draw(st.sampled_from(wrong)))

    @rule(mac=macs)
    def cancel(self, mac: str) -> None:
        assert self.store.cancel_order(mac) == (self.model.pop(mac, None) is not None)

    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.store = Store(self.folder / "piman.db")

    @invariant()
    def same(self) -> None:
        assert {each.mac: each.token for each in self.store.orders()} == self.model
        assert all(self.store.pending_order(mac) == token for mac, token in self.model.items())

    def teardown(self) -> None:
        self.store.close()
        self.temporary.cleanup()


TestOrdersAgainstAModel = Orders.TestCase
TestOrdersAgainstAModel.settings = settings(max_examples=12, stateful_step_count=15, deadline=None)


def test_intents_and_meta(store: Store) -> None:
    store.add_intent("sw0", 3, 1.0)
    store.add_intent("sw0", 3, 2.0, (2, 5), 4)
    store.add_intent("sw0", 1, 3.0)
    assert store.intents() == [Intent("sw0", 1, 3.0), Intent("sw0", 3, 2.0, (2, 5), 4)]
    store.clear_intent("sw0", 3)
    store.clear_intent("sw0", 3)
    assert store.intents() == [Intent("sw0", 1, 3.0)]
    assert store.get_meta("pid") == ""
    assert store.get_meta("pid", "none") == "none"
    store.set_meta("pid", "1")
    store.set_meta("pid", "2")
    assert store.get_meta("pid") == "2"


class TestOpening:
    def test_wal_and_version(self, store: Store, path: Path) -> None:
        with sqlite3.connect(path) as db:
            assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        db.close()

    def test_synchronous_follows_what_is_written(self, store: Store) -> None:
        store.order_install(MAC, 1.0, "a")
        assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        store.save_pi(FULL_ROW)
        assert store._db.execute("PRAGMA synchronous").fetchone() == (1,)  # NORMAL

    def test_older_and_newer_versions(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with Store(path) as store:
            token = store.order_install(MAC, 1.0, "a")
        more = (*store_module.MIGRATIONS, ("CREATE TABLE shelf (book TEXT)", "INSERT INTO shelf VALUES ('x')"))
        with monkeypatch.context() as later:
            later.setattr(store_module, "MIGRATIONS", more)
            later.setattr(store_module, "SCHEMA_VERSION", len(more))
            with pytest.raises(StoreError, match="an older version"):
                Store(path, read_only=True)
            with Store(path) as store:
                assert store._read("SELECT book FROM shelf") == [("x",)]
                assert store.pending_order(MAC) == token
        for read_only in (False, True):
            with pytest.raises(StoreError, match="a newer version"):
                Store(path, read_only)
        assert not list(path.parent.glob("*corrupt*"))

    def test_the_first_version_is_brought_up(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as before:
            before.setattr(store_module, "MIGRATIONS", store_module.MIGRATIONS[:1])
            before.setattr(store_module, "SCHEMA_VERSION", 1)
            with Store(path) as store:
                store.order_install(MAC, 1.0, "a")
                sql = "INSERT INTO pis VALUES (?, 'pi1', '', 'up', 1, '', 0, '', 0, 0, 0, '', '', '{}', 2)"
                with store._writing(durable=True) as db:
                    db.execute(sql, [MAC])
        with Store(path) as store:
            assert store.pis() == [PiRow(MAC, "pi1", stage=Stage.UP, since=1.0, updated=2.0)]
            assert [each.mac for each in store.orders()] == [MAC]
            store.save_pi(FULL_ROW)
            assert store.pis() == [FULL_ROW]
            assert (store.files(MAC), store.leases(), store.power_ons()) == ([], [], [])

    def test_a_migration_that_fails_leaves_the_old_version(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Store(path).close()
        with monkeypatch.context() as later:
            later.setattr(
                store_module, "MIGRATIONS", (*store_module.MIGRATIONS, ("CREATE TABLE shelf (a)", "NONSENSE"))
            )
            later.setattr(store_module, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
            with pytest.raises(StoreError, match="syntax error"):
                Store(path)
        Store(path).close()

    def test_a_reader_waits_for_the_one_who_makes_the_file(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        half_way, go_on = threading.Event(), threading.Event()

        def slowly(db: sqlite3.Connection) -> contextlib.AbstractContextManager[None]:
            half_way.set()
            go_on.wait(10)
            return transaction(db)

        transaction = store_module._transaction
        monkeypatch.setattr(store_module, "_transaction", slowly)
        writer = threading.Thread(target=lambda: Store(path).close())
        writer.start()
        assert half_way.wait(10)
        threading.Timer(0.1, go_on.set).start()
        with Store(path, read_only=True) as store:
            assert go_on.is_set()
            assert store.pis() == []
        writer.join()

    def test_many_at_once_on_a_new_file(self, path: Path) -> None:
        failures: list[Exception] = []

        def work(number: int) -> None:
            try:
                with Store(path) as each:
                    each.order_install(f"b8:27:eb:00:00:{number:02x}", 1.0, "thread")
            except StoreError as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        with Store(path, read_only=True) as store:
            assert len(store.orders()) == 8

    def test_nothing_there_to_read(self, path: Path) -> None:
        with pytest.raises(StoreError, match="no state here yet"):
            Store(path, read_only=True)
        assert not path.parent.exists()

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(StoreError, match="cannot be opened to write"):
            Store(tmp_path / "file" / "piman.db")

    def test_closed(self, path: Path) -> None:
        store = Store(path)
        store.close()
        store.close()
        with pytest.raises(StoreError):
            store.pis()

    def test_locked_by_another_for_too_long(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store_module, "BUSY_SECONDS", 0.01)
        with Store(path) as store, Store(path) as other:
            with other._writing(durable=True), pytest.raises(StoreError, match="locked"):
                store.order_install(MAC, 1.0, "a")
            assert store.orders() == []

    def test_full_disk(self, store: Store) -> None:
        store.save_pi(FULL_ROW)
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match="full"):
            store.save_board([Event(0, 1.0, MAC, Severity.INFO, "x" * 500)] * 1000, [])
        store._db.execute("PRAGMA max_page_count = 100000")
        assert store.events() == []
        assert store.pis() == [FULL_ROW]

    def test_root_gives_the_files_to_the_owner_of_the_folder(self, path: Path) -> None:
        path.parent.mkdir()
        if os.geteuid() == 0:
            os.chown(path.parent, 65534, 65534)
        with Store(path) as store:
            store.order_install(MAC, 1.0, "root")
            owners = {each.stat().st_uid for each in path.parent.iterdir()}
        assert owners == {path.parent.stat().st_uid}


class TestAnotherUser:
    CODE = (
        "try: print(len(Store(Path(sys.argv[1]), read_only=True).orders()))\nexcept StoreError as error: print(error)"
    )

    @pytest.fixture
    def open_path(self, path: Path) -> Path:
        """Where another user may look but not write."""
        path.parent.mkdir()
        for each in (path.parent, *path.parents[1:4]):
            if each.stat().st_uid == os.geteuid() and each != Path("/"):
                each.chmod(0o755 | each.stat().st_mode)
        return path

    def test_reads_while_the_server_runs_and_after(self, open_path: Path) -> None:
        with Store(open_path) as store:
            store.order_install(MAC, 1.0, "a")
            assert as_nobody(self.CODE, str(open_path)).stdout == "1\n"
        assert sorted(each.name for each in open_path.parent.iterdir()) == ["piman.db", "piman.db.lock"]
        assert as_nobody(self.CODE, str(open_path)).stdout == "1\n"

    def test_may_not_look_inside(self, open_path: Path) -> None:
        with Store(open_path) as store:
            store.order_install(MAC, 1.0, "a")
            for each in open_path.parent.iterdir():
                each.chmod(0)
            told = as_nobody(self.CODE, str(open_path)).stdout
        if os.geteuid() == 0:
            assert "cannot be read by this user" in told
            assert "sudo" in told


class TestDamage:
    def damage(self, path: Path) -> None:
        Store(path).close()
        content = bytearray(path.read_bytes())
        content[100:] = b"\x5a" * (len(content) - 100)
        path.write_bytes(content)

    @pytest.mark.parametrize("content", [b"this is no database" * 100, None])
    def test_moved_aside_and_begun_anew(self, path: Path, content: bytes | None) -> None:
        for number in (1, 2):
            path.parent.mkdir(exist_ok=True)
            self.damage(path) if content is None else path.write_bytes(content)
            with Store(path) as store:
                assert store.moved_aside == path.with_name(f"piman.db.corrupt-{number}")
                assert store.moved_aside.exists()
                (event,) = store.events()
                assert event.mac == ""
                assert event.severity is Severity.ERROR
                assert event.when > 1e9
                assert f"piman.db.corrupt-{number}" in event.text
                assert store.orders() == []
            path.unlink()

    def test_damage_found_by_the_check(self, path: Path) -> None:
        with Store(path) as store:
            store.save_board([Event(0, 1.0, MAC, Severity.INFO, f"event {i}") for i in range(2000)], [])
        with path.open("r+b") as file:
            file.seek(12 * 4096)
            file.write(b"\xff" * 4096)
        with Store(path) as store:
            assert store.moved_aside is not None

    def test_left_alone_while_another_uses_it(self, path: Path) -> None:
        Store(path).close()
        with Store(path):
            path.write_bytes(b"this is no database" * 1000)
            with pytest.raises(StoreError, match="in use by another process"):
                Store(path)
        assert not list(path.parent.glob("*corrupt*"))

    def test_a_reader_only_says_so(self, path: Path) -> None:
        path.parent.mkdir()
        path.write_bytes(b"this is no database" * 100)
        with pytest.raises(StoreError, match="is damaged"):
            Store(path, read_only=True)
        assert path.exists()


CRASHING = """
import itertools
store = Store(Path(sys.argv[1]))
for i in itertools.count():
    mac = f"b8:27:eb:00:00:{i % 8:02x}"
    token = store.order_install(mac, float(i), "child")
    print("ordered", mac, token, flush=True)
    if i % 3 == 0:
        print("completing", mac, token, flush=True)
        assert store.complete_order(mac, token)
        print("completed", mac, token, flush=True)
    store.save_board([Event(0, float(i), mac, Severity.INFO, "x")], [PiRow(mac, done=i)])
"""


def test_killed_at_any_moment_it_opens_and_no_order_is_lost(path: Path) -> None:
    for lines_until_kill in (1, 7, 20, 33, 60):
        command = [
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(0, {str(Path.cwd())!r})\n{IMPORTS}{CRASHING}",
            str(path),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            said = [child.stdout.readline() for _ in range(lines_until_kill)]
            child.send_signal(signal.SIGKILL)
            said += child.stdout.readlines()
        last: dict[str, tuple[str, str]] = {}
        for verb, mac, token in (line.split() for line in said if line.endswith("\n")):
            last[mac] = (verb, token)
        with Store(path) as store:
            assert store.moved_aside is None
            pending = {each.mac: each.token for each in store.orders()}
            final = said[-1].split()[1]
            for mac, (verb, token) in last.items():
                if mac == final or mac == _next(final):  # the call that was under way when the child died
                    continue
                assert pending.get(mac) == (token if verb == "ordered" else None)
            verb, token = last[final]
            if verb == "completing":
                assert pending.get(final) in (token, None)
            else:
                assert pending.get(final) == (token if verb == "ordered" else None)
            for mac in pending:
                store.cancel_order(mac)


def _next(mac: str) -> str:
    return f"{mac[:-2]}{(int(mac[-2:], 16) + 1) % 8:02x}"


def test_the_audit_trail_is_read_from_its_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitoring.store.KEEP_AUDIT", 3)
    for number in range(5):
        store.add_audit(number, "ann", "restart", f"pi{number}", "done")
    assert store.audit() == [Audit(n + 1, n, "ann", "restart", f"pi{n}", "done") for n in (4, 3, 2)]
    assert [each.id for each in store.audit(limit=1, before=5)] == [4]


def test_tokens_have_names_and_go(store: Store) -> None:
    token = Token("ci", "operate", "a" * 64, 5.0)
    assert store.add_token(token)
    assert not store.add_token(dataclasses.replace(token, hash="b" * 64))
    assert not store.add_token(dataclasses.replace(token, name="twin"))
    assert store.tokens() == [token]
    assert store.delete_token("ci")
    assert not store.delete_token("ci")


def test_sessions_end_one_by_one_by_age_and_all(store: Store) -> None:
    for number in range(4):
        store.save_session(WebSession(f"h{number}", "ann", "admin", 1.0, float(number)))
    store.save_session(WebSession("h3", "bob", "read", 1.0, 9.0))
    assert store.session("h3") == WebSession("h3", "bob", "read", 1.0, 9.0)
    store.end_sessions("h3")
    store.end_sessions(seen_before=1.5)
    assert [store.session(f"h{number}") is not None for number in range(4)] == [False, False, True, False]
    store.end_sessions()
    assert store.session("h2") is None


def test_places_and_calibrations(store: Store) -> None:
    one, two = Place(MAC, "172.30.4.254", 3, "1/3", 1.0, 2.0), Place("b8:27:eb:00:00:99", "172.30.4.253", 7)
    store.save_places([one, two])
    assert store.places() == {one.mac: one, two.mac: two}
    store.save_places([dataclasses.replace(one, port=4)])
    store.forget_places([two.mac, "02:00:00:00:00:01"])
    assert store.places() == {one.mac: dataclasses.replace(one, port=4)}
    store.save_calibration("172.30.4.254", (2, 5), 10105)
    store.save_calibration("172.30.4.254", (2, 5), 10106)
    store.save_calibration("172.30.4.253", (7,), 49)
    assert store.calibrations() == {"172.30.4.253": {(7,): 49}, "172.30.4.254": {(2, 5): 10106}}
    store.forget_calibrations("172.30.4.254")
    assert store.calibrations() == {"172.30.4.253": {(7,): 49}}
