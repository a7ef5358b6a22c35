"""web.boots: the boots that a timeline tells of."""

from __future__ import annotations

import pytest

from monitoring.store import Event
from utility.service import FileRecord, Severity
from web.boots import boot_views, boots_of, stage_of

MAC = "b8:27:eb:00:00:01"
# As a Pi 4 in the lab was told of: its first install, a power cycle that a restart of the manager cut, a fresh install.
TOLD = """\
1.0 the operating system has 172.30.4.11
601.8 the boot loader of a Pi 4 asks for an address
601.9 the boot loader of a Pi 4 has 172.30.4.11
602.0 firmware after 0.0 s
602.3 kernel after 0.5 s
602.8 the installer has 172.30.4.11
602.9 hello after 0.5 s
603.0 formats its card for rootfs-0be11f55596e
603.4 image after 0.5 s
607.5 installed rootfs-0be11f55596e (8.0 MB in 5 s, sha256 verified)
607.6 boot after 4.2 s
608.1 the operating system has 172.30.4.11
608.5 booted in 6.3 s: address 0.0 s
608.7 reinstall ordered by local
609.9 power-cycled
610.9 the boot loader of a Pi 4 asks for an address
611.0 firmware after 0.0 s
623.6 discover after 12 s
623.7 firmware after 0.0 s
624.2 hello after 0.6 s
624.3 ERROR refused: no SD card"""


def events(text: str) -> list[Event]:
    found = []
    for number, line in enumerate(text.splitlines()):
        when, _, said = line.partition(" ")
        severity = Severity.ERROR if said.startswith("ERROR ") else Severity.INFO
        found.append(Event(number, float(when), MAC, severity, said.removeprefix("ERROR ")))
    return found


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        ("the boot loader of a Pi 4 asks for an address", "discover"),
        ("the boot loader of a Pi 3 has 172.30.4.11", "lease"),
        ("the operating system has 172.30.4.11", "up"),
        ("the installer has 172.30.4.11", ""),
        ("boots its card", "boot"),
        ("installed rootfs-1, as ordered (88b181f8), unheard; boots its card", "boot"),
        ("formats its card for rootfs-1, as ordered (88b181f8)", "format"),
        ("it answers", "up"),
        ("up again: TCP 0 s ago", ""),
        ("up", "up"),
        ("image after 0.5 s", "image"),
        ("booted in 6.3 s: address 0.0 s", ""),
        ("power-cycled", "power"),
        ("turned on", "power"),
        ("turned off", ""),
        ("failed after 3 s", ""),
    ],
)
def test_which_stage_an_event_tells_of(text: str, stage: str) -> None:
    assert stage_of(text) == stage


def test_the_boots_of_a_timeline_with_their_stages() -> None:
    first, cut, last = boots_of(events(TOLD))
    assert [*first.stages] == [
        "discover", "lease", "firmware", "kernel", "hello", "format", "image", "boot", "up"
    ]  # fmt: skip
    assert first.installed == "rootfs-0be11f55596e"
    assert [*cut.stages] == ["power", "discover", "firmware"]
    assert [*last.stages] == ["discover", "firmware", "hello"]
    assert last.reason == "refused: no SD card"
    assert boots_of([]) == []
    assert boots_of(events("1 up\n2 power-cycled")) == []  # nothing was seen to boot
    late, again = boots_of(events("1 power-cycled\n500 hello after 2 s\n501 kernel after 1 s\n502 up\n900 ERROR hot"))
    assert ([*late.stages], [*again.stages]) == (["hello"], ["kernel", "up"])  # too late for that power
    assert (again.last, again.reason) == (502, "")


def test_the_views_have_durations_outcomes_and_each_boots_files() -> None:
    files = [
        FileRecord(MAC, name, 10, 10, began, 0.1, 0, "complete")
        for name, began in (("a", 601.5), ("b", 611.0), ("c", 623.7))
    ]
    first, cut, last = boot_views(events(TOLD), files, goes_on=False, limit=20)
    assert (first["began"], first["ended"], first["seconds"], first["outcome"]) == (601.8, 608.1, 6.3, "up")
    assert first["reason"] == ""
    assert [
        (each["stage"], each["seconds"])
        for each in first["stages"]  # type: ignore[attr-defined]
    ] == [
        ("discover", 0.1),
        ("lease", 0.1),
        ("firmware", 0.3),
        ("kernel", 0.6),
        ("hello", 0.1),
        ("format", 0.4),
        ("image", 4.2),
        ("boot", 0.5),
    ]
    assert (cut["outcome"], cut["seconds"], cut["ended"]) == ("broken off", 1.1, 611.0)
    assert (last["outcome"], last["reason"], last["ended"]) == ("failed", "refused: no SD card", 624.3)
    assert [[each["name"] for each in boot["files"]] for boot in (first, cut, last)] == [["a"], ["b"], ["c"]]  # type: ignore[attr-defined]
    (running,) = boot_views(events(TOLD), files, goes_on=True, limit=1)
    assert (running["outcome"], running["ended"]) == ("running", None)
    assert running["stages"][-1]["seconds"] is None  # type: ignore[index]
    (up,) = boot_views(events(TOLD.partition("608.5")[0].strip()), [], goes_on=True, limit=1)
    assert (up["outcome"], up["ended"]) == ("up", 608.1)
