"""The hello protocol's lines: text <-> frozen dataclasses. Holds no state, no socket and no decision.

tcp/README.md is the specification; the names here are its words. Both directions are here, because the manager, the
laboratory's light Pi and the tests speak both. `encode()` gives the whole message, newlines included.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

VERSION = 2
MAX_LINE = 4096  # bytes without the newline
MAX_COMMAND_LINES = 16
_END = "EOM"

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_TEXT = re.compile(r"[!-~]{1,128}")
_NUMBER = re.compile(r"[0-9]{1,18}")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_HASH = re.compile(r"[0-9a-f]{64}")
_STEP = re.compile(r"[a-z0-9_-]{1,32}")
_DATE_1 = re.compile(r"busybox date -s ([0-9]{12}\.[0-9]{2})")


class PacketError(ValueError):
    """A line that has the word of a message but not its form, or that is longer than a line may be."""


class Card(StrEnum):
    """What an installer without an installed image found in the slot."""

    BLANK = "blank"  # no Linux file system: ours to take
    PIMAN = "piman"  # partitioned by us, an install that was never finished
    FOREIGN = "foreign"  # somebody's Linux
    NONE = "none"  # no card


class Word(StrEnum):
    """The messages that are a word alone. Version 1 writes some of them with blanks for underscores."""

    HELLO_WORLD = "Hello_World"
    MAKING_NODES = "MAKING_NODES"
    MADE_NODES = "MADE_NODES"
    CHECKING_IF_INSTALLED = "CHECKING_IF_INSTALLED"
    RECEIVED_DATE = "RECEIVED_DATE"
    SET_DATE = "SET_DATE"
    RECEIVED_FORMAT = "RECEIVED_FORMAT"
    RECEIVED_REINSTALL = "RECEIVED_REINSTALL"
    RECEIVED_BOOT = "RECEIVED_BOOT"
    FORMATTING = "FORMATTING"
    FORMATTED = "FORMATTED"
    FINISHED_FORMATTING = "FINISHED_FORMATTING"
    MOUNTING = "MOUNTING"
    FINISHED_MOUNTING = "FINISHED_MOUNTING"
    UNMOUNTING = "UNMOUNTING"
    FINISHED_UNMOUNTING = "FINISHED_UNMOUNTING"


_WORDS: Mapping[str, Word] = {str(word): word for word in Word}


def text_value(text: str) -> str:
    """Any text as a value that may stand after `key=`: blanks become `_`, what is not printable ASCII goes."""
    return re.sub(r"[^!-~]", "", re.sub(r"\s+", "_", text.strip()))[:128]


def readable(text: str, limit: int = 200) -> str:
    """A stranger's text for a log or a screen: printable ASCII on one line, at most `limit` characters."""
    return re.sub(r"[^ -~]+", " ", text).strip()[:limit].strip()


# --- values: a table of kinds -----------------------------------------------------------------------------------------


