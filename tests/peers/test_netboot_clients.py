"""Real boot loaders at our DHCP and TFTP servers, in QEMU: U-Boot, iPXE, UEFI's PXE. What each does is noted there.

The loaders and the operating system of one board have one MAC, and so one address.
"""

from __future__ import annotations

import logging
import os
import random
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from dhcp.packet import Option, Packet, parse
from lab.frames import parse_udp
from tests.peers.loaders import ARM, MAC, X86, IPxe, UBoot, u_boot
from tests.peers.machines import Machine
from tests.peers.manager import ADDRESS, Manager
from tests.peers.netns import Network
from utility.hosts import Host
from utility.service import Stage

SOAK = bool(os.environ.get("PIMAN_SOAK"))
BOARD = IPv4Address("172.30.4.13")
BIG = 30_000_000
SIZES = {"big": BIG, "small": 300_000, "even": 512 * 300, "tiny": 40_001}
UUID = ["-uuid", "6f1b3c5a-0001-4a4a-8888-0123456789ab"]


@pytest.fixture(scope="module")
def boot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("boot")
    for name, size in SIZES.items():
        (folder / name).write_bytes(random.Random(name).randbytes(size))
    return folder


@pytest.fixture
def manager(boot: Path) -> Iterator[Manager]:
    with Network() as net:
        net.host("pi", None, mac=MAC)
        with Manager(net, boot, {MAC: Host(MAC, BOARD, "pi1")}) as manager:
            yield manager


def requests(caplog: pytest.LogCaptureFixture) -> list[dict[str, str]]:
    """The options of each read request, as the TFTP server logs them."""
    found = []
    for record in caplog.records:
        if record.name == "piman.tftp" and " RRQ " in record.msg and isinstance(record.args, tuple):
            found.append(dict(record.args[-1]))  # type: ignore[call-overload]
    return found


def the_system_gets_the_same_address(manager: Manager, tmp_path: Path) -> None:
    """An operating system on the same board, after the loader."""
    script = tmp_path / "script"
    script.write_text('#!/bin/sh\necho "GOT $1 $ip"\n')
    script.chmod(0o755)
    words = ["busybox", "udhcpc", "-f", "-n", "-q", "-i", "eth0", "-s", str(script), "-t", "5", "-T", "1"]
    assert f"GOT bound {BOARD}" in manager.net.run("pi", words, timeout=30).stdout


# --- U-Boot ---


@pytest.fixture
def uboot(manager: Manager, request: pytest.FixtureRequest) -> Iterator[UBoot]:
    with u_boot(manager.net.namespace("pi"), request.param) as machine:
        it = UBoot(machine)
        assert f"DHCP client bound to address {BOARD}" in it.run("dhcp", 60)
        yield it


@pytest.mark.parametrize("uboot", ["virtio-net-pci"], indirect=True)
def test_uboot_gets_the_address_of_the_system(manager: Manager, uboot: UBoot, tmp_path: Path) -> None:
    """Its vendor class is "U-Boot.armv8", no PXE client's; it takes the boot server from siaddr alone.

    Its first DISCOVERs are a quarter of a second apart, so that a reply late by more comes to the next of them.
    """
    assert f"serverip={ADDRESS}" in uboot.run("printenv serverip")
    assert {each.sent for each in manager.told(sent="DHCP")} == {f"DHCPOFFER {BOARD}", f"DHCPACK {BOARD}"}
    assert manager.wait_told(event=f"U-Boot has {BOARD}").stage is Stage.LEASE  # not up: a loader
    the_system_gets_the_same_address(manager, tmp_path)


# U-Boot caps its block at what fits a frame, 1468. Its driver of a virtio card never hears again once a window has
# more than the card's 31 buffers (it gives them back without telling the card), so a card of another kind is used here.
SHORT = [("big", 1468, 1), ("big", 448, 1), ("big", 1468, 4), ("big", 1468, 16), ("big", 1468, 64)]
SHORT += [("even", 512, 1), ("even", 512, 4), ("tiny", 8, 1), ("small", 1024, 300)]
LONG = [(name, block, window) for name in SIZES for block in (448, 512, 1024, 1468) for window in (1, 2, 4, 8, 16, 64)]


