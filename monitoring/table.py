"""The board as text: the table of `piman status`, its JSON, and a Pi's progress line. No clock, no I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from monitoring.alerts import Alert
from monitoring.metrics import METRICS, Reading
from monitoring.store import PiRow
from utility.hosts import Host

HEADINGS = ("NAME", "MAC", "IP", "SWITCH/PORT", "STAGE", "PROGRESS", "HEARD", "UP", "CPU", "TEMP", "IMAGE", "HEALTH")
_MEASURED = slice(HEADINGS.index("UP"), HEADINGS.index("IMAGE"))  # left out where nobody polls
_OLD = 300.0  # seconds


@dataclass(frozen=True, slots=True)
class Measured:
    """What the monitoring knows, by MAC: the last reading of each Pi, and its open alerts, the worst first."""

    readings: Mapping[str, Reading] = field(default_factory=dict)
    alerts: Mapping[str, Sequence[Alert]] = field(default_factory=dict)


def measured(readings: Mapping[str, Reading], alerts: Iterable[Alert]) -> Measured:
    """The same from what the store holds."""
    by_mac: dict[str, list[Alert]] = {}
    for alert in sorted(alerts, key=lambda each: (-each.severity.rank, each.since)):
        by_mac.setdefault(alert.subject, []).append(alert)
    return Measured(readings, by_mac)


NOTHING = Measured()


def age(seconds: float) -> str:
    """`12 s`, `3 min`, `2 h`, `5 d`: how long ago, in the largest unit that fits."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def progress(row: PiRow) -> str:
    """`12.3/45.0 MB 27 %` of the transfer of a step that has one; else nothing."""
    if not row.total:
        return ""
    return f"{row.done / 1e6:.1f}/{row.total / 1e6:.1f} MB {100 * row.done // row.total} %"


def health(row: PiRow) -> str:
    """What an operator should know in a word or a sentence."""
    if row.stage == "failed":
        return f"failed: {row.reason}" if row.reason else "failed"
    if row.hint:  # it says why, where `stuck` says only what was to come
        return row.hint
    if row.stuck:
        return f"stuck: {row.stuck}"
    return "ok"


def progress_line(name: str, row: PiRow | None) -> str:
    """One Pi while it is installed: its name, stage, progress and trouble; None: nothing was heard yet."""
    if row is None:
        return f"{name:<12} waiting"
    trouble = health(row) if _in_trouble(row) else ""
    return f"{name:<12} {row.stage or '-':<10} {progress(row):<24} {trouble}".rstrip()


