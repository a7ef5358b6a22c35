"""The rack as JSON: what the page draws and the API answers. Pure: no clock, no store, no Flask.

The keys are a promise to scripts (README, "API"): add, never rename.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import IPv4Address

from monitoring.faces import power_word
from monitoring.metrics import Reading
from monitoring.store import Event, PiRow, Place
from monitoring.table import health as health_words
from utility.config import Config, Problem, Switch
from utility.hosts import Host
from utility.service import FileRecord
from utility.switches import Port

Json = dict[str, object]


def places_of(config: Config) -> dict[str, tuple[int, int]]:
    """Address -> the number of the switch and the port that config.yaml gives it."""
    return {
        str(address): (switch.index, number)
        for switch in config.switches
        for number, address in enumerate(switch.pi_addresses, 1)
        if address is not None
    }


def seen_at(config: Config, places: Mapping[str, Place]) -> dict[str, tuple[int, int]]:
    """MAC -> the number of the switch and the port where the switches have seen it."""
    numbers = {str(switch.address): switch.index for switch in config.switches}
    return {mac: (numbers[each.switch], each.port) for mac, each in places.items() if each.switch in numbers}


def pi_view(
    row: PiRow | None,
    host: Host | None,
    place: tuple[int, int] | None,
    ordered: bool,
    reading: Reading | None = None,
) -> Json:
    """One Pi: of hosts.csv (`host`), heard or not (`row`), or a stranger that asked (`host` None)."""
    row = row or PiRow(host.mac if host else "")
    facts = dict(row.facts)
    return {
        "mac": row.mac,
        "name": host.name if host else "",
        "address": str(host.address) if host else "",
        "known": host is not None,
        "waiting": host is None and bool(row.facts.keys() & {"waiting", "model", "serial"}),
        "switch": place[0] if place else None,
        "port": place[1] if place else None,
        "stage": str(row.stage) if row.stage else None,
        "since": row.since,
        "done": row.done,
        "total": row.total,
        "percent": round(100 * row.done / row.total, 1) if row.total else None,
        "heard": row.heard,
        "heard_at": row.heard_at,
        "sent": row.sent,
        "sent_at": row.sent_at,
        "ordered": ordered,
        "health": _health(row),
        "trouble": health_words(row) if _health(row) in ("error", "warning") else "",
        "image": facts.get("image", ""),
        "model": facts.get("model", ""),
        "serial": facts.get("serial", ""),
        "vendor": facts.get("vendor", ""),
        "facts": facts,
        "values": dict(reading.values) if reading else {},
        "up": bool(reading.values["up"]) if reading and "up" in reading.values else None,
        "evidence": reading.words.get("evidence", "") if reading else "",
    }


def _health(row: PiRow) -> str:
    """`ok`, `warning`, `error`, or `unknown` for a Pi that was never heard."""
    if row.stage == "failed":
        return "error"
    if row.hint or row.stuck:
        return "warning"
    return "ok" if row.stage else "unknown"


def pi_views(
    rows: Iterable[PiRow],
    hosts: Sequence[Host],
    places: Mapping[str, tuple[int, int]],
    ordered: Collection[str],
    readings: Mapping[str, Reading],
    seen: Mapping[str, tuple[int, int]] | None = None,
) -> dict[str, Json]:
    """Every Pi of hosts.csv in its order, then the strangers, by MAC; these where the switches have `seen` them."""
    by_mac = {row.mac: row for row in rows}
    views = {}
    for host in hosts:
        place = places.get(str(host.address))
        row = by_mac.pop(host.mac, None)
        views[host.mac] = pi_view(row, host, place, host.mac in ordered, readings.get(host.mac))
    for mac, stranger in by_mac.items():
        views[mac] = pi_view(stranger, None, (seen or {}).get(mac), mac in ordered)
    return views


def rack_view(config: Config, hosts: Sequence[Host], faces: Mapping[str, Sequence[Port]]) -> Json:
    """The faces of the switches: what config.yaml says of each port, and what the switch does."""
    by_address = {host.address: host.mac for host in hosts}
    return {
        "server_address": str(config.server_address),
        "network": str(config.network),
        "interface": config.interface,
        "switches": [
            {
                "index": switch.index,
                "name": switch.name or str(switch.address),
                "address": str(switch.address),
                "ports": _port_views(switch, by_address, faces.get(str(switch.address), ())),
            }
            for switch in config.switches
        ],
    }


def _port_views(switch: Switch, by_address: Mapping[IPv4Address, str], face: Sequence[Port]) -> list[Json]:
    seen = {port.number: port for port in face}
    count = max([len(switch.pi_addresses), *(number for number, port in seen.items() if port.has_poe)])
    views = []
    for number in range(1, count + 1):
        address = switch.pi_addresses[number - 1] if number <= len(switch.pi_addresses) else None
        port = seen.get(number)
        views.append(
            {
                "port": number,
                "address": str(address) if address else "",
                "mac": by_address.get(address, "") if address else "",
                "protected": number in switch.protected_ports,
                "label": port.label if port else "",
                "poe": power_word(port) if port else None,
                "watts": round(port.milliwatts / 1000, 1) if port and port.milliwatts is not None else None,
                "link": port.link if port else None,
            }
        )
    return views


def event_view(event: Event, names: Mapping[str, str]) -> Json:
    """One line of the timeline; `names` of the Pis by MAC."""
    return {
        "id": event.id,
        "when": event.when,
        "mac": event.mac,
        "name": names.get(event.mac, ""),
        "severity": str(event.severity),
        "text": event.text,
    }


def problem_view(problem: Problem) -> Json:
    """One thing wrong with a file; its name without the folder."""
    return {"file": problem.file.name, "line": problem.line, "key": problem.key, "text": problem.text}


def file_view(file: FileRecord) -> Json:
    """One file that a Pi fetched."""
    return {
        "name": file.name,
        "size": file.size,
        "done": file.done,
        "began": file.began,
        "seconds": round(file.seconds, 3),
        "resent": file.resent,
        "outcome": file.outcome,
        "blksize": file.blksize,
    }
