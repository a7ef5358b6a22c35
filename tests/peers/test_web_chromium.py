"""Chromium on the pages: from the first steps to a rack that moves, and every edit with right and wrong input."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from monitoring.alerts import Alert
from monitoring.fleet import Fleet
from monitoring.store import Place as SeenAt
from monitoring.store import Store
from tests.bench.pages import MADE_ANEW, WATCH_SQUARES
from tests.web_rack import STRANGERS, mac_of, open_backend, raise_alerts
from tftp.files import problems_of
from utility.config import Web
from utility.rules import AlertSeverity
from utility.service import Report, Severity, Stage, only_server
from web import live
from web.access import set_password
from web.alone import Alone
from web.backend import Backend, Place
from web.server import WebServer
from web.starting import Starter

PATIENCE = 20_000  # milliseconds; the machine may have other things to do


class Served:
    """A backend behind a real server, and what the browser's console said."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.complaints: list[str] = []
        self.start()

    def start(self, port: int = 0) -> None:
        self.server = WebServer(self.backend.place.web, port, self.backend.place.state_dir, lambda: self.backend)
        self.port = self.server.port
        self.thread = threading.Thread(target=self.server.run, name="web")
        self.thread.start()

    def stop(self) -> None:
        self.server.stop()
        self.thread.join(10)

    def open(self, browser: Browser, path: str = "/") -> Page:
        page = browser.new_context().new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda said: self.complaints.append(said.text) if "Content Security" in said.text else None)
        page.goto(f"http://localhost:{self.port}{path}")
        return page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    assert program, "the gate installs chromium"
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[tuple[Served, Fleet]]:
    backend, fleet = open_backend(tmp_path, 12)
    served = Served(backend)
    yield served, fleet
    served.stop()
    backend.place.store.close()
    assert served.complaints == []


def test_the_rack_moves_and_a_new_pi_is_adopted(rack: tuple[Served, Fleet], browser: Browser) -> None:
    served, fleet = rack
    page, other = served.open(browser), served.open(browser)
    square = page.locator(f'a.port[href="/pi/{mac_of(1)}"]')
    expect(square).to_contain_text("up")
    fleet.report(Report(mac_of(1), Stage.DISCOVER, heard="DHCPDISCOVER"))
    expect(square).to_contain_text("discover")
    fleet.report(Report(mac_of(1), Stage.IMAGE, heard="PROGRESS", done=50, total=200))
    expect(square.get_by_role("img", name="25 percent")).to_be_visible()
    fleet.report(Report(mac_of(1), Stage.UP, heard="NTP"))
    for each in (page, other):
        expect(each.locator(f'a.port[href="/pi/{mac_of(1)}"]')).to_contain_text("up")
    stranger = next(iter(STRANGERS))
    page.get_by_label(f"Name of {stranger}").fill("door")
    page.get_by_role("listitem").filter(has_text=stranger).get_by_role("button", name="Adopt").click()
    expect(page.get_by_text(f"{stranger} is door now")).to_be_visible()
    assert f"{stranger};127.0.0.2;door" in served.backend.rack.hosts.path.read_text()
    fleet._refresh(time.time())
    expect(other.get_by_role("button", name="door")).to_have_count(0)
    square.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("pi2")
    page.get_by_role("button", name="Reinstall").click()
    go = page.get_by_role("button", name="Erase and reinstall")
    expect(go).to_be_disabled()
    page.get_by_label("Type pi2 to go on").fill("pi")
    expect(go).to_be_disabled()
    page.get_by_role("button", name="Cancel").click()
    assert served.backend.acts.jobs.views() == {}
    page.close()
    other.close()


