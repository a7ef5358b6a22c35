"""The page as somebody at the rack uses it: real Chromium at a real server, with Pis that boot and install."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect

from lab.light import Pace
from lab.rack import Rack
from tests.chromium import chromium, look
from tests.lab.rig import Manager
from utility.config import load_config

PATIENCE = 60_000  # milliseconds; two cores may have other things to do


def test_a_stranger_is_adopted_reinstalled_and_watched_over_a_restart_of_the_manager(tmp_path: Path) -> None:
    rack = Rack(
        tmp_path, pis=2, kind="light", model="4", scale=0.2, known=False, pace=Pace(write=2e6), image_bytes=8_000_000
    )
    expect.set_options(timeout=PATIENCE)
    with rack, chromium() as browser:
        rack.config.write_text(f"{rack.config.read_text()}unknown_pis: approve\n")
        manager = Manager(rack)
        manager.start()
        try:
            address = f"http://localhost:{load_config(rack.config, environ={}).ports.web}"
            page, other = look(browser, patience=60), look(browser, patience=60)
            said: list[str] = []
            page.on("pageerror", lambda error: said.append(str(error)))
            page.goto(address)
            other.goto(f"{address}/pis")
            rack.start()
            mac = rack.pis[0].mac
            page.get_by_label(f"Name of {mac}").fill("door")
            page.get_by_role("listitem").filter(has_text=mac).get_by_role("button", name="Adopt").click()
            square = page.locator(f'a.port[href="/pi/{mac}"]')
            expect(square).to_contain_text("door")
            expect(square.get_by_role("img")).to_be_visible()  # the ring of the first install
            expect(square.locator(".what")).to_have_text("up")
            expect(other.get_by_role("row").filter(has_text=mac)).to_contain_text("up")

            square.focus()
            page.keyboard.press("Enter")
            expect(page.get_by_role("heading", level=1)).to_have_text("door")
            expect(page.get_by_text("The last boot")).to_be_visible()
            page.get_by_role("button", name="Reinstall").click()
            page.get_by_label("Type door to go on").fill("door")
            page.get_by_role("button", name="Erase and reinstall").click()
            other.goto(address)
            moving = other.locator(f'a.port[href="/pi/{mac}"]')
            expect(moving.get_by_role("img")).to_be_visible()
            first = moving.locator(".what").inner_text()
            expect(moving.locator(".what")).not_to_have_text(first)  # the ring moves

            manager.end()
            expect(page.locator("#connection")).to_contain_text("the manager does not answer; last update")
            manager.start()
            expect(page.locator("#connection")).to_have_text("● live")
            expect(moving.locator(".what")).to_have_text("up")
            expect(page.locator("h1 + .badge")).to_have_text("up")
            assert said == []
        finally:
            manager.end()
