"""Power cycles on record: one at a time for each switch, and what one that died left off is turned on by the next.

Whoever switches ports holds the switch (a file lock, which the kernel gives back when its holder dies). So a note in
the store of a switch that nobody holds is one of a process that died, and its port is to be turned on. What a port
needs is in utility/power_cycle.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from monitoring.store import Store, StoreError
from utility.config import Switch
from utility.power_cycle import Left, PortResult, restore_ports
from utility.switches import PoeSwitch

TRY_AGAIN = 0.5  # between two looks whether the switch is free


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


def own_macs() -> frozenset[str]:
    """Of this machine's network interfaces: the port that they are on is our way to the switch."""
    found = set()
    for path in Path("/sys/class/net").glob("*/address"):
        with contextlib.suppress(OSError):  # it is gone meanwhile
            found.add(path.read_text(encoding="ascii").strip().lower())
    return frozenset(found - {"", "00:00:00:00:00:00"})


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
    """The sentence about a port that was found off and is on again."""
    name = switch.name or str(switch.address)
    return f"{name} port {result.port} was left off by a power cycle that died; it is on again"
