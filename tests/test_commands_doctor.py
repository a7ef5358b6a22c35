"""piman doctor: a rack that is sound but for one thing, files that cannot be read, and what a script gets."""

from __future__ import annotations

import json
import logging
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from commands.doctor import doctor
from commands.session import Session
from lab.switch import Device, FamilySwitch
from monitoring.store import PiRow, Store
from tests.test_inspection import archive

CONFIG = """\
private_number: 4
server_address: 127.0.0.1
subnet_mask: 255.0.0.0
interface: lo
ports: {dhcp: 16767, tftp: 16969, hello: 13333, image: 14444, ntp: 11123, web: 15000}
snmp: {timeout: 0.3, retries: 0}
switches:
  - address: 127.0.9.3
    pi_addresses:
      - 127.0.4.13
"""
FILES = ("bootcode.bin", "start.elf", "fixup.dat", "bcm2710-rpi-3-b.dtb", "kernel8.img", "initramfs.gz")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "hosts.csv").write_text("b8:27:eb:00:00:01;127.0.4.13;pi1;0\n")
    boot = tmp_path / "install" / "boot"
    boot.mkdir(parents=True)
    for name in FILES:
        (boot / name).write_bytes(b"x")
    (boot / "cmdline.txt").write_text("quiet master={server_address}\n")
    (boot / "config.txt").write_text("kernel=kernel8.img\ninitramfs initramfs.gz followkernel\n")
    archive(boot / "rootfs.tgz", "./sbin/init")
    return tmp_path


def run(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(doctor, words, obj=Session(folder / "config.yaml", None, folder / ".env", logging.INFO))


def test_a_sound_rack_but_for_the_community(folder: Path, tmp_path: Path) -> None:
    (folder / ".env").write_text("PIMAN_SNMP_READ_COMMUNITY=public\n")
    with FamilySwitch("standard", tmp_path / "s", "127.0.9.3", devices={1: Device(("b8:27:eb:00:00:01",))}):
        said = run(folder)
    assert said.exit_code == 0, said.output
    lines = said.output.splitlines()
    assert [line for line in lines if not line.startswith(("ok ", "   "))] == [
        "warning  switch 0     anybody on its network can switch its ports: the write community is what it came with"
    ]
    assert "         switch" not in said.output
    assert lines[-1].endswith("-> set another on the switch, and PIMAN_SNMP_WRITE_COMMUNITY in .env")
    assert any(line.startswith("ok       boot files   there for Pi 3") for line in lines)
    assert not (folder / "state").exists()  # it changes nothing


def test_what_is_wrong_is_an_error_for_a_script(folder: Path) -> None:
    (folder / ".env").touch()
    (folder / "install" / "boot" / "kernel8.img").unlink()
    with Store(folder / "state" / "piman.db") as store:
        store.save_board([], [PiRow("b8:27:eb:00:00:01", "pi1", IPv4Address("127.0.4.13"), facts={"model": "Pi 4"})])
    said = run(folder, "--json")
    assert said.exit_code == 1
    shown, _, error = said.output.rpartition("Error: ")
    checks = json.loads(shown)
    assert all(each.keys() == {"area", "severity", "text", "advice"} for each in checks)
    wrong = [(each["area"], each["text"].split(",")[0]) for each in checks if each["severity"] == "error"]
    assert wrong[:2] == [("boot files", "kernel8.img is named in config.txt"), ("boot files", "a Pi 4 was seen")]
    assert wrong[2][1].startswith("switch 127.0.9.3")
    assert error == "3 things will not work\n"


def test_files_that_cannot_be_read_are_all_that_is_told(folder: Path) -> None:
    (folder / ".env").touch()
    (folder / "config.yaml").write_text(
        CONFIG.replace("lo\n", "lo\ncolour: red\n").replace("127.0.4.13", "127.0.4.300")
    )
    said = run(folder)
    assert said.exit_code == 1
    assert said.output.count("ERROR    config.yaml  ") == 2
    assert "colour: unknown key" in said.output
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "hosts.csv").write_text("nonsense\n")
    assert "ERROR    hosts.csv  " in run(folder).output
