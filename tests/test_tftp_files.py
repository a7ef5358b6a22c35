"""The boot folder: which file a name gives, and every trick by which a name could leave the folder."""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tftp.files import BootFiles, Content, Refusal, Rendered, concerns, normalise, problems_of
from tftp.packet import ErrorCode
from utility.hosts import Host

PI = Host("b8:27:eb:00:00:01", IPv4Address("172.30.4.13"), "pi1")


@pytest.fixture
def boot(tmp_path: Path) -> Path:
    folder = tmp_path / "boot"
    (folder / "overlays").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (folder / "start4.elf").write_text("root start4")
    (folder / "overlays" / "a.dtbo").write_text("overlay")
    (folder / "cmdline.txt").write_text("a template")
    (folder / "pieeprom.upd").write_text("flash")
    return folder


def render(name: str, host: Host | None) -> bytes | None:
    return f"for {host.name if host else 'nobody'}".encode() if name == "cmdline.txt" else None


def fetch(boot: Path, name: str, host: Host | None = PI) -> str:
    content = BootFiles(boot, render).open(name, host)
    assert not isinstance(content, Refusal), content
    try:
        return content.read(0, content.size + 1).decode()
    finally:
        content.close()


def refusal(boot: Path, name: str) -> Refusal:
    answer = BootFiles(boot, render).open(name, PI)
    assert isinstance(answer, Refusal)
    return answer


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("start4.elf", "root start4"),
        ("/start4.elf", "root start4"),
        ("./start4.elf", "root start4"),
        ("//.//start4.elf", "root start4"),
        ("overlays/a.dtbo", "overlay"),
        ("overlays//a.dtbo", "overlay"),
        ("deadbeef/start4.elf", "root start4"),
        ("DEADBEEF//overlays/a.dtbo", "overlay"),
        ("dc-a6-32-01-36-c2/start4.elf", "root start4"),
        ("cmdline.txt", "for pi1"),
        ("deadbeef//cmdline.txt", "for pi1"),
        ("dc-a6-32-01-36-c2/cmdline.txt", "for pi1"),
    ],
)
def test_names_that_are_served(boot: Path, name: str, text: str) -> None:
    assert fetch(boot, name) == text


def test_a_stranger_is_served_too(boot: Path) -> None:
    assert fetch(boot, "cmdline.txt", None) == "for nobody"


@pytest.mark.parametrize(
    ("folder", "prefix"),
    [
        ("0000beef", "0000beef"),
        ("0000beef", "beef"),
        ("0000beef", "BEEF"),
        ("beef", "0000beef"),
        ("0000BEEF", "0000beef"),
        ("dc-a6-32-01-36-c2", "dc-a6-32-01-36-c2"),
        ("dc-a6-32-01-36-c2", "DC-A6-32-01-36-C2"),
        ("DC-A6-32-01-36-C2", "dc-a6-32-01-36-c2"),
    ],
)
def test_a_pis_own_folder_is_its_world(boot: Path, folder: str, prefix: str) -> None:
    (boot / folder).mkdir()
    (boot / folder / "config.txt").write_text("own")
    assert fetch(boot, f"{prefix}/config.txt") == "own"
    assert refusal(boot, f"{prefix}/start4.elf").code == ErrorCode.FILE_NOT_FOUND
    assert fetch(boot, f"{prefix}/cmdline.txt") == "for pi1"
    (boot / folder / "cmdline.txt").write_text("on purpose")
    assert fetch(boot, f"{prefix}/cmdline.txt") == "on purpose"
    assert fetch(boot, "start4.elf") == "root start4"


def test_a_file_named_like_a_serial_is_no_folder(boot: Path) -> None:
    (boot / "beef").write_text("a file")
    assert fetch(boot, "beef/start4.elf") == "root start4"
    assert fetch(boot, "beef") == "a file"


