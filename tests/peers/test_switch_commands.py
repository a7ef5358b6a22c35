"""findport, mapper, discover, calibrate and switch record, typed and by the API, on the lab's switches."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from lab.families import FAMILIES, INDEXES, Quirks, standard_table
from lab.replay import read_record
from lab.switch import Device, FamilySwitch
from monitoring.store import Store
from piman import main
from utility.config import SnmpAccess, load_config
from utility.hosts import Hosts
from web import surveys, wizard
from web.access import make_token
from web.app import create_app
from web.backend import Backend, Place, Rack
from web.routes import PREFIX

PI, OTHER, GUEST, DESK = (f"b8:27:eb:00:00:{number:02x}" for number in (7, 8, 9, 10))

CONFIG = """\
private_number: 1
server_address: 127.0.167.1
subnet_mask: 255.255.255.0
interface: lo
snmp: {timeout: 0.4, retries: 1}
switches:
  - address: 127.0.167.201
    name: rack-a
    off_time: 0.5
    pi_addresses: [127.0.167.11, 127.0.167.12, 127.0.167.13]
  - address: 127.0.167.202
    off_time: 0.5
"""
HOSTS = f"# ours\n{PI};127.0.167.12;pi2;0\n"


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[tuple[FamilySwitch, FamilySwitch]]:
    """Two switches with a cable between them; three Pis on the first, one on the second."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "hosts.csv").write_text(HOSTS)
    (tmp_path / "state").mkdir()
    first = FamilySwitch(
        "procurve", tmp_path / "a", "127.0.167.201", ports=4, name="rack-a", mac="02:00:00:00:00:01",
        devices={2: Device((PI,)), 3: Device((OTHER,)), 4: Device((DESK,), needs_power=False)},
    )  # fmt: skip
    second = FamilySwitch(
        "comware", tmp_path / "b", "127.0.167.202", ports=4, name="rack-b", mac="02:00:00:00:00:02",
        devices={1: Device((GUEST,))},
    )  # fmt: skip
    first.connect(5, second, 5)
    with first, second:
        yield first, second


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def piman(folder: Path, *words: str) -> Done:
    """The command in this process: forty starts of Python would take longer than all that they are to do."""
    before, said, complained, code = sys.argv, io.StringIO(), io.StringIO(), 0
    handler = signal.getsignal(signal.SIGTERM)
    sys.argv = ["piman", "--config", str(folder / "config.yaml"), *words]
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
            main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = before
        signal.signal(signal.SIGTERM, handler)
    return Done(code, said.getvalue(), complained.getvalue())


def test_findport(tmp_path: Path, rack: tuple[FamilySwitch, FamilySwitch]) -> None:
    done = piman(tmp_path, "findport", "pi2")
    assert (done.returncode, done.stdout, done.stderr) == (0, "pi2  rack-a  port 2  1/2  on, delivering, 4.0 W\n", "")
    rows = json.loads(piman(tmp_path, "findport", GUEST.upper(), "--json").stdout)
    assert [(row["switch_number"], row["port"], row["is_edge"], row["is_trunk"]) for row in rows] == [
        (1, 1, True, False),
        (0, None, False, True),
    ]
    assert (rows[0]["milliwatts"], rows[0]["detection"], rows[1]["neighbour"]) == (
        4000,
        "delivering",
        "rack-b port GigabitEthernet1/0/5",
    )
    done = piman(tmp_path, "findport", GUEST, "--switch", "rack-a")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"Error: {GUEST} is behind another switch, seen through rack-a 1/5 to rack-b port GigabitEthernet1/0/5:"
        " add that switch to config.yaml, or name its port\n"
    )
    done = piman(tmp_path, "findport", "b8:27:eb:00:00:99")
    assert (done.returncode, "is on no port of 127.0.167.201, 127.0.167.202" in done.stderr) == (1, True)
    done = piman(tmp_path, "findport", DESK)
    assert done.stdout == f"{DESK}  rack-a  port 4  1/4  on, searching, 0.0 W\n"
    done = piman(tmp_path, "findport", "pi7")
    assert (done.returncode, "or give a Pi of hosts.csv" in done.stderr) == (1, True)


def test_a_mac_that_two_switches_claim(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "hosts.csv").write_text(HOSTS)
    with (
        FamilySwitch("procurve", tmp_path / "a", "127.0.167.201", devices={2: Device((PI,))}),
        FamilySwitch("comware", tmp_path / "b", "127.0.167.202", devices={3: Device((PI,))}),
    ):
        done = piman(tmp_path, "findport", "pi2")
        found = piman(tmp_path, "discover")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"Error: {PI} is on rack-a port 2 (1/2) and 127.0.167.202 port 3 (GigabitEthernet1/0/3), and nothing tells"
        " which is right: wait until the switches forget, or name the port\n"
    )
    assert found.returncode == 1
    assert f"warning: {PI} is on rack-a port 2 (1/2) and 127.0.167.202 port 3" in found.stderr


