"""commands.web: config, password, token, audit, as a user types them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from monitoring.store import Store
from web import access as access_module
from web.access import Access

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "private_number: 4\nserver_address: 127.0.0.1\nsubnet_mask: 255.0.0.0\ninterface: lo\nswitches: []\n"


def command(folder: Path, *words: str) -> list[str]:
    return [sys.executable, str(ROOT / "piman.py"), "-c", str(folder / "config.yaml"), *words]


def piman(folder: Path, *words: str, said: str = "") -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PIMAN_")}
    return subprocess.run(
        command(folder, *words), capture_output=True, text=True, timeout=60, env=environment, input=said, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def test_tokens_and_the_password_are_made_for_the_page(folder: Path) -> None:
    made = piman(folder, "token", "add", "ci", "--role", "operate")
    assert made.returncode == 0, made.stderr
    assert piman(folder, "token", "add", "ci").returncode == 1
    assert piman(folder, "token", "add", "a b").returncode == 1
    assert piman(folder, "token", "add", "x", "--role", "root").returncode == 2
    (listed,) = json.loads(piman(folder, "token", "list", "--json").stdout)
    assert {"name": "ci", "role": "operate"}.items() <= listed.items()
    assert piman(folder, "token", "list").stdout.startswith("ci ")
    assert piman(folder, "password", "--stdin", said="short\n").returncode == 1
    assert piman(folder, "password", "--stdin", said="correct horse\n").returncode == 0
    with Store(folder / "state" / "piman.db") as store:
        access = Access(store, folder / "state")
        who = access.caller_of_token(made.stdout.strip())
        assert who
        assert who.role == "operate"
        assert access.log_in("correct horse", "192.0.2.1", 1.0)
    assert piman(folder, "token", "remove", "ci").returncode == 0
    assert piman(folder, "token", "remove", "ci").returncode == 1
    shown = piman(folder, "audit").stdout.splitlines()
    assert [re.sub(r"^\S+ \S+ +\S+ +", "", line) for line in shown] == [
        "add token ci: operate",
        "change the password: done",
        "remove token ci: done",
    ]
    entries = [json.loads(line) for line in piman(folder, "audit", "--json", "-n", "1").stdout.splitlines()]
    assert [each["action"] for each in entries] == ["remove token"]
    assert access_module.MIN_PASSWORD == 8


@pytest.mark.parametrize("broken", [False, True])
def test_the_page_alone(folder: Path, broken: bool) -> None:
    if broken:
        (folder / "config.yaml").write_text("x: [")
    with subprocess.Popen(
        command(folder, "config", "Room 7", str(folder / "config.yaml"), str(folder / "pis.csv"), "--port", "0"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        line = process.stdout.readline()
        address = re.match(r"http://localhost:\d+/", line)
        assert address, line
        session = json.loads(urllib.request.urlopen(f"{address[0]}api/v1/session", timeout=20).read())
        assert (session["title"], session["open"]) == ("Room 7", True)
        config = json.loads(urllib.request.urlopen(f"{address[0]}api/v1/config", timeout=20).read())
        assert bool(config["problems"]) is broken
        if not broken:
            json.loads(urllib.request.urlopen(f"{address[0]}api/v1/hosts", timeout=20).read())
            assert (folder / "pis.csv").exists()
        process.terminate()
        assert process.wait(20) == 0


def test_an_address_that_is_none_is_told(folder: Path) -> None:
    done = piman(folder, "config", "Room 7", "--address", "203.0.113.1", "--port", "0")
    assert done.returncode == 1
    assert "the page cannot be served at 203.0.113.1" in done.stderr
    assert "Traceback" not in done.stderr
