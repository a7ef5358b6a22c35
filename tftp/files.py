"""From a requested name to the bytes to serve: prefixes, refusals, rendered files. Opens files; knows no socket.

A Pi asks for `<serial>/start4.elf` (or `<MAC>/...`, TFTP_PREFIX=2), and where its first probe is not found it empties
the prefix and asks for everything again in the root. The prefix is taken off, and a list of finders is asked, the first
hit wins:

1. The folder of that serial or MAC in the boot folder. A file in it beats a rendered one: somebody put it there on
   purpose.
2. The folder named like the host, found by the address that asks.
3. What is rendered for each Pi (cmdline.txt, config.txt).
4. If the folder of 1 is there, the search ends: it is the Pi's own world, and the Pi's fallback to the root works as
   documented. The folder of 2 is no such world, as the Pi does not know of it and could not fall back.
5. The boot folder of the image that the Pi is to run.
6. The boot folder. So a Pi without a folder keeps its prefix, and is spared its probes.

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

# What a Pi fetches with TFTP, where it is large. A root file system that lies beside it goes another way.
_FETCHED = re.compile(r"(?:kernel|initramfs|initrd|start|bootcode|boot\.(?:img|sig)|armstub|u-boot).*")

LONGEST_CONFIG = 4096  # bytes of config.txt that an EEPROM boot loader reads over the network
MOST_BLOCKS = 65535  # boot loaders before September 2025 do not count on from there
_BLOCK_SIZES = {512: "a Pi 3", 1024: "a Pi 4 or 5 before October 2022", 1468: "a Pi 4 or 5 before September 2025"}

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


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request: the name's parts without the prefix, who asks, and the prefix's folder, "" if there is none."""

    parts: list[str]
    host: Host | None
    own: str = ""

    @property
    def name(self) -> str:
        return "/".join(self.parts)


Finder = Callable[[Wanted], Content | None]
"""The content; None: ask the next one. OSError ends the search, FileNotFoundError too."""


def _no_image(_host: Host | None) -> Path | None:
    return None


def _never(_host: Host | None) -> bool:
    return False


