"""The decisions of a hello session: each rule of tcp/session.py, its deadlines, and any input in any state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcp.packet import (
    Card,
    Error,
    Hello,
    Image,
    ImageOk,
    IsFormatted,
    IsInstalled,
    IsUninstalled,
    Progress,
    Said,
    Unknown,
    Word,
)
from tcp.session import (
    LIMITS,
    MAX_NOISE,
    Action,
    Close,
    Complete,
    Disconnected,
    Elapsed,
    ImageOpened,
    ImageSent,
    Input,
    Malformed,
    Questions,
    Send,
    Session,
    State,
    Tell,
    TooMuch,
)
from utility.service import Report, Severity, Stage

MAC = "b8:27:eb:00:00:01"
IMAGE = Image("rootfs-0123456789ab", Path("/rootfs.tgz"), 4_000_000, "5a" * 32)
HELLO = Hello(MAC, "deadbeef", "Raspberry_Pi_4", 268435456)
SET_DATE = Said(Word.SET_DATE)
DATE = b"date 2026-11-24 00:15:30\nEOM\n"
DATE_1 = b"busybox date -s 202611240015.30\nEOM\n"
FORMAT = f"format image={IMAGE.id} size={IMAGE.size} sha256={IMAGE.sha256} port=4444".encode()
BOOT = b"boot\nEOM\n"
TO_FORMAT = (HELLO, SET_DATE, IsUninstalled(Card.BLANK))
TO_UNPACK = (*TO_FORMAT, ImageOpened(), ImageSent(IMAGE.size))
TO_BOOT = (HELLO, SET_DATE, IsInstalled("rootfs-0", ""))
FINISHED = IsFormatted(IMAGE.id)


@dataclass
class Play:
    """A session, a world that answers it, and what it did."""

    order: str | None = None
    image: Image | None = IMAGE
    now: float = 100.0
    actions: list[Action] = field(default_factory=list)

    def __post_init__(self) -> None:
        date = datetime(2026, 11, 24, 0, 15, 30, tzinfo=UTC)
        questions = Questions(lambda: self.order, lambda: self.image, lambda: date)
        self.session = Session(MAC, questions, 4444, self.now)

    def say(self, *inputs: Input, after: float = 1.0) -> Play:
        """The inputs, each `after` seconds later; `actions` are those of the last."""
        for each in inputs:
            self.now += after
            self.actions = self.session.receive(each, self.now)
        return self

    @property
    def state(self) -> State:
        return self.session.state

    @property
    def sent(self) -> bytes:
        return b"".join(action.data for action in self.actions if isinstance(action, Send))

    @property
    def reports(self) -> list[Report]:
        return [action.report for action in self.actions if isinstance(action, Tell)]

    @property
    def failure(self) -> str:
        """Why it failed: the report's event; the session must be closed or ending with it."""
        failures = [report for report in self.reports if report.stage is Stage.FAILED]
        assert len(failures) == 1
        assert failures[0].severity is Severity.ERROR
        assert self.state in (State.CLOSED, State.ENDING)
        return failures[0].event

    def wait(self) -> Play:
        self.now = self.session.deadline
        self.actions = self.session.tick(self.now)
        return self


def test_rule_1_who_it_is() -> None:
    play = Play().say(HELLO)
    assert play.state is State.DATE
    assert play.sent == DATE
    (report,) = play.reports
    assert (report.mac, report.stage) == (MAC, Stage.HELLO)
    assert report.facts == {"serial": "deadbeef", "model": "Raspberry Pi 4", "sd_bytes": "268435456"}


def test_rule_1_a_later_version_is_spoken_to_in_ours() -> None:
    assert Play().say(Hello(MAC, version=7)).sent == DATE


def test_rule_1_the_address_of_another_pi() -> None:
    play = Play().say(Hello("b8:27:eb:00:00:99"))
    assert play.state is State.ENDING
    assert play.sent.startswith(b"refuse this address belongs to b8:27:eb:00:00:01")
    (report,) = play.reports
    assert (report.stage, report.severity) == (None, Severity.WARNING)
    assert "b8:27:eb:00:00:99" in report.event


@pytest.mark.parametrize("first", [Said(Word.HELLO_WORLD), Unknown("+ set -x", 8)])
def test_rule_2_version_1_by_its_first_line(first: Input) -> None:
    play = Play().say(first)
    assert (play.state, play.sent, play.session.version) == (State.DATE, DATE_1, 1)


