"""Every family of switches that the lab's switch can be, asked by net-snmp's tools."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.agentx import AUTHORIZATION_ERROR, GEN_ERR
from lab.families import FAMILIES, Quirks
from lab.replay import parse_record
from lab.switch import Access, Device, FamilySwitch, User

MIB_2, ENTERPRISES = "1.3.6.1.2.1", "1.3.6.1.4.1"
POE = f"{MIB_2}.105.1.1.1"
MAIN = f"{MIB_2}.105.1.3.1.1"
FDB = f"{MIB_2}.17.4.3.1.2"
VLAN_FDB = f"{MIB_2}.17.7.1.2.2.1.2.1"
BASE = f"{MIB_2}.17.1.4.1.2"
IF_DESCR, IF_ADMIN, IF_OPER = (f"{MIB_2}.2.2.1.{column}" for column in (2, 7, 8))
IF_NAME = f"{MIB_2}.31.1.1.1.1"
CISCO_PSE = f"{ENTERPRISES}.9.9.402.1.2.1"
TPLINK = f"{ENTERPRISES}.11863.6.56.1"
HUAWEI = f"{ENTERPRISES}.2011.5.25.195.3.1"
DLINK = f"{ENTERPRISES}.171.12.24"
MIKROTIK = f"{ENTERPRISES}.14988.1.1.15.1.1"
PI, PI_DIGITS = "b8:27:eb:00:00:07", "184.39.235.0.0.7"

_addresses = itertools.count(1)


@dataclass
class Tools:
    """snmpget, snmpset and snmpwalk for one switch; values as with -Oqn: bare, strings in quotes."""

    switch: FamilySwitch

    def run(self, tool: str, *words: str, access: tuple[str, ...] = ("-v2c", "-cpublic"), timeout: str = "-t2") -> str:
        command = [tool, *access, "-Onq", timeout, "-r1", self.switch.address, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return (done.stdout + done.stderr).strip()

    def get(self, oid: str, **options: object) -> str:
        said = self.run("snmpget", oid, **options)  # type: ignore[arg-type]
        return said.removeprefix(f".{oid} ")

    def set(self, oid: str, value: int, *, access: tuple[str, ...] = ("-v2c", "-cprivate")) -> str:
        return self.run("snmpset", oid, "i", str(value), access=access).removeprefix(f".{oid} ")

    def walk(self, oid: str, *, tool: str = "snmpwalk", **options: object) -> dict[str, str]:
        said = self.run(tool, oid, **options)  # type: ignore[arg-type]
        rows = [
            line.removeprefix(f".{oid}.").split(" ", 1) for line in said.splitlines() if line.startswith(f".{oid}.")
        ]
        return {index: value for index, value in rows if not value.startswith("No ")}

    def wait(self, oid: str, value: str, limit: float = 10) -> None:
        end = time.monotonic() + limit
        while (said := self.get(oid)) != value:
            assert time.monotonic() < end, f"{oid} stays {said}"


Start = Callable[..., Tools]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A function that starts a switch and gives the tools for it."""
    running: list[FamilySwitch] = []

    def start_one(family: str, **options: object) -> Tools:
        number = next(_addresses)
        switch = FamilySwitch(family, tmp_path / str(number), f"127.0.161.{number}", **options)  # type: ignore[arg-type]
        running.append(switch)
        switch.start()
        return Tools(switch)

    yield start_one
    for switch in running:
        switch.stop()


@dataclass(frozen=True)
class Facts:
    """Of a stack of two members with 4 PoE ports and 2 uplinks each, and a Pi on the third port of the second.

    number   of that port on the face
    admin    the object that switches it, with the values for on and off; off 0 and on 0: nobody may
    others   further objects of that port and their values while it delivers
    after    the same, while it is off
    """

    family: str
    number: int
    if_index: int
    bridge_port: int
    name: str
    admin: str
    values: tuple[int, int]
    others: dict[str, str]
    after: dict[str, str]
    column: dict[str, str]  # all admin objects: the index of the first and of the last, to their values


def standard(index: str) -> dict[str, str]:
    return {f"{POE}.6.{index}": "3", f"{POE}.10.{index}": "1", f"{POE}.12.{index}": "0"}


def off(index: str) -> dict[str, str]:
    return {f"{POE}.6.{index}": "1"}