def test_a_switch_that_does_not_answer_is_told_and_hides_nothing(
    tmp_path: Path, rack: tuple[FamilySwitch, FamilySwitch]
) -> None:
    rack[1].stop()
    done = piman(tmp_path, "findport", "pi2")
    assert (done.returncode, done.stdout) == (0, "pi2  rack-a  port 2  1/2  on, delivering, 4.0 W\n")
    assert done.stderr.startswith("warning: switch 127.0.167.202: ")
    assert "port 161 is closed: is SNMP on?" in done.stderr
    (tmp_path / ".env").write_text("PIMAN_SNMP_RACK_A_READ_COMMUNITY=guess\n")
    done = piman(tmp_path, "findport", "pi2")
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first.startswith(
        "Error: switch rack-a (127.0.167.201): sysObjectID.0: no answer from 127.0.167.201 in 2 tri"
    )
    assert first.endswith("is the address right, SNMP on, and the read community?")
    assert second.startswith("switch 127.0.167.202: sysObjectID.0: port 161 is closed")
    done = piman(tmp_path, "discover")
    assert (done.returncode, "2 of 2 switches did not answer" in done.stderr) == (1, True)


def test_mapper_and_discover_fill_hosts_csv(tmp_path: Path, rack: tuple[FamilySwitch, FamilySwitch]) -> None:
    done = piman(tmp_path, "discover")
    assert done.returncode == 0
    assert [line.split("  #")[0].strip() for line in done.stdout.splitlines()] == [
        f"{PI};127.0.167.12;pi2;0",
        f"{OTHER};127.0.167.13;pi-000008;0",
        f"{GUEST};127.0.167.2;pi-000009;0",
    ]
    assert done.stdout.splitlines()[1].endswith("# rack-a port 3 (1/3), new")
    assert "2 are new; --write puts these lines into hosts.csv" in done.stderr
    assert (tmp_path / "hosts.csv").read_text() == HOSTS
    assert rack[0].told == rack[1].told == []

    done = piman(tmp_path, "mapper", "rack-a", "1-3,5", "--write", "--timeout", "1")
    assert done.returncode == 3
    assert "rack-a port 1: nobody was heard and the switch saw nobody: is a Pi plugged in there?" in done.stdout
    assert f"rack-a port 3: {OTHER} by the forwarding table" in done.stdout
    assert done.stderr == "Error: 2 of 4 ports showed no Pi\n"
    assert rack[0].told == [(1, False), (1, True), (2, False), (2, True), (3, False), (3, True)], "and not the uplink"
    assert (tmp_path / "hosts.csv").read_text() == f"{HOSTS}{OTHER};127.0.167.13;pi-000008;0\n"

    rows = json.loads(piman(tmp_path, "discover", "1", "--write", "--json").stdout)
    assert [(row["mac"], row["port"], row["address"], row["written"]) for row in rows] == [
        (GUEST, 1, "127.0.167.2", True)
    ]
    rack[1].plug(1, None)
    rack[1].plug(4, Device((GUEST,)))
    assert piman(tmp_path, "discover").returncode == 0
    table = piman(tmp_path, "status").stdout
    assert [line.split()[3] for line in table.splitlines()[1:4]] == ["0/2", "0/3", "1/4"], "the last is learnt"
    said = piman(tmp_path, "events", "pi-000009").stdout
    assert "moved from 127.0.167.202 port 1 to 127.0.167.202 port 4" in said


def test_calibrate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(INDEXES, "mad", lambda socket: (1, 900 - 9 * socket.number))
    family = replace(FAMILIES["standard"], tables=(standard_table("mad"),))
    (tmp_path / "config.yaml").write_text(CONFIG)
    with FamilySwitch(
        family, tmp_path / "a", "127.0.167.201", ports=3, devices={2: Device((PI,)), 3: Device((OTHER,))}
    ):
        done = piman(tmp_path, "findport", PI)
        assert (done.returncode, "which PoE port that is, its tables do not tell" in done.stdout) == (0, True)
        done = piman(tmp_path, "calibrate", "0", "--timeout", "3")
        assert done.returncode == 3, done.stderr
        assert "rack-a port 882: it is the interface 2" in done.stdout
        assert "rack-a port 891: no link went: plug a Pi in there that is up, and try again" in done.stdout
        assert piman(tmp_path, "findport", PI).stdout == f"{PI}  rack-a  port 2  port2  on, delivering\n"
        done = piman(tmp_path, "calibrate", "0", "--forget")
        assert "what was learnt of it is forgotten" in done.stdout
    with Store(tmp_path / "state" / "piman.db") as store:
        assert store.calibrations() == {}


