"""The rack as a process sees it that is not the server: files and store, read again when they change. No Flask."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from monitoring.inspection import ProblemsOf
from monitoring.operations import OperationError
from monitoring.store import PiRow, Store
from utility.config import Config, ConfigError, load_config
from utility.hosts import Hosts
from utility.service import server_runs
from web.backend import Rack

log = logging.getLogger("piman.web")


class Alone:
    """config.yaml and hosts.csv for `piman config`. Thread safe: `_lock` guards the attributes.

    There may be no config.yaml yet, or a broken one: then there is no rack, and the page mends the file.
    """

    def __init__(
        self, config_path: Path, env_path: Path | None, hosts_path: Path | None, store: Store, problems_of: ProblemsOf
    ) -> None:
        self._config_path, self._env_path, self._hosts_path, self._store = config_path, env_path, hosts_path, store
        self._problems_of = problems_of
        self._lock = threading.Lock()
        self._stamp: object = None
        self._rack: Rack | None = None
        self.rack()

    def rack(self) -> Rack | None:
        """What is in force: the last good one, where an edit broke the file."""
        with self._lock:
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._rack = self._open() if stamp else None
                except ConfigError as error:
                    log.warning("config.yaml is not taken over: %s", error)
            return self._rack

    def reopen(self) -> None:
        """Take over what was just written; OperationError where it has become wrong meanwhile."""
        with self._lock:
            self._stamp = self._look()
            try:
                self._rack = self._open()
            except ConfigError as error:
                raise OperationError(f"config.yaml is not taken over: {error}") from None

    def _look(self) -> tuple[int, ...]:
        try:
            found = self._config_path.stat()
        except OSError:
            return ()
        return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def _open(self) -> Rack:
        config = load_config(self._config_path, self._env_path)
        hosts = Hosts.open(self._hosts_path or config.path.parent / "hosts.csv", config, mend=True)

        def rows() -> Sequence[PiRow]:
            for problem in hosts.check():
                log.warning("hosts.csv is not taken over: %s", problem)
            return self._store.pis()

        return Rack(
            config, hosts, self._store, rows, self._store.latest_samples, lambda: runs(config),
            problems_of=self._problems_of,
        )  # fmt: skip


def runs(config: Config) -> bool:
    """Whether the server of that configuration runs."""
    return server_runs(config.state_dir)
