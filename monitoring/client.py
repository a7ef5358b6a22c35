"""Asks the Pis: all of them in turn how they are, one thread, and those that boot whether they are there. No store.

What an answer means is in answers.py, whether a Pi is up in health.py. A poll is one HTTP/1.0 GET: its connection is
the ping. Whatever a Pi does, its poll ends within the timeout and costs the others nothing.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import logging
import math
import os
import select
import selectors
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from monitoring.answers import MAX_ANSWER, AnswerError, clock_offset, is_complete, parse, request
from monitoring.health import AGENT_WORD, BOOTING, Health
from monitoring.metrics import METRICS, Reading
from monitoring.store import PiRow
from utility.config import Monitoring
from utility.hosts import Host
from utility.service import Report, Reporter, Severity, Stage, Waker

log = logging.getLogger("piman.monitoring")

TICK = 1.0  # seconds: polls begin, and end for want of an answer, together; a wake-up costs as much as a poll
AT_ONCE = 10  # begun between two looks at who has answered: a ping's time is that of one such look
_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
BOARD_INTERVAL = 60.0  # between two times that the board is told of an agent that answers
# One that has been silent for so many polls is polled at each REST-th turn only, until something else is heard of it:
# a rack of which half is switched off must not cost what a rack at work costs.
TIRED, REST = 12, 6
SETTLED = 6  # polls in a row that say the same, until it is told: an agent starts later than the kernel


@dataclass(slots=True)
class _Poll:
    """One question to one Pi. `began`, `connected` and `deadline` by the monotonic clock; connected 0: not yet."""

    host: Host
    question: bytes
    socket: socket.socket
    began: float
    deadline: float
    connected: float = 0.0
    sent_at: float = 0.0  # by the clock
    data: bytes = b""


@dataclass(slots=True)
class _Told:
    """What was told of a Pi, so that each change is told once."""

    up: bool = False  # by the last reading
    down: bool = False  # was told
    trouble: str = ""  # with its agent, as it was told
    refused: int = 0  # polls in a row without an agent
    good: int = 0  # polls in a row with one
    board_at: float = -BOARD_INTERVAL  # monotonic
    silent: int = 0  # turns in a row without an answer, polled or not
    heard_at: float = 0.0  # by the board
    host: Host | None = None
    address: str = ""  # of the host
    question: bytes = b""  # to its agent
    board: tuple[float, Stage | None, float] | None = None  # what the board said last


class Poller:
    """The service that polls. Everything of it belongs to its one thread, but for `stop`.

    hosts    who is to be polled; asked every few seconds
    board    what is known of them otherwise; asked as often
    take     what is done with each reading; quick
    report   events, and that a Pi is up
    clock    Unix time
    """

    name = "monitoring"
    look_interval = 5.0  # between two looks at hosts.csv and the board
    once = False  # each Pi, and no more

    def __init__(
        self,
        settings: Monitoring,
        hosts: Callable[[], Iterable[Host]],
        board: Callable[[], Iterable[PiRow]],
        health: Health,
        take: Callable[[Reading], None],
        report: Reporter,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._health, self._clock = settings, health, clock
        self._hosts_of, self._board_of, self._take, self._report = hosts, board, take, report
        self._waker = Waker()
        self._stopping = False
        # By edges, and without Python's selectors: each socket is registered once and goes with its closing.
        self._epoll = select.epoll()
        self._epoll.register(self._waker.fileno(), select.EPOLLIN)
        self._asked: dict[int, _Poll] = {}  # by the socket's number
        self._hosts: dict[str, Host] = {}
        self._stages: dict[str, Stage | None] = {}
        self._told: dict[str, _Told] = {}
        self._due: list[tuple[float, str]] = []  # a heap; a MAC that has left is dropped when its turn comes
        self._polls: dict[str, _Poll] = {}  # under way, the oldest first
        self._look_at = self._woken = 0.0
        self._tick = min(TICK, settings.interval / 10)
        self.polls = self.late = 0  # begun; of them half an interval or more after their time

    def run(self) -> None:
        try:
            while not self._stopping:
                now = time.monotonic()
                if now >= self._look_at:
                    self._look_at = now + self.look_interval
                    self._look_around(now)
                self._expire(now)
                self._begin_due(now)
                found = self._epoll.poll(self._pause())
                self._woken = time.monotonic()  # what comes together came now, whoever's turn it is
                for number, events in found:
                    if number in self._asked:
                        self._go_on(self._asked[number], events)
        finally:
            for poll in self._polls.values():
                poll.socket.close()
            self._epoll.close()
            self._waker.close()

    def stop(self) -> None:
        self._stopping = True
        self._waker.wake()

    def _pause(self) -> float:
        wakes = [self._look_at]
        if self._due:
            wakes.append(self._due[0][0])
        if self._polls:
            wakes.append(next(iter(self._polls.values())).deadline)
        return max(0.0, math.ceil(min(wakes) / self._tick) * self._tick - time.monotonic())

    # Who is polled, and when

    def _look_around(self, now: float) -> None:
        """Take over hosts.csv and the board: newcomers are spread over the interval, those who left are forgotten."""
        hosts = {host.mac: host for host in self._hosts_of()}
        fresh = dict.fromkeys(mac for mac in hosts if mac not in self._hosts)
        for number, mac in enumerate(fresh):
            before = self._health.up(mac, 0.0)  # by an earlier process
            self._told[mac] = _Told(up=before.is_up, down=not before.is_up and before.since > 0)
            if not before.is_up:  # one poll soon; more, when something is heard of it
                self._told[mac].silent = TIRED - 1
            heapq.heappush(self._due, (now + number * self._settings.interval / len(fresh), mac))
        if hosts.keys() != self._hosts.keys():
            self._told = {mac: self._told[mac] for mac in hosts}
            self._health.keep(hosts)
        self._hosts = hosts
        for row in self._board_of():
            if row.mac in hosts:
                told, board = self._told[row.mac], (row.heard_at, row.stage, row.since)
                self._stages[row.mac] = row.stage
                if board == told.board:
                    continue
                told.board = board
                if row.heard_at > told.heard_at:
                    told.heard_at, told.silent = row.heard_at, told.silent if row.mac in fresh else 0
                self._health.heard(row.mac, row.heard, row.heard_at, row.stage, row.since)

    def _begin_due(self, now: float) -> None:
        for _ in range(AT_ONCE):
            if not self._due or self._due[0][0] > now:
                return
            due, mac = heapq.heappop(self._due)
            host = self._hosts.get(mac)
            if host is None:
                continue
            interval = self._settings.interval
            missed = int((now - due) / interval)  # this machine slept, or was too busy
            self.late += now - due > interval / 2
            if not self.once:
                heapq.heappush(self._due, (due + (missed + 1) * interval, mac))
            if mac not in self._polls and not self._rests(self._told[mac]):
                self._begin(host)

    @staticmethod
    def _rests(told: _Told) -> bool:
        """Whether this turn is left out."""
        told.silent += 1
        return told.silent > TIRED and told.silent % REST != 0

    # One poll

    def _begin(self, host: Host) -> None:
        self.polls += 1
        try:
            asked = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError as error:  # no descriptor is left: a word about ourselves, not about the Pi
            log.warning("%s: not polled: %s", host.name, error.strerror)
            return
        told = self._told[host.mac]
        if told.host is not host:
            told.host, told.address = host, str(host.address)
            told.question = request(told.address)
        now = time.monotonic()
        poll = self._polls[host.mac] = _Poll(host, told.question, asked, now, now + self._settings.timeout)
        code = asked.connect_ex((told.address, self._settings.port))
        if code in (0, errno.EINPROGRESS):
            self._asked[asked.fileno()] = poll
            self._epoll.register(asked.fileno(), _EVENTS)
        else:
            self._end_unheard(poll, code)

    def _go_on(self, poll: _Poll, events: int) -> None:
        try:
            if not poll.connected:
                # A connection that failed says so here. A new one has room for these hundred bytes.
                sent_at = self._clock()
                poll.socket.send(poll.question)
                poll.connected, poll.sent_at = self._woken, sent_at
            if events & ~select.EPOLLOUT:
                self._receive(poll)
        except OSError as error:
            self._end_unheard(poll, error.errno or errno.EIO)

    def _receive(self, poll: _Poll) -> None:
        """Take all that is there: its end has nearly always come with it, of which there is no second word."""
        while len(poll.data) <= MAX_ANSWER:
            try:
                data = poll.socket.recv(MAX_ANSWER)
            except BlockingIOError:
                if not is_complete(poll.data):
                    return
                break
            if not data:
                break
            poll.data += data
        self._end_heard(poll)

    def _expire(self, now: float) -> None:
        while self._polls:
            poll = next(iter(self._polls.values()))
            if poll.deadline > now:
                return
            seconds = f"{self._settings.timeout:g} s"
            if poll.connected:
                self._end(poll, {}, {}, f"does not finish its answer within {seconds} ({len(poll.data)} bytes came)")
            else:
                self._end(poll, {}, {}, f"no answer within {seconds}")

    def _end_unheard(self, poll: _Poll, code: int) -> None:
        if code == errno.ECONNREFUSED:  # an answer of the kernel
            poll.connected = poll.connected or self._woken
            self._end(poll, {}, {}, "no agent")
        elif poll.connected:
            self._end(poll, {}, {}, f"breaks off: {os.strerror(code)}")
        else:
            self._end(poll, {}, {}, f"no answer: {os.strerror(code)}")

    def _end_heard(self, poll: _Poll) -> None:
        try:
            answer = parse(poll.data, poll.host.mac)
        except AnswerError as error:
            self._end(poll, {}, {}, str(error))
            return
        values = answer.values
        offset = clock_offset(values.get("clock_offset"), answer.time, poll.sent_at, self._clock())
        if offset is not None:
            values["clock_offset"] = METRICS["clock_offset"].rounded(offset)
        self._end(poll, values, answer.words, "")

    def _end(self, poll: _Poll, values: dict[str, float], words: Mapping[str, str], error: str) -> None:
        del self._polls[poll.host.mac]
        self._asked.pop(poll.socket.fileno(), None)
        poll.socket.close()
        if poll.connected:
            ping = METRICS["ping_ms"].rounded(1000 * (poll.connected - poll.began))
            values["ping_ms"] = max(0.0, ping)
        if poll.host.mac not in self._hosts:  # it left meanwhile
            return
        reading = self._health.take(Reading(poll.host.mac, self._clock(), values, {**words, "error": error}))
        self._take(reading)
        self._tell(poll.host.mac, reading, "" if not poll.connected else error)

    # What is told of it

    def _tell(self, mac: str, reading: Reading, trouble: str) -> None:
        told, is_up, evidence = self._told[mac], bool(reading.values["up"]), reading.words["evidence"]
        if "ping_ms" in reading.values:
            told.silent = 0
        is_booting = self._stages.get(mac) in BOOTING
        if told.up and not is_up and not is_booting:
            told.down = True
            self._event(mac, Severity.WARNING, f"down: {evidence}")
        elif is_up and told.down:
            told.down = False
            self._event(mac, Severity.INFO, f"up again: {evidence}")
        told.up = is_up
        if not reading.words["error"]:
            self._tell_good(mac, told)
        elif trouble and not is_booting:
            self._tell_trouble(mac, told, trouble)

    def _tell_good(self, mac: str, told: _Told) -> None:
        told.refused, told.good = 0, told.good + 1
        now = time.monotonic()
        if self._stages.get(mac) is not Stage.UP or now - told.board_at >= BOARD_INTERVAL:
            self._stages[mac], told.board_at = Stage.UP, now
            self._report(Report(mac, Stage.UP, heard=AGENT_WORD))
        if told.trouble and told.good >= SETTLED:
            told.trouble = ""
            self._event(mac, Severity.INFO, "its agent answers as it should")

    def _tell_trouble(self, mac: str, told: _Told, trouble: str) -> None:
        told.good = 0
        told.refused = told.refused + 1 if trouble == "no agent" else 0
        if told.trouble or 0 < told.refused < SETTLED:
            return
        told.trouble = trouble
        if told.refused:
            text = f"no agent answers on its port {self._settings.port}: of its load and temperature nothing is known"
            self._event(mac, Severity.INFO, text)
        else:
            self._event(mac, Severity.WARNING, f"its agent {trouble}")

    def _event(self, mac: str, severity: Severity, text: str) -> None:
        self._report(Report(mac, event=text, severity=severity))


def answering(addresses: Iterable[IPv4Address], port: int = 22, timeout: float = 0.5) -> set[IPv4Address]:
    """Which of these hosts answer a TCP connection, all asked at once, within `timeout` seconds.

    A refusal is an answer too: it comes from a running kernel with that address (RFC 9293, 3.10.7.1). So it does not
    matter what runs on the port, and no privilege is needed, as a ping would.
    """
    alive: set[IPv4Address] = set()
    deadline = time.monotonic() + timeout
    with contextlib.ExitStack() as stack:
        waiting = stack.enter_context(selectors.DefaultSelector())
        for address in addresses:
            asked = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            asked.setblocking(False)
            code = asked.connect_ex((str(address), port))
            if code == errno.EINPROGRESS:
                waiting.register(asked, selectors.EVENT_WRITE, address)
            elif code in (0, errno.ECONNREFUSED):
                alive.add(address)
        while waiting.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _events in waiting.select(left):
                waiting.unregister(key.fileobj)
                assert isinstance(key.fileobj, socket.socket)
                if key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (0, errno.ECONNREFUSED):
                    alive.add(key.data)
    return alive
