"""The lab's root file system: what is in the archive, that it is reproducible, and that its scripts answer."""

from __future__ import annotations

import gzip
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.rootfs import RootfsError, build_rootfs, read_busybox

BUSYBOX = b"\x7fELF\x02\x01\x01" + bytes(57)


def newc(name: bytes, data: bytes) -> bytes:
    """One record of a newc archive, every other number set to its own value."""
    numbers = (1, 0o100755, 2, 3, 4, 5, len(data), 6, 7, 8, 9, len(name) + 1, 0)
    header = b"070701" + b"".join(b"%08X" % number for number in numbers) + name + b"\0"
    padded = header + bytes(-len(header) % 4) + data
    return padded + bytes(-len(padded) % 4)


@pytest.fixture
def busybox(tmp_path: Path) -> Path:
    path = tmp_path / "busybox"
    path.write_bytes(BUSYBOX)
    return path


@pytest.fixture
def members(tmp_path: Path, busybox: Path) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    build_rootfs(busybox, tmp_path / "out" / "rootfs.tgz", "pi3")
    found = {}
    with tarfile.open(tmp_path / "out" / "rootfs.tgz") as tar:
        for info in tar:
            stream = tar.extractfile(info) if info.isreg() else None
            found[info.name.removeprefix("./")] = (info, stream.read() if stream else b"")
    return found


Members = dict[str, tuple[tarfile.TarInfo, bytes]]


def test_holds_what_a_boot_needs(members: Members) -> None:
    assert members["bin/busybox"][1] == BUSYBOX
    assert members["bin/busybox"][0].mode == 0o755
    assert members["sbin/init"][0].linkname == "../bin/busybox"
    assert members["bin/sh"][0].linkname == "busybox"
    assert members["etc/hostname"][1] == b"pi3\n"
    assert members["dev/console"][0].ischr()
    assert (members["dev/console"][0].devmajor, members["dev/console"][0].devminor) == (5, 1)
    assert b"/etc/init.d/rcS" in members["etc/inittab"][1]


def test_every_file_belongs_to_root_and_lies_in_a_folder_that_is_there(members: Members) -> None:
    for name, (info, _) in members.items():
        assert (info.uid, info.gid, info.uname) == (0, 0, "root")
        parent = name.rpartition("/")[0]
        assert not parent or members[parent][0].isdir()


def test_every_command_of_the_scripts_has_its_link(members: Members) -> None:
    scripts = b"".join(data for name, (_, data) in members.items() if name.startswith("etc/") and data[:2] == b"#!")
    for command in ("awk", "cat", "date", "df", "grep", "head", "hostname", "httpd", "ip", "ls", "mount", "mv", "nc",
                    "sleep", "sync", "touch", "udhcpc"):  # fmt: skip
        assert command.encode() in scripts
        assert f"bin/{command}" in members


def test_with_python_in_it_the_real_agent_runs(tmp_path: Path, busybox: Path) -> None:
    python, agent = tmp_path / "python", tmp_path / "agent.py"
    (python / "usr" / "bin").mkdir(parents=True)
    (python / "usr" / "bin" / "python3.11").write_bytes(b"an interpreter")
    (python / "usr" / "bin" / "python3.11").chmod(0o4775)
    (python / "usr" / "bin" / "python3").symlink_to("python3.11")
    (python / "lib").mkdir()
    agent.write_bytes(b"an agent")
    build_rootfs(busybox, tmp_path / "rootfs.tgz", python=python, agent=agent)
    with tarfile.open(tmp_path / "rootfs.tgz") as tar:
        names = [name.removeprefix("./") for name in tar.getnames()]
        assert len(names) == len(set(names))
        assert tar.getmember("./usr/bin/python3.11").mode == 0o755
        assert tar.getmember("./usr/bin/python3").linkname == "python3.11"
        assert tar.getmember("./lib").isdir()
        stream = tar.extractfile("./opt/piman/monitoring_server.py")
        assert stream is not None
        assert stream.read() == b"an agent"


