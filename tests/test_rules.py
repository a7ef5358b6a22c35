"""The grammar of alert rules, the measures, and the rules that are built in."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.metrics import METRICS
from utility.rules import (
    BUILT_IN,
    COMPARISONS,
    MEASURES,
    AlertSeverity,
    Condition,
    Rule,
    RuleError,
    duration_text,
    matches,
    merge,
    parse_rule,
    parse_time,
    shown_value,
    with_threshold,
)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("temperature > 80 for 2m", Rule("temperature", "temperature", Condition(">", 80, 120))),
        ("up == 0 for 1m", Rule("up", "up", Condition("==", 0, 60))),
        ("up == false", Rule("up", "up", Condition("==", 0))),
        ("under_voltage != No", Rule("under_voltage", "under_voltage", Condition("!=", 0))),
        ("disk_percent>90% for 5m", Rule("disk_percent", "disk_percent", Condition(">", 90, 300))),
        ("temperature >= 70.5°C for 90", Rule("temperature", "temperature", Condition(">=", 70.5, 90))),
        ("temperature > 80C", Rule("temperature", "temperature", Condition(">", 80))),
        ("card_errors > 0", Rule("card_errors", "card_errors", Condition(">", 0))),
        ("clock_offset > 1s for 1h30m", Rule("clock_offset", "clock_offset", Condition(">", 1, 5400))),
        (
            "  temperature  >80 for 2m   clear <75 for 1m ",
            Rule("temperature", "temperature", Condition(">", 80, 120), Condition("<", 75), 60),
        ),
        ("throttled == 1 clear for 30s", Rule("throttled", "throttled", Condition("==", 1), None, 30)),
        ("num_pids < 3 clear > 5", Rule("num_pids", "num_pids", Condition("<", 3), Condition(">", 5))),
    ],
)
def test_a_rule_is_read_and_written(text: str, rule: Rule) -> None:
    assert parse_rule(text) == rule
    assert parse_rule(rule.expression) == rule


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "ends too early; expected a measure, like temperature"),
        ("temprature > 80", "'temprature' is no measure; did you mean temperature?"),
        ("xyzzy > 80", f"'xyzzy' is no measure; known: {', '.join(MEASURES)}"),
        ("temperature", "ends too early; expected a comparison (> >= < <= == !=) after 'temperature'"),
        ("temperature >> 80", "'>>' is no comparison; expected one of > >= < <= == !="),
        ("temperature is 80", "'is' is no comparison; expected one of > >= < <= == !="),
        ("temperature >", "ends too early; expected a number after '>'"),
        ("temperature > hot", "expected a number after '>', found 'hot'"),
        ("temperature > 80%", "temperature is in °C, not in %"),
        ("num_pids > 80%", "num_pids is in no unit, not in %"),
        ("disk_percent > 950", "disk_percent is a percentage; expected 0 to 100, found '950'"),
        ("disk_percent > 100", "disk_percent is a percentage; this would never be so"),
        ("disk_percent < 0", "disk_percent is a percentage; this would never be so"),
        ("up > 0", "up is yes or no; expected up == 1, or == 0"),
        ("up == 2", "up is yes or no; expected up == 1, or == 0"),
        ("up ==", "ends too early; expected 0 or 1 after '=='"),
        ("temperature > 80 for", "ends too early; expected a time after 'for', like 2m"),
        ("temperature > 80 for ever", "'ever' is no time; expected one like 30s, 2m, 1h30m or 1d"),
        ("temperature > 80 for 8d", "8d is too long; expected seven days at most"),
        ("temperature > 80 & up", "'&' is not understood; expected one like: temperature > 80 for 2m clear < 75"),
        ("temperature > 80 clear", "expected a comparison or a time after 'clear', like: clear < 75"),
        (
            "temperature > 80 for 1m clear < 90",
            "'clear < 90' may hold while 'temperature > 80' holds too, and the alert would come and go",
        ),
        ("temperature > " + "9" * 50, "expected a number after '>', found '" + "9" * 37 + "...'"),
    ],
)
def test_a_mistake_is_told_in_words(text: str, problem: str) -> None:
    with pytest.raises(RuleError) as caught:
        parse_rule(text)
    assert str(caught.value) == problem


@st.composite
def rules(draw: st.DrawFn) -> str:
    measure = draw(st.sampled_from(sorted(MEASURES)))
    if MEASURES[measure].unit == "flag":
        text = f"{measure} {draw(st.sampled_from(['==', '!=']))} {draw(st.integers(0, 1))}"
    else:
        number = draw(st.decimals(1, 99, places=draw(st.integers(0, 6))))
        text = f"{measure} {draw(st.sampled_from(sorted(COMPARISONS)))} {number}"
    seconds = draw(st.integers(0, 7 * 86400))
    return text + (f" for {duration_text(seconds)}" if seconds else "")


@given(rules(), st.integers(0, 3600))
def test_a_rule_survives_being_written(text: str, clear: int) -> None:
    rule = replace(parse_rule(text), clear_seconds=float(clear))
    assert parse_rule(rule.expression) == rule


@given(st.text())
def test_any_text_is_a_rule_or_a_rule_error(text: str) -> None:
    with contextlib.suppress(RuleError):
        rule = parse_rule(text)
        assert parse_rule(rule.expression) == rule


@given(st.floats(allow_nan=False), st.sampled_from(BUILT_IN))
def test_no_value_both_raises_and_ends_an_alert(value: float, rule: Rule) -> None:
    assert not (rule.is_broken(value) and rule.is_well(value))


def test_the_rules_built_in_have_names_of_their_own() -> None:
    assert len({rule.name for rule in BUILT_IN}) == len(BUILT_IN)
    assert all(parse_rule(rule.expression).raised == rule.raised for rule in BUILT_IN)
    assert {rule.about.subject for rule in BUILT_IN} == {"pi", "switch", "manager"}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59, "59s"), (60, "1m"), (5400, "1h30m"), (86400, "1d"), (90061, "1d1h1m1s")]
)
def test_times(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1, "flag", "yes"), (0, "flag", "no"), (97.25, "%", "97.2%"), (3, "", "3"), (83.26, "°C", "83.3 °C"),
        (0.0123, "s", "0.012 s"), (1234.5, "", "1234"), (7, "W", "7 W"),
    ],
)  # fmt: skip
def test_values_for_people(value: float, unit: str, text: str) -> None:
    assert shown_value(value, unit) == text


@pytest.mark.parametrize(
    ("rule", "value", "detail", "text"),
    [
        ("up == 0", 0, "silent for 3 minutes", "it is down (silent for 3 minutes)"),
        ("up == 1", 1, "", "up is yes"),
        ("stuck == 1", 1, "", "its boot is stuck"),
        ("clock_offset > 1", -2.5, "", "its clock is off by 2.5 s"),
        ("temperature > 80", 83, "", "it is at 83 °C"),
    ],
)
def test_what_an_alert_says(rule: str, value: float, detail: str, text: str) -> None:
    assert parse_rule(rule).says(value, detail) == text


def test_the_sign_of_a_clocks_offset_does_not_count() -> None:
    rule = parse_rule("clock_offset > 1 clear < 0.5")
    assert rule.is_broken(-2)
    assert not rule.is_well(-0.7)
    assert rule.is_well(-0.2)


def test_a_rule_may_be_for_some_only() -> None:
    rule = replace(parse_rule("temperature > 70"), only=("lab-*", "172.30.4.15"))
    assert rule.applies_to("LAB-3", "b8:27:eb:01:02:03")
    assert rule.applies_to("pi3", "172.30.4.15")
    assert not rule.applies_to("pi3", "172.30.4.1")
    assert parse_rule("temperature > 70").applies_to("pi3")
    assert matches("*", "")


def test_a_threshold_moves_the_clear_with_it() -> None:
    rule = parse_rule("temperature > 80 for 2m clear < 75")
    moved = with_threshold(rule, 60, "here")
    assert (moved.expression, moved.source) == ("temperature > 60 for 2m clear < 56.2", "here")
    assert with_threshold(rule, 0, "").clear is None
    assert with_threshold(parse_rule("card_errors > 0"), 3, "").expression == "card_errors > 3"


@pytest.mark.parametrize(
    ("text", "number", "problem"),
    [
        ("up == 0", 1, "up is yes or no and has no threshold"),
        ("disk_percent > 90", 950, "disk_percent is a percentage; expected 0 to 100"),
    ],
)
def test_a_threshold_must_fit(text: str, number: float, problem: str) -> None:
    with pytest.raises(RuleError) as caught:
        with_threshold(parse_rule(text), number, "")
    assert str(caught.value) == problem


def test_the_measures_of_a_pi_are_the_metrics() -> None:
    assert METRICS.keys() <= MEASURES.keys()
    units = {
        "percent": "%",
        "celsius": "°C",
        "seconds": "s",
        "milliseconds": "ms",
        "watts": "W",
        "count": "",
        "bool": "flag",
    }
    assert {name: units[each.unit] for name, each in METRICS.items()} == {name: MEASURES[name].unit for name in METRICS}


def test_readme_names_every_measure() -> None:
    text = (Path(__file__).parent.parent / "README.md").read_text()
    assert [name for name in MEASURES if f"`{name}`" not in text] == []


def test_rules_of_the_same_name_are_replaced() -> None:
    first, second, other = parse_rule("up == 0"), parse_rule("up == 0 for 5m"), parse_rule("agent == 0")
    assert merge((first,), (second, other)) == (second, other)


def test_severities_have_an_order() -> None:
    assert AlertSeverity.INFO.rank < AlertSeverity.WARNING.rank < AlertSeverity.CRITICAL.rank


@pytest.mark.parametrize("text", ["temperature > 80", "temperature <= 80", "clock_offset > 2", "up == 0", "up != 0"])
def test_the_fast_test_of_a_rule_is_its_condition(text: str) -> None:
    rule = parse_rule(text)
    assert not rule.test({})
    for value in (-1000.0, -2.0, 0.0, 1.0, 2.0, 3.0, 80.0, 81.0, float("nan")):
        assert rule.test({rule.measure: value}) == rule.is_broken(value)
