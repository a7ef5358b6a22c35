"""What each Raspberry Pi model does on the wire before Linux runs: its DHCP options, files, waits. Data, no I/O.

Two kinds of client. The mask ROM of the Pi 3 is small and has defects; the EEPROM of the Pi 4 and 5 is a whole DHCP
client. Where public sources are silent the value here is marked as assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

VENDOR_CLASS = b"PXEClient:Arch:00000:UNDI:002001"
MASK_ROM_XID = 0x26F30339  # of every board that has this ROM
_PXE_LIST = bytes(range(128, 136))
_ROM_LIST = bytes((43, 60, 67)) + _PXE_LIST + bytes((66,))
_LOADER_LIST = _ROM_LIST + bytes((1, 3))
_EEPROM_LIST = bytes((1, 3, 43, 60, 66, 67)) + _PXE_LIST
_ARCH_AND_UNDI = bytes.fromhex("5d0200005e03010201")  # options 93 and 94: an x86 BIOS, they say


@dataclass(frozen=True, slots=True)
class Identity:
    """Who one board is. `serial` is the low 32 bits, which name its TFTP folder."""

    mac: str
    serial: int
    revision: int

    @property
    def folder(self) -> str:
        return f"{self.serial:08x}"

    @property
    def mac_bytes(self) -> bytes:
        return bytes.fromhex(self.mac.replace(":", ""))


class Guid(Enum):
    """What stands in option 97, after its type byte 0."""

    CONSTANT = "constant"  # sixteen times 0x44: the 3B's ROM does not know who it is
    SERIAL = "serial"  # the serial, little-endian, four times
    BOARD = "board"  # fourcc, revision, last four bytes of the MAC, serial


@dataclass(frozen=True, slots=True)
class Dhcp:
    """How one boot stage asks for its address."""

    parameters: bytes  # option 55
    guid: Guid
    fourcc: bytes = b""
    requests: bool = True  # False: takes the OFFER and is done
    constant_xid: bool = False
    waits: tuple[float, ...] = (4.0, 8.0, 16.0, 17.0)  # after each DISCOVER; then it gives up
    deaf: float = 0.0  # an OFFER is looked at only when a frame comes in this long after the DISCOVER


@dataclass(frozen=True, slots=True)
class Tftp:
    """How one boot stage asks for files."""

    options: tuple[tuple[str, str], ...] = ()
    retry: float = 2.0  # an unanswered packet is repeated, from the same port
    timeout: float = 30.0  # without a new block; the board counts the whole file, but it is faster than this lab
    rollover: bool = False  # goes on after block 65535


@dataclass(frozen=True, slots=True)
class Step:
    """One file that is asked for. `name` may be a word in braces, which config.txt fills: see bootrom.py.

    probes    requests that are ended with ERROR 0 as soon as the first answer is in
    full      then it is fetched
    folder    its 404 tells the board that it has no folder: all that follows comes from the root
    otherwise another name to ask for where this one is not there
    slash     what stands between folder and name
    """

    name: str
    probes: int = 0
    full: bool = True
    folder: bool = False
    required: bool = False
    otherwise: str = ""
    slash: str = "/"


@dataclass(frozen=True, slots=True)
class Stage:
    """A program that runs on the board, with a network stack of its own, and the files it asks for, in order."""

    name: str
    steps: tuple[Step, ...]
    tftp: Tftp
    dhcp: Dhcp | None = None  # None: it inherits the address
    ttl: int = 64
    udp_checksum: bool = True  # sends it, and drops datagrams where it is wrong
    answers_arp: bool = True
    root_only: bool = False  # it knows no serial, and so no folder
    first_port: int = 0  # its TFTP ports count up from here; 0: random
    config_limit: int = 0  # bytes of config.txt it can read; 0: any


@dataclass(frozen=True, slots=True)
class Profile:
    """A model: what it is called, what it boots, and its boot stages in order."""

    model: str  # as /proc/device-tree/model says it
    oui: str
    revision: int
    filters: frozenset[str]  # of config.txt
    device_tree: str
    kernels: tuple[str, ...]  # in the order it wants them where config.txt names none
    kernels_64: tuple[str, ...]  # the same, where config.txt says arm_64bit=1
    stages: tuple[Stage, ...]
    link_delay: float  # from power to the first frame
    restart: float | None  # after a failure: seconds until it starts again; None: never, until a power cycle
    initramfs: Mapping[str, str] = field(default_factory=dict)  # auto_initramfs: by kernel


def _option(code: int, value: bytes) -> bytes:
    return bytes((code, len(value))) + value


def _guid(dhcp: Dhcp, board: Identity) -> bytes:
    serial = board.serial.to_bytes(4, "little")
    if dhcp.guid is Guid.CONSTANT:
        return b"\0" + b"\x44" * 16
    if dhcp.guid is Guid.SERIAL:
        return b"\0" + serial * 4
    return b"\0" + dhcp.fourcc + board.revision.to_bytes(4, "little") + board.mac_bytes[2:] + serial


def discover_options(dhcp: Dhcp, board: Identity) -> bytes:
    """The options of the stage's DISCOVER, from 53 to 255, in the order the boards send them."""
    ends = _ARCH_AND_UNDI + _option(97, _guid(dhcp, board)) + _option(60, VENDOR_CLASS) + b"\xff"
    return _option(53, b"\x01") + _option(55, dhcp.parameters) + ends


