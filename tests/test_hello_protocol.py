"""The real hello_protocol.sh under busybox against the real service, on loopback.

What is real: the script, busybox's nc, tar, tee, sha256sum and shell, mkfs.ext4 and e2fsck on a file, the protocol and
the image. What is not: the card. A folder stands for it: `card` (a file whose bytes are its first sectors), `cardp1`,
`cardp2` (files), and `fs`, the folder that a mounted partition 2 shows. What would need a block device or the right to
mount is a shell function, which busybox prefers to its own commands: is_block, mount, umount, sfdisk, sync, date.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import random
import shutil
import signal
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tcp.image import ImageFile
from tcp.packet import Image
from tcp.server import HelloServer, Installs
from utility.hosts import Host
from utility.service import Report, Stage

SCRIPT = Path(__file__).parent.parent / "install" / "initram" / "hello_protocol.sh"
LOCAL = IPv4Address("127.0.0.1")
PI = Host("b8:27:eb:00:00:01", LOCAL, "pi1")
MAGIC = b"\x53\xef"

SHIMS = """
PIMAN_LIBRARY=1 . {script}
is_block() {{ [ -s "$1" ]; }}
mount() {{ # -t ext4 [-o ro] DEVICE FOLDER: the folder becomes a view of $HERE/fs
    while [ $# -gt 2 ]; do shift; done
    ! fails mount || return 1
    [ "$(bytes_at "$1" 1080 2)" = 53ef ] || return 1
    [ "$(cat $HERE/fs.uuid 2>/dev/null)" = "$(bytes_at "$1" 1128 16)" ] || {{ # a new file system is empty
        rm -rf "$HERE/fs"; mkdir "$HERE/fs"; bytes_at "$1" 1128 16 >"$HERE/fs.uuid"; }}
    rmdir "$2" && ln -s "$HERE/fs" "$2"
}}
fails() {{ # WHAT: as often as $HERE/fail.WHAT has lines
    [ -s "$HERE/fail.$1" ] && sed -i 1d "$HERE/fail.$1"
}}
umount() {{ [ -L "$1" ] && rm "$1" && mkdir "$1"; }}
sync() {{ :; }}
date() {{ echo "$*" >"$HERE/date"; }}
sfdisk() {{ # the table's script is kept; the card becomes ours
    cat >"$HERE/table"
    printf 'NMIP' | dd of="$CARD" bs=1 seek=440 conv=notrunc 2>/dev/null
    truncate -s 1M "$CARD"p1; truncate -s 32M "$CARD"p2
}}
mkdosfs() {{ :; }}
{more}
main
"""


def archive(size: int = 200_000, init: bool = True, seed: int = 1, marker: bytes = b"") -> bytes:
    """A small root file system as tar.gz, padded with bytes that do not compress."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        files = {"etc/hostname": b"pi\n"} | ({".piman": marker} if marker else {})
        for name, data in {**files, "data": random.Random(seed).randbytes(size)}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        if init:
            entry = tarfile.TarInfo("sbin/init")
            entry.type, entry.linkname = tarfile.SYMTYPE, "/lib/systemd/systemd"  # absolute, as Debian's
            tar.addfile(entry)
    return gzip.compress(raw.getvalue(), 1)


class Bench:
    """A card, a service, and runs of the script."""

    def __init__(self, folder: Path) -> None:
        self.here = folder / "pi"
        self.reports: list[Report] = []
        self.orders: dict[str, str] = {}
        self.known = {LOCAL: PI}
        self.content = b""
        self.file = ImageFile(folder / "rootfs.tgz", folder / "cache")
        self.put_image(archive())
        for name in ("bin", "run", "m", "new_root", "sys/block/card", "sys/class/net/eth0", "device-tree"):
            (self.here / name).mkdir(parents=True)
        subprocess.run(["busybox", "--install", "-s", self.here / "bin"], check=True)  # as in the initramfs
        self.insert_card()
        (self.here / "sys/class/net/eth0/address").write_text(f"{PI.mac}\n")
        (self.here / "device-tree/serial-number").write_bytes(b"00000000deadbeef\0")
        (self.here / "device-tree/model").write_bytes(b"Raspberry Pi 3 Model B Rev 1.2\0")
        self.installs = Installs(
            self.known.get, self.image_for, self.orders.get, self.complete, lambda: datetime(2026, 11, 24, tzinfo=UTC)
        )
        self.start()

    def start(self, ports: tuple[int, int] = (0, 0)) -> None:
        self.server = HelloServer(LOCAL, *ports, self.installs, self.reports.append)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()

    def stop(self) -> None:
        self.server.stop()
        self.thread.join(5)

    def image_for(self, _host: Host) -> Image | None:
        return self.file.current()

    def complete(self, mac: str, token: str) -> bool:
        if self.orders.get(mac) == token:
            del self.orders[mac]
        return True

    def put_image(self, content: bytes) -> None:
        self.content = content
        fresh = self.file.path.with_suffix(".new")
        fresh.write_bytes(content)
        fresh.replace(self.file.path)

    def insert_card(self, sectors: int = 1 << 20) -> None:
        for old in self.here.glob("card*"):
            old.unlink()
        (self.here / "card").write_bytes(bytes(4096))
        (self.here / "sys/block/card/size").write_text(f"{sectors}\n")

    def popen(self, more: str = "", port: int = 0) -> subprocess.Popen[bytes]:
        """The script as init runs it: nc connects and becomes it. In a process group of its own."""
        started = self.here / "started.sh"
        started.write_text("#!/bin/sh\nexec busybox sh " + str(self.here / "all.sh") + "\n")
        started.chmod(0o755)
        (self.here / "all.sh").write_text(SHIMS.format(script=SCRIPT, more=more))
        paths = {"CARD": "card", "RUN": "run", "MOUNT": "m", "NEW_ROOT": "new_root", "SYS": "sys"}
        own = {name: str(self.here / path) for name, path in {**paths, "DEVICE_TREE": "device-tree"}.items()}
        path = f"{self.here / 'bin'}:/usr/sbin:/sbin:/usr/bin:/bin"  # mkfs.ext4 and e2fsck are the host's
        with (self.here / "console").open("ab") as console:
            return subprocess.Popen(
                ["busybox", "nc", str(LOCAL), str(port or self.server.port), "-e", str(started)],
                env={**os.environ, **own, "HERE": str(self.here), "PATH": path, "master": str(LOCAL)},
                stderr=console,
                start_new_session=True,
            )

    def run(self, more: str = "", port: int = 0) -> str:
        """One run to its end; what it left for init."""
        process = self.popen(more, port)
        try:
            process.wait(30)
        finally:
            kill(process)
        result = self.here / "run/hello.result"
        return result.read_text().strip() if result.exists() else ""

    def clear_mounts(self) -> None:
        """What a loss of power does: nothing is mounted, and memory is empty."""
        for name in ("m", "new_root"):
            path = self.here / name
            if path.is_symlink():
                path.unlink()
            path.mkdir(exist_ok=True)
        shutil.rmtree(self.here / "run")
        (self.here / "run").mkdir()

    @property
    def marker(self) -> str:
        path = self.here / "fs/.piman"
        return path.read_text() if path.exists() else ""

    @property
    def console(self) -> str:
        return (self.here / "console").read_text(errors="replace")

    def failure(self) -> str:
        end = time.monotonic() + 5
        while time.monotonic() < end:
            for report in self.reports:
                if report.stage is Stage.FAILED:
                    return report.event
            time.sleep(0.01)
        raise AssertionError(self.reports)


def kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def running(group: int) -> list[str]:
    """The processes of a session that are not dead; the dead stay where process 1 does not collect them."""
    found = subprocess.run(["ps", "-o", "stat=,args=", "-g", str(group)], capture_output=True, text=True, check=False)
    return [line for line in found.stdout.splitlines() if not line.startswith("Z")]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    try:
        yield made
    finally:
        made.stop()


def test_a_blank_card_is_installed_and_boots(bench: Bench) -> None:
    bench.orders[PI.mac] = "tok-1"
    assert bench.run() == "boot", bench.console
    sha256 = hashlib.sha256(bench.content).hexdigest()
    image = bench.file.load()
    assert bench.marker == f"image={image.id}\nsha256={sha256}\norder=tok-1\n"
    assert (bench.here / "new_root/etc/hostname").read_text() == "pi\n"  # mounted for init
    assert bench.orders == {}
    assert (bench.here / "date").read_text() == "-u -s 2026-11-24 00:00:00\n"
    table = (bench.here / "table").read_text()
    assert table == "label: dos\nlabel-id: 0x50494d4e\nsize=32MiB, type=c\ntype=83\n"
    facts = {key: value for report in bench.reports for key, value in report.facts.items()}
    assert facts == {
        "serial": "deadbeef",
        "model": "Raspberry Pi 3 Model B Rev 1.2",
        "sd_bytes": str(512 << 20),
        "image": image.id,
    }
    assert any(report.event.endswith("sha256 verified)") for report in bench.reports)


def test_a_large_card_gets_a_large_first_partition(bench: Bench) -> None:
    bench.insert_card(1 << 25)
    assert bench.run() == "boot", bench.console
    assert "size=256MiB, type=c" in (bench.here / "table").read_text()


def test_the_second_boot_takes_nothing(bench: Bench) -> None:
    assert bench.run() == "boot", bench.console
    bench.clear_mounts()
    bench.file.path.unlink()
    assert bench.run() == "boot", bench.console
    assert bench.reports[-1].heard in ("RECEIVED_BOOT", f"IS_INSTALLED {bench.reports[-1].facts.get('image')}")


def test_an_order_reinstalls_once(bench: Bench) -> None:
    assert bench.run() == "boot", bench.console
    bench.clear_mounts()
    (bench.here / "fs/old").touch()
    bench.orders[PI.mac] = "again"
    bench.put_image(archive(seed=2))
    assert bench.run() == "boot", bench.console
    assert not (bench.here / "fs/old").exists()
    assert "order=again" in bench.marker
    assert bench.orders == {}
    bench.clear_mounts()
    bench.orders[PI.mac] = "again"  # the manager died before it noted the end
    (bench.here / "fs/kept").touch()
    assert bench.run() == "boot", bench.console
    assert (bench.here / "fs/kept").exists()
    assert bench.orders == {}


@pytest.mark.parametrize(
    ("file", "offset", "magic"),
    [
        ("cardp2", 1080, MAGIC),
        ("cardp1", 0, b"XFSB"),
        ("card", 65600, b"_BHRfS_M"),
        ("cardp5", 1024, b"\x10\x20\xf5\xf2"),
        ("cardp3", 0, b"LUKS\xba\xbe"),
        ("cardp1", 512, b"LABELONE"),
    ],
)
def test_a_foreign_card_is_kept(bench: Bench, file: str, offset: int, magic: bytes) -> None:
    (bench.here / file).write_bytes(bytes(offset) + magic + bytes(3000))
    assert bench.run() == "reboot 30"
    assert "foreign" in bench.failure()
    assert "the manager refuses: card holds a foreign Linux system" in bench.console
    assert not (bench.here / "table").exists()
    bench.orders[PI.mac] = "tok"
    bench.reports.clear()
    assert bench.run() == "boot", bench.console


def test_a_marker_tells_our_card_whose_id_was_changed(bench: Bench) -> None:
    assert bench.run() == "boot", bench.console
    bench.clear_mounts()
    (bench.here / "card").write_bytes(bytes(4096))
    (bench.here / "table").unlink()
    assert bench.run() == "boot", bench.console
    assert not (bench.here / "table").exists()


def test_our_own_torn_card_is_taken_again(bench: Bench) -> None:
    (bench.here / "card").write_bytes(bytes(440) + b"NMIP" + bytes(3000))
    (bench.here / "cardp2").write_bytes(bytes(1080) + MAGIC + bytes(3000))  # a superblock, and nothing behind it
    assert bench.run() == "boot", bench.console


UNREADABLE = 'dd() { case $1 in "if=$HERE/%s") ! fails read || return 1 ;; esac; command dd "$@"; }'


@pytest.mark.parametrize(
    ("what", "times", "more"),
    [
        ("read", 1, UNREADABLE % "card"),
        ("read", 1, UNREADABLE % "cardp2"),
        ("e2fsck", 2, 'e2fsck() { fails e2fsck && return 8; command e2fsck "$@"; }'),  # -p, then -y
        ("mount", 1, ""),
        ("marker", 1, "has_init() { ! fails marker; }"),
        ("part", 1, 'is_block() { case $1 in *p2) ! fails part || return 1 ;; esac; [ -s "$1" ]; }'),
    ],
)
def test_an_error_that_passes_costs_no_installed_system(bench: Bench, what: str, times: int, more: str) -> None:
    assert bench.run() == "boot", bench.console
    bench.clear_mounts()
    (bench.here / "table").unlink()
    (bench.here / f"fail.{what}").write_text("once\n" * times)
    assert bench.run(more) == "boot", bench.console
    assert (bench.here / f"fail.{what}").read_text() == ""  # it did fail
    assert not (bench.here / "table").exists()
    assert bench.marker


@pytest.mark.parametrize("file", ["card", "cardp2"])
def test_a_card_that_cannot_be_read_is_not_formatted(bench: Bench, file: str) -> None:
    assert bench.run() == "boot", bench.console
    bench.clear_mounts()
    (bench.here / "table").unlink()
    (bench.here / "fail.read").write_text("again\n" * 1000)
    assert bench.run(UNREADABLE % file) == "reboot 10"
    assert bench.failure() == "card: cannot be read"
    assert not (bench.here / "table").exists()
    assert bench.marker


def test_a_partition_that_cannot_be_read_is_not_blank(bench: Bench) -> None:
    (bench.here / "cardp5").write_bytes(bytes(1080) + MAGIC + bytes(3000))  # somebody's
    (bench.here / "fail.read").write_text("again\n" * 1000)
    assert bench.run(UNREADABLE % "cardp5") == "reboot 10"
    assert bench.failure() == "card: cannot be read"
    assert not (bench.here / "table").exists()


def test_no_card(bench: Bench) -> None:
    (bench.here / "card").unlink()
    (bench.here / "sys/block/card/size").unlink()
    assert bench.run() == "reboot 30"
    assert bench.failure() == "refused: no SD card"


def test_a_card_that_is_too_small(bench: Bench) -> None:
    bench.insert_card(65536)
    assert bench.run() == "reboot 10"
    assert bench.failure() == "card: a card of 32 MB is too small"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("sfdisk() { cat >/dev/null; return 1; }", "format: the card cannot be partitioned"),
        ('ln -s /bin/false "$HERE/bin/mkfs.ext4"', "format: mkfs.ext4 failed"),
        ("sfdisk() { cat >/dev/null; }; sleep() { :; }", "format: the new partitions do not appear"),
        ("mount() { return 1; }", "mount: the new file system does not mount"),
        ("mv() { return 1; }", "unpack: the marker cannot be written"),
        ('write_marker() { umount "$MOUNT"; }', "unpack: the card does not hold what was written"),
    ],
)
def test_each_step_that_fails_is_told(bench: Bench, more: str, reason: str) -> None:
    assert bench.run(more) == "reboot 10", bench.console
    assert bench.failure().startswith(reason)
    assert bench.marker == ""


