"""A real Prometheus on the manager: scraped over TLS with a token, the agents found through it, rules and dashboard.

Two servers of ours, a switch that the lab plays, real agents on addresses of the loopback network, one of them hot, and
a Pi in the middle of an installation. What `piman grafana` writes is what Prometheus runs with.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lab.switch import Device, FamilySwitch
from monitoring.exporters import prometheus_text
from monitoring.prometheus_files import Manager, prometheus_config
from tests.lab.rig import until
from tests.prometheus_rig import Prometheus
from tests.prometheus_rig import prometheus as run_prometheus
from tests.scene import scene
from utility.rules import BUILT_IN

ROOT = Path(__file__).parents[2]
SWITCH = "127.0.166.1"
ADDRESSES = tuple(IPv4Address("127.0.167.1") + number for number in range(4))  # the last one has no agent
INSTALLING, LAST = ADDRESSES[3], 2  # the last of those with an agent is hot
WEB, HELLO, IMAGE, NTP = 15050, 13350, 14450, 11250
CONFIG = f"""\
private_number: 4
server_address: 127.0.0.1
subnet_mask: 255.0.0.0
interface: lo
site: lab 2
services: [hello, ntp, web, monitoring]
ports: {{hello: {HELLO}, image: {IMAGE}, ntp: {NTP}, web: {WEB}}}
web: {{address: 127.0.0.1, tls: on}}
image: image
monitoring: {{interval: 1, timeout: 1, rules: [temperature > 80 for 1s clear < 75]}}
switches:
  - {{address: {SWITCH}, name: upper, pi_addresses: [{", ".join(map(str, ADDRESSES))}]}}
"""
OTHER_WEB = 15051
OTHER = f"""\
private_number: 5
server_address: 127.0.0.1
subnet_mask: 255.0.0.0
interface: lo
site: lab 3
services: [web, monitoring]
ports: {{web: {OTHER_WEB}}}
switches: []
"""
AGENT = "import sys; from monitoring.monitoring_server import Server; Server(sys.argv[1]).run()"
VARIABLES = {"$site": ".*", "$pi": ".*", "$switch": ".*", "$__rate_interval": "8s"}


def mac_of(number: int) -> str:
    return f"b8:27:eb:00:00:{number + 1:02x}"


def piman(folder: Path, *words: str) -> str:
    command = [sys.executable, str(ROOT / "piman.py"), "-c", str(folder / "config.yaml"), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@contextlib.contextmanager
def process(*command: str, log: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file, env=environment) as running:
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(20)
            except subprocess.TimeoutExpired:
                running.kill()


def agent(folder: Path, number: int) -> contextlib.AbstractContextManager[object]:
    """The real agent of one Pi, with heat and a supply that this machine may not have."""
    root = folder / f"pi{number + 1}"
    files = {
        "sys/class/net/eth0/address": mac_of(number),
        "sys/class/thermal/thermal_zone0/temp": "86000" if number == LAST else "45000",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "0",
        "dev/kmsg": "",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n" if text else "")
    log = folder / f"pi{number + 1}.log"
    return process(sys.executable, "-c", AGENT, str(ADDRESSES[number]), log=log, PIMAN_AGENT_ROOT=str(root))


@contextlib.contextmanager
def installation(size: int) -> Iterator[None]:
    """A Pi that takes its image, and goes on saying so; the hello protocol, spoken by hand."""
    stop = threading.Event()

    def take() -> None:
        source = (str(INSTALLING), 0)
        with socket.create_connection(("127.0.0.1", HELLO), 20, source) as control, control.makefile("rb") as said:
            control.sendall(f"HELLO 2 mac={mac_of(3)} model=Raspberry_Pi_4_Model_B sd=268435456\n".encode())
            for words in (b"SET_DATE\nIS_UNINSTALLED card=blank\n", b"RECEIVED_FORMAT\nFORMATTING\nFORMATTED\n"):
                while said.readline() != b"EOM\n":
                    pass
                control.sendall(words)
            with socket.create_connection(("127.0.0.1", IMAGE), 20, source) as image:
                taken = 0
                while not stop.wait(0.5):
                    taken += len(image.recv(4096))
                    control.sendall(f"PROGRESS {min(taken, size // 2)}\n".encode())

    thread = threading.Thread(target=take)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)


def is_ready(log: Path) -> bool:
    return "ready: " in log.read_text()


def ask_time() -> None:
    """One NTP request of a Pi, so that the service has something to count."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.bind((str(ADDRESSES[0]), 0))
        asker.settimeout(20)
        asker.sendto(b"\x23" + bytes(47), ("127.0.0.1", NTP))
        asker.recv(100)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "config.yaml").write_text(CONFIG)
    boot = folder / "install" / "boot"
    boot.mkdir(parents=True)
    (boot / "image").write_bytes(os.urandom(4_000_000))
    lines = (f"{mac_of(number)};{address};pi{number + 1};0\n" for number, address in enumerate(ADDRESSES))
    (folder / "hosts.csv").write_text("".join(lines))
    boards = {number: Device((mac_of(number - 1),), milliwatts=4200) for number in range(1, 4)}
    with contextlib.ExitStack() as stack:
        stack.enter_context(FamilySwitch("cisco-ios", folder / "switch", SWITCH, ports=4, devices=boards))
        for number in range(LAST + 1):
            stack.enter_context(agent(folder, number))
        other = folder / "other"
        other.mkdir()
        (other / "config.yaml").write_text(OTHER)
        (other / "hosts.csv").write_text(f"{mac_of(8)};127.0.167.9;pi1;0\n")
        for each, more in ((folder, {"PIMAN_WEB_PASSWORD": "a password of the tests"}), (other, {})):
            command = (sys.executable, str(ROOT / "piman.py"), "-c", str(each / "config.yaml"), "server")
            stack.enter_context(process(*command, log=each / "server.log", **more))
        for each in (folder, other):
            until(partial(is_ready, each / "server.log"), 60, "the server is ready")
        ask_time()
        stack.enter_context(installation(4_000_000))
        configure(folder, other)
        yield stack.enter_context(run_prometheus(folder / "out"))


