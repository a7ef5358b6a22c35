"""Our DHCP server against udhcpc, dhclient, and frames as boards send them, on a wire of network namespaces."""

from __future__ import annotations

import random
import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from dhcp.boards import BOOT_ROM_GUID
from dhcp.frames import BROADCAST_MAC, Frame, parse_frame
from dhcp.packet import Packet, Value, parse
from dhcp.policy import DhcpPolicy
from dhcp.replies import BROADCAST, PI_BOOT_MENU, DhcpSettings
from dhcp.server import DhcpServer
from tests.peers.netns import Network
from utility.hosts import Host
from utility.service import Report, Stage

SERVER = IPv4Address("172.30.4.1")
ADDRESS = IPv4Address("172.30.4.13")
MAC = "b8:27:eb:00:00:01"
SETTINGS = DhcpSettings(
    SERVER,
    IPv4Network("172.30.4.0/24"),
    lease_time=120,
    router=IPv4Address("172.30.4.254"),
    dns=(IPv4Address("172.30.4.53"),),
    domain="rack.example",
)


class Rack:
    """A manager whose DHCP server runs in a thread, and a Pi on the same wire."""

    def __init__(self, net: Network) -> None:
        self.net = net
        self.hosts = {MAC: Host(MAC, ADDRESS, "pi1")}
        self.reports: list[Report] = []
        with net.enter("mgr"):
            self.server = DhcpServer("eth0", DhcpPolicy(SETTINGS, self.hosts.get), self.reports.append)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()

    def stages(self) -> list[Stage]:
        return [each.stage for each in self.reports if each.stage is not None]

    def heard(self) -> list[str]:
        return [each.heard.split()[0] for each in self.reports if each.heard]

    def wire(self) -> socket.socket:
        """A raw socket on the Pi's interface."""
        with self.net.enter("pi"):
            wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            wire.bind(("eth0", 0x0800))
            wire.settimeout(10)
        return wire


@pytest.fixture
def rack() -> Iterator[Rack]:
    with Network() as net:
        net.host("mgr", "172.30.4.1/24")
        net.host("pi", None, mac=MAC)
        it = Rack(net)
        yield it
        it.server.stop()
        it.thread.join(2)
        assert not it.thread.is_alive()


def wait_for(true: Callable[[], bool], limit: float = 10) -> bool:
    end = time.monotonic() + limit
    while not true() and time.monotonic() < end:
        threading.Event().wait(0.02)
    return true()


# --- udhcpc ---

SCRIPT = """#!/bin/sh
echo "GOT $1 ip=$ip subnet=$subnet router=$router dns=$dns domain=$domain hostname=$hostname ntp=$ntpsrv lease=$lease"
echo "FROM serverid=$serverid siaddr=$siaddr"
[ -z "$ip" ] || ip addr replace "$ip/24" dev "$interface"
"""
WANTED = ("subnet", "router", "dns", "domain", "hostname", "ntpsrv", "lease")
OPTIONS = [word for name in WANTED for word in ("-O", name)]


@pytest.fixture
def udhcpc(tmp_path: Path) -> list[str]:
    script = tmp_path / "script"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    return ["busybox", "udhcpc", "-f", "-i", "eth0", "-s", str(script), "-t", "5", "-T", "1", *OPTIONS]


def test_udhcpc_gets_its_address_and_options(rack: Rack, udhcpc: list[str]) -> None:
    done = rack.net.run("pi", [*udhcpc, "-n", "-q"], timeout=20)
    assert done.returncode == 0, done.stderr
    assert (
        "GOT bound ip=172.30.4.13 subnet=255.255.255.0 router=172.30.4.254 dns=172.30.4.53 domain=rack.example "
        "hostname=pi1 ntp=172.30.4.1 lease=120"
    ) in done.stdout
    assert "FROM serverid=172.30.4.1 siaddr=172.30.4.1" in done.stdout
    assert rack.stages() == [Stage.UP]


def test_our_installer_is_no_system_that_is_up(rack: Rack, udhcpc: list[str]) -> None:
    done = rack.net.run("pi", [*udhcpc, "-n", "-q", "-V", "piman-installer"], timeout=20)
    assert "GOT bound ip=172.30.4.13" in done.stdout
    assert rack.stages() == []
    assert any(each.event == "the installer has 172.30.4.13" for each in rack.reports)


def test_udhcpc_asks_for_broadcast(rack: Rack, udhcpc: list[str]) -> None:
    assert "GOT bound ip=172.30.4.13" in rack.net.run("pi", [*udhcpc, "-n", "-q", "-B"], timeout=20).stdout


