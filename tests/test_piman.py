"""piman: the commands' words, files and exit codes, as far as they need no rack."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import click
import pytest

from commands.server import gets_firmware, render_boot_text
from commands.session import VERSION
from monitoring.fleet import Fleet
from monitoring.store import Store
from piman import COMMANDS, cli
from utility.config import Config, load_config
from utility.hosts import Hosts
from utility.service import Report, Severity, server_runs

ROOT = Path(__file__).resolve().parents[1]
CONFIG = """\
private_number: 4
server_address: 127.0.0.1
subnet_mask: 255.0.0.0
interface: lo
services: [tftp, hello, ntp]
ports: {dhcp: 16767, tftp: 16969, hello: 13333, image: 14444, ntp: 11123}
switches:
  - name: left
    address: 127.0.4.254
    pi_addresses:
      - 127.0.4.13
      -
      - 127.0.4.15
  - address: 127.0.4.253
    pi_addresses: []
"""
HOSTS = "b8:27:eb:00:00:01;127.0.4.13;pi1;0\nb8:27:eb:00:00:03;127.0.4.15;pi3;0\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "hosts.csv").write_text(HOSTS)
    boot = tmp_path / "install" / "boot"
    boot.mkdir(parents=True)
    (boot / "cmdline.txt").write_text("quiet master={server_address} name={hostname} ip={address} {other}\n")
    (boot / "rootfs.tgz").write_bytes(b"an image")
    return tmp_path


@pytest.fixture
def config(folder: Path) -> Config:
    return load_config(folder / "config.yaml", environ={})


@pytest.fixture
def hosts(folder: Path, config: Config) -> Hosts:
    return Hosts.open(folder / "hosts.csv", config, write=False)


def piman(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "piman.py"), "-c", str(folder / "config.yaml"), *words]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PIMAN_")}
    return subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment, check=False)


@pytest.fixture
def server(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(ROOT / "piman.py"), "-c", str(folder / "config.yaml"), "server"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        for line in process.stderr:
            if "ready: " in line:
                break
        yield process
        process.kill()


def test_cmdline_txt_is_the_pis_own(config: Config, hosts: Hosts) -> None:
    render = render_boot_text(config)
    text = render("cmdline.txt", hosts.find("b8:27:eb:00:00:01"))
    assert text == b"quiet master=127.0.0.1 name=pi1 ip=127.0.4.13 {other} hello_port=13333\n"
    assert render("cmdline.txt", None) == b"quiet master=127.0.0.1 name= ip= {other} hello_port=13333\n"
    assert render("config.txt", None) is None
    (config.boot_dir / "cmdline.txt").unlink()
    assert render("cmdline.txt", None) is None


def test_who_gets_firmware(config: Config, hosts: Hosts) -> None:
    one, three = hosts.named("pi1"), hosts.named("pi3")
    for allowed, answers in (
        (False, (False, False, False)),
        (True, (True, True, True)),
        (frozenset({"pi1"}), (True, False, False)),
        (frozenset({"b8:27:eb:00:00:03"}), (False, True, False)),
    ):
        changed = replace(config, serve_firmware_updates=allowed)
        assert tuple(gets_firmware(changed, host) for host in (one, three, None)) == answers


def test_a_wrong_config_is_reported_whole_and_nothing_starts(folder: Path) -> None:
    text = CONFIG.replace("127.0.0.1", "127.0.0.300").replace("interface: lo", "interfaze: lo")
    (folder / "config.yaml").write_text(text)
    done = piman(folder, "server")
    assert done.returncode == 2
    assert "config.yaml:2: server_address" in done.stderr
    assert "config.yaml:4: interfaze" in done.stderr
    assert done.stderr.endswith("nothing was started\n")
    assert not (folder / "state").exists()
    assert not (folder / "logs").exists()


def test_broken_hosts_are_reported_and_nothing_starts(folder: Path) -> None:
    (folder / "hosts.csv").write_text(HOSTS + "nonsense;1;2;3\n")
    done = piman(folder, "server")
    assert done.returncode == 2
    assert "hosts.csv:3" in done.stderr


def test_a_taken_port_is_named_with_its_holder(folder: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 16969))
        done = piman(folder, "server")
    assert done.returncode == 1
    assert f"tftp: port 16969 is held by {Path('/proc/self/comm').read_text().strip()} (process" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_interface_is_named(folder: Path) -> None:
    (folder / "config.yaml").write_text(CONFIG.replace(": lo", ": nic9").replace("[tftp", "[dhcp, tftp"))
    done = piman(folder, "server")
    assert done.returncode == 1
    assert "nic9" in done.stderr
    assert "lo" in done.stderr


def test_read_commands_before_the_first_server_say_so(folder: Path) -> None:
    done = piman(folder, "status")
    assert done.returncode == 1
    assert "the server has not run yet" in done.stderr
    done = piman(folder, "reinstall", "-y", "pi1")
    assert done.returncode == 1
    assert "no server runs" in done.stderr


def test_a_server_and_the_commands_beside_it(folder: Path, config: Config, server: subprocess.Popen[str]) -> None:
    assert server_runs(config.state_dir)
    assert [line.split()[0] for line in piman(folder, "status").stdout.splitlines()] == ["NAME", "pi1", "pi3"]
    second = piman(folder, "server")
    assert second.returncode == 1
    assert f"process {server.pid}" in second.stderr
    with Store(config.state_dir / "piman.db") as store:
        store.add_event("b8:27:eb:00:00:03", time.time(), Severity.WARNING, "a word")
    assert "pi3           warning: a word" in piman(folder, "events", "pi3").stdout
    assert not piman(folder, "events", "pi1").stdout
    log = next((folder / "logs").iterdir())
    assert "ready: tftp, hello, ntp on 127.0.0.1 (lo)" in log.read_text()
    server.send_signal(signal.SIGHUP)
    server.terminate()
    assert server.wait(timeout=5) == 0
    assert not server_runs(config.state_dir)
    assert "no server runs" in piman(folder, "status").stdout


def test_an_edit_of_the_hosts_is_taken_over(folder: Path, server: subprocess.Popen[str]) -> None:
    assert server.stderr
    (folder / "hosts.csv").write_text(HOSTS + "garbage\n")
    line = next(line for line in server.stderr if "hosts.csv" in line)
    assert "not taken over" in line
    assert ":3:" in line
    (folder / "hosts.csv").write_text(HOSTS + "b8:27:eb:00:00:04;0.0.0.0;pi4;0\n")
    address = IPv4Address("127.0.0.2")  # the first that is free
    deadline = time.monotonic() + 10
    while str(address) not in (folder / "hosts.csv").read_text():
        assert time.monotonic() < deadline, (folder / "hosts.csv").read_text()
        time.sleep(0.05)


def test_what_boot_loaders_cannot_fetch_is_in_the_log_from_the_start(folder: Path) -> None:
    (folder / "install" / "boot" / "config.txt").write_text("#" * 5000)
    command = [sys.executable, str(ROOT / "piman.py"), "-c", str(folder / "config.yaml"), "-q", "server"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        line = next(line for line in process.stderr if "config.txt" in line)
        process.kill()
    assert "has 5000 bytes; over the network Pis read only the first 4096" in line


def answers_ntp(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.2)
        client.connect(("127.0.0.1", port))
        try:
            client.send(b"\x23" + bytes(47))
            return len(client.recv(64)) == 48
        except OSError:
            return False


def test_an_edit_of_the_config_is_taken_over_by_those_whom_it_concerns(
    folder: Path, server: subprocess.Popen[str]
) -> None:
    assert server.stderr
    path = folder / "config.yaml"
    path.write_text(CONFIG.replace("ntp: 11123", "ntp: 11124"))
    assert "taken over; made anew: ntp" in next(line for line in server.stderr if "config.yaml" in line)
    assert answers_ntp(11124)
    assert not answers_ntp(11123)
    path.write_text(CONFIG.replace("ntp: 11123", "ntp: x"))
    assert "config.yaml:6: ports.ntp: found 'x'" in next(line for line in server.stderr if "config.yaml" in line)
    with socket.create_server(("127.0.0.1", 13335)):
        path.write_text(CONFIG.replace("hello: 13333", "hello: 13335"))
        refused = next(line for line in server.stderr if "config.yaml" in line)
        assert "not taken over: hello: port 13335 is held by" in refused
    assert answers_ntp(11124), "what ran before goes on"
    socket.create_connection(("127.0.0.1", 13333)).close()
    path.write_text(CONFIG.replace("127.0.4.15", "127.0.4.16").replace("services", "state_dir: other\nservices"))
    assert "state_dir counts from the next start on" in next(line for line in server.stderr if "config.yaml" in line)
    assert "made anew: ntp, power" in next(line for line in server.stderr if "config.yaml" in line)
    assert answers_ntp(11123)


def test_unknown_pis_are_adopted(folder: Path, config: Config) -> None:
    done = piman(folder, "adopt", "DC-A6-32-00-00-07")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "dc:a6:32:00:00:07 is pi-000007 now, with 127.0.0.2\n"
    assert (folder / "hosts.csv").read_text() == HOSTS + "dc:a6:32:00:00:07;127.0.0.2;pi-000007;0\n"
    assert piman(folder, "adopt", "dc:a6:32:00:00:08", "--name", "door", "--address", "127.0.4.16").returncode == 0
    assert (folder / "hosts.csv").read_text().endswith("dc:a6:32:00:00:08;127.0.4.16;door;0\n")
    config.state_dir.mkdir()
    with Store(config.state_dir / "piman.db") as store:
        fleet = Fleet(store, lambda _mac: None, time.time)
        fleet.report(Report("e4:5f:01:00:00:09", heard="DHCPDISCOVER", facts={"serial": "91cdf03d"}))
        fleet.report(Report("00:16:3e:00:00:01", heard="DHCPDISCOVER"))  # somebody's PC
        fleet.flush(time.time())
    done = piman(folder, "adopt", "--all")
    assert done.stdout == "e4:5f:01:00:00:09 is pi-000009 now, with 127.0.0.3\n"
    assert piman(folder, "adopt", "--all").returncode == 1


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ([], 1, "name the MAC"),
        (["b8:27:eb:00:00:01"], 1, "in hosts.csv already, as pi1"),
        (["nonsense"], 2, "nonsense"),
        (["dc:a6:32:00:00:07", "--address", "300.1.1.1"], 2, "300.1.1.1"),
        (["dc:a6:32:00:00:07", "--address", "127.0.4.13"], 1, "hosts.csv:3"),
        (["dc:a6:32:00:00:07", "--name", "pi1"], 1, "hosts.csv:3"),
        (["dc:a6:32:00:00:07", "dc:a6:32:00:00:08", "--name", "two"], 2, "for one Pi"),
    ],
)
def test_what_cannot_be_adopted(folder: Path, words: list[str], code: int, text: str) -> None:
    done = piman(folder, "adopt", *words)
    assert done.returncode == code
    assert text in done.stderr
    assert (folder / "hosts.csv").read_text() == HOSTS


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("restart", "0", "6-1"), 2, "no list of ports"),
        (("restart", "0", "9" * 5000), 2, "no list of ports"),
        (("findport", "pi1", "--vlan", "-1"), 2, "-1"),
        (("findport", "pi1", "--switch", "nobody"), 1, "there is no switch 'nobody'; known: 0 (left)"),
        (("--version",), 0, ""),
    ],
)
def test_words_that_a_slip_of_the_finger_makes(folder: Path, words: tuple[str, ...], code: int, text: str) -> None:
    done = piman(folder, *words)
    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_is_the_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION


def test_help_says_what_the_commands_say() -> None:
    context = click.Context(cli)
    for name, (_place, words) in COMMANDS.items():
        command = cli.get_command(context, name)
        assert command
        assert (command.name, command.get_short_help_str(1000)) == (name, words)
