"""The threads of the alerts: what is queued, sent, tried again, marked and remembered; channels and store are real."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from monitoring.alerting import Alerts, Courier, Couriers, event_of
from monitoring.alerts import MANAGER, Alert, Facts
from monitoring.channels import ChannelError, Message, Pace
from monitoring.store import Store, StoreError
from tests.alert_servers import Mailbox, Webhook, wait_for
from utility.config import Channel
from utility.rules import AlertSeverity, Rule, parse_rule
from utility.service import Severity

MAC = "b8:27:eb:01:02:03"
QUICK = Pace(group=0.05, interval=0.1, first=0.05, most=0.2, tell_after=3)
SLACK = Channel("slack", "slack")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "piman.db") as opened:
        yield opened


def pi(**values: float) -> Facts:
    return Facts(MAC, "pi", "pi3", values)


@dataclass
class Taken:
    """A channel's other side: what it took and when, and what it answers next."""

    clock: Callable[[], float]
    messages: list[tuple[float, Message]] = field(default_factory=list)
    tried: list[float] = field(default_factory=list)
    answers: list[ChannelError | None] = field(default_factory=list)

    def send(self, _channel: Channel, message: Message) -> None:
        self.tried.append(self.clock())
        answer = self.answers.pop(0) if self.answers else None
        if answer:
            raise answer
        self.messages.append((self.clock(), message))


@dataclass
class Rig:
    """Alerts and one courier in virtual time."""

    store: Store
    rules: Sequence[Rule]
    now: float = 1000.0
    facts: list[Facts] = field(default_factory=list)
    channel: Channel = SLACK

    def __post_init__(self) -> None:
        self.taken = Taken(lambda: self.now)
        self.restart()

    def restart(self) -> None:
        self.courier = Courier(self.channel, self.store, "rack", Pace(), self.taken.send, lambda: self.now)
        self.alerts = Alerts(self.rules, self.store, lambda _now: self.facts, [self.courier], clock=lambda: self.now)

    def go(self, seconds: float, *facts: Facts) -> list[str]:
        """Let time pass with these facts; the titles of what was sent."""
        self.facts = list(facts)
        before = len(self.taken.messages)
        for _ in range(int(seconds)):
            self.now += 1
            self.alerts.look(self.now)
            self.courier.step(self.now)
        return [message.title for _when, message in self.taken.messages[before:]]

    @property
    def events(self) -> list[tuple[str, Severity, str]]:
        return [(each.mac, each.severity, each.text) for each in self.store.events()]


def test_an_alert_is_sent_and_is_on_the_timeline(store: Store) -> None:
    rig = Rig(store, [parse_rule("temperature > 80 for 10s clear < 75")])
    assert rig.go(30, pi(temperature=85)) == ["rack: warning: pi3: it is at 85 °C"]
    assert rig.go(60, pi(temperature=70)) == ["rack: over: pi3: it is at 85 °C; lasted 30s"]
    assert rig.go(60, pi(temperature=70)) == []
    assert rig.events == [
        (MAC, Severity.WARNING, "alert, warning: it is at 85 °C"),
        (MAC, Severity.INFO, "alert, over: it is at 85 °C; lasted 30s"),
    ]
    assert [(each.over, each.sent_at > 0, each.error) for each in store.latest_notices()] == [
        (False, True, ""), (True, True, "")
    ]  # fmt: skip


def test_what_happens_together_is_one_message_and_messages_keep_their_distance(store: Store) -> None:
    rig = Rig(store, [parse_rule("up == 0")])
    rack = [Facts(f"b8:27:eb:00:00:{number:02x}", "pi", f"pi{number}", {"up": 0}) for number in range(30)]
    assert rig.go(20, *rack) == ["rack: 30 alerts"]
    (first, message) = rig.taken.messages[0]
    assert [line[2:] for line in message.lines[:2]] == ["warning: pi0: it is down", "warning: pi1: it is down"]
    assert len(message.lines) == 30
    back = [replace(each, values={"up": 1}) for each in rack]
    assert rig.go(60, *back) == ["rack: 30 over"]
    assert rig.taken.messages[1][0] == first + 30


