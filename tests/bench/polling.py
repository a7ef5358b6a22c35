"""Five hundred Pis polled every ten seconds, fifty of which hang: what it costs the server, and whether one is missed.

The agents are one process (tests.agents) on addresses of the loopback, the server is piman's with nothing but its
monitoring, board, store and alerts at work. Knows no limit.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import psutil

from monitoring.store import Store
from tests.agents import addresses, mac_of
from tests.bench.servers import ROOT, cpu_seconds

PIS, HANGING = 500, 50
INTERVAL = 10.0
PORT = 13_000
SETTLE = 12.0  # seconds: the first poll of each, and its place on the board


@dataclass(frozen=True, slots=True)
class Polled:
    """What came of it. percent: of a core; megabytes: resident; gap: the longest between two polls of a healthy Pi.

    missed   polls of healthy Pis that did not come while it ran
    unread   healthy Pis whose last reading holds no measurement
    disk     megabytes of the state, at the end
    """

    seconds: float
    percent: float
    megabytes: float
    gap: float
    missed: int
    unread: int
    disk: float


def make_home(folder: Path) -> Path:
    """The files of the manager; returns its config.yaml."""
    (folder / "boot").mkdir(parents=True, exist_ok=True)
    config = folder / "config.yaml"
    config.write_text(
        "private_number: 4\nserver_address: 127.0.0.1\nsubnet_mask: 255.0.0.0\ninterface: lo\nswitches: []\n"
        f"boot_dir: boot\nservices: [monitoring]\nmonitoring: {{interval: {INTERVAL:g}, port: {PORT}}}\n"
    )
    lines = [f"{mac_of(str(address))};{address};pi{n};0\n" for n, address in enumerate(addresses(PIS))]
    (folder / "hosts.csv").write_text("".join(lines))
    return config


@contextmanager
def agents(hanging: int) -> Iterator[tuple[subprocess.Popen[str], Mapping[str, list[float]]]]:
    """The agents; what they were asked is there after the `with`."""
    asked: dict[str, list[float]] = {}
    silent = [f"{address}=hangs" for address in list(addresses(PIS))[:: PIS // hanging]] if hanging else []
    command = [sys.executable, "-m", "tests.agents", str(PORT), *silent]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, asked
        finally:
            process.terminate()
            output, _ = process.communicate(timeout=60)
            asked.update(json.loads(output))


def poll(folder: Path, seconds: float, hanging: int = HANGING) -> Polled:
    """Run the server for `seconds`, after it has settled."""
    config = make_home(folder)
    command = [sys.executable, str(ROOT / "piman.py"), "-c", str(config), "-q", "server"]
    with agents(hanging) as (_process, asked), (folder / "server.log").open("wb") as log:
        time.sleep(1.0)
        with subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as server:
            try:
                time.sleep(SETTLE)
                watched = psutil.Process(server.pid)
                began, before = time.monotonic(), cpu_seconds(watched)
                time.sleep(seconds)
                ended, taken = time.monotonic(), cpu_seconds(watched) - before
                megabytes = watched.memory_info().rss / 1e6
            finally:
                server.terminate()
                code = server.wait(timeout=30)
    if code:
        raise RuntimeError(f"the server ended with {code}: {(folder / 'server.log').read_text()[-2000:]}")
    healthy = {str(each) for n, each in enumerate(addresses(PIS)) if not hanging or n % (PIS // hanging)}
    times = {address: [each for each in asked.get(address, []) if began <= each <= ended] for address in healthy}
    with Store(folder / "state" / "piman.db", read_only=True) as store:
        latest = store.latest_samples()
    macs = {mac_of(address) for address in healthy}
    disk = sum(file.stat().st_size for file in (folder / "state").iterdir()) / 1e6
    return Polled(
        seconds=ended - began,
        percent=100 * taken / (ended - began),
        megabytes=megabytes,
        gap=max((late - early for each in times.values() for early, late in pairwise(each)), default=0.0),
        missed=sum(
            max(0, round((late - early) / INTERVAL) - 1)
            for each in times.values()
            for early, late in pairwise([began, *each, ended])
        ),
        unread=sum(mac not in latest or "temperature" not in latest[mac].values for mac in macs),
        disk=disk,
    )