def test_config_is_edited_with_wrong_and_right_input_and_taken_back(
    rack: tuple[Served, Fleet], browser: Browser
) -> None:
    served, _fleet = rack
    path = served.backend.config_file.path
    before = path.read_text()
    page = served.open(browser, "/config")
    page.get_by_label("Find a setting").fill("lease")
    lease = page.get_by_label("Lease time (s)")
    expect(page.get_by_label("Subnet mask")).to_be_hidden()
    lease.fill("5")
    expect(page.get_by_text("expected a whole number from 10 to 31536000")).to_be_visible()
    expect(lease).to_have_attribute("aria-invalid", "true")
    lease.fill("300")
    expect(page.get_by_text("changed, not yet applied")).to_be_visible()
    page.get_by_role("button", name="Review changes").click()
    expect(page.locator("pre.diff")).to_contain_text("+lease_time: 300")
    assert path.read_text() == before
    path.write_text(f"# by hand\n{before}")
    page.get_by_role("button", name="Apply changes").click()
    expect(page.get_by_text("changed by somebody else meanwhile")).to_be_visible()
    assert path.read_text() == f"# by hand\n{before}"
    page.get_by_role("button", name="Load it").click()
    expect(page.get_by_text("changed by somebody else meanwhile")).to_have_count(0)
    page.get_by_label("Lease time (s)").fill("300")
    page.get_by_role("button", name="Review changes").click()
    page.get_by_role("button", name="Apply changes").click()
    expect(page.get_by_role("button", name="Apply changes")).to_have_count(0)  # applied, and loaded anew
    expect(page.get_by_label("Lease time (s)")).to_have_value("300")
    assert path.read_text() == f"# by hand\n{before}lease_time: 300\n"
    expect(page.locator("pre.diff")).to_have_count(0)
    page.get_by_role("button", name="Show").first.click()
    page.get_by_role("button", name="Go back to it").click()
    page.get_by_role("button", name="Go back", exact=True).click()
    expect(page.get_by_label("Lease time (s)")).to_have_value("")
    assert path.read_text() == f"# by hand\n{before}"
    page.close()


def test_hosts_are_edited_with_wrong_and_right_input(rack: tuple[Served, Fleet], browser: Browser) -> None:
    served, _fleet = rack
    path = served.backend.rack.hosts.path
    page = served.open(browser, "/hosts")
    name = page.get_by_label(f"Name of {mac_of(0)}")
    name.fill("not a name")
    expect(name).to_have_attribute("aria-invalid", "true")
    name.fill("first")
    page.get_by_role("button", name="Another Pi").click()
    page.get_by_label("MAC of the new Pi").fill("b8:27:eb:00:09:09")
    page.get_by_role("button", name="Review changes").click()
    expect(page.locator("pre.diff")).to_contain_text("+b8:27:eb:00:09:09;0.0.0.0;;0")
    page.get_by_role("button", name="Apply changes").click()
    expect(page.get_by_label("Address of b8:27:eb:00:09:09")).to_have_value("127.0.0.2")
    assert f"{mac_of(0)};127.0.8.1;first;" in path.read_text()
    assert path.read_text().startswith("# The Pis.\n")
    page.close()


def test_an_open_page_goes_on_when_the_manager_was_restarted(rack: tuple[Served, Fleet], browser: Browser) -> None:
    served, fleet = rack
    page = served.open(browser)
    expect(page.get_by_text("● live")).to_be_visible()
    port = served.port
    served.stop()
    expect(page.get_by_text("the manager does not answer")).to_be_visible()
    place, rack_now = served.backend.place, served.backend.rack
    served.backend = Backend(place, lambda: rack_now)
    served.start(port)
    expect(page.get_by_text("● live")).to_be_visible()
    fleet.report(Report(mac_of(1), Stage.DISCOVER, heard="DHCPDISCOVER"))
    expect(page.locator(f'a.port[href="/pi/{mac_of(1)}"]')).to_contain_text("discover")
    page.close()


