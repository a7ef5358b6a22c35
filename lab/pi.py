"""A virtual Raspberry Pi on a port of the lab's switch: power on runs its boot ROM, then its machine; off kills it.

Decides nothing about the boot (bootrom.py) or the machine (machine.py, light.py). What goes wrong inside a Pi stays
inside: the switch that turns it on and off never sees an exception.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import random
import threading
import time
from enum import StrEnum
from ipaddress import IPv4Address
from pathlib import Path
from typing import Protocol

from lab.bootrom import BootFailed, BootRom, Downloaded
from lab.light import CARD_STATES, Card, LightMachine, Pace
from lab.machine import CARD_BYTES, QemuMachine, make_card
from lab.namespaces import Interface, LabError
from lab.profiles import Identity, Profile
from lab.wire import Faults, PowerCut, Wire

log = logging.getLogger("piman.lab.pi")

KINDS = ("qemu", "light", "raspi3b")
_FOR_EVER = 3600.0
_JOIN = 10.0


class PiState(StrEnum):
    """What a virtual Pi is doing. Whether it is installed or up is for the manager to find out."""

    OFF = "off"
    ROM = "rom"  # its boot ROM runs
    RUNNING = "running"  # its kernel runs: the installer, or what is on its card
    DEAD = "dead"  # its ROM gave up; only a power cycle helps


class Machine(Protocol):
    """What runs after the boot ROM: returns when the board resets, raises PowerCut after `cut`."""

    def run(self, downloaded: Downloaded, wire: Wire) -> None: ...

    def cut(self) -> None: ...

    def close(self) -> None: ...


class VirtualPi:
    """One Pi. `power_on`, `power_off` and the reads may come from any thread.

    directory   for its card (sd.img, or card.json of a light Pi), console.log, and what it downloaded
    namespace   the network namespace with its `eth0`
    scale       shortens the waits before the first frame and after a failed boot
    disk        the firmware itself can boot what is on the card (a light Pi's)
    boots       what each boot ROM run downloaded, newest last, without the bytes
    """

    def __init__(
        self,
        port: int,
        name: str,
        mac: str,
        serial: int,
        profile: Profile,
        kind: str,
        directory: Path,
        namespace: str = "",
        *,
        address: IPv4Address | None = None,
        scale: float = 1.0,
        faults: Faults | None = None,
        pace: Pace | None = None,
        card_bytes: int = CARD_BYTES,
        memory: int = 256,
        seed: int = 0,
        disk: bool = False,
    ) -> None:
        if kind not in KINDS:
            raise LabError(f"no Pi of kind {kind!r}; there are {', '.join(KINDS)}")
        self.port, self.name, self.mac, self.profile, self.kind = port, name, mac, profile, kind
        self.board = Identity(mac, serial, profile.revision)
        self.address = address  # the one hosts.csv gives it
        self.directory = directory
        self.namespace = namespace or name
        self.state, self.text = PiState.OFF, ""
        self.boots: collections.deque[tuple[tuple[str, ...], tuple[str, ...]]] = collections.deque(maxlen=16)
        self.history: collections.deque[tuple[float, str]] = collections.deque(maxlen=200)
        self._scale, self._faults, self._pace = scale, faults or Faults(), pace
        self._card_bytes, self._memory = card_bytes, memory
        self.disk = disk
        self._random = random.Random(seed * 1000 + port)
        self._lock = threading.RLock()  # guards _life; held while power changes
        self._life: _Life | None = None
        directory.mkdir(parents=True, exist_ok=True)
        if not self._card_file.exists():
            self.put_card("blank")

    @property
    def _card_file(self) -> Path:
        return self.directory / ("card.json" if self.kind == "light" else "sd.img")

    @property
    def is_on(self) -> bool:
        return self._life is not None

    @property
    def console(self) -> Path:
        return self.directory / "console.log"

    def card(self) -> Card:
        """What is on the card of a light Pi."""
        return Card.load(self._card_file)

    def put_card(self, state: str) -> None:
        """Put another card in: blank, foreign (somebody's Linux), none; for a light Pi also piman (a torn install)."""
        if state not in CARD_STATES or (state == "piman" and self.kind != "light"):
            raise LabError(f"no card of kind {state!r}")
        if self.kind == "light":
            Card(state).save(self._card_file)
        else:
            make_card(self._card_file, self._card_bytes, state)

    def note(self, text: str) -> None:
        """Remember what happened, for `history` and the log."""
        self.text = text
        self.history.append((time.time(), text))
        log.debug("%s: %s", self.name, text)

    def power_on(self) -> None:
        with self._lock:
            if self._life is None:
                self._life = _Life(self)

    def power_off(self) -> None:
        """Returns when nothing of it runs any more."""
        with self._lock:
            life, self._life = self._life, None
            if life is not None:
                life.end()
                self.state = PiState.OFF
                self.note("power off")

    def make_machine(self) -> Machine:
        if self.kind == "light":
            return LightMachine(
                self.board,
                self.profile.model,
                self.name,
                self.namespace,
                self._card_file,
                self.note,
                self._pace,
                self._card_bytes,
            )
        return QemuMachine(self.kind, self.directory, self.mac, self._memory)

    def make_rom(self, wire: Wire) -> BootRom:
        return BootRom(self.profile, self.board, wire, time.monotonic, self._random, self.note, self._scale, self.disk)

    def make_wire(self) -> Wire:
        return Wire(self.namespace, "eth0", self._faults)

    def pause(self) -> float:
        """Seconds from a failed boot to the next try."""
        return _FOR_EVER if self.profile.restart is None else self.profile.restart * self._scale


class _Life:
    """One Pi from power on to power off: its cable, its machine, and the thread that runs them."""

    def __init__(self, pi: VirtualPi) -> None:
        self._pi = pi
        self._interface = Interface(pi.namespace, "eth0")
        self._interface.up()
        self._wire = pi.make_wire()
        self._machine = pi.make_machine()
        pi.state = PiState.ROM
        pi.note("power on")
        self._thread = threading.Thread(target=self._work, name=f"lab-{pi.name}", daemon=True)
        self._thread.start()

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._interface.up(False)  # first: what the dying sockets still send goes nowhere
        self._wire.cut()
        self._machine.cut()
        self._thread.join(_JOIN)
        if self._thread.is_alive():
            log.error("%s does not die", self._pi.name)
            return
        self._machine.close()
        self._wire.close()
        self._interface.close()

    def _work(self) -> None:
        warm = False
        with contextlib.suppress(PowerCut):
            while True:
                try:
                    self._boot(warm)
                    warm = True
                except BootFailed as error:
                    self._stop(str(error), _FOR_EVER if error.hung else self._pi.pause())
                except (LabError, OSError) as error:
                    self._stop(str(error), self._pi.pause())
                except Exception as error:
                    if isinstance(error, PowerCut):
                        raise
                    log.exception("%s failed", self._pi.name)
                    self._stop(f"{type(error).__name__}: {error}", _FOR_EVER)

    def _boot(self, warm: bool) -> None:
        self._pi.state = PiState.ROM
        downloaded = self._pi.make_rom(self._wire).run(warm)
        self._pi.boots.append((downloaded.requests, downloaded.complaints))
        self._pi.state = PiState.RUNNING
        self._pi.note("kernel starts")
        self._machine.run(downloaded, self._wire)
        self._pi.note("reset")

    def _stop(self, text: str, pause: float) -> None:
        """Do nothing for a while: a dead board is silent."""
        self._pi.note(text)
        if pause >= _FOR_EVER:
            self._pi.state = PiState.DEAD
        end = time.monotonic() + pause
        while time.monotonic() < end or pause >= _FOR_EVER:
            self._wire.receive(min(pause, 60.0))