def request_options(dhcp: Dhcp, board: Identity, address: bytes, server: bytes) -> bytes:
    """The options of its REQUEST: no parameter list any more, the vendor class still there."""
    ends = _ARCH_AND_UNDI + _option(97, _guid(dhcp, board)) + _option(60, VENDOR_CLASS) + b"\xff"
    return _option(53, b"\x03") + _option(50, address) + _option(54, server) + ends


def _recovery(*names: str) -> tuple[Step, ...]:
    return tuple(Step(name) for name in names)


_FIVE_TIMES = (5.0,) * 5
_TSIZE = Tftp((("tsize", "0"),))
_BIG_BLOCKS = Tftp((("tsize", "0"), ("blksize", "1468")))

_MASK_ROM = Stage(
    name="ROM",
    steps=(Step("bootcode.bin", required=True), Step("bootsig.bin")),
    tftp=Tftp(),
    dhcp=Dhcp(_ROM_LIST, Guid.CONSTANT, requests=False, constant_xid=True, waits=_FIVE_TIMES, deaf=1.0),
    ttl=128,
    udp_checksum=False,
    answers_arp=False,
    root_only=True,
    first_port=49152,
)
_BOOTCODE = Stage(
    name="bootcode.bin",
    steps=(
        Step("start.elf", probes=2, full=False, folder=True),
        *_recovery("autoboot.txt", "config.txt", "recovery.elf"),
        Step("start.elf", required=True),
        Step("fixup.dat"),
    ),
    tftp=_TSIZE,
    dhcp=Dhcp(_LOADER_LIST, Guid.SERIAL, requests=False, constant_xid=True, waits=_FIVE_TIMES),
    first_port=49153,
)
_START_ELF = Stage(
    name="start.elf",
    steps=(
        Step("recovery.elf"),
        Step("config.txt", probes=1),
        *_recovery("dt-blob.bin", "recovery.elf"),
        Step("config.txt", probes=1),
        Step("bootcfg.txt"),
        Step("{device_tree}", probes=1),
        Step("overlays/overlay_map.dtb", probes=1),
        Step("config.txt", probes=1),
        Step("{overlays}", probes=1),
        Step("{cmdline}", probes=1),
        *_recovery("recovery8.img", "recovery8-32.img", "recovery7.img", "recovery.img"),
        Step("{kernels}", probes=1, full=False),
        Step("armstub8-32.bin"),
        Step("{kernel}", required=True),
        Step("{initramfs}", required=True),
    ),
    tftp=_TSIZE,
    first_port=49170,
)
PI_3B = Profile(
    model="Raspberry Pi 3 Model B Rev 1.2",
    oui="b8:27:eb",
    revision=0xA02082,
    filters=frozenset({"pi3"}),
    device_tree="bcm2710-rpi-3-b.dtb",
    kernels=("kernel8-32.img", "kernel7.img", "kernel8.img"),
    kernels_64=("kernel8.img",),
    stages=(_MASK_ROM, _BOOTCODE, _START_ELF),
    link_delay=5.0,  # when the network LEDs come on
    restart=None,
    initramfs={"kernel8.img": "initramfs8", "kernel7.img": "initramfs7"},
)
_REPAIRED_DHCP = Dhcp(
    _LOADER_LIST, Guid.SERIAL, requests=True, constant_xid=True, waits=_FIVE_TIMES
)  # REQUEST: assumed
PI_3B_PLUS = replace(
    PI_3B,
    model="Raspberry Pi 3 Model B Plus Rev 1.3",
    revision=0xA020D3,
    filters=frozenset({"pi3", "pi3+"}),
    device_tree="bcm2710-rpi-3-b-plus.dtb",
    stages=(
        replace(_MASK_ROM, dhcp=_REPAIRED_DHCP, udp_checksum=True, answers_arp=True),
        replace(_BOOTCODE, dhcp=_REPAIRED_DHCP),
        _START_ELF,
    ),
)

