"""The commands that switch ports off and on, and show them: restart, reinstall, power, ports."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from commands.session import FAILED, PARTLY, TIMED_OUT, Failure, Screen, Session, warn, whoami

if TYPE_CHECKING:
    from monitoring.operations import Outcome, Target
    from monitoring.power import PowerOptions
    from monitoring.store import Store
    from utility.config import Config
    from utility.hosts import Host

MANY = 6  # more ports than this are told of in sums


class Steps:
    """Tells what happens to each port: a line each, or for many ports on a terminal one that counts."""

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._screen = Screen() if count > MANY else None
        self._count = count
        self._states: dict[tuple[int, int], str] = {}

    def has_told(self, outcome: Outcome) -> bool:
        """Whether the last step of a port, told in a line of its own, says what became of it."""
        last = self._states.get((outcome.target.switch.index, outcome.target.port))
        return self._screen is None and last == outcome.text

    def __call__(self, target: Target, text: str) -> None:
        with self._lock:
            self._states[target.switch.index, target.port] = text
            if self._screen is None or not self._screen.terminal:
                click.echo(f"{target.label}: {text}")
                return
            sums = Counter(self._states.values())
            told = ", ".join(f"{number} {state}" for state, number in sums.most_common())
            self._screen.draw([f"{self._count} ports: {told}"])


def fold(outcomes: Sequence[Outcome]) -> list[tuple[str, Outcome]]:
    """Outcomes that are alike in one line each: its beginning, and one of them."""
    from utility.power_rules import ranges

    groups: dict[tuple[int, str], list[Outcome]] = {}
    for each in outcomes:
        groups.setdefault((each.target.switch.index, each.text), []).append(each)
    lines = []
    for alike in groups.values():
        target = alike[0].target
        if len(alike) > 1:
            switch = target.switch.name or str(target.switch.address)
            where = f"{switch} ports {ranges(each.target.port for each in alike)}"
            names = [each.target.host.name for each in alike if each.target.host]
            lines.append((f"{', '.join(names)} ({where})" if len(names) == len(alike) <= MANY else where, alike[0]))
        else:
            lines.append((target.label, alike[0]))
    return lines


def show(outcomes: Sequence[Outcome]) -> None:
    for label, each in fold(outcomes):
        click.echo(f"{label}: {each.text}", err=not each.ok)


def finish_ports(outcomes: Sequence[Outcome], what: str, others: int = 0) -> None:
    """End the command; a summary says which of several failed. `others` failed later, and were told of."""
    failed = [each for each in outcomes if not each.ok]
    count = len(failed) + others
    if not count:
        return
    which = f": {'; '.join(label for label, _ in fold(failed))}" if failed and len(outcomes) > 1 else ""
    raise Failure(f"{count} of {len(outcomes)} {what}{which}", FAILED if count == len(outcomes) else PARTLY)


def finish_before_leaving() -> None:
    """A terminal that is closed must leave no port off, no more than Ctrl-C and SIGTERM do."""
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # else nohup has seen to it
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))


def put_right(store: Store, config: Config) -> None:
    """Before ports are switched: what a power cycle that died left off is turned on, and told."""
    from monitoring.operations import Operations

    finish_before_leaving()
    for text in Operations(store, whoami(), lambda _target, _text: None).restore(config.switches):
        warn(text)


def power_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of what switches several ports, handed over as one `options`."""
    for option in (
        click.option(
            "--force", is_flag=True, help="Also uplinks, protected ports, and the one this machine is behind."
        ),
        click.option(
            "--stagger",
            type=click.FloatRange(0, 600),
            default=1.0,
            show_default=True,
            help="Seconds between two ports that come on: boards that start together take one another's addresses.",
        ),
    ):
        command = option(command)
    return command


def off_time_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--off-time", type=click.FloatRange(0.5, 600), help="Seconds without power.  [default: off_time of the switch]"
    )(command)


