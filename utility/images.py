"""The root file systems that can be installed: a folder of .tgz, one of them in use. Made of tarballs and card images.

The folder is `images` beside the image that config.yaml names; that one is a link into the folder, so that choosing
another is one rename, and a Pi that is being installed meanwhile goes on with the one that it began with. Must hold no
protocol, and unpacks nothing on this machine: owners, modes and devices go from file system to archive as they are.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import re
import stat
import struct
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from utility.ext4 import MAGIC, MAGIC_AT, ROOT, Ext4, Ext4Error, Inode

SUFFIX = ".tgz"
LONGEST_FILE = 1 << 36  # of one file in a card image, holes included; more is damage
LONGEST_NAME = 60
_CHUNK = 1 << 20
_LINUX, _GPT = 0x83, 0xEE  # partition types
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ENDING = re.compile(r"(\.(tgz|tar|img|raw|iso|gz|xz|bz2))+$", re.IGNORECASE)
_SSH_SERVICE = "etc/systemd/system/multi-user.target.wants/ssh.service"
_AGENT, _AGENT_SERVICE = "opt/piman/monitoring_server.py", "etc/systemd/system/piman-agent.service"
_AGENT_WANTED = "etc/systemd/system/multi-user.target.wants/piman-agent.service"
_NOT_OF_THE_SYSTEM = ("lost+found", ".piman")  # the second says what the card was installed with
_INIT = frozenset({"sbin/init", "usr/sbin/init"})
# What a system from a card says of disks that our card does not have. Ours has one file system, of this label.
FSTAB = (
    "# Written by Piman: the card that it formats has this one file system.\nLABEL=rootfs / ext4 defaults,noatime 0 1\n"
)

Progress = Callable[[str, int], None]  # what is done, and bytes of it so far


class ImportFailedError(Exception):
    """A file cannot become an image, or an image cannot be chosen; `str()` says why, and what to do."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A root file system that can be chosen. `when` is the Unix time of its file."""

    name: str
    path: Path
    size: int
    when: float
    in_use: bool


@dataclass(frozen=True, slots=True)
class Additions:
    """What a system from a card image gets beside its own files.

    ssh_key   a public key that may log in as root; empty: none
    agent     the node agent and its systemd unit; None: without
    """

    ssh_key: str = ""
    agent: tuple[bytes, bytes] | None = None

    @property
    def files(self) -> dict[str, bytes]:
        """Path -> content."""
        files = {"etc/fstab": FSTAB.encode()}
        if self.ssh_key:
            files["root/.ssh/authorized_keys"] = self.ssh_key.strip().encode() + b"\n"
        if self.agent:
            files[_AGENT], files[_AGENT_SERVICE] = self.agent
        return files

    @property
    def links(self) -> dict[str, str]:
        """Path -> target: the services that are enabled."""
        links = {_SSH_SERVICE: "/lib/systemd/system/ssh.service"} if self.ssh_key else {}
        return links | ({_AGENT_WANTED: f"/{_AGENT_SERVICE}"} if self.agent else {})


NOTHING = Additions()


def agent_files() -> tuple[bytes, bytes]:
    """The node agent and its unit."""
    home = Path(__file__).resolve().parents[1]
    agent = home / "monitoring" / "monitoring_server.py"
    return agent.read_bytes(), (home / "install" / "rootfs" / "piman-agent.service").read_bytes()


def check_public_key(text: str) -> str:
    """The line of a public key; ImportFailedError: a private one must not get into an image."""
    text = text.strip()
    if not text.startswith(("ssh-", "ecdsa-", "sk-")) or "\n" in text:
        raise ImportFailedError("that is no public key of ssh; give the line of the file that ends in .pub")
    return text


def folder_of(image: Path) -> Path:
    """Where the images are, from which `image` (of config.yaml) is chosen."""
    return image.parent / "images"