def test_switch_record(tmp_path: Path, rack: tuple[FamilySwitch, FamilySwitch]) -> None:
    done = piman(tmp_path, "switch", "record", "rack-a", str(tmp_path / "sw.txt"), "--anonymise")
    assert done.returncode == 0
    record = read_record(tmp_path / "sw.txt")
    assert len(record.ports()) == 4
    assert PI not in (tmp_path / "sw.txt").read_text()
    done = piman(tmp_path, "switch", "record", "1", "--also", "1.3.6.1.6.3.10")
    assert done.stdout.count("\n.1.3.6.1.6.3.10.") > 3
    assert piman(tmp_path, "switch", "record", "1", "--also", "x").returncode == 2
    assert "cannot be written" in piman(tmp_path, "switch", "record", "1", str(tmp_path / "no" / "x")).stderr
    rack[1].stop()
    done = piman(tmp_path, "switch", "record", "1")
    assert (done.returncode, "port 161 is closed" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("mapper", "9", "1"), 1, "there is no switch '9'; known: 0 (rack-a), 1 (127.0.167.202)"),
        (("mapper", "0", "x"), 2, "is no list of ports; write it like: 2 3 4"),
        (("mapper", "0"), 2, "Missing argument 'PORTS...|all'"),
        (("mapper", "0", "99"), 1, "no PoE port of that number; the switch has 1-4"),
        (("calibrate", "0"), 0, ""),
        (("calibrate", "nobody"), 1, "there is no switch 'nobody'"),
        (("discover", "nobody"), 1, "there is no switch 'nobody'"),
        (("switch", "record", "nobody"), 1, "there is no switch 'nobody'"),
    ],
)
def test_a_wrong_word_is_told_what_is_known(
    tmp_path: Path, rack: tuple[FamilySwitch, FamilySwitch], words: tuple[str, ...], code: int, text: str
) -> None:
    done = piman(tmp_path, *words)
    assert text in done.stderr + done.stdout
    assert done.returncode == code
    assert Quirks() == rack[0].quirks
    assert IPv4Address(rack[0].address)


# ---------------------------------------------------------------------------------------------------------- by the API


