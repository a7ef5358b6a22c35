"""The hello service: control connections on one port, the image on another. Holds no rule of the protocol.

One thread accepts; each hello session has a thread, and so has each connection that takes the image, which goes from
the page cache to the wire by one sendfile: the interpreter has no part in it, and how far it is the session asks the
kernel. Sessions are few, long, and bound by a Pi's card.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import logging
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address
from pathlib import Path

from tcp.packet import Image, LineReader, PacketError, parse_line, readable
from tcp.session import (
    Action,
    Close,
    Complete,
    Disconnected,
    ImageOpened,
    ImageSent,
    Input,
    Malformed,
    Questions,
    Send,
    Session,
    Tell,
    TooMuch,
)
from utility.hosts import Host
from utility.service import Report, Reporter, Waker

log = logging.getLogger("piman.tcp")

MAX_SESSIONS = 256
MAX_PER_ADDRESS = 4
_LOOK_INTERVAL = 0.25  # between two looks at how far an image is
_LOOKS_A_SECOND = 40  # of all installs together, each of which has two threads; most Pis tell it themselves
_SEND_TIMEOUT = 5.0
_DRAIN_TIME = 2.0
_BACKLOG = 1024
_OPEN_TRIES = 3
_BYTES_ACKED = struct.Struct("=120xQ")  # of struct tcp_info: tcpi_bytes_acked (linux/tcp.h)


@dataclass(frozen=True, slots=True)
class Installs:
    """What the service asks of the rest: all callables may be called from any thread."""

    host_of: Callable[[IPv4Address], Host | None]
    image_for: Callable[[Host], Image | None]  # may take as long as hashing the image once
    pending: Callable[[str], str | None]  # MAC -> the token of its reinstall order; what it raises ends that session
    complete: Callable[[str, str], bool]  # MAC, token: that order was carried out; whether it was noted, never raises
    now: Callable[[], datetime]


class _Connection:
    """One hello connection and what belongs to it. Its own thread owns all but what the server's lock guards: the
    image's descriptor and socket, whether all of it was sent, and `ending`."""

    def __init__(self, control: socket.socket, host: Host) -> None:
        self.control = control
        self.host = host
        self.waker = Waker()
        self.session: Session | None = None
        self.image_fd = -1
        self.image_socket: socket.socket | None = None
        self.image_new = False  # an image connection whose session was not told yet
        self.sent = 0  # when the kernel has taken all of the image; until then the kernel is asked
        self.sent_told = 0
        self.ending = ""  # why another thread wants this one to end

    @property
    def heard(self) -> bool:
        return self.session is not None and self.session.heard


