"""Power cycles on record: one at a time for each switch, and what one that died left off is turned on by the next.

Whoever switches ports holds the switch (a file lock, which the kernel gives back when its holder dies). So a note in
the store of a switch that nobody holds is one of a process that died, and its port is to be turned on. What a port
needs is in utility/power_cycle.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from monitoring.store import Store, StoreError
from utility.config import Switch
from utility.power_cycle import STAGGER, Left, PortResult, restore_ports
from utility.switches import PoeSwitch

TRY_AGAIN = 0.5  # between two looks whether the switch is free
SIOCGIFHWADDR = 0x8927


@dataclass(frozen=True, slots=True)
class PowerOptions:
    """How ports are switched: seconds between two that come on, seconds off (None: the switch's own), and whether those
    are switched too that should rather be left alone."""

    stagger: float = STAGGER
    off_time: float | None = None
    force: bool = False


class InterruptionError(Exception):
    """Somebody does not want to wait any longer."""


class Waiting:
    """`time.sleep` for one power cycle. `stopping` ends it once; what is waited for after that is a port to be on."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._stopped = False

    def __call__(self, seconds: float) -> None:
        if self._stopped:
            time.sleep(seconds)
        elif self._stopping.wait(seconds):
            self._stopped = True
            raise InterruptionError("interrupted; the port is on again")


def own_macs() -> frozenset[str]:
    """The MACs of this machine: a port that they are behind is our own way to the switch."""
    found = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # gone meanwhile
                answer = fcntl.ioctl(asker, SIOCGIFHWADDR, struct.pack("256s", name.encode()[:15]))
                found.add(answer[18:24].hex(":"))
    return frozenset(found - {"00:00:00:00:00:00"})


class PowerIntents:
    """Notes in the store which ports are off for a moment, so that others can turn on what a dead process left."""

    def __init__(self, store: Store, switch: Switch) -> None:
        self._store, self._switch = store, str(switch.address)

    def add(self, left: Left) -> None:
        self._store.add_intent(self._switch, left.port, time.time(), left.index, left.setting)

    def clear(self, port: int) -> None:
        self._store.clear_intent(self._switch, port)

    def left(self) -> list[Left]:
        """The ports on record."""
        return [
            Left(intent.port, intent.index, intent.setting)
            for intent in self._store.intents()
            if intent.switch == self._switch
        ]


@contextlib.contextmanager
def hold_switch(
    store: Store,
    switch: Switch,
    *,
    patience: float | None = None,
    on_wait: Callable[[], None] = lambda: None,
    wait: Callable[[float], object] = time.sleep,
) -> Iterator[bool]:
    """Be the only one who switches ports of this switch; False: another does, and `patience` seconds are over.

    `patience` None waits as long as it takes; `on_wait` is called once when it begins to. StoreError.
    """
    path = store.path.parent / f"switch-{switch.address}.lock"
    try:
        lock = path.open("a")
    except OSError as error:
        raise StoreError(f"{path}: the state cannot be written there: {error.strerror}") from None
    with lock:
        _give_to_folders_owner(path)
        began, told = time.monotonic(), False
        while not _take(lock.fileno()):
            if patience is not None and time.monotonic() - began >= patience:
                yield False
                return
            if not told:
                told = True
                on_wait()
            wait(TRY_AGAIN)
        yield True


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _give_to_folders_owner(path: Path) -> None:
    """A command run with sudo must not make files that the service, which is not root, cannot open."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def restore_left_off(store: Store, poe: PoeSwitch, wait: Callable[[float], object] = time.sleep) -> list[PortResult]:
    """Turn on what a power cycle that died left off; the caller holds the switch. SwitchError, StoreError."""
    intents = PowerIntents(store, poe.switch)
    left = intents.left()
    return restore_ports(poe, left, intents=intents, wait=wait) if left else []


def left_off(switch: Switch, result: PortResult) -> str:
    """The sentence about a port that was found off."""
    where = f"{switch.name or switch.address} port {result.port}"
    if result.ok:
        return f"{where} was left off by a power cycle that died; it is on again"
    return f"{where} was left off by a power cycle that died, and stays off: {result.text}"
