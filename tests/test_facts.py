"""What is known, as facts: who is missing, who has an excuse, what a reading still says."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from monitoring.alerts import MANAGER, Engine, Facts
from monitoring.facts import Kept, ManagerNews, SwitchNews, View, gather
from monitoring.health import Up
from monitoring.metrics import Reading
from monitoring.store import PiRow
from utility.service import Stage

MAC, NOW = "b8:27:eb:01:02:03", 10_000.0
ROW = PiRow(MAC, "pi3", IPv4Address("172.30.4.15"), Stage.UP, since=9000, heard="NTP", heard_at=9990)
READING = Reading(MAC, NOW - 5, {"temperature": 50.0, "up": 1.0}, {"error": ""})
SILENT = Reading(MAC, NOW - 5, {"up": 0.0}, {"error": "does not answer"})
PLACE = {MAC: ("172.30.4.254", 3)}
UPPER = SwitchNews("172.30.4.254", "upper", NOW - 3)
ALIVE, DEAD = Up(True, 9000.0, "agent 5 s ago"), Up(False, 9900.0, "agent 100 s ago")


def view(row: PiRow = ROW, up: Up | None = ALIVE, reading: Reading | None = READING, **more: object) -> View:
    ups, readings = ({MAC: up} if up else {}), ({MAC: reading} if reading else {})
    return replace(View([row]), ups=ups, readings=readings, **more)  # type: ignore[arg-type]


def of(subject: str, seen: View, now: float = NOW) -> Facts:
    (found,) = [each for each in gather(seen, now) if each.subject == subject]
    return found


def test_a_pi_that_is_well() -> None:
    assert of(MAC, view(places=PLACE, switches=[UPPER])) == Facts(
        MAC,
        "pi",
        "pi3",
        {"stuck": 0, "install_failed": 0, "up": 1, "temperature": 50, "agent": 1},
        {"install_failed": "", "up": "agent 5 s ago"},
        parent="switch:172.30.4.254",
        names=("172.30.4.15",),
    )


def test_a_pi_that_is_dead_is_not_without_an_agent_as_well() -> None:
    facts = of(MAC, view(up=DEAD, reading=SILENT, agents=frozenset({MAC})))
    assert facts.values == {"stuck": 0, "install_failed": 0, "up": 0}
    assert (facts.excuse, facts.parent) == ("", MANAGER)


def test_an_agent_is_missing_only_if_there_was_one() -> None:
    assert "agent" not in of(MAC, view(reading=SILENT)).values
    assert of(MAC, view(reading=SILENT, agents=frozenset({MAC}))).values["agent"] == 0


def test_who_was_never_heard_is_not_down() -> None:
    assert "up" not in of(MAC, view(replace(ROW, heard_at=0.0), DEAD, None)).values
    assert "up" not in of(MAC, view(up=Up(False, 0.0, "never heard"), reading=None)).values
    assert "up" not in of(MAC, view(up=None, reading=None)).values


def test_the_facts_of_a_pi_of_which_nothing_is_new_are_the_same_object() -> None:
    kept: Kept = {}

    def look(seen: View, now: float = NOW) -> Facts:
        return gather(seen, now, kept)[-1]

    first = look(view())
    assert look(view(), NOW + 3) is first
    hotter = replace(READING, values={"temperature": 90.0, "up": 1.0})
    news = [
        view(reading=hotter),
        view(up=DEAD),
        view(agents=frozenset({MAC}), reading=SILENT),
        view(places=PLACE, switches=[UPPER]),
        view(places=PLACE, switches=[replace(UPPER, off=frozenset({3}))]),
        view(replace(ROW, name="pi4")),
        view(powered={MAC: NOW - 5}),
    ]
    for seen in news:
        assert look(seen) == gather(seen, NOW)[-1]
        assert look(view()) == first
    assert "temperature" not in look(view(), NOW + 100).values
    others = [replace(ROW, mac=f"b8:27:eb:00:02:{number:02x}") for number in range(3)]
    gather(replace(view(), rows=others), NOW, kept)
    assert len(kept) == 4
    gather(View([]), NOW, kept)
    assert not kept  # many have left


def test_an_old_reading_says_nothing_of_now() -> None:
    old = replace(READING, when=NOW - 36)
    assert "temperature" not in of(MAC, view(reading=old)).values
    assert "temperature" in of(MAC, view(reading=old, interval=60.0)).values
    assert "temperature" not in of(MAC, view(reading=replace(READING, when=NOW + 5))).values  # of a clock that was set


@pytest.mark.parametrize(
    ("row", "more", "excuse"),
    [
        (ROW, {}, ""),
        (replace(ROW, stage=None), {}, ""),
        (replace(ROW, stage=Stage.IMAGE), {}, "it boots: image"),
        (replace(ROW, stage=Stage.KERNEL, stuck="nothing heard"), {}, "its boot is stuck in kernel"),
        (replace(ROW, stage=Stage.FAILED, reason="no card"), {}, "its installation failed"),
        (ROW, {"powered": {MAC: NOW - 5}}, "it was power-cycled 5 s ago"),
        (ROW, {"powered": {MAC: NOW - 500}}, ""),
        (ROW, {"powered": {MAC: NOW - 15}}, ""),  # it was heard since
        (ROW, {"places": PLACE, "switches": [replace(UPPER, off=frozenset({3}))]}, "its port is switched off"),
        (ROW, {"places": PLACE, "switches": [replace(UPPER, off=frozenset({4}))]}, ""),
        (ROW, {"places": PLACE}, ""),  # the switch was not asked yet
    ],
)
def test_excuses(row: PiRow, more: dict[str, object], excuse: str) -> None:
    assert of(MAC, view(row, ALIVE, READING, **more)).excuse == excuse


def test_a_boot_that_is_stuck_and_an_installation_that_failed() -> None:
    facts = of(MAC, view(replace(ROW, stage=Stage.KERNEL, stuck="nothing heard; expected the hello")))
    assert (facts.values["stuck"], facts.words["stuck"]) == (1, "in kernel: nothing heard; expected the hello")
    facts = of(MAC, view(replace(ROW, stage=Stage.KERNEL, stuck="x", hint="its card is worn; try another")))
    assert facts.words["stuck"] == "its card is worn; try another"
    facts = of(MAC, view(replace(ROW, stage=Stage.FAILED, reason="no card")))
    assert (facts.values["install_failed"], facts.words["install_failed"]) == (1, "no card")


def test_unknown_macs_have_no_facts() -> None:
    assert [each.subject for each in gather(View([PiRow(MAC)]), NOW)] == [MANAGER]


def test_a_switch() -> None:
    facts = of("switch:172.30.4.254", view(switches=[replace(UPPER, percent=93.5, denied=2)]))
    assert facts.values == {"switch_up": 1, "poe_percent": 93.5, "poe_denied": 2}
    assert (facts.name, facts.names, facts.parent) == ("switch upper", ("upper", "172.30.4.254"), MANAGER)
    assert facts.asked_at == NOW - 3
    silent = of(
        "switch:172.30.4.254", view(switches=[replace(UPPER, name="", error="no answer", percent=9.0, denied=1)])
    )
    assert (silent.values, silent.words) == ({"switch_up": 0}, {"switch_up": "no answer"})
    assert (silent.name, silent.names) == ("switch 172.30.4.254", ("172.30.4.254",))


def test_the_manager() -> None:
    assert of(MANAGER, view()).values == {"foreign_dhcp": 0}
    news = ManagerNews(97.0, network=False, foreign_dhcp="172.30.4.9", foreign_at=NOW - 60)
    facts = of(MANAGER, view(manager=news))
    assert facts.values == {"foreign_dhcp": 1, "manager_disk_percent": 97, "network": 0}
    assert facts.words == {"foreign_dhcp": "172.30.4.9"}
    assert of(MANAGER, view(manager=news), NOW + 3600).values["foreign_dhcp"] == 0


def test_a_dead_switch_explains_its_pis_by_the_rules_built_in() -> None:
    engine, told = Engine(), []
    silent = [replace(UPPER, error="no answer")]
    for second in range(0, 600, 10):
        now = NOW + second
        row = replace(ROW, heard_at=NOW)
        seen = view(row, DEAD, None, places=PLACE, switches=[replace(each, asked_at=now) for each in silent])
        told += [each.alert.rule for each in engine.evaluate(gather(seen, now), now) if each.tell]
    assert told == ["switch_up"]
    assert {each.rule: each.suppressed for each in engine.open} == {"switch_up": "", "up": "switch upper is down"}