def test_the_first_steps_make_a_config(tmp_path: Path, browser: Browser) -> None:
    store = Store(tmp_path / "state" / "piman.db")
    alone = Alone(tmp_path / "config.yaml", None, None, store, problems_of)
    place = Place(tmp_path / "config.yaml", None, tmp_path / "state", store, Web(), title="Room 7")
    served = Served(Backend(place, alone.rack, alone.reopen, Starter(None, ["sudo piman server"])))
    try:
        page = served.open(browser)
        expect(page.get_by_role("heading", name="First steps")).to_be_visible()
        page.get_by_label("This manager's address").fill("172.30.4.300")
        page.get_by_label("Subnet mask").fill("255.255.255.0")
        expect(page.get_by_text("expected an IPv4 address like 172.30.4.1")).to_be_visible()
        page.get_by_label("This manager's address").fill("172.30.4.1")
        page.get_by_label("Address", exact=True).fill("172.30.4.254")
        page.get_by_label("Ports with a Pi").fill("3")
        expect(page.locator("pre.diff")).to_contain_text("+      - 172.30.4.13")
        write = page.get_by_role("button", name="Write it")
        if write.is_disabled():  # a world without an interface that could be chosen
            assert "interface" in page.locator("#page").inner_text()
        else:
            write.click()
            expect(page.get_by_role("heading", name="5. Start the manager")).to_be_visible()
            expect(page.locator("#page pre")).to_have_text("sudo piman server")  # for this program may not
            assert "address: 172.30.4.254" in (tmp_path / "config.yaml").read_text()
            with only_server(tmp_path / "state"):  # somebody typed it
                expect(page.locator(".port")).to_have_count(3)
        page.close()
    finally:
        served.stop()
        store.close()
    assert served.complaints == []


def test_a_rack_of_500_is_painted_within_a_second_and_changes_without_flicker(tmp_path: Path, browser: Browser) -> None:
    backend, fleet = open_backend(tmp_path, 500)
    served = Served(replace_threads(backend))
    try:
        page = served.open(browser, "/api")  # so that the browser itself is awake
        began = time.monotonic()
        page.goto(f"http://localhost:{served.port}/")
        expect(page.locator("a.port").nth(499)).to_be_visible()
        took = time.monotonic() - began
        page.evaluate(WATCH_SQUARES)
        for stage in (Stage.DISCOVER, Stage.FIRMWARE, Stage.IMAGE):
            for number in range(100):
                fleet.report(Report(mac_of(number), stage, heard=f"the word of {stage}", done=5, total=100))
            expect(page.locator(f'a.port[href="/pi/{mac_of(99)}"]')).to_contain_text(str(stage))
        changed = page.evaluate("() => window.kept.filter(([node, said]) => node.innerHTML !== said).length")
        assert changed >= 90
        assert page.evaluate(MADE_ANEW) == 0  # what did not change are the same elements, to the last
        assert page.evaluate("() => window.shift") < 0.01
        page.close()
    finally:
        served.stop()
        backend.place.store.close()
    assert took < 5, took  # one second on a machine that does nothing else


def replace_threads(backend: Backend) -> Backend:
    """The backend on localhost, whatever the example says."""
    backend.place = replace(backend.place, web=Web())
    return backend


def test_who_types_a_name_is_not_disturbed_by_what_others_pis_do(rack: tuple[Served, Fleet], browser: Browser) -> None:
    served, fleet = rack
    first, second = STRANGERS
    page = served.open(browser)
    name = page.get_by_label(f"Name of {first}")
    name.click()
    page.keyboard.type("win")
    third = "dc:a6:32:aa:00:03"
    fleet.report(Report(third, heard="DHCPDISCOVER", facts={"model": "Pi 4", "serial": "77"}))
    fleet.report(
        Report(first, heard="DHCPDISCOVER again", facts={"model": "Pi 4", "serial": "91cdf03d", "vendor": "other"})
    )
    expect(page.get_by_label(f"Name of {third}")).to_be_visible()
    expect(page.locator(".strangers li").filter(has_text=first)).to_contain_text("other")
    page.keyboard.type("dow")
    expect(name).to_be_focused()
    expect(name).to_have_value("window")
    served.backend.rack.store.save_places([SeenAt(second, "127.0.4.200", 7, "7")])
    fleet.report(Report(second, heard="DHCPDISCOVER"))
    expect(page.locator(".strangers li").filter(has_text=second)).to_contain_text("switch port 7")
    page.keyboard.press("Enter")  # as in any form
    expect(page.get_by_text(f"{first} is window now")).to_be_visible()
    fleet.tick(time.time())
    expect(page.get_by_label(f"Name of {second}")).to_be_focused()  # and on to the next
    page.close()


