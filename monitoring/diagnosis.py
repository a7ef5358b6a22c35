"""What went wrong in a Pi's boot, in words: what is known of the boot in, findings out. No clock, socket, file or log.

The rules, in the order in which they are tried; the numbers in them are what the boards do (dhcp/README.md):

 1  Power, and not a word for 60 s (Pi 3) or 90 s: no network in BOOT_ORDER, no link, no power, a broken board.
 2  Power, no DISCOVER of a boot loader, and yet its system speaks: it booted its card without asking.
 3  The first DISCOVER comes 25 s or more after the power: the port had no link, spanning tree.
 4  A boot ROM (Pi 3) is silent after its five DISCOVERs: it tries no more until the next power-on.
 5  It took the offer of another DHCP server, and asks us for no file.
 6  DISCOVER after DISCOVER, each answered, and nothing after: our answers do not reach it, or do not please it.
 7  It has an address, and asks for no file for 15 s.
 8  A file that it needs is not in the boot folder.
 9  config.txt is larger than 4096 bytes: a Pi 4 or 5 leaves it out when it comes over the network.
10  A file ends near its 65535th block: an older loader cannot count further.
11  A file could not be read to its end by us.
12  A transfer stopped in the middle, and the Pi is silent.
13  More than 5 % of the packets had to be sent again.
14  The kernel was fetched, and no hello came for 60 s.
15  The same first file was fetched four times in ten minutes: it starts over and over.
16  The installer began three times and never came to the end.

A finding that is a state ends by itself when the Pi goes on; one that is a fact of the past (3, 9, 10, 11, 13) stays on
the board only in the stages that it concerns. Which of several is shown: the gravest, of these the first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from utility.service import FileRecord, Severity, Stage

SILENCE, SILENCE_OF_ROM = 90.0, 60.0  # after power-on; what tries other media first, or waits for the link, needs 45
LATE_DISCOVER = 25.0  # after power-on; spanning tree holds a port for 30, a link and a boot loader need 5 to 10
LATE_DISCOVER_OF_MODULE = 45.0  # a Compute Module tries everything else first
ROM_DISCOVERS, ROM_INTERVAL = 5, 5.0  # then it gives up
NO_ANSWER_TAKEN = 4  # DISCOVERs that were answered
NO_FILE = 15.0  # after the lease
SETTLED = 3.0  # after a file that is missing: a loader that has another name to try has asked for it by then
LARGEST_CONFIG = 4096  # bytes of config.txt
BLOCKS = 65535  # of a transfer, for a loader that cannot start its count again
RESENT, FEWEST_BLOCKS = 0.05, 200  # of so many blocks at least
PATIENCE = 30.0  # of a transfer without an answer
NO_HELLO = 60.0  # after the kernel; about 18 are usual
LOOP_STARTS, LOOP_TIME = 4, 600.0
INSTALLS = 3

_FETCHING = frozenset({Stage.FIRMWARE, Stage.KERNEL})
BEFORE_HELLO = frozenset({Stage.DISCOVER, Stage.LEASE, *_FETCHING})
_ALWAYS = frozenset(Stage)


@dataclass(frozen=True, slots=True)
class Boot:
    """What is known of one boot. Times are Unix times, 0 for never, or where nobody saw it.

    name          what a command calls the Pi
    rom           its boot loader is a mask ROM (Pi 3), or the bootcode.bin that such a one loads
    ordered       a fresh installation waits for it
    watched_at    since when we listen without a gap
    powered_at    when its port was turned on, if it was us who did it
    heard_at      its last word of any kind
    discovers     DHCPDISCOVERs of the boot loader, offers: DHCPOFFERs that we sent; requested: it answered one
    foreign       the address of another DHCP server, seen lately
    asked_at      the last DHCP message of what it booted: kernel, installer or system
    entered       when each stage was first reached in this boot
    files         in the order in which they ended
    starts        when each of its latest starts began to fetch, those of earlier boots too
    had_kernel    one of these starts came as far as its kernel
    installs      how often the installer began since it last came to the end
    """

    name: str
    stage: Stage | None = None
    model: str = ""
    rom: bool = False
    ordered: bool = False
    watched_at: float = 0.0
    powered_at: float = 0.0
    heard_at: float = 0.0
    discovers: int = 0
    first_discover: float = 0.0
    last_discover: float = 0.0
    offers: int = 0
    requested: bool = False
    foreign: str = ""
    asked_at: float = 0.0
    entered: Mapping[Stage, float] = field(default_factory=dict)
    files: Sequence[FileRecord] = ()
    starts: Sequence[float] = ()
    had_kernel: bool = False
    installs: int = 0

    @property
    def is_module(self) -> bool:
        return "CM" in self.model or "Compute Module" in self.model

    @property
    def asked_for_files(self) -> bool:
        return bool(self.files) or not _FETCHING.isdisjoint(self.entered)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule found: `text` and `advice` are halves of a sentence. shown: whether it belongs on the board now."""

    text: str
    advice: str
    severity: Severity = Severity.WARNING
    rule: int = 0  # its number, given by `diagnose`
    shown: bool = True

    def __str__(self) -> str:
        return f"{self.text}; {self.advice}" if self.advice else self.text