@pytest.mark.timeout(3600 if SOAK else 300)
@pytest.mark.parametrize("uboot", ["e1000"], indirect=True)
def test_uboot_fetches(manager: Manager, uboot: UBoot, boot: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It asks for timeout (5) and blksize, for windowsize where it is not 1, and for no tsize.

    With blocks of 448 bytes the block number goes over 65535: U-Boot counts on, from 0. The timeout that it asks for
    is how long a lost block stays lost: nothing is lost here.
    """
    caplog.set_level(logging.DEBUG, "piman.tftp")
    for number, (name, block, window) in enumerate(LONG if SOAK else SHORT, 1):
        uboot.fetch(boot / name, block, window)
        wanted = {"timeout": "5", "blksize": str(block)} | ({"windowsize": str(window)} if window > 1 else {})
        assert requests(caplog)[-1] == wanted
        manager.wait_completed(number)
    assert manager.wait_told(heard="RRQ big").stage is Stage.FIRMWARE


@pytest.mark.parametrize("uboot", ["virtio-net-pci"], indirect=True)
def test_uboot_fetches_a_window_that_its_virtio_card_can_hold(manager: Manager, uboot: UBoot, boot: Path) -> None:
    uboot.fetch(boot / "big", 1468, 16)
    manager.wait_completed(1)


# --- iPXE ---


def test_ipxe(manager: Manager, boot: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It asks for blocks of 1432 bytes and for tsize, and takes a script as well as any file.

    It calls itself an x86 BIOS, as the Pi's loaders do; options 77 and 175 say what it is. What it takes from DHCP it
    also says: once option 60 has come back as "PXEClient", that is its own vendor class. A boot menu in option 43 it
    obeys.
    """
    caplog.set_level(logging.DEBUG, "piman.tftp")
    (boot / "s").write_text("#!ipxe\necho SCRIPT ${net0/ip} ${next-server}\n")
    words = [*X86, *UUID, "-M", "pc,graphics=off", "-boot", "n"]
    with Machine(words, [(manager.net.namespace("pi"), "eth0")], MAC, "virtio-net-pci,mac={mac}") as machine:
        ipxe = IPxe(machine)
        assert "ok" in ipxe.run("ifconf -c dhcp", 60)  # all configurators would also wait for IPv6
        assert str(BOARD) in ipxe.run("show net0/ip")
        assert manager.wait_told(event=f"iPXE has {BOARD}").stage is Stage.LEASE
        assert "ok" in ipxe.run(f"imgfetch tftp://{ADDRESS}/big", 120)
        assert f"big : {BIG} bytes" in ipxe.run("imgstat")
        manager.wait_completed(1)
        assert requests(caplog) == [{"blksize": "1432", "tsize": "0"}]
        assert f"SCRIPT {BOARD} {ADDRESS}" in ipxe.run(f"chain tftp://{ADDRESS}/s")
        manager.wait_completed(2)
    the_system_gets_the_same_address(manager, tmp_path)


# --- UEFI ---

FIRMWARE = {
    "x86": [*X86, *UUID, "-M", "q35", "-bios", "/usr/share/ovmf/OVMF.fd"],
    "arm64": [*ARM, *UUID, "-bios", "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd"],
}


@pytest.mark.parametrize("kind", FIRMWARE)
def test_uefi_is_offered_an_address_and_no_pi_menu(manager: Manager, kind: str, tmp_path: Path) -> None:
    """EDK2 says Arch:00007 (x86) or Arch:00011 (arm64), never the Pis' 00000.

    It takes no offer that names no boot file, so it sends no REQUEST and goes on to its next boot option: an address
    alone is nothing to it.
    """
    with manager.net.enter("pi"):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        wire.bind(("eth0", 0x0800))
    wire.settimeout(60)
    with wire, Machine(FIRMWARE[kind], [(manager.net.namespace("pi"), "eth0")], MAC) as machine:
        machine.expect("Start PXE over IPv4", 90)
        offer = take_offer(wire)
    assert (offer.yiaddr, offer.siaddr, offer.address(Option.SERVER_IDENTIFIER)) == (BOARD, ADDRESS, ADDRESS)
    assert Option.VENDOR_SPECIFIC not in offer.options
    assert not any(each.stage is Stage.UP for each in manager.reports)
    told = manager.wait_told(event="asks for an address")
    assert told.stage is Stage.DISCOVER
    assert told.event.startswith("UEFI")
    the_system_gets_the_same_address(manager, tmp_path)


def take_offer(wire: socket.socket) -> Packet:
    while True:
        datagram = parse_udp(wire.recv(65535))
        if datagram is not None and datagram.destination_port == 68:
            return parse(datagram.payload)
