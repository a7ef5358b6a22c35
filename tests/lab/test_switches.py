"""lab: racks with several switches, with switches of other families, and with a recorded one, asked by snmpget."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab.families import Quirks
from lab.namespaces import LabError
from lab.rack import Rack, SwitchPlan
from lab.replay import parse_record
from utility.config import load_config

POE, FDB = "1.3.6.1.2.1.105.1.1.1", "1.3.6.1.2.1.17.4.3.1.2"


def ask(tool: str, address: object, *words: str, community: str = "public") -> list[str]:
    """The values, one a line."""
    command = [tool, "-v2c", f"-c{community}", "-Oqv", "-t2", "-r1", str(address), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout.split("\n")[:-1]


def digits(mac: str) -> str:
    return ".".join(str(each) for each in bytes.fromhex(mac.replace(":", "")))


def test_a_rack_of_three_switches(tmp_path: Path) -> None:
    plans = [SwitchPlan("comware"), SwitchPlan("cisco-sb"), SwitchPlan("cisco-ios")]
    with Rack(tmp_path, 5, "light", "4", switches=plans, ports=3, stagger=0) as rack:
        config = load_config(rack.config, environ={})
        assert [switch.pi_addresses for switch in config.switches] == [
            (rack.pis[0].address, rack.pis[1].address, None),
            (rack.pis[2].address, rack.pis[3].address, None),
            (rack.pis[4].address, None, None),
        ]
        core, middle, edge = (switch.address for switch in config.switches)
        rack.start()
        assert rack.wait(lambda: all(pi.is_on for pi in rack.pis), 20)

        # every Pi asks for an address by broadcast, so that each switch learns it
        def ports(address: object, number: int) -> list[str]:
            return ask("snmpget", address, f"{FDB}.{digits(rack.pis[number - 1].mac)}")

        where = {(core, 1): "1", (core, 3): "5", (core, 5): "6", (middle, 1): "52", (middle, 3): "49", (edge, 5): "1"}
        for (address, number), port in where.items():
            assert rack.wait(lambda a=address, n=number, p=port: ports(a, n) == [p], 60), (address, number)  # type: ignore[misc]
        assert ask("snmpwalk", core, "1.0.8802.1.1.2.1.4.1.1.9") == ['"lab-switch1"', '"lab-switch2"']
        assert ask("snmpwalk", edge, "1.0.8802.1.1.2.1.4.1.1.7") == ['"GigabitEthernet1/0/6"']

        # the second switch's second port is Pi 4
        assert rack.switch_of(rack.pis[3]) is rack.switches[1]
        assert ask("snmpset", middle, f"{POE}.3.1.50", "i", "2", community="private") == ["2"]
        assert [pi.is_on for pi in rack.pis] == [True, True, True, False, True]
        assert rack.wait(lambda: ask("snmpget", middle, "1.3.6.1.2.1.2.2.1.8.50") == ["2"], 10)
        assert ask("snmpset", edge, "1.3.6.1.4.1.9.9.402.1.2.1.1.1.1", "i", "4", community="private") == ["4"]
        assert not rack.pis[4].is_on


def test_a_budget_and_a_detection_that_takes_time(tmp_path: Path) -> None:
    plan = SwitchPlan("procurve", detect=0.5, budget=9000)
    with Rack(tmp_path, 3, "light", "4", switches=[plan], ports=6, stagger=0) as rack:
        rack.start()
        assert rack.wait(lambda: [pi.is_on for pi in rack.pis] == [True, True, False], 10)
        address = load_config(rack.config, environ={}).switches[0].address
        assert ask("snmpwalk", address, f"{POE}.6") == ["3", "3", "2", "2", "2", "2"]
        assert ask("snmpset", address, f"{POE}.3.1.1", "i", "2", community="private") == ["2"]
        assert rack.wait(lambda: [pi.is_on for pi in rack.pis] == [False, True, True], 10)
        assert rack.wait(lambda: ask("snmpwalk", address, f"{POE}.6")[:3] == ["1", "3", "3"], 10)


def test_a_port_without_poe_has_a_pi_with_a_supply_of_its_own(tmp_path: Path) -> None:
    plan = SwitchPlan("huawei", Quirks(without_poe=frozenset({2})))
    with Rack(tmp_path, 2, "light", "4", switches=[plan], stagger=0) as rack:
        rack.start()
        assert rack.wait(lambda: all(pi.is_on for pi in rack.pis), 10)
        address = load_config(rack.config, environ={}).switches[0].address
        assert ask("snmpwalk", address, "1.3.6.1.4.1.2011.5.25.195.3.1.3") == ["1"]


def test_a_recorded_switch_powers_the_pis_of_the_lab(tmp_path: Path) -> None:
    record = parse_record(f".{POE}.3.4.17 = INTEGER: 1\n.{POE}.3.4.18 = INTEGER: 2\n.{POE}.6.4.18 = INTEGER: 1")
    with Rack(tmp_path, 2, "light", "4", switches=[SwitchPlan(record=record)], stagger=0) as rack:
        rack.start()
        assert rack.wait(lambda: rack.pis[0].is_on, 10)
        address = load_config(rack.config, environ={}).switches[0].address
        assert ask("snmpset", address, f"{POE}.3.4.17", "i", "2", community="private") == ["2"]
        assert ask("snmpset", address, f"{POE}.3.4.18", "i", "1", community="private") == ["1"]
        assert [pi.is_on for pi in rack.pis] == [False, True]
        assert rack.wait(lambda: ask("snmpget", address, f"{POE}.6.4.18") == ["3"], 10)


@pytest.mark.parametrize(
    ("switches", "problem"),
    [
        ([], "0 switches: a rack has 1 to 16, and a Pi on each"),
        ([SwitchPlan()] * 4, "4 switches: a rack has 1 to 16, and a Pi on each"),
        ([SwitchPlan("ios")], "no family of switches 'ios'; there are standard, "),
        (
            [SwitchPlan(record=parse_record(f".{POE}.3.1.1 = INTEGER: 1"))],
            "the recorded switch has 1 PoE ports, too few",
        ),
    ],
)
def test_switches_that_cannot_be(tmp_path: Path, switches: list[SwitchPlan], problem: str) -> None:
    with pytest.raises(LabError, match=problem):
        Rack(tmp_path, 3, "light", switches=switches)
