"""ext4: what mke2fs wrote is read as it was, in all its layouts; a damaged file system is an error, never a loop."""

from __future__ import annotations

import io
import itertools
import os
import random
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from utility.ext4 import ROOT, Ext4, Ext4Error

HOLES = 400  # extents of a file: in blocks of 1 KB the tree that holds them has three levels


def make_tree(root: Path) -> None:
    """One of each kind of thing."""
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "empty").touch()
    (root / "file").write_bytes(random.Random(1).randbytes(3_000_001))
    (root / "file").chmod(0o4751)
    os.utime(root / "file", (7, 1_700_000_000))
    (root / "sub" / "twin").hardlink_to(root / "file")
    (root / "sub" / "short").symlink_to("../file")
    (root / "sub" / "long").symlink_to("x" * 100)
    os.mkfifo(root / "sub" / "pipe")
    many = root / "many"
    many.mkdir()
    for number in range(500):
        (many / f"a rather long name, so that the folder has an index, {number}").write_text(str(number))
    with (root / "holes").open("wb") as file:
        for number in range(HOLES):
            file.seek(8192 * number)
            file.write(bytes([number & 255 or 1]) * 4096)
        file.truncate(8192 * HOLES + 5)


def mke2fs(folder: Path, image: Path, *words: str, size: str = "16M") -> Path:
    environment = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    subprocess.run(["mke2fs", "-q", "-d", str(folder), *words, str(image), size], check=True, env=environment)
    return image


def debugfs(image: Path, request: str) -> None:
    environment = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    subprocess.run(["debugfs", "-w", "-R", request, str(image)], check=True, env=environment, capture_output=True)


def walk(system: Ext4, number: int = ROOT, path: str = "") -> Iterator[tuple[str, int]]:
    for name, inner in sorted(system.entries(system.inode(number))):
        below = f"{path}/{os.fsdecode(name)}".lstrip("/")
        yield below, inner
        if stat.S_ISDIR(system.inode(inner).mode) and name != b"lost+found":
            yield from walk(system, inner, below)


def content(system: Ext4, number: int) -> bytes:
    return b"".join(system.content(system.inode(number)))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    make_tree(root)
    return root


