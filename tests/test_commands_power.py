"""How the power commands tell of many ports: sums while they are at work, alike outcomes in one line, exit codes."""

from __future__ import annotations

import signal
from ipaddress import IPv4Address

import pytest

from commands.power import MANY, Steps, finish_before_leaving, finish_ports, fold, show
from commands.session import FAILED, PARTLY, Failure
from monitoring.operations import Outcome, Target
from utility.config import Switch
from utility.hosts import Host

LEFT, RIGHT = Switch(0, IPv4Address("172.30.4.254"), "left"), Switch(1, IPv4Address("172.30.4.253"))


def pi(number: int) -> Host:
    return Host(f"b8:27:eb:00:00:{number:02x}", IPv4Address(f"172.30.4.{number}"), f"pi{number}")


def outcome(
    port: int, text: str = "power-cycled", *, ok: bool = True, switch: Switch = LEFT, named: bool = False
) -> Outcome:
    return Outcome(Target(switch, port, pi(port) if named else None), ok, text)


def test_a_few_ports_have_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    steps = Steps(2)
    steps(Target(LEFT, 1, pi(1)), "off")
    steps(Target(RIGHT, 2, None), "off")
    assert capsys.readouterr().out == "pi1 (left port 1): off\n172.30.4.253 port 2: off\n"
    assert steps.has_told(outcome(1, "off", named=True))
    assert not steps.has_told(outcome(1, "on"))
    assert not steps.has_told(outcome(3, "off"))


def test_many_ports_are_counted_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    steps = Steps(48)
    for port in range(1, 49):
        steps(Target(LEFT, port, None), "off for 5 s")
    for port in range(1, 21):
        steps(Target(LEFT, port, None), "on")
    steps(Target(LEFT, 21, None), "waits for power: 20 are starting")
    drawn = capsys.readouterr().out.splitlines()
    assert drawn[47].endswith("48 ports: 48 off for 5 s")
    assert drawn[-1].endswith("48 ports: 27 off for 5 s, 20 on, 1 waits for power: 20 are starting")
    assert not steps.has_told(outcome(1, "on"))


def test_many_ports_have_a_line_each_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    steps = Steps(MANY + 1)
    steps(Target(LEFT, 1, None), "off")
    assert capsys.readouterr().out == "left port 1: off\n"


def test_outcomes_that_are_alike_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = [
        *(outcome(port, named=port < 3) for port in range(1, 8)),
        outcome(9, "no", ok=False, named=True),
        *(outcome(port, switch=RIGHT, named=True) for port in (1, 2)),
    ]
    assert [label for label, _ in fold(outcomes)] == [
        "left ports 1-7", "pi9 (left port 9)", "pi1, pi2 (172.30.4.253 ports 1-2)",
    ]  # fmt: skip
    show(outcomes)
    said = capsys.readouterr()
    assert said.out == "left ports 1-7: power-cycled\npi1, pi2 (172.30.4.253 ports 1-2): power-cycled\n"
    assert said.err == "pi9 (left port 9): no\n"


@pytest.mark.parametrize(
    ("outcomes", "others", "code", "text"),
    [
        ([outcome(1, ok=False, text="no")], 0, FAILED, "1 of 1 ports stayed"),
        ([outcome(1, ok=False, text="no"), outcome(2)], 0, PARTLY, "1 of 2 ports stayed: left port 1"),
        ([outcome(1, ok=False), outcome(2, ok=False)], 0, FAILED, "2 of 2 ports stayed: left ports 1-2"),
        ([outcome(1), outcome(2)], 1, PARTLY, "1 of 2 ports stayed"),
    ],
)
def test_the_summary(outcomes: list[Outcome], others: int, code: int, text: str) -> None:
    with pytest.raises(Failure) as caught:
        finish_ports(outcomes, "ports stayed", others)
    assert (caught.value.code, str(caught.value)) == (code, text)
    finish_ports([outcome(1)], "ports stayed")


def test_a_terminal_that_is_closed_ends_it_as_sigterm_does() -> None:
    before = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        finish_before_leaving()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, "nohup has seen to it"
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        finish_before_leaving()
        assert signal.getsignal(signal.SIGHUP) == signal.getsignal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before)
