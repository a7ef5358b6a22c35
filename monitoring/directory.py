"""Who is who, and where: the Pis of hosts.csv, those of the pool, their ports by config.yaml. No rule of DHCP."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address

from monitoring.store import PiRow, Place, Store, StoreError
from utility.config import Config, Switch
from utility.hosts import Host, Hosts, parse_mac

log = logging.getLogger("piman.directory")


class Directory:
    """For the services: whose a MAC or an address is. Any thread.

    In proxy mode another server gives the addresses, and what DHCP overheard of them goes before hosts.csv.
    """

    def __init__(self, hosts: Hosts, store: Store, is_proxy: bool) -> None:
        self._hosts, self._store = hosts, store
        self.follow(is_proxy)
        self.host_of_lease: Callable[[IPv4Address], Host | None] = lambda _address: None  # DHCP's, once there is one

    def follow(self, is_proxy: bool) -> None:
        """Begin, or begin anew when DHCP does, with the leases that were kept."""
        self._is_proxy = is_proxy
        self.leases = self._store.leases()
        self._leased = {lease.mac: lease.address for lease in self.leases}

    def find(self, mac: str) -> Host | None:
        address = self._leased.get(mac)
        return self._hosts.find(mac) or (self.host_of_lease(address) if address else None)

    def by_address(self, address: IPv4Address) -> Host | None:
        if self._is_proxy:
            return self.host_of_lease(address) or self._hosts.by_address(address)
        return self._hosts.by_address(address) or self.host_of_lease(address)

    def save_lease(self, mac: str, address: IPv4Address, expires: float) -> None:
        self._leased[mac] = address
        self._write(lambda: self._store.save_lease(mac, address, expires))

    def forget_lease(self, mac: str) -> None:
        self._leased.pop(mac, None)
        self._write(lambda: self._store.forget_lease(mac))

    @staticmethod
    def _write(work: Callable[[], None]) -> None:
        try:
            work()
        except StoreError as error:  # DHCP goes on; the lease is forgotten if we are started again before it is renewed
            log.warning("%s", error)


class Roster:
    """For the commands: everybody that can be named, the Pis of hosts.csv, and on the board those of the pool."""

    def __init__(self, hosts: Hosts, rows: Iterable[PiRow]) -> None:
        self._hosts = hosts
        strangers = (row for row in rows if hosts.find(row.mac) is None)
        self.guests = tuple(Host(row.mac, row.address, row.name) for row in strangers if row.name and row.address)

    def find(self, mac: str) -> Host | None:
        return self._hosts.find(mac) or next((guest for guest in self.guests if guest.mac == mac), None)

    def by_address(self, address: IPv4Address) -> Host | None:
        found = (guest for guest in self.guests if guest.address == address)
        return self._hosts.by_address(address) or next(found, None)

    def named(self, text: str) -> Host | None:
        """By hostname (in any case), MAC (in any form) or address."""
        mac = ""
        with contextlib.suppress(ValueError):
            mac = parse_mac(text)
        found = (each for each in self.guests if mac == each.mac or text.lower() in (each.name, str(each.address)))
        return self._hosts.named(text) or next(found, None)

    def all(self) -> tuple[Host, ...]:
        return self._hosts.all() + self.guests


def place_of(config: Config, host: Host) -> tuple[Switch, int] | None:
    """The port where config.yaml says a Pi is."""
    for switch in config.switches:
        if host.address in switch.pi_addresses:
            return switch, switch.pi_addresses.index(host.address) + 1
    return None


def where_of(config: Config, pis: Iterable[Host], learnt: Mapping[str, Place]) -> dict[str, tuple[int, int]]:
    """MAC -> number of the switch and port: as config.yaml says, and where it does not, as the switches have told."""
    numbers = {str(switch.address): switch.index for switch in config.switches}
    where = {mac: (numbers[place.switch], place.port) for mac, place in learnt.items() if place.switch in numbers}
    placed = {host.mac: place_of(config, host) for host in pis}
    return where | {mac: (place[0].index, place[1]) for mac, place in placed.items() if place}
