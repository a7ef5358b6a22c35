"""The API, put to its own description by schemathesis: no 500, no answer that is not declared."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.web_rack import open_backend
from web.access import make_token
from web.api import ROUTES
from web.routes import describe
from web.server import WebServer

SECONDS = 10  # after the cases that cover the limits of each value


class Running:
    """A server over a made-up rack whose switches do not answer."""

    def __init__(self, folder: Path) -> None:
        self.backend, _fleet = open_backend(folder, 6)
        place = self.backend.place
        self.server = WebServer(place.web, 0, place.state_dir, lambda: self.backend)
        self.token = make_token(place.store, "admin", "admin", 1.0)
        self.thread = threading.Thread(target=self.server.run, name="web")
        self.thread.start()

    def close(self) -> None:
        self.server.stop()
        self.thread.join(5)
        for thread in threading.enumerate():
            if thread.name.startswith("job-"):
                thread.join(20)
        self.backend.place.store.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    yield running
    running.close()


def test_every_operation_answers_as_it_says(running: Running, tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_text(json.dumps(describe(ROUTES, "Piman")))
    url = f"http://127.0.0.1:{running.server.port}"
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", "openapi.json", "--url", url,
        "--header", f"Authorization: Bearer {running.token}", "--phases", "coverage,fuzzing", "--seed", "1",
        "--no-color", "--max-examples", "3", "--max-time", str(SECONDS), "--request-timeout", "30", "--no-shrink",
        "--exclude-checks", "ignored_auth",  # tests/test_web_api.py asks each route without a token
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=110, check=False)
    report = "\n".join(line[:300] for line in (done.stdout + done.stderr).splitlines())
    assert done.returncode == 0, report
    assert f"Tested: {len(ROUTES)}" in report
