"""The decision of one hello session: what a Pi said, or time that passed -> what to do. No socket, clock, file, logger.

The rules, as the table `_RULES` at the end of this file applies them, `(state, input) -> actions, state`:

 1  GREETING  Hello           the Pi speaks version 2: note who it is, send the date.                        -> DATE
 2  GREETING  any other line, it speaks version 1 (or is no Pi at all): send version 1's date, take the
              or silence      line as said in DATE.                                                         -> DATE
 3  GREETING  malformed       a message's word with broken fields: refuse, with the reason.                  -> ENDING
 4  DATE      Hello           after a silence taken for version 1 (a lost segment): as rule 1.               -> DATE
 5  DATE      SET_DATE, CHECKING_IF_INSTALLED   it looks at its card.                                        -> CARD
 6  DATE CARD IsInstalled     an order that the marker does not hold: format. The marker's own order: it was
                              carried out, complete it, boot. No order: boot.                     -> FORMAT or BOOT
 7  DATE CARD IsUninstalled   no card: refuse. A foreign Linux and no order: refuse. Else format. -> FORMAT or ENDING
 8  FORMAT    a word said the first time: the Pi is alive, its deadline starts again.
 9  FORMAT IMAGE  ImageOpened the Pi takes the image (again, from its start).                                -> IMAGE
10  IMAGE     ImageSent, Progress   growth starts the deadline again; all sent: it only has to unpack.       -> UNPACK
11  IMAGE UNPACK  ImageOk     the hash is ours: verified, and so all of it was sent. Another: failed.         -> UNPACK
12  FORMAT IMAGE UNPACK IsFormatted   verified (version 1: wholly sent) and what we ordered: complete the order, boot
                              (version 1 ends by itself). Anything else: failed.                  -> BOOT or CLOSED
13  BOOT      RECEIVED_BOOT   noted; the Pi closes, or says that it cannot mount.
14  any       Error           the Pi gave up: failed, with its reason.                                       -> CLOSED
15  any       Disconnected    closed; in the middle of an install an event says so: the Pi starts over.      -> CLOSED
16  any       Elapsed         the deadline: failed, with what was expected; nothing if nobody ever spoke.    -> CLOSED
17  any       TooMuch         closed with the reason.                                                        -> CLOSED
18  any       anything else   noise: not answered, and closed after MAX_NOISE bytes of it.

No reply is ever made from a Pi's text, and nothing but rules 6 and 7 formats a card.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from tcp.packet import (
    VERSION,
    Boot,
    Card,
    Error,
    Format,
    Hello,
    Image,
    ImageOk,
    IsFormatted,
    IsInstalled,
    IsUninstalled,
    Message,
    Progress,
    Refuse,
    Said,
    SetDate,
    Unknown,
    Word,
)
from utility.service import Report, Severity, Stage

MAX_NOISE = 1_000_000  # bytes of text that says nothing, in one session
_LINE_NOISE = 16  # bytes that a known line said in vain counts for
_PROGRESS_EVERY = 0.25  # the board wants no more


class State(Enum):
    """Where the session is: what it waits for."""

    GREETING = "HELLO"
    DATE = "SET_DATE"
    CARD = "IS_INSTALLED or IS_UNINSTALLED"
    FORMAT = "FORMATTED and a connection for the image"
    IMAGE = "progress of the image"
    UNPACK = "IMAGE_OK and IS_FORMATTED"
    BOOT = "RECEIVED_BOOT"
    ENDING = "the end of the connection"
    CLOSED = "nothing"


# Seconds; a new state starts its own, rules 8 and 10 start it again.
LIMITS: Mapping[State, float] = {
    State.GREETING: 2.0,
    State.DATE: 10.0,
    State.CARD: 60.0,
    State.FORMAT: 120.0,
    State.IMAGE: 60.0,
    State.UNPACK: 300.0,
    State.BOOT: 10.0,
    State.ENDING: 5.0,
    State.CLOSED: math.inf,
}

_INSTALLING = (State.FORMAT, State.IMAGE, State.UNPACK)


@dataclass(frozen=True, slots=True)
class Malformed:
    """A line that is a message by its word and not by its form; what is wrong with it."""

    reason: str
    size: int


@dataclass(frozen=True, slots=True)
class ImageOpened:
    """A connection to the image port was given the image."""


@dataclass(frozen=True, slots=True)
class ImageSent:
    """Bytes of the image that the Pi has acknowledged so far, on this connection; at its end, that the kernel took."""

    sent: int


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The Pi closed the connection, or it broke."""


@dataclass(frozen=True, slots=True)
class Elapsed:
    """The deadline has passed."""


@dataclass(frozen=True, slots=True)
class TooMuch:
    """The peer sends what no Pi sends: an endless line."""

    reason: str


