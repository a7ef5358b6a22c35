"""Reads an ext4 file system inside a file: names, owners, modes, contents. Writes and mounts nothing, needs no root.

Layout: kernel.org, "ext4 Data Structures and Algorithms". Everything in it is little-endian. What a file system may
have that is not understood here is refused by name, before the first file: a half-read system is worse than none.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

MAGIC = 0xEF53
MAGIC_AT = 1024 + 0x38  # in the file system
ROOT = 2  # its inode

# s_feature_incompat
_JOURNAL_TO_REPLAY, _SIXTY_FOUR_BIT = 0x4, 0x80
_UNDERSTOOD = 0x2 | 0x40 | _SIXTY_FOUR_BIT | 0x100 | 0x200 | 0x2000 | 0x4000
_REFUSED = {
    0x1: "compression", 0x8: "an external journal", 0x10: "meta block groups", 0x400: "large attributes",
    0x1000: "data in directories", 0x8000: "inline data", 0x10000: "encryption", 0x20000: "case folding",
}  # fmt: skip

_EXTENTS_FLAG = 0x80000
_EXTENT_MAGIC = 0xF30A
_EXTENT_HEADER, _LEAF, _INDEX = struct.Struct("<HHHH4x"), struct.Struct("<IHHI"), struct.Struct("<IIH2x")
_HIGHEST = 5  # level of a tree of extents
_UNWRITTEN = 0x8000  # an extent longer than this was reserved, and reads as zeros
_ENTRY = struct.Struct("<IHBB")
_INODE = struct.Struct("<HHIIIIIHHIII60sIII8x4s4x")
_CHUNK = 1 << 20
_FARTHEST = 1 << 60
_LONGEST_FOLDER = 1 << 24  # a quarter of a million names


class Ext4Error(ValueError):
    """What is there is no ext4 file system that can be read; `str()` says why."""


@dataclass(frozen=True, slots=True)
class Inode:
    """A file, folder, link or device. `mode` has its kind in it, as in stat(2); `pointers` are its 60 bytes of map."""

    number: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    links: int
    flags: int
    pointers: bytes

    @property
    def device(self) -> tuple[int, int]:
        """Major and minor number of a device: in the first word as Linux 2.4 had them, else in the second."""
        old, new = struct.unpack_from("<II", self.pointers)
        if old:
            return old >> 8 & 0xFF, old & 0xFF
        return new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00


class Ext4:
    """A file system that begins at `offset` of a file, which is the caller's. One thread. Ext4Error, OSError."""

    def __init__(self, file: BinaryIO, offset: int = 0) -> None:
        self._file, self._offset = file, offset
        block = self._read(1024, 1024)
        if struct.unpack_from("<H", block, 0x38)[0] != MAGIC:
            raise Ext4Error("there is no ext4 file system")
        self._check(struct.unpack_from("<I", block, 0x60)[0])
        self.inodes, self._first_block, size = (struct.unpack_from("<I", block, at)[0] for at in (0x0, 0x14, 0x18))
        self._per_group: int = struct.unpack_from("<I", block, 0x28)[0]
        self._inode_size: int = struct.unpack_from("<H", block, 0x58)[0]
        wide = struct.unpack_from("<I", block, 0x60)[0] & _SIXTY_FOUR_BIT
        self._descriptor_size: int = struct.unpack_from("<H", block, 0xFE)[0] if wide else 32
        if size > 6 or not self._per_group or self._inode_size < 128 or self._descriptor_size < 32:
            raise Ext4Error("the superblock is damaged")
        self.block_size: int = 1024 << size

    @staticmethod
    def _check(features: int) -> None:
        if features & _JOURNAL_TO_REPLAY:
            raise Ext4Error("it was not unmounted; mount it once, or run e2fsck on it")
        unknown = features & ~_UNDERSTOOD
        if unknown:
            names = [name for bit, name in _REFUSED.items() if unknown & bit]
            raise Ext4Error(f"it has what cannot be read here: {', '.join(names) or f'features {unknown:#x}'}")

    def _read(self, at: int, length: int) -> bytes:
        """So many bytes of the file system, all of them."""
        data = b""
        if at <= _FARTHEST:  # farther than any file is long, where seek has an error of its own
            self._file.seek(self._offset + at)
            data = self._file.read(length)
        if len(data) != length:
            raise Ext4Error("the file ends before its file system does")
        return data

    def _block(self, number: int) -> bytes:
        return self._read(number * self.block_size, self.block_size)

    def inode(self, number: int) -> Inode:
        if not 1 <= number <= self.inodes:
            raise Ext4Error(f"there is no inode {number}")
        group, index = divmod(number - 1, self._per_group)
        at = (self._first_block + 1) * self.block_size + group * self._descriptor_size
        descriptor = self._read(at, self._descriptor_size)
        table: int = struct.unpack_from("<I", descriptor, 0x8)[0]
        if self._descriptor_size >= 64:
            table |= struct.unpack_from("<I", descriptor, 0x28)[0] << 32
        fields = _INODE.unpack_from(self._read(table * self.block_size + index * self._inode_size, 128))
        mode, uid, size, _, _, mtime, _, gid, links, _, flags, _, pointers, _, _, size_high, high = fields
        uid_high, gid_high = struct.unpack("<HH", high)
        if mode & 0xF000 != 0x4000:  # of a folder those bits once meant something else
            size |= size_high << 32
        return Inode(number, mode, uid | uid_high << 16, gid | gid_high << 16, size, mtime, links, flags, pointers)

    def content(self, inode: Inode) -> Iterator[bytes]:
        """The bytes of a file, a folder or a long link, in pieces; holes are zeros."""
        at = 0
        for first, length, start in self._extents(inode.pointers, inode):
            position = first * self.block_size
            if position < at:
                raise Ext4Error(f"inode {inode.number}: its extents overlap")
            yield from _zeros(min(position, inode.size) - at)
            at = max(at, min(position, inode.size))
            for piece in self._pieces(start, min(length * self.block_size, inode.size - at)):
                yield piece
                at += len(piece)
        yield from _zeros(inode.size - at)

    def _pieces(self, start: int | None, length: int) -> Iterator[bytes]:
        if start is None:
            yield from _zeros(length)
            return
        for done in range(0, length, _CHUNK):
            yield self._read(start * self.block_size + done, min(_CHUNK, length - done))

    def _extents(self, node: bytes, inode: Inode, above: int | None = None) -> Iterator[tuple[int, int, int | None]]:
        """First block in the file, number of blocks, first block on the disk (None: zeros), in the file's order.

        above   the level of the node that led here; a node is one level below it, so no circle is without end
        """
        if not inode.flags & _EXTENTS_FLAG:
            raise Ext4Error(f"inode {inode.number} has an old block map; copy its file system to a new ext4")
        magic, entries, _most, level = _EXTENT_HEADER.unpack_from(node)
        is_wrong = level > _HIGHEST if above is None else level != above - 1 or not entries
        if magic != _EXTENT_MAGIC or is_wrong or entries > len(node) // 12 - 1:
            raise Ext4Error(f"inode {inode.number}: its map is damaged")
        for at in range(12, 12 + 12 * entries, 12):
            if level:
                _, low, high = _INDEX.unpack_from(node, at)
                yield from self._extents(self._block(high << 32 | low), inode, level)
                continue
            first, length, high, low = _LEAF.unpack_from(node, at)
            if not length:
                raise Ext4Error(f"inode {inode.number}: its map is damaged")
            if length > _UNWRITTEN:
                yield first, length - _UNWRITTEN, None
            else:
                yield first, length, high << 32 | low

    def entries(self, inode: Inode) -> Iterator[tuple[bytes, int]]:
        """Name and inode of all that is in a folder, but for itself and the one it is in."""
        if inode.size > _LONGEST_FOLDER:
            raise Ext4Error(f"the folder with inode {inode.number} is damaged")
        # A folder with an index can be read from end to end like one without: that is how it stays compatible.
        data = b"".join(self.content(inode))
        at = 0
        while at + 8 <= len(data):
            number, length, name_length, _kind = _ENTRY.unpack_from(data, at)
            if length < 8 or at + length > len(data) or name_length + 8 > length:
                raise Ext4Error(f"the folder with inode {inode.number} is damaged")
            name = data[at + 8 : at + 8 + name_length]
            if number and name not in (b".", b".."):
                if b"/" in name or b"\0" in name or not name:
                    raise Ext4Error(f"the folder with inode {inode.number} has a name that is none")
                yield name, number
            at += length

    def target(self, inode: Inode) -> bytes:
        """Where a symbolic link leads; a short one is in the inode itself."""
        if inode.size < len(inode.pointers) and not inode.flags & _EXTENTS_FLAG:
            return inode.pointers[: inode.size]
        if inode.size > 4096:
            raise Ext4Error(f"inode {inode.number}: a link that is longer than any name")
        return b"".join(self.content(inode))


def _zeros(length: int) -> Iterator[bytes]:
    while length > 0:
        yield bytes(min(length, _CHUNK))
        length -= _CHUNK
