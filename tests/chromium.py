"""Real Chromium for the tests of the web page: how it is started, which pages there are, and what axe says of one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, sync_playwright

# As root in a container there is no sandbox to be had; the rest keeps Chromium from calling home.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
AXE = "axe-core@4.14.1"
CACHE = Path(__file__).resolve().parents[1] / ".cache" / "axe"
PHONE = (390, 844)
DESK = (1280, 800)


@dataclass(frozen=True, slots=True)
class View:
    """A page and how it is looked at."""

    name: str
    path: str
    heading: str  # the text of its only h1


def views(mac: str) -> tuple[View, ...]:
    """Every page of a rack; the Pi's page is that of `mac`."""
    return (
        View("rack", "/", "Rack"),
        View("table", "/pis", "Table"),
        View("pi", f"/pi/{mac}", ""),
        View("alerts", "/alerts", "Alerts"),
        View("events", "/log", "Events"),
        View("config", "/config", "CONFIG"),
        View("hosts", "/hosts", "HOSTS.CSV"),
        View("access", "/access", "Access"),
        View("api", "/api", "API"),
        View("labels", "/labels", "Labels"),
        View("wizard", "/wizard", "First steps"),
        View("login", "/login", "Log in"),
    )


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    program = shutil.which("chromium")
    assert program, "tests/run.sh installs chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*ARGUMENTS])
        yield browser
        browser.close()


def look(
    browser: Browser, size: tuple[int, int] = DESK, scheme: Literal["light", "dark"] = "light", patience: float = 30
) -> Page:
    """A new tab of its own: no cookie, no choice remembered. `patience` in seconds, for each thing waited for."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.set_default_timeout(patience * 1000)
    return page


def settle(page: Page) -> None:
    """Wait until the script has filled the page."""
    page.wait_for_function(
        "() => !document.querySelector('#page[aria-busy]') && !document.querySelector('[aria-busy=true]')"
    )


def prepare_axe() -> None:
    """Fetch axe-core from the npm registry into .cache: the tests' world has no network."""
    if not axe_file().exists():
        npm = shutil.which("npm")
        assert npm, "axe-core comes from npm; install npm"
        CACHE.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--silent", "--no-save", "--ignore-scripts", "--prefix", str(CACHE), AXE]
        subprocess.run(command, check=True, timeout=120)


def axe_file() -> Path:
    return CACHE / "node_modules" / "axe-core" / "axe.min.js"


def axe_problems(page: Page, *rules: str) -> list[str]:
    """What axe finds serious or critical on the page as it is, a line for each; by some rules, or by all."""
    page.evaluate(axe_file().read_text())
    only = {"runOnly": [*rules]} if rules else {}
    found = page.evaluate("options => axe.run(document, options)", {"resultTypes": ["violations"], **only})
    return [
        f"{each['id']}: {each['help']}: {[node['html'][:160] for node in each['nodes'][:3]]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]


if __name__ == "__main__":
    prepare_axe()
