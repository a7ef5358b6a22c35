"""What is known now, put together as facts for the rules: board, readings, switches, the manager. Pure.

What a Pi's stage says goes before its readings: one that boots or is installed is not missing, one whose boot is stuck
or whose installation failed is said to be so, and not to be down as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from monitoring.alerts import MANAGER, Facts
from monitoring.health import Up
from monitoring.metrics import AGENT_METRICS, Reading
from monitoring.store import PiRow
from utility.service import Stage

POWER_GRACE = 180.0  # for a Pi to be heard again after its port was turned on
FOREIGN_FOR = 900.0  # another DHCP server is told of now and then; so long it is believed to be there
STALE_POLLS = 3.5  # a reading older than so many intervals says nothing of now

_FROM_AGENT = frozenset(metric.name for metric in AGENT_METRICS)


@dataclass(frozen=True, slots=True)
class SwitchNews:
    """What a switch said when it was last asked. `error`: why it did not answer, empty if it did.

    percent   of the power it can give, None where it does not say; watts, budget: what it gives, and can give
    denied    how often it denied power to a port since the look before
    off       the ports that are switched off
    """

    address: str
    name: str
    asked_at: float
    error: str = ""
    percent: float | None = None
    denied: int | None = None
    off: frozenset[int] = frozenset()
    watts: float | None = None
    budget: float | None = None


@dataclass(frozen=True, slots=True)
class ManagerNews:
    """What the manager knows of itself; None: it cannot tell."""

    disk_percent: float | None = None
    network: bool | None = None
    foreign_dhcp: str = ""  # the address of another DHCP server
    foreign_at: float = 0.0


@dataclass(frozen=True, slots=True)
class View:
    """All that is known at one time.

    rows        the board
    readings    the last of each Pi
    ups         the verdict on each Pi
    places      (address of the switch, port) of each Pi
    powered     when the port of each Pi was last turned on
    agents      the Pis whose agent was ever heard: of the others it is not missing
    interval    seconds between two polls
    """

    rows: Iterable[PiRow]
    readings: Mapping[str, Reading] = field(default_factory=dict)
    ups: Mapping[str, Up] = field(default_factory=dict)
    places: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    powered: Mapping[str, float] = field(default_factory=dict)
    agents: frozenset[str] = frozenset()
    switches: Iterable[SwitchNews] = ()
    manager: ManagerNews = ManagerNews()
    interval: float = 10.0


def switch_subject(address: str) -> str:
    """How a switch is called as the subject of an alert."""
    return f"switch:{address}"


Kept = dict[str, tuple[tuple[object, ...], Facts]]  # MAC -> what its facts were made of, and they


def gather(view: View, now: float, kept: Kept | None = None) -> list[Facts]:
    """The facts of the manager, of each switch, and of each Pi that hosts.csv knows.

    kept   of the look before, to be given again: of a Pi of which nothing is new the same object comes back
    """
    switches = {each.address: each for each in view.switches}
    facts = [_of_manager(view.manager, now)]
    facts += [_of_switch(each) for each in switches.values()]
    kept = {} if kept is None else kept
    facts += [_of_pi(row, view, switches, now, kept) for row in view.rows if row.name]
    if len(kept) > 2 * len(facts):  # many have left
        kept.clear()
    return facts


def _of_manager(news: ManagerNews, now: float) -> Facts:
    is_foreign = bool(news.foreign_dhcp) and 0 <= now - news.foreign_at < FOREIGN_FOR
    values = {"foreign_dhcp": float(is_foreign)}
    if news.disk_percent is not None:
        values["manager_disk_percent"] = news.disk_percent
    if news.network is not None:
        values["network"] = float(news.network)
    return Facts(MANAGER, "manager", "the manager", values, {"foreign_dhcp": news.foreign_dhcp})


def _of_switch(news: SwitchNews) -> Facts:
    values = {"switch_up": float(not news.error)}
    if news.percent is not None and not news.error:
        values["poe_percent"] = news.percent
    if news.denied is not None and not news.error:
        values["poe_denied"] = float(news.denied)
    return Facts(
        switch_subject(news.address),
        "switch",
        f"switch {news.name or news.address}",
        values,
        {"switch_up": news.error},
        parent=MANAGER,
        names=tuple(name for name in (news.name, news.address) if name),
        asked_at=news.asked_at,
    )


def excuse_of(row: PiRow, powered_at: float, port_is_off: bool, now: float) -> str:
    """Why a Pi need not be there now; empty: it should."""
    if row.stage is Stage.FAILED:
        return "its installation failed"
    if row.stage not in (Stage.UP, None):
        return f"its boot is stuck in {row.stage}" if row.stuck else f"it boots: {row.stage}"
    if port_is_off:
        return "its port is switched off"
    if powered_at > row.heard_at and 0 <= now - powered_at < POWER_GRACE:
        return f"it was power-cycled {now - powered_at:.0f} s ago"
    return ""


def _of_pi(row: PiRow, view: View, switches: Mapping[str, SwitchNews], now: float, kept: Kept) -> Facts:
    mac = row.mac
    place, reading, up, has_agent = view.places.get(mac), view.readings.get(mac), view.ups.get(mac), mac in view.agents
    news = switches.get(place[0]) if place else None
    is_off = news is not None and place is not None and place[1] in news.off
    if reading is not None and not 0 <= now - reading.when < max(STALE_POLLS * view.interval, 30.0):
        reading = None
    excuse = excuse_of(row, view.powered.get(mac, 0.0), is_off, now)
    parent = switch_subject(news.address) if news else MANAGER
    made_of = (row, reading, up, has_agent, excuse, parent)
    before = kept.get(mac)
    if before is not None and before[0] == made_of:
        return before[1]
    facts = _made_of(row, reading, up, has_agent, excuse, parent)
    kept[mac] = made_of, facts
    return facts


def _made_of(row: PiRow, reading: Reading | None, up: Up | None, has_agent: bool, excuse: str, parent: str) -> Facts:
    values = {"stuck": float(bool(row.stuck)), "install_failed": float(row.stage is Stage.FAILED)}
    words = {"install_failed": row.reason}
    if row.stuck:
        words["stuck"] = row.hint or f"in {row.stage}: {row.stuck}"
    if up and up.since and row.heard_at:
        values["up"] = float(up.is_up)
        words["up"] = up.evidence
    if reading is not None:
        values |= _measured(reading, has_agent)
    if "agent" in values and not values.get("up"):
        del values["agent"]  # that it is down says more
    return Facts(
        row.mac,
        "pi",
        row.name,
        values,
        words,
        parent=parent,
        names=(str(row.address),),
        excuse=excuse,
    )


def _measured(reading: Reading, has_agent: bool) -> dict[str, float]:
    """What the last poll found."""
    values = dict(reading.values)
    values.pop("up", None)
    if has_agent or not _FROM_AGENT.isdisjoint(values):
        values["agent"] = float(not reading.words.get("error"))
    return values
