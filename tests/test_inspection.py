"""inspection: this machine's interfaces and ports, files and folders that are not as they should be, real switches."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from lab.switch import FamilySwitch
from monitoring import inspection
from monitoring.doctor import Link
from monitoring.inspection import (
    ask_switches,
    is_our_address,
    look_at_boot,
    look_at_folder,
    look_at_image,
    look_at_links,
    running_server,
    try_ports,
)
from tests.peers.netns import Network
from utility.config import Commands, Config, Ports, SnmpAccess, Switch
from utility.service import only_server

LOCALHOST = IPv4Address("127.0.0.1")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    ports = Ports(dhcp=16767, tftp=16969, hello=13333, image=14444, ntp=11123, web=15000)
    return Config(
        tmp_path / "config.yaml", 4, LOCALHOST, IPv4Network("127.0.0.0/8"), "lo", (), tmp_path, tmp_path / "r.tgz",
        tmp_path / "state", tmp_path / "logs", ports=ports,
    )  # fmt: skip


def archive(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w:gz") as made:
        for name in names:
            made.addfile(tarfile.TarInfo(name), io.BytesIO())
    return path


def test_the_loopback_interface_is_seen() -> None:
    (loopback,) = (link for link in look_at_links() if link.name == "lo")
    assert loopback.is_up
    assert loopback.has_carrier
    assert loopback.networks == (IPv4Network("127.0.0.0/8"),)


def test_the_networks_of_interfaces() -> None:
    with Network() as net:
        net.host("a", "10.9.1.1/24")
        for words in ("addr add 10.9.2.1/28 dev eth0", "link add idle type veth peer name other"):
            assert net.run("a", ["ip", *words.split()]).returncode == 0
        with net.enter("a"):
            links = {link.name: link for link in look_at_links()}
    assert links["eth0"] == Link("eth0", True, True, (IPv4Network("10.9.1.0/24"), IPv4Network("10.9.2.0/28")))
    assert links["idle"] == Link("idle", False, False)


def test_addresses() -> None:
    assert is_our_address(LOCALHOST)
    assert not is_our_address(IPv4Address("192.0.2.7"))


def test_free_ports_can_be_had(config: Config) -> None:
    tries = try_ports(config)
    assert [each.service for each in tries] == ["dhcp", "tftp", "hello", "image", "ntp", "web"]
    assert not any(each.error for each in tries)
    assert len(try_ports(replace(config, services=("tftp",)))) == 1


@pytest.mark.parametrize(("kind", "service"), [(socket.SOCK_DGRAM, "tftp"), (socket.SOCK_STREAM, "image")])
def test_a_port_that_somebody_holds(config: Config, kind: socket.SocketKind, service: str) -> None:
    with socket.socket(socket.AF_INET, kind) as holder:
        holder.bind(("127.0.0.1", getattr(config.ports, service)))
        if kind is socket.SOCK_STREAM:
            holder.listen()
        (found,) = (each for each in try_ports(config) if each.error)
    assert (found.service, found.error, found.denied) == (service, "Address already in use", False)


def test_a_port_that_we_may_not_have(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: socket.socket, _address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    assert all(each.denied for each in try_ports(config))


def test_a_boot_folder(tmp_path: Path) -> None:
    (tmp_path / "config.txt").write_bytes(b"kernel=k\xff\n")
    (tmp_path / "overlays").mkdir()
    found = look_at_boot(tmp_path, lambda folder: [f"{folder.name} is odd"])
    assert found.exists
    assert (found.names, found.config_txt, found.cmdline) == (frozenset({"config.txt"}), "kernel=k\ufffd\n", "")
    assert found.problems == (f"{tmp_path.name} is odd",)
    assert not look_at_boot(tmp_path / "none", lambda _folder: []).exists


@pytest.mark.parametrize("name", ["sbin/init", "./sbin/init", "./usr/sbin/init", "/sbin/init"])
def test_an_image_with_init(tmp_path: Path, name: str) -> None:
    assert look_at_image(archive(tmp_path / "r.tgz", "./etc", name)).has_init


def test_images_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = archive(tmp_path / "r.tgz", *(f"rootfs/sbin/init{each}" for each in range(2000)))
    assert look_at_image(whole).has_init is False
    torn = tmp_path / "torn.tgz"
    torn.write_bytes(whole.read_bytes()[:3000])
    assert "not complete" in look_at_image(torn).problem
    plain = tmp_path / "plain.tgz"
    plain.write_text("no archive")
    assert look_at_image(plain).problem == "is no .tar.gz, or is not complete"
    assert look_at_image(tmp_path / "none").problem == "No such file or directory"
    assert look_at_image(tmp_path).problem == "Is a directory"
    monkeypatch.setattr(inspection, "IMAGE_PATIENCE", -1.0)
    assert look_at_image(whole).has_init is None


def test_a_server_that_runs(tmp_path: Path) -> None:
    assert running_server(tmp_path) == ""
    comm = Path("/proc/self/comm").read_text().strip()
    with only_server(tmp_path):
        assert running_server(tmp_path) == f"{comm} (process {os.getpid()})"
        (tmp_path / "server.pid").write_text("gone")
        assert running_server(tmp_path) == "a server"


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert look_at_folder(tmp_path / "state" / "deep").free > 0
    file = tmp_path / "file"
    file.touch()
    assert look_at_folder(file / "state").problem == f"{file} is no folder"
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    assert look_at_folder(tmp_path).problem == "this user may not write there"


def test_switches_are_asked(tmp_path: Path) -> None:
    quick = SnmpAccess(timeout=0.2, retries=0)
    with FamilySwitch("standard", tmp_path, "127.0.9.1", ports=4):
        answered, silent = ask_switches(
            [Switch(0, IPv4Address("127.0.9.1")), Switch(1, IPv4Address("127.0.9.2"), snmp=quick)]
        )
    by_commands = Switch(2, IPv4Address("127.0.9.4"), driver="exec", commands=Commands("true", "true", "echo on", 1))
    (told,) = ask_switches([by_commands])
    assert (told.description, [port.number for port in told.ports if port.has_poe]) == ("by driver exec", [1])
    assert sum(port.has_poe for port in answered.ports) == 4
    assert (answered.description, answered.capabilities.driver) == ("Piman lab PoE switch", "standard")
    assert "127.0.9.2" in silent.problem
    assert ask_switches([]) == []
