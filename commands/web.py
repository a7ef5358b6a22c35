"""The commands of the web page: config, password, token, audit."""

from __future__ import annotations

import logging
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from commands.session import Failure, Session, whoami

if TYPE_CHECKING:
    import threading

    from monitoring.store import Store
    from web.backend import Backend


@click.command()
@click.argument("org", default="Piman")
@click.argument("config", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.argument("hosts", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--address", multiple=True, help="Listen there, too, instead of on localhost alone.")
@click.option("--port", type=click.IntRange(0, 65535), help="[default: ports.web of config.yaml, 5000]")
@click.pass_obj
def config(
    session: Session, org: str, config: Path | None, hosts: Path | None, address: tuple[str, ...], port: int | None
) -> None:
    """The web page alone, on port 5000 of this machine: edit CONFIG and HOSTS, or make them. ORG is its title.

    Where there is no CONFIG yet, the page leads through the first steps; then this program can go on as the server.

    From another machine: ssh -N -L 5000:localhost:5000 NAME@THIS-MACHINE, then http://localhost:5000 there.
    """
    import dataclasses
    import threading

    from utility.config import Config, ConfigError, Ports, Web, load_config
    from utility.service import run_services
    from web.server import WebServer

    session = dataclasses.replace(
        session, config_path=config or session.config_path, hosts_path=hosts or session.hosts_path
    )
    logging.basicConfig(level=session.level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    known: Config | None = None
    try:
        known = load_config(session.config_path, session.env_path)
    except ConfigError as error:
        if session.config_path.exists():
            click.echo(f"{error}\nmend it on the page", err=True)
    state_dir = known.state_dir if known else session.config_path.absolute().parent / "state"
    web = dataclasses.replace(known.web if known else Web(), addresses=address or ("127.0.0.1",))
    wanted = (known.ports if known else Ports()).web if port is None else port
    going_on = threading.Event()
    with open_store(state_dir) as store:

        def backend() -> Backend:
            from tftp.files import problems_of
            from web.alone import Alone
            from web.backend import Backend, Place
            from web.starting import Starter, commands_to_start, this_process_may_serve

            alone = Alone(session.config_path, session.env_path, session.hosts_path, store, problems_of)
            password = known.web_password if known else ""
            place = Place(session.config_path.absolute(), session.env_path, state_dir, store, web, password, org)
            commands = commands_to_start(session.config_path.absolute(), sys.argv[0])
            begin = (lambda: end_soon(going_on)) if this_process_may_serve() else None
            return Backend(place, alone.rack, alone.reopen, Starter(begin, commands))

        try:
            server = WebServer(web, wanted, state_dir, backend)
        except (OSError, ValueError) as error:
            raise Failure(f"the page cannot be served at {', '.join(web.addresses)} port {wanted}: {error}") from None
        scheme = "https" if server.has_tls else "http"
        where = "localhost" if web.is_local else web.addresses[0]
        failure = run_services(
            [server], lambda: None, lambda: click.echo(f"{scheme}://{where}:{server.port}/   Ctrl-C ends it"), grace=3
        )
    if failure:
        raise Failure(failure)
    if going_on.is_set():
        from commands.server import server as run_server

        click.echo("the page goes on as the manager")
        logging.getLogger().handlers.clear()  # the server logs to a file, too
        context = click.get_current_context()
        context.obj = session
        context.invoke(run_server)


def end_soon(going_on: threading.Event) -> None:
    """End the page as a signal would, when the browser has its answer; what comes then is for who waits for its end."""
    import os
    import signal
    import threading

    going_on.set()
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()


def open_store(state_dir: Path) -> Store:
    """The store of a state folder, to write, made where there is none; Failure."""
    from monitoring.store import Store, StoreError

    try:
        return Store(state_dir / "piman.db")
    except (StoreError, OSError) as error:
        raise Failure(str(error)) from None


@click.command()
@click.option("--stdin", "from_stdin", is_flag=True, help="Read it from standard input, for scripts.")
@click.pass_obj
def password(session: Session, from_stdin: bool) -> None:
    """Set the password of the web page, without which nobody else can reach it."""
    from web.access import AccessError, set_password

    config = session.config()
    if from_stdin:
        chosen = sys.stdin.readline().rstrip("\n")
    else:
        chosen = str(click.prompt("New password of the web page", hide_input=True, confirmation_prompt=True))
    with open_store(config.state_dir) as store:
        try:
            set_password(store, config.state_dir, chosen)
        except AccessError as error:
            raise Failure(str(error)) from None
        except OSError as error:
            raise Failure(f"{config.state_dir}: the password cannot be kept there: {error.strerror}") from None
        store.add_audit(time.time(), whoami(), "change the password", "", "done")
    if config.web_password:
        click.echo("note: PIMAN_WEB_PASSWORD is set, and goes before it", err=True)
    click.echo("The password is set; who was logged in has to log in again.")


@click.group()
def token() -> None:
    """Tokens, by which scripts use the API."""


@token.command(name="add")
@click.argument("name")
@click.option("--role", type=click.Choice(["read", "operate", "admin"]), default="read", show_default=True)
@click.pass_obj
def token_add(session: Session, name: str, role: str) -> None:
    """Make a token and show it, this once."""
    from web.access import AccessError, make_token

    config = session.config()
    with open_store(config.state_dir) as store:
        try:
            made = make_token(store, name, role, time.time())
        except AccessError as error:
            raise Failure(str(error)) from None
        store.add_audit(time.time(), whoami(), "add token", name, role)
    click.echo(made)


@token.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_obj
def token_list(session: Session, as_json: bool) -> None:
    """Show the names of the tokens, and their roles."""
    import json

    with open_store(session.config().state_dir) as store:
        found = store.tokens()
    if as_json:
        click.echo(json.dumps([{"name": each.name, "role": each.role, "created": each.created} for each in found]))
        return
    for each in found:
        click.echo(f"{each.name:<24} {each.role:<8} {local_time(each.created)}")


@token.command(name="remove")
@click.argument("name")
@click.pass_obj
def token_remove(session: Session, name: str) -> None:
    """Make a token worthless."""
    with open_store(session.config().state_dir) as store:
        if not store.delete_token(name):
            raise Failure(f"there is no token {name!r}; `piman token list` shows them")
        store.add_audit(time.time(), whoami(), "remove token", name, "done")


@click.command()
@click.option("-n", "--number", type=click.IntRange(1, 20000), default=50, show_default=True, help="How many.")
@click.option("--json", "as_json", is_flag=True, help="For scripts: one object a line.")
@click.pass_obj
def audit(session: Session, number: int, as_json: bool) -> None:
    """Show who did what to which Pi or file, on the web page and by the API."""
    import dataclasses
    import json

    with session.store(session.config()) as store:
        found = store.audit(number)
    for each in reversed(found):
        if as_json:
            click.echo(json.dumps(dataclasses.asdict(each)))
        else:
            line = " ".join(f"{each.action} {each.subject}".split())
            result = each.result.partition("\n")[0]
            click.echo(f"{local_time(each.when)}  {each.who:<20}  {line}: {result}")


def local_time(when: float) -> str:
    return datetime.fromtimestamp(when).astimezone().strftime("%Y-%m-%d %H:%M:%S")