@dataclass(frozen=True, slots=True)
class Rule:
    """`find` says what is wrong, if anything; `shown`: the stages in which that is still news."""

    number: int
    find: Callable[[Boot, float], Finding | None]
    shown: frozenset[Stage] = _ALWAYS


def diagnose(boot: Boot, now: float) -> list[Finding]:
    """What every rule finds, in the order of the rules."""
    findings = []
    for rule in RULES:
        found = rule.find(boot, now)
        if found:
            shown = boot.stage is None or boot.stage in rule.shown
            findings.append(replace(found, rule=rule.number, shown=shown))
    return findings


def gravest(findings: Iterable[Finding]) -> Finding | None:
    """The one that belongs on the board: the gravest, of these the first; None where nothing is wrong now."""
    wrong = [each for each in findings if each.shown and each.severity is not Severity.INFO]
    return min(wrong, key=lambda each: each.severity is not Severity.ERROR, default=None)


# Power


def _silent(boot: Boot, now: float) -> Finding | None:
    patience = SILENCE_OF_ROM if _is_pi3(boot) else SILENCE
    # The time in which nobody listened counts for nothing.
    if not boot.powered_at or boot.heard_at > boot.powered_at or now < max(boot.powered_at, boot.watched_at) + patience:
        return None
    text = f"power for {duration(now - boot.powered_at)} and not a word"
    if _is_pi3(boot):
        why = "no link in the first 30 s (spanning tree without portfast), a card in it that does not boot, or no power"
        return Finding(f"{text}: {why}", f"look at the port's light and power, then `piman restart {boot.name}`")
    why = "no network in BOOT_ORDER (a Pi 4B or 5 has none from the factory), no link, no power, or a broken board"
    return Finding(f"{text}: {why}", "look at the port's light and power; set the boot order with raspi-config (B3)")


def _booted_its_card(boot: Boot, _now: float) -> Finding | None:
    if not boot.powered_at or boot.heard_at <= boot.powered_at or boot.stage is not Stage.UP:
        return None
    if boot.discovers or boot.asked_for_files or boot.powered_at < boot.watched_at:
        return None
    text = "booted the system on its card and did not ask us: the card comes before the network in its boot order"
    if not boot.ordered:
        return Finding(text, "", Severity.INFO)
    return Finding(
        f"{text}, so it is not reinstalled", "take the card out, or put the network first (BOOT_ORDER=0xf12)"
    )


def _late_link(boot: Boot, _now: float) -> Finding | None:
    limit = LATE_DISCOVER_OF_MODULE if boot.is_module else LATE_DISCOVER
    waited = boot.first_discover - boot.powered_at
    if not boot.powered_at or boot.powered_at < boot.watched_at or waited < limit:
        return None
    seen = _many(boot.discovers, "DISCOVER")
    text = f"no DISCOVER for {duration(waited)} after power-on ({seen} since; 5 to 15 s are usual): no link until then"
    advice = "turn on portfast (edge port) for this port of the switch"
    if boot.rom:
        return Finding(f"{text}, spanning tree without portfast", advice)
    return Finding(f"{text}, spanning tree without portfast, or other media come first in BOOT_ORDER", advice)


# DHCP


