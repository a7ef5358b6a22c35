"""Boot loaders from Debian's packages on QEMU's boards, driven at their prompts."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

from tests.peers.machines import Machine

ARM = ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a57", "-smp", "1", "-m", "256", "-nodefaults"]
X86 = ["qemu-system-x86_64", "-smp", "1", "-m", "256", "-nodefaults"]
# The one that Debian's U-Boot for QEMU has in its environment; it does not ask its network card.
MAC = "52:52:52:52:52:52"


def u_boot(namespace: Path, card: str) -> Machine:
    """U-Boot on an arm64 board with this kind of network card, on the cable `eth0` of a namespace."""
    words = [*ARM, "-bios", "/usr/lib/u-boot/qemu_arm64/u-boot.bin"]
    return Machine(words, [(namespace, "eth0")], MAC, f"{card},mac={{mac}},romfile=")


class UBoot:
    """U-Boot's prompt."""

    LOAD_AT = "41000000"

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        machine.expect("stop autoboot", 60)
        machine.type("\n")
        machine.expect("=> ", 30)
        self.run("setenv autoload no")  # `dhcp` fetches a file of its own choice otherwise

    def run(self, text: str, timeout: float = 30) -> str:
        start = len(self._machine.console)
        self._machine.type(text + "\n")
        self._machine.expect(r"\n=> ", timeout)
        return self._machine.console[start:]

    def fetch(self, path: Path, block: int, window: int) -> None:
        """Fetch it over what was there before, and compare."""
        self.run(f"mw.b {self.LOAD_AT} 55 0x{path.stat().st_size:x}")
        self.run(f"setenv tftpblocksize {block}")
        self.run(f"setenv tftpwindowsize {window}")
        said = self.run(f"tftpboot {self.LOAD_AT} {path.name}", 120)
        assert f"Bytes transferred = {path.stat().st_size} " in said, said
        said = self.run(f"crc32 {self.LOAD_AT} ${{filesize}}")
        assert f"==> {zlib.crc32(path.read_bytes()):08x}" in said, said


class IPxe:
    """The iPXE in the ROM of QEMU's virtio card, on a PC. Its console is the BIOS's, on the serial line."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        machine.expect("Ctrl-B for the iPXE command line", 60)
        machine.type("\x02")
        machine.expect("iPXE> ", 30)

    def run(self, text: str, timeout: float = 30) -> str:
        start = len(self._machine.console)
        for letter in text:  # the BIOS loses what is typed faster than it echoes
            self._machine.type(letter)
            self._machine.expect(re.escape(letter), 30)
        self._machine.type("\r")
        self._machine.expect("iPXE> ", timeout)
        return self._machine.console[start:]
