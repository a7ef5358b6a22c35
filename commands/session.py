"""What the commands share: how they fail, the files that the options before a command name, and the terminal.

Imports of the parts are inside the functions that need them, so that `piman --help` and shell completion are quick.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from monitoring.directory import Roster
    from monitoring.store import PiRow, Store
    from utility.config import Config
    from utility.hosts import Host, Hosts

HOME = Path(__file__).resolve().parents[1]  # of piman.py and of install/

VERSION = "0.1.0"  # as in pyproject.toml
FAILED, USAGE, PARTLY, TIMED_OUT = 1, 2, 3, 4  # exit codes; 0 is done


class Failure(click.ClickException):
    """An error a user can cause: one message, an exit code, no traceback."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.code = exit_code


# ---------------------------------------------------------------------------------------------------- what is loaded


@dataclasses.dataclass
class Session:
    """What the options before the command say; files are read when a command first asks for them."""

    config_path: Path
    hosts_path: Path | None
    env_path: Path | None
    level: int

    def config(self) -> Config:
        from utility.config import ConfigError, load_config

        try:
            return self._with_trials(load_config(self.config_path, self.env_path))
        except ConfigError as error:
            hint = "" if self.config_path.exists() else "; `piman config` makes one, on a web page"
            raise Failure(f"{error}{hint}\nnothing was started", USAGE) from None

    def _with_trials(self, config: Config) -> Config:
        """What `calibrate` has found out is in the state; a state that cannot be read is told by who needs it."""
        from monitoring.store import Store, StoreError
        from utility.config import with_calibrations

        path = config.state_dir / "piman.db"
        if not config.switches or not path.exists():
            return config
        with contextlib.suppress(StoreError), Store(path, read_only=True) as store:
            return with_calibrations(config, store.calibrations())
        return config

    def hosts(self, config: Config, write: bool = False) -> Hosts:
        from utility.config import ConfigError
        from utility.hosts import Hosts

        path = self.hosts_path or config.path.parent / "hosts.csv"
        try:
            return Hosts.open(path, config, write=write)
        except ConfigError as error:
            raise Failure(f"{error}\nnothing was started", USAGE) from None

    def roster(self, config: Config) -> Roster:
        """hosts.csv and the Pis of the pool, as far as a server has seen them."""
        from monitoring.directory import Roster

        hosts = self.hosts(config)
        if not (config.state_dir / "piman.db").exists():
            return Roster(hosts, ())
        with self.store(config) as store:
            return Roster(hosts, store.pis())

    @contextlib.contextmanager
    def store(self, config: Config, read_only: bool = True) -> Iterator[Store]:
        from monitoring.store import Store, StoreError

        path = config.state_dir / "piman.db"
        try:
            if read_only and not path.exists():
                raise Failure(f"{path} does not exist: the server has not run yet; start it with `piman server`")
            if not read_only:
                config.state_dir.mkdir(parents=True, exist_ok=True)
            store = Store(path, read_only=read_only)
        except (StoreError, OSError) as error:
            raise Failure(str(error)) from None
        try:
            yield store
        except StoreError as error:
            raise Failure(str(error)) from None
        finally:
            store.close()


def finish(total: int, failed: int, what: str) -> None:
    """End the command with the exit code of `failed` of `total`."""
    if failed:
        raise Failure(f"{failed} of {total} {what}", FAILED if failed == total else PARTLY)


class Screen:
    """What is drawn over on a terminal; elsewhere a line for each Pi that reaches a new stage."""

    def __init__(self) -> None:
        self._drawn = 0
        self._told: dict[str, str] = {}
        self.terminal = sys.stdout.isatty()

    def draw(self, lines: Sequence[str]) -> None:
        if self._drawn and self.terminal:
            click.echo(f"\x1b[{self._drawn}F\x1b[J", nl=False)
        if self.terminal:  # a line that wraps would be two to go up over, and one above the top is out of reach
            width, height = shutil.get_terminal_size()
            lines = [line[:width] for line in lines[: height - 1]]
        click.echo("\n".join(lines))
        self._drawn = len(lines)

    def show_progress(self, hosts: Sequence[Host], rows: Mapping[str, PiRow]) -> None:
        from monitoring.table import progress_line

        if self.terminal:
            self.draw([progress_line(host.name, rows.get(host.mac)) for host in hosts])
            return
        for host in hosts:
            row = rows.get(host.mac)
            stage = f"{row.stage}{row.stuck}" if row else ""
            if self._told.get(host.mac, "") != stage:
                click.echo(progress_line(host.name, row))
            self._told[host.mac] = stage


def warn(text: str) -> None:
    """Tell of something that went wrong and does not end the command."""
    click.echo(f"warning: {text}", err=True)


def whoami() -> str:
    """Who runs this, for the record: a cron job has no USER, and a container's user need not have a name."""
    import getpass

    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
