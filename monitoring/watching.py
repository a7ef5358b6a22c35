"""Joins what watches the Pis and the switches, tells people of it, and heals: one service of many threads. No rule."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from monitoring.alerting import Alerts, Courier, Couriers
from monitoring.client import Poller
from monitoring.directory import place_of
from monitoring.healer import Healer
from monitoring.healing import Step
from monitoring.health import Health
from monitoring.lookout import Lookout
from monitoring.metrics import Reading
from monitoring.store import PiRow, Store, StoreError
from monitoring.switch_watch import SwitchWatch
from monitoring.upkeep import Recorder
from utility.config import Config
from utility.hosts import Host
from utility.service import Reporter, Service

log = logging.getLogger("piman.monitoring")


@dataclass(frozen=True, slots=True)
class Rack:
    """What is watched, asked of those who own it; every callable is quick, and may be called by any thread.

    hosts     every Pi that has a name
    by_mac    the Pi of a MAC, by_address of an address; None where there is none
    rows      the board
    report    takes what was seen
    foreign   the address of another DHCP server, and when it was last told of
    polled    takes each reading
    """

    hosts: Callable[[], Iterable[Host]]
    by_mac: Callable[[str], Host | None]
    by_address: Callable[[IPv4Address], Host | None]
    rows: Callable[[], Sequence[PiRow]]
    report: Reporter
    foreign: Callable[[], tuple[str, float]]
    polled: Callable[[Reading], None] = lambda _reading: None


def site_of(config: Config) -> str:
    """How a rack is called in messages: who has several managers must know which one speaks."""
    return config.site or config.domain or os.uname().nodename


class Watching:
    """The service of all of it: a thread for each part. The first to fail ends them all, and is what `run` raises."""

    name = "monitoring"
    grace = 0.6  # for all threads together, at the end

    def __init__(self, config: Config, store: Store, rack: Rack) -> None:
        settings = config.monitoring
        self.health = Health(settings.interval, config.lease_time)
        with contextlib.suppress(StoreError):  # then every Pi is judged anew
            for reading in store.latest_samples().values():
                self.health.restore(reading)

        def mac_at(address: IPv4Address) -> str | None:
            host = rack.by_address(address)
            return host.mac if host else None

        self.switches = SwitchWatch(config.switches, self.health, mac_at)
        news, faces = self.switches.news, self.switches.faces
        self.lookout = lookout = Lookout(config, store, self.health, rack.rows, news, faces, rack.foreign)
        couriers = [Courier(channel, store, site_of(config)) for channel in settings.channels]
        recorder = Recorder(store)

        def take(reading: Reading) -> None:
            recorder.add(reading)
            rack.polled(reading)

        self.parts: list[Service] = [
            Poller(settings, rack.hosts, rack.rows, self.health, take, rack.report),
            recorder,
            self.switches,
            Alerts(settings.rules, store, lookout.facts, couriers),
            Couriers(couriers, store),
        ]
        if settings.healing.enabled:
            hand = healing_hand(config, store, rack.by_mac)
            self.parts.append(Healer(settings.healing, store, lookout.patients, hand))
        self._stopping = threading.Event()
        self._failures: list[Exception] = []

    def run(self) -> None:
        threads = [
            threading.Thread(target=self._work, args=(part,), name=part.name, daemon=True) for part in self.parts
        ]
        for thread in threads:
            thread.start()
        self._stopping.wait()
        for part in self.parts:
            part.stop()
        deadline = time.monotonic() + self.grace
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._failures:
            raise self._failures[0]

    def stop(self) -> None:
        self._stopping.set()

    def _work(self, part: Service) -> None:
        try:
            part.run()
        except Exception as error:
            log.exception("%s failed", part.name)
            self._failures.append(error)
        self._stopping.set()


def healing_hand(
    config: Config, store: Store, by_mac: Callable[[str], Host | None]
) -> Callable[[Step, Sequence[str], threading.Event], Mapping[str, str]]:
    """What takes a step of the healing: through the same operations as the commands, in healing's name."""
    from monitoring.operations import (  # noqa: PLC0415  # few heal, and all start
        OperationError,
        Operations,
        Target,
    )

    def act(step: Step, macs: Sequence[str], stopping: threading.Event) -> Mapping[str, str]:
        operations = Operations(store, "the healing", lambda _target, _text: None, lambda: stopping)
        hosts = {mac: host for mac in macs if (host := by_mac(mac))}
        places = {mac: place for mac, host in hosts.items() if (place := place_of(config, host))}
        targets = [Target(*place, hosts[mac]) for mac, place in places.items()]
        try:
            outcomes = operations.reinstall(targets)[1] if step is Step.REINSTALL else operations.cycle(targets)
        except OperationError as error:
            return dict.fromkeys(macs, str(error))
        return {each.target.host.mac: each.text for each in outcomes if each.target.host}

    return act
