"""What the manager's clock is worth: chronyd's own words where one runs here, else the kernel's. No NTP socket.

The kernel (adjtimex(2)) knows whether some program keeps the clock and how far off it may be, not from whom the time
is; and a chronyd without `rtcsync` leaves it unaware that there is one. chronyd is asked on its command port, the one
way that needs neither rights nor a configuration: by default it serves no NTP at all, and its Unix socket is root's.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import math
import secrets
import socket
import time
from dataclasses import dataclass

from ntp import chrony
from ntp.packet import Leap, PacketError, short, timestamp
from ntp.policy import UNSYNCHRONISED_STRATUM, ClockState

# adjtimex(2)
STA_UNSYNC = 0x0040
TIME_INS, TIME_DEL = 1, 2

SYNCHRONISED_STRATUM = 3
SYNCHRONISED_ID = bytes([127, 0, 0, 1])
LOCAL_STRATUM = 10
LOCAL_ID = bytes([127, 127, 1, 1])
LOCAL_DISPERSION, LOCAL_DRIFT, MAX_LOCAL_DISPERSION = 0.01, 15e-6, 1.0  # s, s/s, s

TRACKING_VALID = 30.0  # seconds that chronyd's last answer counts: some questions may be lost


class _Timex(ctypes.Structure):
    """struct timex of <sys/timex.h>."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),  # microseconds
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("unused", ctypes.c_byte * 256),  # the rest, and room
    )


@dataclass(frozen=True, slots=True)
class KernelClock:
    """What adjtimex(2) says of the system clock. max_error in seconds: how far off it is at the worst."""

    synchronised: bool
    leap: Leap
    max_error: float


def read_kernel_clock() -> KernelClock:
    """Ask the kernel. Needs no rights. A kernel that cannot tell counts as not synchronised."""
    timex = _Timex()
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    if state < 0:
        return KernelClock(False, Leap.NONE, MAX_LOCAL_DISPERSION)
    leap = {TIME_INS: Leap.INSERT, TIME_DEL: Leap.DELETE}.get(state, Leap.NONE)
    return KernelClock(not timex.status & STA_UNSYNC, leap, timex.maxerror / 1e6)


def clock_state(
    kernel: KernelClock,
    unix_ns: int,
    age: float,
    precision: int,
    local_stratum: int | None,
    tracking: chrony.Tracking | None = None,
) -> ClockState:
    """What we may honestly say of the clock.

    unix_ns        now, which is also the reference time of the kernel's: it does not tell when it was last set
    age            seconds since the server began
    local_stratum  of a clock that nothing sets; None: such a clock is not to be followed
    tracking       what a chronyd of this machine says, None if there is none

    chronyd, if it has a time: we tell the same clock as it would, so every field is its own. It would also add to its
    answers what it has not slewed yet; we tell the clock as it is, and count that as dispersion.

    Else, the kernel is synchronised: some program (timesyncd) sets the clock. The kernel knows how far off it may be,
    and that is our root dispersion; it does not know from what stratum, and 3 is what a client of public servers is:
    reference id 127.0.0.1, "this host". Not synchronised: Pis without a clock on a network without another are still
    better off with ours, all the same one: stratum 10, the reference id 127.127.1.1 that means "local clock"
    everywhere, and a dispersion that grows by 15 ppm. It stops at 1 s: clients drop what is above 1.5 s, and then had
    no time at all.
    """
    if tracking is not None and tracking.leap is not Leap.UNSYNCHRONISED:
        return ClockState(
            tracking.leap,
            tracking.stratum,
            precision,
            short(tracking.root_delay),
            short(tracking.root_dispersion + abs(tracking.correction)),
            tracking.reference_id,
            timestamp(tracking.reference_ns),
        )
    if kernel.synchronised:
        stratum, name, dispersion = SYNCHRONISED_STRATUM, SYNCHRONISED_ID, kernel.max_error
    else:
        stratum, name = local_stratum or UNSYNCHRONISED_STRATUM, LOCAL_ID
        dispersion = min(LOCAL_DISPERSION + age * LOCAL_DRIFT, MAX_LOCAL_DISPERSION)
    leap = kernel.leap if kernel.synchronised else Leap.NONE
    return ClockState(leap, stratum, precision, 0, short(dispersion), name, timestamp(unix_ns))


def measure_precision() -> int:
    """The precision of the clock as log2 of seconds: the least step between two readings (RFC 5905, section 7.3)."""
    readings = [time.time_ns() for _ in range(200)]
    steps = [later - earlier for earlier, later in itertools.pairwise(readings) if later > earlier]
    return max(-30, math.ceil(math.log2(min(steps, default=1000) / 1e9)))


class SystemClock:
    """The system clock's worth. One thread only, and nothing here waits: chronyd's answer is taken when it is there.

    Wait for `fileno()` to be readable and then call `receive`; call `ask` every few seconds. `close` at the end.
    """

    def __init__(self, local_stratum: int | None) -> None:
        self._local_stratum = local_stratum
        self._precision = measure_precision()
        self._began = time.monotonic()
        self._tracking: chrony.Tracking | None = None
        self._tracked_at = -math.inf
        self._sequence = 0
        self._chronyd = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with contextlib.suppress(OSError):  # no loopback: then there is no chronyd to be heard either
            self._chronyd.connect(("127.0.0.1", chrony.PORT))

    def fileno(self) -> int:
        return self._chronyd.fileno()

    def ask(self) -> None:
        """Send chronyd the question. Where none runs the kernel says so at once, or at the next time."""
        self._sequence = secrets.randbits(32)
        with contextlib.suppress(OSError):
            self._chronyd.send(chrony.tracking_request(self._sequence))

    def receive(self) -> bool:
        """Take what has come from chronyd, if anything; return whether it says something new of the clock."""
        try:
            self._tracking = chrony.Tracking.parse(self._chronyd.recv(512), self._sequence)
        except (OSError, PacketError):  # nobody listens there, nothing has come, or no answer of ours
            return False
        self._tracked_at = time.monotonic()
        return True

    def state(self) -> ClockState:
        """What may be said of the clock now."""
        now = time.monotonic()
        tracking = self._tracking if now - self._tracked_at < TRACKING_VALID else None
        kernel, age = read_kernel_clock(), now - self._began
        return clock_state(kernel, time.time_ns(), age, self._precision, self._local_stratum, tracking)

    def close(self) -> None:
        self._chronyd.close()