@pytest.mark.parametrize(
    "words",
    [
        ("-t", "ext4"),
        ("-t", "ext4", "-b", "1024"),
        ("-t", "ext4", "-b", "4096", "-O", "^64bit,^metadata_csum,^has_journal"),
        ("-t", "ext4", "-I", "128", "-O", "^flex_bg"),
        ("-t", "ext4", "-O", "metadata_csum_seed,large_dir,sparse_super2"),
    ],
)
def test_what_was_written_is_read(tree: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    image = mke2fs(tree, tmp_path / "image", *words)
    card = tmp_path / "card"
    card.write_bytes(b"\xff" * 5120 + image.read_bytes())
    with card.open("rb") as file:
        system = Ext4(file, 5120)
        found = dict(walk(system))
        expected = {str(path.relative_to(tree)): path for path in tree.rglob("*")}
        assert found.keys() - {"lost+found"} == expected.keys()
        for name, path in expected.items():
            inode, status = system.inode(found[name]), path.lstat()
            assert (inode.mode, inode.uid, inode.gid) == (status.st_mode, status.st_uid, status.st_gid), name
            assert inode.mtime == int(status.st_mtime)
            if path.is_symlink():
                assert os.fsdecode(system.target(inode)) == str(path.readlink())
            elif path.is_file():
                assert (inode.size, inode.links) == (status.st_size, status.st_nlink)
                assert content(system, found[name]) == path.read_bytes(), name
        assert found["file"] == found["sub/twin"]


def test_owners_and_devices(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("x")
    image = mke2fs(tmp_path / "tree", tmp_path / "image", "-t", "ext4", size="1M")
    for request in ("mknod null c 1 3", "mknod disk b 8 300", "sif file uid 70001", "sif file gid 70002"):
        debugfs(image, request)
    with image.open("rb") as file:
        system = Ext4(file)
        found = {name: system.inode(number) for name, number in walk(system)}
    assert found["null"].device == (1, 3)
    assert found["disk"].device == (8, 300)
    assert (found["file"].uid, found["file"].gid) == (70001, 70002)


def test_blocks_that_were_reserved_and_never_written_are_zeros(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"a" * 1500)
    image = mke2fs(tmp_path / "tree", tmp_path / "image", "-t", "ext4", "-b", "1024", size="1M")
    debugfs(image, "fallocate file 2 9")
    debugfs(image, "sif file size 8000")
    with image.open("rb") as file:
        system = Ext4(file)
        assert content(system, dict(walk(system))["file"]) == b"a" * 1500 + bytes(6500)


def test_ext3_and_what_else_is_not_understood(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"a" * 5000)
    old = mke2fs(tmp_path / "tree", tmp_path / "ext3", "-t", "ext3", size="2M")
    with old.open("rb") as file, pytest.raises(Ext4Error, match="old block map"):
        list(walk(Ext4(file)))
    inline = mke2fs(tmp_path / "tree", tmp_path / "inline", "-t", "ext4", "-O", "inline_data", size="1M")
    with inline.open("rb") as file, pytest.raises(Ext4Error, match="cannot be read here: inline data"):
        Ext4(file)


@pytest.mark.parametrize(
    ("at", "value", "text"),
    [
        (0x38, b"\0\0", "no ext4 file system"),
        (0x60, b"\x46\x02\0\0", "was not unmounted"),
        (0x60, b"\0\0\0\x40", "features 0x40000000"),
        (0x18, b"\x07", "superblock is damaged"),
    ],
)
def test_a_superblock(tmp_path: Path, at: int, value: bytes, text: str) -> None:
    (tmp_path / "tree").mkdir()
    image = mke2fs(tmp_path / "tree", tmp_path / "image", "-t", "ext4", size="1M")
    data = bytearray(image.read_bytes())
    data[1024 + at : 1024 + at + len(value)] = value
    with pytest.raises(Ext4Error, match=text):
        Ext4(io.BytesIO(data))
    with pytest.raises(Ext4Error, match="ends before"):
        Ext4(io.BytesIO(data[:1500]))


def small_file_system(folder: Path) -> bytes:
    """256 KB: a folder, a file with holes in a tree of extents, a long link."""
    (folder / "tree" / "sub").mkdir(parents=True)
    (folder / "tree" / "sub" / "long").symlink_to("x" * 100)
    with (folder / "tree" / "holes").open("wb") as file:
        for number in range(8):
            file.seek(2048 * number)
            file.write(b"y" * 1024)
    words = ("-t", "ext4", "-b", "1024", "-N", "16", "-O", "^has_journal,^resize_inode")
    return mke2fs(folder / "tree", folder / "image", *words, size="256k").read_bytes()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return small_file_system(tmp_path_factory.mktemp("small"))


def place_of(small: bytes, name: str) -> int:
    """Where in the file an inode is."""
    number = dict(walk(Ext4(io.BytesIO(small))))[name]
    size, table = struct.unpack_from("<H", small, 1024 + 0x58)[0], struct.unpack_from("<I", small, 2048 + 8)[0]
    return int(table * 1024 + (number - 1) * size)


@pytest.mark.parametrize(
    ("name", "at", "value", "text"),
    [
        ("holes", 0x28, b"\0\0", "map is damaged"),  # magic
        ("holes", 0x28 + 6, b"\x09", "map is damaged"),  # level
        ("holes", 0x28 + 2, b"\x09", "map is damaged"),  # number of entries
        ("holes", 0x28 + 12 + 4, b"\x02", "map is damaged"),  # a leaf that is none
        ("sub/long", 0x28 + 12 + 4, b"\0", "map is damaged"),  # an extent of no blocks
        ("sub/long", 0x04, b"\0\0\1", "longer than any name"),
        ("sub", 0x28 + 12 + 8, b"\x00\xff\xff\xff", "ends before"),
        ("sub", 0x04, b"\0\0\0\x02", "folder with inode [0-9]+ is damaged"),
    ],
)
def test_an_inode_that_is_damaged(small: bytes, name: str, at: int, value: bytes, text: str) -> None:
    data = bytearray(small)
    place = place_of(small, name) + at
    data[place : place + len(value)] = value
    with pytest.raises(Ext4Error, match=text):
        read_all(bytes(data))


def test_extents_that_overlap_and_names_that_are_none(small: bytes) -> None:
    data = bytearray(small)
    leaf = struct.unpack_from("<I", data, place_of(small, "holes") + 0x28 + 12 + 4)[0] * 1024
    struct.pack_into("<I", data, leaf + 12 + 12, 0)  # the second extent begins where the first does
    with pytest.raises(Ext4Error, match="overlap"):
        read_all(bytes(data))
    for old, new, text in (
        (b"holes", b"ho/es", "a name that is none"),
        (b"\x05\x01holes", b"\xff\x01holes", "is damaged"),
        (b"holes", b"h\0les", "a name that is none"),
    ):
        with pytest.raises(Ext4Error, match=text):
            read_all(small.replace(old, new))
    far = bytearray(small)
    struct.pack_into("<I", far, 2048 + 0x28, 0xFFFFFFFF)  # the upper half of where the inodes are
    with pytest.raises(Ext4Error, match="ends before"):
        read_all(bytes(far))
    with pytest.raises(Ext4Error, match="no inode 0"):
        Ext4(io.BytesIO(small)).inode(0)


def read_all(data: bytes) -> int:
    """Everything that is in it, with an end to what a damaged size would make endless."""
    system = Ext4(io.BytesIO(data))
    count = 0
    for _name, number in itertools.islice(walk(system), 50):
        inode = system.inode(number)
        if stat.S_ISLNK(inode.mode):
            count += len(system.target(inode))
        else:
            count += sum(map(len, itertools.islice(system.content(inode), 50)))
    return count


def test_the_small_one_is_sound(small: bytes) -> None:
    assert read_all(small) > 15_000


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    patches=st.lists(st.tuples(st.integers(0, 60 * 1024), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6)
)
def test_damage_anywhere_is_read_or_refused(small: bytes, patches: list[tuple[int, bytes]]) -> None:
    data = bytearray(small)
    for at, patch in patches:
        data[at : at + len(patch)] = patch
    try:
        read_all(bytes(data))
    except (Ext4Error, RecursionError):
        return
