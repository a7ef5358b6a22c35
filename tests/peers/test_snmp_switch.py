"""The lab's switch asked by net-snmp's tools, and our SNMP code against the same snmpd, on a wire of namespaces."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lab.switch import LabSwitch
from tests.peers.netns import Network
from utility.config import SnmpAccess, Switch
from utility.drivers import Detection
from utility.findport import choose_edge, find_port
from utility.power_cycle import PortResult, power_cycle
from utility.snmp import OBJECTS, Snmp
from utility.snmp_switch import SnmpSwitch
from utility.switches import SwitchError

ADDRESS = "172.30.4.254"
ADMIN = "1.3.6.1.2.1.105.1.1.1.3"
DETECTION = "1.3.6.1.2.1.105.1.1.1.6"
PI_1, PI_2, MANAGER = "b8:27:eb:00:00:01", "b8:27:eb:00:00:02", "02:00:00:00:00:01"


class Rack:
    """A switch with a Pi on each of its first two ports, nothing on the third, and the manager on the uplink."""

    def __init__(self, net: Network, directory: Path) -> None:
        self.net = net
        self.wire = f"{net.tag}-wire"
        self.power: list[tuple[int, bool]] = []
        self.has_device = {1: True, 2: True, 3: False}
        net.host("pi1", "172.30.4.11/24", PI_1)
        net.host("pi2", "172.30.4.12/24", PI_2)
        net.host("empty")
        net.host("mgr", "172.30.4.1/24", MANAGER)
        self.ip("addr", "add", f"{ADDRESS}/24", "dev", "br0")
        self.agent = LabSwitch(
            self.wire,
            "br0",
            ["p0", "p1", "p2"],
            ADDRESS,
            directory,
            self.switch,
            self.has_device.__getitem__,
            uplink="p3",
        )

    def ip(self, *words: str) -> None:
        subprocess.run(["ip", "-n", self.wire, *words], check=True)

    def switch(self, port: int, on: bool) -> None:
        self.power.append((port, on))
        self.ip("link", "set", f"p{port - 1}", "up" if on else "down")

    def tool(self, *argv: str) -> str:
        done = self.net.run("mgr", [*argv])
        # What it says beside a good answer (on a new machine: which folder it made) is not looked at.
        return (done.stdout + (done.stderr if done.returncode else "")).strip()

    def ask(self, tool: str, *words: str, community: str = "public") -> str:
        """One of net-snmp's tools, with numbers in and out; each line is OID and value."""
        return self.tool(tool, "-v2c", "-c", community, "-Onq", "-t1", "-r0", ADDRESS, *words)

    def snmp(self, **access: object) -> Snmp:
        settings = SnmpAccess(**({"timeout": 1.0, "retries": 1} | access))  # type: ignore[arg-type]
        return Snmp(Switch(0, IPv4Address(ADDRESS), snmp=settings))


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rack]:
    with Network() as net:
        # Deep, and with blanks: neither may matter to a socket's path or to snmpd's configuration.
        built = Rack(net, tmp_path_factory.mktemp("state") / ("a deep folder " * 7) / "switch")
        built.agent.start()
        try:
            yield built
        finally:
            built.agent.stop()


def test_a_snmpwalk_of_the_poe_table(rack: Rack) -> None:
    assert rack.ask("snmpwalk", ADMIN).splitlines() == [f".{ADMIN}.1.{port} 1" for port in (1, 2, 3)]
    assert rack.ask("snmpwalk", DETECTION).splitlines() == [
        f".{DETECTION}.1.1 3",
        f".{DETECTION}.1.2 3",
        f".{DETECTION}.1.3 2",
    ]


def test_a_snmpwalk_of_the_interfaces_and_bridge_ports_joins(rack: Rack) -> None:
    def column(oid: str) -> dict[str, str]:
        return dict(line.removeprefix(f".{oid}.").split(" ", 1) for line in rack.ask("snmpwalk", oid).splitlines())

    names = column("1.3.6.1.2.1.31.1.1.1.1")
    if_indexes = column("1.3.6.1.2.1.17.1.4.1.2")
    assert {port: names[index] for port, index in if_indexes.items()} == {
        "1": '"p0"',
        "2": '"p1"',
        "3": '"p2"',
        "4": '"p3"',
    }
    assert set(column("1.3.6.1.2.1.17.2.15.1.3").values()) == {"5"}, "every port forwards"
    assert rack.ask("snmpget", "1.3.6.1.2.1.17.1.2.0") == ".1.3.6.1.2.1.17.1.2.0 4"
    assert rack.ask("snmpget", "1.3.6.1.2.1.1.1.0") == '.1.3.6.1.2.1.1.1.0 "Piman lab PoE switch"'


def test_a_walk_of_everything_ends_and_is_in_order(rack: Rack) -> None:
    lines = rack.ask("snmpbulkwalk", "1.3.6.1").splitlines()
    oids = [
        tuple(map(int, line.split(" ")[0].strip(".").split(".")))
        for line in lines
        if "No more" not in line and line[0] == "."
    ]
    assert len(oids) > 150
    assert oids == sorted(set(oids))


