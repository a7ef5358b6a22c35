"""What the routes ask and order: one object over config, hosts, board and store. No Flask, no HTML, no SQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from monitoring.directory import Roster
from monitoring.store import PiRow, Store
from utility.config import Config
from utility.hosts import Hosts
from web.live import Live
from web.views import Json, event_view, pi_views, places_of, rack_view


@dataclass(frozen=True, slots=True)
class Rack:
    """What the page works on.

    rows    the board: of the running server's fleet, or of the store where this process is not the server
    title   ORG, at the head of the page
    """

    config: Config
    hosts: Hosts
    store: Store
    rows: Callable[[], Sequence[PiRow]]
    title: str = "Piman"


class Backend:
    """Reads and acts for the routes. Any thread; nothing here is shared but what has a lock of its own."""

    def __init__(self, rack: Rack) -> None:
        self.rack = rack
        self.web_folder = Path(__file__).parent
        self.live = Live(self.picture)

    def close(self) -> None:
        """End the streams."""
        self.live.close()

    # Reads

    def pis(self) -> dict[str, Json]:
        """Every Pi by MAC."""
        rack = self.rack
        rows = rack.rows()
        ordered = {order.mac for order in rack.store.orders()}
        return pi_views(rows, Roster(rack.hosts, rows).all(), places_of(rack.config), ordered)

    def face(self) -> Json:
        """The switches and their ports."""
        return {"title": self.rack.title, **rack_view(self.rack.config, self.rack.hosts.all())}

    def events(self, mac: str | None = None, limit: int = 200) -> list[Json]:
        """The newest events of one Pi or of all, the oldest of them first."""
        names = {host.mac: host.name for host in self.rack.hosts.all()}
        return [event_view(event, names) for event in self.rack.store.latest_events(mac, limit)]

    def picture(self) -> Json:
        """All that the page shows at once, for the event stream."""
        return {"now": time.time(), "rack": self.face(), "pis": self.pis(), "events": self.events(limit=100)}
