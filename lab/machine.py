"""A Pi's machine in QEMU: runs exactly the kernel, device tree, initramfs and command line that the boot ROM fetched.

Needs no tap and no KVM. The guest's network card is one end of a datagram socket pair, whose frames `Wire.pump`
carries to and from the Pi's interface. A guest that resets ends QEMU (-no-reboot), as on a real Pi the ROM is next.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
from pathlib import Path

from lab.bootrom import Downloaded
from lab.namespaces import LabError
from lab.wire import PowerCut, Wire

QEMU = "qemu-system-aarch64"
CARD_BYTES = 1 << 28
_BUFFER = 1 << 20
_FOREIGN_START = 8192  # sectors


def make_card(path: Path, size: int, state: str = "blank") -> None:
    """Make a sparse card image of a power of two bytes; "foreign": with somebody's ext4 on it; "none": no card."""
    if size & (size - 1):
        raise LabError(f"a card of {size} bytes: QEMU takes powers of two only")
    path.unlink(missing_ok=True)
    if state == "none":
        return
    with path.open("wb") as card:
        card.truncate(size)
    if state != "foreign":
        return
    sectors = size // 512 - _FOREIGN_START
    entry = struct.pack("<B3sB3sII", 0, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", _FOREIGN_START, sectors)
    with path.open("r+b") as card:
        card.seek(440)
        card.write(struct.pack("<IH", 0x1A2B3C4D, 0) + bytes(16) + entry + bytes(32) + b"\x55\xaa")
    tool = shutil.which("mke2fs", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if not tool:
        raise LabError("mke2fs (package e2fsprogs) is needed for a foreign card")
    options = f"offset={_FOREIGN_START * 512},nodiscard"
    words = [tool, "-q", "-F", "-t", "ext4", "-L", "foreign", "-E", options, str(path), f"{sectors // 2}k"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"mke2fs: {done.stderr.strip()}")


def command_line(kind: str, directory: Path, mac: str, network: int, cmdline: str, memory: int = 256) -> list[str]:
    """QEMU's words for a machine of `kind` whose files are in `directory`; `network` is a file descriptor."""
    words = [QEMU, "-no-reboot", "-display", "none", "-monitor", "none"]
    words += ["-chardev", f"file,id=console,path={_comma(directory / 'console.log')},append=on"]
    words += ["-serial", "chardev:console", "-kernel", str(directory / "kernel")]
    words += ["-netdev", f"dgram,id=n0,local.type=fd,local.str={network}"]
    if (directory / "initramfs").exists():
        words += ["-initrd", str(directory / "initramfs")]
    card = f"format=raw,file={_comma(directory / 'sd.img')},cache=unsafe"
    has_card = (directory / "sd.img").exists()
    if kind == "raspi3b":
        # One virtual CPU in one thread: four would spin on the few this machine has.
        words += ["-M", "raspi3b", "-accel", "tcg,thread=single", "-dtb", str(directory / "device_tree")]
        words += ["-device", f"usb-net,netdev=n0,mac={mac}", "-append", f"{cmdline} console=ttyAMA0,115200 maxcpus=1"]
        return words + (["-drive", f"if=sd,{card}"] if has_card else [])
    words += ["-M", "virt", "-cpu", "cortex-a53", "-smp", "1", "-m", str(memory), "-nodefaults"]
    words += ["-device", f"virtio-net-pci,netdev=n0,mac={mac},romfile="]  # no ROM of its own: ours has run
    words += ["-append", f"{cmdline} console=ttyAMA0,115200"]
    if has_card:
        words += ["-device", "sdhci-pci", "-device", "sd-card,drive=sd0", "-drive", f"id=sd0,if=none,{card}"]
    return words


def _comma(path: Path) -> str:
    return str(path).replace(",", ",,")  # QEMU splits its options there


class QemuMachine:
    """`run` returns when the guest resets; one thread. `cut` may come from any other: the plug is pulled."""

    def __init__(self, kind: str, directory: Path, mac: str, memory: int = 256) -> None:
        self._kind, self._directory, self._mac, self._memory = kind, directory, mac, memory
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()  # guards _process and _cut
        self._cut = False

    def cut(self) -> None:
        with self._lock:
            self._cut = True
            if self._process is not None:
                self._process.kill()  # nothing in the guest is flushed

    def close(self) -> None:
        """Nothing is held between runs."""

    def run(self, downloaded: Downloaded, wire: Wire) -> None:
        """Start the guest and carry its frames until it ends; PowerCut."""
        self._write_files(downloaded)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with ours, theirs:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
            process = self._start(theirs.fileno(), downloaded.cmdline)
            theirs.close()
            ended = os.pidfd_open(process.pid)
            try:
                wire.pump(ours, ended)
            finally:
                os.close(ended)
                process.kill()
                process.wait()
                with self._lock:
                    self._process = None
        if process.returncode not in (0, -signal.SIGKILL):
            lines = (self._directory / "qemu.log").read_text(errors="replace").strip().splitlines()
            raise LabError(f"QEMU ended with {process.returncode}: {lines[-1] if lines else 'no word from it'}")

    def _start(self, network: int, cmdline: str) -> subprocess.Popen[bytes]:
        words = command_line(self._kind, self._directory, self._mac, network, cmdline, self._memory)
        with self._lock, (self._directory / "qemu.log").open("wb") as log:
            if self._cut:
                raise PowerCut
            try:
                self._process = subprocess.Popen(
                    words, pass_fds=[network], stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            except OSError as error:
                raise LabError(f"{QEMU} (package qemu-system-arm) is needed: {error}") from error
            return self._process

    def _write_files(self, downloaded: Downloaded) -> None:
        parts = {
            "kernel": downloaded.kernel,
            "initramfs": downloaded.initramfs,
            "device_tree": downloaded.device_tree,
        }
        for name, data in parts.items():
            with contextlib.suppress(FileNotFoundError):
                (self._directory / name).unlink()
            if data:
                (self._directory / name).write_bytes(data)