TRICKS = [
    ("", ErrorCode.ACCESS_VIOLATION),
    ("/", ErrorCode.ACCESS_VIOLATION),
    ("..", ErrorCode.ACCESS_VIOLATION),
    ("../secret", ErrorCode.ACCESS_VIOLATION),
    ("overlays/../../secret", ErrorCode.ACCESS_VIOLATION),
    ("overlays/../start4.elf", ErrorCode.ACCESS_VIOLATION),
    ("deadbeef/../../secret", ErrorCode.ACCESS_VIOLATION),
    ("..\\secret", ErrorCode.ACCESS_VIOLATION),
    ("overlays\\a.dtbo", ErrorCode.ACCESS_VIOLATION),
    ("start4.elf\0.txt", ErrorCode.ACCESS_VIOLATION),
    ("start4.elf\n", ErrorCode.ACCESS_VIOLATION),
    ("\x1b[31mstart4.elf", ErrorCode.ACCESS_VIOLATION),
    ("st\xe4rt4.elf", ErrorCode.ACCESS_VIOLATION),
    ("\xc0\xae\xc0\xae/secret", ErrorCode.ACCESS_VIOLATION),
    ("a" * 256, ErrorCode.ACCESS_VIOLATION),
    ("a" * 255, ErrorCode.FILE_NOT_FOUND),
    ("/etc/passwd", ErrorCode.FILE_NOT_FOUND),
    ("C:/etc/passwd", ErrorCode.FILE_NOT_FOUND),
    ("%2e%2e/secret", ErrorCode.FILE_NOT_FOUND),
    ("~/secret", ErrorCode.FILE_NOT_FOUND),
    ("start4.elf/more", ErrorCode.FILE_NOT_FOUND),
    ("overlays", ErrorCode.FILE_NOT_FOUND),
    ("deadbeef/overlays", ErrorCode.FILE_NOT_FOUND),
    ("out", ErrorCode.ACCESS_VIOLATION),
    ("absolute", ErrorCode.ACCESS_VIOLATION),
    ("outside/secret", ErrorCode.ACCESS_VIOLATION),
    ("deadbeef/out", ErrorCode.ACCESS_VIOLATION),
    ("feed/secret", ErrorCode.FILE_NOT_FOUND),
    ("loop", ErrorCode.ACCESS_VIOLATION),
    ("dangling", ErrorCode.FILE_NOT_FOUND),
    ("up-again", ErrorCode.FILE_NOT_FOUND),
    ("self", ErrorCode.FILE_NOT_FOUND),
    ("fifo", ErrorCode.FILE_NOT_FOUND),
    ("socket", ErrorCode.NOT_DEFINED),
]


@pytest.mark.parametrize(("name", "code"), TRICKS)
def test_no_trick_leaves_the_folder(boot: Path, name: str, code: ErrorCode, monkeypatch: pytest.MonkeyPatch) -> None:
    (boot / "out").symlink_to("../secret")
    (boot / "absolute").symlink_to(boot.parent / "secret")
    (boot / "outside").symlink_to("..")
    (boot / "feed").symlink_to("..")
    (boot / "loop").symlink_to("loop")
    (boot / "dangling").symlink_to("nothing")
    (boot / "up-again").symlink_to("overlays/..")
    (boot / "self").symlink_to(".")
    os.mkfifo(boot / "fifo")
    monkeypatch.chdir(boot)
    with socket.socket(socket.AF_UNIX) as end:
        end.bind("socket")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    answer = refusal(boot, name)
    assert answer.code == code
    assert answer.reason
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_links_that_stay_inside_are_followed(boot: Path) -> None:
    (boot / "kernel8.img").symlink_to("./start4.elf")
    (boot / "overlays" / "up").symlink_to("../start4.elf")
    (boot / "beef").symlink_to("overlays")
    assert fetch(boot, "kernel8.img") == "root start4"
    assert fetch(boot, "overlays/up") == "root start4"
    assert fetch(boot, "beef/a.dtbo") == "overlay"


@pytest.mark.parametrize(
    "name", ["pieeprom.upd", "beef/pieeprom.sig", "PIEEPROM.bin", "vl805.bin", "overlays/vl805.sig", "recovery.bin"]
)
def test_what_flashes_an_eeprom_is_never_served(boot: Path, name: str) -> None:
    answer = refusal(boot, name)
    assert (answer.code, answer.quiet) == (ErrorCode.FILE_NOT_FOUND, True)


