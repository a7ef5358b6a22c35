"""systemd-networkd, the DHCP client of the system that we install, on an arm64 guest with Debian's kernel."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tests.peers.guests import NETWORKD
from tests.peers.machines import Machine, command, linux
from tests.peers.manager import ADDRESS, Manager
from tests.peers.netns import Network
from utility.hosts import Host
from utility.service import Stage

MAC = "b8:27:eb:00:00:01"
BOARD = IPv4Address("172.30.4.13")
LEASE_TIME = 20
CREATE_ROOTFS = Path(__file__).resolve().parents[2] / "install" / "rootfs" / "create_rootfs.sh"
PLAIN = "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\n"


def ours() -> str:
    """The network file that create_rootfs.sh puts into the image."""
    found = re.search(r"20-wired\.network\" <<'UNIT'\n(.*?)^UNIT$", CREATE_ROOTFS.read_text(), re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with Network() as net:
        net.host("pi", None, mac=MAC)
        with Manager(net, tmp_path, {MAC: Host(MAC, BOARD, "pi1")}, LEASE_TIME) as manager:
            yield manager


def boot(manager: Manager) -> Machine:
    return linux(NETWORKD, [(manager.net.namespace("pi"), "eth0")], MAC)


def start(machine: Machine, network: str, machine_id: str) -> None:
    """Start networkd alone: no systemd, no D-Bus; and no udev, which it waits for unless /sys is read-only."""
    machine.expect("GUEST-READY", 90)
    packed = base64.b64encode(network.encode()).decode()
    command(machine, "mkdir -p /etc/systemd/network /run/systemd && mount -o remount,ro /sys")
    command(machine, f"echo {packed} | base64 -d >/etc/systemd/network/20-wired.network")
    command(machine, f"echo {machine_id} >/etc/machine-id")
    command(machine, "systemd-networkd >/dev/null 2>&1 & true")


def lease(machine: Machine) -> dict[str, str]:
    """What networkd keeps of its lease, once it has one; and the address is up."""
    wait = "until ip -4 addr show dev eth0 | grep -q inet; do sleep 0.1; done"
    said = command(machine, f"{wait}; ip -4 addr show dev eth0; cat /run/systemd/netif/leases/*", 60)
    assert f"inet {BOARD}/24" in said
    return dict(re.findall(r"^([A-Z_0-9]+)=(.*)$", said, re.MULTILINE))


def test_networkd_renews_and_has_its_address_after_a_reboot(manager: Manager) -> None:
    """By default it calls itself by a DUID made of the machine's id, which a fresh installation changes.

    A lease goes by the MAC, so it keeps the address; our image asks by the MAC as well.
    """
    with boot(manager) as machine:
        start(machine, PLAIN, "0123456789abcdef0123456789abcdef")
        first = lease(machine)
        assert first["SERVER_ADDRESS"] == str(ADDRESS)
        assert first["CLIENTID"].startswith("ff")  # RFC 4361
        assert (first["LIFETIME"], first["T1"], first["T2"]) == ("20", "10", "17")
        # At T1, from its own address to ours: twice, so the second time by the times of the first renewal's ACK.
        manager.wait_told(heard=f"DHCPREQUEST {BOARD} (renewing)", sent=f"DHCPACK {BOARD}", times=2, limit=60)
        left = re.search(r"valid_lft (\d+)sec", command(machine, "ip -4 addr show dev eth0"))
        assert left
        assert 0 < int(left[1]) <= LEASE_TIME
        machine.type("reboot -f\n")
        machine.wait(30)
    discovers = len(manager.told(heard="DHCPDISCOVER"))
    with boot(manager) as machine:
        start(machine, ours(), "fedcba9876543210fedcba9876543210")
        second = lease(machine)
        assert second["CLIENTID"] == "01" + MAC.replace(":", "")
        assert second["NTP"] == str(ADDRESS)
    assert len(manager.told(heard="DHCPDISCOVER")) > discovers  # nothing of the first boot was left
    assert {each.stage for each in manager.told(sent="DHCPACK")} == {Stage.UP}
    assert not manager.told(sent="DHCPNAK")


def test_networkd_takes_its_address_again_when_it_is_restarted(manager: Manager) -> None:
    """It gives nothing back when it is stopped, and asks from the start: no INIT-REBOOT, as dhclient does."""
    with boot(manager) as machine:
        start(machine, ours(), "0123456789abcdef0123456789abcdef")
        lease(machine)
        command(machine, "kill $(pidof systemd-networkd); while pidof systemd-networkd; do sleep 0.1; done")
        command(machine, "systemd-networkd >/dev/null 2>&1 & true")
        manager.wait_told(sent=f"DHCPACK {BOARD}", times=2)
    requests = [each.heard.split()[0] for each in manager.reports if each.heard]
    assert requests == ["DHCPDISCOVER", "DHCPREQUEST"] * 2