def test_the_marker_in_an_image_of_an_installed_pi_says_nothing(bench: Bench) -> None:
    """Power is lost when its own marker, and /sbin/init, are on the card and the rest is not."""
    marker = f"image=golden-0123456789ab\nsha256={'0' * 64}\norder=\n".encode()
    bench.put_image(archive(marker=marker))
    assert bench.run('write_marker() { umount "$MOUNT"; }') == "reboot 10"
    assert bench.failure() == "unpack: the card does not hold what was written"
    bench.clear_mounts()
    assert bench.run() == "boot"
    assert bench.marker.startswith("image=rootfs-")


def test_an_image_without_an_init(bench: Bench) -> None:
    bench.put_image(archive(init=False))
    assert bench.run() == "reboot 10"
    assert bench.failure() == "unpack: the image has no /sbin/init"


def test_an_image_that_is_no_archive(bench: Bench) -> None:
    bench.put_image(b"this is no tar.gz" * 1000)
    assert bench.run() == "reboot 10"
    assert bench.failure().startswith("unpack: tar: ")  # its own words
    assert bench.marker == ""


def test_an_image_that_is_cut_short_or_changed_on_the_way(bench: Bench) -> None:
    """The file is changed in place after it was hashed, as no tidy operator would."""
    image = bench.file.load()
    damaged = bytearray(bench.content)
    damaged[len(damaged) // 2] ^= 1
    state = image.path.stat()
    image.path.write_bytes(damaged)
    os.utime(image.path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert bench.run() == "reboot 10"
    assert bench.failure().startswith(("hash: ", "unpack: "))
    assert bench.marker == ""


def test_bytes_behind_the_archive_belong_to_the_hash(bench: Bench) -> None:
    bench.put_image(archive() + gzip.compress(bytes(500_000)))
    assert bench.run() == "boot", bench.console


def test_power_cuts(bench: Bench) -> None:
    """Killed at random moments, ten times, and once let alone: it ends installed, and never said so before it was."""
    bench.put_image(archive(3_000_000))
    bench.orders[PI.mac] = "tok"
    dice = random.Random(7)
    for _ in range(10):
        process = bench.popen()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(dice.uniform(0.0, 0.6))
        kill(process)
        bench.clear_mounts()
        if bench.marker:
            data = (bench.here / "fs/data").read_bytes()
            assert data == random.Random(1).randbytes(3_000_000)
    assert bench.run() == "boot", bench.console
    assert "order=tok" in bench.marker
    assert bench.orders == {}


def test_a_manager_that_dies_in_the_image(bench: Bench) -> None:
    """The image's connection and ours break: nothing is left running, and the next manager finds the Pi again."""
    bench.put_image(archive(30_000_000))
    ports = (bench.server.port, bench.server.image_port)
    process = bench.popen()
    end = time.monotonic() + 10
    while not any(report.stage is Stage.IMAGE for report in bench.reports):
        assert time.monotonic() < end, bench.console
        time.sleep(0.01)
    bench.stop()
    assert process.wait(20) in (0, 1)
    while left := running(process.pid):
        assert time.monotonic() < end, left  # the last of the pipe are just dying
        time.sleep(0.05)
    assert bench.marker == ""
    bench.clear_mounts()
    bench.put_image(archive())
    bench.start(ports)
    assert bench.run() == "boot", bench.console


def converse(bench: Bench, *lines: bytes) -> str:
    """A manager that says just these lines; what the script answered to them."""
    with socket.create_server((str(LOCAL), 0)) as listener:
        process = bench.popen(port=listener.getsockname()[1])
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(10)
            peer.sendall(b"".join(line + b"\n" for line in lines))
            peer.shutdown(socket.SHUT_WR)
            heard = b"".join(iter(lambda: peer.recv(4096), b""))
        process.wait(10)
        kill(process)
    return heard.decode()


@pytest.mark.parametrize(
    "command",
    [
        b"busybox date -s 202611240015.30",
        b"touch $HERE/owned",
        b"$(touch $HERE/owned)",
        b"`touch $HERE/owned`",
        b"boot; touch $HERE/owned",
        b"date 2026-11-24 00:00:00; touch $HERE/owned",
        b"date $(touch $HERE/owned)",
        b"* * *",
        b"",
        b"x" * 5000,
        b"boot\nboot",
        b"\xff\xfe\0\x1b",
    ],
)
def test_it_does_only_what_it_knows(bench: Bench, command: bytes) -> None:
    heard = converse(bench, command, b"EOM")
    assert heard.startswith("HELLO 2 mac=b8:27:eb:00:00:01 serial=deadbeef model=Raspberry_Pi_3_Model_B_Rev_1.2 sd=")
    assert heard.count("\n") == 1
    assert not (bench.here / "owned").exists()
    assert not (bench.here / "date").exists()


HASH = b"sha256=" + b"a" * 64


@pytest.mark.parametrize(
    "arguments",
    [
        b"",
        b"image=a size=1 " + HASH,
        b"image=a size=x port=1 " + HASH,
        b"image=$(touch$IFS$HERE/owned) size=1 port=1 " + HASH,
        b"image=../a size=1 port=1 " + HASH,
        b"image=a size=1 port=1 order=; " + HASH,
        b"image=a size=1 port=1 sha256=beef",
    ],
)
def test_a_format_that_is_not_whole_touches_nothing(bench: Bench, arguments: bytes) -> None:
    heard = converse(bench, b"format " + arguments, b"EOM")
    assert "\nERROR format " in heard
    assert "RECEIVED_FORMAT" not in heard
    assert not (bench.here / "table").exists()
    assert not (bench.here / "owned").exists()


def test_a_boot_without_a_system_is_told(bench: Bench) -> None:
    assert converse(bench, b"boot", b"EOM").endswith("RECEIVED_BOOT\nERROR mount partition 2 does not mount\n")


def test_an_image_port_that_does_not_answer(bench: Bench) -> None:
    with socket.socket() as unused:
        unused.bind((str(LOCAL), 0))  # and does not listen
        port = b"%d " % unused.getsockname()[1]
        heard = converse(bench, b"format image=a size=77 port=" + port + HASH, b"EOM")
    assert heard.endswith("FORMATTED\nERROR image 0 of 77 bytes came\n")
