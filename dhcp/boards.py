"""Who is asking: which program speaks from a Pi's MAC, and what it says of its board. Must hold no decision.

From power to login up to four programs ask for an address, one after the other, all from one MAC. They differ in what
they want and in what they cannot bear, so the answer depends on which of them it is. In the order of a boot:

    boot ROM of a 3B      in the chip, cannot be repaired: deaf for a second, sends no REQUEST, answers no ARP
    bootcode.bin          the next stage of a 3B, and the repaired boot ROM of a 3B+
    EEPROM                the boot loader of the Pi 4 and 5 families, a whole DHCP client
    U-Boot, iPXE, UEFI    loaders that some people put between firmware and kernel
    kernel                Linux configuring itself (`ip=dhcp`), for a root over NFS
    installer             our initramfs
    system                whatever was booted

Every one of the Pi's own loaders says that it is an x86 BIOS (`PXEClient:Arch:00000:UNDI:002001`, RFC 4578), as a PC
does. What tells it from a PC is option 97, and that a human wrote its MAC into hosts.csv. All of it can be forged, so
it decides how somebody is answered, never whether.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from dhcp.packet import Option, Packet

BOOT_ROM_XID = 0x26F30339  # the loaders of every Pi 3 send this xid, whichever board
BOOT_ROM_GUID = b"\0" + b"\x44" * 16  # every Pi 3B and 2B v1.2: says nothing of the board

# A hint for a human who looks at an unknown MAC, and never more: a list like this is out of date the day a new board
# is sold, and the Pico W has the same prefixes.
PI_PREFIXES = frozenset({"b8:27:eb", "dc:a6:32", "e4:5f:01", "d8:3a:dd", "28:cd:c1", "2c:cf:67", "88:a2:9e"})

_X86_BIOS = "PXEClient:Arch:00000"
# Architectures of RFC 4578 and of the IANA registry that continues it.
_UEFI = frozenset({2, 6, 7, 8, 9, 10, 11, 15, 16, 17, 18, 19, 25, 27})
_U_BOOT = frozenset({0x15, 0x16, 0x17, 0x18, 0x0100})
# The parameter list of the kernel's `ip=dhcp` (net/ipv4/ipconfig.c): root path and NIS domain are asked for by nobody
# else in this order. Newer kernels have more behind it.
_KERNEL_LIST = (1, 3, 6, 12, 15, 17)
_NIS_DOMAIN = 40


class Nature(Enum):
    """Which program asks; TRAITS says what it is like."""

    __hash__ = object.__hash__  # each is one object: an Enum's own, by name, takes as long as the rest of a look-up

    BOOT_ROM = "boot ROM"
    BOOTCODE = "bootcode"
    EEPROM = "EEPROM"
    LOADER = "loader"  # as a Pi's, but its option 97 says nothing; its MAC is known to be a Pi's
    U_BOOT = "U-Boot"
    IPXE = "iPXE"
    UEFI = "UEFI"
    PXE = "PXE"
    KERNEL = "kernel"
    INSTALLER = "installer"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class Traits:
    """What a program wants and what it cannot bear.

    words           what a human reads
    boots_pi        it looks for the words "Raspberry Pi Boot" and for a TFTP server
    pxe             it boots over the network, as a Pi or as something else
    requests        False: the OFFER is all it waits for, no REQUEST may ever come
    deaf            seconds after its DISCOVER in which it hears no answer
    answers_arp     False: who sends to it must know its MAC already
    """

    words: str
    boots_pi: bool = False
    pxe: bool = False
    requests: bool = True
    deaf: float = 0.0
    answers_arp: bool = True


TRAITS: Mapping[Nature, Traits] = {
    # It sleeps for a second after its DISCOVER, and looks at what came in only when something comes in after that.
    Nature.BOOT_ROM: Traits(
        "the boot ROM of a Pi 3", boots_pi=True, pxe=True, requests=False, deaf=1.2, answers_arp=False
    ),
    # Whether this one sends a REQUEST differs between versions: either way is served.
    Nature.BOOTCODE: Traits("the boot loader of a Pi 3", boots_pi=True, pxe=True, requests=False),
    Nature.EEPROM: Traits("the boot loader", boots_pi=True, pxe=True),
    Nature.LOADER: Traits("the boot loader", boots_pi=True, pxe=True),
    Nature.U_BOOT: Traits("U-Boot", pxe=True),
    Nature.IPXE: Traits("iPXE", pxe=True),
    Nature.UEFI: Traits("UEFI", pxe=True),
    Nature.PXE: Traits("a PXE client that is no Pi", pxe=True),
    Nature.KERNEL: Traits("the kernel"),
    Nature.INSTALLER: Traits("the installer"),
    Nature.SYSTEM: Traits("the operating system"),
}


# --- what a Pi says of itself in option 97 ---

# Types of the new-style revision code, bits 4 to 11 (Raspberry Pi documentation, "Raspberry Pi revision codes").
_MODELS = {
    0x00: "Pi 1A",
    0x01: "Pi 1B",
    0x02: "Pi 1A+",
    0x03: "Pi 1B+",
    0x04: "Pi 2B",
    0x06: "CM1",
    0x08: "Pi 3B",
    0x09: "Pi Zero",
    0x0A: "CM3",
    0x0C: "Pi Zero W",
    0x0D: "Pi 3B+",
    0x0E: "Pi 3A+",
    0x10: "CM3+",
    0x11: "Pi 4",
    0x12: "Pi Zero 2 W",
    0x13: "Pi 400",
    0x14: "CM4",
    0x15: "CM4S",
    0x17: "Pi 5",
    0x18: "CM5",
    0x19: "Pi 500",
    0x1A: "CM5 Lite",
}
_NEW_STYLE = 1 << 23  # of a revision code; all boards that send one have it


@dataclass(frozen=True, slots=True)
class Board:
    """What option 97 tells of a Pi. A hint: anyone can send it. Empty where it says nothing."""

    model: str = ""  # "Pi 4"
    serial: str = ""  # 8 hex digits, the low half
    revision: str = ""  # hex, "d03114"


def _generation(fourcc: bytes) -> str:
    """The digit of "RPi4" in either byte order, both are in the field; "" for another text."""
    for text in (fourcc, fourcc[::-1]):
        if text[:3] == b"RPi" and text[3:].isdigit():
            return text[3:].decode()
    return ""


def parse_guid(guid: bytes, chaddr: bytes = b"") -> Board:
    """Read option 97. A PC's, a malformed and a Pi 3B boot ROM's one give an empty Board.

    EEPROM boot loaders of Pi 4 and 5: 00, "RPi4" or "RPi5", revision, last four bytes of the MAC, serial. The boot
    ROM of a 3B+, bootcode.bin, and EEPROMs before March 2020: 00 and four times the serial. Numbers are little-endian.
    """
    if len(guid) != 17 or guid[0] or guid == BOOT_ROM_GUID or not any(guid):
        return Board()
    generation = _generation(guid[1:5])
    # The EEPROM's setting DHCP_OPTION97 changes the first word, but not what follows.
    if generation or (len(chaddr) == 6 and guid[9:13] == chaddr[2:]):
        order = "<" if struct.unpack("<I", guid[5:9])[0] & _NEW_STYLE else ">"
        revision, serial = struct.unpack(order + "I4xI", guid[5:17])
        # Without the new-style bit in either order the number is no code that can be decoded: believe the fourcc.
        known = _MODELS.get(revision >> 4 & 0xFF) if revision & _NEW_STYLE else None
        return Board(known or f"Pi {generation}".rstrip(), f"{serial:08x}", f"{revision:x}")
    if guid[1:5] * 4 == guid[1:]:
        return Board(serial=f"{struct.unpack('<I', guid[1:5])[0]:08x}")
    return Board()


# --- who is asking ---


@dataclass(frozen=True, slots=True)
class Asker:
    """One program on one board, as far as its message tells."""

    nature: Nature
    board: Board = Board()
    guid: bytes = b""  # option 97 as it came

    @property
    def traits(self) -> Traits:
        return TRAITS[self.nature]

    @property
    def words(self) -> str:
        """`the boot loader of a CM4`, for a human."""
        return self.traits.words + (f" of a {self.board.model}" if self.board.model else "")

    @property
    def facts(self) -> dict[str, str]:
        """What was learnt of the board, for a Report."""
        facts = {"model": self.board.model, "serial": self.board.serial, "revision": self.board.revision}
        return {key: value for key, value in facts.items() if value}


def has_pi_prefix(mac: str) -> bool:
    return mac[:8] in PI_PREFIXES


def _architecture(packet: Packet) -> int:
    """Option 93 (RFC 4578 section 2.1), else the number in the vendor class; -1: neither says."""
    if len(packet.raw(Option.CLIENT_ARCHITECTURE)) >= 2:
        return int.from_bytes(packet.raw(Option.CLIENT_ARCHITECTURE)[:2], "big")
    digits = packet.text(Option.VENDOR_CLASS).partition(":Arch:")[2][:5]
    return int(digits) if digits.isascii() and digits.isdigit() else -1


def _pxe_nature(packet: Packet, board: Board, is_pi: bool) -> Nature:
    """Of one that calls itself a PXE or HTTP client, but is neither iPXE nor U-Boot."""
    if not packet.text(Option.VENDOR_CLASS).startswith(_X86_BIOS):
        return Nature.UEFI if _architecture(packet) in _UEFI else Nature.PXE
    guid = packet.raw(Option.CLIENT_GUID)
    # The constant xid alone is shared by the boot ROM and by those that were repaired. What tells them apart is the
    # GUID: the ROM knows no serial, so a message without one is taken for the ROM's, whose answer suits the others.
    if guid == BOOT_ROM_GUID or (packet.xid == BOOT_ROM_XID and not board.serial):
        return Nature.BOOT_ROM
    if packet.xid == BOOT_ROM_XID:
        return Nature.BOOTCODE
    if board.serial:
        return Nature.EEPROM
    return Nature.LOADER if is_pi or has_pi_prefix(packet.mac) else Nature.PXE


def identify(packet: Packet, is_pi: bool = False) -> Asker:
    """Who sent this message. `is_pi`: a human says that this MAC is a Pi's, where the message itself leaves it open."""
    vendor_class = packet.text(Option.VENDOR_CLASS)
    guid = packet.raw(Option.CLIENT_GUID)
    board = parse_guid(guid, packet.chaddr)
    # iPXE and U-Boot are started by the firmware below them, and iPXE repeats that one's vendor class.
    if packet.raw(Option.USER_CLASS).find(b"iPXE") >= 0 or Option.ETHERBOOT in packet.options:
        nature = Nature.IPXE
    elif vendor_class.lower().startswith("u-boot") or _architecture(packet) in _U_BOOT:
        nature = Nature.U_BOOT
    elif vendor_class.startswith(("PXEClient", "HTTPClient")):
        nature = _pxe_nature(packet, board, is_pi)
    elif vendor_class.startswith("piman-installer"):
        nature = Nature.INSTALLER
    elif vendor_class.startswith("Linux ipconfig") or (
        packet.requested()[: len(_KERNEL_LIST)] == _KERNEL_LIST and _NIS_DOMAIN in packet.requested()
    ):
        nature = Nature.KERNEL
    else:
        nature = Nature.SYSTEM
    return Asker(nature, board, guid)


def looks_like_pi(packet: Packet, asker: Asker) -> bool:
    """Whether an unknown MAC is worth showing to a human as a Pi. A hint: a new board may have none of these marks."""
    vendor_class = packet.text(Option.VENDOR_CLASS)
    return (
        asker.traits.boots_pi
        or bool(asker.board.serial)
        or asker.nature is Nature.INSTALLER
        or has_pi_prefix(packet.mac)
        or ":BCM2" in vendor_class  # dhcpcd sends the processor of a Pi: dhcpcd-9.4.1:Linux-6.1:aarch64:BCM2835
    )