def test_rule_2_version_1_by_silence() -> None:
    play = Play()
    assert play.session.tick(play.now + 1.9) == []
    play.wait()
    assert (play.state, play.sent, play.reports) == (State.DATE, DATE_1, [])
    assert play.session.deadline == play.now + LIMITS[State.DATE]


def test_rule_2_version_1_is_on_the_board_from_its_first_word_on() -> None:
    assert [report.stage for report in Play().say(Said(Word.HELLO_WORLD)).reports] == [Stage.HELLO]
    play = Play().say(Unknown("+ echo Hello World", 18))
    assert play.reports == []
    assert [report.stage for report in play.say(Said(Word.HELLO_WORLD)).reports] == [Stage.HELLO]
    assert [report.stage for report in play.say(Said(Word.MAKING_NODES)).reports] == [None]


def test_rule_2_the_first_line_counts() -> None:
    play = Play().say(IsInstalled())
    assert (play.state, play.sent) == (State.BOOT, DATE_1 + BOOT)
    assert play.session.deadline == play.now + LIMITS[State.BOOT]


def test_rule_3_a_malformed_hello_is_no_version_1() -> None:
    play = Play().say(Malformed("mac= is missing", 20))
    assert play.failure == "refused: mac= is missing"
    assert play.sent == b"refuse mac= is missing\nEOM\n"


def test_rule_4_a_hello_after_the_silence() -> None:
    play = Play().wait().say(HELLO)
    assert (play.state, play.sent) == (State.DATE, DATE)
    assert play.say(HELLO).actions == []  # once


@pytest.mark.parametrize("word", [Word.SET_DATE, Word.CHECKING_IF_INSTALLED])
def test_rule_5_it_looks_at_its_card(word: Word) -> None:
    play = Play().say(HELLO, Said(word))
    assert (play.state, play.session.deadline) == (State.CARD, play.now + 60.0)


@pytest.mark.parametrize("before", [(HELLO,), (HELLO, SET_DATE), (Said(Word.HELLO_WORLD),)])
@pytest.mark.parametrize(
    ("order", "marker", "sent", "completed"),
    [
        (None, "", BOOT, []),
        (None, "old", BOOT, []),
        ("new", "new", BOOT, [Complete("new")]),
        ("new", "old", b"format", []),
        ("new", "", b"format", []),
    ],
)
def test_rule_6_installed(
    before: Sequence[Input], order: str | None, marker: str, sent: bytes, completed: list[Action]
) -> None:
    play = Play(order).say(*before, IsInstalled("rootfs-0", marker))
    assert play.sent.startswith(sent)
    assert [action for action in play.actions if isinstance(action, Complete)] == completed
    assert play.state is (State.BOOT if sent == BOOT else State.FORMAT)
    stages = [report.stage for report in play.reports]
    assert stages == [Stage.BOOT if sent == BOOT else Stage.FORMAT]


def test_rule_6_the_image_of_the_card_is_told() -> None:
    assert Play().say(*TO_BOOT).reports[0].facts == {"image": "rootfs-0"}


@pytest.mark.parametrize("card", [None, Card.BLANK, Card.PIMAN])
def test_rule_7_an_empty_card_is_ours(card: Card | None) -> None:
    play = Play().say(HELLO, SET_DATE, IsUninstalled(card))
    assert (play.state, play.sent) == (State.FORMAT, FORMAT + b"\nEOM\n")
    assert play.reports[0].stage is Stage.FORMAT


def test_rule_7_a_foreign_card_is_not() -> None:
    play = Play().say(HELLO, SET_DATE, IsUninstalled(Card.FOREIGN))
    assert play.failure == "refused: card holds a foreign Linux system; order `piman reinstall`"
    assert play.sent.startswith(b"refuse card holds")


def test_rule_7_unless_ordered() -> None:
    play = Play("tok").say(HELLO, SET_DATE, IsUninstalled(Card.FOREIGN))
    assert play.sent == FORMAT + b" order=tok\nEOM\n"
    assert "as ordered (tok)" in play.reports[0].event


@pytest.mark.parametrize("order", [None, "tok"])
def test_rule_7_no_card(order: str | None) -> None:
    assert Play(order).say(HELLO, SET_DATE, IsUninstalled(Card.NONE)).failure == "refused: no SD card"


def test_rule_7_no_image() -> None:
    play = Play(image=None).say(*TO_FORMAT)
    assert play.failure == "refused: there is no image to install"
    assert play.sent.startswith(b"refuse there is no image")


