"""Machines in QEMU on the tests' wire, driven over their serial consoles. The lab's cable carries their frames."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from lab.namespaces import Interface
from lab.wire import Wire
from tests.peers.guests import Guest

_BUFFER = 1 << 20


class Machine:
    """One QEMU from its start to its end. Its network cards are the ends of cables in namespaces; the console is text.

    words       QEMU's own, without console and network
    cables      per network card, in order: the namespace and the interface there whose frames are the card's
    device      of the network cards; {mac} is replaced. Their MACs count up from `mac`
    """

    def __init__(
        self,
        words: Sequence[str],
        cables: Sequence[tuple[Path, str]],
        mac: str,
        device: str = "virtio-net-pci,mac={mac},romfile=",
    ) -> None:
        self._words, self._mac, self._device = words, mac, device
        self._cables = [(namespace.name, interface) for namespace, interface in cables]
        self._heard = ""
        self._taken = 0  # of what was heard, by `expect`
        self._news = threading.Condition()  # guards _heard and _ended
        self._ended = False
        self._threads: list[threading.Thread] = []
        self._open = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Machine:
        try:
            self._start()
        except BaseException:
            self._open.close()
            raise
        return self

    def _start(self) -> None:
        words = [*self._words, "-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"]
        carried: list[tuple[Wire, socket.socket]] = []
        theirs: list[socket.socket] = []
        for number, (namespace, interface) in enumerate(self._cables):
            with contextlib.closing(Interface(namespace, interface)) as end:
                end.no_offloads()
            pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            for each in pair:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
            wire = Wire(namespace, interface)
            self._open.callback(wire.close)
            self._open.enter_context(pair[0])
            carried.append((wire, pair[0]))
            theirs.append(pair[1])
            mac = f"{self._mac[:-2]}{int(self._mac[-2:], 16) + number:02x}"
            words += ["-netdev", f"dgram,id=n{number},local.type=fd,local.str={pair[1].fileno()}"]
            words += ["-device", f"{self._device.format(mac=mac)},netdev=n{number}"]
        descriptors = [each.fileno() for each in theirs]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=descriptors
        )
        for each in theirs:
            each.close()
        ended = os.pidfd_open(self._process.pid)
        self._open.callback(os.close, ended)
        self._threads = [threading.Thread(target=wire.pump, args=(end, ended)) for wire, end in carried]
        self._threads.append(threading.Thread(target=self._listen))
        for thread in self._threads:
            thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._open.close()

    def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while data := os.read(self._process.stdout.fileno(), 65536):
            with self._news:
                self._heard += data.decode("latin-1")
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def console(self) -> str:
        """All that it has said."""
        return self._heard

    def type(self, text: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def expect(self, pattern: str, timeout: float) -> re.Match[str]:
        """Wait for the console to say it, after what was expected before; AssertionError with the console's end."""
        end = time.monotonic() + timeout
        compiled = re.compile(pattern)
        with self._news:
            while True:
                found = compiled.search(self._heard, self._taken)
                if found:
                    self._taken = found.end()
                    return found
                left = end - time.monotonic()
                if left <= 0 or self._ended:
                    why = "the machine ended" if self._ended else f"not within {timeout:g} s"
                    raise AssertionError(f"{why}: {pattern!r}; the console:\n{self._heard[-4000:]}")
                self._news.wait(left)

    def wait(self, timeout: float) -> None:
        """Wait for its end: a reset, since QEMU does not start over (-no-reboot)."""
        assert self._process is not None
        self._process.wait(timeout)


def linux(guest: Guest, cables: Sequence[tuple[Path, str]], mac: str) -> Machine:
    """A guest of guests.py; `command` may be used once it said GUEST-READY."""
    words = ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a53", "-smp", "1", "-m", "192", "-nodefaults"]
    words += ["-kernel", str(guest.kernel), "-initrd", str(guest.initramfs)]
    words += ["-append", "console=ttyAMA0,115200 quiet panic=-1 rdinit=/init"]
    return Machine(words, cables, mac)


def command(machine: Machine, text: str, timeout: float = 20) -> str:
    """Run a line in a Linux guest; what it wrote. AssertionError where it failed."""
    start = len(machine.console)
    machine.type(text + "\n")
    ended = machine.expect(r"GUEST-ENDED (\d+)", timeout)
    said = machine.console[start : ended.start()].replace("\r", "")
    assert ended[1] == "0", f"{text}: {said}"
    return said