@pytest.mark.parametrize(
    ("name", "quiet"),
    [
        ("bootsig.bin", True),
        ("beef/recovery.elf", True),
        ("recovery8-32.img", True),
        ("armstub8-32-gic.bin", True),
        ("kernel_2712.img", True),
        ("kernel8.img", False),
        ("bcm2711-rpi-4-b.dtb", False),
    ],
)
def test_only_what_healthy_boots_miss_is_missed_quietly(boot: Path, name: str, quiet: bool) -> None:
    assert refusal(boot, name) == Refusal(ErrorCode.FILE_NOT_FOUND, "file not found", quiet)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), Refusal(ErrorCode.ACCESS_VIOLATION, "Permission denied")),
        (PermissionError(), Refusal(ErrorCode.ACCESS_VIOLATION, "access denied")),
        (OSError(errno.EMFILE, "Too many"), Refusal(ErrorCode.NOT_DEFINED, "Too many")),
        (OSError(), Refusal(ErrorCode.NOT_DEFINED, "the file cannot be read")),
        (ValueError("no {x}"), Refusal(ErrorCode.NOT_DEFINED, "cannot be filled in: no {x}")),
        (ValueError("x" * 300), Refusal(ErrorCode.NOT_DEFINED, f"cannot be filled in: {'x' * 179}")),
    ],
)
def test_trouble_is_an_answer(boot: Path, error: Exception, expected: Refusal) -> None:
    def fail(name: str, host: Host | None) -> bytes | None:
        raise error

    assert BootFiles(boot, fail).open("start4.elf", None) == expected


def test_a_template_that_is_not_utf_8_is_refused(boot: Path) -> None:
    (boot / "cmdline.txt").write_bytes(b"root=\xff")
    files = BootFiles(boot, lambda name, _host: (boot / name).read_text(encoding="utf-8").encode())
    answer = files.open("cmdline.txt", PI)
    assert isinstance(answer, Refusal)
    assert answer.reason.startswith("cannot be filled in: 'utf-8' codec can't decode byte 0xff")