def test_rule_7_version_1_is_formatted_and_cannot_be_refused() -> None:
    assert Play().say(Said(Word.HELLO_WORLD), IsUninstalled()).sent == b"format\nEOM\n"
    play = Play(image=None).say(Said(Word.HELLO_WORLD), IsUninstalled())
    assert (play.sent, play.state) == (b"", State.CLOSED)
    assert isinstance(play.actions[-1], Close)


def test_rule_8_each_word_is_a_life_sign_once() -> None:
    play = Play().say(*TO_FORMAT)
    assert play.session.deadline == play.now + 120.0
    play.say(Said(Word.FORMATTING), after=100.0)
    assert play.session.deadline == play.now + 120.0
    assert play.reports[0].heard == "FORMATTING"
    deadline = play.session.deadline
    play.say(Said(Word.FORMATTING), Unknown("mke2fs 1.47.0", 13), after=100.0)
    assert (play.session.deadline, play.actions) == (deadline, [])


def test_rule_9_the_image_is_taken() -> None:
    play = Play().say(*TO_FORMAT)
    assert play.session.wants_image
    play.say(ImageOpened())
    assert play.state is State.IMAGE
    assert play.session.wants_image
    assert (play.reports[0].stage, play.reports[0].done, play.reports[0].total) == (Stage.IMAGE, 0, IMAGE.size)


def test_rule_9_and_taken_again_from_its_start() -> None:
    play = Play().say(*TO_FORMAT, ImageOpened(), ImageSent(5000), Progress(4000), ImageOpened())
    assert play.reports[0].done == 0
    assert play.session.deadline == play.now + 60.0
    assert play.say(ImageSent(3000)).reports[0].done == 3000


def test_rule_10_progress_is_what_was_sent_until_the_pi_says_less() -> None:
    play = Play().say(*TO_FORMAT, ImageOpened(), ImageSent(1000))
    assert (play.reports[0].done, play.reports[0].total) == (1000, IMAGE.size)
    assert play.say(Progress(400)).reports[0].done == 400
    assert play.say(ImageSent(2000)).reports[0].done == 400
    assert play.say(Progress(10**15)).reports[0].done == 2000  # a claim


def test_rule_10_the_board_is_not_flooded() -> None:
    play = Play().say(*TO_FORMAT, ImageOpened())
    told = sum(len(play.say(ImageSent(n), after=0.01).reports) for n in range(1, 200))
    assert told == pytest.approx(8, abs=2)


def test_rule_10_only_growth_keeps_the_session_alive() -> None:
    play = Play().say(*TO_FORMAT, ImageOpened(), ImageSent(1000), Progress(900))
    deadline = play.session.deadline
    for each in (Progress(900), Progress(5), ImageSent(1000), ImageSent(10), Unknown("tar", 3), Malformed("x", 1)):
        assert play.say(each, after=1.0).actions == []
    play.say(Progress(2000), Progress(3000))  # 1000 bytes were sent: the second says nothing new
    assert play.session.deadline == deadline + 7.0
    assert play.wait().failure.startswith("no word for 60 s; expected progress")


def test_rule_10_all_sent_is_only_to_be_unpacked() -> None:
    play = Play().say(*TO_UNPACK)
    assert (play.state, play.session.deadline) == (State.UNPACK, play.now + 300.0)
    assert not play.session.wants_image
    play.say(Progress(1000), after=200.0)
    assert (play.session.deadline, play.reports[0].done) == (play.now + 300.0, 1000)


def test_rule_11_the_hash() -> None:
    play = Play().say(*TO_UNPACK, ImageOk(IMAGE.sha256))
    assert (play.state, play.reports[0].done) == (State.UNPACK, IMAGE.size)
    assert Play().say(*TO_UNPACK, ImageOk("00" * 32)).failure == "the Pi's SHA-256 of the image is not ours"


@pytest.mark.parametrize("sent", [(), (ImageSent(1),), (ImageSent(IMAGE.size - 1),)])
def test_rule_11_the_hash_proves_that_all_was_sent(sent: Sequence[Input]) -> None:
    """The Pi may be heard before the kernel's count is."""
    play = Play().say(*TO_FORMAT, ImageOpened(), *sent, ImageOk(IMAGE.sha256), ImageSent(IMAGE.size), FINISHED)
    assert (play.state, play.sent) == (State.BOOT, BOOT)
    assert "sha256 verified" in play.reports[0].event


