"""The command that looks for what is wrong before a Pi is switched on; monitoring/doctor.py judges what it sees."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from commands.session import FAILED, Failure, Session

if TYPE_CHECKING:
    from monitoring.doctor import Check
    from utility.config import Config
    from utility.hosts import Hosts

MARKS = {"info": "ok", "warning": "warning", "error": "ERROR"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_obj
def doctor(session: Session, as_json: bool) -> None:
    """Check files, interface, ports, boot files, image, disk and switches; say what to do. Changes nothing."""
    checks = examine(session)
    if as_json:
        shown = [
            {"area": each.area, "severity": str(each.severity), "text": each.text, "advice": each.advice}
            for each in checks
        ]
        click.echo(json.dumps(shown, indent=2))
    else:
        click.echo("\n".join(report(checks)))
    errors = sum(each.severity == "error" for each in checks)
    if errors:
        raise Failure(f"{errors} thing{'s' * (errors > 1)} will not work", FAILED)


def report(checks: Sequence[Check]) -> list[str]:
    """A line for each check, and one below it for what to do."""
    width = max(len(each.area) for each in checks)
    lines = []
    for each in checks:
        lines.append(f"{MARKS[each.severity]:<8} {each.area:<{width}}  {each.text}")
        if each.advice:
            lines.append(f"{'':<8} {'':<{width}}  -> {each.advice}")
    return lines


def examine(session: Session) -> list[Check]:
    """Everything that can be looked at, as far as the files that say what to look at can be read."""
    from monitoring.doctor import bad_files
    from utility.config import ConfigError, load_config
    from utility.hosts import Hosts

    try:
        config = load_config(session.config_path, session.env_path)
        hosts = Hosts.open(session.hosts_path or config.path.parent / "hosts.csv", config, write=False)
    except ConfigError as error:
        return bad_files(error.problems)
    return [*look_here(config, hosts), *look_at_switches(config)]


def look_here(config: Config, hosts: Hosts) -> list[Check]:
    """What can be seen on this machine."""
    from monitoring import doctor as judge
    from monitoring import inspection as look
    from tftp.files import problems_of

    return [
        *judge.check_files(config, {host.address: host.name for host in hosts.all()}),
        *judge.check_network(config, look.look_at_links(), look.is_our_address(config.server_address)),
        *judge.check_ports(look.try_ports(config), look.running_server(config.state_dir)),
        *judge.check_boot(
            look.look_at_boot(config.boot_dir, problems_of), models_of(config), config.dhcp_mode == "proxy"
        ),
        *judge.check_image(look.look_at_image(config.image)),
        *judge.check_folders([look.look_at_folder(folder) for folder in (config.state_dir, config.log_dir)]),
    ]


def look_at_switches(config: Config) -> list[Check]:
    from monitoring.doctor import check_switch
    from monitoring.inspection import ask_switches

    checks = []
    for switch, facts in zip(config.switches, ask_switches(config.switches), strict=True):
        checks += check_switch(switch, facts)
    return checks


def models_of(config: Config) -> set[str]:
    """The boards that the server has seen."""
    from monitoring.store import Store, StoreError

    with contextlib.suppress(StoreError), Store(config.state_dir / "piman.db", read_only=True) as store:
        return {row.facts.get("model", "") for row in store.pis()}
    return set()
