"""What is wrong now: rules put to facts. Pure: no socket, clock, file or log; what is to be told is returned.

The rules of `Engine.evaluate`, in order:

1. A condition that holds is pending; when it has held for its time, an alert is open. A look at which it does not
   hold begins the time anew.
2. What is not known changes nothing, but opens nothing either; what was pending is forgotten after UNKNOWN_KEEPS.
3. An open alert is over when its rule's `clear` has held for its time, when nobody watches its subject any more, or
   when its rule is gone.
4. Who has an excuse (it is being installed, it was just power-cycled) is not missing.
5. An alert is told once, when it is open and nothing holds it back: for one that is missing, a parent that is missing
   too, or was asked too long ago to know, or came back a moment ago; for the others, a graver alert of the same
   measure; for all, a silence or an acknowledgement. It is told when that ends, if it still holds.
6. That it is over is told if it was told.

`Rule` and its grammar are in utility/rules.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from utility.rules import BUILT_IN, MEASURES, AlertSeverity, Rule, matches

__all__ = ["MANAGER", "Alert", "AlertSeverity", "AlertState", "Change", "Engine", "Facts", "Rule", "Silence"]

MANAGER = "manager"  # the subject of its own facts
UNKNOWN_KEEPS = 300.0  # for so long without news a pending condition is still believed to hold
RETURN_GRACE = 180.0  # for what is behind a switch to come back, after it
MAX_WAIT = 60.0  # for news of the parent
CLOCK_JUMP = 3600.0  # a gap between two evaluations that is the clock's doing, not ours

# What says that a subject is there, for each kind of them.
_PRESENCE = {measure.subject: name for name, measure in MEASURES.items() if measure.presence}


class AlertState(StrEnum):
    """What an alert is in, the one that says most first."""

    RESOLVED = "resolved"
    ACKNOWLEDGED = "acknowledged"
    SUPPRESSED = "suppressed"  # another alert says it, or will
    SILENCED = "silenced"
    FIRING = "firing"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known now of one subject. A measure that is not in `values` is not known.

    subject   a MAC, `switch:172.30.4.254`, or MANAGER
    kind      "pi", "switch" or "manager"
    words     what is known beyond the value of a measure, in a few words
    parent    the subject without which this one cannot be reached
    names     what else the subject is called: for the patterns of rules and silences
    excuse    why it need not be there now; empty: it should
    asked_at  when its presence was last asked for
    """

    subject: str
    kind: str
    name: str
    values: Mapping[str, float]
    words: Mapping[str, str] = field(default_factory=dict)
    parent: str = ""
    names: tuple[str, ...] = ()
    excuse: str = ""
    asked_at: float = math.inf


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule, broken by one subject, once. Times are Unix times, 0 for never.

    since          when the condition began to hold; opened_at: when it had held for its time
    told           it was handed to the channels
    acknowledged   by whom; suppressed, silenced: why it is not told; ended: why it is over
    """

    id: int
    rule: str
    subject: str
    name: str
    severity: AlertSeverity
    since: float
    opened_at: float
    text: str
    value: float
    told: bool = False
    acknowledged: str = ""
    suppressed: str = ""
    silenced: str = ""
    resolved_at: float = 0.0
    ended: str = ""

    @property
    def state(self) -> AlertState:
        if self.resolved_at:
            return AlertState.RESOLVED
        if self.acknowledged:
            return AlertState.ACKNOWLEDGED
        if self.suppressed:
            return AlertState.SUPPRESSED
        return AlertState.SILENCED if self.silenced else AlertState.FIRING


@dataclass(frozen=True, slots=True)
class Silence:
    """What nobody wants to be told of for a while. Patterns are a shell's: `pi3`, `lab-*`, `*`."""

    id: int
    subject: str
    rule: str
    until: float
    by: str
    why: str = ""

    def covers(self, rule: str, names: Iterable[str], now: float) -> bool:
        return now < self.until and matches(self.rule, rule) and any(matches(self.subject, name) for name in names)


@dataclass(frozen=True, slots=True)
class Change:
    """An alert that is new or different, to be kept; `tell`: the channels are to be told what it says."""

    alert: Alert
    tell: bool = False


_Key = tuple[str, str]  # rule, subject


