"""The benchmark's arithmetic: what is compared with what, and what counts as holding."""

from __future__ import annotations

import time
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tests.bench.bench import Measured, Plan, Row, ratio_row, table
from tests.bench.servers import FIRST_PI, mac_of, piman
from utility.config import load_config
from utility.hosts import Hosts

ROW = Row("NTP", "chronyd", "60 /s", "100 /s", 0.6, 0.6, False, "x", 0.5, "a note")


def test_what_holds() -> None:
    assert ROW.holds
    assert not replace(ROW, value=0.59).holds
    assert replace(ROW, value=0.59, at_most=True).holds
    assert not replace(ROW, value=0.61, at_most=True).holds
    assert replace(ROW, value=0.01, limit=None).holds


def test_a_ratio_is_the_median_of_the_neighbours() -> None:
    """The machine grew ten times slower in the second round, and ours was twice as fast in all three."""
    measured = Measured()
    for peer in (100.0, 10.0, 90.0):
        measured.add("peer", "load", {"per_s": peer, "cpu_per_work": 0.5})
        measured.add("ours", "load", {"per_s": 2 * peer, "cpu_per_work": 1.0})
    row = ratio_row(measured, "what", ("ours", "load"), ("peer", "load"), "per_s", "/s", 2.0)
    assert row == Row("what", "peer", "180 /s", "90 /s", 2.0, 2.0, False, "x", 0.5, "")
    assert row.holds


def test_both_tables() -> None:
    rows = [ROW, replace(ROW, value=2.5, limit=2.0, at_most=True, unit="us", per_cpu=0.0)]
    plain, marked = table(rows, markdown=False), table(rows, markdown=True)
    assert [len(plain), len(marked)] == [3, 4]
    assert marked[1] == "|---|---|---|---|---|---|---|---|"
    assert marked[2] == "| NTP | 60 /s | 100 /s | chronyd | 0.60x | >= 0.6x | 0.50x | a note |"
    assert marked[3] == "| NTP | 60 /s | 100 /s | chronyd | 2.50 us | <= 2 us |  | falls short; a note |"


def test_rounds_are_bounded_by_number_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def count(plan: Plan, seconds: float) -> int:
        rounds = 0
        for _ in plan.rounds(5, 60.0):
            now[0] += seconds
            rounds += 1
        return rounds

    plan = Plan(Path(), quick=False)
    assert [count(plan, seconds) for seconds in (1.0, 20.0, 25.0, 1000.0)] == [5, 3, 2, 1]
    assert count(replace(plan, quick=True), 1.0) == 1


@pytest.mark.parametrize("service", ["dhcp", "tftp", "hello", "ntp"])
def test_our_configuration_is_one_and_knows_the_pis_of_the_load(tmp_path: Path, service: str) -> None:
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot" / "kernel8.img").write_bytes(b"kernel")
    server = piman(service, 69, 300)(tmp_path)
    path = Path(server.words[server.words.index("-c") + 1])
    config = load_config(path, environ={})
    hosts = Hosts.open(path.parent / "hosts.csv", config)
    assert config.services == (service,)
    assert (config.boot_dir / "kernel8.img").read_bytes() == b"kernel"
    found = hosts.find(mac_of(299))
    assert found is not None
    assert (found.mac, found.address) == ("b8:27:eb:00:01:2b", FIRST_PI + 299)
    assert found.address == IPv4Address("10.77.65.44")