class Api:
    """The API over the files of a folder, asked by an administrator."""

    def __init__(self, folder: Path) -> None:
        config = load_config(folder / "config.yaml", environ={})
        store = Store(config.state_dir / "piman.db")
        hosts = Hosts.open(folder / "hosts.csv", config)
        rack = Rack(config, hosts, store, store.pis, dict, lambda: False)
        self.backend = Backend(Place(config.path, None, config.state_dir, store, config.web), lambda: rack)
        self._client = create_app(self.backend).test_client()
        self._token = make_token(store, "test", "admin", 1.0)

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_error: object) -> None:
        self.backend.close()
        self.backend.place.store.close()

    def __call__(self, method: str, path: str, body: object = None, status: int = 200) -> Any:  # noqa: ANN401  # JSON
        headers = {"Authorization": f"Bearer {self._token}"}
        answer = self._client.open(PREFIX + path, method=method, json=body, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json

    def job(self, path: str, body: object) -> Any:  # noqa: ANN401
        """The job when it has ended."""
        number = self("POST", path, body, 202)["id"]
        end = time.monotonic() + 60
        while (job := self("GET", f"/jobs/{number}"))["state"] == "running":
            assert time.monotonic() < end, job
            time.sleep(0.05)
        return job


def test_map_and_discover_by_the_api(
    tmp_path: Path, rack: tuple[FamilySwitch, FamilySwitch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surveys, "PATIENCE", 1.0)
    with Api(tmp_path) as api:
        found = api("POST", "/discover", {})
        assert [(each["mac"], each["port"], each["known"]) for each in found["found"]] == [
            (PI, 2, True), (OTHER, 3, False), (GUEST, 1, False)
        ]  # fmt: skip
        assert found["unsure"] == found["failed"] == []
        assert rack[0].told == []
        assert (
            "cuts the power of 3 ports"
            in api("POST", "/switches/0/map", {"ports": [1, 3, 5], "confirm": 1}, 409)["error"]
        )
        job = api.job("/switches/rack-a/map", {"ports": [1, 3, 3, 5], "confirm": 3, "write": True})
        assert (job["state"], job["who"], job["targets"]) == (
            "partly", "token test", ["rack-a port 1", "rack-a port 3", "rack-a port 5"]
        )  # fmt: skip
        assert [each["ok"] for each in job["results"]] == [False, True, False]
        assert job["results"][1]["text"] == (
            f"{OTHER} by the forwarding table; hosts.csv: {OTHER};127.0.167.13;pi-000008;0 (written)"
        )
        assert rack[0].told == [(1, False), (1, True), (3, False), (3, True)], "and not the uplink"
        assert (tmp_path / "hosts.csv").read_text() == f"{HOSTS}{OTHER};127.0.167.13;pi-000008;0\n"
        written = [each["mac"] for each in api("POST", "/discover", {"write": True})["found"] if each["written"]]
        assert written == [GUEST]
        rack[1].stop()
        assert "127.0.167.202" in api("POST", "/discover", {})["failed"][0]
        job = api.job("/switches/1/map", {"ports": [1], "confirm": 1})
        assert (job["state"], "127.0.167.202" in job["error"]) == ("failed", True)
        trail = [(each["action"], each["result"]) for each in api("GET", "/audit")]
        assert ("discover", "written into hosts.csv") in trail
        assert trail[0][0] == "map"


def test_what_a_dead_power_cycle_left_off_comes_on_first(
    tmp_path: Path, rack: tuple[FamilySwitch, FamilySwitch]
) -> None:
    with Api(tmp_path) as api:
        rack[0].switch_power(2, False)
        api.backend.place.store.add_intent("127.0.167.201", 2, time.time(), (1, 2))
        job = api.job("/switches/0/map", {"ports": [3], "confirm": 1})
        assert job["steps"][0]["text"] == "rack-a port 2 was left off by a power cycle that died; it is on again"
        assert (2, True) in rack[0].told
        assert api.backend.place.store.intents() == []


def test_calibrate_by_the_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(INDEXES, "mad", lambda socket: (1, 900 - 9 * socket.number))
    family = replace(FAMILIES["standard"], tables=(standard_table("mad"),))
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "hosts.csv").write_text(HOSTS)
    monkeypatch.setattr(surveys, "PATIENCE", 3.0)
    with (
        FamilySwitch(family, tmp_path / "a", "127.0.167.201", ports=3, devices={2: Device((PI,))}),
        Api(tmp_path) as api,
    ):
        unknown = api("GET", "/switches/0/calibration")["ports"]
        assert unknown == [873, 882, 891]
        job = api.job("/switches/0/calibration", {"ports": [882, 891], "confirm": 2})
        assert [(each["ok"], each["text"]) for each in job["results"]] == [
            (True, "it is the interface 2"), (False, "no link went: plug a Pi in there that is up, and try again")
        ]  # fmt: skip
        assert 882 not in api("GET", "/switches/0/calibration")["ports"]
        assert api("DELETE", "/switches/0/calibration") == {"forgotten": True}
        assert api("GET", "/switches/0/calibration")["ports"] == unknown
        assert "known: 0 (rack-a)" in api("GET", "/switches/7/calibration", status=404)["error"]


def test_what_is_under_way_ends_with_the_manager(tmp_path: Path, rack: tuple[FamilySwitch, FamilySwitch]) -> None:
    """With the port on again."""
    with Api(tmp_path) as api:
        number = api("POST", "/switches/0/map", {"ports": [1, 2, 3], "confirm": 3}, 202)["id"]
        while not rack[0].told:
            time.sleep(0.01)
        began = time.monotonic()
        api.backend.close()
        while (job := api("GET", f"/jobs/{number}"))["state"] == "running":
            time.sleep(0.05)
        assert time.monotonic() - began < 10
        assert (job["state"], job["error"]) == ("failed", "interrupted; the port is on again")
        assert rack[0].told == [(1, False), (1, True)]


def test_record_by_the_api(tmp_path: Path, rack: tuple[FamilySwitch, FamilySwitch]) -> None:
    with Api(tmp_path) as api:
        assert PI in api("GET", "/switches/0/record")["text"].lower().replace(" ", ":")
        text = api("GET", "/switches/0/record?anonymise=true")["text"]
        (tmp_path / "sw.txt").write_text(text)
        assert len(read_record(tmp_path / "sw.txt").ports()) == 4
        assert PI not in text


def test_the_first_steps_see_which_port_leads_on(rack: tuple[FamilySwitch, FamilySwitch]) -> None:
    found = wizard.try_switch(IPv4Address("127.0.167.201"), SnmpAccess())
    assert (found["ok"], found["ports"], found["leads_on"]) == (True, [1, 2, 3, 4], [])
    rack[0].plug(1, Device(tuple(f"02:00:00:00:01:{number:02x}" for number in range(3))))
    assert wizard.try_switch(IPv4Address("127.0.167.201"), SnmpAccess())["leads_on"] == [1]
