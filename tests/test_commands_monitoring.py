"""piman monitoring and piman graph: what is polled is told once, drawn, and kept; mistakes are sentences."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from commands.session import Failure
from monitoring.metrics import Reading
from monitoring.store import Store
from piman import cli
from tests.agents import Agents, addresses, mac_of
from utility.service import only_server

ROOT = Path(__file__).resolve().parents[1]
PIS = {"pi1": "healthy", "pi2": "html", "pi3": "hangs"}
ADDRESSES = dict(zip(PIS, map(str, addresses(3)), strict=True))
MAC = mac_of(ADDRESSES["pi1"])


@pytest.fixture
def agents() -> Iterator[Agents]:
    with Agents(behaviours={ADDRESSES[name]: behaviour for name, behaviour in PIS.items()}) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, agents: Agents, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "config.yaml").write_text(
        "private_number: 4\nserver_address: 127.0.0.1\nsubnet_mask: 255.0.0.0\ninterface: lo\nswitches: []\n"
        f"monitoring: {{interval: 1, timeout: 0.5, port: {agents.port}}}\n"
    )
    lines = [f"{mac_of(address)};{address};{name};0" for name, address in ADDRESSES.items()]
    (tmp_path / "hosts.csv").write_text("\n".join([*lines, ""]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, words)


def test_once_polls_every_pi_once_and_keeps_nothing(folder: Path, agents: Agents) -> None:
    done = run("monitoring", "--once")
    assert done.exit_code == 0, done.output
    lines = {line.split()[0]: line for line in done.output.splitlines()}
    assert lines.keys() == PIS.keys()
    assert lines["pi1"].endswith(" ms")
    assert " °C " in lines["pi1"]
    assert "answers HTML" in lines["pi2"]
    assert "does not finish its answer within 0.5 s" in lines["pi3"]
    assert sorted(map(len, agents.asked.values())) == [1, 1, 1]
    assert not (folder / "state").exists()


def test_once_for_scripts_and_from_what_was_known(folder: Path) -> None:
    with Store(folder / "state" / "piman.db") as store:
        words = {"since": "1700000000", "error": "", "agent": "1"}
        store.add_samples([Reading(MAC, time.time() - 5, {"up": 1.0, "ping_ms": 1.0}, words)])
    found = [json.loads(line) for line in run("monitoring", "--once", "--json").output.splitlines()]
    first = next(each for each in found if each["name"] == "pi1")
    assert first["mac"] == MAC
    assert first["values"]["up"] == 1.0
    assert first["words"]["since"] == "1700000000"


def test_once_without_pis(folder: Path) -> None:
    (folder / "hosts.csv").write_text("")
    done = run("monitoring", "--once")
    assert isinstance(done.exception, Failure) or done.exit_code == 1
    assert "no Pis in hosts.csv" in done.output + str(done.exception)


def test_alone_it_polls_tells_changes_and_keeps_samples(folder: Path, agents: Agents) -> None:
    command = [sys.executable, str(ROOT / "piman.py"), "monitoring"]
    pipe = subprocess.PIPE
    with (
        Store(folder / "state" / "piman.db") as store,
        subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True, cwd=folder) as process,
    ):
        deadline = time.monotonic() + 30
        while len(agents.asked.get(ADDRESSES["pi1"], ())) < 5 or len(store.latest_samples()) < 3:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.1)
        second = run("monitoring")
        assert "a monitoring runs already" in second.output + str(second.exception)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=20)
        assert process.returncode == 0, output
        assert len(store.samples(MAC, "temperature", time.time() - 60, time.time())) >= 3
        events = [each.text for each in store.events()]
    assert output.count("pi1 ") == 1
    assert any(text.startswith("its agent answers HTML") for text in events)
    assert "pi2           warning: its agent answers HTML: another program listens on its port" in output


def test_a_server_that_polls_is_enough(folder: Path) -> None:
    with only_server(folder / "state"):
        done = run("monitoring")
    assert "the server polls already" in done.output + str(done.exception)


# ---------------------------------------------------------------------------------------------------------- the graph


@pytest.fixture
def measured(folder: Path) -> Path:
    now = time.time()
    with Store(folder / "state" / "piman.db") as store:
        heats = [(now - 60 * number, 40.0 + number % 10) for number in range(100, 0, -1)]
        store.add_samples([Reading(MAC, when, {"temperature": heat, "up": 1.0}, {}) for when, heat in heats])
    return folder


def test_a_graph(measured: Path) -> None:
    done = run("graph", "pi1", "temperature", "--since", "2h")
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0] == "pi1, Temperature of the processor."
    assert any(line.startswith("50.0 °C ┤") for line in lines)
    assert lines[-1].startswith("temperature: 41.0 °C at ")
    assert "lowest 40.0 °C" in lines[-1]


def test_a_graph_for_scripts(measured: Path) -> None:
    found = json.loads(run("graph", ADDRESSES["pi1"], "up", "--since", "1h", "--json").output)
    assert 55 <= len(found) <= 61
    assert found[0].keys() == {"when", "mean", "low", "high"}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["pi9", "up"], "there is no Pi 'pi9'"),
        (["pi1", "temprature"], "did you mean temperature?"),
        (["pi1", "up", "--since", "yesterday"], "write it like 30m, 24h or 7d"),
        (["pi1", "up", "--since", "60w"], "a year at most"),
        (["pi1", "cpu"], "nothing is known of cpu_percent"),
    ],
)
def test_what_cannot_be_drawn_is_said(measured: Path, words: list[str], text: str) -> None:
    done = run("graph", *words)
    assert text in done.output + str(done.exception)


def test_without_any_state(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        (folder / "state").rmdir()
    done = run("graph", "pi1", "up")
    assert "the server has not run yet" in done.output + str(done.exception)
