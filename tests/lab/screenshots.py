"""Pictures of every page, light, dark and on a phone, of a made-up rack: `python -m tests.lab.screenshots [FOLDER]`.

They are written to build/screenshots, which git does not keep. What axe finds serious on a page is printed.
"""

from __future__ import annotations

import math
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser

from monitoring.metrics import Reading
from monitoring.store import Place
from tests.chromium import DESK, PHONE, axe_problems, chromium, look, prepare_axe, settle, views
from tests.web_rack import BOOT, PER_SWITCH, STRANGERS, mac_of, nothing_yet, open_backend, raise_alerts
from utility.config import Web
from utility.service import Report, Stage
from utility.switches import Port
from web.access import set_password
from web.backend import Backend
from web.server import WebServer

BOOT_TIMES = (
    (Stage.DISCOVER, 2.1),
    (Stage.LEASE, 0.9),
    (Stage.FIRMWARE, 6.4),
    (Stage.KERNEL, 9.2),
    (Stage.HELLO, 3.0),
    (Stage.FORMAT, 4.2),
    (Stage.IMAGE, 71.0),
    (Stage.BOOT, 28.4),
    (Stage.UP, 1.0),
)
MORE = """\
subnets:
  - network: 10.2.0.0/24   # the next room
    router: 10.2.0.1
monitoring:
  rules:
    - temperature > 70 for 2m   # a warm room
  channels:
    - type: email
      to: [ops@example.org]
"""
WHOLE = ("rack", "pi")  # pages of which the lower end is shown, too
WAYS: tuple[tuple[str, tuple[int, int], Literal["light", "dark"]], ...] = (
    ("light", DESK, "light"),
    ("dark", DESK, "dark"),
    ("phone", PHONE, "light"),
)


class Clock:
    """The time at the made-up rack, which goes as we say."""

    def __init__(self, when: float) -> None:
        self.when = when

    def __call__(self) -> float:
        return self.when


def made_up(folder: Path, pis: int) -> Backend:
    """A rack worth looking at: one Pi installs, one is hot, one failed, two wait to be let in."""
    clock = Clock(time.time() - 150)
    backend, fleet = open_backend(folder, pis, clock)
    for number in range(pis):
        if number % 10 != 9 and not number % 5 and number % 3:
            fleet.report(Report(mac_of(number), Stage.UP, heard="NTP"))
    clock.when += 20
    for stage, seconds in BOOT_TIMES:
        for number, steps in ((1, 9), (15, 7), (20, 5)):
            if (*BOOT, Stage.UP).index(stage) < steps:
                total = 450_000_000 if stage is Stage.IMAGE else None
                done = round(0.6 * total) if total else None
                fleet.report(Report(mac_of(number), stage, heard=f"the word of {stage}", done=done, total=total))
        clock.when += seconds
    clock.when = time.time()
    fleet.report(Report(mac_of(1), Stage.UP, heard="NTP"))
    for number, stage in ((0, Stage.LEASE), (10, Stage.FIRMWARE), (20, Stage.HELLO)):
        fleet.report(Report(mac_of(number), stage, heard="a word"))
    for number, share in ((15, 0.6), (30, 0.25)):
        fleet.report(
            Report(mac_of(number), Stage.IMAGE, heard="PROGRESS", done=round(share * 450_000_000), total=450_000_000)
        )
    fleet.tick(clock())
    store = backend.rack.store
    raise_alerts(store, clock())
    store.save_places([Place(mac, "127.0.4.199", 21 + n, str(21 + n)) for n, mac in enumerate(STRANGERS)])
    return measured(backend, pis, clock())


def measured(backend: Backend, pis: int, now: float) -> Backend:
    """The backend with watts on its ports, and a day of readings of each Pi that is up."""
    rack = backend.rack
    up = [number for number in range(pis) if number % 10 != 9 and number % 5 and number % PER_SWITCH != 9]
    for minute in range(180, -1, -2):
        readings = [reading(number, now - 60 * minute) for number in up[: 3 if minute else pis]]
        rack.store.add_samples(readings)
    latest = {mac_of(number): reading(number, now) for number in up}
    shown = replace(rack, readings=lambda: latest, faces=lambda: faces(pis))
    return Backend(backend.place, lambda: shown)


def reading(number: int, when: float) -> Reading:
    """What a Pi would have told."""
    wave = math.sin(when / 900 + number)
    values = {
        "temperature": round(47 + 6 * wave + number % 7, 1),
        "cpu_percent": round(22 + 18 * wave, 1),
        "memory_percent": round(31 + 4 * wave, 1),
        "disk_percent": 18.0,
        "load1": round(0.6 + 0.5 * wave, 2),
        "uptime": when % 86400,
        "up": 1.0,
        "ping_ms": round(0.6 + 0.2 * wave, 1),
        "watts": round(4.1 + wave, 1),
    }
    return Reading(mac_of(number), when, values, {"evidence": "agent 3 s ago, NTP 40 s ago"})


def faces(pis: int) -> Mapping[str, Sequence[Port]]:
    """What the switches would say: watts at the ports with a Pi, one port off."""
    said = {}
    for index in range((pis + PER_SWITCH - 1) // PER_SWITCH):
        said[f"127.0.4.{200 - index}"] = [
            Port(number + 1, str(number + 1), (1, number + 1), number + 1, admin_on=number != 9, link=number % 10 != 9)
            if number % 10 == 9
            else Port(
                number + 1, str(number + 1), (1, number + 1), number + 1, admin_on=True, link=True,
                milliwatts=3600 + 300 * (number % 7), source="port",
            )
            for number in range(PER_SWITCH)
        ]  # fmt: skip
    return said


def picture_all(browser: Browser, address: str, others: Mapping[str, str], folder: Path) -> list[str]:
    """Every page in every way, some at managers of their own; what axe found."""
    problems = []
    for way, size, scheme in WAYS:
        page = look(browser, size, scheme)
        for view in views(mac_of(1)):
            page.goto(others.get(view.name, address) + view.path)
            settle(page)
            page.wait_for_timeout(400)
            page.screenshot(path=folder / f"{view.name}-{way}.png", full_page=way != "phone" and view.name in WHOLE)
            problems += [f"{view.name} {way}: {each}" for each in axe_problems(page)]
            wide = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
            if wide > 0:
                problems.append(f"{view.name} {way}: {wide} pixels wider than the window")
        page.context.close()
    return problems


def serve(backend: Backend) -> WebServer:
    """A server for it, on a port of its own."""
    server = WebServer(backend.place.web, 0, backend.place.state_dir, lambda: backend)
    threading.Thread(target=server.run, daemon=True).start()
    return server


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    prepare_axe()
    with tempfile.TemporaryDirectory() as made, chromium() as browser:
        backend = made_up(Path(made), 44)
        config = backend.config_file.path
        config.write_text(config.read_text() + MORE)
        backend.place = replace(backend.place, web=Web())
        (Path(made) / "locked").mkdir()
        locked, _fleet = open_backend(Path(made) / "locked", 1)
        locked.place = replace(locked.place, web=Web())
        set_password(locked.place.store, locked.place.state_dir, "correct horse")
        servers = [serve(each) for each in (backend, nothing_yet(Path(made) / "new"), locked)]
        rack, empty, login = (f"http://localhost:{each.port}" for each in servers)
        problems = picture_all(browser, rack, {"wizard": empty, "login": login}, folder)
        for server in servers:
            server.stop()
    sys.stdout.write("".join(f"{each}\n" for each in problems) + f"{len(problems)} problems; pictures in {folder}\n")


if __name__ == "__main__":
    main()
