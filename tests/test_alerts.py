"""The engine of alerts, in virtual time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.alerts import (
    MANAGER,
    Alert,
    AlertSeverity,
    AlertState,
    Change,
    Engine,
    Facts,
    Rule,
    Silence,
)
from utility.rules import parse_rule

PI, OTHER, SWITCH = "b8:27:eb:01:02:03", "b8:27:eb:01:02:04", "switch:172.30.4.254"


def pi(subject: str = PI, *, parent: str = "", excuse: str = "", **values: float) -> Facts:
    return Facts(subject, "pi", subject[-2:], values, parent=parent, excuse=excuse)


def switch(up: float, asked_at: float = math.inf, parent: str = "") -> Facts:
    return Facts(SWITCH, "switch", "upper", {"switch_up": up}, asked_at=asked_at, parent=parent)


def network(value: float) -> Facts:
    return Facts(MANAGER, "manager", "the manager", {"network": value})


@dataclass
class Clock:
    """An engine and its time."""

    rules: tuple[Rule, ...]
    now: float = 1000.0
    silences: list[Silence] = field(default_factory=list)
    acknowledged: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.engine = Engine(self.rules)

    def look(self, *facts: Facts, after: float = 10) -> list[Change]:
        self.now += after
        return self.engine.evaluate(facts, self.now, self.silences, self.acknowledged)

    def told(self, *facts: Facts, after: float = 10) -> list[tuple[str, str]]:
        """What the channels are told: (rule, state)."""
        return [(each.alert.rule, str(each.alert.state)) for each in self.look(*facts, after=after) if each.tell]


def rules(*texts: str) -> tuple[Rule, ...]:
    return tuple(map(parse_rule, texts))


def test_an_alert_is_told_once_and_once_that_it_is_over() -> None:
    clock = Clock(rules("temperature > 80 for 30s clear < 75"))
    assert clock.told(pi(temperature=85)) == []
    assert clock.told(pi(temperature=85)) == []
    assert clock.told(pi(temperature=85), after=20) == [("temperature", "firing")]
    assert clock.told(pi(temperature=85)) == []
    assert clock.told(pi(temperature=78)) == []  # neither hot nor cool
    assert clock.told(pi(temperature=70)) == [("temperature", "resolved")]
    assert clock.told(pi(temperature=70)) == []
    assert clock.engine.open == []


def test_what_an_alert_holds() -> None:
    clock = Clock((replace(parse_rule("temperature > 80 for 5s"), severity=AlertSeverity.CRITICAL),))
    clock.look(replace(pi(temperature=81), words={"temperature": "and rising"}))
    (change,) = clock.look(replace(pi(temperature=82), words={"temperature": "and rising"}))
    assert change == Change(
        Alert(
            id=1,
            rule="temperature",
            subject=PI,
            name="03",
            severity=AlertSeverity.CRITICAL,
            since=1010,
            opened_at=1020,
            text="it is at 82 °C (and rising)",
            value=82,
            told=True,
        ),
        tell=True,
    )
    assert clock.engine.open == [change.alert]
    (over,) = clock.look(pi(temperature=50))
    assert over.alert == replace(change.alert, resolved_at=1030)


def test_a_moment_in_which_it_does_not_hold_begins_the_time_anew() -> None:
    clock = Clock(rules("temperature > 80 for 30s"))
    for _ in range(5):
        assert clock.told(pi(temperature=85), after=15) == []
        assert clock.told(pi(temperature=80), after=15) == []


def test_one_of_which_nothing_is_new_is_judged_on_while_it_matters() -> None:
    hot, well = pi(temperature=90), pi(temperature=50)
    clock = Clock((parse_rule("temperature > 80 for 30s clear < 75 for 30s"),))
    assert clock.told(well) == clock.told(well) == []
    assert [clock.told(hot) for _ in range(4)] == [[], [], [], [("temperature", "firing")]]
    assert [clock.told(well) for _ in range(5)] == [[], [], [], [("temperature", "resolved")], []]
    assert [clock.told(hot) for _ in range(4)] == [[], [], [], [("temperature", "firing")]]


def test_clear_must_hold_for_its_time() -> None:
    clock = Clock(rules("under_voltage == 1 clear for 1m"))
    assert clock.told(pi(under_voltage=1)) == [("under_voltage", "firing")]
    assert clock.told(pi(under_voltage=0), after=50) == []
    assert clock.told(pi(under_voltage=1), after=50) == []
    assert clock.told(pi(under_voltage=0), after=50) == []
    assert clock.told(pi(under_voltage=0), after=60) == [("under_voltage", "resolved")]


def test_what_is_not_known_changes_nothing() -> None:
    clock = Clock(rules("temperature > 80 for 30s"))
    clock.look(pi(temperature=85))
    assert clock.told(pi(), after=60) == []
    assert clock.told(pi(temperature=85), after=60) == [("temperature", "firing")]
    assert clock.told(pi(temperature=math.nan), after=900) == []
    assert clock.told(pi(temperature=20)) == [("temperature", "resolved")]


def test_what_was_pending_long_ago_is_forgotten() -> None:
    clock = Clock(rules("temperature > 80 for 30s"))
    clock.look(pi(temperature=85))
    clock.look(pi(), after=200)
    clock.look(pi(), after=200)
    assert clock.told(pi(temperature=85)) == []
    assert clock.told(pi(temperature=85), after=30) == [("temperature", "firing")]


def test_a_pi_that_is_no_longer_watched_has_no_alerts() -> None:
    clock = Clock(rules("temperature > 80", "disk_percent > 90 for 1m"))
    clock.look(pi(temperature=85, disk_percent=99))
    (change,) = clock.look()
    assert (change.alert.state, change.alert.ended, change.tell) == ("resolved", "nobody watches it any more", True)
    assert clock.told(pi(disk_percent=99), after=60) == []  # its time begins anew


def test_alerts_outlive_the_process_and_end_with_their_rule() -> None:
    clock = Clock(rules("temperature > 80"))
    clock.look(pi(temperature=85))
    engine = Engine(rules("temperature > 80"), clock.engine.open, next_id=7)
    assert engine.evaluate([pi(temperature=85)], 1100) == []
    assert [each.alert.id for each in engine.evaluate([pi(temperature=85), pi(OTHER, temperature=85)], 1200)] == [7]
    engine = Engine(rules("disk_percent > 80"), engine.open, next_id=8)
    ended = engine.evaluate([pi(temperature=85), pi(OTHER, temperature=85)], 1300)
    assert [(each.alert.id, each.alert.ended) for each in ended] == [(1, "its rule is gone"), (7, "its rule is gone")]


def test_a_rule_can_be_off_or_for_others() -> None:
    clock = Clock(
        (
            replace(parse_rule("temperature > 80"), enabled=False),
            replace(parse_rule("disk_percent > 80"), only=("04",)),
        )
    )
    assert clock.told(pi(temperature=90, disk_percent=90)) == []
    assert clock.told(pi(OTHER, temperature=90, disk_percent=90)) == [("disk_percent", "firing")]


# ---------------------------------------------------------------------------------------------- what is not to be told


def test_a_dead_switch_is_one_alert() -> None:
    clock = Clock(rules("up == 0 for 1m", "switch_up == 0 for 1m"))
    macs = [f"b8:27:eb:00:00:{number:02x}" for number in range(24)]

    def rack(up: float) -> list[Facts]:
        return [switch(up), *(pi(mac, parent=SWITCH, up=up) for mac in macs)]

    clock.look(*rack(0))
    assert clock.told(*rack(0), after=60) == [("switch_up", "firing")]
    assert len(clock.engine.open) == 25
    assert {each.suppressed for each in clock.engine.open if each.rule == "up"} == {"upper is down"}
    assert {each.state for each in clock.engine.open} == {AlertState.FIRING, AlertState.SUPPRESSED}
    assert clock.told(*rack(0), after=3000) == []
    # It comes back, and the Pis boot.
    back = [switch(1), *(pi(mac, parent=SWITCH, up=0) for mac in macs)]
    assert clock.told(*back) == [("switch_up", "resolved")]
    assert {each.suppressed for each in clock.engine.open} == {"upper came back a moment ago"}
    late = [switch(1), pi(macs[0], parent=SWITCH, up=0), *(pi(mac, parent=SWITCH, up=1) for mac in macs[1:])]
    assert clock.told(*late, after=60) == []
    # One does not come back.
    assert clock.told(*late, after=180) == [("up", "firing")]


def test_a_switch_that_does_not_answer_explains_no_heat() -> None:
    clock = Clock(rules("temperature > 80", "switch_up == 0"))
    told = clock.told(switch(0), pi(parent=SWITCH, up=1, temperature=90))
    assert told == [("switch_up", "firing"), ("temperature", "firing")]


def test_a_missing_pi_waits_for_news_of_its_switch() -> None:
    clock = Clock(rules("up == 0 for 10s", "switch_up == 0"))
    silent = pi(parent=SWITCH, up=0)
    clock.look(switch(1, asked_at=1000), silent)
    assert clock.told(switch(1, asked_at=1000), silent) == []
    assert clock.engine.open[0].suppressed == "upper was not asked yet"
    assert clock.told(switch(1, asked_at=1015), silent) == [("up", "firing")]
    clock = Clock(rules("up == 0 for 10s", "switch_up == 0"))
    clock.look(switch(1, asked_at=1000), silent)
    assert clock.told(switch(1, asked_at=1000), silent) == []
    assert clock.told(switch(1, asked_at=1000), silent, after=60) == [("up", "firing")]  # it waits no longer


def test_parents_have_parents_and_a_circle_of_them_ends() -> None:
    clock = Clock(rules("up == 0", "switch_up == 0", "network == 0"))
    switched = switch(0, parent=MANAGER)
    assert clock.told(network(0), switched, pi(parent=SWITCH, up=0)) == [("network", "firing")]
    assert [each.suppressed for each in clock.engine.open] == ["", "the manager is down", "upper is down"]
    clock = Clock(rules("up == 0"))
    circle = switch(1, parent=PI)
    assert clock.told(circle, pi(parent=SWITCH, up=0)) == [("up", "firing")]


def test_who_has_an_excuse_is_not_missing() -> None:
    clock = Clock(rules("up == 0 for 1m", "temperature > 80"))
    clock.look(pi(up=0))
    assert clock.told(pi(up=0, excuse="it is being installed"), after=100) == []
    assert clock.told(pi(up=0, temperature=90, excuse="it is being installed")) == [("temperature", "firing")]
    assert clock.told(pi(up=0)) == []
    assert clock.told(pi(up=0), after=60) == [("up", "firing")]
    assert clock.told(pi(up=0, excuse="it was power-cycled 3 s ago")) == []  # it is not back either
    assert clock.told(pi(up=1)) == [("up", "resolved")]


def test_the_graver_of_two_says_it_all() -> None:
    grave = replace(parse_rule("disk_percent > 98"), name="disk_full", severity=AlertSeverity.CRITICAL)
    clock = Clock((*rules("disk_percent > 90 for 1m"), grave))
    assert clock.told(pi(disk_percent=99)) == [("disk_full", "firing")]
    assert clock.told(pi(disk_percent=99), after=60) == []
    assert clock.told(pi(disk_percent=95)) == [("disk_full", "resolved"), ("disk_percent", "firing")]


def test_a_silence_delays_what_is_told() -> None:
    clock = Clock(rules("temperature > 80"))
    clock.silences = [Silence(1, "0*", "temp*", 1100, "ada", "the fan is away")]
    (change,) = clock.look(pi(temperature=90))
    assert (change.tell, change.alert.state) == (False, AlertState.SILENCED)
    assert change.alert.silenced == "by ada: the fan is away"
    assert clock.look(pi(temperature=90), after=50) == []
    assert clock.told(pi(temperature=90), after=50) == [("temperature", "firing")]


def test_what_was_silent_throughout_ends_silently() -> None:
    clock = Clock(rules("temperature > 80"))
    clock.silences = [Silence(1, PI, "*", 2000, "ada")]
    (change,) = clock.look(pi(temperature=90))
    assert change.alert.silenced == "by ada"
    (change,) = clock.look(pi(temperature=50))
    assert (change.alert.state, change.tell) == (AlertState.RESOLVED, False)
    assert clock.told(pi(OTHER, temperature=90)) == [("temperature", "firing")]  # not covered


def test_an_acknowledged_alert_is_quiet_until_it_is_over() -> None:
    clock = Clock(rules("temperature > 80"))
    assert clock.told(pi(temperature=90)) == [("temperature", "firing")]
    clock.acknowledged = {1: "ada"}
    (change,) = clock.look(pi(temperature=90))
    assert (change.alert.state, change.tell) == (AlertState.ACKNOWLEDGED, False)
    assert clock.look(pi(temperature=90)) == []
    assert clock.told(pi(temperature=50)) == [("temperature", "resolved")]


def test_a_clock_that_is_set_raises_nothing_and_ends_nothing() -> None:
    clock = Clock(rules("temperature > 80 for 2m", "under_voltage == 1 clear for 1m", "up == 0", "switch_up == 0"))
    clock.look(switch(0), pi(temperature=90, under_voltage=1, up=0, parent=SWITCH))
    assert clock.told(switch(1), pi(temperature=90, under_voltage=0, up=0, parent=SWITCH)) == [
        ("switch_up", "resolved")
    ]
    year = 365 * 86400.0
    for jump in (year, -2 * year):
        told = clock.told(switch(1), pi(temperature=90, under_voltage=0, up=0, parent=SWITCH), after=jump)
        assert told == []
    told = clock.told(switch(1), pi(temperature=90, under_voltage=0, up=0, parent=SWITCH), after=120)
    assert told == [("under_voltage", "resolved"), ("temperature", "firing")]


# ----------------------------------------------------------------------------------------------------- any facts at all

ANY_RULES = (
    *rules("temperature > 80 for 30s clear < 75 for 20s", "up == 0 for 1m", "switch_up == 0 for 20s", "num_pids > 5"),
    replace(parse_rule("temperature > 90"), name="hot", severity=AlertSeverity.CRITICAL),
)
values = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([20.0, 78.0, 85.0, 95.0, math.nan]),
        "up": st.sampled_from([0.0, 1.0]),
        "num_pids": st.sampled_from([1.0, 9.0]),
    },
)
pis = st.builds(
    Facts,
    st.sampled_from([PI, OTHER]),
    st.just("pi"),
    st.just("pi"),
    values,
    parent=st.sampled_from(["", SWITCH]),
    excuse=st.sampled_from(["", "", "it is being installed"]),
)
looks = st.tuples(
    st.sampled_from([1.0, 10.0, 30.0, 200.0, 400.0]),
    st.lists(pis, max_size=2),
    st.sampled_from([None, 0.0, 1.0]),
    st.sampled_from([0.0, 0.0, 100.0]),  # how long a silence lasts
    st.booleans(),
)


@settings(max_examples=100)
@given(st.lists(looks, max_size=25))
def test_whatever_happens_each_alert_is_told_once_and_its_time_is_kept(
    history: list[tuple[float, list[Facts], float | None, float, bool]],
) -> None:
    clock = Clock(ANY_RULES)
    told: dict[int, list[AlertState]] = {}
    broken: dict[tuple[str, str], float] = {}  # since when a condition was not seen not to hold
    by_name = {rule.name: rule for rule in ANY_RULES}
    for after, facts, up, silence, acknowledge in history:
        if silence:
            clock.silences = [Silence(1, "*", "temperature", clock.now + silence, "ada")]
        if acknowledge:
            clock.acknowledged = {alert.id: "ada" for alert in clock.engine.open}
        seen = {each.subject: each for each in [*facts, *([] if up is None else [switch(up)])]}
        changes = clock.look(*seen.values(), after=after)
        track(broken, by_name, seen, clock.now)
        for change in changes:
            check(change, told, broken, by_name[change.alert.rule], clock.now)
        if clock.silences or acknowledge:
            silent = [each.alert for each in changes if each.alert.silenced or each.alert.acknowledged]
            assert not [each for each in silent if each.told and each.id not in told]
        restarted = Engine(ANY_RULES, clock.engine.open, 10_000)
        assert not [
            each
            for each in restarted.evaluate(seen.values(), clock.now, clock.silences, clock.acknowledged)
            if each.tell and each.alert.id in told and each.alert.state is AlertState.FIRING
        ]


def track(
    broken: dict[tuple[str, str], float], by_name: Mapping[str, Rule], seen: Mapping[str, Facts], now: float
) -> None:
    for subject, facts in seen.items():
        for name, rule in by_name.items():
            value = facts.values.get(rule.measure, math.nan)
            if rule.about.subject != facts.kind or math.isnan(value):
                continue
            if rule.is_broken(value):
                broken.setdefault((name, subject), now)
            else:
                broken.pop((name, subject), None)


def check(
    change: Change,
    told: dict[int, list[AlertState]],
    broken: Mapping[tuple[str, str], float],
    rule: Rule,
    now: float,
) -> None:
    alert = change.alert
    if not alert.resolved_at and alert.opened_at == now:
        assert now - broken[alert.rule, alert.subject] >= now - alert.since >= rule.raised.seconds
    if change.tell:
        history = told.setdefault(alert.id, [])
        history.append(alert.state)
        assert history in ([AlertState.FIRING], [AlertState.FIRING, AlertState.RESOLVED])
    elif alert.resolved_at:
        assert alert.id not in told


@pytest.mark.parametrize("state", list(AlertState))
def test_the_state_that_says_most_comes_first(state: AlertState) -> None:
    alert = Alert(1, "up", PI, "pi3", AlertSeverity.CRITICAL, 1, 2, "it is down", 0)
    fields = {
        AlertState.RESOLVED: {"resolved_at": 3.0, "acknowledged": "ada", "silenced": "by ada", "suppressed": "x"},
        AlertState.ACKNOWLEDGED: {"acknowledged": "ada", "silenced": "by ada", "suppressed": "x"},
        AlertState.SUPPRESSED: {"suppressed": "x", "silenced": "by ada"},
        AlertState.SILENCED: {"silenced": "by ada"},
        AlertState.FIRING: {},
    }[state]
    assert replace(alert, **fields).state is state  # type: ignore[arg-type]
