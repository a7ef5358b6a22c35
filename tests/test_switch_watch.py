"""The switches, looked at: what they say is news and evidence, and one that is silent delays nobody."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Self

import pytest

from monitoring.health import Health
from monitoring.switch_watch import SwitchWatch, power_of, read_denied
from tests.alert_servers import wait_for
from utility.config import SnmpAccess, Switch
from utility.drivers import Detection
from utility.switches import PoeSwitch, Port, PowerSupply, SwitchError

UPPER = Switch(0, IPv4Address("127.0.0.2"), "upper", pi_addresses=(IPv4Address("172.30.4.11"), None))
LOWER = Switch(1, IPv4Address("127.0.0.3"))
FED = Port(1, "1", (1, 1), admin_on=True, detection=Detection.DELIVERING, milliwatts=4500, link=True)
OFF = Port(2, "2", (1, 2), admin_on=False, detection=Detection.DISABLED, link=False)
PLAIN = Port(3, "3", link=True)


@dataclass
class Face:
    """A switch of which only the looks matter here."""

    switch: Switch
    seen: list[Port] = field(default_factory=lambda: [FED, OFF, PLAIN])
    feeds: list[PowerSupply] = field(default_factory=lambda: [PowerSupply(frozenset({1, 2}), 10_000, 9_200)])
    fails: str = ""
    asked: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...

    def _answer(self, what: str) -> list[Port]:
        self.asked.append(what)
        if self.fails:
            raise SwitchError(self.switch, "sysUpTime", self.fails)
        return self.seen

    def ports(self) -> list[Port]:
        return self._answer("ports")

    def look(self, ports: Sequence[Port]) -> list[Port]:
        return self._answer("look")

    def supplies(self, ports: Iterable[Port]) -> list[PowerSupply]:
        return self.feeds


@pytest.mark.parametrize(
    ("switch", "ports", "supplies", "power"),
    [
        (UPPER, [FED], [PowerSupply(frozenset({1}), 10_000, 9_200), PowerSupply(frozenset({2}), 5_000, 0)], (9.2, 15)),
        (UPPER, [FED, PLAIN], [PowerSupply(frozenset({1}), 10_000)], (4.5, 10)),
        (replace(UPPER, power_budget=60), [FED, FED], [], (9, 60)),
        (UPPER, [PLAIN], [], (None, None)),
    ],
)
def test_power(
    switch: Switch, ports: list[Port], supplies: list[PowerSupply], power: tuple[float | None, float | None]
) -> None:
    assert power_of(switch, ports, supplies) == power


@contextmanager
def watching(faces: list[Face], health: Health, counts: list[int | None]) -> Iterator[SwitchWatch]:
    by_address = {face.switch.address: face for face in faces}

    def opened(switch: Switch) -> PoeSwitch:
        return by_address[switch.address]  # type: ignore[return-value]

    watch = SwitchWatch(
        [face.switch for face in faces],
        health,
        lambda address: f"mac of {address}",
        interval=0.0,
        opened=opened,
        denied=lambda _switch: counts.pop(0) if len(counts) > 1 else counts[0],
    )
    thread = threading.Thread(target=watch.run, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.stop()
        thread.join(5)
        assert not thread.is_alive()


def test_what_a_switch_says_is_news_and_evidence() -> None:
    health = Health()
    face = Face(UPPER)
    with watching([face], health, [7, 9]) as watch:
        wait_for(watch.news)
        (news,) = watch.news()
        assert (news.address, news.name, news.error) == ("127.0.0.2", "upper", "")
        assert news.percent == pytest.approx(92)
        assert news.off == frozenset({2})
        assert (news.watts, news.budget) == (9.2, 10.0)
        assert abs(news.asked_at - time.time()) < 60
        assert "its port gives 4.5 W" in health.up("mac of 172.30.4.11", time.time()).evidence
        wait_for(lambda: len(face.asked) > 1)
    assert face.asked[:2] == ["ports", "look"]
    assert watch.faces() == {"127.0.0.2": [FED, OFF, PLAIN]}


def test_denied_power_is_counted_since_the_look_before() -> None:
    watch = SwitchWatch([UPPER], Health(), lambda _address: None)
    assert [watch._growth("x", count) for count in (7, 9, 9, 3, None, 4)] == [0, 2, 0, 0, None, 1]


def test_a_switch_that_fails_is_asked_for_its_face_anew(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    face = Face(UPPER, fails="no answer after 3 tries")
    with watching([face, Face(LOWER, feeds=[])], Health(), [None]) as watch:
        wait_for(lambda: len(watch.news()) == 2)
        upper, lower = watch.news()
        assert (upper.error, upper.percent, upper.denied) == ("no answer after 3 tries", None, None)
        assert (lower.error, lower.percent, lower.denied) == ("", None, None)
        face.fails = ""
        wait_for(lambda: not watch.news()[0].error)
    assert face.asked[:2] == ["ports", "ports"]
    assert [each.message for each in caplog.records] == [
        "switch upper: no answer after 3 tries",
        "switch upper: answers again",
    ]


def test_a_pi_with_a_power_supply_of_its_own_is_not_dead() -> None:
    health = Health()
    face = Face(UPPER, [replace(FED, detection=Detection.SEARCHING, milliwatts=None)])
    with watching([face], health, [None]) as watch:
        wait_for(watch.news)
        assert health.up("mac of 172.30.4.11", time.time()).evidence == "never heard"
        face.seen = [replace(face.seen[0], link=False)]
        wait_for(lambda: "without power" in health.up("mac of 172.30.4.11", time.time()).evidence)


def test_what_is_no_failure_of_a_switch_ends_the_service() -> None:
    def opened(_switch: Switch) -> PoeSwitch:
        raise AssertionError("a bug")

    watch = SwitchWatch([UPPER], Health(), lambda _address: None, opened=opened)
    with pytest.raises(AssertionError, match="a bug"):
        watch.run()


def test_no_switches_and_another_driver() -> None:
    with watching([], Health(), [None]) as watch:
        assert watch.news() == []
    assert read_denied(replace(UPPER, driver="exec")) is None


def test_a_real_switch_that_does_not_answer_does_not_hold_up_the_end() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.2", 0))
        switch = replace(UPPER, snmp=SnmpAccess(port=silent.getsockname()[1], timeout=1.0, retries=0))
        watch = SwitchWatch([switch], Health(), lambda _address: None)
        thread = threading.Thread(target=watch.run, daemon=True)
        thread.start()
        wait_for(watch.news)  # "no answer", and soon asked again
        assert "no answer" in watch.news()[0].error
        began = time.monotonic()
        watch.stop()
        thread.join(5)
        assert time.monotonic() - began < 2