def configure(folder: Path, other: Path) -> None:
    """What a user with two managers does, at the first of them."""
    words = ["--manager", f"https://127.0.0.1:{WEB}", "--manager", f"http://127.0.0.1:{OTHER_WEB}"]
    for each in (folder, other):
        made = piman(each, "token", "add", "prometheus", "--role", "read")
        token = re.search(r"piman_\S+", made)
        assert token, made
        (each / "token").write_text(token[0])
        words += ["--token-file", str(each / "token")]
    piman(folder, "grafana", str(folder / "out"), *words)


def test_two_managers_and_the_agents_are_scraped(prometheus: Prometheus) -> None:
    managers = {f"https://127.0.0.1:{WEB}/metrics", f"http://127.0.0.1:{OTHER_WEB}/metrics"}
    wanted = {*managers, *(f"http://{each}:3000/metrics" for each in ADDRESSES[: LAST + 1])}
    until(lambda: prometheus.healthy() == wanted, 60, "what answers is scraped")
    (labels,) = [target["labels"] for target in prometheus.targets() if str(ADDRESSES[1]) in str(target["scrapeUrl"])]
    assert labels == {
        "address": str(ADDRESSES[1]),
        "instance": f"{ADDRESSES[1]}:3000",
        "job": "piman-agents",
        "mac": mac_of(1),
        "name": "pi2",
        "port": "2",
        "site": "lab 2",
        "switch": "upper",
    }
    infos = prometheus.query('piman_pi_info{job="piman", name="pi1"}')
    sites = [each["metric"] for each in infos]
    assert {str(each["site"]) for each in sites if isinstance(each, dict)} == {"lab 2", "lab 3"}
    same = "piman_agent_temperature_celsius == on (site, mac) piman_pi_temperature_celsius"
    until(lambda: len(prometheus.query(same)) == LAST + 1, 60, "what the agents say is what the manager says")


def test_an_alert_of_the_rules_that_were_written(prometheus: Prometheus) -> None:
    until(lambda: bool(prometheus.firing("PimanTemperature")), 60, "the heat is told")
    (hot,) = prometheus.firing("PimanTemperature")
    assert hot["annotations"] == {"summary": "lab 2: pi3: it is at 86.0 °C"}
    labels = hot["labels"]
    assert isinstance(labels, dict)
    assert (labels["severity"], labels["name"], labels["site"]) == ("warning", "pi3", "lab 2")
    assert len(prometheus.rules()) == len(BUILT_IN) + 1
    until(lambda: all(each["health"] == "ok" for each in prometheus.rules()), 60, "every rule can be evaluated")


DASHBOARD = json.loads((ROOT / "monitoring" / "grafana" / "piman.json").read_text())
QUERIES = [
    (panel["title"], target["expr"])
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]  # fmt: skip


