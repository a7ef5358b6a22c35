"""The commands that measure and draw: monitoring, graph."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import sys
import time
from typing import TYPE_CHECKING

import click

from commands.session import Failure, Session, warn

if TYPE_CHECKING:
    from monitoring.directory import Roster
    from monitoring.metrics import Metric, Reading
    from monitoring.store import Store
    from monitoring.watching import Rack
    from utility.config import Config
    from utility.hosts import Hosts
    from utility.service import Report

MAX_SPAN = 366 * 86400.0


class Teller:
    """Prints what the polls find: each Pi once, then what changes; each reading where a script reads it."""

    def __init__(self, hosts: Hosts, store: Store | None, as_json: bool) -> None:
        self._hosts, self._store, self._as_json = hosts, store, as_json
        self._told: dict[str, tuple[bool, bool]] = {}

    def reading(self, reading: Reading) -> None:
        from monitoring.table import reading_json, reading_line

        host = self._hosts.find(reading.mac)
        state = (bool(reading.values.get("up")), bool(reading.words.get("error")))
        if host is None or (self._told.get(reading.mac) == state and not self._as_json):
            return
        self._told[reading.mac] = state
        text = json.dumps(reading_json(host, reading)) if self._as_json else reading_line(host, reading, time.time())
        click.echo(text)

    def report(self, report: Report) -> None:
        """An event; that a Pi is up is the server's to know."""
        if not report.event:
            return
        if self._store is not None:
            self._store.add_event(report.mac, time.time(), report.severity, report.event)
        host = self._hosts.find(report.mac)
        name = host.name if host else report.mac
        if self._as_json:
            told = {"name": name, "mac": report.mac, "severity": str(report.severity), "event": report.event}
            click.echo(json.dumps(told))
        else:
            click.echo(f"{name:<12}  {report.severity}: {report.event}")


@click.command()
@click.option("--once", is_flag=True, help="Poll every Pi once, keep nothing, and end.")
@click.option("--json", "as_json", is_flag=True, help="For scripts: one object a line, for each poll.")
@click.pass_obj
def monitoring(session: Session, once: bool, as_json: bool) -> None:
    """Poll the Pis and raise alerts, without the rest of the server."""
    from utility.service import StateHeldError, only_server, server_runs

    config = session.config()
    hosts = session.hosts(config)
    if once:
        poll_once(session, config, hosts, as_json)
        return
    if server_runs(config.state_dir) and "monitoring" in config.services:
        raise Failure(
            "the server polls already; see `piman status --watch` and `piman events -f`. "
            "To poll from here, leave `monitoring` out of `services:`"
        )
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(only_server(config.state_dir, "monitoring"))
        except StateHeldError as error:
            raise Failure(str(error)) from None
        watch_on(config, hosts, stack.enter_context(session.store(config, read_only=False)), as_json)


def watch_on(config: Config, hosts: Hosts, store: Store, as_json: bool) -> None:
    """Poll until a signal."""
    from monitoring.watching import Watching
    from utility.service import Services

    if not as_json:
        click.echo(f"polling {len(hosts.all())} Pis every {config.monitoring.interval:g} s, until Ctrl-C", err=True)
    watching = Watching(config, store, rack_of(hosts, store, Teller(hosts, store, as_json)))
    failure = Services([watching]).run(lambda: None, lambda: None)
    if failure:
        raise Failure(failure)


def rack_of(hosts: Hosts, store: Store, teller: Teller) -> Rack:
    """What is watched, as far as a process beside the server knows it."""
    from monitoring.directory import Roster
    from monitoring.watching import Rack

    def roster() -> Roster:
        for problem in hosts.check():
            warn(f"hosts.csv is not taken over: {problem}")
        return Roster(hosts, store.pis())

    return Rack(
        hosts=lambda: roster().all(),
        by_mac=hosts.find,
        by_address=hosts.by_address,
        rows=store.pis,
        report=teller.report,
        foreign=lambda: ("", 0.0),
        polled=teller.reading,
    )


def poll_once(session: Session, config: Config, hosts: Hosts, as_json: bool) -> None:
    """One poll of each Pi; what was known before, if anything, is where its verdict begins."""
    from monitoring.client import Poller
    from monitoring.directory import Roster
    from monitoring.health import Health

    settings = config.monitoring
    health = Health(settings.interval, config.lease_time)
    rows = []
    if (config.state_dir / "piman.db").exists():
        with session.store(config) as store:
            rows = store.pis()
            for reading in store.latest_samples().values():
                health.restore(reading)
    pis = Roster(hosts, rows).all()
    if not pis:
        raise Failure("there are no Pis in hosts.csv")
    teller, waiting = Teller(hosts, None, as_json), {host.mac for host in pis}

    def take(reading: Reading) -> None:
        if reading.mac in waiting:
            teller.reading(reading)
            waiting.discard(reading.mac)
        if not waiting:
            poller.stop()

    quick = dataclasses.replace(settings, interval=max(1.0, settings.timeout))
    poller = Poller(quick, lambda: pis, lambda: rows, health, take, lambda _report: None)
    poller.once = True
    poller.run()


# ---------------------------------------------------------------------------------------------------------- the graph


@click.command()
@click.argument("pi")
@click.argument("metric")
@click.option("--since", default="24h", show_default=True, help="How far back: 90s, 30m, 24h, 7d.")
@click.option("--json", "as_json", is_flag=True, help="For scripts: a list of when, mean, low, high.")
@click.pass_obj
def graph(session: Session, pi: str, metric: str, since: str, as_json: bool) -> None:
    """Draw a METRIC of a PI over time: temperature, cpu, memory, disk, load, up, watts ..."""
    from monitoring.graph import draw
    from monitoring.operations import find_host

    config = session.config()
    host = find_host(session.roster(config), pi)
    wanted, span = find_metric(metric), parse_span(since)
    width, height = shutil.get_terminal_size((100, 24))
    until = time.time()
    with session.store(config) as store:
        found = store.samples(host.mac, wanted.name, until - span, until, points=500 if as_json else 2 * width)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(each) for each in found], indent=2))
        return
    is_plain = "utf" not in (sys.stdout.encoding or "").lower()
    click.echo(f"{host.name}, {wanted.help}")
    click.echo("\n".join(draw(wanted, found, until - span, until, width, min(height - 2, 20), is_plain=is_plain)))


def find_metric(word: str) -> Metric:
    """A metric by its name, or by the short one that rules know too."""
    from monitoring.metrics import METRICS
    from utility.rules import SHORT_NAMES, suggest

    name = SHORT_NAMES.get(word, word)
    if name not in METRICS:
        raise click.UsageError(f"there is no metric {word!r}; {suggest(word, [*METRICS, *SHORT_NAMES])}")
    return METRICS[name]


def parse_span(text: str) -> float:
    """`24h`, `7d` -> seconds."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604_800}
    number, unit = (text[:-1], text[-1:]) if text[-1:] in units else (text, "s")
    if not number.isdecimal() or not 0 < int(number[:9]) * units[unit] <= MAX_SPAN:
        raise click.UsageError(f"--since {text!r}: write it like 30m, 24h or 7d, a year at most")
    return float(int(number) * units[unit])