def stored_images(image: Path) -> list[StoredImage]:
    """By name. An image that was put in place by hand is the first, under its own name, until another is chosen."""
    used = image.resolve()
    folder = folder_of(image)
    paths = sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: path.stem)
    if image.is_file() and used not in [path.resolve() for path in paths]:
        paths.insert(0, image)
    found = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # it went meanwhile
            status = path.stat()
            name = path.name.removesuffix(SUFFIX)
            found.append(StoredImage(name, path, status.st_size, status.st_mtime, path.resolve() == used))
    return found


def use_image(image: Path, name: str) -> StoredImage:
    """Let `image` be the stored one of that name (or the only one whose name begins so), at one stroke.

    A file that was put in its place by hand is kept in the folder. ImportFailedError, OSError.
    """
    stored = stored_images(image)
    fitting = [each for each in stored if each.name == name] or [each for each in stored if each.name.startswith(name)]
    if len(fitting) != 1:
        names = ", ".join(each.name for each in (fitting or stored))
        what = "more than one image is called so" if fitting else f"there is no image {name!r}"
        raise ImportFailedError(f"{what}: {names or 'import one with `piman image import FILE`'}")
    (chosen,) = fitting
    if chosen.in_use:
        return chosen
    if image.is_file() and not image.is_symlink():
        made = time.strftime("%Y-%m-%d", time.localtime(image.stat().st_mtime))
        os.link(image, _free_path(folder_of(image), f"{image.name.removesuffix(SUFFIX)}-{made}"))
    link = image.with_name(f".{image.name}.new")
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(chosen.path, image.parent))
    link.replace(image)
    return next(each for each in stored_images(image) if each.in_use)


def _free_path(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    path, number = folder / f"{name}{SUFFIX}", 2
    while path.exists():
        path, number = folder / f"{name}.{number}{SUFFIX}", number + 1
    return path


# ---------------------------------------------------------------------------------------------------------- importing


def import_image(
    source: Path,
    image: Path,
    name: str = "",
    additions: Additions = NOTHING,
    progress: Progress = lambda _what, _bytes: None,
) -> StoredImage:
    """Make an image of a tarball of a root file system, or of a card image (.img), each packed by gzip, xz or bzip2.

    name       of the new image; else it is made of the file's
    additions  for what comes from a card image; a tarball is taken as it is
    progress   told now and then

    What is there until the end is a file with another ending. ImportFailedError, OSError.
    """
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", _ENDING.sub("", source.name)).strip("-._")[:LONGEST_NAME]
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise ImportFailedError(f"{name!r} is no name for an image; give --name, of letters, digits, . _ and -")
    folder = folder_of(image)
    path = folder / f"{name}{SUFFIX}"
    if path.exists():
        raise ImportFailedError(f"there is an image {name} already; give another --name, or remove {path}")
    folder.mkdir(parents=True, exist_ok=True)
    with _new_file(path, progress) as made, _unpacked(source) as data:
        head = data.peek(2048)[:2048]
        if head[257:262] == b"ustar":
            if additions.ssh_key:
                raise ImportFailedError("--ssh-key is for card images; a tarball is taken as it is")
            _copy_tar(data, made, progress)
        elif head[510:512] == b"\x55\xaa" or _is_ext4(head):
            with _seekable(data, source, folder, progress) as card:
                _pack(Ext4(card, root_partition(card)), made, additions, progress)
        else:
            raise ImportFailedError(f"{source.name} is neither a tarball nor an image of a card")
    return next(each for each in stored_images(image) if each.path == path)


@contextlib.contextmanager
def _new_file(path: Path, progress: Progress) -> Iterator[BinaryIO]:
    """A file that takes its name when it is whole, looked through, and on the disk; else there is an error in words."""
    new = path.with_name(f".{path.name}.new")
    try:
        with new.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)
            if os.geteuid() == 0:  # with sudo: it belongs to whom the folder belongs to
                owner = path.parent.stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        _check_image(new, progress)
        new.replace(path)
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, tarfile.TarError) as error:
        raise ImportFailedError(f"the file is damaged or not complete: {error}") from error
    except RecursionError:
        raise ImportFailedError("the root file system has folders in folders without end") from None
    except Ext4Error as error:
        raise ImportFailedError(f"the root file system cannot be read: {error}") from error
    finally:
        new.unlink(missing_ok=True)