def _gave_up(boot: Boot, now: float) -> Finding | None:
    if not boot.rom or boot.asked_for_files or boot.stage not in (Stage.DISCOVER, Stage.LEASE):
        return None
    if now < boot.last_discover + 3 * ROM_INTERVAL:
        return None
    # Of five that a blocked port swallowed the first of, fewer are heard: then the time since the power tells.
    end = boot.powered_at + ROM_DISCOVERS * ROM_INTERVAL
    if boot.discovers < ROM_DISCOVERS and not (boot.powered_at and boot.last_discover >= end):
        return None
    text = (
        f"sent {_many(boot.discovers, 'DISCOVER')} and is silent: the boot ROM of a Pi 3 gives up until its next start"
    )
    return Finding(text, f"`piman restart {boot.name}`", Severity.ERROR)


def _took_foreign_offer(boot: Boot, now: float) -> Finding | None:
    # With `dhcp_mode: proxy` the other server is meant to be there, and files are asked for at once.
    waiting = boot.stage in (Stage.DISCOVER, Stage.LEASE) and not boot.asked_for_files
    if not waiting or not boot.foreign or now < boot.last_discover + 10:
        return None
    text = f"another DHCP server, {boot.foreign}, answers on this network, and it asks us for no file"
    return Finding(text, "turn that server off for the Pis, or set dhcp_mode: proxy")


def _answer_not_taken(boot: Boot, _now: float) -> Finding | None:
    if boot.stage not in (Stage.DISCOVER, Stage.LEASE) or boot.requested or boot.asked_for_files or boot.foreign:
        return None
    if min(boot.discovers, boot.offers) < NO_ANSWER_TAKEN:
        return None
    text = (
        f"{_many(boot.discovers, 'DISCOVER')}, {_many(boot.offers, 'OFFER')} of ours, and nothing after: "
        "our answers do not reach it (VLAN, a cable that works one way), or another server's come first"
    )
    return Finding(text, "try another cable and port, and look for another DHCP server")


def _no_file(boot: Boot, now: float) -> Finding | None:
    leased = boot.entered.get(Stage.LEASE, 0.0)
    if boot.stage is not Stage.LEASE or boot.asked_for_files or not leased or boot.foreign:
        return None
    waited = now - max(leased, boot.last_discover)
    if waited < NO_FILE or _gave_up(boot, now):
        return None
    text = (
        f"has its address for {duration(waited)} and asks for no file: a firewall on the manager keeps UDP port 69 shut"
    )
    if boot.rom:
        return Finding(text, "open it; if it is open, try another cable")
    return Finding(f"{text}, or TFTP_IP in its EEPROM names another server", "open it, and look at `rpi-eeprom-config`")


# Files


@dataclass(frozen=True, slots=True)
class _Needed:
    """Files one of which must be there, and how to get it."""

    names: re.Pattern[str]
    advice: str


_FIRMWARE_SCRIPT = "run install/boot/fetch_boot_files.sh"
NEEDED = (
    _Needed(re.compile(r"bootcode\.bin"), _FIRMWARE_SCRIPT),
    _Needed(re.compile(r"start4\w*\.elf"), _FIRMWARE_SCRIPT),
    _Needed(re.compile(r"start(?!4)\w*\.elf"), _FIRMWARE_SCRIPT),
    _Needed(re.compile(r"config\.txt"), "copy it there from install/boot"),
    _Needed(re.compile(r"kernel.*\.img"), f"{_FIRMWARE_SCRIPT}; for a Pi 5 see install/boot/README.md"),
    _Needed(re.compile(r"initr.*"), "run install/initram/create_initramfs.gz.sh"),
    _Needed(re.compile(r"bcm2\d+.*\.dtb"), f"{_FIRMWARE_SCRIPT}; for a Pi 5 see install/boot/README.md"),
    _Needed(re.compile(r"cmdline\.txt"), "copy it there from install/boot"),
)
_KERNEL = re.compile(r"kernel.*")
_INITRAMFS = re.compile(r"initr.*")


