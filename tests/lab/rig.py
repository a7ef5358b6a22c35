"""A rack and the manager that runs it, for the tests of the whole: the manager is piman.py in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lab.rack import Rack
from monitoring.directory import Roster
from monitoring.store import Store
from monitoring.table import status_json
from utility.config import load_config
from utility.hosts import Hosts

REPEAT = 10 if os.environ.get("PIMAN_SOAK") else 1  # tests/run.sh --soak: the same, ten times as long
ROOT = Path(__file__).resolve().parents[2]
PIMAN = [sys.executable, str(ROOT / "piman.py")]


def until(reached: Callable[[], bool], timeout: float, what: str) -> float:
    """Wait until it is so; the seconds it took. Says what did not come."""
    began = time.monotonic()
    while not reached():
        if time.monotonic() - began > timeout:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        time.sleep(0.05)
    return time.monotonic() - began


class Manager:
    """`piman server` for a rack, which can be started, stopped and killed, and the commands beside it."""

    def __init__(self, rack: Rack) -> None:
        self.rack = rack
        self.log = rack.directory / "manager.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it and wait until it says that it is ready; the seconds from the command to that line."""
        size = self.log.stat().st_size if self.log.exists() else 0
        command = [*PIMAN, "--config", str(self.rack.config), "server"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

        def ready() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self.log.read_text()[size:]
            return b"ready: " in self.log.read_bytes()[size:]

        return until(ready, 20, "the manager is ready")

    def end(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Send it a signal and wait for its end; the seconds that took."""
        process, self._process = self._process, None
        if process is None:
            return 0.0
        began = time.monotonic()
        process.send_signal(number)
        process.wait(timeout=20)
        return time.monotonic() - began

    def piman(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Another terminal: a command with this rack's config.yaml."""
        command = [*PIMAN, "--config", str(self.rack.config), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)

    def status(self) -> dict[str, dict[str, object]]:
        """The rows of `status --json` by name, without a process for each look."""
        config = load_config(self.rack.config, environ={})
        hosts = Hosts.open(self.rack.hosts, config, write=False)
        with Store(config.state_dir / "piman.db", read_only=True) as store:
            board = store.pis()
            rows = status_json(board, Roster(hosts, board).all(), {}, {order.mac for order in store.orders()})
        return {str(row["name"] or row["mac"]): row for row in rows}

    def stage(self, name: str) -> object:
        return self.status()[name]["stage"]

    def wait_for(self, stage: str, *names: str, timeout: float = 90) -> float:
        """Wait until these Pis (or all) are at a stage, with no install of theirs still to come."""
        wanted = names or tuple(pi.name for pi in self.rack.pis)

        def reached() -> bool:
            rows = self.status()
            return all(name in rows and rows[name]["stage"] == stage and not rows[name]["ordered"] for name in wanted)

        try:
            return until(reached, timeout, f"{', '.join(wanted)} at {stage}")
        except AssertionError as error:
            told = self.piman("events").stdout + self.log.read_text()[-3000:]
            raise AssertionError(f"{error}\n{self.piman('status').stdout}\n{told}") from None


@contextlib.contextmanager
def managed(rack: Rack) -> Iterator[Manager]:
    """A rack with a manager that is ready; the Pis have no power yet."""
    with rack:
        manager = Manager(rack)
        manager.start()
        try:
            yield manager
        finally:
            manager.end()
