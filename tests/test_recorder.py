"""Tests of utility.recorder: what is written can be read back by the lab, and what is secret is not in it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.agentx import Kind
from lab.replay import parse_record
from tests.test_fdb import interfaces, per_vlan, plain
from tests.test_snmp import FakeAgent
from utility.config import Switch
from utility.drivers import DRIVERS, OBJECTS, STANDARD, Oid, oid
from utility.recorder import BASES, Disguise, bases_for, record, written
from utility.snmp import Value

PI = "b8:27:eb:01:02:03"
SYSTEM = oid("1.3.6.1.2.1.1")
CISCO_SWITCH = oid("1.3.6.1.4.1.9.1.516")
CELLS: dict[Oid, Value] = {
    (*SYSTEM, 1, 0): b'Switch "A"\r\nSerial Number: FOC1234X0AB, S/N QX-77-12345',
    (*SYSTEM, 2, 0): CISCO_SWITCH,
    (*SYSTEM, 4, 0): b"Anna, room 12",
    (*SYSTEM, 5, 0): b"rack-a",
    (*SYSTEM, 6, 0): b"the cellar",
    (*SYSTEM, 9, 1, 2, 1): CISCO_SWITCH,
    oid("1.3.6.1.2.1.2.2.1.6.101"): bytes.fromhex("001122334455"),
    oid("1.3.6.1.2.1.31.1.1.1.18.101"): b"Anna's Pi, hush-community",
    oid("1.3.6.1.2.1.47.1.1.1.1.11.1"): b"FOC1234X0AB",
    oid("1.3.6.1.2.1.105.1.1.1.3.1.3"): 1,
    oid("1.3.6.1.4.1.9.9.402.1.2.1.9.1.3"): 4000,
    oid("1.3.6.1.4.1.9.9.999.1"): b"the password of everything",
    oid("1.0.8802.1.1.2.1.4.1.1.5.0.8.1"): bytes.fromhex("00aabbccddee"),
    oid("1.0.8802.1.1.2.1.4.1.1.9.0.8.1"): b"core",
    **plain({PI: 3}),
    **per_vlan({PI: 3}, 4),
    **interfaces(),
}


def make(disguise: Disguise, cells: dict[Oid, Value] | None = None, **options: object) -> str:
    agent = FakeAgent(CELLS if cells is None else cells)
    driver = replace(STANDARD, name="test")
    return record(agent.snmp(Switch(0, IPv4Address("172.30.4.254"))), driver, CISCO_SWITCH, disguise, **options)  # type: ignore[arg-type]


def test_a_record_is_read_back_and_has_no_secret() -> None:
    text = make(Disguise(["hush-community"]))
    read = parse_record(text).objects
    assert read[*SYSTEM, 1, 0] == (Kind.STRING, b'Switch "A"\r\nSerial Number: ***, S/N ***')
    assert read[*SYSTEM, 2, 0] == (Kind.OBJECT_ID, CISCO_SWITCH)
    assert (read[*SYSTEM, 4, 0], read[*SYSTEM, 6, 0]) == ((Kind.STRING, b""), (Kind.STRING, b""))
    assert read[*SYSTEM, 5, 0] == (Kind.STRING, b"rack-a")
    assert read[oid("1.3.6.1.2.1.31.1.1.1.18.101")] == (Kind.STRING, b"Anna's Pi, ***")
    assert read[oid("1.3.6.1.4.1.9.9.402.1.2.1.9.1.3")] == (Kind.INTEGER, 4000)
    assert plain({PI: 3}).keys() | per_vlan({PI: 3}, 4).keys() <= read.keys()
    for word in ("FOC1234X0AB", "QX-77", "cellar", "room 12", "hush", "password"):
        assert word not in text
    oids = [tuple(map(int, line.split(" ")[0].strip(".").split("."))) for line in text.splitlines() if line[0] == "."]
    assert oids == sorted(oids)


def test_an_anonymous_record_keeps_makers_and_hides_boards() -> None:
    text = make(Disguise(anonymise=True))
    read = parse_record(text).objects
    (there,) = [at for at in read if at[: len(OBJECTS)] and at[:-6] == next(iter(plain({PI: 3})))[:-6]]
    assert there[-6:-3] == (0xB8, 0x27, 0xEB)
    assert there[-3:] != (1, 2, 3)
    (again,) = [at for at in read if at[:-6] == next(iter(per_vlan({PI: 3}, 4)))[:-6]]
    assert again[-6:] == there[-6:], "the same in each table"
    value = read[oid("1.3.6.1.2.1.2.2.1.6.101")][1]
    assert isinstance(value, bytes)
    assert (value[:3], value[3:] != b"\x33\x44\x55") == (b"\x00\x11\x22", True)
    assert read[*SYSTEM, 5, 0][1] == read[oid("1.0.8802.1.1.2.1.4.1.1.9.0.8.1")][1] == b""
    assert "core" not in text
    assert "Anna" not in text


def test_a_mac_of_zeros_stays_and_no_two_become_one() -> None:
    disguise = Disguise(anonymise=True)
    assert disguise.value(oid("1.3.6.1.2.1.2.2.1.6.1"), bytes(6)) == bytes(6)
    told = {disguise.value(oid("1.3.6.1.2.1.2.2.1.6.1"), bytes([2, 0, 0, 0, 0, each])) for each in range(1, 200)}
    assert len(told) == 199


def test_a_disguise_that_is_another_boards_already_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([b"abc", b"abc", b"abd"])
    monkeypatch.setattr("secrets.token_bytes", lambda _size: next(drawn))
    disguise, column = Disguise(anonymise=True), oid("1.3.6.1.2.1.2.2.1.6.1")
    assert disguise.value(column, bytes([2, 0, 0, 0, 0, 1])) == b"\2\0\0abc"
    assert disguise.value(column, bytes([2, 0, 0, 0, 0, 2])) == b"\2\0\0abd"


def test_what_is_walked() -> None:
    assert bases_for(STANDARD, None) == list(BASES)
    cisco = next(driver for driver in DRIVERS if driver.name == "cisco-ios")
    bases = bases_for(cisco, CISCO_SWITCH)
    assert {oid("1.3.6.1.4.1.9.9.402.1.2.1"), oid("1.3.6.1.4.1.9.9.68.1.2.2.1.2")} <= set(bases)
    assert not [base for base in bases if base[:6] == (1, 3, 6, 1, 4, 1) and base[6] != 9]
    tplink = next(driver for driver in DRIVERS if driver.name == "tplink")
    assert oid("1.3.6.1.4.1.11863.6.56.1.1") in bases_for(tplink, oid("1.3.6.1.4.1.11863.5.89"))


def test_more_is_walked_on_demand_and_told() -> None:
    told: list[str] = []
    text = make(Disguise(["everything"]), more=[oid("1.3.6.1.4.1.9.9.999")], tell=told.append)
    assert 'STRING: "the password of ***"' in text
    assert told[-1] == ".1.3.6.1.4.1.9.9.999: 1 objects"


def test_a_cisco_is_asked_vlan_by_vlan() -> None:
    agent = FakeAgent({(*SYSTEM, 2, 0): CISCO_SWITCH, oid("1.3.6.1.4.1.9.9.68.1.2.2.1.2.10101"): 9})
    agent.cells[oid("1.3.6.1.4.1.9.9.68.1.2.2.1.2.10102")] = 7  # where it does not answer
    everywhere = dict(agent.cells)

    def show(_kind: str, _oids: tuple[Oid, ...]) -> int:
        agent.cells = everywhere | (plain({PI: 3}) if agent.requests[-1][1] == "public@9" else {})
        return 0

    agent.refuse = show
    agent.communities.add("public@9")
    driver = next(driver for driver in DRIVERS if driver.name == "cisco-ios")
    text = record(agent.snmp(Switch(0, IPv4Address("172.30.4.254"))), driver, CISCO_SWITCH, Disguise())
    assert plain({PI: 3}).keys() <= parse_record(text).objects.keys()


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (5, "Integer32", "INTEGER: 5"),
        (5, "Gauge32", "GAUGE: 5"),
        (2**40, "Counter64", "COUNTER64: 1099511627776"),
        (5, "SomethingElse", "INTEGER: 5"),
        (b"", "OctetString", 'STRING: ""'),
        (b"a\\b\t", "OctetString", 'STRING: "a\\\\b\\t"'),
        (b"\x80\0", "OctetString", "HEX: 80 00"),
        ("é".encode(), "OctetString", 'STRING: "é"'),
        (b"\x1b[2J", "OctetString", "HEX: 1b 5b 32 4a"),
        (bytes([10, 0, 0, 1]), "IpAddress", "IPADDRESS: 10.0.0.1"),
        (None, "Null", 'STRING: ""'),
        ((1, 3, 6), "ObjectIdentifier", "OBJECTID: .1.3.6"),
    ],
)
def test_values_in_words(value: Value, kind: str, text: str) -> None:
    assert written(value, kind) == text


@given(st.binary(max_size=60))
def test_any_text_is_read_back(value: bytes) -> None:
    record = parse_record(f".1.3.6.1.1 = {written(value, 'OctetString')}")
    assert record.objects[1, 3, 6, 1, 1] == (Kind.STRING, value)