Input = Message | Malformed | ImageOpened | ImageSent | Disconnected | Elapsed | TooMuch


@dataclass(frozen=True, slots=True)
class Send:
    """Send these bytes to the Pi."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell the board."""

    report: Report


@dataclass(frozen=True, slots=True)
class Complete:
    """The order with this token was carried out."""

    token: str


@dataclass(frozen=True, slots=True)
class Close:
    """Half-close, read what is still to come, close. The reason is for the debug log and the counters."""

    reason: str


Action = Send | Tell | Complete | Close
Rule = Callable[["Session", Any, float], tuple[list[Action], State]]


@dataclass(frozen=True, slots=True)
class Questions:
    """What a decision asks of the world at the moment it is made."""

    order: Callable[[], str | None]  # the token of a reinstall order for this Pi
    image: Callable[[], Image | None]  # what to install
    date: Callable[[], datetime]


class Session:
    """One connection of one Pi. `receive` whatever happens and do what it returns; after `deadline` call `tick`."""

    def __init__(self, mac: str, questions: Questions, image_port: int, now: float) -> None:
        self.mac = mac
        self.state = State.GREETING
        self.deadline = now + LIMITS[State.GREETING]
        self.version = 1
        self.heard = False  # anything that only a Pi says
        self.image: Image | None = None
        self._questions = questions
        self._image_port = image_port
        self._words: set[Word] = set()
        self._noise = 0
        self._order = ""
        self._sent = 0
        self._written: int | None = None
        self._verified = False
        self._started = now
        self._told = -math.inf

    @property
    def wants_image(self) -> bool:
        """Whether a connection of this Pi to the image port is to be served."""
        return self.state in (State.FORMAT, State.IMAGE)

    def tick(self, now: float) -> list[Action]:
        """Time went on; nothing before the deadline."""
        return self.receive(Elapsed(), now) if now >= self.deadline else []

    def receive(self, event: Input, now: float) -> list[Action]:
        """One thing that happened, at `now` (monotonic seconds) -> what to do, in this order."""
        if self.state is State.CLOSED:
            return []
        self.heard = self.heard or isinstance(event, _SAID_BY_A_PI)
        rule = _RULES.get((self.state, type(event))) or _ANYWHERE.get(type(event), Session._noisy)
        before = self.state
        actions, self.state = rule(self, event, now)
        if self.state is not before:
            self.deadline = now + LIMITS[self.state]
        return actions

    # --- rules 1 to 5: who is there ---

    def _greet(self, hello: Hello, _now: float) -> tuple[list[Action], State]:
        self.version = VERSION
        if hello.mac != self.mac:
            reason = f"this address belongs to {self.mac} in hosts.csv, and {hello.mac} asks with it"
            return self._refuse(reason, Severity.WARNING, None)
        facts = {"serial": hello.serial, "model": hello.model.replace("_", " "), "sd_bytes": str(hello.sd or "")}
        said = Report(
            self.mac,
            Stage.HELLO,
            heard=f"HELLO {hello.version}",
            sent="date",
            facts={key: value for key, value in facts.items() if value},
        )
        return [Tell(said), Send(SetDate(self._questions.date()).encode(self.version))], State.DATE

    def _greet_late(self, hello: Hello, now: float) -> tuple[list[Action], State]:
        return self._greet(hello, now) if self.version < VERSION else self._noisy(hello, now)

    def _greet_first_version(self, event: Input, now: float) -> tuple[list[Action], State]:
        actions: list[Action] = [Send(SetDate(self._questions.date()).encode(version=1))]
        if self.heard and not isinstance(event, Said):  # a word is told as such, below
            actions.insert(0, Tell(Report(self.mac, Stage.HELLO, heard="hello, version 1", sent="date")))
        self.state, self.deadline = State.DATE, now + LIMITS[State.DATE]
        if not isinstance(event, Elapsed):
            actions += self.receive(event, now)
        return actions, self.state

    def _refuse_malformed(self, event: Malformed, _now: float) -> tuple[list[Action], State]:
        self.version = VERSION
        return self._refuse(event.reason)

    def _say(self, event: Said, now: float) -> tuple[list[Action], State]:
        if event.word in (Word.SET_DATE, Word.CHECKING_IF_INSTALLED) and self.state is State.DATE:
            return [], State.CARD
        if event.word in self._words:  # the same word for ever is no life sign
            return self._noisy(event, now)
        first = self.version < VERSION and not self._words and self.state is State.DATE  # its greeting, after trace
        self._words.add(event.word)
        self.deadline = now + LIMITS[self.state]
        return [Tell(Report(self.mac, Stage.HELLO if first else None, heard=str(event.word)))], self.state

    # --- rules 6 and 7: boot or format ---

    def _installed(self, event: IsInstalled, now: float) -> tuple[list[Action], State]:
        order = self._questions.order() or ""
        heard = f"IS_INSTALLED {event.image}".rstrip()
        if order and order != event.order:
            return self._format(order, heard, now)
        actions: list[Action] = [Complete(order)] if order else []
        facts = {"image": event.image} if event.image else {}
        # An order that the marker holds was carried out when nobody listened any more: the manager was being restarted.
        text = f"installed {event.image}, as ordered ({order}), unheard; boots its card" if order else "boots its card"
        report = Report(self.mac, Stage.BOOT, heard=heard, sent="boot", event=text, facts=facts)
        return [*actions, Tell(report), Send(Boot().encode())], State.BOOT

    def _uninstalled(self, event: IsUninstalled, now: float) -> tuple[list[Action], State]:
        order = self._questions.order() or ""
        if event.card is Card.NONE:
            return self._refuse("no SD card")
        if event.card is Card.FOREIGN and not order:
            return self._refuse("card holds a foreign Linux system; order `piman reinstall`")
        return self._format(order, f"IS_UNINSTALLED card={event.card or 'unknown'}", now)

    def _format(self, order: str, heard: str, now: float) -> tuple[list[Action], State]:
        image = self._questions.image()
        if image is None:
            return self._refuse("there is no image to install")
        self.image, self._order, self._started = image, order, now
        command = Format(image.id, image.size, image.sha256, self._image_port, order)
        event = f"formats its card for {image.id}" + (f", as ordered ({order})" if order else "")
        report = Report(self.mac, Stage.FORMAT, heard=heard, sent=f"format {image.id}", event=event)
        return [Tell(report), Send(command.encode(self.version))], State.FORMAT

    # --- rules 8 to 12: the install ---

    def _open_image(self, _event: ImageOpened, now: float) -> tuple[list[Action], State]:
        self._sent, self._written, self._told = 0, None, now
        self.deadline = now + LIMITS[State.IMAGE]
        total = self.image.size if self.image else 0
        return [Tell(Report(self.mac, Stage.IMAGE, sent="image", done=0, total=total))], State.IMAGE

    def _send_image(self, event: ImageSent, now: float) -> tuple[list[Action], State]:
        if event.sent <= self._sent:
            return [], self.state
        self._sent = event.sent
        return self._advance(now)

    def _progress(self, event: Progress, now: float) -> tuple[list[Action], State]:
        # More than was sent is no progress but a claim: it may neither keep the session alive nor fill the bar.
        if self._written is not None and event.written <= self._written:
            return self._noisy(event, now)
        before, self._written = self._written or 0, min(event.written, self._sent)
        return self._advance(now) if self._written > before else ([], self.state)

    def _advance(self, now: float) -> tuple[list[Action], State]:
        total = self.image.size if self.image else 0
        done = min(self._sent, total if self._written is None else self._written)
        self.deadline = now + LIMITS[self.state]
        state = State.UNPACK if self._sent >= total else self.state
        if now - self._told < _PROGRESS_EVERY and done < total:
            return [], state
        self._told = now
        heard = "" if self._written is None else f"PROGRESS {self._written}"
        return [Tell(Report(self.mac, Stage.IMAGE, heard=heard, done=done, total=total))], state

    def _verify(self, event: ImageOk, _now: float) -> tuple[list[Action], State]:
        if self.image is None or event.sha256 != self.image.sha256:
            return self._fail("the Pi's SHA-256 of the image is not ours")
        size = self.image.size
        self._verified, self._sent = True, size  # it proves that all came, even before the last ImageSent tells of it
        return [Tell(Report(self.mac, Stage.IMAGE, heard="IMAGE_OK", done=size, total=size))], State.UNPACK

    def _formatted(self, event: IsFormatted, now: float) -> tuple[list[Action], State]:
        image = self.image
        if image is None or self._sent < image.size:
            return self._fail("IS_FORMATTED before the whole image was sent")
        if self.version >= VERSION and not self._verified:
            return self._fail("IS_FORMATTED without IMAGE_OK")
        if self.version >= VERSION and (event.image, event.order) != (image.id, self._order):
            return self._fail(f"IS_FORMATTED for image {event.image!r}, order {event.order!r}: not what was sent")
        checked = "sha256 verified" if self._verified else "not verified: hello version 1"
        seconds = f"{now - self._started:.0f}"
        text = f"installed {image.id} ({image.size / 1e6:.1f} MB in {seconds} s, {checked})"
        installed = Report(
            self.mac, heard="IS_FORMATTED", event=text, done=image.size, total=image.size, facts={"image": image.id}
        )
        actions: list[Action] = [Complete(self._order)] if self._order else []
        actions += [Tell(installed), Tell(Report(self.mac, Stage.BOOT, sent="boot"))]
        if self.version < VERSION:  # it boots what it installed without being told, and hears nothing more
            return [*actions, Close("installed")], State.CLOSED
        return [*actions, Send(Boot().encode())], State.BOOT

    # --- rules 13 to 18: the end ---

    def _boot(self, event: Said, now: float) -> tuple[list[Action], State]:
        if event.word is not Word.RECEIVED_BOOT:
            return self._noisy(event, now)
        self._words.add(event.word)
        return [Tell(Report(self.mac, heard=str(event.word)))], State.BOOT

    def _give_up(self, event: Error, _now: float) -> tuple[list[Action], State]:
        return self._fail(f"{event.step}: {event.text or 'no reason given'}", heard=f"ERROR {event.step}")

    def _end(self, _event: Disconnected, _now: float) -> tuple[list[Action], State]:
        actions: list[Action] = [Close("disconnected")]
        if self.state in _INSTALLING:
            text = f"connection lost in the install, before {self.state.value}; it starts over when the Pi is back"
            actions.insert(0, Tell(Report(self.mac, heard="end", event=text, severity=Severity.WARNING)))
        return actions, State.CLOSED

    def _late(self, _event: Elapsed, _now: float) -> tuple[list[Action], State]:
        if not self.heard:
            return [Close("silent")], State.CLOSED
        if self.state is State.ENDING or (self.state is State.BOOT and Word.RECEIVED_BOOT in self._words):
            return [Close("it did not close")], State.CLOSED
        return self._fail(f"no word for {LIMITS[self.state]:.0f} s; expected {self.state.value}")

    def _too_much(self, event: TooMuch, _now: float) -> tuple[list[Action], State]:
        return self._fail(event.reason) if self.heard else ([Close(event.reason)], State.CLOSED)

    def _noisy(self, event: Input, now: float) -> tuple[list[Action], State]:
        self._noise += event.size if isinstance(event, Unknown | Malformed) else 0
        self._noise += _LINE_NOISE
        if self._noise > MAX_NOISE:
            return self._too_much(TooMuch("more text than a Pi sends"), now)
        return [], self.state

    def _refuse(
        self, reason: str, severity: Severity = Severity.ERROR, stage: Stage | None = Stage.FAILED
    ) -> tuple[list[Action], State]:
        event = f"refused: {reason}"
        report = Report(self.mac, stage, sent="refuse", event=event, severity=severity)
        if self.version < VERSION:
            return [Tell(report), Close(reason)], State.CLOSED
        return [Tell(report), Send(Refuse(reason).encode())], State.ENDING

    def _fail(self, reason: str, heard: str = "") -> tuple[list[Action], State]:
        report = Report(self.mac, Stage.FAILED, heard=heard, event=reason, severity=Severity.ERROR)
        return [Tell(report), Close(reason)], State.CLOSED