def test_every_query_of_the_dashboard_has_data(prometheus: Prometheus) -> None:
    left = dict.fromkeys(QUERIES, "")

    def answered() -> bool:
        for panel, expression in list(left):
            asked = expression
            for name, value in VARIABLES.items():
                asked = asked.replace(name, value)
            if prometheus.query(asked):
                del left[panel, expression]
        return not left

    assert len(left) > 40
    with contextlib.suppress(AssertionError):
        until(answered, 60, "data for each")
    assert left == {}


def test_the_variables_of_the_dashboard_have_values(prometheus: Prometheus) -> None:
    found = {}
    for each in DASHBOARD["templating"]["list"]:
        asked = re.fullmatch(r"label_values\((.+), (\w+)\)", each["definition"])
        assert asked
        matching = asked[1]
        for name, value in VARIABLES.items():
            matching = matching.replace(name, value)
        found[each["name"]] = prometheus.get(f"label/{asked[2]}/values", **{"match[]": matching})
    assert found == {"site": ["lab 2", "lab 3"], "switch": ["upper"], "pi": ["pi1", "pi2", "pi3", "pi4"]}
    for each in DASHBOARD["annotations"]["list"]:
        prometheus.query(each["expr"].replace("$site", ".*"))


def test_promtool_finds_nothing_to_better(tmp_path: Path) -> None:
    text = prometheus_text(scene(tmp_path))
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    managers = [
        Manager("a:5000"),
        Manager("b:5000", True),
        Manager("c:1", True, "/etc/c"),
        Manager("d:1", token_file="d"),
    ]
    several = tmp_path / "several.yml"
    several.write_text(prometheus_config(managers, "*.rules.yml"))
    subprocess.run(["promtool", "check", "config", "--syntax-only", str(several)], check=True, capture_output=True)
    committed = ROOT / "monitoring" / "grafana"
    for words in (("rules", "piman.rules.yml"), ("config", "prometheus.yml")):
        subprocess.run(["promtool", "check", words[0], str(committed / words[1])], check=True, capture_output=True)


PI = 'site="a",mac="m",name="pi1",switch="upper"'
# What is so from minute to minute, and which alerts fire at which minute.
HISTORY = {
    f"piman_pi_temperature_celsius{{{PI}}}": "70 82 82 82 82 78 78 78 74 74 74 78 78 78 78 78",
    f"piman_pi_throttled{{{PI}}}": "0 1 1 1 1 0 0 0 0 0 0 0 0 0 0 0",
    f"piman_pi_up{{{PI}}}": "1 0 0 0 0 1 1 0 0 0 0 1 0 0 0 0",
    f"piman_pi_excused{{{PI}}}": "0 0 0 0 0 0 0 0 0 0 0 0 1 1 1 1",
    'piman_switch_up{site="a",switch="upper"}': "1 1 1 1 1 1 1 0 0 0 0 1 1 1 1 1",
    'piman_switch_poe_percent{site="a",switch="upper"}': "0 0 0 0 0 0 0 0 0 0 0 0 0 95 95 95",
    'piman_manager_network{site="a"}': "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
    'up{job="piman",instance="x"}': "1 1 1 1 1 1 1 1 1 1 1 1 1 0 0 0",
}
FIRING = {
    "PimanTemperature": (False, False, False, True, True, True, True, True, False, *[False] * 7),
    "PimanThrottled": (False, False, True, True, True, True, *[False] * 10),
    "PimanPiDown": (False, False, False, True, True, *[False] * 11),
    "PimanSwitchDown": (*[False] * 8, True, True, True, *[False] * 5),
    "PimanPoePercent": (*[False] * 15, True),
    "PimanUnreachable": (*[False] * 14, True, True),
}


def test_the_rules_tell_the_same_as_ours(tmp_path: Path) -> None:
    """Among others: an alert stays until it is well again, and who is behind a silent switch or boots is not down."""
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": series, "values": values} for series, values in HISTORY.items()],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}})',
                    "eval_time": f"{minute}m",
                    "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
                }
                for name, firing in FIRING.items()
                for minute, fires in enumerate(firing)
            ],
        }
    ]
    rules = str(ROOT / "monitoring" / "grafana" / "piman.rules.yml")
    file = tmp_path / "rules_test.yml"  # YAML, of which JSON is a part
    file.write_text(json.dumps({"rule_files": [rules], "evaluation_interval": "1m", "tests": tests}))
    checked = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
