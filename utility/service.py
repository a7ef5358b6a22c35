"""What the service threads share: the stages of a boot, the report they make of a Pi, and how they start and stop.

Holds no protocol and no configuration. A service binds its sockets in its constructor, works in `run()` until
`stop()`, and tells what it saw through the `Reporter` it was given.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Protocol

log = logging.getLogger("piman.service")


class Stage(StrEnum):
    """Where a Pi is between power-on and work, in the order in which a boot passes them."""

    DISCOVER = "discover"  # it asked for an address
    LEASE = "lease"  # it has one
    FIRMWARE = "firmware"  # it fetches boot files
    KERNEL = "kernel"  # it fetches kernel and initramfs
    HELLO = "hello"  # its installer talks to us
    FORMAT = "format"  # it was told to format
    IMAGE = "image"  # it takes the root file system
    BOOT = "boot"  # it was told to boot what is on its card
    UP = "up"  # what is on its card was heard
    FAILED = "failed"  # it gave up, with a reason


class Severity(StrEnum):
    """How much an event matters: a milestone, something an operator should look at, something that failed."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Report:
    """One thing that a service saw of one Pi. Empty fields leave on the board what was there.

    mac       the Pi, as `aa:bb:cc:dd:ee:ff`
    stage     the stage it reached, None for no change
    heard     what the Pi said last, in a few words
    sent      what we sent it last, in a few words
    event     a line for the Pi's timeline; empty: the board alone
    done      bytes of the step's transfer so far; total is 0 when not known
    facts     what was learnt: model, revision, serial, sd_bytes, image, address ...
    began     Unix time at which this began, where it may outlive the boot that it is of: a file's transfer
    """

    mac: str
    stage: Stage | None = None
    heard: str = ""
    sent: str = ""
    event: str = ""
    severity: Severity = Severity.INFO
    done: int | None = None
    total: int | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    began: float = math.inf


Reporter = Callable[[Report], None]


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file that a Pi asked for over TFTP, after its transfer has ended.

    size, done    bytes of the file, and of these what the Pi acknowledged
    began         Unix time of the request
    seconds       from the request to the end
    blksize       bytes of a block
    resent        packets sent again
    outcome       "complete", "aborted", "gone", "timeout", "failed", or "missing" where there was no such file
    """

    mac: str
    name: str
    size: int
    done: int
    began: float
    seconds: float
    resent: int
    outcome: str
    blksize: int = 512


FileRecorder = Callable[[FileRecord], None]


class Service(Protocol):
    """A thread's work. The constructor binds; `run` returns after `stop`, or raises, which ends the process."""

    name: str

    def run(self) -> None: ...

    def stop(self) -> None:
        """Make `run` return soon. Any thread, any number of times."""


