"""What is said of the clock: by the kernel, and by chronyd."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ntp import chrony
from ntp.clock import KernelClock, SystemClock, clock_state, measure_precision, read_kernel_clock
from ntp.packet import Leap, timestamp
from ntp.policy import ClockState
from tests.test_ntp_chrony import GOLDEN, GOLDEN_BYTES

LOCAL_ID = bytes([127, 127, 1, 1])
UNSYNCHRONISED = KernelClock(False, Leap.INSERT, 16.0)


class TestState:
    def test_synchronised(self) -> None:
        state = clock_state(KernelClock(True, Leap.INSERT, 0.5), 10**18, 99.0, -21, 10)
        assert state == ClockState(Leap.INSERT, 3, -21, 0, 32768, bytes([127, 0, 0, 1]), timestamp(10**18))

    def test_local_with_a_dispersion_that_grows_to_a_second(self) -> None:
        states = [clock_state(UNSYNCHRONISED, 10**18, age, -21, 10) for age in (0.0, 10_000.0, 1e9)]
        assert [each.root_dispersion for each in states] == [656, 10486, 65536]
        assert {(each.leap, each.stratum, each.reference_id) for each in states} == {(Leap.NONE, 10, LOCAL_ID)}

    def test_local_and_not_to_be_followed(self) -> None:
        assert clock_state(UNSYNCHRONISED, 10**18, 0.0, -21, None).stratum == 16

    def test_chronyd_knows_better_than_the_kernel(self) -> None:
        """A chronyd without `rtcsync` leaves the kernel unaware that its clock is kept."""
        tracking = replace(GOLDEN, root_delay=0.25, root_dispersion=0.125, correction=-0.0625)
        assert clock_state(UNSYNCHRONISED, 10**18, 0.0, -21, 10, tracking) == ClockState(
            Leap.INSERT, 4, -21, 1 << 14, (1 << 13) + (1 << 12), b"\xc0\xa8\x01\x09", timestamp(GOLDEN.reference_ns)
        )

    def test_a_chronyd_without_a_time_is_as_none(self) -> None:
        tracking = replace(GOLDEN, leap=Leap.UNSYNCHRONISED)
        state = clock_state(UNSYNCHRONISED, 10**18, 0.0, -21, 10, tracking)
        assert (state.stratum, state.reference_id) == (10, LOCAL_ID)

    def test_after_the_roll_over_of_2036(self) -> None:
        era_1 = ((1 << 32) - 2_208_988_800) * 10**9
        before, after = (clock_state(UNSYNCHRONISED, era_1 + step, 0.0, -21, 10) for step in (-(10**9), 10**9))
        assert (before.reference_time >> 32, after.reference_time >> 32) == (0xFFFFFFFF, 1)


class TestKernel:
    def test_this_kernel(self) -> None:
        kernel = read_kernel_clock()
        assert 0 <= kernel.max_error < 100
        assert -30 <= measure_precision() < 0

    def test_a_kernel_that_cannot_tell(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Library:
            def __init__(self, _name: None, use_errno: bool) -> None: ...

            def adjtimex(self, _timex: object) -> int:
                return -1

        monkeypatch.setattr("ctypes.CDLL", Library)
        assert read_kernel_clock() == KernelClock(False, Leap.NONE, 1.0)


@contextlib.contextmanager
def chronyd_that_answers(answers: list[bytes]) -> Iterator[int]:
    """A port where each question gets the next answer, with the question's number put in."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        port.bind(("127.0.0.1", 0))
        port.settimeout(10)

        def answer() -> None:
            for data in answers:
                question, peer = port.recvfrom(1000)
                assert len(question) >= len(data)
                port.sendto(data[:16] + question[8:12] + data[20:], peer)

        thread = threading.Thread(target=answer)
        thread.start()
        yield int(port.getsockname()[1])
        thread.join(10)
        assert not thread.is_alive()


def hear(clock: SystemClock) -> bool:
    clock.ask()
    assert select.select([clock], [], [], 10)[0]
    return clock.receive()


class TestSystemClock:
    def test_chronyds_word_is_taken_while_it_is_fresh(self, monkeypatch: pytest.MonkeyPatch) -> None:
        garbage = GOLDEN_BYTES[:50]
        with chronyd_that_answers([garbage, GOLDEN_BYTES]) as port, monkeypatch.context() as patch:
            patch.setattr(chrony, "PORT", port)
            clock = SystemClock(None)
            assert not hear(clock)
            assert clock.state().reference_id != GOLDEN.reference_id
            assert hear(clock)
            state = clock.state()
            assert (state.stratum, state.leap, state.reference_id) == (4, Leap.INSERT, GOLDEN.reference_id)
            patch.setattr("ntp.clock.TRACKING_VALID", 0.0)
            assert clock.state().reference_id != GOLDEN.reference_id
            clock.close()

    def test_no_chronyd(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            monkeypatch.setattr(chrony, "PORT", free.getsockname()[1])
        clock = SystemClock(7)
        assert not clock.receive()
        assert not hear(clock)  # the kernel says that nobody listens there
        clock.ask()
        clock.ask()
        monkeypatch.setattr("ntp.clock.read_kernel_clock", lambda: UNSYNCHRONISED)
        assert clock.state().stratum == 7
        descriptor = clock.fileno()
        clock.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
