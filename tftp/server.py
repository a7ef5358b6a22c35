"""The TFTP thread: sockets, the epoll loop, logging and reporting. No rule of the protocol.

One loop serves all transfers. Each has a socket of its own, bound to the address that the client asked (a Pi drops what
comes from another one) and connected to the client, so that the kernel sorts datagrams, drops strangers' ones, and
tells us when the client's port is closed.

`now` is monotonic time, taken once per turn of the loop.
"""

from __future__ import annotations

import ctypes
import errno
import heapq
import itertools
import logging
import math
import re
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from ipaddress import IPv4Address

from tftp.files import BootFiles, Content, Refusal, concerns, flashes
from tftp.packet import Error, ErrorCode, PacketError, ReadRequest, WriteRequest, parse
from tftp.transfer import Blocks, Netascii, Outcome, PacketCache, ReadTransfer, Sending, negotiate
from utility.hosts import Host
from utility.service import FileRecord, FileRecorder, Report, Reporter, Severity, Stage, Waker

log = logging.getLogger("piman.tftp")

Peer = tuple[str, int]

_IP_PKTINFO = 8  # linux/in.h; `socket` names it only from Python 3.14
_PKTINFO = struct.Struct("=I4s4s")  # interface, local address to answer from, destination of the datagram

_IP_MTU = 14
_SOL_UDP, _UDP_SEGMENT = 17, 103
_MOST_SEGMENTS, _LARGEST_DATAGRAM = 64, 65507
# Texts and OACKs go through the same socket, and must not be cut: they are shorter than the blocks from here on.
_SMALLEST_SEGMENT = 512
_HEADERS = 28  # IP and UDP
# What the kernel says where the way out has no checksum offload, the route's MTU fell, or it does not know the option.
_NO_SEGMENTATION = (errno.EINVAL, errno.EIO, errno.ENOPROTOOPT, errno.EMSGSIZE, errno.EOPNOTSUPP)

_LARGEST_REQUEST = 2048  # RFC 2347 says 512; longer ones are cut off and then refused or malformed
_LARGEST_ANSWER = 400  # an ACK or an ERROR; Python has objects of up to 512 bytes at hand
_REQUESTS_A_TURN = 64  # so that a flood of requests does not starve the transfers
_EVENTS_A_TURN = 256
_REPORT_INTERVAL = 0.25
_SILENCE = 5.0  # a Pi that asked for nothing for so long, and asks again, has been restarted
_STALLED = 1.0
_NOTED = 4096  # things that have been logged, and are not logged again
_FORGET_AFTER = 30.0  # between two looks at which prepared packets are still used
_LARGE_FILE = 1_000_000

_KERNEL = re.compile(r"(?:kernel|initramfs|initrd).*")
_FIRST_FILE = re.compile(r"bootcode\.bin|start\w*\.elf")

_ENDINGS = {
    Outcome.COMPLETE: "completed",
    Outcome.ABORTED: "aborted by the client",
    Outcome.GONE: "client gone",
    Outcome.TIMEOUT: "timed out",
    Outcome.FAILED: "failed",
}


@dataclass(slots=True)
class _Boot:
    """What a known Pi has been doing: how often it asked, when it was last heard, whether it is past its firmware."""

    requests: int = 0
    last: float = -math.inf
    kernel: bool = False


def _no_record(_record: FileRecord) -> None:
    """Nobody keeps the records."""


class _Session:
    """A transfer and what belongs to it."""

    __slots__ = (
        "began",
        "boot",
        "burst",
        "channel",
        "content",
        "due",
        "host",
        "is_shown",
        "number",
        "peer",
        "quick",
        "recv",
        "report_at",
        "reported",
        "request",
        "send",
        "stage",
        "started",
        "transfer",
    )

    def __init__(
        self, channel: socket.socket, peer: Peer, request: bytes, content: Content, transfer: ReadTransfer, now: float
    ) -> None:
        self.channel = channel
        self.recv, self.send, self.quick = channel.recv, channel.send, transfer.quick  # looked up once, for the loop
        self.burst: int | None = None  # bytes that the kernel cuts into packets; 0: it does not; None: not asked yet
        self.peer = peer
        self.request = request
        self.content = content
        self.transfer = transfer
        self.started = now
        self.began = time.time()
        self.due = math.inf  # its earliest entry in the timer heap
        self.host: Host | None = None
        self.boot = _Boot()
        self.number = 0  # of the host's requests
        self.stage: Stage | None = None
        self.is_shown = False  # its bytes are on the board
        self.report_at = math.inf
        self.reported = 0  # bytes that the board shows

    @property
    def done(self) -> int:
        """Bytes that the client has."""
        return min(self.transfer.acknowledged * self.transfer.blksize, self.content.size)


