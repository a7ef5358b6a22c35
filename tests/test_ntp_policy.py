"""Whom the NTP server answers, and with what."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given

from ntp.packet import Leap, Mode, NtpPacket
from ntp.policy import MAX_CLIENTS, ClockState, Ignore, NtpPolicy, RateLimit, Reply
from tests.test_ntp_packet import GOLDEN, packets

CLOCK = ClockState(Leap.INSERT, 3, -20, 11, 12, b"\x7f\0\0\x01", 0xE8000009_00000000)
PEER = IPv4Address("172.30.4.13")
RECEIVED = 0xE8000008_88888888


def ask(policy: NtpPolicy, request: NtpPacket = GOLDEN, now: float = 0.0, peer: IPv4Address = PEER) -> Reply | Ignore:
    return policy.receive(request, peer, RECEIVED, CLOCK, now)


def test_the_reply_field_by_field() -> None:
    assert ask(NtpPolicy()) == Reply(
        NtpPacket(
            leap=Leap.INSERT,
            version=4,
            mode=Mode.SERVER,
            stratum=3,
            poll=-6,
            precision=-20,
            root_delay=11,
            root_dispersion=12,
            reference_id=b"\x7f\0\0\x01",
            reference_time=0xE8000009_00000000,
            origin_time=GOLDEN.transmit_time,
            receive_time=RECEIVED,
            transmit_time=RECEIVED,
        )
    )


@pytest.mark.parametrize("version", range(8))
@pytest.mark.parametrize("mode", Mode)
def test_who_is_answered(version: int, mode: Mode) -> None:
    decision = ask(NtpPolicy(), replace(GOLDEN, version=version, mode=mode))
    if version in (1, 2, 3, 4) and (mode is Mode.CLIENT or (version, mode) == (1, Mode.RESERVED)):
        assert isinstance(decision, Reply)
        assert decision.packet.version == version
        assert decision.packet.mode is Mode.SERVER
    elif version in (1, 2, 3, 4):
        assert decision == Ignore(f"mode {int(mode)}")
    else:
        assert decision == Ignore(f"version {version}")


def test_a_clock_worth_nothing_says_so() -> None:
    decision = NtpPolicy().receive(GOLDEN, PEER, RECEIVED, replace(CLOCK, stratum=16), 0.0)
    assert isinstance(decision, Reply)
    packet = decision.packet
    assert (packet.leap, packet.stratum, packet.reference_id) == (Leap.UNSYNCHRONISED, 0, b"INIT")


@given(packets)
def test_any_request_gets_at_most_one_header(packet: NtpPacket) -> None:
    decision = ask(NtpPolicy(RateLimit()), packet)
    assert isinstance(decision, Ignore) or len(decision.packet.encode()) == 48


class TestRate:
    def test_a_burst_a_kiss_and_silence(self) -> None:
        policy = NtpPolicy(RateLimit(burst=3, interval=2.0))
        decisions = [ask(policy, now=0.0) for _ in range(6)]
        assert all(isinstance(each, Reply) and each.packet.stratum == 3 for each in decisions[:3])
        kiss = decisions[3]
        assert isinstance(kiss, Reply)
        assert (kiss.packet.stratum, kiss.packet.reference_id) == (0, b"RATE")
        assert kiss.packet.leap is Leap.UNSYNCHRONISED
        assert kiss.packet.origin_time == GOLDEN.transmit_time
        assert kiss.packet.poll == 6
        assert decisions[4:] == [Ignore("asks too often")] * 2
        # Rest pays the debt of two, and the next token is good; a new excess is a new kiss.
        after = ask(policy, now=6.0)
        assert isinstance(after, Reply)
        assert after.packet.stratum == 3
        again = ask(policy, now=6.0)
        assert isinstance(again, Reply)
        assert again.packet.reference_id == b"RATE"

    def test_a_longer_poll_stays(self) -> None:
        policy = NtpPolicy(RateLimit(burst=0))
        kiss = ask(policy, replace(GOLDEN, poll=10))
        assert isinstance(kiss, Reply)
        assert kiss.packet.poll == 10

    def test_one_client_does_not_pay_for_another(self) -> None:
        policy = NtpPolicy(RateLimit(burst=1))
        for i in range(10):
            decision = ask(policy, peer=PEER + i)
            assert isinstance(decision, Reply)
            assert decision.packet.stratum == 3

    def test_a_steady_client_is_never_refused(self) -> None:
        policy = NtpPolicy(RateLimit(burst=2, interval=1.0))
        for i in range(1000):
            decision = ask(policy, now=float(i))
            assert isinstance(decision, Reply)
            assert decision.packet.stratum == 3

    def test_the_table_is_bounded_and_forgets_the_quietest(self) -> None:
        policy = NtpPolicy(RateLimit(burst=1))
        for i in range(MAX_CLIENTS + 50):
            ask(policy, peer=PEER + i)
            ask(policy, peer=PEER)
        assert len(policy._buckets) == MAX_CLIENTS
        assert ask(policy) == Ignore("asks too often")
