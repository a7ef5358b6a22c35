"""The DHCP thread: its sockets, the replies that wait, and the log. Must hold no rule of the protocol.

More than one socket, because a client without an address can be neither heard nor answered through one of the kernel's:

  raw   AF_PACKET on the interface. Hears every datagram to port 67, once, broadcast or to us, and what other servers
        say to port 68; sends frames straight to a MAC. A filter in the kernel lets nothing else up.
  arp   the same for ARP, where the policy has a use for it: who has an address of the pool, and where is a Pi.
  udp   bound to port 67, so that no other program takes it and the kernel answers no renewal with "port unreachable".
        Its filter lets nothing in, so nothing is handled twice. Sends to clients that have their address.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import heapq
import itertools
import logging
import selectors
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address

from dhcp.backlog import LULL, Backlog
from dhcp.frames import ETHERTYPE_ARP, ETHERTYPE_IP, Frame, encode_arp_request, parse_arp, parse_frame
from dhcp.packet import PacketError, describe, parse
from dhcp.policy import DhcpPolicy
from dhcp.prepared import Answered, Prepared
from dhcp.proxy import ProxyPolicy
from dhcp.replies import (
    BROADCAST,
    CLIENT_PORT,
    Action,
    ForgetLease,
    Ignore,
    Notice,
    Pin,
    Probe,
    Reply,
    SaveLease,
    Unpin,
)
from dhcp.sockets import PACKET_OTHERHOST, PACKET_OUTGOING, FrameSocket, arp, open_raw, open_udp, udp_to
from utility.service import Report, Reporter, Waker

log = logging.getLogger("piman.dhcp")

TFTP_PORT = 69
CROWD = 8  # frames that wait at once: more than the rules get through before anybody notices
CHECK_EACH = 16  # so many answers by recognition, one is held against what the rules say
LINK_CHECK = 1.0  # seconds between looks at an interface that went down

IP_PKTINFO = 8  # linux/in.h

# linux/sockios.h, linux/if_arp.h
SIOCDARP, SIOCSARP = 0x8953, 0x8955
ATF_COM, ATF_PERM = 2, 4
ARPHRD_ETHER = 1
_ARP_REQUEST = struct.Struct("=HH4s8xH6s8xI16x16s")


class DhcpServer:
    """Answers what comes in on one interface. The constructor binds, and raises OSError with a sentence.

    report_late                 as `report`, of something that was seen at that Unix time
    save_lease, forget_lease    where the pool's leases are kept: MAC, address, Unix time of its end; MAC
    counters                    "received", "sent", and what was dropped per reason
    """

    name = "dhcp"

    def __init__(
        self,
        interface: str,
        policy: DhcpPolicy | ProxyPolicy,
        report: Reporter,
        port: int = 67,
        report_late: Callable[[Report, float], None] | None = None,
        save_lease: Callable[[str, IPv4Address, float], None] = lambda *_: None,
        forget_lease: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._interface = interface
        self._policy = policy
        self._report = report
        self._report_late = report_late or (lambda seen, _when: report(seen))
        self._port = port
        self._save_lease, self._forget_lease = save_lease, forget_lease
        self._server = policy.settings.server
        self._destinations = {self._server, policy.settings.network.broadcast_address, BROADCAST}
        # A Pi's first request for a file tells where it is, if another server gave it its address.
        ports = (port, CLIENT_PORT, TFTP_PORT) if policy.is_proxy else (port, CLIENT_PORT)
        with contextlib.ExitStack() as opened:  # what was opened is closed where a later one cannot be
            self._raw = opened.enter_context(open_raw(interface, ETHERTYPE_IP, udp_to(*ports, ours=self._server)))
            self._arp = None
            if policy.probes:
                self._arp = opened.enter_context(open_raw(interface, ETHERTYPE_ARP, arp()))
            self._udp = opened.enter_context(open_udp(interface, port))
            self._waker = Waker()
            self._opened = opened.pop_all()
        self._mac = self._raw.mac
        self._stopped = False
        self._link_lost = False
        self._order = itertools.count()  # replies of one deadline leave in the order in which they were decided
        self._waiting: list[tuple[float, int, Reply]] = []
        self._pinned: dict[IPv4Address, str] = {}
        self._prepared = None if isinstance(policy, ProxyPolicy) else Prepared(policy.settings, policy.plain_host)
        self._backlog = Backlog()
        self._epoch = 0.0  # Unix time of the monotonic clock's 0
        self._quiet = False

    def stop(self) -> None:
        self._stopped = True
        self._waker.wake()

    def run(self) -> None:
        """Serve until `stop()`. Raises OSError where the interface is gone."""
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._waker, selectors.EVENT_READ)
                selector.register(self._raw, selectors.EVENT_READ, (self._raw, self._handle_all))
                if self._arp is not None:
                    selector.register(self._arp, selectors.EVENT_READ, (self._arp, self._handle_arp))
                while not self._stopped:
                    ready = selector.select(self._timeout())
                    for key, _ in ready:
                        if key.data is not None:
                            sock, handle = key.data
                            handle(self._receive(sock))
                    self._tick()
                    self._quiet = not ready
                    self._write_up(self._backlog.due(time.monotonic(), self._quiet))
                    if self._link_lost:
                        self._check_link()
        finally:
            self._write_up(len(self._backlog))
            for address in list(self._pinned):
                self._unpin(address)
            self._opened.close()
            self._waker.close()

    def _timeout(self) -> float | None:
        times = [self._waiting[0][0]] if self._waiting else []
        if self._policy.deadline is not None:
            times.append(self._policy.deadline)
        timeout = max(0.0, min(times) - time.monotonic()) if times else LINK_CHECK if self._link_lost else None
        if self._backlog:
            pause = 0.0 if self._quiet else LULL
            return pause if timeout is None else min(pause, timeout)
        return timeout

    # --- in ---

    def _receive(self, sock: FrameSocket) -> list[tuple[bytes, bool]]:
        """The frames to us that wait, and of each whether its checksum is filled in."""
        try:
            frames = sock.receive()
        except OSError as error:
            self._link_lost = True
            log.warning("%s: %s", self._interface, error.strerror)
            return []
        self._link_lost = False
        ours = []
        for data, checksum_ready, kind in frames:
            # Frames of another VLAN are among those to another host: the kernel marks them so (vlan_do_receive).
            if kind in (PACKET_OTHERHOST, PACKET_OUTGOING):
                self._drop("not to us", f"packet type {kind}")
            else:
                ours.append((data, checksum_ready))
        return ours

    def _handle_all(self, frames: list[tuple[bytes, bool]]) -> None:
        """By the rules; where many wait, those that can be recognised are answered first, and written up later."""
        crowded = len(frames) >= CROWD or bool(self._backlog)
        if self._prepared is None or not crowded or log.isEnabledFor(logging.DEBUG):
            for data, checksum_ready in frames:
                self._handle(data, checksum_ready)
            return
        now = time.monotonic()
        if not self._backlog:
            self._epoch = time.time() - now  # the same for all of them, so that their order is kept
        replies: list[bytes] = []
        for data, checksum_ready in frames:
            answered = self._prepared.answer(data, now, checksum_ready)
            if answered is not None:
                replies.append(answered.reply)
                self._backlog.add(answered)
            else:
                self._send_all(replies)
                replies.clear()
                self._handle(data, checksum_ready)
        self._send_all(replies)

    def _send_all(self, replies: list[bytes]) -> None:
        if not replies:
            return
        failures = self._raw.send_all(replies)
        for error in failures:
            self._drop("not sent", f"one of a crowd: {error}")
        self.counters["received"] += len(replies)
        self.counters["sent"] += len(replies) - len(failures)

    def _handle(self, data: bytes, checksum_ready: bool) -> None:
        try:
            frame = parse_frame(data, checksum_ready)
            message = None if frame.destination_port == TFTP_PORT else parse(frame.payload)
        except PacketError as error:
            self.counters["received"] += 1
            self._drop("malformed", str(error))
            return
        now = time.monotonic()
        if message is None:
            self._do(self._policy.claimed(frame.source, frame.source_mac, now), frame.source_mac)
            return
        if message.chaddr in self._backlog:  # what it said before comes first
            self._write_up(len(self._backlog))
        self.counters["received"] += 1
        if log.isEnabledFor(logging.DEBUG):
            log.debug("received from %s %s: %s", frame.source_mac, frame.source, describe(message))
        if frame.destination_port == CLIENT_PORT:
            self._do(self._policy.overheard(message, frame.source, frame.source_mac, now), frame.source_mac)
        elif frame.destination not in self._destinations:
            self._drop("not to us", f"to {frame.destination}")
        else:
            actions = self._policy.receive(message, now)
            if self._prepared is not None:
                self._prepared.observe(data, message, actions, self._encode)
            self._do(actions, frame.source_mac)

    def _handle_arp(self, frames: list[tuple[bytes, bool]]) -> None:
        for data, _ in frames:
            try:
                said = parse_arp(data)
            except PacketError as error:
                self._drop("malformed", str(error))
                continue
            self._do(self._policy.claimed(said.address, said.mac, time.monotonic()), said.mac)

    # --- what was answered by recognition ---

    def _write_up(self, count: int) -> None:
        """Tell of the oldest of them what the rules tell, and see now and then that they would answer the same."""
        began = time.thread_time()  # the other threads have their turns in between
        for _ in range(count):
            assert isinstance(self._policy, DhcpPolicy)  # a proxy's answers are not prepared
            it = self._backlog.take()
            when, template = it.arrived + self._epoch, it.template
            if self._pinned:  # what speaks there now answers ARP
                self._unpin(it.host.address)
            if template.used % CHECK_EACH:
                for notice in self._policy.recognised(template.like, it.said, it.host, it.arrived):
                    self._report_late(notice.report, when)
            else:
                self._check(it, when)
            template.used += 1
        if count:
            self._backlog.took(count, time.thread_time() - began)

    def _check(self, it: Answered, when: float) -> None:
        """Let the rules see the whole message."""
        assert isinstance(self._policy, DhcpPolicy)
        sent = b""
        for action in self._policy.receive(parse(it.message), it.arrived, it.host):
            match action:
                case Reply():
                    sent = self._encode(action)
                    if action.notice is not None:
                        self._report_late(action.notice.report, when)
                case Notice():
                    self._report_late(action.report, when)
                case _:
                    self._do([action], it.host.mac)
        if sent != it.reply:
            self.counters["answered otherwise"] += 1
            if self._prepared is not None and self._prepared.forget(it.template):
                log.error("%s was answered otherwise than the rules say; please report this", it.host.name)

    def _do(self, actions: list[Action], who: str) -> None:
        for action in actions:
            match action:
                case Reply():
                    if action.not_before > time.monotonic():
                        heapq.heappush(self._waiting, (action.not_before, next(self._order), action))
                    else:
                        self._send(action)
                case Notice():
                    self._tell(action)
                case Ignore(reason):
                    self._drop(reason, f"from {who}")
                case Probe(address):
                    self._probe(address)
                case Pin(address, mac):
                    self._pin(address, mac)
                case Unpin(address):
                    self._unpin(address)
                case SaveLease() | ForgetLease():
                    self._keep(action)

    def _keep(self, action: SaveLease | ForgetLease) -> None:
        if isinstance(action, SaveLease):
            self._save_lease(action.mac, action.address, action.expires)
        else:
            self._forget_lease(action.mac)

    def _drop(self, reason: str, detail: str) -> None:
        self.counters[reason] += 1
        log.debug("dropped, %s: %s", reason, detail)

    def _check_link(self) -> None:
        """A cable that was pulled comes back by itself; an interface that was removed does not, and has no name."""
        if not self._raw.interface:
            raise OSError(errno.ENODEV, f"the network interface {self._interface} is gone")

    # --- out ---

    def _tick(self) -> None:
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            self._send(heapq.heappop(self._waiting)[2])
        if self._policy.deadline is not None and self._policy.deadline <= (now := time.monotonic()):
            self._do(self._policy.tick(now), "the probe")

    def _probe(self, address: IPv4Address) -> None:
        if self._arp is None:
            return
        try:
            self._arp.send(encode_arp_request(self._mac, self._server, address))
        except OSError as error:  # a full queue: as if nobody had answered
            self._drop("not sent", f"ARP for {address}: {error}")

    def _note_neighbour(self, reply: Reply) -> None:
        if reply.neighbour:
            self._pin(reply.packet.yiaddr, reply.packet.mac)
        elif self._pinned and reply.packet.yiaddr in self._pinned:  # what speaks now answers ARP, or is another board
            self._unpin(reply.packet.yiaddr)

    def _encode(self, reply: Reply) -> bytes:
        """The frame for a MAC."""
        payload = reply.packet.encode()
        return Frame(self._mac, reply.mac, self._server, reply.address, self._port, reply.port, payload).encode()

    def _send(self, reply: Reply) -> None:
        self._note_neighbour(reply)
        # Told before it is sent: the Pi's next word, to another service, is reported after it. If it cannot be sent
        # (a full queue), the Pi asks again.
        if reply.notice is not None:
            self._tell(reply.notice)
        if not self._transmit(reply):
            return
        if log.isEnabledFor(logging.DEBUG):
            log.debug("sent to %s %s: %s", reply.mac or "the kernel's choice", reply.address, describe(reply.packet))

    def _transmit(self, reply: Reply) -> bool:
        try:
            if reply.mac:
                self._raw.send(self._encode(reply))
            else:
                # The interface may have more addresses: the client knows us by one of them.
                source = struct.pack("=i4s4x", 0, self._server.packed)
                target = (str(reply.address), reply.port)
                self._udp.sendmsg([reply.packet.encode()], [(socket.IPPROTO_IP, IP_PKTINFO, source)], 0, target)
        except (OSError, PacketError) as error:  # a full queue, no route: the client asks again
            self._drop("not sent", f"to {reply.address}: {error}")
            return False
        self.counters["sent"] += 1
        return True

    def _tell(self, notice: Notice) -> None:
        report = notice.report  # its event becomes a line of the log where it is kept: not twice
        who = notice.name or report.mac or "network"
        log.debug("%s: heard %r, sent %r %s", who, report.heard, report.sent, report.event)
        self._report(report)

    # --- neighbours that answer no ARP ---

    def _pin(self, address: IPv4Address, mac: str) -> None:
        if self._neighbour(SIOCSARP, address, mac, ATF_COM | ATF_PERM):
            self._pinned[address] = mac

    def _unpin(self, address: IPv4Address) -> None:
        mac = self._pinned.pop(address, None)
        if mac is not None:
            self._neighbour(SIOCDARP, address, mac, 0)

    def _neighbour(self, request: int, address: IPv4Address, mac: str, flags: int) -> bool:
        arp = _ARP_REQUEST.pack(
            socket.AF_INET,
            0,
            address.packed,
            ARPHRD_ETHER,
            bytes.fromhex(mac.replace(":", "")),
            flags,
            self._interface.encode(),
        )
        try:
            fcntl.ioctl(self._udp, request, arp)
        except OSError as error:
            log.debug("neighbour entry %s %s: %s", address, mac, error)
            return False
        return True
