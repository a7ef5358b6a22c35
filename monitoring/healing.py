"""What Piman does by itself about a Pi that is dead, or does not get through its boot. Pure: the decision alone.

The rules, in order; the first that applies decides, and each refusal has its reason:

 1. Who is well, or is not yet dead for long enough, needs nothing.
 2. Nobody is treated while the network or half of those we know is down: that has one cause, and it is not them.
 3. Nor without a port, on one that is protected or leads to other devices, or by a switch that does not answer.
 4. Nor while its card is written: whatever is wrong with that, the installer and its deadline know better.
 5. Nor while a fresh install is ordered, or its port is off, or it was power-cycled a moment ago.
 6. A boot without another stage for `boot_after` is power-cycled, `boot_tries` times since it was last up; then alarm.
 7. A dead Pi is power-cycled. If it did not come back, it is installed anew where that is allowed, once.
 8. After that, or when the day's steps of the Pi or of the rack are used up, there is an alarm, once.

"Dead" is the verdict of health.py, which weighs all evidence: an agent that does not answer is not enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from utility.config import Healing
from utility.rules import duration_text
from utility.service import Stage

DAY = 86_400.0
POWER_GRACE = 180.0  # for a Pi to be heard again after its port was turned on
WRITING = frozenset({Stage.FORMAT, Stage.IMAGE})
BOOTING = frozenset(Stage) - WRITING - {Stage.UP, Stage.FAILED}


class Step(StrEnum):
    """What can be done."""

    POWER_CYCLE = "power-cycle"
    REINSTALL = "reinstall"
    ALARM = "alarm"  # a person has to look


@dataclass(frozen=True, slots=True)
class Patient:
    """What is known of one Pi. Times are Unix times, 0 for never.

    is_up        the verdict; since: when it became so
    evidence     why, in words
    stuck        why its boot does not go on; empty: it does
    stage_since  when its stage began
    powered_at   when its port was last turned on
    off          its port is switched off
    barrier      why its port cannot be used: none is known, it is protected, its switch does not answer; empty: it can
    """

    mac: str
    name: str
    is_up: bool
    since: float
    evidence: str = ""
    stage: Stage | None = Stage.UP
    stage_since: float = 0.0
    stuck: str = ""
    powered_at: float = 0.0
    ordered: bool = False
    off: bool = False
    barrier: str = ""


@dataclass(frozen=True, slots=True)
class Past:
    """A step that was taken: of whom, when, which."""

    mac: str
    when: float
    step: str


@dataclass(frozen=True, slots=True)
class Decision:
    """A step for one Pi, or None and why not. `mac` is empty where it is about all."""

    mac: str
    step: Step | None
    reason: str


def decide(
    patients: Sequence[Patient], past: Iterable[Past], limits: Healing, network: bool, now: float
) -> list[Decision]:
    """What to do now, the longest dead first; and for whom something would be to be done, why it is not.

    past      the steps of at least the last day
    network   whether the manager's own network is there
    """
    sick = [each for each in patients if _is_sick(each, limits, now)]
    if not sick:
        return []
    if not network:
        return [Decision("", None, "the manager's network has no link")]
    known = [each for each in patients if each.since or each.stage is not None]
    if len(sick) > 1 and 2 * len(sick) >= len(known):
        return [
            Decision("", None, f"{len(sick)} of {len(known)} Pis are down, which has one cause, and it is not they")
        ]
    recent = [each for each in past if 0 <= now - each.when < DAY]
    decisions, left = [], limits.per_rack - sum(each.step != Step.ALARM for each in recent)
    for patient in sorted(sick, key=lambda each: each.since):
        own = [each for each in recent if each.mac == patient.mac]
        decision = _treat(patient, own, limits, left, now)
        left -= decision.step in (Step.POWER_CYCLE, Step.REINSTALL)
        decisions.append(decision)
    return decisions


def _is_sick(patient: Patient, limits: Healing, now: float) -> bool:
    if patient.stage in BOOTING:
        return bool(patient.stuck) and now - max(patient.stage_since, patient.powered_at) >= limits.boot_after
    return not patient.is_up and bool(patient.since) and now - patient.since >= limits.after


def _treat(patient: Patient, own: Sequence[Past], limits: Healing, left: int, now: float) -> Decision:
    """The step for one Pi; own: its steps of the last day."""
    hindrance = _hindrance(patient, own, limits, now)
    if hindrance:
        return Decision(patient.mac, None, hindrance)
    steps = [each for each in own if each.step != Step.ALARM]
    boots = patient.stage in BOOTING
    # A Pi that came back is another case, and begins with a power cycle again.
    tried = [each.step for each in steps if each.when >= _well_until(patient)]
    if boots:
        what = f"stuck in {patient.stage} for {duration_text(now - patient.stage_since)}: {patient.stuck}"
    else:
        what = f"dead for {duration_text(now - patient.since)} ({patient.evidence})"
    step = _next_step(tried, boots, limits)
    if step is None:
        return _alarm(patient, own, f"{what}; {_count(tried)} did not help")
    if len(steps) >= limits.per_pi and not boots:
        return _alarm(patient, own, f"{what}; it had its {limits.per_pi} steps of the day")
    if left <= 0:
        return _alarm(patient, own, f"{what}; the rack had its {limits.per_rack} steps of the day")
    return Decision(patient.mac, step, f"{what}; {_count(tried)} did not help" if tried else what)


def _hindrance(patient: Patient, own: Sequence[Past], limits: Healing, now: float) -> str:
    """Why nothing can be done about a Pi now; empty: something can."""
    pause = min(limits.cooldown, limits.boot_after) if patient.stage in BOOTING else limits.cooldown
    last = now - max((each.when for each in own if each.step != Step.ALARM), default=now - 10 * DAY)
    powered = now - patient.powered_at
    reasons = (
        (bool(patient.barrier), patient.barrier),
        (patient.stage in WRITING, f"its card is being written ({patient.stage})"),
        (patient.stage is Stage.FAILED, "its installation failed, and would fail again"),
        (patient.ordered, "a fresh install is ordered"),
        (patient.off, "its port is switched off"),
        (0 <= powered < POWER_GRACE, f"it was power-cycled {duration_text(powered)} ago"),
        (last < pause, f"the last step was {duration_text(last)} ago; the next comes {duration_text(pause)} after it"),
    )
    return next((reason for applies, reason in reasons if applies), "")


def _well_until(patient: Patient) -> float:
    """When a Pi was last well, as far as is known: a dead one until it died, one that boots until it began."""
    if patient.stage in BOOTING:
        return 0.0 if not patient.is_up else patient.since
    return patient.since


def _next_step(tried: Sequence[str], boots: bool, limits: Healing) -> Step | None:
    if boots:
        return Step.POWER_CYCLE if len(tried) < limits.boot_tries else None
    if Step.POWER_CYCLE not in tried:
        return Step.POWER_CYCLE
    if not limits.reinstall:
        return Step.POWER_CYCLE
    return None if Step.REINSTALL in tried else Step.REINSTALL


def _alarm(patient: Patient, own: Sequence[Past], reason: str) -> Decision:
    told = any(each.step == Step.ALARM for each in own)
    return Decision(patient.mac, None if told else Step.ALARM, reason)


def _count(tried: Sequence[str]) -> str:
    """`2 power-cycles and a reinstall`."""
    cycles = sum(step == Step.POWER_CYCLE for step in tried)
    words = [f"{cycles} power cycle{'s' if cycles > 1 else ''}"] if cycles else []
    words += ["a fresh install"] if Step.REINSTALL in tried else []
    return " and ".join(words) or "nothing"
