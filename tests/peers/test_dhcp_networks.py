"""Relays, the pool, and other DHCP servers: ours with dhcrelay, dnsmasq, dhcpcd and udhcpc on wires of namespaces."""

from __future__ import annotations

import contextlib
import logging
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from dhcp.policy import DhcpPolicy
from dhcp.replies import DhcpSettings, Subnet
from dhcp.server import DhcpServer
from tests.peers.netns import Network
from utility.hosts import Host
from utility.service import Report, Severity

SERVER = IPv4Address("172.30.4.1")
MAC = "b8:27:eb:00:00:01"
POOL = (IPv4Address("172.30.4.100"), IPv4Address("172.30.4.103"))
SETTINGS = DhcpSettings(SERVER, IPv4Network("172.30.4.0/24"), lease_time=120)
POOLED = DhcpSettings(SERVER, IPv4Network("172.30.4.0/24"), lease_time=120, pool=POOL, unknown_pis="pool")


def wait_for(true: Callable[[], bool], limit: float = 20) -> bool:
    end = time.monotonic() + limit
    while not true() and time.monotonic() < end:
        threading.Event().wait(0.02)
    return true()


class Manager:
    """Our server in the namespace `mgr`, in a thread."""

    def __init__(
        self, net: Network, settings: DhcpSettings, leases: Sequence[tuple[str, IPv4Address, float]] = ()
    ) -> None:
        self.net = net
        self.hosts: dict[str, Host] = {}
        self.reports: list[Report] = []
        self.leases: dict[str, tuple[IPv4Address, float]] = {}
        self.policy = DhcpPolicy(
            settings, self.hosts.get, self.by_address, leases, epoch=time.time() - time.monotonic()
        )
        with net.enter("mgr"):
            self.server = DhcpServer(
                "eth0", self.policy, self.reports.append, save_lease=self.save, forget_lease=self.forget
            )
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()

    def by_address(self, address: IPv4Address) -> Host | None:
        return next((host for host in self.hosts.values() if host.address == address), None)

    def save(self, mac: str, address: IPv4Address, expires: float) -> None:
        self.leases[mac] = address, expires

    def forget(self, mac: str) -> None:
        self.leases.pop(mac, None)

    def stop(self) -> None:
        self.server.stop()
        self.thread.join(2)
        assert not self.thread.is_alive()

    def heard(self, word: str) -> bool:
        return any(word in each.heard for each in self.reports)


@contextlib.contextmanager
def manager(
    net: Network, settings: DhcpSettings, leases: Sequence[tuple[str, IPv4Address, float]] = ()
) -> Iterator[Manager]:
    it = Manager(net, settings, leases)
    try:
        yield it
    finally:
        it.stop()


@pytest.fixture
def net() -> Iterator[Network]:
    with Network() as net:
        net.host("mgr", "172.30.4.1/24")
        yield net


@pytest.fixture
def udhcpc(tmp_path: Path) -> list[str]:
    script = tmp_path / "script"
    script.write_text(
        '#!/bin/sh\necho "GOT $1 ip=$ip router=$router domain=$domain lease=$lease server=$serverid"\n'
        '[ -z "$ip" ] || ip addr replace "$ip/24" dev "$interface"\n'
        '[ -z "$router" ] || ip route replace default via "$router"\n'
    )
    script.chmod(0o755)
    return ["busybox", "udhcpc", "-f", "-i", "eth0", "-s", str(script), "-t", "5", "-T", "2", "-O", "domain"]


# --- a relay between two networks ---

FAR = Subnet(IPv4Network("10.2.0.0/24"), 60, IPv4Address("10.2.0.254"), domain="far.example")
RELAYED = DhcpSettings(SERVER, IPv4Network("172.30.4.0/24"), lease_time=120, subnets=(FAR,))


@pytest.fixture
def far(net: Network) -> Iterator[Network]:
    """A second wire with a Pi on it, joined to the first by the router `relay`."""
    with Network() as far:
        net.host("relay", "172.30.4.250/24")
        far.host("pi", None, mac=MAC)
        here, there = net.namespace("relay").name, far.namespace("wire").name
        for command in (
            f"-n {here} link add eth1 type veth peer name up0 netns {there}",
            f"-n {there} link set up0 master br0 up",
            f"-n {here} addr add 10.2.0.254/24 dev eth1",
            f"-n {here} link set eth1 up",
        ):
            subprocess.run(["ip", *command.split()], check=True)
        net.run("relay", ["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"])
        net.run("mgr", ["ip", "route", "add", "10.2.0.0/24", "via", "172.30.4.250"])
        yield far


