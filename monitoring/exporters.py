"""The rack for Prometheus: the text of /metrics, and the agents on the Pis as targets for its discovery. Pure.

Own writer: Prometheus' text format is three kinds of line, and its Python library costs 3 MB and 70 ms for them. The
names are a promise to dashboards and rules: `piman_pi_`, `piman_switch_` and `piman_manager_` with the name of the
measure of an alert rule and its unit. A measure that is not known now is left out, never told as it was before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from monitoring.alerts import MANAGER, Alert, AlertSeverity, AlertState, Facts
from monitoring.facts import SwitchNews, View, gather, switch_subject
from monitoring.health import Up
from monitoring.metrics import METRICS, Kind, Reading
from monitoring.store import PiRow
from utility.config import Config, Switch
from utility.hosts import Host
from utility.rules import MEASURES
from utility.service import Stage
from utility.switches import Port

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PI_LABELS = ("name", "mac", "address", "switch", "port", "model")
MAX_EVENTS = 60  # different ones that are counted for each service; the others are summed up as "other"
_OPEN = (AlertState.FIRING, AlertState.ACKNOWLEDGED, AlertState.SILENCED, AlertState.SUPPRESSED)


@dataclass(frozen=True, slots=True)
class Scene:
    """All that is exported, at one time.

    site       what tells this manager's rack from others
    facts      as the alerts' rules have them
    hosts      every Pi that has a name; rows: the board, by MAC; readings: the last of each Pi
    ordered    the Pis that wait for an installation
    news       what each switch said last; faces: its ports, by its address
    counters   service -> what it counts -> how often
    process    of the manager itself: name of the family -> value
    """

    config: Config
    site: str
    facts: Sequence[Facts]
    hosts: Sequence[Host]
    rows: Mapping[str, PiRow]
    readings: Mapping[str, Reading] = field(default_factory=dict)
    ordered: frozenset[str] = frozenset()
    alerts: Sequence[Alert] = ()
    news: Sequence[SwitchNews] = ()
    faces: Mapping[str, Sequence[Port]] = field(default_factory=dict)
    counters: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    process: Mapping[str, float] = field(default_factory=dict)
    version: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """What Prometheus calls one metric. `scale`: by what our value is multiplied, for its unit."""

    name: str
    kind: str
    help: str
    scale: float = 1.0


def _family_of(measure: str) -> Family:
    """The family of a measure of the rules."""
    about = MEASURES[measure]
    if measure not in METRICS:
        name = measure.removeprefix(f"{about.subject}_")
        return Family(f"piman_{about.subject}_{name}", "gauge", _HELP[measure])
    metric = METRICS[measure]
    name, scale = measure, 1.0
    if metric.unit == "milliseconds":
        name, scale = f"{measure.removesuffix('_ms')}_seconds", 1e-3
    elif metric.unit in ("celsius", "seconds"):
        name = f"{measure}_{metric.unit}"
    if metric.kind is Kind.COUNTER:
        return Family(f"piman_pi_{name}_total", "counter", metric.help, scale)
    return Family(f"piman_pi_{name}", "gauge", metric.help, scale)


_HELP = {
    "agent": "The agent on the Pi answers; of a Pi that was never heard to have one there is nothing.",
    "stuck": "The boot makes no progress within the time that its step has.",
    "install_failed": "The installation failed.",
    "switch_up": "The switch answers.",
    "poe_percent": "How much of the power it has the switch gives to its ports.",
    "poe_denied": "How often the switch denied power to a port since it was last looked at.",
    "manager_disk_percent": "Space in use on the disk that holds the state.",
    "network": "The manager's network interface has a link.",
    "foreign_dhcp": "Another DHCP server was seen on the network.",
}
FAMILIES: Mapping[str, Family] = {measure: _family_of(measure) for measure in MEASURES}

_INFO = Family("piman_info", "gauge", "The manager and its version.")
_PI_INFO = Family("piman_pi_info", "gauge", "Every Pi of hosts.csv, and what runs on it.")
_STAGE = Family("piman_pi_stage", "gauge", "1 for the stage of the boot that the Pi is in; there is no other.")
_SINCE = Family("piman_pi_stage_since_timestamp_seconds", "gauge", "When the Pi came into its stage.")
_HEARD = Family("piman_pi_last_heard_timestamp_seconds", "gauge", "When the Pi was last heard, by any protocol.")
_DONE = Family("piman_pi_install_bytes", "gauge", "How much of the image the Pi has taken; while it takes one.")
_TOTAL = Family("piman_pi_install_size_bytes", "gauge", "How long the image is that the Pi takes.")
_ORDERED = Family("piman_pi_install_ordered", "gauge", "An installation is ordered for the Pi.")
_EXCUSED = Family("piman_pi_excused", "gauge", "The Pi need not be there now: it boots, or its port is off.")
_STRANGERS = Family("piman_strangers", "gauge", "Boards that were heard and are not in hosts.csv.")
_SWITCH_WATTS = Family("piman_switch_poe_watts", "gauge", "Power that the switch gives to its ports.")
_BUDGET = Family("piman_switch_poe_budget_watts", "gauge", "Power that the switch has for its ports.")
_ASKED = Family("piman_switch_asked_timestamp_seconds", "gauge", "When the switch was last asked.")
_PORT_WATTS = Family("piman_switch_port_watts", "gauge", "Power that a port gives.")
_PORT_LINK = Family("piman_switch_port_link", "gauge", "A port has a link.")
_PORT_ON = Family("piman_switch_port_enabled", "gauge", "A port may give power.")
_ALERTS = Family("piman_alerts", "gauge", "Open alerts, by severity and state.")
_ALERT = Family("piman_alert", "gauge", "1 for each alert that is open.")
_ALERT_SINCE = Family("piman_alert_since_timestamp_seconds", "gauge", "Since when what an alert tells of is so.")
_EVENTS = Family("piman_service_events_total", "counter", "What a service did, and why it did not, since it started.")
PROCESS: Mapping[str, Family] = {
    each.name: each
    for each in (
        Family("process_cpu_seconds_total", "counter", "Processor time of the manager."),
        Family("process_resident_memory_bytes", "gauge", "Memory of the manager."),
        Family("process_virtual_memory_bytes", "gauge", "Address space of the manager."),
        Family("process_open_fds", "gauge", "Open files and sockets of the manager."),
        Family("process_max_fds", "gauge", "How many files and sockets the manager may have open."),
        Family("process_start_time_seconds", "gauge", "When the manager started."),
        Family("process_threads", "gauge", "Threads of the manager."),
    )
}


class _Page:
    """The lines of each family, in the order in which the families came."""

    def __init__(self, site: str) -> None:
        self.site = _label("site", site)
        self._lines: dict[Family, list[str]] = {}

    def add(self, family: Family, value: float, labels: str = "") -> None:
        both = f"{self.site},{labels}" if labels else self.site
        lines = self._lines.setdefault(family, [])
        lines.append(f"{family.name}{{{both}}} {_number(value * family.scale)}\n")

    def text(self) -> bytes:
        pieces: list[str] = []
        for family, lines in self._lines.items():
            pieces.append(f"# HELP {family.name} {_escaped(family.help)}\n# TYPE {family.name} {family.kind}\n")
            pieces += lines
        return "".join(pieces).encode()


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _label(name: str, value: object) -> str:
    text = _escaped(str(value)).replace('"', r"\"")
    return f'{name}="{text.encode(errors="replace").decode()}"'


def labels_text(labels: Mapping[str, object]) -> str:
    """`name="pi3",port="3"`; empty ones are left out, which to Prometheus is the same."""
    return ",".join(_label(name, value) for name, value in labels.items() if value not in ("", None))


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(round(value, 9))


# ------------------------------------------------------------------------------------------------------- the Pis


def switch_name(switch: Switch) -> str:
    return switch.name or str(switch.address)


def places_of(config: Config) -> dict[str, tuple[Switch, int]]:
    """The switch and port that config.yaml has for each address."""
    return {
        str(address): (switch, number)
        for switch in config.switches
        for number, address in enumerate(switch.pi_addresses, 1)
        if address is not None
    }


def labels_of_pis(scene: Scene) -> dict[str, dict[str, str]]:
    """What each Pi is told apart by, by its MAC. The keys are PI_LABELS."""
    places = places_of(scene.config)
    found = {}
    for host in scene.hosts:
        place = places.get(str(host.address))
        row = scene.rows.get(host.mac)
        found[host.mac] = {
            "name": host.name,
            "mac": host.mac,
            "address": str(host.address),
            "switch": switch_name(place[0]) if place else "",
            "port": str(place[1]) if place else "",
            "model": row.facts.get("model", "") if row else "",
        }
    return found


def _add_pis(page: _Page, scene: Scene, pis: Mapping[str, Mapping[str, str]]) -> None:
    texts = {mac: labels_text(labels) for mac, labels in pis.items()}
    for mac, text in texts.items():
        reading, row = scene.readings.get(mac), scene.rows.get(mac)
        words = reading.words if reading else {}
        facts = row.facts if row else {}
        more = {name: words.get(name, "") for name in ("image", "kernel", "agent")}
        more["image"] = more["image"] or facts.get("image", "")
        more["serial"] = facts.get("serial", "")
        extra = labels_text(more)
        page.add(_PI_INFO, 1, f"{text},{extra}" if extra else text)
    for mac, text in texts.items():
        _add_board(page, scene.rows.get(mac), text)
        page.add(_ORDERED, mac in scene.ordered, text)
    page.add(_STRANGERS, sum(not row.name and mac not in texts for mac, row in scene.rows.items()))
    for each in scene.facts:
        if each.kind == "pi" and each.subject in texts:
            page.add(_EXCUSED, bool(each.excuse), texts[each.subject])
            for measure, value in each.values.items():
                page.add(FAMILIES[measure], value, texts[each.subject])


def _add_board(page: _Page, row: PiRow | None, text: str) -> None:
    """What the board knows of a Pi that was heard."""
    if row is None or row.stage is None:
        return
    page.add(_STAGE, 1, f"{text},{_label('stage', row.stage)}")
    page.add(_SINCE, row.since, text)
    if row.heard_at:
        page.add(_HEARD, row.heard_at, text)
    if row.stage is Stage.IMAGE and row.total:
        page.add(_DONE, row.done, text)
        page.add(_TOTAL, row.total, text)


# -------------------------------------------------------------------------------- the switches, alerts and services


def _add_switches(page: _Page, scene: Scene, pis: Mapping[str, Mapping[str, str]]) -> None:
    there = {(labels["switch"], labels["port"]): labels for labels in pis.values() if labels["switch"]}
    facts = {each.subject: each for each in scene.facts if each.kind == "switch"}
    news = {each.address: each for each in scene.news}
    for switch in scene.config.switches:
        name, address = switch_name(switch), str(switch.address)
        text = labels_text({"switch": name, "address": address})
        if switch_subject(address) in facts:
            for measure, value in facts[switch_subject(address)].values.items():
                page.add(FAMILIES[measure], value, text)
        said = news.get(address)
        if said:
            page.add(_ASKED, said.asked_at, text)
        if said and not said.error:
            for family, watts in ((_SWITCH_WATTS, said.watts), (_BUDGET, said.budget)):
                if watts is not None:
                    page.add(family, watts, text)
        for port in scene.faces.get(address, ()):
            pi = there.get((name, str(port.number)), {})
            _add_port(page, port, labels_text({"switch": name, "port": port.number, "name": pi.get("name", "")}))


def _add_port(page: _Page, port: Port, text: str) -> None:
    if port.link is not None:
        page.add(_PORT_LINK, port.link, text)
    if port.has_poe and port.admin_on is not None:
        page.add(_PORT_ON, port.admin_on, text)
    if port.milliwatts is not None:
        page.add(_PORT_WATTS, port.milliwatts / 1000, text)


def _add_alerts(page: _Page, alerts: Iterable[Alert]) -> None:
    counts = {(severity, state): 0 for severity in AlertSeverity for state in _OPEN}
    for alert in alerts:
        if not alert.resolved_at:
            counts[alert.severity, alert.state] += 1
            labels = {"rule": alert.rule, "subject": alert.subject, "name": alert.name, "severity": alert.severity}
            page.add(_ALERT, 1, labels_text({**labels, "state": alert.state}))
            page.add(_ALERT_SINCE, alert.since, labels_text(labels))
    for (severity, state), count in counts.items():
        page.add(_ALERTS, count, labels_text({"severity": severity, "state": state}))


def _add_services(page: _Page, counters: Mapping[str, Mapping[str, int]]) -> None:
    for service, counted in counters.items():
        told = sorted(counted.items(), key=lambda item: -item[1])
        other = sum(count for _event, count in told[MAX_EVENTS:])
        for event, count in [*sorted(told[:MAX_EVENTS]), *([("other", other)] if other else [])]:
            page.add(_EVENTS, count, labels_text({"service": service, "event": event}))


def prometheus_text(scene: Scene) -> bytes:
    """The answer to GET /metrics, in Prometheus' text format."""
    page = _Page(scene.site)
    pis = labels_of_pis(scene)
    page.add(_INFO, 1, labels_text({"version": scene.version}))
    _add_pis(page, scene, pis)
    _add_switches(page, scene, pis)
    for each in scene.facts:
        if each.subject == MANAGER:
            for measure, value in each.values.items():
                page.add(FAMILIES[measure], value)
    _add_alerts(page, scene.alerts)
    _add_services(page, scene.counters)
    for name, value in scene.process.items():
        page.add(PROCESS[name], value)
    return page.text()


def service_discovery(scene: Scene, port: int) -> list[dict[str, object]]:
    """The answer to GET /sd, in the form of Prometheus' http_sd: each Pi as a target with its labels."""
    return [
        {"targets": [f"{labels['address']}:{port}"], "labels": {"site": scene.site, **labels}}
        for labels in labels_of_pis(scene).values()
    ]


def facts_from_store(config: Config, rows: Sequence[PiRow], readings: Mapping[str, Reading], now: float) -> list[Facts]:
    """The facts as far as the store has them, for a process that is not the server."""
    places = places_of(config)
    view = View(
        rows=rows,
        readings=readings,
        ups={mac: _up_of(each) for mac, each in readings.items()},
        places={row.mac: (str(place[0].address), place[1]) for row in rows if (place := places.get(str(row.address)))},
        interval=config.monitoring.interval,
    )
    return [each for each in gather(view, now) if each.subject != MANAGER]


def _up_of(reading: Reading) -> Up:
    since = reading.words.get("since", "")
    seconds = float(since) if re.fullmatch(r"[0-9]{1,12}", since) else 0.0
    return Up(bool(reading.values.get("up")), seconds, reading.words.get("evidence", ""))