def _matching(pattern: re.Pattern[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not pattern.fullmatch(text):
            raise PacketError(f"{readable(text, 60)!r} is not {pattern.pattern}")
        return text

    return read


_name, _number, _mac = _matching(_NAME), _matching(_NUMBER), _matching(_MAC)

# Whoever reads an empty value takes the field's default: `order=` and no order= are the same.
_KINDS: Mapping[str, Callable[[str], object]] = {
    "name": _name,
    "text": _matching(_TEXT),
    "number": lambda text: int(_number(text)),
    "mac": lambda text: _mac(text).lower(),
    "hash": _matching(_HASH),
    "card": lambda text: Card(text) if text in Card._value2member_map_ else _unknown_card(text),
}


def _unknown_card(text: str) -> Card:
    raise PacketError(f"card={readable(text, 60)} is none of {', '.join(Card)}")


class _Keyed:
    """A message `WORD key=value ...`; `keys` names each field's kind. Keys of a later version are passed over."""

    __slots__ = ()
    keys: ClassVar[Mapping[str, str]] = {}

    def _pairs(self) -> str:
        values = ((key, getattr(self, key)) for key in self.keys)
        words = [f"{key}={value}" for key, value in values if value not in ("", None)]
        line = " ".join(words)
        self._read(words)  # what we send must be what we would take
        return line

    @classmethod
    def _read(cls, words: list[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for word in words:
            key, equals, value = word.partition("=")
            if not equals:
                raise PacketError(f"{readable(word, 60)!r} is not key=value")
            if key in found:
                raise PacketError(f"{key}= is there twice")
            if key in cls.keys and value:
                found[key] = _KINDS[cls.keys[key]](value)
        for each in fields(cls):  # type: ignore[arg-type]  # its subclasses are dataclasses
            if each.name in cls.keys and each.default is MISSING and each.name not in found:
                raise PacketError(f"{each.name}= is missing")
        return found


# --- what a Pi says ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello(_Keyed):
    """The first line of version 2 and later: who the Pi is. `sd` is the card's size in bytes, 0 without a card."""

    mac: str
    serial: str = ""
    model: str = ""
    sd: int = 0
    version: int = VERSION
    keys: ClassVar[Mapping[str, str]] = {"mac": "mac", "serial": "text", "model": "text", "sd": "number"}

    def encode(self) -> bytes:
        return f"HELLO {self.version} {self._pairs()}\n".encode()

    @classmethod
    def parse(cls, rest: str) -> Hello:
        version, *words = rest.split() or [""]
        if not _NUMBER.fullmatch(version) or int(version) < 2:
            raise PacketError("HELLO without a version of 2 or more")
        return cls(**cls._read(words), version=int(version))


@dataclass(frozen=True, slots=True)
class Said:
    """A word of progress with nothing beside it."""

    word: Word

    def encode(self) -> bytes:
        return f"{self.word.replace('_', ' ') if self.word is Word.HELLO_WORLD else self.word}\n".encode()


@dataclass(frozen=True, slots=True)
class IsInstalled(_Keyed):
    """The card holds an install that was finished; both fields are the marker file's (version 1 has neither)."""

    image: str = ""
    order: str = ""
    keys: ClassVar[Mapping[str, str]] = {"image": "name", "order": "name"}

    def encode(self) -> bytes:
        return f"IS_INSTALLED {self._pairs()}".rstrip().encode() + b"\n"

    @classmethod
    def parse(cls, rest: str) -> IsInstalled:
        return cls(**cls._read(rest.split()))


@dataclass(frozen=True, slots=True)
class IsUninstalled(_Keyed):
    """The card holds no finished install. Version 1 cannot tell what it holds: `card` is None."""

    card: Card | None = None
    keys: ClassVar[Mapping[str, str]] = {"card": "card"}

    def encode(self) -> bytes:
        return f"IS_UNINSTALLED {self._pairs()}".rstrip().encode() + b"\n"

    @classmethod
    def parse(cls, rest: str) -> IsUninstalled:
        return cls(**cls._read(rest.split()))


@dataclass(frozen=True, slots=True)
class IsFormatted(_Keyed):
    """The install is finished and on the card; fields as in IsInstalled."""

    image: str = ""
    order: str = ""
    keys: ClassVar[Mapping[str, str]] = {"image": "name", "order": "name"}

    def encode(self) -> bytes:
        return f"IS_FORMATTED {self._pairs()}".rstrip().encode() + b"\n"

    @classmethod
    def parse(cls, rest: str) -> IsFormatted:
        return cls(**cls._read(rest.split()))


@dataclass(frozen=True, slots=True)
class ImageOk(_Keyed):
    """All of the image was unpacked, and this is the SHA-256 that the Pi computed over it."""

    sha256: str
    keys: ClassVar[Mapping[str, str]] = {"sha256": "hash"}

    def encode(self) -> bytes:
        return f"IMAGE_OK {self._pairs()}\n".encode()

    @classmethod
    def parse(cls, rest: str) -> ImageOk:
        return cls(**cls._read(rest.split()))


@dataclass(frozen=True, slots=True)
class Progress:
    """Bytes of the image (as it is sent: compressed) that the Pi has put to work so far."""

    written: int

    def encode(self) -> bytes:
        return f"PROGRESS {self.written}\n".encode()

    @classmethod
    def parse(cls, rest: str) -> Progress:
        return cls(int(_number(rest.strip())))


@dataclass(frozen=True, slots=True)
class Error:
    """The Pi gave up at `step` (card, format, image, hash, unpack, mount) for the reason in `text`."""

    step: str
    text: str = ""

    def encode(self) -> bytes:
        return f"ERROR {self.step} {readable(self.text)}".rstrip().encode() + b"\n"

    @classmethod
    def parse(cls, rest: str) -> Error:
        step, _, text = rest.strip().partition(" ")
        if not _STEP.fullmatch(step):
            raise PacketError("ERROR without a step")
        return cls(step, readable(text))


@dataclass(frozen=True, slots=True)
class Unknown:
    """A line that is no message: shell trace, a tool's output. `size` is the line's length in bytes."""

    text: str
    size: int


Message = Hello | Said | IsInstalled | IsUninstalled | IsFormatted | ImageOk | Progress | Error | Unknown

_MESSAGES: Mapping[str, Callable[[str], Message]] = {
    "HELLO": Hello.parse,
    "IS_INSTALLED": IsInstalled.parse,
    "IS_UNINSTALLED": IsUninstalled.parse,
    "IS_FORMATTED": IsFormatted.parse,
    "IMAGE_OK": ImageOk.parse,
    "PROGRESS": Progress.parse,
    "ERROR": Error.parse,
}


def parse_line(line: bytes) -> Message:
    """One line of a Pi, without its newline. Unknown text is `Unknown`; PacketError: a message's word, wrongly used."""
    text = line.decode("ascii", "replace").strip()
    known = _WORDS.get(text.replace(" ", "_"))
    if known is not None:
        return Said(known)
    word, _, rest = text.partition(" ")
    parse = _MESSAGES.get(word)
    return parse(rest) if parse else Unknown(readable(text), len(line))


# --- what the manager says --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetDate:
    """Set the clock: UTC, whole seconds."""

    when: datetime

    def encode(self, version: int = VERSION) -> bytes:
        when = self.when.astimezone(UTC)
        year = f"{when.year:04}"  # %Y has no zeros ahead with every C library
        if version >= 2:
            return _command(f"date {year}{when:-%m-%d %H:%M:%S}")
        return _command(f"busybox date -s {year}{when:%m%d%H%M.%S}")

    @classmethod
    def parse(cls, rest: str, form: str = "%Y-%m-%d %H:%M:%S") -> SetDate:
        try:
            return cls(datetime.strptime(rest, form).replace(tzinfo=UTC))
        except ValueError as error:
            raise PacketError(f"{readable(rest, 60)!r} is no date") from error


@dataclass(frozen=True, slots=True)
class Format(_Keyed):
    """Format the card and take this image from the image port. Version 1 takes it without knowing what it is."""

    image: str
    size: int
    sha256: str
    port: int
    order: str = ""
    keys: ClassVar[Mapping[str, str]] = {
        "image": "name",
        "size": "number",
        "sha256": "hash",
        "port": "number",
        "order": "name",
    }

    def encode(self, version: int = VERSION) -> bytes:
        return _command(f"format {self._pairs()}" if version >= 2 else "format")

    @classmethod
    def parse(cls, rest: str) -> Format:
        return cls(**cls._read(rest.split()))


@dataclass(frozen=True, slots=True)
class Boot:
    """Boot what is on the card."""

    def encode(self, _version: int = VERSION) -> bytes:
        return _command("boot")


@dataclass(frozen=True, slots=True)
class Refuse:
    """Show the reason, wait, start over. Version 1 has no such command: the manager only closes."""

    reason: str

    def encode(self, version: int = VERSION) -> bytes:
        return _command(f"refuse {readable(self.reason)}".rstrip()) if version >= 2 else b""


Command = SetDate | Format | Boot | Refuse | Unknown


def _command(text: str) -> bytes:
    return f"{text}\n{_END}\n".encode()


def parse_command(text: str) -> Command:
    """A command without its EOM line, of either version. Version 1's bare `format` is Unknown: it names no image."""
    word, _, rest = text.strip().partition(" ")
    if word == "boot" and not rest:
        return Boot()
    if word == "date":
        return SetDate.parse(rest)
    if word == "format" and rest:
        return Format.parse(rest)
    if word == "refuse":
        return Refuse(readable(rest))
    old = _DATE_1.fullmatch(text.strip())
    return SetDate.parse(old[1], "%Y%m%d%H%M.%S") if old else Unknown(readable(text), len(text))


# --- the streams ------------------------------------------------------------------------------------------------------


class LineReader:
    """Bytes of a connection -> whole lines without their newline, none longer than MAX_LINE."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes. PacketError: a line is too long; the connection is of no more use."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest
        if max(map(len, (*lines, rest))) > MAX_LINE:
            raise PacketError(f"a line of more than {MAX_LINE} bytes")
        return lines


class CommandReader:
    """Bytes of a connection -> commands; the Pi's side of `encode`."""

    def __init__(self) -> None:
        self._reader = LineReader()
        self._lines: list[str] = []

    def feed(self, data: bytes) -> list[Command]:
        """The commands that `data` completes; PacketError for one that is malformed or endless."""
        commands = []
        for line in self._reader.feed(data):
            text = line.decode("ascii", "replace").strip()
            if text == _END:
                command = "\n".join(self._lines)
                self._lines.clear()
                commands.append(parse_command(command))
            else:
                self._lines.append(text)
                if len(self._lines) > MAX_COMMAND_LINES:
                    raise PacketError(f"a command of more than {MAX_COMMAND_LINES} lines")
        return commands


# --- the image --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Image:
    """A root file system to install. `id` is what marker files and the board call it; inode and mtime tell whether
    the file at `path` is still the one that was hashed (0: not known)."""

    id: str
    path: Path
    size: int  # bytes
    sha256: str  # lower-case hex
    inode: int = 0
    mtime_ns: int = 0