def _missing(boot: Boot, now: float) -> Finding | None:
    if all(file.outcome != "missing" for file in boot.files):
        return None
    outcomes: dict[str, bool] = {}  # name -> whether it is there
    ended = 0.0
    for file in boot.files:
        outcomes[_base(file)] = outcomes.get(_base(file), False) or file.outcome != "missing"
        ended = max(ended, file.began + file.seconds)
    if now < ended + SETTLED:
        return None
    for needed in NEEDED:
        asked = [name for name in outcomes if needed.names.fullmatch(name)]
        if asked and not any(outcomes[name] for name in asked):
            text = f"asked for {' and '.join(asked[:3])}, and cannot boot: the boot folder (boot_dir) does not have it"
            return Finding(text, needed.advice, Severity.ERROR)
    return None


def _large_config(boot: Boot, _now: float) -> Finding | None:
    size = max((file.size for file in boot.files if _base(file) == "config.txt"), default=0)
    if boot.rom or size <= LARGEST_CONFIG:
        return None
    text = (
        f"config.txt has {size} bytes: over the network a Pi 4 or 5 takes {LARGEST_CONFIG}, and may leave all of it out"
    )
    return Finding(text, "take comments out of it")


def _too_many_blocks(boot: Boot, _now: float) -> Finding | None:
    for file in boot.files:
        limit = BLOCKS * file.blksize
        if file.outcome != "complete" and file.size > limit and file.done > limit - 1_000_000:
            stopped = f"{_base(file)} ({_size(file.size)}) stopped at {_size(file.done)}"
            text = f"{stopped}: an older boot loader cannot count further"
            advice = f"keep it below {limit // 1_000_000} MB, or update its EEPROM (2025-09-23 and later)"
            return Finding(text, advice, Severity.ERROR)
    return None


def _not_readable(boot: Boot, _now: float) -> Finding | None:
    names = {_base(file): None for file in boot.files if file.outcome == "failed"}
    if not names:
        return None
    text = f"{' and '.join(list(names)[:3])} could not be read to the end: it was being replaced, or the disk is bad"
    return Finding(text, "copy it to another name and rename it, then start the Pi again", Severity.ERROR)


def _stopped(boot: Boot, _now: float) -> Finding | None:
    latest = max(boot.files, key=lambda file: file.began, default=None)
    if boot.stage not in _FETCHING or latest is None or latest.outcome != "timeout":
        return None
    # What it leaves behind while it asks for the next file is a probe, no trouble.
    if boot.heard_at > latest.began + latest.seconds - PATIENCE / 2:
        return None
    stopped = f"{_base(latest)} stopped at {_size(latest.done)} of {_size(latest.size)}"
    text = f"{stopped} and the Pi is silent: the cable, its power supply, or it hangs"
    return Finding(text, f"`piman restart {boot.name}`; if it comes again, another cable and port")


