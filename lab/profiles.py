"""What each Raspberry Pi model does on the wire before Linux runs: DHCP options, files, waits, defects. No I/O.

Two kinds of client. The mask ROM of the Pi 3 is small and has defects; the EEPROM of the Pi 4 and 5 is a whole DHCP
client, and each version of it differs. Where public sources are silent the value here is marked as assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from enum import Enum

VENDOR_CLASS = b"PXEClient:Arch:00000:UNDI:002001"
MASK_ROM_XID = 0x26F30339  # of every board that has this ROM
PXE_MARK = b"Raspberry Pi Boot"
_PXE_LIST = bytes(range(128, 136))
_ROM_LIST = bytes((43, 60, 67)) + _PXE_LIST + bytes((66,))
_LOADER_LIST = _ROM_LIST + bytes((1, 3))
_EEPROM_LIST = bytes((1, 3, 43, 60, 66, 67)) + _PXE_LIST
_SYSTEM_LIST = bytes((1, 3, 6, 12, 15, 28, 42))
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
class Quirks:
    """The defects of a boot stage, and what differs between its versions. The defaults are a faultless client's.

    Of DHCP:
    deaf             an OFFER is looked at only when a frame comes in this long (seconds) after the DISCOVER
    menu             the text that option 43 must hold
    strict_menu      an option 43 without the text spoils the OFFER; otherwise option 66 is enough
    constant_xid     the xid of every other board
    requests         False: takes the OFFER, anybody's with its xid, and is done
    request_class    its REQUEST has option 60

    Of ARP, IP and UDP:
    asks_arp         False: sends to where the OFFER came from, and nobody learns its MAC from an ARP request
    answers_arp      also while it waits for something else
    udp_checksum     sends it, and drops datagrams where it is wrong

    Of TFTP:
    rollover         goes on after block 65535
    config_limit     bytes of config.txt; a longer one is ignored; 0: any
    needs_blksize    a config.txt that came in smaller blocks than it asked for is ignored
    second_oack      False: hangs at one
    repeated_data    False: hangs at a block that it has acknowledged
    """

    deaf: float = 0.0
    menu: bytes = PXE_MARK
    strict_menu: bool = False
    constant_xid: bool = False
    requests: bool = True
    request_class: bool = True
    asks_arp: bool = True
    answers_arp: bool = True
    udp_checksum: bool = True
    rollover: bool = False
    config_limit: int = 0
    needs_blksize: bool = False
    second_oack: bool = True
    repeated_data: bool = True


@dataclass(frozen=True, slots=True)
class Dhcp:
    """How one boot stage asks for its address."""

    parameters: bytes  # option 55
    guid: Guid
    fourcc: bytes = b""
    waits: tuple[float, ...] = (4.0, 8.0, 16.0, 17.0)  # after each DISCOVER; then it gives up


@dataclass(frozen=True, slots=True)
class Tftp:
    """How one boot stage asks for files."""

    options: tuple[tuple[str, str], ...] = ()
    retry: float = 2.0  # an unanswered packet is repeated, from the same port
    timeout: float = 30.0  # without a new block; the board counts the whole file, but it is faster than this lab


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
    quirks: Quirks = Quirks()
    ttl: int = 64
    root_only: bool = False  # it knows no serial, and so no folder
    first_port: int = 0  # its TFTP ports count up from here; 0: random


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
    disk_first: bool = False  # a disk that it can boot is booted without asking the network; else when that has failed
    warm_boot: bool = True  # False: after a reset it hangs, until a power cycle

    def change(self, change: Callable[[Stage], Stage]) -> Profile:
        """The same model with each stage changed."""
        return replace(self, stages=tuple(change(stage) for stage in self.stages))

    def quirk(self, **quirks: object) -> Profile:
        """The same model with these quirks in each stage."""
        return self.change(lambda stage: replace(stage, quirks=replace(stage.quirks, **quirks)))  # type: ignore[arg-type]

    def dhcp(self, **changes: object) -> Profile:
        """The same model with these changes to its DHCP, in each stage that asks for an address."""
        return self.change(
            lambda stage: stage if stage.dhcp is None else replace(stage, dhcp=replace(stage.dhcp, **changes))  # type: ignore[arg-type]
        )

    def tftp(self, **changes: object) -> Profile:
        """The same model with these changes to its TFTP, in each stage."""
        return self.change(lambda stage: replace(stage, tftp=replace(stage.tftp, **changes)))  # type: ignore[arg-type]

    def scaled(self, factor: float) -> Profile:
        """The same model with its patience shortened: DISCOVERs, retries, time-outs. Not `deaf`, as servers know it."""

        def shorten(stage: Stage) -> Stage:
            tftp = replace(stage.tftp, retry=stage.tftp.retry * factor, timeout=stage.tftp.timeout * factor)
            dhcp = stage.dhcp and replace(stage.dhcp, waits=tuple(wait * factor for wait in stage.dhcp.waits))
            return replace(stage, tftp=tftp, dhcp=dhcp)

        return self.change(shorten)


def eeprom_of(profile: Profile, day: date) -> Profile:
    """A Pi 4 or 5 with the EEPROM that was the newest on that day."""
    size = 1468 if day >= date(2022, 10, 3) else 1024 if day >= date(2019, 10, 8) else 0
    profile = profile.tftp(options=_big_blocks(size)).quirk(
        rollover=day >= date(2025, 9, 23),
        request_class=day >= date(2020, 3, 4),  # the day is assumed; in January it was missing
        needs_blksize=bool(size),
    )
    return profile if day >= date(2020, 3, 4) else profile.dhcp(guid=Guid.SERIAL)


def _option(code: int, value: bytes) -> bytes:
    return bytes((code, len(value))) + value


def _guid(dhcp: Dhcp, board: Identity) -> bytes:
    serial = board.serial.to_bytes(4, "little")
    if dhcp.guid is Guid.CONSTANT:
        return b"\0" + b"\x44" * 16
    if dhcp.guid is Guid.SERIAL:
        return b"\0" + serial * 4
    return b"\0" + dhcp.fourcc + board.revision.to_bytes(4, "little") + board.mac_bytes[2:] + serial


def _pxe_options(dhcp: Dhcp, board: Identity, vendor_class: bool = True) -> bytes:
    options = _ARCH_AND_UNDI + _option(97, _guid(dhcp, board))
    return options + (_option(60, VENDOR_CLASS) if vendor_class else b"") + b"\xff"


def discover_options(dhcp: Dhcp, board: Identity) -> bytes:
    """The options of the stage's DISCOVER, from 53 to 255, in the order the boards send them."""
    return _option(53, b"\x01") + _option(55, dhcp.parameters) + _pxe_options(dhcp, board)