def test_nothing_is_sent_twice_over_a_restart_and_nothing_is_lost(store: Store) -> None:
    rig = Rig(store, [parse_rule("up == 0"), parse_rule("temperature > 80")])
    assert rig.go(30, pi(up=0)) == ["rack: warning: pi3: it is down"]
    rig.restart()
    assert rig.go(60, pi(up=0)) == []
    rig.facts = [pi(up=0, temperature=85)]
    rig.alerts.look(rig.now)  # told to the store; the manager dies before it is sent
    rig.restart()
    assert rig.go(60, pi(up=0, temperature=85)) == ["rack: warning: pi3: it is at 85 °C"]
    rig.restart()
    assert rig.go(60, pi(up=1)) == ["rack: over: pi3: it is down; lasted 2m30s"]
    assert [each.id for each in store.alerts()] == [2]


def test_a_channel_that_fails_is_tried_again_and_is_one_event(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(store, [parse_rule("up == 0")])
    rig.taken.answers = [ChannelError("hooks.slack.com answered 500")] * 12
    assert rig.go(3000, pi(up=0)) == ["rack: warning: pi3: it is down"]
    pauses = [late - early for early, late in zip(rig.taken.tried, rig.taken.tried[1:], strict=False)]
    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]
    assert rig.events[1:] == [
        ("", Severity.ERROR, ("channel slack cannot be told of alerts: hooks.slack.com answered 500; "
         "it is tried again every 300 s")),
        ("", Severity.INFO, "channel slack works again after 12 failures; alerts told late: 1"),
    ]  # fmt: skip
    (notice,) = store.latest_notices()
    assert (notice.tries, notice.error, notice.sent_at > 0) == (12, "hooks.slack.com answered 500", True)
    assert sum("cannot be told" in each.message for each in caplog.records) == 1


def test_a_channel_that_asks_for_patience_has_it(store: Store) -> None:
    rig = Rig(store, [parse_rule("up == 0")])
    rig.taken.answers = [ChannelError("too many", retry_after=50)]
    rig.go(100, pi(up=0))
    assert rig.taken.tried[1] - rig.taken.tried[0] == 50


def test_a_channel_has_what_it_wants(store: Store) -> None:
    grave = replace(parse_rule("up == 0"), severity=AlertSeverity.CRITICAL)
    rig = Rig(store, [grave, parse_rule("temperature > 80")], channel=replace(SLACK, severity=AlertSeverity.CRITICAL))
    assert rig.go(30, pi(up=0, temperature=90)) == ["rack: critical: pi3: it is down"]
    assert [each.severity for each in store.events()] == [Severity.ERROR, Severity.WARNING]


def test_a_silence_and_an_acknowledgement_of_another_process(store: Store, tmp_path: Path) -> None:
    rig = Rig(store, [parse_rule("temperature > 80"), parse_rule("up == 0")])
    with Store(tmp_path / "piman.db") as other:
        other.add_silence("pi3", "temperature", rig.now + 100, "ada", "the fan is away")
        assert rig.go(60, pi(temperature=90)) == []
        assert rig.go(60, pi(temperature=90)) == ["rack: warning: pi3: it is at 90 °C"]
        assert other.acknowledge_alert(1, "ada")
        rig.go(2, pi(temperature=90))
        assert [str(each.state) for each in other.alerts()] == ["acknowledged"]


def test_a_full_disk_is_told_although_it_cannot_be_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(store, [parse_rule("manager_disk_percent > 90"), parse_rule("up == 0")])
    full = Facts(MANAGER, "manager", "the manager", {"manager_disk_percent": 100.0})

    def refuse(*_words: object, **_more: object) -> None:
        raise StoreError("piman.db: database or disk is full")

    with monkeypatch.context() as patch:
        for name in ("save_alerts", "settle_notices", "add_event", "prune_alerts", "waiting_notices", "silences"):
            patch.setattr(store, name, refuse)
        assert rig.go(60, full) == ["rack: warning: the manager: the disk with the state is 100% full"]
        assert store.alerts() == []
    rig.go(2, full)
    assert [each.rule for each in store.alerts()] == ["manager_disk_percent"]
    assert rig.go(60, full) == []