class Waker:
    """Wakes a loop that waits in select: add `fileno()` to what it waits for, call `wake()` from any thread."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        return self._reader.fileno()

    def writer_fileno(self) -> int:
        """For signal.set_wakeup_fd: a byte written there wakes too."""
        return self._writer.fileno()

    def wake(self) -> None:
        try:
            self._writer.send(b"\0")
        except OSError:  # already full of wake-ups, or already closed
            return

    def drain(self) -> None:
        """Forget the wake-ups so far, for a loop that goes on after one."""
        try:
            while self._reader.recv(512):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


class Services:
    """Services at work, each in a thread of its name. All methods but `wake` are for the main thread.

    What the threads share with it: `_failures` and `_asked`, lists that only grow at the end, and `_retired`.
    """

    def __init__(self, services: Sequence[Service] = ()) -> None:
        self._threads: dict[Service, threading.Thread] = {}
        self._failures: list[str] = []
        self._asked: list[int] = []  # signals not yet acted on
        self._waker = Waker()
        self._stopping = threading.Event()
        self._retired: set[Service] = set()  # taken out on purpose: their end is no failure
        for service in services:
            self._threads[service] = self._thread(service)

    def run(self, reload: Callable[[], None], ready: Callable[[], None], grace: float = 0.8) -> str:
        """Run until a signal or a failure; return the failure, or "".

        SIGTERM and SIGINT stop all, SIGHUP and `wake` call `reload`, which may `add` and `retire` services. The first
        service to raise stops the others and is named in the answer: a half-working manager is worse than one that
        systemd starts again. Threads that have not ended `grace` seconds after the stop are left behind (they are
        daemons). What `ready` and `reload` raise comes out of here, after the services were stopped.
        """
        handled = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, self._on_signal) for number in handled}
        # The kernel may hand a signal to any thread (a second one, while the first is pending, does go elsewhere),
        # which would not end the main thread's select: so the signal itself writes to the waker.
        wakeup = signal.set_wakeup_fd(self._waker.writer_fileno(), warn_on_full_buffer=False)
        try:
            for thread in self._threads.values():
                thread.start()
            ready()
            self._wait(reload)
        finally:
            self._stop(grace)
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._waker.close()
        return self._failures[0] if self._failures else ""

    def wake(self) -> None:
        """Ask for a `reload`. Any thread."""
        self._on_signal(signal.SIGHUP, None)

    def add(self, service: Service) -> None:
        """Start another service."""
        self._threads[service] = self._thread(service)
        self._threads[service].start()

    def retire(self, service: Service, grace: float = 0.8) -> bool:
        """Stop a service for good, its sockets with it; False: it has not ended in time."""
        self._retired.add(service)
        service.stop()
        thread = self._threads.pop(service)
        thread.join(grace)
        if thread.is_alive():
            log.warning("%s did not stop in time", thread.name)
        return not thread.is_alive()

    def _thread(self, service: Service) -> threading.Thread:
        return threading.Thread(target=self._work, args=(service,), name=service.name, daemon=True)

    def _work(self, service: Service) -> None:
        failure = f"{service.name} ended by itself"
        try:
            service.run()
            if self._stopping.is_set() or service in self._retired:
                failure = ""
        except Exception as error:
            log.exception("%s failed", service.name)
            failure = f"{service.name}: {str(error) or type(error).__name__}"
        finally:
            if failure:
                self._failures.append(failure)
            self._waker.wake()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._asked.append(number)
        self._waker.wake()

    def _wait(self, reload: Callable[[], None]) -> None:
        """Return at the first failure, SIGTERM or SIGINT; `reload` at each SIGHUP."""
        while not self._failures:
            select.select([self._waker], [], [])
            self._waker.drain()
            asked = [self._asked.pop(0) for _ in self._asked.copy()]  # a signal may come in at any of these steps
            if any(number != signal.SIGHUP for number in asked):
                return
            if asked:
                reload()

    def _stop(self, grace: float) -> None:
        """Stop every service that was started; `grace` seconds for all of them together."""
        self._stopping.set()
        for service in self._threads:
            service.stop()
        deadline = time.monotonic() + grace
        for thread in self._threads.values():
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                log.warning("%s did not stop in time", thread.name)


def run_services(
    services: Sequence[Service], reload: Callable[[], None], ready: Callable[[], None], grace: float = 0.8
) -> str:
    """Run these services, and no others, until a signal or a failure: see `Services.run`."""
    return Services(services).run(reload, ready, grace)


def notify_systemd(state: str) -> None:
    """Tell systemd `READY=1`, `STOPPING=1` ... where it asked to be told (sd_notify(3)); elsewhere nothing."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        try:
            channel.connect(address)
            channel.send(state.encode())
        except OSError as error:
            log.warning("systemd could not be told %s: %s", state, error)


def port_holder(port: int) -> str:
    """Which other process holds a local port, as `dnsmasq (process 812)`; "" where that cannot be seen (proc(5))."""
    inodes = set()
    for table in ("tcp", "udp"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if int(fields[1].rpartition(":")[2], 16) == port and (table == "udp" or fields[3] == "0A"):
                    inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        with contextlib.suppress(OSError):  # it ended meanwhile, or is not ours to look into
            if any(str(link.readlink()) in inodes for link in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
    return ""


class StateHeldError(Exception):
    """The state folder cannot be had: another server holds it, or it cannot be written; `str()` says which."""


@contextlib.contextmanager
def only_server(state_dir: Path, what: str = "server") -> Iterator[None]:
    """Hold the state folder for one server (or what else there is one of); StateHeldError names the one that has it."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock = (state_dir / f"{what}.pid").open("a+")
    except OSError as error:
        raise StateHeldError(f"{state_dir}: the state cannot be written there: {error.strerror}") from None
    with lock:
        for _try in range(6):  # `server_runs` holds it for a moment
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.05)
        else:
            lock.seek(0)
            raise StateHeldError(f"a {what} runs already (process {lock.read().strip()}) with {state_dir}")
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def server_runs(state_dir: Path) -> bool:
    """Whether a server holds the state folder now."""
    try:
        with (state_dir / "server.pid").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
