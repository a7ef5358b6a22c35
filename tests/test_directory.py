"""Who is who, where hosts.csv, leases and the board each know a part."""

from __future__ import annotations

import logging
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from monitoring.directory import Directory, Roster
from monitoring.fleet import Fleet
from monitoring.store import Store, StoreError
from utility.hosts import Host, Hosts, Plan
from utility.service import Report

KNOWN = Host("b8:27:eb:00:00:01", IPv4Address("172.30.4.13"), "pi1")
GUEST = Host("dc:a6:32:00:00:02", IPv4Address("172.30.4.200"), "pi-000002")
LEASED = {GUEST.address: GUEST}


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    (tmp_path / "hosts.csv").write_text(f"{KNOWN.mac};{KNOWN.address};{KNOWN.hostname};0\n")
    return Hosts(tmp_path / "hosts.csv", Plan(IPv4Network("172.30.4.0/24")))


def test_a_lease_is_found_by_mac_and_address_and_outlives_the_process(hosts: Hosts, tmp_path: Path) -> None:
    with Store(tmp_path / "piman.db") as store:
        who = Directory(hosts, store, is_proxy=False)
        who.host_of_lease = LEASED.get
        assert who.find(GUEST.mac) is None  # nothing was leased yet
        who.save_lease(GUEST.mac, GUEST.address, 2e9)
        assert who.find(GUEST.mac) == who.by_address(GUEST.address) == GUEST
        assert who.find(KNOWN.mac) == who.by_address(KNOWN.address) == KNOWN
        again = Directory(hosts, store, is_proxy=False)
        again.host_of_lease = LEASED.get
        assert [lease.mac for lease in again.leases] == [GUEST.mac]
        assert again.find(GUEST.mac) == GUEST
        again.forget_lease(GUEST.mac)
        again.forget_lease(GUEST.mac)
        assert again.find(GUEST.mac) is None
        assert not store.leases()


def test_in_proxy_mode_the_address_heard_counts(hosts: Hosts, tmp_path: Path) -> None:
    elsewhere = Host("b8:27:eb:00:00:05", KNOWN.address, "pi5")  # the other server gave it the address of pi1
    with Store(tmp_path / "piman.db") as store:
        who = Directory(hosts, store, is_proxy=True)
        assert who.by_address(KNOWN.address) == KNOWN
        who.host_of_lease = {KNOWN.address: elsewhere}.get
        assert who.by_address(KNOWN.address) == elsewhere


def test_a_store_that_fails_does_not_stop_dhcp(
    hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise StoreError("the disk is full")

    with Store(tmp_path / "piman.db") as store, caplog.at_level(logging.WARNING):
        who = Directory(hosts, store, is_proxy=False)
        monkeypatch.setattr(store, "save_lease", full)
        who.save_lease(GUEST.mac, GUEST.address, 2e9)
    assert "the disk is full" in caplog.text


def test_commands_can_name_the_pis_of_the_pool(hosts: Hosts, tmp_path: Path) -> None:
    with Store(tmp_path / "piman.db") as store:
        fleet = Fleet(store, {KNOWN.mac: KNOWN, GUEST.mac: GUEST}.get, lambda: 1.0)
        fleet.report(Report(GUEST.mac, heard="DHCPDISCOVER"))
        fleet.report(Report("00:16:3e:00:00:01", heard="DHCPDISCOVER"))  # nobody we know
        fleet.flush(1.0)
        roster = Roster(hosts, store.pis())
    assert roster.all() == (KNOWN, GUEST)
    for text in ("PI-000002", GUEST.mac.upper(), str(GUEST.address)):
        assert roster.named(text) == GUEST
    assert roster.named("pi1") == roster.find(KNOWN.mac) == roster.by_address(KNOWN.address) == KNOWN
    assert roster.find(GUEST.mac) == roster.by_address(GUEST.address) == GUEST
    assert roster.named("nobody") is None
