"""A made-up rack for the tests of the web page: files, a store with rows in every stage, and no network.

`python -m tests.web_rack [--pis 30] [--port 5000]` serves it, with Pis that go on booting, to look at in a browser.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

from monitoring.alerts import Alert
from monitoring.fleet import Fleet
from monitoring.store import Store
from tftp.files import problems_of
from utility.config import Web, load_config
from utility.hosts import Hosts
from utility.rules import AlertSeverity
from utility.service import Report, Severity, Stage
from web.alone import Alone
from web.backend import Backend, Place, Rack
from web.server import WebServer
from web.starting import Starter

PER_SWITCH = 24
BOOT = (Stage.DISCOVER, Stage.LEASE, Stage.FIRMWARE, Stage.KERNEL, Stage.HELLO, Stage.FORMAT, Stage.IMAGE, Stage.BOOT)
STRANGERS = {
    "dc:a6:32:aa:00:01": {"vendor": "Raspberry Pi", "model": "Pi 4", "serial": "91cdf03d"},
    "2c:cf:67:aa:00:02": {"vendor": "Raspberry Pi", "model": "Pi 5", "serial": "5a11be77", "waiting": "yes"},
}


def address_of(number: int) -> IPv4Address:
    """The address of the Pi with that number, from 0."""
    return IPv4Address("127.0.8.1") + number


def mac_of(number: int) -> str:
    return f"b8:27:eb:00:{number >> 8:02x}:{number & 255:02x}"


def write_files(folder: Path, pis: int) -> None:
    """config.yaml and hosts.csv for so many Pis, 24 on a switch."""
    lines = [
        "# The rack of the tests.",
        "private_number: 4",
        "server_address: 127.0.0.1   # this machine",
        "subnet_mask: 255.0.0.0",
        "interface: lo",
        "snmp: {timeout: 0.1, retries: 0}",
        "ports: {dhcp: 16767, tftp: 16969, hello: 13333, image: 14444, ntp: 11123, web: 15000}",
        "switches:",
    ]
    for index in range((pis + PER_SWITCH - 1) // PER_SWITCH):
        lines += [f"  - address: 127.0.4.{200 - index}", f"    name: rack-{index}"]
        lines += ["    protected_ports: [24]", "    pi_addresses:"]
        on_it = range(index * PER_SWITCH, min((index + 1) * PER_SWITCH, pis))
        lines += [f"      - {address_of(number)}" for number in on_it]
    (folder / "config.yaml").write_text("\n".join(lines) + "\n")
    hosts = "".join(f"{mac_of(number)};{address_of(number)};pi{number + 1};0\n" for number in range(pis))
    (folder / "hosts.csv").write_text(f"# The Pis.\n{hosts}")
    (folder / "install" / "boot").mkdir(parents=True, exist_ok=True)


def open_backend(folder: Path, pis: int = 30, clock: Callable[[], float] = time.time) -> tuple[Backend, Fleet]:
    """The files, read; and a board on which most Pis are up and some are on their way."""
    write_files(folder, pis)
    config = load_config(folder / "config.yaml", environ={})
    hosts = Hosts.open(folder / "hosts.csv", config)
    store = Store(config.state_dir / "piman.db")
    fleet = Fleet(store, hosts.find, clock)
    for number in range(pis):
        if number % 10 != 9:  # the others were never heard
            boot(fleet, number, len(BOOT) + 1 if number % 5 else number % len(BOOT) + 1)
    if pis > 5:
        fleet.report(Report(mac_of(4), Stage.FAILED, heard="ERROR sd", event="the SD card cannot be written"))
    for mac, facts in STRANGERS.items():
        fleet.report(Report(mac, heard="DHCPDISCOVER", facts=facts))
    fleet.tick(clock())
    place = Place(config.path, None, config.state_dir, store, config.web, title="Test rack")
    rack = Rack(config, hosts, store, fleet.snapshot, store.latest_samples, lambda: True, problems_of=problems_of)
    return Backend(place, lambda: rack), fleet


def nothing_yet(folder: Path) -> Backend:
    """A manager before its first steps."""
    store = Store(folder / "state" / "piman.db")
    alone = Alone(folder / "config.yaml", None, None, store, problems_of)
    place = Place(folder / "config.yaml", None, folder / "state", store, Web(), title="Test rack")
    starter = Starter(lambda: None, ["sudo /opt/piman/piman.pyz -c /opt/piman/config.yaml server"])
    return Backend(place, alone.rack, alone.reopen, starter)


def raise_alerts(store: Store, now: float) -> None:
    """Two Pis in trouble, one of them badly; and one that is well again."""
    hot = Alert(1, "hot", mac_of(7), "pi8", AlertSeverity.WARNING, now - 400, now - 100, "81.2 °C, over 80 °C", 81)
    text = "silent, and its port is off"
    lost = Alert(2, "down", mac_of(33), "pi34", AlertSeverity.CRITICAL, now - 900, now - 800, text, 0)
    over = Alert(
        3, "down", mac_of(2), "pi3", AlertSeverity.CRITICAL, now - 9000, now - 8900, "silent", 0, resolved_at=now - 7000
    )
    store.save_alerts([hot, lost, over], [], [], now)


def boot(fleet: Fleet, number: int, steps: int) -> None:
    """So many steps of a Pi's boot; the ninth is `up`."""
    mac = mac_of(number)
    facts = {"model": "Pi 4B", "serial": f"{number:08x}", "image": "raspios-lite", "sd_bytes": "31914983424"}
    for stage in BOOT[:steps]:
        fleet.report(Report(mac, stage, heard=f"the word of {stage}", sent="an answer", facts=facts))
    if steps >= 7:
        fleet.report(Report(mac, Stage.IMAGE, heard="PROGRESS", done=number % 9 * 50_000_000, total=450_000_000))
    if steps > len(BOOT):
        fleet.report(Report(mac, Stage.UP, heard="NTP", event="up"))


def go_on(fleet: Fleet, pis: int, moving: int, every: float, stop: threading.Event) -> None:
    """Let so many Pis boot and install for ever, each a step further in so many seconds."""
    at = dict.fromkeys(random.Random(4).sample(range(pis), moving), 0)
    while not stop.wait(every):
        for number, step in at.items():
            at[number] = (step + 1) % 40
            stage = Stage.IMAGE if 8 <= step < 30 else (*BOOT, Stage.UP)[min(step, 8)]
            done = (step - 8) * 20_000_000 if stage is Stage.IMAGE else None
            fleet.report(Report(mac_of(number), stage, heard=f"step {step}", done=done, total=450_000_000))
        fleet.report(Report("", event="the manager had something to say", severity=Severity.WARNING))
        fleet.tick(time.time())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pis", type=int, default=30)
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--moving", type=int, help="so many Pis boot; default: a tenth")
    parser.add_argument("--every", type=float, default=0.4, help="seconds between two of their steps")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        backend, fleet = open_backend(Path(folder), options.pis)
        moving = max(1, options.pis // 10) if options.moving is None else options.moving
        movers = (fleet, options.pis, moving, options.every, threading.Event())
        threading.Thread(target=go_on, args=movers, daemon=True).start()
        web = replace(backend.place.web, addresses=(options.address,))
        WebServer(web, options.port, backend.place.state_dir, lambda: backend).run()


if __name__ == "__main__":
    main()
