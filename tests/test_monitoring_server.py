"""The node agent over real HTTP on the loopback: its five fields, 404 for all else, and peers that misbehave."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from monitoring import monitoring_server
from monitoring.monitoring_server import EventsServer, read_events

FIELDS = {"time", "cpu_percent", "memory_percent", "disk_percent", "num_pids"}


@pytest.fixture
def server() -> Iterator[EventsServer]:
    with EventsServer("127.0.0.1", 0) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def ask(server: EventsServer, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=5)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def test_read_events_has_the_five_fields_in_their_ranges() -> None:
    events = read_events()
    assert set(events) == FIELDS
    assert abs(events["time"] - time.time()) < 60
    assert all(0 <= events[name] <= 100 for name in ("cpu_percent", "memory_percent", "disk_percent"))
    assert events["num_pids"] >= 1


@pytest.mark.parametrize("path", ["/events", "/events/", "/events?since=0"])
def test_events_are_json(server: EventsServer, path: str) -> None:
    status, headers, body = ask(server, path)
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert int(headers["Content-Length"]) == len(body)
    assert set(json.loads(body)) == FIELDS


@pytest.mark.parametrize("path", ["/", "/event", "/events/1", "/../etc/passwd", "/EVENTS"])
def test_all_else_is_404(server: EventsServer, path: str) -> None:
    status, _, body = ask(server, path)
    assert status == 404
    assert "error" in json.loads(body)


def test_other_methods_are_refused(server: EventsServer) -> None:
    assert ask(server, "/events", "DELETE")[0] == 501


def test_a_load_that_cannot_be_read_is_503(server: EventsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> dict[str, float | int]:
        raise psutil.AccessDenied(1)

    monkeypatch.setattr(monitoring_server, "read_events", fail)
    status, _, body = ask(server, "/events")
    assert status == 503
    assert "cannot read" in json.loads(body)["error"]


@pytest.mark.parametrize(
    "garbage", [b"", b"\0\xff\r\n\r\n", b"GET\r\n\r\n", b"GET /events HTTP/9.9\r\n\r\n", b"A" * 70_000]
)
def test_garbage_and_peers_that_leave_do_no_harm(
    server: EventsServer, garbage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=5) as peer:
        peer.sendall(garbage)
    assert ask(server, "/events")[0] == 200
    assert capsys.readouterr().err == ""


def test_a_silent_peer_does_not_hold_up_the_others(server: EventsServer) -> None:
    with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=5):
        assert ask(server, "/events")[0] == 200


def test_main_says_that_the_port_is_taken(
    server: EventsServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def taken() -> EventsServer:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(monitoring_server, "EventsServer", taken)
    assert monitoring_server.main() == 1
    assert capsys.readouterr().err == "cannot listen on port 3000: Address already in use\n"


def test_main_ends_on_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(EventsServer):
        def __init__(self) -> None:
            super().__init__("127.0.0.1", 0)

        def serve_forever(self, poll_interval: float = 0.5) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(monitoring_server, "EventsServer", Interrupted)
    assert monitoring_server.main() == 0