@contextlib.contextmanager
def _unpacked(source: Path) -> Iterator[io.BufferedReader]:
    """The bytes of a file, whatever it was packed with; what it is called does not count."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(source.open("rb"))
        magic = file.peek(6)
        if magic.startswith((b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"7z")):
            raise ImportFailedError(f"{source.name}: unpack it first (unzstd, unzip or 7z), and import what is in it")
        stream: IO[bytes] = file
        for start, opener in ((b"\x1f\x8b", gzip.open), (b"\xfd7zXZ\0", lzma.open), (b"BZh", bz2.open)):
            if magic.startswith(start):
                stream = stack.enter_context(cast(IO[bytes], opener(file)))
        yield stack.enter_context(io.BufferedReader(cast(io.RawIOBase, stream), _CHUNK))


def _copy_tar(data: io.BufferedReader, made: BinaryIO, progress: Progress) -> None:
    done = 0
    with gzip.GzipFile(filename="", mode="wb", fileobj=made, compresslevel=6, mtime=0) as packed:
        while piece := data.read(_CHUNK):
            packed.write(piece)
            done += len(piece)
            progress("packing", done)


@contextlib.contextmanager
def _seekable(data: io.BufferedReader, source: Path, folder: Path, progress: Progress) -> Iterator[BinaryIO]:
    """The card image as a file in which one can go back and forth: itself, or unpacked for a while."""
    if isinstance(data.raw, io.BufferedReader):  # it was not packed
        with source.open("rb") as file:
            yield file
        return
    with tempfile.TemporaryFile(dir=folder) as unpacked:
        done = 0
        while piece := data.read(_CHUNK):
            if piece.count(0) == len(piece):
                unpacked.seek(len(piece), os.SEEK_CUR)  # a hole costs no disk
            else:
                unpacked.write(piece)
            done += len(piece)
            progress("unpacking", done)
        unpacked.truncate(done)
        yield cast(BinaryIO, unpacked)


def _is_ext4(head: bytes) -> bool:
    return head[MAGIC_AT : MAGIC_AT + 2] == MAGIC.to_bytes(2, "little")


def root_partition(card: BinaryIO) -> int:
    """Where on the card its root file system begins: the last Linux partition with an ext4, or all of it."""
    card.seek(0)
    head = card.read(2048)
    if _is_ext4(head):
        return 0
    entries: list[tuple[int, int]] = [struct.unpack_from("<4xB3xI", head, 446 + 16 * number) for number in range(4)]
    if any(kind == _GPT for kind, _first in entries):
        raise ImportFailedError("the card has a GPT; only the partition table of Raspberry Pi OS (MBR) is understood")
    for kind, first in reversed(entries):
        card.seek(512 * first)
        if kind == _LINUX and _is_ext4(card.read(2048)):
            return 512 * first
    raise ImportFailedError("the card has no ext4 file system, so it is no image of Raspberry Pi OS")


# ------------------------------------------------------------------------------------------- file system to archive


def _pack(system: Ext4, made: BinaryIO, additions: Additions, progress: Progress) -> None:
    """Write the whole file system as a .tar.gz, with what has to differ on a card of ours."""
    files, links = additions.files, additions.links
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=made, compresslevel=6, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive,
    ):
        packer = _Packer(system, archive, frozenset((*files, *links)), progress)
        packer.folder(system.inode(ROOT), "")
        for name, data in files.items():
            _add_folders(archive, packer.folders, name)
            _add(archive, name, data)
        for name, target in links.items():
            _add_folders(archive, packer.folders, name)
            _add_link(archive, name, target)


def _add_folders(archive: tarfile.TarFile, folders: set[str], name: str) -> None:
    """The folders above a name, where the file system did not have them."""
    parts = name.split("/")[:-1]
    for end in range(1, len(parts) + 1):
        above = "/".join(parts[:end])
        if above not in folders:
            folders.add(above)
            entry = tarfile.TarInfo(above)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o700 if parts[end - 1] == ".ssh" else 0o755
            archive.addfile(entry)


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o600 if ".ssh/" in name else 0o644
    archive.addfile(entry, io.BytesIO(data))


def _add_link(archive: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    archive.addfile(entry)


class _Packer:
    """Walks a file system and adds each thing to an archive. `folders`: those that it met."""

    def __init__(self, system: Ext4, archive: tarfile.TarFile, left_out: frozenset[str], progress: Progress) -> None:
        self._system, self._archive, self._left_out, self._progress = system, archive, left_out, progress
        self._first_names: dict[int, str] = {}  # of files with more than one
        self._inside: set[int] = set()  # the folders above: a circle must end
        self._done = 0
        self.folders: set[str] = set()

    def folder(self, inode: Inode, path: str) -> None:
        if inode.number in self._inside:
            raise Ext4Error(f"/{path} is inside itself")
        self._inside.add(inode.number)
        for raw, number in sorted(self._system.entries(inode)):
            name = f"{path}/{raw.decode('utf-8', 'surrogateescape')}".lstrip("/")
            if name in _NOT_OF_THE_SYSTEM or name in self._left_out:
                continue
            self._thing(self._system.inode(number), name)
        self._inside.remove(inode.number)

    def _thing(self, inode: Inode, name: str) -> None:
        entry = tarfile.TarInfo(name)
        entry.mode, entry.uid, entry.gid, entry.mtime = inode.mode & 0o7777, inode.uid, inode.gid, inode.mtime
        if inode.number in self._first_names:
            entry.type, entry.linkname = tarfile.LNKTYPE, self._first_names[inode.number]
            self._archive.addfile(entry)
            return
        if inode.links > 1 and not stat.S_ISDIR(inode.mode):
            self._first_names[inode.number] = name
        match stat.S_IFMT(inode.mode):
            case stat.S_IFDIR:
                entry.type = tarfile.DIRTYPE
                self._archive.addfile(entry)
                self.folders.add(name)
                self.folder(inode, name)
            case stat.S_IFREG:
                self._file(inode, entry)
            case stat.S_IFLNK:
                entry.type, entry.linkname = (
                    tarfile.SYMTYPE,
                    self._system.target(inode).decode("utf-8", "surrogateescape"),
                )
                self._archive.addfile(entry)
            case stat.S_IFCHR | stat.S_IFBLK | stat.S_IFIFO as kind:
                entry.type = {stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE}.get(kind, tarfile.FIFOTYPE)
                entry.devmajor, entry.devminor = inode.device
                self._archive.addfile(entry)
            case stat.S_IFSOCK:
                return  # whoever listens at it makes it anew
            case _:
                raise Ext4Error(f"/{name}: inode {inode.number} is damaged")

    def _file(self, inode: Inode, entry: tarfile.TarInfo) -> None:
        if inode.size > LONGEST_FILE:
            raise Ext4Error(f"/{entry.name} has {inode.size} bytes: the file system is damaged")
        entry.size = inode.size
        self._archive.addfile(entry, cast(IO[bytes], _Pieces(self._system.content(inode))))
        self._done += inode.size
        self._progress("packing", self._done)


class _Pieces:
    """An iterator of pieces, to be read as tarfile reads a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._data, self._at = pieces, b"", 0

    def read(self, length: int) -> bytes:
        while len(self._data) - self._at < length and (piece := next(self._pieces, b"")):
            self._data, self._at = self._data[self._at :] + piece, 0
        self._at += length
        return self._data[self._at - length : self._at]


def _check_image(path: Path, progress: Progress) -> None:
    """Read what was made from end to end: a Pi erases its card before it finds out what is wrong."""
    names: set[str] = set()
    with gzip.open(path) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as archive:
        for member in archive:
            name = member.name.removeprefix("./").lstrip("/")
            if name in names and (member.issym() or member.islnk()):
                text = f"it holds {name} twice, and the second is a link"
                raise ImportFailedError(f"{text}: the installer's tar cannot do that; pack the file system anew")
            names.add(name)
            progress("checking", member.offset_data)
    if names.isdisjoint(_INIT):
        text = "it holds no /sbin/init, so it is no root file system; pack `/` itself: tar -C ROOT -czf FILE ."
        raise ImportFailedError(text)
