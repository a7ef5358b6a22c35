"""monitoring/health: up is evidence, flaps are damped, a switch's word is the hardest."""

from __future__ import annotations

from dataclasses import replace

import pytest

from monitoring.health import AGENT_WORD, CLOCK_JUMP, FLAPS, STEADY, Health, Port, Up
from monitoring.metrics import METRICS, Reading
from utility.service import Stage

MAC = "b8:27:eb:00:00:01"
BEGIN = 1_700_000_000.0


def answer(when: float) -> Reading:
    return Reading(MAC, when, {"cpu_percent": 5.0, "ping_ms": 0.5}, {"error": ""})


def refusal(when: float) -> Reading:
    return Reading(MAC, when, {"ping_ms": 0.5}, {"error": "no agent"})


def silence(when: float) -> Reading:
    return Reading(MAC, when, {}, {"error": "no answer"})


def test_nobody_knows_a_pi_that_was_not_polled() -> None:
    health = Health()
    assert health.up(MAC, BEGIN).evidence == "not polled yet"
    assert health.latest() == {}
    health.take(silence(BEGIN))
    up = health.up(MAC, BEGIN)
    assert (up.is_up, up.since, up.evidence) == (False, 0.0, "never heard")


def test_the_evidence_of_all_is_told_of_those_that_are_down() -> None:
    health = Health()
    health.take(answer(BEGIN))
    health.take(replace(silence(BEGIN), mac="b8:27:eb:00:00:02"))
    assert health.ups(BEGIN + 1) == {
        MAC: Up(True, BEGIN, ""),
        "b8:27:eb:00:00:02": health.up("b8:27:eb:00:00:02", BEGIN + 1),
    }


@pytest.mark.parametrize("reading", [answer, refusal])
def test_an_answer_of_agent_or_kernel_is_up_and_two_silences_are_down(reading: object) -> None:
    health = Health()
    assert callable(reading)
    taken = health.take(reading(BEGIN))
    assert taken.values["up"] == 1.0
    assert taken.words["since"] == f"{BEGIN:.0f}"
    assert health.take(silence(BEGIN + 10)).values["up"] == 1.0
    assert health.take(silence(BEGIN + 20)).values["up"] == 0.0
    up = health.up(MAC, BEGIN + 140)
    assert (up.is_up, up.since) == (False, BEGIN)
    assert "2 min ago" in up.evidence


def test_the_installer_answers_tcp_and_is_not_up() -> None:
    health = Health()
    health.heard(MAC, "HELLO 2", BEGIN, Stage.HELLO, BEGIN)
    assert health.take(refusal(BEGIN + 1)).values["up"] == 0.0
    assert health.up(MAC, BEGIN + 1).evidence.startswith("boots: hello, TCP 0 s ago")
    assert health.take(answer(BEGIN + 2)).values["up"] == 1.0
    health.heard(MAC, "ERROR format", BEGIN + 3, Stage.FAILED, BEGIN + 3)
    assert health.take(refusal(BEGIN + 4)).values["up"] == 0.0
    assert "failed to install" in health.up(MAC, BEGIN + 5).evidence


@pytest.mark.parametrize(("word", "holds"), [("DHCPREQUEST", 450.0), ("NTP request", 2100.0)])
def test_words_alone_hold_until_the_next_is_overdue(word: str, holds: float) -> None:
    health = Health()
    health.heard(MAC, word, BEGIN, Stage.UP, BEGIN)
    health.heard(MAC, "an older word", BEGIN - 1, Stage.UP, BEGIN)
    assert health.take(silence(BEGIN + holds - 1)).values["up"] == 1.0
    assert health.take(silence(BEGIN + holds)).values["up"] == 0.0


def test_a_word_just_before_the_end_does_not_keep_it_alive_but_a_later_one_does() -> None:
    health = Health()
    health.take(answer(BEGIN))
    health.heard(MAC, "NTP request", BEGIN + 4, Stage.UP, 0.0)
    health.take(silence(BEGIN + 10))
    assert health.take(silence(BEGIN + 20)).values["up"] == 0.0
    health.heard(MAC, "NTP request", BEGIN + 60, Stage.UP, 0.0)  # a firewall came up, not the end
    assert health.take(silence(BEGIN + 61)).values["up"] == 1.0


