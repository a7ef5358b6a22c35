"""What is done by itself about a dead Pi: each limit, each refusal, and any history at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.healing import DAY, Decision, Past, Patient, Step, decide
from utility.config import Healing
from utility.service import Stage

ON = Healing(enabled=True)
BOLD = replace(ON, reinstall=True)
NOW = 1_000_000.0
PI = Patient("b8:27:eb:00:00:01", "pi1", is_up=False, since=NOW - 400, evidence="agent 400 s ago")
WELL = [Patient(f"b8:27:eb:00:01:{n:02x}", f"pi{n}", is_up=True, since=1.0, stage=Stage.UP) for n in range(2, 8)]
STUCK = replace(PI, stage=Stage.KERNEL, stage_since=NOW - 400, stuck="nothing heard; expected the hello", since=0.0)


def treat(patient: Patient, *past: Past, limits: Healing = ON, network: bool = True, now: float = NOW) -> Decision:
    (decision,) = decide([patient, *WELL], past, limits, network, now)
    return decision


def ago(seconds: float, step: Step = Step.POWER_CYCLE, mac: str = PI.mac) -> Past:
    return Past(mac, NOW - seconds, step)


def test_a_dead_pi_is_power_cycled() -> None:
    assert treat(PI) == Decision(PI.mac, Step.POWER_CYCLE, "dead for 6m40s (agent 400 s ago)")


@pytest.mark.parametrize(
    "patient",
    [
        replace(PI, is_up=True),
        replace(PI, since=NOW - 200),  # not for long
        replace(PI, since=0.0),  # never heard
        replace(STUCK, stuck=""),
        replace(STUCK, stage_since=NOW - 200),
        replace(STUCK, powered_at=NOW - 200),
        replace(PI, stage=Stage.BOOT),  # it boots
    ],
)
def test_who_needs_nothing(patient: Patient) -> None:
    assert decide([patient, *WELL], [], ON, network=True, now=NOW) == []


@pytest.mark.parametrize(
    ("patient", "reason"),
    [
        (replace(PI, barrier="its port is protected"), "its port is protected"),
        (replace(PI, stage=Stage.IMAGE), "its card is being written (image)"),
        (replace(PI, stage=Stage.FORMAT), "its card is being written (format)"),
        (replace(PI, stage=Stage.FAILED), "its installation failed, and would fail again"),
        (replace(PI, ordered=True), "a fresh install is ordered"),
        (replace(PI, off=True), "its port is switched off"),
        (replace(PI, powered_at=NOW - 30), "it was power-cycled 30s ago"),
    ],
)
def test_who_is_left_alone(patient: Patient, reason: str) -> None:
    assert treat(patient) == Decision(PI.mac, None, reason)


def test_the_cooldown() -> None:
    assert treat(PI, ago(300)).reason == "the last step was 5m ago; the next comes 15m after it"
    assert treat(replace(PI, since=NOW - 5000), ago(901)).step is Step.POWER_CYCLE


def test_after_a_power_cycle_that_did_not_help_comes_an_install_where_allowed() -> None:
    dead = replace(PI, since=NOW - 5000)
    assert treat(dead, ago(1000), limits=BOLD) == Decision(
        PI.mac, Step.REINSTALL, "dead for 1h23m20s (agent 400 s ago); 1 power cycle did not help"
    )
    assert treat(dead, ago(1000)).step is Step.POWER_CYCLE
    alarm = treat(dead, ago(3000), ago(1000, Step.REINSTALL), limits=BOLD)
    assert alarm == Decision(
        PI.mac, Step.ALARM, "dead for 1h23m20s (agent 400 s ago); 1 power cycle and a fresh install did not help"
    )
    told = treat(dead, ago(3000), ago(1000, Step.REINSTALL), ago(500, Step.ALARM), limits=BOLD)
    assert (told.step, told.reason) == (None, alarm.reason)


def test_a_pi_that_came_back_begins_anew() -> None:
    assert treat(replace(PI, since=NOW - 1000), ago(2000), limits=BOLD).step is Step.POWER_CYCLE


def test_the_caps_of_a_day() -> None:
    dead = replace(PI, since=NOW - DAY)
    steps = [ago(20_000), ago(10_000), ago(5_000)]
    assert treat(dead, *steps).reason.endswith("it had its 3 steps of the day")
    assert treat(dead, *steps).step is Step.ALARM
    assert treat(dead, ago(DAY + 1), *steps[1:]).step is Step.POWER_CYCLE
    others = [ago(5_000 + number, mac=f"other {number}") for number in range(10)]
    assert treat(PI, *others).reason.endswith("the rack had its 10 steps of the day")
    assert treat(PI, *others[1:]).step is Step.POWER_CYCLE
    two = [PI, replace(PI, mac="b8:27:eb:00:00:09", since=NOW - 500)]
    decided = decide([*two, *WELL], others[1:], ON, network=True, now=NOW)
    assert [(each.mac, each.step) for each in decided] == [(two[1].mac, Step.POWER_CYCLE), (PI.mac, Step.ALARM)]


def test_nothing_is_done_while_half_the_rack_or_the_network_is_down() -> None:
    dead = [replace(PI, mac=each.mac) for each in WELL[:3]]
    (hold,) = decide([*dead, *WELL[3:]], [], ON, network=True, now=NOW)
    assert hold == Decision("", None, "3 of 6 Pis are down, which has one cause, and it is not they")
    assert [each.step for each in decide([*dead[:2], *WELL[2:]], [], ON, network=True, now=NOW)] == [
        Step.POWER_CYCLE
    ] * 2
    assert treat(PI, network=False) == Decision("", None, "the manager's network has no link")
    (alone,) = decide([PI], [], ON, network=True, now=NOW)
    assert alone.step is Step.POWER_CYCLE
    (one_of_two,) = decide([PI, WELL[0]], [], ON, network=True, now=NOW)
    assert one_of_two.step is Step.POWER_CYCLE
    strangers = [Patient(f"{n}", "", is_up=False, since=0.0, stage=None) for n in range(9)]
    (hold,) = decide([*dead, *WELL[3:], *strangers], [], ON, network=True, now=NOW)
    assert hold.mac == ""


def test_a_boot_that_is_stuck_is_power_cycled_three_times() -> None:
    first = treat(STUCK)
    assert first == Decision(PI.mac, Step.POWER_CYCLE, "stuck in kernel for 6m40s: nothing heard; expected the hello")
    assert treat(STUCK, ago(200)).reason.startswith("the last step was")
    assert treat(STUCK, ago(800), ago(400)).reason.endswith("2 power cycles did not help")
    assert treat(STUCK, ago(1200), ago(800), ago(400)).step is Step.ALARM
    assert treat(STUCK, limits=replace(ON, boot_tries=0)).step is Step.ALARM
    assert treat(replace(STUCK, is_up=True, since=NOW - 300), ago(500), ago(400)).reason == first.reason


# ----------------------------------------------------------------------------------------------------- any rack at all

patients = st.builds(
    Patient,
    mac=st.sampled_from(["a", "b", "c", "d"]),
    name=st.just("pi"),
    is_up=st.booleans(),
    since=st.sampled_from([0.0, NOW - 10, NOW - 1000, NOW - DAY]),
    stage=st.sampled_from([None, *Stage]),
    stage_since=st.sampled_from([NOW - 10, NOW - 1000]),
    stuck=st.sampled_from(["", "nothing heard"]),
    powered_at=st.sampled_from([0.0, NOW - 10, NOW - 1000]),
    ordered=st.booleans(),
    off=st.booleans(),
    barrier=st.sampled_from(["", "", "its port is protected"]),
)
pasts = st.builds(Past, st.sampled_from(["a", "b", "x"]), st.floats(NOW - 2 * DAY, NOW), st.sampled_from(list(Step)))


@settings(max_examples=200)
@given(st.lists(patients, max_size=4, unique_by=lambda each: each.mac), st.lists(pasts, max_size=15), st.booleans())
def test_whatever_the_rack_no_limit_is_passed(rack: list[Patient], past: list[Past], reinstall: bool) -> None:
    limits = replace(ON, reinstall=reinstall)
    decisions = decide([*rack, *WELL], past, limits, network=True, now=NOW)
    acted = [each for each in decisions if each.step in (Step.POWER_CYCLE, Step.REINSTALL)]
    day = [each for each in past if NOW - each.when < DAY and each.step is not Step.ALARM]
    assert len(acted) + len(day) <= limits.per_rack or not acted
    by_mac = {each.mac: each for each in rack}
    for decision in acted:
        patient = by_mac[decision.mac]
        assert not any((patient.barrier, patient.ordered, patient.off))
        assert patient.stage not in (Stage.IMAGE, Stage.FORMAT)
        assert not (patient.stage in (Stage.UP, None) and patient.is_up)
        assert decision.step is Step.POWER_CYCLE or reinstall
        own = [each for each in day if each.mac == decision.mac]
        assert all(NOW - each.when >= limits.boot_after for each in own)
    assert all(each.reason for each in decisions)
