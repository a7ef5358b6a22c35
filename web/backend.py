"""What the routes ask and order: one object over config, hosts, board and store. No Flask, no HTML, no SQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from monitoring.alerts import Facts
from monitoring.channels import alert_json
from monitoring.directory import Roster
from monitoring.faces import face_json, read_face
from monitoring.facts import SwitchNews
from monitoring.metrics import METRICS, Reading
from monitoring.operations import OperationError
from monitoring.store import PiRow, Store
from utility.config import Config, Web
from utility.hosts import Hosts
from utility.service import Stage
from utility.switches import Port
from web.access import Access
from web.acts import Acts
from web.boots import boot_views
from web.editing import ConfigFile, HostsFile
from web.live import Live
from web.starting import Starter
from web.views import Json, event_view, file_view, pi_views, places_of, rack_view, seen_at


@dataclass(frozen=True, slots=True)
class Place:
    """Where the page finds its files, also before there is a config.yaml.

    password    from .env or the environment, "" where there is none
    title       ORG, at the head of the page
    """

    config_path: Path
    env_path: Path | None
    state_dir: Path
    store: Store
    web: Web
    password: str = ""
    title: str = "Piman"


@dataclass(frozen=True, slots=True)
class Rack:
    """What the page works on.

    rows         the board: of the running server's fleet, or of the store where this process is not the server
    readings     what was measured last of each Pi
    faces        what each switch, by its address, said last of its ports; empty where nobody asks them
    server_runs  whether somebody is there to boot and install Pis
    facts        as the rules of the alerts have them at a time; None where nobody watches in this process
    news         what each switch said last of itself
    counters     service -> what it counts -> how often
    problems_of  what TFTP says of the files in a boot folder
    """

    config: Config
    hosts: Hosts
    store: Store
    rows: Callable[[], Sequence[PiRow]]
    readings: Callable[[], Mapping[str, Reading]]
    server_runs: Callable[[], bool]
    facts: Callable[[float], Sequence[Facts]] | None = None
    news: Callable[[], Sequence[SwitchNews]] = list
    faces: Callable[[], Mapping[str, Sequence[Port]]] = dict
    counters: Callable[[], Mapping[str, Mapping[str, int]]] = dict
    version: str = ""
    problems_of: Callable[[Path], Sequence[str]] = lambda _folder: ()


class Backend:
    """Reads and acts for the routes. Any thread; what is shared has a lock of its own, or is replaced whole.

    rack    what is in force; None where there is no config.yaml yet
    reopen  called when a page has written config.yaml: take it over; None: the server sees it by itself
    starter how a page without a server becomes one; None: it is the server's, or nothing can be started
    """

    def __init__(
        self,
        place: Place,
        rack: Callable[[], Rack | None],
        reopen: Callable[[], None] | None = None,
        starter: Starter | None = None,
    ) -> None:
        self.place, self.starter = place, starter
        self._rack, self._reopen = rack, reopen
        self.web_folder = Path(__file__).parent
        self.access = Access(place.store, place.state_dir, place.password)
        self.config_file = ConfigFile(place.config_path, place.env_path, place.state_dir, self.access.secret)
        self.live = Live(self.picture)
        self.acts = Acts(lambda: self.rack, place.store)

    def close(self) -> None:
        """End the streams, and what is under way."""
        self.live.close()
        self.acts.close()

    @property
    def rack(self) -> Rack:
        """The rack; OperationError where there is no config.yaml yet."""
        rack = self._rack()
        if rack is None:
            raise OperationError(f"{self.place.config_path} does not exist yet; the first steps make it")
        return rack

    @property
    def is_set_up(self) -> bool:
        return self._rack() is not None

    def reopen(self) -> bool:
        """Take over what was written into config.yaml; False: it will be seen soon."""
        if self._reopen is None:
            return False
        self._reopen()
        return True

    @property
    def hosts_file(self) -> HostsFile:
        return HostsFile(self.rack.hosts, self.place.state_dir)

    # Reads

    def pis(self) -> dict[str, Json]:
        """Every Pi by MAC."""
        rack = self.rack
        rows = rack.rows()
        ordered = {order.mac for order in rack.store.orders()}
        hosts = Roster(rack.hosts, rows).all()
        strangers = {row.mac for row in rows} - {host.mac for host in hosts}
        seen = seen_at(rack.config, rack.store.places()) if strangers else {}
        return pi_views(rows, hosts, places_of(rack.config), ordered, rack.readings(), seen)

    def face(self) -> Json:
        """The switches and their ports."""
        rack = self.rack
        return {
            "title": self.place.title,
            "server_runs": rack.server_runs(),
            **rack_view(rack.config, rack.hosts.all(), rack.faces()),
        }

    def names(self) -> dict[str, str]:
        return {host.mac: host.name for host in self.rack.hosts.all()}

    def events(self, mac: str | None = None, limit: int = 200, after: int | None = None) -> list[Json]:
        """The newest events of one Pi or of all, the oldest of them first; or the next after an id."""
        store, names = self.rack.store, self.names()
        found = store.latest_events(mac, limit) if after is None else store.events(mac, after, limit)
        return [event_view(event, names) for event in found]

    def files(self, mac: str, limit: int = 200) -> list[Json]:
        """What a Pi fetched over TFTP, the oldest first."""
        return [file_view(each) for each in self.rack.store.files(mac, limit)]

    def boots(self, mac: str, limit: int = 20) -> list[Json]:
        """The last boots of a Pi with their stages and files, the oldest first."""
        store = self.rack.store
        row = next((each for each in self.rack.rows() if each.mac == mac), None)
        goes_on = row is not None and row.stage not in (None, Stage.UP, Stage.FAILED)
        return boot_views(store.latest_events(mac, 1000), store.files(mac, 1000), goes_on, limit)

    def samples(self, mac: str, metric: str, since: float, until: float, points: int) -> Json:
        """A metric of a Pi over time."""
        found = self.rack.store.samples(mac, metric, since, until, points)
        rows = [[each.when, each.mean, each.low, each.high] for each in found]
        return {"metric": metric, "unit": METRICS[metric].unit, "points": rows}

    def picture(self) -> Json:
        """All that the page shows at once, for the event stream."""
        if not self.is_set_up:
            nothing = {"server_runs": False, "server_address": "", "network": "", "interface": "", "switches": []}
            rack = {"title": self.place.title, **nothing}
            return {"now": time.time(), "rack": rack, "pis": {}, "events": [], "jobs": {}, "alerts": []}
        return {
            "now": time.time(),
            "rack": self.face(),
            "pis": self.pis(),
            "events": self.events(limit=100),
            "jobs": self.acts.jobs.views(),
            "alerts": self.alerts(),
        }

    def alerts(self, open_only: bool = True, limit: int = 1000) -> list[Json]:
        """What is wrong, the oldest first."""
        return [alert_json(each) for each in self.rack.store.alerts(open_only, limit)]

    def switch_ports(self, index: int) -> Json | None:
        """Ask a switch for its face, which takes a moment; None: there is no such switch. OperationError."""
        rack = self.rack
        if not 0 <= index < len(rack.config.switches):
            return None
        return face_json(read_face(rack.config.switches[index], Roster(rack.hosts, rack.rows())))

    def audit(self, who: str, action: str, subject: str, result: str) -> None:
        self.acts.record(who, action, subject, result)
