"""monitoring/client: who answers, and how they are; no Pi can hold up the poll of another, or be told of twice."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from types import SimpleNamespace

import pytest

from monitoring.client import SETTLED, TIRED, Poller, answering
from monitoring.health import AGENT_WORD, Health
from monitoring.metrics import AGENT_METRICS, Reading
from monitoring.store import PiRow
from tests.agents import BEHAVIOURS, Agents, addresses, mac_of
from utility.config import Monitoring
from utility.hosts import Host
from utility.service import Report, Severity, Stage

HERE, THERE = IPv4Address("127.0.0.1"), IPv4Address("127.0.0.9")


def test_a_listener_and_a_refusal_are_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert answering([HERE, THERE], listener.getsockname()[1], timeout=5) == {HERE, THERE}


def test_silence_and_no_route_are_none() -> None:
    # The tests' world has no route to it; where there is one, 192.0.2.0/24 (RFC 5737) answers nobody.
    assert answering([IPv4Address("192.0.2.1"), HERE], timeout=0.2) == {HERE}
    assert answering([]) == set()


def test_a_full_queue_is_silence() -> None:
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        assert answering([HERE], listener.getsockname()[1], timeout=0.1) == set()


@pytest.mark.parametrize("count", [0, 200])
def test_all_are_asked_at_once(count: int) -> None:
    addresses = [IPv4Address("127.0.1.0") + number for number in range(count)]
    assert answering(addresses, port=1, timeout=5) == set(addresses)


# ------------------------------------------------------------------------------------------------------- the poller


def host_of(address: IPv4Address) -> Host:
    return Host(mac_of(str(address)), address, f"pi{int(address) & 255}")


@dataclass
class Watched:
    """A poller that runs, and what came of it."""

    hosts: list[Host]
    rows: list[PiRow] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)

    def of(self, host: Host) -> list[Reading]:
        return [each for each in self.readings if each.mac == host.mac]

    def events(self, host: Host) -> list[tuple[Severity, str]]:
        return [(each.severity, each.event) for each in self.reports if each.mac == host.mac and each.event]


@contextmanager
def polling(port: int, hosts: Sequence[Host], interval: float = 0.2, timeout: float = 0.2) -> Iterator[Watched]:
    seen = Watched(list(hosts))
    health = Health(interval)
    settings = Monitoring(interval=interval, timeout=timeout, port=port)
    poller = Poller(settings, lambda: seen.hosts, lambda: seen.rows, health, seen.readings.append, seen.reports.append)
    poller.look_interval = 0.05
    thread = threading.Thread(target=poller.run)
    thread.start()
    try:
        yield seen
    finally:
        poller.stop()
        thread.join(5)
        assert not thread.is_alive()


def until(reached: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_each_misbehaviour_is_told_once_and_the_others_are_polled_on() -> None:
    hosts = {name: host_of(address) for name, address in zip(BEHAVIOURS, addresses(99), strict=False)}
    behaviours = {str(host.address): name for name, host in hosts.items()}
    with Agents(behaviours=behaviours) as agents, polling(agents.port, list(hosts.values())) as seen:
        until(lambda: all(len(seen.of(host)) >= 8 for host in hosts.values()))
    told = {name: seen.events(host) for name, host in hosts.items()}
    assert told.pop("healthy") == told.pop("wild") == []
    expected = {
        "nonsense": "does not speak HTTP",
        "html": "answers HTML",
        "huge": "sends more than 16384 bytes",
        "slow": "does not finish its answer within 0.2 s",
        "redirect": "redirects elsewhere (HTTP 302)",
        "another": "answers for dc:a6:32:ff:ff:ff",
        "hangs": "does not finish its answer within 0.2 s (0 bytes came)",
        "closes": "closes the connection without an answer",
        "resets": "breaks off: Connection reset by peer",
        "broken": "refuses with HTTP 500",
        "deep": "answers what is no JSON",
    }
    assert told.keys() == expected.keys()
    for name, text in expected.items():
        ((severity, event),) = told[name]
        assert severity is Severity.WARNING
        assert event.startswith(f"its agent {text}")
        assert seen.of(hosts[name])[-1].values.keys() == {"ping_ms", "up"}
    good = seen.of(hosts["healthy"])[-1]
    assert good.words["error"] == ""
    assert good.values.keys() >= {"temperature", "clock_offset", "ping_ms", "up"}
    assert abs(good.values["clock_offset"]) < 0.5
    assert seen.of(hosts["wild"])[-1].values.keys() == {"num_pids", "ping_ms", "up"}
    assert all(each.values["up"] == 1.0 for each in seen.readings)  # their kernels answer


def test_a_pi_without_agent_is_told_when_it_has_settled_and_one_that_gets_better_too() -> None:
    host, other = host_of(IPv4Address("127.1.0.7")), host_of(IPv4Address("127.1.0.8"))
    with socket.socket() as nobody:
        nobody.bind(("0.0.0.0", 0))
        port = nobody.getsockname()[1]
    with polling(port, [host, other], interval=0.05, timeout=0.05) as seen:
        until(lambda: len(seen.events(host)) == 1)
        ((severity, text),) = seen.events(host)
        assert severity is Severity.INFO
        assert text.startswith(f"no agent answers on its port {port}")
        assert len(seen.of(host)) >= SETTLED
        assert seen.of(host)[-1].values["up"] == 1.0
        assert seen.of(host)[-1].words["error"] == "no agent"
        with Agents(port):
            until(lambda: len(seen.events(host)) == 2)
        assert seen.events(host)[1] == (Severity.INFO, "its agent answers as it should")
        assert Report(host.mac, Stage.UP, heard=AGENT_WORD) in seen.reports


def test_a_reinstallation_is_no_trouble() -> None:
    host = host_of(IPv4Address("192.0.2.2"))  # where nobody answers
    now = time.time()
    with polling(1, [host], interval=0.05, timeout=0.05) as seen:
        seen.rows = [PiRow(host.mac, "x", host.address, Stage.UP, now, "NTP request", now)]
        until(lambda: any(each.values["up"] for each in seen.readings))
        seen.rows = [PiRow(host.mac, "x", host.address, Stage.IMAGE, now, "IMAGE_OK", now + 1)]
        until(lambda: not seen.of(host)[-1].values["up"])
        assert seen.of(host)[-1].words["evidence"].startswith("boots: image, IMAGE_OK ")
    assert seen.events(host) == []


def test_one_that_lost_its_power_is_down_and_comes_up_again() -> None:
    host = host_of(IPv4Address("127.1.0.9"))
    with Agents() as agents, polling(agents.port, [host]) as seen:
        until(lambda: bool(seen.readings))
        lost = Host(host.mac, IPv4Address("192.0.2.9"), host.name)  # where nobody answers
        seen.hosts = [lost]
        until(lambda: len(seen.events(host)) == 1)
        ((severity, text),) = seen.events(host)
        assert severity is Severity.WARNING
        assert text.startswith("down: agent ")
        assert seen.of(host)[-1].words["error"].startswith("no answer")
        seen.hosts = [host]
        until(lambda: len(seen.events(host)) == 2)
        assert seen.events(host)[1][1].startswith("up again: agent 0 s ago")


def test_one_that_is_long_silent_is_polled_less_until_something_is_heard_of_it() -> None:
    host = host_of(IPv4Address("192.0.2.7"))  # where nobody answers
    with polling(1, [host], interval=0.02, timeout=0.02) as seen:
        until(lambda: len(seen.readings) >= TIRED)
        time.sleep(30 * 0.02)
        assert len(seen.readings) < TIRED + 15
        seen.rows = [PiRow(host.mac, "x", host.address, Stage.UP, 1.0, "NTP request", time.time())]
        count = len(seen.readings)
        until(lambda: len(seen.readings) - count >= TIRED - 2)


def test_without_a_descriptor_left_a_poll_is_left_out_and_told_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    host = host_of(IPv4Address("127.1.0.11"))
    failures = [OSError(24, "Too many open files")] * 2

    def make(*words: int) -> socket.socket:
        if failures:
            raise failures.pop()
        return socket.socket(*words)

    with Agents() as agents:
        monkeypatch.setattr("monitoring.client.socket", SimpleNamespace(**{**vars(socket), "socket": make}))
        with polling(agents.port, [host]) as seen:
            until(lambda: bool(seen.readings))
    assert caplog.text.count("not polled: Too many open files") == 2
    assert seen.readings[0].words["error"] == ""


def test_the_board_knows_more_than_is_polled_and_one_may_leave_while_it_is_asked() -> None:
    host, other = host_of(IPv4Address("127.1.0.12")), host_of(IPv4Address("127.1.0.13"))
    with Agents(behaviours={str(host.address): "hangs"}) as agents, polling(agents.port, [host], timeout=0.2) as seen:
        seen.rows = [PiRow(other.mac, "x", other.address, Stage.UP, 0.0, "NTP request", 1.0)]
        until(lambda: bool(agents.asked))
        seen.hosts = [other]
        until(lambda: bool(seen.of(other)))
    assert len(seen.of(host)) <= 1


def test_hosts_come_and_go() -> None:
    first, second = (host_of(address) for address in addresses(2))
    with Agents() as agents, polling(agents.port, [first]) as seen:
        until(lambda: bool(seen.of(first)))
        seen.hosts = [second]
        until(lambda: bool(seen.of(second)))
        count = len(seen.of(first))
        until(lambda: len(seen.of(second)) > 5)
        assert len(seen.of(first)) == count
        assert {metric.name for metric in AGENT_METRICS} > seen.of(second)[-1].values.keys() - {"ping_ms", "up"}


def test_polls_are_spread_over_the_interval_and_hanging_agents_change_nothing_for_others() -> None:
    hosts = [host_of(address) for address in addresses(60)]
    hanging = {str(host.address): "hangs" for host in hosts[::3]}
    with Agents(behaviours=hanging) as agents, polling(agents.port, hosts, interval=1.0, timeout=0.9):
        time.sleep(4.5)
    times = [agents.asked[str(host.address)] for host in hosts]
    assert all(3 <= len(each) <= 6 for each in times)
    assert max(each[0] for each in times) - min(each[0] for each in times) > 0.8
    gaps = [late - early for each in times for early, late in itertools.pairwise(each)]
    assert min(gaps) > 0.2
    assert max(gaps) < 2.5  # the machine may have stood still for a moment
