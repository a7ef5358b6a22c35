"""From a requested name to the bytes to serve: prefixes, refusals, rendered files. Opens files; knows no socket.

Which folder. A Pi asks for `<serial>/start4.elf` (or `<MAC>/...`, TFTP_PREFIX=2), and where its first probe is not
found it empties the prefix and asks for everything again in the root. So:

1. If the boot folder has a folder of that serial or MAC, all that is asked below the prefix comes from there, and what
   is not there is not found: the folder is the Pi's own world, and its fallback to the root works as documented.
2. Else the prefix is dropped and the root is served at once. The Pi keeps its prefix, and is spared the probes.

A rendered name (cmdline.txt, config.txt) is rendered with and without a prefix, unless the Pi's own folder holds a file
of that name: somebody put it there on purpose.

No trick leads out of the boot folder: each component is opened below the one before it with O_NOFOLLOW; symbolic links
are followed by hand, and only as far as they stay inside.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tftp.packet import ErrorCode
from utility.hosts import Host

LONGEST_NAME = 255
MOST_LINKS = 8

_PLAIN = re.compile(r"[ -\[\]-~]+")  # printable ASCII without the backslash
_SERIAL = re.compile(r"[0-9a-fA-F]{1,8}")
_MAC = re.compile(r"[0-9a-fA-F]{2}(?:-[0-9a-fA-F]{2}){5}")

# Files by which a Pi would rewrite its own EEPROM. One left over in the boot folder would flash the whole rack.
_FLASHING = re.compile(r"(?:pieeprom\.|vl805\.).*|recovery.*\.bin", re.IGNORECASE)

# What healthy Pis ask for and nearly nobody has (found in logs of the boards' boots). Not start4.elf, not kernel8.img:
# where those are missing somebody should hear of it.
_EXPECTED_MISSING = re.compile(
    r"bootsig\.bin|autoboot\.txt|recovery\.elf|recover4\.elf|dt-blob\.bin|bootcfg\.txt|recovery.*\.img|armstub.*\.bin"
    r"|kernel(?:7|7l|8-32|_2712)?\.img|fixup4rc\.dat|tryboot\.txt"
)

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # O_NONBLOCK: a FIFO must not hold the thread


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a name is not served. `quiet`: a healthy boot asks for it too, nobody needs to hear of it."""

    code: ErrorCode
    reason: str
    quiet: bool = False


class Content(Protocol):
    """What is served under a name. `identity` names exactly these bytes, None where they are nobody else's."""

    name: str
    size: int
    identity: Hashable

    def read(self, offset: int, length: int) -> bytes:
        """The bytes there; fewer only at the end; OSError, also where the file is not what it was."""

    def close(self) -> None: ...