def test_a_boot_folder_that_is_not_there(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none", "start4.elf").code == ErrorCode.FILE_NOT_FOUND


def opened(boot: Path, name: str) -> Content:
    content = BootFiles(boot, render).open(name, PI)
    assert not isinstance(content, Refusal)
    return content


def test_a_replaced_file_is_served_whole_as_it_was(boot: Path) -> None:
    content = opened(boot, "start4.elf")
    (boot / "new").write_text("quite another and longer text")
    (boot / "new").rename(boot / "start4.elf")
    assert (content.size, content.read(0, 100)) == (11, b"root start4")
    again = opened(boot, "start4.elf")
    assert again.identity != content.identity
    assert again.read(0, 5) == b"quite"
    content.close()
    again.close()


@pytest.mark.parametrize("text", ["shorter", "much longer than it was"])
def test_a_file_written_in_place_fails(boot: Path, text: str) -> None:
    content = opened(boot, "start4.elf")
    (boot / "start4.elf").write_text(text)
    with pytest.raises(OSError, match="changed while"):
        content.read(0, 100)
    content.close()


def test_a_rendered_text_reads_like_a_file() -> None:
    content = Rendered("cmdline.txt", b"0123456789")
    assert (content.size, content.read(4, 3), content.read(8, 9), content.identity) == (10, b"456", b"89", None)


@given(st.text(st.characters(max_codepoint=255), max_size=300))
def test_any_name_is_plain_components_or_a_refusal(name: str) -> None:
    parts = normalise(name)
    if not isinstance(parts, Refusal):
        assert parts
        assert not {"", ".", ".."} & set(parts)
        assert all(part.isascii() and part.isprintable() and "\\" not in part for part in parts)


def fetch_from(files: BootFiles, name: str, host: Host | None = PI) -> str | None:
    content = files.open(name, host)
    if isinstance(content, Refusal):
        return None
    try:
        return content.read(0, content.size + 1).decode()
    finally:
        content.close()


def test_the_first_finder_that_has_it_wins(boot: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    for folder in (boot / "beef", boot / "pi1", image):
        folder.mkdir()
    files = BootFiles(boot, render, lambda host: image if host == PI else None)
    steps = [
        (boot / "cmdline.txt", "a template", "for pi1"),  # the template itself is never served
        (image / "cmdline.txt", "the image's", "for pi1"),
        (boot / "pi1" / "cmdline.txt", "the host's", "the host's"),
        (boot / "beef" / "cmdline.txt", "the serial's", "the serial's"),
    ]
    for path, text, served in steps:
        path.write_text(text)
        assert fetch_from(files, "beef/cmdline.txt") == served
    assert fetch_from(files, "cmdline.txt") == "the host's"
    assert fetch_from(files, "cmdline.txt", None) == "for nobody"
    (image / "start4.elf").write_text("the image's start4")
    assert fetch_from(files, "feed/start4.elf") == "the image's start4"
    assert fetch_from(files, "start4.elf", None) == "root start4"
    assert fetch_from(files, "feed/overlays/a.dtbo") == "overlay"  # the image has none
    assert fetch_from(files, "beef/start4.elf") is None  # the serial's folder is a world of its own
    (boot / "pi1" / "start4.elf").write_text("the host's start4")
    assert fetch_from(files, "beef/start4.elf") == "the host's start4"
    assert fetch_from(files, "start4.elf") == "the host's start4"


def test_the_hosts_folder_is_its_own_only_and_in_either_case(boot: Path) -> None:
    (boot / "lab-3").mkdir()
    (boot / "lab-3" / "config.txt").write_text("own")
    (boot / "config.txt").write_text("shared")
    files = BootFiles(boot, lambda _name, _host: None)
    assert fetch_from(files, "config.txt", Host(PI.mac, PI.address, "Lab-3")) == "own"
    assert fetch_from(files, "config.txt", Host(PI.mac, PI.address, "lab-4")) == "shared"
    assert fetch_from(files, "config.txt", Host(PI.mac, PI.address)) == "shared"


def test_no_trick_leaves_the_image(boot: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.mkdir()
    (image / "out").symlink_to("../secret")
    files = BootFiles(boot, render, lambda _host: image)
    answer = files.open("out", PI)
    assert isinstance(answer, Refusal)
    assert answer.code == ErrorCode.ACCESS_VIOLATION


def test_a_pi_that_may_flash_its_eeprom_gets_the_files(boot: Path) -> None:
    files = BootFiles(boot, render, firmware_updates=lambda host: host == PI)
    assert fetch_from(files, "beef/pieeprom.upd") == "flash"
    assert fetch_from(files, "beef/pieeprom.upd", None) is None
    answer = files.open("pieeprom.sig", PI)
    assert answer == Refusal(ErrorCode.FILE_NOT_FOUND, "file not found", quiet=True)


@pytest.mark.parametrize(
    ("name", "size", "blksize", "counts_on", "words"),
    [
        ("config.txt", 4096, 1024, False, ""),
        ("a/config.txt", 4097, 1024, False, "4097 bytes"),
        ("kernel8.img", 65534 * 512 + 511, 512, False, ""),
        ("kernel8.img", 65535 * 512, 512, False, "65536 blocks of 512 bytes"),
        ("kernel8.img", 65535 * 512, 512, True, ""),
        ("kernel8.img", 65535 * 512, 1024, False, ""),
    ],
)
def test_concerns(name: str, size: int, blksize: int, counts_on: bool, words: str) -> None:
    found = concerns(name, size, blksize, counts_on)
    assert len(found) == bool(words)
    assert words in "".join(found)


def test_problems_of_a_boot_folder(boot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (boot / "pieeprom.upd").unlink()
    (boot / "beef").mkdir()
    (boot / "config.txt").write_bytes(bytes(4096))
    assert problems_of(boot) == []
    (boot / "config.txt").write_bytes(bytes(4097))
    for name, size in (("kernel8.img", 40_000_000), ("initramfs8", 70_000_000), ("rootfs.tgz", 900_000_000)):
        with (boot / name).open("wb") as file:
            file.truncate(size)
    (boot / "beef" / "vl805.bin").write_bytes(b"")
    monkeypatch.setattr(os, "access", lambda path, _mode: path.name != "start4.elf")
    assert problems_of(boot) == [
        f"{boot}/config.txt: has 4097 bytes; over the network Pis read only the first 4096",
        f"{boot}/initramfs8: has 70000000 bytes, more than a Pi 3 or a Pi 4 or 5 before October 2022 can fetch",
        f"{boot}/kernel8.img: has 40000000 bytes, more than a Pi 3 can fetch",
        f"{boot}/start4.elf: cannot be read",
        f"{boot}/beef/vl805.bin: would flash the EEPROM of a Pi; it is served only to those for which that is allowed",
    ]
    assert problems_of(boot / "none") == [f"{boot}/none: No such file or directory"]
