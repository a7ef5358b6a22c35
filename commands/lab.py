"""`piman lab`: the virtual rack, and how another command is run in it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from commands.session import HOME, Failure, Screen, Session

if TYPE_CHECKING:
    from lab.rack import Rack, SwitchPlan


PAGE_PORT = 5000  # where the page of a rack is looked for


def lab_directory() -> Path:
    """Where the virtual rack keeps its files: $PIMAN_LAB_DIR, else below the user's state folder."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(os.environ.get("PIMAN_LAB_DIR") or Path(state) / "piman" / "lab").resolve()


def this_program() -> list[str]:
    """The command that runs this program again: the bundle where it is one, else the checkout's piman.py."""
    bundle = os.environ.get("SHIV_ENTRY_POINT") or ""
    started = Path(sys.argv[0]).resolve()
    return [sys.executable, str(started if bundle or started.suffix == ".pyz" else HOME / "piman.py")]


def enter_lab() -> NoReturn:
    """Run this same command line, without --lab, in the running lab's namespaces, with its config.yaml."""
    from lab.namespaces import LabError, exec_in

    directory = lab_directory()
    words = [each for each in sys.argv[1:] if each != "--lab"]
    try:
        exec_in(directory, [*this_program(), "--config", str(directory / "config.yaml"), *words])
    except LabError as error:
        raise Failure(str(error)) from None


@click.group(invoke_without_command=True)
@click.pass_context
def lab(context: click.Context) -> None:
    """The virtual rack: a PoE switch and Pis that boot for real, on this machine."""
    if context.invoked_subcommand is None:
        context.invoke(lab_up)


@lab.command(name="up")
@click.option("--pis", type=click.IntRange(1, 48), default=2, show_default=True, help="How many.")
@click.option(
    "--kind",
    type=click.Choice(["qemu", "light", "raspi3b"]),
    default="qemu",
    show_default=True,
    help="Machines in QEMU, the boot ROM alone, or QEMU's own Pi 3 board.",
)
@click.option(
    "--model",
    type=click.Choice(["3b", "3b+", "4", "5", "cm4", "cm5"]),
    default="4",
    show_default=True,
    help="Whose boot ROM.",
)
@click.option("--switches", type=click.IntRange(1, 16), default=1, show_default=True, help="How many, in a chain.")
@click.option("--family", default="standard", show_default=True, help="Which make of switch; `list` lists them.")
@click.option(
    "--switch", "record", type=click.Path(path_type=Path), help="Be the switch that `piman switch record` wrote down."
)
@click.option(
    "--agent", is_flag=True, help="QEMU Pis run the real node agent, on Debian's Python: 15 s more to install."
)
@click.option("--manager/--no-manager", default=True, help="Run `piman server` in it, or leave that to you.")
def lab_up(
    pis: int = 2,
    kind: str = "qemu",
    model: str = "4",
    switches: int = 1,
    family: str = "standard",
    record: Path | None = None,
    agent: bool = False,
    manager: bool = True,
) -> None:
    """Build the rack, install its Pis before your eyes, and keep it running until Ctrl-C."""
    from lab.door import open_door
    from lab.namespaces import LabError, enter, inside
    from lab.rack import Rack, prepare_agent, prepare_files, prerequisites

    plans = [switch_plan(family, record)] * switches
    try:
        if not inside():
            need(prerequisites(kind))
            if kind != "light":
                click.echo("Fetching what the Pis boot (the first time only) ...")
                (prepare_agent if agent else prepare_files)()
            with open_door(PAGE_PORT) as door:
                enter([*this_program(), *sys.argv[1:]], [door.fileno()])
        run_lab(Rack(lab_directory(), pis, kind, model, switches=plans, agent=agent, tell=click.echo), manager)
    except LabError as error:
        raise Failure(str(error)) from None