HP = f"{ENTERPRISES}.11.2.14.11.1.9.1.1.1"
CX = f"{ENTERPRISES}.47196.4.1.1.3.8.1.1.1"
FACTS = [
    Facts(
        "standard", 7, 7, 7, "port7", f"{POE}.3.1.7", (1, 2),
        standard("1.7") | {f"{MAIN}.4.1": "4"}, off("1.7") | {f"{MAIN}.4.1": "0"}, {"1.1": "1", "1.8": "1"},
    ),
    Facts(
        "cisco-ios", 9, 10603, 9, "Gi2/0/3", f"{CISCO_PSE}.1.2.3", (1, 4),
        standard("2.3") | {
            f"{CISCO_PSE}.9.2.3": "4000", f"{CISCO_PSE}.7.2.3": "15400", f"{CISCO_PSE}.11.2.3": "2003",
            f"{MIB_2}.47.1.3.2.1.2.2003.0": f".{MIB_2}.2.2.1.1.10603", f"{ENTERPRISES}.9.5.1.4.1.1.11.2.3": "10603",
            f"{ENTERPRISES}.9.9.68.1.2.2.1.2.10603": "1", f"{MAIN}.4.2": "4",
        },
        off("2.3") | {f"{CISCO_PSE}.9.2.3": "0", f"{POE}.3.2.3": "2"}, {"1.1": "1", "2.4": "1"},
    ),
    Facts(
        "cisco-sb", 9, 159, 159, "gi2/0/3", f"{POE}.3.2.159", (1, 2),
        standard("2.159") | {f"{ENTERPRISES}.9.6.1.101.108.1.1.5.2.159": "4000"}, off("2.159"),
        {"1.49": "1", "2.160": "1"},
    ),
    Facts(
        "procurve", 7, 7, 7, "2/3", f"{POE}.3.2.7", (1, 2),
        standard("2.7") | {f"{HP}.3.2.7": "4000", f"{HP}.8.2.7": "4000"}, off("2.7") | {f"{HP}.3.2.7": "0"},
        {"1.1": "1", "2.8": "1"},
    ),
    Facts(
        "aos-cx", 9, 67, 9, "2/1/3", f"{POE}.3.2.3", (1, 2),
        standard("2.3") | {f"{CX}.7.2.3": "4000"}, off("2.3"), {"1.1": "1", "2.4": "1"},
    ),
    Facts(
        "aos-cx-chassis", 9, 67, 9, "2/1/3", f"{POE}.3.1.67", (1, 2),
        standard("1.67") | {f"{CX}.7.1.67": "4000"}, off("1.67"), {"1.1": "1", "1.68": "1"},
    ),
    Facts(
        "comware", 9, 9, 9, "GigabitEthernet2/0/3", f"{POE}.3.7.9", (1, 2),
        standard("7.9") | {f"{ENTERPRISES}.25506.2.14.1.1.5.7.9": "4000", f"{MAIN}.4.7": "4"}, off("7.9"),
        {"4.1": "1", "7.10": "1"},
    ),
    Facts(
        "netgear", 7, 7, 7, "2/g3", f"{POE}.3.2.3", (1, 2),
        standard("2.3")
        | {f"{ENTERPRISES}.4526.10.15.1.1.1.2.2.3": "4000", f"{MAIN}.4.2": "4000", f"{MAIN}.2.2": "185"},
        off("2.3"), {"1.1": "1", "2.4": "1"},
    ),
    Facts(
        "tplink", 7, 49159, 7, "gigabitEthernet 2/0/3", f"{TPLINK}.1.2.1.1.2.7", (1, 0),
        {
            f"{TPLINK}.1.2.1.1.7.7": "40", f"{TPLINK}.1.2.1.1.10.7": "0", f"{TPLINK}.1.2.1.1.11.7": "2",
            f"{TPLINK}.1.1.3.0": "40", f"{TPLINK}.1.1.4.0": "3660", f"{TPLINK}.3.1.1.0": "0",
            f"{TPLINK}.3.2.1.1.7.7": "0", "1.0.8802.1.1.2.1.3.7.1.3.7": '"2/0/3"',
        },
        {f"{TPLINK}.1.2.1.1.7.7": "0", f"{TPLINK}.1.2.1.1.11.7": "0"}, {"1": "1", "8": "1"},
    ),
    Facts(
        "mikrotik", 7, 7, 7, "ether3", f"{MIKROTIK}.3.7", (0, 0),
        {f"{MIKROTIK}.3.7": "3", f"{MIKROTIK}.6.7": "40", f"{MIKROTIK}.2.7": '"ether3"', f"{MIKROTIK}.3.1": "2"},
        {}, {"1": "2", "8": "2"},
    ),
    Facts(
        "zyxel-gs1915", 7, 7, 7, "swp02", f"{POE}.3.1.7", (1, 2),
        standard("1.7") | {f"{ENTERPRISES}.890.1.15.3.59.2.1.1.1.7": "4000"}, off("1.7"), {"1.1": "1", "1.8": "1"},
    ),
    Facts(
        "huawei", 7, 11, 7, "GigabitEthernet1/0/3", f"{HUAWEI}.3.11", (1, 2),
        {
            f"{HUAWEI}.2.11": '"GigabitEthernet1/0/3"', f"{HUAWEI}.6.11": '"on"', f"{HUAWEI}.7.11": '"Powered"',
            f"{HUAWEI}.10.11": "4000",
        },
        {f"{HUAWEI}.6.11": '"off"', f"{HUAWEI}.7.11": '"Disabled"', f"{HUAWEI}.10.11": "0"}, {"5": "1", "12": "1"},
    ),
    Facts(
        "dlink", 7, 7, 7, "1/7", f"{DLINK}.3.1.1.2.7", (2, 3),
        {f"{DLINK}.4.1.1.2.7": "0", f"{DLINK}.4.1.1.3.7": "4000", f"{DLINK}.4.1.1.7.7": "1"},
        {f"{DLINK}.4.1.1.3.7": "0", f"{DLINK}.4.1.1.7.7": "2"}, {"1": "2", "8": "2"},
    ),
]  # fmt: skip


