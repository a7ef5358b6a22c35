"""The NTP thread: one socket, kernel receive timestamps, the clients it has heard. No rule of the protocol.

The hot path is `_answer_waiting`: a request like one that the policy has answered before, under the same clock state,
gets the same first 24 bytes again, and its own three times. All others take `_decide`, through parse and policy.
"""

from __future__ import annotations

import collections
import logging
import select
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from ntp.arrivals import Arrivals
from ntp.clock import LOCAL_STRATUM, SystemClock
from ntp.packet import (
    HEAD_SIZE,
    HEADER_SIZE,
    NANOSECONDS,
    ORIGIN,
    RECEIVE,
    TRANSMIT,
    NtpPacket,
    PacketError,
    timestamp,
    write_timestamp,
)
from ntp.policy import ClockState, Ignore, NtpPolicy
from utility.hosts import Host
from utility.service import Report, Reporter, Stage, Waker

log = logging.getLogger("piman.ntp")

REPORT_INTERVAL = 10  # seconds between two reports of one Pi
MAX_CLIENTS = 4096  # addresses that are remembered
CLOCK_INTERVAL = 1.0  # between two looks at the clock's state
CHRONYD_INTERVAL = 5.0  # between two questions to chronyd
BATCH = 32  # datagrams between two looks at the clock's state and at `stop`
RECEIVE_BUFFER = 1 << 20
POLL_RANGE = range(1, 18)  # log2 of the seconds that a client may tell us in earnest


@dataclass(slots=True)
class NtpClient:
    """Who asked for the time. name is empty for one that hosts.csv does not know.

    poll      seconds between its requests, as it says; 0: it does not say
    last      Unix time of its last request, in whole seconds
    interval  seconds between its last two requests, as we saw it; 0: there was one
    """

    address: str
    name: str = ""
    mac: str = ""
    version: int = 0
    poll: int = 0
    last: int = 0
    interval: int = 0
    requests: int = 0
    reported: int = 0  # Unix time of the last report


