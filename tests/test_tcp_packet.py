"""The hello protocol's lines, both ways: one table of messages and their text, and any bytes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcp.packet import (
    MAX_COMMAND_LINES,
    MAX_LINE,
    Boot,
    Card,
    Command,
    CommandReader,
    Error,
    Format,
    Hello,
    ImageOk,
    IsFormatted,
    IsInstalled,
    IsUninstalled,
    LineReader,
    Message,
    PacketError,
    Progress,
    Refuse,
    Said,
    SetDate,
    Unknown,
    Word,
    parse_command,
    parse_line,
    readable,
    text_value,
)

HASH = "0123456789abcdef" * 4
WHEN = datetime(2026, 11, 24, 13, 15, 37, tzinfo=UTC)

MESSAGES: list[tuple[Message, str]] = [
    (
        Hello("b8:27:eb:01:02:03", "deadbeef", "Raspberry_Pi_3_Model_B", 268435456),
        "HELLO 2 mac=b8:27:eb:01:02:03 serial=deadbeef model=Raspberry_Pi_3_Model_B sd=268435456",
    ),
    (Hello("b8:27:eb:01:02:03", sd=5, version=3), "HELLO 3 mac=b8:27:eb:01:02:03 sd=5"),
    (IsInstalled("rootfs-0123456789ab", "order-7"), "IS_INSTALLED image=rootfs-0123456789ab order=order-7"),
    (IsInstalled(), "IS_INSTALLED"),
    (IsUninstalled(Card.FOREIGN), "IS_UNINSTALLED card=foreign"),
    (IsUninstalled(), "IS_UNINSTALLED"),
    (IsFormatted("a.b_c-d", "t1"), "IS_FORMATTED image=a.b_c-d order=t1"),
    (IsFormatted(), "IS_FORMATTED"),
    (ImageOk(HASH), f"IMAGE_OK sha256={HASH}"),
    (Progress(1048576), "PROGRESS 1048576"),
    (Error("unpack", "no space left on device"), "ERROR unpack no space left on device"),
    (Error("hash"), "ERROR hash"),
    *((Said(word), "Hello World" if word is Word.HELLO_WORLD else str(word)) for word in Word),
]

COMMANDS: list[tuple[Command, int, str]] = [
    (SetDate(WHEN), 2, "date 2026-11-24 13:15:37"),
    (SetDate(WHEN), 1, "busybox date -s 202611241315.37"),
    (SetDate(WHEN.replace(year=544)), 2, "date 0544-11-24 13:15:37"),
    (SetDate(WHEN.replace(year=544)), 1, "busybox date -s 054411241315.37"),
    (
        Format("rootfs-1", 123456, HASH, 4444, "tok-1"),
        2,
        f"format image=rootfs-1 size=123456 sha256={HASH} port=4444 order=tok-1",
    ),
    (Format("rootfs-1", 123456, HASH, 4444), 2, f"format image=rootfs-1 size=123456 sha256={HASH} port=4444"),
    (Boot(), 2, "boot"),
    (Refuse("no image here"), 2, "refuse no image here"),
]


@pytest.mark.parametrize(("message", "text"), MESSAGES)
def test_a_message_and_its_line(message: Message, text: str) -> None:
    assert not isinstance(message, Unknown)
    assert message.encode() == text.encode() + b"\n"
    assert parse_line(text.encode()) == message
    assert parse_line(text.encode() + b"\r") == message


@pytest.mark.parametrize(("command", "version", "text"), COMMANDS)
def test_a_command_and_its_lines(command: Command, version: int, text: str) -> None:
    assert not isinstance(command, Unknown)
    assert command.encode(version) == f"{text}\nEOM\n".encode()
    assert parse_command(text) == command


def test_version_1_gets_the_commands_it_knows() -> None:
    assert Format("i", 1, HASH, 4444, "t").encode(1) == b"format\nEOM\n"
    assert Boot().encode(1) == b"boot\nEOM\n"
    assert Refuse("why").encode(1) == b""


def test_the_date_is_sent_in_utc() -> None:
    east = WHEN.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert SetDate(east).encode() == SetDate(WHEN).encode()


@pytest.mark.parametrize("word", ["FINISHED FORMATTING", "MAKING NODES", "Hello World"])
def test_version_1_writes_words_with_blanks(word: str) -> None:
    assert parse_line(word.encode()) == Said(Word(word.replace(" ", "_")))


@pytest.mark.parametrize(
    "line",
    [
        b"HELLO",
        b"HELLO 1 mac=b8:27:eb:01:02:03",
        b"HELLO two mac=b8:27:eb:01:02:03",
        b"HELLO 2 serial=1",  # no mac
        b"HELLO 2 mac=",
        b"HELLO 2 mac=b8:27:eb:01:02",
        b"HELLO 2 mac=b8:27:eb:01:02:03 mac=b8:27:eb:01:02:04",
        b"HELLO 2 mac=b8:27:eb:01:02:03 sd=many",
        b"HELLO 2 mac=b8:27:eb:01:02:03 stray",
        b"IS_INSTALLED image=../etc/passwd",
        b"IS_INSTALLED image=$(reboot)",
        b"IS_INSTALLED image=" + b"a" * 129,
        b"IS_UNINSTALLED card=full",
        b"IMAGE_OK",
        b"IMAGE_OK sha256=" + b"A" * 64,
        b"PROGRESS",
        b"PROGRESS -1",
        b"PROGRESS 1e9",
        b"PROGRESS " + b"9" * 19,
        b"ERROR",
        b"ERROR BAD;STEP x",
    ],
)
def test_a_message_with_broken_fields(line: bytes) -> None:
    with pytest.raises(PacketError):
        parse_line(line)


@pytest.mark.parametrize("text", ["date", "date now", "date 2026-13-01 00:00:00", "format size=5", "format image=a b"])
def test_a_command_with_broken_fields(text: str) -> None:
    with pytest.raises(PacketError):
        parse_command(text)


@pytest.mark.parametrize("text", ["", "format", "boot now", "reinstall", "rm -rf /", "busybox date -s 1"])
def test_a_command_that_is_none(text: str) -> None:
    assert isinstance(parse_command(text), Unknown)


def test_keys_of_a_later_version_and_empty_values_are_passed_over() -> None:
    line = b"IS_INSTALLED image=rootfs-1 order= colour=blue=green"
    assert parse_line(line) == IsInstalled("rootfs-1")
    assert parse_line(b"HELLO 9 mac=B8:27:EB:01:02:03 serial= wifi=") == Hello("b8:27:eb:01:02:03", version=9)


def test_shell_trace_is_no_message() -> None:
    line = b"+ mount -t ext4 /dev/mmcblk0p2 \xff\x1b[0m"
    assert parse_line(line) == Unknown("+ mount -t ext4 /dev/mmcblk0p2  [0m", len(line))
    assert isinstance(parse_line(b"IS_INSTALLEDX"), Unknown)


def test_what_may_not_be_taken_may_not_be_sent() -> None:
    with pytest.raises(PacketError):
        Format("two words", 1, HASH, 4444).encode()
    with pytest.raises(PacketError):
        IsInstalled("a\nboot").encode()
    assert Refuse("a\nEOM\nboot\nEOM").encode() == b"refuse a EOM boot EOM\nEOM\n"


def test_text_is_made_fit() -> None:
    assert text_value("  Raspberry Pi 4\tModel B é\0") == "Raspberry_Pi_4_Model_B_"
    assert readable("a\x1b[2J\nb", 6) == "a [2J"


def test_lines_arrive_in_any_pieces() -> None:
    reader = LineReader()
    assert reader.feed(b"IS_INS") == []
    assert reader.feed(b"TALLED\n\nPROGRESS 1\nPRO") == [b"IS_INSTALLED", b"", b"PROGRESS 1"]
    assert reader.feed(b"GRESS 2\n") == [b"PROGRESS 2"]


@pytest.mark.parametrize("tail", [b"", b"\n", b"\nboot\n"])
def test_a_line_has_an_end(tail: bytes) -> None:
    assert LineReader().feed(b"x" * MAX_LINE + b"\n") == [b"x" * MAX_LINE]
    with pytest.raises(PacketError):
        LineReader().feed(b"x" * (MAX_LINE + 1) + tail)


def test_commands_arrive_in_any_pieces() -> None:
    reader = CommandReader()
    data = b"".join(command.encode(version) for command, version, _ in COMMANDS if not isinstance(command, Unknown))
    found = [command for byte in data for command in reader.feed(bytes((byte,)))]
    assert found == [command for command, _, _ in COMMANDS]


def test_a_command_has_an_end() -> None:
    with pytest.raises(PacketError):
        CommandReader().feed(b"echo\n" * (MAX_COMMAND_LINES + 1))


@given(st.binary(max_size=300))
def test_any_line_is_a_message_or_an_error(line: bytes) -> None:
    try:
        message = parse_line(line)
    except PacketError:
        return
    if not isinstance(message, Unknown):
        assert parse_line(message.encode().rstrip(b"\n")) == message


@given(st.sampled_from([text for _, text in MESSAGES]), st.data())
def test_a_damaged_line_is_a_message_or_an_error(text: str, data: st.DataObject) -> None:
    line = bytearray(text.encode())
    line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.integers(0, 255))
    test_any_line_is_a_message_or_an_error.hypothesis.inner_test(bytes(line))  # type: ignore[attr-defined]


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_any_stream_is_commands_or_an_error(pieces: list[bytes]) -> None:
    reader = CommandReader()
    try:
        for piece in pieces:
            reader.feed(piece)
    except PacketError:
        return


names = st.from_regex(r"[A-Za-z0-9._-]{1,128}", fullmatch=True)
numbers = st.integers(0, 10**18 - 1)
hashes = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)


@given(st.builds(Format, names, numbers, hashes, numbers, st.just("") | names))
def test_any_format_comes_back(command: Format) -> None:
    assert parse_command(command.encode().decode().removesuffix("\nEOM\n")) == command


@given(st.builds(Hello, st.from_regex(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", fullmatch=True), names, names, numbers))
def test_any_hello_comes_back(message: Hello) -> None:
    assert parse_line(message.encode().strip()) == message
