"""What the threads know, put together at one moment: facts for the rules, patients for the healing. No rule, no SQL."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from monitoring.alerts import Facts
from monitoring.facts import Kept, ManagerNews, SwitchNews, View, gather
from monitoring.healing import Patient
from monitoring.health import Health
from monitoring.store import PiRow, Store, StoreError
from utility.config import Config, Switch
from utility.switches import Port


class Lookout:
    """Asked by one thread each for alerts and healing; what they share has locks of its own.

    rows       the board
    news       what each switch said last; faces: its ports, by its address
    foreign    the address of another DHCP server, and when it was last told of
    carrier    the kernel's file that says whether the manager's network has a link
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        health: Health,
        rows: Callable[[], Sequence[PiRow]],
        news: Callable[[], Sequence[SwitchNews]] = list,
        faces: Callable[[], Mapping[str, Sequence[Port]]] = dict,
        foreign: Callable[[], tuple[str, float]] = lambda: ("", 0.0),
        carrier: Path | None = None,
    ) -> None:
        self._config, self._store, self._health = config, store, health
        self._rows, self._news, self._faces, self._foreign = rows, news, faces, foreign
        self._carrier = carrier or Path(f"/sys/class/net/{config.interface}/carrier")
        self._ports: dict[int, tuple[Switch, int]] = {  # by int(address), which is found much faster
            int(address): (switch, number)
            for switch in config.switches
            for number, address in enumerate(switch.pi_addresses, 1)
            if address is not None
        }
        self._powered: dict[str, float] = {}
        self._power_id = 0
        self._agents = self._known_agents()
        self._kept: Kept = {}

    def facts(self, now: float) -> list[Facts]:
        """For the rules of the alerts."""
        return gather(self.view(now), now, self._kept)

    def view(self, now: float) -> View:
        """All there is to know."""
        rows, readings = self._rows(), self._health.latest()
        self._agents |= {mac for mac, each in readings.items() if each.words.get("agent")}
        places = {row.mac: place for row in rows if row.address and (place := self._ports.get(int(row.address)))}
        return View(
            rows=rows,
            readings=readings,
            ups=self._health.ups(now),
            places={mac: (str(switch.address), port) for mac, (switch, port) in places.items()},
            powered=self._powered_at(),
            agents=frozenset(self._agents),
            switches=self._news(),
            manager=self._manager(),
            interval=self._config.monitoring.interval,
        )

    def patients(self, now: float) -> tuple[list[Patient], bool]:
        """Every Pi for the healing, and whether the manager's network is there. StoreError."""
        powered, ordered = self._powered_at(), {order.mac for order in self._store.orders()}
        news = {each.address: each for each in self._news()}
        faces = self._faces()
        found = []
        for row in self._rows():
            if not row.name:
                continue
            up = self._health.up(row.mac, now)
            place = self._ports.get(int(row.address)) if row.address else None
            switch_news = news.get(str(place[0].address)) if place else None
            found.append(
                Patient(
                    mac=row.mac,
                    name=row.name,
                    is_up=up.is_up,
                    since=up.since if row.heard_at else 0.0,
                    evidence=up.evidence,
                    stage=row.stage,
                    stage_since=row.since,
                    stuck=row.stuck,
                    powered_at=powered.get(row.mac, 0.0),
                    ordered=row.mac in ordered,
                    off=bool(place and switch_news and place[1] in switch_news.off),
                    barrier=barrier(place, switch_news, faces),
                )
            )
        return found, self._has_network() is not False

    def _known_agents(self) -> set[str]:
        """The Pis that had an agent before this start."""
        try:
            return {mac for mac, each in self._store.latest_samples().items() if each.words.get("agent")}
        except StoreError:
            return set()

    def _powered_at(self) -> Mapping[str, float]:
        """When the port of each Pi was last turned on."""
        with contextlib.suppress(StoreError):  # it is told where it matters; this only dates an excuse
            for each in self._store.power_ons(self._power_id):
                self._power_id = max(self._power_id, each.id)
                self._powered[each.mac] = each.when
        return dict(self._powered)

    def _manager(self) -> ManagerNews:
        try:
            usage = shutil.disk_usage(self._config.state_dir)
            percent = 100.0 * (1 - usage.free / usage.total) if usage.total else None
        except OSError:
            percent = None
        address, when = self._foreign()
        return ManagerNews(percent, self._has_network(), address, when)

    def _has_network(self) -> bool | None:
        """Whether the interface has a link; None: there is no such interface, or it cannot be told."""
        try:
            return self._carrier.read_text().strip() == "1"
        except FileNotFoundError:
            return None
        except OSError:  # EINVAL: the interface is down
            return False


def barrier(place: tuple[Switch, int] | None, news: SwitchNews | None, faces: Mapping[str, Sequence[Port]]) -> str:
    """Why the port of a Pi must not be switched, or cannot; empty: it can."""
    if place is None:
        return "config.yaml names no port for it"
    switch, number = place
    if number in switch.protected_ports:
        return "its port is protected"
    if news is None or news.error:
        return "its switch does not answer"
    port = next((each for each in faces.get(str(switch.address), ()) if each.number == number), None)
    if port is None or not port.has_poe:
        return "its port gives no power"
    if port.neighbour and port.neighbour.forwards:
        return f"its port leads to {port.neighbour.label}"
    return ""