@pytest.mark.parametrize("facts", FACTS, ids=[facts.family for facts in FACTS])
def test_the_facts_of_a_family(start: Start, facts: Facts) -> None:
    tools = start(facts.family, ports=4, members=2, devices={facts.number: Device((PI,))})
    family = FAMILIES[facts.family]
    object_id = ".".join(map(str, family.object_id))
    assert tools.get(f"{MIB_2}.1.2.0") == f".{object_id}"
    assert tools.get(f"{MIB_2}.1.1.0").strip('"').split("\n")[0].strip() == family.descr.split("\r")[0]

    # the port, from its interface to its place in the bridge and the PoE table
    assert tools.get(f"{IF_NAME}.{facts.if_index}") == f'"{facts.name}"'
    assert tools.get(f"{IF_OPER}.{facts.if_index}") == "1"
    assert tools.get(f"{BASE}.{facts.bridge_port}") == str(facts.if_index)
    assert tools.walk(FDB)[PI_DIGITS] == str(facts.bridge_port)
    assert tools.walk(VLAN_FDB).get(PI_DIGITS) == (str(facts.bridge_port) if family.fdb == "qbridge" else None)
    size = next(iter(facts.column)).count(".") + 1  # numbers in an index
    rows = list(tools.walk(facts.admin.rsplit(".", size)[0]).items())
    assert dict((rows[0], rows[-1])) == facts.column
    assert len(rows) == 8, "each PoE port has a row and the uplinks have none"
    for oid, value in facts.others.items():
        assert tools.get(oid) == value, oid

    # its power
    on, switched_off = facts.values
    if on == switched_off:
        assert "notWritable" in tools.set(facts.admin, 1)
        return
    assert tools.get(facts.admin) == str(on)
    assert tools.set(facts.admin, switched_off) == str(switched_off)
    assert tools.get(facts.admin) == str(switched_off)
    for oid, value in facts.after.items():
        assert tools.get(oid) == value, oid
    assert tools.get(f"{IF_OPER}.{facts.if_index}") == "2"
    assert PI_DIGITS not in tools.walk(FDB)
    assert "wrongValue" in tools.set(facts.admin, 77)
    assert tools.set(facts.admin, on) == str(on)
    assert tools.walk(FDB)[PI_DIGITS] == str(facts.bridge_port)
    assert tools.switch.told == [(facts.number, False), (facts.number, True)]


