"""The page as somebody at the rack uses it: real Chromium at a real server, with Pis that boot and install."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, expect

from lab.light import Pace
from lab.rack import Rack
from tests.chromium import chromium, look
from tests.lab.rig import PIMAN, Manager, until
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
            expect(page.get_by_text("with an install of rootfs-")).to_be_visible()
            page.get_by_role("button", name="Find its port").click()
            expect(page.get_by_text("172.30.4.254 port 1")).to_be_visible()  # as the switch says now
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
            expect(page.locator("h1 + .bar .badge")).to_have_text("up")
            assert said == []
        finally:
            manager.end()


@contextmanager
def piman_config(rack: Rack) -> Iterator[subprocess.Popen[bytes]]:
    """`piman config` where nothing is configured, its page in reach; ended as by Ctrl-C."""
    rack.config.unlink()
    rack.hosts.unlink()
    (rack.directory / "install").mkdir()
    rack.boot_dir.rename(rack.directory / "install" / "boot")
    with (rack.directory / "page.log").open("wb") as log:
        process = subprocess.Popen(
            [*PIMAN, "--config", str(rack.config), "config", "Room 7"], stdout=log, stderr=subprocess.STDOUT
        )

    def answers() -> bool:
        with socket.socket() as asker:
            return asker.connect_ex(("127.0.0.1", 5000)) == 0

    try:
        until(answers, 20, "the page answers")
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0, (rack.directory / "page.log").read_text()[-3000:]


def test_from_nothing_by_the_first_steps_to_an_installed_pi(tmp_path: Path) -> None:
    """Nobody types a command after `piman config`: the page writes config.yaml, its process goes on as the manager."""
    pace = Pace(write=3e6)
    rack = Rack(tmp_path, pis=2, kind="light", model="4", scale=0.2, known=False, pace=pace, image_bytes=8_000_000)
    expect.set_options(timeout=PATIENCE)
    with rack, piman_config(rack), chromium() as browser:
        page = look(browser, patience=60)
        said: list[str] = []
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto("http://localhost:5000")
        expect(page.get_by_role("heading", name="First steps")).to_be_visible()
        page.get_by_label("Interface to the Pis").select_option("ens4")
        expect(page.get_by_label("This manager's address")).to_have_value("172.30.4.1")
        expect(page.get_by_label("Subnet mask")).to_have_value("255.255.255.0")
        switch = page.get_by_role("group", name="Switch 0")
        switch.get_by_label("Address").fill("172.30.4.253")
        switch.get_by_role("button", name="Test it").click()
        expect(switch.get_by_role("status")).to_contain_text("no answer")
        switch.get_by_label("Address").fill("172.30.4.254")
        switch.get_by_role("button", name="Test it").click()
        expect(switch.get_by_role("status")).to_have_text("Piman lab PoE switch: 2 PoE ports")
        expect(switch.get_by_label("Ports with a Pi")).to_have_value("2")  # the third leads to this machine
        expect(page.get_by_text("install/boot/rootfs.tgz, 8 MB")).to_be_visible()
        expect(page.locator("pre.diff")).to_contain_text("+      - 172.30.4.12")
        page.get_by_role("button", name="Write it").click()
        page.get_by_role("button", name="Start the manager").click()

        expect(page.locator("a.port, .port")).to_have_count(2)
        expect(page.locator("#connection")).to_have_text("● live")
        rack.start()
        mac = rack.pis[0].mac
        page.get_by_label(f"Name of {mac}").fill("first")
        page.get_by_role("listitem").filter(has_text=mac).get_by_role("button", name="Adopt").click()
        square = page.locator(f'a.port[href="/pi/{mac}"]')
        expect(square).to_contain_text("first")
        expect(square.get_by_role("img")).to_be_visible()
        step = square.locator(".what").inner_text()
        expect(square.locator(".what")).not_to_have_text(step)  # the ring moves
        expect(square.locator(".what")).to_have_text("up")
        edit_both_files(page, rack, mac)
        page.get_by_role("link", name="Rack", exact=True).click()
        expect(square).to_contain_text("window")
        assert said == []


def edit_both_files(page: Page, rack: Rack, mac: str) -> None:
    """Of the manager that runs: with wrong and right input, and back again."""
    log = rack.directory / "page.log"
    before = rack.config.read_text()
    page.get_by_role("link", name="CONFIG").click()
    page.get_by_label("Find a setting").fill("lease")
    lease = page.get_by_label("Lease time (s)")
    lease.fill("5")
    expect(page.get_by_text("expected a whole number from 10 to 31536000")).to_be_visible()
    lease.fill("300")
    page.get_by_role("button", name="Review changes").click()
    page.get_by_role("button", name="Apply changes").click()
    until(lambda: "config.yaml is taken over; made anew: dhcp" in log.read_text(), 20, "the lease time is in force")
    assert rack.config.read_text() == f"{before}lease_time: 300\n"
    page.get_by_role("button", name="Show").first.click()
    page.get_by_role("button", name="Go back to it").click()
    page.get_by_role("button", name="Go back", exact=True).click()
    until(lambda: log.read_text().count("config.yaml is taken over") == 2, 20, "what was before is in force again")
    assert rack.config.read_text() == before

    page.get_by_role("link", name="HOSTS.CSV").click()
    name = page.get_by_label(f"Name of {mac}")
    name.fill("not a name")
    expect(name).to_have_attribute("aria-invalid", "true")
    name.fill("window")
    page.get_by_role("button", name="Review changes").click()
    page.get_by_role("button", name="Apply changes").click()
    until(lambda: f"{mac};172.30.4.11;window;" in rack.hosts.read_text(), 20, "the name is in hosts.csv")