def status_table(
    rows: Sequence[PiRow],
    hosts: Sequence[Host],
    where: Mapping[str, tuple[int, int]],
    ordered: Collection[str],
    now: float,
    known_of: Measured = NOTHING,
) -> list[str]:
    """The lines of the table: every Pi of hosts.csv, heard or not, then the unknown MACs that asked.

    where     switch number and port of each MAC that has one
    ordered   the MACs that wait for a fresh install
    now       Unix time
    known_of  what was measured
    """
    by_mac = {row.mac: row for row in rows}
    lines: list[tuple[str, ...]] = [HEADINGS]
    for host in hosts:
        row = by_mac.pop(host.mac, None)
        place = where.get(host.mac)
        known = (host.name, host.mac, str(host.address), f"{place[0]}/{place[1]}" if place else "-")
        order = "reinstall ordered" if host.mac in ordered else ""
        reading = known_of.readings.get(host.mac)
        if reading and now - reading.when > _OLD:  # it says nothing of now
            reading = None
        if row is None or not row.stage:
            trouble = (row.hint if row else "") or order or "-"
            lines.append((*known, "-", "", "never", *_cells(reading, now), "-", trouble))
            continue
        if reading and reading.when < row.since and not reading.values.get("up", 1.0):  # it was booting then
            reading = None
        heard_at = max(row.heard_at, _answered_at(reading))
        heard = age(now - heard_at) if heard_at else "never"
        trouble = health(row) if _in_trouble(row) else order or _worst(known_of.alerts.get(host.mac, ()), reading)
        image = row.facts.get("image") or (reading.words.get("image") if reading else "") or "-"
        lines.append((*known, row.stage, progress(row), heard, *_cells(reading, now), image, trouble))
    if not known_of.readings:
        lines = [(*line[: _MEASURED.start], *line[_MEASURED.stop :]) for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return [*text, *(_stranger(row, now) for row in by_mac.values())]


def _answered_at(reading: Reading | None) -> float:
    """When a Pi last answered a poll, as far as its last reading says."""
    return reading.when if reading and "ping_ms" in reading.values else 0.0


def _cells(reading: Reading | None, now: float) -> tuple[str, str, str]:
    """The cells UP, CPU, TEMP."""
    if reading is None:
        return "-", "-", "-"
    since = reading.words.get("since", "")
    span = age(now - float(since)) if since.isdecimal() and since != "0" else ""
    up = span if reading.values.get("up") else f"down {span}".rstrip()
    cpu, heat = (
        METRICS[name].shown(reading.values[name]) if name in reading.values else "-"
        for name in ("cpu_percent", "temperature")
    )
    return up, cpu, heat


def reading_line(host: Host, reading: Reading, now: float) -> str:
    """One Pi as the last poll found it: `pi1  172.30.4.13  up 3 h  12.3 %  45.6 °C  0.4 ms`, and what is wrong."""
    up, cpu, heat = _cells(reading, now)
    state = up if up.startswith("down") else f"up {up}".rstrip()
    ping = METRICS["ping_ms"].shown(reading.values["ping_ms"]) if "ping_ms" in reading.values else "-"
    error = reading.words.get("error", "")
    return f"{host.name:<12}  {host.address!s:<15}  {state:<12}  {cpu:>7}  {heat:>8}  {ping:>9}  {error}".rstrip()


def reading_json(host: Host, reading: Reading) -> dict[str, object]:
    """The same for scripts."""
    told = {"name": host.name, "mac": host.mac, "address": str(host.address), "when": reading.when}
    return {**told, "values": dict(reading.values), "words": dict(reading.words)}


def _worst(alerts: Sequence[Alert], reading: Reading | None) -> str:
    """The gravest of what is wrong, and how much more there is."""
    if alerts:
        more = f" (and {len(alerts) - 1} more)" if len(alerts) > 1 else ""
        return f"{alerts[0].severity}: {alerts[0].text}{more}"
    if reading and not reading.values.get("up", 1.0):
        return f"down: {reading.words.get('evidence', '')}".rstrip(": ")
    return "ok"


def _in_trouble(row: PiRow) -> bool:
    return bool(row.stage == "failed" or row.hint or row.stuck)


def _stranger(row: PiRow, now: float) -> str:
    """One that hosts.csv does not know; `waiting`: its requests are held until somebody adopts it."""
    begin = "waiting for approval" if row.facts.get("waiting") == "yes" else "unknown"
    serial = row.facts.get("serial", "")
    known = (row.facts.get("vendor"), row.facts.get("model"), serial and f"serial {serial}")
    what = "  ".join(each for each in known if each) or row.heard or "asked for an address"
    return f"{begin}: {row.mac}  {what}  {age(now - row.heard_at)} ago; adopt with: piman adopt {row.mac}"


def status_json(
    rows: Sequence[PiRow],
    hosts: Sequence[Host],
    where: Mapping[str, tuple[int, int]],
    ordered: Collection[str],
    known_of: Measured = NOTHING,
) -> list[dict[str, object]]:
    """The same for scripts. The keys are a promise; a Pi never heard has stage null."""
    by_mac = {row.mac: row for row in rows}
    known = {host.mac: host for host in hosts}
    answer: list[dict[str, object]] = []
    for mac in [*known, *(mac for mac in by_mac if mac not in known)]:
        row, host, place = by_mac.get(mac), known.get(mac), where.get(mac)
        answer.append(
            {
                "name": host.name if host else None,
                "mac": mac,
                "address": str(host.address) if host else None,
                "known": host is not None,
                "ordered": mac in ordered,
                "switch": place[0] if place else None,
                "port": place[1] if place else None,
                "stage": row.stage or None if row else None,
                "since": row.since if row else None,
                "done": row.done if row else None,
                "total": row.total if row else None,
                "heard": row.heard if row else None,
                "heard_at": row.heard_at or None if row else None,
                "sent": row.sent if row else None,
                "sent_at": row.sent_at or None if row else None,
                "stuck": row.stuck or None if row else None,
                "reason": row.reason or None if row else None,
                "hint": row.hint or None if row else None,
                "facts": dict(row.facts) if row else {},
                **_measured_json(known_of.readings.get(mac), known_of.alerts.get(mac, ())),
            }
        )
    return answer


def _measured_json(reading: Reading | None, alerts: Sequence[Alert]) -> dict[str, object]:
    """What is measured of a Pi; `up` is null where nobody polled it."""
    words = reading.words if reading else {}
    since = words.get("since", "")
    return {
        "up": bool(reading.values["up"]) if reading and "up" in reading.values else None,
        "up_since": float(since) or None if since.isdecimal() else None,
        "evidence": words.get("evidence"),
        "measured_at": reading.when if reading else None,
        "measured": {name: value for name, value in reading.values.items() if name != "up"} if reading else {},
        "agent": {name: words.get(name) or None for name in ("agent", "image", "kernel", "error")},
        "alerts": [f"{each.severity}: {each.text}" for each in alerts],
    }