class BootFiles:
    """The boot folder and what goes before it: see the module's text. `finders` is the order.

    render(name, host)      the text of a name (without prefix) for a Pi, or None; may raise OSError and ValueError
    image_boot(host)        the boot folder of the image that a Pi is to run, or None
    firmware_updates(host)  whether a Pi may have the files by which it rewrites its EEPROM
    """

    def __init__(
        self,
        boot_dir: Path,
        render: Callable[[str, Host | None], bytes | None],
        image_boot: Callable[[Host | None], Path | None] = _no_image,
        firmware_updates: Callable[[Host | None], bool] = _never,
    ) -> None:
        self.boot_dir = boot_dir
        self._render = render
        self._image_boot = image_boot
        self._firmware_updates = firmware_updates
        self.finders: tuple[Finder, ...] = (
            self._in_own_folder,
            self._in_hostname_folder,
            self._rendered,
            self._end_of_own_folder,
            self._in_image,
            self._in_boot_folder,
        )

    def open(self, requested: str, host: Host | None) -> Content | Refusal:
        """What to serve for a name of the wire, or why not. The caller closes the content. Never raises for a name."""
        parts = normalise(requested)
        if isinstance(parts, Refusal):
            return parts
        base = parts[-1]
        if flashes(base) and not self._firmware_updates(host):
            return Refusal(ErrorCode.FILE_NOT_FOUND, "files that flash the EEPROM are not served", quiet=True)
        try:
            return self._find(parts, host)
        except OSError as error:
            return _refusal(error, base)
        except ValueError as error:  # UnicodeDecodeError: a template that is no UTF-8
            return Refusal(ErrorCode.NOT_DEFINED, f"cannot be filled in: {error}"[:200])

    def _find(self, parts: list[str], host: Host | None) -> Content:
        wanted = Wanted(parts, host)
        if len(parts) > 1 and (_SERIAL.fullmatch(parts[0]) or _MAC.fullmatch(parts[0])):
            wanted = Wanted(parts[1:], host, next(filter(self._is_folder, _spellings(parts[0])), ""))
        for finder in self.finders:
            content = finder(wanted)
            if content is not None:
                return content
        raise FileNotFoundError(errno.ENOENT, "nobody has it")

    def _in_own_folder(self, wanted: Wanted) -> Content | None:
        return self._try(self.boot_dir, [wanted.own, *wanted.parts], wanted) if wanted.own else None

    def _in_hostname_folder(self, wanted: Wanted) -> Content | None:
        if wanted.host is None or not wanted.host.hostname:
            return None
        for folder in dict.fromkeys((wanted.host.hostname, wanted.host.hostname.lower())):
            content = self._try(self.boot_dir, [folder, *wanted.parts], wanted)
            if content is not None:
                return content
        return None

    def _rendered(self, wanted: Wanted) -> Content | None:
        text = self._render(wanted.name, wanted.host)
        return None if text is None else Rendered(wanted.name, text)

    @staticmethod
    def _end_of_own_folder(wanted: Wanted) -> Content | None:
        if wanted.own:
            raise FileNotFoundError(errno.ENOENT, "not in the Pi's own folder")
        return None

    def _in_image(self, wanted: Wanted) -> Content | None:
        folder = self._image_boot(wanted.host)
        return None if folder is None else self._try(folder, wanted.parts, wanted)

    def _in_boot_folder(self, wanted: Wanted) -> Content | None:
        return self._try(self.boot_dir, wanted.parts, wanted)

    def _try(self, root: Path, parts: list[str], wanted: Wanted) -> OpenFile | None:
        """The regular file at that path below a root; None if there is nothing; OSError."""
        try:
            descriptor = self._walk(root, parts)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise IsADirectoryError(errno.EISDIR, "not a regular file")
        return OpenFile(wanted.name, descriptor)

    def _is_folder(self, name: str) -> bool:
        try:
            descriptor = self._walk(self.boot_dir, [name])
        except OSError:
            return False
        try:
            return stat.S_ISDIR(os.fstat(descriptor).st_mode)
        finally:
            os.close(descriptor)

    def _walk(self, root: Path, parts: list[str]) -> int:
        """Open the file or folder of that path below a root; the descriptor is the caller's. OSError."""
        folders = [os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
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


def flashes(base: str) -> bool:
    """Whether a Pi that gets a file of this name rewrites its EEPROM."""
    return _FLASHING.fullmatch(base) is not None


def concerns(name: str, size: int, blksize: int, counts_on: bool) -> list[str]:
    """What may go wrong with a file that is served well, because of what boot loaders can do.

    `counts_on`: the client is known to go on after block 65535; one that asks for a window is newer than that limit.
    """
    found = []
    if name.rpartition("/")[2] == "config.txt" and size > LONGEST_CONFIG:
        found.append(f"{name} has {size} bytes; over the network Pis read only the first {LONGEST_CONFIG}")
    blocks = size // blksize + 1
    if not counts_on and blocks > MOST_BLOCKS:
        found.append(
            f"{name} takes {blocks} blocks of {blksize} bytes; boot loaders before September 2025 stop at 65535"
        )
    return found


def problems_of(boot_dir: Path) -> list[str]:
    """What is wrong with the files of a boot folder and its folders for Pis: too long, not readable, or dangerous."""
    problems = []
    folders = [boot_dir]
    with suppress(OSError):
        folders += sorted(each for each in boot_dir.iterdir() if each.is_dir() and each.name != "overlays")
    for folder in folders:
        try:
            files = sorted(each for each in folder.iterdir() if each.is_file())
        except OSError as error:
            problems.append(f"{folder}: {error.strerror}")
            continue
        for path in files:
            problems += [f"{path}: {text}" for text in _problems_of_file(path)]
    return problems


def _problems_of_file(path: Path) -> Iterator[str]:
    size = path.stat().st_size
    if not os.access(path, os.R_OK):
        yield "cannot be read"
    if path.name == "config.txt" and size > LONGEST_CONFIG:
        yield f"has {size} bytes; over the network Pis read only the first {LONGEST_CONFIG}"
    if flashes(path.name):
        yield "would flash the EEPROM of a Pi; it is served only to those for which that is allowed"
    too_long = [boards for blksize, boards in _BLOCK_SIZES.items() if size // blksize + 1 > MOST_BLOCKS]
    if too_long and _FETCHED.fullmatch(path.name):
        yield f"has {size} bytes, more than {' or '.join(too_long)} can fetch"


def _refusal(error: OSError, base: str) -> Refusal:
    match error:
        case FileNotFoundError():
            quiet = flashes(base) or _EXPECTED_MISSING.fullmatch(base) is not None
            return Refusal(ErrorCode.FILE_NOT_FOUND, "file not found", quiet)
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