def request_options(dhcp: Dhcp, board: Identity, address: bytes, server: bytes, vendor_class: bool = True) -> bytes:
    """The options of its REQUEST: no parameter list any more, the vendor class mostly still there."""
    asked = _option(53, b"\x03") + _option(50, address) + _option(54, server)
    return asked + _pxe_options(dhcp, board, vendor_class)


def system_options(board: Identity, hostname: str) -> bytes:
    """What the operating system adds to option 53: a client identifier, a name, another list, and nothing of PXE."""
    who = _option(61, b"\x01" + board.mac_bytes) + _option(12, hostname.encode("ascii"))
    return who + _option(55, _SYSTEM_LIST) + b"\xff"


def _big_blocks(size: int) -> tuple[tuple[str, str], ...]:
    return (("tsize", "0"), ("blksize", str(size))) if size else (("tsize", "0"),)


def _steps(text: str) -> tuple[Step, ...]:
    """A line for each file: its name, then in words how it is asked for. Without a word it is fetched."""

    def step(name: str, *words: str) -> Step:
        return Step(
            name,
            probes=words.count("probe"),
            full="only" not in words,
            folder="folder" in words,
            required="needed" in words,
            otherwise=next((word.removeprefix("or:") for word in words if word.startswith("or:")), ""),
            slash="//" if "//" in words else "/",
        )

    return tuple(step(*line.split()) for line in text.strip().splitlines())


_TSIZE = Tftp(_big_blocks(0))
_BIG_BLOCKS = Tftp(_big_blocks(1468))

