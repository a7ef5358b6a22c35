"""From the first config.yaml to a running manager: what is amiss, who may start it, and by which word. No Flask."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from monitoring.doctor import Check
from monitoring.inspection import ProblemsOf, look_here
from utility.config import Config
from web.views import Json

PAGE = ("web",)  # its port is ours to give: it is not tried
CAP_NET_BIND_SERVICE, CAP_NET_RAW = 10, 13  # linux/capability.h
UNITS = (Path("/etc/systemd/system/piman.service"), Path("/lib/systemd/system/piman.service"))


@dataclass(frozen=True, slots=True)
class Starter:
    """How this process goes on as the manager.

    start     let it, soon after the answer is out; None: it may not
    commands  what a person types instead, after Ctrl-C
    """

    start: Callable[[], None] | None
    commands: Sequence[str]


def may_serve(status: str) -> bool:
    """Whether a process may take ports below 1024 and send raw frames, by its /proc/self/status."""
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            rights = int(line.split()[1], 16)
            return all(rights >> each & 1 for each in (CAP_NET_BIND_SERVICE, CAP_NET_RAW))
    return False


def this_process_may_serve() -> bool:
    with contextlib.suppress(OSError):
        return may_serve(Path("/proc/self/status").read_text())
    return False


def commands_to_start(config_path: Path, program: str, units: Sequence[Path] = UNITS) -> list[str]:
    """What starts a manager of that config.yaml: the unit that names it, or the command."""
    for unit in units:
        with contextlib.suppress(OSError):
            if str(config_path) in unit.read_text():
                return [f"sudo systemctl restart {unit.stem}"]
    called = Path(program).absolute()
    words = [sys.executable, str(called)] if called.suffix == ".py" else [str(called)]
    return [" ".join(["sudo", *words, "-c", str(config_path), "server"])]


def page_address(config: Config) -> str:
    """Where the manager's own page will be."""
    scheme = "https" if config.web.tls == "on" or (config.web.tls == "auto" and not config.web.is_local) else "http"
    host = "localhost" if config.web.is_local else str(config.server_address)
    return f"{scheme}://{host}:{config.ports.web}/"


def check_views(checks: Iterable[Check]) -> list[Json]:
    return [
        {"area": each.area, "severity": str(each.severity), "text": each.text, "advice": each.advice} for each in checks
    ]


def start_view(config: Config, runs: bool, starter: Starter | None, port: int, problems_of: ProblemsOf) -> Json:
    """The last of the first steps; `runs`: a manager does already; `port`: of the page that asks. Takes a moment."""
    checks = [] if runs else look_here(config, problems_of, PAGE)
    return {
        "runs": runs,
        "can": starter is not None and starter.start is not None,
        "commands": list(starter.commands) if starter else [],
        "address": page_address(config),
        "here": config.ports.web == port and page_address(config).startswith("http:"),
        "checks": check_views(checks),
    }
