"""`piman lab` as a user meets it: QEMU Pis from power-on to installed, and the commands from another terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.rig import PIMAN, until


class Lab:
    """A lab that runs in a process of its own, and commands from another terminal."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.environment = {**os.environ, "PIMAN_LAB_DIR": str(directory)}
        self.directory = directory
        self.output = directory.with_suffix(".out")
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [*PIMAN, "lab", *options], stdout=output, stderr=subprocess.STDOUT, env=self.environment
            )

    def piman(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PIMAN, *words], capture_output=True, text=True, timeout=timeout, env=self.environment, check=False
        )

    def wait_up(self) -> None:
        def up() -> bool:
            assert self.process.poll() is None, self.output.read_text()
            return "The rack is up" in self.output.read_text()

        until(up, 180, "the rack is up")

    def status(self) -> list[dict[str, object]]:
        done = self.piman("--lab", "status", "--json")
        assert done.returncode == 0, done.stderr
        rows: list[dict[str, object]] = json.loads(done.stdout)
        return rows

    def fetch(self, address: object, path: str = "") -> str:
        """What a Pi's own web server answers, asked from where the manager is."""
        script = f"import urllib.request as u; print(u.urlopen('http://{address}{path}', timeout=5).read().decode())"
        return self.piman("lab", "shell", sys.executable, "-c", script).stdout

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=20)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    rack = Lab(tmp_path_factory.mktemp("rack") / "lab")
    try:
        rack.wait_up()
        yield rack
    finally:
        rack.end()


def test_two_pis_are_installed_unattended(lab: Lab) -> None:
    rows = lab.status()
    assert [row["name"] for row in rows] == ["pi1", "pi2"]
    for row in rows:
        assert row["stage"] == "up"
        assert re.fullmatch(r"rootfs-[0-9a-f]{12}", row["facts"]["image"])  # type: ignore[index]
        page = lab.fetch(row["address"])
        assert str(row["name"]) in page
        assert "num_pids" in lab.fetch(f"{row['address']}:3000", "/events")


def test_findport(lab: Lab) -> None:
    done = lab.piman("--lab", "findport", "--json", "pi2")
    assert [(row["switch_number"], row["port"], row["if_name"]) for row in json.loads(done.stdout)] == [(0, 2, "port2")]
    done = lab.piman("--lab", "findport", "00:11:22:33:44:55")
    assert done.returncode == 1
    assert "on no port of 172.30.4.254" in done.stderr
    rows = json.loads(lab.piman("--lab", "discover", "--json").stdout)
    assert [(row["hostname"], row["port"], row["known"], row["note"]) for row in rows] == [
        ("pi1", 1, True, None),
        ("pi2", 2, True, None),
    ]


def test_mapper_hears_the_pi_that_comes_back(lab: Lab) -> None:
    done = lab.piman("--lab", "mapper", "0", "1", "--json", timeout=90)
    assert done.returncode == 0, done.stderr
    assert [(row["hostname"], row["port"], row["known"]) for row in json.loads(done.stdout)] == [("pi1", 1, True)]
    assert "by its boot and the forwarding table" in done.stderr


def test_restart_boots_what_is_installed(lab: Lab) -> None:
    assert lab.piman("--lab", "restart", "0", "1").returncode == 0
    until(lambda: lab.status()[0]["stage"] not in ("up", None), 30, "a new boot")
    until(lambda: lab.status()[0]["stage"] == "up", 60, "up again")
    timeline = lab.piman("--lab", "events", "pi1").stdout
    assert "boots its card" in timeline.partition("power-cycled")[2]


def test_reinstall_wait(lab: Lab) -> None:
    before = lab.piman("--lab", "events", "pi1", "-n", "500").stdout.count(" installed ")
    done = lab.piman("--lab", "reinstall", "--wait", "--timeout", "120", "pi2", timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    words = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("pi2  ")]
    assert words[-1] == "up"
    assert {"kernel", "image"} <= set(words)
    assert lab.piman("--lab", "events", "pi2", "-n", "500").stdout.count(" installed ") == 2
    assert lab.piman("--lab", "events", "pi1", "-n", "500").stdout.count(" installed ") == before  # nobody else's card


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("restart", "9", "1"), 1, "there is no switch '9'; known: 0 (172.30.4.254)"),
        (("restart", "0", "99"), 1, "99"),
        (("restart", "0", "x"), 2, "no list of ports"),
        (("restart", "pi77"), 1, "there is no Pi 'pi77' in hosts.csv; known: pi1, pi2"),
        (("reinstall", "0", "40"), 1, "name no Pi there"),
        (("findport", "zz"), 1, "is no MAC address"),
        (("events", "pi77"), 1, "known: pi1, pi2"),
        (("server",), 1, "a server runs already"),
    ],
)
def test_a_wrong_word_is_told_what_is_known(lab: Lab, words: tuple[str, ...], code: int, text: str) -> None:
    done = lab.piman("--lab", *words)
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == code


def test_ctrl_c_leaves_nothing_running(lab: Lab) -> None:
    lab.end()
    assert "Traceback" not in lab.output.read_text()
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [line for line in commands if str(lab.directory).encode() in line or b"snmpd" in line]
    done = lab.piman("--lab", "status")
    assert done.returncode == 1
    assert "start" in done.stderr


def test_a_full_switch_of_light_pis(tmp_path: Path) -> None:
    rack = Lab(tmp_path / "lab", "up", "--pis", "48", "--kind", "light")
    try:
        rack.wait_up()
        assert {row["stage"] for row in rack.status()} == {"up"}
    finally:
        rack.end()


def test_qemus_model_of_the_real_board(tmp_path: Path) -> None:
    rack = Lab(tmp_path / "lab", "up", "--pis", "1", "--kind", "raspi3b", "--model", "3b")
    try:
        rack.wait_up()
        assert "Raspberry Pi 3 Model B" in str(rack.status()[0]["facts"])
    finally:
        rack.end()
