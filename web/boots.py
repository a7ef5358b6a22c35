"""A Pi's boots, made of its timeline and of the files it fetched: each stage with its time. Pure: no clock, no store.

The board keeps only the boot that is under way; what is over stands in the timeline, in the words of those who told it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from monitoring.store import Event
from utility.service import FileRecord, Severity, Stage
from web.views import Json, file_view

POWER = "power"  # before the first word: the port is on, nothing is heard
LONGEST_POWER = 300.0  # from power-on to the first word; later they have nothing to do with each other
EARLY = 1.0  # a file may begin so long before its stage is noted

_ORDER = (POWER, *(str(stage) for stage in Stage if stage is not Stage.FAILED))
# The first that fits says which stage began: the words of dhcp/, tcp/ and the board.
_WORDS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?:power-cycled|turned on)\b"), POWER),
    (re.compile(r".* asks for an address$"), Stage.DISCOVER),
    (re.compile(r"the boot loader .*\bhas \S+$"), Stage.LEASE),
    (re.compile(r"formats its card\b"), Stage.FORMAT),
    (re.compile(r"(?:.*; )?boots its card$"), Stage.BOOT),
    (re.compile(r"the operating system has \S+$|it answers$"), Stage.UP),
    (re.compile(rf"({'|'.join(_ORDER[1:])})(?: after .+)?$"), ""),  # named
)
_INSTALLED = re.compile(r"installed (\S+?),? [(a]")


@dataclass(slots=True)
class Boot:
    """One boot as it is put together: stage -> when it was first reached, in order."""

    stages: dict[str, float] = field(default_factory=dict)
    last: float = 0.0  # its last event
    reason: str = ""  # of the last failure
    installed: str = ""

    @property
    def began(self) -> float:
        return next(iter(self.stages.values()))

    def is_past(self, stage: str) -> bool:
        """Whether that stage cannot be reached any more in this boot."""
        return any(_ORDER.index(each) >= _ORDER.index(stage) for each in self.stages)


def stage_of(text: str) -> str:
    """The stage that an event says was reached; "" for any other event."""
    for words, stage in _WORDS:
        found = words.match(text)
        if found:
            return str(stage) or found[1]
    return ""


def boots_of(events: Iterable[Event]) -> list[Boot]:
    """The boots in the events of one Pi, both the oldest first."""
    boots: list[Boot] = []
    for event in events:
        stage = stage_of(event.text)
        boot = boots[-1] if boots else None
        if stage and _begins(boot, stage, event.when):
            boot = Boot()
            boots.append(boot)
        if boot is None:
            continue
        if stage and not boot.is_past(stage):
            boot.stages[stage] = event.when
        if stage or Stage.UP not in boot.stages:
            boot.last = max(boot.last, event.when)
        if event.severity is Severity.ERROR and Stage.UP not in boot.stages:
            boot.reason = event.text
        installed = _INSTALLED.match(event.text)
        boot.installed = installed[1] if installed else boot.installed
    return [each for each in boots if [*each.stages] != [POWER]]


def _begins(boot: Boot | None, stage: str, when: float) -> bool:
    """Whether a stage is the first of another boot. A Pi that is heard to be up did not boot then."""
    if stage == Stage.UP:
        return False
    if boot is None or stage == POWER:
        return True
    if [*boot.stages] == [POWER]:
        return when - boot.began > LONGEST_POWER
    if stage in (Stage.DISCOVER, Stage.FIRMWARE):
        return boot.is_past(stage)
    return stage not in boot.stages and boot.is_past(stage)


def boot_views(events: Sequence[Event], files: Sequence[FileRecord], goes_on: bool, limit: int) -> list[Json]:
    """The last boots as JSON, the oldest first; `goes_on`: the last of them is under way."""
    boots = boots_of(events)
    views = []
    for number, boot in enumerate(boots):
        after = boots[number + 1].began if number + 1 < len(boots) else float("inf")
        fetched = [each for each in files if boot.began - EARLY <= each.began < after - EARLY]
        views.append(_view(boot, fetched, goes_on and number + 1 == len(boots)))
    return views[-limit:]


def _view(boot: Boot, files: Sequence[FileRecord], goes_on: bool) -> Json:
    reached = list(boot.stages.items())
    is_up = Stage.UP in boot.stages
    end = boot.stages.get(Stage.UP, boot.last)
    ends = [*(when for _stage, when in reached[1:]), None if goes_on else end]
    outcome = "up" if is_up else "running" if goes_on else "failed" if boot.reason else "broken off"
    return {
        "began": boot.began,
        "ended": None if goes_on and not is_up else end,
        "seconds": round(end - boot.began, 3),
        "outcome": outcome,
        "reason": "" if is_up else boot.reason,
        "installed": boot.installed,
        "stages": [
            {"stage": stage, "began": when, "seconds": None if until is None else round(until - when, 3)}
            for (stage, when), until in zip(reached, ends, strict=True)
            if stage != Stage.UP
        ],
        "files": [file_view(each) for each in files],
    }