class HelloServer:
    """Both listening sockets, bound here: OSError where a port is taken. `_lock` guards `_connections` and
    `_threads`, `_counting` the counters."""

    name = "hello"

    def __init__(self, address: IPv4Address, port: int, image_port: int, install: Installs, report: Reporter) -> None:
        self.counters: collections.Counter[str] = collections.Counter()
        self._install = install
        self._report = report
        self._counting = threading.Lock()
        self._lock = threading.Lock()
        self._connections: list[_Connection] = []
        self._threads: set[threading.Thread] = set()
        self._stopping = threading.Event()
        self._hello = _listen(address, port)
        try:
            self._image = _listen(address, image_port)
        except OSError:
            self._hello.close()
            raise
        # For who asked for port 0; asked for here, as a session may begin while the listeners are closed.
        self.port, self.image_port = (int(source.getsockname()[1]) for source in (self._hello, self._image))
        self._waker = Waker()

    def stop(self) -> None:
        self._stopping.set()
        self._waker.wake()

    def run(self) -> None:
        poll = select.poll()  # not select(): 256 sessions go past its 1024 descriptors
        for source in (self._hello, self._image, self._waker):
            poll.register(source, select.POLLIN)
        try:
            while not self._stopping.is_set():
                ready = {descriptor for descriptor, _ in poll.poll()}
                if self._hello.fileno() in ready:
                    self._accept(self._hello, self._hello_from)
                if self._image.fileno() in ready:
                    self._accept(self._image, self._image_to)
        finally:
            self._end_all()

    def _accept(self, listener: socket.socket, serve: Callable[[socket.socket, IPv4Address], None]) -> None:
        try:
            peer, (address, _) = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._drop("out of descriptors", str(error))
                self._stopping.wait(0.1)  # the listener stays readable: do not spin
            return
        try:
            serve(peer, IPv4Address(address))
        except (OSError, RuntimeError) as error:  # the peer is gone already, or no thread can be had
            self._drop("not served", f"{address}: {error}")
            peer.close()

    def _count(self, reason: str) -> None:
        with self._counting:
            self.counters[reason] += 1

    def _drop(self, reason: str, detail: str) -> None:
        self._count(reason)
        log.debug("dropped (%s): %s", reason, detail)

    def _start(self, name: str, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except Exception:  # one Pi's session must not end the service for the others
                log.exception("%s failed", name)
            finally:
                with self._lock:
                    self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name=name, daemon=True)
        with self._lock:
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            with self._lock:
                self._threads.discard(thread)
            raise

    # --- control connections ---

    def _hello_from(self, peer: socket.socket, address: IPv4Address) -> None:
        host = self._install.host_of(address)
        if host is None:
            self._drop("unknown host", str(address))
            peer.close()
            return
        connection = _Connection(peer, host)
        if not self._admit(connection):
            self._drop("too many sessions", str(address))
            connection.waker.close()
            peer.close()
            return
        try:
            _watch_peer(peer)
            self._start(f"hello {host.name}", lambda: self._converse(connection))
        except (OSError, RuntimeError):
            self._forget(connection)
            raise

    def _admit(self, connection: _Connection) -> bool:
        """Make room for a new connection. Who never said a word goes first: silence costs nobody a session."""
        with self._lock:
            alive = [each for each in self._connections if not each.ending]
            same = [each for each in alive if each.host.address == connection.host.address]
            full = same if len(same) >= MAX_PER_ADDRESS else alive if len(alive) >= MAX_SESSIONS else []
            if full:
                silent = next((each for each in full if not each.heard), None)
                if silent is None:
                    return False
                self._end(silent, "made room")
            self._connections.append(connection)
            return True

    def _supersede(self, connection: _Connection) -> None:
        """A Pi that speaks on a new connection has lost the old one, whatever the old one's TCP still believes."""
        with self._lock:
            for each in self._connections:
                if each is not connection and each.host.mac == connection.host.mac and each.heard and not each.ending:
                    self._end(each, "superseded")

    def _end(self, connection: _Connection, why: str) -> None:
        """Have another connection's thread end; the lock is held."""
        self._count(why)
        connection.ending = why
        _shut(connection.control)
        if connection.image_socket:
            _shut(connection.image_socket)
        connection.waker.wake()

    def _forget(self, connection: _Connection) -> None:
        with self._lock:
            self._connections.remove(connection)
            if connection.image_socket:
                _shut(connection.image_socket)
            if connection.image_fd >= 0:
                os.close(connection.image_fd)
                connection.image_fd = -1
        connection.waker.close()
        connection.control.close()

    def _converse(self, connection: _Connection) -> None:
        try:
            questions = Questions(
                order=lambda: self._install.pending(connection.host.mac),
                image=lambda: self._open_image(connection),
                date=self._install.now,
            )
            session = Session(connection.host.mac, questions, self.image_port, time.monotonic())
            connection.session = session
            if self._talk(connection, session) and not connection.ending and not self._stopping.is_set():
                _drain(connection.control)
        finally:
            self._forget(connection)

    def _talk(self, connection: _Connection, session: Session) -> bool:
        """Until the session closes. False: the connection is broken and there is nothing to end politely."""
        control, lines = connection.control, LineReader()
        control.settimeout(_SEND_TIMEOUT)
        poll = select.poll()
        poll.register(control, select.POLLIN)
        poll.register(connection.waker, select.POLLIN)
        while True:
            left = max(0.0, session.deadline - time.monotonic())
            if connection.image_socket:
                left = min(left, max(_LOOK_INTERVAL, len(self._threads) / 2 / _LOOKS_A_SECOND))
            ready = {descriptor for descriptor, _ in poll.poll(left * 1000 + 1)}
            if connection.ending or self._stopping.is_set():
                log.debug("%s: session ended: %s", connection.host.name, connection.ending or "stop")
                return False
            if connection.waker.fileno() in ready:
                connection.waker.drain()
            said = _receive(control, lines) if control.fileno() in ready else []
            # Asked for after the lines and put before them: what was sent precedes what it led to.
            inputs = [*self._news_of_image(connection), *said]
            if not self._apply(connection, session, inputs):
                return not isinstance(inputs[-1] if inputs else None, Disconnected)

    def _apply(self, connection: _Connection, session: Session, inputs: list[Input]) -> bool:
        """Let the session decide on each input and on the time, and do what it says; False when it closed."""
        unheard = not session.heard
        for each in (*inputs, None):
            now = time.monotonic()
            log.debug("%s: < %s", connection.host.name, each)
            actions = session.receive(each, now) if each else session.tick(now)
            if unheard and session.heard:
                unheard = False
                self._supersede(connection)
            if not all(self._do(connection, action) for action in actions):
                return False
        return True

    def _do(self, connection: _Connection, action: Action) -> bool:
        """One action; False when the session is over."""
        name = connection.host.name
        match action:
            case Tell(report):
                self._tell(name, report)
            case Complete(token):
                # At most one in a session. Its marker holds the token: the next boot completes the order, this goes on.
                if not self._install.complete(connection.host.mac, token):
                    log.warning("%s: order %s was carried out, but could not be noted; its next boot will", name, token)
            case Send(data):
                if log.isEnabledFor(logging.DEBUG):
                    log.debug("%s: > %s", name, readable(data.decode()))
                with contextlib.suppress(OSError):  # it is gone; reading will say so
                    connection.control.sendall(data)
            case Close(reason):
                self._count(f"closed: {reason}" if reason in _COUNTED else "closed")
                log.debug("%s: session closed: %s", name, reason)
                return False
        return True

    def _tell(self, name: str, report: Report) -> None:
        log.debug("%s: told the board: %s", name, report)
        self._report(report)  # which logs the milestones

    # --- the image ---

    def _open_image(self, connection: _Connection) -> Image | None:
        """The image to install, opened: the session sends the file that was hashed, whatever is put in its place."""
        for _ in range(_OPEN_TRIES):
            image = self._install.image_for(connection.host)
            if image is None:
                return None
            descriptor = _open_same(image)
            if descriptor >= 0:
                with self._lock:
                    connection.image_fd = descriptor
                return image
        log.warning("%s: the image is replaced faster than it can be opened", connection.host.name)
        return None

    def _news_of_image(self, connection: _Connection) -> list[Input]:
        with self._lock:
            opened, connection.image_new = connection.image_new, False
            told, now = connection.sent_told, connection.sent or _acknowledged(connection.image_socket)
            connection.sent_told = max(told, now)
        sent: list[Input] = [ImageSent(now)] if now > told else []
        return [ImageOpened(), *sent] if opened else sent

    def _image_to(self, peer: socket.socket, address: IPv4Address) -> None:
        """Serve who has a session that waits for the image; a second connection takes the first one's place."""
        with self._lock:
            waiting = (each for each in reversed(self._connections) if each.host.address == address)
            connection = next((each for each in waiting if _takes_image(each)), None)
            if connection is not None:
                descriptor = os.dup(connection.image_fd)  # the session may end first; before anything is promised
                if connection.image_socket:
                    _shut(connection.image_socket)
                connection.image_socket, connection.image_new = peer, True
                connection.sent = connection.sent_told = 0
        if connection is None:
            self._drop("image for nobody", str(address))
            peer.close()
            return
        served = connection
        try:
            self._start(f"image {served.host.name}", lambda: self._send_image(served, peer, descriptor))
        except RuntimeError:
            with self._lock:
                served.image_socket, served.image_new = None, False
            os.close(descriptor)
            raise
        served.waker.wake()

    def _send_image(self, connection: _Connection, peer: socket.socket, descriptor: int) -> None:
        try:
            _watch_peer(peer)
            # Full segments only, as sendfile gives the kernel a page at a time; the end of the stream lets the rest go.
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
            size, sent = os.fstat(descriptor).st_size, 0
            while sent < size:  # once for each 2 GB
                count = os.sendfile(peer.fileno(), descriptor, sent, size - sent)
                if not count:
                    break
                sent += count
            peer.shutdown(socket.SHUT_WR)
            self._note_sent(connection, peer, sent)
            peer.settimeout(_DRAIN_TIME)
            peer.recv(1)  # its end: closing before it has read all would be a reset
        except OSError as error:
            log.debug("%s: image connection ended: %s", connection.host.name, error)
        finally:
            with self._lock:
                if connection.image_socket is peer:
                    connection.image_socket = None
            os.close(descriptor)
            peer.close()

    def _note_sent(self, connection: _Connection, peer: socket.socket, sent: int) -> None:
        with self._lock:
            if connection.image_socket is peer:
                connection.sent = sent
                connection.waker.wake()

    # --- the end ---

    def _end_all(self) -> None:
        for source in (self._hello, self._image):
            source.close()
        with self._lock:
            for connection in self._connections:
                self._end(connection, "stop")
            threads = list(self._threads)
        end = time.monotonic() + 0.7
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        self._waker.close()


