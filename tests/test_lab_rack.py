"""lab: what can be seen of a rack, its Pis and their machines without a network."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

from lab import namespaces
from lab.light import Card
from lab.machine import command_line, make_card
from lab.namespaces import LabError
from lab.pi import PiState
from lab.profiles import PROFILES
from lab.rack import MANAGER, SWITCH, Rack, prepare_files, prerequisites
from lab.rootfs import RootfsError
from utility.config import load_config


def test_its_configuration_loads(tmp_path: Path) -> None:
    rack = Rack(tmp_path / "lab", 3, "light", ports=5)
    rack._write_files()
    config = load_config(rack.config, environ={})
    assert config.server_address == MANAGER
    assert config.boot_dir == rack.boot_dir
    assert config.image == rack.image
    (switch,) = config.switches
    assert switch.address == SWITCH
    assert switch.pi_addresses[:3] == tuple(pi.address for pi in rack.pis)
    assert len(switch.pi_addresses) == 5
    lines = rack.hosts.read_text().splitlines()
    assert lines[1] == "b8:27:eb:00:00:01;172.30.4.11;pi1;0"
    assert len(lines) == 4


def test_a_light_rack_makes_its_boot_files(tmp_path: Path) -> None:
    rack = Rack(tmp_path, 1, "light", "4", image_bytes=1000, known=False)
    rack._write_files()
    names = {path.name for path in rack.boot_dir.iterdir()}
    assert {"config.txt", "cmdline.txt", "kernel8.img", "start4.elf", PROFILES["4"].device_tree, "rootfs.tgz"} <= names
    first = rack.image.read_bytes()
    with tarfile.open(rack.image) as archive:
        assert [(each.name, each.size) for each in archive] == [("./sbin/init", 1000)]
    rack._write_files()
    assert rack.image.read_bytes() == first
    assert rack.hosts.read_text().splitlines() == ["# MAC;IP;hostname;last_seen"]


def test_the_boot_files_of_a_qemu_rack_are_linked(tmp_path: Path) -> None:
    (tmp_path / "cache" / "boot").mkdir(parents=True)
    for name in ("kernel8.img", "rootfs.tgz", ".boot_files", "config.txt"):
        (tmp_path / "cache" / "boot" / name).write_bytes(b"x")
    rack = Rack(tmp_path / "lab", 1, files=tmp_path / "cache", card_bytes=1 << 20)
    rack._write_files()
    assert (rack.boot_dir / "kernel8.img").samefile(tmp_path / "cache" / "boot" / "kernel8.img")
    assert (rack.boot_dir / "start.elf").stat().st_size > 2_000_000
    assert not (rack.boot_dir / ".boot_files").exists()
    assert (rack.boot_dir / "config.txt").read_bytes() != b"x"  # ours
    assert (tmp_path / "cache" / "boot" / "config.txt").read_bytes() == b"x"  # and not written through a link


def open_files(rack: Rack) -> None:
    """What `open` does to the folder."""
    rack._clear()
    rack._write_files()


def test_another_rack_in_the_same_folder_is_a_new_one(tmp_path: Path) -> None:
    first = Rack(tmp_path, 3, "light", "4", image_bytes=1000)
    first.pis[0].put_card("foreign")
    open_files(first)
    assert first.pis[0].card() == Card("foreign")  # a new folder: nobody's left-overs
    (tmp_path / "state" / "piman.db").write_text("all three are up")
    rack = Rack(tmp_path, 2, "light", "5", image_bytes=1000)
    open_files(rack)
    assert [line.partition(";")[0] for line in rack.hosts.read_text().splitlines()[1:]] == [pi.mac for pi in rack.pis]
    (switch,) = load_config(rack.config, environ={}).switches
    assert switch.pi_addresses == tuple(pi.address for pi in rack.pis)
    assert not list((tmp_path / "state").iterdir())
    assert sorted(path.name for path in (tmp_path / "pis").iterdir()) == ["pi1", "pi2"]
    assert [pi.card() for pi in rack.pis] == [Card("blank")] * 2


def test_a_folder_that_is_no_labs_is_left_alone(tmp_path: Path) -> None:
    rack = Rack(tmp_path, 1, "light")
    rack.config.write_text("private_number: 4\n")
    (tmp_path / "state").mkdir()
    with pytest.raises(LabError, match="a folder of its own"):
        rack._clear()
    assert rack.config.read_text() == "private_number: 4\n"
    assert (tmp_path / "state").is_dir()


@pytest.mark.parametrize("error", [RootfsError("no busybox"), OSError("disk full")])
def test_no_root_file_system_is_a_lab_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_paths: Path) -> None:
        raise error

    (tmp_path / "boot").mkdir()
    (tmp_path / "boot" / "kernel8.img").touch()
    monkeypatch.setattr("lab.rack._script", lambda *_words: None)
    monkeypatch.setattr("lab.rack.build_rootfs", fail)
    with pytest.raises(LabError, match=f"no root file system: {error}"):
        prepare_files(tmp_path)


@pytest.mark.parametrize(
    ("pis", "kind", "model"),
    [(0, "light", "3b"), (49, "light", "3b"), (1, "heavy", "3b"), (1, "light", "6"), (1, "qemu", "3b")],
)
def test_racks_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pis: int, kind: str, model: str) -> None:
    monkeypatch.setenv("PIMAN_CACHE", str(tmp_path))
    with pytest.raises(LabError):
        Rack(tmp_path, pis, kind, model)


def test_names(tmp_path: Path) -> None:
    rack = Rack(tmp_path, 2, "light", "5")
    second = rack.pis[1]
    assert rack.pi("pi2") is rack.pi("2") is rack.pi("2c:cf:67:00:00:02") is second
    assert second.board.folder == "7bf18e02"
    with pytest.raises(KeyError):
        rack.pi("pi3")


def test_off_is_off(tmp_path: Path) -> None:
    rack = Rack(tmp_path, 1, "light")
    rack.pis[0].power_off()
    assert rack.pis[0].state is PiState.OFF
    assert not rack.pis[0].is_on
    assert rack.wait_state(PiState.OFF, 0)
    assert not rack.wait_state(PiState.DEAD, 0)
    rack.close()


def test_cards_of_light_pis(tmp_path: Path) -> None:
    pi = Rack(tmp_path, 1, "light").pis[0]
    assert pi.card() == Card()
    pi.put_card("foreign")
    assert pi.card() == Card("foreign")
    installed = Card("piman", "image-1", "ab", "token", 3)
    installed.save(tmp_path / "pis" / "pi1" / "card.json")
    assert Rack(tmp_path, 1, "light").pis[0].card() == installed
    with pytest.raises(LabError):
        pi.put_card("square")


def test_cards_of_machines(tmp_path: Path) -> None:
    card = tmp_path / "sd.img"
    make_card(card, 1 << 24)
    assert card.stat().st_size == 1 << 24
    assert card.stat().st_blocks == 0
    make_card(card, 1 << 24, "foreign")
    data = card.read_bytes()
    assert data[510:512] == b"\x55\xaa"
    assert data[8192 * 512 + 1024 + 56 :][:2] == b"\x53\xef"  # ext4
    make_card(card, 1 << 24, "none")
    assert not card.exists()
    with pytest.raises(LabError, match="powers of two"):
        make_card(card, 3 << 20)


def test_command_lines(tmp_path: Path) -> None:
    folder = tmp_path / "a,b"
    folder.mkdir()
    words = command_line("qemu", folder, "b8:27:eb:00:00:01", 7, "quiet master=1")
    assert "-initrd" not in words
    assert "sdhci-pci" not in words
    assert "dgram,id=n0,local.type=fd,local.str=7" in words
    assert words[words.index("-append") + 1] == "quiet master=1 console=ttyAMA0,115200"
    for name in ("initramfs", "sd.img"):
        (folder / name).touch()
    words = command_line("qemu", folder, "b8:27:eb:00:00:01", 7, "")
    assert words[words.index("-initrd") + 1] == str(folder / "initramfs")
    assert any("a,,b" in word and "sd.img" in word for word in words)
    words = command_line("raspi3b", folder, "b8:27:eb:00:00:01", 7, "")
    assert words[words.index("-dtb") + 1] == str(folder / "device_tree")
    assert words[words.index("-append") + 1].endswith("maxcpus=1")


def test_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda tool, path: None if tool in ("ip", "bridge", "mke2fs") else tool)
    assert prerequisites("light") == ["iproute2"]
    assert prerequisites("qemu") == ["e2fsprogs", "iproute2"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"pid": "x"}', None])
def test_no_lab_runs_there(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "lab.json").write_text(text)
    with pytest.raises(LabError, match="no lab runs"):
        namespaces.find_lab(tmp_path)


def test_the_lab_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIMAN_LAB_OUTER", raising=False)
    namespaces.write_lab_file(tmp_path)
    assert namespaces.find_lab(tmp_path) == os.getpid()
    (tmp_path / "lab.json").write_text(json.dumps({"pid": 4_000_000_000}))
    with pytest.raises(LabError, match="has ended"):
        namespaces.find_lab(tmp_path)