DHCRELAY = "dhcrelay -4 -d -a --no-pid -id eth1 -iu eth0 172.30.4.1"
DNSMASQ = "dnsmasq --no-daemon --port=0 --conf-file=/dev/null --user=root --dhcp-relay=10.2.0.254,172.30.4.1"


@pytest.mark.parametrize("relay", [DHCRELAY, DNSMASQ], ids=["dhcrelay", "dnsmasq"])
def test_a_pi_behind_a_relay(
    net: Network, far: Network, udhcpc: list[str], relay: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "piman.dhcp")
    net.popen("relay", relay.split())
    assert wait_for(lambda: ":0043 " in net.run("relay", ["cat", "/proc/net/udp"]).stdout)
    with manager(net, RELAYED) as it:
        it.hosts[MAC] = Host(MAC, IPv4Address("10.2.0.13"), "pi1")
        client = far.popen("pi", udhcpc)
        assert client.stdout is not None
        lines = iter(client.stdout.readline, "")
        got = next(line for line in lines if "GOT bound" in line)
        assert got == "GOT bound ip=10.2.0.13 router=10.2.0.254 domain=far.example lease=60 server=172.30.4.1\n"
        # The renewal is unicast: past the relay, through the router.
        subprocess.run(["kill", "-USR1", str(client.pid)], check=True)
        assert "GOT renew ip=10.2.0.13" in next(line for line in lines if "GOT renew" in line)
        assert it.heard("10.2.0.13 (renewing)")
    if relay is DHCRELAY:  # it adds option 82, and takes it off again
        said = [each.getMessage() for each in caplog.records if "relay agent" in each.getMessage()]
        agents = {re.search(r"relay agent (\w+)", line)[1] for line in said}  # type: ignore[index]
        assert len(agents) == 1
        for kind in ("DHCPDISCOVER", "DHCPOFFER", "DHCPREQUEST", "DHCPACK"):
            assert any(f" {kind} " in line for line in said)
        assert all(line.rpartition("; ")[2].startswith("relay agent") for line in said if line.startswith("sent"))


def test_a_pi_that_was_carried_to_the_far_network_starts_anew(net: Network, far: Network, udhcpc: list[str]) -> None:
    net.popen("relay", DHCRELAY.split())
    assert wait_for(lambda: ":0043 " in net.run("relay", ["cat", "/proc/net/udp"]).stdout)
    with manager(net, RELAYED) as it:
        it.hosts[MAC] = Host(MAC, IPv4Address("172.30.4.13"), "pi1")
        done = far.run("pi", [*udhcpc, "-n", "-q", "-t", "2"], timeout=30)
        assert "GOT leasefail" in done.stdout
        assert any("asks on 10.2.0.0/24, where its address 172.30.4.13" in each.event for each in it.reports)
        it.hosts[MAC] = Host(MAC, IPv4Address("10.2.0.13"), "pi1")
        assert "GOT bound ip=10.2.0.13" in far.run("pi", [*udhcpc, "-n", "-q"], timeout=30).stdout


# --- the pool ---


def test_a_stranger_gets_an_address_of_the_pool_and_keeps_it_over_a_restart(net: Network, udhcpc: list[str]) -> None:
    net.host("pi", None, mac=MAC)
    net.host("other", None, mac="02:00:00:00:00:02")
    with manager(net, POOLED) as it:
        assert "GOT bound ip=172.30.4.100" in net.run("pi", [*udhcpc, "-n", "-q"], timeout=30).stdout
        assert it.policy.host_of_lease(POOL[0]) == Host(MAC, POOL[0], "pi-000001")
        address, expires = it.leases[MAC]
        assert address == POOL[0]
        assert 0 < expires - time.time() <= 120
    with manager(net, POOLED, [(MAC, address, expires)]):
        assert "GOT bound ip=172.30.4.101" in net.run("other", [*udhcpc, "-n", "-q"], timeout=30).stdout
        assert "GOT bound ip=172.30.4.100" in net.run("pi", [*udhcpc, "-n", "-q"], timeout=30).stdout


