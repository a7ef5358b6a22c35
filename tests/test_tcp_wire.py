"""Whole installs in virtual time over a connection that breaks at any message, loudly or silently; nobody sleeps.

Both ends talk in bytes through the real encoders and readers. The Pi here is a model of hello_protocol.sh: what it
wrote to its card before a cut stays, the marker is its last write.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcp.packet import (
    Boot,
    Card,
    Command,
    CommandReader,
    Format,
    Hello,
    Image,
    ImageOk,
    IsFormatted,
    IsInstalled,
    IsUninstalled,
    LineReader,
    PacketError,
    Progress,
    Refuse,
    Said,
    SetDate,
    Word,
    parse_line,
)
from tcp.session import (
    Action,
    Close,
    Complete,
    Disconnected,
    ImageOpened,
    ImageSent,
    Input,
    Malformed,
    Questions,
    Send,
    Session,
    State,
    TooMuch,
)

MAC = "b8:27:eb:00:00:01"
IMAGE = Image("rootfs-0123456789ab", Path("/rootfs.tgz"), 1_000_000, "5a" * 32)
DELAY = 0.001


@dataclass
class Slot:
    """An SD card: what a loss of power does not take."""

    kind: Card = Card.BLANK
    marker: tuple[str, str] | None = None  # image, order
    whole: bool = False  # everything of the image is there
    formats: int = 0


@dataclass
class Cut:
    """Where the connection breaks: at which message, counted over both directions; silently: no side is told."""

    at: int
    silent: bool


@dataclass
class Manager:
    """The orders outlive each session, and each manager."""

    order: str | None = None
    completed: list[str] = field(default_factory=list)

    def complete(self, token: str) -> None:
        if self.order == token:
            self.order = None
            self.completed.append(token)


class Wire:
    """One connection: both ends, the events in flight, and the clock."""

    def __init__(self, slot: Slot, manager: Manager, cut: Cut | None, now: float) -> None:
        self.slot, self.manager, self.cut, self.now = slot, manager, cut, now
        self.messages = 0
        self.broken = False
        self.booted = False
        self.rebooting = False
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        date = datetime(2026, 11, 24, tzinfo=UTC)
        self.session = Session(MAC, Questions(lambda: manager.order, lambda: IMAGE, lambda: date), 4444, now)
        self._lines, self._commands = LineReader(), CommandReader()

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + seconds, self._count, what))

    def run(self) -> None:
        """Until the manager's side is closed and nothing is in flight."""
        self.from_pi(Hello(MAC).encode())
        while self.session.state is not State.CLOSED or self._events:
            at = self._events[0][0] if self._events else self.session.deadline
            if self.session.deadline <= at:
                self.now = max(self.now, self.session.deadline)
                self.do(self.session.tick(self.now))
                continue
            self.now, _, what = heapq.heappop(self._events)
            what()

    def passes(self) -> bool:
        """Whether this message arrives; the cut takes it and all after it."""
        self.messages += 1
        if self.cut and not self.broken and self.messages > self.cut.at:
            self.broken = True
            if not self.cut.silent:
                self.after(DELAY, lambda: self.input(Disconnected()))
        return not self.broken

    # --- the manager's side ---

    def input(self, event: Input) -> None:
        self.do(self.session.receive(event, self.now))

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(data) if self.passes():
                    self.after(DELAY, lambda data=data: self.pi_hears(data))  # type: ignore[misc]
                case Complete(token):
                    assert self.slot.marker == (self.slot.marker[0] if self.slot.marker else "", token)
                    self.manager.complete(token)
                case Close():
                    self.broken = True

    def from_pi(self, data: bytes) -> None:
        if self.passes():
            self.after(DELAY, lambda: self.manager_hears(data))

    def manager_hears(self, data: bytes) -> None:
        try:
            lines = self._lines.feed(data)
        except PacketError as error:
            return self.input(TooMuch(str(error)))
        for line in lines:
            try:
                self.input(parse_line(line))
            except PacketError as error:
                self.input(Malformed(str(error), len(line)))
        return None

    # --- the Pi's side ---

    def pi_hears(self, data: bytes) -> None:
        for command in self._commands.feed(data):
            self.pi_does(command)

    def pi_does(self, command: Command) -> None:
        match command:
            case SetDate():
                self.from_pi(Said(Word.SET_DATE).encode())
                if self.slot.marker:
                    assert self.slot.whole  # a marker on a torn card would boot into a panic
                    self.from_pi(IsInstalled(*self.slot.marker).encode())
                else:
                    self.from_pi(IsUninstalled(self.slot.kind).encode())
            case Format():
                self.slot.kind, self.slot.marker, self.slot.whole = Card.PIMAN, None, False
                self.slot.formats += 1
                for word in (Word.RECEIVED_FORMAT, Word.FORMATTING, Word.FORMATTED):
                    self.from_pi(Said(word).encode())
                self.after(3.0, lambda: self.take(command, 0))
            case Boot():
                self.from_pi(Said(Word.RECEIVED_BOOT).encode())
                self.booted = True
                self.after(2 * DELAY, lambda: self.input(Disconnected()))
            case Refuse():
                self.rebooting = True
                self.after(DELAY, lambda: self.input(Disconnected()))
            case _:
                raise AssertionError(command)

    def take(self, command: Format, done: int) -> None:
        """A tenth of the image each second."""
        if not self.passes():
            return
        if not done:
            self.input(ImageOpened())
        done += command.size // 10
        self.input(ImageSent(done))
        self.from_pi(Progress(done).encode())
        if done < command.size:
            self.after(1.0, lambda: self.take(command, done))
        else:
            self.after(1.0, lambda: self.finish(command))

    def finish(self, command: Format) -> None:
        self.slot.whole = True
        self.from_pi(ImageOk(command.sha256).encode())
        self.slot.marker = (command.image, command.order)
        self.from_pi(IsFormatted(command.image, command.order).encode())


