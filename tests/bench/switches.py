"""Switches for the bench of findport: net-snmp's snmpd with a family's tables behind it, and a network that takes time.

Each has 48 Pis and an uplink behind which there are 100 more machines, the Pi that is looked for among them; it is on
the first switch. `python -m tests.bench.switches FIRST COUNT` runs some of them until its input ends.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

from lab.families import Quirks
from lab.switch import Access, Device, FamilySwitch, User
from utility.config import SnmpAccess, Switch
from utility.findport import choose_edge, find_port
from utility.switches import open_switch

SWITCHES, PORTS, BEHIND = 48, 48, 100
ONE_WAY = 0.02  # seconds; one request at a time is under way, so the way there and back is one delay
PI, PI_PORT = "b8:27:eb:ff:ff:07", 7
FAMILIES = ("procurve", "comware", "netgear", "cisco-sb")
PROCESSES = 4
PASSWORDS = ("maplesyrup", "dolphin88")


def address(number: int) -> str:
    return f"127.0.170.{number + 1}"


def devices(number: int) -> dict[int, Device]:
    found = {port: Device((f"b8:27:eb:{number:02x}:00:{port:02x}",)) for port in range(1, PORTS + 1)}
    behind = [f"02:00:00:{number:02x}:01:{each:02x}" for each in range(BEHIND)]
    if number == 0:
        found[PI_PORT] = Device((PI,))
    else:
        behind[0] = PI
    found[PORTS + 1] = Device(tuple(behind), needs_power=False)
    return found


def serve(first: int, count: int) -> None:
    """Say `up`, and stay until the input ends."""
    access = Access(users=(User("piman", *PASSWORDS),))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        for number in range(first, first + count):
            switch = FamilySwitch(
                FAMILIES[number % len(FAMILIES)],
                Path(folder) / str(number),
                address(number),
                ports=PORTS,
                devices=devices(number),
                mac=f"02:00:00:ff:00:{number:02x}",
                access=access,
                quirks=Quirks(delay=2 * ONE_WAY),
            )
            stack.enter_context(switch)
        sys.stdout.write("up\n")
        sys.stdout.flush()
        sys.stdin.read()


@contextlib.contextmanager
def running() -> Iterator[None]:
    """All of them, in processes of their own: what is measured is who asks."""
    each = SWITCHES // PROCESSES
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.bench.switches", str(number * each), str(each)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    try:
        for process in processes:
            assert process.stdout
            if process.stdout.readline() != "up\n":
                raise RuntimeError("the switches did not start")
        yield
    finally:
        for process in processes:
            process.communicate()


def look(count: int, version: str) -> tuple[float, float]:
    """Find the Pi among that many switches: seconds, and of the processor."""
    user = {"user": "piman", "auth_protocol": "SHA-256", "auth_password": PASSWORDS[0], "priv_password": PASSWORDS[1]}
    access = replace(SnmpAccess(version), **user) if version == "3" else SnmpAccess(version)  # type: ignore[arg-type]
    with contextlib.ExitStack() as stack:
        switches = [
            stack.enter_context(open_switch(Switch(number, IPv4Address(address(number)), snmp=access)))
            for number in range(count)
        ]
        cpu, began = time.process_time(), time.monotonic()
        sightings = find_port(PI, switches, [1])
        took, cpu = time.monotonic() - began, time.process_time() - cpu
    edge = choose_edge(sightings)
    if len(sightings) != count or edge is None or (edge.switch.index, edge.port) != (0, PI_PORT):
        raise RuntimeError(f"findport over {count} switches: {[each.where for each in sightings]}")
    return took, cpu


def measure(version: str, rounds: int) -> list[tuple[float, float, float]]:
    """Seconds for one switch and for all, and processor seconds for all, of each round; the first warms up."""
    look(1, version)
    found = []
    for _ in range(rounds):
        (one, _), (all_of_them, cpu) = look(1, version), look(SWITCHES, version)
        found.append((one, all_of_them, cpu))
    return found


def median(runs: list[tuple[float, float, float]], place: int) -> float:
    return statistics.median(run[place] for run in runs)


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