def make_options(stagger: float, force: bool, off_time: float | None = None) -> PowerOptions:
    from monitoring.power import PowerOptions

    return PowerOptions(stagger, off_time, force)


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="SWITCH PORTS... | PI...")
@off_time_option
@power_options
@click.pass_obj
def restart(session: Session, targets: tuple[str, ...], stagger: float, off_time: float | None, force: bool) -> None:
    """Power-cycle ports (`restart 0 2 3 4`, `restart 0 1-6,8`) or Pis (`restart pi3 pi4`)."""
    from monitoring.operations import Operations, resolve

    config = session.config()
    chosen = resolve(config, session.roster(config), targets, warn)
    with session.store(config, read_only=False) as store:
        put_right(store, config)
        acting = Operations(store, whoami(), Steps(len(chosen)))
        outcomes = acting.cycle(chosen, make_options(stagger, force, off_time))
    show(outcomes)
    finish_ports(outcomes, "ports were not restarted")


@click.group()
def power() -> None:
    """Turn ports off until they are turned on again."""


def turn(session: Session, targets: tuple[str, ...], on: bool, stagger: float, force: bool) -> None:
    from monitoring.operations import Operations, resolve

    config = session.config()
    chosen = resolve(config, session.roster(config), targets, warn)
    with session.store(config, read_only=False) as store:
        put_right(store, config)
        steps = Steps(len(chosen))
        outcomes = Operations(store, whoami(), steps).turn(chosen, on, make_options(stagger, force))
    show([each for each in outcomes if not each.ok or not steps.has_told(each)])
    finish_ports(outcomes, f"ports were not turned {'on' if on else 'off'}")


@power.command()
@click.argument("targets", nargs=-1, required=True, metavar="SWITCH PORTS... | PI...")
@power_options
@click.pass_obj
def on(session: Session, targets: tuple[str, ...], stagger: float, force: bool) -> None:
    """Turn on what is off; what is on is left as it is."""
    turn(session, targets, True, stagger, force)


@power.command()
@click.argument("targets", nargs=-1, required=True, metavar="SWITCH PORTS... | PI...")
@click.option("--force", is_flag=True, help="Also uplinks, protected ports, and the one this machine is behind.")
@click.pass_obj
def off(session: Session, targets: tuple[str, ...], force: bool) -> None:
    """Turn off; also the switch remembers it, over its own restart."""
    turn(session, targets, False, 0.0, force)


@click.command()
@click.argument("switch")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_obj
def ports(session: Session, switch: str, as_json: bool) -> None:
    """Show the face of a switch: each port's power, link, MAC and Pi."""
    from monitoring.faces import face_json, face_table, read_face
    from monitoring.operations import OperationError, find_switch, known_switches

    config = session.config()
    found = find_switch(config, switch)
    if found is None:
        raise OperationError(f"there is no switch {switch!r}; {known_switches(config)}")
    face = read_face(found, session.roster(config))
    click.echo(json.dumps(face_json(face), indent=2) if as_json else "\n".join(face_table(face)))


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="SWITCH PORTS... | PI...")
@click.option("--wait", is_flag=True, help="Show each Pi's progress until it is up.")
@click.option("--timeout", type=float, default=900.0, show_default=True, help="Seconds to wait, with --wait.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@power_options
@click.pass_obj
def reinstall(
    session: Session, targets: tuple[str, ...], wait: bool, timeout: float, yes: bool, stagger: float, force: bool
) -> None:
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
        put_right(store, config)
        began = time.time()
        acting = Operations(store, whoami(), Steps(len(chosen)))
        orders, outcomes = acting.reinstall(chosen, make_options(stagger, force))
        show(outcomes)
        going = [each.target.host for each in outcomes if each.ok and each.target.host]
        late, broken = wait_for_install(store, going, orders, began, timeout) if wait else ([], [])
    if late:
        raise Failure(f"not up after {timeout:g} s: {', '.join(host.name for host in late)}", TIMED_OUT)
    finish_ports(outcomes, "Pis were not reinstalled", len(broken))


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