def switch_plan(family: str, record: Path | None) -> SwitchPlan:
    """What the lab's switches shall be; a family or a file that is wrong is a Failure."""
    from lab.families import FAMILIES
    from lab.rack import SwitchPlan
    from lab.replay import RecordError, read_record

    if family not in FAMILIES:
        raise click.UsageError(f"the families are {', '.join(FAMILIES)}")
    try:
        return SwitchPlan(family, record=read_record(record) if record else None)
    except (RecordError, OSError) as error:
        raise Failure(str(error)) from None


@lab.command(name="shell", context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def lab_shell(command: tuple[str, ...]) -> None:
    """Run a command (or a shell) where the lab's manager is: `piman lab shell ping 172.30.4.11`."""
    from lab.namespaces import LabError, exec_in

    directory = lab_directory()
    os.environ["PIMAN_CONFIG"] = str(directory / "config.yaml")
    try:
        exec_in(directory, list(command) or [os.environ.get("SHELL", "/bin/sh")])
    except LabError as error:
        raise Failure(str(error)) from None


def need(packages: Sequence[str]) -> None:
    """See to it that Debian packages are there: installed when we are root, else named in a Failure."""
    import subprocess

    if not (HOME / "install").is_dir():
        raise Failure("the lab needs the folder install/: run it from a checkout or from build/piman.pyz")
    if packages and subprocess.run(["sh", str(HOME / "install" / "need.sh"), *packages], check=False).returncode:
        raise Failure("the lab needs these packages")


LAB_HINTS = """
The rack is up. In another terminal, try:
    {piman} --lab status
    {piman} --lab restart pi1
    {piman} --lab reinstall --wait pi2
    {piman} --lab findport pi1
    {piman} --lab events -f
    {piman} --lab doctor
    {piman} lab shell          # a shell where the manager is
Its web page: http://localhost:{page}
Its files, config.yaml and hosts.csv among them: {directory}
Ctrl-C ends it and cleans everything up."""


def run_lab(rack: Rack, manager: bool) -> None:
    """The inside of `lab up`: the rack, the manager as a process of its own, and a live table until a signal."""
    import subprocess

    from lab.door import Door, inherited_door
    from monitoring.table import status_table
    from utility.service import Stage, server_runs

    directory, pis = rack.directory, len(rack.pis)

    def end(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    with contextlib.ExitStack() as stack:
        stack.enter_context(rack)
        session = Session(directory / "config.yaml", None, None, logging.INFO)
        if not manager:
            rack.start()
            click.echo(f"The rack runs, with no manager. Start one: piman --lab server. Its files: {directory}")
            threading.Event().wait()
        config = session.config()
        page, outer = config.ports.web, inherited_door()
        if outer:
            door = Door(outer, page)
            stack.callback(door.close)
            page = door.outer_port
        process = subprocess.Popen(
            [*this_program(), "--config", str(session.config_path), "server"],
            stdin=subprocess.DEVNULL,
            stdout=(directory / "manager.log").open("w"),
            stderr=subprocess.STDOUT,
        )
        stack.callback(process.wait)
        stack.callback(process.terminate)
        while not server_runs(config.state_dir) or not (config.state_dir / "piman.db").exists():
            if process.poll() is not None:
                raise Failure(f"the manager did not start: {(directory / 'manager.log').read_text().strip()}")
            time.sleep(0.05)
        rack.start()
        hosts = session.hosts(config)
        where = {pi.mac: (rack.switches.index(rack.switch_of(pi)), pi.port) for pi in rack.pis}
        screen, hinted = Screen(), False
        store = stack.enter_context(session.store(config))
        while process.poll() is None:
            rows = store.pis()
            all_up = sum(row.stage == Stage.UP for row in rows) == pis
            hints = LAB_HINTS.format(piman=sys.argv[0], directory=directory, page=page)
            if screen.terminal:
                table = status_table(rows, hosts.all(), where, {order.mac for order in store.orders()}, time.time())
                screen.draw([*table, *(hints.splitlines() if hinted or all_up else [])])
            else:
                screen.show_progress(hosts.all(), {row.mac: row for row in rows})
                if all_up and not hinted:
                    click.echo(hints)
            hinted = hinted or all_up
            time.sleep(0.5)
        raise Failure(f"the manager ended; see {directory / 'manager.log'}")