_MASK_ROM = Stage(
    name="ROM",
    steps=_steps("""
        bootcode.bin needed
        bootsig.bin
    """),
    tftp=Tftp(),
    dhcp=Dhcp(_ROM_LIST, Guid.CONSTANT, waits=(5.0,) * 5),
    quirks=Quirks(
        deaf=1.0,
        menu=PXE_MARK + b"   ",
        strict_menu=True,
        constant_xid=True,
        requests=False,
        asks_arp=False,  # assumed, as it is the harder case for a server
        answers_arp=False,
        udp_checksum=False,
    ),
    ttl=128,
    root_only=True,
    first_port=49152,
)
_BOOTCODE = Stage(
    name="bootcode.bin",
    steps=_steps("""
        start.elf        probe probe only folder
        autoboot.txt
        config.txt
        recovery.elf
        start.elf        needed
        fixup.dat
    """),
    tftp=_TSIZE,
    dhcp=Dhcp(_LOADER_LIST, Guid.SERIAL, waits=(5.0,) * 5),
    quirks=Quirks(constant_xid=True, requests=False),
    first_port=49153,
)
_START_ELF = Stage(
    name="start.elf",
    steps=_steps("""
        recovery.elf
        config.txt       probe
        dt-blob.bin
        recovery.elf
        config.txt       probe
        bootcfg.txt
        {device_tree}    probe
        overlays/overlay_map.dtb probe
        config.txt       probe
        {overlays}       probe
        {cmdline}        probe
        recovery8.img
        recovery8-32.img
        recovery7.img
        recovery.img
        {kernels}        probe only
        armstub8-32.bin
        {kernel}         needed
        {initramfs}      needed
    """),
    tftp=_TSIZE,
    quirks=Quirks(second_oack=False),
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
    disk_first=True,
)
_REPAIRED = Quirks(constant_xid=True)  # it sends a REQUEST: assumed
PI_3B_PLUS = replace(
    PI_3B,
    model="Raspberry Pi 3 Model B Plus Rev 1.3",
    revision=0xA020D3,
    filters=frozenset({"pi3", "pi3+"}),
    device_tree="bcm2710-rpi-3-b-plus.dtb",
    stages=(
        replace(_MASK_ROM, dhcp=_BOOTCODE.dhcp, quirks=_REPAIRED),
        replace(_BOOTCODE, quirks=_REPAIRED),
        _START_ELF,
    ),
)

_EEPROM_4 = Stage(
    name="EEPROM",
    steps=_steps("""
        start4.elf       probe only folder or:start.elf
        config.txt
        pieeprom.sig
        recover4.elf
        recovery.elf
        start4.elf       needed
        fixup4.dat
    """),
    tftp=_BIG_BLOCKS,
    dhcp=Dhcp(_EEPROM_LIST, Guid.BOARD, fourcc=b"4iPR"),
    quirks=Quirks(config_limit=4096, needs_blksize=True),
)
_START4_ELF = Stage(
    name="start4.elf",
    steps=_steps("""
        recovery.elf
        config.txt       probe
        dt-blob.bin
        recovery.elf
        config.txt
        bootcfg.txt
        {initramfs}      needed
        {device_tree}    probe
        overlays/overlay_map.dtb probe
        config.txt       probe
        {overlays}       probe
        {cmdline}
        recovery8.img
        {kernels}        probe only
        armstub8-gic.bin
        {kernel}         needed
    """),
    tftp=_BIG_BLOCKS,
    quirks=_EEPROM_4.quirks,
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
_EEPROM_5 = replace(
    _EEPROM_4,
    steps=_steps("""
        config.txt       folder needed
        pieeprom.sig
        config.txt       probe //
        {kernels}        probe only
        {initramfs}      needed
        {device_tree}
        overlays/overlay_map.dtb
        {overlays}
        {cmdline}        //
        armstub8-2712.bin
        {kernel}         needed
    """),
    dhcp=Dhcp(_EEPROM_LIST, Guid.BOARD, fourcc=b"5iPR"),
    quirks=replace(_EEPROM_4.quirks, rollover=True),
)
PI_5 = Profile(
    model="Raspberry Pi 5 Model B Rev 1.0",
    oui="2c:cf:67",
    revision=0xD04170,
    filters=frozenset({"pi5"}),
    device_tree="bcm2712-rpi-5-b.dtb",
    kernels=("kernel_2712.img", "kernel8.img"),
    kernels_64=("kernel_2712.img", "kernel8.img"),
    stages=(_EEPROM_5,),
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
