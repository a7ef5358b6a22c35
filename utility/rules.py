"""Alert rules as data: the measures they may name, their small grammar, and those that are built in. Pure.

    rule      = measure condition [ "clear" [ condition ] [ "for" time ] ]
    condition = comparison number [ "for" time ]          comparison: > >= < <= == !=
    time      = 30 | 30s | 2m | 1h30m | 1d                a bare number is seconds

`temperature > 80 for 2m clear < 75`: raised when it was above 80 for two minutes, over when it is below 75. Without
`clear` an alert is over as soon as its condition does not hold. It is here and not in monitoring/, which evaluates the
rules, since config.yaml, where they are written, is read here, with the line of each mistake.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase


class AlertSeverity(StrEnum):
    """How much an alert matters, the least first."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return (AlertSeverity.INFO, AlertSeverity.WARNING, AlertSeverity.CRITICAL).index(self)


@dataclass(frozen=True, slots=True)
class Measure:
    """What a rule may look at: of whom, in which unit, and the words of an alert.

    subject    "pi", "switch" or "manager"
    unit       "%", "°C", "s", "W", "ms", "flag" (0 or 1), or "" for a number
    words      what is said when a rule on it is broken; {value} is the value with its unit
    absolute   the sign does not count
    bad        for a flag: the value that the words are about
    presence   0 means that the subject is not there: what is behind it is then not to be judged
    """

    subject: str
    unit: str
    words: str
    absolute: bool = False
    bad: float = 1.0
    presence: bool = False


# Those of a Pi are the names of monitoring/metrics.py (a test holds them to that), and then what the board knows.
MEASURES: Mapping[str, Measure] = {
    "cpu_percent": Measure("pi", "%", "its processor is {value} busy"),
    "memory_percent": Measure("pi", "%", "its memory is {value} full"),
    "disk_percent": Measure("pi", "%", "its disk is {value} full"),
    "num_pids": Measure("pi", "", "it runs {value} processes"),
    "temperature": Measure("pi", "°C", "it is at {value}"),
    "load1": Measure("pi", "", "its load is {value}"),
    "uptime": Measure("pi", "s", "it has been up for {value}"),
    "under_voltage": Measure("pi", "flag", "its supply voltage is too low"),
    "under_voltage_seen": Measure("pi", "flag", "its supply voltage was too low since it started"),
    "throttled": Measure("pi", "flag", "it is throttled"),
    "throttled_seen": Measure("pi", "flag", "it was throttled since it started"),
    "clock_offset": Measure("pi", "s", "its clock is off by {value}", absolute=True),
    "card_errors": Measure("pi", "", "errors of its card: {value}"),
    "up": Measure("pi", "flag", "it is down", bad=0.0, presence=True),
    "ping_ms": Measure("pi", "ms", "it takes {value} to answer"),
    "watts": Measure("pi", "W", "it takes {value}"),
    "agent": Measure("pi", "flag", "its agent does not answer", bad=0.0),
    "stuck": Measure("pi", "flag", "its boot is stuck"),
    "install_failed": Measure("pi", "flag", "its installation failed"),
    "switch_up": Measure("switch", "flag", "it does not answer SNMP", bad=0.0, presence=True),
    "poe_percent": Measure("switch", "%", "its ports take {value} of the power it has"),
    "poe_denied": Measure("switch", "", "it denied power to its ports, its budget is exhausted"),
    "manager_disk_percent": Measure("manager", "%", "the disk with the state is {value} full"),
    "network": Measure("manager", "flag", "the network interface has no link", bad=0.0, presence=True),
    "foreign_dhcp": Measure("manager", "flag", "another DHCP server is on the network"),
}
# The short names by which thresholds were known before there were rules.
SHORT_NAMES: Mapping[str, str] = {
    "cpu": "cpu_percent",
    "memory": "memory_percent",
    "disk": "disk_percent",
    "pids": "num_pids",
    "load": "load1",
    "clock": "clock_offset",
}
COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
MAX_SECONDS = 7 * 86400.0
_UNITS: Mapping[str, float] = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_FLAGS: Mapping[str, float] = {"0": 0, "1": 1, "false": 0, "true": 1, "no": 0, "yes": 1}
_WORDS = re.compile(r"[<>=!]+|[^\s<>=!]+")
_NUMBER = re.compile(r"(-?[0-9]{1,12}(?:\.[0-9]{0,6})?)(%|°?C|s|ms|W)?")
_TIME = re.compile(r"(?:[0-9]{1,7}[smhd])+|[0-9]{1,7}")


