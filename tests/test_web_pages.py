"""web.pages: every page answers, for those who may, and holds nothing that its policy forbids."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.web_rack import mac_of, open_backend
from web.access import make_token
from web.app import create_app
from web.backend import Backend

STATIC = Path(__file__).parent.parent / "web" / "static"
FOR_ALL = ("/", "/pis", f"/pi/{mac_of(0)}", "/alerts", "/log", "/api", "/labels")
FOR_ADMINS = ("/config", "/hosts", "/wizard", "/access")


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    backend, _fleet = open_backend(tmp_path, 4)
    yield backend
    backend.close()
    backend.place.store.close()


@pytest.fixture
def client(backend: Backend) -> FlaskClient:
    return create_app(backend).test_client()


@pytest.mark.parametrize("path", FOR_ALL + FOR_ADMINS)
def test_a_page_has_no_script_and_no_style_of_its_own(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=", answer.text)
    for name in re.findall(r'(?:src|href)="/static/([^"]+)"', answer.text):
        assert (STATIC / name).is_file()


def test_the_scripts_never_make_html_of_text() -> None:
    forbidden = re.compile(r"(inner|outer)HTML\s*\+?=[^=]|insertAdjacentHTML|document\.write|eval\(|new Function")
    for script in STATIC.glob("*.js"):
        assert not forbidden.search(script.read_text())


def test_who_only_reads_is_shown_no_page_to_edit(client: FlaskClient, backend: Backend) -> None:
    reader = {"Authorization": f"Bearer {make_token(backend.place.store, 'class', 'read', 1.0)}", "Accept": "text/html"}
    home = client.get("/", headers=reader)
    assert home.status_code == 200
    assert 'href="/config"' not in home.text
    for path in FOR_ADMINS:
        assert client.get(path, headers=reader).status_code == 403


def test_without_a_rack_home_is_the_first_steps(client: FlaskClient, backend: Backend) -> None:
    backend._rack = lambda: None
    answer = client.get("/")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/wizard")
    assert client.get("/wizard").status_code == 200
    assert client.get("/api/v1/pis").status_code == 409
    assert client.get("/api/v1/picture").json["pis"] == {}  # type: ignore[index]


def test_a_label_has_a_code_that_leads_to_the_pi(client: FlaskClient) -> None:
    answer = client.get(f"/pi/{mac_of(0)}/code.svg")
    assert (answer.status_code, answer.mimetype) == (200, "image/svg+xml")
    for path in ("/pi/x", "/pi/x/code.svg"):
        assert client.get(path, headers={"Accept": "text/html"}).status_code == 404


def test_who_has_to_log_in_comes_back_to_the_page(client: FlaskClient, backend: Backend) -> None:
    backend.access._given = "correct horse"
    answer = client.get("/pis")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/login?next=/pis")
    page = client.get("/login?next=/pis").text
    token = re.search(r'name="csrf_token" value="([0-9a-f]+)"', page)
    assert token
    answer = client.post("/login", data={"password": "correct horse", "next": "/pis", "csrf_token": token[1]})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/pis")
    assert "Log out" in client.get("/pis").text


def test_the_addresses_of_the_page_are_the_labels(client: FlaskClient, backend: Backend) -> None:
    backend.place = replace(backend.place, title="Lab <7>")
    assert "Lab &lt;7&gt;" in client.get("/").text