def test_all_that_wait_are_let_in_at_once(rack: tuple[Served, Fleet], browser: Browser) -> None:
    """In the order of their ports, with the names that were typed and numbers for the others."""
    served, fleet = rack
    first, second = STRANGERS
    third = "dc:a6:32:aa:00:03"
    fleet.report(Report(third, heard="DHCPDISCOVER", facts={"model": "Pi 4", "serial": "77"}))
    served.backend.rack.store.save_places(
        [SeenAt(first, "127.0.4.200", 20), SeenAt(second, "127.0.4.200", 19), SeenAt(third, "127.0.4.200", 21)]
    )
    page = served.open(browser)
    page.get_by_label(f"Name of {third}").fill("door")
    page.get_by_label("How their names begin").fill("pi1")  # of which pi10 to pi12 are taken
    page.get_by_role("button", name="Adopt all").click()
    expect(page.get_by_role("dialog")).to_contain_text("called pi13, pi14, door,")
    page.get_by_role("button", name="Adopt them").click()
    expect(page.get_by_text("3 Pis are in hosts.csv now")).to_be_visible()
    names = {host.mac: host.name for host in served.backend.rack.hosts.all()}
    assert [names[mac] for mac in (first, second, third)] == ["pi14", "pi13", "door"]
    page.close()


def test_no_update_takes_the_focus(rack: tuple[Served, Fleet], browser: Browser) -> None:
    """The buttons and filters of each page stay the same elements, whatever moves around them."""
    served, fleet = rack
    store = served.backend.rack.store
    raise_alerts(store, time.time())
    mac = mac_of(1)

    def move(stage: Stage, seen: Locator) -> None:
        fleet.report(
            Report(mac, stage, heard=f"the word of {stage}", event=f"{stage} it is", severity=Severity.WARNING)
        )
        fleet.tick(time.time())
        expect(seen).to_contain_text(str(stage))

    page = served.open(browser, "/pis")
    page.get_by_role("button", name="State").click()
    box = page.get_by_label("Choose pi2", exact=True)
    box.check()
    search = page.get_by_label("Search")
    search.fill("pi")
    for held in (box, search):
        held.focus()
        for stage in (Stage.DISCOVER, Stage.UP):  # which sorts it elsewhere
            move(stage, page.get_by_role("row").filter(has_text=mac))
        expect(held).to_be_focused()
    expect(box).to_be_checked()

    page.goto(f"http://localhost:{served.port}/pi/{mac}")
    restart = page.get_by_role("button", name="Restart")
    restart.focus()
    move(Stage.FIRMWARE, page.locator("h1 + .bar"))
    expect(restart).to_be_focused()
    page.get_by_role("button", name="Reinstall").click()
    page.get_by_label("Type pi2 to go on").fill("pi")
    move(Stage.KERNEL, page.locator("h1 + .bar"))
    page.keyboard.type("2")
    expect(page.get_by_role("button", name="Erase and reinstall")).to_be_enabled()
    page.get_by_role("button", name="Cancel").click()

    page.goto(f"http://localhost:{served.port}/log")
    page.get_by_label("Search").fill("it is")
    events = page.get_by_label("Events, the newest first")
    events.focus()
    move(Stage.HELLO, events)
    expect(events).to_be_focused()

    page.goto(f"http://localhost:{served.port}/alerts")
    button = page.get_by_role("row").filter(has_text="pi8").get_by_role("button", name="Silence")
    button.focus()
    new = Alert(4, "down", mac_of(5), "pi6", AlertSeverity.CRITICAL, time.time(), time.time(), "silent, too", 0)
    store.save_alerts([new], [], [], time.time())
    expect(page.get_by_text("silent, too")).to_be_visible()
    expect(button).to_be_focused()
    page.close()