def test_udhcpc_renews_and_releases(rack: Rack, udhcpc: list[str]) -> None:
    process = rack.net.popen("pi", udhcpc)
    assert wait_for(lambda: Stage.UP in rack.stages())
    assert wait_for(lambda: "172.30.4.13/24" in rack.net.run("pi", ["ip", "addr"]).stdout)
    subprocess.run(["kill", "-USR1", str(process.pid)], check=True)
    assert wait_for(lambda: any("renewing" in each.heard for each in rack.reports))
    assert process.stdout is not None
    said: list[str] = []
    while not said or "GOT renew" not in said[-1]:
        said.append(process.stdout.readline())
        assert said[-1], said
    assert "ip=172.30.4.13" in said[-1]
    # The renewal comes from a socket of the kernel, what was before from a raw one: each is seen exactly once.
    assert rack.server.counters["received"] == sum(": broadcasting " in each or ": sending " in each for each in said)
    subprocess.run(["kill", "-USR2", str(process.pid)], check=True)
    assert wait_for(lambda: "DHCPRELEASE" in rack.heard())


def test_a_stranger_gets_nothing(rack: Rack, udhcpc: list[str]) -> None:
    rack.hosts.clear()
    done = rack.net.run("pi", [*udhcpc, "-n", "-q", "-t", "2", "-V", "PXEClient:x"], timeout=20)
    assert done.returncode == 1
    assert "GOT leasefail" in done.stdout
    assert rack.server.counters["sent"] == 0
    assert 'vendor class "PXEClient:x"' in rack.reports[0].event


# --- dhclient ---


@pytest.fixture
def dhclient(tmp_path: Path) -> list[str]:
    script, config = tmp_path / "script", tmp_path / "dhclient.conf"
    # The script of Debian would write resolv.conf and the host name of this machine.
    script.write_text(
        '#!/bin/sh\n[ -z "$new_ip_address" ] || ip addr replace "$new_ip_address/24" dev "$interface"\n'
        f"env | grep -E '^(reason|new_)' >>{tmp_path}/got\nexit 0\n"
    )
    script.chmod(0o755)
    config.write_text(
        "request subnet-mask, routers, domain-name-servers, domain-name, host-name, ntp-servers, broadcast-address;\n"
        "timeout 20; initial-interval 1; retry 1;\n"
    )
    files = ["-lf", f"{tmp_path}/leases", "-pf", f"{tmp_path}/pid", "-cf", str(config), "-sf", str(script)]
    return ["dhclient", "-v", "-1", *files]


def test_dhclient_gets_reboots_is_refused_and_releases(rack: Rack, dhclient: list[str], tmp_path: Path) -> None:
    done = rack.net.run("pi", [*dhclient, "eth0"], timeout=30)
    assert done.returncode == 0, done.stderr
    got = (tmp_path / "got").read_text()
    for line in (
        "new_ip_address=172.30.4.13",
        "new_subnet_mask=255.255.255.0",
        "new_routers=172.30.4.254",
        "new_domain_name_servers=172.30.4.53",
        "new_domain_name=rack.example",
        "new_host_name=pi1",
        "new_ntp_servers=172.30.4.1",
        "new_broadcast_address=172.30.4.255",
        "new_dhcp_lease_time=120",
        "new_dhcp_renewal_time=60",
        "new_dhcp_rebinding_time=105",
        "new_dhcp_server_identifier=172.30.4.1",
    ):
        assert f"{line}\n" in got
    # It remembers its lease, so the next start is an INIT-REBOOT: with the address of hosts.csv, an ACK ...
    stop(tmp_path)
    assert "DHCPDISCOVER" not in rack.net.run("pi", [*dhclient, "eth0"], timeout=30).stderr
    assert any("init-reboot" in each.heard and "ACK" in each.sent for each in rack.reports)
    # ... and after an edit, a NAK and the new address.
    stop(tmp_path)
    rack.hosts[MAC] = Host(MAC, IPv4Address("172.30.4.14"), "pi1")
    done = rack.net.run("pi", [*dhclient, "eth0"], timeout=30)
    assert "DHCPNAK" in done.stderr
    assert "bound to 172.30.4.14" in done.stderr
    rack.net.run("pi", [*dhclient, "-r", "eth0"], timeout=30)
    assert wait_for(lambda: "DHCPRELEASE" in rack.heard())


def stop(folder: Path) -> None:
    """End dhclient without a RELEASE, as a loss of power does."""
    path = folder / "pid"
    assert wait_for(lambda: path.exists() and path.read_text().endswith("\n"))  # it is written after the lease is told
    subprocess.run(["kill", "-9", path.read_text().strip()], check=True)
    path.unlink()


# --- boards ---


def boot_rom(number: int = 1) -> Packet:
    """A Pi 3B's DISCOVER, 320 bytes: constant xid, GUID of all 44, options in this order."""
    options: dict[int, Value] = {
        53: 1,
        55: (43, 60, 67, 128, 129, 130, 131, 132, 133, 134, 135, 66),
        93: b"\0\0",
        94: b"\1\2\1",
        97: BOOT_ROM_GUID,
        60: "PXEClient:Arch:00000:UNDI:002001",
    }
    return Packet(op=1, xid=0x26F30339, chaddr=bytes.fromhex(f"b827eb0000{number:02x}"), options=options)


def put(wire: socket.socket, packet: Packet) -> None:
    frame = Frame(packet.mac, BROADCAST_MAC, IPv4Address(0), BROADCAST, 68, 67, packet.encode()).encode()
    wire.send(frame[:40] + b"\0\0" + frame[42:])  # like the ROM, without a UDP checksum


