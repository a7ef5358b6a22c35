"""Tests of utility.power_rules."""

from __future__ import annotations

from dataclasses import replace

import pytest

from utility.drivers import Detection
from utility.power_rules import Guard, Patience, fits, needed, outcome, ranges, refusal, total_supply
from utility.switches import Neighbour, Port, PowerSupply

PORT = Port(3, "p3", index=(1, 3), admin_on=True, detection=Detection.DELIVERING, link=True)
PI, OURS = "b8:27:eb:00:00:03", "02:00:00:00:00:01"
SWITCH = Neighbour("sw2", "02:00:00:00:00:fe", "24")


@pytest.mark.parametrize(
    ("port", "macs", "guard", "why"),
    [
        (PORT, {PI}, Guard(), ""),
        (PORT, (), Guard(), ""),
        (PORT, {PI, "b8:27:eb:00:01:03"}, Guard(), ""),
        (PORT, {PI, "2", "3"}, Guard(), "3 MACs are behind it, so it leads to a switch"),
        (PORT, {PI, OURS}, Guard(own_macs=frozenset({OURS})), "this machine is behind it"),
        (replace(PORT, number=7), (), Guard(), "it is in protected_ports in config.yaml"),
        (replace(PORT, neighbour=SWITCH), {PI}, Guard(), "it leads to sw2 port 24, as LLDP says"),
        (replace(PORT, neighbour=replace(SWITCH, name="", port="")), (), Guard(), "it leads to 02:00:00:00:00:fe, as"),
        (replace(PORT, neighbour=Neighbour("", "", "")), (), Guard(), "it leads to a device, as LLDP says"),
        (replace(PORT, neighbour=replace(SWITCH, forwards=False)), (), Guard(), ""),
        # A Pi with a bridge for its containers says that it is one.
        (replace(PORT, neighbour=Neighbour("pi3", PI, "eth0")), {PI}, Guard(pi_macs=frozenset({PI})), ""),
        (replace(PORT, number=7, neighbour=SWITCH), {"1", "2", "3"}, Guard(force=True), ""),
    ],
)
def test_refusal(port: Port, macs: set[str], guard: Guard, why: str) -> None:
    said = refusal(port, macs, {7}, guard)
    assert said.startswith(f"left alone: {why}" if why else "")
    assert bool(said) == bool(why)
    assert not why or said.endswith("(--force switches it all the same)")


@pytest.mark.parametrize(
    ("power_class", "milliwatts", "expected"),
    [(0, 3000, 15_400), (1, None, 4_000), (4, 3000, 30_000), (None, 4000, 6000), (None, 0, 15_400), (9, None, 15_400)],
)
def test_needed(power_class: int | None, milliwatts: int | None, expected: int) -> None:
    assert needed(replace(PORT, power_class=power_class, milliwatts=milliwatts)) == expected


def test_fits_reckons_what_starts_with_what_it_may_take() -> None:
    one = replace(PORT, power_class=0)
    starting = [replace(one, number=4, milliwatts=5000), replace(one, number=5, milliwatts=None)]
    everything = frozenset(range(1, 9))
    # 20 W are taken, 5 W of them by one that starts: 15 + 2 x 15.4 + 15.4
    assert fits(one, starting, [PowerSupply(everything, 61_200, 20_000)])
    assert not fits(one, starting, [PowerSupply(everything, 61_199, 20_000)])
    assert fits(one, starting, [PowerSupply(everything, 46_200)])
    assert fits(one, starting, [PowerSupply(frozenset({4, 5}), 1), PowerSupply(frozenset({3}), 15_400)])
    assert fits(one, starting, [])


def test_total_supply_takes_the_best_that_is_known() -> None:
    ports = [replace(PORT, milliwatts=1000), replace(PORT, number=4, milliwatts=None)]
    numbers = frozenset({3, 4})
    groups = [PowerSupply(frozenset({3}), 1, 500), PowerSupply(frozenset({4}), 1, 600)]
    assert total_supply(9, ports, groups) == PowerSupply(numbers, 9, 1100)
    assert total_supply(9, ports, [*groups, PowerSupply(numbers, 1)]) == PowerSupply(numbers, 9, 1000)
    assert total_supply(9, ports[1:], []) == PowerSupply(frozenset({4}), 9, None)


@pytest.mark.parametrize(
    ("before", "now", "age", "text"),
    [
        (PORT, PORT, 0, "power-cycled"),
        (PORT, replace(PORT, detection=Detection.SEARCHING), 1, ""),
        (PORT, replace(PORT, detection=Detection.OTHER_FAULT), 11, "on, but nothing takes power there (other fault)"),
        (PORT, replace(PORT, detection=Detection.UNKNOWN), 0, "power-cycled"),
        (PORT, replace(PORT, link=False), 11, ""),
        (PORT, replace(PORT, link=False), 21, "on, but no link after 20 s"),
        (replace(PORT, link=False), PORT, 0, "power-cycled"),
        (replace(PORT, link=False), replace(PORT, link=False), 4, ""),
        (replace(PORT, link=None), replace(PORT, link=None), 5, "power-cycled"),
        (replace(PORT, detection=Detection.SEARCHING), PORT, 0, "on; nothing took power there before"),
    ],
)
def test_outcome(before: Port, now: Port, age: float, text: str) -> None:
    assert outcome(before, now, age, Patience(start=5)) == text


def test_ranges() -> None:
    assert ranges([3, 1, 2, 7, 10, 9, 9]) == "1-3, 7, 9-10"
    assert ranges([]) == ""