def test_rule_12_installed_by_order() -> None:
    play = Play("tok").say(*TO_UNPACK, ImageOk(IMAGE.sha256))
    play.order = "newer"  # ordered meanwhile: stays, and is carried out at the next boot
    play.say(IsFormatted(IMAGE.id, "tok"))
    assert play.actions[0] == Complete("tok")
    assert play.actions[-1] == Send(BOOT)
    installed, boot = play.reports
    assert installed.event == f"installed {IMAGE.id} (4.0 MB in 4 s, sha256 verified)"
    assert installed.facts == {"image": IMAGE.id}
    assert (boot.stage, play.state) == (Stage.BOOT, State.BOOT)


def test_rule_12_without_an_order_none_is_completed() -> None:
    play = Play().say(*TO_UNPACK, ImageOk(IMAGE.sha256), FINISHED)
    assert [type(action) for action in play.actions] == [Tell, Tell, Send]


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ((*TO_FORMAT, FINISHED), "before the whole image"),
        ((*TO_FORMAT, ImageOpened(), ImageSent(1), FINISHED), "before the whole image"),
        ((*TO_UNPACK, FINISHED), "without IMAGE_OK"),
        ((*TO_UNPACK, ImageOk(IMAGE.sha256), IsFormatted("rootfs-1")), "not what was sent"),
        ((*TO_UNPACK, ImageOk(IMAGE.sha256), IsFormatted(IMAGE.id, "stranger")), "not what was sent"),
    ],
)
def test_rule_12_only_what_was_sent_and_verified_is_installed(inputs: Sequence[Input], reason: str) -> None:
    play = Play().say(*inputs)
    assert reason in play.failure
    assert not any(isinstance(action, Complete) for action in play.actions)


def test_rule_12_version_1_ends_by_itself() -> None:
    play = Play("tok").say(Said(Word.HELLO_WORLD), *TO_UNPACK[2:], IsFormatted())
    assert [type(action) for action in play.actions] == [Complete, Tell, Tell, Close]
    assert "not verified: hello version 1" in play.reports[0].event
    assert (play.state, play.session.deadline) == (State.CLOSED, math.inf)


def test_rule_13_it_boots() -> None:
    play = Play().say(*TO_BOOT, Said(Word.RECEIVED_BOOT))
    assert (play.state, play.reports[0].heard) == (State.BOOT, "RECEIVED_BOOT")
    assert play.say(Said(Word.MOUNTING)).actions == []
    assert [type(action) for action in play.say(Disconnected()).actions] == [Close]


def test_rule_13_or_cannot() -> None:
    play = Play().say(*TO_BOOT, Said(Word.RECEIVED_BOOT), Error("mount", "no such device"))
    assert play.failure == "mount: no such device"


@pytest.mark.parametrize("before", [(), (HELLO,), (HELLO, SET_DATE), TO_FORMAT, TO_UNPACK, TO_BOOT])
def test_rule_14_the_pi_gives_up(before: Sequence[Input]) -> None:
    play = Play().say(*before, Error("card"))
    assert play.failure == "card: no reason given"
    assert isinstance(play.actions[-1], Close)


@pytest.mark.parametrize("before", [TO_FORMAT, (*TO_FORMAT, ImageOpened()), TO_UNPACK])
def test_rule_15_lost_in_the_install(before: Sequence[Input]) -> None:
    play = Play("tok").say(*before, Disconnected())
    assert (play.state, play.reports[0].stage, play.reports[0].severity) == (State.CLOSED, None, Severity.WARNING)
    assert "starts over" in play.reports[0].event


@pytest.mark.parametrize("before", [(), (HELLO,), (HELLO, SET_DATE), TO_BOOT])
def test_rule_15_elsewhere_an_end_is_no_event(before: Sequence[Input]) -> None:
    play = Play().say(*before, Disconnected())
    assert (play.state, play.actions) == (State.CLOSED, [Close("disconnected")])


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ((HELLO,), "no word for 10 s; expected SET_DATE"),
        ((HELLO, SET_DATE), "no word for 60 s; expected IS_INSTALLED or IS_UNINSTALLED"),
        (TO_FORMAT, "no word for 120 s; expected FORMATTED"),
        ((*TO_FORMAT, ImageOpened()), "no word for 60 s; expected progress of the image"),
        (TO_UNPACK, "no word for 300 s; expected IMAGE_OK and IS_FORMATTED"),
        (TO_BOOT, "no word for 10 s; expected RECEIVED_BOOT"),
    ],
)
def test_rule_16_what_was_expected_when_time_ran_out(before: Sequence[Input], expected: str) -> None:
    play = Play().say(*before)
    assert play.session.tick(play.session.deadline - 0.001) == []
    assert play.wait().failure.startswith(expected)