class RuleError(ValueError):
    """A rule is wrong; `str()` says what was expected."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison that must hold for `seconds`."""

    comparison: str
    number: float
    seconds: float = 0.0

    def holds(self, value: float) -> bool:
        return COMPARISONS[self.comparison](value, self.number)

    def __str__(self) -> str:
        return f"{self.comparison} {_number_text(self.number)}" + _for(self.seconds)


@dataclass(frozen=True, slots=True)
class Rule:
    """When to raise an alert, and when it is over.

    clear          what must hold for it to be over; None: that `raised` does not hold
    clear_seconds  for how long
    only           patterns of names, addresses or MACs to which it applies; empty: to all
    source         where it was written
    """

    name: str
    measure: str
    raised: Condition
    clear: Condition | None = None
    clear_seconds: float = 0.0
    severity: AlertSeverity = AlertSeverity.WARNING
    enabled: bool = True
    only: tuple[str, ...] = ()
    source: str = "built in"

    @property
    def about(self) -> Measure:
        return MEASURES[self.measure]

    @property
    def expression(self) -> str:
        clear = f" {self.clear}" if self.clear else ""
        over = f" clear{clear}{_for(self.clear_seconds)}" if self.clear or self.clear_seconds else ""
        return f"{self.measure} {self.raised}{over}"

    def is_broken(self, value: float) -> bool:
        return self.raised.holds(abs(value) if self.about.absolute else value)

    @property
    def test(self) -> Callable[[Mapping[str, float]], bool]:
        """Whether the measures that are known break it: the same as `is_broken`, put together once, and fast."""
        measure, holds, number = self.measure, COMPARISONS[self.raised.comparison], self.raised.number
        if self.about.absolute:
            return lambda values: measure in values and holds(abs(values[measure]), number)
        return lambda values: measure in values and holds(values[measure], number)

    def is_well(self, value: float) -> bool:
        """Whether a value ends an alert, if it stays so for `clear_seconds`."""
        value = abs(value) if self.about.absolute else value
        return self.clear.holds(value) if self.clear else not self.raised.holds(value)

    def applies_to(self, *names: str) -> bool:
        return not self.only or any(matches(pattern, name) for pattern in self.only for name in names)

    def says(self, value: float, detail: str = "") -> str:
        """An alert's text."""
        shown = shown_value(abs(value) if self.about.absolute else value, self.about.unit)
        text = self.about.words.format(value=shown)
        if self.about.unit == "flag" and value != self.about.bad:  # the rule asks for the contrary of the words
            text = f"{self.measure} is {shown}"
        return f"{text} ({detail})" if detail else text


def matches(pattern: str, name: str) -> bool:
    """Shell patterns, without regard to case."""
    return fnmatchcase(name.lower(), pattern.lower())


def shown_value(value: float, unit: str) -> str:
    """A value as it is read by people."""
    if unit == "flag":
        return "yes" if value else "no"
    text = (
        f"{value:.0f}"
        if abs(value) >= 100 or value == int(value)
        else f"{value:.2g}"
        if abs(value) < 1
        else f"{value:.1f}"
    )
    return f"{text}{unit}" if unit in ("", "%") else f"{text} {unit}"


