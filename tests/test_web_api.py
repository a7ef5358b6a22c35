"""web: the API against its own description, roles, and what each route does to a made-up rack."""

from __future__ import annotations

import lzma
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import fastjsonschema
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from monitoring.alerts import Alert, AlertSeverity
from monitoring.fleet import Fleet
from monitoring.metrics import Reading
from monitoring.operations import Search
from monitoring.store import Place as SeenAt
from tests.test_images import tarball
from tests.web_rack import STRANGERS, address_of, mac_of, open_backend
from utility.config import load_config
from utility.findport import Sighting
from utility.power_cycle import PortResult
from utility.switches import Port, SwitchError
from web import access as access_module
from web import looks
from web.access import make_token
from web.acts import address_for
from web.api import ROUTES
from web.app import create_app
from web.backend import Backend
from web.routes import PREFIX, REFUSALS
from web.schemas import ERROR

PI = mac_of(1)


class World:
    """An application over a rack of 30 Pis, and a client that speaks JSON with a token of each role."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.backend, self.fleet = open_backend(folder)
        self.app: Flask = create_app(self.backend)
        self.client: FlaskClient = self.app.test_client()
        store = self.backend.place.store
        self.tokens = {role: make_token(store, role, role, 1.0) for role in access_module.ROLES}

    def call(self, method: str, path: str, body: object = None, role: str = "admin") -> TestResponse:
        headers = {"Authorization": f"Bearer {self.tokens[role]}"}
        return self.client.open(PREFIX + path, method=method, json=body, headers=headers)

    def get(self, path: str, role: str = "admin") -> object:
        found = self.call("GET", path, role=role)
        assert found.status_code == 200, found.text
        return found.json

    def job(self, answer: TestResponse) -> dict[str, object]:
        """Wait for the job that an answer promises."""
        assert answer.status_code == 202, answer.text
        assert answer.json
        while True:
            job = self.get(f"/jobs/{answer.json['id']}")
            assert isinstance(job, dict)
            if job["state"] != "running":
                return job
            time.sleep(0.01)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.backend.close()
    world.backend.place.store.close()


@pytest.fixture
def switches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, list[int]]]:
    """What was asked of switches that all obey, but for those at port 13."""
    asked: list[tuple[str, str, list[int]]] = []

    class Opened:
        def __init__(self, switch: object) -> None:
            self.switch = switch

        def __enter__(self) -> Opened:
            return self

        def __exit__(self, *_error: object) -> None:
            return

    def power(poe: Opened, ports: list[int], on: bool | float = True, **more: object) -> list[PortResult]:
        name = poe.switch.name  # type: ignore[attr-defined]
        asked.append((name, f"{on}", list(ports)))
        if 13 in ports:
            raise SwitchError(poe.switch, "", "no answer")  # type: ignore[arg-type]
        for port in ports:
            more["on_progress"](port, "off")  # type: ignore[operator]
        return [PortResult(port, port != 12, "done" if port != 12 else "not done") for port in ports]

    for module in ("monitoring.operations",):
        monkeypatch.setattr(f"{module}.open_switch", Opened)
        monkeypatch.setattr(f"{module}.power_cycle", power)
    monkeypatch.setattr("monitoring.operations.set_power", power)
    return asked


# -------------------------------------------------------------------------------------------------- the description


def test_every_answer_is_as_described(world: World) -> None:
    world.backend.place.store.add_samples([Reading(PI, time.time(), {"up": 1.0, "temperature": 41.0}, {"error": ""})])
    checked = 0
    for route in ROUTES:
        if route.method == "GET" and not {"{id}", "{index}", "findport"} & set(route.path.split("/")):
            answer = world.call("GET", route.path.replace("{mac}", PI))
            assert answer.status_code in route.answers, (route.path, answer.text)
            fastjsonschema.compile(dict(route.answers[answer.status_code]))(answer.json)
            checked += 1
    assert checked > 15


def test_the_description_is_openapi(world: World) -> None:
    described = world.get("/openapi.json")
    assert isinstance(described, dict)
    assert described["openapi"] == "3.1.0"
    assert set(described["paths"]) == {PREFIX + route.path for route in ROUTES}
    restart = described["paths"][f"{PREFIX}/restart"]["post"]
    assert set(restart["responses"]) == {"202", *map(str, REFUSALS)}
    names = [route.name for route in ROUTES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_each_route_wants_its_role(world: World, route: object) -> None:
    from web.routes import Route

    assert isinstance(route, Route)
    path = route.path.replace("{mac}", PI).replace("{id}", "x").replace("{pi}", "pi1").replace("{name}", "x")
    without = world.client.open(PREFIX + path, method=route.method, headers={"Authorization": "Bearer piman_x"})
    assert without.status_code == 401
    fastjsonschema.compile(ERROR)(without.json)
    for role in access_module.ROLES:
        answer = world.call(route.method, path, {} if route.body is not None else None, role)
        enough = access_module.ROLES.index(role) >= access_module.ROLES.index(route.role)
        assert (answer.status_code == 403) is not enough, answer.text


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error"),
    [
        ("GET", "/pis/x", None, 404, "no MAC"),
        ("GET", "/pis/00:00:00:00:00:01", None, 404, "no Pi with the MAC"),
        ("GET", "/nothing", None, 404, ""),
        ("PUT", "/pis", {}, 405, ""),
        ("OPTIONS", "/pis", None, 405, ""),
        ("GET", "/events?limit=x", None, 400, "limit must be integer"),
        ("GET", "/events?limit=0", None, 400, "bigger"),
        ("GET", "/events?nope=1", None, 400, "must not contain"),
        ("GET", "/events?limit=1&limit=2", None, 400, "twice"),
        ("GET", f"/pis/{PI}/samples?metric=password", None, 400, "one of"),
        ("POST", "/restart", {"targets": []}, 400, "at least 1"),
        ("POST", "/restart", {"targets": ["pi1"], "more": 1}, 400, "must not contain"),
        ("POST", "/restart", {"targets": ["nobody"]}, 409, "there is no Pi 'nobody'"),
        ("POST", "/restart", {"targets": [{"switch": "9", "ports": [1]}]}, 409, "there is no switch '9'"),
        ("POST", "/restart", {"targets": ["0"]}, 409, "which ports of switch 0"),
        ("POST", "/reinstall", {"targets": ["pi1"]}, 409, '"confirm": 1'),
        ("POST", "/reinstall", {"targets": ["pi1", "pi2"], "confirm": 1}, 409, '"confirm": 2'),
        ("POST", "/reinstall", {"targets": [{"switch": "1", "ports": [20]}], "confirm": 1}, 409, "name no Pi there"),
        ("POST", "/power", {"targets": ["pi1", "pi2"], "state": "off"}, 409, '"confirm": 2'),
        ("POST", "/power", {"targets": ["pi1"], "state": "maybe"}, 400, "one of"),
        ("POST", "/adopt", {"pis": [{"mac": mac_of(0)}]}, 409, "in hosts.csv already"),
        ("POST", "/adopt", {"pis": [{"mac": "x"}]}, 409, "no MAC"),
        ("DELETE", "/orders/pi1", None, 404, "no install"),
        ("DELETE", "/orders/nobody", None, 409, "no Pi 'nobody'"),
        ("DELETE", "/tokens/nobody", None, 404, "no token"),
        ("POST", "/tokens", {"name": "admin", "role": "read"}, 409, "already"),
        ("POST", "/tokens", {"name": "a b", "role": "read"}, 409, "name"),
        ("PUT", "/password", {"password": "short"}, 400, "8 characters"),
        ("GET", "/jobs/x", None, 404, "no such job"),
        ("GET", "/switches/9/ports", None, 404, "no switch 9"),
        ("GET", "/switches/0/ports", None, 409, "127.0.4.200"),
        ("POST", "/alerts/7/acknowledge", None, 404, "no alert 7"),
        ("POST", "/alerts/x/acknowledge", None, 404, "no such number"),
        ("DELETE", "/silences/7", None, 404, "no silence 7"),
        ("POST", "/silences", {"minutes": 0}, 400, "bigger"),
        ("GET", "/config/versions/x", None, 404, "no such version"),
        ("GET", "/config/versions/..%2F..%2Fpiman.db", None, 404, ""),
        ("POST", "/wizard/switch", {"address": "x"}, 409, "no IPv4 address"),
        ("POST", "/images", {"file": "../piman.db"}, 400, "match"),
        ("POST", "/images", {"file": "none.img"}, 404, "put it there first"),
        ("POST", "/switches/0/map", {"ports": [1, 2], "confirm": 1}, 409, '"confirm": 2'),
        ("POST", "/switches/0/map", {"ports": [1]}, 400, "confirm"),
        ("POST", "/switches/9/map", {"ports": [1], "confirm": 1}, 404, "there is no switch '9'"),
        ("GET", "/switches/0/record", None, 409, "127.0.4.200"),
        ("GET", "/switches/0/calibration", None, 409, "127.0.4.200"),
    ],
)
def test_what_is_refused(world: World, method: str, path: str, body: object, status: int, error: str) -> None:
    answer = world.call(method, path, body)
    assert (answer.status_code, error in answer.text.replace("\\", "")) == (status, True), answer.text
    fastjsonschema.compile(ERROR)(answer.json)


@pytest.mark.parametrize(
    ("data", "mimetype", "status"),
    [
        (b"{}", "text/plain", 415),
        (b"{", "application/json", 400),
        (b'{"targets": [NaN]}', "application/json", 400),
        (b'{"targets": ["\\ud800"]}', "application/json", 400),
        (b'{"targets": ["\xff"]}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"targets": ' + b"9" * 5000 + b"}", "application/json", 400),
        (b'{"targets": ["' + b"x" * 4_000_001 + b'"]}', "application/json", 413),
    ],
)
def test_bodies_that_are_none(world: World, data: bytes, mimetype: str, status: int) -> None:
    headers = {"Authorization": f"Bearer {world.tokens['admin']}"}
    answer = world.client.post(f"{PREFIX}/restart", data=data, content_type=mimetype, headers=headers)
    assert answer.status_code == status


# ---------------------------------------------------------------------------------------------------------- reading


def test_a_pi_and_a_stranger(world: World) -> None:
    world.backend.place.store.add_samples(
        [Reading(PI, time.time(), {"up": 1.0, "temperature": 41.0}, {"evidence": "agent 3 s ago"})]
    )
    pi = world.get(f"/pis/{PI.upper()}", "read")
    assert isinstance(pi, dict)
    wanted = {"name": "pi2", "address": "127.0.8.2", "known": True, "switch": 0, "port": 2, "stage": "up"}
    assert wanted.items() <= pi.items()
    assert (pi["values"]["temperature"], pi["up"], pi["evidence"]) == (41.0, True, "agent 3 s ago")
    failed, silent = world.get(f"/pis/{mac_of(4)}"), world.get(f"/pis/{mac_of(9)}")
    assert isinstance(failed, dict)
    assert isinstance(silent, dict)
    assert (failed["health"], failed["trouble"]) == ("error", "failed: the SD card cannot be written")
    assert (silent["health"], silent["stage"], silent["heard_at"]) == ("unknown", None, 0.0)
    stranger = world.get(f"/pis/{next(iter(STRANGERS))}")
    assert isinstance(stranger, dict)
    assert (stranger["known"], stranger["waiting"], stranger["vendor"]) == (False, True, "Raspberry Pi")


def test_events_are_followed_by_their_ids(world: World) -> None:
    newest = world.get("/events?limit=3")
    assert isinstance(newest, list)
    assert [each["id"] for each in newest] == sorted(each["id"] for each in newest)
    after = world.get(f"/events?after={newest[0]['id']}&limit=1")
    assert after == [newest[1]]
    mine = world.get(f"/pis/{PI}/events?limit=1000")
    assert isinstance(mine, list)
    assert {each["mac"] for each in mine} == {PI}
    assert world.get(f"/events?mac={PI}&limit=1000") == mine


def test_samples_are_rows(world: World) -> None:
    now = time.time()
    store = world.backend.place.store
    store.add_samples([Reading(PI, now - 20 + n, {"temperature": 40.0 + n}, {}) for n in range(20)])
    found = world.get(f"/pis/{PI}/samples?metric=temperature&since={now - 60:.0f}&until={now + 60:.0f}")
    assert isinstance(found, dict)
    assert found["unit"] == "celsius"
    assert found["points"][0][1] <= found["points"][-1][1]
    nothing = world.get(f"/pis/{PI}/samples?metric=watts")
    assert isinstance(nothing, dict)
    assert nothing["points"] == []


def test_500_pis_are_quick(tmp_path: Path) -> None:
    backend, _fleet = open_backend(tmp_path, 500)
    client = create_app(backend).test_client()
    for path in ("/pis", "/picture"):
        took = []
        for _again in range(5):
            began = time.perf_counter()
            answer = client.get(PREFIX + path)
            took.append(time.perf_counter() - began)
            assert len(answer.json["pis"] if path == "/picture" else answer.json) == 502  # type: ignore[index,arg-type]
        assert min(took) < 0.1, f"{path}: {took}"
    backend.close()
    backend.place.store.close()


# ----------------------------------------------------------------------------------------------------------- acting


def test_a_restart_is_a_job_with_steps_and_an_entry_in_the_trail(
    world: World, switches: list[tuple[str, str, list[int]]]
) -> None:
    targets = ["pi1", mac_of(1), "127.0.8.25", {"switch": "0", "ports": [1, 12, 3.0]}]
    job = world.job(world.call("POST", "/restart", {"targets": targets}, "operate"))
    assert sorted(switches) == [("rack-0", "True", [1, 2, 12, 3]), ("rack-1", "True", [1])]
    assert (job["state"], job["who"]) == ("partly", "token operate")
    results = {each["target"]: each["ok"] for each in job["results"]}  # type: ignore[attr-defined]
    assert results == {
        "pi1 (rack-0 port 1)": True,
        "pi2 (rack-0 port 2)": True,
        "pi12 (rack-0 port 12)": False,
        "pi3 (rack-0 port 3)": True,
        "pi25 (rack-1 port 1)": True,
    }
    assert len(job["steps"]) == 5  # type: ignore[arg-type]
    trail = world.get("/audit")
    assert isinstance(trail, list)
    entry = trail[0]
    assert (entry["who"], entry["action"]) == ("token operate", "restart")
    assert "not done" in entry["result"]
    assert world.get("/jobs") == [job]


def test_a_switch_that_fails_fails_the_job(world: World, switches: object) -> None:
    job = world.job(world.call("POST", "/power", {"targets": ["pi13"], "state": "off"}))
    assert job["state"] == "failed"
    assert "no answer" in str(job["results"])
    events = world.get(f"/pis/{mac_of(12)}/events")
    assert isinstance(events, list)
    assert events[-1]["severity"] == "error"


def test_power_and_identify(world: World, switches: list[tuple[str, str, list[int]]]) -> None:
    world.job(world.call("POST", "/power", {"targets": ["pi1", "pi2"], "state": "off", "confirm": 2}))
    world.job(world.call("POST", "/power", {"targets": ["pi1", "pi2"], "state": "on"}))
    world.job(world.call("POST", "/identify", {"targets": ["pi1"], "confirm": 1}))
    assert [each[1:] for each in switches] == [("False", [1, 2]), ("True", [1, 2]), *[("True", [1])] * 3]


def test_a_reinstall_is_ordered_for_exactly_these(world: World, switches: object) -> None:
    answer = world.call("POST", "/reinstall", {"targets": ["pi1", "pi12"], "confirm": 2})
    assert world.job(answer)["state"] == "partly"
    orders = world.get("/orders")
    assert isinstance(orders, list)
    assert [(each["name"], each["by"]) for each in orders] == [("pi1", "token admin")], "pi12 was not power-cycled"
    assert world.call("DELETE", "/orders/pi1", role="operate").status_code == 200
    assert world.get("/orders") == []


def test_nobody_installs_where_no_server_runs(world: World, switches: object) -> None:
    rack = replace(world.backend.rack, server_runs=lambda: False)
    world.backend._rack = lambda: rack
    answer = world.call("POST", "/reinstall", {"targets": ["pi1"], "confirm": 1})
    assert (answer.status_code, "no server runs" in answer.text) == (409, True)


def test_strangers_are_adopted(world: World) -> None:
    first, second = STRANGERS
    wanted = {"pis": [{"mac": first, "name": "door"}, {"mac": second, "address": "127.0.8.99"}]}
    answer = world.call("POST", "/adopt", wanted, "operate")
    assert answer.status_code == 200
    assert [each["name"] for each in answer.json] == ["door", "pi-aa0002"]  # type: ignore[union-attr]
    assert f"{second};127.0.8.99;pi-aa0002;0" in (world.folder / "hosts.csv").read_text()
    answer = world.call("POST", "/adopt", {"pis": [{"mac": "02:00:00:00:00:01"}, {"mac": first}]})
    assert answer.status_code == 409
    assert len(answer.json["adopted"]) == 1  # type: ignore[index]


def test_a_stranger_gets_the_address_of_the_port_where_it_is(world: World) -> None:
    """And no address of another port: a restart by its name would cut that one."""
    first, second = STRANGERS
    store, hosts = world.backend.place.store, world.backend.rack.hosts
    path = world.folder / "hosts.csv"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if ";pi3;" not in line))
    assert hosts.check() == ()
    store.save_places([SeenAt(first, "127.0.4.199", 2, "2"), SeenAt(second, "127.0.4.200", 3, "3")])
    views = world.backend.pis()
    assert [(views[mac]["switch"], views[mac]["port"]) for mac in STRANGERS] == [(1, 2), (0, 3)]
    answer = world.call("POST", "/adopt", {"pis": [{"mac": first}, {"mac": second.upper()}]})
    addresses = [each["address"] for each in answer.json]  # type: ignore[union-attr]
    assert addresses == ["127.0.0.2", str(address_of(2))]
    config = world.backend.rack.config
    assert address_for(config, hosts, SeenAt(first, "127.0.4.200", 99)) == "127.0.0.3"  # a port that has no Pi
    assert address_for(config, hosts, SeenAt(first, "192.0.2.1", 1)) == "0.0.0.0"  # a switch that is gone
    assert address_for(config, hosts, None) == "0.0.0.0"


def test_the_boots_of_a_pi(world: World) -> None:
    (boot,) = cast("list[dict[str, object]]", world.get(f"/pis/{mac_of(2)}/boots"))
    stages = [each["stage"] for each in cast("list[dict[str, object]]", boot["stages"])]
    assert (boot["outcome"], stages[0], stages[-1]) == ("up", "discover", "boot")
    assert world.get(f"/pis/{mac_of(9)}/boots") == []
    (running,) = cast("list[dict[str, object]]", world.get(f"/pis/{mac_of(5)}/boots?limit=1"))
    assert (running["outcome"], running["ended"]) == ("running", None)
    assert world.call("GET", f"/pis/{PI}/boots?limit=0").status_code == 400


def test_the_doctor_is_asked_on_the_page(world: World) -> None:
    boot = world.backend.rack.config.boot_dir
    boot.mkdir(parents=True, exist_ok=True)
    (boot / "config.txt").write_text("#" * 5000)  # what only TFTP's files know of
    checks = cast("list[dict[str, str]]", world.get("/doctor", "operate"))
    assert {"config.yaml", "boot files", "image", "state"} <= {each["area"] for each in checks}
    assert any("config.txt" in each["text"] for each in checks)
    silent = [each for each in checks if "127.0.4.200" in each["text"]]
    assert silent
    assert silent[0]["severity"] == "error"
    assert silent[0]["advice"]


def test_a_mac_is_looked_for_at_the_switches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = world.call("GET", f"/findport/{PI}")
    assert (answer.status_code, "127.0.4.200" in answer.text) == (409, True)  # nobody answers here
    assert world.call("GET", "/findport/x").status_code == 404
    switch = world.backend.rack.config.switches[1]
    seen = Sighting(switch, 7, 7, "Gi1/0/7", 1, face=Port(7, "7", milliwatts=4210))
    monkeypatch.setattr(looks, "look_for", lambda switches, mac, _host, _vlans: Search(mac, switches, [seen], {}))
    assert world.get(f"/findport/{PI.replace(':', '-')}") == {
        "where": "rack-1 port 7 (Gi1/0/7)", "switch": 1, "port": 7, "interface": "Gi1/0/7", "watts": 4.2, "failed": []
    }  # fmt: skip


def test_an_image_is_chosen(world: World) -> None:
    assert world.get("/images", "read") == []
    folder = world.backend.rack.config.image.parent / "images"
    folder.mkdir()
    for name in ("bookworm", "class"):
        (folder / f"{name}.tgz").write_bytes(b"an image")
    assert [each["in_use"] for each in cast("list[dict[str, object]]", world.get("/images"))] == [False, False]
    assert world.call("PUT", "/images", {"name": "cla"}, "operate").status_code == 403
    chosen = world.call("PUT", "/images", {"name": "cla"})
    assert chosen.json
    assert (chosen.json["name"], chosen.json["in_use"]) == ("class", True)
    assert world.backend.rack.config.image.resolve() == (folder / "class.tgz").resolve()
    assert world.backend.rack.store.latest_events()[-1].text.startswith("new installations get class, chosen by ")
    answer = world.call("PUT", "/images", {"name": "none"})
    assert (answer.status_code, "there is no image" in answer.text) == (409, True)
    (folder / "class.tgz").unlink()
    world.backend.rack.config.image.unlink()
    world.backend.rack.config.image.mkdir()
    assert world.call("PUT", "/images", {"name": "book"}).status_code == 409


def test_an_image_is_imported(world: World, tmp_path: Path) -> None:
    folder = world.backend.rack.config.image.parent / "images"
    assert world.get("/images/sources") == []
    folder.mkdir()
    tarball(folder / "class.tar.xz", "./sbin/init", pack=lzma.compress)
    (folder / "notes.txt").write_text("no image")
    assert [each["file"] for each in cast("list[dict[str, str]]", world.get("/images/sources"))] == [
        "class.tar.xz", "notes.txt"
    ]  # fmt: skip
    job = world.job(world.call("POST", "/images", {"file": "class.tar.xz", "name": "lesson3", "use": True}))
    (result,) = cast("list[dict[str, object]]", job["results"])
    assert (job["state"], result["ok"], str(result["text"]).startswith("lesson3: ")) == ("done", True, True), job
    (image,) = cast("list[dict[str, object]]", world.get("/images"))
    assert (image["name"], image["in_use"]) == ("lesson3", True)
    for body, error in [
        ({"file": "notes.txt"}, "notes.txt is neither a tarball nor an image of a card"),
        ({"file": "class.tar.xz", "name": "lesson3"}, "there is an image lesson3 already"),
        ({"file": "class.tar.xz", "name": "x", "ssh_key": "ssh-ed25519 AAAA"}, "--ssh-key is for card images"),
    ]:
        job = world.job(world.call("POST", "/images", body))
        assert (job["state"], error in str(job["error"])) == ("failed", True), job
    world.backend.close()
    job = world.job(world.call("POST", "/images", {"file": "class.tar.xz", "name": "late"}))
    assert job["error"] == "interrupted; nothing was made"
    assert sorted(path.name for path in folder.iterdir()) == ["class.tar.xz", "lesson3.tgz", "notes.txt"]


def test_tokens_are_made_and_end(world: World) -> None:
    made = world.call("POST", "/tokens", {"name": "ci", "role": "read"})
    assert made.status_code == 201
    world.tokens["ci"] = made.json["token"]  # type: ignore[index]
    assert world.get("/rack", "ci")
    assert world.call("GET", "/audit", role="ci").status_code == 403
    assert {"name": "ci", "role": "read"}.items() <= world.get("/tokens")[1].items()  # type: ignore[index]
    assert world.call("DELETE", "/tokens/ci").status_code == 200
    assert world.call("GET", "/rack", role="ci").status_code == 401


def test_so_many_orders_at_once_and_no_more(world: World, switches: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.jobs.MAX_RUNNING", 0)
    answer = world.call("POST", "/restart", {"targets": ["pi1"]})
    assert (answer.status_code, "under way" in answer.text) == (429, True)


def test_old_jobs_are_forgotten(world: World, switches: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.jobs.KEPT", 2)
    ids = [world.job(world.call("POST", "/restart", {"targets": ["pi1"]}))["id"] for _ in range(4)]
    jobs = world.get("/jobs")
    assert isinstance(jobs, list)
    assert [each["id"] for each in jobs] == ids[-2:]


def test_what_breaks_is_told_and_does_not_leak(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_self: Backend) -> None:
        raise KeyError("a secret of ours")

    monkeypatch.setattr(Backend, "pis", broken)
    answer = world.call("GET", "/pis")
    assert answer.status_code == 500
    assert "secret of ours" not in answer.text
    assert "secret of ours" in caplog.text


def test_the_picture_follows_the_board(world: World) -> None:
    from utility.service import Report, Stage

    fleet: Fleet = world.fleet
    fleet.report(Report(PI, Stage.DISCOVER, heard="again"))
    picture = world.get("/picture")
    assert isinstance(picture, dict)
    assert picture["pis"][PI]["stage"] == "discover"


def test_alerts_are_acknowledged_and_silenced(world: World) -> None:
    store = world.backend.place.store
    now = time.time()
    alert = Alert(1, "temperature", PI, "pi2", AlertSeverity.WARNING, now - 60, now, "81 C", 81.0)
    store.save_alerts([alert], [], [], now)
    found = world.get("/alerts")
    assert isinstance(found, list)
    (shown,) = found
    assert {"id": 1, "rule": "temperature", "name": "pi2", "state": "firing"}.items() <= shown.items()
    assert world.get("/picture")["alerts"] == [shown]  # type: ignore[index]
    assert world.call("POST", "/alerts/1/acknowledge", role="read").status_code == 403
    assert world.call("POST", "/alerts/1/acknowledge", role="operate").status_code == 200
    assert world.get("/alerts?all=true")[0]["acknowledged"] == "token operate"  # type: ignore[index]
    made = world.call("POST", "/silences", {"minutes": 30, "subject": "pi2", "why": "moved"})
    assert made.status_code == 201
    silences = world.get("/silences")
    assert isinstance(silences, list)
    (silence,) = silences
    assert (silence["subject"], silence["rule"], silence["why"]) == ("pi2", "*", "moved")
    assert world.call("DELETE", f"/silences/{silence['id']}").status_code == 200
    assert world.get("/silences") == []


def test_rules_are_shown_and_channels_tried(world: World, tmp_path: Path) -> None:
    rules = world.get("/alerts/rules", "read")
    assert isinstance(rules, list)
    assert {"name": "temperature", "severity": "warning", "enabled": True}.items() <= {
        key: value for each in rules if each["name"] == "temperature" for key, value in each.items()
    }.items()
    answer = world.call("POST", "/alerts/test", {})
    assert (answer.status_code, "config.yaml names none" in answer.text) == (409, True)
    script = tmp_path / "tell"
    script.write_text(f"#!/bin/sh\ncat >{tmp_path}/told\n")
    script.chmod(0o755)
    with (tmp_path / "config.yaml").open("a") as config:
        config.write(f"monitoring:\n  channels:\n    - {{name: desk, type: script, path: {script}}}\n")
        config.write("    - {name: gone, type: script, path: /nowhere/tell}\n")
    rack = replace(world.backend.rack, config=load_config(tmp_path / "config.yaml", environ={}))
    world.backend._rack = lambda: rack
    job = world.job(world.call("POST", "/alerts/test", {}))
    assert (job["state"], job["targets"]) == ("partly", ["desk", "gone"]), job
    assert "test" in (tmp_path / "told").read_text()
    assert world.job(world.call("POST", "/alerts/test", {"channel": "desk"}))["state"] == "done"
    answer = world.call("POST", "/alerts/test", {"channel": "roof"})
    assert (answer.status_code, "known: desk, gone" in answer.text) == (409, True)


def test_what_the_switches_say_is_laid_over_the_rack(world: World) -> None:
    from utility.drivers import Detection
    from utility.switches import Port

    port = Port(3, "3", index=(1, 3), admin_on=True, detection=Detection.DELIVERING, milliwatts=4321, link=True)
    rack = replace(world.backend.rack, faces=lambda: {"127.0.4.200": [port, replace(port, number=30)]})
    world.backend._rack = lambda: rack
    shown = world.get("/rack")
    assert isinstance(shown, dict)
    ports = shown["switches"][0]["ports"]
    assert len(ports) == 30
    assert {"port": 3, "poe": "delivering", "watts": 4.3, "link": True, "mac": mac_of(2)}.items() <= ports[2].items()
    assert {"poe": None, "watts": None}.items() <= ports[0].items()
    assert (ports[29]["address"], ports[29]["mac"]) == ("", "")