_SAID_BY_A_PI = (Hello, Said, IsInstalled, IsUninstalled, IsFormatted, ImageOk, Progress, Error)

_RULES: Mapping[tuple[State, type], Rule] = {
    (State.GREETING, Hello): Session._greet,  # 1
    **{
        (State.GREETING, other): Session._greet_first_version  # 2
        for other in (*_SAID_BY_A_PI[1:], Unknown, Elapsed)
    },
    (State.GREETING, Malformed): Session._refuse_malformed,  # 3
    (State.DATE, Hello): Session._greet_late,  # 4
    (State.DATE, Said): Session._say,  # 5
    (State.CARD, Said): Session._say,
    (State.DATE, IsInstalled): Session._installed,  # 6
    (State.CARD, IsInstalled): Session._installed,
    (State.DATE, IsUninstalled): Session._uninstalled,  # 7
    (State.CARD, IsUninstalled): Session._uninstalled,
    **{(state, Said): Session._say for state in _INSTALLING},  # 8
    (State.FORMAT, ImageOpened): Session._open_image,  # 9
    (State.IMAGE, ImageOpened): Session._open_image,
    (State.IMAGE, ImageSent): Session._send_image,  # 10
    (State.IMAGE, Progress): Session._progress,
    (State.UNPACK, Progress): Session._progress,
    (State.IMAGE, ImageOk): Session._verify,  # 11
    (State.UNPACK, ImageOk): Session._verify,
    **{(state, IsFormatted): Session._formatted for state in _INSTALLING},  # 12
    (State.BOOT, Said): Session._boot,  # 13
    (State.ENDING, Error): Session._noisy,  # refused already: its end is all that is awaited
}

_ANYWHERE: Mapping[type, Rule] = {
    Error: Session._give_up,  # 14
    Disconnected: Session._end,  # 15
    Elapsed: Session._late,  # 16
    TooMuch: Session._too_much,  # 17
}  # 18: Session._noisy