def duration_text(seconds: float) -> str:
    """`1h30m`, as it is written in a rule."""
    left, text = int(seconds), ""
    for unit, size in reversed(tuple(_UNITS.items())):
        count, left = divmod(left, int(size))
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def _number_text(number: float) -> str:
    return f"{number:.6f}".rstrip("0").rstrip(".")


def _for(seconds: float) -> str:
    return f" for {duration_text(seconds)}" if seconds else ""


# ------------------------------------------------------------------------------------------------------ the grammar


class _Reader:
    """The words of a rule, one after the other."""

    def __init__(self, text: str) -> None:
        self._words: list[str] = _WORDS.findall(text)

    @property
    def next(self) -> str:
        return self._words[0] if self._words else ""

    def take(self, expected: str) -> str:
        if not self._words:
            raise RuleError(f"ends too early; expected {expected}")
        return self._words.pop(0)

    def condition(self, measure: str) -> Condition:
        """A comparison and a number."""
        sign = self.take(f"a comparison ({' '.join(COMPARISONS)}) after {measure!r}")
        if sign not in COMPARISONS:
            raise RuleError(f"{_shown(sign)} is no comparison; expected one of {' '.join(COMPARISONS)}")
        return Condition(sign, self.number(measure, sign))

    def number(self, measure: str, sign: str) -> float:
        unit = MEASURES[measure].unit
        if unit == "flag":
            word = self.take(f"0 or 1 after {sign!r}")
            if word.lower() not in _FLAGS or sign not in ("==", "!="):
                raise RuleError(f"{measure} is yes or no; expected {measure} == 1, or == 0")
            return _FLAGS[word.lower()]
        word = self.take(f"a number after {sign!r}")
        found = _NUMBER.fullmatch(word)
        if not found:
            raise RuleError(f"expected a number after {sign!r}, found {_shown(word)}")
        if found[2] and found[2] not in (unit, unit.removeprefix("°")):
            raise RuleError(f"{measure} is in {unit or 'no unit'}, not in {found[2]}")
        number = float(found[1])
        if unit == "%" and not 0 <= number <= 100:
            raise RuleError(f"{measure} is a percentage; expected 0 to 100, found {_shown(word)}")
        return number

    def time(self) -> float:
        """`for 2m`, if that is next."""
        if self.next != "for":
            return 0.0
        self.take("for")
        return parse_time(self.take("a time after 'for', like 2m"))


def parse_time(text: str) -> float:
    """`90`, `90s`, `1h30m` -> seconds; RuleError."""
    if not _TIME.fullmatch(text):
        raise RuleError(f"{_shown(text)} is no time; expected one like 30s, 2m, 1h30m or 1d")
    pieces = re.findall(r"([0-9]+)([smhd]?)", text)
    seconds = sum(int(count) * _UNITS[unit or "s"] for count, unit in pieces)
    if seconds > MAX_SECONDS:
        raise RuleError(f"{text} is too long; expected seven days at most")
    return seconds


def parse_rule(text: str) -> Rule:
    """An expression -> a rule that is named as its measure; RuleError."""
    reader = _Reader(text)
    measure = reader.take("a measure, like temperature")
    if measure not in MEASURES:
        raise RuleError(f"{_shown(measure)} is no measure; {suggest(measure, MEASURES)}")
    raised = reader.condition(measure)
    raised = replace(raised, seconds=reader.time())
    clear, clear_seconds = None, 0.0
    if reader.next == "clear":
        reader.take("clear")
        clear = reader.condition(measure) if reader.next in COMPARISONS else None
        clear_seconds = reader.time()
        if not clear and not clear_seconds:
            raise RuleError("expected a comparison or a time after 'clear', like: clear < 75")
    if reader.next:
        raise RuleError(
            f"{_shown(reader.next)} is not understood; expected one like: temperature > 80 for 2m clear < 75"
        )
    if MEASURES[measure].unit == "%" and (raised.comparison, raised.number) in ((">", 100), ("<", 0)):
        raise RuleError(f"{measure} is a percentage; this would never be so")
    if clear and not _is_apart(raised, clear):
        sentence = f"'clear {clear}' may hold while '{measure} {replace(raised, seconds=0)}' holds too"
        raise RuleError(f"{sentence}, and the alert would come and go")
    return Rule(measure, measure, raised, clear, clear_seconds)