def boot(slot: Slot, manager: Manager, cuts: list[Cut | None]) -> Wire:
    """Power on again and again, each time with the next cut, the last of which is None."""
    now = 0.0
    for cut in cuts:
        wire = Wire(slot, manager, cut, now)
        wire.run()
        assert wire.now - now < 600  # no state waits for ever
        now = wire.now + 10
        if wire.booted:
            break
    return wire


def test_an_install_and_the_boot_after_it() -> None:
    slot, manager = Slot(), Manager("tok")
    assert boot(slot, manager, [None]).booted
    assert (slot.marker, slot.formats, manager.completed) == ((IMAGE.id, "tok"), 1, ["tok"])
    assert boot(slot, manager, [None]).booted
    assert slot.formats == 1


def test_a_foreign_card_is_kept() -> None:
    slot = Slot(Card.FOREIGN)
    wire = boot(slot, Manager(), [None])
    assert (wire.booted, wire.rebooting, slot) == (False, True, Slot(Card.FOREIGN))


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("at", range(35))
def test_one_cut_at_each_message(at: int, silent: bool) -> None:
    slot, manager = Slot(), Manager("tok")
    wire = boot(slot, manager, [Cut(at, silent), None, None])
    assert wire.booted
    assert slot.marker == (IMAGE.id, "tok")
    assert slot.whole
    if manager.order:  # the Pi heard `boot`, and our end did not hear that it was there: taken off at the next boot
        boot(slot, manager, [None])
    assert manager.completed == ["tok"]
    assert slot.formats <= 2


cuts = st.lists(st.builds(Cut, st.integers(0, 40), st.booleans()), max_size=12)


@given(cuts, st.sampled_from([None, "tok"]), st.sampled_from([Card.BLANK, Card.PIMAN]))
def test_any_cuts(broken: list[Cut], order: str | None, kind: Card) -> None:
    slot, manager = Slot(kind), Manager(order)
    wire = boot(slot, manager, [*broken, None])
    assert wire.booted
    assert slot.marker == (IMAGE.id, order or "")
    assert slot.whole
    boot(slot, manager, [None])
    assert manager.completed == ([order] if order else [])


@given(cuts, cuts)
def test_an_order_in_the_middle_of_an_install_is_carried_out(first: list[Cut], second: list[Cut]) -> None:
    slot, manager = Slot(), Manager("one")
    boot(slot, manager, [*first, Cut(12, silent=True)])
    manager.order = "two"
    assert boot(slot, manager, [*second, None]).booted
    boot(slot, manager, [None, None])
    assert slot.marker == (IMAGE.id, "two")
    assert manager.order is None
