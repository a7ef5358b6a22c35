"""Tests of monitoring.faces: the face of a switch as a table and for scripts."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from monitoring import faces
from monitoring.directory import Roster
from monitoring.faces import Seat, face_json, face_table, power_word, read_face, who
from monitoring.operations import OperationError
from tests.test_operations import CONFIG, HOSTS
from tests.test_power_cycle import OFF, Bench
from utility.config import Config, Switch, load_config
from utility.drivers import Detection
from utility.hosts import Host, Hosts
from utility.switches import Capabilities, Neighbour, Port, PowerSupply, SwitchError


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "config.yaml").write_text(CONFIG)
    return load_config(tmp_path / "config.yaml", environ={})


@pytest.fixture
def roster(tmp_path: Path, config: Config) -> Roster:
    (tmp_path / "hosts.csv").write_text(HOSTS)
    return Roster(Hosts.open(tmp_path / "hosts.csv", config), ())


@pytest.fixture
def bench(config: Config, monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(
        empty=frozenset({2}),
        power_class=4,
        capacity=30_000,
        can=Capabilities("bench", "it may not be", "qbridge", ("it has its own mind",)),
        neighbours={4: Neighbour("sw2", "", "24")},
        seen={1: frozenset({"b8:27:eb:00:00:01"}), 4: frozenset({"b8:27:eb:00:00:09", "b8:27:eb:00:00:08"})},
    )
    bench.switch = replace(config.switches[0], protected_ports=frozenset({4}), power_budget=25.5)
    bench.settings[3] = OFF
    monkeypatch.setattr(faces, "open_switch", lambda switch: bench)
    return bench


def test_the_table(bench: Bench, roster: Roster) -> None:
    assert face_table(read_face(bench.switch, roster)) == [
        "PORT  LABEL  POE         WATTS  CLASS  LINK  MAC                PI",
        "1     p1     delivering  4.0    4      up    b8:27:eb:00:00:01  pi1",
        "2     p2     searching   0.0    4      down",
        "3     p3     off         0.0    4      down                     (pi3)",
        "4     p4     delivering  4.0    4      up    2 MACs                    -> sw2 port 24  protected",
        "5     up1",
        "power: 8 of 30 W",
        "power_budget: 25.5 W",
        "its ports cannot be switched: it may not be",
        "warning: it has its own mind",
    ]


def test_the_table_of_a_stack_that_estimates(bench: Bench, roster: Roster) -> None:
    face = read_face(Switch(0, IPv4Address("127.0.4.9")), roster)
    allocated = replace(face.seats[0].port, milliwatts=15_400, source="allocated", alias="desk 7")
    supplies = (PowerSupply(frozenset({1, 2}), 30_000, 1), PowerSupply(frozenset({3, 4}), 30_000))
    lines = face_table(replace(face, can=Capabilities("x"), supplies=supplies, seats=(Seat(allocated),)))
    assert lines == [
        "PORT  LABEL  POE         WATTS             CLASS  LINK  MAC  PI",
        "1     p1     delivering  15.4 (allocated)  4      up             desk 7",
        "power: 0 of 30 W for ports 1-2",
        "power: 30 W for ports 3-4",
    ]


def test_for_scripts(bench: Bench, roster: Roster) -> None:
    told = json.loads(json.dumps(face_json(read_face(bench.switch, roster))))
    ports = told.pop("ports")
    assert told == {
        "switch": 0, "name": "left", "address": "127.0.4.254", "driver": "bench", "read_only": "it may not be",
        "warnings": ["it has its own mind"],
        "supplies": [{"ports": [1, 2, 3, 4], "capacity_milliwatts": 30_000, "consumption_milliwatts": 8000}],
    }  # fmt: skip
    assert ports[0] == {
        "port": 1, "label": "p1", "alias": None, "interface": None, "if_index": None, "poe": "delivering",
        "poe_on": True, "poe_index": "1.1", "class": 4, "milliwatts": 4000, "milliwatts_source": "measured",
        "link": True, "macs": ["b8:27:eb:00:00:01"], "pis": ["pi1"], "expected": "pi1", "neighbour": None,
        "protected": False,
    }  # fmt: skip
    assert (ports[3]["neighbour"], ports[3]["protected"], ports[2]["expected"]) == ("sw2 port 24", True, "pi3")
    assert (ports[4]["poe"], ports[4]["poe_on"], ports[4]["poe_index"], ports[4]["link"]) == ("none", None, None, None)


@pytest.mark.parametrize(
    ("port", "word"),
    [
        (Port(1, ""), "none"),
        (Port(1, "", index=(1,)), "unknown"),
        (Port(1, "", index=(1,), admin_on=False), "off"),
        (Port(1, "", index=(1,), admin_on=True), "on"),
        (Port(1, "", index=(1,), admin_on=True, detection=Detection.OTHER_FAULT), "other fault"),
    ],
)
def test_power_word(port: Port, word: str) -> None:
    assert power_word(port) == word


def test_who_is_there() -> None:
    one, two = (Host(f"b8:27:eb:00:00:0{n}", IPv4Address(f"10.0.0.{n}"), f"pi{n}") for n in (1, 2))
    port = Port(1, "")
    assert who(Seat(port)) == ""
    assert who(Seat(port, seen=(one,))) == "pi1"
    assert who(Seat(port, expected=one, seen=(one,))) == "pi1"
    assert who(Seat(port, expected=one)) == "(pi1)"
    assert who(Seat(port, expected=one, seen=(two,))) == "pi2, not pi1"


def test_a_switch_that_does_not_answer(roster: Roster, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(switch: Switch) -> None:
        raise SwitchError(switch, "sysObjectID.0", "no answer")

    monkeypatch.setattr(faces, "open_switch", fail)
    with pytest.raises(OperationError, match=r"^switch 127\.0\.4\.9: sysObjectID\.0: no answer$"):
        read_face(Switch(0, IPv4Address("127.0.4.9")), roster)