def test_juniper_shows_the_first_member_and_lets_nobody_write(start: Start) -> None:
    tools = start("juniper", ports=4, members=2, devices={4: Device((PI,))})
    assert list(tools.walk(f"{POE}.3")) == ["1.1", "1.2", "1.3", "1.4"]
    assert tools.get(f"{IF_NAME}.513") == '"ge-0/0/3"'
    assert (tools.get(f"{POE}.6.1.4"), tools.get(f"{BASE}.4"), tools.walk(FDB)[PI_DIGITS]) == ("3", "513", "4")
    assert "notWritable" in tools.set(f"{POE}.3.1.4", 2)
    assert tools.get(f"{IF_NAME}.610") == '"ge-1/0/0"'


@pytest.mark.parametrize("family", FAMILIES)
def test_a_walk_of_everything_ends_and_is_in_order(start: Start, family: str) -> None:
    tools = start(family, devices={1: Device((PI,))})
    for tool in ("snmpbulkwalk", "snmpwalk"):
        oids = [tuple(map(int, oid.split("."))) for oid in tools.walk("1", tool=tool)]
        assert len(oids) > 400
        assert oids == sorted(set(oids))


@pytest.mark.parametrize("version", ["-v1", "-v2c"])
def test_cisco_shows_the_bridge_of_one_vlan_at_a_time(start: Start, version: str) -> None:
    elsewhere = Device(("02:00:00:00:00:99",), needs_power=False, vlan=1)
    tools = start("cisco-ios", vlan=10, devices={3: Device((PI,)), 25: elsewhere})
    others = "2.0.0.0.0.153"
    assert tools.get(f"{ENTERPRISES}.9.9.46.1.3.1.1.2.1.10") == "1"
    assert tools.get(f"{ENTERPRISES}.9.9.68.1.2.2.1.2.10103") == "10"
    assert tools.get(f"{ENTERPRISES}.9.9.46.1.6.1.1.5.10125") == "1"
    assert set(tools.walk(FDB)) == {"2.0.0.0.0.254", others}
    ten = tools.walk(FDB, access=(version, "-cpublic@10"))
    assert (ten[PI_DIGITS], others in ten) == ("3", False)
    assert tools.walk(BASE, access=(version, "-cpublic@10"))["3"] == "10103"
    assert list(tools.walk(BASE)) == ["25", "26"], "of VLAN 1 there are the trunks alone"
    assert tools.get(f"{POE}.6.1.3", access=(version, "-cpublic@10")) == "3"
    assert tools.set(f"{POE}.3.1.3", 2, access=(version, "-cprivate@10")) == "2"
    assert "Timeout" in tools.run("snmpget", f"{POE}.6.1.3", access=(version, "-cpublic@11"), timeout="-t0.3")


def test_cisco_keeps_static_power_only_where_its_own_object_is_written(start: Start) -> None:
    tools = start("cisco-ios", devices={3: Device((PI,))})
    own, plain = f"{CISCO_PSE}.1.1.3", f"{POE}.3.1.3"
    assert (tools.set(own, 2), tools.get(own), tools.get(plain)) == ("2", "2", "1")
    tools.set(plain, 2)
    assert tools.get(own) == "4"
    tools.set(plain, 1)
    assert tools.get(own) == "1", "static is lost"


ROOT = ("-v3", "-uroot", "-lauthPriv", "-aSHA-256", "-Aswordfish", "-xAES", "-Xdolphin88")


def test_v3(start: Start) -> None:
    users = (User("root", "swordfish", "dolphin88"), User("guest", "swordfish", "dolphin88", may_write=False))
    tools = start("cisco-ios", vlan=10, devices={3: Device((PI,))}, access=Access("look", "", users))
    oid = f"{POE}.3.1.3"
    guest = (*ROOT[:1], "-uguest", *ROOT[2:])
    assert tools.get(oid, access=ROOT) == "1"
    assert tools.set(oid, 2, access=ROOT) == "2"
    assert tools.set(oid, 1, access=ROOT) == "1"
    assert PI_DIGITS in tools.walk(FDB, access=(*ROOT, "-nvlan-10"))
    assert PI_DIGITS not in tools.walk(FDB, access=ROOT)
    assert tools.get(oid, access=guest) == "1"
    assert "noAccess" in tools.set(oid, 2, access=guest)
    assert "Authentication failure" in tools.get(oid, access=(*ROOT[:4], "-Aswordfisch", *ROOT[5:]))
    wrong = (*ROOT[:6], "-Xdolphin89")
    assert "Timeout" in tools.run("snmpget", oid, access=wrong, timeout="-t0.5")
    assert "Timeout" in tools.run("snmpget", oid, timeout="-t0.3"), "there is no community public"
    assert "noAccess" in tools.set(oid, 2, access=("-v2c", "-clook"))