def test_alerts_are_acknowledged_silenced_and_heard_again(rack: tuple[Served, Fleet], browser: Browser) -> None:
    served, _fleet = rack
    store = served.backend.rack.store
    page = served.open(browser, "/alerts")
    expect(page.get_by_role("heading", name="Nothing is wrong")).to_be_visible()
    raise_alerts(store, time.time())
    expect(page.get_by_role("heading", name="2 open")).to_be_visible()
    expect(page.get_by_label("2 alerts")).to_be_visible()  # in the navigation
    worst, hot = (page.get_by_role("row").filter(has_text=each) for each in ("pi34", "pi8"))
    expect(page.locator("tbody tr").first).to_contain_text("pi34")  # the gravest first
    worst.get_by_role("button", name="I know").click()
    expect(worst).to_contain_text("known to local")
    expect(worst.get_by_role("button", name="I know")).to_have_count(0)
    expect(page.get_by_label("1 alert", exact=True)).to_be_visible()
    page.get_by_label("Silence for").select_option("a day")
    hot.get_by_role("button", name="Silence").click()
    expect(page.get_by_text("hot of pi8 is silent for a day")).to_be_visible()
    (silence,) = store.silences(time.time())
    assert (silence.subject, silence.rule) == ("pi8", "hot")
    assert 86000 < silence.until - time.time() <= 86400
    listed = page.get_by_role("listitem").filter(has_text="hot of pi8")
    listed.get_by_role("button", name="End it").click()
    expect(listed).to_have_count(0)
    assert store.silences(time.time()) == []
    expect(page.get_by_role("heading", name="Over lately")).to_be_visible()
    expect(page.get_by_role("row").filter(has_text="33 min")).to_contain_text("pi3")
    assert [each.action for each in store.audit()] == ["end silence", "silence", "acknowledge alert"]
    page.close()


def test_who_logs_in_with_a_wrong_and_the_right_password(
    rack: tuple[Served, Fleet], browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, fleet = rack
    monkeypatch.setattr(live, "RECHECK", 0.0)
    place = served.backend.place
    set_password(place.store, place.state_dir, "correct horse")
    page = served.open(browser, "/config")
    password = page.get_by_label("Password, or a token")
    expect(password).to_be_focused()
    page.keyboard.type("wrong horse")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("this is not the password")
    expect(password).to_have_value("")
    password.fill("correct horse")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_label("Find a setting")).to_be_visible()  # where it was going
    other = page.context.new_page()
    other.goto(f"http://localhost:{served.port}/")
    expect(other.locator("a.port").first).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(password).to_be_visible()
    fleet.report(Report(mac_of(1), Stage.DISCOVER, heard="DHCPDISCOVER"))  # which the other tab is not told any more
    expect(other.get_by_label("Password, or a token")).to_be_visible()
    page.context.close()


LISTS = """\
# Who looks after it: the lab.
subnets:
  # the next room
  - network: 10.2.0.0/24
    router: 10.2.0.1   # its gateway
monitoring:
  rules:
    - temperature > 70 for 2m   # a warm room
    - {name: agent, enabled: false}
"""


def test_the_doctor_is_asked_and_an_image_chosen(rack: tuple[Served, Fleet], browser: Browser) -> None:
    served, _fleet = rack
    folder = served.backend.rack.config.image.parent / "images"
    folder.mkdir(parents=True)
    (folder / "class.tgz").write_bytes(b"an image")
    page = served.open(browser, "/config")
    page.get_by_role("row").filter(has_text="class").get_by_role("button", name="Use it").click()
    expect(page.get_by_role("row").filter(has_text="class")).to_contain_text("chosen")
    assert served.backend.rack.config.image.resolve() == (folder / "class.tgz").resolve()
    page.get_by_role("button", name="Check everything").click()
    expect(page.get_by_role("heading", name="checks found something")).to_be_visible()
    expect(page.get_by_text("no Raspberry Pi can boot")).to_be_visible()
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_text("no Raspberry Pi can boot")).to_be_hidden()
    page.close()


def add_driver(page: Page) -> None:
    page.get_by_text("Drivers of your own").click()
    page.get_by_role("button", name="Another driver").click()
    driver = page.get_by_role("group", name="New driver")
    driver.get_by_label("Name").fill("standard")
    expect(driver.get_by_text("is the name of a driver that is there")).to_be_visible()
    driver.get_by_label("Name").fill("acme-2")
    driver.get_by_label("Value: on").fill("yes")
    expect(driver.get_by_text("expected a whole number")).to_be_visible()
    driver.get_by_label("Value: on").fill("7")