def test_snmpset_switches_a_port_and_snmpget_reads_it_back(rack: Rack) -> None:
    rack.power.clear()
    assert rack.ask("snmpset", f"{ADMIN}.1.2", "i", "2", community="private") == f".{ADMIN}.1.2 2"
    assert rack.ask("snmpget", f"{ADMIN}.1.2", f"{DETECTION}.1.2").splitlines() == [
        f".{ADMIN}.1.2 2",
        f".{DETECTION}.1.2 1",
    ]
    assert rack.agent.admin(2) is False
    assert rack.ask("snmpset", f"{ADMIN}.1.2", "i", "1", community="private") == f".{ADMIN}.1.2 1"
    assert rack.power == [(2, False), (2, True)]


@pytest.mark.parametrize(
    ("words", "community", "reason"),
    [
        ([f"{ADMIN}.1.1", "i", "3"], "private", "wrongValue"),
        ([f"{ADMIN}.1.1", "s", "off"], "private", "wrongType"),
        ([f"{DETECTION}.1.1", "i", "1"], "private", "notWritable"),
        ([f"{ADMIN}.1.9", "i", "1"], "private", "notWritable"),
        ([f"{ADMIN}.1.1", "i", "2"], "public", "noAccess"),
        ([f"{ADMIN}.1.1", "i", "2"], "guess", "Timeout"),
    ],
)
def test_snmpset_is_refused_with_the_reason_a_switch_gives(
    rack: Rack, words: list[str], community: str, reason: str
) -> None:
    rack.power.clear()
    assert reason in rack.ask("snmpset", *words, community=community)
    assert rack.power == []


def test_snmpget_of_v1_and_of_what_is_not_there(rack: Rack) -> None:
    assert rack.tool("snmpget", "-v1", "-cpublic", "-Onq", ADDRESS, f"{ADMIN}.1.1") == f".{ADMIN}.1.1 1"
    assert "noSuchName" in rack.tool("snmpget", "-v1", "-cpublic", "-Onq", ADDRESS, f"{ADMIN}.1.9")
    assert "No Such Instance" in rack.ask("snmpget", f"{ADMIN}.1.9")


@pytest.mark.parametrize("version", ["1", "2c"])
def test_our_snmp_reads_what_snmpwalk_reads(rack: Rack, version: str) -> None:
    with rack.net.enter("mgr"), rack.snmp(version=version) as snmp:
        rows = snmp.walk((1, 3, 6, 1, 2, 1, 105))
        missing = (*OBJECTS["pethPsePortAdminEnable"], 1, 9)
        name = (*OBJECTS["sysName"], 0)
        identity = (*OBJECTS["sysObjectID"], 0)
        values = snmp.get([missing, name, identity])
    expected = rack.ask("snmpwalk", "1.3.6.1.2.1.105").splitlines()
    assert [f".{'.'.join(map(str, oid))}" for oid, _ in rows] == [line.split(" ")[0] for line in expected]
    assert [value for _, value in rows if isinstance(value, int)] == [
        int(line.split(" ")[1]) for line in expected if '"' not in line
    ]
    assert values == {missing: None, name: b"lab-switch", identity: (1, 3, 6, 1, 4, 1, 8072, 9999, 9999)}


def test_our_power_cycle_switches_real_ports(rack: Rack) -> None:
    rack.power.clear()
    heard: list[tuple[int, str]] = []
    with rack.net.enter("mgr"), rack.snmp() as snmp:
        results = power_cycle(
            SnmpSwitch(snmp.switch, snmp),
            [2, 1, 3],
            off_time=0.1,
            stagger=0.1,
            on_progress=lambda port, text: heard.append((port, text)),
        )
        states = [port for port in SnmpSwitch(snmp.switch, snmp).ports() if port.has_poe]
    assert results == [
        PortResult(2, ok=True, text="power-cycled"),
        PortResult(1, ok=True, text="power-cycled"),
        PortResult(3, ok=True, text="on; nothing took power there before"),
    ]
    assert rack.power == [(2, False), (1, False), (3, False), (2, True), (1, True), (3, True)]
    assert (1, "delivering power") in heard
    assert [(state.number, state.admin_on, state.detection) for state in states] == [
        (1, True, Detection.DELIVERING),
        (2, True, Detection.DELIVERING),
        (3, True, Detection.SEARCHING),
    ]