class Rendered:
    """A text made for one Pi."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        self.size = len(data)
        self.identity: Hashable = None
        self._data = data

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]

    def close(self) -> None:
        """Nothing is held."""


class OpenFile:
    """A file as it was when it was opened; one that is replaced by a rename meanwhile is still read to its end.

    One that is written in place is neither the old nor the new: reading it raises.
    """

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self._descriptor = descriptor
        status = os.fstat(descriptor)
        self.size = status.st_size
        self.identity: Hashable = _identity(status)

    def read(self, offset: int, length: int) -> bytes:
        data = os.pread(self._descriptor, length, offset)
        # A read that stops before the end has met a file that shrank, which changed its time stamp too.
        if _identity(os.fstat(self._descriptor)) != self.identity:
            raise OSError(errno.ESTALE, "the file changed while it was read")
        return data

    def close(self) -> None:
        os.close(self._descriptor)


class BootFiles:
    """The boot folder. `render(name, host)` gives the text of a name (without prefix) for a Pi, or None: from disk.

    It may raise OSError and ValueError.
    """

    def __init__(self, boot_dir: Path, render: Callable[[str, Host | None], bytes | None]) -> None:
        self.boot_dir = boot_dir
        self._render = render

    def open(self, requested: str, host: Host | None) -> Content | Refusal:
        """What to serve for a name of the wire, or why not. The caller closes the content. Never raises for a name."""
        parts = normalise(requested)
        if isinstance(parts, Refusal):
            return parts
        base = parts[-1]
        if _FLASHING.fullmatch(base):
            return Refusal(ErrorCode.FILE_NOT_FOUND, "files that flash the EEPROM are not served", quiet=True)
        try:
            return self._find(parts, host)
        except OSError as error:
            return _refusal(error, base)
        except ValueError as error:  # UnicodeDecodeError: a template that is no UTF-8
            return Refusal(ErrorCode.NOT_DEFINED, f"cannot be filled in: {error}"[:200])

    def _find(self, parts: list[str], host: Host | None) -> Content:
        own = None
        rest = parts
        if len(parts) > 1 and (_SERIAL.fullmatch(parts[0]) or _MAC.fullmatch(parts[0])):
            rest = parts[1:]
            own = next((folder for folder in _spellings(parts[0]) if self._is_folder(folder)), None)
        name = "/".join(rest)
        if own:
            with suppress(FileNotFoundError):
                return self._open_file([own, *rest], name)
        text = self._render(name, host)
        if text is not None:
            return Rendered(name, text)
        if own:
            raise FileNotFoundError(errno.ENOENT, "not in the Pi's own folder")
        return self._open_file(rest, name)

    def _is_folder(self, name: str) -> bool:
        try:
            descriptor = self._walk([name])
        except OSError:
            return False
        try:
            return stat.S_ISDIR(os.fstat(descriptor).st_mode)
        finally:
            os.close(descriptor)

    def _open_file(self, parts: list[str], name: str) -> OpenFile:
        descriptor = self._walk(parts)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise IsADirectoryError(errno.EISDIR, "not a regular file")
        return OpenFile(name, descriptor)

    def _walk(self, parts: list[str]) -> int:
        """Open the boot folder's file or folder of that path; the descriptor is the caller's. OSError."""
        folders = [os.open(self.boot_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
        todo = parts[::-1]
        links = 0
        try:
            while True:
                part = todo.pop()
                if part == "..":  # only a link's target has these
                    os.close(folders.pop())
                    if not folders:
                        raise PermissionError(errno.EACCES, "the link leaves the boot folder")
                    if not todo:
                        todo = ["."]
                    continue
                try:
                    descriptor = os.open(part, _FOLDER if todo else _FILE, dir_fd=folders[-1])
                except OSError as error:
                    if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                        raise
                    links += 1
                    todo += self._link(part, folders[-1], error, links)
                    continue
                if not todo:
                    return descriptor
                folders.append(descriptor)
        finally:
            for folder in folders:
                os.close(folder)

    @staticmethod
    def _link(part: str, folder: int, error: OSError, links: int) -> list[str]:
        """The components of a link's target, last one first; `error` if it is no link at all."""
        try:
            target = os.readlink(part, dir_fd=folder)
        except OSError:
            raise error from None
        if target.startswith("/"):
            raise PermissionError(errno.EACCES, "the link leaves the boot folder")
        if links > MOST_LINKS:
            raise PermissionError(errno.EACCES, "too many links")
        return [each for each in reversed(target.split("/")) if each not in ("", ".")] or ["."]


def normalise(requested: str) -> list[str] | Refusal:
    """The components of a name of the wire. `//`, a leading `/` and `./` mean nothing: a Pi 5 asks `<serial>//name`."""
    if len(requested) > LONGEST_NAME:
        return Refusal(ErrorCode.ACCESS_VIOLATION, "the name is too long")
    if requested and not _PLAIN.fullmatch(requested):
        return Refusal(ErrorCode.ACCESS_VIOLATION, "the name has characters that are not allowed")
    parts = [part for part in requested.split("/") if part not in ("", ".")]
    if not parts:
        return Refusal(ErrorCode.ACCESS_VIOLATION, "the name is empty")
    if ".." in parts:
        return Refusal(ErrorCode.ACCESS_VIOLATION, "the name leaves the boot folder")
    return parts


def _refusal(error: OSError, base: str) -> Refusal:
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return Refusal(ErrorCode.FILE_NOT_FOUND, "file not found", _EXPECTED_MISSING.fullmatch(base) is not None)
        case IsADirectoryError():
            return Refusal(ErrorCode.FILE_NOT_FOUND, "not a regular file")
        case PermissionError():
            return Refusal(ErrorCode.ACCESS_VIOLATION, error.strerror or "access denied")
    return Refusal(ErrorCode.NOT_DEFINED, error.strerror or "the file cannot be read")


def _spellings(prefix: str) -> Iterator[str]:
    """How a folder for this prefix may be called. A serial is a number: boards pad it to 8 digits, people may not."""
    yield prefix
    if _SERIAL.fullmatch(prefix):
        serial = int(prefix, 16)
        yield from (f"{serial:08x}", f"{serial:x}", f"{serial:08X}")
    else:
        yield from (prefix.lower(), prefix.upper())


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