def test_same_inputs_same_bytes_and_another_name_other_bytes(tmp_path: Path, busybox: Path) -> None:
    for output, name in (("a", "lab"), ("b", "lab"), ("c", "lab2")):
        build_rootfs(busybox, tmp_path / output, name)
    first, second, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == second
    assert first != other
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "busybox", "c"]


def test_takes_busybox_from_an_initramfs(tmp_path: Path) -> None:
    archive = newc(b"bin", b"") + newc(b"bin/sh", b"busybox") + newc(b"bin/busybox", BUSYBOX) + newc(b"TRAILER!!!", b"")
    path = tmp_path / "initramfs.gz"
    path.write_bytes(gzip.compress(archive))
    assert read_busybox(path) == BUSYBOX


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"#!/bin/sh\n",
        b"\x1f\x8b",
        gzip.compress(b""),
        gzip.compress(newc(b"bin/busybox", b"#!/bin/sh")),
        gzip.compress(newc(b"bin/sh", BUSYBOX)),
        gzip.compress(b"070701" + b"Z" * 104),
        gzip.compress(newc(b"bin/busybox", BUSYBOX))[:-9],
    ],
)
def test_refuses_a_file_without_busybox(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(RootfsError, match="file"):
        build_rootfs(tmp_path / "file", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@given(st.binary(max_size=400))
def test_any_bytes_are_an_archive_without_busybox(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes(gzip.compress(b"070701" + content))
    with pytest.raises(RootfsError):
        read_busybox(path)


@pytest.mark.parametrize("name", ["", "-pi", "pi-", "Pi 3", "pi;reboot", "p" * 64, "pi\n"])
def test_refuses_what_is_no_hostname(tmp_path: Path, busybox: Path, name: str) -> None:
    with pytest.raises(RootfsError, match="hostname"):
        build_rootfs(busybox, tmp_path / "out", name)


@pytest.fixture
def events(tmp_path: Path, members: Members) -> Callable[[str], tuple[str, str]]:
    """Run the script that answers port 3000 on this machine's /proc."""
    script = tmp_path / "events.sh"
    script.write_bytes(members["etc/events.sh"][1])

    def ask(request: str) -> tuple[str, str]:
        done = subprocess.run(
            ["sh", str(script)], input=request.encode(), stdout=subprocess.PIPE, check=True, timeout=20
        )
        head, _, body = done.stdout.decode().partition("\r\n\r\n")
        assert f"Content-Length: {len(body)}" in head
        return head, body

    return ask


def test_events_tell_the_five_fields(events: Callable[[str], tuple[str, str]]) -> None:
    head, body = events("GET /events HTTP/1.1\r\nHost: pi\r\n\r\n")
    assert head.startswith("HTTP/1.0 200 OK\r\n")
    fields = json.loads(body)
    assert set(fields) == {"time", "cpu_percent", "memory_percent", "disk_percent", "num_pids"}
    assert all(0 <= fields[name] <= 100 for name in ("cpu_percent", "memory_percent", "disk_percent"))
    assert fields["memory_percent"] > 0
    assert fields["num_pids"] >= 1


@pytest.mark.parametrize("request_line", ["GET / HTTP/1.0", "POST /events HTTP/1.0", "GET /events/x HTTP/1.0", "$(id)"])
def test_events_answer_404_to_all_else(events: Callable[[str], tuple[str, str]], request_line: str) -> None:
    head, body = events(f"{request_line}\r\n\r\n")
    assert head.startswith("HTTP/1.0 404 ")
    assert "error" in json.loads(body)


def test_scripts_are_clean(tmp_path: Path, members: Members) -> None:
    for name, (info, data) in members.items():
        if data.startswith(b"#!"):
            assert info.mode == 0o755, name
            path = tmp_path / name.replace("/", "_")
            path.write_bytes(data)
            # 2154: udhcpc sets these variables; 2034: words of a line that nobody reads; 2010: names are the kernel's
            done = subprocess.run(
                ["shellcheck", "-s", "sh", "-e", "SC2154,SC2034,SC2010", str(path)],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout


def test_archive_is_small(tmp_path: Path, busybox: Path) -> None:
    build_rootfs(busybox, tmp_path / "out")
    assert len(gzip.decompress((tmp_path / "out").read_bytes())) < 80_000