class NtpServer:
    """Answers on one address, so that answers come from where they were asked for. Raises OSError if it is taken.

    host_of        the Pi of an address, None for others; Pis are reported as heard every 10 s at most
    clock          the clock's state, asked once a second; None: the system's, see clock.py
    local_stratum  of a clock that nothing sets; None: such a clock is not to be followed
    counters       how many requests were answered, and dropped for each reason

    `_lock` guards which clients there are; what is in one of them is written by the thread of `run` alone.
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
        self._lock = threading.Lock()
        self._clients: OrderedDict[str, NtpClient] = OrderedDict()  # who was reported longest ago first
        self._state: ClockState | None = None
        self._state_until = self._ask_at = 0.0  # monotonic
        self._heads: dict[int, bytes] = {}  # of `_state`: first byte and poll of a request -> first bytes of its reply
        self._peers: dict[bytes, tuple[tuple[str, int], NtpClient]] = {}  # socket address -> the same, and whose it is
        self._reply = bytearray(HEADER_SIZE)
        self._stopping = False
        self.counters: collections.Counter[str] = collections.Counter()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._arrivals = Arrivals(self._socket, BATCH)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            self._socket.bind((str(address), port))
        except OSError:
            self._socket.close()
            raise
        self._system = SystemClock(local_stratum)
        self._clock = clock or self._system.state
        self._waker = Waker()

    @property
    def port(self) -> int:
        """The port it is bound to; of interest where 0 was asked for."""
        return int(self._socket.getsockname()[1])

    def run(self) -> None:
        """Answer until `stop`."""
        poll = select.poll()  # a selector object costs more than an answer does
        for source in (self._socket, self._system, self._waker):
            poll.register(source, select.POLLIN)
        own = self._socket.fileno()
        try:
            while not self._stopping:
                now = time.monotonic()
                if now >= self._ask_at:
                    self._system.ask()
                    self._ask_at = now + CHRONYD_INTERVAL
                for ready, _events in poll.poll((self._ask_at - now) * 1000 + 1):
                    if ready != own and self._system.receive():
                        self._state_until = 0.0
                while not self._stopping and self._answer_waiting():
                    pass
        finally:
            self._socket.close()
            self._system.close()
            self._waker.close()

    def stop(self) -> None:
        """End `run` soon. Any thread, any number of times."""
        self._stopping = True
        self._waker.wake()

    def clients(self) -> list[NtpClient]:
        """Who has asked, as copies, in the order of their addresses. Any thread."""
        with self._lock:
            found = [replace(each) for each in self._clients.values()]
        return sorted(found, key=lambda each: IPv4Address(each.address))

    def _answer_waiting(self) -> bool:
        """Answer a batch of what has come; return whether there may be more."""
        self._renew_state(time.monotonic())
        arrivals, reply, heads, peers = self._arrivals, self._reply, self._heads, self._peers
        send, now_ns = self._socket.sendto, time.time_ns
        answered, taken = 0, arrivals.take()
        for number in range(taken):
            request = arrivals.packets[number]
            seconds, nanoseconds = arrivals.received_at(number)
            sender = bytes(arrivals.senders[number])
            peer, client = peers.get(sender) or (arrivals.sender(number), None)
            size = arrivals.sizes[number]
            head = heads.get(request[0] << 8 | request[2]) if size >= HEADER_SIZE else None
            if head is None:
                head = self._decide(bytes(request[:size]), seconds, nanoseconds, peer)
                if head is None:
                    continue
            reply[:HEAD_SIZE] = head
            reply[ORIGIN] = request[TRANSMIT]
            write_timestamp(reply, RECEIVE, seconds, nanoseconds)
            # As late as can be: what happens after this line is in the client's error.
            sent = now_ns()
            write_timestamp(reply, TRANSMIT.start, sent // NANOSECONDS, sent % NANOSECONDS)
            try:
                send(reply, peer)
            except OSError as error:  # no route back, a full buffer: the client will ask again
                self._drop("could not be sent", peer, str(error))
                continue
            answered += 1
            if client is None:
                client = self._admit(sender, peer)
            client.requests += 1
            if seconds != client.last:
                self._note(client, seconds, request)
        if answered:
            self.counters["answered"] += answered
        return taken == BATCH

    def _decide(self, data: bytes, seconds: int, nanoseconds: int, peer: tuple[str, int]) -> bytes | None:
        """The first bytes of the answer to a request, by the readable way; None: there is none."""
        try:
            request = NtpPacket.parse(data)
        except PacketError as error:
            self._drop("malformed", peer, str(error))
            return None
        received = timestamp(seconds * NANOSECONDS + nanoseconds)
        now = time.monotonic()
        decision = self._policy.receive(request, IPv4Address(peer[0]), received, self._renew_state(now), now)
        if isinstance(decision, Ignore):
            self._drop(decision.reason, peer, decision.reason)
            return None
        head = decision.packet.encode()[:HEAD_SIZE]
        if self._policy.limit is None:  # else the next one may be refused
            self._heads[data[0] << 8 | data[2]] = head
        return head

    def _drop(self, reason: str, peer: tuple[str, int], detail: str) -> None:
        self.counters[reason] += 1
        log.debug("%s:%s: dropped: %s", *peer, detail)

    def _renew_state(self, now: float) -> ClockState:
        if self._state is None or now >= self._state_until:
            self._state, self._state_until = self._clock(), now + CLOCK_INTERVAL
            self._heads.clear()
        return self._state

    # The clients

    def _admit(self, sender: bytes, peer: tuple[str, int]) -> NtpClient:
        """The client of a socket address; where there are too many, the one goes that was reported longest ago."""
        address = peer[0]
        client = self._clients.get(address)
        if client is None:
            client = NtpClient(address)
            with self._lock:
                if len(self._clients) >= MAX_CLIENTS:
                    self._clients.popitem(last=False)
                    self._peers.clear()  # it is among them
                self._clients[address] = client
        if len(self._peers) >= MAX_CLIENTS:
            self._peers.clear()
        self._peers[sender] = (peer, client)
        return client

    def _note(self, client: NtpClient, seconds: int, request: memoryview) -> None:
        """The first request of a client within a second: how it asks, and now and then that it was heard."""
        client.interval = max(0, seconds - client.last) if client.last else 0
        client.last = seconds
        if 0 <= seconds - client.reported < REPORT_INTERVAL:  # below: the clock was set back
            return
        client.reported = seconds
        client.version = request[0] >> 3 & 7
        client.poll = 1 << request[2] if request[2] in POLL_RANGE else 0
        with self._lock:
            self._clients.move_to_end(client.address)
        host = self._host_of(IPv4Address(client.address))
        client.name, client.mac = (host.name, host.mac) if host else ("", "")
        if host is not None:
            every = f", every {client.poll} s" if client.poll else ""
            facts = {"ntp": f"version {client.version}{every}", "ntp_at": str(seconds)}
            self._report(Report(host.mac, Stage.UP, heard="NTP request", sent="time", facts=facts))
