"""What Piman costs where little happens: how soon a command answers, what an idle server takes. Knows no limit."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from monitoring.store import PiRow, Store
from tests.bench.servers import FIRST_PI, ROOT, SERVER, TFTP_PORT, Server, cpu_seconds, mac_of, running
from utility.service import Stage

PIS = 500
OURS = [sys.executable, str(ROOT / "piman.py")]
SETTLE = 2.0  # seconds after the start that are no idling yet


def make_home(folder: Path) -> Path:
    """The files of a manager that has installed 500 Pis; returns its config.yaml."""
    (folder / "boot").mkdir(parents=True, exist_ok=True)
    config = folder / "config.yaml"
    config.write_text(
        f"private_number: 4\nserver_address: {SERVER}\nsubnet_mask: 255.255.0.0\ninterface: veth-server\n"
        "switches: []\nboot_dir: boot\n"
    )
    addresses = {mac_of(number): FIRST_PI + number for number in range(PIS)}
    (folder / "hosts.csv").write_text("".join(f"{mac};{address};;0\n" for mac, address in addresses.items()))
    facts = {"image": "rootfs-1f0c2a9b77d3", "model": "Pi 4", "revision": "d03114", "serial": "7bf18e01"}
    now = time.time()
    rows = [
        PiRow(mac, str(address), address, Stage.UP, now, "DHCPREQUEST (renewing)", now, facts=facts)
        for mac, address in addresses.items()
    ]
    with Store(folder / "state" / "piman.db") as store:
        store.save_board([], rows)
    return config


def time_commands(config: Path, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of the least that a program with click can take, and of ours: in turn, after a round to warm up."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(config.parent / "cache")  # compiled once, as for every user
    commands = {
        "import click": [sys.executable, "-c", "import click"],
        "piman --help": [*OURS, "--help"],
        "piman status": [*OURS, "-c", str(config), "status"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name, words in commands.items():
            began = time.perf_counter()
            subprocess.run(words, stdout=subprocess.DEVNULL, check=True, env=environment)
            if turn:
                taken[name].append(1000 * (time.perf_counter() - began))
    return taken


def idle(config: Path, seconds: float) -> tuple[float, float]:
    """Of a server with nothing to do: MB resident, and the share of a core in percent."""
    server = Server("piman", [*OURS, "-c", str(config), "-q", "server"], TFTP_PORT, {})
    with running(server, config.parent) as process:
        time.sleep(SETTLE)
        before = cpu_seconds(process)
        time.sleep(seconds)
        taken = cpu_seconds(process) - before
        return process.memory_info().rss / 1e6, 100 * taken / seconds