_COUNTED = frozenset(("silent", "disconnected", "installed", "it did not close", "more text than a Pi sends"))


def _listen(address: IPv4Address, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(address), port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)  # a peer that is gone again must not block accept
    except OSError:
        listener.close()
        raise
    return listener


def _watch_peer(peer: socket.socket) -> None:
    """Learn within half a minute that a Pi lost its power: it says no goodbye."""
    peer.setblocking(True)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _shut(peer: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed by the other side already
        peer.shutdown(socket.SHUT_RDWR)


def _acknowledged(peer: socket.socket | None) -> int:
    """Bytes that the other side has (RFC 4898, tcpEStatsAppHCThruOctetsAcked); 0 without a connection."""
    if peer is None:
        return 0
    with contextlib.suppress(OSError):  # reset
        info = peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
        if len(info) == _BYTES_ACKED.size:  # Linux 4.1
            return int(_BYTES_ACKED.unpack(info)[0])
    return 0


def _receive(control: socket.socket, lines: LineReader) -> list[Input]:
    try:
        data = control.recv(65536)
    except OSError:
        return [Disconnected()]
    if not data:
        return [Disconnected()]
    try:
        return [_parse(line) for line in lines.feed(data)]
    except PacketError as error:
        return [TooMuch(str(error))]


def _parse(line: bytes) -> Input:
    try:
        return parse_line(line)
    except PacketError as error:
        return Malformed(str(error), len(line))


def _drain(control: socket.socket) -> None:
    """End our side and read what is still to come: closing on unread text would be a reset, which takes our last
    command away from a Pi that has not read it yet."""
    end = time.monotonic() + _DRAIN_TIME
    with contextlib.suppress(OSError):
        control.shutdown(socket.SHUT_WR)
        while (left := end - time.monotonic()) > 0:
            control.settimeout(left)
            if not control.recv(65536):
                return


def _takes_image(connection: _Connection) -> bool:
    session = connection.session
    return session is not None and session.wants_image and connection.image_fd >= 0 and not connection.ending


def _open_same(image: Image) -> int:
    """A descriptor of the very file that was hashed; -1: another is there by now."""
    try:
        descriptor = os.open(Path(image.path), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
    found = os.fstat(descriptor)
    same = found.st_size == image.size
    if image.inode:
        same = same and (found.st_ino, found.st_mtime_ns) == (image.inode, image.mtime_ns)
    if same:
        return descriptor
    os.close(descriptor)
    return -1
