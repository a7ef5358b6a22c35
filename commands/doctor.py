"""The command that looks for what is wrong before a Pi is switched on; monitoring/doctor.py judges what it sees."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from commands.session import FAILED, Failure, Session

if TYPE_CHECKING:
    from monitoring.doctor import Check

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
    from monitoring.inspection import examine as look
    from tftp.files import problems_of
    from utility.config import ConfigError, load_config
    from utility.hosts import Hosts

    try:
        config = load_config(session.config_path, session.env_path)
        hosts = Hosts.open(session.hosts_path or config.path.parent / "hosts.csv", config, write=False)
    except ConfigError as error:
        return bad_files(error.problems)
    return look(config, hosts, problems_of)