# ---------------------------------------------------------------------------------------------------------- the quirks


@pytest.mark.parametrize(
    ("status", "said"), [(GEN_ERR, "genError"), (AUTHORIZATION_ERROR, "authorizationError"), (17, "notWritable")]
)
def test_a_switch_that_refuses_writes(start: Start, status: int, said: str) -> None:
    tools = start("procurve", quirks=Quirks(refusal=status))
    assert said in tools.set(f"{POE}.3.1.1", 2)
    assert said in tools.set(f"{IF_ADMIN}.1", 2)
    assert tools.get(f"{POE}.3.1.1") == "1"


def test_a_switch_that_says_yes_and_does_nothing(start: Start) -> None:
    tools = start("standard", quirks=Quirks(does_nothing=True), devices={1: Device((PI,))})
    assert tools.set(f"{POE}.3.1.1", 2) == "2"
    assert (tools.get(f"{POE}.3.1.1"), tools.get(f"{POE}.6.1.1")) == ("1", "3")


def test_ports_without_poe_have_no_rows(start: Start) -> None:
    tools = start("standard", ports=4, quirks=Quirks(without_poe=frozenset({2, 3})))
    assert list(tools.walk(f"{POE}.3")) == ["1.1", "1.4"]
    assert "No Such Instance" in tools.get(f"{POE}.3.1.2")
    assert tools.get(f"{IF_NAME}.2") == '"port2"'
    assert "notWritable" in tools.set(f"{POE}.3.1.2", 2)


def test_a_switch_with_ifindexes_in_its_forwarding_table(start: Start) -> None:
    tools = start("huawei", quirks=Quirks(fdb_ifindex=True, no_qbridge=True), devices={7: Device((PI,))})
    assert tools.walk(FDB)[PI_DIGITS] == "11"
    assert tools.walk(f"{MIB_2}.17.7") == {}


def test_a_switch_that_falls_over_a_getbulk(start: Start) -> None:
    tools = start("dlink", quirks=Quirks(bulk_silence=1.0))
    assert len(tools.walk(f"{DLINK}.3.1.1.2")) == 24
    assert "Timeout" in tools.run("snmpbulkwalk", f"{DLINK}.3.1.1.2", timeout="-t0.2")
    tools.wait(f"{DLINK}.3.1.1.2.1", "2")


def test_a_slow_switch(start: Start) -> None:
    tools = start("standard", ports=4, quirks=Quirks(delay=0.05))
    begin = time.monotonic()
    assert len(tools.walk(f"{POE}.3")) == 4
    assert time.monotonic() - begin >= 0.25