_EEPROM_4 = Stage(
    name="EEPROM",
    steps=(
        Step("start4.elf", probes=1, full=False, folder=True, otherwise="start.elf"),
        *_recovery("config.txt", "pieeprom.sig", "recover4.elf", "recovery.elf"),
        Step("start4.elf", required=True),
        Step("fixup4.dat"),
    ),
    tftp=_BIG_BLOCKS,
    dhcp=Dhcp(_EEPROM_LIST, Guid.BOARD, fourcc=bytes.fromhex("34695052")),
    config_limit=4096,
)
_START4_ELF = Stage(
    name="start4.elf",
    steps=(
        Step("recovery.elf"),
        Step("config.txt", probes=1),
        *_recovery("dt-blob.bin", "recovery.elf"),
        Step("config.txt"),
        Step("bootcfg.txt"),
        Step("{initramfs}", required=True),
        Step("{device_tree}", probes=1),
        Step("overlays/overlay_map.dtb", probes=1),
        Step("config.txt", probes=1),
        Step("{overlays}", probes=1),
        Step("{cmdline}"),
        Step("recovery8.img"),
        Step("{kernels}", probes=1, full=False),
        Step("armstub8-gic.bin"),
        Step("{kernel}", required=True),
    ),
    tftp=_BIG_BLOCKS,
    config_limit=4096,
)
PI_4 = Profile(
    model="Raspberry Pi 4 Model B Rev 1.4",
    oui="e4:5f:01",
    revision=0xD03114,
    filters=frozenset({"pi4"}),
    device_tree="bcm2711-rpi-4-b.dtb",
    kernels=("kernel8.img", "kernel7l.img"),
    kernels_64=("kernel8.img",),
    stages=(_EEPROM_4, _START4_ELF),
    link_delay=5.2,
    restart=5.0,
    initramfs={"kernel8.img": "initramfs8", "kernel7l.img": "initramfs7l"},
)
PI_5 = Profile(
    model="Raspberry Pi 5 Model B Rev 1.0",
    oui="2c:cf:67",
    revision=0xD04170,
    filters=frozenset({"pi5"}),
    device_tree="bcm2712-rpi-5-b.dtb",
    kernels=("kernel_2712.img", "kernel8.img"),
    kernels_64=("kernel_2712.img", "kernel8.img"),
    stages=(
        Stage(
            name="EEPROM",
            steps=(
                Step("config.txt", folder=True, required=True),
                Step("pieeprom.sig"),
                Step("config.txt", probes=1, slash="//"),
                Step("{kernels}", probes=1, full=False),
                Step("{initramfs}", required=True),
                Step("{device_tree}"),
                Step("overlays/overlay_map.dtb"),
                Step("{overlays}"),
                Step("{cmdline}", slash="//"),
                Step("armstub8-2712.bin"),
                Step("{kernel}", required=True),
            ),
            tftp=replace(_BIG_BLOCKS, rollover=True),
            dhcp=Dhcp(_EEPROM_LIST, Guid.BOARD, fourcc=bytes.fromhex("35695052")),
            config_limit=4096,
        ),
    ),
    link_delay=3.2,
    restart=5.0,
    initramfs={"kernel8.img": "initramfs8", "kernel_2712.img": "initramfs_2712"},
)
PROFILES: Mapping[str, Profile] = {
    "3b": PI_3B,
    "3b+": PI_3B_PLUS,
    "4": PI_4,
    "5": PI_5,
    "cm4": replace(
        PI_4,
        model="Raspberry Pi Compute Module 4 Rev 1.1",
        revision=0xB03141,
        filters=frozenset({"pi4", "cm4"}),
        device_tree="bcm2711-rpi-cm4.dtb",
    ),
    "cm5": replace(
        PI_5,
        model="Raspberry Pi Compute Module 5 Rev 1.0",
        revision=0xC04180,
        filters=frozenset({"pi5", "cm5"}),
        device_tree="bcm2712-rpi-cm5-cm5io.dtb",
    ),
}
