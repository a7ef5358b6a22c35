"""Looks at the switches now and then: whether they answer, how much power they give, which ports are off. One thread.

A thread a switch while it is asked, so that a silent one delays nobody. What is seen is told to `Health`, as evidence
of each Pi, and kept for the alerts.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address

from monitoring.facts import SwitchNews
from monitoring.health import Health
from monitoring.health import Port as PortNews
from utility.config import HOW, Switch
from utility.drivers import Detection, Oid
from utility.snmp import Snmp
from utility.switches import PoeSwitch, Port, PowerSupply, SwitchError, open_switch

log = logging.getLogger("piman.switches")

# pethPsePortPowerDeniedCounter (RFC 3621): how often a port was refused the power that it asked for.
DENIED: Oid = (1, 3, 6, 1, 2, 1, 105, 1, 1, 1, 12)
LOOK_EVERY = 15.0  # seconds
SHARE = 5.0  # seconds for each switch: a look at 48 ports takes a fiftieth of one, and many switches look less often
FACE_EVERY = 20  # looks, between two times that a switch's face is read anew


def read_denied(switch: Switch) -> int | None:
    """The sum of a switch's counters, None where it has none."""
    if switch.driver in HOW:  # not asked over SNMP
        return None
    with Snmp(switch) as snmp:
        counters = [value for _oid, value in snmp.walk(DENIED) if isinstance(value, int)]
    return sum(counters) if counters else None


def power_of(
    switch: Switch, ports: Sequence[Port], supplies: Sequence[PowerSupply]
) -> tuple[float | None, float | None]:
    """The watts that a switch gives now and that it can give; None where neither it nor config.yaml says."""
    given = [each.consumption for each in supplies if each.consumption is not None]
    if not given:
        given = [port.milliwatts for port in ports if port.milliwatts is not None]
    capacity = sum(each.capacity for each in supplies) / 1000
    return sum(given) / 1000 if given else None, switch.power_budget or capacity or None


class SwitchWatch:
    """The service. `_lock` guards `_news` and `_faces`; a switch's other matters belong to its thread.

    mac_at   the MAC of the Pi with an address that config.yaml has on a port, None where hosts.csv has none
    """

    name = "switches"
    grace = 0.3  # at the end, for those that are asked; a silent one is left behind

    def __init__(
        self,
        switches: Sequence[Switch],
        health: Health,
        mac_at: Callable[[IPv4Address], str | None],
        interval: float | None = None,
        opened: Callable[[Switch], PoeSwitch] = open_switch,
        denied: Callable[[Switch], int | None] = read_denied,
    ) -> None:
        self._switches, self._health, self._mac_at = switches, health, mac_at
        self._interval = max(LOOK_EVERY, SHARE * len(switches)) if interval is None else interval
        self._opened, self._denied = opened, denied
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._news: dict[str, SwitchNews] = {}
        self._faces: dict[str, list[Port]] = {}
        self._counted: dict[str, int] = {}
        self._failures: list[BaseException] = []

    def run(self) -> None:
        threads = [
            threading.Thread(target=self._watch, args=(each,), name=f"switch {each.address}", daemon=True)
            for each in self._switches
        ]
        for thread in threads:
            thread.start()
        self._stopping.wait()
        deadline = time.monotonic() + self.grace
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._failures:
            raise self._failures[0]

    def stop(self) -> None:
        self._stopping.set()

    def news(self) -> list[SwitchNews]:
        """What each switch said last; those not asked yet are left out."""
        with self._lock:
            return [self._news[str(each.address)] for each in self._switches if str(each.address) in self._news]

    def faces(self) -> Mapping[str, Sequence[Port]]:
        """The ports of each switch as they were last seen, by its address."""
        with self._lock:
            return dict(self._faces)

    def _watch(self, switch: Switch) -> None:
        """Look at one switch until the end; its thread."""
        try:
            with self._opened(switch) as device:
                looks = 0
                while not self._stopping.is_set():
                    self._look(device, looks)
                    looks += 1
                    self._stopping.wait(max(self._interval, 0.01))
        except BaseException as error:  # noqa: BLE001  # the top of a thread; `run` raises it
            self._failures.append(error)
            self._stopping.set()

    def _look(self, device: PoeSwitch, looks: int) -> None:
        switch, address = device.switch, str(device.switch.address)
        try:
            ports, news = self._ask(device, looks)
        except SwitchError as error:
            ports, news = [], SwitchNews(address, switch.name, time.time(), error.reason)
        with self._lock:
            before = self._news.get(address)
            self._news[address], self._faces[address] = news, ports
        if bool(news.error) != bool(before and before.error):
            log.info("switch %s: %s", switch.name or address, news.error or "answers again")
        for port in ports:
            self._tell(switch, port, news.asked_at)

    def _ask(self, device: PoeSwitch, looks: int) -> tuple[list[Port], SwitchNews]:
        switch, address = device.switch, str(device.switch.address)
        face = self._faces.get(address)
        ports = device.look(face) if face and looks % FACE_EVERY else device.ports()
        told = device.supplies(ports)
        supplies = [each for each in told if each.consumption is not None and each.capacity > 0]
        percent = max((100.0 * (each.consumption or 0) / each.capacity for each in supplies), default=None)
        off = frozenset(port.number for port in ports if port.has_poe and port.admin_on is False)
        denied = self._growth(address, self._denied(switch))
        watts, budget = power_of(switch, ports, told)
        return ports, SwitchNews(address, switch.name, time.time(), "", percent, denied, off, watts, budget)

    def _growth(self, address: str, count: int | None) -> int | None:
        if count is None:
            return None
        before = self._counted.get(address, count)
        self._counted[address] = count
        return max(0, count - before)  # a switch that was restarted counts from 0 again

    def _tell(self, switch: Switch, port: Port, when: float) -> None:
        """Give what a port says of its Pi to the verdict on that Pi."""
        if not 1 <= port.number <= len(switch.pi_addresses):
            return
        address = switch.pi_addresses[port.number - 1]
        mac = self._mac_at(address) if address else None
        if mac:
            powered = port.detection is Detection.DELIVERING if port.has_poe and port.detection else None
            if port.link and not powered:  # it takes its power from elsewhere
                powered = None
            watts = port.milliwatts / 1000 if port.milliwatts is not None else None
            self._health.port(mac, PortNews(when, port.link, powered, watts))