def test_find_port_of_macs_learnt_from_real_traffic(rack: Rack) -> None:
    assert rack.net.run("pi2", ["busybox", "ping", "-c1", "-W2", "172.30.4.11"]).returncode == 0
    with rack.net.enter("mgr"), rack.snmp() as snmp, rack.snmp(version="1") as old:
        pi1, pi2 = (
            find_port(PI_1, [SnmpSwitch(snmp.switch, snmp)]),
            find_port(PI_2.upper().replace(":", "-"), [SnmpSwitch(old.switch, old)], [1]),
        )
        manager = find_port(MANAGER, [SnmpSwitch(snmp.switch, snmp)])
        stranger = find_port("b8:27:eb:00:00:99", [SnmpSwitch(snmp.switch, snmp)], [9])
    assert [(seen.port, seen.if_name, seen.macs_on_port) for seen in pi1] == [(1, "p0", 1)]
    assert [(seen.port, seen.if_name, seen.macs_on_port) for seen in pi2] == [(2, "p1", 1)]
    assert [(seen.port, seen.if_name) for seen in manager] == [(4, "p3")]
    assert stranger == []
    assert choose_edge(pi1) == pi1[0]


def test_a_port_that_is_off_has_no_mac_and_comes_back(rack: Rack) -> None:
    oid = (*OBJECTS["pethPsePortAdminEnable"], 1, 1)
    with rack.net.enter("mgr"), rack.snmp() as snmp:
        snmp.set(oid, 2)
        assert find_port(PI_1, [SnmpSwitch(snmp.switch, snmp)]) == []
        snmp.set(oid, 1)
        assert rack.net.run("pi1", ["busybox", "ping", "-c1", "-W5", "172.30.4.1"]).returncode == 0
        assert [seen.port for seen in find_port(PI_1, [SnmpSwitch(snmp.switch, snmp)])] == [1]


def _complain(rack: Rack, ports: list[int], **access: object) -> str:
    with rack.net.enter("mgr"), rack.snmp(**access) as snmp, pytest.raises(SwitchError) as caught:
        power_cycle(SnmpSwitch(snmp.switch, snmp), ports, off_time=0, wait=lambda _seconds: None)
    text = str(caught.value)
    assert "\n" not in text
    return text


QUICK = {"timeout": 0.2, "retries": 1}
SILENT = "no answer from 172.30.4.254 in 2 tries of 0.2 s: is the address right, SNMP on, and the"
FIRST = "switch 172.30.4.254 port 1: pethPsePortAdminEnable.1.1:"
WALKED = "switch 172.30.4.254: sysObjectID.0:"
MAY_NOT = "the write community may not write it: give it write access on the switch, or another community to us"


@pytest.mark.parametrize(
    ("ports", "access", "text"),
    [
        ([1], {"read_community": "guess", **QUICK}, f"{WALKED} {SILENT} read community?"),
        ([1], {"write_community": "guess", **QUICK}, f"{FIRST} {SILENT} write community?"),
        ([1], {"write_community": "public"}, f"{FIRST} {MAY_NOT}"),
        ([1], {"port": 162}, f"{WALKED} port 162 is closed: is SNMP on?"),
    ],
    ids=["wrong read community", "wrong write community", "read-only community", "no agent"],
)
def test_each_error_is_one_line_that_says_what_to_do(
    rack: Rack, ports: list[int], access: dict[str, object], text: str
) -> None:
    rack.power.clear()
    assert _complain(rack, ports, **access) == text
    assert rack.power == [], "nothing was switched"


def test_a_port_that_cannot_be_meant_is_told_and_the_others_are_done(rack: Rack) -> None:
    rack.power.clear()
    with rack.net.enter("mgr"), rack.snmp() as snmp:
        results = power_cycle(SnmpSwitch(snmp.switch, snmp), [4, 1, 77], off_time=0.1)
    assert [(result.port, result.text) for result in results] == [
        (4, "p3 has no PoE"),
        (1, "power-cycled"),
        (77, "no PoE port of that number; the switch has 1-3"),
    ]
    assert rack.power == [(1, False), (1, True)]


def test_a_switch_that_is_not_there(rack: Rack) -> None:
    attic = Switch(1, IPv4Address("172.30.4.99"), "attic", snmp=SnmpAccess(timeout=0.2, retries=0))
    with rack.net.enter("mgr"), Snmp(attic) as snmp, rack.snmp() as good:
        with pytest.raises(
            SwitchError, match=r"^switch attic \(172\.30\.4\.99\): sysObjectID.*: (no answer|cannot be)"
        ):
            SnmpSwitch(attic, snmp).ports()
        switches = [SnmpSwitch(each.switch, each) for each in (snmp, good)]
        errors: list[SwitchError] = []  # and it hides nothing
        assert rack.net.run("pi1", ["busybox", "ping", "-c1", "-W2", "172.30.4.1"]).returncode == 0
        assert [seen.port for seen in find_port(PI_1, switches, on_error=errors.append)] == [1]
        assert len(errors) == 1


def test_an_agent_that_cannot_start_says_why(rack: Rack, tmp_path: Path) -> None:
    second = LabSwitch(rack.wire, "br0", ["p0"], ADDRESS, tmp_path, rack.switch, lambda _port: False)
    with pytest.raises(RuntimeError, match=r"did not start: .*:161"):
        second.start()
    second.stop()