@dataclass(slots=True)
class _Pending:
    """A condition that holds, but not for long enough yet."""

    since: float
    seen_at: float


class Engine:
    """The alerts of one manager. Not thread safe: one thread evaluates.

    rules      those in force
    alerts     those that were open when the last engine ended
    next_id    the number of the next alert
    """

    def __init__(self, rules: Sequence[Rule] = BUILT_IN, alerts: Iterable[Alert] = (), next_id: int = 1) -> None:
        enabled = [rule for rule in rules if rule.enabled]
        self._rules = {rule.name: rule for rule in enabled}
        self._by_kind = {
            kind: tuple(rule for rule in enabled if rule.about.subject == kind) for kind in ("pi", "switch", "manager")
        }
        self._tests = {kind: [(rule, rule.test) for rule in rules] for kind, rules in self._by_kind.items()}
        self._open: dict[_Key, Alert] = {(alert.rule, alert.subject): alert for alert in alerts}
        self._pending: dict[_Key, _Pending] = {}
        self._well: dict[_Key, float] = {}  # since when an open alert's `clear` holds
        self._absent: set[str] = set()
        self._quiet: dict[str, Facts] = {}  # those that broke no rule at the last look
        self._returned: dict[str, float] = {}
        self._next_id = next_id
        self._evaluated_at: float | None = None

    @property
    def open(self) -> list[Alert]:
        """The alerts that are not over, the oldest first."""
        return sorted(self._open.values(), key=lambda alert: alert.id)

    def evaluate(
        self,
        facts: Iterable[Facts],
        now: float,
        silences: Sequence[Silence] = (),
        acknowledged: Mapping[int, str] | None = None,
    ) -> list[Change]:
        """What changed, given all that is known now. acknowledged: by whom, for each open alert's id that has it."""
        known = {each.subject: each for each in facts}
        self._allow_for_clock(now)
        self._note_presence(known.values(), now)
        before = dict(self._open)
        over = self._drop_unwatched(known, now)
        busy = {subject for _rule, subject in (*self._open, *self._pending)}
        quiet, self._quiet = self._quiet, {}
        for each in known.values():
            # Nearly every rule is kept by nearly every Pi, and that is to be found out quickly, and once.
            is_busy, subject = each.subject in busy, each.subject
            if is_busy or quiet.get(subject) is not each:
                broken = [rule for rule, test in self._tests[each.kind] if is_busy or test(each.values)]
                for rule in broken:
                    over += self._judge(rule, each, now)
                if broken:
                    continue
            self._quiet[subject] = each
        return [*over, *self._settle(known, before, now, silences, acknowledged or {})]

    def _allow_for_clock(self, now: float) -> None:
        """Keep what was measured when the manager's clock is set, which may move it by years."""
        gap = now - self._evaluated_at if self._evaluated_at is not None else 0.0
        self._evaluated_at = now
        if 0 <= gap < CLOCK_JUMP:
            return
        for pending in self._pending.values():
            pending.since += gap
            pending.seen_at += gap
        self._well = {key: since + gap for key, since in self._well.items()}
        self._returned = {subject: at + gap for subject, at in self._returned.items()}

    def _note_presence(self, known: Iterable[Facts], now: float) -> None:
        """Learn who is not there, and who came back."""
        for each in known:
            there = each.values.get(_PRESENCE[each.kind])
            if there == 0:
                self._absent.add(each.subject)
            elif there is not None and each.subject in self._absent:
                self._absent.discard(each.subject)
                self._returned[each.subject] = now

    # One rule and one subject

    def _judge(self, rule: Rule, facts: Facts, now: float) -> list[Change]:
        key = (rule.name, facts.subject)
        if not _applies(rule, facts):
            return []
        value = facts.values.get(rule.measure, math.nan)
        excused = bool(facts.excuse) and rule.about.presence
        if key in self._open:
            return self._judge_open(rule, key, value, now)
        if excused:
            self._pending.pop(key, None)
        elif math.isnan(value):
            if key in self._pending and now - self._pending[key].seen_at > UNKNOWN_KEEPS:
                del self._pending[key]
        elif not rule.is_broken(value):
            self._pending.pop(key, None)
        else:
            pending = self._pending.setdefault(key, _Pending(now, now))
            pending.seen_at = now
            if now - pending.since >= rule.raised.seconds:
                self._raise(rule, facts, value, now)
        return []

    def _raise(self, rule: Rule, facts: Facts, value: float, now: float) -> None:
        key = (rule.name, facts.subject)
        since = self._pending.pop(key).since
        text = rule.says(value, facts.words.get(rule.measure, ""))
        self._open[key] = Alert(
            self._next_id, rule.name, facts.subject, facts.name, rule.severity, since, now, text, value
        )
        self._next_id += 1

    def _judge_open(self, rule: Rule, key: _Key, value: float, now: float) -> list[Change]:
        if math.isnan(value) or not rule.is_well(value):
            self._well.pop(key, None)
            return []
        since = self._well.setdefault(key, now)
        return [self._end(key, now, "")] if now - since >= rule.clear_seconds else []

    def _end(self, key: _Key, now: float, why: str) -> Change:
        self._well.pop(key, None)
        alert = self._open.pop(key)
        return Change(replace(alert, resolved_at=now, ended=why), alert.told)

    def _drop_unwatched(self, known: Mapping[str, Facts], now: float) -> list[Change]:
        """End what no rule is about any more."""
        gone = sorted(key for key in (*self._open, *self._pending) if not self._is_watched(key, known))
        for key in gone:
            self._pending.pop(key, None)
        return [
            self._end(key, now, "nobody watches it any more" if key[0] in self._rules else "its rule is gone")
            for key in gone
            if key in self._open
        ]

    def _is_watched(self, key: _Key, known: Mapping[str, Facts]) -> bool:
        rule, facts = self._rules.get(key[0]), known.get(key[1])
        return rule is not None and facts is not None and rule in self._by_kind[facts.kind] and _applies(rule, facts)

    # What is told

    def _settle(
        self,
        known: Mapping[str, Facts],
        before: Mapping[_Key, Alert],
        now: float,
        silences: Sequence[Silence],
        acknowledged: Mapping[int, str],
    ) -> Iterator[Change]:
        """Decide for each open alert whether it is told now; what differs from before is a change."""
        for key, kept in sorted(self._open.items(), key=lambda item: item[1].id):
            facts = known[kept.subject]
            names = (facts.name, facts.subject, *facts.names)
            silence = next((each for each in silences if each.covers(kept.rule, names, now)), None)
            alert = replace(
                kept,
                acknowledged=acknowledged.get(kept.id, ""),
                suppressed=self._held_back(kept, facts, known, now),
                silenced=f"by {silence.by}: {silence.why}".removesuffix(": ") if silence else "",
            )
            tell = not alert.told and alert.state is AlertState.FIRING
            self._open[key] = replace(alert, told=alert.told or tell)
            if self._open[key] != before.get(key):
                yield Change(self._open[key], tell)

    def _held_back(self, alert: Alert, facts: Facts, known: Mapping[str, Facts], now: float) -> str:
        """Why an alert is not to be told because of another; empty: no reason."""
        if alert.told:
            return ""
        if self._rules[alert.rule].about.presence:
            return self._explained(alert, facts, known, now)
        measure = self._rules[alert.rule].measure
        for rule in self._by_kind[facts.kind]:
            other = self._open.get((rule.name, alert.subject))
            if other and rule.measure == measure and other.severity.rank > alert.severity.rank:
                return f"{other.rule} says more"
        return ""

    def _explained(self, alert: Alert, facts: Facts, known: Mapping[str, Facts], now: float) -> str:
        """What explains that a subject is not there."""
        seen = {facts.subject}
        parent = known.get(facts.parent)
        while parent and parent.subject not in seen:
            seen.add(parent.subject)
            if parent.subject in self._absent:
                return f"{parent.name} is down"
            if now - self._returned.get(parent.subject, -math.inf) < RETURN_GRACE:
                return f"{parent.name} came back a moment ago"
            if parent.asked_at < alert.since and now - alert.opened_at < MAX_WAIT:
                return f"{parent.name} was not asked yet"
            parent = known.get(parent.parent)
        return ""


def _applies(rule: Rule, facts: Facts) -> bool:
    return not rule.only or rule.applies_to(facts.name, facts.subject, *facts.names)
