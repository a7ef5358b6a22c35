#!/usr/bin/env python3
"""The root of the commands: the options before them, where each is, and how everything ends. Knows nothing else.

A command's module is imported when it is called, and what it works with when it does.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from commands.session import FAILED, USAGE, VERSION, Failure, Session

if TYPE_CHECKING:
    from monitoring.operations import OperationError

# name -> module below commands/ and name in it, and what `--help` says of it: the command's own words
COMMANDS: Mapping[str, tuple[str, str]] = {
    "server": ("server.server", "Run everything: DHCP, TFTP, the installer's protocol, NTP."),
    "restart": (
        "power.restart",
        "Power-cycle ports (`restart 0 2 3 4`, `restart 0 1-6,8`) or Pis (`restart pi3 pi4`).",
    ),
    "reinstall": (
        "power.reinstall",
        "Format the cards of exactly these Pis and install them anew, then power-cycle them.",
    ),
    "power": ("power.power", "Turn ports off until they are turned on again."),
    "ports": ("power.ports", "Show the face of a switch: each port's power, link, MAC and Pi."),
    "findport": (
        "switches.findport",
        "Tell which switch and port a MAC (or a Pi of hosts.csv) is on, and what power it takes there.",
    ),
    "mapper": (
        "switches.mapper",
        "Power-cycle ports one by one, see which Pi comes back on each, and propose lines for hosts.csv.",
    ),
    "discover": (
        "switches.discover",
        "See which Pi is on which port of all switches, without cutting any power, and propose lines for hosts.csv.",
    ),
    "calibrate": (
        "switches.calibrate",
        "Find out which interface a PoE port is, by switching it off and seeing whose link goes.",
    ),
    "switch": (
        "switches.switch_group",
        "A switch itself: write it down, for the lab or for a report of what Piman does wrong with it.",
    ),
    "status": (
        "watch.status",
        "Show every Pi: where it is, its stage and progress, when it was last heard, and whether it is well.",
    ),
    "events": ("watch.events", "Show the timeline of all Pis, or of one (by hostname, address or MAC)."),
    "alerts": ("alerts.alerts", "Show what is wrong now; acknowledge, silence, test the channels."),
    "monitoring": ("monitoring.monitoring", "Poll the Pis and raise alerts, without the rest of the server."),
    "graph": (
        "monitoring.graph",
        "Draw a METRIC of a PI over time: temperature, cpu, memory, disk, load, up, watts ...",
    ),
    "adopt": ("watch.adopt", "Take unknown Pis in: write them into hosts.csv."),
    "doctor": ("doctor.doctor", "Check files, interface, ports, boot files, image, disk and switches; say what to do."),
    "image": ("image.image", "The root file systems that Pis can be installed with: list, import, choose."),
    "config": ("web.config", "The web page alone, on port 5000 of this machine: edit CONFIG and HOSTS, or make them."),
    "password": ("web.password", "Set the password of the web page, without which nobody else can reach it."),
    "token": ("web.token", "Tokens, by which scripts use the API."),
    "audit": ("web.audit", "Show who did what to which Pi or file, on the web page and by the API."),
    "grafana": (
        "grafana.grafana",
        "Write prometheus.yml, alert rules, a dashboard and its data source to FOLDER, with this manager filled in.",
    ),
    "lab": ("lab.lab", "The virtual rack: a PoE switch and Pis that boot for real, on this machine."),
}


class Commands(click.Group):
    """Finds a command in the table; `--help` imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(".")
        command: click.Command = getattr(importlib.import_module(f"commands.{module}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_place, words) in COMMANDS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "PIMAN"})
@click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=Path("config.yaml"),
    envvar="PIMAN_CONFIG",
    show_default=True,
    help="The rack: network, switches, which Pi is on which port.",
)
@click.option(
    "--hosts",
    "hosts_path",
    type=click.Path(path_type=Path),
    envvar="PIMAN_HOSTS",
    help="The Pis.  [default: hosts.csv beside the config]",
)
@click.option(
    "--env",
    "env_path",
    type=click.Path(path_type=Path),
    envvar="PIMAN_ENV",
    help="Secrets and overrides.  [default: .env beside the config]",
)
@click.option("-v", "--verbose", is_flag=True, help="Log every packet.")
@click.option("-q", "--quiet", is_flag=True, help="Log only what needs attention.")
@click.option("--lab", "in_lab", is_flag=True, help="Work on the virtual rack that `piman lab` runs.")
@click.version_option(VERSION, message="piman %(version)s")
@click.pass_context
def cli(
    context: click.Context,
    config_path: Path,
    hosts_path: Path | None,
    env_path: Path | None,
    verbose: bool,
    quiet: bool,
    in_lab: bool,
) -> None:
    """Boots, installs, powers and watches racks of Raspberry Pis on PoE switches."""
    if in_lab:
        from commands.lab import enter_lab

        enter_lab()
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    context.obj = Session(config_path, hosts_path, env_path, level)


def operation_error() -> type[OperationError]:
    """Imported only where something went wrong."""
    from monitoring.operations import OperationError

    return OperationError


def main() -> None:
    """The entry point: whatever a user can cause ends in one message and an exit code, never in a traceback."""

    def end(_number: int, _frame: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)  # so that `restart` turns a port on again before it goes
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.code if isinstance(error, Failure) else error.exit_code)
    except operation_error() as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(USAGE if error.usage else FAILED)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `piman events | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
