"""web: /metrics, /sd and the JSON data source over HTTP: who may read them, and what goes wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from monitoring.metrics import Reading
from monitoring.store import StoreError
from tests.web_rack import address_of, mac_of, open_backend
from utility.config import Web
from web.access import make_token
from web.app import create_app
from web.backend import Backend, Rack
from web.metrics import QUESTIONS, own_process

PI, NOW = mac_of(1), time.time()
SPAN = {"from": (NOW - 3600) * 1000, "to": (NOW + 3600) * 1000}


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    found, _fleet = open_backend(tmp_path, 6)
    store = found.place.store
    store.add_samples([Reading(PI, time.time(), {"up": 1.0, "temperature": 42.5}, {"evidence": "agent", "since": "1"})])
    yield found
    found.close()
    store.close()


@pytest.fixture
def client(backend: Backend) -> FlaskClient:
    return create_app(backend).test_client()


def test_metrics(client: FlaskClient) -> None:
    found = client.get("/metrics")
    assert (found.status_code, found.content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert 'piman_pi_temperature_celsius{site="' in found.text
    assert f'address="{address_of(1)}",switch="rack-0",port="2",model="Pi 4B"}} 42.5' in found.text
    assert found.text.count("\npiman_pi_info{") == 6


def test_the_counters_of_a_running_server_are_in_it(backend: Backend) -> None:
    rack = replace(backend.rack, counters=lambda: {"ntp": {"answered": 5}}, version="9.9", facts=lambda _now: [])
    client = create_app(Backend(backend.place, lambda: rack)).test_client()
    text = client.get("/metrics").text
    assert 'service="ntp",event="answered"} 5' in text
    assert 'version="9.9"' in text
    assert "piman_pi_up" not in text


@pytest.mark.parametrize(("query", "port"), [("", 3000), ("?port=9100", 9100)])
def test_discovery(client: FlaskClient, query: str, port: int) -> None:
    found = client.get(f"/sd{query}")
    assert found.content_type == "application/json"
    assert found.json
    assert found.json[1]["targets"] == [f"{address_of(1)}:{port}"]
    assert found.json[1]["labels"]["mac"] == PI


@pytest.mark.parametrize("port", ["0", "65536", "x", "٣", "-1", ""])
def test_no_port(client: FlaskClient, port: str) -> None:
    found = client.get("/sd", query_string={"port": port})
    assert (found.status_code, found.json) == (400, {"error": "expected a port from 1 to 65535"})


def test_grafana_asks(client: FlaskClient) -> None:
    assert client.get("/grafana/").status_code == 200
    found = client.post("/grafana/query", json={"range": SPAN, "targets": [{"target": "pi2.temperature"}]})
    assert found.json == [{"target": "pi2.temperature", "datapoints": [[42.5, pytest.approx(NOW * 1000, abs=600_000)]]}]
    marks = client.post("/grafana/annotations", json={"range": SPAN, "annotation": {"query": "*"}}).json
    assert isinstance(marks, list)
    assert any(mark["title"] == "pi2: up" for mark in marks)
    for question in QUESTIONS.keys() - {"query", "annotations", "tag-values"}:
        assert client.post(f"/grafana/{question}", json={}).status_code == 200, question
    assert client.post("/grafana/tag-values", json={"key": "port"}).json == [{"text": str(n)} for n in range(1, 7)]


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"),
    [
        ("query", b"{", 400, "the body is no JSON"),
        ("query", b"[" * 100_000, 400, "the body is no JSON"),
        ("query", b"", 400, "expected an object as the question"),
        ("query", b'{"range": {"from": 0, "to": 1}, "targets": [{"target": "heat"}]}', 400, "is no target"),
        ("panels", b"{}", 404, "expected one of search, query"),
    ],
)
def test_no_question(client: FlaskClient, path: str, body: bytes, status: int, sentence: str) -> None:
    found = client.post(f"/grafana/{path}", data=body)
    assert found.status_code == status
    assert found.json
    assert sentence in found.json["error"]


PATHS = [("GET", "/metrics"), ("GET", "/sd"), ("GET", "/grafana/"), ("POST", "/grafana/search")]


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_off_localhost_a_token_that_may_read_is_enough_and_needed(
    tmp_path: Path, backend: Backend, method: str, path: str
) -> None:
    place = replace(backend.place, web=Web(("0.0.0.0",)), password="a long password")
    far = Backend(place, lambda: backend.rack)
    client = create_app(far).test_client()
    refused = client.open(path, method=method, json={} if method == "POST" else None)
    assert refused.status_code == 401
    assert refused.json
    assert "send a token" in refused.json["error"]
    token = make_token(place.store, "prometheus", "read", NOW)
    headers = {"Authorization": f"Bearer {token}", "Host": "172.30.4.1:5000"}
    found = client.open(path, method=method, json={} if method == "POST" else None, headers=headers)
    assert found.status_code == 200, found.text


def test_another_name_is_refused_and_an_order_still_needs_our_page(client: FlaskClient) -> None:
    assert client.get("/metrics", headers={"Host": "evil.example.org"}).status_code == 403
    assert client.post("/api/v1/restart", json={"targets": ["pi1"]}).status_code == 403


def test_before_there_is_a_config(backend: Backend) -> None:
    client = create_app(Backend(backend.place, lambda: None)).test_client()
    found = client.get("/metrics")
    assert found.status_code == 503
    assert found.json
    assert "does not exist yet" in found.json["error"]


def test_a_state_that_cannot_be_read(backend: Backend) -> None:
    def broken() -> list[object]:
        raise StoreError("piman.db cannot be read: the disk is gone")

    rack: Rack = replace(backend.rack, rows=broken)  # type: ignore[arg-type]
    found = create_app(Backend(backend.place, lambda: rack)).test_client().get("/metrics")
    assert (found.status_code, found.json) == (503, {"error": "piman.db cannot be read: the disk is gone"})


def test_the_manager_itself() -> None:
    found = own_process()
    assert abs(found["process_start_time_seconds"] - time.time()) < 86400
    assert 1e6 < found["process_resident_memory_bytes"] < found["process_virtual_memory_bytes"]
    assert found["process_open_fds"] >= 3
