"""axe on every page, in light and dark; the pages fit a phone; the arrow keys go from port to port."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from playwright.sync_api import Browser, expect

from tests.chromium import PHONE, axe_problems, chromium, look, settle, views
from tests.web_rack import mac_of, nothing_yet, open_backend, raise_alerts
from utility.config import Web
from web.access import set_password
from web.backend import Backend
from web.server import WebServer


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@contextmanager
def served(backend: Backend) -> Iterator[str]:
    backend.place = replace(backend.place, web=Web())
    server = WebServer(backend.place.web, 0, backend.place.state_dir, lambda: backend)
    thread = threading.Thread(target=server.run, name="web")
    thread.start()
    yield f"http://localhost:{server.port}"
    server.stop()
    thread.join(10)
    backend.place.store.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    backend, _fleet = open_backend(tmp_path_factory.mktemp("rack"), 12)
    raise_alerts(backend.place.store, time.time())
    backend.place.store.add_silence("pi1", "hot", time.time() + 3600, "local", "the fan is ordered")
    with served(backend) as address:
        yield address


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A rack that wants a password."""
    backend, _fleet = open_backend(tmp_path_factory.mktemp("locked"), 1)
    set_password(backend.place.store, backend.place.state_dir, "correct horse")
    with served(backend) as address:
        yield address


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A manager before its first steps."""
    with served(nothing_yet(tmp_path_factory.mktemp("empty"))) as address:
        yield address


def test_axe_finds_nothing_serious_on_any_page_and_each_fits_a_phone(
    browser: Browser, address: str, locked: str, empty: str
) -> None:
    problems = []
    page = look(browser, PHONE, "light")
    for view in views(mac_of(4)):
        page.goto({"login": locked, "wizard": empty}.get(view.name, address) + view.path)
        settle(page)
        problems += [f"{view.name}: {each}" for each in axe_problems(page)]
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), view.name
        page.emulate_media(color_scheme="dark")
        problems += [f"{view.name}, dark: {each}" for each in axe_problems(page, "color-contrast")]
        page.emulate_media(color_scheme="light")
    page.context.close()
    assert problems == []


def test_axe_finds_nothing_in_what_is_folded_or_comes_later(browser: Browser, address: str) -> None:
    """Every form of CONFIG with an entry that is added, what the doctor says, and a dialog."""
    problems = []
    page = look(browser, PHONE, "light")
    page.goto(f"{address}/config")
    settle(page)
    page.evaluate("() => { for (const each of document.querySelectorAll('details')) each.open = true; }")
    for name in ("switch", "driver", "network", "rule", "channel"):
        page.get_by_role("button", name=f"Another {name}", exact=True).click()
    page.get_by_role("button", name="Check everything").click()
    expect(page.get_by_role("heading", name="checks found something")).to_be_visible()
    problems += axe_problems(page)
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    page.goto(f"{address}/pi/{mac_of(4)}")
    page.get_by_role("button", name="Reinstall").click()
    problems += axe_problems(page)
    page.context.close()
    assert problems == []


def test_one_tab_stop_for_a_switch_and_arrows_from_port_to_port(browser: Browser, address: str) -> None:
    page = look(browser)
    page.goto(address)
    ports = page.locator("a.port")
    expect(ports.nth(0)).to_contain_text("pi1")
    assert page.locator('a.port[tabindex="0"]').count() == 1
    ports.nth(0).focus()
    for key, port in (("ArrowRight", "pi3"), ("ArrowDown", "pi4"), ("ArrowLeft", "pi2"), ("ArrowUp", "pi1")):
        page.keyboard.press(key)
        assert port in page.evaluate("() => document.activeElement.textContent")
    page.context.close()


def test_the_colours_are_chosen_by_hand_and_remembered(browser: Browser, address: str) -> None:
    page = look(browser)
    back = "() => getComputedStyle(document.body).backgroundColor"
    page.goto(f"{address}/api")
    light = page.evaluate(back)
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate(back) != light
    page.goto(f"{address}/log")
    assert page.evaluate(back) != light
    page.context.close()