def add_channel(page: Page) -> None:
    page.get_by_text("Alerts: who is told").click()
    page.get_by_role("button", name="Another channel").click()
    channel = page.get_by_role("group", name="New channel")
    channel.get_by_label("How", exact=True).select_option("email")
    expect(channel.get_by_label("Address", exact=True)).to_be_hidden()
    expect(channel.get_by_text("is missing; expected who gets the mail")).to_be_visible()
    channel.get_by_label("To", exact=True).fill("ops@example.org, lab@example.org")


def add_switch(page: Page) -> None:
    page.get_by_role("group", name="127.0.4.200").get_by_role("button", name="Remove this switch").click()
    page.get_by_role("group", name="127.0.4.200").get_by_role("button", name="Keep it").click()
    page.get_by_role("button", name="Another switch").click()
    switch = page.get_by_role("group", name="New switch")
    switch.get_by_label("Address", exact=True).fill("127.0.4.9")
    switch.get_by_role("button", name="Another port").click()
    switch.get_by_label("Port 1").fill("127.0.8.1")
    expect(switch.get_by_text("127.0.8.1 is already switches[0]")).to_be_visible()
    switch.get_by_label("Port 1").fill("127.0.9.1")


def test_lists_of_sections_are_edited_with_wrong_and_right_input(rack: tuple[Served, Fleet], browser: Browser) -> None:
    served, _fleet = rack
    path = served.backend.config_file.path
    path.write_text(path.read_text() + LISTS)
    page = served.open(browser, "/config")
    room = page.get_by_role("group", name="10.2.0.0/24")
    room.get_by_label("Router").fill("10.3.0.1")
    expect(room.get_by_text("10.3.0.1 is outside 10.2.0.0/24")).to_be_visible()  # beside its field
    expect(room.get_by_label("Router")).to_have_attribute("aria-invalid", "true")
    room.get_by_label("Router").fill("10.2.0.1")
    expect(room.get_by_text("is outside")).to_have_count(0)

    hot = page.get_by_role("group", name="temperature > 70 for 2m")
    hot.get_by_label("How bad").select_option("critical")
    page.get_by_role("group", name="agent").get_by_role("button", name="Remove this rule").click()
    page.get_by_role("button", name="Another rule").click()
    new = page.get_by_role("group", name="New rule")
    new.get_by_label("When").fill("disk_percent > 101")
    expect(new.get_by_text("disk_percent is a percentage")).to_be_visible()
    new.get_by_label("When").fill("disk_percent > 80")

    add_driver(page)
    add_channel(page)
    add_switch(page)
    page.get_by_role("button", name="Review changes").click()
    page.get_by_role("button", name="Apply changes").click()
    expect(page.get_by_role("button", name="Apply changes")).to_have_count(0)
    written = path.read_text()
    assert "  # the next room\n  - network: 10.2.0.0/24\n    router: 10.2.0.1   # its gateway\n" in written
    assert "    - {when: 'temperature > 70 for 2m', severity: critical}   # a warm room\n" in written
    assert "agent" not in written
    config = served.backend.config_file.config_of(path.read_bytes())
    assert [str(each.address) for each in config.switches] == ["127.0.4.200", "127.0.4.9"]
    assert [(each.name, each.on) for each in config.switches[0].drivers] == [("acme-2", 7)]
    assert [each.to for each in config.monitoring.channels] == [("ops@example.org", "lab@example.org")]
    assert {"critical", "warning"} == {each.severity for each in config.monitoring.rules if "config" in each.source}

    page.get_by_role("group", name="127.0.4.9").get_by_role("button", name="Remove this switch").click()
    page.get_by_role("group", name="email").get_by_role("button", name="Remove this channel").click()
    page.get_by_role("group", name="acme-2").get_by_role("button", name="Remove this driver").click()
    page.get_by_role("button", name="Review changes").click()
    page.get_by_role("button", name="Apply changes").click()
    expect(page.get_by_role("group", name="127.0.4.9")).to_have_count(0)
    config = served.backend.config_file.config_of(path.read_bytes())
    assert (len(config.switches), config.monitoring.channels, config.switches[0].drivers) == (1, (), ())
    page.close()
