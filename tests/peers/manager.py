"""Our DHCP and TFTP servers on a host of the tests' wire, and what they reported."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import TracebackType

from dhcp.policy import DhcpPolicy
from dhcp.replies import DhcpSettings
from dhcp.server import DhcpServer
from lab.namespaces import Interface
from tests.peers.netns import Network
from tftp.files import BootFiles
from tftp.server import TftpServer
from utility.hosts import Host
from utility.service import Report

ADDRESS = IPv4Address("172.30.4.1")
NETWORK = IPv4Network("172.30.4.0/24")


class Manager:
    """`with Manager(net, boot, hosts):` adds the host `mgr` to `net` and serves there until the end."""

    def __init__(self, net: Network, boot: Path, hosts: dict[str, Host], lease_time: int = 600) -> None:
        self.net, self.boot, self.hosts = net, boot, hosts
        self.reports: list[Report] = []
        net.host("mgr", f"{ADDRESS}/24")
        with contextlib.closing(Interface(net.namespace("mgr").name, "eth0")) as end:
            end.no_offloads()  # a cable of packet sockets carries whole frames, with their checksums
        settings = DhcpSettings(ADDRESS, NETWORK, lease_time=lease_time)
        with net.enter("mgr"):
            self.dhcp = DhcpServer("eth0", DhcpPolicy(settings, hosts.get), self.reports.append)
            self.tftp = TftpServer(ADDRESS, 69, BootFiles(boot, lambda *_: None), self._host_of, self.reports.append)
        self._threads = [threading.Thread(target=self._work, args=(each.run,)) for each in (self.dhcp, self.tftp)]

    def _host_of(self, address: IPv4Address) -> Host | None:
        return next((host for host in self.hosts.values() if host.address == address), None)

    def _work(self, run: Callable[[], None]) -> None:
        with self.net.enter("mgr"):  # the transfers' sockets are made in the thread that serves
            run()

    def __enter__(self) -> Manager:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        for server in (self.dhcp, self.tftp):
            server.stop()
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()

    def told(self, event: str = "", heard: str = "", sent: str = "") -> list[Report]:
        """The reports that hold all of these words."""
        return [each for each in self.reports if event in each.event and heard in each.heard and sent in each.sent]

    def wait_told(self, event: str = "", heard: str = "", sent: str = "", limit: float = 30, times: int = 1) -> Report:
        """Wait for the last of so many reports; AssertionError with what was reported instead."""
        end = time.monotonic() + limit
        while len(found := self.told(event, heard, sent)) < times:
            assert time.monotonic() < end, f"not {event or heard or sent!r} in {self.reports}"
            threading.Event().wait(0.02)
        return found[times - 1]

    def wait_completed(self, transfers: int, limit: float = 30) -> None:
        """Wait until the TFTP server has counted so many complete transfers: it does so after the client has all."""
        end = time.monotonic() + limit
        while self.tftp.counters["completed"] < transfers:
            assert time.monotonic() < end, self.tftp.counters
            threading.Event().wait(0.02)