def test_a_lossy_switch_answers_those_who_ask_again(start: Start) -> None:
    tools = start("standard", ports=4, quirks=Quirks(loss=0.3))
    command = ["snmpwalk", "-v2c", "-cpublic", "-Onq", "-t0.1", "-r20", tools.switch.address, f"{POE}.3"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert len(said.splitlines()) == 4


def test_detection_takes_a_moment_and_the_link_another(start: Start) -> None:
    tools = start("standard", devices={1: Device((PI,), link_delay=0.5)}, detect=1.0)
    tools.wait(f"{IF_OPER}.1", "1")
    assert tools.set(f"{POE}.3.1.1", 2) == "2"
    assert (tools.get(f"{POE}.6.1.1"), tools.get(f"{IF_OPER}.1")) == ("1", "2")
    begin = time.monotonic()
    assert tools.set(f"{POE}.3.1.1", 1) == "1"
    tools.wait(f"{POE}.6.1.1", "3")
    assert time.monotonic() - begin >= 0.9
    tools.wait(f"{IF_OPER}.1", "1")
    assert time.monotonic() - begin >= 1.4


def test_what_the_budget_is_too_small_for_stays_searching(start: Start) -> None:
    pis = {number: Device((f"b8:27:eb:00:00:0{number}",), milliwatts=6000) for number in range(1, 5)}
    tools = start("standard", ports=4, devices=pis, budget=20_000)
    assert list(tools.walk(f"{POE}.6").values()) == ["3", "3", "3", "2"]
    assert int(tools.get(f"{POE}.12.1.4")) >= 1
    assert (tools.get(f"{MAIN}.2.1"), tools.get(f"{MAIN}.4.1")) == ("20", "18")
    tools.set(f"{POE}.3.1.2", 2)
    tools.wait(f"{POE}.6.1.4", "3")


def test_an_interface_that_is_down_still_gives_power(start: Start) -> None:
    tools = start("procurve", devices={1: Device((PI,))})
    assert tools.set(f"{IF_ADMIN}.1", 2) == "2"
    assert (tools.get(f"{IF_OPER}.1"), tools.get(f"{POE}.6.1.1")) == ("2", "3")
    assert PI_DIGITS not in tools.walk(FDB)


def test_trunks_and_their_neighbours(start: Start) -> None:
    core = start("procurve", name="core", mac="02:00:00:00:00:01")
    edge = start("cisco-sb", name="edge", mac="02:00:00:00:00:02", devices={5: Device((PI,))})
    core.switch.connect(25, edge.switch, 26)
    assert core.walk(FDB)[PI_DIGITS] == "25"
    assert edge.walk(FDB) == {PI_DIGITS: "53", "2.0.0.0.0.1": "74", "2.0.0.0.0.2": "0"}
    remote = "1.0.8802.1.1.2.1.4.1.1"
    assert core.walk(f"{remote}.9") == {"0.25.1": '"edge"'}
    assert edge.walk(f"{remote}.7") == {"0.74.1": '"1/25"'}


# --------------------------------------------------------------------------------------------------------- the records

RECORD = f"""\
# a switch that somebody has
.{MIB_2}.1.1.0 = STRING: "HPE 5130\\r\\nwith \\"quotes\\""
.{MIB_2}.1.2.0 = OBJECTID: .{ENTERPRISES}.25506.11.1.189
.{MIB_2}.1.3.0 = TIMETICKS: 12345678
.{MIB_2}.2.2.1.6.9 = HEX: 00 11 22 aa bb cc
.{MIB_2}.4.20.1.1.10.0.0.1 = IPADDRESS: 10.0.0.1
.{POE}.3.4.17 = INTEGER: 1
.{POE}.3.4.18 = INTEGER: 2
.{POE}.6.4.17 = INTEGER: 3
.{POE}.6.4.18 = INTEGER: 1
.{POE}.7.4.17 = INTEGER: 3
.{MAIN}.2.4 = GAUGE: 370
.{ENTERPRISES}.25506.2.14.1.1.5.4.17 = INTEGER: 2400
"""


def test_a_record_is_a_live_switch(start: Start) -> None:
    record = parse_record(RECORD)
    tools = start("standard", record=record, devices={1: Device((PI,)), 2: Device(("b8:27:eb:00:00:08",))})
    power = f"{ENTERPRISES}.25506.2.14.1.1.5.4.17"
    assert 'with \\"quotes\\"' in tools.get(f"{MIB_2}.1.1.0")
    assert tools.get(f"{MIB_2}.1.2.0") == f".{ENTERPRISES}.25506.11.1.189"
    assert tools.get(f"{MIB_2}.2.2.1.6.9").strip('" ') == "00 11 22 AA BB CC"
    assert tools.get(f"{MIB_2}.4.20.1.1.10.0.0.1") == "10.0.0.1"
    assert tools.walk(f"{POE}.3") == {"4.17": "1", "4.18": "2"}
    assert (tools.walk(f"{POE}.6"), tools.get(power)) == ({"4.17": "3", "4.18": "1"}, "2400")
    assert tools.set(f"{POE}.3.4.17", 2) == "2"
    assert (tools.get(f"{POE}.6.4.17"), tools.get(power)) == ("1", "0")
    assert tools.set(f"{POE}.3.4.17", 1) == "1"
    assert tools.set(f"{POE}.3.4.18", 1) == "1"
    assert (tools.walk(f"{POE}.6"), tools.get(power)) == ({"4.17": "3", "4.18": "3"}, "2400")
    assert (tools.set(f"{POE}.7.4.17", 1), tools.get(f"{POE}.7.4.17")) == ("1", "1")
    assert "notWritable" in tools.run("snmpset", f"{MAIN}.2.4", "u", "5", access=("-v2c", "-cprivate"))
    assert "wrongType" in tools.run("snmpset", f"{POE}.7.4.17", "s", "x", access=("-v2c", "-cprivate"))
    assert tools.switch.told == [(1, False), (1, True), (2, True)]
