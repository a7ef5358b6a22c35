"""What a boot did wrong: each rule where it speaks and where it must not, what the board shows, the summary."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.diagnosis import RULES, Boot, Finding, boot_summary, diagnose, duration, gravest
from utility.service import FileRecord, Severity, Stage

AT = 1000.0  # power-on, where it was us
OUTCOMES = ["complete", "aborted", "gone", "timeout", "failed", "missing"]


def file(name: str, outcome: str = "complete", began: float = AT + 10, **rest: Any) -> FileRecord:  # noqa: ANN401
    size = 0 if outcome == "missing" else rest.pop("size", 1000)
    done = rest.pop("done", size if outcome == "complete" else 0)
    seconds, resent, blksize = rest.pop("seconds", 1.0), rest.pop("resent", 0), rest.pop("blksize", 1024)
    return FileRecord("mac", name, size, done, began, seconds, resent, outcome, blksize)


def files(*names: str, outcome: str = "complete", **rest: Any) -> tuple[FileRecord, ...]:  # noqa: ANN401
    return tuple(file(name, outcome, **rest) for name in names)


def boot(
    stage: Stage | None = None,
    entered: Mapping[Stage, float] | None = None,
    **rest: Any,  # noqa: ANN401
) -> Boot:
    return Boot("pi3", stage, entered={stage: AT + 10, **(entered or {})} if stage else entered or {}, **rest)


# A Pi that we turned on, and that asked for an address.
ASKED: dict[str, Any] = {
    "powered_at": AT, "heard_at": AT + 6, "discovers": 1, "first_discover": AT + 6, "last_discover": AT + 6,
}  # fmt: skip
LATE = {**ASKED, "heard_at": AT + 31, "discovers": 5, "first_discover": AT + 31, "last_discover": AT + 51}
FIVE = {**ASKED, "rom": True, "discovers": 5, "last_discover": AT + 26, "offers": 5}
TAKEN = (*files("start4.elf", "config.txt", "cmdline.txt"), file("kernel8.img", began=AT + 12))
WHOLE = (*TAKEN, file("initramfs.gz", began=AT + 14))
DEAF = {**ASKED, "discovers": 4, "offers": 4}
BIG = 80_000_000

# rule, boot, seconds after power-on, a part of what is said ("": the rule says nothing)
CASES: list[tuple[int, Boot, float, str]] = [
    (1, boot(powered_at=AT), 90, "power for 90 s and not a word: no network in BOOT_ORDER"),
    (1, boot(Stage.UP, powered_at=AT, heard_at=AT - 5), 90, "raspi-config"),
    (1, boot(powered_at=AT), 89, ""),
    (1, boot(powered_at=AT, model="Pi 3B+"), 60, "`piman restart pi3`"),
    (1, boot(powered_at=AT, rom=True), 60, "no link in the first 30 s"),
    (1, boot(powered_at=AT, model="Pi 3B+"), 59, ""),
    (1, boot(powered_at=AT, heard_at=AT + 1), 90, ""),
    (1, boot(), 90, ""),
    (1, boot(powered_at=AT, watched_at=AT + 50), 139, ""),
    (1, boot(powered_at=AT, watched_at=AT + 50), 140, "power for 2 min 20 s"),
    (2, boot(Stage.UP, powered_at=AT, heard_at=AT + 25), 30, "booted the system on its card and did not ask us"),
    (2, boot(Stage.UP, powered_at=AT, heard_at=AT + 25, ordered=True), 30, "so it is not reinstalled; take the card"),
    (2, boot(Stage.UP, powered_at=AT, heard_at=AT - 25), 30, ""),
    (2, boot(Stage.UP, heard_at=AT + 25), 30, ""),
    (2, boot(Stage.HELLO, powered_at=AT, heard_at=AT + 25), 30, ""),
    (2, boot(Stage.UP, **ASKED), 30, ""),
    (2, boot(Stage.UP, powered_at=AT, heard_at=AT + 25, files=TAKEN), 30, ""),
    (2, boot(Stage.UP, powered_at=AT, heard_at=AT + 25, watched_at=AT + 1), 30, ""),
    (3, boot(Stage.DISCOVER, **LATE), 52, "no DISCOVER for 31 s after power-on (5 DISCOVERs since"),
    (3, boot(Stage.LEASE, **LATE, rom=True), 52, "until then, spanning tree without portfast; turn on"),
    (3, boot(Stage.DISCOVER, **LATE, model="Pi 4"), 52, "other media come first in BOOT_ORDER"),
    (3, boot(Stage.DISCOVER, **LATE, model="CM4"), 52, ""),
    (3, boot(Stage.DISCOVER, **{**LATE, "first_discover": AT + 45}, model="Compute Module 4"), 52, "for 45 s"),
    (3, boot(Stage.DISCOVER, **{**LATE, "first_discover": AT + 24.9}), 52, ""),
    (3, boot(Stage.DISCOVER, **{**LATE, "powered_at": 0.0}), 52, ""),
    (3, boot(Stage.DISCOVER, **LATE, watched_at=AT + 1), 52, ""),
    (4, boot(Stage.LEASE, **FIVE), 41, "sent 5 DISCOVERs and is silent: the boot ROM of a Pi 3 gives up"),
    (4, boot(Stage.DISCOVER, **FIVE), 41, "`piman restart pi3`"),
    (4, boot(Stage.LEASE, **{**FIVE, "discovers": 1}), 41, "sent 1 DISCOVER and is silent"),
    (4, boot(Stage.LEASE, **{**FIVE, "discovers": 1, "last_discover": AT + 24}), 41, ""),
    (4, boot(Stage.LEASE, **{**FIVE, "discovers": 1, "powered_at": 0.0}), 41, ""),
    (4, boot(Stage.LEASE, **FIVE), 40, ""),
    (4, boot(Stage.LEASE, **{**FIVE, "rom": False}), 41, ""),
    (4, boot(Stage.LEASE, **FIVE, files=TAKEN), 41, ""),
    (4, boot(Stage.UP, **FIVE), 41, ""),
    (5, boot(Stage.DISCOVER, **ASKED, foreign="10.0.0.1"), 16, "another DHCP server, 10.0.0.1, answers"),
    (5, boot(Stage.DISCOVER, **ASKED, foreign="10.0.0.1"), 15, ""),
    (5, boot(Stage.DISCOVER, **ASKED), 16, ""),
    (5, boot(Stage.HELLO, **ASKED, foreign="10.0.0.1"), 16, ""),
    (5, boot(Stage.LEASE, **ASKED, foreign="10.0.0.1", files=TAKEN), 16, ""),
    (6, boot(Stage.DISCOVER, **DEAF), 30, "4 DISCOVERs, 4 OFFERs of ours, and nothing after: our answers do not"),
    (6, boot(Stage.DISCOVER, **{**DEAF, "offers": 3}), 30, ""),
    (6, boot(Stage.DISCOVER, **{**DEAF, "discovers": 3}), 30, ""),
    (6, boot(Stage.DISCOVER, **DEAF, requested=True), 30, ""),
    (6, boot(Stage.DISCOVER, **DEAF, foreign="10.0.0.1"), 30, ""),
    (6, boot(Stage.DISCOVER, **DEAF, files=TAKEN), 30, ""),
    (6, boot(Stage.HELLO, **DEAF), 30, ""),
    (7, boot(Stage.LEASE, **ASKED), 25, "has its address for 15 s and asks for no file: a firewall"),
    (7, boot(Stage.LEASE, **ASKED), 25, "TFTP_IP"),
    (7, boot(Stage.LEASE, **ASKED, rom=True), 25, "open it; if it is open, try another cable"),
    (7, boot(Stage.LEASE, **ASKED), 24, ""),
    (7, boot(Stage.LEASE, **{**ASKED, "last_discover": AT + 12}), 25, ""),
    (7, boot(Stage.LEASE, **FIVE), 60, ""),  # rule 4 says more
    (7, boot(Stage.LEASE, {Stage.FIRMWARE: AT}, **ASKED), 25, ""),
    (7, boot(Stage.LEASE, **ASKED, foreign="10.0.0.1"), 25, ""),
    (7, boot(Stage.UP, {Stage.LEASE: AT}, **ASKED), 25, ""),
    (7, replace(boot(Stage.LEASE, **ASKED), entered={}), 25, ""),
    (8, boot(Stage.FIRMWARE, files=files("7bf18f79/start4.elf", "start.elf", outcome="missing")), 14, "start4.elf"),
    (8, boot(Stage.FIRMWARE, files=files("a/start4.elf", outcome="missing")), 14, "install/boot/fetch_boot_files.sh"),
    (8, boot(Stage.FIRMWARE, files=files("start4.elf", outcome="missing")), 13.9, ""),
    (8, boot(Stage.FIRMWARE, files=(*files("a/start4.elf", outcome="missing"), *TAKEN)), 16, ""),
    (8, boot(Stage.FIRMWARE, files=files("start4.elf", outcome="aborted")), 16, ""),
    (8, boot(Stage.FIRMWARE, files=files("bootcode.bin", outcome="missing")), 16, "asked for bootcode.bin"),
    (8, boot(Stage.FIRMWARE, files=files("start.elf", outcome="missing")), 16, "asked for start.elf"),
    (8, boot(Stage.FIRMWARE, files=files("config.txt", outcome="missing")), 16, "copy it there from install/boot"),
    (8, boot(Stage.FIRMWARE, files=files("kernel_2712.img", "kernel8.img", outcome="missing")), 16,
     "kernel_2712.img and kernel8.img"),
    (8, boot(Stage.FIRMWARE, files=(*TAKEN, *files("kernel7.img", outcome="missing"))), 16, ""),
    (8, boot(Stage.KERNEL, files=(*TAKEN, *files("initramfs.gz", outcome="missing"))), 16, "create_initramfs.gz.sh"),
    (8, boot(Stage.KERNEL, files=files("bcm2712-rpi-5-b.dtb", outcome="missing")), 16, "install/boot/README.md"),
    (8, boot(Stage.KERNEL, files=files("cmdline.txt", outcome="missing")), 16, "cmdline.txt"),
    (8, boot(Stage.KERNEL, files=files("recovery.elf", "armstub8-32.bin", "dt-blob.bin", outcome="missing")), 16, ""),
    (9, boot(Stage.FIRMWARE, files=files("S/config.txt", size=4097)), 16, "config.txt has 4097 bytes"),
    (9, boot(Stage.FIRMWARE, files=files("S/config.txt", size=4096)), 16, ""),
    (9, boot(Stage.FIRMWARE, files=files("S/config.txt", size=4097), rom=True), 16, ""),
    (9, boot(Stage.FIRMWARE), 16, ""),
    (10, boot(Stage.KERNEL, files=files("kernel8.img", outcome="timeout", size=BIG, done=67_107_840)), 16,
     "kernel8.img (80.0 MB) stopped at 67.1 MB: an older boot loader cannot count further; keep it below 67 MB"),
    (10, boot(Stage.KERNEL, files=files("k", outcome="aborted", size=BIG, done=33_553_920, blksize=512)), 16, "33 MB"),
    (10, boot(Stage.KERNEL, files=files("kernel8.img", outcome="aborted", size=BIG, done=2000)), 16, ""),
    (10, boot(Stage.KERNEL, files=files("kernel8.img", outcome="timeout", size=67_000_000, done=66_900_000)), 16, ""),
    (10, boot(Stage.KERNEL, files=files("kernel8.img", size=BIG)), 16, ""),
    (11, boot(Stage.KERNEL, files=files("S/kernel8.img", "x", outcome="failed")), 16, "8.img and x could not be read"),
    (11, boot(Stage.KERNEL, files=WHOLE), 16, ""),
    (12, boot(Stage.KERNEL, heard_at=AT + 15, files=(*TAKEN, file("kernel8.img", "timeout", AT + 13, seconds=31.0,
     size=9_500_000, done=3_100_000))), 46, "kernel8.img stopped at 3.1 MB of 9.5 MB and the Pi is silent"),
    (12, boot(Stage.FIRMWARE, heard_at=AT + 13, files=files("start4.elf", outcome="timeout", began=AT + 13,
     seconds=31.0, size=50_000, done=1000)), 46, "`piman restart pi3`"),
    (12, boot(Stage.KERNEL, heard_at=AT + 40, files=files("kernel8.img", outcome="timeout", seconds=31.0)), 46, ""),
    (12, boot(Stage.KERNEL, heard_at=AT + 15, files=(*files("kernel8.img", outcome="timeout", seconds=31.0),
     file("cmdline.txt", began=AT + 11))), 46, ""),
    (12, boot(Stage.HELLO, heard_at=AT + 15, files=files("kernel8.img", outcome="timeout", seconds=31.0)), 46, ""),
    (12, boot(Stage.KERNEL), 46, ""),
    (13, boot(Stage.KERNEL, files=files("kernel8.img", size=1024 * 999, resent=51)), 16, "51 of 1000 packets (5 %)"),
    (13, boot(Stage.KERNEL, files=files("kernel8.img", size=1024 * 999, resent=50)), 16, ""),
    (13, boot(Stage.KERNEL, files=files("kernel8.img", size=1024 * 198, resent=100)), 16, ""),
    (13, boot(Stage.KERNEL, files=files("kernel8.img", size=512 * 199, resent=11, blksize=512)), 16, "11 of 200"),
    (13, boot(Stage.KERNEL, files=files("k", outcome="aborted", size=1, done=1024 * 999, resent=99)), 16, ""),
    (14, boot(Stage.KERNEL, files=WHOLE), 75, "fetched 60 s ago, and its installer does not speak: kernel"),
    (14, boot(Stage.KERNEL, files=WHOLE), 74.9, ""),
    (14, boot(Stage.KERNEL, files=WHOLE, asked_at=AT + 30), 75, "TCP connection to port 3333"),
    (14, boot(Stage.KERNEL, files=TAKEN), 75, "no initramfs was fetched with it"),
    (14, boot(Stage.KERNEL, files=files("initramfs.gz", "config.txt")), 75, ""),
    (14, boot(Stage.KERNEL, files=files("kernel8.img", outcome="aborted")), 75, ""),
    (14, boot(Stage.HELLO, files=WHOLE), 75, ""),
    (15, boot(Stage.FIRMWARE, starts=[AT, AT + 30, AT + 60, AT + 90]), 95, "started 4 times in 90 s: the power supply"),
    (15, boot(Stage.KERNEL, starts=[AT, AT + 30, AT + 60, AT + 90], had_kernel=True), 95, "kernel comes and panics"),
    (15, boot(Stage.FIRMWARE, starts=[AT + 30, AT + 60, AT + 90]), 95, ""),
    (15, boot(Stage.FIRMWARE, starts=[AT, AT + 30, AT + 60, AT + 90]), 600, ""),
    (15, boot(Stage.HELLO, starts=[AT, AT + 30, AT + 60, AT + 90]), 95, ""),
    (16, boot(Stage.DISCOVER, installs=3), 95, "the installer began 3 times and never came to the end"),
    (16, boot(Stage.DISCOVER, installs=2), 95, ""),
    (16, boot(Stage.BOOT, installs=3), 95, ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "seen", "seconds", "said"), CASES, ids=[f"{case[0]}-{i}" for i, case in enumerate(CASES)]
)
def test_a_rule(rule: int, seen: Boot, seconds: float, said: str) -> None:
    found = {finding.rule: finding for finding in diagnose(seen, AT + seconds)}
    assert (rule in found) == bool(said), found
    if said:
        assert said in str(found[rule])
        assert len(str(found[rule])) <= 300  # what a line of the board holds


def test_every_rule_has_a_number_and_is_seen_to_speak_and_to_be_silent() -> None:
    assert [rule.number for rule in RULES] == list(range(1, len(RULES) + 1))
    cases = {(rule, bool(said)) for rule, _boot, _seconds, said in CASES}
    assert cases == set(itertools.product(range(1, len(RULES) + 1), [True, False]))


def test_a_healthy_boot_has_no_findings() -> None:
    for stage in Stage:
        seen = boot(stage, **ASKED, files=WHOLE, starts=[AT + 10])
        assert diagnose(seen, AT + 40) == []
    assert gravest([]) is None


def test_what_is_past_is_shown_only_while_it_concerns_the_stage() -> None:
    late = [
        finding for stage in (Stage.DISCOVER, Stage.KERNEL, None) for finding in diagnose(boot(stage, **LATE), AT + 52)
    ]
    assert [(finding.rule, finding.shown) for finding in late] == [(3, True), (3, False), (3, True)]
    assert [bool(gravest([finding])) for finding in late] == [True, False, True]


def test_the_board_shows_the_gravest_then_the_first() -> None:
    info, first, second, grave = (
        Finding(text, "do this", severity)
        for text, severity in (
            ("a", Severity.INFO),
            ("b", Severity.WARNING),
            ("c", Severity.WARNING),
            ("d", Severity.ERROR),
        )
    )
    assert gravest([info, first, second, grave]) is grave
    assert gravest([info, first, second]) is first
    assert gravest([info]) is None
    assert gravest([replace(first, shown=False), second]) is second


def test_two_at_once() -> None:
    both = diagnose(boot(Stage.LEASE, **{**LATE, "rom": True}), AT + 70)
    assert [finding.rule for finding in both] == [3, 4]
    assert str(gravest(both)).startswith("sent 5 DISCOVERs")


@given(
    stage=st.none() | st.sampled_from(Stage),
    model=st.sampled_from(["", "Pi 3B+", "Pi 4", "CM4"]),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    times=st.lists(st.floats(0, 2000), min_size=7, max_size=7),
    counts=st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
    entered=st.dictionaries(st.sampled_from(Stage), st.floats(0, 2000)),
    fetched=st.lists(
        st.builds(
            FileRecord,
            mac=st.just("mac"),
            name=st.sampled_from(["", "S//config.txt", "start4.elf", "kernel8.img", "initramfs.gz", "ü"]),
            size=st.integers(0, 2**33),
            done=st.integers(0, 2**33),
            began=st.floats(0, 2000),
            seconds=st.floats(0, 100),
            resent=st.integers(0, 10**6),
            outcome=st.sampled_from(OUTCOMES),
        ),
        max_size=9,
    ),
    starts=st.lists(st.floats(0, 2000), max_size=9).map(sorted),
    now=st.floats(0, 4000),
)  # fmt: skip
def test_whatever_was_seen_it_is_a_line(
    stage: Stage | None,
    model: str,
    flags: tuple[bool, bool, bool],
    times: list[float],
    counts: tuple[int, int, int],
    entered: dict[Stage, float],
    fetched: list[FileRecord],
    starts: list[float],
    now: float,
) -> None:
    seen = Boot(
        "a-name-of-a-pi", stage, model, flags[0], flags[1], times[0], times[1], times[2], counts[0], times[3], times[4],
        counts[1], flags[2], "10.0.0.1" if counts[2] % 2 else "", times[5], entered, fetched, starts, flags[0],
        counts[2],
    )  # fmt: skip
    findings = diagnose(seen, now)
    assert len({finding.rule for finding in findings}) == len(findings)
    assert all(str(finding).isprintable() and 0 < len(str(finding)) <= 300 for finding in findings)
    assert boot_summary(seen).isprintable()


class TestSummary:
    ENTERED: Mapping[Stage, float] = {
        Stage.DISCOVER: 1005, Stage.LEASE: 1006, Stage.FIRMWARE: 1006, Stage.KERNEL: 1008, Stage.HELLO: 1028,
        Stage.FORMAT: 1029, Stage.IMAGE: 1030, Stage.BOOT: 1041, Stage.UP: 1055.5,
    }  # fmt: skip
    FILES = (
        file("start4.elf", "aborted", 1006.0, size=2_300_000),
        file("config.txt", "complete", 1006.0, size=1_300_000),
        file("recovery.elf", "missing", 1006.5),
        file("kernel8.img", "complete", 1007.0, size=8_000_000, seconds=2.0),
        file("initramfs.gz", "complete", 1008.0, size=3_000_000, seconds=2.0),
    )
    WENT = Boot(
        "pi3", Stage.UP, powered_at=AT, discovers=1, first_discover=1005.0, entered=ENTERED, files=FILES
    )  # fmt: skip

    def test_all_of_it(self) -> None:
        assert boot_summary(self.WENT) == (
            "booted in 56 s: link 5.0 s, address 1.0 s, 3 files 12.3 MB in 4.0 s, kernel to hello 18 s, "
            "install 12 s, its own system 14 s"
        )

    def test_without_install_power_and_the_word_of_its_system(self) -> None:
        entered: Mapping[Stage, float] = {
            stage: at for stage, at in self.ENTERED.items() if stage not in (Stage.FORMAT, Stage.UP)
        }
        seen = replace(self.WENT, stage=Stage.BOOT, powered_at=0.0, entered=entered)
        assert boot_summary(seen) == (
            "brought to boot its card in 36 s: address 1.0 s, 3 files 12.3 MB in 4.0 s, kernel to hello 18 s"
        )

    def test_nothing_where_its_begin_or_end_was_not_seen(self) -> None:
        assert not boot_summary(replace(self.WENT, discovers=0))
        assert not boot_summary(replace(self.WENT, powered_at=0.0, first_discover=0.0))
        assert not boot_summary(replace(self.WENT, entered={}))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0 s"), (3.21, "3.2 s"), (9.96, "10 s"), (99.4, "99 s"), (250, "4 min 10 s"), (3720, "1 h 2 min"),
     (100_000, "1 d 3 h")],
)  # fmt: skip
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
