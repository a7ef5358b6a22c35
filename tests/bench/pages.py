"""The web page with five hundred Pis in real Chromium: how soon it is there, if it flickers, what open pages cost.

The rack is made up (tests/web_rack.py: files, board, store and server as they are, no network), and some of its Pis
install all the while. The cost of pages is the processor time of the manager with them, less that without. Knows no
limit.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from playwright.sync_api import Browser, Page

from tests.bench.servers import ROOT, cpu_seconds
from tests.chromium import chromium, look

PIS, MOVING, EVERY = 500, 10, 1.0
PAGES = 20
PORT = 15_000
# Called before the page's own script: notes when the last square was there and the frame after it on the screen.
WATCH_PAINT = f"""
window.painted = 0;
const look = () => document.querySelectorAll("a.port").length >= {PIS}
    ? requestAnimationFrame(() => requestAnimationFrame(() => {{ window.painted = performance.now(); }}))
    : requestAnimationFrame(look);
look();
"""
WATCH_SQUARES = """() => {
    window.kept = [...document.querySelectorAll("a.port")].map((node) => [node, node.innerHTML, [...node.childNodes]]);
    window.shift = 0;
    new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) window.shift += entry.value;
    }).observe({ type: "layout-shift" });
}"""
# Squares that are other elements now, or that say the same as before in other elements.
MADE_ANEW = """() => {
    const now = [...document.querySelectorAll("a.port")];
    return window.kept.filter(([node, said, inside], number) => node !== now[number]
        || (node.innerHTML === said && inside.some((each, place) => node.childNodes[place] !== each))).length;
}"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of it. paints: seconds from the click to the last of 500 squares on the screen, each time.

    changed  squares that changed while one was looked at; anew: of all squares, those that were needlessly made anew
    shift    Chromium's layout shift meanwhile: 0 is a page on which nothing jumps
    alone    percent of a core without a page; open: with 20
    """

    paints: tuple[float, ...]
    changed: int
    anew: int
    shift: float
    alone: float
    open: float


@contextlib.contextmanager
def manager(folder: Path) -> Iterator[psutil.Process]:
    """The page of the made-up rack, in a process of its own."""
    words = ["--pis", str(PIS), "--port", str(PORT), "--moving", str(MOVING), "--every", str(EVERY)]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "manager.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.web_rack", *words], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 30
        with contextlib.suppress(OSError):
            while time.monotonic() < deadline and process.poll() is None:
                with socket.socket() as asker:
                    if not asker.connect_ex(("127.0.0.1", PORT)):
                        break
                time.sleep(0.1)
        if process.poll() is not None:
            raise RuntimeError(f"the page did not start: {(folder / 'manager.log').read_text()[-2000:]}")
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(timeout=30)


def percent(process: psutil.Process, seconds: float) -> float:
    """Of a core, over so long."""
    before, began = cpu_seconds(process), time.monotonic()
    time.sleep(seconds)
    return 100 * (cpu_seconds(process) - before) / (time.monotonic() - began)


def paint(browser: Browser) -> tuple[float, Page]:
    """Open the rack as who has never been there; seconds until it is on the screen."""
    page = look(browser)
    page.add_init_script(WATCH_PAINT)
    page.goto(f"http://localhost:{PORT}/")
    page.wait_for_function("() => window.painted > 0")
    return page.evaluate("() => window.painted") / 1000, page


def look_at(folder: Path, quick: bool) -> Seen:
    """All of it, in a minute; quick: in half of one."""
    window = 6.0 if quick else 15.0
    with manager(folder) as process, chromium() as browser:
        alone = percent(process, window / 2)
        paint(browser)[1].context.close()  # so that the browser itself is awake
        paints = []
        for _round in range(3 if quick else 7):
            took, page = paint(browser)
            paints.append(took)
            page.context.close()
        _took, page = paint(browser)
        page.wait_for_timeout(1000)
        page.evaluate(WATCH_SQUARES)
        page.wait_for_timeout(1000 * window / 2)
        changed = page.evaluate("() => window.kept.filter(([node, said]) => node.innerHTML !== said).length")
        anew, shift = page.evaluate(MADE_ANEW), page.evaluate("() => window.shift")
        pages = [page, *(paint(browser)[1] for _ in range(PAGES - 1))]
        time.sleep(1)
        opened = percent(process, window)
        live = sum("live" in each.locator("#connection").inner_text() for each in pages)
    if live < PAGES:
        raise RuntimeError(f"{PAGES - live} of {PAGES} pages lost their stream")
    return Seen(tuple(paints), changed, anew, shift, alone, opened)
