"""NTP messages: bytes and values are the same thing, in both directions."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ntp.packet import (
    ERA,
    UNIX_EPOCH,
    Leap,
    Mode,
    NtpPacket,
    PacketError,
    short,
    timestamp,
    unix_ns,
    write_timestamp,
)

GOLDEN = NtpPacket(
    leap=Leap.DELETE,
    version=4,
    mode=Mode.CLIENT,
    stratum=5,
    poll=-6,
    precision=-23,
    root_delay=0x00010203,
    root_dispersion=0x04050607,
    reference_id=b"\x7f\x08\x09\x0a",
    reference_time=0xE8000001_11111111,
    origin_time=0xE8000002_22222222,
    receive_time=0xE8000003_33333333,
    transmit_time=0xE8000004_44444444,
)
GOLDEN_BYTES = bytes.fromhex(
    "a305fae9 00010203 04050607 7f08090a e800000111111111 e800000222222222 e800000333333333 e800000444444444"
)

u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
packets = st.builds(
    NtpPacket,
    leap=st.sampled_from(Leap),
    version=st.integers(0, 7),
    mode=st.sampled_from(Mode),
    stratum=st.integers(0, 255),
    poll=st.integers(-128, 127),
    precision=st.integers(-128, 127),
    root_delay=u32,
    root_dispersion=u32,
    reference_id=st.binary(min_size=4, max_size=4),
    reference_time=u64,
    origin_time=u64,
    receive_time=u64,
    transmit_time=u64,
)


def test_golden() -> None:
    assert GOLDEN.encode() == GOLDEN_BYTES
    assert NtpPacket.parse(GOLDEN_BYTES) == GOLDEN


def test_what_follows_the_header_is_ignored() -> None:
    assert NtpPacket.parse(GOLDEN_BYTES + b"extension and MAC") == GOLDEN


def test_short() -> None:
    for size in range(48):
        with pytest.raises(PacketError, match=f"^{size} bytes"):
            NtpPacket.parse(GOLDEN_BYTES[:size])


@given(packets)
def test_every_packet_comes_back(packet: NtpPacket) -> None:
    assert NtpPacket.parse(packet.encode()) == packet


@given(st.binary(max_size=100))
def test_any_bytes(data: bytes) -> None:
    try:
        assert NtpPacket.parse(data).encode() == data[:48]
    except PacketError:
        assert len(data) < 48


class TestTime:
    @pytest.mark.parametrize(
        ("ns", "stamp"),
        [
            (0, UNIX_EPOCH << 32),
            (1_500_000_000, (UNIX_EPOCH + 1 << 32) + (1 << 31)),
            (-UNIX_EPOCH * 10**9, 0),
            ((2**32 - UNIX_EPOCH) * 10**9, 0),  # era 1 begins
            ((2**32 - UNIX_EPOCH) * 10**9 - 10**9, 0xFFFFFFFF_00000000),
            (1, (UNIX_EPOCH << 32) + 4),  # 4.29: rounded down
        ],
    )
    def test_known(self, ns: int, stamp: int) -> None:
        assert timestamp(ns) == stamp
        assert unix_ns(stamp, ns + 1000) == ns

    @given(st.integers(-(10**19), 10**20), st.integers(-(10**18), 10**18))
    def test_there_and_back_in_any_era(self, ns: int, error: int) -> None:
        assert 0 <= timestamp(ns) < ERA
        assert unix_ns(timestamp(ns), ns + error) == ns

    @given(st.integers(-(10**19), 10**20))
    @example((2**32 - UNIX_EPOCH) * 10**9 - 1)  # era 0 ends, in February 2036
    @example((2**32 - UNIX_EPOCH) * 10**9)  # era 1 begins
    @example((2**32 - UNIX_EPOCH) * 10**9 + 1)
    def test_the_quick_form_is_the_same(self, ns: int) -> None:
        buffer = bytearray(b"x" * 24)
        write_timestamp(buffer, 8, *divmod(ns, 10**9))
        assert buffer == b"x" * 8 + timestamp(ns).to_bytes(8) + b"x" * 8

    def test_short_format(self) -> None:
        assert [short(value) for value in (0, 1, 0.5, 1e-9, -1, 1e9)] == [0, 65536, 32768, 1, 0, 0xFFFFFFFF]