def test_what_cannot_be_kept_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitoring.alerting.MAX_UNSAVED", 3)
    rig = Rig(store, [parse_rule("up == 0")])

    def refuse(*_words: object) -> None:
        raise StoreError("full")

    with monkeypatch.context() as patch:
        patch.setattr(store, "save_alerts", refuse)
        rig.go(2, *(Facts(f"b8:27:eb:00:00:{number:02x}", "pi", f"pi{number}", {"up": 0}) for number in range(9)))
    rig.go(1, pi(up=1))
    assert len(store.alerts(open_only=False)) < 9 + 3


def test_the_event_of_an_alert_that_is_no_pis() -> None:
    alert = Alert(
        1, "switch_up", "switch:172.30.4.254", "switch upper", AlertSeverity.CRITICAL, 1, 2, "it is silent", 0
    )
    event = event_of(alert, 5.0)
    assert (event.mac, event.when, event.text) == ("", 5.0, "alert, critical: switch upper: it is silent")


# ------------------------------------------------------------------------------------------------------ real channels


@dataclass
class Running:
    """The services in threads, with real channels."""

    alerts: Alerts
    couriers: Couriers
    threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Running:
        self.threads = [threading.Thread(target=each.run, daemon=True) for each in (self.alerts, self.couriers)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        began = time.monotonic()
        self.alerts.stop()
        self.couriers.stop()
        for thread in self.threads:
            thread.join(10)
        assert time.monotonic() - began < 3


def running(store: Store, facts: list[Facts], *channels: Channel) -> Running:
    couriers = [Courier(channel, store, "rack", QUICK) for channel in channels]
    rules = [parse_rule("up == 0 for 1s")]
    return Running(Alerts(rules, store, lambda _now: facts, couriers, interval=0.1), Couriers(couriers, store))


def test_a_webhook_and_a_mailbox_have_each_alert_once(store: Store) -> None:
    facts = [pi(up=0)]
    with Webhook() as webhook, Mailbox() as mailbox:
        channels = [
            Channel("slack", "slack", url=webhook.url),
            Channel("mail", "email", to=("a@example.org",), sender="p@example.org", port=mailbox.port),
        ]
        with running(store, facts, *channels):
            wait_for(lambda: webhook.taken and mailbox.mails)
            facts[0] = pi(up=1)
            wait_for(lambda: len(webhook.taken) + len(mailbox.mails) == 4)
        with running(store, facts, *channels):
            time.sleep(0.6)
        assert [text[2:].partition(";")[0] for text in webhook.texts] == [
            "rack: warning: pi3: it is down",
            "rack: over: pi3: it is down",
        ]
        assert [mail["Subject"].partition(";")[0] for mail in mailbox.mails] == [
            "[piman] rack: warning: pi3: it is down",
            "[piman] rack: over: pi3: it is down",
        ]


def test_a_webhook_that_is_down_hangs_and_answers_500_delays_only_itself(store: Store) -> None:
    with Webhook([500, 503, 500, 500]) as broken, Webhook(["hang"]) as silent, Webhook() as good:
        channels = [Channel(name, "slack", url=each.url) for name, each in (("b", broken), ("s", silent), ("g", good))]
        with running(store, [pi(up=0)], *channels):
            wait_for(lambda: good.taken and silent.asked)
            wait_for(lambda: broken.taken)
        assert (len(broken.asked), len(good.asked), len(silent.asked)) == (5, 1, 1)
        told = [each.text for each in store.events() if each.text.startswith("channel")]
        assert [text.partition(":")[0].partition(" ")[2] for text in told] == [
            "b cannot be told of alerts",
            "b works again after 4 failures; alerts told late",
        ]
        # What hung is still waiting; the manager ended all the same.
        assert [each.channel for each in store.latest_notices() if not each.sent_at] == ["s"]
        with running(store, [pi(up=0)], *channels):
            wait_for(lambda: silent.taken)
        assert len(good.asked) == 1


def test_what_waits_for_a_channel_that_is_gone_is_dropped(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rig = Rig(store, [parse_rule("up == 0")])
    rig.facts = [pi(up=0)]
    rig.alerts.look(rig.now)
    with running(store, [pi(up=0)]):
        wait_for(lambda: not store.latest_notices())
    assert "alerts that waited for channels that config.yaml has no more: 1" in caplog.text