@pytest.mark.parametrize("noise", [[], [Unknown("GET / HTTP/1.1", 14)]])
def test_rule_16_who_never_spoke_is_closed_without_a_word(noise: list[Input]) -> None:
    play = Play().say(*noise)
    while play.state is not State.CLOSED:
        play.wait()
    assert play.actions == [Close("silent")]


@pytest.mark.parametrize("before", [(*TO_BOOT, Said(Word.RECEIVED_BOOT)), (Malformed("x", 1),)])
def test_rule_16_who_only_has_to_close_did_not_fail(before: Sequence[Input]) -> None:
    play = Play().say(HELLO) if len(before) > 1 else Play()
    play.say(*before[1:] if len(before) > 1 else before)
    play.session.heard = True
    assert play.wait().actions == [Close("it did not close")]


def test_rule_17_an_endless_line() -> None:
    assert Play().say(HELLO, TooMuch("a line of more than 4096 bytes")).failure == "a line of more than 4096 bytes"
    assert Play().say(TooMuch("too long")).actions == [Close("too long")]


@pytest.mark.parametrize("each", [Unknown("x" * 100, 1000), Malformed("y", 1000), Said(Word.SET_DATE)])
def test_rule_18_noise_is_borne_up_to_a_megabyte(each: Input) -> None:
    play = Play().say(*TO_FORMAT, Said(Word.SET_DATE))
    lines = 0
    while play.state is State.FORMAT:
        play.actions = play.session.receive(each, play.now)
        lines += 1
    assert play.failure == "more text than a Pi sends"
    size = getattr(each, "size", 0)
    assert lines == pytest.approx(MAX_NOISE / (size + 16), rel=0.01)


def test_a_refused_pi_is_not_listened_to() -> None:
    play = Play().say(Hello("b8:27:eb:00:00:99"), Error("card", "x"), IsUninstalled(), SET_DATE)
    assert (play.state, play.actions) == (State.ENDING, [])
    assert play.say(Disconnected()).actions == [Close("disconnected")]


def test_a_closed_session_does_nothing() -> None:
    play = Play().say(Disconnected(), HELLO, IsUninstalled(), Elapsed())
    assert play.actions == []


SOME = st.sampled_from(
    [
        HELLO,
        Hello("b8:27:eb:00:00:99"),
        *(Said(word) for word in Word),
        IsInstalled(),
        IsInstalled(IMAGE.id, "tok"),
        *(IsUninstalled(card) for card in (None, *Card)),
        FINISHED,
        IsFormatted(IMAGE.id, "tok"),
        ImageOk(IMAGE.sha256),
        ImageOk("00" * 32),
        Progress(7),
        Progress(IMAGE.size),
        Error("card", "words"),
        Unknown("+ trace", 7),
        Malformed("reason", 9),
        ImageOpened(),
        ImageSent(9),
        ImageSent(IMAGE.size),
        Disconnected(),
        Elapsed(),
        TooMuch("line"),
    ]
)


@given(
    st.lists(st.tuples(SOME, st.sampled_from([0.0, 0.1, 5.0, 61.0])), max_size=25),
    st.sampled_from([None, "tok"]),
    st.sampled_from([None, IMAGE]),
)
def test_any_input_in_any_state(inputs: list[tuple[Input, float]], order: str | None, image: Image | None) -> None:
    play = Play(order, image)
    sent: list[bytes] = []
    whole = verified = False
    for each, after in inputs:
        play.now += after
        actions = play.session.tick(play.now) + play.session.receive(each, play.now)
        whole = (whole and each != ImageOpened()) or each == ImageSent(IMAGE.size)
        verified = verified or each == ImageOk(IMAGE.sha256)
        closes = [action for action in actions if isinstance(action, Close)]
        assert (play.state is State.CLOSED) == bool(closes) or play.actions == []
        assert len(closes) <= 1
        assert play.session.deadline > play.now or play.state is not State.CLOSED
        sent += [action.data for action in actions if isinstance(action, Send)]
        for action in actions:
            if action == Complete("tok") and each != IsInstalled(IMAGE.id, "tok"):
                assert whole  # an install completes its order only when all of the image went out
                assert verified or play.session.version == 1
    formats = [data for data in sent if data.startswith(b"format")]
    boots = [data for data in sent if data == BOOT]
    assert len(formats) <= 1
    assert len(boots) <= 1
    assert not formats or image is not None