def test_a_port_without_link_or_power_is_the_hardest_fact() -> None:
    health = Health()
    health.take(answer(BEGIN))
    health.port(MAC, Port(BEGIN + 1, link=False))
    assert health.take(silence(BEGIN + 2)).values["up"] == 0.0
    assert "no link" in health.up(MAC, BEGIN + 2).evidence
    health.port(MAC, Port(BEGIN + 3, link=True, powered=True, watts=3.25))
    taken = health.take(answer(BEGIN + 4))
    assert (taken.values["up"], taken.values["watts"]) == (1.0, 3.25)
    assert "gives 3.2 W" in taken.words["evidence"]
    health.port(MAC, Port(BEGIN + 5, powered=False, watts=-1.0))
    taken = health.take(silence(BEGIN + 6))
    assert "without power" in taken.words["evidence"]
    assert "watts" not in taken.values


def test_one_that_flaps_must_be_steady_before_it_is_up_again() -> None:
    health, now = Health(), BEGIN
    for _ in range(3):  # five changes: up, down, up, down, up, down
        for reading in (answer, silence, silence):
            now += 10
            health.take(reading(now))
    assert not health.up(MAC, now).is_up
    began = now + 10
    while now < began + STEADY:
        now += 10
        taken = health.take(answer(now))
        assert taken.values["up"] == float(now >= began + STEADY)
    assert taken.words["since"] == f"{now:.0f}"
    health.take(silence(now + 10))
    health.take(silence(now + 20))
    assert f"flaps: {FLAPS + 1} changes" in health.up(MAC, now + 20).evidence
    assert health.take(answer(now + 2000)).values["up"] == 1.0


def test_a_clock_that_is_set_changes_no_verdict() -> None:
    health = Health()
    health.take(answer(1000.0))
    later = 1010.0 + 50 * CLOCK_JUMP
    assert health.take(silence(later)).values["up"] == 1.0
    assert health.up(MAC, later).since == later
    assert health.take(answer(1030.0)).values["up"] == 1.0


def test_a_new_process_goes_on_from_what_was_kept() -> None:
    before = Health()
    kept = before.take(answer(BEGIN))
    health = Health()
    health.restore(kept)
    assert health.up(MAC, BEGIN + 5).since == BEGIN
    assert health.latest() == {MAC: kept}
    assert health.take(silence(BEGIN + 10)).values["up"] == 1.0
    assert health.take(silence(BEGIN + 20)).values["up"] == 0.0
    health.restore(kept)  # too late: it is known better
    assert not health.up(MAC, BEGIN + 20).is_up
    health = Health()
    health.restore(Reading(MAC, BEGIN, {"up": 0.0}, {"error": "no answer", "since": "soon"}))
    assert (health.up(MAC, BEGIN).is_up, health.up(MAC, BEGIN).since) == (False, 0.0)


def test_a_manager_that_starts_in_1970_knows_no_answer_from_the_future() -> None:
    health = Health()
    health.restore(Reading(MAC, BEGIN, {"up": 1.0, "ping_ms": 1.0}, {"since": f"{BEGIN - 60:.0f}"}))
    health.take(silence(100.0))
    health.take(silence(BEGIN + 60))
    assert health.up(MAC, BEGIN + 90).since == BEGIN + 60
    health.port(MAC, Port(BEGIN + 65, link=False))
    assert health.take(silence(BEGIN + 70)).values["up"] == 0.0


def test_the_boards_word_of_an_agent_is_no_evidence_of_its_own() -> None:
    health = Health()
    health.heard(MAC, AGENT_WORD, BEGIN, Stage.UP, 0.0)
    assert health.take(silence(BEGIN + 1)).values["up"] == 0.0


def test_those_that_left_are_forgotten() -> None:
    health = Health()
    health.take(answer(BEGIN))
    health.keep([MAC])
    assert set(health.latest()) == {MAC}
    health.keep([])
    assert health.latest() == {}


def test_metrics_know_their_ranges_and_words() -> None:
    assert METRICS["cpu_percent"].accepts(100.0)
    assert not METRICS["cpu_percent"].accepts(100.1)
    assert not METRICS["clock_offset"].accepts(float("nan"))
    assert METRICS["temperature"].rounded(45.3219) == 45.3
    assert METRICS["temperature"].shown(45.3219) == "45.3 °C"
    assert METRICS["uptime"].shown(12.0) == "12 s"
    assert [METRICS["up"].shown(each) for each in (0.0, 1.0)] == ["no", "yes"]
