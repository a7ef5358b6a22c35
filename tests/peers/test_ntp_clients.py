"""Debian's NTP clients against our server, over a wire."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from ntp.policy import ClockState, NtpPolicy, RateLimit
from ntp.server import NtpServer
from tests.peers.netns import Network
from tests.test_ntp_policy import CLOCK
from utility.hosts import Host
from utility.service import Report, Stage

MANAGER, PI = IPv4Address("172.30.4.1"), Host("b8:27:eb:00:00:01", IPv4Address("172.30.4.13"), "pi1")


@contextlib.contextmanager
def network() -> Iterator[Network]:
    with Network() as net:
        net.host("mgr", f"{MANAGER}/24")
        net.host("pi", f"{PI.address}/24", PI.mac)
        yield net


@contextlib.contextmanager
def serving(
    net: Network, reports: list[Report], clock: ClockState | None, policy: NtpPolicy | None = None
) -> Iterator[NtpServer]:
    find = {PI.address: PI}.get
    read = (lambda: clock) if clock else None
    with net.enter("mgr"):
        server = NtpServer(MANAGER, 123, policy or NtpPolicy(), find, reports.append, read)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(2)


def chronyd(net: Network, folder: Path, server: str, patience: int = 10) -> tuple[int, str]:
    """Measure a few times, set nothing; return the exit code and what it says."""
    pid = folder / "chronyd.pid"
    words = ["-Q", "-t", str(patience), server, f"pidfile {pid}", "cmdport 0", "bindcmdaddress /"]
    done = net.run("pi", ["chronyd", "-u", "root", *words], timeout=20)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("version", [3, 4])
def test_chronyd_takes_our_time(tmp_path: Path, version: int) -> None:
    reports: list[Report] = []
    with network() as net, serving(net, reports, None) as server:  # the kernel's clock, whatever it is
        code, said = chronyd(net, tmp_path, f"server {MANAGER} iburst version {version}")
        assert code == 0, said
        found = re.search(r"System clock wrong by (-?[0-9.]+) seconds \(ignored\)", said)
        assert found, said
        assert abs(float(found[1])) < 0.005
        assert server.counters["answered"] >= 3
        assert [(each.mac, each.stage) for each in reports] == [(PI.mac, Stage.UP)]
        (client,) = server.clients()
        assert (client.name, client.version, client.requests) == ("pi1", version, server.counters["answered"])
        assert client.poll > 0
        assert reports[0].facts["ntp"].startswith(f"version {version}, every ")


def test_chronyd_refuses_a_clock_that_says_it_is_worth_nothing(tmp_path: Path) -> None:
    with network() as net, serving(net, [], replace(CLOCK, stratum=16)) as server:
        code, said = chronyd(net, tmp_path, f"server {MANAGER} iburst", patience=3)
        assert code != 0, said
        assert server.counters["answered"] >= 1


def test_ntpdate_reads_stratum_and_offset() -> None:
    reports: list[Report] = []
    with network() as net, serving(net, reports, replace(CLOCK, stratum=7)):
        done = net.run("pi", ["ntpdate", "-q", str(MANAGER)], timeout=20)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        found = re.search(r"([+-][0-9.]+) \+/- ([0-9.]+) \S+ s7 ", said)
        assert found, said
        assert abs(float(found[1])) < 0.005
        assert [(each.mac, each.stage) for each in reports] == [(PI.mac, Stage.UP)]


def test_ntpdate_understands_the_kiss() -> None:
    with network() as net, serving(net, [], CLOCK, NtpPolicy(RateLimit(burst=0))) as server:
        done = net.run("pi", ["ntpdate", "-q", str(MANAGER)], timeout=20)
        assert done.returncode != 0, done.stdout + done.stderr
        assert server.counters["answered"] >= 1


def test_a_chronyd_beside_us_says_what_our_clock_is_worth(tmp_path: Path) -> None:
    """It keeps the manager's clock and serves nobody; what it says of it is what the Pis are told."""
    words = [
        "-u",
        "root",
        "-x",
        "-d",
        "port 0",
        "local stratum 5",
        f"pidfile {tmp_path}/pid",
        "bindcmdaddress 127.0.0.1",
    ]
    with network() as net:
        keeper = net.popen("mgr", ["chronyd", *words, f"driftfile {tmp_path}/drift"])
        deadline = time.monotonic() + 30
        while net.run("mgr", ["chronyc", "-h", "127.0.0.1", "-c", "tracking"]).returncode:
            assert keeper.poll() is None
            assert time.monotonic() < deadline
        with serving(net, [], None):
            answer = ""
            while time.monotonic() < deadline and " s5 " not in answer:
                answer = net.run("pi", ["ntpdate", "-q", str(MANAGER)], timeout=20).stdout
            assert " s5 " in answer
