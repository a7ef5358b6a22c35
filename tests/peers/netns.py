"""Hosts on one wire for the tests that need real peers: network namespaces joined by a bridge.

Needs what tests/run.sh provides: the right to make network namespaces, and a /run of its own. It says so if not.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

CLONE_NEWNET = 0x40000000
LINK_TIME = 10.0  # seconds in which a link must be up; it takes a millisecond, more on a busy machine
_libc = ctypes.CDLL(None, use_errno=True)


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()} (run the tests through tests/run.sh)")
    return done.stdout


@contextlib.contextmanager
def network_namespace(name: str) -> Iterator[None]:
    """Put the calling thread into the named namespace; sockets made inside stay there for their life."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        if _libc.setns(there, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {name}")
        yield
    finally:
        _libc.setns(here, CLONE_NEWNET)
        os.close(here)
        os.close(there)


class Network:
    """A bridge and the hosts on it; leaving the `with` kills what runs there and removes all."""

    def __init__(self) -> None:
        self.tag = uuid.uuid4().hex[:6]
        self.hosts: list[str] = []
        self._running: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Network:
        _ip("netns", "add", self._name("wire"))
        bridge = ["type", "bridge", "stp_state", "0", "forward_delay", "0", "mcast_snooping", "0"]
        _ip("-n", self._name("wire"), "link", "add", "br0", *bridge)
        _ip("-n", self._name("wire"), "link", "set", "br0", "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        for process in self._running:
            process.kill()
            process.communicate()
        for host in [*self.hosts, "wire"]:
            _ip("netns", "del", self._name(host))

    def _name(self, host: str) -> str:
        return f"{self.tag}-{host}"

    def host(self, name: str, address: str | None = None, mac: str | None = None) -> None:
        """Add a host with one interface, eth0; address as `172.30.4.1/24`, None for none yet."""
        space, port = self._name(name), f"p{len(self.hosts)}"
        _ip("netns", "add", space)
        self.hosts.append(name)
        ends = [
            "link",
            "add",
            port,
            "netns",
            self._name("wire"),
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            space,
        ]
        _ip(*ends)
        _ip("-n", self._name("wire"), "link", "set", port, "master", "br0", "up")
        if mac:
            _ip("-n", space, "link", "set", "eth0", "address", mac)
        if address:
            _ip("-n", space, "addr", "add", address, "dev", "eth0")
        _ip("-n", space, "link", "set", "lo", "up")
        _ip("-n", space, "link", "set", "eth0", "up")
        self._wait_for_link(space, "eth0")
        self._wait_for_link(self._name("wire"), port)

    def _wait_for_link(self, space: str, interface: str) -> None:
        """The kernel works on a new carrier later; until then, what is sent is lost without an error."""
        end = time.monotonic() + LINK_TIME
        while time.monotonic() < end:
            (link,) = json.loads(_ip("-n", space, "-d", "-j", "link", "show", "dev", interface))
            port = link.get("linkinfo", {}).get("info_slave_data", {"state": "forwarding"})
            if link["operstate"] == "UP" and port["state"] == "forwarding":
                return
            time.sleep(0.001)
        raise RuntimeError(f"{interface} in {space} is not up after {LINK_TIME:g} s: {link}")

    def namespace(self, name: str) -> Path:
        return Path("/run/netns") / self._name(name)

    def enter(self, name: str) -> contextlib.AbstractContextManager[None]:
        return network_namespace(self._name(name))

    def run(self, name: str, argv: Sequence[str], timeout: float = 10) -> subprocess.CompletedProcess[str]:
        command = ["ip", "netns", "exec", self._name(name), *argv]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)

    def popen(self, name: str, argv: Sequence[str]) -> subprocess.Popen[str]:
        command = ["ip", "netns", "exec", self._name(name), *argv]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._running.append(process)
        return process
