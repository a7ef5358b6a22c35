"""The NTP thread: one socket, kernel receive timestamps, the state of the kernel's clock. No rule of the protocol."""

from __future__ import annotations

import collections
import ctypes
import itertools
import logging
import math
import selectors
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address

from ntp.packet import HEADER_SIZE, Leap, NtpPacket, PacketError, short, timestamp
from ntp.policy import UNSYNCHRONISED_STRATUM, ClockState, Ignore, NtpPolicy
from utility.hosts import Host
from utility.service import Report, Reporter, Stage, Waker

log = logging.getLogger("piman.ntp")

REPORT_INTERVAL = 10.0  # between two reports of one Pi
MAX_REPORTED = 4096  # addresses whose last report is remembered
CLOCK_INTERVAL = 1.0  # between two looks at the kernel's clock state
BATCH = 64  # datagrams between two looks at the waker
MAX_DATAGRAM = 2048
SO_TIMESTAMPNS = 35  # asm-generic/socket.h; Python has no name for it. Also the type of the control message.
TIMESPEC = struct.Struct("@ll")
TRANSMIT_TIME = struct.Struct("!Q")
TRANSMIT_OFFSET = HEADER_SIZE - TRANSMIT_TIME.size

# adjtimex(2)
STA_UNSYNC = 0x0040
TIME_INS, TIME_DEL = 1, 2

SYNCHRONISED_STRATUM = 3
SYNCHRONISED_ID = bytes([127, 0, 0, 1])
LOCAL_STRATUM = 10
LOCAL_ID = bytes([127, 127, 1, 1])
LOCAL_DISPERSION, LOCAL_DRIFT, MAX_LOCAL_DISPERSION = 0.01, 15e-6, 1.0  # s, s/s, s


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


def clock_state(kernel: KernelClock, unix_ns: int, age: float, precision: int, local_stratum: int | None) -> ClockState:
    """What we may honestly say of the clock.

    unix_ns        now, which is also the reference time: the kernel does not tell when it was last set
    age            seconds since the server began
    local_stratum  of a clock that nothing sets; None: such a clock is not to be followed

    Synchronised: some program (chronyd, timesyncd) sets the clock. The kernel knows how far off it may be, and that
    is our root dispersion; it does not know from what stratum, and 3 is what a client of public servers is: reference
    id 127.0.0.1, "this host". Not synchronised: Pis without a clock on a network without another are still better
    off with ours, all the same one: stratum 10, the reference id 127.127.1.1 that means "local clock" everywhere, and
    a dispersion that grows by 15 ppm. It stops at 1 s: clients drop what is above 1.5 s, and then had no time at all.
    """
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


class NtpServer:
    """Answers on one address, so that answers come from where they were asked for. Raises OSError if it is taken.

    host_of   the Pi of an address, None for others; Pis are reported as heard every 10 s at most
    clock     the clock's state, asked once a second; None: the kernel's
    counters  how many requests were answered, and dropped for each reason
    """

    name = "ntp"

    def __init__(
        self,
        address: IPv4Address,
        port: int,
        policy: NtpPolicy,
        host_of: Callable[[IPv4Address], Host | None],
        report: Reporter,
        clock: Callable[[], ClockState] | None = None,
        local_stratum: int | None = LOCAL_STRATUM,
    ) -> None:
        self._policy, self._host_of, self._report = policy, host_of, report
        self._local_stratum = local_stratum
        self._clock = clock or self._kernel_clock
        self._precision = measure_precision()
        self._began = time.monotonic()
        self._state: ClockState | None = None
        self._state_at = 0.0
        self._reported: dict[str, float] = {}
        self._stopping = False
        self.counters: collections.Counter[str] = collections.Counter()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            self._socket.bind((str(address), port))
        except OSError:
            self._socket.close()
            raise
        self._waker = Waker()

    @property
    def port(self) -> int:
        """The port it is bound to; of interest where 0 was asked for."""
        return int(self._socket.getsockname()[1])

    def run(self) -> None:
        """Answer until `stop`."""
        with selectors.DefaultSelector() as selector, self._socket:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._waker, selectors.EVENT_READ)
            while not self._stopping:
                selector.select()
                self._answer_batch()
        self._waker.close()

    def stop(self) -> None:
        """End `run` soon. Any thread, any number of times."""
        self._stopping = True
        self._waker.wake()

    def _answer_batch(self) -> None:
        for _ in range(BATCH):
            try:
                data, control, _flags, peer = self._socket.recvmsg(MAX_DATAGRAM, 64)
            except BlockingIOError:
                return
            self._answer(data, _received_at(control), peer)

    def _answer(self, data: bytes, received_ns: int, peer: tuple[str, int]) -> None:
        now = time.monotonic()
        address = IPv4Address(peer[0])
        try:
            request = NtpPacket.parse(data)
        except PacketError as error:
            self._drop("malformed", peer, str(error))
            return
        decision = self._policy.receive(request, address, timestamp(received_ns), self._clock_at(now), now)
        if isinstance(decision, Ignore):
            self._drop(decision.reason, peer, decision.reason)
            return
        reply = bytearray(decision.packet.encode())
        # As late as can be: what happens after this line is in the client's error.
        TRANSMIT_TIME.pack_into(reply, TRANSMIT_OFFSET, timestamp(time.time_ns()))
        try:
            self._socket.sendto(reply, peer)
        except OSError as error:  # no route back, a full buffer: the client will ask again
            self._drop("could not be sent", peer, str(error))
            return
        self.counters["answered"] += 1
        if now >= self._reported.get(peer[0], 0.0):
            self._report_heard(address, now)

    def _drop(self, reason: str, peer: tuple[str, int], detail: str) -> None:
        self.counters[reason] += 1
        log.debug("%s:%s: dropped: %s", *peer, detail)

    def _report_heard(self, address: IPv4Address, now: float) -> None:
        """Tell that a Pi was heard. For others it is remembered too that there is nothing to tell."""
        if len(self._reported) >= MAX_REPORTED:
            self._reported.clear()
        self._reported[str(address)] = now + REPORT_INTERVAL
        host = self._host_of(address)
        if host is not None:
            self._report(Report(host.mac, Stage.UP, heard="NTP request", sent="time"))

    def _clock_at(self, now: float) -> ClockState:
        if self._state is None or now - self._state_at >= CLOCK_INTERVAL:
            self._state, self._state_at = self._clock(), now
        return self._state

    def _kernel_clock(self) -> ClockState:
        age = time.monotonic() - self._began
        return clock_state(read_kernel_clock(), time.time_ns(), age, self._precision, self._local_stratum)


def _received_at(control: list[tuple[int, int, bytes]]) -> int:
    """When the kernel took the datagram from the wire, Unix time in nanoseconds; now, if it does not say."""
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS) and len(data) >= TIMESPEC.size:
            seconds, nanoseconds = TIMESPEC.unpack_from(data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return time.time_ns()