def test_an_address_that_somebody_has_is_not_given(net: Network, udhcpc: list[str]) -> None:
    net.host("pi", None, mac=MAC)
    net.host("squatter", "172.30.4.100/24", mac="02:00:00:00:00:05")
    with manager(net, POOLED) as it:
        assert "GOT bound ip=172.30.4.101" in net.run("pi", [*udhcpc, "-n", "-q"], timeout=30).stdout
        (warning,) = [each for each in it.reports if each.severity is Severity.WARNING]
        assert warning.event == "02:00:00:00:00:05 uses 172.30.4.100, an address of the pool that was given to nobody"
        assert warning.mac == ""


def dhcpcd(seconds: int = 30) -> list[str]:
    """One that forgets everything: its leases of this machine are no business of the test's."""
    options = f"-4 -1 -B -d -t {seconds} -C resolv.conf -C hostname --noipv4ll"
    return ["unshare", "-m", "sh", "-c", f"mount -t tmpfs t /var/lib/dhcpcd && exec dhcpcd {options} eth0"]


def test_dhcpcd_as_on_a_pi(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "piman.dhcp")
    net.host("pi", None, mac=MAC)
    with manager(net, POOLED) as it:
        done = net.run("pi", dhcpcd(), timeout=60)
        assert "leased 172.30.4.100 for 120 seconds" in done.stderr, done.stderr
        # Boot loader, kernel and system call themselves by different identifiers, but have one address.
        assert any("client identifier ff" in each.getMessage() for each in caplog.records)
        it.hosts[MAC] = Host(MAC, IPv4Address("172.30.4.13"), "pi1")
        done = net.run("pi", dhcpcd(), timeout=60)
        assert "leased 172.30.4.13 for 120 seconds" in done.stderr, done.stderr
        assert MAC not in it.leases


def test_dhcpcd_declines_what_another_took_since(net: Network) -> None:
    net.host("pi", None, mac=MAC)
    net.host("squatter", None, mac="02:00:00:00:00:05")
    with manager(net, SETTINGS) as it:
        it.hosts[MAC] = Host(MAC, IPv4Address("172.30.4.13"), "pi1")
        net.run("squatter", ["ip", "addr", "add", "172.30.4.13/24", "dev", "eth0"])
        client = net.popen("pi", dhcpcd())
        assert wait_for(lambda: it.heard("DHCPDECLINE 172.30.4.13"), 40)
        client.terminate()  # it takes its helpers along
        client.communicate()
        assert any("another machine on the network uses it" in each.event for each in it.reports)


# --- other servers ---


def test_another_dhcp_server_is_told_of(net: Network, udhcpc: list[str], tmp_path: Path) -> None:
    net.host("pi", None, mac=MAC)
    net.host("rogue", "172.30.4.9/24", mac="02:00:00:00:00:09")
    options = "--no-daemon --port=0 --conf-file=/dev/null --user=root --no-ping --interface=eth0"
    leases = f"--dhcp-range=172.30.4.50,172.30.4.60,255.255.255.0,2m --dhcp-leasefile={tmp_path}/leases"
    net.popen("rogue", ["dnsmasq", *options.split(), *leases.split()])
    assert wait_for(lambda: ":0043 " in net.run("rogue", ["cat", "/proc/net/udp"]).stdout)
    who = "another DHCP server, 172.30.4.9 (02:00:00:00:00:09),"
    with manager(net, SETTINGS) as it:
        # It asks for answers to all, so they are heard here.
        assert "GOT bound" in net.run("pi", [*udhcpc, "-B", "-n", "-q"], timeout=30).stdout
        assert wait_for(lambda: any(each.event == f"{who} answers on this network" for each in it.reports))
        it.hosts[MAC] = Host(MAC, IPv4Address("172.30.4.13"), "pi1")
        net.run("pi", [*udhcpc, "-B", "-n", "-q"], timeout=30)
        assert wait_for(lambda: any(each.event.startswith(f"{who} offered it 172.30.4.") for each in it.reports))
        assert len([each for each in it.reports if each.mac == "" and each.event]) == 1