def take(wire: socket.socket) -> Frame:
    while True:
        data = wire.recv(65535)
        if data[12:14] == b"\x08\x00" and data[23] == 17:
            frame = parse_frame(data)
            if frame.destination_port == 68:
                return frame


def test_the_boot_rom_of_a_3b(rack: Rack) -> None:
    with rack.wire() as wire:
        start = time.monotonic()
        put(wire, boot_rom())
        frame = take(wire)
        waited = time.monotonic() - start
    assert 1.1 < waited < 4
    assert frame.destination_mac == MAC
    assert (frame.source, frame.destination) == (SERVER, ADDRESS)
    offer = parse(frame.payload)
    assert (offer.yiaddr, offer.siaddr, offer.xid) == (ADDRESS, SERVER, 0x26F30339)
    assert offer.raw(43) == PI_BOOT_MENU
    assert offer.raw(97) == BOOT_ROM_GUID
    assert (offer.text(60), offer.text(66), offer.address(54)) == ("PXEClient", str(SERVER), SERVER)
    assert wait_for(lambda: rack.stages() == [Stage.DISCOVER, Stage.LEASE])
    # It answers no ARP, so the manager must not need any.
    neighbour = rack.net.run("mgr", ["ip", "neigh", "show", str(ADDRESS)]).stdout
    assert re.search(rf"lladdr {MAC} .*PERMANENT", neighbour)


def test_twenty_boot_roms_wait_at_the_same_time(rack: Rack) -> None:
    macs = {boot_rom(n).mac: Host(boot_rom(n).mac, IPv4Address(f"172.30.4.{100 + n}")) for n in range(20)}
    rack.hosts.update(macs)
    start = time.monotonic()
    with rack.wire() as wire:
        for n in range(20):
            put(wire, boot_rom(n))
        offers = {frame.destination_mac: frame.destination for frame in (take(wire) for _ in range(20))}
    assert time.monotonic() - start < 5
    assert offers == {mac: host.address for mac, host in macs.items()}


def test_a_frame_of_another_vlan_is_not_answered(rack: Rack) -> None:
    with rack.wire() as wire:
        plain = Frame(MAC, BROADCAST_MAC, IPv4Address(0), BROADCAST, 68, 67, boot_rom().encode()).encode()
        wire.send(plain[:12] + struct.pack("!HH", 0x8100, 12) + plain[12:])
        put(wire, Packet(op=1, xid=5, chaddr=bytes.fromhex("b827eb000001"), options={53: 1}))
        assert parse(take(wire).payload).xid == 5
    assert rack.server.counters["received"] == 1


def test_it_serves_after_a_barrage_of_garbage(rack: Rack, udhcpc: list[str]) -> None:
    dice = random.Random(67)
    good = boot_rom().encode()
    with rack.wire() as wire, rack.net.enter("pi"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        rack.net.run("pi", ["ip", "addr", "add", "172.30.4.99/24", "dev", "eth0"])
        for _ in range(3000):
            data = bytearray(good[: dice.randrange(len(good) + 1)])
            for _ in range(dice.randrange(9)):
                if data:
                    data[dice.randrange(len(data))] = dice.randrange(256)
            frame = Frame(MAC, BROADCAST_MAC, IPv4Address(0), BROADCAST, 68, 67, bytes(data)).encode()
            if dice.random() < 0.3:
                at = dice.randrange(14, len(frame))
                frame = frame[:at] + dice.randbytes(3) + frame[at + 3 :]
            wire.send(frame[: dice.choice((len(frame), len(frame), dice.randrange(14, len(frame) + 1)))])
            plain.sendto(bytes(data), (str(SERVER), 67))
        plain.sendto(bytes(60000), (str(SERVER), 67))
        rack.net.run("pi", ["ip", "addr", "flush", "dev", "eth0"])
    done = rack.net.run("pi", [*udhcpc, "-n", "-q"], timeout=20)
    assert "GOT bound ip=172.30.4.13" in done.stdout
    assert rack.server.counters["malformed"] > 1000


def test_it_survives_a_link_that_goes_down_and_says_when_the_interface_is_gone(rack: Rack, udhcpc: list[str]) -> None:
    rack.net.run("mgr", ["ip", "link", "set", "eth0", "down"])
    assert wait_for(lambda: rack.server._link_lost)
    rack.net.run("mgr", ["ip", "link", "set", "eth0", "up"])
    assert "GOT bound" in rack.net.run("pi", [*udhcpc, "-n", "-q"], timeout=20).stdout
    failures: list[OSError] = []
    rack.server.stop()
    rack.thread.join(2)
    with rack.net.enter("mgr"):
        second = DhcpServer("eth0", DhcpPolicy(SETTINGS, rack.hosts.get), rack.reports.append)

    def run() -> None:
        try:
            second.run()
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    rack.net.run("mgr", ["ip", "link", "del", "eth0"])
    thread.join(5)
    assert not thread.is_alive()
    assert "the network interface eth0 is gone" in str(failures[0])
