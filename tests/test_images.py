"""images: tarballs and card images become images, what is none is refused in words, and choosing is one stroke."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import socket
import struct
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tcp.image import ImageFile
from tests.test_ext4 import debugfs, mke2fs
from utility import images
from utility.images import FSTAB, Additions, ImportFailedError, folder_of, import_image, stored_images, use_image

KEY = "ssh-ed25519 AAAA somebody"
AGENT = (b"the agent", b"its unit")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """What config.yaml names."""
    (tmp_path / "boot").mkdir()
    return tmp_path / "boot" / "rootfs.tgz"


def tarball(path: Path, *names: str, pack: Callable[[bytes], bytes] = gzip.compress) -> Path:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size, entry.uid, entry.mode = len(name), 1000, 0o4755
            archive.addfile(entry, io.BytesIO(name.encode()))
    path.write_bytes(pack(made.getvalue()))
    return path


def file_system(folder: Path) -> bytes:
    """A root file system with what needs care, as ext4."""
    root = folder / "root"
    for name in ("etc/systemd/system/multi-user.target.wants", "sbin", "usr/lib"):
        (root / name).mkdir(parents=True)
    (root / "etc" / "fstab").write_text("PARTUUID=1234-01 /boot/firmware vfat defaults 0 2\n")
    (root / "sbin" / "init").write_bytes(b"\x7fELF" * 300_000)
    (root / "sbin" / "init").chmod(0o4755)
    (root / "sbin" / "twin").hardlink_to(root / "sbin" / "init")
    (root / "lib").symlink_to("usr/lib")
    (root / ".piman").write_text("image=of-another-pi\n")
    (root / "etc/systemd/system/multi-user.target.wants/ssh.service").symlink_to("/lib/systemd/system/ssh.service")
    (root / os.fsdecode(b"usr/lib/\xff")).write_text("no UTF-8")
    os.mkfifo(root / "usr" / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(root / "usr" / "socket"))
    path = mke2fs(root, folder / "fs", "-t", "ext4", size="4M")
    debugfs(path, "mknod console c 5 1")
    for field in ("uid 70001", "gid 70002"):
        debugfs(path, f"sif /etc/fstab {field}")
        debugfs(path, f"sif /sbin/init {field}")
    return path.read_bytes()


def card(system: bytes, *, kind: int = 0x83) -> bytes:
    """As Raspberry Pi OS has it: a FAT, then the root file system."""
    start = 2048
    head = bytearray(start * 512)
    head[446:462] = struct.pack("<4xB3xII", 0x0C, 64, 1000)
    head[462:478] = struct.pack("<4xB3xII", kind, start, len(system) // 512)
    head[510:512] = b"\x55\xaa"
    return bytes(head) + system


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return file_system(tmp_path_factory.mktemp("system"))


PACKERS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("{}", bytes),
    ("{}.xz", lzma.compress),
    ("{}.gz", gzip.compress),
    ("{}.bz2", bz2.compress),
]


@pytest.mark.parametrize(("name", "pack"), PACKERS)
def test_a_tarball_however_it_is_packed(image: Path, tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    source = tarball(tmp_path / name.format("my own+root.tar"), "./etc", "./sbin/init", pack=pack)
    told: list[str] = []
    made = import_image(source, image, progress=lambda what, _bytes: told.append(what))
    assert (made.name, made.path, made.in_use) == ("my-own-root", folder_of(image) / "my-own-root.tgz", False)
    assert {"packing", "checking"} == set(told)
    with tarfile.open(made.path, "r:gz") as archive:
        (init,) = (each for each in archive if each.name == "./sbin/init")
        assert (init.uid, init.mode) == (1000, 0o4755)
    assert made.path.stat().st_mode & 0o777 == 0o644
    assert import_image(source, image, "again").path.read_bytes() == made.path.read_bytes()  # so it has one id


@pytest.mark.parametrize(("name", "pack"), PACKERS[:2])
def test_a_card_image(image: Path, tmp_path: Path, system: bytes, name: str, pack: Callable[[bytes], bytes]) -> None:
    source = tmp_path / name.format("2024-raspios-lite.img")
    source.write_bytes(pack(card(system)))
    made = import_image(source, image, additions=Additions(f"{KEY}\n", AGENT))
    assert made.name == "2024-raspios-lite"
    with tarfile.open(made.path, "r:gz") as archive:
        found = {each.name: each for each in archive}
        assert len(found) == len(archive.getmembers())  # nothing twice
        init, twin = found["sbin/init"], found["sbin/twin"]
        assert (init.mode, init.uid, init.gid, init.size) == (0o4755, 70001, 70002, 1_200_000)
        assert (twin.type, twin.linkname) == (tarfile.LNKTYPE, "sbin/init")
        assert (found["lib"].type, found["lib"].linkname) == (tarfile.SYMTYPE, "usr/lib")
        assert found[os.fsdecode(b"usr/lib/\xff")].size == 8
        assert found["usr/pipe"].type == tarfile.FIFOTYPE
        assert (found["console"].type, found["console"].devmajor, found["console"].devminor) == (tarfile.CHRTYPE, 5, 1)
        assert not found.keys() & {"usr/socket", "lost+found", ".piman", ""}
        fstab, keys = archive.extractfile("etc/fstab"), archive.extractfile("root/.ssh/authorized_keys")
        assert fstab is not None
        assert keys is not None
        assert (fstab.read().decode(), keys.read().decode()) == (FSTAB, f"{KEY}\n")
        modes = {name: found[name].mode for name in ("etc/fstab", "root/.ssh", "root/.ssh/authorized_keys")}
        assert list(modes.values()) == [0o644, 0o700, 0o600]
        assert found["etc/systemd/system/multi-user.target.wants/ssh.service"].issym()
        wanted = found["etc/systemd/system/multi-user.target.wants/piman-agent.service"]
        assert wanted.linkname == "/etc/systemd/system/piman-agent.service"
        agent = archive.extractfile("opt/piman/monitoring_server.py"), archive.extractfile(wanted.linkname[1:])
        assert tuple(file.read() for file in agent if file) == AGENT


def test_tar_unpacks_what_we_packed(image: Path, tmp_path: Path, system: bytes) -> None:
    """The installer's tar is busybox's."""
    (tmp_path / "bare.img").write_bytes(system)
    made = import_image(tmp_path / "bare.img", image, additions=Additions(KEY, AGENT))
    out = tmp_path / "out"
    out.mkdir()
    # Not the device: in a user namespace nobody may make one.
    words = ["busybox", "tar", "-xzf", str(made.path), "-C", str(out), "etc", "root", "sbin", "lib", "usr"]
    subprocess.run(words, check=True)
    assert (out / "sbin" / "twin").read_bytes() == b"\x7fELF" * 300_000
    assert (out / "etc/systemd/system/multi-user.target.wants/ssh.service").is_symlink()
    assert (out / "root" / ".ssh" / "authorized_keys").read_text() == f"{KEY}\n"


def test_a_link_in_place_of_what_was_there(image: Path, tmp_path: Path) -> None:
    source = tarball(tmp_path / "source.tar", "./sbin/init", "./etc/name", pack=bytes)
    with tarfile.open(source, "a") as archive:
        link = tarfile.TarInfo("etc/name")
        link.type, link.linkname = tarfile.SYMTYPE, "other"
        archive.addfile(link)
    with pytest.raises(ImportFailedError, match="it holds etc/name twice, and the second is a link"):
        import_image(source, image)


def test_what_cannot_be_imported(image: Path, tmp_path: Path, system: bytes) -> None:
    def refused(data: bytes, text: str, name: str = "", ssh_key: str = "") -> None:
        (tmp_path / "thing.img").write_bytes(data)
        with pytest.raises(ImportFailedError, match=text):
            import_image(tmp_path / "thing.img", image, name, Additions(ssh_key))
        assert list(folder_of(image).iterdir()) == []

    whole = tarball(tmp_path / "whole", "sbin/init", *(f"file{number}" for number in range(3000))).read_bytes()
    refused(b"text", "neither a tarball nor an image of a card")
    refused(b"PK\x03\x04", "unpack it first")
    refused(whole[:9000], "damaged or not complete")
    refused(lzma.compress(card(system))[:-100], "damaged or not complete")
    refused(tarball(tmp_path / "bare", "rootfs/sbin/init").read_bytes(), "no /sbin/init")
    refused(whole, "--ssh-key is for card images", ssh_key=KEY)
    refused(whole, "no name for an image", name="../../etc/x")
    refused(whole, "no name for an image", name="x" * 61)
    refused(card(system, kind=0xEE), "GPT")
    refused(card(system, kind=0x07), "no ext4 file system")
    refused(card(bytes(10_000)), "no ext4 file system")
    refused(card(system[:2_000_000]), "cannot be read: the file ends")
    with pytest.raises(FileNotFoundError):
        import_image(tmp_path / "none", image)


def test_a_file_system_that_is_damaged(
    image: Path, tmp_path: Path, system: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(request: str, text: str) -> None:
        path = tmp_path / "card.img"
        path.write_bytes(system)
        debugfs(path, request)
        with pytest.raises(ImportFailedError, match=text):
            import_image(path, image)

    refused("link /usr /usr/lib/inside", "/usr/lib/inside is inside itself")
    refused("sif /sbin/init mode 0", "/sbin/init: inode [0-9]+ is damaged")
    monkeypatch.setattr(images, "LONGEST_FILE", 1_000_000)
    refused("sif /etc mtime 0", "/sbin/init has 1200000 bytes: the file system is damaged")


def test_folders_without_end(image: Path, tmp_path: Path) -> None:
    Path(tmp_path, "root", *"d" * 600).mkdir(parents=True)
    path = mke2fs(tmp_path / "root", tmp_path / "deep.img", "-t", "ext4", "-N", "1000", size="8M")
    with pytest.raises(ImportFailedError, match="folders in folders without end"):
        import_image(path, image)


def test_choosing(image: Path, tmp_path: Path) -> None:
    assert stored_images(image) == []
    with pytest.raises(ImportFailedError, match=r"there is no image 'a': import one"):
        use_image(image, "a")
    image.write_bytes(tarball(tmp_path / "hand", "./sbin/init", "by hand").read_bytes())
    os.utime(image, (1_700_000_000, 1_700_000_000))
    for name in ("bookworm", "bookworm-lite", "trixie"):
        import_image(tarball(tmp_path / "source", "./sbin/init", name), image, name)
    assert [(each.name, each.in_use) for each in stored_images(image)] == [
        ("rootfs", True), ("bookworm", False), ("bookworm-lite", False), ("trixie", False),
    ]  # fmt: skip
    served = ImageFile(image, tmp_path)
    before = served.load()
    assert use_image(image, "rootfs").in_use
    assert image.is_file()
    assert not image.is_symlink()
    with pytest.raises(ImportFailedError, match="more than one image is called so: bookworm, bookworm-lite"):
        use_image(image, "book")
    assert use_image(image, "tri").name == "trixie"
    assert served.load().id.startswith("trixie-")
    assert not image.readlink().is_absolute()
    kept = stored_images(image)
    assert [(each.name, each.in_use) for each in kept] == [
        ("bookworm", False), ("bookworm-lite", False), ("rootfs-2023-11-14", False), ("trixie", True),
    ]  # fmt: skip
    assert use_image(image, "bookworm").name == "bookworm"  # a whole name, though another begins so
    assert use_image(image, "rootfs").name == "rootfs-2023-11-14"
    assert served.load().sha256 == before.sha256
    with pytest.raises(ImportFailedError, match="there is an image trixie already"):
        import_image(tmp_path / "source", image, "trixie")


def test_a_second_image_by_hand_on_one_day(image: Path, tmp_path: Path) -> None:
    import_image(tarball(tmp_path / "source", "./sbin/init"), image, "one")
    for text in (b"first", b"second"):
        image.unlink(missing_ok=True)
        image.write_bytes(text)
        os.utime(image, (1_700_000_000, 1_700_000_000))
        use_image(image, "one")
    kept = {each.name: each.path.read_bytes() for each in stored_images(image) if each.name != "one"}
    assert kept == {"rootfs-2023-11-14": b"first", "rootfs-2023-11-14.2": b"second"}
