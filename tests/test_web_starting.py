"""web.starting: what is still amiss before a manager runs, and who may start it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from tests.web_rack import open_backend
from tftp.files import problems_of
from utility.config import load_config
from web.access import make_token
from web.app import create_app
from web.backend import Backend
from web.starting import (
    Starter,
    commands_to_start,
    may_serve,
    page_address,
    start_view,
    this_process_may_serve,
)


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    backend, _fleet = open_backend(tmp_path, 4)
    yield backend
    backend.close()
    backend.place.store.close()


@pytest.mark.parametrize(
    ("status", "may"),
    [
        ("Name:\tpython3\nCapEff:\t000001ffffffffff\n", True),
        ("CapEff:\t0000000000002400\n", True),  # as piman.service gives them
        ("CapEff:\t0000000000000400\n", False),  # ports below 1024 alone
        ("CapEff:\t0000000000000000\n", False),
        ("", False),
    ],
)
def test_who_may_serve_is_read_from_proc(status: str, may: bool) -> None:
    assert may_serve(status) is may
    assert this_process_may_serve() in (True, False)


def test_the_command_is_the_one_that_works_here(tmp_path: Path) -> None:
    config, unit = tmp_path / "config.yaml", tmp_path / "piman.service"
    assert commands_to_start(config, "/opt/piman/piman.pyz", [unit]) == [
        f"sudo /opt/piman/piman.pyz -c {config} server"
    ]
    assert commands_to_start(config, "/x/piman.py", []) == [f"sudo {sys.executable} /x/piman.py -c {config} server"]
    unit.write_text("ExecStart=/usr/bin/python3 piman.pyz --config /elsewhere/config.yaml server")
    assert commands_to_start(config, "/usr/bin/piman", [unit])[0].endswith("server")
    unit.write_text(f"ExecStart=/usr/bin/python3 piman.pyz --config {config} server")
    assert commands_to_start(config, "/usr/bin/piman", [unit]) == ["sudo systemctl restart piman"]


def test_what_is_amiss_is_told_with_what_to_do(backend: Backend) -> None:
    config = backend.rack.config
    view = start_view(config, False, None, 15000, problems_of)
    checks = cast("list[dict[str, str]]", view["checks"])
    assert {each["area"] for each in checks if each["severity"] == "error"} >= {"boot files", "image"}
    assert not any("web" in each["text"] for each in checks)
    assert (view["runs"], view["can"], view["commands"]) == (False, False, [])
    assert (view["here"], start_view(config, True, None, 5001, problems_of)["here"]) == (True, False)
    assert start_view(config, True, None, 15000, problems_of)["checks"] == []  # then it is too late to ask


@pytest.mark.parametrize(
    ("web", "address"),
    [
        ("", "http://localhost:15000/"),
        ("web: {address: 0.0.0.0}", "https://127.0.0.1:15000/"),
        ("web: {address: 0.0.0.0, tls: off}", "http://127.0.0.1:15000/"),
        ("web: {tls: on}", "https://localhost:15000/"),
    ],
)
def test_where_the_managers_page_will_be(backend: Backend, tmp_path: Path, web: str, address: str) -> None:
    text = f"{backend.config_file.read().decode()}{web}\n"
    config = load_config(tmp_path / "config.yaml", environ={"PIMAN_WEB_PASSWORD": "a password"}, data=text.encode())
    assert page_address(config) == address


def start(backend: Backend, token: str) -> tuple[int, str]:
    client = create_app(backend).test_client()
    answer = client.post("/api/v1/wizard/start", headers={"Authorization": f"Bearer {token}"})
    return answer.status_code, answer.text


def test_it_is_started_once_and_only_where_it_may_be(backend: Backend) -> None:
    token = make_token(backend.place.store, "x", "admin", 1.0)
    assert start(backend, token)[0] == 409  # the made-up rack runs
    rack = backend.rack
    started: list[int] = []
    stopped = replace(rack, server_runs=lambda: False)
    for starter, status, words in (
        (None, 409, "it needs root"),
        (Starter(None, ["sudo piman server"]), 409, "start it with `sudo piman server`"),
        (Starter(lambda: started.append(1), []), 200, "true"),
    ):
        other = Backend(backend.place, lambda: stopped, starter=starter)
        found = start(other, token)
        assert found[0] == status
        assert words in found[1]
        other.close()
    assert started == [1]