class TftpServer:
    """Serves the boot folder to anyone who asks, and reports what known Pis fetch.

    `record` is told of each file that a known Pi asked for, when its transfer has ended or there is no such file.
    `counters` counts drops and endings by reason. The constructor raises OSError where the address cannot be had.
    """

    name = "tftp"

    def __init__(
        self,
        address: IPv4Address,
        port: int,
        files: BootFiles,
        host_of: Callable[[IPv4Address], Host | None],
        report: Reporter,
        max_transfers: int = 2000,
        max_per_client: int = 256,
        record: FileRecorder = _no_record,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.max_transfers = max_transfers
        self.max_per_client = max_per_client
        self._files = files
        self._host_of = host_of
        self._report = report
        self._record = record
        self._cache = PacketCache()
        self._sessions: dict[int, _Session] = {}  # by file descriptor
        self._by_peer: dict[Peer, _Session] = {}
        self._per_client: Counter[str] = Counter()
        self._boots: dict[str, _Boot] = {}  # by MAC; known Pis only
        self._noted: set[Hashable] = set()
        self._forget_at = 0.0
        self._timers: list[tuple[float, int, _Session]] = []
        self._tie = itertools.count()
        self._stopping = False
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._refusals = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._listener.setblocking(False)
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)  # a rack that is switched on
            self._listener.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            self._listener.bind((str(address), port))
            # Errors go out of a port that is not ours either, as a client takes its first answer's port for the
            # transfer's; what comes back to it is not read.
            self._refusals.setblocking(False)
            self._refusals.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            self._refusals.bind((str(address), 0))
        except OSError:
            self._listener.close()
            self._refusals.close()
            raise
        self.port: int = self._listener.getsockname()[1]
        self._waker = Waker()
        self._poll = select.epoll()
        self._poll.register(self._listener, select.EPOLLIN)
        self._poll.register(self._waker, select.EPOLLIN)

    def stop(self) -> None:
        """Make `run` return. Any thread, any number of times."""
        self._stopping = True
        self._waker.wake()

    def run(self) -> None:
        """Serve until `stop`; then tell the clients in flight, and close every socket."""
        sessions, timers, poll, listener = self._sessions, self._timers, self._poll.poll, self._listener.fileno()
        now = time.monotonic()
        try:
            while not self._stopping:
                events = poll(timers[0][0] - now if timers else self._idle(now), _EVENTS_A_TURN)
                now = time.monotonic()
                for descriptor, _event in events:
                    session = sessions.get(descriptor)
                    if session is None:
                        if descriptor == listener:
                            self._accept(now)
                        continue
                    # The way of nearly every datagram, as short as it can be; `_serve` has the readable form.
                    try:
                        datagram = session.recv(_LARGEST_ANSWER)
                        packet = session.quick(datagram, now)
                        if packet is not None:
                            session.send(packet)
                            continue
                    except BlockingIOError:  # taken before, or no room to send, which the timer makes good
                        continue
                    except OSError as error:
                        self._channel_error(session, error)
                        self._act(session, [], now)
                        self._drain(session, now)
                        continue
                    self._serve(session, datagram, now)
                if timers and timers[0][0] <= now:
                    self._run_timers(now)
        finally:
            self._close()

    def _idle(self, now: float) -> float:
        """Seconds until prepared packets are looked through; negative: none are held, wait for a request."""
        self._forget_unused(now)
        return self._forget_at - now if self._cache.held else -1.0

    def _forget_unused(self, now: float) -> None:
        if now >= self._forget_at:
            held = self._cache.held
            self._cache.age()
            self._forget_at = now + _FORGET_AFTER
            if self._cache.held < held:
                _return_memory()

    def _close(self) -> None:
        farewell = Error(ErrorCode.NOT_DEFINED, "the server stops").encode()
        for session in list(self._sessions.values()):
            self._send(session, [farewell])
            self._forget(session)
        self._poll.close()
        self._listener.close()
        self._refusals.close()
        self._waker.close()

    # Requests

    def _accept(self, now: float) -> None:
        for _ in range(_REQUESTS_A_TURN):
            try:
                datagram, extra, _flags, peer = self._listener.recvmsg(_LARGEST_REQUEST, 64)
            except BlockingIOError:
                return
            except OSError as error:  # an ICMP error for something sent earlier: nobody's
                self._drop(f"socket: {error.strerror}", ("", 0))
                continue
            local = next(
                (
                    socket.inet_ntoa(_PKTINFO.unpack(data[: _PKTINFO.size])[1])
                    for level, kind, data in extra
                    if level == socket.IPPROTO_IP and kind == _IP_PKTINFO
                ),
                "0.0.0.0",
            )
            self._request(datagram, local, peer, now)

    def _request(self, datagram: bytes, local: str, peer: Peer, now: float) -> None:
        """One datagram to our well-known port."""
        try:
            packet = parse(datagram)
        except PacketError as error:
            self._drop("malformed", peer, str(error))
            return
        if isinstance(packet, WriteRequest):
            self._refuse(Refusal(ErrorCode.ACCESS_VIOLATION, "this server is read-only"), local, peer)
        elif not isinstance(packet, ReadRequest):
            # A Pi that gives up before any answer tells this port so (an ERROR).
            self._drop(f"stray {type(packet).__name__}", peer)
        elif not self._is_duplicate(datagram, peer, now):
            self._read_request(packet, datagram, local, peer, now)

    def _is_duplicate(self, datagram: bytes, peer: Peer, now: float) -> bool:
        """Whether a transfer of that client's port already answers the request; one that does not is ended.

        A boot ROM uses the same port at each start, so the same request on top of a transfer that has stalled
        midway is a Pi that was restarted, and another request is a client that has moved on.
        """
        running = self._by_peer.get(peer)
        if running is not None:
            self._drain(running, now)  # its last ACK may be there
            running = self._by_peer.get(peer)
        if running is None:
            return False
        transfer = running.transfer
        if running.request == datagram and (not transfer.heard or now - transfer.progress < _STALLED):
            self._drop("duplicate request", peer)
            return True
        self.counters["superseded"] += 1
        if running.host:
            self._keep(running, running.host, "aborted", now)
        self._forget(running)
        return False

    def _read_request(self, packet: ReadRequest, datagram: bytes, local: str, peer: Peer, now: float) -> None:
        if len(self._sessions) >= self.max_transfers:
            self._drop("too many transfers", peer)  # silence: the client asks again, and a Pi takes an error for a 404
            return
        if self._per_client[peer[0]] >= self.max_per_client:
            self._drop("too many transfers of one client", peer)
            return
        if packet.mode not in ("octet", "netascii"):
            self._refuse(Refusal(ErrorCode.ILLEGAL_OPERATION, "the mode is not octet or netascii"), local, peer)
            return
        host = self._host_of(IPv4Address(peer[0]))
        content = self._files.open(packet.filename, host)
        if isinstance(content, Refusal):
            self._refuse(content, local, peer)
            self._log_missing(packet.filename, content, host, peer)
            if host:
                stage = self._stage(host, packet.filename.rpartition("/")[2], False, now)
                self._report(Report(host.mac, stage, f"RRQ {packet.filename[:80]}", content.reason))
                if content.code is ErrorCode.FILE_NOT_FOUND:
                    self._record(FileRecord(host.mac, packet.filename, 0, 0, time.time(), 0.0, 0, "missing"))
            return
        session = self._open_session(packet, datagram, content, local, peer, now)
        if session is None:
            return
        if host:
            self._follow(session, host, now)
        self._warn(session)
        self._act(session, session.transfer.start(now), now)

    def _open_session(
        self, packet: ReadRequest, datagram: bytes, content: Content, local: str, peer: Peer, now: float
    ) -> _Session | None:
        if packet.mode == "octet":
            terms = negotiate(packet.options, content.size)
            blocks = Blocks(content.read, terms.blksize, self._cache, content.identity)
        else:  # the size in netascii is not known before the end
            terms = negotiate(packet.options, None)
            blocks = Blocks(Netascii(content.read), terms.blksize)
        channel = None
        try:
            channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            channel.setblocking(False)
            channel.bind((local, 0))
            channel.connect(peer)
            self._poll.register(channel, select.EPOLLIN | select.EPOLLET)
        except OSError as error:  # out of descriptors or ports, or a peer that cannot be: port 0, a broadcast address
            self._drop(f"no socket: {error.strerror}", peer)
            content.close()
            if channel:
                channel.close()
            return None
        session = _Session(channel, peer, datagram, content, ReadTransfer(blocks, terms), now)
        self._sessions[channel.fileno()] = session
        self._by_peer[peer] = session
        self._per_client[peer[0]] += 1
        self.counters["transfers"] += 1
        log.debug("%s:%d RRQ %s %s %s", *peer, content.name, packet.mode, packet.options)
        return session

    def _refuse(self, refusal: Refusal, local: str, peer: Peer) -> None:
        self._drop(f"refused: {refusal.reason}", peer)
        error = Error(refusal.code, refusal.reason).encode()
        source = _PKTINFO.pack(0, socket.inet_aton(local), bytes(4))
        try:
            self._refusals.sendmsg([error], [(socket.IPPROTO_IP, _IP_PKTINFO, source)], 0, peer)
        except OSError as problem:
            self._drop(f"not sent: {problem.strerror}", peer)

    def _drop(self, reason: str, peer: Peer, detail: str = "") -> None:
        self.counters[reason] += 1
        log.debug("%s:%d: %s %s", *peer, reason, detail)

    def _log_missing(self, name: str, refusal: Refusal, host: Host | None, peer: Peer) -> None:
        """A line for an operator, once per known Pi and name; what a stranger asks for is not worth one."""
        if host and not refusal.quiet and self._is_new((host.mac, name)):
            log.info("%s asked for %r: %s", host.name, name, refusal.reason)
        else:
            log.debug("%s:%d asked for %r: %s", *peer, name, refusal.reason)

    def _is_new(self, note: Hashable) -> bool:
        """Whether this has not been logged yet; False too where too much has been."""
        if note in self._noted or len(self._noted) >= _NOTED:
            return False
        self._noted.add(note)
        return True

    def _warn(self, session: _Session) -> None:
        """Tell once of each file what boot loaders cannot do with it: an event of the Pi that asks (whoever keeps the
        event logs it), or a line where nobody knows who asks. How far a stranger's client counts is its own affair."""
        content, transfer, host = session.content, session.transfer, session.host
        counts_on = transfer.windowsize > 1 or host is None
        for text in concerns(content.name, content.size, transfer.blksize, counts_on):
            if not self._is_new((content.identity, text)):
                continue
            if host:
                self._report(Report(host.mac, event=text, severity=Severity.WARNING))
            else:
                log.warning("%s", text)

    # Transfers

    def _serve(self, session: _Session, datagram: bytes, now: float) -> None:
        """Take a datagram and those behind it."""
        self._act(session, session.transfer.receive(datagram, now), now)
        self._drain(session, now)

    def _drain(self, session: _Session, now: float) -> None:
        """Take what is there. epoll tells of each datagram once (EPOLLET, which spares it a second look at every
        socket); what the short way left behind, a duplicate say, is met here at the next event or by the timer."""
        while session.transfer.result is None:
            try:
                datagram = session.recv(_LARGEST_ANSWER)
            except BlockingIOError:
                return
            except OSError as error:
                self._channel_error(session, error)
                self._act(session, [], now)
                continue
            self._act(session, session.transfer.receive(datagram, now), now)

    def _act(self, session: _Session, packets: Sending, now: float) -> None:
        """Send, and do what the transfer's state asks for."""
        if packets:
            self._send(session, packets)
        transfer = session.transfer
        if transfer.result is not None:
            self._finish(session, now)
            return
        if transfer.deadline < session.due:
            session.due = transfer.deadline
            heapq.heappush(self._timers, (session.due, next(self._tie), session))
        if now >= session.report_at:
            self._report_progress(session, now)

    def _send(self, session: _Session, packets: Sending) -> None:
        stride = session.transfer.blksize + 4
        try:
            for packet in packets:
                if isinstance(packet, bytes) or len(packet) <= stride:
                    session.send(packet)
                else:
                    self._send_run(session, packet, stride)
        except OSError as error:
            self._channel_error(session, error)

    def _send_run(self, session: _Session, run: memoryview, stride: int) -> None:
        """Several packets in one system call where the kernel cuts them, else one by one."""
        if session.burst is None:
            session.burst = _ask_segmentation(session.channel, stride)
        at = 0
        while session.burst and at < len(run):
            try:
                session.send(run[at : at + session.burst])
                at += session.burst
            except OSError as error:
                if error.errno not in _NO_SEGMENTATION:
                    raise
                session.channel.setsockopt(_SOL_UDP, _UDP_SEGMENT, 0)
                session.burst = 0
                self._drop(f"not segmented: {error.strerror}", session.peer)
        for start in range(at, len(run), stride):
            session.send(run[start : start + stride])

    def _channel_error(self, session: _Session, error: OSError) -> None:
        """A closed port ends the transfer; anything else (a full buffer, a link that is down) is a lost datagram."""
        if error.errno == errno.ECONNREFUSED:
            session.transfer.refused()
        else:
            self._drop(f"not sent: {error.strerror}", session.peer)

    def _run_timers(self, now: float) -> None:
        """Call `tick` where it is time. A transfer's entry may be early, as each ACK moves its deadline on."""
        self._forget_unused(now)
        timers = self._timers
        while timers and timers[0][0] <= now:
            when, _tie, session = heapq.heappop(timers)
            if when != session.due:  # it has ended, or has another entry that is earlier
                continue
            session.due = math.inf
            if now >= session.transfer.deadline:
                self._drain(session, now)
            if session.transfer.result is None:
                before = session.transfer.resent
                self._act(session, session.transfer.tick(now), now)
                self.counters["resent"] += session.transfer.resent - before

    def _forget(self, session: _Session) -> None:
        """Close what the session holds."""
        session.due = math.nan  # equals nothing: its timer entry is stale
        del self._sessions[session.channel.fileno()]
        if self._by_peer.get(session.peer) is session:
            del self._by_peer[session.peer]
        self._per_client[session.peer[0]] -= 1
        if not self._per_client[session.peer[0]]:
            del self._per_client[session.peer[0]]
        session.channel.close()  # epoll forgets it by itself
        session.content.close()

    # What an operator hears of it

    def _stage(self, host: Host, base: str, served: bool, now: float) -> Stage | None:
        """The stage that a request shows. Between kernel and initramfs a Pi asks for more firmware: that is no step
        back, unless it has been silent, or asks for the first file of all."""
        boot = self._boots.setdefault(host.mac, _Boot())
        restarted = now - boot.last > _SILENCE or _FIRST_FILE.fullmatch(base) is not None
        boot.last = now
        boot.requests += 1
        if served and _KERNEL.fullmatch(base):
            boot.kernel = True
            return Stage.KERNEL
        if boot.kernel and not restarted:
            return None
        boot.kernel = False
        return Stage.FIRMWARE

    def _follow(self, session: _Session, host: Host, now: float) -> None:
        """Report a known Pi's transfer, and go on reporting if it is a large one."""
        name, size = session.content.name, session.content.size
        stage = self._stage(host, name.rpartition("/")[2], True, now)
        session.host = host
        session.boot = self._boots[host.mac]
        session.number = session.boot.requests
        session.stage = stage
        session.is_shown = stage is Stage.KERNEL or size > _LARGE_FILE
        if session.is_shown:
            session.report_at = now + _REPORT_INTERVAL
            self._report(Report(host.mac, stage, f"RRQ {name}", f"block 1 of {name}", done=0, total=size))
        else:
            self._report(Report(host.mac, stage, f"RRQ {name}", f"block 1 of {name}"))

    def _report_progress(self, session: _Session, now: float) -> None:
        """Tell how far it is, if it went on: what a Pi that lost power left behind is sent to for some seconds more."""
        session.report_at = now + _REPORT_INTERVAL
        name, transfer, done = session.content.name, session.transfer, session.done
        if session.host is None or done == session.reported:
            return
        session.reported = done
        session.boot.last = now
        heard, sent = f"ACK {transfer.acknowledged} of {name}", f"block {transfer.sent} of {name}"
        mac, size = session.host.mac, session.content.size
        self._report(Report(mac, session.stage, heard, sent, done=done, total=size, began=session.began))

    def _finish(self, session: _Session, now: float) -> None:
        result = session.transfer.result
        assert result is not None
        outcome, name, size = result.outcome, session.content.name, session.content.size
        self.counters[_ENDINGS[outcome]] += 1
        taken = max(now - session.started, 1e-6)
        done = session.done
        resent = session.transfer.resent
        self._forget(session)
        text = f"{name} {_ENDINGS[outcome]} after {done} of {size} bytes in {taken:.1f} s"
        if outcome is Outcome.COMPLETE and size > _LARGE_FILE:
            text += f", {done / taken / 1e6:.1f} MB/s"
        if resent:
            text += f", {resent} packets sent again"
        if result.reason:
            text += f" ({result.reason[:80]!r})"
        host = session.host
        if host is None:
            log.debug("%s:%d: %s", *session.peer, text)
            return
        self._keep(session, host, outcome, now)
        if outcome is Outcome.COMPLETE:
            self._finish_complete(session, host, text)
            return
        # A Pi that has asked for more since has left this transfer by itself: a probe.
        moved_on = session.boot.requests > session.number
        if outcome is Outcome.FAILED or (outcome is Outcome.TIMEOUT and not moved_on):
            log.debug("%s: %s", host.name, text)  # whoever keeps the event logs it
            severity = Severity.ERROR if outcome is Outcome.FAILED else Severity.WARNING
            self._report(
                Report(host.mac, sent=f"block {session.transfer.sent} of {name}", event=text, severity=severity)
            )
        elif outcome is Outcome.ABORTED and result.code not in (ErrorCode.NOT_DEFINED, ErrorCode.OPTION_REFUSED):
            log.info("%s: %s", host.name, text)
        else:
            log.debug("%s: %s", host.name, text)

    def _keep(self, session: _Session, host: Host, outcome: str, now: float) -> None:
        content, resent = session.content, session.transfer.resent
        taken = now - session.started
        done, blksize = session.done, session.transfer.blksize
        self._record(
            FileRecord(host.mac, content.name, content.size, done, session.began, taken, resent, outcome, blksize)
        )

    def _finish_complete(self, session: _Session, host: Host, text: str) -> None:
        name, size = session.content.name, session.content.size
        if flashes(name.rpartition("/")[2]):
            log.info("%s: %s; the Pi rewrites its EEPROM with it", host.name, text)
        else:
            log.log(logging.INFO if size > _LARGE_FILE else logging.DEBUG, "%s: %s", host.name, text)
        if session.is_shown:
            everything = f"all of {name}"
            told = Report(host.mac, session.stage, everything, everything, done=size, total=size, began=session.began)
            self._report(told)


def _return_memory() -> None:
    """Have the C library give freed memory back to the kernel, where it can (glibc); by itself it keeps it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _ask_segmentation(channel: socket.socket, stride: int) -> int:
    """Ask the kernel to cut what this socket sends into packets of `stride` bytes (UDP_SEGMENT, Linux 4.18).

    Returns how many bytes it takes at once; 0 where it does not, or where packets would have to be fragmented.
    """
    try:
        if stride < _SMALLEST_SEGMENT or stride + _HEADERS > channel.getsockopt(socket.IPPROTO_IP, _IP_MTU):
            return 0
        channel.setsockopt(_SOL_UDP, _UDP_SEGMENT, stride)
    except OSError:
        return 0
    return min(_MOST_SEGMENTS, _LARGEST_DATAGRAM // stride) * stride
