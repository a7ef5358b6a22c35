"""The commands that switch ports off and on: restart, reinstall."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from commands.session import TIMED_OUT, Failure, Screen, Session, finish, warn, whoami

if TYPE_CHECKING:
    from monitoring.operations import Outcome, Target
    from monitoring.store import Store
    from utility.hosts import Host


def show_step(target: Target, text: str) -> None:
    click.echo(f"{target.label}: {text}")


def show(outcomes: Sequence[Outcome]) -> None:
    for each in outcomes:
        click.echo(f"{each.target.label}: {each.text}", err=not each.ok)


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="SWITCH PORTS... | PI...")
@click.pass_obj
def restart(session: Session, targets: tuple[str, ...]) -> None:
    """Power-cycle ports (`restart 0 2 3 4`, `restart 0 1-6,8`) or Pis (`restart pi3 pi4`)."""
    from monitoring.operations import Operations, resolve

    config = session.config()
    chosen = resolve(config, session.roster(config), targets, warn)
    with session.store(config, read_only=False) as store:
        outcomes = Operations(store, whoami(), show_step).cycle(chosen)
    show(outcomes)
    finish(len(chosen), sum(not each.ok for each in outcomes), "ports were not restarted")


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="SWITCH PORTS... | PI...")
@click.option("--wait", is_flag=True, help="Show each Pi's progress until it is up.")
@click.option("--timeout", type=float, default=900.0, show_default=True, help="Seconds to wait, with --wait.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def reinstall(session: Session, targets: tuple[str, ...], wait: bool, timeout: float, yes: bool) -> None:
    """Format the cards of exactly these Pis and install them anew, then power-cycle them."""
    from monitoring.operations import Operations, check_pis, resolve
    from utility.service import server_runs

    config = session.config()
    chosen = resolve(config, session.roster(config), targets, warn)
    check_pis(chosen)
    if not yes and sys.stdin.isatty():
        click.confirm(f"Erase the cards of {', '.join(t.label for t in chosen)} and install them anew?", abort=True)
    if not server_runs(config.state_dir):
        raise Failure("no server runs, so nobody would install them; start it with `piman server`")
    with session.store(config, read_only=False) as store:
        began = time.time()
        orders, outcomes = Operations(store, whoami(), show_step).reinstall(chosen)
        show(outcomes)
        going = [each.target.host for each in outcomes if each.ok and each.target.host]
        late, broken = wait_for_install(store, going, orders, began, timeout) if wait else ([], [])
    if late:
        raise Failure(f"not up after {timeout:g} s: {', '.join(host.name for host in late)}", TIMED_OUT)
    failed = sum(not each.ok for each in outcomes)
    finish(len(chosen), failed + len(broken), "Pis were not reinstalled")


def wait_for_install(
    store: Store, hosts: Sequence[Host], orders: Mapping[str, str], began: float, timeout: float
) -> tuple[list[Host], list[Host]]:
    """Show the Pis' progress until each is up or failed -> those that took too long, those that failed."""
    from monitoring.operations import judge_installs

    deadline = time.monotonic() + timeout
    waiting = list(hosts)
    broken: list[Host] = []
    screen = Screen()
    while waiting and time.monotonic() < deadline:
        rows = {row.mac: row for row in store.pis() if row.since >= began}
        done, failed = judge_installs(waiting, rows, {order.mac: order.token for order in store.orders()}, orders)
        broken += failed
        waiting = [host for host in waiting if host not in done and host not in failed]
        screen.show_progress(hosts, rows)
        time.sleep(0.5)
    return waiting, broken