def _lossy(boot: Boot, _now: float) -> Finding | None:
    taken = [file for file in boot.files if file.outcome in ("complete", "timeout")]
    resent = sum(file.resent for file in taken)
    blocks = sum(file.done // file.blksize + 1 for file in taken) if resent else 0
    if blocks < FEWEST_BLOCKS or resent <= RESENT * blocks:
        return None
    text = (
        f"{resent} of {blocks} packets ({100 * resent // blocks} %) had to be sent again: a bad cable, or half duplex"
    )
    return Finding(text, "try another cable, and let the switch's port negotiate its speed")


# What was booted


def _no_hello(boot: Boot, now: float) -> Finding | None:
    if boot.stage not in _FETCHING or now < boot.entered.get(Stage.KERNEL, now) + NO_HELLO:
        return None
    kernel, initramfs = _ended(boot.files, _KERNEL), _ended(boot.files, _INITRAMFS)
    waited = now - max(kernel, initramfs)
    if not kernel or waited < NO_HELLO:
        return None
    text = f"the kernel was fetched {duration(waited)} ago, and its installer does not speak"
    if boot.asked_at > kernel:
        why = "it has asked for an address, so its TCP connection to port 3333 is not let through"
        return Finding(f"{text}: {why}", "open the port on the manager; look at master= in cmdline.txt", Severity.ERROR)
    if not initramfs:
        advice = "config.txt needs the line `initramfs initramfs.gz followkernel`"
        return Finding(f"{text}: no initramfs was fetched with it", advice, Severity.ERROR)
    why = "kernel and initramfs do not match, cmdline.txt is wrong, or the network driver is missing"
    advice = "run install/boot/fetch_boot_files.sh and install/initram/create_initramfs.gz.sh again, look at the screen"
    return Finding(f"{text}: {why}", advice, Severity.ERROR)


def _loop(boot: Boot, now: float) -> Finding | None:
    starts = [start for start in boot.starts if start > now - LOOP_TIME]
    if boot.stage not in BEFORE_HELLO or len(starts) < LOOP_STARTS:
        return None
    text = f"started {len(starts)} times in {duration(starts[-1] - starts[0])}"
    if boot.had_kernel:
        why = "the kernel comes and panics (does it match the initramfs?), or the power supply is too weak"
        return Finding(f"{text}: {why}", "look at its screen; run create_initramfs.gz.sh again", Severity.ERROR)
    why = "the power supply is too weak, or the firmware does not come to its end"
    return Finding(f"{text}: {why}", "try another supply or PoE port, with no USB devices", Severity.ERROR)


def _install_loop(boot: Boot, _now: float) -> Finding | None:
    if boot.installs < INSTALLS or boot.stage in (Stage.BOOT, Stage.UP):
        return None
    text = f"the installer began {boot.installs} times and never came to the end: a bad card, or the power gives way"
    return Finding(text, "try another card, then another supply or PoE port", Severity.ERROR)


RULES = (
    Rule(1, _silent),
    Rule(2, _booted_its_card),
    Rule(3, _late_link, frozenset({Stage.DISCOVER, Stage.LEASE})),
    Rule(4, _gave_up),
    Rule(5, _took_foreign_offer),
    Rule(6, _answer_not_taken),
    Rule(7, _no_file),
    Rule(8, _missing, BEFORE_HELLO),
    Rule(9, _large_config, _FETCHING),
    Rule(10, _too_many_blocks, _FETCHING),
    Rule(11, _not_readable, _FETCHING),
    Rule(12, _stopped),
    Rule(13, _lossy, _FETCHING),
    Rule(14, _no_hello),
    Rule(15, _loop),
    Rule(16, _install_loop),
)


# A boot that went well


def boot_summary(boot: Boot) -> str:
    """`booted in 41 s: link 5.0 s, address 1.0 s, 14 files 12.3 MB in 4.0 s, ...`; "" where its begin was not seen.

    link: power to the first DISCOVER; address: that to the lease; install: from the order to format to that to boot.
    """
    begin = boot.powered_at or boot.first_discover
    reached = boot.entered.get
    booted, up = reached(Stage.BOOT, 0.0), reached(Stage.UP, 0.0)
    end = up or booted
    if not begin or not boot.discovers or end <= begin:
        return ""
    complete = [file for file in boot.files if file.outcome == "complete"]
    fetched = max((file.began + file.seconds for file in complete), default=0.0)
    asked = min((file.began for file in complete), default=0.0)
    kernel = max(_ended(boot.files, _KERNEL), _ended(boot.files, _INITRAMFS))
    parts = [
        ("link", boot.powered_at, boot.first_discover),
        ("address", boot.first_discover, reached(Stage.LEASE, 0.0)),
        (f"{_many(len(complete), 'file')} {_size(sum(file.size for file in complete))} in", asked, fetched),
        ("kernel to hello", kernel, reached(Stage.HELLO, 0.0)),
        ("install", reached(Stage.FORMAT, 0.0), booted),
        ("its own system", booted, up),
    ]
    words = ", ".join(f"{name} {duration(last - first)}" for name, first, last in parts if first and last >= first)
    done = "booted" if up else "brought to boot its card"
    return f"{done} in {duration(end - begin)}: {words}"


# Words


def duration(seconds: float) -> str:
    """`3.2 s`, `63 s`, `4 min 10 s`, `3 h 12 min`, `5 d 3 h`."""
    seconds = max(0.0, seconds)
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    whole = round(seconds)
    for unit, size, below, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {below}"
    return f"{whole // 60} min {whole % 60} s"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"


def _base(file: FileRecord) -> str:
    return file.name.rpartition("/")[2]


def _ended(files: Iterable[FileRecord], names: re.Pattern[str]) -> float:
    """When the last of these files was complete, 0 for never."""
    ends = (file.began + file.seconds for file in files if file.outcome == "complete" and names.fullmatch(_base(file)))
    return max(ends, default=0.0)


def _is_pi3(boot: Boot) -> bool:
    return boot.rom or "Pi 3" in boot.model
