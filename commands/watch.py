"""The commands that look at the Pis, and take in those that wait: status, events, adopt."""

from __future__ import annotations

import dataclasses
import json
import time
from datetime import datetime
from typing import TYPE_CHECKING

import click

from commands.session import Failure, Screen, Session

if TYPE_CHECKING:
    from monitoring.store import Event


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.option("--watch", is_flag=True, help="Draw again every second, until Ctrl-C.")
@click.pass_obj
def status(session: Session, as_json: bool, watch: bool) -> None:
    """Show every Pi: where it is, its stage and progress, when it was last heard, and whether it is well."""
    from monitoring.directory import Roster, where_of
    from monitoring.table import measured, status_json, status_table
    from utility.service import server_runs

    config = session.config()
    hosts = session.hosts(config)
    screen = Screen()
    with session.store(config) as store:
        while True:
            hosts.check()
            rows, ordered = store.pis(), {order.mac for order in store.orders()}
            pis = Roster(hosts, rows).all()
            where = where_of(config, pis, store.places())
            known_of = measured(store.latest_samples(), store.alerts())
            if as_json:
                click.echo(json.dumps(status_json(rows, pis, where, ordered, known_of), indent=2))
            else:
                table = status_table(rows, pis, where, ordered, time.time(), known_of)
                running = server_runs(config.state_dir)
                table += [] if running else ["no server runs: this is what was known when it stopped"]
                if watch:
                    screen.draw(table)
                else:
                    click.echo("\n".join(table))
            if not watch:
                return
            time.sleep(1)


@click.command()
@click.argument("macs", nargs=-1, metavar="MAC...")
@click.option("--all", "every", is_flag=True, help="Every Raspberry Pi that asked for an address and is not known yet.")
@click.option("--name", default="", help="Its hostname.")
@click.option("--address", default="0.0.0.0", show_default=True, help="0.0.0.0: Piman picks a free one.")
@click.pass_obj
def adopt(session: Session, macs: tuple[str, ...], every: bool, name: str, address: str) -> None:
    """Take unknown Pis in: write them into hosts.csv. They get their address when they next ask."""
    from monitoring import operations

    config = session.config()
    hosts = session.hosts(config)
    if every:
        with session.store(config) as store:
            macs += operations.strangers(hosts, store.pis())
    if not macs:
        raise Failure("nobody waits" if every else "name the MAC to adopt (`piman status` lists those that asked)")
    if len(macs) > 1 and (name or address != "0.0.0.0"):
        raise click.UsageError("--name and --address are for one Pi")
    hosts = session.hosts(config, write=True)
    for mac in macs:
        host = operations.adopt(hosts, mac, name, address)
        click.echo(f"{host.mac} is {host.name} now, with {host.address}")


@click.command()
@click.argument("pi", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on as things happen, until Ctrl-C.")
@click.option("-n", "--number", type=int, default=50, show_default=True, help="How many of the latest.")
@click.option("--json", "as_json", is_flag=True, help="For scripts: one object a line.")
@click.pass_obj
def events(session: Session, pi: str | None, follow: bool, number: int, as_json: bool) -> None:
    """Show the timeline of all Pis, or of one (by hostname, address or MAC)."""
    from monitoring.operations import find_host

    config = session.config()
    hosts = session.roster(config)
    mac = find_host(hosts, pi).mac if pi else None
    with session.store(config) as store:
        found = store.latest_events(mac, number)
        last = found[-1].id if found else store.last_event_id()
        while True:
            for event in found:
                host = hosts.find(event.mac)
                click.echo(event_line(event, host.name if host else event.mac, as_json))
                last = event.id
            if not follow:
                return
            time.sleep(0.5)
            found = store.events(mac, after=last)


def event_line(event: Event, name: str, as_json: bool) -> str:
    from utility.service import Severity

    if as_json:
        return json.dumps({**dataclasses.asdict(event), "name": name})
    when = datetime.fromtimestamp(event.when).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    mark = "" if event.severity is Severity.INFO else f"{event.severity}: "
    return f"{when}  {name:<12}  {mark}{event.text}"
