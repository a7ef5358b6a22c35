"""web.server and web.alone: streams beside pages, the end, ports that are taken, and the page without a server."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from monitoring.operations import OperationError
from monitoring.store import Store
from tests.web_rack import mac_of, open_backend, write_files
from tftp.files import problems_of
from utility.config import Web
from utility.service import Report, Stage
from web import live as live_module
from web.alone import Alone
from web.backend import Backend, Place
from web.server import WebServer
from web.tls import TlsError, names_of, server_context

STREAMS = 12


class Running:
    """A server in a thread."""

    def __init__(self, folder: Path) -> None:
        self.backend, self.fleet = open_backend(folder, 4)
        place = self.backend.place
        self.server = WebServer(place.web, 0, place.state_dir, lambda: self.backend)
        self.opened: list[http.client.HTTPConnection | http.client.HTTPResponse] = []
        self.thread = threading.Thread(target=self.server.run, name="web")
        self.thread.start()

    def open(self, path: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        connection.request("GET", path, headers={"Host": "localhost"})
        response = connection.getresponse()
        self.opened += [response, connection]
        return response

    def event(self, stream: http.client.HTTPResponse) -> tuple[str, dict[str, object]]:
        """The next event of a stream: its kind and data."""
        kind = ""
        while True:
            line = stream.readline().decode().rstrip("\n")
            if line.startswith("event: "):
                kind = line[7:]
            elif line.startswith("data: "):
                return kind, json.loads(line[6:])

    def close(self) -> float:
        began = time.monotonic()
        self.server.stop()
        self.thread.join(10)
        took = time.monotonic() - began
        for each in self.opened:
            each.close()
        assert not self.thread.is_alive()
        return took


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    yield running
    running.close()
    running.backend.place.store.close()


def test_many_watch_and_pages_are_answered_all_the_same(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "MAX_STREAMS", STREAMS)
    streams = [running.open("/events") for _ in range(STREAMS)]
    for stream in streams:
        kind, data = running.event(stream)
        assert (kind, len(data["pis"])) == ("snapshot", 6)  # type: ignore[arg-type]
    refused = running.open("/events")
    assert (refused.status, refused.headers["Retry-After"]) == (503, "30")
    running.fleet.report(Report(mac_of(1), Stage.DISCOVER, heard="DHCPDISCOVER"))
    for stream in streams:
        kind, data = running.event(stream)
        assert (kind, list(data["pis"])) == ("delta", [mac_of(1)])  # type: ignore[call-overload]
    assert running.open("/api/v1/pis").status == 200
    for each in running.opened[:2]:
        each.close()
    deadline = time.monotonic() + 20
    while running.open("/events").status != 200:  # the place of the one that went is given back
        assert time.monotonic() < deadline
        running.fleet.report(Report(mac_of(1), Stage.LEASE, heard=f"{time.monotonic()}"))
        time.sleep(0.3)


def test_it_ends_at_once_with_streams_open(tmp_path: Path) -> None:
    running = Running(tmp_path)
    streams = [running.open("/events") for _ in range(3)]
    for stream in streams:
        running.event(stream)
    assert running.close() < 3  # a second, on a machine that does nothing else
    running.server.stop()
    running.backend.place.store.close()


def test_a_server_that_was_stopped_before_it_ran_ends(tmp_path: Path) -> None:
    backend, _fleet = open_backend(tmp_path, 1)
    server = WebServer(backend.place.web, 0, backend.place.state_dir, lambda: backend)
    server.stop()
    server.run()
    backend.place.store.close()


def test_a_taken_port_is_an_error_and_leaves_no_socket(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        web = Web(("127.0.0.2", "127.0.0.1"))
        with pytest.raises(OSError, match="in use"):
            WebServer(web, taken.getsockname()[1], tmp_path, lambda: pytest.fail("it never ran"))


def test_certificates(tmp_path: Path) -> None:
    web = Web(("0.0.0.0", "::1"), ("rack.example.org",), "on")
    assert {"DNS:rack.example.org", "DNS:localhost", "IP:127.0.0.1", "IP:::1"} <= set(names_of(web))
    assert "IP:0.0.0.0" not in names_of(web)
    server_context(tmp_path, web)
    made = (tmp_path / "web_certificate.pem").read_bytes()
    assert (tmp_path / "web_key.pem").stat().st_mode & 0o77 == 0
    server_context(tmp_path, web)
    assert (tmp_path / "web_certificate.pem").read_bytes() == made
    own = replace(web, certificate=tmp_path / "web_certificate.pem", key=tmp_path / "web_key.pem")
    server_context(tmp_path / "elsewhere", own)
    (tmp_path / "web_key.pem").write_text("nonsense")
    with pytest.raises(TlsError, match="cannot be used"):
        server_context(tmp_path, own)


def test_tls_without_openssl_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TlsError, match="apt install openssl"):
        server_context(tmp_path, Web(tls="on"))


@pytest.mark.parametrize(
    ("addresses", "tls", "has_tls"),
    [
        (("127.0.0.1",), "auto", False),
        (("0.0.0.0",), "auto", True),
        (("0.0.0.0",), "off", False),
        (("127.0.0.1",), "on", True),
    ],
)
def test_where_there_is_tls(tmp_path: Path, addresses: tuple[str, ...], tls: str, has_tls: bool) -> None:
    server = WebServer(Web(addresses, tls=tls), 0, tmp_path, lambda: pytest.fail("it never ran"))
    assert server.has_tls is has_tls
    server._close()


def test_alone_the_files_are_read_again_when_they_change(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path / "state" / "piman.db")
    path = tmp_path / "config.yaml"
    alone = Alone(path, None, None, store, problems_of)
    assert alone.rack() is None
    write_files(tmp_path, 3)
    rack = alone.rack()
    assert rack
    assert alone.rack() is rack
    assert [host.name for host in rack.hosts.all()] == ["pi1", "pi2", "pi3"]
    assert not rack.server_runs()
    assert rack.rows() == []
    path.write_text("broken: [")
    assert alone.rack() is rack
    assert "config.yaml is not taken over" in caplog.text
    with pytest.raises(OperationError):
        alone.reopen()
    write_files(tmp_path, 2)
    alone.reopen()
    again = alone.rack()
    assert again
    assert len(again.hosts.all()) == 2
    (tmp_path / "hosts.csv").write_text("nonsense\n")
    again.rows()
    assert "hosts.csv is not taken over" in caplog.text
    backend = Backend(Place(path, None, tmp_path / "state", store, Web()), alone.rack, alone.reopen)
    assert backend.reopen()
    assert not Backend(backend.place, alone.rack).reopen()
    store.close()