def _is_apart(raised: Condition, clear: Condition) -> bool:
    """Whether no value fulfils both. It is enough to try the numbers, and what is just beside and between them."""
    low, high = sorted((raised.number, clear.number))
    tried = (low - 1, low, (low + high) / 2, high, high + 1)
    return not any(raised.holds(value) and clear.holds(value) for value in tried)


def suggest(word: str, known: Collection[str]) -> str:
    """What was meant by a word, or what is known."""
    near = difflib.get_close_matches(word.lower()[:60], known, 1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


# ---------------------------------------------------------------------------------------------------- those built in


def _rule(text: str, severity: AlertSeverity = AlertSeverity.WARNING, name: str = "") -> Rule:
    rule = parse_rule(text)
    return replace(rule, name=name or rule.name, severity=severity)


_CRITICAL, _INFO = AlertSeverity.CRITICAL, AlertSeverity.INFO
BUILT_IN: tuple[Rule, ...] = (
    _rule("up == 0 for 2m", _CRITICAL),
    _rule("agent == 0 for 10m"),
    _rule("stuck == 1 for 30s"),
    _rule("install_failed == 1", _CRITICAL),
    _rule("cpu_percent > 95 for 30m clear < 85 for 1m"),
    _rule("memory_percent > 90 for 5m clear < 85"),
    _rule("disk_percent > 90 for 5m clear < 88"),
    _rule("disk_percent > 98 for 1m clear < 97", _CRITICAL, "disk_full"),
    _rule("num_pids > 1000 for 5m clear < 900"),
    _rule("temperature > 80 for 2m clear < 75"),
    _rule("temperature > 85 for 30s clear < 80", _CRITICAL, "overheated"),
    _rule("under_voltage == 1 clear for 1m"),
    _rule("under_voltage_seen == 1", _INFO),
    _rule("throttled == 1 for 1m clear for 1m"),
    _rule("card_errors > 0"),
    _rule("clock_offset > 1 for 5m clear < 0.5"),
    _rule("switch_up == 0 for 1m", _CRITICAL),
    _rule("poe_percent > 90 for 2m clear < 85"),
    _rule("poe_denied > 0 clear for 10m"),  # it counts since the look before
    _rule("network == 0 for 20s", _CRITICAL),
    _rule("foreign_dhcp == 1", _CRITICAL),
    _rule("manager_disk_percent > 90 for 1m clear < 88", _CRITICAL),
)


def with_threshold(rule: Rule, number: float, source: str) -> Rule:
    """The rule with another number, its `clear` in the same proportion; RuleError where it takes none."""
    if rule.about.unit == "flag":
        raise RuleError(f"{rule.measure} is yes or no and has no threshold")
    clear = None
    if rule.clear and number > 0 and rule.raised.number > 0:
        clear = replace(rule.clear, number=float(f"{rule.clear.number * number / rule.raised.number:.3g}"))
    if rule.about.unit == "%" and not 0 <= number <= 100:
        raise RuleError(f"{rule.measure} is a percentage; expected 0 to 100")
    return replace(rule, raised=replace(rule.raised, number=number), clear=clear, source=source)


def merge(rules: Sequence[Rule], over: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules, with those of the same name replaced, and the new ones after them."""
    merged = {rule.name: rule for rule in rules}
    merged.update((rule.name, rule) for rule in over)
    return tuple(merged.values())


def rule_json(rule: Rule) -> dict[str, object]:
    """For scripts."""
    return {
        "name": rule.name,
        "rule": rule.expression,
        "severity": str(rule.severity),
        "enabled": rule.enabled,
        "only": list(rule.only),
        "source": rule.source,
    }
